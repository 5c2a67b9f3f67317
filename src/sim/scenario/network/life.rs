//! Hosts come, go and come back; attackers take their places; tables are looked into.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::citizen::{Citizen, Conspiracy, Manners, Traits};
use super::figures::Row;
use super::run::{Plan, Run};
use crate::base::addr::Family;
use crate::base::{Instant, Key, NodeId, Rng, Seed};
use crate::dht::{Config, Node, SavedContact};
use crate::sim::HostId;
use crate::sim::chance::exponential;
use crate::sim::nat::Nat;
use crate::sim::world::{Outside, Place};

/// What is known of a host over all its sessions.
#[derive(Debug)]
pub(super) struct Person {
    kind: Kind,
    session: u32,
    // Where it stands among those that are present.
    place: Option<usize>,
    since: Instant,
    // What it remembers while it is away.
    id: Option<NodeId>,
    saved: Vec<SavedContact>,
    /// The announces that it is responsible for.
    pub slots: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kind {
    keeps_id: bool,
    is_unaware: bool,
    is_forgetful: bool,
    is_lazy: bool,
    is_sybil: bool,
}

impl Run {
    /// One of those that are there from the beginning, and stay.
    pub(super) fn add_router(&mut self) {
        let host = self.add_host(Kind::default(), Place::default(), None, Manners::Honest);
        self.routers.push(host);
        self.online += 1;
    }

    pub(super) fn on_join(&mut self) {
        let host = self.add_stranger();
        self.arrive(host);
    }

    /// From now on hosts come and go.
    pub(super) fn start_living(&mut self) {
        let Some(sessions) = self.options.sessions else { return };
        for host in self.present.clone() {
            let rest = sessions.draw_rest(&mut self.rng);
            self.plan_departure(host, rest);
        }
        self.plan_arrival();
    }

    pub(super) fn on_come(&mut self) {
        self.plan_arrival();
        let Some(sessions) = self.options.sessions else { return };
        self.row.came += 1;
        let returns = !self.absent.is_empty() && self.rng.chance(RETURNING);
        let host = if returns {
            let at = self.rng.below(self.absent.len());
            let host = self.absent.swap_remove(at);
            self.revive(host);
            host
        } else {
            self.add_stranger()
        };
        self.arrive(host);
        let session = sessions.draw(&mut self.rng);
        self.plan_departure(host, session);
        if self.rng.chance(self.options.eager) {
            self.look_up_cold(host);
        }
    }

    pub(super) fn on_go(&mut self, host: HostId, session: u32) {
        let person = self.person(host);
        if person.session == session && person.place.is_some() {
            self.row.went += 1;
            self.remove(host);
            self.absent.push(host);
        }
    }

    /// Switches a host off and finds somebody else for its duties.
    pub(super) fn remove(&mut self, host: HostId) {
        self.note_uptime();
        self.online -= 1;
        let person = self.person(host);
        person.session += 1;
        let place = person.place.take().expect("only those that are present go");
        let slots = std::mem::take(&mut person.slots);
        self.present.swap_remove(place);
        if let Some(moved) = self.present.get(place).copied() {
            self.person(moved).place = Some(place);
        }
        let gone = self.world.kill(host);
        let person = self.person(host);
        if let Some(citizen) = gone.filter(|_| !person.kind.is_forgetful) {
            person.id = Some(citizen.node().id());
            person.saved = citizen.node().saved();
            person.saved.shrink_to_fit();
        }
        self.forget_searches(host);
        slots.into_iter().for_each(|slot| self.appoint(slot));
    }

    /// Tells a host some of the bootstrap nodes.
    pub(super) fn bootstrap(&mut self, host: HostId) {
        let mut told: Vec<SocketAddr> = (0..ROUTERS_TOLD)
            .filter_map(|_| self.rng.pick(&self.routers).copied())
            .filter(|router| *router != host)
            .map(|router| self.world.addr(router))
            .collect();
        // Where there are others around them, those are the network.
        told.extend(self.rng.pick(&self.outsiders));
        self.world.command(host, |citizen, now| citizen.node_mut().bootstrap(now, &told));
    }

    /// An honest host that has been there for a minute.
    pub(super) fn somebody(&mut self) -> Option<HostId> {
        let now = self.world.now();
        for _ in 0..DRAWS_MAX {
            let host = *self.rng.pick(&self.present)?;
            let person = self.person(host);
            if !person.kind.is_lazy && now.since(person.since) >= SETTLED {
                return Some(host);
            }
        }
        None
    }

    pub(super) fn person(&mut self, host: HostId) -> &mut Person {
        &mut self.people[host.0 as usize]
    }

