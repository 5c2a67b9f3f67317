//! Two connections back to back, and one against a peer that breaks the rules.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::base::limits::BLOCK_LEN;
use crate::base::{InfoHash, Instant, PeerId};
use crate::wire::bitfield::Bitfield;
use crate::wire::extension::{
    DONT_HAVE_ID, ExtensionHandshake, HANDSHAKE_ID, METADATA_ID, MetadataMessage, PEX_ID,
    encode_dont_have,
};
use crate::wire::handshake::Handshake;
use crate::wire::peer::{BlockRef, Framer, Message};

const GEOMETRY: Geometry = Geometry { pieces: 10, piece_len: 4 * BLOCK_LEN, last_len: 100 };

fn hello() -> ExtensionHandshake {
    ExtensionHandshake {
        metadata_id: Some(METADATA_ID),
        pex_id: Some(PEX_ID),
        request_queue: Some(REQUESTS_QUEUED_MAX as u32),
        ..Default::default()
    }
}

fn handshake(id: u8) -> Handshake {
    Handshake::new(InfoHash::new([9; 20]), PeerId::new([id; 20]), true)
}

fn block(piece: u32, n: u32) -> BlockRef {
    BlockRef { piece, begin: n * BLOCK_LEN, len: BLOCK_LEN }
}

fn frame(message: &Message) -> Bytes {
    let mut out = Vec::new();
    message.encode(&mut out);
    Bytes::from(out).slice(4..)
}

/// A connection whose peer is played by the test.
fn open(now: Instant, reserved: Option<[u8; 8]>) -> Connection {
    let mut theirs = handshake(2);
    theirs.reserved = reserved.unwrap_or(theirs.reserved);
    let mut conn = Connection::accept(now, &handshake(1), &theirs, Some(GEOMETRY));
    conn.say_hello(&hello());
    conn.say_pieces(Some(&Bitfield::all(GEOMETRY.pieces)));
    conn.take_output(now).unwrap();
    conn
}

fn feed(conn: &mut Connection, message: &Message) -> Result<Received, Misbehavior> {
    conn.handle_frame(Instant::ZERO, &frame(message))
}

/// What a connection said, decoded.
fn said(conn: &mut Connection) -> Vec<Message> {
    let Some(out) = conn.take_output(Instant::ZERO) else { return Vec::new() };
    let mut stream = BytesMut::from(&handshake(1).encode()[..]);
    stream.extend_from_slice(&out);
    let mut framer = Framer::new();
    framer.next_frame(&mut stream).unwrap();
    std::iter::from_fn(|| framer.next_frame(&mut stream).unwrap())
        .map(|frame| Message::decode(&frame).unwrap())
        .collect()
}

#[test]
fn dialled_and_accepted_connections_open_each_other() {
    let now = Instant::ZERO;
    let mut ours = Connection::dial(now, &handshake(1), None);
    let first = ours.take_output(now).unwrap();
    assert_eq!(first.len(), 68, "nothing follows before the answer");
    let theirs = Handshake::decode(&first).unwrap();
    let seen = ExtensionHandshake { metadata_size: Some(77), ..hello() };
    let mut peer = Connection::accept(now, &handshake(2), &theirs, Some(GEOMETRY));
    peer.say_hello(&seen);
    peer.say_pieces(Some(&Bitfield::all(10)));

    let mut back = BytesMut::from(&peer.take_output(now).unwrap()[..]);
    let mut framer = Framer::new();
    let mut events = Vec::new();
    while let Some(frame) = framer.next_frame(&mut back).unwrap() {
        events.push(ours.handle_frame(now, &frame).unwrap());
    }
    assert_eq!(
        events,
        [Received::Handshake(handshake(2)), Received::Extensions, Received::Pieces(None)]
    );
    assert_eq!(ours.extensions().unwrap().metadata_size, Some(77));
    assert!(ours.is_seed() && ours.is_fast() && ours.pieces().is_none());
    ours.set_geometry(GEOMETRY).unwrap();
    assert!(ours.pieces().unwrap().is_all());
}

