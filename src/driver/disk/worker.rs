//! The work of one lane: blocks into files and hashes, pieces out to peers.
//!
//! Blocks are written as they come, neighbours in one call. Those that continue their piece are
//! hashed at once, straight from the buffer they were received in, while it is in the cache; those
//! that came too early wait in memory, within a budget, or are read back when the piece is whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::base::Digest;
use crate::base::hash::{Sha1, sha1};
use crate::base::limits::BLOCK_LEN;
use crate::driver::disk::reads::ReadCache;
use crate::driver::disk::{Fetch, Job, Task};
use crate::driver::storage::{Opened, Storage, aligned};
use crate::swarm::{DiskError, DiskErrorKind, DiskEvent, DiskRequest, PieceIndex};

type Events = Vec<(u32, DiskEvent)>;

/// One lane's state.
pub(super) struct Worker<'a> {
    pieces: BTreeMap<(u32, u32), Writing<'a>>,
    reads: ReadCache,
    waiting_bytes: &'a AtomicUsize,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(waiting_bytes: &'a AtomicUsize) -> Self {
        let (pieces, reads) = (BTreeMap::new(), ReadCache::new());
        Self { pieces, reads, waiting_bytes, buffer: Vec::new() }
    }

    /// Does all jobs of `batch`, those of one piece together and in their order.
    pub(super) fn work(&mut self, batch: &mut Vec<Job>, events: &mut Events) {
        batch.sort_by_key(|job| (job.id, job.task.piece()));
        let mut blocks = Vec::new();
        let mut jobs = batch.drain(..).peekable();
        while let Some(Job { id, storage, task }) = jobs.next() {
            let request = match task {
                Task::Do(request) => request,
                Task::Fetch(fetch) => {
                    self.fetch(id, &storage, fetch);
                    storage.opened().iter().for_each(|opened| tell_changed(id, opened, events));
                    continue;
                }
                Task::Forget => {
                    self.forget(id);
                    continue;
                }
                Task::Erase(_) => unreachable!("not on a lane"),
            };
            let Some(opened) = storage.opened() else {
                events.extend(refusal(request).map(|event| (id, event)));
                continue;
            };
            let DiskRequest::Write { piece, begin, block } = request else {
                self.do_one(id, &storage, &opened, request, events);
                continue;
            };
            blocks.push((begin, block));
            let goes_on = jobs.peek().is_some_and(|next| {
                let same = |p: &PieceIndex| next.id == id && *p == piece;
                matches!(&next.task, Task::Do(DiskRequest::Write { piece, .. }) if same(piece))
            });
            if !goes_on {
                let blocks = std::mem::take(&mut blocks);
                self.write(id, &storage, &opened, Run { piece, blocks }, events);
            }
        }
    }

    fn fetch(&mut self, id: u32, storage: &Storage, fetch: Fetch) {
        let Fetch { piece, begin, len, reply } = fetch;
        reply(match storage.opened() {
            Some(opened) => self.reads.read(id, &opened, piece, begin, len),
            None => Err(DiskError {
                kind: DiskErrorKind::Io,
                context: "reading".to_owned(),
                message: "the torrent is closed".to_owned(),
            }),
        });
    }

    fn do_one(
        &mut self,
        id: u32,
        storage: &Storage,
        opened: &Opened,
        request: DiskRequest,
        events: &mut Events,
    ) {
        let event = match request {
            DiskRequest::Commit { piece } => {
                opened.commit(piece);
                return;
            }
            DiskRequest::Discard { piece } => {
                opened.discard(piece);
                self.pieces.remove(&(id, piece.get()));
                self.reads.forget(id, opened, piece);
                return;
            }
            DiskRequest::Read { conn, piece, begin, len } => {
                let read = self.reads.read(id, opened, piece, begin, len);
                tell_changed(id, opened, events);
                match read {
                    Ok(block) => DiskEvent::Read { conn, piece, begin, block },
                    Err(e) => {
                        tracing::debug!("a peer's request could not be served: {e}");
                        let is_lost = e.kind != DiskErrorKind::Busy;
                        DiskEvent::ReadFailed { conn, piece, begin, len, is_lost }
                    }
                }
            }
            DiskRequest::HashBlocks { piece } => match hash_blocks(opened, piece, &mut self.buffer)
            {
                Ok(digests) => DiskEvent::BlocksHashed { piece, digests },
                Err(e) => return fail(id, storage, e, events),
            },
            DiskRequest::Write { .. }
            | DiskRequest::Open { .. }
            | DiskRequest::Select { .. }
            | DiskRequest::Flush
            | DiskRequest::Close => unreachable!("handled before, or not on a lane"),
        };
        events.push((id, event));
    }

    fn write(
        &mut self,
        id: u32,
        storage: &Storage,
        opened: &Opened,
        run: Run,
        events: &mut Events,
    ) {
        if storage.has_failed() {
            return;
        }
        let piece = run.piece;
        match self.store(id, opened, run, events) {
            Ok(Some(digest)) => events.push((id, DiskEvent::Hashed { piece, digest })),
            Ok(None) => {}
            Err(e) => {
                self.pieces.remove(&(id, piece.get()));
                fail(id, storage, e, events);
            }
        }
    }

    // Writes and hashes; the digest if the piece is whole now.
    fn store(
        &mut self,
        id: u32,
        opened: &Opened,
        run: Run,
        events: &mut Events,
    ) -> Result<Option<Digest>, DiskError> {
        let piece = run.piece;
        let waiting_bytes = self.waiting_bytes;
        let writing = self.pieces.entry((id, piece.get()));
        let writing = writing.or_insert_with(|| Writing::new(opened, piece, waiting_bytes));
        for (begin, blocks) in run.stretches(opened) {
            opened.files.write(piece, begin, &blocks)?;
            let mut at = begin;
            for block in blocks {
                let len = u32::try_from(block.len()).expect("a block has 16 KiB");
                writing.add(at, block);
                events.push((id, DiskEvent::Written { piece, begin: at, len }));
                at += len;
            }
        }
        if writing.missing > 0 {
            return Ok(None);
        }
        let Some(writing) = self.pieces.remove(&(id, piece.get())) else { return Ok(None) };
        writing.finish(opened, piece, &mut self.buffer).map(Some)
    }

    fn forget(&mut self, id: u32) {
        let pieces: Vec<_> = self.pieces.range((id, 0)..=(id, u32::MAX)).map(|(k, _)| *k).collect();
        for key in pieces {
            self.pieces.remove(&key);
        }
    }
}

