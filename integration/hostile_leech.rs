//! Strangers who connect to us while we share: floods, lies and silence cost them their connection
//! and us next to nothing, and the honest downloader behind them is served.

use std::io::Write;
use std::net::TcpStream;

use crate::world::bencode::nested_lists;
use crate::world::peer::{EXTENSIONS_AND_FAST, Wire, frame, handshake, id, numbers};
use crate::world::sharing::Shared;
use crate::world::{B, secs};

#[test]
fn hundred_thousand_unread_requests_cost_little_and_others_are_served() {
    let mut shared = Shared::new();
    let before = shared.sharing.program.resident_kib();
    let mut wires: Vec<_> = (0..3).map(|_| shared.greet()).collect();
    let flood: Vec<u8> = (0..100_000_u32)
        .flat_map(|n| frame(id::REQUEST, &numbers(&[n % shared.pieces(), 0, 16_384])))
        .collect();
    for wire in &mut wires {
        wire.limit_writes(secs(5));
        let _ = wire.send(id::INTERESTED, &[]);
        // The program may stop reading or hang up: both are right.
        let _ = wire.send_raw(&flood);
    }
    shared.expect_served("beside unread requests");
    let grown = shared.sharing.program.peak_kib().saturating_sub(before) / 1024;
    // What is read and not yet looked at is most of it: an unoptimised program looks slower.
    let allowed = if cfg!(debug_assertions) { 120 } else { 50 };
    assert!(grown < allowed, "unread requests made it grow by {grown} MiB");
}

