//! A DHT of real nodes: all start from one address, some announce, some die, the rest must find
//! what was announced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::Family;
use crate::base::{InfoHash, Instant, Rng};
use crate::dht::{self, LookupId, Node};
use crate::sim::churn::{Churn, ChurnRates, Move};
use crate::sim::link::{Line, Weather};
use crate::sim::report::Durations;
use crate::sim::world::Counts;
use crate::sim::{HostId, World};

/// What the world is like and what is done in it.
#[derive(Debug, Clone)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// Nodes, the one that all start from included.
    pub nodes: u32,
    /// The network.
    pub weather: Weather,
    /// How long all the joining takes.
    pub join_time: Duration,
    /// How long the network is left alone after that.
    pub settle_time: Duration,
    /// Comings and goings while it settles.
    pub churn: Option<ChurnRates>,
    /// What is done then, one after the other, in the same network.
    pub rounds: Vec<Round>,
}

/// Some nodes announce, others look for it.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// The network loses this fraction of all datagrams from now on.
    pub loss: f64,
    /// The fraction of nodes that die, without a word, before the announces.
    pub dead_before: f64,
    /// Hashes that are announced, each by one node.
    pub hashes: u32,
    /// The fraction of nodes that die between announces and lookups.
    pub dead_after: f64,
    /// Nodes that look for each hash.
    pub lookups_per_hash: u32,
}

impl Round {
    /// Fifty hashes, ten lookups of each, nothing lost and nobody dead.
    pub const CALM: Round =
        Round { loss: 0.0, dead_before: 0.0, hashes: 50, dead_after: 0.0, lookups_per_hash: 10 };
}

impl Options {
    /// A calm network.
    pub fn new(seed: u64, nodes: u32) -> Self {
        Self {
            seed,
            nodes,
            weather: Weather { loss: 0.0, ..Weather::internet() },
            join_time: Duration::from_secs(60),
            settle_time: Duration::from_secs(30),
            churn: None,
            rounds: vec![Round::CALM],
        }
    }

    /// A network drawn by chance, from calm to stormy.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::from_seed(super::seed(seed));
        let nodes = 20 + u32::try_from(rng.below(180)).unwrap_or(0);
        let mut options = Self::new(seed, nodes);
        options.weather.rtt_median = Duration::from_millis(1 + rng.below(300) as u64);
        options.weather.rtt_sigma = rng.unit();
        options.weather.loss = 0.1 * rng.unit();
        options.rounds = vec![Round {
            loss: options.weather.loss,
            dead_before: 0.3 * rng.unit(),
            hashes: 10,
            dead_after: 0.2 * rng.unit(),
            lookups_per_hash: 5,
        }];
        options
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The options that it came from.
    pub options: Options,
    /// Nodes with fewer than eight contacts, before the rounds.
    pub lonely: usize,
    /// Contacts in all tables, before the rounds.
    pub contacts: usize,
    /// What came of each round.
    pub rounds: Vec<Outcome>,
    /// What the network did.
    pub counts: Counts,
    /// Virtual time.
    pub time: Instant,
    /// Events, as a number.
    pub trace: u64,
    /// How many.
    pub events: u64,
}

/// What came of one round.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Nodes alive.
    pub alive: usize,
    /// Announces that no node accepted.
    pub unannounced: usize,
    /// Lookups that were begun.
    pub lookups: usize,
    /// Those that found the announced peer.
    pub found: usize,
    /// Those that ended.
    pub ended: usize,
    /// From the command to the announced peer.
    pub first_peer: Durations,
    /// From the command to the end.
    pub took: Durations,
    /// Nodes asked, over all lookups.
    pub asked: usize,
    /// Of these, those that did not answer.
    pub dead: usize,
    /// Lookups that took nodes next to their target for an attacker's.
    pub alarms: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} nodes", self.options.seed, self.options.nodes)?;
        writeln!(f, "  {} contacts, {} nodes with few", self.contacts, self.lonely)?;
        for (round, outcome) in self.options.rounds.iter().zip(&self.rounds) {
            let Outcome { alive, lookups, ended, found, .. } = outcome;
            writeln!(f, "  {round:?}: {alive} alive, {} not announced", outcome.unannounced)?;
            writeln!(f, "    {lookups} lookups, {ended} ended, {found} found it")?;
            writeln!(f, "    first peer: {}", outcome.first_peer)?;
            writeln!(f, "    whole lookup: {}", outcome.took)?;
            let each = |n: usize| n as f64 / (*lookups).max(1) as f64;
            let (asked, dead) = (each(outcome.asked), each(outcome.dead));
            writeln!(f, "    asked {asked:.1}, {dead:.1} dead, {} alarms", outcome.alarms)?;
        }
        writeln!(f, "  {:?}", self.counts)?;
        write!(f, "  {:?}, {} events, trace {:016x}", self.time, self.events, self.trace)
    }
}

