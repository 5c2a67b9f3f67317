//! A whole client in the world: an engine, and the storage of its torrents.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::disk::MemoryDisk;
use super::host::{Effect, Host};
use crate::base::addr::Family;
use crate::base::budget::RateLimits;
use crate::base::time::soonest;
use crate::base::{Instant, PeerId, Rng, Seed};
use crate::dht;
use crate::engine::{
    AddError, AddTorrent, Config, Engine, Event, NodeConfig, Output, SocketId, TorrentId,
};
use crate::peer::ConnId;
use crate::swarm::{DialError, DiskEvent, DiskRequest};

/// An engine with one DHT node, and its disks.
#[derive(Debug)]
pub struct Client {
    engine: Engine,
    disks: BTreeMap<TorrentId, MemoryDisk>,
    /// How long a disk takes for one job.
    disk_time: Duration,
    /// Answers of the disks that are still to come, in order.
    answers: BTreeMap<(Instant, u64), (TorrentId, DiskEvent)>,
    jobs: u64,
    closing: VecDeque<ConnId>,
}

impl Client {
    /// A client at `addr`, whose disks take `disk_time` for each job.
    pub fn new(addr: SocketAddr, seed: Seed, now: Instant, disk_time: Duration) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut config = Config::new(PeerId::random(&mut rng));
        config.listen_port = Some(addr.port());
        config.nodes = vec![NodeConfig {
            socket: SOCKET,
            port: addr.port(),
            dht: dht::Config::new(Family::of(&addr)),
            id: None,
            contacts: Vec::new(),
            own_addrs: vec![addr],
        }];
        Self {
            engine: Engine::new(config, rng.fork(), now),
            disks: BTreeMap::new(),
            disk_time,
            answers: BTreeMap::new(),
            jobs: 0,
            closing: VecDeque::new(),
        }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts the DHT from these addresses.
    pub fn bootstrap(&mut self, now: Instant, routers: &[SocketAddr]) {
        self.engine.bootstrap(now, routers);
    }

    /// Adds a torrent that is stored on `disk`.
    pub fn add(
        &mut self,
        now: Instant,
        add: AddTorrent,
        disk: MemoryDisk,
    ) -> Result<TorrentId, AddError> {
        let id = self.engine.add_torrent(now, add)?;
        self.disks.insert(id, disk);
        Ok(id)
    }

    /// More peers for a torrent.
    pub fn add_peers(&mut self, now: Instant, torrent: TorrentId, peers: &[SocketAddr]) {
        self.engine.add_peers(now, torrent, peers);
    }

    /// Limits what all its torrents together may send and receive.
    pub fn set_limits(&mut self, now: Instant, limits: RateLimits) {
        self.engine.set_limits(now, limits);
    }

    /// The storage of a torrent.
    pub fn disk(&self, torrent: TorrentId) -> Option<&MemoryDisk> {
        self.disks.get(&torrent)
    }

    /// Takes a torrent's storage away, as whoever ends the process does.
    pub fn take_disk(&mut self, torrent: TorrentId) -> Option<MemoryDisk> {
        self.disks.remove(&torrent)
    }

    fn on_job(&mut self, now: Instant, torrent: TorrentId, request: DiskRequest) {
        let Some(disk) = self.disks.get_mut(&torrent) else { return };
        for event in disk.handle(request) {
            self.answers.insert((now + self.disk_time, self.jobs), (torrent, event));
            self.jobs += 1;
        }
    }
}

impl Host for Client {
    type Note = Event;

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.engine.handle_datagram(now, SOCKET, from, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(answer) = self.answers.first_entry().filter(|a| a.key().0 <= now) {
            let (torrent, event) = answer.remove();
            self.engine.handle_disk(now, torrent, event);
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
        }
    }

    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Event>> {
        if let Some(conn) = self.closing.pop_front() {
            return Some(Effect::Close { conn });
        }
        loop {
            return Some(match self.engine.poll_output()? {
                Output::Transmit { socket: _, to, datagram } => Effect::Transmit { to, datagram },
                Output::Connect { conn, addr } => Effect::Connect { conn, addr },
                Output::Send { conn, bytes } => Effect::Send { conn, bytes },
                Output::SendBlock { conn, head, block } => {
                    let mut bytes = BytesMut::with_capacity(head.len() + block.len());
                    bytes.extend_from_slice(&head);
                    bytes.extend_from_slice(&block);
                    Effect::Send { conn, bytes: bytes.freeze() }
                }
                Output::Close { conn, reason: _ } => Effect::Close { conn },
                Output::Disk { torrent, request } => {
                    self.on_job(now, torrent, request);
                    continue;
                }
                Output::Event(event) => Effect::Note(event),
            });
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let answer = self.answers.first_key_value().map(|((at, _), _)| *at);
        soonest(answer, self.engine.poll_timeout())
    }

    fn accept(&mut self, now: Instant, from: SocketAddr) -> Option<ConnId> {
        self.engine.accept(now, from)
    }

    fn handle_connected(&mut self, now: Instant, conn: ConnId) {
        // It may have lost its interest while the dial was under way.
        if !self.engine.handle_connected(now, conn) {
            self.closing.push_back(conn);
        }
    }

    fn handle_connect_failed(&mut self, now: Instant, conn: ConnId, error: DialError) {
        self.engine.handle_connect_failed(now, conn, error);
    }

    fn handle_frame(&mut self, now: Instant, conn: ConnId, frame: Bytes) {
        self.engine.handle_frame(now, conn, frame);
    }

    fn handle_sent(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        self.engine.handle_sent(now, conn, bytes);
    }

    fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        self.engine.handle_closed(now, conn);
    }
}

const SOCKET: SocketId = SocketId(0);
