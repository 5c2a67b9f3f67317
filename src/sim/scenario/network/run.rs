//! A run: the world, its hosts, and what happens in which order.

use std::net::SocketAddr;
use std::time::Duration;

use super::citizen::Citizen;
use super::figures::{Row, Table};
use super::life::Person;
use super::options::Options;
use super::work::Work;
use crate::base::{Instant, Rng};
use crate::dht::Event;
use crate::sim::implicit::Network;
use crate::sim::link::Weather;
use crate::sim::queue::Queue;
use crate::sim::world::Counts;
use crate::sim::{HostId, World};

/// A network under way.
#[derive(Debug)]
pub struct Run {
    pub(super) options: Options,
    pub(super) world: World<Citizen, Option<Network>>,
    pub(super) rng: Rng,
    pub(super) plans: Queue<Plan>,
    // One for each host of the world.
    pub(super) people: Vec<Person>,
    // Those that are switched on and no attackers, in no order that means anything.
    pub(super) present: Vec<HostId>,
    // Those that may come back.
    pub(super) absent: Vec<HostId>,
    pub(super) routers: Vec<HostId>,
    // Nodes that are computed, to join by.
    pub(super) outsiders: Vec<SocketAddr>,
    pub(super) work: Work,
    pub(super) row: Row,
    next_row: Instant,
    total: Row,
    rows: Vec<Row>,
    counted: Counts,
    /// Hosts that are switched on, attackers included, and since when they are so many.
    pub(super) online: u32,
    uptime_from: Instant,
}

/// What happens at a time that is known before.
#[derive(Debug)]
pub(super) enum Plan {
    /// A host joins, one of those that are there when the measurement begins.
    Join,
    /// The others start to come and go; the attackers are there.
    Live,
    /// Somebody comes.
    Come,
    /// A host goes, unless that session is over already.
    Go(HostId, u32),
    /// Somebody looks something up.
    LookUp,
    /// An announcer announces, if it is still the one that was appointed at that turn.
    Announce { slot: usize, turn: u32 },
    /// A calamity.
    Storm(usize),
}

/// How far a run is.
#[derive(Debug)]
pub enum Step<'a> {
    /// So many hosts are there; nothing is measured yet.
    Joining(usize),
    /// Another stretch has been measured.
    Row(&'a Row),
    /// That was all.
    Over,
}

