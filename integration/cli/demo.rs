//! The README's first command.

use super::run;

#[test]
fn demo_ends_with_matching_hashes() {
    let done = run(&["demo", "--size", "3MiB", "--nodes", "6"]).expect(0);
    assert!(done.stdout.starts_with("ok: 3.0 MiB"), "{done:#?}");
    assert_eq!(done.stdout.lines().count(), 1, "{done:#?}");
    for stage in ["network", "file", "share", "announce", "metadata", "data", "verify"] {
        assert!(done.stderr.lines().any(|l| l.starts_with(stage)), "{stage}: {done:#?}");
    }
}

#[test]
fn demo_in_json_is_one_object_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = crate::rig::trackless(temporary.path());
    command.env("TMPDIR", temporary.path()).args(["demo", "--json", "--size", "1", "--nodes", "1"]);
    let done = crate::rig::finish(&mut command, None).expect(0);
    let json = done.json();
    assert_eq!((&json["code"], &json["bytes"]), (&0.into(), &1.into()));
    assert_eq!(json["sha256"].as_str().unwrap().len(), 64);
    assert!(json["stages"]["data"].as_f64().unwrap() >= 0.0, "{json}");
    assert_eq!(done.stderr, "");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn demo_refuses_a_size_of_nothing() {
    run(&["demo", "--size", "0"]).expect(2);
}
