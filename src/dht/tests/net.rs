//! A small virtual network for the tests of whole nodes: one seed, virtual time, delay, loss, dead
//! hosts. What is sent to an address without a node is kept for the test to look at and answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::Family;
use crate::base::{Instant, NodeId, Rng, Seed};
use crate::dht::{Config, Event, LookupId, LookupReport, Node, Output};

pub(super) struct Net {
    pub now: Instant,
    pub nodes: BTreeMap<SocketAddr, Node>,
    pub events: Vec<(SocketAddr, Event)>,
    /// Datagrams to addresses where no node lives: when, from, to, bytes.
    pub strays: Vec<(Instant, SocketAddr, SocketAddr, Vec<u8>)>,
    /// Datagrams from and to these are lost, and their clocks stand still.
    pub down: Vec<SocketAddr>,
    /// What these send is lost before it leaves the machine; what is sent to them arrives.
    pub mute: Vec<SocketAddr>,
    pub loss: f64,
    /// What stands in front of a host; nothing, unless it is named here.
    pub nats: BTreeMap<SocketAddr, Nat>,
    /// Whose traffic is noted down, and what was: when, with whom, and whether it went out.
    pub watched: Option<SocketAddr>,
    pub traffic: Vec<(Instant, SocketAddr, bool)>,
    pub delay: (Duration, Duration),
    pub sent: usize,
    pub largest: usize,
    pub rng: Rng,
    flights: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    scripts: BTreeMap<SocketAddr, Script>,
    wakes: BTreeSet<(Instant, SocketAddr)>,
    planned: BTreeMap<SocketAddr, Instant>,
    // When a host behind a NAT last wrote to another.
    wrote: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    serial: u64,
}

/// Whom a router lets in. It forgets after two minutes to whom its host wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nat {
    /// Everybody, if the host wrote to anybody.
    FullCone,
    /// Hosts that it wrote to.
    AddressRestricted,
    /// Endpoints that it wrote to.
    PortRestricted,
}

/// What a host that is no node sends when a datagram comes: (claimed source, destination, bytes).
type Script = Box<dyn FnMut(SocketAddr, &[u8]) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)>>;

impl Net {
    pub fn new(seed: u8) -> Net {
        println!("seed {seed}");
        Net {
            now: Instant::ZERO + Duration::from_secs(1),
            nodes: BTreeMap::new(),
            events: Vec::new(),
            strays: Vec::new(),
            down: Vec::new(),
            mute: Vec::new(),
            loss: 0.0,
            nats: BTreeMap::new(),
            watched: None,
            traffic: Vec::new(),
            delay: (Duration::from_millis(10), Duration::from_millis(60)),
            sent: 0,
            largest: 0,
            rng: Rng::from_seed([seed; 32]),
            flights: BTreeMap::new(),
            scripts: BTreeMap::new(),
            wakes: BTreeSet::new(),
            planned: BTreeMap::new(),
            wrote: BTreeMap::new(),
            serial: 0,
        }
    }

    pub fn config(&self) -> Config {
        Config { per_ip_rate: None, ..Config::new(Family::V4) }
    }

    pub fn add(&mut self, addr: SocketAddr) {
        let config = Config::new(Family::of(&addr));
        self.add_with(addr, config, None);
    }

    pub fn add_with(&mut self, addr: SocketAddr, config: Config, id: Option<NodeId>) {
        let seed: Seed = self.rng.fork();
        let mut node = Node::new(config, id, seed, self.now);
        node.set_self_addrs(vec![addr]);
        self.nodes.insert(addr, node);
        self.collect(addr);
    }

    /// A host at `addr` that does what `script` says.
    pub fn script(
        &mut self,
        addr: SocketAddr,
        script: impl FnMut(SocketAddr, &[u8]) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> + 'static,
    ) {
        self.scripts.insert(addr, Box::new(script));
    }

    /// `count` nodes at public addresses of distinct networks, all bootstrapped from the first.
    pub fn public(seed: u8, count: usize) -> (Net, Vec<SocketAddr>) {
        let mut net = Net::new(seed);
        let addrs: Vec<SocketAddr> = (0..count).map(public_addr).collect();
        for addr in &addrs {
            net.add(*addr);
            net.on(*addr, |node, now| node.bootstrap(now, &[public_addr(0)]));
            net.run(Duration::from_millis(200));
        }
        (net, addrs)
    }

    /// `count` nodes on loopback, all bootstrapped from the first.
    pub fn loopback(seed: u8, count: u16) -> (Net, Vec<SocketAddr>) {
        let mut net = Net::new(seed);
        net.delay = (Duration::from_micros(50), Duration::from_micros(300));
        let addrs: Vec<SocketAddr> = (0..count).map(loopback_addr).collect();
        for addr in &addrs {
            net.add(*addr);
            net.on(*addr, |node, now| node.bootstrap(now, &[loopback_addr(0)]));
        }
        net.run(Duration::from_secs(3));
        (net, addrs)
    }

    pub fn on<T>(&mut self, at: SocketAddr, act: impl FnOnce(&mut Node, Instant) -> T) -> T {
        let node = self.nodes.get_mut(&at).expect("a node lives there");
        let result = act(node, self.now);
        self.collect(at);
        result
    }

    pub fn node(&self, at: SocketAddr) -> &Node {
        &self.nodes[&at]
    }

