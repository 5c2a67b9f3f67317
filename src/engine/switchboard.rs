//! The inputs: each goes to the one core it concerns. What that core then puts out is carried on in
//! `outputs.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::base::addr::Family;
use crate::base::datagrams::DatagramQueue;
use crate::base::limits::TORRENTS_MAX;
use crate::base::time::soonest;
use crate::base::{InfoHash, Instant, Rng, Seed};
use crate::dht::{LookupId, Node, PingId};
use crate::engine::connections::{Connections, Owner};
use crate::engine::discovery::{Discovery, DiscoveryStatus};
use crate::engine::sharing::Sharing;
use crate::engine::{AddError, AddTorrent, CommandId, Config, Output, SocketId, TorrentId};
use crate::peer::{CloseReason, ConnId, Misbehavior};
use crate::swarm::{self, DialError, DiskEvent, PeerSource, ReaderId, Torrent};
use crate::wire::handshake::Handshake;
use crate::wire::metainfo::Info;

/// One DHT node for each socket, and torrents.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<NodeSlot>,
    pub(super) torrents: BTreeMap<TorrentId, Slot>,
    pub(super) by_hash: BTreeMap<InfoHash, TorrentId>,
    // When each torrent wants to be woken; kept in step with `Slot::wake`.
    pub(super) wakes: BTreeSet<(Instant, TorrentId)>,
    // Where we are reached, as far as known: never dialled, and the reference of BEP 40.
    pub(super) own_addrs: Vec<SocketAddr>,
    pub(super) connections: Connections,
    pub(super) sharing: Sharing,
    pub(super) lookups: BTreeMap<(SocketId, LookupId), Asker>,
    pub(super) pings: BTreeMap<(SocketId, PingId), CommandId>,
    pub(super) outputs: VecDeque<Output>,
    // When room was made for a dial.
    made_room_at: Option<Instant>,
    pub(super) next_torrent: u32,
    pub(super) next_command: u64,
}

#[derive(Debug)]
pub(super) struct NodeSlot {
    pub(super) socket: SocketId,
    pub(super) port: u16,
    pub(super) family: Family,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) torrent: Torrent,
    pub(super) info_hash: InfoHash,
    pub(super) discovery: Option<Discovery>,
    pub(super) announces: bool,
    pub(super) wake: Option<Instant>,
}

/// Who a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Torrent(TorrentId),
    Command(CommandId),
}

impl Engine {
    /// An engine with its nodes, and no torrent yet.
    pub fn new(config: Config, seed: Seed, now: Instant) -> Engine {
        let mut rng = Rng::from_seed(seed);
        let own_addrs = config.listened_on().collect();
        let nodes = config.nodes.iter().map(|n| {
            let mut node = Node::new(n.dht.clone(), n.id, rng.fork(), now);
            node.set_self_addrs(n.own_addrs.clone());
            node.restore(now, &n.contacts);
            NodeSlot { socket: n.socket, port: n.port, family: n.dht.family, node }
        });
        let nodes = nodes.collect();
        let connections = Connections::new(config.connections_max, config.half_open_max);
        let mut engine = Engine {
            sharing: Sharing::new(config.limits, now),
            config,
            rng,
            nodes,
            torrents: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            wakes: BTreeSet::new(),
            own_addrs,
            connections,
            lookups: BTreeMap::new(),
            pings: BTreeMap::new(),
            outputs: VecDeque::new(),
            made_room_at: None,
            next_torrent: 1,
            next_command: 1,
        };
        engine.drain_nodes(now);
        engine
    }

