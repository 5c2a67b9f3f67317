//! The contract of the command line: streams, JSON, exit codes, help, and the verbs that need no
//! network.

use std::path::Path;

use crate::rig::{self, Done};

mod handler;
mod offline;
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