impl Run {
    /// A network that nobody has joined yet.
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::from_seed(crate::sim::scenario::seed(options.seed));
        let outside = (options.implicit > 0).then(|| Network::new(super::implicit(&options)));
        let outsiders = outside.as_ref().map_or_else(Vec::new, |n| n.bootstrap_nodes(OUTSIDERS));
        let world = World::beside(outside, options.weather, rng.fork());
        let mut run = Self {
            world,
            plans: Queue::new(),
            people: Vec::new(),
            present: Vec::new(),
            absent: Vec::new(),
            routers: Vec::new(),
            outsiders,
            work: Work::new(options.hashes, &mut rng),
            row: Row::default(),
            next_row: options.begins_at() + options.row,
            total: Row::default(),
            rows: Vec::new(),
            counted: Counts::default(),
            online: 0,
            uptime_from: Instant::ZERO,
            rng,
            options,
        };
        run.plan_all();
        run
    }

    fn plan_all(&mut self) {
        for _ in 0..self.options.nodes.div_ceil(NODES_PER_ROUTER) {
            self.add_router();
        }
        let joining =
            self.options.nodes.saturating_sub(self.options.nodes.div_ceil(NODES_PER_ROUTER));
        for n in 0..joining {
            let at = Instant::ZERO + self.options.join_time * n / joining;
            self.plans.plan(at, Plan::Join);
        }
        self.plans.plan(Instant::ZERO + self.options.join_time, Plan::Live);
        self.plans.plan(self.options.begins_at(), Plan::LookUp);
        for (number, storm) in self.options.storms.iter().enumerate() {
            self.plans.plan(self.options.begins_at() + storm.at, Plan::Storm(number));
        }
    }

    /// Goes on until there is something to tell.
    pub fn step(&mut self) -> Step<'_> {
        let now = self.world.now();
        if now < self.options.begins_at() {
            self.run_until(self.options.begins_at().min(now + JOINING_STEP));
            if self.world.now() >= self.options.begins_at() {
                self.note_uptime();
                self.row = Row::default();
                self.counted = self.world.counts();
            }
            return Step::Joining(self.present.len());
        }
        if now >= self.options.ends_at() {
            return Step::Over;
        }
        self.run_until(self.next_row.min(self.options.ends_at()));
        self.end_row();
        self.rows.last().map_or(Step::Over, Step::Row)
    }

    /// Goes on to the end.
    pub fn finish(mut self) -> Table {
        while !matches!(self.step(), Step::Over) {}
        Table {
            options: self.options,
            rows: self.rows,
            total: self.total,
            trace: self.world.trace().hash(),
            events: self.world.trace().events(),
        }
    }

    fn run_until(&mut self, end: Instant) {
        while self.world.now() < end || self.plans.next_at().is_some_and(|at| at <= end) {
            let next = self.plans.next_at().map_or(end, |at| at.min(end));
            self.world.run_until(next, World::has_notes);
            if self.world.has_notes() {
                self.read_notes();
            } else if let Some(plan) = self.plans.pop_until(self.world.now()) {
                self.carry_out(plan);
            }
        }
    }

    fn carry_out(&mut self, plan: Plan) {
        match plan {
            Plan::Join => self.on_join(),
            Plan::Live => {
                self.add_sybils();
                self.start_living();
                self.appoint_all();
            }
            Plan::Come => self.on_come(),
            Plan::Go(host, session) => self.on_go(host, session),
            Plan::LookUp => {
                self.look_up();
                let mean = Duration::from_secs(3_600) / self.options.lookups_per_hour.max(1);
                let pause = crate::sim::chance::exponential(mean, &mut self.rng);
                self.plans.plan(self.plans.now() + pause, Plan::LookUp);
            }
            Plan::Announce { slot, turn } => self.announce(slot, turn),
            Plan::Storm(number) => self.on_storm(number),
        }
    }

    fn on_storm(&mut self, number: usize) {
        let storm = self.options.storms[number];
        self.world.set_weather(Weather { loss: storm.loss, ..self.options.weather });
        let mut victims = self.present.clone();
        self.rng.shuffle(&mut victims);
        let count = (victims.len() as f64 * storm.dies).round() as usize;
        for host in victims.into_iter().take(count) {
            self.remove(host);
        }
    }

    fn read_notes(&mut self) {
        for (at, host, note) in self.world.take_notes() {
            match note {
                Event::PeersFound { lookup, peers } => self.on_peers(at, host, lookup, &peers),
                Event::LookupDone { lookup, report } => self.on_done(host, lookup, &report),
                Event::NeedBootstrap => self.bootstrap(host),
                // Citizens keep everything else to themselves.
                _ => {}
            }
        }
    }

    fn end_row(&mut self) {
        let (now, counts) = (self.world.now(), self.world.counts());
        self.note_uptime();
        let before = std::mem::replace(&mut self.counted, counts);
        let mut row = std::mem::take(&mut self.row);
        row.until = now.since(self.options.begins_at());
        row.alive = self.present.len();
        row.datagrams = counts.datagrams - before.datagrams;
        row.bytes = counts.datagram_bytes - before.datagram_bytes;
        self.look_into_tables(&mut row);
        self.total.add(&row);
        self.rows.push(row);
        self.next_row = now + self.options.row;
    }

    /// Adds up the time that hosts have been switched on; called whenever their number changes.
    pub(super) fn note_uptime(&mut self) {
        let now = self.world.now();
        self.row.uptime += now.since(self.uptime_from) * self.online;
        self.uptime_from = now;
    }
}

/// Nodes of those around the world that hosts are told of.
const OUTSIDERS: usize = 16;
/// Bootstrap nodes stay for ever, and there are some for every so many nodes.
const NODES_PER_ROUTER: u32 = 1_000;
/// How much time passes between two words about the joining.
const JOINING_STEP: Duration = Duration::from_secs(60);
