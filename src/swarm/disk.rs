//! What a torrent asks of its storage, and what the storage answers. The host owns files, threads
//! and hashing; the torrent owns every decision.

use bytes::Bytes;

use crate::base::Digest;
use crate::peer::ConnId;
use crate::wire::bitfield::Bitfield;

/// The index of a piece that exists in its torrent. Made by `Layout::piece`, so it is in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub(crate) u32);

impl PieceIndex {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A job for the storage of one torrent. Jobs on one piece are done in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskRequest {
    /// The info dictionary is known: make the layout, lock the download, look what is there
    /// already. Answered by [`DiskEvent::Opened`] (after any number of [`DiskEvent::Checking`]).
    Open {
        /// The info dictionary, byte for byte.
        info: Bytes,
        /// Which files are wanted; `None` means all. Unwanted ones are not created.
        wanted: Option<Vec<bool>>,
        /// Believe no record of what was good: all that is there is hashed.
        afresh: bool,
    },
    /// Store one block. When every block of the piece has been stored the host hashes it, from
    /// memory where it can, and answers [`DiskEvent::Hashed`]. Each block also answers
    /// [`DiskEvent::Written`].
    Write {
        /// Which piece.
        piece: PieceIndex,
        /// Offset in the piece, in bytes.
        begin: u32,
        /// The block.
        block: Bytes,
    },
    /// Forget what was stored and hashed of this piece: it will be written again from its start.
    Discard {
        /// Which piece.
        piece: PieceIndex,
    },
    /// The piece passed: it may be recorded as good once its data is durable.
    Commit {
        /// Which piece.
        piece: PieceIndex,
    },
    /// Read part of a good piece for a peer. Answered by [`DiskEvent::Read`].
    Read {
        /// Who waits for it.
        conn: ConnId,
        /// Which piece.
        piece: PieceIndex,
        /// Offset in the piece, in bytes.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// Hash each block of a piece as it lies on the disk: after a piece failed, and again after it
    /// passed, to learn whose block was bad. Answered by [`DiskEvent::BlocksHashed`].
    HashBlocks {
        /// Which piece.
        piece: PieceIndex,
    },
    /// Other files are wanted now.
    Select {
        /// One flag a file.
        wanted: Vec<bool>,
    },
    /// All wanted data is here: make it durable and record it. Answered by [`DiskEvent::Flushed`].
    Flush,
    /// The torrent ends: record what is good, unlock, close. The last job.
    Close,
}

/// The storage's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEvent {
    /// Progress while existing data is being checked.
    Checking {
        /// Bytes checked.
        done: u64,
        /// Bytes to check.
        total: u64,
    },
    /// Ready. `have` holds the pieces that were verified on disk, now or by a trusted record.
    Opened {
        /// The good pieces.
        have: Bitfield,
    },
    /// A block is in the file.
    Written {
        /// Which piece.
        piece: PieceIndex,
        /// Offset in the piece, in bytes.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// All blocks of a piece are stored, and this is their SHA-1.
    Hashed {
        /// Which piece.
        piece: PieceIndex,
        /// SHA-1 of the piece.
        digest: Digest,
    },
    /// The digests of a piece's blocks, in order.
    BlocksHashed {
        /// Which piece.
        piece: PieceIndex,
        /// One digest a block.
        digests: Vec<Digest>,
    },
    /// Data for a peer.
    Read {
        /// Who waits for it.
        conn: ConnId,
        /// Which piece.
        piece: PieceIndex,
        /// Offset in the piece, in bytes.
        begin: u32,
        /// The data.
        block: Bytes,
    },
    /// A read for a peer could not be done. The torrent stays.
    ReadFailed {
        /// Who waited for it.
        conn: ConnId,
        /// Which piece.
        piece: PieceIndex,
        /// Offset in the piece, in bytes.
        begin: u32,
        /// Bytes asked for.
        len: u32,
        /// The data is gone or cannot be read, and will not come back by itself: the file changed
        /// behind our back, or its disk fails.
        is_lost: bool,
    },
    /// Somebody else changed a file after it was checked. Told once for each file, when a read
    /// finds it; nothing of it is read any more that does not match.
    FileChanged {
        /// Its place among all files of the torrent.
        file: usize,
    },
    /// Everything written so far is durable and recorded.
    Flushed,
    /// Writing or opening failed: the torrent cannot go on until told so.
    Failed(DiskError),
}

/// Why the storage of a torrent stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{context}: {message}")]
pub struct DiskError {
    /// What kind of failure, which decides the exit code.
    pub kind: DiskErrorKind,
    /// What was being done, with the path.
    pub context: String,
    /// What the system said.
    pub message: String,
}

/// Kinds of storage failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space left, or over quota.
    Full,
    /// Not allowed.
    Permission,
    /// Another process downloads this here, or a file is where a directory must be.
    Conflict,
    /// A file that is none of the torrent's is where one of its files belongs.
    Occupied,
    /// The torrent's names or sizes cannot be laid out on a disk.
    Layout,
    /// Too many files are open: it may pass.
    Busy,
    /// Everything else.
    Io,
}
