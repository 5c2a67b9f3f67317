//! The storage of one torrent, in memory: answers every [`DiskRequest`] as the driver's does, and
//! can be told to fail. What it verifies it verifies with the same hash.

use std::collections::BTreeMap;

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
    /// The probability that a read finds the file changed.
    pub read_fails: f64,
    /// The probability that a block read for a peer has a wrong byte: how a liar is made.
    pub read_lies: f64,
    /// Reads are never answered: how a peer is made that promises everything and sends nothing.
    pub read_hangs: bool,
}

/// One torrent's storage.
#[derive(Debug)]
pub struct MemoryDisk {
    torrent: Option<(Info, Layout)>,
    /// Stored blocks by piece and offset. Bytes are shared with whoever received them.
    blocks: BTreeMap<(PieceIndex, u32), Bytes>,
    good: Bitfield,
    content: Option<Bytes>,
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
            good: Bitfield::none(0),
            content: None,
            faults,
            writes: 0,
            rng: Rng::from_seed(seed),
        }
    }

    /// A disk on which all bytes of the torrent lie already.
    pub fn with_content(content: Bytes, faults: DiskFaults, seed: Seed) -> Self {
        Self { content: Some(content), ..Self::new(faults, seed) }
    }

    /// Does one job; the answers come in this order.
    pub fn handle(&mut self, request: DiskRequest) -> Vec<DiskEvent> {
        match request {
            DiskRequest::Open { info, wanted: _ } => vec![self.open(&info)],
            DiskRequest::Write { piece, begin, block } => self.write(piece, begin, block),
            DiskRequest::Discard { piece } => {
                self.blocks.retain(|(p, _), _| *p != piece);
                Vec::new()
            }
            DiskRequest::Commit { piece } => {
                self.good.set(piece.get());
                Vec::new()
            }
            DiskRequest::Read { .. } if self.faults.read_hangs => Vec::new(),
            DiskRequest::Read { conn, piece, begin, len } => {
                vec![match self.read(piece, begin, len) {
                    Some(block) => DiskEvent::Read { conn, piece, begin, block },
                    None => DiskEvent::ReadFailed { conn, piece, begin, len },
                }]
            }
            DiskRequest::HashBlocks { piece } => {
                let digests = self.blocks_of(piece).map(|block| sha1(block)).collect();
                vec![DiskEvent::BlocksHashed { piece, digests }]
            }
            DiskRequest::Select { .. } | DiskRequest::Close => Vec::new(),
            DiskRequest::Flush => vec![DiskEvent::Flushed],
        }
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
            for piece in layout.all_pieces() {
                if info.piece_hash(piece.get()) == Some(self.digest_of(piece)) {
                    self.good.set(piece.get());
                }
            }
        }
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
        let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
        self.blocks.insert((piece, begin), block);
        let mut events = vec![DiskEvent::Written { piece, begin, len }];
        let stored: usize = self.blocks_of(piece).map(Bytes::len).sum();
        let whole = self.torrent.as_ref().map(|(_, layout)| layout.piece_len(piece) as usize);
        if Some(stored) == whole {
            events.push(DiskEvent::Hashed { piece, digest: self.digest_of(piece) });
        }
        events
    }

    fn read(&mut self, piece: PieceIndex, begin: u32, len: u32) -> Option<Bytes> {
        if self.rng.chance(self.faults.read_fails) {
            return None;
        }
        let (at, block) = self.blocks.range(..=(piece, begin)).next_back()?;
        let from = (begin - at.1) as usize;
        let block = if at.0 == piece { block } else { return None };
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
        let events = disk.handle(DiskRequest::Open { info: torrent().0, wanted: None });
        let [DiskEvent::Opened { have }] = &events[..] else { panic!("{events:?}") };
        have.count()
    }

    fn write(disk: &mut MemoryDisk, piece: u32, begin: u32, block: Bytes) -> Vec<DiskEvent> {
        disk.handle(DiskRequest::Write { piece: PieceIndex(piece), begin, block })
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
    fn faults_happen_as_ordered() {
        let (_, content) = torrent();
        let faults = DiskFaults { writes_max: Some(1), ..DiskFaults::default() };
        let mut disk = MemoryDisk::new(faults, [0; 32]);
        open(&mut disk);
        write(&mut disk, 0, 0, content.slice(..16_384));
        let events = write(&mut disk, 0, 16_384, content.slice(16_384..32_768));
        let [DiskEvent::Failed(error)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(error.kind, DiskErrorKind::Full);
        let faults = DiskFaults { read_lies: 1.0, ..DiskFaults::default() };
        let mut disk = MemoryDisk::with_content(content.clone(), faults, [0; 32]);
        open(&mut disk);
        let (conn, piece) = (ConnId(1), PieceIndex(0));
        let events = disk.handle(DiskRequest::Read { conn, piece, begin: 0, len: 50 });
        let [DiskEvent::Read { block, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(block.iter().zip(&content[..50]).filter(|(a, b)| a != b).count(), 1);
    }
}
