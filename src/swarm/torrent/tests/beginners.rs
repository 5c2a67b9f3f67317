//! Pieces for those who wait with empty hands (BEP 6, allowed fast).

use std::time::Duration;

use super::raw::Rig;
use super::sample;
use super::world::{Bend, World};
use crate::swarm::Config;
use crate::swarm::fast::allowed_fast;
use crate::wire::bitfield::Bitfield;
use crate::wire::peer::{BlockRef, Message};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn choked_beginner_gets_its_set_and_no_more() {
    let mut w = World::new(sample());
    let config = Config { upload_slots: 0, ..w.config() };
    let all = Bitfield::all(w.sample.layout.piece_count());
    let seed = w.add(config, Some(w.sample.info.clone()), Some(all));
    let leech = w.leech();
    w.introduce(leech, &[seed]);
    w.run(secs(120), |_| false);
    assert!(w.hosts[leech].torrent.peers()[0].choked, "it was never unchoked");
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!((status.pieces_have, status.wasted), (10, 0), "{status:?}");
    let hash = w.sample.info_hash();
    let mut set = allowed_fast(w.hosts[leech].addr.ip(), &hash, 41, 10);
    set.sort_unstable();
    let mut got: Vec<_> = w.hosts[leech].disk.written.keys().copied().collect();
    got.sort_unstable();
    assert_eq!(got, set);
    let sent = w.hosts[seed].torrent.status(w.now).uploaded;
    assert!(sent <= 10 * 65_536, "{sent}");
}

#[test]
fn beginner_that_brings_something_is_served_for_it() {
    // One place, and somebody who never leaves it: what the newcomer was given for nothing is what
    // it has to offer to the third, who has a place.
    let mut w = World::new(sample());
    let config = Config { upload_slots: 1, ..w.config() };
    let all = Bitfield::all(w.sample.layout.piece_count());
    let seed = w.add(config, Some(w.sample.info.clone()), Some(all));
    w.set_rate(seed, 100e3);
    let (first, second) = (w.leech(), w.leech());
    w.introduce(first, &[seed]);
    w.run(secs(2), |_| false);
    w.introduce(second, &[seed, first]);
    w.finish(&[first, second], secs(120));
}

#[test]
fn served_peer_is_granted_nothing() {
    let mut w = World::new(sample());
    let (sender, receiver) = std::sync::mpsc::channel();
    let seed = w.bent_seed(move |_, frame| {
        if matches!(Message::decode(&frame), Ok(Message::AllowedFast(_))) {
            sender.send(()).unwrap();
        }
        Bend::Send(frame)
    });
    let leech = w.leech();
    w.introduce(leech, &[seed]);
    w.finish(&[leech], secs(10));
    assert_eq!(
        receiver.try_iter().count(),
        0,
        "with free places nobody is sent for what its neighbours get"
    );
}

fn granted(rig: &Rig) -> Vec<u32> {
    let pieces = rig.said().into_iter().filter_map(|message| match message {
        Message::AllowedFast(piece) => Some(piece),
        _ => None,
    });
    pieces.collect()
}

#[test]
fn grant_is_no_way_around_the_choke() {
    let mut rig = Rig::with(true, true, |config| config.upload_slots = 0);
    rig.say(&Message::HaveNone);
    rig.say(&Message::Interested);
    let set = granted(&rig);
    assert_eq!(set.len(), 10);
    let outside = (0..41).find(|piece| !set.contains(piece)).unwrap();
    rig.outputs.clear();
    rig.say(&Message::Request(BlockRef { piece: outside, begin: 0, len: 16_384 }));
    assert_eq!(rig.reads(), 0);

    // Everything in it, a hundred times.
    let mut reads = 0;
    for _ in 0..100 {
        for piece in &set {
            for n in 0..4 {
                let block = BlockRef { piece: *piece, begin: n * 16_384, len: 16_384 };
                rig.say(&Message::Request(block));
            }
        }
        reads += rig.serve();
    }
    assert_eq!(rig.closed(), None);
    assert!((40 * 16_384..=80 * 16_384).contains(&reads), "{} blocks", reads / 16_384);

    // And no second set, however often it changes its mind.
    rig.outputs.clear();
    for _ in 0..10 {
        rig.say(&Message::NotInterested);
        rig.say(&Message::Interested);
        rig.later(secs(1));
    }
    assert!(granted(&rig).is_empty());
}

#[test]
fn who_has_pieces_or_does_not_speak_fast_is_granted_nothing() {
    let mut rig = Rig::with(true, true, |config| config.upload_slots = 0);
    // Ten of 41 pieces.
    rig.say(&Message::Bitfield(vec![0xff, 0xc0, 0, 0, 0, 0].into()));
    rig.say(&Message::Interested);
    assert!(granted(&rig).is_empty());

    let mut rig = Rig::with(true, true, |config| config.upload_slots = 0);
    rig.say(&Message::HaveNone);
    rig.say(&Message::Interested);
    let set = granted(&rig);
    rig.outputs.clear();
    (0..10).for_each(|piece| rig.say(&Message::Have(piece)));
    rig.say(&Message::Request(BlockRef { piece: set[0], begin: 0, len: 16_384 }));
    assert_eq!(rig.reads(), 0, "it is no beginner any more");
}

#[test]
fn grant_of_pieces_that_are_not_here_is_not_a_promise() {
    let mut rig = Rig::with(true, false, |config| config.upload_slots = 0);
    rig.say(&Message::HaveNone);
    rig.say(&Message::Interested);
    assert!(granted(&rig).is_empty(), "we have nothing ourselves");
    let asks = (0..400).map(|n| BlockRef { piece: n % 41, begin: 0, len: 16_384 });
    asks.for_each(|block| rig.say(&Message::Request(block)));
    assert_eq!((rig.reads(), rig.closed()), (0, None), "refused as any request while choked");
}