// Blocks of one piece that are to be written together.
struct Run {
    piece: PieceIndex,
    blocks: Vec<(u32, Bytes)>,
}

impl Run {
    // Blocks that follow each other, each stretch with where it begins.
    fn stretches(mut self, opened: &Opened) -> Vec<(u32, Vec<Bytes>)> {
        let (layout, piece) = (opened.layout(), self.piece);
        self.blocks.sort_by_key(|(begin, _)| *begin);
        let mut out: Vec<(u32, Vec<Bytes>)> = Vec::new();
        let mut end = None;
        for (begin, block) in self.blocks {
            let len = layout.block_len(piece, begin / BLOCK_LEN);
            if begin % BLOCK_LEN != 0 || len == 0 || block.len() != len as usize {
                debug_assert!(false, "the core only stores whole blocks");
                continue;
            }
            let block =
                if opened.has_padding() { unpadded(opened, piece, begin, block) } else { block };
            match out.last_mut() {
                Some((_, blocks)) if end == Some(begin) => blocks.push(block),
                _ => out.push((begin, vec![block])),
            }
            end = Some(begin + len);
        }
        out
    }
}

// A piece that is being written.
struct Writing<'a> {
    sha: Sha1,
    // So much from the start of the piece is in `sha`.
    hashed: u32,
    stored: Vec<bool>,
    missing: usize,
    // Blocks behind a gap. What the budget had no room for is on the disk only.
    waiting: BTreeMap<u32, Bytes>,
    waiting_bytes: &'a AtomicUsize,
}

impl<'a> Writing<'a> {
    fn new(opened: &Opened, piece: PieceIndex, waiting_bytes: &'a AtomicUsize) -> Self {
        let blocks = opened.layout().block_count(piece) as usize;
        Writing {
            sha: Sha1::new(),
            hashed: 0,
            stored: vec![false; blocks],
            missing: blocks,
            waiting: BTreeMap::new(),
            waiting_bytes,
        }
    }

    fn add(&mut self, begin: u32, block: Bytes) {
        let stored = &mut self.stored[(begin / BLOCK_LEN) as usize];
        self.missing -= usize::from(!*stored);
        *stored = true;
        self.take_waiting(begin);
        if begin < self.hashed {
            // Written again: what was hashed is not what is stored. All is read back at the end.
            (self.sha, self.hashed) = (Sha1::new(), 0);
        }
        if begin > self.hashed {
            return self.keep(begin, block);
        }
        self.hash(&block);
        while let Some(next) = self.take_waiting(self.hashed) {
            self.hash(&next);
        }
    }

