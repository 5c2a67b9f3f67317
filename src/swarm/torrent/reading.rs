//! Readers of the data while it comes: each has a window of pieces that are fetched before all else.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

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
        // It jumped, or is new.
        if window.as_ref().is_some_and(|w| before.is_none_or(|before| !before.contains(&w.start))) {
            self.hold = Hold::Ready;
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

    /// Is nobody here who has what is waited for, and is it worth a moment to take nothing else? A lone
    /// seed that hands pieces out one by one (BEP 16) shows everything to a peer that has no use for
    /// those that it is told of; one that takes them gets what it waits for at last, perhaps.
    pub(super) fn holds_back(&mut self, now: Instant) -> bool {
        let Some(transfer) = self.transfer.as_ref().filter(|_| self.hold != Hold::Off) else {
            return false;
        };
        let first = transfer.picker.first_urgent();
        if first.is_none_or(|piece| transfer.picker.copies(piece) > 0) {
            return false;
        }
        match self.hold {
            Hold::Off => false,
            Hold::Ready => {
                self.hold = Hold::Until(now + HOLD_TIME);
                true
            }
            Hold::Until(end) => now < end,
        }
    }

    /// The moment may be over.
    pub(super) fn tend_hold(&mut self, now: Instant) {
        if matches!(self.hold, Hold::Until(_)) && !self.holds_back(now) {
            self.hold = Hold::Off;
            self.conns().into_iter().for_each(|conn| self.update_interest(conn));
            self.refill_all(now);
        }
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

/// How long a reader is worth taking nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is not, or was already.
    Off,
    /// From when somebody offers something else.
    Ready,
    /// Until then.
    Until(Instant),
}

/// Long enough for a lone seed that serves others to see twice that what it offers is not wanted.
const HOLD_TIME: Duration = Duration::from_secs(8);
/// Readers of one torrent that have a window.
const READERS_MAX: usize = 64;
/// Pieces of a window: the picker looks at as many in one go.
const WINDOW_PIECES_MAX: usize = 128;
