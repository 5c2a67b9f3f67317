//! Lookups of a real node in an implicit network, and what they took: a table for each kind.
//!
//! `cold` is a node that knows nothing but its bootstrap nodes; `warm` one that has been up for a while;
//! `announce` a warm one whose hash nobody has announced before. Times count from the command.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::{K, Network, Options, Sybils};
use crate::base::addr::Family;
use crate::base::{InfoHash, Instant, Rng};
use crate::dht::{self, Event, LookupId, LookupReport, Node, Output};
use crate::sim::queue::Queue;
use crate::sim::report::Durations;

/// What is done with each node.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Lookups by a node that has just started; each has a node of its own.
    pub cold: u32,
    /// Lookups by a node that has been up for `warm_up`, one after the other.
    pub warm: u32,
    /// Announces by the same node.
    pub announces: u32,
    /// How long it is left alone before.
    pub warm_up: Duration,
    /// Who attacks each of the hashes.
    pub sybils: Option<Sybils>,
}

impl Plan {
    /// Ten cold lookups, then twenty warm ones and ten announces after a minute.
    pub fn usual() -> Self {
        let warm_up = Duration::from_secs(60);
        Self { cold: 10, warm: 20, announces: 10, warm_up, sybils: None }
    }
}

/// What came of it, by kind.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// By nodes that have just started.
    pub cold: Row,
    /// By nodes that have been up.
    pub warm: Row,
    /// Announces of new hashes by nodes that have been up.
    pub announce: Row,
    /// Datagrams that the nodes sent while they warmed up, and contacts that they had then.
    pub warmed: Vec<(u64, usize)>,
}

/// Lookups of one kind.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// How many there were.
    pub lookups: usize,
    /// How many found a peer that was really announced.
    pub found: usize,
    /// To the first such peer.
    pub first: Durations,
    /// To the end that the lookup itself reports.
    pub done: Durations,
    /// To the first announce that arrived.
    pub announce_first: Durations,
    /// To the last one.
    pub announce_last: Durations,
    /// Queries of each lookup, announces not counted.
    pub queries: Vec<usize>,
    /// Of them those to dead nodes, in all.
    pub dead: usize,
    /// How many of the eight closest live nodes were asked, in all.
    pub closest_asked: usize,
    /// Nodes announced to, in all.
    pub announced: usize,
    /// How many of the eight closest live nodes were announced to, in all.
    pub closest_announced: usize,
    /// Peers told that nobody announced.
    pub forged: usize,
    /// What the lookups themselves say.
    pub reports: Vec<LookupReport>,
}

/// Runs the plan once for each seed of the node and its hashes; the network stays the same.
pub fn measure(options: &Options, plan: &Plan, seeds: Range<u64>) -> Table {
    measure_in(Network::new(options.clone()), plan, seeds).0
}

/// The same in a network that is there already, and is given back.
pub fn measure_in(mut network: Network, plan: &Plan, seeds: Range<u64>) -> (Table, Network) {
    let mut table = Table::default();
    for seed in seeds {
        let mut rng = Rng::from_seed(crate::sim::scenario::seed(seed));
        for _ in 0..plan.cold {
            let mut bench = Bench::new(network, &mut rng);
            bench.lookup(rng.array(), Kind::Lookup, plan, &mut table.cold);
            network = bench.network;
        }
        if plan.warm + plan.announces > 0 {
            let mut bench = Bench::new(network, &mut rng);
            bench.run_until(Instant::ZERO + plan.warm_up, |_| false);
            table.warmed.push((bench.node.stats().sent, bench.node.contact_count()));
            for _ in 0..plan.warm {
                bench.lookup(rng.array(), Kind::Lookup, plan, &mut table.warm);
            }
            for _ in 0..plan.announces {
                bench.lookup(rng.array(), Kind::Announce, plan, &mut table.announce);
            }
            network = bench.network;
        }
    }
    (table, network)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lookup,
    Announce,
}

/// A real node in an implicit network.
#[derive(Debug)]
pub struct Bench {
    network: Network,
    node: Node,
    me: SocketAddr,
    routers: Vec<SocketAddr>,
    now: Instant,
    arrivals: Queue<(SocketAddr, Vec<u8>)>,
    events: Vec<(Instant, Event)>,
}

