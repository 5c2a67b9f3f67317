//! Who has to leave when all places are taken and somebody else comes.
//!
//! Never one that gave or took something lately. First those who want nothing and are wanted for
//! nothing; then those who ask and do not take what they get; then, of a network that holds many
//! places, one more than others; then those who had their time to be of use and were not. An honest
//! newcomer finds a place within seconds, whatever the others do to keep it. Who had to leave does not
//! have a place of another again at once: a crowd cannot take turns.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Torrent;
use crate::base::Instant;
use crate::base::addr::{canonical, is_private, network};
use crate::peer::{CloseReason, ConnId, Connection};
use crate::swarm::Phase;

/// For whom room is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomer {
    /// Somebody that we could dial.
    Known,
    /// Somebody that has connected to us.
    Here(IpAddr),
}

impl Torrent {
    /// How many connections it has.
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// There is no place left in the whole engine for somebody who has connected, or for a peer that is
    /// to be dialled if `newcomer` is `None`: closes a connection of less use, if there is one.
    pub fn make_room_for(&mut self, now: Instant, newcomer: Option<SocketAddr>) -> bool {
        self.now = now;
        let newcomer =
            newcomer.map_or(Newcomer::Known, |addr| Newcomer::Here(canonical(addr).ip()));
        self.is_active() && self.make_room(now, newcomer)
    }

    /// Closes the connection of least use for one that may be of more.
    pub(super) fn make_room(&mut self, now: Instant, newcomer: Newcomer) -> bool {
        if matches!(newcomer, Newcomer::Here(ip) if self.had_its_time(now, ip)) {
            return false;
        }
        let gone = self
            .idle(now, newcomer)
            .or_else(|| self.untaking(now))
            .or_else(|| self.crowding(newcomer))
            .or_else(|| self.barren(now, newcomer));
        let Some(conn) = gone else { return false };
        if let Some(peer) = self.peers.get(&conn) {
            self.displaced.insert(home(peer.addr.ip()), now);
        }
        self.close(now, conn, CloseReason::Crowded);
        true
    }

    fn had_its_time(&self, now: Instant, ip: IpAddr) -> bool {
        self.displaced.peek(&home(ip)).is_some_and(|at| now.since(*at) < DISPLACED_TIME)
    }

    // Neither side wants anything.
    fn idle(&self, now: Instant, newcomer: Newcomer) -> Option<ConnId> {
        let fetching = self.phase == Phase::FetchingMetadata;
        let idle = self.peers.iter().find(|(conn, peer)| {
            let wanted = if fetching {
                self.metadata.has_giver(**conn)
            } else {
                peer.conn.is_interested() || peer.conn.is_peer_interested()
            };
            // Whom a lone seed tells of nothing cannot want anything. Nobody is dialled in its place; and if
            // it gets pieces elsewhere it is none of a crowd that only sits there.
            let is_kept_waiting = self.super_seed.as_ref().is_some_and(|s| s.has_peer(**conn));
            if is_kept_waiting && newcomer == Newcomer::Known {
                return false;
            }
            let has_some = peer.conn.pieces().is_some_and(|pieces| !pieces.is_none());
            let patience =
                if is_kept_waiting && has_some { KEPT_WAITING_PLACE_TIME } else { IDLE_PLACE_TIME };
            !wanted && now.since(peer.conn.opened_at()) >= patience
        });
        idle.map(|(conn, _)| *conn)
    }

    // It asked and takes nothing of what it was sent, for longest.
    fn untaking(&self, now: Instant) -> Option<ConnId> {
        let untaking = self.peers.iter().filter(|(_, peer)| {
            has_given_nothing(&peer.conn) && peer.conn.untaken_for(now) >= UNTAKING_PLACE_TIME
        });
        untaking.max_by_key(|(_, peer)| peer.conn.untaken_for(now)).map(|(conn, _)| *conn)
    }

