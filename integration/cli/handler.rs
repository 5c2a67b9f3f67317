//! `handler`: the desktop's files, in a home of its own.

use std::fs;

use super::arg;
use crate::rig;

const BEFORE: &str = "[Added Associations]\nimage/png=gimp.desktop;\n\n\
                      [Default Applications]\ntext/html=firefox.desktop\n\
                      x-scheme-handler/magnet=qb.desktop;\n";

#[test]
fn install_takes_magnet_links_and_remove_gives_them_back() {
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join(".config/mimeapps.list");
    let entry = home.path().join(".local/share/applications/trackless.desktop");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, BEFORE).unwrap();

    let done = rig::run(home.path(), &["handler", "install"]).expect(0);
    assert_eq!(done.stdout, format!("{}\n{}\n", arg(&entry), arg(&list)));
    let text = fs::read_to_string(&entry).unwrap();
    assert!(text.contains(&format!("Exec=\"{}\" open %u\n", rig::TRACKLESS)), "{text}");
    assert!(text.contains("MimeType=x-scheme-handler/magnet;"), "{text}");
    let now = fs::read_to_string(&list).unwrap();
    assert_eq!(now, BEFORE.replace("qb.desktop;", "trackless.desktop;"), "only our line changed");
    let status = rig::run(home.path(), &["handler", "status", "--json"]).expect(0).json();
    assert_eq!(
        (&status["installed"], &status["default"]),
        (&true.into(), &"trackless.desktop".into())
    );

    let again = rig::run(home.path(), &["handler", "install"]).expect(0);
    assert_eq!(again.stdout, "", "a second install changes nothing");
    assert_eq!(fs::read_to_string(&entry).unwrap(), text);

    rig::run(home.path(), &["handler", "remove"]).expect(0);
    assert!(!entry.exists());
    assert_eq!(fs::read_to_string(&list).unwrap(), BEFORE);
    assert_eq!(rig::run(home.path(), &["handler", "remove"]).expect(0).stdout, "");
}

#[test]
fn dry_run_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let done = rig::run(home.path(), &["handler", "install", "--dry-run"]).expect(0);
    assert_eq!(done.stdout.lines().count(), 2, "{done:#?}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn remove_leaves_a_later_choice_alone() {
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join(".config/mimeapps.list");
    rig::run(home.path(), &["handler", "install"]).expect(0);
    let other = "[Default Applications]\nx-scheme-handler/magnet=deluge.desktop;\n";
    fs::write(&list, other).unwrap();
    rig::run(home.path(), &["handler", "remove"]).expect(0);
    assert_eq!(fs::read_to_string(&list).unwrap(), other);
}

#[test]
fn status_without_any_handler_says_none() {
    let home = tempfile::tempdir().unwrap();
    let mut command = rig::trackless(home.path());
    // The system's own lists are not part of the test.
    command.env("XDG_CONFIG_DIRS", "/nonexistent").env("XDG_DATA_DIRS", "/nonexistent");
    let done = rig::finish(command.args(["handler", "status"]), None).expect(0);
    assert_eq!(done.stdout, "none\n");
    assert!(done.stderr.contains("handler install"), "{done:#?}");
}

#[test]
fn unwritable_folder_ends_with_9() {
    let home = tempfile::tempdir().unwrap();
    // A file where the folder must be: fails for root too.
    fs::write(home.path().join(".local"), "").unwrap();
    let done = rig::run(home.path(), &["handler", "install"]);
    assert!([8, 9, 10].contains(&done.code()), "{done:#?}");
    assert!(done.stderr.contains(".local"), "the path is named: {done:#?}");
}
