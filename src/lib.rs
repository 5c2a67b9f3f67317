//! A trackerless BitTorrent node. Three ways in:
//!
//! - [`driver::Dht`]: the Mainline DHT alone. Lookups are streams; see the example there, and those in the
//!   folder `examples/`: `lookup`, `announce`, `mutable_items`.
//! - [`driver::Session`]: DHT nodes, torrents, downloads and seeds, on tokio; `download` and `stream` in `examples/`.
//! - The cores below, which a host of your own drives: [`dht::Node`] is one DHT node, [`engine::Engine`] nodes and
//!   torrents together. They own no socket, file, clock or chance, and are built without an async runtime by
//!   `--no-default-features`. [`sim`] is such a host, and where they are tested.
//!
//! What follows is the map of the sources.
//!
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
