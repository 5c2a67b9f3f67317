//! Peers that lie about the info dictionary (BEP 9): the link resolves from the honest one, and who
//! gave a wrong copy is shown the door.

use crate::world::bencode::nested_lists;
use crate::world::peer::{extension_handshake, numbers};
use crate::world::seeder::METADATA_PIECE;
use crate::world::{B, Content, Duel, Fate, Script, Seeder, World, secs};

/// Honest but for the `metadata_size` it names, and counted as done once it has said so.
fn naming(size: Option<B>) -> Script {
    Script::honest().on_greet(move |talk| {
        talk.wire.send_extended(0, &extension_handshake(size.clone()).encode())?;
        talk.send_bitfield()?;
        talk.wire.send(1, &[])?;
        talk.deed();
        Ok(())
    })
}

/// Honest but for the metadata it sends: every byte of it is wrong.
fn wrong_metadata() -> Script {
    Script::honest().on_metadata(|talk, piece| {
        let data: Vec<u8> = talk.metadata_piece(piece).iter().map(|b| b ^ 0x55).collect();
        talk.send_metadata_data(piece, talk.info_len(), &data)
    })
}

/// Honest but for its answers to metadata requests, which are `answer` times one.
fn answering(answer: impl Fn(u32, usize) -> (B, Vec<u8>) + Send + Sync + 'static) -> Script {
    Script::honest().on_metadata(move |talk, piece| {
        let (head, data) = answer(piece, talk.info_len());
        talk.send_metadata_message(&head, &data)?;
        talk.deed();
        Ok(())
    })
}

fn data_head(piece: B, total: B) -> B {
    B::dict([("msg_type", B::Int(1)), ("piece", piece), ("total_size", total)])
}

#[test]
fn metadata_of_impossible_size_is_not_asked_for() {
    for size in [i64::from(i32::MAX), i64::MAX, 0, -1, i64::MIN] {
        let what = format!("metadata_size {size}");
        let (liar, _) = Duel::new().fight(&what, Fate::Endured, naming(Some(B::Int(size))));
        assert_eq!(liar.log().metadata_requests, 0, "{what}: asked for it nevertheless");
    }
    let digits = B::raw(format!("i{}e", "9".repeat(100)));
    for size in [None, Some(B::str("12")), Some(B::List(vec![])), Some(digits)] {
        let what = format!("metadata_size {size:?}");
        let (liar, _) = Duel::new().fight(&what, Fate::Endured, naming(size));
        assert_eq!(liar.log().metadata_requests, 0, "{what}: asked for it nevertheless");
    }
}

#[test]
fn metadata_of_14_mb_is_not_refused() {
    let world = World::new();
    let pieces: Vec<u8> =
        (0..700_000_u32).flat_map(|n| [n; 5]).flat_map(u32::to_be_bytes).collect();
    let info = B::dict([
        ("length", B::Int(700_000 * 16_384)),
        ("name", B::str("huge")),
        ("piece length", B::Int(16_384)),
        ("pieces", B::Str(pieces)),
    ])
    .encode();
    let link = crate::world::content::magnet(&trackless::base::hash::sha1(&info));
    let script = Script::honest().with_info(info.clone()).on_greet(|talk| {
        let size = B::Int(i64::try_from(talk.info_len()).unwrap());
        talk.wire.send_extended(0, &extension_handshake(Some(size)).encode())
    });
    let seeder = Seeder::start(world.addr(), &Content::single(1, 1, 16_384), script);
    let file = world.dir().join("huge.torrent");
    world
        .trackless_at(world.addr(), ["resolve", &link, "--no-dht", "--peer"])
        .arg(seeder.addr.to_string())
        .arg("-o")
        .arg(&file)
        .run(secs(60))
        .expect(0, "resolve of 14 MB")
        .expect_memory_below(200, "resolve of 14 MB");
    let written = std::fs::read(&file).unwrap();
    let kept = B::decode(&written).and_then(|t| t.get("info").map(B::encode));
    assert!(kept == Some(info), "the info dictionary was not kept byte for byte");
}

