//! The table of connections: whose each one is, dials that wait for a free slot, and strangers that
//! have connected but not yet said which torrent they want.
//!
//! Strangers have what nobody else needs, and a few places of their own: a crowd of them keeps
//! nobody from being dialled or served, and a full house keeps nobody from saying hello.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::base::limits::{HANDSHAKES_PENDING_MAX, HANDSHAKES_PENDING_PER_IP_MAX};
use crate::engine::TorrentId;
use crate::peer::ConnId;

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Being dialled for a torrent.
    Dialling(TorrentId),
    /// Dialled for a torrent and connected; the other side has not said a word yet.
    Unheard(TorrentId),
    /// Connected to us; its handshake will say which torrent it wants.
    Stranger,
    /// Belongs to a torrent.
    Torrent(TorrentId),
}

/// All connections of an engine.
#[derive(Debug)]
pub(super) struct Connections {
    open: BTreeMap<ConnId, (Owner, SocketAddr)>,
    strangers: VecDeque<(Instant, ConnId, SocketAddr)>,
    queue: VecDeque<(TorrentId, SocketAddr)>,
    dialling: usize,
    /// Dials to an endpoint that it has not answered with a handshake.
    unanswered: BTreeMap<SocketAddr, usize>,
    /// Strangers that had to leave for a dial.
    displaced: Vec<ConnId>,
    next: u64,
    connections_max: usize,
    half_open_max: usize,
}