    fn plan_departure(&mut self, host: HostId, session: Duration) {
        let number = self.person(host).session;
        self.plans.plan(self.world.now() + session, Plan::Go(host, number));
    }

    // As many come as go, on average.
    fn plan_arrival(&mut self) {
        let Some(sessions) = self.options.sessions else { return };
        let pause = exponential(sessions.mean() / self.options.nodes, &mut self.rng);
        self.plans.plan(self.world.now() + pause, Plan::Come);
    }

    fn add_stranger(&mut self) -> HostId {
        let place = Place { nat: self.options.nats.draw(&mut self.rng), ..Place::default() };
        let kind = Kind {
            keeps_id: self.rng.chance(self.options.invalid_ids),
            is_unaware: self.rng.chance(self.options.unaware),
            is_forgetful: self.rng.chance(self.options.forgetful),
            is_lazy: self.rng.chance(self.options.lazy),
            is_sybil: false,
        };
        let manners = if kind.is_lazy { Manners::Lazy(self.dead_addrs()) } else { Manners::Honest };
        self.add_host(kind, place, None, manners)
    }

    fn add_host(
        &mut self,
        kind: Kind,
        place: Place,
        id: Option<NodeId>,
        manners: Manners,
    ) -> HostId {
        let host = self.world.add_at(place, |addr, seed, now| {
            new_citizen(kind, id, manners, Birth { addr, seed, now })
        });
        self.people.push(Person {
            kind,
            session: 0,
            place: None,
            since: self.world.now(),
            id: None,
            saved: Vec::new(),
            slots: Vec::new(),
        });
        assert_eq!(self.people.len(), host.0 as usize + 1, "one for each host of the world");
        host
    }

    // It comes back where it was, and remembers what it remembers.
    fn revive(&mut self, host: HostId) {
        let person = self.person(host);
        let (kind, id) = (person.kind, person.id);
        let saved = std::mem::take(&mut person.saved);
        let manners = if kind.is_lazy { Manners::Lazy(self.dead_addrs()) } else { Manners::Honest };
        self.world.revive(host, |addr, seed, now| {
            new_citizen(kind, id, manners, Birth { addr, seed, now })
        });
        self.world.command(host, |citizen, now| citizen.node_mut().restore(now, &saved));
    }

    fn arrive(&mut self, host: HostId) {
        self.note_uptime();
        self.online += 1;
        let (now, place) = (self.world.now(), self.present.len());
        let person = self.person(host);
        person.since = now;
        person.place = Some(place);
        self.present.push(host);
        self.bootstrap(host);
    }

    // The same for every lazy host: they all know those that were there once.
    fn dead_addrs(&mut self) -> Box<[SocketAddr]> {
        let mut rng = Rng::from_seed(crate::sim::scenario::seed(self.options.seed ^ DEAD_SEED));
        let mut dead = Vec::new();
        while dead.len() < DEAD_KNOWN {
            let addr = SocketAddr::from((Ipv4Addr::from_bits(rng.u32()), 6_881));
            let is_free = self.world.host_at(addr.ip()).is_none()
                && !self.world.outside().lives_at(addr.ip());
            if is_free && crate::base::addr::is_believable(&addr, IpAddr::from([1, 1, 1, 1])) {
                dead.push(addr);
            }
        }
        dead.into_boxed_slice()
    }

    /// The attackers take their places.
    pub(super) fn add_sybils(&mut self) {
        let Some(sybils) = self.options.sybils else { return };
        let attacked = (f64::from(self.options.hashes) * sybils.hashes).round() as usize;
        let all = self.options.nodes.max(self.options.implicit);
        let bits = all.ilog2() + SYBIL_BITS;
        for hash in 0..attacked {
            let key = self.work.hash(hash).key();
            let mut allies = Vec::new();
            for n in 0..sybils.count {
                let id = beside(key, bits, &mut self.rng);
                allies.push((id, SocketAddr::new(self.sybil_ip(n, sybils.one_network), 6_881)));
            }
            let forged = (0..FORGED).map(|_| {
                let [a, b] = self.rng.array();
                SocketAddr::from(([198, 18, a, b], 6_881))
            });
            let conspiracy = Conspiracy { forged: forged.collect(), allies };
            for (id, addr) in conspiracy.allies.clone() {
                let kind = Kind { keeps_id: true, is_sybil: true, ..Kind::default() };
                let place = Place { ip: Some(addr.ip()), nat: Nat::Open, ..Place::default() };
                let manners = Manners::Sybil(Box::new(conspiracy.clone()));
                let host = self.add_host(kind, place, Some(id), manners);
                self.note_uptime();
                self.online += 1;
                self.bootstrap(host);
            }
        }
    }

