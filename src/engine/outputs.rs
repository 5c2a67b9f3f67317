//! What comes out of the cores: carried on to the host, or across to the other side. Here a peer
//! that a lookup named becomes a candidate, and a lonely torrent's lookup is started.

use std::net::SocketAddr;

use crate::base::addr::Family;
use crate::base::time::soonest;
use crate::base::{InfoHash, Instant};
use crate::dht::{self, Announcement, LookupId, LookupReport, Priority};
use crate::engine::discovery::{Discovery, Need, Outlook};
use crate::engine::switchboard::{Asker, Engine};
use crate::engine::{Event, NodeEvent, Output, SocketId, TorrentId};
use crate::swarm::{self, PeerSource, Phase, Torrent};
use crate::wire::metainfo::Info;

impl Engine {
    // Runs `act` on a torrent, then carries its outputs on and notes when it wants to be woken.
    pub(super) fn with_torrent(
        &mut self,
        now: Instant,
        id: TorrentId,
        act: impl FnOnce(&mut Torrent),
    ) {
        let Some(slot) = self.torrents.get_mut(&id) else { return };
        slot.torrent.lend(self.sharing.budgets());
        act(&mut slot.torrent);
        self.sharing.take_back(id, &slot.torrent);
        let mut closed = false;
        while let Some(output) = self.torrents.get_mut(&id).and_then(|s| s.torrent.poll_output()) {
            closed |= matches!(output, swarm::Output::Close { .. });
            self.on_torrent_output(now, id, output);
        }
        self.look_up(now, id);
        self.start_dials_if(closed);
        self.note_wake(id);
    }

    pub(super) fn start_dials_if(&mut self, room: bool) {
        if room {
            self.start_dials();
        }
    }

