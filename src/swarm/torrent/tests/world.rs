//! A small world for torrent cores: virtual time, links with delay and bandwidth, disks in memory,
//! and peers that bend what they send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::hash::sha1;
use crate::base::{InfoHash, Instant, PeerId, Rng};
use crate::peer::{CloseReason, ConnId};
use crate::swarm::layout::Layout;
use crate::swarm::{
    Config, DialError, DiskEvent, DiskRequest, Event, Output, PeerSource, PieceIndex, Torrent,
};
use crate::wire::bencode::Writer;
use crate::wire::bitfield::Bitfield;
use crate::wire::handshake::Handshake;
use crate::wire::metainfo::Info;
use crate::wire::peer::{Framer, Message};

/// A torrent to share.
pub struct Sample {
    pub data: Vec<u8>,
    pub info: Bytes,
    pub layout: Layout,
}

impl Sample {
    /// Two files with `len` bytes together, in pieces of `piece_len`.
    pub fn new(len: usize, piece_len: usize) -> Self {
        Self::made(len, piece_len, false)
    }

    /// The same, private (BEP 27).
    pub fn private(len: usize, piece_len: usize) -> Self {
        Self::made(len, piece_len, true)
    }

    fn made(len: usize, piece_len: usize, private: bool) -> Self {
        let mut data = vec![0; len];
        Rng::from_seed([42; 32]).fill(&mut data);
        let hashes: Vec<u8> = data.chunks(piece_len).flat_map(sha1).collect();
        let mut info = Vec::new();
        let mut w = Writer::new(&mut info);
        let first = len / 3;
        w.dict().bytes(b"files").list();
        for (name, len) in [("a", first), ("b", len - first)] {
            w.dict().bytes(b"length").int(len as i64);
            w.bytes(b"path").list().bytes(name.as_bytes()).end().end();
        }
        w.end().bytes(b"name").bytes(b"sample");
        w.bytes(b"piece length").int(piece_len as i64);
        w.bytes(b"pieces").bytes(&hashes);
        if private {
            w.bytes(b"private").int(1);
        }
        w.end();
        let info = Bytes::from(info);
        let layout = Layout::new(&Info::decode(&info).unwrap()).unwrap();
        Self { data, info, layout }
    }

    pub fn info_hash(&self) -> InfoHash {
        InfoHash::new(sha1(&self.info))
    }

    fn range(&self, piece: u32) -> std::ops::Range<usize> {
        let piece = self.layout.piece(piece).unwrap();
        let begin = usize::try_from(self.layout.piece_offset(piece)).unwrap();
        begin..begin + self.layout.piece_len(piece) as usize
    }
}

/// What a bent peer does with a frame that it is about to send.
pub enum Bend {
    Send(Bytes),
    Drop,
    Delay(Bytes, Duration),
    Close,
}

type Tamper = Box<dyn FnMut(Instant, Bytes) -> Bend>;

pub struct Host {
    pub addr: SocketAddr,
    pub torrent: Torrent,
    pub events: Vec<(Instant, Event)>,
    pub closes: Vec<CloseReason>,
    pub connects: usize,
    pub disk: Disk,
    tamper: Option<Tamper>,
    rate: f64,
    busy_until: Instant,
}

#[derive(Default)]
pub struct Disk {
    pub data: Vec<u8>,
    pub have: Option<Bitfield>,
    /// Blocks of a piece that are written.
    pub written: BTreeMap<u32, Vec<u32>>,
    pub requests: Vec<DiskRequest>,
    pub is_open: bool,
    /// Answers nothing any more.
    pub is_stuck: bool,
}

struct Side {
    host: usize,
    other: ConnId,
    /// Incoming bytes; the handshake is read by the host, as the engine does.
    framer: Framer,
    buf: BytesMut,
    is_known: bool,
    out: Framer,
    out_buf: BytesMut,
}

enum Happening {
    Connected { host: usize, conn: ConnId, addr: SocketAddr },
    Refused { host: usize, addr: SocketAddr },
    Arrive { conn: ConnId, bytes: Bytes },
    Sent { conn: ConnId, bytes: usize },
    Closed { conn: ConnId },
    Disk { host: usize, event: DiskEvent },
}