    fn hash(&mut self, block: &[u8]) {
        self.sha.update(block);
        self.hashed += u32::try_from(block.len()).expect("at most a piece is hashed at once");
    }

    fn keep(&mut self, begin: u32, block: Bytes) {
        let room =
            |held: usize| held.checked_add(block.len()).filter(|sum| *sum <= WAITING_BYTES_MAX);
        let (order, held) = (Ordering::Relaxed, self.waiting_bytes);
        if held.fetch_update(order, order, room).is_ok() {
            self.waiting.insert(begin, block);
        }
    }

    fn take_waiting(&mut self, begin: u32) -> Option<Bytes> {
        let block = self.waiting.remove(&begin)?;
        self.waiting_bytes.fetch_sub(block.len(), Ordering::Relaxed);
        Some(block)
    }

    // All blocks are stored: hashes what is not hashed yet, from memory or from the disk.
    fn finish(
        mut self,
        opened: &Opened,
        piece: PieceIndex,
        buffer: &mut Vec<u8>,
    ) -> Result<Digest, DiskError> {
        let len = opened.layout().piece_len(piece);
        while self.hashed < len {
            if let Some(block) = self.take_waiting(self.hashed) {
                self.hash(&block);
                continue;
            }
            let gap_end = self.waiting.range(self.hashed..).next().map_or(len, |(begin, _)| *begin);
            let part = (gap_end - self.hashed).min(READ_BACK_LEN);
            let out = &mut aligned::slice(buffer, READ_BACK_LEN as usize)[..part as usize];
            opened.files.read(piece, self.hashed, out)?;
            self.hash(out);
        }
        Ok(std::mem::take(&mut self.sha).finish())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let held: usize = self.waiting.values().map(Bytes::len).sum();
        self.waiting_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}

// Padding reads as zeros (BEP 47); a block that says otherwise must not get a digest that the
// disk cannot give again.
fn unpadded(opened: &Opened, piece: PieceIndex, begin: u32, block: Bytes) -> Bytes {
    let layout = opened.layout();
    let len = u32::try_from(block.len()).expect("a block has 16 KiB");
    let range = |at: u32, len: u32| at as usize..(at + len) as usize;
    let padding = layout.spans(piece, begin, len).filter(|s| layout.files()[s.file].pad);
    let dirty: Vec<_> = padding
        .map(|s| range(s.at, s.len))
        .filter(|r| block[r.clone()].iter().any(|b| *b != 0))
        .collect();
    if dirty.is_empty() {
        return block;
    }
    let mut bytes = block.to_vec();
    dirty.into_iter().for_each(|r| bytes[r].fill(0));
    Bytes::from(bytes)
}

fn hash_blocks(
    opened: &Opened,
    piece: PieceIndex,
    buffer: &mut Vec<u8>,
) -> Result<Vec<Digest>, DiskError> {
    let layout = opened.layout();
    (0..layout.block_count(piece))
        .map(|block| {
            let len = layout.block_len(piece, block) as usize;
            let out = &mut aligned::slice(buffer, READ_BACK_LEN as usize)[..len];
            opened.files.read(piece, block * BLOCK_LEN, out)?;
            Ok(sha1(out))
        })
        .collect()
}

// What is answered when the storage is not open (any more).
fn refusal(request: DiskRequest) -> Option<DiskEvent> {
    let DiskRequest::Read { conn, piece, begin, len } = request else { return None };
    Some(DiskEvent::ReadFailed { conn, piece, begin, len, is_lost: false })
}

fn tell_changed(id: u32, opened: &Opened, events: &mut Events) {
    let changed = opened.take_changed().into_iter();
    events.extend(changed.map(|file| (id, DiskEvent::FileChanged { file })));
}

fn fail(id: u32, storage: &Storage, error: DiskError, events: &mut Events) {
    if storage.fail() {
        events.push((id, DiskEvent::Failed(error)));
    }
}

/// Bytes that wait out of order, of all torrents. More is read back from the disk.
pub(in crate::driver) const WAITING_BYTES_MAX: usize = 16 << 20;
/// Bytes of one read when a piece is read back.
const READ_BACK_LEN: u32 = 256 << 10;
