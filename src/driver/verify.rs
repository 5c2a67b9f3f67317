//! Data on a disk, compared with its torrent. Reads everything, on all cores; writes nothing and
//! keeps no record.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::driver::storage::errors::disk_error;
use crate::driver::storage::files::{Access, FileSet};
use crate::driver::storage::handles::Handles;
use crate::driver::storage::hashing::{for_each_piece, hash_piece};
use crate::driver::storage::locked;
use crate::swarm::layout::{Layout, LayoutError};
use crate::swarm::{DiskError, PieceIndex};
use crate::wire::bitfield::Bitfield;
use crate::wire::metainfo::Metainfo;

/// What is true of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileVerdict {
    /// It has its size, and every piece that it has part in matches.
    Ok,
    /// Its size is wrong, or a piece that it has part in does not match. Of two files that are
    /// nothing but parts of one such piece, either may be the reason.
    Bad,
    /// All pieces that are its own match. One that it shares does not, for which another file of
    /// that piece is reason enough: that one is bad, missing or unreadable.
    Unproven,
    /// It is there and cannot be read.
    Unreadable,
    /// It is not there, or is no file.
    Missing,
}

/// One file of the torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCheck {
    /// Path below the directory that was given.
    pub path: PathBuf,
    /// What is true of it.
    pub status: FileVerdict,
    /// Bytes in the torrent.
    pub len: u64,
    /// Bytes on the disk.
    pub found_len: Option<u64>,
    /// Pieces with part in it that do not match.
    pub bad_pieces: Vec<u32>,
    /// Why it cannot be read.
    pub error: Option<DiskError>,
}

/// What is true of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The files in the torrent's order, without padding.
    pub files: Vec<FileCheck>,
    /// Pieces in all.
    pub pieces: u32,
    /// Pieces that match.
    pub good_pieces: u32,
    /// Bytes in all.
    pub total: u64,
}

impl VerifyReport {
    /// True if everything matches.
    pub fn is_ok(&self) -> bool {
        self.files.iter().all(|f| f.status == FileVerdict::Ok)
    }
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The torrent's names cannot be on a disk.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// The directory could not be opened.
    #[error("{0}")]
    Open(DiskError),
}

