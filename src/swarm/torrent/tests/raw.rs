//! Single frames against one core.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::sample;
use super::world::{Sample, frame};
use crate::base::{Instant, PeerId};
use crate::peer::{CloseReason, ConnId, Misbehavior};
use crate::swarm::{Config, DiskEvent, DiskRequest, Event, Output, Phase, Torrent};
use crate::wire::bitfield::Bitfield;
use crate::wire::extension::{
    DONT_HAVE_ID, ExtensionHandshake, METADATA_ID, MetadataMessage, PEX_ID, Pex, PexPeer,
    encode_dont_have,
};
use crate::wire::handshake::Handshake;
use crate::wire::peer::{BlockRef, Message};

const CONN: ConnId = ConnId(7);

thread_local! {
    // Hashing it is most of what a case costs.
    static SAMPLE: Rc<Sample> = Rc::new(sample());
}

pub struct Rig {
    torrent: Torrent,
    now: Instant,
    sample: Rc<Sample>,
    pub outputs: Vec<Output>,
}

impl Rig {
    /// A core with one peer, whose part the test plays.
    pub fn new(info: bool, have: bool) -> Self {
        Self::with(info, have, |_| {})
    }

    /// The same with other settings.
    pub fn with(info: bool, have: bool, change: impl FnOnce(&mut Config)) -> Self {
        let (sample, now) = (SAMPLE.with(Rc::clone), Instant::ZERO);
        let info = info.then(|| sample.info.clone());
        let mut config = Config::new(PeerId::new([1; 20]));
        config.dht_port = Some(1);
        change(&mut config);
        let torrent = Torrent::new(config, sample.info_hash(), info, [1; 32], now);
        let mut rig = Self { torrent, now, sample, outputs: Vec::new() };
        let pieces = rig.sample.layout.piece_count();
        let have = if have { Bitfield::all(pieces) } else { Bitfield::none(pieces) };
        rig.torrent.handle_disk(now, DiskEvent::Opened { have });
        let theirs = Handshake::new(rig.sample.info_hash(), PeerId::new([2; 20]), true);
        rig.torrent.handle_accepted(now, CONN, addr(), theirs);
        rig.say(&Message::Extended { id: 0, payload: hello().encode().into() });
        rig.outputs.clear();
        rig
    }

    pub fn say(&mut self, message: &Message) {
        self.feed(frame(message));
    }

    pub fn disk(&mut self, event: DiskEvent) {
        self.torrent.handle_disk(self.now, event);
        self.drain();
    }

    pub fn status(&self) -> crate::swarm::Status {
        self.torrent.status(self.now)
    }

    fn feed(&mut self, frame: Bytes) {
        self.torrent.handle_frame(self.now, CONN, frame);
        self.drain();
    }

    fn drain(&mut self) {
        self.outputs.extend(std::iter::from_fn(|| self.torrent.poll_output()));
    }

