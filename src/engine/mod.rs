//! L2 core: one DHT node for each socket, and torrents; the one place where the two meet. Peers that
//! a lookup finds become candidates of a torrent; a torrent that lacks peers starts a lookup.
//!
//! A host (the driver or the simulator) feeds it datagrams, connections, disk results and time, and
//! carries out its [`Output`]s. It decides nothing about pieces or contacts itself.

mod commands;
mod config;
mod connections;
mod discovery;
mod event;
mod outputs;
mod sharing;
mod switchboard;

#[cfg(test)]
mod tests;

pub use config::{AddTorrent, Config, NodeConfig};
pub use discovery::DiscoveryStatus;
pub use event::{AddError, CommandId, Event, NodeEvent, Output, Refused, SocketId, TorrentId};
pub use switchboard::Engine;
