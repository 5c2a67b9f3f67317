//! The storage of one torrent, in memory: answers every [`DiskRequest`] as the driver's does, and
//! can be told to fail. What it verifies it verifies with the same hash.
//!
//! It can be opened again after its process was killed, or after the power was cut: then only what
//! was made durable is sure to be there, and what its record calls good is believed without a look.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::base::hash::{Sha1, sha1};
use crate::base::{Rng, Seed};
use crate::swarm::layout::Layout;
use crate::swarm::{DiskError, DiskErrorKind, DiskEvent, DiskRequest, PieceIndex};
use crate::wire::bitfield::Bitfield;
use crate::wire::metainfo::Info;

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFaults {
    /// The disk is full after this many blocks.
    pub writes_max: Option<u64>,
    /// The probability that a write fails (EIO).
    pub write_fails: f64,
    /// After so many blocks somebody cuts the file to half of what was written.
    pub truncated_after: Option<u64>,
    /// The probability that a read finds the file changed.
    pub read_fails: f64,
    /// The probability that a block read for a peer has a wrong byte: how a liar is made.
    pub read_lies: f64,
    /// Reads are never answered: how a peer is made that promises everything and sends nothing.
    pub read_hangs: bool,
}

/// What ends a process without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The machine goes on: whatever was written is there.
    Kill,
    /// What was not synced is there, or not, or is zeros of the right length.
    PowerCut,
}

/// One torrent's storage.
#[derive(Debug)]
pub struct MemoryDisk {
    torrent: Option<(Info, Layout)>,
    /// Stored blocks by piece and offset. Bytes are shared with whoever received them.
    blocks: BTreeMap<(PieceIndex, u32), Bytes>,
    /// Those of them that a power cut takes.
    unsynced: BTreeSet<(PieceIndex, u32)>,
    good: Bitfield,
    /// What a next run is told is good, without having to look.
    record: Bitfield,
    commits: u32,
    /// Blocks that were written though the record called their piece good.
    refetched: u64,
    content: Option<Bytes>,
    /// What will be written, as far as nobody lies: what is equal to it is kept once for all disks.
    expected: Option<Bytes>,
    faults: DiskFaults,
    writes: u64,
    rng: Rng,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(faults: DiskFaults, seed: Seed) -> Self {
        Self {
            torrent: None,
            blocks: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            good: Bitfield::none(0),
            record: Bitfield::none(0),
            commits: 0,
            refetched: 0,
            content: None,
            expected: None,
            faults,
            writes: 0,
            rng: Rng::from_seed(seed),
        }
    }

    /// A disk on which all bytes of the torrent lie already.
    pub fn with_content(content: Bytes, faults: DiskFaults, seed: Seed) -> Self {
        Self { content: Some(content), ..Self::new(faults, seed) }
    }

    /// The same disk, which shares the memory of these bytes where it holds the same: a thousand copies of
    /// a torrent take no more than one.
    pub fn expecting(self, content: Bytes) -> Self {
        Self { expected: Some(content), ..self }
    }

    /// What the next process finds, on a disk that does not fail any more.
    pub fn after(mut self, loss: Loss) -> Self {
        if loss == Loss::PowerCut {
            for key in std::mem::take(&mut self.unsynced) {
                match self.rng.below(3) {
                    0 => {}
                    1 => drop(self.blocks.remove(&key)),
                    _ => {
                        if let Some(block) = self.blocks.get_mut(&key) {
                            *block = vec![0; block.len()].into();
                        }
                    }
                }
            }
        }
        let seed = self.rng.fork();
        let Self { blocks, unsynced, record, refetched, expected, .. } = self;
        let fresh = Self::new(DiskFaults::default(), seed);
        Self { blocks, unsynced, record, refetched, expected, ..fresh }
    }

    /// Blocks that were fetched again though a record called their piece good.
    pub fn refetched(&self) -> u64 {
        self.refetched
    }