    pub fn later(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.torrent.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.torrent.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub fn closed(&self) -> Option<CloseReason> {
        self.outputs.iter().find_map(|output| match output {
            Output::Close { conn: CONN, reason } => Some(*reason),
            _ => None,
        })
    }

    pub fn reads(&self) -> usize {
        self.outputs.iter().filter(|o| matches!(o, Output::Disk(DiskRequest::Read { .. }))).count()
    }

    /// What was said to the peer since the outputs were looked at last; blocks left out.
    pub fn said(&self) -> Vec<Message> {
        let mut stream = BytesMut::new();
        for output in &self.outputs {
            if let Output::Send { bytes, .. } = output {
                // The handshake is another format.
                let skip = if bytes.starts_with(b"\x13BitTorrent") { 68 } else { 0 };
                stream.extend_from_slice(&bytes[skip..]);
            }
        }
        let mut messages = Vec::new();
        while stream.len() >= 4 {
            let len = stream.get_u32() as usize;
            messages.push(Message::decode(&stream.split_to(len).freeze()).unwrap());
        }
        messages
    }

    /// Reads what was asked of the storage and lets the peer take it; returns how many bytes.
    pub fn serve(&mut self) -> usize {
        let mut served = 0;
        loop {
            let outputs: Vec<_> = self.outputs.drain(..).collect();
            for output in &outputs {
                if let Output::Disk(DiskRequest::Read { conn, piece, begin, len }) = *output {
                    let block = Bytes::from(vec![0; len as usize]);
                    let read = DiskEvent::Read { conn, piece, begin, block };
                    self.torrent.handle_disk(self.now, read);
                }
            }
            let sent: usize = outputs
                .iter()
                .map(|output| match output {
                    Output::Send { bytes, .. } => bytes.len(),
                    Output::SendBlock { block, .. } => block.len() + 13,
                    _ => 0,
                })
                .sum();
            served += outputs
                .iter()
                .map(|o| if let Output::SendBlock { block, .. } = o { block.len() } else { 0 })
                .sum::<usize>();
            self.torrent.handle_sent(self.now, CONN, sent);
            self.drain();
            if outputs.is_empty() && self.outputs.is_empty() {
                return served;
            }
        }
    }
}

fn addr() -> SocketAddr {
    "10.9.9.9:5000".parse().unwrap()
}

fn hello() -> ExtensionHandshake {
    ExtensionHandshake {
        metadata_id: Some(METADATA_ID),
        pex_id: Some(PEX_ID),
        dont_have_id: Some(DONT_HAVE_ID),
        port: Some(6000),
        ..Default::default()
    }
}

pub fn dont_have(piece: u32) -> Message {
    Message::Extended { id: DONT_HAVE_ID, payload: encode_dont_have(piece) }
}

fn block(piece: u32, n: u32) -> BlockRef {
    BlockRef { piece, begin: n * 16_384, len: 16_384 }
}

#[test]
fn flood_of_requests_reads_little_and_is_answered_when_read() {
    let mut rig = Rig::new(true, true);
    rig.say(&Message::Interested);
    for _ in 0..100_000 {
        rig.say(&Message::Request(block(0, 0)));
    }
    assert_eq!(rig.closed(), None, "refusals alone are no crime");
    assert!(rig.reads() <= 9, "{}", rig.reads());
    let reads: Vec<_> = rig.outputs.drain(..).filter(|o| matches!(o, Output::Disk(_))).collect();
    let mut served = 0;
    for read in reads {
        let Output::Disk(DiskRequest::Read { conn, piece, begin, len }) = read else { continue };
        let block = Bytes::from(vec![0; len as usize]);
        rig.torrent.handle_disk(rig.now, DiskEvent::Read { conn, piece, begin, block });
        rig.drain();
    }
    for output in &rig.outputs {
        served += usize::from(matches!(output, Output::SendBlock { .. }));
    }
    assert!(served >= 8, "{served}");
    assert_eq!(rig.reads(), 0, "nothing more is read before that is taken");
    rig.outputs.clear();
    rig.torrent.handle_sent(rig.now, CONN, 10 << 20);
    rig.drain();
    assert!(rig.reads() > 0);
}

#[test]
fn requests_while_choked_or_beyond_the_end_are_not_read() {
    let mut rig = Rig::new(true, true);
    for _ in 0..5_000 {
        rig.say(&Message::Request(block(0, 0)));
    }
    assert_eq!((rig.reads(), rig.closed()), (0, None));
    rig.say(&Message::Interested);
    for bad in [block(41, 0), block(40, 1), BlockRef { len: 1 << 20, ..block(0, 0) }] {
        rig.say(&Message::Request(bad));
    }
    assert_eq!((rig.reads(), rig.closed()), (0, None));
    rig.say(&Message::Request(block(3, 1)));
    assert_eq!(rig.reads(), 1, "it still serves");
}

#[test]
fn requests_for_pieces_that_are_not_here_are_refused() {
    let mut rig = Rig::new(true, false);
    rig.say(&Message::Interested);
    for _ in 0..1000 {
        rig.say(&Message::Request(block(0, 0)));
    }
    assert_eq!(rig.reads(), 0);
    assert_eq!(rig.closed(), Some(CloseReason::Misbehavior(Misbehavior::InvalidRequests)));
}

#[test]
fn metadata_is_served_a_few_times_and_then_refused() {
    let mut rig = Rig::new(true, true);
    let mut payload = Vec::new();
    MetadataMessage::Request { piece: 0 }.encode(&mut payload);
    let request = Message::Extended { id: METADATA_ID, payload: payload.into() };
    for _ in 0..1_000 {
        rig.say(&request);
    }
    let sent: usize = rig
        .outputs
        .iter()
        .map(|o| if let Output::Send { bytes, .. } = o { bytes.len() } else { 0 })
        .sum();
    assert!(sent < 5 * rig.sample.info.len() + 1_000 * 60, "{sent}");
    assert_eq!(rig.closed(), None);
}

#[test]
fn unasked_metadata_is_ignored() {
    let mut rig = Rig::new(false, false);
    for piece in 0..500 {
        let data = Bytes::from(vec![1; 16_384]);
        let mut payload = Vec::new();
        MetadataMessage::Data { piece, total_size: 1 << 20, data }.encode(&mut payload);
        rig.say(&Message::Extended { id: METADATA_ID, payload: payload.into() });
    }
    assert_eq!(rig.closed(), None);
    assert_eq!(rig.torrent.status(rig.now).metadata, (0, 0));
}

#[test]
fn exchanged_addresses_are_bounded_and_bogons_not_dialled() {
    let mut rig = Rig::new(true, false);
    rig.outputs.clear();
    for round in 0..100u8 {
        let peer = |n: u8| PexPeer { addr: SocketAddr::from(([20, round, n, 1], 1000)), flags: 0 };
        let pex = Pex { added: (0..=255).map(peer).collect(), dropped: Vec::new() };
        rig.say(&Message::Extended { id: PEX_ID, payload: pex.encode().into() });
    }
    let known = rig.torrent.status(rig.now).peers_known;
    assert!(known <= 102, "{known}");
    let bogons =
        ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "1.2.3.4:0", "[ff02::1]:1", "[::]:1"];
    let added = bogons.iter().map(|a| PexPeer { addr: a.parse().unwrap(), flags: 0 }).collect();
    let pex = Pex { added, dropped: Vec::new() };
    rig.later(Duration::from_secs(31));
    rig.say(&Message::Extended { id: PEX_ID, payload: pex.encode().into() });
    assert_eq!(rig.torrent.status(rig.now).peers_known, known);
    let dials = rig.outputs.iter().filter(|o| matches!(o, Output::Connect { .. })).count();
    assert!(dials <= 100, "{dials}");
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let mut rig = Rig::new(true, true);
    let accept = |rig: &mut Rig, n: u64| {
        let id = PeerId::new([u8::try_from(n % 200).unwrap(); 20]);
        let theirs = Handshake::new(rig.sample.info_hash(), id, true);
        let from = SocketAddr::from(([10, 1, 0, 1], u16::try_from(1000 + n).unwrap()));
        rig.torrent.handle_accepted(rig.now, ConnId(1000 + n), from, theirs);
        rig.drain();
    };
    for n in 3..180 {
        accept(&mut rig, n);
    }
    assert_eq!(rig.torrent.peers().len(), 100);
    rig.later(Duration::from_secs(6));
    rig.outputs.clear();
    accept(&mut rig, 190);
    let closed =
        |conn| rig.outputs.iter().any(|o| matches!(o, Output::Close { conn: c, .. } if *c == conn));
    assert!(!closed(ConnId(1190)));
    assert_eq!(rig.torrent.peers().len(), 100);
}

