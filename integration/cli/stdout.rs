//! `get --stdout`: the data itself, while it comes.

use std::fs;
use std::io::Read;
use std::process::{Output, Stdio};

use super::arg;
use super::network::{Lab, pattern};

// Runs it where what it leaves behind is seen.
fn get(lab: &Lab, args: &[&str]) -> Output {
    let scratch = lab.path("scratch");
    fs::create_dir_all(&scratch).unwrap();
    let mut command = lab.command(&[&["get", "--stdout"], args].concat());
    let done = command.env("TMPDIR", &scratch).output().unwrap();
    let left: Vec<_> = fs::read_dir(&scratch).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    done
}

fn assert_ended(done: &Output, code: i32) {
    assert_eq!(done.status.code(), Some(code), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn data_goes_to_stdout_and_stays_only_where_it_is_told_to() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let done = get(&lab, &[&magnet, "--files", "one.bin"]);
    assert_ended(&done, 0);
    assert!(done.stdout == pattern(700_001), "{} bytes", done.stdout.len());
    // File after file, and saved as well.
    let out = lab.path("out");
    let done = get(&lab, &[&magnet, "-o", arg(&out), "--limit-down", "8MiB"]);
    assert_ended(&done, 0);
    let both = [pattern(700_001), pattern(33_333)].concat();
    assert!(done.stdout == both, "{} bytes", done.stdout.len());
    lab.assert_fetched(&out);
    // What is here already is read from there.
    let done = get(&lab, &[&magnet, "-o", arg(&out), "--files", "two.txt"]);
    assert_ended(&done, 0);
    assert!(done.stdout == pattern(33_333));
}

#[test]
fn reader_that_has_seen_enough_ends_it_well() {
    let lab = Lab::new();
    let big = lab.path("big.bin");
    fs::write(&big, pattern(8 << 20)).unwrap();
    let mut share =
        crate::rig::Running::start(&mut lab.command(&["share", "--no-super-seeding", arg(&big)]));
    let magnet = share.line();
    // It would take two minutes.
    let mut command = lab.command(&["get", "--stdout", &magnet, "--limit-down", "64KiB"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut head = vec![0; 1000];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut head).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(head == pattern(1000));
}

#[test]
fn stdout_takes_one_link_and_no_other_result() {
    let lab = Lab::new();
    let hash = "0123456789abcdef0123456789abcdef01234567";
    for wrong in [&[hash, "--json"][..], &[hash, hash], &[hash, "--list"], &[hash, "--seed=1"]] {
        let done = get(&lab, wrong);
        assert_ended(&done, 2);
    }
}
