//! What one peer asked of us: requests that wait for a turn, and reads that are under way.
//!
//! Neighbouring requests are read from the disk as one span: sixteen blocks cost one job.

use std::collections::VecDeque;

use crate::wire::peer::BlockRef;

/// Requests of one peer.
#[derive(Debug)]
pub struct Uploads {
    // At most REQUESTS_QUEUED_MAX.
    waiting: VecDeque<BlockRef>,
    reading: VecDeque<Span>,
    reading_bytes: usize,
}

#[derive(Debug)]
struct Span {
    read: BlockRef,
    blocks: Vec<BlockRef>,
}

impl Uploads {
    /// Nothing asked.
    pub fn new() -> Self {
        Self { waiting: VecDeque::new(), reading: VecDeque::new(), reading_bytes: 0 }
    }

    /// Queues a request. False if the queue is full.
    pub fn push(&mut self, block: BlockRef) -> bool {
        let fits = self.waiting.len() < REQUESTS_QUEUED_MAX;
        if fits {
            self.waiting.push_back(block);
        }
        fits
    }

    /// Takes requests off the queue that lie behind one another, up to `bytes_max` bytes, as one
    /// span to read; `None` if nothing waits.
    pub fn next_read(&mut self, bytes_max: usize) -> Option<BlockRef> {
        let first = self.waiting.pop_front()?;
        let mut read = first;
        let mut blocks = vec![first];
        while let Some(next) = self.waiting.front().copied() {
            let follows = next.piece == read.piece
                && read.begin.checked_add(read.len) == Some(next.begin)
                && byte_count(read.len) + byte_count(next.len) <= bytes_max.min(READ_SPAN_MAX);
            if !follows {
                break;
            }
            read.len += next.len;
            blocks.push(next);
            self.waiting.pop_front();
        }
        self.reading_bytes += byte_count(read.len);
        self.reading.push_back(Span { read, blocks });
        Some(read)
    }

    /// A span was read, or could not be: the blocks of it that are still wanted.
    pub fn on_read(&mut self, piece: u32, begin: u32) -> Option<Vec<BlockRef>> {
        let at =
            self.reading.iter().position(|s| s.read.piece == piece && s.read.begin == begin)?;
        let span = self.reading.remove(at)?;
        self.reading_bytes -= byte_count(span.read.len);
        Some(span.blocks)
    }

    /// The peer no longer wants a block. True if it had not been sent.
    pub fn cancel(&mut self, block: &BlockRef) -> bool {
        for span in &mut self.reading {
            if let Some(at) = span.blocks.iter().position(|b| b == block) {
                span.blocks.remove(at);
                return true;
            }
        }
        let at = self.waiting.iter().position(|b| b == block);
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// Forgets everything, and returns what had been asked.
    pub fn clear(&mut self) -> Vec<BlockRef> {
        let mut blocks = Vec::new();
        for span in &mut self.reading {
            blocks.append(&mut span.blocks);
        }
        blocks.extend(self.waiting.drain(..));
        blocks
    }

    /// Bytes that are being read.
    pub fn reading_bytes(&self) -> usize {
        self.reading_bytes
    }

    /// How many requests wait for a turn.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Default for Uploads {
    fn default() -> Self {
        Self::new()
    }
}

fn byte_count(len: u32) -> usize {
    usize::try_from(len).expect("a block is far below the address space")
}

/// Requests of one peer that wait; told to it as `reqq` (BEP 10).
pub const REQUESTS_QUEUED_MAX: usize = 2000;
/// Bytes read at once for one peer: larger reads cost memory and gain nothing.
const READ_SPAN_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn block(piece: u32, n: u32) -> BlockRef {
        BlockRef { piece, begin: n * 16384, len: 16384 }
    }

    #[test]
    fn neighbours_are_read_as_one_span() {
        let mut uploads = Uploads::new();
        for b in [block(0, 0), block(0, 1), block(0, 2), block(0, 4), block(1, 5)] {
            assert!(uploads.push(b));
        }
        let span = BlockRef { piece: 0, begin: 0, len: 3 * 16384 };
        assert_eq!(uploads.next_read(1 << 20), Some(span));
        assert_eq!(uploads.next_read(1 << 20), Some(block(0, 4)));
        assert_eq!(uploads.reading_bytes(), 4 * 16384);
        assert!(uploads.cancel(&block(0, 1)) && uploads.cancel(&block(1, 5)));
        assert_eq!(uploads.next_read(1 << 20), None);
        assert_eq!(uploads.on_read(0, 0), Some(vec![block(0, 0), block(0, 2)]));
        assert_eq!(uploads.on_read(0, 0), None);
        assert_eq!(uploads.clear(), [block(0, 4)]);
        assert_eq!(uploads.on_read(0, 4 * 16384), Some(vec![]));
        assert_eq!(uploads.reading_bytes(), 0);
    }

    #[test]
    fn full_queue_refuses() {
        let mut uploads = Uploads::new();
        let taken = (0..10_000).filter(|n| uploads.push(block(*n, 0))).count();
        assert_eq!((taken, uploads.waiting()), (REQUESTS_QUEUED_MAX, REQUESTS_QUEUED_MAX));
        assert_eq!(uploads.next_read(1), Some(block(0, 0)));
    }
}
