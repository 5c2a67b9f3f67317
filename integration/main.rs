//! End-to-end tests in one binary: the program as it is built, the rules of the house, and real
//! clients. Nothing here leaves loopback.

#![allow(clippy::disallowed_methods, reason = "tests watch real processes: they need the clock")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a test says is shown when it fails"
)]

mod cli;
mod clients;
mod clocks;
mod crash;
mod faults;
mod fuzz;
mod hostile_dht;
mod hostile_leech;
mod hostile_limits;
mod hostile_lookup;
mod hostile_metadata;
mod hostile_peer;
mod interop;
mod items;
mod layering;
mod lossy;
mod magnets;
mod many;
mod power;
mod process;
mod regressions;
mod rig;
mod sizes;
mod storage;
mod tidy;
mod torrents;
mod world;
