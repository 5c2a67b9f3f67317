//! End-to-end tests in one binary: the program as it is built, the rules of the house, and real
//! clients. Nothing here leaves loopback.

#![allow(clippy::disallowed_methods, reason = "tests watch real processes: they need the clock")]

mod cli;
mod layering;
mod rig;
mod tidy;
