#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod base;
pub mod wire;
pub mod dht;
pub mod peer;
pub mod swarm;
pub mod engine;
#[cfg(feature = "driver")]
pub mod driver;
pub mod sim;
#[cfg(feature = "cli")]
pub mod cli;