impl Connections {
    pub(super) fn new(connections_max: usize, half_open_max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            strangers: VecDeque::new(),
            queue: VecDeque::new(),
            dialling: 0,
            unanswered: BTreeMap::new(),
            displaced: Vec::new(),
            next: 1,
            connections_max,
            half_open_max,
        }
    }

    pub(super) fn owner(&self, conn: ConnId) -> Option<(Owner, SocketAddr)> {
        self.open.get(&conn).copied()
    }

    /// Admits a stranger. The second value is a stranger that had to leave for it.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        addr: SocketAddr,
    ) -> Option<(ConnId, Option<ConnId>)> {
        let from_ip = self.strangers.iter().filter(|(_, _, a)| a.ip() == addr.ip()).count();
        if from_ip >= HANDSHAKES_PENDING_PER_IP_MAX {
            return None;
        }
        // The oldest silent stranger goes: an honest peer says hello within milliseconds.
        let crowded = self.strangers.len() >= HANDSHAKES_PENDING_MAX || self.is_full();
        let evicted = if crowded { self.displace() } else { None };
        if self.is_full() {
            return None;
        }
        let conn = self.name();
        self.open.insert(conn, (Owner::Stranger, addr));
        self.strangers.push_back((now + HANDSHAKE_TIMEOUT, conn, addr));
        Some((conn, evicted))
    }

    fn is_full(&self) -> bool {
        self.open.len() >= self.connections_max
    }

    fn displace(&mut self) -> Option<ConnId> {
        let (_, conn, _) = self.strangers.pop_front()?;
        self.open.remove(&conn);
        Some(conn)
    }

    /// How many connections torrents may have, dials under way included.
    pub(super) fn settled_max(&self) -> usize {
        self.connections_max - self.connections_max / STRANGERS_SHARE
    }

    fn settled(&self) -> usize {
        self.open.len() - self.strangers.len()
    }

    /// A stranger was adopted when all places were taken: somebody has to leave.
    pub(super) fn is_overfull(&self) -> bool {
        self.settled() > self.settled_max()
    }

    /// Strangers that had to leave for dials, since this was called last.
    pub(super) fn take_displaced(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.displaced)
    }

    /// The stranger named its torrent.
    pub(super) fn adopt(&mut self, conn: ConnId, torrent: TorrentId) {
        self.strangers.retain(|(_, c, _)| *c != conn);
        if let Some(entry) = self.open.get_mut(&conn) {
            entry.0 = Owner::Torrent(torrent);
        }
    }

    /// Strangers whose time to say hello is over; they are forgotten.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ConnId> {
        let mut late = Vec::new();
        while let Some((deadline, conn, _)) = self.strangers.front().copied() {
            if deadline > now {
                break;
            }
            self.strangers.pop_front();
            self.open.remove(&conn);
            late.push(conn);
        }
        late
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.strangers.front().map(|(deadline, _, _)| *deadline)
    }

    /// Queues a dial. A torrent bounds its own dials under way, and with that its share of the queue.
    pub(super) fn queue_dial(&mut self, torrent: TorrentId, addr: SocketAddr) {
        self.queue.push_back((torrent, addr));
    }

    /// The next dial to make, if there is room for it.
    pub(super) fn next_dial(&mut self) -> Option<(ConnId, SocketAddr)> {
        if self.dialling >= self.half_open_max || self.settled() >= self.settled_max() {
            return None;
        }
        // Whoever is being knocked at already is passed over: its turn comes again.
        for _ in 0..self.queue.len().min(DIALS_LOOKED_AT_MAX) {
            let (torrent, addr) = self.queue.pop_front()?;
            let unanswered = self.unanswered.entry(addr).or_default();
            if *unanswered >= DIALS_PER_ENDPOINT_MAX {
                self.queue.push_back((torrent, addr));
                continue;
            }
            *unanswered += 1;
            if self.is_full() {
                let displaced = self.displace();
                self.displaced.extend(displaced);
            }
            let conn = self.name();
            self.open.insert(conn, (Owner::Dialling(torrent), addr));
            self.dialling += 1;
            return Some((conn, addr));
        }
        None
    }

    /// Whose dial is next, if it waits for a place that somebody has.
    pub(super) fn crowded_out(&self) -> Option<TorrentId> {
        let is_crowded = self.settled() >= self.settled_max();
        self.queue.front().filter(|_| is_crowded).map(|(torrent, _)| *torrent)
    }

    /// A dial succeeded.
    pub(super) fn dialled(&mut self, conn: ConnId, torrent: TorrentId) {
        if let Some(entry) = self.open.get_mut(&conn) {
            entry.0 = Owner::Unheard(torrent);
            self.dialling -= 1;
        }
    }

    /// The other side of a dialled connection said its first word.
    pub(super) fn heard(&mut self, conn: ConnId, torrent: TorrentId) {
        if let Some(entry) = self.open.get_mut(&conn) {
            entry.0 = Owner::Torrent(torrent);
            let addr = entry.1;
            self.answered(addr);
        }
    }

    fn answered(&mut self, addr: SocketAddr) {
        if let Some(count) = self.unanswered.get_mut(&addr) {
            *count -= 1;
            if *count == 0 {
                self.unanswered.remove(&addr);
            }
        }
    }

    /// A connection or dial is over.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<(Owner, SocketAddr)> {
        let (owner, addr) = self.open.remove(&conn)?;
        match owner {
            Owner::Dialling(_) => {
                self.dialling -= 1;
                self.answered(addr);
            }
            Owner::Unheard(_) => self.answered(addr),
            Owner::Stranger => self.strangers.retain(|(_, c, _)| *c != conn),
            Owner::Torrent(_) => {}
        }
        Some((owner, addr))
    }

    /// A torrent is gone: its queued dials too. Its dials under way are returned, to be closed.
    pub(super) fn forget(&mut self, torrent: TorrentId) -> Vec<ConnId> {
        self.queue.retain(|(t, _)| *t != torrent);
        let gone: Vec<ConnId> = self
            .open
            .iter()
            .filter(|(_, (owner, _))| match owner {
                Owner::Dialling(t) | Owner::Unheard(t) | Owner::Torrent(t) => *t == torrent,
                Owner::Stranger => false,
            })
            .map(|(conn, _)| *conn)
            .collect();
        gone.iter().for_each(|conn| {
            self.remove(*conn);
        });
        gone
    }

    pub(super) fn strangers(&self) -> Vec<ConnId> {
        self.strangers.iter().map(|(_, conn, _)| *conn).collect()
    }

    fn name(&mut self) -> ConnId {
        let conn = ConnId(self.next);
        self.next += 1;
        conn
    }
}

