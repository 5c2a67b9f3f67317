//! A network namespace with 10.77.0.0/16 on its loopback device, for clients that take 127.0.0.0/8
//! for martian (Transmission, and every DHT node built on jech/dht). The test starts itself again
//! inside; the kernel ends whatever is left when it is done.

use std::io::Write;

use super::{Launch, have, installed, root, secs};

/// Runs `body` inside a private network; `test` is the full name of the calling test.
pub fn inside(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if !have(permitted()) {
        return;
    }
    let this = std::env::current_exe().expect("this test has a file");
    let ended = Launch::new("unshare")
        .args(wrapping())
        .arg(this)
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .start()
        .wait(secs(280));
    assert_eq!(ended.code, 0, "inside the private network:\n{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("1 passed"), "{test} names no test:\n{}", ended.stdout);
    // Skipped in there is skipped out here.
    for line in ended.stderr.lines().filter(|line| line.starts_with("SKIPPED")) {
        have(Err(line.trim_start_matches("SKIPPED: ").to_owned()));
    }
    for line in ended.stderr.lines().filter(|line| line.starts_with("FIGURE")) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Arguments of `unshare`, before the program that is to run in a private network. It has to be told
/// so: [`INSIDE`] is set for it.
pub fn wrapping() -> Vec<&'static str> {
    let mut args = namespaces();
    args.extend(["sh", "-c", SETUP, "sh"]);
    args
}

/// Are we inside?
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn namespaces() -> Vec<&'static str> {
    let mut args = vec!["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if root().is_err() {
        args.splice(0..0, ["--user", "--map-root-user"]);
    }
    args
}

/// Can there be private networks?
pub fn permitted() -> Result<(), String> {
    installed("unshare")?;
    installed("ip")?;
    let tried = Launch::new("unshare").args(wrapping()).arg("true");
    match tried.run(secs(20)).code {
        0 => Ok(()),
        _ => Err("network namespaces are not permitted here".to_owned()),
    }
}

/// The variable by which a program knows that it is inside.
pub const INSIDE: &str = "TRACKLESS_TEST_NETWORK";
const SETUP: &str = "ip link set lo up && ip addr add 10.77.0.1/16 dev lo && exec \"$@\"";