/// A peer of which only the frames exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// It takes what it is sent, at once.
    Reads,
    /// It takes nothing.
    Deaf,
}

pub struct World {
    pub now: Instant,
    pub sample: Sample,
    pub hosts: Vec<Host>,
    pub latency: Duration,
    /// How long a dial to nobody takes to fail.
    pub dead_after: Duration,
    strangers: BTreeMap<ConnId, (usize, Stranger)>,
    sides: BTreeMap<ConnId, Side>,
    queue: BTreeMap<(Instant, u64), Happening>,
    serial: u64,
}

pub const MBIT_100: f64 = 12.5e6;

impl World {
    pub fn new(sample: Sample) -> Self {
        Self {
            now: Instant::ZERO,
            sample,
            hosts: Vec::new(),
            latency: Duration::from_millis(10),
            dead_after: Duration::from_millis(20),
            strangers: BTreeMap::new(),
            sides: BTreeMap::new(),
            queue: BTreeMap::new(),
            serial: 0,
        }
    }

    pub fn config(&self) -> Config {
        let n = u8::try_from(self.hosts.len() + 1).unwrap();
        let mut config = Config::new(PeerId::new([n; 20]));
        config.listen_port = Some(6881);
        // Most tests are about the one who downloads: to them a seed shows what it has.
        config.super_seeding = false;
        config
    }

    pub fn add(&mut self, config: Config, info: Option<Bytes>, have: Option<Bitfield>) -> usize {
        let n = u8::try_from(self.hosts.len() + 1).unwrap();
        let mut disk = Disk { data: vec![0; self.sample.data.len()], have, ..Disk::default() };
        for piece in disk.have.iter().flat_map(|have| have.iter().collect::<Vec<_>>()) {
            let range = self.sample.range(piece);
            disk.data[range.clone()].copy_from_slice(&self.sample.data[range]);
        }
        let torrent = Torrent::new(config, self.sample.info_hash(), info, [n; 32], self.now);
        self.hosts.push(Host {
            addr: SocketAddr::from(([10, 0, 0, n], 6881)),
            torrent,
            events: Vec::new(),
            closes: Vec::new(),
            connects: 0,
            disk,
            tamper: None,
            rate: MBIT_100,
            busy_until: Instant::ZERO,
        });
        self.drain();
        self.hosts.len() - 1
    }

    pub fn seed(&mut self) -> usize {
        let all = Bitfield::all(self.sample.layout.piece_count());
        self.add(self.config(), Some(self.sample.info.clone()), Some(all))
    }

    /// A seed that hands its pieces out one by one to [`World::taker`]s.
    pub fn lone_seed(&mut self) -> usize {
        let all = Bitfield::all(self.sample.layout.piece_count());
        let config = Config { super_seeding: true, ..self.config_of(b"-TK0000-") };
        self.add(config, Some(self.sample.info.clone()), Some(all))
    }

    /// A leech that is known to cope with such a seed, and has the info dictionary.
    pub fn taker(&mut self) -> usize {
        self.taker_of(b"-TK0000-")
    }

    /// The same, by the start of its id.
    pub fn taker_of(&mut self, client: &[u8; 8]) -> usize {
        self.add(self.config_of(client), Some(self.sample.info.clone()), None)
    }

    fn config_of(&self, client: &[u8; 8]) -> Config {
        let mut config = self.config();
        let mut id = *config.peer_id.as_bytes();
        id[..8].copy_from_slice(client);
        config.peer_id = PeerId::new(id);
        config
    }

    pub fn bent_seed(&mut self, tamper: impl FnMut(Instant, Bytes) -> Bend + 'static) -> usize {
        let seed = self.seed();
        self.hosts[seed].tamper = Some(Box::new(tamper));
        seed
    }

    pub fn leech(&mut self) -> usize {
        self.add(self.config(), None, None)
    }

    pub fn set_rate(&mut self, host: usize, rate: f64) {
        self.hosts[host].rate = rate;
    }

    pub fn introduce(&mut self, host: usize, peers: &[usize]) {
        let addrs: Vec<_> = peers.iter().map(|p| self.hosts[*p].addr).collect();
        self.hosts[host].torrent.add_peers(self.now, PeerSource::Dht, &addrs);
        self.drain();
    }

