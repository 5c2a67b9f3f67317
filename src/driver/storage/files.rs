//! The files of one torrent on a disk: opening them safely, reading and writing parts of pieces.
//!
//! Every file is opened component by component below a directory that is held open. For writing no
//! component may be a symbolic link: whatever stands in the directory, nothing outside of it is
//! touched. Files are made when their first byte is written and grow as data comes (sparse). Of a
//! piece that reaches into a file that is not wanted that part is kept in a side file ([`Parts`]),
//! so that no file appears that nobody asked for. Padding (BEP 47) reads as zeros and is not
//! written.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom};

use crate::driver::descriptors::{is_out_of_descriptors, patiently};
use crate::driver::resume::Stamp;
use crate::driver::storage::errors::{conflict, disk_error, occupied};
use crate::driver::storage::folders::{FOLDER, NEW_FILE, make_dir, open_base};
use crate::driver::storage::handles::{Handle, Handles};
use crate::driver::storage::parts::Parts;
use crate::driver::storage::watch::Watch;
use crate::driver::storage::{aligned, locked};
use crate::swarm::layout::{Layout, Span};
use crate::swarm::{DiskError, PieceIndex};

/// What may be done to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum Access {
    /// Nothing is made, changed or locked. Symbolic links are followed: what is offered is what was
    /// hashed, wherever it lies.
    Read,
    /// The download is ours alone.
    Write,
}

impl Access {
    fn metadata(self, path: &Path) -> io::Result<Metadata> {
        match self {
            Access::Read => path.metadata(),
            Access::Write => path.symlink_metadata(),
        }
    }

    pub(super) fn flags(self, flags: OFlags) -> OFlags {
        match self {
            Access::Read => flags.difference(OFlags::NOFOLLOW),
            Access::Write => flags,
        }
    }
}

/// One torrent's files.
#[derive(Debug)]
pub(in crate::driver) struct FileSet {
    layout: Arc<Layout>,
    root: PathBuf,
    // Paths are opened below this: the torrent's own folder, or `root` for a single file. In
    // `lock` the file of a single-file download is held; a folder is its own lock.
    base: OwnedFd,
    base_parts: usize,
    lock: Option<OwnedFd>,
    access: Access,
    handles: Arc<Handles>,
    key: u64,
    parts: Parts,
    // One for each file: its parts of shared pieces are in the side file.
    aside: Vec<AtomicBool>,
    // Written since it was last made durable. Set behind the write.
    touched: Vec<AtomicBool>,
    // Written at any time since this was opened.
    written: Vec<AtomicBool>,
    // As first seen; 0 if not seen yet.
    inodes: Vec<AtomicU64>,
    // Two paths may still be one file: on a file system that ignores case, by hard links.
    owners: Mutex<BTreeMap<(u64, u64), usize>>,
    // Held while a file is opened for the first time.
    making: Mutex<()>,
    watch: Watch,
}

impl FileSet {
    /// Opens the directory that a torrent is in; for writing makes and locks it.
    pub(in crate::driver) fn open(
        root: &Path,
        layout: Arc<Layout>,
        access: Access,
        parts: PathBuf,
        handles: Arc<Handles>,
    ) -> Result<FileSet, DiskError> {
        if access == Access::Write {
            fs::create_dir_all(root).map_err(|e| disk_error("making", root, &e))?;
        }
        let root = root.canonicalize().map_err(|e| disk_error("opening", root, &e))?;
        let (base, base_parts, lock) = open_base(&root, &layout, access)?;
        let count = layout.files().len();
        let flags = || (0..count).map(|_| AtomicBool::new(false)).collect();
        Ok(FileSet {
            key: handles.new_key(),
            parts: Parts::new(parts, &layout),
            aside: flags(),
            touched: flags(),
            written: flags(),
            inodes: (0..count).map(|_| AtomicU64::new(0)).collect(),
            owners: Mutex::default(),
            making: Mutex::default(),
            watch: Watch::default(),
            lock,
            layout,
            root,
            base,
            base_parts,
            access,
            handles,
        })
    }