// Who wants something and never takes it holds its place for two turns of the choker and no longer.
#[test]
fn peers_that_take_nothing_do_not_keep_others_out_of_a_seed() {
    let mut rig = Rig::new(true, true);
    rig.disk(DiskEvent::Flushed);
    rig.say(&Message::Interested);
    let accept = |rig: &mut Rig, n: u8| {
        let conn = ConnId(1000 + u64::from(n));
        let theirs = Handshake::new(rig.sample.info_hash(), PeerId::new([n; 20]), true);
        rig.torrent.handle_accepted(rig.now, conn, SocketAddr::from(([10, 1, 0, n], 6881)), theirs);
        rig.torrent.handle_frame(rig.now, conn, frame(&Message::Interested));
        rig.drain();
        rig.torrent
            .peers()
            .iter()
            .any(|peer| peer.addr.ip() == std::net::IpAddr::from([10, 1, 0, n]))
    };
    let taken = (3..150).filter(|n| accept(&mut rig, *n)).count();
    assert_eq!((taken, rig.torrent.peers().len()), (99, 100));
    rig.later(Duration::from_secs(15));
    assert!(!accept(&mut rig, 200), "they may yet be served");
    rig.later(Duration::from_secs(6));
    assert!(accept(&mut rig, 200));
    assert_eq!(rig.torrent.peers().len(), 100);
}

#[test]
fn dht_port_is_reported_once() {
    let mut rig = Rig::new(true, false);
    for port in 1..1000 {
        rig.say(&Message::Port(port));
    }
    let told = rig.outputs.iter().filter(|o| matches!(o, Output::Event(Event::DhtNode { .. })));
    assert_eq!(told.count(), 1);
}

#[test]
fn bitfields_that_cannot_be_end_the_connection_when_they_can_be_judged() {
    let mut rig = Rig::new(true, false);
    rig.say(&Message::Bitfield(Bytes::from_static(&[0xff; 6])));
    assert_eq!(rig.closed(), Some(CloseReason::Misbehavior(Misbehavior::BadBitfield)));
    let mut rig = Rig::new(false, false);
    rig.say(&Message::Bitfield(Bytes::from_static(&[0xff; 6])));
    assert_eq!(rig.closed(), None, "the pieces are not counted yet");
}

#[test]
fn idle_torrent_asks_for_no_wake_up() {
    let now = Instant::ZERO;
    let config = Config::new(PeerId::new([1; 20]));
    let torrent = Torrent::new(config, sample().info_hash(), None, [1; 32], now);
    assert_eq!(torrent.poll_timeout(), None);
    assert!(torrent.wants_peers());
}