#[test]
fn twenty_thousand_requests_for_one_block_are_answered_or_refused() {
    let mut shared = Shared::new();
    let mut wire = shared.greet();
    wire.send(id::INTERESTED, &[]).unwrap();
    wire.read_until(secs(30), |message, _| message == id::UNCHOKE).expect("an unchoke");
    let one = frame(id::REQUEST, &numbers(&[0, 0, 16_384]));
    let mut writer = wire.stream().unwrap();
    let flood = std::thread::spawn(move || {
        let _ = writer.write_all(&one.repeat(20_000));
    });
    let mut blocks = 0;
    while blocks < 50 {
        match wire.read_until(secs(20), |m, _| m == id::PIECE || m == id::REJECT) {
            Ok((id::PIECE, payload)) => {
                assert_eq!(payload[8..], shared.content.bytes()[..16_384], "foreign bytes");
                blocks += 1;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    drop(wire);
    let _ = flood.join();
    shared.expect_served("after 20 000 requests for one block");
}

#[test]
fn requests_beyond_every_end_never_give_foreign_bytes() {
    let mut shared = Shared::new();
    let pieces = shared.pieces();
    let piece_len = u32::try_from(shared.content.piece_len).unwrap();
    let cases = [
        [0, 0, u32::MAX],
        [0, 0, 0],
        [0, 0, 1 << 20],
        [0, piece_len - 1, 16_384],
        [0, piece_len, 16_384],
        [0, u32::MAX, 16_384],
        [pieces, 0, 16_384],
        [u32::MAX, 0, 16_384],
        [pieces - 1, 0, piece_len],
    ];
    for [piece, begin, len] in cases {
        let mut wire = shared.greet();
        wire.send(id::INTERESTED, &[]).unwrap();
        let Ok(_) = wire.read_until(secs(30), |message, _| message == id::UNCHOKE) else {
            panic!("no unchoke before request {piece} {begin} {len}");
        };
        let _ = wire.request(piece, begin, len);
        // A good request behind it tells when the bad one has been dealt with.
        let _ = wire.request(0, 0, 1000);
        let good = numbers(&[0, 0]);
        loop {
            match wire.read_until(secs(10), |m, _| m == id::PIECE || m == id::REJECT) {
                Ok((id::PIECE, payload)) if payload[..8] == good && payload.len() == 1008 => break,
                Ok((id::PIECE, payload)) => panic!(
                    "request {piece} {begin} {len} was answered with {} bytes",
                    payload.len() - 8
                ),
                Ok(_) => {}
                Err(_) => break, // Dropped: also right.
            }
        }
    }
    shared.expect_served("after requests beyond every end");
}

#[test]
fn requests_while_choked_are_refused() {
    let mut shared = Shared::new();
    let mut wire = shared.greet();
    let flood: Vec<u8> =
        (0..5000_u32).flat_map(|n| frame(id::REQUEST, &numbers(&[n % 3, 0, 16_384]))).collect();
    // Never interested, hence never unchoked.
    let _ = wire.send_raw(&flood);
    let answer = wire.read_until(secs(10), |m, _| m == id::PIECE || m == id::REJECT);
    let refused = !matches!(answer, Ok((id::PIECE, _)));
    assert!(refused, "a choked peer was sent a block that is not allowed fast");
    shared.expect_served("after requests while choked");
}

#[test]
fn thousand_idle_connections_do_not_keep_an_honest_peer_out() {
    let mut shared = Shared::new();
    let before = shared.sharing.program.resident_kib();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        // Some may be refused: that is one way to bound them.
        idle.extend(TcpStream::connect_timeout(&shared.sharing.addr, secs(5)));
    }
    assert!(idle.len() > 100, "only {} connections were possible", idle.len());
    shared.expect_served("behind a thousand idle connections");
    let grown = shared.sharing.program.peak_kib().saturating_sub(before) / 1024;
    assert!(grown < 50, "idle connections made it grow by {grown} MiB");
}

#[test]
fn handshakes_that_stop_halfway_do_not_keep_an_honest_peer_out() {
    let mut shared = Shared::new();
    let hash = shared.content.info_hash();
    let whole = handshake(&hash, EXTENSIONS_AND_FAST, b"-XX0001-half-of-it--");
    let mut half = Vec::new();
    for n in 0..300 {
        let Ok(mut wire) = Wire::dial(shared.sharing.addr) else { continue };
        let _ = wire.send_raw(&whole[..n % 68]);
        half.push(wire);
    }
    shared.expect_served("behind 300 half handshakes");
}

#[test]
fn first_bytes_that_are_no_handshake_close_the_connection() {
    let mut shared = Shared::new();
    let long_http = [b"GET / HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(20_000)].concat();
    let encrypted = crate::world::content::bytes(4, 4, 96 + 512);
    let unknown = handshake(&[0x77; 20], EXTENSIONS_AND_FAST, b"-XX0001-unknown-hash");
    for (what, bytes) in [
        ("HTTP", b"GET /announce HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("120 KB of HTTP", long_http),
        ("an encrypted handshake", encrypted),
        ("an unknown torrent", unknown),
        ("length prefix 0xFFFFFFFF", vec![0xff; 4096]),
    ] {
        let mut wire = Wire::dial(shared.sharing.addr).unwrap();
        let _ = wire.send_raw(&bytes);
        assert!(wire.closes_within(secs(15)), "{what}: not closed within 15 s");
    }
    shared.expect_served("after protocols of all kinds");
}

#[test]
fn oversized_and_malformed_frames_close_the_connection() {
    let mut shared = Shared::new();
    let cases = [
        ("length 0xFFFFFFFF", vec![0xff; 4]),
        ("have of 5 bytes", frame(id::HAVE, &[0; 5])),
        ("request of 3 bytes", frame(id::REQUEST, &[0; 3])),
        ("a bitfield of 900 KB", frame(id::BITFIELD, &vec![0xff; 900_000])),
        ("have of piece 2^32-1", frame(id::HAVE, &[0xff; 4])),
    ];
    for (what, bytes) in cases {
        let mut wire = shared.greet();
        let _ = wire.send_raw(&bytes);
        assert!(wire.closes_within(secs(15)), "{what}: not closed within 15 s");
    }
    shared.expect_served("after malformed frames");
}

#[test]
fn nested_and_repeated_extension_messages_leave_it_serving() {
    let mut shared = Shared::new();
    let nested = frame(id::EXTENDED, &[vec![0], nested_lists(100_000)].concat());
    let unknown = frame(id::EXTENDED, &[99, b'd', b'e']).repeat(5000);
    let hello = frame(id::EXTENDED, b"\x00d1:md11:ut_metadatai1eee").repeat(2000);
    let metadata = B::dict([("msg_type", B::Int(0)), ("piece", B::Int(0))]).encode();
    // 1 is the id that the program's own handshake names for ut_metadata.
    let requests = frame(id::EXTENDED, &[vec![1], metadata].concat()).repeat(20_000);
    for (what, bytes) in [
        ("nested lists", nested),
        ("unknown extensions", unknown),
        ("2000 handshakes", hello),
        ("20 000 metadata requests", requests),
    ] {
        let before = shared.sharing.program.resident_kib();
        let mut wire = shared.greet();
        wire.limit_writes(secs(5));
        let _ = wire.send_raw(&bytes);
        shared.expect_served(what);
        let grown = shared.sharing.program.peak_kib().saturating_sub(before) / 1024;
        assert!(grown < 50, "{what}: grew by {grown} MiB");
    }
}

#[test]
fn metadata_requests_out_of_range_are_rejected_not_answered() {
    let mut shared = Shared::new();
    for piece in [-1, 1, 1 << 31, i64::MAX] {
        let mut wire = shared.greet();
        let hello = B::dict([("m", B::dict([("ut_metadata", B::Int(9))]))]).encode();
        wire.send_extended(0, &hello).unwrap();
        let request = B::dict([("msg_type", B::Int(0)), ("piece", B::Int(piece))]);
        let good = B::dict([("msg_type", B::Int(0)), ("piece", B::Int(0))]);
        let _ = wire.send_extended(1, &request.encode());
        let _ = wire.send_extended(1, &good.encode());
        loop {
            let is_metadata = |m: u8, p: &[u8]| m == id::EXTENDED && p.first() == Some(&9);
            let Ok((_, payload)) = wire.read_until(secs(10), is_metadata) else { break };
            let head = B::decode(&payload[1..]).expect("a dictionary");
            let kind = head.get("msg_type").and_then(B::int);
            if head.get("piece").and_then(B::int) == Some(0) && kind == Some(1) {
                break;
            }
            assert_eq!(kind, Some(2), "metadata piece {piece} was answered: {head:?}");
        }
    }
    shared.expect_served("after metadata requests out of range");
}
