//! L2 core: one wire connection (BEP 3, 6, 10). Never names a torrent.

mod connection;
mod event;
mod grant;
mod misbehavior;
mod pieces;
mod rates;
mod requests;
#[cfg(test)]
mod tests;
mod uploads;

pub use connection::Connection;
pub use event::{CloseReason, ConnId, Received};
pub use misbehavior::{Consequence, Misbehavior};
pub use pieces::{Geometry, RemotePieces};
pub use rates::Meter;
pub use requests::{Asked, Requests};
pub use uploads::{REQUESTS_QUEUED_MAX, Uploads};
