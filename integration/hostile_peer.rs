//! Peers that break the wire protocol (BEP 3, 6, 10, 11) while we download from them: the download
//! completes from the honest one, in bounded memory, and what breaks a rule is dropped.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use trackless::wire::extension::PEX_ID;

use crate::world::bencode::nested_lists;
use crate::world::krpc::compact;
use crate::world::peer::{
    EXTENSIONS, UT_PEX, Wire, extension_handshake, frame, handshake, id, numbers,
};
use crate::world::seeder::{Talk, full_bitfield};
use crate::world::{B, Content, Duel, Fate, Gate, Launch, Script, Seeder, World, netns, secs};

/// Sends these bytes where the handshake belongs.
fn opening(bytes: Vec<u8>) -> Script {
    Script::honest().on_accept(move |talk| {
        talk.wire.send_raw(&bytes)?;
        talk.deed();
        // Whatever the other end makes of it: the connection is not closed from here.
        talk.wire.closes_within(secs(60));
        Err(io::ErrorKind::ConnectionReset.into())
    })
}

/// Honest, and says all this after its greeting.
fn saying(say: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static) -> Script {
    Script::honest().on_greet(move |talk| {
        talk.greet()?;
        let said = say(talk);
        talk.deed();
        said
    })
}

/// The same for frames that are the same for everybody.
fn sending(frames: Vec<u8>) -> Script {
    saying(move |talk| talk.wire.send_raw(&frames))
}

#[test]
fn first_bytes_of_another_protocol_are_dropped() {
    let hash = Duel::new().content.info_hash();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", crate::world::content::bytes(9, 9, 500)),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("an encrypted handshake", crate::world::content::bytes(9, 10, 96 + 300)),
        ("another protocol string", [b"\x13BitTorrent protocoI".as_slice(), &[0; 48]].concat()),
        ("another length", [b"\x12BitTorrent protoco".as_slice(), &[0; 49]].concat()),
        ("another torrent", handshake(&[0xee; 20], EXTENSIONS, b"-XX0001-another-one-")),
        ("zeroes", vec![0; 68]),
        ("0xff", vec![0xff; 4096]),
    ];
    for (what, bytes) in cases {
        let duel = Duel::new();
        assert_eq!(duel.content.info_hash(), hash);
        let (liar, _) = duel.fight(what, Fate::Dropped, opening(bytes));
        assert!(liar.log().dials.len() <= 5, "{what}: dialled {} times", liar.log().dials.len());
    }
}

#[test]
fn every_reserved_bit_set_is_no_reason_to_stumble() {
    let script = Script::honest().on_greet(|talk| {
        talk.deed();
        talk.greet()
    });
    // The handshake with all bits goes out first; the honest one behind it is then a second, which
    // is garbage to a length-prefixed reader: dropped at the latest there.
    let all_bits = script.on_accept(|talk| {
        let hash = talk.content.info_hash();
        talk.wire.send_raw(&handshake(&hash, [0xff; 8], b"-XX0001-all-the-bits"))?;
        talk.deed();
        Ok(())
    });
    Duel::new().fight("all reserved bits", Fate::Dropped, all_bits);
}

