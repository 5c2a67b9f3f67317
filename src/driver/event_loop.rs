//! The one task that owns the engine. It gathers what happened (datagrams, frames, disk results,
//! wishes, time), hands it in, and carries out what comes out. It never waits for anybody: every
//! queue it writes to is bounded by the cores, and a full one closes its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, broadcast, mpsc};

use crate::base::addr::Family;
use crate::base::{Instant, Seed};
use crate::driver::buffers::Buffers;
use crate::driver::clock::Clock;
use crate::driver::command::Command;
use crate::driver::disk::DiskPool;
use crate::driver::node_state::Memory;
use crate::driver::session::{Bound, node_config};
use crate::driver::tcp::{self, Handle, Input, Item};
use crate::driver::udp::UdpSockets;
use crate::driver::{SessionConfig, SessionEvent, TorrentEvent, dns, node_state};
use crate::engine::{self, CommandId, Engine, Event, NodeEvent, SocketId, TorrentId};
use crate::peer::ConnId;
use crate::swarm::{self, DiskEvent};

mod readers;
mod wishes;

use readers::Readers;
use wishes::Listeners;

/// What the loop is made from.
pub(super) struct Parts {
    pub(super) config: SessionConfig,
    pub(super) engine: engine::Config,
    pub(super) bound: Vec<Bound>,
    pub(super) seed: Seed,
    pub(super) wishes: mpsc::Receiver<Command>,
}

pub(super) struct EventLoop {
    config: SessionConfig,
    clock: Clock,
    engine: Engine,
    udp: UdpSockets,
    local_addrs: Vec<SocketAddr>,
    handles: BTreeMap<ConnId, Handle>,
    buffers: Arc<Buffers>,
    torrents: BTreeMap<TorrentId, Listeners>,
    news: broadcast::Sender<SessionEvent>,
    readers: Readers,
    dht_commands: BTreeMap<CommandId, mpsc::Sender<NodeEvent>>,
    disk: Option<DiskPool>,
    disk_wake: Arc<Notify>,
    disk_events: Vec<(u32, DiskEvent)>,
    inputs: mpsc::Receiver<Input>,
    inputs_in: mpsc::Sender<Input>,
    dns: mpsc::Receiver<Vec<SocketAddr>>,
    dns_in: mpsc::Sender<Vec<SocketAddr>>,
    memory: Option<Memory>,
    // Asked again and again while nobody answers, and counted once.
    bootstrap_addrs: BTreeSet<SocketAddr>,
    wishes: mpsc::Receiver<Command>,
    save_at: Instant,
}

impl EventLoop {
    pub(super) fn new(parts: Parts) -> EventLoop {
        let Parts { config, mut engine, bound, seed, wishes } = parts;
        let clock = Clock::start();
        let (inputs_in, inputs) = mpsc::channel(INPUTS_QUEUED_MAX);
        let (dns_in, dns) = mpsc::channel(DNS_QUEUED_MAX);
        let local_addrs: Vec<SocketAddr> = bound.iter().map(|b| b.addr).collect();
        let memory = config.state_dir.as_deref().filter(|_| config.dht).map(Memory::open);
        let mut sockets = Vec::new();
        for (id, one) in (0u8..).zip(bound) {
            if let Some(listener) = one.tcp {
                tokio::spawn(tcp::accept(listener, inputs_in.clone()));
            }
            if let Some(udp) = one.udp {
                let mut node = node_config(SocketId(id), one.addr, &config);
                if let Some(memory) = &memory {
                    memory.load(&mut node, &engine.nodes);
                }
                engine.nodes.push(node);
                sockets.push(udp);
            }
        }
        let disk_wake = Arc::new(Notify::new());
        let engine = Engine::new(engine, seed, clock.now());
        EventLoop {
            config,
            clock,
            engine,
            udp: UdpSockets::new(sockets),
            local_addrs,
            handles: BTreeMap::new(),
            buffers: Arc::default(),
            torrents: BTreeMap::new(),
            news: broadcast::Sender::new(SESSION_EVENTS_QUEUED_MAX),
            readers: Readers::default(),
            dht_commands: BTreeMap::new(),
            disk: None,
            disk_wake,
            disk_events: Vec::new(),
            inputs,
            inputs_in,
            dns,
            dns_in,
            memory,
            bootstrap_addrs: BTreeSet::new(),
            wishes,
            save_at: Instant::ZERO + SAVE_EVERY,
        }
    }

