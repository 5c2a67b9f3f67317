//! stdout carries the result and nothing else; exit codes; help.

use std::io::Read;
use std::process::Stdio;

use super::run;
use crate::rig;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn help_of_every_verb_goes_to_stdout_with_an_example() {
    let top = run(&["--help"]).expect(0);
    assert!(top.stdout.contains("Exit codes:") && top.stderr.is_empty(), "{top:#?}");
    let verbs: Vec<_> = top
        .stdout
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| !l.trim().is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"info") && verbs.contains(&"handler"), "{verbs:?}");
    for verb in verbs {
        let help = run(&[verb, "--help"]).expect(0);
        assert!(help.stdout.contains("Example"), "{verb}: {}", help.stdout);
        assert!(help.stderr.is_empty(), "{verb}");
    }
}

#[test]
fn version_names_the_program() {
    let done = run(&["--version"]).expect(0);
    assert_eq!(done.stdout, format!("trackless {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_command_line_ends_with_2_and_an_empty_stdout() {
    for args in [&[][..], &["fly"], &["info"], &["info", HASH, "--fast"], &["-q", "-x"]] {
        let done = run(args).expect(2);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}: {done:#?}");
    }
}

#[test]
fn wrong_command_line_is_one_json_object_too() {
    for (args, named) in [(&["--json", "fly"][..], "fly"), (&["info", "--json"], "FILE|LINK")] {
        let json = run(args).expect(2).json();
        assert_eq!(json["code"], 2, "{json}");
        assert!(json["error"].as_str().unwrap().contains(named), "{json}");
        assert!(!json["error"].as_str().unwrap().is_empty(), "{json}");
        assert!(!json["advice"].as_str().unwrap().is_empty(), "{json}");
    }
}

#[test]
fn bad_link_ends_with_3_names_the_fault_and_what_to_do() {
    for link in ["magnet:?dn=x", "nonsense", "magnet:?xt=urn:btih:123", "missing.torrent"] {
        let done = run(&["info", link]).expect(3);
        assert!(done.stdout.is_empty(), "{done:#?}");
        assert!(done.stderr.starts_with("trackless: "), "{done:#?}");
        assert_eq!(done.stderr.lines().count(), 2, "a cause and an advice: {done:#?}");
        let json = run(&["--json", "info", link]).expect(3).json();
        assert_eq!(json["code"], 3, "{json}");
    }
}

#[test]
fn json_flag_stands_anywhere_and_in_the_environment() {
    let home = tempfile::tempdir().unwrap();
    for args in
        [&["--json", "info", HASH][..], &["info", "--json", HASH], &["info", HASH, "--json"]]
    {
        assert_eq!(rig::run(home.path(), args).expect(0).json()["info_hash"], HASH);
    }
    let mut command = rig::trackless(home.path());
    let done = rig::finish(command.args(["info", HASH]).env("TRACKLESS_JSON", "1"), None);
    assert_eq!(done.expect(0).json()["info_hash"], HASH);
}

#[test]
fn variable_that_is_set_to_nothing_is_not_set() {
    let home = tempfile::tempdir().unwrap();
    let mut command = rig::trackless(home.path());
    for flag in ["STATE_DIR", "TIMEOUT", "LISTEN", "BOOTSTRAP", "PEER", "OUTPUT", "SEED", "FILES"] {
        command.env(format!("TRACKLESS_{flag}"), "");
    }
    command.env("TRACKLESS_JSON", "").env("TRACKLESS_VERBOSE", "").current_dir(home.path());
    let done = rig::finish(command.args(["get", HASH, "--no-dht"]), None).expect(4);
    assert_eq!(done.stdout, "", "no JSON was asked for: {done:#?}");
    assert!(done.stderr.contains("no peer was given"), "{done:#?}");
    assert!(home.path().join(".local/state/trackless").is_dir(), "the usual place");
}

#[test]
fn foreign_text_is_escaped() {
    let link = format!("magnet:?xt=urn:btih:{HASH}&dn=a%1b%5b31mred%e2%80%aeb%0ac");
    let done = run(&["info", &link]).expect(0);
    assert!(!done.stdout.contains(['\x1b', '\u{202e}']), "{done:#?}");
    assert!(done.stdout.contains("a\\u{1b}[31mred\\u{202e}b\\nc"), "{done:#?}");
}

#[test]
fn reader_that_goes_away_is_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let mut child = rig::trackless(home.path())
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let status = rig::wait(&mut child, rig::DEADLINE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn full_disk_below_stdout_is_a_failure() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let home = tempfile::tempdir().unwrap();
    let mut command = rig::trackless(home.path());
    let status = command.args(["info", HASH]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(8));
}

#[test]
fn closed_streams_are_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let line = format!("exec '{}' info nonsense >&- 2>&-", rig::TRACKLESS);
    let mut shell = std::process::Command::new("sh");
    let status = shell.args(["-c", &line]).env("HOME", home.path()).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[test]
fn completions_and_manual_come_from_the_same_grammar() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("trackless") && script.contains("handler"), "{shell}");
    }
    assert!(run(&["man"]).expect(0).stdout.contains(".TH trackless 1"));
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("man1");
    rig::run(home.path(), &["man", "-o", super::arg(&dir)]).expect(0);
    for page in ["trackless.1", "trackless-info.1", "trackless-handler.1"] {
        assert!(dir.join(page).is_file(), "{page}");
    }
}
