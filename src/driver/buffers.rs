//! Receive buffers that are used again. A fast connection fills one of 256 KiB every half millisecond; the
//! system's allocator gives them back and fetches them anew, and each page of them is a fault.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::BytesMut;

use crate::driver::storage::locked;

/// Buffers whose blocks are still on their way to the disk, the oldest first: what is left of each is a
/// handle, and when all its blocks are gone the handle has all of it again.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<VecDeque<BytesMut>>);

impl Buffers {
    /// A buffer of [`BUFFER_LEN`] bytes that begins with what is in `buffer`, which has less than that.
    /// `is_ours` tells that `buffer` came from here too.
    pub(super) fn exchange(&self, buffer: BytesMut, is_ours: bool) -> BytesMut {
        let mut fresh = self.take().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_LEN));
        fresh.extend_from_slice(&buffer);
        if is_ours {
            self.put(buffer);
        }
        fresh
    }

    // Takes back a buffer that came from here.
    fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut spent = locked(&self.0);
        if spent.len() < SPENT_MAX {
            spent.push_back(buffer);
        }
    }

    fn take(&self) -> Option<BytesMut> {
        let mut spent = locked(&self.0);
        for _ in 0..TRIES_MAX {
            let mut buffer = spent.pop_front()?;
            if buffer.try_reclaim(BUFFER_LEN) {
                return Some(buffer);
            }
            spent.push_back(buffer);
        }
        None
    }
}

/// Bytes of one buffer: sixteen blocks, which fit into a core's cache until they are hashed.
pub(super) const BUFFER_LEN: usize = 256 << 10;
/// Buffers that are kept, of all connections together: 8 MiB when nothing flows.
const SPENT_MAX: usize = 32;
/// Blocks leave in the order in which they came, or nearly.
const TRIES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(BUFFER_LEN);
        buffer.resize(BUFFER_LEN, byte);
        buffer
    }

    #[test]
    fn buffer_is_used_again_when_its_last_block_is_gone() {
        let buffers = Buffers::default();
        let mut buffer = filled(1);
        let place = buffer.as_ptr();
        let blocks = [buffer.split_to(16_384).freeze(), buffer.split_to(16_384).freeze()];
        let rest = buffer.len();
        buffer.truncate(9);
        let mut second = buffers.exchange(buffer, true);
        assert_eq!(&second[..], [1; 9], "what was not taken off goes on");
        assert!(second.as_ptr() != place && second.capacity() == BUFFER_LEN && rest > 9);
        second.clear();
        let [first, last] = blocks;
        drop(first);
        let third = buffers.exchange(second, true);
        assert_ne!(third.as_ptr(), place, "a block is still in use");
        assert_eq!(&last[..], [1; 16_384], "and untouched");
        drop(last);
        let places: Vec<_> = (0..2).map(|_| buffers.take().unwrap().as_ptr()).collect();
        assert!(places.contains(&place));
        assert_eq!(buffers.take(), None);
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let buffers = Buffers::default();
        (0..2 * SPENT_MAX).for_each(|_| buffers.put(BytesMut::with_capacity(BUFFER_LEN)));
        assert_eq!(std::iter::from_fn(|| buffers.take()).count(), SPENT_MAX);
        // One that came from elsewhere may be too small for ever.
        buffers.exchange(BytesMut::from(&b"abc"[..]), false);
        assert!(buffers.take().is_none());
    }

    #[test]
    fn search_for_a_free_one_ends() {
        let buffers = Buffers::default();
        let mut held = Vec::new();
        for _ in 0..SPENT_MAX {
            let mut buffer = filled(2);
            held.push(buffer.split_to(16_384));
            buffers.put(buffer);
        }
        assert!(buffers.take().is_none());
        held.clear();
        assert_eq!(buffers.take().map(|b| b.capacity()), Some(BUFFER_LEN));
    }
}
