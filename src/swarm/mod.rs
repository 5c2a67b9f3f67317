//! L2 core: one torrent. Metadata exchange, picker, choker, candidates. Owns its connections.

pub mod blame;
pub mod candidates;
pub mod choker;
mod disk;
mod event;
mod fast;
pub mod layout;
mod metadata;
mod pex;
pub mod picker;
mod superseed;
mod throttle;
mod torrent;

pub use disk::{DiskError, DiskErrorKind, DiskEvent, DiskRequest, PieceIndex};
pub use event::{
    Config, DialError, Event, FileStatus, Output, PeerSource, PeerStatus, Phase, ReaderId, Status,
    StopCause,
};
pub use torrent::Torrent;
