//! `handler`: the desktop's files, in a home of its own; without xdg-mime, with one that the test
//! can watch, and with the desktop's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::arg;
use crate::rig::{self, Done};
use crate::world::{have, installed};

const BEFORE: &str = "[Added Associations]\nimage/png=gimp.desktop;\n\n\
                      [Default Applications]\ntext/html=firefox.desktop\n\
                      x-scheme-handler/magnet=qb.desktop;\n";

// On a desktop of nobody else's: the system's own lists are not part of the test.
fn handler(home: &Path, path: &str, args: &[&str]) -> Done {
    let mut command = rig::trackless(home);
    command.env("XDG_CONFIG_DIRS", "/nonexistent").env("XDG_DATA_DIRS", "/nonexistent");
    for name in ["XDG_CURRENT_DESKTOP", "DESKTOP_SESSION", "KDE_FULL_SESSION"] {
        command.env_remove(name);
    }
    rig::finish(command.env("PATH", path).arg("handler").args(args), None)
}

// Without xdg-mime.
fn plain(home: &Path, args: &[&str]) -> Done {
    handler(home, "/nonexistent", args)
}

// An xdg-mime that notes what it is asked and keeps its choice in a file of its own; with `fails`
// it can do nothing.
fn fake_xdg_mime(home: &Path, fails: bool) -> String {
    let (bin, log, choice) = (home.join("bin"), home.join("asked"), home.join("choice"));
    fs::create_dir_all(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\n{}\ncase $1 in\n\
         query) while read -r line; do echo \"$line\"; done < '{choice}';;\n\
         default) echo \"$2\" > '{choice}';;\nesac\n",
        log.display(),
        if fails { "[ $1 = query ] || { echo no such desktop >&2; exit 4; }" } else { "" },
        choice = choice.display(),
    );
    fs::write(&choice, "").unwrap();
    fs::write(bin.join("xdg-mime"), script).unwrap();
    fs::set_permissions(bin.join("xdg-mime"), fs::Permissions::from_mode(0o755)).unwrap();
    bin.to_str().unwrap().to_owned()
}

// What our fake was asked since the last time.
fn asked(home: &Path) -> Vec<String> {
    let log = home.join("asked");
    let lines = fs::read_to_string(&log).unwrap_or_default();
    drop(fs::remove_file(log));
    lines.lines().map(str::to_owned).collect()
}

const ASK: &str = "query default x-scheme-handler/magnet";
const TAKE: &str = "default trackless.desktop x-scheme-handler/magnet";

#[test]
fn xdg_mime_is_asked_and_told_where_it_is_installed() {
    let home = tempfile::tempdir().unwrap();
    let bin = fake_xdg_mime(home.path(), false);
    let list = home.path().join(".config/mimeapps.list");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, BEFORE).unwrap();
    fs::write(home.path().join("choice"), "qb.desktop\n").unwrap();

    let dry = handler(home.path(), &bin, &["install", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["commands"], serde_json::json!([format!("xdg-mime {TAKE}")]));
    assert_eq!(dry["files"].as_array().unwrap().len(), 2, "{dry}");
    assert_eq!(asked(home.path()), [ASK], "a dry run asks and changes nothing");
    let told = handler(home.path(), &bin, &["install", "--dry-run"]).expect(0);
    assert!(told.stderr.contains(&format!("would run: xdg-mime {TAKE}")), "{told:#?}");
    assert_eq!(fs::read_to_string(&list).unwrap(), BEFORE);

    asked(home.path());
    handler(home.path(), &bin, &["install"]).expect(0);
    assert_eq!(asked(home.path()), [ASK, TAKE]);
    // It keeps its choice elsewhere: the list names us all the same.
    assert!(fs::read_to_string(&list).unwrap().contains("magnet=trackless.desktop;"));
    let status = handler(home.path(), &bin, &["status", "--json"]).expect(0).json();
    assert_eq!(status["installed"], true);
    assert_eq!(asked(home.path()), [ASK]);
    let again = handler(home.path(), &bin, &["install"]).expect(0);
    assert!(again.stderr.contains("nothing to change"), "{again:#?}");
    assert_eq!(asked(home.path()), [ASK], "a second install changes nothing");

    handler(home.path(), &bin, &["remove"]).expect(0);
    assert_eq!(asked(home.path()), [ASK, "default qb.desktop x-scheme-handler/magnet"]);
    assert_eq!(fs::read_to_string(&list).unwrap(), BEFORE);
    let status = handler(home.path(), &bin, &["status"]).expect(0);
    assert_eq!(status.stdout, "qb.desktop\n");
}

