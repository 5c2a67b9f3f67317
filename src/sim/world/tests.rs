use std::collections::VecDeque;

use super::*;
use crate::wire::handshake::HANDSHAKE_LEN;
use crate::wire::handshake::Handshake;

/// Does what the test tells it and remembers what happened.
#[derive(Debug, Default)]
struct Puppet {
    effects: VecDeque<Effect<u32>>,
    log: Vec<(Instant, String)>,
    frames: Vec<Bytes>,
    senders: Vec<SocketAddr>,
    wake: Option<Instant>,
    is_open: bool,
    accepted: u64,
    sent: usize,
}

impl Puppet {
    fn logged(&self) -> Vec<&str> {
        self.log.iter().map(|(_, what)| what.as_str()).collect()
    }
}

impl Host for Puppet {
    type Note = u32;

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.senders.push(from);
        self.log.push((now, format!("datagram {}", datagram.len())));
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.wake = None;
        self.log.push((now, "timeout".to_owned()));
        self.effects.push_back(Effect::Note(7));
    }
    fn poll_effect(&mut self, _now: Instant) -> Option<Effect<u32>> {
        self.effects.pop_front()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }
    fn accept(&mut self, _now: Instant, _from: SocketAddr) -> Option<ConnId> {
        self.accepted += 1;
        self.is_open.then_some(ConnId(100 + self.accepted))
    }
    fn handle_connected(&mut self, now: Instant, conn: ConnId) {
        self.log.push((now, format!("connected {}", conn.0)));
    }
    fn handle_connect_failed(&mut self, now: Instant, conn: ConnId, error: DialError) {
        self.log.push((now, format!("failed {} {error:?}", conn.0)));
    }
    fn handle_frame(&mut self, _now: Instant, _conn: ConnId, frame: Bytes) {
        self.frames.push(frame);
    }
    fn handle_sent(&mut self, _now: Instant, _conn: ConnId, bytes: usize) {
        self.sent += bytes;
    }
    fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        self.log.push((now, format!("closed {}", conn.0)));
    }
}

const A: HostId = HostId(0);
const B: HostId = HostId(1);

fn world(weather: Weather, line: Line) -> World<Puppet> {
    let mut world = World::new(weather, [4; 32]);
    world.add(line, |_, _, _| Puppet::default());
    world.add(line, |_, _, _| Puppet { is_open: true, ..Puppet::default() });
    world
}

fn order(world: &mut World<Puppet>, host: HostId, effects: Vec<Effect<u32>>) {
    world.command(host, |puppet, _| puppet.effects.extend(effects));
}

#[test]
fn wake_comes_when_it_was_asked_for() {
    let mut world = world(Weather::local(), Line::default());
    let at = Instant::from_micros(1_234_567);
    world.command(A, |puppet, _| puppet.wake = Some(Instant::from_micros(9_000_000)));
    world.command(A, |puppet, _| puppet.wake = Some(at));
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.core(A).unwrap().log, [(at, "timeout".to_owned())]);
    assert_eq!(world.take_notes(), [(at, A, 7)]);
    assert_eq!(world.now(), Instant::from_micros(20_000_000));
}

#[test]
fn datagrams_are_delayed_lost_and_counted() {
    let weather = Weather { loss: 0.3, ..Weather::internet() };
    let mut world = world(weather, Line::default());
    let to = world.addr(B);
    for n in 1..=1000 {
        order(&mut world, A, vec![Effect::Transmit { to, datagram: vec![0; n] }]);
    }
    let nobody = SocketAddr::new(to.ip(), 1);
    order(&mut world, A, vec![Effect::Transmit { to: nobody, datagram: vec![0] }]);
    world.run_for(Duration::from_secs(10));
    let arrived = world.core(B).unwrap().log.len();
    assert!((630..770).contains(&arrived), "{arrived}");
    let counts = world.counts();
    assert_eq!((counts.datagrams, counts.datagrams_lost), (1001, 1001 - arrived as u64));
    let log = world.core(B).unwrap().logged();
    assert!(!log.is_sorted_by_key(|what| what[9..].parse::<u32>().unwrap()), "they overtake");
    assert!(world.core(B).unwrap().log[0].0 > Instant::from_micros(1_000));
}

