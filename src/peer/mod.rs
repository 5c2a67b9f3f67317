//! L2 core: one wire connection (BEP 3, 6, 10). Never names a torrent.

mod event;
mod misbehavior;

pub use event::{CloseReason, ConnId};
pub use misbehavior::Misbehavior;
