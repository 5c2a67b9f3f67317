//! What comes in files and links: torrents, magnets, and our own records of a download.

use std::path::{Component, Path};

use bytes::Bytes;
use trackless::driver::resume::{self, Record};
use trackless::driver::state_file;
use trackless::swarm::layout::Layout;
use trackless::wire::bencode::Limits;
use trackless::wire::bitfield::Bitfield;
use trackless::wire::magnet::Link;
use trackless::wire::metainfo::{Info, Metainfo, TorrentExtras, torrent_file};

use super::bencode::compare;

/// Any bytes as a torrent file, and as an info dictionary from a stranger.
pub fn metainfo(data: &[u8]) {
    // Space behind the end is no part of the file.
    let tree = compare(data.trim_ascii_end(), Limits::TORRENT);
    let file = Bytes::copy_from_slice(data);
    if let Ok(read) = Metainfo::decode(&file) {
        let tree = tree.as_ref().expect("it is bencode");
        let (_, raw) = tree.entry("info").expect("it has an info dictionary");
        assert_eq!(read.info_bytes, raw);
        let extras = TorrentExtras {
            trackers: read.trackers.clone(),
            webseeds: read.webseeds.clone(),
            nodes: read.nodes.clone(),
            comment: read.comment.clone(),
            created_by: read.created_by.clone(),
            creation_date: read.creation_date,
        };
        let again = Metainfo::decode(&Bytes::from(torrent_file(&read.info_bytes, &extras)));
        let again = again.expect("we read what we write");
        assert_eq!((again.info_hash, &again.info), (read.info_hash, &read.info));
        check(&read.info);
    }
    if let Ok(info) = Info::decode(&file) {
        check(&info);
    }
}

// Pieces and lengths agree, and no file lies outside the folder.
fn check(info: &Info) {
    let (total, piece) = (info.total_len(), u64::from(info.piece_length));
    assert!(piece > 0 && u64::from(info.piece_count()) == total.div_ceil(piece));
    assert!((0..info.piece_count().min(10)).all(|n| info.piece_hash(n).is_some()));
    let Ok(layout) = Layout::new(info) else { return };
    assert_eq!(layout.total_len(), total);
    let mut paths = std::collections::BTreeSet::new();
    for file in layout.files() {
        let mut parts = Path::new(&file.path).components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{:?}", file.path);
        assert!(file.pad || paths.insert(&file.path), "twice: {:?}", file.path);
    }
    for piece in layout.all_pieces().take(20) {
        let blocks = (0..layout.block_count(piece)).map(|n| layout.block_len(piece, n));
        assert_eq!(blocks.sum::<u32>(), layout.piece_len(piece));
        let spans = layout.spans(piece, 0, layout.piece_len(piece));
        assert_eq!(
            spans.map(|s| u64::from(s.len)).sum::<u64>(),
            u64::from(layout.piece_len(piece))
        );
    }
}

/// Any text as a link.
pub fn magnet(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(link) = Link::parse(&text) else { return };
    for ranges in link.select.iter() {
        assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].start()));
        assert!(ranges.iter().all(|r| r.start() <= r.end() && link.is_selected(*r.start())));
    }
    let bare = Link::parse(&link.info_hash.to_string());
    assert_eq!(bare, Ok(Link::new(link.info_hash)));
}

/// Any bytes as the content of a resume record, and as the file around it.
pub fn resume(data: &[u8]) {
    let _ = Record::decode(data);
    let file = state_file::seal(resume::VERSION, data);
    let Ok(record) = Record::decode(&file) else { return };
    let again = record.encode().expect("what was read can be written");
    assert_eq!(Record::decode(&again), Ok(record.clone()));
    for pieces in [0, 1, 10, 1_000] {
        if let Some(have) = Bitfield::decode(&record.have, pieces) {
            assert!(have.count() <= pieces);
        }
    }
}