    fn sybil_ip(&mut self, n: u32, one_network: bool) -> IpAddr {
        loop {
            let bits = if one_network { SYBIL_NETWORK | (n & 0xff) } else { self.rng.u32() };
            let ip = IpAddr::V4(Ipv4Addr::from_bits(bits));
            let addr = SocketAddr::new(ip, 6_881);
            let is_free = self.world.host_at(ip).is_none() && !self.world.outside().lives_at(ip);
            if is_free && crate::base::addr::is_believable(&addr, IpAddr::from([1, 1, 1, 1])) {
                return ip;
            }
        }
    }

    /// Who is in the tables of some hosts, and is it there?
    pub(super) fn look_into_tables(&mut self, row: &mut Row) {
        let mut hosts = self.present.clone();
        self.rng.shuffle(&mut hosts);
        hosts.truncate(TABLES_READ_MAX);
        row.tables = hosts.len();
        for host in hosts {
            let Some(citizen) = self.world.core(host) else { continue };
            let contacts: Vec<(NodeId, SocketAddr)> = citizen.node().contacts().collect();
            row.contacts += contacts.len();
            for (id, addr) in contacts {
                let (is_live, is_open) = self.look_at(id, addr);
                row.live += usize::from(is_live);
                row.open += usize::from(is_live && is_open);
            }
        }
    }

    fn look_at(&mut self, id: NodeId, addr: SocketAddr) -> (bool, bool) {
        let Some(host) = self.world.host_at(addr.ip()) else {
            let is_there =
                self.world.outside().as_ref().is_some_and(|net| net.answers_as(id, addr));
            return (is_there, is_there);
        };
        let is_live = self.world.core(host).is_some_and(|citizen| citizen.node().id() == id);
        (is_live, self.world.nat(host).is_reachable())
    }
}

struct Birth {
    addr: SocketAddr,
    seed: Seed,
    now: Instant,
}

fn new_citizen(kind: Kind, id: Option<NodeId>, manners: Manners, birth: Birth) -> Citizen {
    let Birth { addr, seed, now } = birth;
    let config = Config {
        prove_reachability: !kind.is_unaware,
        names_max: CITIZEN_NAMES_MAX,
        ..Config::new(Family::of(&addr))
    };
    let mut node = Node::new(config, id, seed, now);
    node.set_self_addrs(vec![addr]);
    Citizen::new(node, Traits { keeps_id: kind.keeps_id, manners })
}

// Shares `bits` bits with the key.
fn beside(key: Key, bits: u32, rng: &mut Rng) -> NodeId {
    let mut id: [u8; 20] = rng.array();
    for (at, byte) in key.as_bytes().iter().enumerate() {
        let whole = u32::try_from(at).unwrap_or(u32::MAX).saturating_mul(8);
        let mask = 0xffu8.checked_shl(8 - bits.saturating_sub(whole).min(8)).unwrap_or(0);
        id[at] = (byte & mask) | (id[at] & !mask);
    }
    NodeId::new(id)
}

/// Half of those that come have been there before.
const RETURNING: f64 = 0.5;
/// A hundred thousand nodes live in one process: what each remembers for its lookups is kept short.
const CITIZEN_NAMES_MAX: u32 = 256;
/// Bootstrap nodes that a host is told of.
const ROUTERS_TOLD: usize = 3;
/// Only who has been there for so long is asked to do anything.
const SETTLED: Duration = Duration::from_secs(60);
const DRAWS_MAX: usize = 100;
/// Tables that are looked into for one row.
const TABLES_READ_MAX: usize = 1_000;
/// Dead addresses that lazy nodes name.
const DEAD_KNOWN: usize = 256;
const DEAD_SEED: u64 = 0xdead;
/// How much nearer than the nearest honest node Sybils are, in bits.
const SYBIL_BITS: u32 = 8;
/// 66.66.66.0/24.
const SYBIL_NETWORK: u32 = 0x4242_4200;
/// Peers that a Sybil makes up.
const FORGED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attackers_share_as_many_bits_as_they_want() {
        let mut rng = Rng::from_seed([1; 32]);
        for bits in [0, 1, 7, 8, 9, 17, 24, 31] {
            let key = Key::new(rng.array());
            let shared: Vec<u32> = (0..50)
                .map(|_| beside(key, bits, &mut rng).key().shared_prefix_bits(key))
                .collect();
            assert_eq!(shared.iter().filter(|shared| **shared < bits).count(), 0);
            assert!(shared.contains(&bits), "{shared:?}");
        }
    }
}