    /// Does one job; the answers come in this order.
    pub fn handle(&mut self, request: DiskRequest) -> Vec<DiskEvent> {
        match request {
            DiskRequest::Open { info, .. } => vec![self.open(&info)],
            DiskRequest::Write { piece, begin, block } => self.write(piece, begin, block),
            DiskRequest::Discard { piece } => {
                self.blocks.retain(|(p, _), _| *p != piece);
                self.unsynced.retain(|(p, _)| *p != piece);
                Vec::new()
            }
            DiskRequest::Commit { piece } => {
                self.good.set(piece.get());
                self.commits += 1;
                if self.commits.is_multiple_of(COMMITS_A_SAVE) {
                    self.save();
                }
                Vec::new()
            }
            DiskRequest::Read { .. } if self.faults.read_hangs => Vec::new(),
            DiskRequest::Read { conn, piece, begin, len } => {
                vec![match self.read(piece, begin, len) {
                    Some(block) => DiskEvent::Read { conn, piece, begin, block },
                    None => DiskEvent::ReadFailed { conn, piece, begin, len, is_lost: false },
                }]
            }
            DiskRequest::HashBlocks { piece } => {
                let digests = self.blocks_of(piece).map(|block| sha1(block)).collect();
                vec![DiskEvent::BlocksHashed { piece, digests }]
            }
            DiskRequest::Select { .. } => Vec::new(),
            DiskRequest::Close => {
                self.save();
                Vec::new()
            }
            DiskRequest::Flush if self.is_whole() => {
                self.save();
                vec![DiskEvent::Flushed]
            }
            DiskRequest::Flush => {
                vec![DiskEvent::Failed(failure(DiskErrorKind::Io, "was made shorter"))]
            }
        }
    }

    // First the data, then the record of it.
    fn save(&mut self) {
        self.unsynced.clear();
        self.record = self.good.clone();
    }

    // Is what is good still there?
    fn is_whole(&self) -> bool {
        let Some((_, layout)) = &self.torrent else { return true };
        let mut good = layout.all_pieces().filter(|piece| self.good.has(piece.get()));
        good.all(|piece| self.is_stored(layout, piece))
    }

    fn is_stored(&self, layout: &Layout, piece: PieceIndex) -> bool {
        let stored: usize = self.blocks_of(piece).map(Bytes::len).sum();
        stored == layout.piece_len(piece) as usize
    }

    /// All bytes of the torrent, if every piece was committed.
    pub fn content(&self) -> Option<Vec<u8>> {
        if self.good.is_empty() || !self.good.is_all() {
            return None;
        }
        Some(self.blocks.values().flatten().copied().collect())
    }

