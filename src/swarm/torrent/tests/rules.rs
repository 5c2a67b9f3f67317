//! Every rule that a peer can break has a peer here that breaks it, on a public address, and what
//! follows is what the rule says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::sample;
use super::world::{Sample, frame};
use crate::base::{InfoHash, Instant, PeerId};
use crate::peer::{CloseReason, ConnId, Consequence, Misbehavior};
use crate::swarm::{Config, DiskEvent, DiskRequest, Event, Output, PeerSource, Torrent};
use crate::wire::bitfield::Bitfield;
use crate::wire::extension::{ExtensionHandshake, METADATA_ID, MetadataMessage};
use crate::wire::handshake::Handshake;
use crate::wire::peer::{BlockRef, Message};

/// One core, and peers whose part the test plays, each on a connection of its own.
struct Court {
    sample: Sample,
    torrent: Torrent,
    now: Instant,
    next: u64,
    outputs: Vec<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    NotEvenMetadata,
    Nothing,
    Everything,
}

const PEER: &str = "20.1.2.3:6881";

impl Court {
    fn new(has: Has) -> Self {
        let (sample, now) = (sample(), Instant::ZERO);
        let info = (has != Has::NotEvenMetadata).then(|| sample.info.clone());
        let config = Config::new(PeerId::new([1; 20]));
        let torrent = Torrent::new(config, sample.info_hash(), info, [1; 32], now);
        let mut court = Self { sample, torrent, now, next: 0, outputs: Vec::new() };
        let pieces = court.sample.layout.piece_count();
        let have = match has {
            Has::NotEvenMetadata => return court,
            Has::Nothing => Bitfield::none(pieces),
            Has::Everything => Bitfield::all(pieces),
        };
        court.torrent.handle_disk(now, DiskEvent::Opened { have });
        court.drain();
        court
    }

    fn drain(&mut self) {
        self.outputs.extend(std::iter::from_fn(|| self.torrent.poll_output()));
    }

    fn name(&mut self) -> ConnId {
        self.next += 1;
        ConnId(self.next)
    }

    // Each time from another port.
    fn accept(&mut self, fast: bool) -> ConnId {
        let conn = self.name();
        let mut theirs = Handshake::new(self.sample.info_hash(), PeerId::new([2; 20]), false);
        if !fast {
            theirs.reserved[7] = 0;
        }
        let mut from: SocketAddr = PEER.parse().unwrap();
        from.set_port(u16::try_from(7000 + self.next).unwrap());
        self.torrent.handle_accepted(self.now, conn, from, theirs);
        self.drain();
        conn
    }

    // The torrent dials it, as soon as it would.
    fn dialled(&mut self) -> ConnId {
        let conn = self.name();
        let addr = PEER.parse().unwrap();
        self.torrent.add_peers(self.now, PeerSource::Given, &[addr]);
        self.torrent.handle_connected(self.now, conn, addr);
        self.drain();
        conn
    }

    fn feed(&mut self, conn: ConnId, frame: impl Into<Bytes>) {
        self.torrent.handle_frame(self.now, conn, frame.into());
        self.drain();
    }

    fn say(&mut self, conn: ConnId, message: &Message) {
        self.feed(conn, frame(message));
    }

    fn hello(&mut self, conn: ConnId, metadata_size: Option<u64>) {
        let hello = ExtensionHandshake {
            metadata_id: Some(METADATA_ID),
            metadata_size,
            ..Default::default()
        };
        self.say(conn, &Message::Extended { id: 0, payload: hello.encode().into() });
    }

    // What was said to a peer that we accepted.
    fn said(&self, to: ConnId) -> Vec<Message> {
        let mut stream = BytesMut::new();
        for output in &self.outputs {
            match output {
                Output::Send { conn, bytes } if *conn == to => stream.extend_from_slice(bytes),
                _ => {}
            }
        }
        stream.advance(68);
        let mut messages = Vec::new();
        while stream.len() >= 4 {
            let len = stream.get_u32() as usize;
            messages.push(Message::decode(&stream.split_to(len).freeze()).unwrap());
        }
        messages
    }

    fn requests(&self, to: ConnId) -> Vec<BlockRef> {
        let said = self.said(to).into_iter();
        said.filter_map(|m| if let Message::Request(block) = m { Some(block) } else { None })
            .collect()
    }

    fn offer_all(&mut self) -> ConnId {
        let conn = self.accept(true);
        self.say(conn, &Message::HaveAll);
        self.say(conn, &Message::Unchoke);
        conn
    }

    fn closed(&self, of: ConnId) -> Option<CloseReason> {
        self.outputs.iter().find_map(|output| match output {
            Output::Close { conn, reason } if *conn == of => Some(*reason),
            _ => None,
        })
    }

    fn address_of(&self, conn: ConnId) -> SocketAddr {
        let mut addr: SocketAddr = PEER.parse().unwrap();
        if self.outputs.iter().all(|o| !matches!(o, Output::Connect { .. })) {
            addr.set_port(u16::try_from(7000 + conn.0).unwrap());
        }
        addr
    }

    fn has_banned(&self) -> bool {
        self.outputs.iter().any(|o| matches!(o, Output::Event(Event::PeerBanned { .. })))
    }
}