#[test]
fn list_is_edited_where_xdg_mime_fails() {
    let home = tempfile::tempdir().unwrap();
    let bin = fake_xdg_mime(home.path(), true);
    let done = handler(home.path(), &bin, &["install"]).expect(0);
    assert_eq!(asked(home.path()), [ASK, TAKE]);
    assert!(done.stderr.contains("no such desktop"), "its own words: {done:#?}");
    assert_eq!(done.stdout.lines().count(), 2, "{done:#?}");
    // It says nothing; the list does.
    assert_eq!(handler(home.path(), &bin, &["status"]).expect(0).stdout, "trackless.desktop\n");
    handler(home.path(), &bin, &["remove"]).expect(0);
    assert_eq!(handler(home.path(), &bin, &["status"]).expect(0).stdout, "none\n");
}

#[test]
fn desktops_own_xdg_mime_takes_and_gives_back() {
    if !have(installed("xdg-mime")) {
        return;
    }
    let path = std::env::var("PATH").unwrap();
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join(".config/mimeapps.list");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, BEFORE).unwrap();
    handler(home.path(), &path, &["install"]).expect(0);
    let query = Command::new("xdg-mime")
        .args(["query", "default", "x-scheme-handler/magnet"])
        .env("HOME", home.path())
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME")
        .output();
    assert_eq!(String::from_utf8_lossy(&query.unwrap().stdout), "trackless.desktop\n");
    let status = handler(home.path(), &path, &["status"]).expect(0);
    assert_eq!(status.stdout, "trackless.desktop\n");
    handler(home.path(), &path, &["remove"]).expect(0);
    assert_eq!(fs::read_to_string(&list).unwrap(), BEFORE);
}

#[test]
fn install_takes_magnet_links_and_remove_gives_them_back() {
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join(".config/mimeapps.list");
    let entry = home.path().join(".local/share/applications/trackless.desktop");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, BEFORE).unwrap();

    let done = plain(home.path(), &["install"]).expect(0);
    assert_eq!(done.stdout, format!("{}\n{}\n", arg(&entry), arg(&list)));
    let text = fs::read_to_string(&entry).unwrap();
    assert!(text.contains(&format!("Exec=\"{}\" open %u\n", rig::TRACKLESS)), "{text}");
    assert!(text.contains("MimeType=x-scheme-handler/magnet;"), "{text}");
    let now = fs::read_to_string(&list).unwrap();
    assert_eq!(now, BEFORE.replace("qb.desktop;", "trackless.desktop;"), "only our line changed");
    let status = plain(home.path(), &["status", "--json"]).expect(0).json();
    assert_eq!(
        (&status["installed"], &status["default"]),
        (&true.into(), &"trackless.desktop".into())
    );

    let again = plain(home.path(), &["install"]).expect(0);
    assert_eq!(again.stdout, "", "a second install changes nothing");
    assert_eq!(fs::read_to_string(&entry).unwrap(), text);

    plain(home.path(), &["remove"]).expect(0);
    assert!(!entry.exists());
    assert_eq!(fs::read_to_string(&list).unwrap(), BEFORE);
    assert_eq!(plain(home.path(), &["remove"]).expect(0).stdout, "");
}

#[test]
fn dry_run_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let done = plain(home.path(), &["install", "--dry-run"]).expect(0);
    assert_eq!(done.stdout.lines().count(), 2, "{done:#?}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn remove_leaves_a_later_choice_alone() {
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join(".config/mimeapps.list");
    plain(home.path(), &["install"]).expect(0);
    let other = "[Default Applications]\nx-scheme-handler/magnet=deluge.desktop;\n";
    fs::write(&list, other).unwrap();
    plain(home.path(), &["remove"]).expect(0);
    assert_eq!(fs::read_to_string(&list).unwrap(), other);
}

#[test]
fn status_without_any_handler_says_none() {
    let home = tempfile::tempdir().unwrap();
    let done = plain(home.path(), &["status"]).expect(0);
    assert_eq!(done.stdout, "none\n");
    assert!(done.stderr.contains("handler install"), "{done:#?}");
}

#[test]
fn unwritable_folder_ends_with_9() {
    let home = tempfile::tempdir().unwrap();
    // A file where the folder must be: fails for root too.
    fs::write(home.path().join(".local"), "").unwrap();
    let done = plain(home.path(), &["install"]);
    assert!([8, 9, 10].contains(&done.code()), "{done:#?}");
    assert!(done.stderr.contains(".local"), "the path is named: {done:#?}");
}