/// Dials to one endpoint that wait for its handshake: a client that shares many torrents may take
/// no more than five connections at a time (libtorrent's listen queue), and those beyond would wait
/// for a second or more until the system knocks again.
const DIALS_PER_ENDPOINT_MAX: usize = 4;
/// Queued dials that are looked at for one that may be made.
const DIALS_LOOKED_AT_MAX: usize = 256;
/// One place in so many is for strangers, whatever torrents want: of 500 they have 62.
const STRANGERS_SHARE: usize = 8;
/// How long a stranger may take to say which torrent it wants.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 1000))
    }

    #[test]
    fn silent_strangers_make_room_for_new_ones() {
        let mut c = Connections::new(1000, 10);
        let mut first = None;
        for n in 0..HANDSHAKES_PENDING_MAX {
            let addr = SocketAddr::from((
                [10, 0, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()],
                1,
            ));
            let (conn, evicted) = c.accept(Instant::ZERO, addr).unwrap();
            assert_eq!(evicted, None);
            first.get_or_insert(conn);
        }
        let (_, evicted) = c.accept(Instant::ZERO, SocketAddr::from(([10, 9, 9, 9], 1))).unwrap();
        assert_eq!(evicted, first);
        assert_eq!(c.owner(first.unwrap()), None);
        assert_eq!(c.expire(Instant::ZERO + HANDSHAKE_TIMEOUT).len(), HANDSHAKES_PENDING_MAX);
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let mut c = Connections::new(1000, 10);
        for _ in 0..HANDSHAKES_PENDING_PER_IP_MAX {
            assert!(c.accept(Instant::ZERO, at(1)).is_some());
        }
        assert!(c.accept(Instant::ZERO, at(1)).is_none());
        assert!(c.accept(Instant::ZERO, at(2)).is_some());
    }

    #[test]
    fn strangers_leave_for_dials_and_have_places_that_dials_leave_them() {
        let mut c = Connections::new(16, 16);
        let strangers: Vec<_> =
            (0..16).map(|n| c.accept(Instant::ZERO, at(n)).unwrap().0).collect();
        for n in 0..20 {
            c.queue_dial(TorrentId(1), at(100 + n));
        }
        let dials = std::iter::from_fn(|| c.next_dial()).count();
        assert_eq!((dials, c.settled_max()), (14, 14));
        assert_eq!(c.take_displaced(), strangers[..14]);
        assert_eq!((c.open.len(), c.strangers().len()), (16, 2));

        let (newcomer, evicted) = c.accept(Instant::ZERO, at(50)).unwrap();
        assert_eq!(evicted, Some(strangers[14]), "a full house can be knocked at");
        assert!(!c.is_overfull());
        c.adopt(newcomer, TorrentId(1));
        assert!(c.is_overfull(), "and somebody has to leave if the newcomer stays");
    }

    #[test]
    fn one_endpoint_is_not_knocked_at_by_all_torrents_at_once() {
        let mut c = Connections::new(100, 100);
        for n in 0..10 {
            c.queue_dial(TorrentId(n), at(1));
        }
        c.queue_dial(TorrentId(10), at(2));
        let dials: Vec<_> = std::iter::from_fn(|| c.next_dial()).collect();
        let to_first = dials.iter().filter(|(_, addr)| *addr == at(1)).count();
        assert_eq!((to_first, dials.len()), (DIALS_PER_ENDPOINT_MAX, DIALS_PER_ENDPOINT_MAX + 1));

        let (conn, _) = dials[0];
        c.dialled(conn, TorrentId(0));
        assert_eq!(c.next_dial(), None, "connected is not answered");
        c.heard(conn, TorrentId(0));
        assert_eq!(c.next_dial().map(|(_, addr)| addr), Some(at(1)));
        c.remove(conn);
        assert_eq!(c.next_dial(), None, "counted once");
        c.remove(dials[1].0);
        assert!(c.next_dial().is_some(), "a dial that is over makes room");
    }

    #[test]
    fn dials_wait_for_a_free_slot() {
        let mut c = Connections::new(10, 1);
        let t = TorrentId(1);
        c.queue_dial(t, at(1));
        c.queue_dial(t, at(2));
        let (first, _) = c.next_dial().unwrap();
        assert_eq!(c.next_dial(), None);
        c.dialled(first, t);
        let (second, addr) = c.next_dial().unwrap();
        assert_eq!(addr, at(2));
        assert_eq!(c.forget(t), [first, second]);
        assert_eq!(c.next_dial(), None);
    }
}