/// Compares what is in `dir` with a torrent. `dir` holds the torrent's file or folder, or is that
/// folder itself. `progress` is told bytes read and bytes to read, from any thread.
pub fn verify(
    metainfo: &Metainfo,
    dir: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<VerifyReport, VerifyError> {
    let (layout, root) = find(metainfo, dir)?;
    let layout = Arc::new(layout);
    let mut errors = BTreeMap::new();
    let mut lens = Vec::with_capacity(layout.files().len());
    for (index, file) in layout.files().iter().enumerate() {
        let path = root.join(&file.path);
        let len = file_len(&path).map_err(|e| disk_error("reading", &path, &e));
        lens.push(len.unwrap_or_else(|e| {
            errors.insert(index, e);
            None
        }));
    }
    let good = if lens.iter().all(Option::is_none) {
        Bitfield::none(layout.piece_count())
    } else {
        let (good, unreadable) = hash_all(metainfo, &layout, &root, &lens, progress)?;
        errors.extend(unreadable);
        good
    };
    let verdicts = verdicts(&layout, &lens, &good, &errors);
    let files = layout.files().iter().zip(lens).enumerate().filter(|(_, (f, _))| !f.pad);
    let files = files.map(|(index, (file, found_len))| FileCheck {
        path: file.path.clone(),
        status: verdicts[index],
        len: file.len,
        found_len,
        bad_pieces: bad_pieces(&layout, index, &good).collect(),
        error: errors.remove(&index),
    });
    Ok(VerifyReport {
        files: files.collect(),
        pieces: layout.piece_count(),
        good_pieces: good.count(),
        total: layout.total_len(),
    })
}

fn bad_pieces(layout: &Layout, file: usize, good: &Bitfield) -> impl Iterator<Item = u32> {
    layout.pieces_of_file(file).filter(|p| !good.has(*p))
}

fn verdicts(
    layout: &Layout,
    lens: &[Option<u64>],
    good: &Bitfield,
    errors: &BTreeMap<usize, DiskError>,
) -> Vec<FileVerdict> {
    // Who has a part in a piece, padding aside.
    let sharers = |piece: u32| {
        let spans = layout.piece(piece).map(|p| layout.spans(p, 0, layout.piece_len(p)));
        spans.into_iter().flatten().map(|s| s.file).filter(|f| !layout.files()[*f].pad)
    };
    // First what a file shows by itself.
    let by_itself = |index: usize| match lens[index] {
        _ if layout.files()[index].pad => FileVerdict::Ok,
        _ if errors.contains_key(&index) => FileVerdict::Unreadable,
        None => FileVerdict::Missing,
        Some(len) if len != layout.files()[index].len => FileVerdict::Bad,
        Some(_) => {
            let mut bad = bad_pieces(layout, index, good);
            let is_bad = bad.any(|piece| sharers(piece).all(|f| f == index));
            if is_bad { FileVerdict::Bad } else { FileVerdict::Ok }
        }
    };
    let mut verdicts: Vec<_> = (0..layout.files().len()).map(by_itself).collect();
    // Then what is left of the pieces that do not match: those for which nobody is the reason yet
    // are held against all.
    let guilty: BTreeSet<usize> =
        (0..verdicts.len()).filter(|f| verdicts[*f] != FileVerdict::Ok).collect();
    for (index, verdict) in verdicts.iter_mut().enumerate() {
        if *verdict != FileVerdict::Ok || layout.files()[index].pad {
            continue;
        }
        for piece in bad_pieces(layout, index, good) {
            if !sharers(piece).any(|f| guilty.contains(&f)) {
                *verdict = FileVerdict::Bad;
                break;
            }
            *verdict = FileVerdict::Unproven;
        }
    }
    verdicts
}

// Names as they were shared, if they are here so; else as we would have saved them.
fn find(metainfo: &Metainfo, dir: &Path) -> Result<(Layout, PathBuf), VerifyError> {
    let safe = Layout::new(&metainfo.info)?;
    let verbatim = Layout::verbatim(&metainfo.info).ok();
    let first_of = |layout: &Layout| layout.files().iter().find(|f| !f.pad).map(|f| f.path.clone());
    let parent = dir.canonicalize().ok().and_then(|d| d.parent().map(Path::to_owned));
    for root in std::iter::once(dir.to_owned()).chain(parent) {
        for layout in verbatim.iter().chain([&safe]) {
            let top = first_of(layout).and_then(|p| p.iter().next().map(|top| root.join(top)));
            // The parent only counts if `dir` itself is the torrent's folder.
            let is_dir_itself =
                || top.as_ref().and_then(|t| t.canonicalize().ok()) == dir.canonicalize().ok();
            let there = top.as_ref().is_some_and(|t| t.symlink_metadata().is_ok());
            if there && (root == dir || (is_dir_itself() && !metainfo.info.single_file)) {
                return Ok((layout.clone(), root));
            }
        }
    }
    Ok((safe, dir.to_owned()))
}

fn file_len(path: &Path) -> io::Result<Option<u64>> {
    // Links are followed, as when sharing.
    match path.metadata() {
        Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

// The pieces that match, and the files that cannot be read.
fn hash_all(
    metainfo: &Metainfo,
    layout: &Arc<Layout>,
    root: &Path,
    lens: &[Option<u64>],
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(Bitfield, BTreeMap<usize, DiskError>), VerifyError> {
    let files = FileSet::open(root, layout.clone(), Access::Read, PathBuf::new(), Handles::new());
    let files = files.map_err(VerifyError::Open)?;
    let (pieces, torn): (Vec<_>, Vec<_>) =
        layout.all_pieces().partition(|p| files.is_there(*p, lens));
    let total: u64 = pieces.iter().map(|p| u64::from(layout.piece_len(*p))).sum();
    let (good, done) = (Mutex::new(Bitfield::none(layout.piece_count())), AtomicU64::new(0));
    let unreadable = Mutex::new(BTreeMap::new());
    for_each_piece(&pieces, &AtomicBool::new(false), &|piece, buffer| {
        match hash_piece(&files, piece, buffer) {
            Ok(digest) if metainfo.info.piece_hash(piece.get()) == Some(digest) => {
                locked(&good).set(piece.get());
            }
            Ok(_) => {}
            Err(_) => probe(&files, piece, lens, &unreadable),
        }
        let len = u64::from(layout.piece_len(piece));
        progress(done.fetch_add(len, Ordering::Relaxed) + len, total);
    });
    // What is there of the others: it may be unreadable as well.
    torn.into_iter().for_each(|piece| probe(&files, piece, lens, &unreadable));
    let unreadable = unreadable.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok((good.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), unreadable))
}

// Which of the files that have all of their part of a piece cannot be read there?
fn probe(
    files: &FileSet,
    piece: PieceIndex,
    lens: &[Option<u64>],
    unreadable: &Mutex<BTreeMap<usize, DiskError>>,
) {
    let layout = files.layout();
    for span in layout.spans(piece, 0, layout.piece_len(piece)) {
        let is_there = lens[span.file].is_some_and(|n| span.file_offset + u64::from(span.len) <= n);
        if !is_there || locked(unreadable).contains_key(&span.file) {
            continue;
        }
        let (mut at, end) = (span.at, span.at + span.len);
        while at < end {
            let mut part = vec![0; (end - at).min(PROBE_LEN) as usize];
            if let Err(e) = files.read(piece, at, &mut part) {
                locked(unreadable).insert(span.file, e);
                break;
            }
            at += PROBE_LEN.min(end - at);
        }
    }
}

/// Bytes of one read that shows which file cannot be read.
const PROBE_LEN: u32 = 256 << 10;
