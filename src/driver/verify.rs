//! Data on a disk, compared with its torrent. Reads everything, on all cores; writes nothing and
//! keeps no record.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::driver::storage::files::{Access, FileSet};
use crate::driver::storage::handles::Handles;
use crate::driver::storage::hashing::{for_each_piece, hash_piece};
use crate::driver::storage::locked;
use crate::swarm::DiskError;
use crate::swarm::layout::{Layout, LayoutError};
use crate::wire::bitfield::Bitfield;
use crate::wire::metainfo::Metainfo;

/// What is true of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileVerdict {
    /// It has its size, and every piece that it has part in matches.
    Ok,
    /// Its size is wrong, or a piece that it has part in does not match. The other file that
    /// shares the piece may be the reason.
    Bad,
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
    let lens: Vec<Option<u64>> =
        layout.files().iter().map(|f| file_len(&root.join(&f.path))).collect();
    let good = if lens.iter().all(Option::is_none) {
        Bitfield::none(layout.piece_count())
    } else {
        hash_all(metainfo, &layout, &root, &lens, progress)?
    };
    let files = layout.files().iter().zip(lens).enumerate().filter(|(_, (f, _))| !f.pad);
    let files = files.map(|(index, (file, found_len))| {
        let bad_pieces: Vec<u32> = layout.pieces_of_file(index).filter(|p| !good.has(*p)).collect();
        let status = match found_len {
            None => FileVerdict::Missing,
            Some(len) if len == file.len && bad_pieces.is_empty() => FileVerdict::Ok,
            Some(_) => FileVerdict::Bad,
        };
        FileCheck { path: file.path.clone(), status, len: file.len, found_len, bad_pieces }
    });
    Ok(VerifyReport {
        files: files.collect(),
        pieces: layout.piece_count(),
        good_pieces: good.count(),
        total: layout.total_len(),
    })
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

fn file_len(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().filter(|m| m.is_file()).map(|m| m.len())
}

fn hash_all(
    metainfo: &Metainfo,
    layout: &Arc<Layout>,
    root: &Path,
    lens: &[Option<u64>],
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Bitfield, VerifyError> {
    let files = FileSet::open(root, layout.clone(), Access::Read, PathBuf::new(), Handles::new());
    let files = files.map_err(VerifyError::Open)?;
    let pieces: Vec<_> = layout.all_pieces().filter(|p| files.is_there(*p, lens)).collect();
    let total: u64 = pieces.iter().map(|p| u64::from(layout.piece_len(*p))).sum();
    let (good, done) = (Mutex::new(Bitfield::none(layout.piece_count())), AtomicU64::new(0));
    for_each_piece(&pieces, &AtomicBool::new(false), &|piece, buffer| {
        let digest = hash_piece(&files, piece, buffer).ok();
        if digest.is_some() && digest == metainfo.info.piece_hash(piece.get()) {
            locked(&good).set(piece.get());
        }
        let len = u64::from(layout.piece_len(piece));
        progress(done.fetch_add(len, Ordering::Relaxed) + len, total);
    });
    Ok(good.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