// Behind a translator only an answer arrives, and only where the question came from.
#[test]
fn strangers_do_not_reach_a_host_behind_a_translator() {
    let mut world = World::new(Weather::local(), [4; 32]);
    for nat in [Nat::Symmetric, Nat::Open, Nat::Open] {
        world.add_at(Place { nat, ..Place::default() }, |_, _, _| Puppet::default());
    }
    let (a, b, c) = (world.addr(A), world.addr(B), world.addr(HostId(2)));
    let say = |to| vec![Effect::Transmit { to, datagram: vec![1] }];
    order(&mut world, B, say(a));
    world.run_for(Duration::from_secs(1));
    order(&mut world, A, say(b));
    world.run_for(Duration::from_secs(1));
    let seen = world.core(B).unwrap().senders[0];
    assert!(seen.ip() == a.ip() && seen.port() != a.port());
    for (host, to) in [(B, a), (B, seen), (HostId(2), seen), (HostId(2), a)] {
        order(&mut world, host, say(to));
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.core(A).unwrap().senders, [b], "{c} got through");
    assert_eq!((world.nat(A), world.nat(B)), (Nat::Symmetric, Nat::Open));
}

// Answers a datagram with its length after three milliseconds, from 9.9.9.9.
#[derive(Debug)]
struct Oracle(Vec<SocketAddr>);

impl Outside for Oracle {
    fn answer(
        &mut self,
        _now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Option<(Duration, Vec<u8>)> {
        self.0.push(from);
        self.lives_at(to.ip()).then(|| (Duration::from_millis(3), vec![0; datagram.len()]))
    }

    fn lives_at(&self, ip: IpAddr) -> bool {
        ip == IpAddr::from([9, 9, 9, 9])
    }
}

#[test]
fn those_outside_answer_where_no_host_lives() {
    let mut world = World::beside(Oracle(Vec::new()), Weather::local(), [4; 32]);
    world.add(Line::default(), |_, _, _| Puppet::default());
    let (a, oracle) = (world.addr(A), SocketAddr::from(([9, 9, 9, 9], 1)));
    let nobody = SocketAddr::from(([8, 8, 8, 8], 1));
    world.command(A, |puppet, _| {
        let datagrams = [(oracle, 5), (nobody, 1), (oracle, 7)];
        let transmit = |(to, len)| Effect::Transmit { to, datagram: vec![1; len] };
        puppet.effects.extend(datagrams.map(transmit));
    });
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.outside().0, [a, a, a]);
    assert_eq!(world.core(A).unwrap().logged(), ["datagram 5", "datagram 7"]);
    assert_eq!(world.core(A).unwrap().log[0].0, Instant::from_micros(3_000));
    assert_eq!(world.core(A).unwrap().senders, [oracle, oracle]);
    assert_eq!(world.counts().datagrams_lost, 1);
}

#[test]
fn dials_are_accepted_refused_or_time_out() {
    let mut world = world(Weather::local(), Line::default());
    let (a, b) = (world.addr(A), world.addr(B));
    let nobody = SocketAddr::from(([9, 9, 9, 9], 9));
    let other_port = SocketAddr::new(b.ip(), 1);
    let dials = [(1, b), (2, nobody), (3, other_port)];
    let dial = |(conn, addr)| Effect::Connect { conn: ConnId(conn), addr };
    order(&mut world, A, dials.into_iter().map(dial).collect());
    order(&mut world, B, vec![Effect::Connect { conn: ConnId(9), addr: a }]);
    world.run_for(Duration::from_secs(10));
    let mut log = world.core(A).unwrap().logged();
    log.sort_unstable();
    assert_eq!(log, ["connected 1", "failed 2 Timeout", "failed 3 Refused"]);
    assert_eq!(world.core(B).unwrap().logged(), ["failed 9 Refused"]);
    assert_eq!(world.streams(), 1);
}

