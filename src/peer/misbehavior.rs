//! The rules a peer can break, one variant each. Breaking one closes the connection.

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehavior {
    /// The first bytes are not a BitTorrent handshake (BEP 3).
    BadHandshake,
}