#[test]
fn many_requests_leave_as_one_buffer() {
    let mut conn = open(Instant::ZERO, None);
    feed(&mut conn, &Message::Unchoke).unwrap();
    for n in 0..10 {
        conn.ask(Instant::ZERO, block(n / 4, n % 4));
    }
    assert_eq!(said(&mut conn).len(), 10);
    assert!(conn.take_output(Instant::ZERO).is_none());
    let data = Bytes::from(vec![0; BLOCK_LEN as usize]);
    let piece = Message::Piece { piece: 1, begin: 0, block: data.clone() };
    assert_eq!(
        feed(&mut conn, &piece),
        Ok(Received::Block { block: block(1, 0), data, late: false })
    );
}

#[test]
fn choked_requests_are_refused_and_a_choke_refuses_what_waits() {
    let mut conn = open(Instant::ZERO, None);
    assert_eq!(feed(&mut conn, &Message::Request(block(0, 0))), Ok(Received::Nothing));
    assert_eq!(said(&mut conn), [Message::Reject(block(0, 0))]);
    conn.set_choking(Instant::ZERO, false);
    let asked = feed(&mut conn, &Message::Request(block(0, 1)));
    assert_eq!(asked, Ok(Received::Request(block(0, 1))));
    conn.serve(block(0, 1));
    conn.set_choking(Instant::ZERO, true);
    assert_eq!(said(&mut conn), [Message::Unchoke, Message::Choke, Message::Reject(block(0, 1))]);
}

#[test]
fn reads_stop_while_the_peer_does_not_take_what_it_asked() {
    let now = Instant::ZERO;
    let mut conn = open(now, None);
    conn.handle_sent(now, usize::MAX);
    conn.set_choking(Instant::ZERO, false);
    for n in 0..1500 {
        conn.serve(block(n / 4 % 9, n % 4));
    }
    let mut bytes = 0;
    while let Some(span) = conn.next_read(usize::MAX) {
        for read in conn.uploads.on_read(span.piece, span.begin).unwrap() {
            conn.block_head(now, &read);
            bytes += read.len as usize;
        }
    }
    assert!((128 << 10..(1 << 20) + (256 << 10)).contains(&bytes), "{bytes}");
    assert_eq!(conn.upload.total(), 0);
    conn.handle_sent(now, 64 << 10);
    assert!(conn.next_read(usize::MAX).is_some());
    assert!(conn.upload.total() > 60 << 10);
}

#[test]
fn request_flood_is_bounded_and_then_ends_the_connection() {
    let mut conn = open(Instant::ZERO, None);
    conn.set_choking(Instant::ZERO, false);
    let mut end = None;
    for _ in 0..1_000_000 {
        match feed(&mut conn, &Message::Request(block(0, 0))) {
            Ok(Received::Request(block)) => conn.serve(block),
            Ok(other) => panic!("{other:?}"),
            Err(misbehavior) => {
                end = Some(misbehavior);
                break;
            }
        }
        assert!(conn.uploads.waiting() <= REQUESTS_QUEUED_MAX);
    }
    assert_eq!(end, Some(Misbehavior::UnreadAnswers));
    assert!(conn.backlog() < 5 << 20);
}

#[test]
fn requests_outside_the_torrent_are_refused_and_counted() {
    let mut conn = open(Instant::ZERO, None);
    conn.set_choking(Instant::ZERO, false);
    conn.take_output(Instant::ZERO);
    for bad in [
        BlockRef { len: 0, ..block(0, 0) },
        BlockRef { len: u32::MAX, ..block(0, 0) },
        BlockRef { len: 1 << 20, ..block(0, 0) },
        BlockRef { len: 2 * BLOCK_LEN, ..block(0, 0) },
        block(9, 0),
        block(10, 0),
        BlockRef { begin: u32::MAX, ..block(0, 0) },
    ] {
        assert_eq!(feed(&mut conn, &Message::Request(bad)), Ok(Received::Nothing));
        assert_eq!(said(&mut conn), [Message::Reject(bad)]);
    }
    let end = (0..1000).find_map(|_| feed(&mut conn, &Message::Request(block(10, 0))).err());
    assert_eq!(end, Some(Misbehavior::InvalidRequests));
}

#[test]
fn blocks_that_nobody_asked_for_end_the_connection() {
    let mut conn = open(Instant::ZERO, None);
    let piece = Message::Piece { piece: 0, begin: 0, block: Bytes::from_static(&[1; 100]) };
    assert_eq!(feed(&mut conn, &piece), Ok(Received::Unsolicited(100)));
    let end = (0..1000).find_map(|_| feed(&mut conn, &piece).err());
    assert_eq!(end, Some(Misbehavior::UnsolicitedBlocks));
    let mut conn = open(Instant::ZERO, None);
    conn.ask(Instant::ZERO, block(0, 0));
    assert_eq!(feed(&mut conn, &piece), Err(Misbehavior::BadBlockLength));
}

