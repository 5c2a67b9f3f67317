//! Names that a connection shares with its host.

/// Names one TCP (later uTP) connection; the engine hands them out, never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Why we end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It broke a rule; the variant (see `misbehavior.rs`) names the rule.
    Misbehavior(super::Misbehavior),
    /// It is us, or a second connection to the same peer.
    Duplicate,
    /// Its handshake names a torrent that is not here.
    UnknownTorrent,
    /// No handshake within the time allowed.
    HandshakeTimeout,
    /// Nothing was heard for too long.
    Idle,
    /// Neither side has anything for the other: both are seeds.
    Useless,
    /// There are more connections than allowed and others serve us better.
    Crowded,
    /// Its address is banned.
    Banned,
    /// The torrent ends.
    Stopped,
}
