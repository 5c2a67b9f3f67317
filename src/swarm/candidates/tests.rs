use proptest::prelude::*;

use super::*;

const OPEN: DialBounds = DialBounds { half_open_max: 1000, connections_max: 1000, connected: 0 };

fn peer(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

fn nth(n: u32) -> SocketAddr {
    SocketAddr::from(((0x0800_0000 + n * 256).to_be_bytes(), 6881))
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

impl Candidates {
    fn check(&self) {
        let count = |f: fn(&State) -> bool| self.known.values().filter(|c| f(&c.state)).count();
        assert_eq!(count(|s| matches!(s, State::Ready)), self.ready.len());
        assert_eq!(count(|s| matches!(s, State::Waiting(_))), self.waiting.len());
        assert_eq!(count(|s| matches!(s, State::Dialling)), self.dialling);
        assert!(self.known.len() <= self.limit);
        assert!(self.ready.iter().all(|(rank, addr)| self.known[addr].rank() == *rank));
        assert!(
            self.waiting.iter().all(|(due, addr)| self.known[addr].state == State::Waiting(*due))
        );
        assert!(self.networks.values().all(|n| (1..=PER_NETWORK_MAX).contains(n)));
        let told = self.known.iter().filter(|(a, c)| is_told(c.source) && !is_private(a.ip()));
        assert_eq!(told.count(), self.networks.values().sum::<usize>());
        assert!(self.own.iter().all(|own| !self.known.contains_key(own)));
    }
}

// Dials whenever allowed until `end`, with `then` deciding how each dial goes.
fn dials(
    c: &mut Candidates,
    end: u64,
    then: impl Fn(&mut Candidates, Instant, SocketAddr),
) -> usize {
    let mut now = at(0);
    let mut dials = 0;
    while now <= at(end) {
        while let Some(addr) = c.next_dial(now, OPEN) {
            dials += 1;
            then(c, now, addr);
        }
        c.check();
        let Some(next) = c.poll_timeout() else { break };
        now = next.max(now);
    }
    dials
}

#[test]
fn peer_that_closes_at_once_is_dialled_ever_more_rarely() {
    for source in [PeerSource::Given, PeerSource::Dht, PeerSource::Pex, PeerSource::Incoming] {
        let mut c = Candidates::new(10, [1; 32]);
        c.add(at(0), source, nth(1), None);
        let n = dials(&mut c, 120_000, |c, now, addr| {
            c.on_connected(addr);
            c.on_closed(now, addr, Ending::Early);
        });
        assert!((4..=8).contains(&n), "{source:?}: {n} dials in two minutes");
    }
}

#[test]
fn peer_that_fetched_the_info_dictionary_is_dialled_back_at_once_twice() {
    let mut c = Candidates::new(10, [1; 32]);
    c.add(at(0), PeerSource::Incoming, nth(1), None);
    let mut fetch = |end| {
        dials(&mut c, end, |c, now, addr| {
            c.on_connected(addr);
            c.on_reached(addr);
            c.on_closed(now, addr, Ending::Informed);
        })
    };
    assert_eq!(fetch(1_500), 3);
    assert_eq!(fetch(4_000), 0, "it is in no hurry");
}

#[test]
fn peer_whose_pause_is_over_is_ready_though_nobody_is_dialled() {
    let mut c = Candidates::new(100, [1; 32]);
    c.add(at(0), PeerSource::Dht, nth(1), None);
    assert_eq!(c.ready(at(0)), 1);
    c.next_dial(at(0), OPEN).unwrap();
    c.on_connected(nth(1));
    c.on_closed(at(1), nth(1), Ending::Used);
    let over = at(1) + RETURN_DELAY * 2;
    assert_eq!((c.ready(at(1)), c.ready(over)), (0, 1));
}

#[test]
fn given_peer_that_is_not_up_yet_is_tried_soon_again() {
    let mut c = Candidates::new(10, [1; 32]);
    c.add(at(0), PeerSource::Given, nth(1), None);
    let refused = |c: &mut Candidates, now, addr| c.on_dial_failed(now, addr, DialError::Refused);
    assert!(dials(&mut c, 2_000, refused) >= 4);
    let mut c = Candidates::new(10, [1; 32]);
    c.add(at(0), PeerSource::Given, nth(1), None);
    assert!((20..=32).contains(&dials(&mut c, 120_000, refused)));
    let mut c = Candidates::new(10, [1; 32]);
    c.add(at(0), PeerSource::Dht, nth(1), None);
    assert!((3..=5).contains(&dials(&mut c, 300_000, refused)));
    assert_eq!(c.stats().failed, c.known[&nth(1)].dial_failures as usize);
    assert_eq!((c.stats().known, c.stats().tried, c.stats().reached), (1, 1, 0));
}

#[test]
fn order_is_given_then_unfailed_then_incoming_then_priority() {
    let mut c = Candidates::new(100, [1; 32]);
    c.set_own(&[peer("1.2.3.4:6881")]);
    for n in 1..20 {
        c.add(at(0), PeerSource::Dht, nth(n), None);
    }
    c.add(at(0), PeerSource::Incoming, nth(30), None);
    c.add(at(0), PeerSource::Given, nth(31), None);
    assert_eq!(c.next_dial(at(0), OPEN), Some(nth(31)));
    assert_eq!(c.next_dial(at(0), OPEN), Some(nth(30)));
    let rest: Vec<_> = std::iter::from_fn(|| c.next_dial(at(0), OPEN)).collect();
    assert_eq!(rest.len(), 19);
    let priorities = rest.iter().map(|a| canonical_priority(peer("1.2.3.4:6881"), *a));
    assert!(priorities.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
}

#[test]
fn bounds_hold() {
    let mut c = Candidates::new(100, [1; 32]);
    for n in 0..50 {
        c.add(at(0), PeerSource::Dht, nth(n), None);
    }
    let bounds = DialBounds { half_open_max: 5, connections_max: 8, connected: 4 };
    let first: Vec<_> = std::iter::from_fn(|| c.next_dial(at(0), bounds)).collect();
    assert_eq!(first.len(), 4);
    c.on_connected(first[0]);
    assert_eq!(c.next_dial(at(0), DialBounds { connected: 5, ..bounds }), None);
    c.on_dial_failed(at(0), first[1], DialError::Timeout);
    assert!(c.next_dial(at(0), DialBounds { connected: 5, ..bounds }).is_some());
}

#[test]
fn nonsense_is_not_taken() {
    let mut c = Candidates::new(100, [1; 32]);
    c.set_own(&[peer("10.0.0.1:5")]);
    let private = Some("192.168.0.9".parse().unwrap());
    let public = Some("8.8.8.8".parse().unwrap());
    assert!(!c.add(at(0), PeerSource::Pex, peer("10.0.0.1:5"), private), "ourselves");
    assert!(!c.add(at(0), PeerSource::Pex, peer("[::ffff:10.0.0.1]:5"), private), "in disguise");
    assert!(!c.add(at(0), PeerSource::Pex, peer("10.0.0.2:5"), public));
    assert!(!c.add(at(0), PeerSource::Dht, peer("1.2.3.4:0"), None));
    assert!(!c.add(at(0), PeerSource::Dht, peer("224.0.0.1:5"), None));
    assert!(c.add(at(0), PeerSource::Pex, peer("10.0.0.2:5"), private));
    assert!(!c.add(at(0), PeerSource::Pex, peer("10.0.0.2:5"), private), "twice");
    c.on_self(peer("10.0.0.2:5"));
    assert!(!c.add(at(0), PeerSource::Given, peer("10.0.0.2:5"), None));
    c.check();
    assert_eq!(c.len(), 0);
}

// A hundred thousand addresses by peer exchange: every kind that must not be dialled, our own, and
// more public ones than there is room for.
#[test]
fn flood_by_peer_exchange_is_bounded_and_reaches_nobody_it_must_not() {
    let mut c = Candidates::new(3_000, [1; 32]);
    let own = peer("203.0.113.7:6881");
    c.set_own(&[own]);
    c.add(at(0), PeerSource::Dht, peer("198.51.100.1:6881"), None);
    let informant = Some("8.8.8.8".parse().unwrap());
    for n in 0..100_000_u32 {
        let [_, a, b, d] = n.to_be_bytes();
        let told = match n % 10 {
            0 => SocketAddr::from(([10, a, b, d], 6881)),
            1 => SocketAddr::from(([192, 168, b, d], 6881)),
            2 => SocketAddr::from(([127, a, b, d], 22)),
            3 => SocketAddr::from(([224, a, b, d], 6881)),
            4 => own,
            5 => SocketAddr::from(([9, a, b, d], 0)),
            _ => SocketAddr::from(([20 + (n % 100) as u8, d, b, a], 6881)),
        };
        c.add(at(u64::from(n)), PeerSource::Pex, told, informant);
    }
    c.check();
    assert_eq!(c.len(), 3_000);
    assert!(c.known.keys().all(|addr| *addr != own && !is_private(addr.ip()) && addr.port() != 0));
    assert!(c.known.keys().all(|addr| matches!(addr.ip(), IpAddr::V4(ip) if ip.octets()[0] < 224)));
}

#[test]
fn flood_from_one_network_leaves_room_for_others() {
    let mut c = Candidates::new(100, [1; 32]);
    let taken = (0..=255u8)
        .filter(|n| c.add(at(0), PeerSource::Pex, SocketAddr::from(([9, 9, 9, *n], 6881)), None));
    assert_eq!(taken.count(), PER_NETWORK_MAX);
    assert!(c.add(at(0), PeerSource::Given, peer("9.9.9.99:7"), None), "not for the user's own");
    for n in 0..50 {
        assert!(c.add(at(0), PeerSource::Dht, SocketAddr::from(([127, 0, 0, 1], 1000 + n)), None));
    }
    c.check();
}

#[test]
fn full_list_drops_its_worst_and_never_a_given_one() {
    let mut c = Candidates::new(10, [1; 32]);
    assert!(c.add(at(0), PeerSource::Given, nth(0), None));
    for n in 1..1000 {
        c.add(at(0), PeerSource::Dht, nth(n), None);
        c.check();
    }
    assert_eq!(c.len(), 10);
    assert_eq!(c.source_of(nth(0)), Some(PeerSource::Given));
    let kept = c.known.values().filter(|x| x.source == PeerSource::Dht).map(|x| x.priority);
    assert!(kept.min() > Some(u32::MAX / 10 * 9), "the best of a thousand stayed");
    // Who failed goes before anybody who was not tried.
    let given = c.next_dial(at(0), OPEN).unwrap();
    let failed = c.next_dial(at(0), OPEN).unwrap();
    c.on_dial_failed(at(0), failed, DialError::Timeout);
    assert!(c.add(at(0), PeerSource::Dht, nth(5000), None));
    assert!(c.source_of(failed).is_none() && c.source_of(given).is_some());
    for n in 0..20 {
        c.add(at(0), PeerSource::Given, nth(6000 + n), None);
        c.check();
    }
    assert_eq!(c.count_of(PeerSource::Given), 10);
}

#[test]
fn ban_takes_the_address_and_ends() {
    let mut c = Candidates::new(100, [1; 32]);
    for port in 1..5 {
        c.add(at(0), PeerSource::Dht, SocketAddr::from(([8, 8, 8, 8], port)), None);
        c.add(at(0), PeerSource::Dht, SocketAddr::from(([127, 0, 0, 1], port)), None);
    }
    c.ban(at(0), peer("8.8.8.8:3"));
    c.ban(at(0), peer("127.0.0.1:3"));
    c.check();
    assert_eq!(c.len(), 3, "the shared private address is not banned whole");
    assert!(c.is_banned(at(0), peer("8.8.8.8:9")) && !c.is_banned(at(0), peer("127.0.0.1:9")));
    assert!(!c.add(at(0), PeerSource::Given, peer("8.8.8.8:9"), None));
    assert_eq!(c.banned(at(0)), 2);
    let later = at(0) + BAN_TIME;
    assert!(!c.is_banned(later, peer("8.8.8.8:9")) && c.banned(later) == 0);
    for n in 0..2_000 {
        c.ban(later, nth(n));
    }
    assert_eq!(c.bans.len(), BANS_MAX);
}

#[test]
fn user_naming_a_known_peer_gets_it_dialled_at_once() {
    let mut c = Candidates::new(100, [1; 32]);
    c.add(at(0), PeerSource::Dht, nth(1), None);
    let addr = c.next_dial(at(0), OPEN).unwrap();
    c.on_dial_failed(at(0), addr, DialError::Timeout);
    assert_eq!(c.next_dial(at(1), OPEN), None);
    c.add(at(1), PeerSource::Given, addr, None);
    c.check();
    assert_eq!(c.next_dial(at(1), OPEN), Some(addr));
    c.on_connected(addr);
    c.on_reached(addr);
    c.on_closed(at(2), addr, Ending::Used);
    assert_eq!(c.stats().reached, 1);
    assert!(c.poll_timeout().is_some_and(|due| due <= at(6_000)));
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, u8),
    Dial,
    Fail(u8),
    Connect(u8),
    Reach(u8),
    Close(u8, u8),
    Ban(u8),
    Own(u8),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..60u8;
    prop_oneof![
        6 => (n(), 0..4u8).prop_map(|(n, s)| Step::Add(n, s)),
        5 => Just(Step::Dial),
        2 => n().prop_map(Step::Fail),
        2 => n().prop_map(Step::Connect),
        2 => n().prop_map(Step::Reach),
        2 => (n(), 0..4u8).prop_map(|(n, e)| Step::Close(n, e)),
        1 => n().prop_map(Step::Ban),
        1 => n().prop_map(Step::Own),
        2 => (0..100_000u32).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn no_history_breaks_the_indices(steps in prop::collection::vec(step(), 1..300)) {
        let addr = |n: u8| match n % 3 {
            0 => SocketAddr::from(([9, 9, n % 4, n], 6881)),
            1 => SocketAddr::from(([10, 0, 0, 1], u16::from(n) + 1)),
            _ => SocketAddr::from(([0x20, 1, 0xd, 0xb8, 0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0, n], 6881)),
        };
        let mut c = Candidates::new(20, [5; 32]);
        let mut now = at(0);
        let bounds = DialBounds { half_open_max: 4, connections_max: 8, connected: 0 };
        for step in steps {
            match step {
                Step::Add(n, s) => {
                    let source = [PeerSource::Given, PeerSource::Dht, PeerSource::Pex, PeerSource::Incoming][s as usize];
                    let taken = c.add(now, source, addr(n), None);
                    prop_assert!(!taken || c.source_of(addr(n)) == Some(source));
                }
                Step::Dial => {
                    if let Some(addr) = c.next_dial(now, bounds) {
                        prop_assert!(!c.is_banned(now, addr) && !c.own.contains(&addr));
                        prop_assert!(c.dialling() <= 4);
                    }
                }
                Step::Fail(n) => c.on_dial_failed(now, addr(n), DialError::Refused),
                Step::Connect(n) => c.on_connected(addr(n)),
                Step::Reach(n) => c.on_reached(addr(n)),
                Step::Close(n, e) => {
                    let ending = [Ending::Early, Ending::Used, Ending::Useless, Ending::Misbehaved][e as usize];
                    c.on_closed(now, addr(n), ending);
                }
                Step::Ban(n) => c.ban(now, addr(n)),
                Step::Own(n) => c.set_own(&[addr(n)]),
                Step::Wait(millis) => now += Duration::from_millis(u64::from(millis)),
            }
            c.check();
        }
    }
}

#[test]
fn public_address_that_breaks_rules_again_and_again_is_enough() {
    let mut c = Candidates::new(10, [1; 32]);
    let public = |port| SocketAddr::from(([20, 1, 2, 3], port));
    assert!((1..5).all(|port| !c.strike(at(u64::from(port)), public(port))));
    assert!(c.strike(at(6), public(6)), "from whatever port");
    assert!(!c.strike(at(700_000), public(7)), "what is long ago is forgotten");
    assert!((1..50).all(|port| !c.strike(at(0), SocketAddr::from(([10, 1, 2, 3], port)))));
}