    /// Blocks that were written, those of failed pieces included.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    fn open(&mut self, info: &Bytes) -> DiskEvent {
        let opened = Info::decode(info).map_err(|e| e.to_string()).and_then(|info| {
            let layout = Layout::new(&info).map_err(|e| e.to_string())?;
            Ok((info, layout))
        });
        let (info, layout) = match opened {
            Ok(opened) => opened,
            Err(reason) => return DiskEvent::Failed(failure(DiskErrorKind::Layout, &reason)),
        };
        self.good = Bitfield::none(layout.piece_count());
        if let Some(content) = self.content.take() {
            self.fill(&layout, &content);
        }
        if self.record.len() != self.good.len() {
            self.record = self.good.clone();
        }
        for piece in layout.all_pieces() {
            let is_good = self.is_stored(&layout, piece)
                && (self.record.has(piece.get())
                    || info.piece_hash(piece.get()) == Some(self.digest_of(piece)));
            if is_good {
                self.good.set(piece.get());
            }
        }
        // What is not good is fetched anew, all of it.
        let good = &self.good;
        self.blocks.retain(|(piece, _), _| good.has(piece.get()));
        self.torrent = Some((info, layout));
        DiskEvent::Opened { have: self.good.clone() }
    }

    fn fill(&mut self, layout: &Layout, content: &Bytes) {
        for piece in layout.all_pieces() {
            let start = usize::try_from(layout.piece_offset(piece)).unwrap_or(usize::MAX);
            let mut begin = 0;
            for block in 0..layout.block_count(piece) {
                let len = layout.block_len(piece, block);
                let from = start.saturating_add(begin as usize).min(content.len());
                let to = (from + len as usize).min(content.len());
                self.blocks.insert((piece, begin), content.slice(from..to));
                begin += len;
            }
        }
    }

    fn write(&mut self, piece: PieceIndex, begin: u32, block: Bytes) -> Vec<DiskEvent> {
        self.writes += 1;
        if self.faults.writes_max.is_some_and(|max| self.writes > max) {
            return vec![DiskEvent::Failed(failure(DiskErrorKind::Full, "no space left"))];
        }
        if self.rng.chance(self.faults.write_fails) {
            return vec![DiskEvent::Failed(failure(DiskErrorKind::Io, "input/output error"))];
        }
        if self.faults.truncated_after == Some(self.writes) {
            self.cut();
        }
        self.refetched += u64::from(self.record.has(piece.get()));
        let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let shared = self.shared(piece, begin, &block);
        self.blocks.insert((piece, begin), shared.unwrap_or(block));
        self.unsynced.insert((piece, begin));
        let mut events = vec![DiskEvent::Written { piece, begin, len }];
        let stored: usize = self.blocks_of(piece).map(Bytes::len).sum();
        let whole = self.torrent.as_ref().map(|(_, layout)| layout.piece_len(piece) as usize);
        if Some(stored) == whole {
            events.push(DiskEvent::Hashed { piece, digest: self.digest_of(piece) });
        }
        events
    }

    // Half of the file is gone. A piece that is still coming is in memory: it is written as a whole.
    fn cut(&mut self) {
        let Some(half) = self.blocks.keys().nth(self.blocks.len() / 2).copied() else { return };
        let good = &self.good;
        self.blocks.retain(|at, _| *at < half || !good.has(at.0.get()));
    }

    // The same bytes, of those that are shared.
    fn shared(&self, piece: PieceIndex, begin: u32, block: &Bytes) -> Option<Bytes> {
        let ((_, layout), expected) = (self.torrent.as_ref()?, self.expected.as_ref()?);
        let from = usize::try_from(layout.piece_offset(piece)).ok()?.checked_add(begin as usize)?;
        let same = expected.get(from..from.checked_add(block.len())?)?;
        (same == block).then(|| expected.slice_ref(same))
    }

    fn read(&mut self, piece: PieceIndex, begin: u32, len: u32) -> Option<Bytes> {
        if self.rng.chance(self.faults.read_fails) {
            return None;
        }
        let (at, block) = self.blocks.range(..=(piece, begin)).next_back()?;
        if at.0 != piece {
            return None;
        }
        let from = (begin - at.1) as usize;
        let found = block.get(from..from.checked_add(len as usize)?)?;
        let found = block.slice_ref(found);
        if found.is_empty() || !self.rng.chance(self.faults.read_lies) {
            return Some(found);
        }
        let mut lie = found.to_vec();
        let at = self.rng.below(lie.len());
        lie[at] ^= 0x40;
        Some(lie.into())
    }

    fn digest_of(&self, piece: PieceIndex) -> crate::base::Digest {
        let mut hash = Sha1::new();
        self.blocks_of(piece).for_each(|block| hash.update(block));
        hash.finish()
    }

    fn blocks_of(&self, piece: PieceIndex) -> impl Iterator<Item = &Bytes> {
        self.blocks.range((piece, 0)..=(piece, u32::MAX)).map(|(_, block)| block)
    }
}

/// Pieces that are good before they are made durable and recorded together, as the driver does it
/// every few seconds.
const COMMITS_A_SAVE: u32 = 4;

