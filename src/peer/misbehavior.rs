//! The rules a peer can break, one variant each. Breaking one closes the connection.
//!
//! What a well-meaning client does by a race or an old habit is not here: such messages are
//! ignored, or counted and only refused in numbers that no race explains.

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misbehavior {
    /// The bitfield has the wrong length or a spare bit set (BEP 3).
    BadBitfield,
    /// A block that was asked for came with another length.
    BadBlockLength,
    /// An extended message does not parse (BEP 10).
    BadExtension,
    /// The first bytes are not a BitTorrent handshake (BEP 3).
    BadHandshake,
    /// A message of a known kind has an impossible length.
    BadMessage,
    /// It chokes and unchokes more often than any choker does.
    ChokeFlood,
    /// It sent blocks that do not match the piece's hash.
    CorruptBlocks,
    /// A message of the fast extension without having announced it (BEP 6).
    FastWithoutSupport,
    /// The same announcement, such as its bitfield or extension handshake, again and again.
    RepeatedAnnouncements,
    /// Many requests beyond a piece's end, of senseless length, or for what we do not have.
    InvalidRequests,
    /// A piece index that does not exist.
    PieceOutOfRange,
    /// It asks and does not read the answers.
    UnreadAnswers,
    /// Many blocks that nobody asked for.
    UnsolicitedBlocks,
    /// The info dictionary it sent does not have the right hash (BEP 9).
    WrongMetadata,
    /// Its handshake answers for another torrent than the one we named.
    WrongTorrent,
}
