//! Receive buffers that are used again. A fast connection fills one of 256 KiB every half millisecond; the
//! system's allocator gives them back and fetches them anew, and each page of them is a fault.
//!
//! And how much of what was received waits for the disk, of all torrents: each keeps its own share small,
//! but a hundred on a slow disk do not fit into memory. Whoever brings more is read from later, and TCP
//! slows it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::driver::disk::WAITING_BYTES_MAX;
use crate::driver::storage::locked;
use crate::swarm::DiskRequest;

/// Buffers whose blocks are still on their way to the disk, the oldest first: what is left of each is a
/// handle, and when all its blocks are gone the handle has all of it again.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    spent: Mutex<VecDeque<BytesMut>>,
    /// Bytes of blocks that wait for the disk.
    held: AtomicUsize,
    eased: Notify,
}

// A block that counts as long as it is in memory.
struct Held {
    block: Bytes,
    buffers: Arc<Buffers>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let before = self.buffers.held.fetch_sub(self.block.len(), Ordering::Relaxed);
        if before >= HELD_LOW && before - self.block.len() < HELD_LOW {
            self.buffers.eased.notify_waiters();
        }
    }
}

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

    /// A request to the disk; a block in it counts until it is dropped.
    pub(super) fn count(self: &Arc<Self>, request: DiskRequest) -> DiskRequest {
        match request {
            DiskRequest::Write { piece, begin, block } => {
                DiskRequest::Write { piece, begin, block: self.hold(block) }
            }
            other => other,
        }
    }

    /// A block that counts until it is dropped.
    pub(super) fn hold(self: &Arc<Self>, block: Bytes) -> Bytes {
        self.held.fetch_add(block.len(), Ordering::Relaxed);
        Bytes::from_owner(Held { block, buffers: self.clone() })
    }

    /// Bytes that count now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Waits as long as too many blocks wait for the disk.
    pub(super) async fn room(&self) {
        if self.held() < HELD_MAX {
            return;
        }
        let eased = self.eased.notified();
        tokio::pin!(eased);
        // From here on nothing is missed.
        eased.as_mut().enable();
        if self.held() >= HELD_MAX {
            eased.await;
        }
    }

    /// Takes back a buffer that came from here.
    pub(super) fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut spent = locked(&self.spent);
        if spent.len() < SPENT_MAX {
            spent.push_back(buffer);
        }
    }

    fn take(&self) -> Option<BytesMut> {
        let mut spent = locked(&self.spent);
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
/// Blocks that wait for the disk, of all torrents: with so many nobody who brings more is read from,
pub(super) const HELD_MAX: usize = 24 << 20;
/// until there are fewer than this, which there will be.
const HELD_LOW: usize = 18 << 20;
const _: () =
    assert!(WAITING_BYTES_MAX < HELD_LOW, "what waits for its turn to be hashed is held, too");
/// Blocks leave in the order in which they came, or nearly.
const TRIES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

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
    fn who_brings_more_than_the_disk_takes_waits() {
        let buffers = Arc::new(Buffers::default());
        let mut context = Context::from_waker(Waker::noop());
        let mut waits = |reader: &mut Pin<Box<dyn Future<Output = ()> + '_>>| {
            reader.as_mut().poll(&mut context).is_pending()
        };
        let block = Bytes::from(vec![7; 1 << 20]);
        let mut held: Vec<_> = (0..23).map(|_| buffers.hold(block.clone())).collect();
        assert!(!waits(&mut (Box::pin(buffers.room()) as _)));
        held.push(buffers.hold(block.clone()));
        assert_eq!(&held[23][..3], [7; 3]);
        let mut readers: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        readers.extend((0..100).map(|_| Box::pin(buffers.room()) as _));
        assert!(readers.iter_mut().all(&mut waits));
        held.truncate(18);
        assert!(readers.iter_mut().all(&mut waits), "not for every block");
        held.truncate(17);
        assert!(!readers.iter_mut().any(&mut waits));
        drop(held);
        assert_eq!(buffers.held(), 0);
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