    /// The next effect for the host to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| {
            self.nodes.iter_mut().find_map(|slot| {
                let (to, datagram) = slot.node.datagrams().pop()?;
                Some(Output::Transmit { socket: slot.socket, to, datagram })
            })
        })
    }

    /// The datagrams that wait to be sent, socket by socket, for a host that sends them together and
    /// then clears the queues. What it leaves comes out of [`Engine::poll_output`].
    pub fn datagrams(&mut self) -> impl Iterator<Item = (SocketId, &mut DatagramQueue)> {
        self.nodes.iter_mut().map(|slot| (slot.socket, slot.node.datagrams()))
    }

    /// When to call [`Engine::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let nodes = self.nodes.iter().filter_map(|s| s.node.poll_timeout()).min();
        let torrents = self.wakes.first().map(|(at, _)| *at);
        let hosts = soonest(self.connections.poll_timeout(), self.sharing.poll_timeout());
        soonest(soonest(nodes, torrents), hosts)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.each_node(|slot| {
            if slot.node.poll_timeout().is_some_and(|at| at <= now) {
                slot.node.handle_timeout(now);
            }
        });
        self.drain_nodes(now);
        for conn in self.connections.expire(now) {
            self.close(conn, CloseReason::HandshakeTimeout);
        }
        // Each torrent is woken once a call, however near its next deadline lies.
        let due: Vec<TorrentId> =
            self.wakes.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.with_torrent(now, id, |t| t.handle_timeout(now));
        }
        self.make_room_for_dials(now);
        self.hand_out(now);
    }

    // ---- datagrams ----

    /// A datagram came in on `socket`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let Some(at) = self.nodes.iter().position(|s| s.socket == socket) else { return };
        let beside = self.node_beside(at);
        match beside.and_then(|other| self.nodes.get_disjoint_mut([at, other]).ok()) {
            Some([own, other]) => {
                own.node.handle_datagram_beside(now, from, datagram, Some(&other.node));
            }
            None => self.nodes[at].node.handle_datagram(now, from, datagram),
        }
        self.drain_node(now, at);
    }

    // The node of the other family that knows most, for whoever asks for both (BEP 32).
    fn node_beside(&self, at: usize) -> Option<usize> {
        let family = self.nodes[at].family;
        let others = self.nodes.iter().enumerate().filter(|(_, slot)| slot.family != family);
        others.max_by_key(|(_, slot)| slot.node.contact_count()).map(|(at, _)| at)
    }

    /// Addresses of bootstrap nodes.
    pub fn bootstrap(&mut self, now: Instant, routers: &[SocketAddr]) {
        self.each_node(|slot| {
            let own: Vec<SocketAddr> =
                routers.iter().filter(|r| Family::of(r) == slot.family).copied().collect();
            if !own.is_empty() {
                slot.node.bootstrap(now, &own);
            }
        });
        self.drain_nodes(now);
    }

    /// A node worth asking, heard of outside the DHT.
    pub fn add_contact(&mut self, now: Instant, addr: SocketAddr) {
        self.each_node(|slot| {
            if slot.family == Family::of(&addr) {
                slot.node.add_contact(now, addr);
            }
        });
        self.drain_nodes(now);
    }

    /// Does something with each node. All of them sit behind one router: what one has spent of the
    /// budget of new flows is spent for the next.
    pub(super) fn each_node(&mut self, mut act: impl FnMut(&mut NodeSlot)) {
        for at in 0..self.nodes.len() {
            act(&mut self.nodes[at]);
            self.share_flows();
        }
    }

    // The node that was called last has the least left.
    pub(super) fn share_flows(&mut self) {
        let Some(left) = self.nodes.iter().map(|slot| slot.node.flow_budget()).max() else {
            return;
        };
        for slot in &mut self.nodes {
            slot.node.set_flow_budget(left);
        }
    }

    /// The DHT nodes, for status and saving.
    pub fn nodes(&self) -> impl Iterator<Item = (SocketId, &Node)> {
        self.nodes.iter().map(|s| (s.socket, &s.node))
    }

    // ---- torrents ----

    /// Adds a torrent; its lookups and dials start at once.
    pub fn add_torrent(&mut self, now: Instant, add: AddTorrent) -> Result<TorrentId, AddError> {
        if let Some(id) = self.by_hash.get(&add.info_hash) {
            return Err(AddError::Duplicate(*id));
        }
        if self.torrents.len() >= TORRENTS_MAX {
            return Err(AddError::Full);
        }
        let id = TorrentId(self.next_torrent);
        self.next_torrent += 1;
        // BEP 27: a private torrent stays out of the DHT.
        let is_private =
            add.info.as_ref().is_some_and(|i| Info::decode(i).is_ok_and(|i| i.private));
        let discover = add.discover && !is_private && !self.nodes.is_empty();
        let config = swarm::Config {
            listen_port: self.config.listen_port,
            dht_port: self.nodes.first().map(|n| n.port),
            // Who has all there are is full, and makes room by its own rules.
            connections_max: add.connections_max.min(self.connections.settled_max()),
            wanted: add.wanted,
            sequential: add.sequential,
            metadata_only: add.metadata_only,
            super_seeding: add.super_seeding,
            limits: add.limits,
            paused: add.paused,
            ..swarm::Config::new(self.config.peer_id)
        };
        let torrent = Torrent::new(config, add.info_hash, add.info, self.rng.fork(), now);
        let slot = Slot {
            torrent,
            info_hash: add.info_hash,
            discovery: discover.then(|| match add.paused {
                true => Discovery::resting(),
                false => Discovery::start(now),
            }),
            announces: self.config.listen_port.is_some() && !add.metadata_only,
            wake: None,
        };
        self.torrents.insert(id, slot);
        self.by_hash.insert(add.info_hash, id);
        let own = self.own_addrs.clone();
        self.with_torrent(now, id, |t| {
            t.set_own_addrs(&own);
            t.add_peers(now, PeerSource::Given, &add.peers);
        });
        Ok(id)
    }

    /// Ends a torrent: its connections are closed and its storage too.
    pub fn remove_torrent(&mut self, now: Instant, id: TorrentId) {
        self.with_torrent(now, id, |t| t.stop(now));
        let Some(mut slot) = self.torrents.remove(&id) else { return };
        self.by_hash.remove(&slot.info_hash);
        self.sharing.forget(id);
        self.stop_announcing(slot.info_hash);
        if let Some(at) = slot.wake {
            self.wakes.remove(&(at, id));
        }
        let running = slot.discovery.as_mut().map(Discovery::stop).unwrap_or_default();
        self.cancel_lookups(&running);
        for conn in self.connections.forget(id) {
            self.close(conn, CloseReason::Stopped);
        }
        self.start_dials();
    }

    /// Lets go of a torrent's connections, and asks the DHT for it no more, until it is resumed. False
    /// if there was nothing to pause.
    pub fn pause(&mut self, now: Instant, id: TorrentId) -> bool {
        let mut paused = false;
        self.with_torrent(now, id, |t| paused = t.pause(now));
        if paused {
            self.rest_discovery(id);
            self.note_wake(id);
        }
        paused
    }

    /// Goes on with a torrent that was paused, or whose storage failed. False if it is neither.
    pub fn resume(&mut self, now: Instant, id: TorrentId) -> bool {
        let slot = self.torrents.get_mut(&id).filter(|s| s.torrent.can_resume());
        let Some(slot) = slot else { return false };
        slot.discovery.iter_mut().for_each(|d| d.hurry(now));
        self.with_torrent(now, id, |t| _ = t.resume(now));
        true
    }

    /// Reads all data of a torrent again. False if there is none to read.
    pub fn recheck(&mut self, now: Instant, id: TorrentId) -> bool {
        let mut begun = false;
        self.with_torrent(now, id, |t| begun = t.recheck(now));
        if let Some(slot) = self.torrents.get_mut(&id).filter(|_| begun) {
            slot.discovery.iter_mut().for_each(|d| d.hurry(now));
            self.note_wake(id);
        }
        begun
    }

    /// Pieces of a torrent in order of their index from now on, or rarest first.
    pub fn set_sequential(&mut self, now: Instant, id: TorrentId, sequential: bool) {
        self.with_torrent(now, id, |t| t.set_sequential(sequential));
    }

    /// More peers to try at once.
    pub fn add_peers(&mut self, now: Instant, id: TorrentId, peers: &[SocketAddr]) {
        self.with_torrent(now, id, |t| t.add_peers(now, PeerSource::Given, peers));
    }

    /// Other files are wanted now.
    pub fn select(&mut self, now: Instant, id: TorrentId, wanted: Option<Vec<bool>>) {
        self.with_torrent(now, id, |t| t.select(now, wanted));
    }

    /// A reader of a torrent's data is at the start of this window of pieces now; `None`: it is gone.
    pub fn set_window(
        &mut self,
        now: Instant,
        id: TorrentId,
        reader: ReaderId,
        window: Option<Range<u32>>,
    ) {
        self.with_torrent(now, id, |t| t.set_window(now, reader, window));
    }

    /// The torrent of this hash, if it is here.
    pub fn torrent_of(&self, info_hash: InfoHash) -> Option<TorrentId> {
        self.by_hash.get(&info_hash).copied()
    }

    /// A torrent, for its status.
    pub fn torrent(&self, id: TorrentId) -> Option<&Torrent> {
        self.torrents.get(&id).map(|s| &s.torrent)
    }

    /// What a torrent's lookups have come to.
    pub fn discovery(&self, id: TorrentId) -> Option<DiscoveryStatus> {
        let discovery = self.torrents.get(&id)?.discovery.as_ref()?;
        let mut status = discovery.status();
        for (socket, lookup) in discovery.running() {
            let slot = self.nodes.iter().find(|s| s.socket == *socket);
            if let Some(p) = slot.and_then(|s| s.node.lookup_progress(*lookup)) {
                status.asked += p.asked;
                status.answered += p.answered;
            }
        }
        Some(status)
    }

    /// Ends everything: connections are closed, storages told to close.
    pub fn shutdown(&mut self, now: Instant) {
        let all: Vec<TorrentId> = self.torrents.keys().copied().collect();
        for id in all {
            self.remove_torrent(now, id);
        }
        for conn in self.connections.strangers() {
            self.connections.remove(conn);
            self.close(conn, CloseReason::Stopped);
        }
    }

    // ---- connections ----

    /// A stranger connected. `None`: there is no room, close it.
    pub fn accept(&mut self, now: Instant, addr: SocketAddr) -> Option<ConnId> {
        let (conn, evicted) = self.connections.accept(now, addr)?;
        if let Some(evicted) = evicted {
            self.close(evicted, CloseReason::Crowded);
        }
        Some(conn)
    }

    /// A dial succeeded. False: nobody wants it any more, close it.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId) -> bool {
        let Some((Owner::Dialling(id), addr)) = self.connections.owner(conn) else { return false };
        self.connections.dialled(conn, id);
        self.with_torrent(now, id, |t| t.handle_connected(now, conn, addr));
        true
    }

    /// A dial failed.
    pub fn handle_connect_failed(&mut self, now: Instant, conn: ConnId, error: DialError) {
        let Some((Owner::Dialling(id), addr)) = self.connections.remove(conn) else { return };
        self.with_torrent(now, id, |t| t.handle_connect_failed(now, addr, error));
        self.start_dials();
    }

    /// One frame came in: the handshake first, then messages.
    pub fn handle_frame(&mut self, now: Instant, conn: ConnId, frame: Bytes) {
        match self.connections.owner(conn) {
            Some((Owner::Torrent(id), _)) => {
                self.with_torrent(now, id, |t| t.handle_frame(now, conn, frame));
            }
            Some((Owner::Unheard(id), _)) => {
                self.connections.heard(conn, id);
                self.with_torrent(now, id, |t| t.handle_frame(now, conn, frame));
                self.start_dials();
            }
            Some((Owner::Stranger, addr)) => self.on_hello(now, conn, addr, &frame),
            Some((Owner::Dialling(_), _)) | None => {}
        }
    }

    fn on_hello(&mut self, now: Instant, conn: ConnId, addr: SocketAddr, frame: &[u8]) {
        let refusal = match Handshake::decode(frame) {
            Ok(handshake) => match self.by_hash.get(&handshake.info_hash).copied() {
                Some(id) => {
                    self.connections.adopt(conn, id);
                    if !self.connections.is_overfull() || self.make_room(now, id, Some(addr)) {
                        self.stir(now, id);
                        self.with_torrent(now, id, |t| {
                            t.handle_accepted(now, conn, addr, handshake);
                        });
                        return;
                    }
                    CloseReason::Crowded
                }
                None => CloseReason::UnknownTorrent,
            },
            Err(_) => CloseReason::Misbehavior(Misbehavior::BadHandshake),
        };
        self.connections.remove(conn);
        self.close(conn, refusal);
    }

    // Somebody comes to a torrent.
    fn stir(&mut self, now: Instant, id: TorrentId) {
        let Some(slot) = self.torrents.get_mut(&id).filter(|s| s.torrent.is_idle_seed()) else {
            return;
        };
        slot.discovery.iter_mut().for_each(|d| d.stir(now));
        self.note_wake(id);
    }

    // All places of all torrents are taken: the torrent that is asked for, or that wants to dial, gives
    // one up for the newcomer, or else the one that has most.
    fn make_room(&mut self, now: Instant, id: TorrentId, newcomer: Option<SocketAddr>) -> bool {
        let most = self.torrents.iter().max_by_key(|(_, slot)| slot.torrent.connections());
        let most = most.map(|(id, _)| *id);
        for id in std::iter::once(id).chain(most) {
            let mut made = false;
            self.with_torrent(now, id, |t| made = t.make_room_for(now, newcomer));
            if made {
                return true;
            }
        }
        false
    }

    // Peers that wait to be dialled do not wait for ever behind those that are of no use to anybody.
    fn make_room_for_dials(&mut self, now: Instant) {
        let Some(id) = self.connections.crowded_out() else { return };
        if self.made_room_at.is_none_or(|at| now.since(at) >= MAKE_ROOM_EVERY) {
            self.made_room_at = Some(now);
            self.make_room(now, id, None);
        }
    }

    /// The host wrote `bytes` more of what was sent.
    pub fn handle_sent(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        if let Some((Owner::Torrent(id) | Owner::Unheard(id), _)) = self.connections.owner(conn) {
            self.with_torrent(now, id, |t| t.handle_sent(now, conn, bytes));
        }
    }

    /// The other side closed, or the connection broke.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        match self.connections.remove(conn) {
            Some((Owner::Torrent(id) | Owner::Unheard(id), _)) => {
                self.with_torrent(now, id, |t| t.handle_closed(now, conn));
            }
            Some((Owner::Dialling(id), addr)) => {
                let error = DialError::Unreachable;
                self.with_torrent(now, id, |t| t.handle_connect_failed(now, addr, error));
            }
            Some((Owner::Stranger, _)) | None => {}
        }
        self.start_dials();
    }

    /// The storage of a torrent answered.
    pub fn handle_disk(&mut self, now: Instant, id: TorrentId, event: DiskEvent) {
        self.with_torrent(now, id, |t| t.handle_disk(now, event));
    }

    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.outputs.push_back(Output::Close { conn, reason });
    }

    pub(super) fn start_dials(&mut self) {
        while let Some((conn, addr)) = self.connections.next_dial() {
            for displaced in self.connections.take_displaced() {
                self.close(displaced, CloseReason::Crowded);
            }
            self.outputs.push_back(Output::Connect { conn, addr });
        }
    }
}

/// So often one connection that is of no use may have to leave for a dial.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(500);
