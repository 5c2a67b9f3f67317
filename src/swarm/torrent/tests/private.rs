//! Private torrents (BEP 27): nobody hears of anybody from us, and we hear of nobody.

use std::time::Duration;

use super::world::{Sample, World};
use crate::swarm::{Config, Event};

// Two leeches that know the seed alone, for some time; each has a DHT node.
fn told(sample: Sample, magnets: bool) -> (Vec<usize>, usize) {
    let mut w = World::new(sample);
    let info = Some(w.sample.info.clone());
    let config = |w: &World| Config { dht_port: Some(6881), ..w.config() };
    let all = crate::wire::bitfield::Bitfield::all(w.sample.layout.piece_count());
    let seed = w.add(config(&w), info.clone(), Some(all));
    w.set_rate(seed, 20e3);
    let known = info.filter(|_| !magnets);
    let leeches: Vec<_> = (0..2).map(|_| w.add(config(&w), known.clone(), None)).collect();
    leeches.iter().for_each(|leech| w.introduce(*leech, &[seed]));
    w.run(Duration::from_secs(60), |_| false);
    let hosts = || leeches.iter().map(|leech| &w.hosts[*leech]);
    let peers = hosts().map(|host| host.torrent.status(w.now).peers_known).collect();
    let nodes = hosts().flat_map(|h| &h.events).filter(|(_, e)| matches!(e, Event::DhtNode { .. }));
    (peers, nodes.count())
}

#[test]
fn peers_of_a_public_torrent_hear_of_each_other_and_of_dht_nodes() {
    let (peers, nodes) = told(Sample::new(1 << 20, 65_536), false);
    assert_eq!(peers, [2, 2]);
    assert!(nodes >= 2, "{nodes}");
}

#[test]
fn peers_of_a_private_torrent_hear_of_nobody() {
    assert_eq!(told(Sample::private(1 << 20, 65_536), false), (vec![1, 1], 0));
}

#[test]
fn private_magnet_is_kept_private_once_that_is_known() {
    // The seed knew from the start: it has told nothing of a DHT node.
    assert_eq!(told(Sample::private(1 << 20, 65_536), true), (vec![1, 1], 0));
}