impl Bench {
    /// A node that has just started and been told of four others.
    pub fn new(network: Network, rng: &mut Rng) -> Self {
        Self::with_config(network, dht::Config::new(Family::V4), rng)
    }

    /// The same, with settings of its own.
    pub fn with_config(network: Network, config: dht::Config, rng: &mut Rng) -> Self {
        let me = network.free_addr(1);
        let routers = network.bootstrap_nodes(BOOTSTRAP_NODES);
        let mut node = Node::new(config, None, rng.fork(), Instant::ZERO);
        node.set_self_addrs(vec![me]);
        let (now, arrivals, events) = (Instant::ZERO, Queue::new(), Vec::new());
        let mut bench = Self { network, node, me, routers, now, arrivals, events };
        bench.command(|node, now, routers| node.bootstrap(now, routers));
        bench
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The network.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Forgets what the node has told.
    pub fn forget_events(&mut self) {
        self.events.clear();
    }

    /// How long a lookup took, if it is over and that is not forgotten.
    pub fn reported(&self, id: LookupId) -> Option<Duration> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::LookupDone { lookup, report } if *lookup == id => Some(report.took),
            _ => None,
        })
    }

    /// Gives the node a command, and carries out what follows. It is told its bootstrap nodes too.
    pub fn command<T>(
        &mut self,
        command: impl FnOnce(&mut Node, Instant, &[SocketAddr]) -> T,
    ) -> T {
        let result = command(&mut self.node, self.now, &self.routers);
        self.settle();
        result
    }

    /// Lets time go on to `end`, or until an event for which `stop` is true.
    pub fn run_until(&mut self, end: Instant, stop: impl Fn(&Event) -> bool) {
        loop {
            let wake = self.node.poll_timeout().unwrap_or(Instant::FAR_FUTURE).max(self.now);
            let arrival = self.arrivals.next_at().unwrap_or(Instant::FAR_FUTURE);
            if arrival.min(wake) > end {
                self.now = end;
                return;
            }
            self.now = arrival.min(wake);
            let told = self.events.len();
            if arrival <= wake
                && let Some((from, datagram)) = self.arrivals.pop_until(end)
            {
                self.node.handle_datagram(self.now, from, &datagram);
            } else {
                self.node.handle_timeout(self.now);
            }
            self.settle();
            if self.events.iter().skip(told).any(|(_, event)| stop(event)) {
                return;
            }
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    let answer = self.network.answer(self.now, self.me, to, &datagram);
                    if let Some((delay, answer)) = answer {
                        self.arrivals.plan(self.now + delay, (to, answer));
                    }
                }
                Output::Event(event) => self.events.push((self.now, event)),
            }
        }
    }

    fn lookup(&mut self, hash: [u8; 20], kind: Kind, plan: &Plan, row: &mut Row) {
        let info_hash = InfoHash::new(hash);
        let genuine = SocketAddr::from(([198, 18, hash[0], hash[1]], 7_000));
        let closest = self.network.closest_alive(info_hash.key(), K);
        if kind == Kind::Lookup {
            self.network.store(info_hash, genuine);
        }
        if let Some(sybils) = plan.sybils {
            self.network.remove_sybils();
            self.network.add_sybils(info_hash.key(), sybils);
        }
        self.network.start_watching(info_hash.key());
        self.events.clear();
        let started = self.now;
        let lookup = self.command(|node, now, _| match kind {
            Kind::Lookup => node.get_peers(now, info_hash),
            Kind::Announce => node.announce(now, info_hash, Some(ANNOUNCED_PORT)),
        });
        let is_end = move |event: &Event| match event {
            Event::LookupDone { lookup: done, .. } => *done == lookup,
            _ => false,
        };
        self.run_until(started + LOOKUP_TIME_MAX, is_end);
        // Late queries count as well.
        self.run_until(self.now + QUIET, |_| false);
        row.note_events(&self.events, lookup, started, genuine);
        let watch = self.network.watch(info_hash.key());
        row.lookups += 1;
        row.queries.push(watch.queries);
        row.dead += watch.dead;
        row.closest_asked += closest.iter().filter(|ip| watch.asked.contains(ip)).count();
        row.announced += watch.announced.len();
        row.closest_announced +=
            closest.iter().filter(|ip| watch.announced.contains_key(ip)).count();
        if let (Some(first), Some(last)) =
            (watch.announced.values().min(), watch.announced.values().max())
        {
            row.announce_first.push(first.since(started));
            row.announce_last.push(last.since(started));
        }
    }
}

