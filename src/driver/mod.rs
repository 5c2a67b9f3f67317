//! L3: the tokio host of the cores. The only room with sockets, files, threads, the clock and the
//! system's randomness. One task owns the engine (`event_loop.rs`), so there is no lock order to
//! know; connections, disk workers and callers reach it through bounded channels.

mod add;
mod buffers;
mod clock;
mod command;
pub mod create;
mod descriptors;
mod dht;
pub mod disk;
mod dns;
pub mod entropy;
mod event_loop;
mod events;
mod lookup;
mod news;
mod node_state;
mod reader;
pub mod resume;
mod session;
mod stage;
pub mod state_file;
mod status;
mod storage;
mod tcp;
mod torrent;
mod udp;
pub mod verify;

#[cfg(test)]
mod tests;

pub use crate::base::budget::RateLimits;
pub use crate::engine::AddError;
pub use add::{AddTorrent, Output, TorrentFileError};
pub use command::{DhtStage, TorrentEvent, TorrentStatus};
pub use dht::{Dht, DhtConfig, Pong, Sample, public_bootstrap};
pub use disk::Erased;
pub use events::{Events, SessionEvent};
pub use lookup::{DhtError, Lookup, Outcome};
pub use reader::{FileReader, ReadError};
pub use session::{Session, SessionConfig, SessionError};
pub(crate) use stage::plural;
pub use stage::{Obstacle, Stage};
pub use status::{NodeStatus, SessionStatus};
pub use torrent::Torrent;
