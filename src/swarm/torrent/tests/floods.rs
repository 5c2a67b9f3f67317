//! Crowds that want nothing good: an honest transfer beside them keeps more than half of its speed,
//! and an honest newcomer is served within seconds. All in virtual time: what the processor makes of
//! floods is measured by `benches/siege`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::secs;
use super::world::{Sample, Stranger, World, frame};
use crate::base::Instant;
use crate::peer::ConnId;
use crate::swarm::PeerSource;
use crate::wire::extension::{ExtensionHandshake, PEX_ID, Pex, PexPeer};
use crate::wire::peer::{BlockRef, Message};

/// 8 MiB at 400 kB/s: the honest transfer takes 21 s.
const RATE: f64 = 400e3;

fn sample() -> Sample {
    Sample::new(8 << 20, 64 << 10)
}

/// Strangers that come back as soon as they are sent away.
struct Crowd {
    host: usize,
    how: Stranger,
    say: Vec<Bytes>,
    members: Vec<(SocketAddr, Option<ConnId>)>,
}

impl Crowd {
    fn new(host: usize, how: Stranger, from: Vec<SocketAddr>, say: Vec<Message>) -> Self {
        let say = say.iter().map(frame).collect();
        Self { host, how, say, members: from.into_iter().map(|addr| (addr, None)).collect() }
    }

    fn push(&mut self, w: &mut World) {
        for (addr, conn) in &mut self.members {
            if conn.is_none_or(|conn| !w.has(conn)) {
                // Everybody comes from another port each time.
                addr.set_port(addr.port() % 60_000 + 1);
                *conn = Some(w.besiege(self.host, *addr, self.how, &self.say));
            }
        }
    }
}

/// Runs until the host is done, under siege from the start; how long that took.
fn besieged(w: &mut World, done: usize, crowd: &mut Crowd) -> Duration {
    let start = w.now;
    crowd.push(w);
    while !w.run(Duration::from_millis(500), |w| w.is_finished(done)) {
        assert!(w.now - start < secs(600), "it does not end");
        crowd.push(w);
    }
    w.now - start
}

// Each from an address of its own, in a network of its own.
fn far_and_wide(count: u32) -> Vec<SocketAddr> {
    let ip = |n: u32| std::net::Ipv4Addr::from_bits((20 << 24) + (n << 10));
    (0..count).map(|n| SocketAddr::from((ip(n), 6881))).collect()
}

// All from one network.
fn next_door(count: u32) -> Vec<SocketAddr> {
    let ip = |n: u32| std::net::Ipv4Addr::from_bits((20 << 24) + n % 250);
    (0..count).map(|n| SocketAddr::from((ip(n), u16::try_from(7000 + n).unwrap()))).collect()
}

fn asking() -> Vec<Message> {
    let ask = |n: u32| Message::Request(BlockRef { piece: n % 128, begin: 0, len: 16_384 });
    std::iter::once(Message::Interested).chain((0..2_000).map(ask)).collect()
}

fn undisturbed() -> Duration {
    let mut w = World::new(sample());
    let (seed, leech) = (w.seed(), w.leech());
    w.set_rate(seed, RATE);
    w.introduce(leech, &[seed]);
    w.finish(&[leech], secs(60))
}

/// A crowd at a seed that serves somebody already; another one comes when the crowd is there.
fn at_a_seed(crowd: impl FnOnce(usize) -> Crowd) -> (Duration, Duration) {
    let mut w = World::new(sample());
    let (seed, leech, late) = (w.seed(), w.leech(), w.leech());
    w.set_rate(seed, RATE);
    w.introduce(leech, &[seed]);
    w.run(secs(1), |_| false);
    let mut crowd = crowd(seed);
    let during = besieged(&mut w, leech, &mut crowd);
    let addr = w.hosts[seed].addr;
    w.hosts[late].torrent.add_peers(w.now, PeerSource::Dht, &[addr]);
    w.drain();
    let after = besieged(&mut w, late, &mut crowd);
    (during, after)
}