    // Of the network that holds most of the places in which nothing was given or taken, the oldest;
    // if it holds more than a few, and more than the newcomer's own would.
    fn crowding(&self, newcomer: Newcomer) -> Option<ConnId> {
        let useless = || self.peers.iter().filter(|(_, peer)| is_barren(&peer.conn));
        let mut crowds: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (_, peer) in useless() {
            *crowds.entry(neighbourhood(peer.addr.ip())).or_default() += 1;
        }
        let (most, size) = crowds.into_iter().max_by_key(|(_, size)| *size)?;
        let own = match newcomer {
            // A seed is found by those who want it.
            Newcomer::Known if self.phase == Phase::Seeding => return None,
            Newcomer::Known => 0,
            Newcomer::Here(ip) => {
                let own = neighbourhood(ip);
                self.peers.values().filter(|p| neighbourhood(p.addr.ip()) == own).count()
            }
        };
        if size <= CROWD_MIN.max(own + 1) {
            return None;
        }
        let crowd = useless().filter(|(_, peer)| neighbourhood(peer.addr.ip()) == most);
        crowd.min_by_key(|(_, peer)| peer.conn.opened_at()).map(|(conn, _)| *conn)
    }

    // The oldest connection that promised something and has never given anything; to a seed, one
    // that has never taken anything either.
    fn barren(&self, now: Instant, newcomer: Newcomer) -> Option<ConnId> {
        let is_here = matches!(newcomer, Newcomer::Here(_));
        let keeps_waiting = |conn: &Connection| match self.phase {
            Phase::Downloading => conn.is_peer_choking() || conn.requests.is_snubbed(),
            Phase::Seeding => is_here && conn.upload.total() == 0,
            Phase::FetchingMetadata | Phase::Checking | Phase::Stopped => false,
        };
        let patience = match self.phase {
            Phase::Downloading if self.is_starving() => STARVING_PLACE_TIME,
            Phase::Downloading => BARREN_PLACE_TIME,
            Phase::FetchingMetadata | Phase::Checking | Phase::Seeding | Phase::Stopped => {
                UNSERVED_PLACE_TIME
            }
        };
        let barren = self.peers.iter().filter(|(_, peer)| {
            has_given_nothing(&peer.conn)
                && keeps_waiting(&peer.conn)
                && now.since(peer.conn.opened_at()) >= patience
        });
        barren.min_by_key(|(_, peer)| peer.conn.opened_at()).map(|(conn, _)| *conn)
    }

    // Nobody gives anything: there is nothing to lose by asking others.
    fn is_starving(&self) -> bool {
        self.peers.values().all(|peer| peer.conn.download.per_second() == 0)
    }
}

fn has_given_nothing(conn: &Connection) -> bool {
    conn.download.total() == 0
}

fn is_barren(conn: &Connection) -> bool {
    has_given_nothing(conn) && conn.upload.total() == 0
}

// Who is remembered when it had to leave: one address, or one network of IPv6.
fn home(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(_) => neighbourhood(ip),
    }
}

// Private addresses cost an attacker a machine each; a range of public ones costs nothing.
fn neighbourhood(ip: IpAddr) -> IpAddr {
    if is_private(ip) { ip } else { network(ip) }
}

/// A connection in which nobody is interested keeps its place so long, if others want in: who
/// wants something says so within a round trip or two.
const IDLE_PLACE_TIME: Duration = Duration::from_secs(5);
/// The same at a lone seed that has not told the peer of anything yet: another would wait as long.
const KEPT_WAITING_PLACE_TIME: Duration = Duration::from_secs(60);
/// A peer that takes nothing of what it asked for keeps its place so long: twice the time after
/// which its slot goes to another.
const UNTAKING_PLACE_TIME: Duration = Duration::from_secs(10);
/// Places that one network may hold without being of use, whoever wants in.
const CROWD_MIN: usize = 4;
/// A peer that has let us wait so long from the start leaves its place to one that may not: two
/// turns of the optimistic unchoke (BEP 3).
const BARREN_PLACE_TIME: Duration = Duration::from_secs(60);
/// The same to whom nobody gives anything at all: there is nothing to lose, and whoever is new to a
/// peer is unchoked sooner than who has waited (BEP 3).
const STARVING_PLACE_TIME: Duration = Duration::from_secs(10);
/// At a seed: two turns of the choker, in each of which somebody new was served.
const UNSERVED_PLACE_TIME: Duration = Duration::from_secs(20);
/// For so long who had to leave does not displace others.
const DISPLACED_TIME: Duration = Duration::from_secs(120);
/// Addresses that had to leave and are remembered; the oldest goes.
pub(super) const DISPLACED_MAX: usize = 1_000;