    pub(super) async fn run(mut self) {
        if self.config.dht {
            self.find_bootstrap_nodes();
        }
        let mut batch = Vec::new();
        loop {
            self.carry_out();
            let wake = self.engine.poll_timeout().unwrap_or(Instant::FAR_FUTURE).min(self.save_at);
            let deadline = self.clock.deadline(wake);
            tokio::select! {
                _ = self.inputs.recv_many(&mut batch, INPUTS_PER_TURN_MAX) => {}
                () = self.disk_wake.notified() => {}
                () = poll_fn(|cx| self.udp.poll_readable(cx)) => {}
                Some(addrs) = self.dns.recv() => self.on_bootstrap(&addrs),
                wish = self.wishes.recv() => {
                    let Some(wish) = wish else { return self.shutdown().await };
                    if let Some(reply) = self.on_wish(wish) {
                        self.shutdown().await;
                        // The caller may not wait for it.
                        let _ = reply.send(());
                        return;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.turn(&mut batch);
        }
    }

    // One turn: everything that waits is handed in under one reading of the clock.
    fn turn(&mut self, batch: &mut Vec<Input>) {
        let now = self.clock.now();
        for input in batch.drain(..) {
            self.on_input(now, input);
        }
        if let Some(disk) = &self.disk {
            disk.drain(&mut self.disk_events);
        }
        for (id, event) in self.disk_events.drain(..) {
            self.engine.handle_disk(now, TorrentId(id), event);
        }
        let engine = &mut self.engine;
        self.udp.receive(|socket, from, datagram| {
            engine.handle_datagram(now, socket, from, datagram);
        });
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
        }
        if self.save_at <= now {
            self.save_at = now + SAVE_EVERY;
            self.save_nodes_in_background();
        }
    }

    fn converse(&self, conn: ConnId, stream: TcpStream) -> Handle {
        tcp::start(conn, stream, self.inputs_in.clone(), self.buffers.clone())
    }

    fn on_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Accepted(stream, addr, ahead) => {
                match self.engine.accept(now, addr) {
                    Some(conn) => {
                        let handle = self.converse(conn, stream);
                        self.handles.insert(conn, handle);
                    }
                    None => tcp::refuse(stream),
                }
                drop(ahead);
            }
            Input::Connected(conn, stream) => {
                if self.engine.handle_connected(now, conn) {
                    let handle = self.converse(conn, stream);
                    self.handles.insert(conn, handle);
                }
            }
            Input::ConnectFailed(conn, error) => {
                self.engine.handle_connect_failed(now, conn, error);
            }
            Input::Frames(conn, frames) => {
                for frame in frames {
                    self.engine.handle_frame(now, conn, frame);
                }
            }
            Input::Sent(conn, bytes) => self.engine.handle_sent(now, conn, bytes),
            Input::Closed(conn) => {
                if let Some(handle) = self.handles.remove(&conn) {
                    handle.close();
                    self.engine.handle_closed(now, conn);
                }
            }
        }
    }

    // ---- what the engine wants done ----

    fn carry_out(&mut self) {
        for (socket, datagrams) in self.engine.datagrams() {
            self.udp.send_all(socket, datagrams);
        }
        while let Some(output) = self.engine.poll_output() {
            match output {
                engine::Output::Transmit { socket, to, datagram } => {
                    self.udp.send(socket, to, &datagram);
                }
                engine::Output::Connect { conn, addr } => {
                    let from = self.dial_from(addr);
                    tokio::spawn(tcp::dial(conn, addr, from, self.inputs_in.clone()));
                }
                engine::Output::Send { conn, bytes } => self.send(conn, Item::Bytes(bytes)),
                engine::Output::SendBlock { conn, head, block } => {
                    self.send(conn, Item::Block(head, block));
                }
                engine::Output::Close { conn, reason } => {
                    tracing::trace!(conn = conn.0, ?reason, "close");
                    if let Some(handle) = self.handles.remove(&conn) {
                        handle.close();
                    }
                }
                engine::Output::Disk { torrent, request } => {
                    if let Some(disk) = &self.disk {
                        disk.submit(torrent.0, request);
                    }
                }
                engine::Output::Event(event) => self.on_event(event),
            }
        }
    }

    fn send(&mut self, conn: ConnId, item: Item) {
        let Some(handle) = self.handles.get(&conn) else { return };
        if !handle.send(item) {
            // Its writer is gone or hopelessly behind.
            if let Some(handle) = self.handles.remove(&conn) {
                handle.close();
            }
            self.engine.handle_closed(self.clock.now(), conn);
        }
    }