#[test]
fn crowds_at_a_seed_leave_an_honest_leech_half_its_speed() {
    let alone = undisturbed();
    type Siege = (&'static str, fn(usize) -> Crowd);
    let sieges: [Siege; 5] = [
        ("who says nothing", |h| Crowd::new(h, Stranger::Reads, far_and_wide(300), vec![])),
        ("who only wants", |h| {
            Crowd::new(h, Stranger::Reads, far_and_wide(300), vec![Message::Interested])
        }),
        ("who asks and takes nothing", |h| {
            Crowd::new(h, Stranger::Deaf, far_and_wide(300), asking())
        }),
        ("the same from one network", |h| Crowd::new(h, Stranger::Deaf, next_door(300), asking())),
        ("who asks for what is not there", |h| {
            let beyond = BlockRef { piece: u32::MAX, begin: 0, len: 16_384 };
            let mut say = vec![Message::Interested];
            say.extend(vec![Message::Request(beyond); 2_000]);
            Crowd::new(h, Stranger::Deaf, far_and_wide(300), say)
        }),
    ];
    for (who, crowd) in sieges {
        let (during, late) = at_a_seed(crowd);
        println!("FIGURE {who}: {alone:?} alone, {during:?} beside, {late:?} for a newcomer");
        assert!(during <= 2 * alone, "beside {who}: {during:?} instead of {alone:?}");
        assert!(late <= 2 * alone, "behind {who}: {late:?} instead of {alone:?}");
    }
}

/// A crowd at a leech whose only seed it hears of a moment later.
fn at_a_leech(source: PeerSource, crowd: impl FnOnce(usize) -> Crowd) -> Duration {
    let mut w = World::new(sample());
    w.dead_after = secs(10);
    let (seed, leech) = (w.seed(), w.leech());
    w.set_rate(seed, RATE);
    let mut crowd = crowd(leech);
    crowd.push(&mut w);
    w.run(secs(2), |_| false);
    let addr = w.hosts[seed].addr;
    w.hosts[leech].torrent.add_peers(w.now, source, &[addr]);
    w.drain();
    let took = besieged(&mut w, leech, &mut crowd);
    assert!(w.banned_by(leech).is_empty());
    took
}

fn naming_many(n: u32) -> Message {
    let peer = |k: u32| {
        let ip = std::net::Ipv4Addr::from_bits((30 << 24) + (n * 64 + k) * 1024);
        PexPeer { addr: SocketAddr::from((ip, 6881)), flags: 0 }
    };
    let pex = Pex { added: (0..50).map(peer).collect(), dropped: Vec::new() };
    Message::Extended { id: PEX_ID, payload: pex.encode().into() }
}

#[test]
fn crowds_at_a_leech_leave_it_half_its_speed() {
    let alone = undisturbed();
    let have_all = || {
        let bits = vec![0xff; 128 / 8];
        Message::Bitfield(bits.into())
    };
    let choking = |h| Crowd::new(h, Stranger::Reads, far_and_wide(300), vec![have_all()]);
    let silent =
        |h| Crowd::new(h, Stranger::Reads, far_and_wide(300), vec![have_all(), Message::Unchoke]);
    // Each names fifty that nobody is at, and comes back with fifty others.
    let naming = |h| {
        let hello = ExtensionHandshake { pex_id: Some(PEX_ID), ..Default::default() };
        let hello = Message::Extended { id: 0, payload: hello.encode().into() };
        let say = vec![hello, naming_many(h as u32)];
        Crowd::new(h, Stranger::Reads, far_and_wide(60), say)
    };
    type Siege<'a> = (&'a str, &'a dyn Fn(usize) -> Crowd);
    let sieges: [Siege; 3] = [
        ("who chokes for ever", &choking),
        ("who unchokes and sends nothing", &silent),
        ("who names many", &naming),
    ];
    for (who, crowd) in sieges {
        let took = at_a_leech(PeerSource::Dht, crowd);
        println!("FIGURE {who}: {alone:?} alone, {took:?} beside");
        assert!(took <= 2 * alone, "beside {who}: {took:?} instead of {alone:?}");
    }
}

// A hundred thousand addresses where nobody is, each dial of which takes ten seconds to fail.
#[test]
fn seed_that_the_dht_names_is_not_buried_under_what_peers_name() {
    let mut w = World::new(sample());
    w.dead_after = secs(10);
    let (seed, leech) = (w.seed(), w.leech());
    let hello = ExtensionHandshake { pex_id: Some(PEX_ID), ..Default::default() };
    let hello = frame(&Message::Extended { id: 0, payload: hello.encode().into() });
    for (n, from) in (0..2_000).zip(far_and_wide(2_000)) {
        let say = [hello.clone(), frame(&naming_many(n))];
        let conn = w.besiege(leech, from, Stranger::Reads, &say);
        w.leave(conn);
    }
    w.run(secs(5), |_| false);
    assert!(w.hosts[leech].torrent.status(w.now).peers_known > 2_000);
    let (addr, told) = (w.hosts[seed].addr, w.now);
    w.hosts[leech].torrent.add_peers(w.now, PeerSource::Dht, &[addr]);
    w.drain();
    w.finish(&[leech], secs(60));
    let took = w.now - told;
    assert!(took < secs(12) + secs(1), "{took:?}: the first dials fail after ten seconds");
    assert!(told > Instant::ZERO);
}
