//! A traced lookup tells all it does, and does nothing else for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, public_addr};
use crate::base::InfoHash;
use crate::dht::{Event, LookupId, Node, Step, StepKind};

const HASH: InfoHash = InfoHash::new([0x5a; 20]);

fn steps(net: &Net, at: SocketAddr, lookup: LookupId) -> Vec<Step> {
    let told = net.events.iter().filter_map(|(addr, event)| match event {
        Event::Step { lookup: id, step } if *id == lookup && *addr == at => Some(step.clone()),
        _ => None,
    });
    told.collect()
}

fn nodes(steps: &[Step], wanted: impl Fn(&StepKind) -> bool) -> BTreeSet<SocketAddr> {
    steps.iter().filter(|s| wanted(&s.kind)).map(|s| s.to).collect()
}

#[test]
fn traced_lookup_tells_every_query_and_what_came_of_it() {
    let (mut net, addrs) = Net::public(61, 50);
    net.down = addrs[20..30].to_vec();
    let announce = net.on(addrs[10], |n, now| n.announce(now, HASH, Some(1234)));
    net.finish(addrs[10], announce);
    assert!(steps(&net, addrs[10], announce).is_empty(), "nobody asked for it");

    let get = net.on(addrs[40], |n, now| {
        let get = n.get_peers(now, HASH);
        n.trace(now, get);
        get
    });
    let report = net.finish(addrs[40], get);
    let steps = steps(&net, addrs[40], get);
    let asked = nodes(&steps, |kind| *kind == StepKind::Asked);
    let answered = nodes(&steps, |kind| matches!(kind, StepKind::Answered { .. }));
    assert_eq!((asked.len(), answered.len()), (report.asked, report.answered));
    assert!(report.dead > 0 && answered.is_subset(&asked), "{report:?}");
    assert!(steps.is_sorted_by_key(|s| s.after));
    let mut named = BTreeSet::new();
    for step in &steps {
        assert_eq!(step.distance, step.id.map(|id| HASH.key().distance(id.key())));
        if let StepKind::Answered { rtt, contacts, nearer, peers, has_token } = &step.kind {
            assert!(*rtt >= Duration::from_millis(20) && nearer <= contacts && *has_token);
            named.extend(peers.iter().copied());
        }
    }
    assert_eq!(named, net.peers(addrs[40], get).into_iter().collect());
}

#[test]
fn announce_of_a_traced_lookup_is_told_too() {
    let (mut net, addrs) = Net::public(62, 30);
    let announce = net.on(addrs[10], |n, now| {
        let announce = n.announce(now, HASH, Some(1234));
        n.trace(now, announce);
        announce
    });
    let report = net.finish(addrs[10], announce);
    let stores: Vec<_> =
        steps(&net, addrs[10], announce).into_iter().filter(|s| s.stores).collect();
    let taken = nodes(&stores, |kind| matches!(kind, StepKind::Answered { .. }));
    assert_eq!((taken.len(), report.announced), (8, 8));
}

#[test]
fn tracing_changes_nothing_and_ends_with_the_lookup() {
    let run = |traced: bool| {
        let (mut net, addrs) = Net::public(63, 40);
        net.loss = 0.1;
        let search = |n: &mut Node, now| {
            let get = n.get_peers(now, HASH);
            if traced {
                n.trace(now, get);
            }
            get
        };
        let get = net.on(addrs[5], search);
        let report = net.finish(addrs[5], get);
        let ended = net.events.len();
        net.run(Duration::from_secs(60));
        let late = net.events[ended..].iter().filter(|(_, e)| matches!(e, Event::Step { .. }));
        assert_eq!(late.count(), 0);
        (report, net.sent, net.rng.unit())
    };
    assert_eq!(run(false), run(true));
    // One that is over, or was never there, is not traced.
    let mut net = Net::new(64);
    net.add(public_addr(1));
    net.on(public_addr(1), |n, now| n.trace(now, LookupId(4)));
    assert!(net.events.is_empty());
}
