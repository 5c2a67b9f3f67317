//! Open files, shared by all torrents and bounded: a torrent may have more files than a process
//! may have descriptors.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::bounded::LimitedMap;
use crate::driver::storage::locked;

/// An open file.
#[derive(Debug)]
pub(in crate::driver) struct Handle {
    pub(super) file: File,
    pub(super) writable: bool,
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The open files of a process, least recently used closed first.
#[derive(Debug)]
pub(in crate::driver) struct Handles {
    open: Mutex<LimitedMap<(u64, usize), Arc<Handle>>>,
    next_key: AtomicU64,
}

impl Handles {
    /// As many as a quarter of the descriptors that this process may have.
    pub(in crate::driver) fn new() -> Arc<Handles> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = limit.and_then(|n| usize::try_from(n / 4).ok()).unwrap_or(HANDLES_MAX);
        Self::with_limit(quarter.clamp(HANDLES_MIN, HANDLES_MAX))
    }

    pub(super) fn with_limit(limit: usize) -> Arc<Handles> {
        let open = Mutex::new(LimitedMap::new(limit));
        Arc::new(Handles { open, next_key: AtomicU64::new(0) })
    }

    /// A key under which one torrent keeps its files here.
    pub(super) fn new_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn find(&self, key: u64, file: usize, write: bool) -> Option<Arc<Handle>> {
        let mut open = locked(&self.open);
        let handle = open.get_mut(&(key, file))?;
        (handle.writable || !write).then(|| handle.clone())
    }

    pub(super) fn put(&self, key: u64, file: usize, handle: Arc<Handle>) {
        // What has to leave is dropped behind the lock: closing may take the system a while.
        let left = locked(&self.open).insert((key, file), handle);
        drop(left);
    }

    /// Closes one file that is open here; false if there is none. For when the process has no
    /// descriptor left: sockets need theirs as well.
    pub(super) fn close_one(&self) -> bool {
        let left = locked(&self.open).pop_oldest();
        left.is_some()
    }

    pub(super) fn forget(&self, key: u64) {
        let mut open = locked(&self.open);
        let mine: Vec<_> = open.iter().map(|(k, _)| *k).filter(|(k, _)| *k == key).collect();
        let left: Vec<_> = mine.iter().map(|k| open.remove(k)).collect();
        drop(open);
        drop(left);
    }
}

/// With 64 descriptors in all there is room for sockets beside these.
const HANDLES_MIN: usize = 8;
/// More open files than that save no time.
const HANDLES_MAX: usize = 512;