#[test]
fn block_after_a_choke_is_late_and_no_fault() {
    let mut conn = open(Instant::ZERO, None);
    feed(&mut conn, &Message::Unchoke).unwrap();
    conn.ask(Instant::ZERO, block(0, 0));
    conn.ask(Instant::ZERO, block(0, 1));
    let dead = vec![block(0, 0), block(0, 1)];
    assert_eq!(feed(&mut conn, &Message::Choke), Ok(Received::Choked(dead)));
    assert_eq!(feed(&mut conn, &Message::Reject(block(0, 1))), Ok(Received::Nothing));
    let data = Bytes::from(vec![0; BLOCK_LEN as usize]);
    let late = Message::Piece { piece: 0, begin: 0, block: data.clone() };
    assert_eq!(
        feed(&mut conn, &late),
        Ok(Received::Block { block: block(0, 0), data, late: true })
    );
}

#[test]
fn broken_rules_name_themselves() {
    let no_fast = Some([0, 0, 0, 0, 0, 0x10, 0, 0]);
    let extended =
        |payload: Vec<u8>| Message::Extended { id: HANDSHAKE_ID, payload: payload.into() };
    let nested = [&b"d1:x"[..], &[b'l'; 100_000]].concat();
    let cases = [
        (None, Message::Have(10), Misbehavior::PieceOutOfRange),
        (None, Message::Bitfield(Bytes::from_static(&[0xff])), Misbehavior::BadBitfield),
        (None, Message::Bitfield(Bytes::from_static(&[0xff; 2])), Misbehavior::BadBitfield),
        (None, Message::Bitfield(Bytes::from(vec![0; 1 << 20])), Misbehavior::BadBitfield),
        (None, Message::Bitfield(Bytes::new()), Misbehavior::BadBitfield),
        (None, Message::AllowedFast(10), Misbehavior::PieceOutOfRange),
        (no_fast, Message::HaveAll, Misbehavior::FastWithoutSupport),
        (no_fast, Message::Reject(block(0, 0)), Misbehavior::FastWithoutSupport),
        (None, extended(nested), Misbehavior::BadExtension),
        (None, extended(b"le".to_vec()), Misbehavior::BadExtension),
        (None, extended(Vec::new()), Misbehavior::BadExtension),
        (
            None,
            Message::Extended { id: METADATA_ID, payload: Bytes::from_static(b"i1e") },
            Misbehavior::BadExtension,
        ),
        (
            None,
            Message::Extended { id: DONT_HAVE_ID, payload: Bytes::from_static(&[0; 3]) },
            Misbehavior::BadExtension,
        ),
        (None, dont_have(10), Misbehavior::PieceOutOfRange),
    ];
    for (reserved, message, rule) in cases {
        let mut conn = open(Instant::ZERO, reserved);
        assert_eq!(feed(&mut conn, &message), Err(rule), "{message:?}");
    }
    let mut conn = open(Instant::ZERO, None);
    let short = Bytes::from_static(&[4, 0, 0]);
    assert_eq!(conn.handle_frame(Instant::ZERO, &short), Err(Misbehavior::BadMessage));
    let flaps = (0..2000).find_map(|_| {
        feed(&mut conn, &Message::Unchoke).unwrap();
        feed(&mut conn, &Message::Choke).err()
    });
    assert_eq!(flaps, Some(Misbehavior::ChokeFlood));
    let hellos = (0..2000).find_map(|_| feed(&mut conn, &extended(b"de".to_vec())).err());
    assert_eq!(hellos, Some(Misbehavior::RepeatedAnnouncements));
}

#[test]
fn peer_that_changes_its_mind_all_the_time_is_thought_over_now_and_then() {
    let mut conn = open(Instant::ZERO, None);
    let turns = |conn: &mut Connection, now| {
        let mut news = 0;
        for _ in 0..1000 {
            for message in [Message::Interested, Message::NotInterested, Message::Interested] {
                let received = conn.handle_frame(now, &frame(&message)).unwrap();
                news += usize::from(received == Received::Interest);
            }
        }
        news
    };
    let first = turns(&mut conn, Instant::ZERO);
    assert!((20..=64).contains(&first), "{first}");
    assert!(conn.is_peer_interested(), "and what it said last is what counts");
    conn.tick(Instant::ZERO + Duration::from_secs(1)).unwrap();
    let later = turns(&mut conn, Instant::ZERO + Duration::from_secs(1));
    assert!((1..=8).contains(&later), "{later}");
}