fn stage(rule: Misbehavior) -> Court {
    Court::new(match rule {
        Misbehavior::UnreadAnswers | Misbehavior::InvalidRequests => Has::Everything,
        Misbehavior::WrongMetadata => Has::NotEvenMetadata,
        Misbehavior::BadBitfield
        | Misbehavior::BadBlockLength
        | Misbehavior::BadExtension
        | Misbehavior::BadHandshake
        | Misbehavior::BadMessage
        | Misbehavior::ChokeFlood
        | Misbehavior::CorruptBlocks
        | Misbehavior::FastWithoutSupport
        | Misbehavior::RepeatedAnnouncements
        | Misbehavior::PieceOutOfRange
        | Misbehavior::UnsolicitedBlocks
        | Misbehavior::WrongTorrent => Has::Nothing,
    })
}

// Breaks one rule on a connection of its own.
fn break_rule(c: &mut Court, rule: Misbehavior) -> ConnId {
    use Misbehavior as M;
    let conn = if matches!(rule, M::BadHandshake | M::WrongTorrent) {
        c.dialled()
    } else if matches!(rule, M::BadBlockLength | M::CorruptBlocks) {
        c.offer_all()
    } else {
        c.accept(rule != M::FastWithoutSupport)
    };
    match rule {
        Misbehavior::BadBitfield => {
            c.say(conn, &Message::Bitfield(Bytes::from_static(&[0xff; 2])));
        }
        Misbehavior::BadBlockLength => {
            let asked = c.requests(conn)[0];
            let block = Bytes::from_static(&[0; 9]);
            c.say(conn, &Message::Piece { piece: asked.piece, begin: asked.begin, block });
        }
        Misbehavior::BadExtension => {
            c.say(conn, &Message::Extended { id: 0, payload: Bytes::from_static(b"le") });
        }
        Misbehavior::BadHandshake => c.feed(conn, vec![7; 68]),
        Misbehavior::BadMessage => c.feed(conn, vec![4, 0, 0, 0]),
        Misbehavior::ChokeFlood => {
            for _ in 0..200 {
                c.say(conn, &Message::Unchoke);
                c.say(conn, &Message::Choke);
            }
        }
        Misbehavior::CorruptBlocks => give_a_bad_piece(c, conn),
        Misbehavior::FastWithoutSupport => c.say(conn, &Message::HaveAll),
        Misbehavior::RepeatedAnnouncements => (0..40).for_each(|_| c.hello(conn, None)),
        Misbehavior::InvalidRequests => {
            let beyond = BlockRef { piece: 1_000, begin: 0, len: 16_384 };
            (0..400).for_each(|_| c.say(conn, &Message::Request(beyond)));
        }
        Misbehavior::PieceOutOfRange => c.say(conn, &Message::Have(1_000)),
        Misbehavior::UnreadAnswers => {
            let block = BlockRef { piece: 0, begin: 0, len: 16_384 };
            (0..400_000).for_each(|_| c.say(conn, &Message::Request(block)));
        }
        Misbehavior::UnsolicitedBlocks => {
            let block = Bytes::from(vec![0; 16_384]);
            let piece = Message::Piece { piece: 0, begin: 0, block };
            (0..20).for_each(|_| c.say(conn, &piece));
        }
        Misbehavior::WrongMetadata => give_wrong_metadata(c, conn),
        Misbehavior::WrongTorrent => {
            let other = Handshake::new(InfoHash::new([9; 20]), PeerId::new([2; 20]), false);
            c.feed(conn, other.encode().to_vec());
        }
    }
    conn
}

// Whatever is asked for comes, and is wrong.
fn give_a_bad_piece(c: &mut Court, conn: ConnId) {
    for asked in c.requests(conn) {
        let block = Bytes::from(vec![0; asked.len as usize]);
        c.say(conn, &Message::Piece { piece: asked.piece, begin: asked.begin, block });
    }
    let written = c.outputs.iter().find_map(|output| match output {
        Output::Disk(DiskRequest::Write { piece, .. }) => Some(*piece),
        _ => None,
    });
    let piece = written.expect("a block was stored");
    c.torrent.handle_disk(c.now, DiskEvent::Hashed { piece, digest: [0; 20] });
    c.drain();
}

fn give_wrong_metadata(c: &mut Court, conn: ConnId) {
    let total_size = c.sample.info.len() as u64;
    c.hello(conn, Some(total_size));
    let mut payload = Vec::new();
    let data = Bytes::from(vec![b'x'; c.sample.info.len()]);
    MetadataMessage::Data { piece: 0, total_size, data }.encode(&mut payload);
    c.say(conn, &Message::Extended { id: METADATA_ID, payload: payload.into() });
}

#[test]
fn every_rule_that_is_broken_ends_the_connection_with_its_name_and_consequence() {
    for rule in Misbehavior::ALL {
        let mut c = stage(rule);
        let conn = break_rule(&mut c, rule);
        assert_eq!(c.closed(conn), Some(CloseReason::Misbehavior(rule)));
        let event = Event::PeerMisbehaved { addr: c.address_of(conn), misbehavior: rule };
        assert!(c.outputs.contains(&Output::Event(event)), "{rule:?} is told");
        let bans = rule.consequence() == Consequence::Ban;
        assert_eq!(c.has_banned(), bans, "{rule:?}");
    }
}

#[test]
fn address_that_breaks_rules_again_and_again_is_refused_for_an_hour_and_no_longer() {
    let rule = Misbehavior::PieceOutOfRange;
    let mut c = stage(rule);
    for n in 1..=5 {
        let conn = break_rule(&mut c, rule);
        assert_eq!(c.closed(conn), Some(CloseReason::Misbehavior(rule)));
        assert_eq!(c.has_banned(), n == 5);
    }
    let conn = c.accept(true);
    assert_eq!(c.closed(conn), Some(CloseReason::Banned));
    c.now += Duration::from_secs(3_601);
    let conn = c.accept(true);
    assert_eq!(c.closed(conn), None);
}