    /// A datagram with whatever source, delivered now.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        self.on(to, |node, now| node.handle_datagram(now, from, datagram));
    }

    fn collect(&mut self, at: SocketAddr) {
        let node = self.nodes.get_mut(&at).expect("a node lives there");
        let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
        for output in outputs {
            match output {
                Output::Event(event) => self.events.push((at, event)),
                Output::Transmit { to, datagram } => {
                    assert!(datagram.len() <= crate::base::limits::DATAGRAM_ITEM_MAX);
                    self.sent += 1;
                    if self.nats.contains_key(&at) {
                        self.wrote.insert((at, to), self.now);
                    }
                    if self.watched == Some(at) {
                        self.traffic.push((self.now, to, true));
                    }
                    self.largest = self.largest.max(datagram.len());
                    if self.mute.contains(&at) || self.rng.chance(self.loss) {
                        continue;
                    }
                    self.fly(at, to, datagram);
                }
            }
        }
        let next = self.nodes[&at].poll_timeout().expect("a node always has plans");
        if let Some(old) = self.planned.insert(at, next) {
            self.wakes.remove(&(old, at));
        }
        self.wakes.insert((next, at));
    }

    fn fly(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        let (low, high) = self.delay;
        let delay = low + (high - low).mul_f64(self.rng.unit());
        self.serial += 1;
        self.flights.insert((self.now + delay, self.serial), (from, to, datagram));
    }

    fn next_wake(&self) -> Option<(Instant, SocketAddr)> {
        let awake = |addr: &SocketAddr| self.nodes.contains_key(addr) && !self.down.contains(addr);
        self.wakes.iter().find(|(_, addr)| awake(addr)).copied()
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Runs until `stop` or `end`. True if `stop` came first.
    pub fn run_until(&mut self, end: Instant, stop: impl Fn(&Net) -> bool) -> bool {
        loop {
            if stop(self) {
                return true;
            }
            let wake = self.next_wake();
            let flight = self.flights.first_key_value().map(|((when, _), _)| *when);
            let next = wake.map(|(when, _)| when).into_iter().chain(flight).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return stop(self);
            };
            self.now = self.now.max(next);
            if flight == Some(next) {
                let (_, (from, to, datagram)) = self.flights.pop_first().expect("it was there");
                self.deliver(from, to, datagram);
            } else if let Some((_, at)) = wake {
                self.on(at, |node, now| node.handle_timeout(now));
                assert!(self.planned[&at] > self.now, "a timeout that was handled is over");
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        if self.down.contains(&from) || self.down.contains(&to) || !self.lets_in(from, to) {
            return;
        }
        if self.watched == Some(to) {
            self.traffic.push((self.now, from, false));
        }
        if self.nodes.contains_key(&to) {
            self.inject(from, to, &datagram);
        } else if let Some(script) = self.scripts.get_mut(&to) {
            for (from, to, datagram) in script(from, &datagram) {
                self.fly(from, to, datagram);
            }
        } else {
            self.strays.push((self.now, from, to, datagram));
        }
    }

    fn lets_in(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let Some(nat) = self.nats.get(&to) else { return true };
        let (low, high) = (SocketAddr::from(([0; 4], 0)), SocketAddr::from(([255; 4], u16::MAX)));
        let mut recent = self
            .wrote
            .range((to, low)..=(to, high))
            .filter(|(_, at)| self.now.since(**at) < NAT_MEMORY)
            .map(|((_, whom), _)| *whom);
        match nat {
            Nat::FullCone => recent.next().is_some(),
            Nat::AddressRestricted => recent.any(|whom| whom.ip() == from.ip()),
            Nat::PortRestricted => recent.any(|whom| whom == from),
        }
    }

    /// The host at `from` gets another address: everybody sees it there from now on.
    pub fn move_to(&mut self, from: SocketAddr, to: SocketAddr) {
        let node = self.nodes.remove(&from).expect("a node lives there");
        if let Some(at) = self.planned.remove(&from) {
            self.wakes.remove(&(at, from));
        }
        self.nodes.insert(to, node);
        self.collect(to);
    }

    /// Runs until the lookup is over.
    pub fn finish(&mut self, at: SocketAddr, lookup: LookupId) -> LookupReport {
        let done = |net: &Net| net.report(at, lookup).is_some();
        assert!(self.run_until(self.now + Duration::from_secs(120), done), "a lookup ends");
        self.report(at, lookup).expect("it is over")
    }

    pub fn report(&self, at: SocketAddr, lookup: LookupId) -> Option<LookupReport> {
        self.events.iter().find_map(|(addr, event)| match event {
            Event::LookupDone { lookup: id, report } if *id == lookup && *addr == at => {
                Some(report.clone())
            }
            _ => None,
        })
    }

    pub fn peers(&self, at: SocketAddr, lookup: LookupId) -> Vec<SocketAddr> {
        let found = self.events.iter().filter_map(|(addr, event)| match event {
            Event::PeersFound { lookup: id, peers } if *id == lookup && *addr == at => Some(peers),
            _ => None,
        });
        found.flatten().copied().collect()
    }

    /// What was sent to `addr`, where no node lives, since the last call.
    pub fn take_strays(&mut self, addr: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        let (taken, rest) =
            std::mem::take(&mut self.strays).into_iter().partition(|(_, _, to, _)| *to == addr);
        self.strays = rest;
        let taken: Vec<_> = taken;
        taken.into_iter().map(|(_, from, _, datagram)| (from, datagram)).collect()
    }
}

/// Public addresses, each in a /16 of its own.
pub(super) fn public_addr(n: usize) -> SocketAddr {
    let [a, b] = [20 + n / 25, n % 250].map(|octet| u8::try_from(octet).unwrap());
    SocketAddr::from(([a, b, 7, 7], 6881))
}

pub(super) fn loopback_addr(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10_000 + n))
}

/// Common routers keep two to three minutes.
const NAT_MEMORY: Duration = Duration::from_secs(120);