impl Table {
    /// Counts those of another table as well; what a row says of times stays its own.
    pub fn add(&mut self, other: &Self) {
        self.cold.add(&other.cold);
        self.warm.add(&other.warm);
        self.announce.add(&other.announce);
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.lookups += other.lookups;
        self.found += other.found;
        self.closest_asked += other.closest_asked;
        self.announced += other.announced;
        self.closest_announced += other.closest_announced;
        self.forged += other.forged;
        self.queries.extend(&other.queries);
        self.reports.extend(other.reports.iter().cloned());
    }

    fn note_events(
        &mut self,
        events: &[(Instant, Event)],
        id: LookupId,
        started: Instant,
        genuine: SocketAddr,
    ) {
        let mut told = BTreeSet::new();
        for (when, event) in events {
            match event {
                Event::PeersFound { lookup, peers } if *lookup == id => {
                    if peers.contains(&genuine) {
                        self.found += 1;
                        self.first.push(when.since(started));
                    }
                    told.extend(peers.iter().copied().filter(|peer| *peer != genuine));
                }
                Event::LookupDone { lookup, report } if *lookup == id => {
                    self.done.push(when.since(started));
                    self.reports.push(report.clone());
                }
                _ => {}
            }
        }
        self.forged += told.len();
    }

    /// The number of queries that `percent` of the lookups did not exceed.
    pub fn queries(&self, percent: usize) -> usize {
        let mut sorted = self.queries.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent.min(100)).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or_default()
    }

    /// Lookups that reported more nodes around their target than chance puts there.
    pub fn alarms(&self) -> usize {
        self.reports.iter().filter(|report| report.crowd > 0).count()
    }

    fn mean(&self, total: usize) -> f64 {
        total as f64 / self.lookups.max(1) as f64
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [("cold", &self.cold), ("warm", &self.warm), ("announce", &self.announce)];
        for (name, row) in rows.into_iter().filter(|(_, row)| row.lookups > 0) {
            writeln!(f, "{name:<8} {row}")?;
        }
        let nodes = self.warmed.len().max(1) as u64;
        let (sent, contacts) =
            self.warmed.iter().fold((0, 0), |(s, c), (sent, known)| (s + sent, c + *known as u64));
        write!(f, "warm-up: {} datagrams, {} contacts a node", sent / nodes, contacts / nodes)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: &Durations, percent| d.percentile(percent).as_millis();
        let Row { first, done, announce_first, announce_last, .. } = self;
        write!(f, "n={:<4} found={:<4}", self.lookups, self.found)?;
        write!(f, " first p50={:<4} p90={:<4}", ms(first, 50), ms(first, 90))?;
        write!(f, " done p50={:<4} p90={:<4}", ms(done, 50), ms(done, 90))?;
        write!(f, " q p50={:<3} p90={:<3}", self.queries(50), self.queries(90))?;
        write!(f, " dead={:.1}", self.mean(self.dead))?;
        write!(f, " hit8={:.2}", self.mean(self.closest_asked))?;
        if self.announced > 0 {
            let (all, near) = (self.mean(self.announced), self.mean(self.closest_announced));
            write!(f, " announced={all:.2} ann8={near:.2}")?;
            let [first, last] = [announce_first, announce_last].map(|d| ms(d, 50));
            write!(f, " at {first}..{last} p90={}", ms(announce_last, 90))?;
        }
        Ok(())
    }
}

const BOOTSTRAP_NODES: usize = 4;
const ANNOUNCED_PORT: u16 = 7_777;
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(70);
const QUIET: Duration = Duration::from_secs(4);