#[test]
fn unusable_metadata_says_why_and_ends() {
    let info = Bytes::from_static(
        b"d6:lengthi5e4:name1:x12:piece lengthi0e6:pieces20:aaaaaaaaaaaaaaaaaaaae",
    );
    let hash = crate::base::InfoHash::new(crate::base::hash::sha1(&info));
    let config = Config::new(PeerId::new([1; 20]));
    let mut torrent = Torrent::new(config, hash, Some(info.clone()), [1; 32], Instant::ZERO);
    let Some(Output::Event(Event::MetadataUnusable { info: told, reason })) = torrent.poll_output()
    else {
        panic!("no event");
    };
    assert!(told == info && !reason.is_empty());
    assert_eq!((torrent.phase(), torrent.poll_output()), (Phase::Stopped, None));
}

fn messages() -> impl Strategy<Value = Message> {
    let block = || {
        (0..45u32, 0..6u32, prop::sample::select(vec![0, 1, 3616, 16_384, 16_385, u32::MAX]))
            .prop_map(|(piece, n, len)| BlockRef { piece, begin: n * 16_384, len })
    };
    let noise = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let metadata = (0..3i64, 0..4u32, noise()).prop_map(|(kind, piece, data)| {
        let mut payload = Vec::new();
        match kind {
            0 => MetadataMessage::Request { piece },
            1 => MetadataMessage::Data { piece, total_size: 900, data },
            _ => MetadataMessage::Reject { piece },
        }
        .encode(&mut payload);
        Message::Extended { id: METADATA_ID, payload: payload.into() }
    });
    let size = prop::sample::select(vec![0, 1, 900, 20_000, 1 << 25, u64::MAX >> 1]);
    let hello = (size, any::<bool>()).prop_map(|(size, upload_only)| {
        let hello = ExtensionHandshake { metadata_size: Some(size), upload_only, ..hello() };
        Message::Extended { id: 0, payload: hello.encode().into() }
    });
    prop_oneof![
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        (0..45u32).prop_map(Message::Have),
        (0..45u32).prop_map(Message::AllowedFast),
        block().prop_map(Message::Request),
        block().prop_map(Message::Cancel),
        block().prop_map(Message::Reject),
        block().prop_map(|b| Message::Piece {
            piece: b.piece,
            begin: b.begin,
            block: Bytes::from(vec![0; b.len.min(17_000) as usize]),
        }),
        prop::collection::vec(any::<u8>(), 6).prop_map(|b| Message::Bitfield(b.into())),
        (0..5u8, noise()).prop_map(|(id, payload)| Message::Extended { id, payload }),
        (0..45u32).prop_map(dont_have),
        (0..22u8).prop_map(|id| Message::Unknown { id }),
        metadata,
        hello,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_conversation_whatsoever_panics(
        info: bool, have: bool,
        talk in prop::collection::vec((messages(), 0..2_000u64, any::<u8>()), 0..80),
    ) {
        let mut rig = Rig::new(info, have);
        for (message, millis, chance) in talk {
            rig.say(&message);
            let outputs = std::mem::take(&mut rig.outputs);
            for output in outputs {
                match output {
                    Output::Disk(DiskRequest::Write { piece, begin, block }) => {
                        let len = u32::try_from(block.len()).unwrap();
                        rig.torrent.handle_disk(rig.now, DiskEvent::Written { piece, begin, len });
                        if chance > 200 {
                            let digest = [chance; 20];
                            rig.torrent.handle_disk(rig.now, DiskEvent::Hashed { piece, digest });
                        }
                    }
                    Output::Disk(DiskRequest::Read { conn, piece, begin, len }) if chance % 2 == 0 => {
                        rig.torrent.handle_disk(rig.now, DiskEvent::ReadFailed { conn, piece, begin, len, is_lost: chance % 4 == 0 });
                    }
                    Output::Disk(DiskRequest::Read { conn, piece, begin, len }) => {
                        let block = Bytes::from(vec![0; len as usize]);
                        rig.torrent.handle_disk(rig.now, DiskEvent::Read { conn, piece, begin, block });
                    }
                    Output::Send { conn, bytes } => rig.torrent.handle_sent(rig.now, conn, bytes.len()),
                    Output::Connect { addr } if chance % 3 == 0 => {
                        rig.torrent.handle_connected(rig.now, ConnId(1000 + millis), addr);
                    }
                    _ => {}
                }
            }
            rig.drain();
            rig.later(Duration::from_millis(millis));
            let _ = (rig.torrent.status(rig.now), rig.torrent.peers(), rig.torrent.files());
        }
        rig.torrent.stop(rig.now);
        rig.drain();
        prop_assert!(matches!(rig.torrent.phase(), Phase::Stopped));
    }
}
