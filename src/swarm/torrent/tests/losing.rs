//! Pieces that are gone again: ours and a peer's.

use bytes::Bytes;

use super::raw::{Rig, dont_have};
use super::secs;
use super::world::World;
use crate::peer::ConnId;
use crate::swarm::{DiskEvent, DiskRequest, Event, Output, Phase};
use crate::wire::extension::{DONT_HAVE_ID, decode_dont_have};
use crate::wire::peer::{BlockRef, Message};

fn block(piece: u32, n: u32) -> BlockRef {
    BlockRef { piece, begin: n * 16_384, len: 16_384 }
}

fn taken_back(rig: &Rig) -> Vec<u32> {
    let said = rig.said().into_iter();
    said.filter_map(|message| match message {
        Message::Extended { id: DONT_HAVE_ID, payload } => decode_dont_have(&payload),
        _ => None,
    })
    .collect()
}

// Fails every read that was asked for since the outputs were looked at last.
fn fail_reads(rig: &mut Rig) {
    let outputs = std::mem::take(&mut rig.outputs);
    for output in outputs {
        if let Output::Disk(DiskRequest::Read { conn, piece, begin, len }) = output {
            rig.disk(DiskEvent::ReadFailed { conn, piece, begin, len, is_lost: true });
        }
    }
}

#[test]
fn seed_that_cannot_read_a_piece_takes_it_back_and_serves_the_rest() {
    let mut rig = Rig::new(true, true);
    rig.disk(DiskEvent::Flushed);
    rig.say(&Message::Interested);
    rig.outputs.clear();
    rig.say(&Message::Request(block(5, 0)));
    fail_reads(&mut rig);
    assert_eq!(taken_back(&rig), [5]);
    assert!(rig.said().contains(&Message::Reject(block(5, 0))), "{:?}", rig.said());
    let has = |wanted: &Output| rig.outputs.contains(wanted);
    let piece = crate::swarm::PieceIndex(5);
    assert!(has(&Output::Event(Event::PieceLost(piece))));
    assert!(has(&Output::Disk(DiskRequest::Discard { piece })), "a next run must look again");
    let status = rig.status();
    assert_eq!((status.phase, status.pieces_have), (Phase::Seeding, 40));
    assert_eq!(status.wanted_bytes, status.verified_bytes);
    // Whoever did not understand asks again, and again: refused, and no fault of theirs.
    rig.outputs.clear();
    for _ in 0..1000 {
        rig.say(&Message::Request(block(5, 1)));
    }
    assert_eq!((rig.reads(), rig.closed(), taken_back(&rig)), (0, None, vec![]));
    rig.say(&Message::Request(block(6, 0)));
    assert_eq!(rig.reads(), 1, "it still serves");
}

#[test]
fn download_that_loses_a_piece_fetches_it_again() {
    let mut w = World::new(super::sample());
    let (seed, leech) = (w.seed(), w.leech());
    w.set_rate(seed, 1e6);
    w.introduce(leech, &[seed]);
    let good = |w: &World| w.hosts[leech].torrent.status(w.now).pieces_have;
    assert!(w.run(secs(60), |w| good(w) >= 10), "it gets going");
    let verified = w.hosts[leech].events.iter().find_map(|(_, event)| match event {
        Event::PieceVerified(piece) => Some(*piece),
        _ => None,
    });
    let (piece, before) = (verified.expect("ten are verified"), good(&w));
    let gone =
        DiskEvent::ReadFailed { conn: ConnId(999), piece, begin: 0, len: 16_384, is_lost: true };
    let now = w.now;
    w.hosts[leech].torrent.handle_disk(now, gone);
    w.drain();
    assert_eq!(good(&w), before - 1);
    w.finish(&[leech], secs(60));
    let told = w.hosts[leech].events.iter().map(|(_, event)| event);
    let times = |wanted: Event| told.clone().filter(|event| **event == wanted).count();
    assert_eq!(times(Event::PieceLost(piece)), 1);
    assert_eq!((times(Event::PieceVerified(piece)), times(Event::Finished)), (2, 1));
}

#[test]
fn piece_that_a_peer_takes_back_is_not_asked_of_it() {
    let mut rig = Rig::new(true, false);
    rig.say(&Message::HaveAll);
    rig.outputs.clear();
    (0..41).filter(|piece| *piece != 7).for_each(|piece| rig.say(&dont_have(piece)));
    rig.say(&Message::Unchoke);
    rig.later(secs(2));
    let asked: Vec<_> = rig
        .said()
        .into_iter()
        .filter_map(
            |message| if let Message::Request(block) = message { Some(block) } else { None },
        )
        .collect();
    assert!(!asked.is_empty() && asked.iter().all(|block| block.piece == 7), "{asked:?}");
    rig.say(&dont_have(7));
    rig.later(secs(2));
    assert!(rig.said().contains(&Message::NotInterested), "it has nothing any more");
    rig.outputs.clear();
    rig.say(&Message::Have(7));
    rig.say(&Message::Piece { piece: 7, begin: 0, block: Bytes::from(vec![0; 16_384]) });
    rig.later(secs(2));
    assert!(rig.said().contains(&Message::Interested), "{:?}", rig.said());
    assert_eq!(rig.closed(), None, "a block that was on its way is no fault");
}