fn dont_have(piece: u32) -> Message {
    Message::Extended { id: DONT_HAVE_ID, payload: encode_dont_have(piece) }
}

#[test]
fn piece_taken_back_ends_its_requests_and_what_was_on_its_way_is_no_fault() {
    let mut conn = open(Instant::ZERO, None);
    feed(&mut conn, &Message::HaveAll).unwrap();
    feed(&mut conn, &Message::Unchoke).unwrap();
    for block in [block(0, 0), block(1, 0), block(0, 1)] {
        conn.ask(Instant::ZERO, block);
    }
    let asked = vec![block(0, 0), block(0, 1)];
    assert_eq!(feed(&mut conn, &dont_have(0)), Ok(Received::Lost { piece: 0, asked }));
    assert!(!conn.is_seed() && !conn.pieces().unwrap().has(0) && conn.requests.len() == 1);
    assert_eq!(feed(&mut conn, &dont_have(0)), Ok(Received::Nothing), "it is gone already");
    assert_eq!(feed(&mut conn, &Message::Reject(block(0, 0))), Ok(Received::Nothing));
    let data = Bytes::from(vec![0; BLOCK_LEN as usize]);
    let late = Message::Piece { piece: 0, begin: BLOCK_LEN, block: data.clone() };
    let block = block(0, 1);
    assert_eq!(feed(&mut conn, &late), Ok(Received::Block { block, data, late: true }));
    assert_eq!(feed(&mut conn, &Message::Have(0)), Ok(Received::Have(0)));
    assert!(conn.is_seed());
}

#[test]
fn bitfields_that_tell_of_many_new_pieces_each_are_no_flood() {
    let geometry = Geometry { pieces: 4096, ..GEOMETRY };
    let theirs = handshake(2);
    let mut conn = Connection::accept(Instant::ZERO, &handshake(1), &theirs, Some(geometry));
    let bits = |set: &Bitfield| Message::Bitfield(Bytes::copy_from_slice(set.as_bytes()));
    let mut set = Bitfield::none(geometry.pieces);
    for piece in 0..geometry.pieces {
        set.set(piece);
        // As aria2 does.
        if piece % 20 == 19 {
            feed(&mut conn, &bits(&set)).unwrap();
        }
    }
    assert_eq!(conn.pieces().unwrap().count(), 4080);
    let repeated = (0..2000).find_map(|_| feed(&mut conn, &bits(&set)).err());
    assert_eq!(repeated, Some(Misbehavior::RepeatedAnnouncements));
}

#[test]
fn peer_that_has_everything_and_has_not_all_the_time_is_closed() {
    let mut conn = open(Instant::ZERO, None);
    feed(&mut conn, &Message::HaveAll).unwrap();
    let flaps = (0..2000).find_map(|_| {
        let lost = feed(&mut conn, &dont_have(3)).err();
        feed(&mut conn, &Message::Have(3)).unwrap();
        lost
    });
    assert_eq!(flaps, Some(Misbehavior::RepeatedAnnouncements));
    // One that loses piece after piece is none: a disk that dies looks like that.
    let mut conn = open(Instant::ZERO, None);
    feed(&mut conn, &Message::HaveAll).unwrap();
    for piece in 0..GEOMETRY.pieces {
        assert!(matches!(feed(&mut conn, &dont_have(piece)), Ok(Received::Lost { .. })));
    }
    assert!(conn.pieces().unwrap().is_none());
}

#[test]
fn piece_is_taken_back_where_the_peer_wants_to_know() {
    let mut conn = open(Instant::ZERO, None);
    conn.say_dont_have(3);
    assert_eq!(said(&mut conn), [], "it has not said under which number");
    let theirs = ExtensionHandshake { dont_have_id: Some(77), ..hello() };
    let payload = theirs.encode().into();
    feed(&mut conn, &Message::Extended { id: HANDSHAKE_ID, payload }).unwrap();
    conn.say_dont_have(3);
    assert_eq!(
        said(&mut conn),
        [Message::Extended { id: 77, payload: Bytes::from_static(&[0, 0, 0, 3]) }]
    );
}

