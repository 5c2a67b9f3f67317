//! The storage of one torrent: its files, what of them is known to be good, and its resume record.
//!
//! Called from the threads of `driver::disk`. Jobs on pieces run at once and share this by
//! reference; opening, selecting, flushing and closing run alone (`driver::disk` sees to it).
//!
//! What happens to files that were there before: they are checked, and what is right in them is
//! kept. A file that is longer than it should be is cut only when all its pieces are good. A file
//! in which nothing is right is taken for something else, and the download refused (`strangers`).

pub(in crate::driver) mod aligned;
mod check;
pub(in crate::driver) mod erase;
pub(in crate::driver) mod errors;
pub(in crate::driver) mod files;
#[cfg(test)]
pub(in crate::driver) mod fixture;
mod folders;
pub(in crate::driver) mod handles;
pub(in crate::driver) mod hashing;
pub(in crate::driver) mod parts;
mod strangers;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use crate::base::{InfoHash, hash};
use crate::driver::resume::{Place, Record, Stamp};
use crate::swarm::layout::Layout;
use crate::swarm::{DiskError, DiskErrorKind, PieceIndex};
use crate::wire::bitfield::Bitfield;
use crate::wire::metainfo::Info;

use erase::{Claim, Erased, Ours};
use errors::disk_error;
use files::{Access, FileSet};
use handles::Handles;

/// Where a torrent's data is, and what may be done to it.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The directory that the torrent's file or folder is in.
    pub root: PathBuf,
    /// Where resume records are kept. Without it every start checks all data.
    pub state_dir: Option<PathBuf>,
    /// What may be done.
    pub mode: StorageMode,
    /// Download over files that hold something else.
    pub overwrite: bool,
}

impl StorageConfig {
    // The directory itself, made if something will be written to it.
    fn enter(&self) -> Result<(PathBuf, Access), DiskError> {
        let root = &self.root;
        let access = match self.mode {
            StorageMode::Download => Access::Write,
            StorageMode::Seed | StorageMode::SeedChecked => Access::Read,
        };
        if access == Access::Write {
            std::fs::create_dir_all(root).map_err(|e| disk_error("making", root, &e))?;
        }
        let root = root.canonicalize().map_err(|e| disk_error("opening", root, &e))?;
        Ok((root, access))
    }
}

/// What may be done to a torrent's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageMode {
    /// Files are made and written; the download is locked.
    Download,
    /// The data is there and was just hashed: only its size is looked at. Names are taken as they
    /// are. Nothing is written or locked.
    Seed,
    /// The data is there, perhaps: it is checked. Nothing is written or locked.
    SeedChecked,
}

/// A torrent that the pool knows, opened or not.
#[derive(Debug)]
pub(in crate::driver) struct Storage {
    config: StorageConfig,
    handles: Arc<Handles>,
    opened: RwLock<Option<Arc<Opened>>>,
    stop: AtomicBool,
    failed: AtomicBool,
    // What it may delete, since it was closed.
    claim: Mutex<Option<Claim>>,
}

impl Storage {
    pub(in crate::driver) fn new(config: StorageConfig, handles: Arc<Handles>) -> Storage {
        Storage {
            config,
            handles,
            opened: RwLock::new(None),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            claim: Mutex::new(None),
        }
    }

    /// The torrent, if it is open and has not failed.
    pub(in crate::driver) fn opened(&self) -> Option<Arc<Opened>> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A check under way ends soon: the torrent is about to be closed.
    pub(in crate::driver) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// It was closed, and is to be opened again.
    pub(in crate::driver) fn restart(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Notes that writing failed. True the first time: it is told once.
    pub(in crate::driver) fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::Relaxed)
    }

    pub(in crate::driver) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(in crate::driver) fn open(
        &self,
        info: &Bytes,
        wanted: Option<&[bool]>,
        afresh: bool,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Bitfield, DiskError> {
        self.set(None);
        self.failed.store(false, Ordering::Relaxed);
        let opened = Opened::open(self, info, wanted, afresh, progress)?;
        let have = locked(&opened.good).clone();
        self.set(Some(Arc::new(opened)));
        Ok(have)
    }

    /// Makes durable and records what is good, then lets go of everything.
    pub(in crate::driver) fn close(&self) -> Result<(), DiskError> {
        let Some(opened) = self.opened() else { return Ok(()) };
        self.set(None);
        let saved = opened.save_last();
        let mut claim = locked(&self.claim);
        let before = claim.take();
        *claim = Some(opened.claim().after(before));
        drop(claim);
        opened.files.close();
        saved
    }

    /// Deletes what it wrote, and what was remembered of it. It is closed by now; what could not be
    /// opened has written nothing.
    pub(in crate::driver) fn erase(&self) -> Result<Erased, DiskError> {
        locked(&self.claim).take().map_or_else(|| Ok(Erased::default()), |claim| claim.erase())
    }

    fn set(&self, opened: Option<Arc<Opened>>) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = opened;
    }
}