    // The listening address of that family, if it is a certain one: what we send by TCP comes from
    // where what we send by UDP comes from.
    fn dial_from(&self, to: SocketAddr) -> Option<SocketAddr> {
        let same = |a: &&SocketAddr| Family::of(a) == Family::of(&to) && !a.ip().is_unspecified();
        self.local_addrs.iter().find(same).copied()
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Torrent { torrent, event } => {
                tracing::debug!(torrent = torrent.0, ?event, "torrent");
                match event {
                    swarm::Event::PieceVerified(piece) => self.serve_waiting(torrent, Some(piece)),
                    swarm::Event::Opened { .. } | swarm::Event::Failed(_) => {
                        self.serve_waiting(torrent, None);
                        self.tell(torrent, TorrentEvent::Swarm(event));
                    }
                    event => self.tell(torrent, TorrentEvent::Swarm(event)),
                }
            }
            Event::LookupDone { torrent, report } => {
                tracing::debug!(torrent = torrent.0, ?report, "lookup done");
                self.tell(torrent, TorrentEvent::LookupDone(report));
            }
            Event::Command { command, event } => self.on_command_event(command, event),
            Event::ItemKept { socket, item, copies, stored } => {
                let (socket, target, seq) = (socket.0, item.target(), item.seq());
                tracing::debug!(socket, %target, ?seq, copies, stored, "an item was looked after");
            }
            Event::NeedBootstrap(_) => self.find_bootstrap_nodes(),
            Event::ExternalAddress(socket, ip) => {
                tracing::info!(socket = socket.0, %ip, "external address");
            }
            Event::Reachability(socket, verdict) => {
                tracing::info!(socket = socket.0, ?verdict, "whether strangers reach the DHT node");
            }
        }
    }

    fn tell(&mut self, torrent: TorrentId, event: TorrentEvent) {
        let Some(listeners) = self.torrents.get_mut(&torrent) else { return };
        listeners.tell(&event);
        let info_hash = listeners.info_hash;
        self.announce(|| SessionEvent::Torrent { info_hash, event });
    }

    // Tells whoever listens to the whole session; most sessions have nobody.
    fn announce(&self, event: impl FnOnce() -> SessionEvent) {
        if self.news.receiver_count() > 0 {
            // The last one may leave in this moment.
            let _ = self.news.send(event());
        }
    }

    fn on_command_event(&mut self, command: CommandId, event: NodeEvent) {
        let is_last = event.is_last();
        let Some(news) = self.dht_commands.get(&command) else { return };
        let is_unwanted = matches!(news.try_send(event), Err(TrySendError::Closed(_)));
        if is_last || is_unwanted {
            self.dht_commands.remove(&command);
        }
        if is_unwanted {
            self.engine.cancel(command);
        }
    }

    fn sweep_dht_commands(&mut self) {
        let unwanted: Vec<CommandId> =
            self.dht_commands.iter().filter(|(_, n)| n.is_closed()).map(|(id, _)| *id).collect();
        for command in unwanted {
            self.dht_commands.remove(&command);
            self.engine.cancel(command);
        }
    }

    // ---- bootstrap ----

    fn find_bootstrap_nodes(&mut self) {
        let literals = dns::literals(&self.config.bootstrap);
        if !literals.is_empty() {
            self.on_bootstrap(&literals);
        }
        dns::resolve(&self.config.bootstrap, &self.dns_in);
    }

    fn on_bootstrap(&mut self, addrs: &[SocketAddr]) {
        for addr in addrs {
            if self.bootstrap_addrs.len() < BOOTSTRAP_COUNTED_MAX {
                self.bootstrap_addrs.insert(*addr);
            }
        }
        self.engine.bootstrap(self.clock.now(), addrs);
    }

    // ---- state ----

    fn save_nodes_in_background(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.take_over();
        }
        let Some(dir) = self.memory.as_ref().and_then(Memory::dir) else { return };
        let states = node_state::collect(&self.engine);
        tokio::task::spawn_blocking(move || node_state::save(&dir, &states));
    }

    async fn shutdown(&mut self) {
        self.engine.shutdown(self.clock.now());
        self.carry_out();
        self.torrents.clear();
        let disk = self.disk.take();
        let dir = self.memory.as_ref().and_then(Memory::dir);
        let state = dir.map(|dir| (dir, node_state::collect(&self.engine)));
        let last = tokio::task::spawn_blocking(move || {
            if let Some((dir, states)) = state {
                node_state::save(&dir, &states);
            }
            if let Some(disk) = disk {
                disk.shutdown();
            }
        });
        if tokio::time::timeout(SHUTDOWN_MAX, last).await.is_err() {
            tracing::warn!("the disk takes too long: leaving without waiting for it");
        }
        // Unlocked before the caller hears that we have ended.
        self.memory = None;
    }
}

/// How often node state is saved while running.
const SAVE_EVERY: Duration = Duration::from_secs(300);
const SHUTDOWN_MAX: Duration = Duration::from_secs(4);
/// Messages of connections that wait for the loop. Each holds at most one read's frames: 32 of
/// 256 KiB are 8 MiB, and as much again is taken in one turn, however many connections there are.
const INPUTS_QUEUED_MAX: usize = 32;
const INPUTS_PER_TURN_MAX: usize = 32;
/// News for those who listen to the whole session; who is further behind misses some.
const SESSION_EVENTS_QUEUED_MAX: usize = 1024;
const DNS_QUEUED_MAX: usize = 64;
/// Names change their addresses over months; for the eye this many are many.
const BOOTSTRAP_COUNTED_MAX: usize = 256;