    pub(in crate::driver) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(in crate::driver) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The whole path of a file.
    pub(in crate::driver) fn path(&self, file: usize) -> PathBuf {
        self.root.join(&self.layout.files()[file].path)
    }

    /// Reads into the whole of `out`.
    pub(in crate::driver) fn read(
        &self,
        piece: PieceIndex,
        begin: u32,
        out: &mut [u8],
    ) -> Result<(), DiskError> {
        let len = u32::try_from(out.len()).expect("at most one piece is read at once");
        for span in self.layout.spans(piece, begin, len) {
            let part = &mut out[span.at as usize..][..span.len as usize];
            if self.layout.files()[span.file].pad {
                part.fill(0);
                continue;
            }
            let (handle, offset) = self.locate(piece, begin, &span, false)?;
            let read = handle.file.read_exact_at(part, offset);
            read.map_err(|e| self.error("reading", span.file, &e))?;
        }
        Ok(())
    }

    /// Reads `len` bytes into memory that was not cleared before.
    pub(in crate::driver) fn read_new(
        &self,
        piece: PieceIndex,
        begin: u32,
        len: u32,
    ) -> Result<Bytes, DiskError> {
        let (mut out, start) = aligned::with_capacity(len as usize);
        for span in self.layout.spans(piece, begin, len) {
            let end = out.len() + span.len as usize;
            if self.layout.files()[span.file].pad {
                out.resize(end, 0);
                continue;
            }
            let (handle, mut offset) = self.locate(piece, begin, &span, false)?;
            while out.len() < end {
                let room = rustix::buffer::spare_capacity(&mut out);
                let got = match rustix::io::pread(&*handle, room, offset) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(rustix::io::Errno::INTR) => continue,
                    other => other.map_err(io::Error::from),
                };
                offset += got.map_err(|e| self.error("reading", span.file, &e))? as u64;
            }
            // Room for later files was filled from this one if it is longer than it should be.
            out.truncate(end);
        }
        Ok(Bytes::from(out).slice(start..))
    }

    /// Writes blocks that follow each other, as few calls as can be.
    pub(in crate::driver) fn write(
        &self,
        piece: PieceIndex,
        begin: u32,
        blocks: &[Bytes],
    ) -> Result<(), DiskError> {
        let len: usize = blocks.iter().map(Bytes::len).sum();
        let len = u32::try_from(len).expect("at most one piece is written at once");
        for span in self.layout.spans(piece, begin, len) {
            if self.layout.files()[span.file].pad {
                continue;
            }
            let (handle, offset) = self.locate(piece, begin, &span, true)?;
            self.watch.on_writing(span.file);
            let written = write_all(&handle, &mut slices(blocks, &span), offset);
            // What failed may have left a part behind, which is ours.
            self.on_written(span.file);
            written.map_err(|e| self.error("writing", span.file, &e))?;
        }
        Ok(())
    }

    fn on_written(&self, file: usize) {
        self.written[file].store(true, Ordering::Relaxed);
        self.touched[file].store(true, Ordering::Release);
    }

    /// The file's inode, if we wrote to it since it was opened.
    pub(in crate::driver) fn written_inode(&self, file: usize) -> Option<u64> {
        let written = self.written[file].load(Ordering::Relaxed);
        written.then(|| self.inode(file))
    }

    /// The file's inode as first seen; 0 if it was not seen.
    pub(in crate::driver) fn inode(&self, file: usize) -> u64 {
        self.inodes[file].load(Ordering::Relaxed)
    }

    pub(in crate::driver) fn root(&self) -> &Path {
        &self.root
    }

    pub(in crate::driver) fn shared_layout(&self) -> Arc<Layout> {
        self.layout.clone()
    }

    /// Are all bytes of a piece in reach? Files may be missing or too short.
    pub(in crate::driver) fn is_there(&self, piece: PieceIndex, lens: &[Option<u64>]) -> bool {
        let parts_len = self.parts.len();
        let mut spans = self.layout.spans(piece, 0, self.layout.piece_len(piece));
        spans.all(|span| {
            if self.layout.files()[span.file].pad {
                return true;
            }
            let end = span.file_offset + u64::from(span.len);
            match self.slot(piece, span.file) {
                Some(slot) => slot + u64::from(span.at + span.len) <= parts_len,
                None => lens[span.file].is_some_and(|len| end <= len),
            }
        })
    }

    /// True if no byte of the piece was ever written, as far as the file system can tell.
    pub(in crate::driver) fn is_hole(&self, piece: PieceIndex) -> bool {
        let mut spans = self.layout.spans(piece, 0, self.layout.piece_len(piece));
        spans.all(|span| {
            if self.layout.files()[span.file].pad {
                return true;
            }
            let Ok((handle, offset)) = self.locate(piece, 0, &span, false) else { return false };
            match rustix::fs::seek(&*handle, SeekFrom::Data(offset)) {
                Ok(data) => data >= offset + u64::from(span.len),
                Err(e) => e == rustix::io::Errno::NXIO,
            }
        })
    }

    /// Makes a wanted file that has no bytes, or none yet.
    pub(in crate::driver) fn make(&self, file: usize) -> Result<(), DiskError> {
        self.handle(file, true).map(drop)
    }

    /// Keeps a file's parts of shared pieces in the side file from now on, or no longer.
    pub(in crate::driver) fn set_aside(&self, file: usize, aside: bool) {
        self.aside[file].store(aside, Ordering::Release);
    }

    pub(in crate::driver) fn is_aside(&self, file: usize) -> bool {
        self.aside[file].load(Ordering::Acquire)
    }

    /// What is at the file's path now; an error if it is something that no file can replace.
    pub(in crate::driver) fn look(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
        let path = self.path(file);
        match self.access.metadata(&path) {
            Ok(meta) if meta.is_file() => {
                self.know(file, &meta)?;
                Ok(Some(Stamp::of(&meta)))
            }
            Ok(meta) => Err(conflict(&path, kind_of(&meta))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(disk_error("opening", &path, &e)),
        }
    }

    /// What is at the file's path, if it is still the file that was opened or seen first.
    pub(in crate::driver) fn stamp(&self, file: usize) -> Option<Stamp> {
        let meta = self.access.metadata(&self.path(file)).ok().filter(Metadata::is_file)?;
        let known = self.inodes[file].load(Ordering::Relaxed);
        (known == 0 || known == meta.ino()).then(|| Stamp::of(&meta))
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What the file of a span looks like. Padding is on no disk, and the side file is ours alone.
    pub(super) fn open_stamp(
        &self,
        piece: PieceIndex,
        span: &Span,
    ) -> Result<Option<Stamp>, DiskError> {
        if self.layout.files()[span.file].pad || self.slot(piece, span.file).is_some() {
            return Ok(None);
        }
        let meta = self.handle(span.file, false)?.file.metadata();
        let meta = meta.map_err(|e| self.error("reading", span.file, &e))?;
        Ok(Some(Stamp::of(&meta)))
    }

    /// Cuts what a file has behind its end.
    pub(in crate::driver) fn truncate(&self, file: usize) -> Result<(), DiskError> {
        let handle = self.handle(file, true)?;
        let cut = handle.file.set_len(self.layout.files()[file].len);
        self.touched[file].store(true, Ordering::Release);
        cut.map_err(|e| self.error("truncating", file, &e))
    }

    /// Makes all that was written durable; tells which files that were.
    pub(in crate::driver) fn sync(&self) -> Result<Vec<usize>, DiskError> {
        let was_touched = |file: &usize| self.touched[*file].swap(false, Ordering::AcqRel);
        let touched: Vec<usize> = (0..self.touched.len()).filter(was_touched).collect();
        let synced = match touched.len() {
            0..FILE_SYNCS_MAX => touched.iter().try_for_each(|file| self.sync_file(*file)),
            _ => self.sync_all(&touched),
        };
        match synced {
            Ok(()) => Ok(touched),
            Err(e) => {
                touched.iter().for_each(|f| self.touched[*f].store(true, Ordering::Release));
                Err(e)
            }
        }
    }

    // Thousands of small files: one sync of their file system is quicker than one for each.
    #[cfg(target_os = "linux")]
    fn sync_all(&self, _touched: &[usize]) -> Result<(), DiskError> {
        if self.parts.stamp().is_some() {
            self.parts.sync()?;
        }
        let synced = rustix::fs::syncfs(&self.base);
        synced.map_err(|e| disk_error("syncing", &self.root, &e.into()))
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self, touched: &[usize]) -> Result<(), DiskError> {
        touched.iter().try_for_each(|file| self.sync_file(*file))
    }

    fn sync_file(&self, file: usize) -> Result<(), DiskError> {
        if self.is_aside(file) && self.parts.stamp().is_some() {
            self.parts.sync()?;
        }
        // A file that went away has nothing left to lose; its stamp will be missing.
        if self.stamp(file).is_none() {
            return Ok(());
        }
        let handle = self.handle(file, false)?;
        handle.file.sync_data().map_err(|e| self.error("syncing", file, &e))
    }

    /// Copies what the side file holds of `file` to the file itself, which is wanted now.
    pub(in crate::driver) fn bring_back(&self, file: usize) -> Result<(), DiskError> {
        let mut buffer = Vec::new();
        for piece in self.layout.pieces_of_file(file) {
            let Some(piece) = self.layout.piece(piece) else { continue };
            let Some(slot) = self.slot(piece, file) else { continue };
            let mut spans = self.layout.spans(piece, 0, self.layout.piece_len(piece));
            let Some(span) = spans.find(|s| s.file == file) else { continue };
            buffer.resize(span.len as usize, 0);
            if self.parts.read(slot + u64::from(span.at), &mut buffer)? {
                let handle = self.handle(file, true)?;
                self.watch.on_writing(file);
                let written = handle.file.write_all_at(&buffer, span.file_offset);
                self.on_written(file);
                written.map_err(|e| self.error("writing", file, &e))?;
            }
        }
        self.set_aside(file, false);
        Ok(())
    }

    /// Closes and unlocks the files; what still reads keeps its own until it is done.
    pub(in crate::driver) fn close(&self) {
        self.handles.forget(self.key);
        self.parts.close();
        self.unlock();
    }

    // Closing the descriptor unlocks as well, but not while a reader holds on to it, or a child
    // process, started a moment ago, has a copy of it.
    fn unlock(&self) {
        if self.access == Access::Write {
            let held = self.lock.as_ref().unwrap_or(&self.base);
            // It may never have been locked, where the file system cannot.
            let _ = rustix::fs::flock(held, FlockOperation::Unlock);
        }
    }

    fn slot(&self, piece: PieceIndex, file: usize) -> Option<u64> {
        if self.is_aside(file) { self.parts.slot(piece) } else { None }
    }

    // The open file that holds a span, and where in it.
    fn locate(
        &self,
        piece: PieceIndex,
        begin: u32,
        span: &Span,
        write: bool,
    ) -> Result<(Arc<Handle>, u64), DiskError> {
        match self.slot(piece, span.file) {
            Some(slot) => {
                Ok((self.parts.handle(write)?, slot + u64::from(begin) + u64::from(span.at)))
            }
            None => Ok((self.handle(span.file, write)?, span.file_offset)),
        }
    }

    pub(super) fn handle(&self, file: usize, write: bool) -> Result<Arc<Handle>, DiskError> {
        if let Some(handle) = self.handles.find(self.key, file, write) {
            return Ok(handle);
        }
        let is_new = || write && self.inode(file) == 0;
        let making = is_new().then(|| locked(&self.making));
        let is_new = is_new();
        let opened = patiently(|| {
            loop {
                match self.open_file(file, write) {
                    Err(e) if is_out_of_descriptors(&e) && self.handles.close_one() => {}
                    done => break done,
                }
            }
        });
        let opened = opened.map_err(|e| self.error("opening", file, &e))?;
        let path = self.path(file);
        let meta = opened.metadata().map_err(|e| disk_error("opening", &path, &e))?;
        if !meta.is_file() {
            return Err(conflict(&path, kind_of(&meta)));
        }
        if write {
            let owner = *locked(&self.owners).entry((meta.dev(), meta.ino())).or_insert(file);
            if owner != file {
                let other = format!("is the same file as {}", self.path(owner).display());
                return Err(conflict(&path, &other));
            }
        }
        if is_new && meta.len() > 0 {
            // It was not there when we looked, and nobody of us has written to it.
            return Err(occupied(&path, "was made by somebody else meanwhile".to_owned()));
        }
        self.know(file, &meta)?;
        drop(making);
        let handle = Arc::new(Handle { file: opened, writable: write });
        self.handles.put(self.key, file, handle.clone());
        Ok(handle)
    }

    // A file that was removed and made again lacks what we wrote to the first one.
    fn know(&self, file: usize, meta: &Metadata) -> Result<(), DiskError> {
        let known = &self.inodes[file];
        match known.compare_exchange(0, meta.ino(), Ordering::Relaxed, Ordering::Relaxed) {
            Err(before) if before != meta.ino() => {
                Err(conflict(&self.path(file), "was replaced by another file"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn open_file(&self, file: usize, write: bool) -> io::Result<File> {
        let write = write && self.access == Access::Write;
        let parts: Vec<&OsStr> =
            self.layout.files()[file].path.iter().skip(self.base_parts).collect();
        let Some((name, folders)) = parts.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut folder: Option<OwnedFd> = None;
        for part in folders {
            let at = folder.as_ref().unwrap_or(&self.base);
            if write {
                make_dir(at, part)?;
            }
            folder = Some(rustix::fs::openat(at, *part, self.access.flags(FOLDER), Mode::empty())?);
        }
        let at = folder.as_ref().unwrap_or(&self.base);
        let flags = if write { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDONLY };
        // NONBLOCK: a pipe at that place must not hang us before it is refused.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(at, *name, self.access.flags(flags), NEW_FILE)?.into())
    }

    fn error(&self, doing: &str, file: usize, error: &io::Error) -> DiskError {
        let path = if self.is_aside(file) { self.parts.path().to_owned() } else { self.path(file) };
        disk_error(doing, &path, error)
    }
}

impl Drop for FileSet {
    fn drop(&mut self) {
        self.unlock();
    }
}

fn kind_of(meta: &Metadata) -> &'static str {
    match meta.file_type() {
        t if t.is_symlink() => "is a symbolic link, which is not followed",
        t if t.is_dir() => "is a folder where a file has to be",
        _ => "is no regular file",
    }
}

// The parts of `blocks` that a span covers.
fn slices<'a>(blocks: &'a [Bytes], span: &Span) -> Vec<IoSlice<'a>> {
    let (mut skip, mut left) = (span.at as usize, span.len as usize);
    let mut out = Vec::with_capacity(blocks.len());
    for block in blocks {
        if left == 0 {
            break;
        }
        if skip >= block.len() {
            skip -= block.len();
            continue;
        }
        let take = left.min(block.len() - skip);
        out.push(IoSlice::new(&block[skip..skip + take]));
        left -= take;
        skip = 0;
    }
    out
}

fn write_all(handle: &Handle, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    while !slices.is_empty() {
        let call = slices.len().min(IOVECS_MAX);
        let written = match rustix::io::pwritev(handle, &slices[..call], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => n,
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        offset += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

/// Files that are synced one by one.
const FILE_SYNCS_MAX: usize = 200;
/// The least IOV_MAX of the systems we know.
const IOVECS_MAX: usize = 1024;
