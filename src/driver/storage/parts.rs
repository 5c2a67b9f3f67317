//! The side file: what is not wanted of pieces that are.
//!
//! A piece on the border of a wanted file reaches into its neighbour. If nobody wants the
//! neighbour, its bytes still have to be kept, to hash the piece again and to serve it. They go
//! here: every piece that touches more than one file has a slot, whatever is wanted at the moment.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::driver::descriptors::patiently;
use crate::driver::resume::Stamp;
use crate::driver::storage::errors::disk_error;
use crate::driver::storage::handles::Handle;
use crate::driver::storage::locked;
use crate::swarm::layout::Layout;
use crate::swarm::{DiskError, PieceIndex};

/// The side file of one torrent. It is made when something is first written to it.
#[derive(Debug)]
pub(in crate::driver) struct Parts {
    path: PathBuf,
    piece_length: u64,
    // The pieces that touch several files, ascending: a piece's rank is its slot.
    shared: Vec<u32>,
    handle: Mutex<Option<Arc<Handle>>>,
}

impl Parts {
    pub(super) fn new(path: PathBuf, layout: &Layout) -> Parts {
        let piece_length = u64::from(layout.piece_length());
        // A piece is shared if a file begins inside it, behind its first byte.
        let begins = layout.files().iter().map(|f| f.offset);
        let inside = begins.filter(|o| o % piece_length != 0 && *o < layout.total_len());
        let mut shared: Vec<u32> =
            inside.filter_map(|o| u32::try_from(o / piece_length).ok()).collect();
        shared.dedup();
        Parts { path, piece_length, shared, handle: Mutex::new(None) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the slot of a piece begins, if it has one.
    pub(super) fn slot(&self, piece: PieceIndex) -> Option<u64> {
        let rank = self.shared.binary_search(&piece.get()).ok()?;
        Some(rank as u64 * self.piece_length)
    }

    pub(super) fn len(&self) -> u64 {
        self.stamp().map_or(0, |s| s.len)
    }

    pub(in crate::driver) fn stamp(&self) -> Option<Stamp> {
        let meta = self.path.symlink_metadata().ok()?;
        meta.is_file().then(|| Stamp::of(&meta))
    }

    pub(super) fn handle(&self, write: bool) -> Result<Arc<Handle>, DiskError> {
        let mut held = locked(&self.handle);
        if let Some(handle) = held.as_ref().filter(|h| h.writable || !write) {
            return Ok(handle.clone());
        }
        let error = |e: io::Error| disk_error("opening", &self.path, &e);
        if let Some(dir) = self.path.parent().filter(|_| write) {
            fs::create_dir_all(dir).map_err(error)?;
        }
        let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write).custom_flags(no_follow);
        let file = patiently(|| options.open(&self.path)).map_err(error)?;
        Ok(held.insert(Arc::new(Handle { file, writable: write })).clone())
    }

    /// Reads all of `out`; false if the side file has no such bytes.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<bool, DiskError> {
        if offset + out.len() as u64 > self.len() {
            return Ok(false);
        }
        let read = self.handle(false)?.file.read_exact_at(out, offset);
        read.map(|()| true).map_err(|e| disk_error("reading", &self.path, &e))
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        let synced = self.handle(false)?.file.sync_data();
        synced.map_err(|e| disk_error("syncing", &self.path, &e))
    }

    pub(super) fn close(&self) {
        *locked(&self.handle) = None;
    }

    /// Nothing is kept aside any more.
    pub(in crate::driver) fn remove(&self) {
        self.close();
        // What cannot be removed is only untidy.
        let _ = fs::remove_file(&self.path);
    }
}