    /// Somebody connects to a host, with an id of its own, and says all this at once.
    pub fn besiege(
        &mut self,
        host: usize,
        from: SocketAddr,
        how: Stranger,
        say: &[Bytes],
    ) -> ConnId {
        self.serial += 1;
        let conn = ConnId(1 << 40 | self.serial);
        self.strangers.insert(conn, (host, how));
        let mut id = [0xee; 20];
        id[..8].copy_from_slice(&self.serial.to_be_bytes());
        let theirs = Handshake::new(self.sample.info_hash(), PeerId::new(id), false);
        self.hosts[host].torrent.handle_accepted(self.now, conn, from, theirs);
        self.drain();
        say.iter().for_each(|frame| self.say(conn, frame.clone()));
        conn
    }

    /// A stranger that is still there says something.
    pub fn say(&mut self, conn: ConnId, frame: Bytes) {
        if let Some((host, _)) = self.strangers.get(&conn) {
            self.hosts[*host].torrent.handle_frame(self.now, conn, frame);
            self.drain();
        }
    }

    /// A stranger hangs up.
    pub fn leave(&mut self, conn: ConnId) {
        if let Some((host, _)) = self.strangers.remove(&conn) {
            self.hosts[host].torrent.handle_closed(self.now, conn);
            self.drain();
        }
    }

    /// Is it still there?
    pub fn has(&self, stranger: ConnId) -> bool {
        self.strangers.contains_key(&stranger)
    }

    fn at(&mut self, time: Instant, happening: Happening) {
        self.serial += 1;
        self.queue.insert((time, self.serial), happening);
    }

