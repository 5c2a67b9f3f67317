//! Read-ahead for uploads. A peer asks for a piece block after block: one read of the disk serves
//! sixteen of them, each a slice of the same memory.

use bytes::Bytes;

use crate::base::bounded::LimitedMap;
use crate::driver::storage::Opened;
use crate::swarm::{DiskError, PieceIndex};

/// The read-ahead of one lane.
#[derive(Debug)]
pub(super) struct ReadCache {
    chunks: LimitedMap<(u32, u32, u32), Bytes>,
}

impl ReadCache {
    pub(super) fn new() -> Self {
        Self { chunks: LimitedMap::new(CHUNKS_MAX) }
    }

    /// Part of a good piece of torrent `id`.
    pub(super) fn read(
        &mut self,
        id: u32,
        opened: &Opened,
        piece: PieceIndex,
        begin: u32,
        len: u32,
    ) -> Result<Bytes, DiskError> {
        let chunk = begin / CHUNK_LEN;
        let (start, piece_len) = (chunk * CHUNK_LEN, opened.layout().piece_len(piece));
        let chunk_len = piece_len.saturating_sub(start).min(CHUNK_LEN);
        let at = begin - start;
        if at.checked_add(len).is_none_or(|end| end > chunk_len) {
            return opened.read_good(piece, begin, len);
        }
        let key = (id, piece.get(), chunk);
        let slice = at as usize..(at + len) as usize;
        if let Some(bytes) = self.chunks.get_mut(&key) {
            return Ok(bytes.slice(slice));
        }
        let bytes = opened.read_good(piece, start, chunk_len)?;
        let block = bytes.slice(slice);
        self.chunks.insert(key, bytes);
        Ok(block)
    }

    /// Drops what is held of a piece that is written again.
    pub(super) fn forget(&mut self, id: u32, opened: &Opened, piece: PieceIndex) {
        for chunk in 0..opened.layout().piece_len(piece).div_ceil(CHUNK_LEN) {
            self.chunks.remove(&(id, piece.get(), chunk));
        }
    }
}

/// Bytes of one read: sixteen blocks.
const CHUNK_LEN: u32 = 256 << 10;
/// Chunks that a lane keeps: 8 MiB.
const CHUNKS_MAX: usize = 32;