    pub(super) fn note_wake(&mut self, id: TorrentId) {
        let Some(slot) = self.torrents.get_mut(&id) else { return };
        let discovery = slot.discovery.as_ref().and_then(Discovery::poll_timeout);
        let wake = soonest(slot.torrent.poll_timeout(), discovery);
        if wake != slot.wake {
            if let Some(at) = slot.wake {
                self.wakes.remove(&(at, id));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, id));
            }
            slot.wake = wake;
        }
    }

    fn on_torrent_output(&mut self, now: Instant, id: TorrentId, output: swarm::Output) {
        let translated = match output {
            swarm::Output::Connect { addr } => {
                self.connections.queue_dial(id, addr);
                self.start_dials();
                return;
            }
            swarm::Output::Send { conn, bytes } => Output::Send { conn, bytes },
            swarm::Output::SendBlock { conn, head, block } => {
                Output::SendBlock { conn, head, block }
            }
            swarm::Output::Close { conn, reason } => {
                self.connections.remove(conn);
                Output::Close { conn, reason }
            }
            swarm::Output::Disk(request) => Output::Disk { torrent: id, request },
            swarm::Output::Event(event) => {
                self.on_torrent_event(now, id, &event);
                Output::Event(Event::Torrent { torrent: id, event })
            }
        };
        self.outputs.push_back(translated);
    }

    fn on_torrent_event(&mut self, now: Instant, id: TorrentId, event: &swarm::Event) {
        match event {
            swarm::Event::DhtNode { addr } => {
                self.each_node(|slot| {
                    if slot.family == Family::of(addr) {
                        slot.node.add_contact(now, *addr);
                    }
                });
            }
            swarm::Event::MetadataReady { info } => {
                // BEP 27, for a magnet: now that we know, no further lookup.
                if Info::decode(info).is_ok_and(|i| i.private) {
                    self.end_discovery(id);
                }
            }
            swarm::Event::Failed(_) => self.rest_discovery(id),
            swarm::Event::MetadataUnusable { .. } => self.end_discovery(id),
            swarm::Event::Opened { .. } | swarm::Event::Finished => self.note_seed(id),
            swarm::Event::PieceVerified(_)
            | swarm::Event::PieceFailed(_)
            | swarm::Event::PieceLost(_)
            | swarm::Event::FileChanged { .. }
            | swarm::Event::PeerMisbehaved { .. }
            | swarm::Event::PeerBanned { .. } => {}
        }
    }

    // Nodes that keep it announced say so from now on (BEP 33).
    fn note_seed(&mut self, id: TorrentId) {
        let Some(slot) = self.torrents.get(&id).filter(|s| s.torrent.is_seed()) else { return };
        for node in &mut self.nodes {
            node.node.announce_as_seed(slot.info_hash);
        }
    }

    fn end_discovery(&mut self, id: TorrentId) {
        self.rest_discovery(id);
        self.torrents.get_mut(&id).into_iter().for_each(|slot| slot.discovery = None);
    }

    // The DHT is not asked for it, nor told of it, until that is hurried.
    pub(super) fn rest_discovery(&mut self, id: TorrentId) {
        let Some(slot) = self.torrents.get_mut(&id) else { return };
        let Some(discovery) = &mut slot.discovery else { return };
        let (hash, running) = (slot.info_hash, discovery.stop());
        self.stop_announcing(hash);
        self.cancel_lookups(&running);
    }

    // Nobody waits for these any more.
    pub(super) fn cancel_lookups(&mut self, running: &[(SocketId, LookupId)]) {
        for (socket, lookup) in running {
            self.lookups.remove(&(*socket, *lookup));
            if let Some(slot) = self.nodes.iter_mut().find(|s| s.socket == *socket) {
                slot.node.cancel(*lookup);
            }
        }
    }

    // Starts the torrent's lookup if one is due. With a port of ours to name, the lookup announces.
    fn look_up(&mut self, now: Instant, id: TorrentId) {
        let Some(slot) = self.torrents.get_mut(&id) else { return };
        let Some(discovery) = slot.discovery.as_mut().filter(|d| d.is_due(now)) else { return };
        if slot.torrent.phase() == Phase::Stopped {
            discovery.stop();
            let hash = slot.info_hash;
            return self.stop_announcing(hash);
        }
        let (hash, announces) = (slot.info_hash, slot.announces);
        let seed = slot.torrent.is_seed();
        let port = self.config.listen_port.filter(|_| announces);
        // One of many waits for its turn, in the order that makes all of them cheapest.
        let is_one_of_many = self.lookups.len() >= INTERACTIVE_LOOKUPS_MAX;
        let priority = if is_one_of_many { Priority::Bulk } else { Priority::Interactive };
        let mut started = Vec::new();
        self.each_node(|n| {
            let lookup = match port {
                Some(port) => {
                    let port = (port != n.port).then_some(port);
                    let how = Announcement { port, seed, priority, keep: true };
                    n.node.announce_as(now, hash, how)
                }
                None => n.node.get_peers_at(now, hash, priority),
            };
            started.push((n.socket, lookup));
        });
        self.lookups.extend(started.iter().map(|lookup| (*lookup, Asker::Torrent(id))));
        if let Some(d) = self.torrents.get_mut(&id).and_then(|s| s.discovery.as_mut()) {
            d.on_started(now, started, announces);
        }
        self.drain_nodes(now);
    }

    pub(super) fn drain_nodes(&mut self, now: Instant) {
        for at in 0..self.nodes.len() {
            self.drain_node(now, at);
        }
    }

    pub(super) fn drain_node(&mut self, now: Instant, at: usize) {
        self.share_flows();
        let socket = self.nodes[at].socket;
        // Datagrams stay where they are until the host takes them.
        while let Some(event) = self.nodes[at].node.poll_event() {
            self.on_node_event(now, socket, event);
        }
    }

    fn on_node_event(&mut self, now: Instant, socket: SocketId, event: dht::Event) {
        match event {
            dht::Event::PeersFound { lookup, peers } => self.on_peers(now, socket, lookup, peers),
            dht::Event::LookupDone { lookup, report } => {
                self.on_lookup(now, socket, lookup, report)
            }
            dht::Event::Renewed { info_hash, peers, report } => {
                self.on_renewed(now, socket, info_hash, &peers, *report);
            }
            dht::Event::Step { lookup, step } => {
                if let Some(Asker::Command(command)) = self.lookups.get(&(socket, lookup)) {
                    self.tell(*command, NodeEvent::Step(step));
                }
            }
            dht::Event::ItemFound { lookup, item } => {
                if let Some(Asker::Command(command)) = self.lookups.get(&(socket, lookup)) {
                    self.tell(*command, NodeEvent::Item(item));
                }
            }
            dht::Event::Samples { lookup, from, info_hashes, total, interval } => {
                if let Some(Asker::Command(command)) = self.lookups.get(&(socket, lookup)) {
                    let event = NodeEvent::Samples { from, info_hashes, total, interval };
                    self.tell(*command, event);
                }
            }
            dht::Event::ItemKept { item, copies, stored } => {
                let event = Event::ItemKept { socket, item, copies, stored };
                self.outputs.push_back(Output::Event(event));
            }
            dht::Event::PingDone { ping, id, rtt } => {
                if let Some(command) = self.pings.remove(&(socket, ping)) {
                    self.tell(command, NodeEvent::Pinged { id, rtt });
                }
            }
            dht::Event::NeedBootstrap => {
                self.seek_for(now, socket);
                self.outputs.push_back(Output::Event(Event::NeedBootstrap(socket)));
            }
            dht::Event::ContactsBeside(addrs) => self.pass_on(now, &addrs),
            dht::Event::TableGrew { .. } => self.hurry_lonely(now),
            dht::Event::ExternalAddress(ip) => {
                self.on_external_address();
                self.outputs.push_back(Output::Event(Event::ExternalAddress(socket, ip)));
            }
            dht::Event::Reachability(verdict) => {
                self.outputs.push_back(Output::Event(Event::Reachability(socket, verdict)));
            }
            dht::Event::IdChanged(_) => {}
        }
    }

    // One family knows nobody: nodes of the other ask whom they know for some (BEP 32).
    fn seek_for(&mut self, now: Instant, socket: SocketId) {
        let Some(family) = self.nodes.iter().find(|s| s.socket == socket).map(|s| s.family) else {
            return;
        };
        for slot in self.nodes.iter_mut().filter(|s| s.family != family) {
            slot.node.seek_beside(now);
        }
    }

    fn pass_on(&mut self, now: Instant, addrs: &[SocketAddr]) {
        for addr in addrs {
            let family = Family::of(addr);
            for slot in self.nodes.iter_mut().filter(|s| s.family == family) {
                slot.node.add_contact(now, *addr);
            }
        }
    }

    // Beside those that we listen on, one of each node; a new one replaces the old.
    fn on_external_address(&mut self) {
        let Some(port) = self.config.listen_port else { return };
        let seen = self.nodes.iter().filter_map(|slot| slot.node.external_addr());
        self.own_addrs = self.config.listened_on().collect();
        self.own_addrs.extend(seen.map(|ip| SocketAddr::new(ip, port)));
        for slot in self.torrents.values_mut() {
            slot.torrent.set_own_addrs(&self.own_addrs);
        }
    }

    // The table grew: whoever has no peers, or is hardly announced, looks again now.
    fn hurry_lonely(&mut self, now: Instant) {
        let lonely: Vec<TorrentId> = self
            .torrents
            .iter()
            .filter(|(_, s)| {
                let needs = |d: &Discovery| s.torrent.is_lonely() || d.is_thin();
                !s.torrent.is_paused() && s.discovery.as_ref().is_some_and(needs)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in lonely {
            if let Some(d) = self.torrents.get_mut(&id).and_then(|s| s.discovery.as_mut()) {
                d.hurry(now);
            }
            self.note_wake(id);
        }
    }

    fn on_peers(
        &mut self,
        now: Instant,
        socket: SocketId,
        lookup: LookupId,
        peers: Vec<SocketAddr>,
    ) {
        match self.lookups.get(&(socket, lookup)).copied() {
            Some(Asker::Torrent(id)) => {
                if let Some(d) = self.torrents.get_mut(&id).and_then(|s| s.discovery.as_mut()) {
                    d.on_peers(peers.len());
                }
                self.with_torrent(now, id, |t| t.add_peers(now, PeerSource::Dht, &peers));
            }
            Some(Asker::Command(command)) => self.tell(command, NodeEvent::Peers(peers)),
            None => {}
        }
    }

    fn on_lookup(
        &mut self,
        now: Instant,
        socket: SocketId,
        lookup: LookupId,
        report: dht::LookupReport,
    ) {
        let Some(asker) = self.lookups.remove(&(socket, lookup)) else { return };
        if report.asked > 0 {
            self.cancel_idle(asker);
        }
        match asker {
            Asker::Torrent(id) => {
                let Some(outlook) = self.outlook(id) else { return };
                let discovery = self.torrents.get_mut(&id).and_then(|s| s.discovery.as_mut());
                if let Some(d) = discovery {
                    d.on_done(now, socket, lookup, &report, outlook);
                }
                self.note_wake(id);
                let event = Event::LookupDone { torrent: id, report };
                self.outputs.push_back(Output::Event(event));
            }
            Asker::Command(command) => {
                let last = !self.lookups.values().any(|a| *a == Asker::Command(command));
                self.tell(command, NodeEvent::Done { report, last });
            }
        }
    }

    // A node has announced a torrent anew, and met peers while it did.
    fn on_renewed(
        &mut self,
        now: Instant,
        socket: SocketId,
        hash: InfoHash,
        peers: &[SocketAddr],
        report: LookupReport,
    ) {
        let id = self.by_hash.get(&hash).copied();
        let slot = id.and_then(|id| self.torrents.get(&id));
        let wanted = slot.filter(|s| s.discovery.is_some() && s.torrent.phase() != Phase::Stopped);
        let (Some(id), Some(_)) = (id, wanted) else { return self.stop_announcing(hash) };
        let Some(outlook) = self.outlook(id) else { return };
        if let Some(d) = self.torrents.get_mut(&id).and_then(|s| s.discovery.as_mut()) {
            d.on_peers(peers.len());
            d.on_renewed(now, socket, &report, outlook);
        }
        self.outputs.push_back(Output::Event(Event::LookupDone { torrent: id, report }));
        self.with_torrent(now, id, |t| t.add_peers(now, PeerSource::Dht, peers));
    }

    fn outlook(&self, id: TorrentId) -> Option<Outlook> {
        let slot = self.torrents.get(&id)?;
        let need = if slot.torrent.is_lonely() {
            Need::Nobody
        } else if slot.torrent.wants_peers() {
            Need::More
        } else {
            Need::Nothing
        };
        let torrents = u32::try_from(self.torrents.len()).unwrap_or(u32::MAX);
        let is_kept = self.nodes.iter().any(|s| s.node.is_announcing(slot.info_hash));
        Some(Outlook { need, is_kept, torrents })
    }

    pub(super) fn stop_announcing(&mut self, hash: InfoHash) {
        for slot in &mut self.nodes {
            slot.node.stop_announcing(hash);
        }
    }

    // One family has found somebody to ask, and is done; a node of another that knows nobody by now (a
    // host without IPv6) would only hold the end up, and the news that nobody answered at all.
    fn cancel_idle(&mut self, asker: Asker) {
        let siblings: Vec<_> =
            self.lookups.iter().filter(|(_, a)| **a == asker).map(|(l, _)| *l).collect();
        for (socket, lookup) in siblings {
            let Some(slot) = self.nodes.iter_mut().find(|s| s.socket == socket) else { continue };
            if slot.node.lookup_progress(lookup).is_some_and(|p| p.asked == 0 && !p.held) {
                slot.node.cancel(lookup);
                self.lookups.remove(&(socket, lookup));
                if let Asker::Torrent(id) = asker {
                    let slot = self.torrents.get_mut(&id);
                    if let Some(d) = slot.and_then(|s| s.discovery.as_mut()) {
                        d.on_cancelled(socket, lookup);
                    }
                }
            }
        }
    }
}

/// Lookups at once for each of which somebody is taken to wait; the torrents of whoever has more have
/// their first ones in turn.
const INTERACTIVE_LOOKUPS_MAX: usize = 16;
