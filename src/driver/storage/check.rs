//! What is there already when a torrent is opened.
//!
//! A piece is trusted if the record says so and its files are exactly those of the record. Every
//! other piece whose bytes are in reach is hashed, on all cores. Holes, which were never written,
//! are not read: such a piece is good only if zeros are what it should hold.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use crate::base::{Digest, hash::Sha1};
use crate::driver::resume::{Record, Stamp};
use crate::driver::storage::files::FileSet;
use crate::driver::storage::hashing::{for_each_piece, hash_piece};
use crate::driver::storage::locked;
use crate::swarm::layout::Layout;
use crate::swarm::{DiskError, DiskErrorKind, PieceIndex};
use crate::wire::bitfield::Bitfield;
use crate::wire::metainfo::Info;

/// What opening found.
pub(super) struct Checked {
    pub(super) good: Bitfield,
    /// The record does not say this yet.
    pub(super) news: bool,
    /// Told to stop before the end.
    pub(super) broken_off: bool,
}

/// What is at the path of each file. Files that are neither there nor wanted are set aside.
pub(super) fn look(
    files: &FileSet,
    wanted: Option<&[bool]>,
) -> Result<Vec<Option<Stamp>>, DiskError> {
    let mut stamps = Vec::with_capacity(files.layout().files().len());
    for (index, file) in files.layout().files().iter().enumerate() {
        if file.pad {
            stamps.push(None);
            continue;
        }
        let stamp = files.look(index)?;
        let wants = wanted.is_none_or(|w| w.get(index).copied().unwrap_or(false));
        files.set_aside(index, !wants && stamp.is_none());
        stamps.push(stamp);
    }
    Ok(stamps)
}

/// All is good, if every file has its size.
pub(super) fn trust(files: &FileSet, stamps: &[Option<Stamp>]) -> Result<Checked, DiskError> {
    for (index, (file, stamp)) in files.layout().files().iter().zip(stamps).enumerate() {
        if !file.pad && stamp.map(|s| s.len) != Some(file.len) {
            let context = files.path(index).display().to_string();
            let message = match stamp {
                Some(stamp) => format!("has {} bytes instead of {}", stamp.len, file.len),
                None => "is not there".to_owned(),
            };
            return Err(DiskError { kind: DiskErrorKind::Io, context, message });
        }
    }
    let good = Bitfield::all(files.layout().piece_count());
    Ok(Checked { good, news: false, broken_off: false })
}

/// Trusts what the record says of unchanged files, and hashes the rest.
pub(super) fn check(
    files: &FileSet,
    info: &Info,
    stamps: &[Option<Stamp>],
    record: Option<&Record>,
    stop: &AtomicBool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Checked, DiskError> {
    let layout = files.layout();
    let lens: Vec<_> = stamps.iter().map(|s| s.map(|s| s.len)).collect();
    let mut good = trusted(files, stamps, &lens, record);
    let there = |p: &PieceIndex| !good.has(p.get()) && files.is_there(*p, &lens);
    let pieces: Vec<PieceIndex> = layout.all_pieces().filter(there).collect();
    let total: u64 = pieces.iter().map(|p| u64::from(layout.piece_len(*p))).sum();
    let (found, done) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let zeros = LazyLock::new(|| ZeroDigests::new(layout));
    // A step small enough to see, and few enough to not be in the way.
    let step = (total / 200).max(PROGRESS_STEP_MIN);
    for_each_piece(&pieces, stop, &|piece, buffer| {
        let digest = match files.is_hole(piece) {
            true => Ok(zeros.of(layout, piece)),
            false => hash_piece(files, piece, buffer),
        };
        // What cannot be read is not there.
        if digest.ok() == info.piece_hash(piece.get()) {
            locked(&found).push(piece);
        }
        let len = u64::from(layout.piece_len(piece));
        let before = done.fetch_add(len, Ordering::Relaxed);
        if before / step != (before + len) / step {
            progress(before + len, total);
        }
    });
    if !pieces.is_empty() {
        progress(done.into_inner(), total);
    }
    for piece in found.into_inner().unwrap_or_default() {
        good.set(piece.get());
    }
    let broken_off = stop.load(Ordering::Relaxed) && !pieces.is_empty();
    let known = record.is_some_and(|r| r.have == good.as_bytes() && pieces.is_empty());
    Ok(Checked { good, news: !known, broken_off })
}

fn trusted(
    files: &FileSet,
    stamps: &[Option<Stamp>],
    lens: &[Option<u64>],
    record: Option<&Record>,
) -> Bitfield {
    let layout = files.layout();
    let none = Bitfield::none(layout.piece_count());
    let Some(record) = record else { return none };
    let Some(have) = Bitfield::decode(&record.have, layout.piece_count()) else { return none };
    let mut same = vec![false; stamps.len()];
    for (index, stamp) in &record.files {
        let Ok(index) = usize::try_from(*index) else { continue };
        if let (Some(same), Some(now)) = (same.get_mut(index), stamps.get(index)) {
            *same = now.as_ref() == Some(stamp);
        }
    }
    let parts_same = record.parts.is_some() && record.parts == files.parts().stamp();
    let mut good = none;
    for piece in have.iter().filter_map(|p| layout.piece(p)) {
        let mut spans = layout.spans(piece, 0, layout.piece_len(piece));
        let unchanged = spans.all(|s| {
            let pad = layout.files()[s.file].pad;
            pad || if files.is_aside(s.file) { parts_same } else { same[s.file] }
        });
        // Somebody may have cut a file just before the record was written.
        if unchanged && files.is_there(piece, lens) {
            good.set(piece.get());
        }
    }
    good
}

// What a hole hashes to, for both lengths of pieces.
struct ZeroDigests {
    full: Digest,
    last: Digest,
}

impl ZeroDigests {
    fn new(layout: &Layout) -> ZeroDigests {
        let last = layout.piece_count().checked_sub(1).and_then(|p| layout.piece(p));
        let last = last.map_or(0, |p| layout.piece_len(p));
        ZeroDigests { full: zero_digest(layout.piece_length()), last: zero_digest(last) }
    }

    fn of(&self, layout: &Layout, piece: PieceIndex) -> Digest {
        let full = layout.piece_len(piece) == layout.piece_length();
        if full { self.full } else { self.last }
    }
}

fn zero_digest(len: u32) -> Digest {
    let zeros = [0; 4096];
    let (mut sha, mut left) = (Sha1::new(), len as usize);
    while left > 0 {
        let part = left.min(zeros.len());
        sha.update(&zeros[..part]);
        left -= part;
    }
    sha.finish()
}

/// Bytes between two progress reports, at least.
const PROGRESS_STEP_MIN: u64 = 4 << 20;