#[test]
fn silent_partial_and_dripping_handshakes_do_not_hold_up_the_download() {
    let silent = opening(Vec::new());
    let partial = opening(b"\x13BitTorrent pro".to_vec());
    let reset = Script::honest().on_accept(|talk| {
        talk.deed();
        talk.wire.stream()?.shutdown(Shutdown::Both)?;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let drip = Script::honest().on_accept(|talk| {
        talk.deed();
        let bytes = handshake(&talk.content.info_hash(), EXTENSIONS, b"-XX0001-drip-drip-dr");
        for byte in bytes {
            talk.wire.send_raw(&[byte])?;
            // The pace is the attack.
            std::thread::sleep(secs(1));
        }
        Ok(())
    });
    Duel::new().fight_all("slow openings", Fate::Endured, vec![silent, partial, reset, drip]);
}

#[test]
fn length_prefix_of_4_gib_is_dropped_at_once() {
    let cases = [
        ("0xFFFFFFFF", vec![0xff; 4]),
        ("0x7FFFFFFF and more", [vec![0x7f, 0xff, 0xff, 0xff, id::PIECE], vec![0; 1000]].concat()),
        ("1 MiB + 1 KiB", (0x10_0400_u32).to_be_bytes().to_vec()),
    ];
    for (what, bytes) in cases {
        Duel::new().fight(what, Fate::Dropped, sending(bytes));
    }
}

#[test]
fn stream_of_unknown_messages_is_skipped_or_dropped() {
    let unknown = frame(77, &vec![1; 100_000]);
    let cases = [
        ("a large unknown message", frame(200, &vec![0; 900_000])),
        (
            "2000 unknown messages",
            (0..2000).flat_map(|n| frame(100 + (n % 50) as u8, b"x")).collect(),
        ),
        ("10^5 keep-alives", vec![0; 400_000]),
        ("a hundred large unknown messages", unknown.repeat(100)),
    ];
    for (what, bytes) in cases {
        Duel::new().fight(what, Fate::Endured, sending(bytes));
    }
}

#[test]
fn gibibyte_of_nothing_is_not_kept() {
    // As much as the program takes, up to a GiB; a message it knows the head of, without an end.
    let stream = saying(|talk| {
        talk.deed();
        talk.wire.limit_writes(secs(5));
        let nothing = vec![0x55; 1 << 20];
        for _ in 0..1024 {
            talk.wire.send_raw(&nothing)?;
        }
        Ok(())
    });
    Duel::new().fight("a GiB of 0x55", Fate::Dropped, stream);
}

#[test]
fn messages_of_the_wrong_length_are_dropped() {
    let cases = [
        ("choke with a payload", frame(id::CHOKE, b"x")),
        ("have of 3 bytes", frame(id::HAVE, &[0; 3])),
        ("have of 5 bytes", frame(id::HAVE, &[0; 5])),
        ("request of 11 bytes", frame(id::REQUEST, &[0; 11])),
        ("piece of 7 bytes", frame(id::PIECE, &[0; 7])),
        ("cancel of 13 bytes", frame(id::CANCEL, &[0; 13])),
        ("extended without an id", frame(id::EXTENDED, &[])),
    ];
    for (what, bytes) in cases {
        Duel::new().fight(what, Fate::Dropped, sending(bytes));
    }
}

#[test]
fn half_a_message_does_not_hold_up_the_download() {
    let half = frame(id::PIECE, &[0; 16_000])[..8000].to_vec();
    let stuck = saying(move |talk| {
        talk.wire.send_raw(&half)?;
        talk.deed();
        talk.wire.closes_within(secs(60));
        Err(io::ErrorKind::ConnectionReset.into())
    });
    Duel::new().fight("half a message", Fate::Endured, stuck);
}

#[test]
fn bitfields_that_do_not_fit_are_dropped_or_masked() {
    // The content has two pieces: one byte, six spare bits.
    type Case = (&'static str, Vec<u8>);
    let greeting = |bitfield: Vec<u8>| {
        Script::honest().on_greet(move |talk| {
            let size = B::Int(i64::try_from(talk.info_len()).unwrap());
            talk.wire.send_extended(0, &extension_handshake(Some(size)).encode())?;
            talk.wire.send_raw(&bitfield)?;
            let said = talk.wire.send(id::UNCHOKE, &[]);
            talk.deed();
            said
        })
    };
    let cases: Vec<Case> = vec![
        ("an empty bitfield", frame(id::BITFIELD, &[])),
        ("a bitfield of 2 bytes", frame(id::BITFIELD, &[0xff; 2])),
        ("a bitfield of 900 KB", frame(id::BITFIELD, &vec![0xff; 900_000])),
        ("spare bits", frame(id::BITFIELD, &[0xff])),
        ("a bitfield twice", frame(id::BITFIELD, &full_bitfield(2)).repeat(2)),
        (
            "a bitfield and have-all without the fast extension",
            [frame(id::BITFIELD, &full_bitfield(2)), frame(id::HAVE_ALL, &[])].concat(),
        ),
    ];
    for (what, bytes) in cases {
        Duel::new().fight(what, Fate::Endured, greeting(bytes));
    }
}

#[test]
fn floods_of_small_messages_are_bounded() {
    let haves: Vec<u8> = (0..100_000).flat_map(|n| frame(id::HAVE, &numbers(&[n % 2]))).collect();
    let flaps = [frame(id::CHOKE, &[]), frame(id::UNCHOKE, &[])].concat().repeat(2000);
    let interest =
        [frame(id::INTERESTED, &[]), frame(id::NOT_INTERESTED, &[])].concat().repeat(2000);
    let ports: Vec<u8> = (0..2000_u16).flat_map(|n| frame(id::PORT, &n.to_be_bytes())).collect();
    let cancels: Vec<u8> =
        (0..20_000).flat_map(|n| frame(id::CANCEL, &numbers(&[n, 0, 16_384]))).collect();
    let fast: Vec<u8> = (0..20_000)
        .flat_map(|n| {
            [frame(id::SUGGEST, &numbers(&[n])), frame(id::ALLOWED_FAST, &numbers(&[n]))].concat()
        })
        .collect();
    let rejects: Vec<u8> =
        (0..20_000).flat_map(|n| frame(id::REJECT, &numbers(&[n, 0, 16_384]))).collect();
    let hashes: Vec<u8> = (21..24).flat_map(|n| frame(n, &[0; 48])).cycle().take(50_000).collect();
    let cases = [
        ("10^5 haves", haves),
        ("2000 choke flaps", flaps),
        ("4000 interest flaps", interest),
        ("2000 ports", ports),
        ("20 000 cancels of nothing", cancels),
        ("suggest and allowed-fast without the fast extension", fast),
        ("20 000 rejects of nothing", rejects),
        ("hash messages of version 2", hashes),
    ];
    for (what, bytes) in cases {
        Duel::new().fight(what, Fate::Endured, sending(bytes));
    }
}

#[test]
fn nested_extension_handshakes_do_not_exhaust_the_stack() {
    let deep_dict = [b"d1:a".repeat(100_000), b"e".repeat(100_000)].concat();
    let m_deep = [b"d1:m".as_slice(), &nested_lists(100_000), b"e"].concat();
    let cases = [
        ("10^5 lists", nested_lists(100_000)),
        ("10^5 open lists", vec![b'l'; 100_000]),
        ("10^5 dictionaries", deep_dict),
        ("10^5 lists as m", m_deep),
    ];
    for (what, bytes) in cases {
        let script = saying(move |talk| talk.wire.send_extended(0, &bytes));
        Duel::new().fight(what, Fate::Endured, script);
    }
}

#[test]
fn extension_handshakes_of_wrong_types_are_survived() {
    let with_m = |m: B| B::dict([("m", m)]).encode();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an integer of 100 digits", format!("d13:metadata_sizei{}ee", "7".repeat(100)).into()),
        ("m is a list", with_m(B::List(vec![B::Int(1)]))),
        ("m is a number", with_m(B::Int(3))),
        (
            "ids of 0, -1 and 300",
            with_m(B::dict([
                ("ut_metadata", B::Int(0)),
                ("ut_pex", B::Int(-1)),
                ("upload_only", B::Int(300)),
            ])),
        ),
        (
            "two extensions with one id",
            with_m(B::dict([("ut_metadata", B::Int(1)), ("ut_pex", B::Int(1))])),
        ),
        ("a name of 900 KB", B::dict([("v", B::Str(vec![b'v'; 900_000]))]).encode()),
        (
            "reqq of -1 and p of 2^40",
            B::dict([("p", B::Int(1 << 40)), ("reqq", B::Int(-1))]).encode(),
        ),
        ("nothing", Vec::new()),
        ("ANSI and newlines in v", B::dict([("v", B::str("\x1b[31m<b>\n\r\u{202e}x"))]).encode()),
    ];
    for (what, bytes) in cases {
        let script = saying(move |talk| talk.wire.send_extended(0, &bytes));
        let (_, ended) = Duel::new().fight(what, Fate::Endured, script);
        assert!(!ended.stderr.contains('\x1b'), "{what}: a stranger's escape reached stderr");
    }
    let hello = frame(id::EXTENDED, &[b"\x00".as_slice(), b"d1:v1:xe"].concat()).repeat(2000);
    Duel::new().fight("2000 extension handshakes", Fate::Endured, sending(hello));
}

#[test]
fn peer_that_never_sends_does_not_hold_up_the_download() {
    let never = Script::honest().on_block(|talk, _| {
        talk.deed();
        Ok(())
    });
    Duel::new().fight("never sends", Fate::Endured, never);
    let choking = Script::honest().on_greet(|talk| {
        let size = B::Int(i64::try_from(talk.info_len()).unwrap());
        talk.wire.send_extended(0, &extension_handshake(Some(size)).encode())?;
        talk.deed();
        talk.send_bitfield()
    });
    Duel::new().fight("never unchokes", Fate::Endured, choking);
    let freezing = Script::honest().on_block(|talk, block| {
        if talk.asked <= 3 {
            return talk.send_block(block);
        }
        talk.deed();
        Ok(())
    });
    Duel::new().fight("freezes after three blocks", Fate::Endured, freezing);
    let leaving = Script::honest().on_block(|talk, block| {
        if talk.asked <= 3 {
            return talk.send_block(block);
        }
        talk.deed();
        Err(io::ErrorKind::ConnectionReset.into())
    });
    Duel::new().fight("leaves after three blocks", Fate::Endured, leaving);
    let rejecting = Script::honest().on_block(|talk, block| {
        talk.wire.send(id::REJECT, &numbers(&[block.piece, block.begin, block.len]))?;
        talk.deed();
        Ok(())
    });
    Duel::new().fight("rejects every request", Fate::Endured, rejecting);
}

#[test]
fn blocks_of_wrong_shape_are_never_stored() {
    type Shape = fn(&mut Talk, crate::world::seeder::Block) -> io::Result<()>;
    let cases: Vec<(&str, Shape)> = vec![
        ("piece out of range", |talk, b| talk.send_block_data(9_999_999, b.begin, &[0; 16_384])),
        ("offset out of range", |talk, b| talk.send_block_data(b.piece, u32::MAX, &[0; 16_384])),
        ("shifted by one", |talk, b| talk.send_block_data(b.piece, b.begin + 1, &[0; 16_384])),
        ("one byte short", |talk, b| {
            let data = talk.block(b);
            talk.send_block_data(b.piece, b.begin, &data[1..])
        }),
        ("one byte long", |talk, b| {
            let data = [talk.block(b), vec![0]].concat();
            talk.send_block_data(b.piece, b.begin, &data)
        }),
        ("empty", |talk, b| talk.send_block_data(b.piece, b.begin, &[])),
        ("900 KB", |talk, b| talk.send_block_data(b.piece, b.begin, &vec![0; 900_000])),
    ];
    for (what, shape) in cases {
        let script = Script::honest().on_block(move |talk, block| {
            let said = shape(talk, block);
            talk.deed();
            said
        });
        Duel::new().fight(what, Fate::Endured, script);
    }
}

#[test]
fn blocks_that_nobody_asked_for_are_not_counted() {
    let unrequested = saying(|talk| {
        for n in 0..2000 {
            let block =
                crate::world::seeder::Block { piece: 0, begin: n % 4 * 16_384, len: 16_384 };
            talk.send_block_data(block.piece, block.begin, &[0xaa; 16_384])?;
        }
        Ok(())
    });
    Duel::new().fight("2000 unrequested blocks", Fate::Endured, unrequested);
    let fivefold = Script::honest().on_block(|talk, block| {
        for _ in 0..5 {
            talk.send_block(block)?;
        }
        talk.deed();
        Ok(())
    });
    Duel::new().fight("every block five times", Fate::Endured, fivefold);
}

#[test]
fn peer_that_corrupts_one_block_in_ten_is_banned() {
    let content = Content::single(11, 1_000_000, 131_072);
    let blocks = Arc::new(AtomicUsize::new(0));
    let counter = blocks.clone();
    let script = Script::honest().on_block(move |talk, block| {
        let mut data = talk.block(block);
        if counter.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
            data[0] ^= 0xff;
        }
        talk.send_block_data(block.piece, block.begin, &data)
    });
    let duel = Duel::of(content);
    let (liar, _) = duel.fight("one block in ten is wrong", Fate::Dropped, script);
    let log = liar.log();
    assert!(log.dials.len() <= 2, "a banned peer was dialled {} times", log.dials.len());
}

#[test]
fn peer_whose_every_block_is_wrong_is_banned_within_two_pieces() {
    let content = Content::single(12, 2_000_000, 65_536);
    // On loopback all of it could be under way before the first hash is known.
    let script = Script::honest().on_block(|talk, block| {
        let data: Vec<u8> = talk.block(block).iter().map(|b| !b).collect();
        talk.send_block_data(block.piece, block.begin, &data)
    });
    let script = script.paced(Duration::from_millis(5));
    let duel = Duel::of(content);
    let (liar, _) = duel.fight("every block is wrong", Fate::Dropped, script);
    let log = liar.log();
    // What was in flight when the first piece failed counts too: a pipeline, not a torrent.
    assert!(log.blocks_sent < 2_000_000 / 16_384, "{} bad blocks were taken", log.blocks_sent);
    assert!(log.dials.len() <= 2, "a banned peer was dialled {} times", log.dials.len());
}

#[test]
fn corrupt_peers_beside_an_honest_one_do_not_get_it_banned() {
    // Nobody waits for anybody here: good and bad blocks share pieces.
    let duel = Duel::of(Content::single(13, 3_000_000, 262_144));
    let corrupt = |n: usize| {
        Script::honest().on_block(move |talk, block| {
            let mut data = talk.block(block);
            if talk.asked % 10 == n {
                data[100] ^= 1;
            }
            talk.send_block_data(block.piece, block.begin, &data)
        })
    };
    let start = |script| Seeder::start(duel.world.addr(), &duel.content, script);
    let bad: Vec<_> = (0..3).map(|n| start(corrupt(n))).collect();
    let honest = start(Script::honest());
    let mut peers: Vec<_> = bad.iter().map(|s| s.addr).collect();
    peers.push(honest.addr);
    duel.world
        .get(&duel.content.magnet(), &duel.out, &peers)
        .run(secs(90))
        .expect(0, "three corrupt peers and an honest one");
    duel.content.assert_in(&duel.out);
    let dials = honest.log().dials.len();
    assert!(dials <= 2, "the honest peer was lost: dialled {dials} times");
}

#[test]
fn request_flood_from_our_own_seeder_is_not_answered_out_of_nothing() {
    // We have nothing yet: 5000 requests, 20 000 for one block, some beyond every end.
    let requests: Vec<u8> = (0..25_000_u32)
        .flat_map(|n| {
            let piece = if n < 5000 { n % 3 } else { 0 };
            frame(id::REQUEST, &numbers(&[piece, 0, 16_384]))
        })
        .collect();
    Duel::new().fight("25 000 requests to an empty downloader", Fate::Endured, sending(requests));
    let beyond: Vec<u8> = [[0, 0, u32::MAX], [u32::MAX, 0, 16_384], [0, u32::MAX, 1], [0, 0, 0]]
        .iter()
        .flat_map(|r| frame(id::REQUEST, &numbers(r)))
        .collect();
    Duel::new().fight("requests beyond every end", Fate::Endured, sending(beyond));
}

#[test]
fn peer_exchange_floods_are_bounded_and_nothing_illegal_is_dialled() {
    let duel = Duel::new();
    let bystander = std::net::TcpListener::bind(duel.world.addr()).unwrap();
    bystander.set_nonblocking(true).unwrap();
    let victim = bystander.local_addr().unwrap();
    let bogons: Vec<SocketAddr> =
        ["0.0.0.0:1", "255.255.255.255:80", "224.0.0.1:6881", "127.9.9.9:0"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
    let mut added: Vec<u8> = bogons.iter().flat_map(|a| compact(*a)).collect();
    // 10^5 addresses in messages of 10 000: first every one of them the same third party's, then
    // every one another, where nobody is.
    added.extend(compact(victim).repeat(10_000));
    let exchange = |added: &[u8]| {
        B::dict([("added", B::str(added)), ("added.f", B::str(vec![0; added.len() / 6]))])
    };
    let message = exchange(&added);
    let nobody =
        |n: u32| SocketAddr::from(([127, 200, (n >> 8) as u8, n as u8], 1 + (n >> 16) as u16));
    let others: Vec<Vec<u8>> = (0..10_u32)
        .map(|part| (part * 10_000..(part + 1) * 10_000).flat_map(|n| compact(nobody(n))).collect())
        .map(|added: Vec<u8>| exchange(&added).encode())
        .collect();
    let odd = B::dict([("added", B::str(vec![1; 11])), ("dropped", B::Int(3))]);
    let script = saying(move |talk| {
        // Our ids, as its extension handshake named them, are not needed: both ends use theirs.
        for others in &others {
            talk.wire.send_extended(PEX_ID, &message.encode())?;
            talk.wire.send_extended(PEX_ID, others)?;
        }
        talk.wire.send_extended(PEX_ID, &odd.encode())?;
        talk.wire.send_extended(UT_PEX, &message.encode())
    });
    duel.fight("2 * 10^5 addresses by peer exchange", Fate::Endured, script);
    let mut dials = 0;
    while let Ok((mut stream, _)) = bystander.accept() {
        dials += 1;
        let _ = stream.read(&mut [0; 1]);
    }
    assert!(dials <= 3, "a third party was dialled {dials} times");
}

// Whoever holds the last blocks when all else is here could hold up the end.
#[test]
fn peers_that_abuse_the_endgame_do_not_hold_up_the_end() {
    let content = || Content::single(14, 1_000_000, 131_072);
    let blocks = 1_000_000_usize.div_ceil(16_384);
    type Abuse = fn(&mut Talk, crate::world::seeder::Block) -> io::Result<()>;
    let cases: [(&str, Abuse); 4] = [
        ("keeps the last blocks", |_, _| Ok(())),
        ("last blocks are wrong", |talk, block| {
            let wrong: Vec<u8> = talk.block(block).iter().map(|b| !b).collect();
            talk.send_block_data(block.piece, block.begin, &wrong)
        }),
        ("sends other blocks instead, again and again", |talk, block| {
            let first = crate::world::seeder::Block { piece: 0, begin: 0, len: block.len };
            (0..50).try_for_each(|_| talk.send_block(first))
        }),
        ("begins each of the last blocks and stops", |talk, block| {
            let mut start = frame(id::PIECE, &numbers(&[block.piece, block.begin]));
            // As long as it should be, and half of it never comes.
            start[..4].copy_from_slice(&(block.len + 9).to_be_bytes());
            start.extend(vec![0; 8_192]);
            talk.wire.send_raw(&start)
        }),
    ];
    for (what, abuse) in cases {
        let script = Script::honest().on_block(move |talk, block| {
            if talk.asked + 6 <= blocks {
                return talk.send_block(block);
            }
            let said = abuse(talk, block);
            talk.deed();
            said
        });
        Duel::of(content()).fight(what, Fate::Endured, script);
    }
}

#[test]
fn ban_holds_for_the_address_from_every_port_and_in_both_directions() {
    let test = "hostile_peer::ban_holds_for_the_address_from_every_port_and_in_both_directions";
    netns::inside(test, || {
        // Behind a private address there are many; these are the Internet's.
        let ended =
            Launch::new("ip").args(["addr", "add", "44.55.66.1/24", "dev", "lo"]).run(secs(20));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let at = |host, port| SocketAddr::from(([44, 55, 66, host], port));
        let (world, content) = (World::new(), Content::single(15, 400_000, 65_536));
        let out = world.folder("out");
        let spoil = || {
            Script::honest().on_block(|talk, block| {
                let wrong: Vec<u8> = talk.block(block).iter().map(|b| !b).collect();
                talk.send_block_data(block.piece, block.begin, &wrong)
            })
        };
        let gate = Gate::default();
        let liar = Seeder::start(at(2, 7001), &content, spoil());
        let honest = Seeder::start(at(3, 7001), &content, Script::honest().behind(&gate));
        let peers = [liar.addr, honest.addr];
        let mut download = world.get_at(at(1, 7000), &content.magnet(), &out, &peers).start();
        assert!(liar.wait(secs(30), |log| log.closed > 0), "{}", download.last_words());
        // Another port of the liar's: it is not let in. Its neighbour is.
        let hash = content.info_hash();
        for _ in 0..3 {
            assert!(Wire::greet(at(1, 7000), at(2, 0).ip(), &hash).is_err(), "let in again");
        }
        let mut neighbour = Wire::greet(at(1, 7000), at(4, 0).ip(), &hash).expect("a neighbour");
        // Nor is it dialled when somebody else names it at yet another port.
        let again = Seeder::start(at(2, 7002), &content, Script::honest());
        let added = [compact(again.addr), compact(at(5, 7001))].concat();
        let bystander = Seeder::start(at(5, 7001), &content, Script::honest().behind(&gate));
        let hello = extension_handshake(None).encode();
        neighbour.send_extended(0, &hello).unwrap();
        let exchange = B::dict([("added", B::str(&added)), ("added.f", B::str([0, 0]))]);
        neighbour.send_extended(PEX_ID, &exchange.encode()).unwrap();
        assert!(bystander.wait(secs(30), |log| !log.dials.is_empty()), "{}", download.last_words());
        download.expect_alive("banning");
        gate.open();
        download.wait(secs(60)).expect(0, "from the honest");
        content.assert_in(&out);
        assert_eq!((again.log().dials.len(), liar.log().dials.len()), (0, 1));
    });
}

#[test]
fn peer_that_closes_at_once_is_not_hammered() {
    let duel = Duel::new();
    let script = Script::honest().on_accept(|_| Err(io::ErrorKind::ConnectionReset.into()));
    let liar = Seeder::start(duel.world.addr(), &duel.content, script);
    let download = duel.world.get(&duel.content.magnet(), &duel.out, &[liar.addr]);
    let ended = download.args(["--timeout", "12s"]).run(secs(40));
    assert_ne!(ended.code, 0);
    let dials = liar.log().dials.len();
    assert!((1..=5).contains(&dials), "dialled {dials} times in {:?}", ended.took);
}
