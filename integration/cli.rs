//! The contract of the command line: streams, JSON, exit codes, help, the verbs that need no network, and
//! those that do on a private one.

use std::path::Path;

use crate::rig::{self, Done};

mod demo;
mod dht;
mod handler;
mod items;
mod metrics;
mod network;
mod offline;
mod stdout;
mod streams;

// Runs the program in a home of its own.
fn run(args: &[&str]) -> Done {
    let home = tempfile::tempdir().unwrap();
    rig::run(home.path(), args)
}

// A path as an argument.
fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
