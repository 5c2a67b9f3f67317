//! Readers of the data while it comes: each has a window of pieces that are fetched before all else.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Torrent;
use crate::base::Instant;
use crate::swarm::ReaderId;
use crate::swarm::layout::Layout;

impl Torrent {
    /// A reader is at the start of this window now; `None`: it is gone. As a window counts what is
    /// wanted alone.
    pub fn set_window(&mut self, now: Instant, reader: ReaderId, window: Option<Range<u32>>) {
        self.now = now;
        let before = self.windows.get(&reader);
        if before == window.as_ref() {
            return;
        }
        match window {
            Some(window) if before.is_some() || self.windows.len() < READERS_MAX => {
                self.windows.insert(reader, window);
            }
            // It reads all the same, at the pace of the download.
            Some(_) => return,
            None => _ = self.windows.remove(&reader),
        }
        self.apply_windows();
        self.refill_all(now);
    }

    /// Tells the picker what is waited for: of each window its next piece, then of each the one after.
    pub(super) fn apply_windows(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        let (mut seen, mut urgent) = (BTreeSet::new(), Vec::new());
        for ahead in 0..WINDOW_PIECES_MAX {
            let next = self.windows.values().filter_map(|w| w.clone().nth(ahead));
            urgent.extend(next.filter(|piece| seen.insert(*piece)));
        }
        transfer.picker.set_urgent(urgent);
    }

    /// The pieces and files; `None` before the info dictionary is here.
    pub fn layout(&self) -> Option<&Layout> {
        self.content.as_ref().map(|content| &content.layout)
    }

    /// Is this piece verified?
    pub fn has_piece(&self, piece: u32) -> bool {
        self.transfer.as_ref().is_some_and(|t| t.picker.have().has(piece))
    }

    /// Is this piece wanted, or not known to be unwanted?
    pub fn may_want_piece(&self, piece: u32) -> bool {
        self.transfer.as_ref().is_none_or(|t| t.picker.wanted().has(piece))
    }
}

/// Readers of one torrent that have a window.
const READERS_MAX: usize = 64;
/// Pieces of a window: the picker looks at as many in one go.
const WINDOW_PIECES_MAX: usize = 128;
