//! Names that a connection shares with its host, and what one frame can mean.

use bytes::Bytes;

use crate::wire::extension::{MetadataMessage, Pex};
use crate::wire::handshake::Handshake;
use crate::wire::peer::BlockRef;

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

/// What one frame meant, once the connection has kept its books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Nothing that the owner has to act on.
    Nothing,
    /// The peer's handshake, on a connection that we dialled.
    Handshake(Handshake),
    /// We may ask now.
    Unchoked,
    /// We may not ask any more; these requests died with it.
    Choked(Vec<BlockRef>),
    /// The peer's interest in us changed.
    Interest,
    /// It has one more piece.
    Have(u32),
    /// It has lost a piece that it had (BEP 54).
    Lost {
        /// Which piece.
        piece: u32,
        /// Requests for it, which died with it.
        asked: Vec<BlockRef>,
    },
    /// It told the whole set of its pieces. If it did so before, this was the set until now.
    Pieces(Option<crate::wire::bitfield::Bitfield>),
    /// A request that may be answered, as far as this connection can judge: the owner looks if
    /// the piece is here and calls `serve` or `refuse`.
    Request(BlockRef),
    /// A block that we asked for.
    Block {
        /// Which one.
        block: BlockRef,
        /// Its data, of exactly that length.
        data: Bytes,
        /// The request had been given up: the block may be here already.
        late: bool,
    },
    /// A block that nobody asked for: so many bytes for nothing.
    Unsolicited(usize),
    /// It will not send this block (BEP 6).
    Rejected(BlockRef),
    /// It lets us ask for one more piece while it chokes us (BEP 6).
    AllowedFast,
    /// The port of its DHT node (BEP 5).
    Port(u16),
    /// Its extension handshake came (BEP 10).
    Extensions,
    /// A message of the metadata exchange (BEP 9).
    Metadata(MetadataMessage),
    /// Peer exchange (BEP 11).
    Pex(Pex),
}