#[test]
fn wrong_metadata_convicts_its_giver_beside_a_sharing_trackless() {
    let world = World::new();
    let content = Content::single(3, 300_000, 32_768).with_info_padding(40_000);
    let liar = Seeder::start(world.addr(), &content, wrong_metadata());
    // The honest one is the program itself, seeding from the same torrent.
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, content.torrent()).unwrap();
    let there = world.folder("there");
    content.write_to(&there);
    let addr = world.addr();
    let seeding = world
        .trackless_at(addr, ["get"])
        .arg(&torrent)
        .arg("-o")
        .arg(&there)
        .args(["--no-dht", "--seed=forever"])
        .start();
    seeding.stdout_line("saved path", secs(60), |line| line.contains(&content.name));
    let out = world.folder("out");
    let download = world.get(&content.magnet(), &out, &[liar.addr, addr]).start();
    assert!(liar.wait(secs(20), |log| log.closed > 0), "the liar was kept: {:?}", liar.log());
    download.wait(secs(60)).expect(0, "download beside a liar");
    content.assert_in(&out);
}

#[test]
fn wrong_metadata_convicts_its_giver() {
    Duel::new().fight("every byte wrong", Fate::Dropped, wrong_metadata());
    let last_byte = Script::honest().on_metadata(|talk, piece| {
        let mut data = talk.metadata_piece(piece);
        if data.len() < METADATA_PIECE {
            *data.last_mut().unwrap() ^= 1;
        }
        talk.send_metadata_data(piece, talk.info_len(), &data)
    });
    Duel::new().fight("one bit wrong", Fate::Dropped, last_byte);
}

#[test]
fn three_liars_do_not_hold_up_one_honest_peer() {
    let duel = Duel::new();
    let liars = vec![wrong_metadata(), wrong_metadata(), wrong_metadata()];
    duel.fight_all("three liars", Fate::Dropped, liars);
}

#[test]
fn metadata_of_another_length_convicts_or_is_left_out() {
    for off in [-1_i64, 1] {
        let script = Script::honest()
            .on_greet(move |talk| {
                let size = i64::try_from(talk.info_len()).unwrap() + off;
                let hello = extension_handshake(Some(B::Int(size)));
                talk.wire.send_extended(0, &hello.encode())?;
                talk.send_bitfield()?;
                talk.wire.send(1, &[])
            })
            .on_metadata(move |talk, piece| {
                let total = usize::try_from(i64::try_from(talk.info_len()).unwrap() + off).unwrap();
                let mut data = talk.metadata_piece(piece);
                if data.len() < METADATA_PIECE {
                    data.resize(total % METADATA_PIECE, 0);
                }
                talk.send_metadata_data(piece, total, &data)
            });
        Duel::new().fight(&format!("metadata_size off by {off}"), Fate::Dropped, script);
    }
}

#[test]
fn peer_that_keeps_its_metadata_is_passed_over() {
    let silent = Script::honest().on_metadata(|talk, _| {
        talk.deed();
        Ok(())
    });
    Duel::new().fight("never answers", Fate::Endured, silent);
    let reject = |piece: u32, _| {
        let head = B::dict([("msg_type", B::Int(2)), ("piece", B::Int(piece.into()))]);
        (head, Vec::new())
    };
    Duel::new().fight("rejects all", Fate::Endured, answering(reject));
    let closes = Script::honest().on_metadata(|_, _| Err(std::io::Error::other("enough")));
    Duel::new().fight("closes when asked", Fate::Dropped, closes);
}