#[test]
fn senseless_but_harmless_messages_are_ignored() {
    let mut conn = open(Instant::ZERO, None);
    for message in [
        Message::KeepAlive,
        Message::Unknown { id: 99 },
        Message::Suggest(5000),
        Message::Port(0),
        Message::Cancel(block(3, 3)),
        Message::Reject(block(3, 3)),
        Message::Extended { id: 77, payload: Bytes::new() },
        Message::Extended { id: PEX_ID, payload: Bytes::from_static(b"i1e") },
    ] {
        assert_eq!(feed(&mut conn, &message), Ok(Received::Nothing), "{message:?}");
    }
    let haves =
        (0..100_000).filter(|_| feed(&mut conn, &Message::Have(3)).unwrap() == Received::Have(3));
    assert_eq!(haves.count(), 1);
}

#[test]
fn silence_ends_a_connection_and_ours_is_kept_alive() {
    let mut now = Instant::ZERO;
    let mut dialled = Connection::dial(now, &handshake(1), None);
    now += Duration::from_secs(9);
    assert_eq!(dialled.tick(now), Ok(()));
    now += Duration::from_secs(1);
    assert_eq!(dialled.tick(now), Err(CloseReason::HandshakeTimeout));

    let mut conn = open(Instant::ZERO, None);
    now = Instant::ZERO + Duration::from_secs(100);
    assert_eq!(conn.tick(now), Ok(()));
    assert_eq!(said(&mut conn), [Message::KeepAlive]);
    now += Duration::from_secs(30);
    assert_eq!(conn.tick(now), Err(CloseReason::Idle));
}

#[test]
fn peer_that_talks_and_does_not_read_is_given_up() {
    let mut now = Instant::ZERO;
    let mut conn = open(now, None);
    let mut ended = None;
    for second in 0..300 {
        now += Duration::from_secs(1);
        conn.handle_frame(now, &Bytes::new()).unwrap();
        conn.say_have(1);
        conn.take_output(now);
        // It reads for the first minute.
        if second < 60 {
            conn.handle_sent(now, 1000);
        }
        ended = ended.or(conn.tick(now).err().map(|reason| (second, reason)));
    }
    assert_eq!(ended, Some((190, CloseReason::Idle)));
}

#[test]
fn metadata_request_flood_of_a_peer_that_does_not_read_ends_it() {
    let mut conn = open(Instant::ZERO, None);
    let theirs = Message::Extended { id: 0, payload: hello().encode().into() };
    assert_eq!(feed(&mut conn, &theirs), Ok(Received::Extensions));
    let mut payload = Vec::new();
    MetadataMessage::Request { piece: 0 }.encode(&mut payload);
    let request = Message::Extended { id: METADATA_ID, payload: payload.into() };
    let data = Bytes::from(vec![0; 16384]);
    let end = (0..20_000).find_map(|_| match feed(&mut conn, &request) {
        Ok(Received::Metadata(MetadataMessage::Request { piece })) => {
            let data = data.clone();
            conn.say_metadata(&MetadataMessage::Data { piece, total_size: 16384, data });
            None
        }
        Ok(other) => panic!("{other:?}"),
        Err(misbehavior) => Some(misbehavior),
    });
    assert_eq!(end, Some(Misbehavior::UnreadAnswers));
}

proptest! {
    #[test]
    fn no_frames_whatsoever_panic(
        frames in prop::collection::vec(
            (prop::sample::select((0..25u8).collect::<Vec<_>>()), prop::collection::vec(any::<u8>(), 0..30)),
            0..60,
        ),
        counted: bool, dialled: bool, unchoke: bool,
    ) {
        let now = Instant::ZERO;
        let geometry = counted.then_some(GEOMETRY);
        let mut conn = if dialled {
            Connection::dial(now, &handshake(1), geometry)
        } else {
            Connection::accept(now, &handshake(1), &handshake(2), geometry)
        };
        if unchoke {
            conn.set_choking(Instant::ZERO, false);
        }
        for (id, body) in frames {
            let frame = Bytes::from([&[id][..], &body].concat());
            match conn.handle_frame(now, &frame) {
                Ok(Received::Request(block)) => conn.serve(block),
                Ok(_) => {}
                Err(_) => break,
            }
            while conn.next_read(usize::MAX).is_some() {}
            let _ = (conn.tick(now), conn.take_output(now));
        }
        let _ = conn.set_geometry(GEOMETRY);
    }
}
