//! The rules a peer can break, one variant each, and what follows. Breaking any of them closes the
//! connection; breaking some on several connections, or any of those that cost us bytes of others,
//! bans the address for a while.
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

/// What follows when a rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consequence {
    /// The connection is closed, and the peer dialled again only after growing pauses. A public
    /// address from which that happens again and again is banned as well.
    Close,
    /// The peer is refused by its address, for an hour.
    Ban,
}

impl Misbehavior {
    /// All of them.
    pub const ALL: [Misbehavior; 15] = [
        Self::BadBitfield,
        Self::BadBlockLength,
        Self::BadExtension,
        Self::BadHandshake,
        Self::BadMessage,
        Self::ChokeFlood,
        Self::CorruptBlocks,
        Self::FastWithoutSupport,
        Self::RepeatedAnnouncements,
        Self::InvalidRequests,
        Self::PieceOutOfRange,
        Self::UnreadAnswers,
        Self::UnsolicitedBlocks,
        Self::WrongMetadata,
        Self::WrongTorrent,
    ];

    /// What follows.
    pub fn consequence(self) -> Consequence {
        match self {
            // What it sent was a lie, and cost everything that came with it.
            Self::CorruptBlocks | Self::WrongMetadata => Consequence::Ban,
            Self::BadBitfield
            | Self::BadBlockLength
            | Self::BadExtension
            | Self::BadHandshake
            | Self::BadMessage
            | Self::ChokeFlood
            | Self::FastWithoutSupport
            | Self::RepeatedAnnouncements
            | Self::InvalidRequests
            | Self::PieceOutOfRange
            | Self::UnreadAnswers
            | Self::UnsolicitedBlocks
            | Self::WrongTorrent => Consequence::Close,
        }
    }
}