/// Runs the scenario to its end.
pub fn run(options: Options) -> Report {
    let mut run = Run::new(&options);
    run.join(&options);
    run.live(options.settle_time);
    let (lonely, contacts) = run.tables();
    let rounds = options.rounds.iter().map(|round| run.round(round)).collect();
    let world = run.world;
    Report {
        options,
        lonely,
        contacts,
        rounds,
        counts: world.counts(),
        time: world.now(),
        trace: world.trace().hash(),
        events: world.trace().events(),
    }
}

struct Run {
    world: World<Node>,
    weather: Weather,
    rng: Rng,
    router: HostId,
    churn: Option<Churn>,
}

struct Search {
    began: Instant,
    peer: SocketAddr,
    found: bool,
}

impl Run {
    fn new(options: &Options) -> Self {
        let mut rng = Rng::from_seed(super::seed(options.seed));
        let mut world = World::new(options.weather, rng.fork());
        let router = world.add(Line::default(), new_node);
        Self { world, weather: options.weather, rng, router, churn: None }
    }

    fn join(&mut self, options: &Options) {
        let routers = [self.world.addr(self.router)];
        let start = self.world.now();
        for n in 1..options.nodes {
            let at = start + options.join_time * n / options.nodes;
            self.world.run_until(at, |_| false);
            let id = self.world.add(Line::default(), new_node);
            self.world.command(id, |node, now| node.bootstrap(now, &routers));
        }
        if let Some(rates) = options.churn {
            let hosts: Vec<_> = self.world.alive().filter(|id| *id != self.router).collect();
            let seed = self.rng.fork();
            self.churn = Some(Churn::new(rates, hosts, self.world.now(), seed));
        }
    }

    // Lets time go on, with the comings and goings in it.
    fn live(&mut self, time: Duration) {
        let end = self.world.now() + time;
        while let Some((at, host, step)) = self.churn.as_mut().and_then(|c| c.next_before(end)) {
            self.world.run_until(at, |_| false);
            self.make_move(host, step);
        }
        self.world.run_until(end, |_| false);
        self.answer_notes();
    }

    fn make_move(&mut self, host: HostId, step: Move) {
        let routers = [self.world.addr(self.router)];
        match step {
            Move::Leave => {
                self.world.kill(host);
            }
            Move::Return if self.world.core(host).is_none() => {
                self.world.revive(host, new_node);
                self.world.command(host, |node, now| node.bootstrap(now, &routers));
            }
            Move::Return => {}
        }
    }

    // As a real host does: whoever needs it is told the bootstrap address again.
    fn answer_notes(&mut self) -> Vec<(Instant, HostId, dht::Event)> {
        let notes = self.world.take_notes();
        let routers = [self.world.addr(self.router)];
        for (_, host, note) in &notes {
            if *note == dht::Event::NeedBootstrap && *host != self.router {
                self.world.command(*host, |node, now| node.bootstrap(now, &routers));
            }
        }
        notes
    }

    fn tables(&self) -> (usize, usize) {
        let alive = self.world.alive().filter_map(|id| self.world.core(id));
        let counts: Vec<_> = alive.map(Node::contact_count).collect();
        let few = counts.iter().filter(|count| **count < 8).count();
        (few, counts.iter().sum())
    }

    fn kill(&mut self, fraction: f64) {
        let mut hosts: Vec<_> = self.world.alive().filter(|id| *id != self.router).collect();
        self.rng.shuffle(&mut hosts);
        let dead = (hosts.len() as f64 * fraction).round() as usize;
        for id in hosts.into_iter().take(dead) {
            self.world.kill(id);
        }
    }

    // A node that is alive and stands elsewhere than at `not`.
    fn some_node(&mut self, not: Option<SocketAddr>) -> HostId {
        let alive = self.world.alive().filter(|id| *id != self.router);
        let alive: Vec<_> = alive.filter(|id| Some(self.world.addr(*id)) != not).collect();
        *self.rng.pick(&alive).expect("somebody is alive")
    }