#[test]
fn stream_brings_whole_frames_in_order_then_its_end() {
    let weather = Weather { loss: 0.2, ..Weather::internet() };
    let mut world = world(weather, Line { up: Some(1_000_000), down: Some(500_000) });
    let addr = world.addr(B);
    order(&mut world, A, vec![Effect::Connect { conn: ConnId(1), addr }]);
    world.run_for(Duration::from_secs(5));
    let id = crate::base::PeerId::new([1; 20]);
    let hello = Handshake::new(crate::base::InfoHash::new([2; 20]), id, true).encode();
    let mut sent = HANDSHAKE_LEN;
    let send = |bytes: Vec<u8>| Effect::Send { conn: ConnId(1), bytes: bytes.into() };
    let mut effects = vec![send(hello.to_vec())];
    for n in 0..200u32 {
        let mut message = (1 + 1000 + n).to_be_bytes().to_vec();
        message.push(99);
        message.resize(4 + 1 + 1000 + n as usize, n.to_le_bytes()[0]);
        sent += message.len();
        effects.push(send(message));
    }
    effects.push(Effect::Close { conn: ConnId(1) });
    // Nothing is reported for a stream that its own host has closed.
    let close = effects.pop().unwrap();
    order(&mut world, A, effects);
    world.run_for(Duration::from_millis(400));
    assert_eq!(world.core(A).unwrap().sent, sent);
    order(&mut world, A, vec![close]);
    world.run_for(Duration::from_secs(20));
    let b = world.core(B).unwrap();
    assert_eq!(b.frames.len(), 201);
    assert_eq!(b.frames[0][..], hello);
    assert!((0..200).all(|n| b.frames[n + 1].len() == 1001 + n));
    assert_eq!(b.logged(), ["closed 101"]);
    // 220 KB at 500 KB/s.
    assert!(b.log[0].0.since(Instant::from_micros(5_000_000)) > Duration::from_millis(400));
    assert_eq!(world.streams(), 0);
}

#[test]
fn host_that_is_switched_off_hears_nothing_and_its_streams_break() {
    let mut world = world(Weather::local(), Line::default());
    let (a, b) = (world.addr(A), world.addr(B));
    order(&mut world, A, vec![Effect::Connect { conn: ConnId(1), addr: b }]);
    world.run_for(Duration::from_secs(1));
    order(&mut world, A, vec![Effect::Transmit { to: b, datagram: vec![1] }]);
    assert!(world.kill(B).is_some() && world.core(B).is_none());
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.core(A).unwrap().logged(), ["connected 1", "closed 1"]);
    assert_eq!(world.alive().collect::<Vec<_>>(), [A]);
    world.revive(B, |addr, _, _| {
        assert_eq!(addr, b);
        Puppet::default()
    });
    order(&mut world, B, vec![Effect::Transmit { to: a, datagram: vec![1] }]);
    world.run_for(Duration::from_secs(1));
    assert!(world.core(B).unwrap().log.is_empty());
    assert_eq!(world.core(A).unwrap().logged().last(), Some(&"datagram 1"));
}

#[test]
fn bytes_of_another_protocol_end_the_stream() {
    let mut world = world(Weather::local(), Line::default());
    let addr = world.addr(B);
    order(&mut world, A, vec![Effect::Connect { conn: ConnId(1), addr }]);
    world.run_for(Duration::from_secs(1));
    let bytes = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
    order(&mut world, A, vec![Effect::Send { conn: ConnId(1), bytes }]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.core(B).unwrap().logged(), ["closed 101"]);
    assert_eq!(world.core(A).unwrap().logged(), ["connected 1", "closed 1"]);
}