    /// Runs until `done` says so; false if `limit` of virtual time passes first.
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let timer = self.hosts.iter().filter_map(|h| h.torrent.poll_timeout()).min();
            let Some(at) = next.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(at);
            if next == Some(at) {
                let (_, happening) = self.queue.pop_first().unwrap();
                self.happen(happening);
            } else {
                let now = self.now;
                for host in &mut self.hosts {
                    if host.torrent.poll_timeout().is_some_and(|at| at <= now) {
                        host.torrent.handle_timeout(now);
                        let next = host.torrent.poll_timeout();
                        assert!(next.is_none_or(|next| next > now), "a busy loop");
                    }
                }
            }
            self.drain();
        }
    }

    /// Runs until these have everything, and checks that they do.
    pub fn finish(&mut self, hosts: &[usize], limit: Duration) -> Duration {
        let start = self.now;
        let finished = self.run(limit, |w| hosts.iter().all(|h| w.is_finished(*h)));
        for host in hosts {
            let status = self.hosts[*host].torrent.status(self.now);
            assert!(finished, "host {host} is not done after {limit:?}: {status:?}");
            assert!(self.hosts[*host].disk.data == self.sample.data, "host {host} has other bytes");
        }
        self.now - start
    }

    pub fn is_finished(&self, host: usize) -> bool {
        self.hosts[host].events.iter().any(|(_, e)| *e == Event::Finished)
    }

    pub fn banned_by(&self, host: usize) -> Vec<SocketAddr> {
        let bans = self.hosts[host].events.iter().filter_map(|(_, e)| match e {
            Event::PeerBanned { addr } => Some(*addr),
            _ => None,
        });
        bans.collect()
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Connected { host, conn, addr } => {
                self.hosts[host].torrent.handle_connected(now, conn, addr);
            }
            Happening::Refused { host, addr } => {
                let torrent = &mut self.hosts[host].torrent;
                torrent.handle_connect_failed(now, addr, DialError::Refused);
            }
            Happening::Arrive { conn, bytes } => self.arrive(conn, &bytes),
            Happening::Sent { conn, bytes } => {
                let host = self.sides.get(&conn).map(|side| side.host);
                let host = host.or_else(|| self.strangers.get(&conn).map(|(host, _)| *host));
                let Some(host) = host else { return };
                self.hosts[host].torrent.handle_sent(now, conn, bytes);
            }
            Happening::Closed { conn } => {
                let Some(side) = self.sides.remove(&conn) else { return };
                self.hosts[side.host].torrent.handle_closed(now, conn);
            }
            Happening::Disk { host, event } => self.hosts[host].torrent.handle_disk(now, event),
        }
    }

    fn arrive(&mut self, conn: ConnId, bytes: &Bytes) {
        let now = self.now;
        let Some(side) = self.sides.get_mut(&conn) else { return };
        side.buf.extend_from_slice(bytes);
        loop {
            let Some(side) = self.sides.get_mut(&conn) else { return };
            let Ok(Some(frame)) = side.framer.next_frame(&mut side.buf) else { return };
            let host = side.host;
            if std::mem::replace(&mut side.is_known, true) {
                self.hosts[host].torrent.handle_frame(now, conn, frame);
            } else {
                let theirs = Handshake::decode(&frame).unwrap();
                let from = self.hosts[self.sides[&self.sides[&conn].other].host].addr;
                let from =
                    SocketAddr::new(from.ip(), 40_000 + u16::try_from(conn.0 % 25_000).unwrap());
                self.hosts[host].torrent.handle_accepted(now, conn, from, theirs);
            }
            self.drain();
        }
    }

    pub fn drain(&mut self) {
        for host in 0..self.hosts.len() {
            while let Some(output) = self.hosts[host].torrent.poll_output() {
                self.carry_out(host, output);
            }
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        match output {
            Output::Connect { addr } => self.connect(host, addr),
            Output::Send { conn, bytes } => self.send(host, conn, &bytes),
            Output::SendBlock { conn, head, block } => {
                self.send(host, conn, &[&head[..], &block].concat());
            }
            Output::Close { conn, reason } => {
                self.hosts[host].closes.push(reason);
                self.hang_up(conn);
            }
            Output::Disk(request) => self.ask_disk(host, request),
            Output::Event(event) => self.hosts[host].events.push((self.now, event)),
        }
    }

    fn connect(&mut self, host: usize, addr: SocketAddr) {
        self.hosts[host].connects += 1;
        let then = self.now + 2 * self.latency;
        let Some(target) = self.hosts.iter().position(|h| h.addr == addr) else {
            return self.at(self.now + self.dead_after, Happening::Refused { host, addr });
        };
        self.serial += 2;
        let (ours, theirs) = (ConnId(self.serial), ConnId(self.serial - 1));
        for (conn, other, host) in [(ours, theirs, host), (theirs, ours, target)] {
            let side = Side {
                host,
                other,
                framer: Framer::new(),
                buf: BytesMut::new(),
                is_known: conn == ours,
                out: Framer::new(),
                out_buf: BytesMut::new(),
            };
            self.sides.insert(conn, side);
        }
        self.at(then, Happening::Connected { host, conn: ours, addr });
    }

    fn hang_up(&mut self, conn: ConnId) {
        self.strangers.remove(&conn);
        let Some(side) = self.sides.remove(&conn) else { return };
        let then = self.hosts[side.host].busy_until.max(self.now) + self.latency;
        self.at(then, Happening::Closed { conn: side.other });
    }

    fn send(&mut self, host: usize, conn: ConnId, bytes: &[u8]) {
        if let Some((_, how)) = self.strangers.get(&conn) {
            if *how == Stranger::Reads {
                let host = &mut self.hosts[host];
                let took = Duration::from_secs_f64(bytes.len() as f64 / host.rate);
                host.busy_until = host.busy_until.max(self.now) + took;
                let done = host.busy_until;
                self.at(done, Happening::Sent { conn, bytes: bytes.len() });
            }
            return;
        }
        if self.hosts[host].tamper.is_none() {
            return self.transmit(conn, Bytes::copy_from_slice(bytes), Duration::ZERO);
        }
        let Some(side) = self.sides.get_mut(&conn) else { return };
        side.out_buf.extend_from_slice(bytes);
        loop {
            let Some(side) = self.sides.get_mut(&conn) else { return };
            let is_handshake = side.out_buf.starts_with(b"\x13BitTorrent");
            let Ok(Some(frame)) = side.out.next_frame(&mut side.out_buf) else { return };
            if is_handshake {
                self.transmit(conn, frame, Duration::ZERO);
                continue;
            }
            let dropped = frame.len() + 4;
            let tamper = self.hosts[host].tamper.as_mut().unwrap();
            match tamper(self.now, frame) {
                Bend::Send(frame) => self.transmit(conn, framed(&frame), Duration::ZERO),
                Bend::Delay(frame, delay) => self.transmit(conn, framed(&frame), delay),
                Bend::Drop => self.at(self.now, Happening::Sent { conn, bytes: dropped }),
                Bend::Close => {
                    self.hang_up(conn);
                    self.at(self.now, Happening::Closed { conn });
                    return;
                }
            }
        }
    }

    fn transmit(&mut self, conn: ConnId, bytes: Bytes, delay: Duration) {
        let Some(side) = self.sides.get(&conn) else { return };
        let (other, host) = (side.other, &mut self.hosts[side.host]);
        let took = Duration::from_secs_f64(bytes.len() as f64 / host.rate);
        host.busy_until = host.busy_until.max(self.now + delay) + took;
        let done = host.busy_until;
        self.at(done, Happening::Sent { conn, bytes: bytes.len() });
        self.at(done + self.latency, Happening::Arrive { conn: other, bytes });
    }

    fn ask_disk(&mut self, host: usize, request: DiskRequest) {
        let (layout, disk) = (&self.sample.layout, &mut self.hosts[host].disk);
        disk.requests.push(request.clone());
        for event in disk.answer(layout, request) {
            self.at(self.now + DISK_TIME, Happening::Disk { host, event });
        }
    }
}