    fn round(&mut self, round: &Round) -> Outcome {
        self.world.set_weather(Weather { loss: round.loss, ..self.weather });
        self.kill(round.dead_before);
        let (announced, unannounced) = self.announce(round.hashes);
        self.kill(round.dead_after);
        let mut outcome = self.look_up(&announced, round.lookups_per_hash);
        (outcome.alive, outcome.unannounced) = (self.world.alive().count(), unannounced);
        outcome
    }

    fn announce(&mut self, hashes: u32) -> (Vec<(InfoHash, SocketAddr)>, usize) {
        let mut announced = Vec::new();
        let mut waiting = BTreeSet::new();
        for _ in 0..hashes {
            let id = self.some_node(None);
            let hash = InfoHash::new(self.rng.array());
            let addr = self.world.addr(id);
            announced.push((hash, addr));
            let port = Some(addr.port());
            let lookup = self.world.command(id, |node, now| node.announce(now, hash, port));
            waiting.insert((id, lookup.expect("it is alive")));
        }
        let mut failed = 0;
        let end = self.world.now() + LOOKUP_TIME_MAX;
        while !waiting.is_empty() && self.world.now() < end {
            self.world.run_until(end, World::has_notes);
            for (_, host, event) in self.answer_notes() {
                let dht::Event::LookupDone { lookup, report } = event else { continue };
                if waiting.remove(&(host, lookup)) && report.announced == 0 {
                    failed += 1;
                }
            }
        }
        (announced, failed + waiting.len())
    }

    fn look_up(&mut self, announced: &[(InfoHash, SocketAddr)], each: u32) -> Outcome {
        let mut searches: BTreeMap<(HostId, LookupId), Search> = BTreeMap::new();
        for (hash, peer) in announced.iter().copied() {
            for _ in 0..each {
                // A node never names its own address.
                let id = self.some_node(Some(peer));
                let began = self.world.now();
                let lookup = self.world.command(id, |node, now| node.get_peers(now, hash));
                let key = (id, lookup.expect("it is alive"));
                searches.insert(key, Search { began, peer, found: false });
            }
        }
        let mut outcome = Outcome { lookups: searches.len(), ..Outcome::default() };
        let end = self.world.now() + LOOKUP_TIME_MAX;
        while outcome.ended < searches.len() && self.world.now() < end {
            self.world.run_until(end, World::has_notes);
            for (at, host, event) in self.answer_notes() {
                outcome.note(&mut searches, at, host, &event);
            }
        }
        outcome
    }
}

impl Outcome {
    fn note(
        &mut self,
        searches: &mut BTreeMap<(HostId, LookupId), Search>,
        at: Instant,
        host: HostId,
        event: &dht::Event,
    ) {
        match event {
            dht::Event::PeersFound { lookup, peers } => {
                let Some(search) = searches.get_mut(&(host, *lookup)) else { return };
                if !search.found && peers.contains(&search.peer) {
                    search.found = true;
                    self.found += 1;
                    self.first_peer.push(at.since(search.began));
                }
            }
            dht::Event::LookupDone { lookup, report } => {
                if searches.contains_key(&(host, *lookup)) {
                    self.ended += 1;
                    self.took.push(report.took);
                    self.asked += report.asked;
                    self.dead += report.dead;
                    self.alarms += usize::from(report.crowd > 0);
                }
            }
            dht::Event::Step { .. }
            | dht::Event::Renewed { .. }
            | dht::Event::ItemFound { .. }
            | dht::Event::Samples { .. }
            | dht::Event::ItemKept { .. }
            | dht::Event::PingDone { .. }
            | dht::Event::NeedBootstrap
            | dht::Event::TableGrew { .. }
            | dht::Event::ExternalAddress(_)
            | dht::Event::Reachability(_)
            | dht::Event::ContactsBeside(_)
            | dht::Event::IdChanged(_) => {}
        }
    }
}

fn new_node(addr: SocketAddr, seed: crate::base::Seed, now: Instant) -> Node {
    let mut node = Node::new(dht::Config::new(Family::of(&addr)), None, seed, now);
    node.set_self_addrs(vec![addr]);
    node
}

/// Longer than any lookup may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(120);
