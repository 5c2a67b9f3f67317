#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod base;
#[cfg(feature = "cli")]
pub mod cli;
pub mod dht;
#[cfg(feature = "driver")]
pub mod driver;
pub mod engine;
pub mod peer;
pub mod sim;
pub mod swarm;
pub mod wire;
