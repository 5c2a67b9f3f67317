//! Files that somebody else changes while they are shared.
//!
//! Of every file that we do not write it is known what it looked like when it was checked. A read
//! for somebody else looks at it again, once for each stretch that is read ahead. If it is not what
//! it was, nothing of it leaves before its piece was hashed again: what still matches goes on, the
//! rest is lost. While a download writes to a file its times say nothing, and it is not watched
//! until all that is wanted is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bytes::Bytes;

use crate::driver::resume::Stamp;
use crate::driver::storage::files::FileSet;
use crate::driver::storage::hashing::hash_piece;
use crate::driver::storage::{Opened, locked};
use crate::swarm::{DiskError, DiskErrorKind, PieceIndex};
use crate::wire::metainfo::piece_hash;

/// What is known of the files of one torrent.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    // As they were checked; none of what we write.
    known: Vec<Option<Stamp>>,
    // Seen to be something else.
    changed: BTreeSet<usize>,
    // Of those: nobody has heard of it.
    untold: Vec<usize>,
    // Pieces of those that were hashed again and are good, while their files look so.
    proven: BTreeMap<u32, Vec<Stamp>>,
}

impl Watch {
    /// What the files looked like before they were checked.
    pub(super) fn start(&self, stamps: &[Option<Stamp>]) {
        locked(&self.state).known = stamps.to_vec();
    }

    /// We are about to write. What somebody else did to the file before does not go away by that.
    pub(super) fn on_writing(&self, file: usize) {
        let mut state = locked(&self.state);
        if state.changed.contains(&file) {
            return;
        }
        if let Some(known) = state.known.get_mut(file) {
            *known = None;
        }
    }

    /// We are done with a file that looked like `before` until we cut it.
    pub(super) fn settle(&self, file: usize, before: Stamp, after: Option<Stamp>) {
        let mut state = locked(&self.state);
        if let Some(known) = state.known.get_mut(file).filter(|k| k.is_none_or(|k| k == before)) {
            *known = after;
        }
    }

    /// Somebody else wrote to the file since it was checked.
    pub(super) fn is_changed(&self, file: usize) -> bool {
        locked(&self.state).changed.contains(&file)
    }

    /// Is a file still what was checked? `now` is asked for first: a write of ours that it shows
    /// was told before.
    pub(super) fn is_as_known(&self, file: usize, now: Stamp) -> bool {
        let state = locked(&self.state);
        state.known.get(file).copied().flatten().is_none_or(|known| known == now)
    }

    fn note_change(&self, file: usize) {
        let mut state = locked(&self.state);
        if state.changed.insert(file) {
            state.untold.push(file);
        }
    }

    fn is_proven(&self, piece: PieceIndex, looks: &[Stamp]) -> bool {
        locked(&self.state).proven.get(&piece.get()).is_some_and(|proven| proven == looks)
    }

    fn prove(&self, piece: PieceIndex, looks: Vec<Stamp>) {
        locked(&self.state).proven.insert(piece.get(), looks);
    }
}

impl Opened {
    /// The files that were seen to have changed since this was asked last; each is told once.
    pub(in crate::driver) fn take_changed(&self) -> Vec<usize> {
        std::mem::take(&mut locked(&self.files.watch().state).untold)
    }

    /// Part of a good piece, for somebody else. Reads of one piece do not run at once.
    pub(in crate::driver) fn read_good(
        &self,
        piece: PieceIndex,
        begin: u32,
        len: u32,
    ) -> Result<Bytes, DiskError> {
        let watch = self.files.watch();
        for _ in 0..ATTEMPTS {
            let bytes = self.files.read_new(piece, begin, len)?;
            // Behind the read: what was written before it shows.
            let Some(file) = changed(&self.files, piece, begin, len)? else { return Ok(bytes) };
            watch.note_change(file);
            let looks = stamps(&self.files, piece)?;
            if watch.is_proven(piece, &looks) {
                return Ok(bytes);
            }
            let digest = hash_piece(&self.files, piece, &mut Vec::new())?;
            if Some(digest) != piece_hash(&self.hashes, piece.get()) {
                return Err(self.lost(file, "was changed behind our back"));
            }
            if stamps(&self.files, piece)? == looks {
                watch.prove(piece, looks);
            }
        }
        let context = format!("reading piece {}", piece.get());
        let message = "its files are being changed".to_owned();
        Err(DiskError { kind: DiskErrorKind::Busy, context, message })
    }
}

// A file with part in this stretch that is not what it was when it was checked.
fn changed(
    files: &FileSet,
    piece: PieceIndex,
    begin: u32,
    len: u32,
) -> Result<Option<usize>, DiskError> {
    for span in files.layout().spans(piece, begin, len) {
        let now = files.open_stamp(piece, &span)?;
        if now.is_some_and(|now| !files.watch().is_as_known(span.file, now)) {
            return Ok(Some(span.file));
        }
    }
    Ok(None)
}

// What the files of a piece look like now.
fn stamps(files: &FileSet, piece: PieceIndex) -> Result<Vec<Stamp>, DiskError> {
    let spans = files.layout().spans(piece, 0, files.layout().piece_len(piece));
    spans.filter_map(|span| files.open_stamp(piece, &span).transpose()).collect()
}

/// The first finds that something was changed, the second serves it; once more if it is changed
/// between the two.
const ATTEMPTS: usize = 3;
