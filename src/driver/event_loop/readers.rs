//! Who reads files of torrents: their windows, and reads that wait for their piece.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Weak;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::EventLoop;
use crate::driver::ReadError;
use crate::driver::command::{Opened, Read};
use crate::driver::disk::Fetch;
use crate::engine::TorrentId;
use crate::swarm::layout::Layout;
use crate::swarm::{PieceIndex, ReaderId, Torrent};

/// All readers of a session.
#[derive(Debug, Default)]
pub(super) struct Readers {
    open: BTreeMap<ReaderId, Reader>,
    /// At most one of each reader.
    waiting: BTreeMap<ReaderId, Waiting>,
    last: u64,
}

#[derive(Debug)]
struct Reader {
    torrent: TorrentId,
    file: usize,
    token: Weak<()>,
}

#[derive(Debug)]
struct Waiting {
    part: Part,
    reply: Reply,
}

/// Part of one piece.
#[derive(Debug, Clone, Copy)]
struct Part {
    piece: PieceIndex,
    begin: u32,
    len: u32,
}

type Reply = oneshot::Sender<Result<Bytes, ReadError>>;

impl EventLoop {
    pub(super) fn open_reader(
        &mut self,
        torrent: TorrentId,
        file: usize,
        token: Weak<()>,
    ) -> Result<Opened, ReadError> {
        self.sweep_readers();
        let core = self.engine.torrent(torrent).ok_or(ReadError::Ended)?;
        let layout = core.layout().ok_or(ReadError::NoMetadata)?;
        let entry = layout.files().get(file).filter(|file| !file.pad);
        let len = entry.ok_or(ReadError::NoFile(file))?.len;
        if !self.torrents.get(&torrent).is_some_and(|t| t.has_storage) {
            return Err(ReadError::NoData);
        }
        let mut pieces = layout.pieces_of_file(file);
        if pieces.any(|piece| !core.has_piece(piece) && !core.may_want_piece(piece)) {
            return Err(ReadError::NotSelected);
        }
        self.readers.last += 1;
        let reader = ReaderId(self.readers.last);
        self.readers.open.insert(reader, Reader { torrent, file, token });
        Ok(Opened { reader, len })
    }

    pub(super) fn read(&mut self, id: ReaderId, read: Read, reply: Reply) {
        let Some(reader) = self.readers.open.get(&id) else { return };
        let (torrent, file) = (reader.torrent, reader.file);
        let located = self.engine.torrent(torrent).and_then(Torrent::layout);
        let Some((part, window)) = located.and_then(|layout| locate(layout, file, read)) else {
            // The other side is told by the loss of the reply.
            return;
        };
        self.engine.set_window(self.clock.now(), torrent, id, Some(window));
        self.serve(id, torrent, Waiting { part, reply });
    }

    // Reads what is here; what is not waits, if it will come.
    fn serve(&mut self, id: ReaderId, torrent: TorrentId, waiting: Waiting) {
        self.readers.waiting.remove(&id);
        let Some(core) = self.engine.torrent(torrent) else { return };
        let Part { piece, begin, len } = waiting.part;
        if core.has_piece(piece.get()) {
            let reply = waiting.reply;
            let reply = Box::new(move |read: Result<Bytes, _>| {
                // Who seeks elsewhere does not wait for it any more.
                let _ = reply.send(read.map_err(ReadError::from));
            });
            if let Some(disk) = &self.disk {
                disk.fetch(torrent.0, Fetch { piece, begin, len, reply });
            }
        } else if core.phase() == crate::swarm::Phase::Stopped {
            let _ = waiting.reply.send(Err(ReadError::Ended));
        } else if core.may_want_piece(piece.get()) {
            self.readers.waiting.insert(id, waiting);
        } else {
            let _ = waiting.reply.send(Err(ReadError::NotSelected));
        }
    }

    /// Something happened to a torrent that those who wait may care for; with a piece, to that alone.
    pub(super) fn serve_waiting(&mut self, torrent: TorrentId, piece: Option<PieceIndex>) {
        if self.readers.waiting.is_empty() {
            return;
        }
        let of_torrent = |id: &ReaderId| {
            self.readers.open.get(id).is_some_and(|reader| reader.torrent == torrent)
        };
        let waiting = self.readers.waiting.iter();
        let concerned = waiting
            .filter(|(id, w)| piece.is_none_or(|piece| piece == w.part.piece) && of_torrent(id));
        let concerned: Vec<ReaderId> = concerned.map(|(id, _)| *id).collect();
        for id in concerned {
            if let Some(waiting) = self.readers.waiting.remove(&id) {
                self.serve(id, torrent, waiting);
            }
        }
    }

    /// A torrent is gone, and with it who reads it.
    pub(super) fn forget_readers(&mut self, torrent: TorrentId) {
        let Readers { open, waiting, .. } = &mut self.readers;
        open.retain(|_, reader| reader.torrent != torrent);
        waiting.retain(|id, _| open.contains_key(id));
    }

    /// Readers that nobody holds any more want nothing.
    pub(super) fn sweep_readers(&mut self) {
        let now = self.clock.now();
        let gone = self.readers.open.iter().filter(|(_, r)| r.token.strong_count() == 0);
        let gone: Vec<_> = gone.map(|(id, reader)| (*id, reader.torrent)).collect();
        for (id, torrent) in gone {
            self.readers.open.remove(&id);
            self.readers.waiting.remove(&id);
            self.engine.set_window(now, torrent, id, None);
        }
    }
}

// The part of one piece that a reader wants, and the pieces that it will want.
fn locate(layout: &Layout, file: usize, read: Read) -> Option<(Part, Range<u32>)> {
    let entry = layout.files().get(file)?;
    let left = entry.len.checked_sub(read.at).filter(|left| *left > 0)?;
    let at = entry.offset.checked_add(read.at)?;
    let piece_len = u64::from(layout.piece_length());
    let index = |at: u64| u32::try_from(at / piece_len).ok();
    let piece = layout.piece(index(at)?)?;
    let begin = u32::try_from(at % piece_len).ok()?;
    let in_piece = layout.piece_len(piece).checked_sub(begin)?;
    let len = u32::try_from(left).unwrap_or(u32::MAX).min(in_piece).min(read.len);
    let ahead = read.ahead.max(u64::from(len)).min(left);
    let window = piece.get()..index(at + ahead - 1)? + 1;
    Some((Part { piece, begin, len }, window))
}
