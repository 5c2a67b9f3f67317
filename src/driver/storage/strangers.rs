//! Files of somebody else that stand where a torrent's belong: nothing is written to them.
//!
//! What another client left behind is to be gone on with, and what only has the same name is to be
//! left alone. A file is taken for the torrent's if something in it is right, if it holds nothing,
//! or if a run of ours may have made it: its record names the files that were there, and those
//! that it was about to make. A file so small that it shares all its pieces with others proves
//! nothing by itself: it is taken for the torrent's if anything of the torrent is right. So is every
//! file where we have no record: others begin many files at once, and folders are moved.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::driver::resume::{Record, Stamp};
use crate::driver::storage::errors::{disk_error, occupied};
use crate::driver::storage::files::FileSet;
use crate::swarm::DiskError;
use crate::swarm::layout::Layout;
use crate::wire::bitfield::Bitfield;

/// The files that are none of the torrent's, once it is known which pieces are good.
pub(super) fn find(
    files: &FileSet,
    stamps: &[Option<Stamp>],
    record: Option<&Record>,
    good: &Bitfield,
) -> Result<BTreeSet<usize>, DiskError> {
    let layout = files.layout();
    let ours: BTreeSet<usize> = record
        .iter()
        .flat_map(|r| &r.files)
        .filter_map(|(index, _)| usize::try_from(*index).ok())
        .collect();
    let is_begun = good.count() > 0;
    let mut strange = BTreeSet::new();
    for (index, (file, stamp)) in layout.files().iter().zip(stamps).enumerate() {
        let Some(stamp) = stamp.filter(|s| s.len > 0 && !file.pad) else { continue };
        let is_right = layout.pieces_of_file(index).any(|p| good.has(p));
        if is_right || ours.contains(&index) {
            continue;
        }
        let tells = !is_begun || (record.is_some() && has_own_piece(layout, index));
        if stamp.len > file.len || (tells && !is_blank(files, index)?) {
            strange.insert(index);
        }
    }
    Ok(strange)
}

/// Refuses if anything of the files that are `wanted` would be written to a strange one.
pub(super) fn refuse(
    files: &FileSet,
    strange: &BTreeSet<usize>,
    wanted: Option<&[bool]>,
) -> Result<(), DiskError> {
    if strange.is_empty() {
        return Ok(());
    }
    let layout = files.layout();
    let pieces = layout.wanted_pieces(wanted);
    let is_wanted = |file: usize| {
        // Empty files have no pieces, and are made all the same.
        let wants = wanted.is_none_or(|w| w.get(file).copied().unwrap_or(false));
        wants || layout.pieces_of_file(file).any(|p| pieces.has(p))
    };
    let mut hit = strange.iter().filter(|file| is_wanted(**file));
    let Some(first) = hit.next() else { return Ok(()) };
    let mut why = "is another file: nothing in it matches the torrent".to_owned();
    match hit.count() {
        0 => {}
        1 => why.push_str(" (and so is one more)"),
        more => why.push_str(&format!(" (and so are {more} more)")),
    }
    Err(occupied(&files.path(*first), why))
}

fn has_own_piece(layout: &Layout, file: usize) -> bool {
    layout
        .pieces_of_file(file)
        .filter_map(|p| layout.piece(p))
        .any(|piece| layout.spans(piece, 0, layout.piece_len(piece)).all(|span| span.file == file))
}

// Room that was made for data, and none in it. Holes are not read; of anything else the first
// part tells.
fn is_blank(files: &FileSet, file: usize) -> Result<bool, DiskError> {
    let handle = files.handle(file, false)?;
    let path = files.path(file);
    let failed = |e: io::Error| disk_error("reading", &path, &e);
    let (mut at, mut buffer) = (0, vec![0; READ_LEN]);
    loop {
        match rustix::fs::seek(&*handle, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(Errno::NXIO) => return Ok(true),
            // A file system that does not know its holes is read from end to end.
            Err(_) => {}
        }
        let len = match handle.file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(true),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        if buffer[..len].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += len as u64;
    }
}

const READ_LEN: usize = 256 << 10;