/// The open storage of one torrent.
#[derive(Debug)]
pub(in crate::driver) struct Opened {
    pub(in crate::driver) files: FileSet,
    mode: StorageMode,
    info_hash: InfoHash,
    place: Option<Place>,
    has_padding: bool,
    // Twenty bytes a piece.
    hashes: Bytes,
    // Files of somebody else, which nothing is written to.
    strange: BTreeSet<usize>,
    good: Mutex<Bitfield>,
    wanted: Mutex<Option<Vec<bool>>>,
    // Something is good that the record does not say yet.
    unsaved: AtomicBool,
    // The stamps as of the last save; the lock also keeps two saves apart.
    stamps: Mutex<Vec<Option<Stamp>>>,
    // What is good is not known for sure, the old record stays: a check was broken off, or a sync
    // failed, after which the system calls lost data clean.
    unsure: AtomicBool,
    // The last record names files that were not there yet: a run that is killed has perhaps made
    // them. The record of one that ends names those that are there.
    expects: AtomicBool,
    ends: AtomicBool,
}

impl Opened {
    fn open(
        storage: &Storage,
        info_bytes: &Bytes,
        wanted: Option<&[bool]>,
        afresh: bool,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Opened, DiskError> {
        let StorageConfig { state_dir, mode, overwrite, .. } = &storage.config;
        let bad = |message: String| {
            let context = "reading the info dictionary".to_owned();
            DiskError { kind: DiskErrorKind::Layout, context, message }
        };
        let info = Info::decode(info_bytes).map_err(|e| bad(e.to_string()))?;
        let layout = match mode {
            StorageMode::Seed => Layout::verbatim(&info),
            StorageMode::Download | StorageMode::SeedChecked => Layout::new(&info),
        };
        let layout = Arc::new(layout.map_err(|e| bad(e.to_string()))?);
        let info_hash = InfoHash::new(hash::sha1(info_bytes));
        let (root, access) = storage.config.enter()?;
        let place = state_dir.as_ref().filter(|_| *mode != StorageMode::Seed);
        let place = place.map(|dir| Place::new(dir, info_hash, &root));
        let hidden = || root.join(format!(".trackless-{info_hash}.parts"));
        let parts = place.as_ref().map_or_else(hidden, Place::parts);
        let has_padding = layout.files().iter().any(|f| f.pad);
        let files = FileSet::open(&root, layout.clone(), access, parts, storage.handles.clone())?;
        if let Some(place) = place.as_ref().filter(|_| access == Access::Write) {
            // Convenience for the next run; this one does without.
            if let Err(e) = place.save_info(info_bytes) {
                tracing::warn!("cannot remember the info dictionary: {e}");
            }
        }
        let mut looked = check::look(&files, wanted)?;
        let record = place.as_ref().and_then(Place::load);
        place.iter().for_each(Place::touch);
        let checked = match mode {
            StorageMode::Seed if !afresh => check::trust(&files, &looked)?,
            _ => {
                let believed = record.as_ref().filter(|_| !afresh);
                check::check(&files, &info, &looked, believed, &storage.stop, progress)?
            }
        };
        files.watch().start(&looked);
        let mut strange = BTreeSet::new();
        if *mode == StorageMode::Download && !checked.broken_off && !overwrite {
            strange = strangers::find(&files, &looked, record.as_ref(), &checked.good)?;
            strangers::refuse(&files, &strange, wanted)?;
            // The record names what is ours.
            strange.iter().for_each(|file| looked[*file] = None);
        }
        let opened = Opened {
            files,
            mode: *mode,
            info_hash,
            place,
            has_padding,
            hashes: info.pieces,
            strange,
            good: Mutex::new(checked.good),
            wanted: Mutex::new(wanted.map(<[bool]>::to_vec)),
            unsaved: AtomicBool::new(checked.news || *overwrite),
            stamps: Mutex::new(looked),
            unsure: AtomicBool::new(checked.broken_off),
            expects: AtomicBool::new(false),
            ends: AtomicBool::new(false),
        };
        opened.make_empty_files()?;
        if locked(&opened.stamps).iter().enumerate().any(|(i, s)| opened.may_be_ours(i, s)) {
            opened.unsaved.store(true, Ordering::Release);
        }
        match opened.save() {
            // What is here is known all the same, and is recorded when there is a descriptor for it.
            Err(e) if e.kind != DiskErrorKind::Busy => Err(e),
            Ok(()) | Err(_) => Ok(opened),
        }
    }

    pub(in crate::driver) fn layout(&self) -> &Layout {
        self.files.layout()
    }

    /// Some bytes of the torrent are padding, which reads as zeros whatever was received.
    pub(in crate::driver) fn has_padding(&self) -> bool {
        self.has_padding
    }

    pub(in crate::driver) fn commit(&self, piece: PieceIndex) {
        locked(&self.good).set(piece.get());
        self.unsaved.store(true, Ordering::Release);
    }

    pub(in crate::driver) fn discard(&self, piece: PieceIndex) {
        if locked(&self.good).clear(piece.get()) {
            self.unsaved.store(true, Ordering::Release);
        }
    }

    pub(in crate::driver) fn select(&self, wanted: &[bool]) -> Result<(), DiskError> {
        if self.mode == StorageMode::Download {
            strangers::refuse(&self.files, &self.strange, Some(wanted))?;
        }
        for (index, file) in self.layout().files().iter().enumerate() {
            if file.pad || self.mode != StorageMode::Download {
                continue;
            }
            let wants = wanted.get(index).copied().unwrap_or(false);
            if wants && self.files.is_aside(index) {
                self.files.bring_back(index)?;
            } else if !wants && self.files.look(index)?.is_none() {
                self.files.set_aside(index, true);
            }
        }
        *locked(&self.wanted) = Some(wanted.to_vec());
        self.unsaved.store(true, Ordering::Release);
        self.make_empty_files()
    }

    /// Everything wanted is here: looks that it really is, makes it durable and records it.
    pub(in crate::driver) fn flush(&self) -> Result<(), DiskError> {
        let good = locked(&self.good).clone();
        let mut aside = false;
        for (index, file) in self.layout().files().iter().enumerate() {
            if file.pad || self.files.is_aside(index) {
                aside |= !file.pad;
                continue;
            }
            let pieces = self.layout().pieces_of_file(index);
            let complete = pieces.into_iter().all(|p| good.has(p));
            if !complete || !self.is_wanted(index) {
                continue;
            }
            match self.files.stamp(index) {
                Some(stamp) if stamp.len > file.len && self.mode == StorageMode::Download => {
                    self.files.truncate(index)?;
                    self.files.watch().settle(index, stamp, self.files.stamp(index));
                }
                Some(stamp) if stamp.len >= file.len => {
                    self.files.watch().settle(index, stamp, Some(stamp));
                }
                Some(_) => return Err(self.lost(index, "was made shorter behind our back")),
                None => return Err(self.lost(index, "was removed or replaced behind our back")),
            }
        }
        self.unsaved.store(true, Ordering::Release);
        self.save()?;
        if !aside && self.mode == StorageMode::Download {
            self.files.parts().remove();
        }
        Ok(())
    }

    /// Makes data durable, then records what of it is good. Does nothing if nothing is new.
    pub(in crate::driver) fn save(&self) -> Result<(), DiskError> {
        let mut stamps = locked(&self.stamps);
        if self.mode == StorageMode::Seed || !self.unsaved.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // First what is good, then the sync: the data of every piece in this copy was written
        // before it was committed, so the sync covers it.
        let good = locked(&self.good).clone();
        let synced = self.files.sync().inspect_err(|_| self.unsure.store(true, Ordering::Release));
        let saved = synced.and_then(|synced| {
            for file in synced {
                // Of a file that was changed by somebody else not even the rest is trusted later.
                let is_ours = !self.files.watch().is_changed(file);
                stamps[file] = self.files.stamp(file).filter(|_| is_ours);
            }
            self.write_record(&good, &stamps)
        });
        if saved.is_err() {
            self.unsaved.store(true, Ordering::Release);
        }
        saved
    }

    // As the run ends: a file that is made from now on is somebody else's.
    fn save_last(&self) -> Result<(), DiskError> {
        self.ends.store(true, Ordering::Release);
        if self.expects.load(Ordering::Acquire) {
            self.unsaved.store(true, Ordering::Release);
        }
        self.save()
    }

    fn write_record(&self, good: &Bitfield, stamps: &[Option<Stamp>]) -> Result<(), DiskError> {
        let unsure = self.unsure.load(Ordering::Acquire);
        let Some(place) = self.place.as_ref().filter(|_| !unsure) else { return Ok(()) };
        let mut expects = false;
        let files = stamps.iter().enumerate().filter_map(|(index, stamp)| {
            let is_ours = self.may_be_ours(index, stamp);
            expects |= is_ours;
            Some((u32::try_from(index).ok()?, stamp.or(is_ours.then_some(Stamp::NONE))?))
        });
        let record = Record {
            info_hash: self.info_hash,
            have: good.as_bytes().to_vec(),
            files: files.collect(),
            parts: self.files.parts().stamp(),
        };
        self.expects.store(expects, Ordering::Release);
        let saved = place.save(&record);
        saved.map_err(|e| disk_error("recording the download in", &place.parts(), &e))
    }

    // Is a file that has no stamp one that this run made, or may still make?
    fn may_be_ours(&self, file: usize, stamp: &Option<Stamp>) -> bool {
        let is_download = self.mode == StorageMode::Download;
        if stamp.is_some() || !is_download || self.layout().files()[file].pad {
            return false;
        }
        let is_there = || self.files.stamp(file).is_some();
        let is_made = self.files.written_inode(file).is_some() && is_there();
        let is_next = || self.is_wanted(file) && !self.strange.contains(&file);
        is_made || (!self.ends.load(Ordering::Acquire) && is_next())
    }

    fn make_empty_files(&self) -> Result<(), DiskError> {
        if self.mode != StorageMode::Download {
            return Ok(());
        }
        for (index, file) in self.layout().files().iter().enumerate() {
            if file.len == 0 && !file.pad && self.is_wanted(index) {
                self.files.make(index)?;
            }
        }
        Ok(())
    }

    fn claim(&self) -> Claim {
        let files = 0..self.layout().files().len();
        Claim {
            root: self.files.root().to_owned(),
            layout: self.files.shared_layout(),
            ours: files.map(|file| self.ours(file)).collect(),
            parts: self.files.parts().path().to_owned(),
            place: self.place.clone(),
        }
    }

    fn ours(&self, file: usize) -> Ours {
        if self.mode != StorageMode::Download || self.files.is_aside(file) {
            return Ours::No;
        }
        if let Some(inode) = self.files.written_inode(file) {
            return Ours::Yes(inode);
        }
        let good = locked(&self.good);
        if self.layout().pieces_of_file(file).any(|piece| good.has(piece)) {
            return Ours::Yes(self.files.inode(file));
        }
        drop(good);
        if self.is_wanted(file) { Ours::IfEmpty } else { Ours::No }
    }

    fn is_wanted(&self, file: usize) -> bool {
        let wanted = locked(&self.wanted);
        wanted.as_ref().is_none_or(|w| w.get(file).copied().unwrap_or(false))
    }

    fn lost(&self, file: usize, message: &str) -> DiskError {
        let context = self.files.path(file).display().to_string();
        DiskError { kind: DiskErrorKind::Io, context, message: message.to_owned() }
    }
}

/// A thread that panicked while it held the lock has left nothing half-done in what we lock.
pub(in crate::driver) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