#[test]
fn metadata_messages_that_lie_are_refused() {
    let (whole, int) = (vec![1; METADATA_PIECE], |n: usize| B::Int(i64::try_from(n).unwrap()));
    type Answer = Box<dyn Fn(u32, usize) -> (B, Vec<u8>) + Send + Sync>;
    let data = whole.clone();
    let cases: Vec<(&str, Answer)> = vec![
        ("total_size is larger", {
            let data = data.clone();
            Box::new(move |p, n| (data_head(B::Int(p.into()), int(n * 2)), data.clone()))
        }),
        ("total_size is 2^63-1", {
            let data = data.clone();
            Box::new(move |p, _| (data_head(B::Int(p.into()), B::Int(i64::MAX)), data.clone()))
        }),
        ("piece -1", {
            let data = data.clone();
            Box::new(move |_, n| (data_head(B::Int(-1), int(n)), data.clone()))
        }),
        ("piece 2^31", {
            let data = data.clone();
            Box::new(move |_, n| (data_head(B::Int(1 << 31), int(n)), data.clone()))
        }),
        ("piece 2^62", {
            Box::new(move |_, n| (data_head(B::Int(1 << 62), int(n)), data.clone()))
        }),
        ("300 KB in a piece", {
            Box::new(move |p, n| (data_head(B::Int(p.into()), int(n)), vec![7; 300_000]))
        }),
        ("no data at all", {
            Box::new(move |p, n| (data_head(B::Int(p.into()), int(n)), Vec::new()))
        }),
        ("a head that is a number", Box::new(|_, _| (B::Int(7), vec![1; 100]))),
        ("a head that is a list", Box::new(|_, _| (B::List(vec![B::Int(1)]), vec![1; 100]))),
        ("a head that is cut", Box::new(|_, _| (B::raw("d8:msg_type"), Vec::new()))),
        ("an empty message", Box::new(|_, _| (B::raw(""), Vec::new()))),
        ("msg_type 99", Box::new(|_, _| (B::dict([("msg_type", B::Int(99))]), Vec::new()))),
        ("10^5 nested lists", Box::new(|_, _| (B::Raw(nested_lists(100_000)), Vec::new()))),
    ];
    for (what, answer) in cases {
        Duel::new().fight(what, Fate::Endured, answering(answer));
    }
}

#[test]
fn metadata_that_nobody_asked_for_is_ignored() {
    let unrequested = Script::honest().on_metadata(|talk, piece| {
        for n in 0..500 {
            talk.send_metadata_data(n % 5, talk.info_len(), &[9; METADATA_PIECE])?;
        }
        talk.deed();
        talk.send_metadata(piece)
    });
    Duel::new().fight("500 pieces unasked", Fate::Endured, unrequested);
    let asking = Script::honest().on_metadata(|talk, piece| {
        for n in 0..5000 {
            let head = B::dict([("msg_type", B::Int(0)), ("piece", B::Int(n % 7))]);
            talk.send_metadata_message(&head, &[])?;
        }
        talk.deed();
        talk.send_metadata(piece)
    });
    Duel::new().fight("5000 requests for what is not here", Fate::Endured, asking);
}

#[test]
fn liars_alone_resolve_nothing_and_the_user_is_told() {
    let duel = Duel::new();
    let (_, ended) = duel.without_honest(vec![wrong_metadata()]);
    assert_ne!(ended.code, 0, "resolved from a liar");
    assert!(ended.stderr.contains("metadata"), "the stage is not named: {}", ended.stderr);
    assert!(std::fs::read_dir(&duel.out).unwrap().next().is_none(), "something was written");
}

#[test]
fn have_messages_before_the_metadata_do_no_harm() {
    // Without the info dictionary nobody knows how many pieces there are.
    let early = Script::honest().on_greet(|talk| {
        for piece in [0, 1, 999_999, u32::MAX] {
            talk.wire.send(4, &numbers(&[piece]))?;
        }
        talk.deed();
        talk.greet()
    });
    Duel::new().fight("have of impossible pieces", Fate::Endured, early);
}