fn failure(kind: DiskErrorKind, message: &str) -> DiskError {
    DiskError { kind, context: "memory".to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::ConnId;

    // One file of two pieces, the second one short.
    fn torrent() -> (Bytes, Bytes) {
        let content: Vec<u8> = (0..40_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let hashes: Vec<u8> = content.chunks(32_768).flat_map(sha1).collect();
        let mut info = b"d6:lengthi40000e4:name1:x12:piece lengthi32768e6:pieces40:".to_vec();
        info.extend_from_slice(&hashes);
        info.push(b'e');
        (Bytes::from(info), Bytes::from(content))
    }

    fn open(disk: &mut MemoryDisk) -> u32 {
        let events =
            disk.handle(DiskRequest::Open { info: torrent().0, wanted: None, afresh: false });
        let [DiskEvent::Opened { have }] = &events[..] else { panic!("{events:?}") };
        have.count()
    }

    fn write(disk: &mut MemoryDisk, piece: u32, begin: u32, block: Bytes) -> Vec<DiskEvent> {
        disk.handle(DiskRequest::Write { piece: PieceIndex(piece), begin, block })
    }

    #[test]
    fn disks_share_what_they_expect_and_keep_what_they_do_not() {
        let (_, content) = torrent();
        let disk = MemoryDisk::new(DiskFaults::default(), [0; 32]);
        let mut disk = disk.expecting(content.clone());
        open(&mut disk);
        let copy = |range: std::ops::Range<usize>| Bytes::copy_from_slice(&content[range]);
        write(&mut disk, 0, 16_384, copy(16_384..32_768));
        write(&mut disk, 1, 0, copy(0..7_232));
        let stored: Vec<&Bytes> = disk.blocks.values().collect();
        assert_eq!(stored, [&content[16_384..32_768], &content[..7_232]]);
        assert_eq!(stored[0].as_ptr(), content[16_384..].as_ptr());
        assert_ne!(stored[1].as_ptr(), content.as_ptr(), "it is another piece's");
    }

    #[test]
    fn piece_is_hashed_when_its_last_block_is_there_in_whatever_order() {
        let (_, content) = torrent();
        let mut disk = MemoryDisk::new(DiskFaults::default(), [0; 32]);
        assert_eq!(open(&mut disk), 0);
        assert_eq!(write(&mut disk, 0, 16_384, content.slice(16_384..32_768)).len(), 1);
        let events = write(&mut disk, 0, 0, content.slice(..16_384));
        let digest = sha1(&content[..32_768]);
        assert_eq!(events[1], DiskEvent::Hashed { piece: PieceIndex(0), digest });
        assert!(disk.handle(DiskRequest::Commit { piece: PieceIndex(0) }).is_empty());
        assert_eq!(disk.content(), None);
        assert_eq!(write(&mut disk, 1, 0, content.slice(32_768..)).len(), 2);
        disk.handle(DiskRequest::Commit { piece: PieceIndex(1) });
        assert_eq!(disk.content().as_deref(), Some(&content[..]));
        disk.handle(DiskRequest::Discard { piece: PieceIndex(0) });
        let events = disk.handle(DiskRequest::HashBlocks { piece: PieceIndex(0) });
        assert_eq!(events, [DiskEvent::BlocksHashed { piece: PieceIndex(0), digests: Vec::new() }]);
    }

    #[test]
    fn content_is_checked_and_read_within_its_blocks() {
        let (_, content) = torrent();
        let mut spoilt = content.to_vec();
        spoilt[39_999] ^= 1;
        let mut disk = MemoryDisk::with_content(spoilt.into(), DiskFaults::default(), [0; 32]);
        assert_eq!(open(&mut disk), 1);
        let mut disk = MemoryDisk::with_content(content.clone(), DiskFaults::default(), [0; 32]);
        assert_eq!(open(&mut disk), 2);
        let (conn, piece) = (ConnId(1), PieceIndex(0));
        let read = DiskRequest::Read { conn, piece, begin: 16_484, len: 100 };
        let block = content.slice(16_484..16_584);
        assert_eq!(disk.handle(read), [DiskEvent::Read { conn, piece, begin: 16_484, block }]);
        let past = DiskRequest::Read { conn, piece: PieceIndex(1), begin: 7_000, len: 300 };
        assert!(matches!(disk.handle(past)[..], [DiskEvent::ReadFailed { .. }]));
    }

    #[test]
    fn power_cut_keeps_what_was_recorded_and_nothing_else_for_sure() {
        let (_, content) = torrent();
        let mut lost = 0;
        for seed in 0..20 {
            let mut disk = MemoryDisk::new(DiskFaults::default(), [seed; 32]);
            open(&mut disk);
            for begin in [0, 16_384] {
                write(&mut disk, 0, begin, content.slice(begin as usize..begin as usize + 16_384));
            }
            disk.handle(DiskRequest::Commit { piece: PieceIndex(0) });
            disk.handle(DiskRequest::Close);
            write(&mut disk, 1, 0, content.slice(32_768..));
            disk.handle(DiskRequest::Commit { piece: PieceIndex(1) });
            let mut next = disk.after(Loss::PowerCut);
            let have = open(&mut next);
            assert!(have >= 1 && next.good.has(0), "seed {seed}: what was recorded is lost");
            lost += 2 - have;
            // Zeros where data should be are no good piece.
            if next.content().is_some() {
                assert_eq!(next.content().as_deref(), Some(&content[..]), "seed {seed}");
            }
        }
        assert!((5..19).contains(&lost), "{lost} of 20 were lost");
    }

    #[test]
    fn faults_happen_as_ordered() {
        let (_, content) = torrent();
        let faults = DiskFaults { writes_max: Some(1), ..DiskFaults::default() };
        let mut disk = MemoryDisk::new(faults, [0; 32]);
        open(&mut disk);
        write(&mut disk, 0, 0, content.slice(..16_384));
        let events = write(&mut disk, 0, 16_384, content.slice(16_384..32_768));
        let [DiskEvent::Failed(error)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(error.kind, DiskErrorKind::Full);
        let faults = DiskFaults { write_fails: 1.0, ..DiskFaults::default() };
        let mut disk = MemoryDisk::new(faults, [0; 32]);
        open(&mut disk);
        let events = write(&mut disk, 0, 0, content.slice(..16_384));
        let [DiskEvent::Failed(error)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(error.kind, DiskErrorKind::Io);
        let faults = DiskFaults { truncated_after: Some(3), ..DiskFaults::default() };
        let mut disk = MemoryDisk::new(faults, [0; 32]);
        open(&mut disk);
        write(&mut disk, 0, 0, content.slice(..16_384));
        write(&mut disk, 0, 16_384, content.slice(16_384..32_768));
        disk.handle(DiskRequest::Commit { piece: PieceIndex(0) });
        write(&mut disk, 1, 0, content.slice(32_768..));
        disk.handle(DiskRequest::Commit { piece: PieceIndex(1) });
        let events = disk.handle(DiskRequest::Flush);
        assert!(matches!(&events[..], [DiskEvent::Failed(_)]), "half is gone: {events:?}");
        let faults = DiskFaults { read_lies: 1.0, ..DiskFaults::default() };
        let mut disk = MemoryDisk::with_content(content.clone(), faults, [0; 32]);
        open(&mut disk);
        let (conn, piece) = (ConnId(1), PieceIndex(0));
        let events = disk.handle(DiskRequest::Read { conn, piece, begin: 0, len: 50 });
        let [DiskEvent::Read { block, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(block.iter().zip(&content[..50]).filter(|(a, b)| a != b).count(), 1);
    }
}