impl Disk {
    fn answer(&mut self, layout: &Layout, request: DiskRequest) -> Vec<DiskEvent> {
        let at = |piece: PieceIndex| usize::try_from(layout.piece_offset(piece)).unwrap();
        match request {
            _ if self.is_stuck => vec![],
            DiskRequest::Open { .. } => {
                self.is_open = true;
                let none = || Bitfield::none(layout.piece_count());
                vec![DiskEvent::Opened { have: self.have.clone().unwrap_or_else(none) }]
            }
            DiskRequest::Write { piece, begin, block } => {
                let from = at(piece) + begin as usize;
                self.data[from..from + block.len()].copy_from_slice(&block);
                let written = self.written.entry(piece.get()).or_default();
                assert!(!written.contains(&begin), "a block is stored once");
                written.push(begin);
                let len = block.len() as u32;
                let mut events = vec![DiskEvent::Written { piece, begin, len }];
                if written.len() == layout.block_count(piece) as usize {
                    let range = at(piece)..at(piece) + layout.piece_len(piece) as usize;
                    events.push(DiskEvent::Hashed { piece, digest: sha1(&self.data[range]) });
                }
                events
            }
            DiskRequest::Discard { piece } => {
                self.written.remove(&piece.get());
                vec![]
            }
            DiskRequest::Read { conn, piece, begin, len } => {
                let from = at(piece) + begin as usize;
                let block = Bytes::copy_from_slice(&self.data[from..from + len as usize]);
                vec![DiskEvent::Read { conn, piece, begin, block }]
            }
            DiskRequest::HashBlocks { piece } => {
                let range = at(piece)..at(piece) + layout.piece_len(piece) as usize;
                let digests = self.data[range].chunks(16384).map(sha1).collect();
                vec![DiskEvent::BlocksHashed { piece, digests }]
            }
            DiskRequest::Flush => vec![DiskEvent::Flushed],
            DiskRequest::Commit { .. } | DiskRequest::Select { .. } => vec![],
            DiskRequest::Close => {
                self.is_open = false;
                vec![]
            }
        }
    }
}

fn framed(frame: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(u32::try_from(frame.len()).unwrap());
    out.extend_from_slice(frame);
    out.freeze()
}

/// Is this frame a block?
pub fn is_block(frame: &Bytes) -> bool {
    matches!(Message::decode(frame), Ok(Message::Piece { .. }))
}

/// The frame of a message.
pub fn frame(message: &Message) -> Bytes {
    let mut out = Vec::new();
    message.encode(&mut out);
    Bytes::from(out).slice(4..)
}

const DISK_TIME: Duration = Duration::from_micros(200);
