//! The world: hosts, the network between them and the time. It decides nothing but delay and loss,
//! and those from its seed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::host::{Effect, Host, HostId};
use super::link::{Line, Pipe, Weather};
use super::queue::Queue;
use super::streams::{Side, StreamId, Streams};
use super::trace::Trace;
use crate::base::addr::is_private;
use crate::base::{Instant, Rng, Seed};
use crate::peer::ConnId;
use crate::swarm::DialError;

/// Hosts of one kind, a network and a clock.
#[derive(Debug)]
pub struct World<H: Host> {
    seats: Vec<Seat<H>>,
    by_addr: BTreeMap<IpAddr, HostId>,
    weather: Weather,
    queue: Queue<Event>,
    streams: Streams,
    notes: Vec<(Instant, HostId, H::Note)>,
    trace: Trace,
    counts: Counts,
    number: u64,
    rng: Rng,
}

/// What the network did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Bytes in them.
    pub datagram_bytes: u64,
    /// Datagrams that did not arrive: lost, no room in a queue, or nobody there.
    pub datagrams_lost: u64,
    /// Streams dialled.
    pub dials: u64,
    /// Bytes sent on streams.
    pub stream_bytes: u64,
}

#[derive(Debug)]
struct Seat<H> {
    addr: SocketAddr,
    /// `None` while it is switched off.
    core: Option<H>,
    up: Pipe,
    down: Pipe,
    /// When it will be woken.
    wake: Option<Instant>,
    /// Times it was woken in this very moment.
    spins: u32,
}

#[derive(Debug)]
enum Event {
    Wake(HostId),
    /// A datagram is at the far end of the receiver's line.
    DatagramAtLine {
        from: SocketAddr,
        to: HostId,
        datagram: Vec<u8>,
    },
    Datagram {
        from: SocketAddr,
        to: HostId,
        datagram: Vec<u8>,
    },
    Dialled(StreamId),
    Connected(StreamId),
    DialFailed(StreamId, DialError),
    Left {
        host: HostId,
        conn: ConnId,
        bytes: usize,
    },
    BytesAtLine {
        stream: StreamId,
        to: Side,
        bytes: Bytes,
    },
    Bytes {
        stream: StreamId,
        to: Side,
        bytes: Bytes,
    },
    ClosedAtLine {
        stream: StreamId,
        to: Side,
    },
    Closed {
        stream: StreamId,
        to: Side,
    },
}

impl<H: Host> World<H> {
    /// An empty world.
    pub fn new(weather: Weather, seed: Seed) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self {
            seats: Vec::new(),
            by_addr: BTreeMap::new(),
            weather,
            queue: Queue::new(),
            streams: Streams::default(),
            notes: Vec::new(),
            trace: Trace::new(),
            counts: Counts::default(),
            number: rng.u64(),
            rng,
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.queue.now()
    }

    /// Everything that happened, as a number.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What the network did so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Another network from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Adds a host at an address of its own, which `make` is told.
    pub fn add(&mut self, line: Line, make: impl FnOnce(SocketAddr, Seed, Instant) -> H) -> HostId {
        let ip = self.free_address();
        let addr = SocketAddr::new(ip, PORT);
        let id = HostId(u32::try_from(self.seats.len()).expect("hosts are counted in 32 bits"));
        let core = make(addr, self.rng.fork(), self.now());
        self.by_addr.insert(ip, id);
        self.seats.push(Seat {
            addr,
            core: Some(core),
            up: Pipe::new(line.up),
            down: Pipe::new(line.down),
            wake: None,
            spins: 0,
        });
        self.settle(id);
        id
    }

    /// Switches a host off without a word: its streams break, its datagrams vanish.
    pub fn kill(&mut self, id: HostId) -> Option<H> {
        let now = self.now();
        self.trace.record(now, id, "kill", &[]);
        for (stream, side) in self.streams.of(id) {
            self.streams.close(stream, side);
            self.queue.plan(now + BREAK_TIME, Event::Closed { stream, to: side.other() });
        }
        let seat = self.seat(id);
        seat.wake = None;
        seat.core.take()
    }

    /// Switches a host on again, with a new core at its old address.
    pub fn revive(&mut self, id: HostId, make: impl FnOnce(SocketAddr, Seed, Instant) -> H) {
        let (now, seed, addr) = (self.now(), self.rng.fork(), self.addr(id));
        self.trace.record(now, id, "revive", &[]);
        assert!(self.seat(id).core.is_none(), "it was switched off");
        let core = make(addr, seed, now);
        self.seat(id).core = Some(core);
        self.settle(id);
    }

    /// Where a host is.
    pub fn addr(&self, id: HostId) -> SocketAddr {
        self.seats[id.0 as usize].addr
    }

    /// A host's core, if it is switched on.
    pub fn core(&self, id: HostId) -> Option<&H> {
        self.seats[id.0 as usize].core.as_ref()
    }

    /// All hosts that are switched on.
    pub fn alive(&self) -> impl Iterator<Item = HostId> + '_ {
        (0..).map(HostId).zip(&self.seats).filter(|(_, seat)| seat.core.is_some()).map(|(id, _)| id)
    }

    /// Gives a host a command, then carries out what follows from it.
    pub fn command<T>(
        &mut self,
        id: HostId,
        command: impl FnOnce(&mut H, Instant) -> T,
    ) -> Option<T> {
        let now = self.now();
        let answer = self.seat(id).core.as_mut().map(|core| command(core, now));
        self.settle(id);
        answer
    }

    /// Lets time go on until `end`, or until `stop` says so after an event.
    pub fn run_until(&mut self, end: Instant, mut stop: impl FnMut(&Self) -> bool) {
        while let Some(event) = self.queue.pop_until(end) {
            self.happen(event);
            if stop(self) {
                return;
            }
        }
        self.queue.advance_to(end);
    }

    /// Lets time go on for `time`.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now() + time, |_| false);
    }

    /// What hosts told since the last call.
    pub fn take_notes(&mut self) -> Vec<(Instant, HostId, H::Note)> {
        std::mem::take(&mut self.notes)
    }

    /// True if hosts told something since the last `take_notes`.
    pub fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// Streams that are not over.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    // --- events -------------------------------------------------------------------------------

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(id) => self.on_wake(id),
            Event::DatagramAtLine { from, to, datagram } => {
                self.on_datagram_at_line(from, to, datagram)
            }
            Event::Datagram { from, to, datagram } => self.on_datagram(from, to, &datagram),
            Event::Dialled(stream) => self.on_dialled(stream),
            Event::Connected(stream) => self.on_connected(stream),
            Event::DialFailed(stream, error) => self.on_dial_failed(stream, error),
            Event::Left { host, conn, bytes } => {
                if self.streams.find(host, conn).is_some() {
                    self.with(host, "sent", &[], |core, now| core.handle_sent(now, conn, bytes));
                }
            }
            Event::BytesAtLine { stream, to, bytes } => self.on_bytes_at_line(stream, to, bytes),
            Event::Bytes { stream, to, bytes } => self.on_bytes(stream, to, &bytes),
            Event::ClosedAtLine { stream, to } => {
                // Behind the last bytes in the receiver's queue.
                let now = self.now();
                let Some(end) = self.streams.get_mut(stream).map(|s| s.end(to).host) else {
                    return;
                };
                let passed = self.seat(end).down.pass(now, 0);
                self.queue.plan(passed, Event::Closed { stream, to });
            }
            Event::Closed { stream, to } => self.on_closed(stream, to),
        }
    }

    fn on_wake(&mut self, id: HostId) {
        let now = self.now();
        let seat = self.seat(id);
        if seat.wake != Some(now) {
            return;
        }
        seat.wake = None;
        let due = seat.core.as_ref().and_then(Host::poll_timeout).is_some_and(|at| at <= now);
        if due {
            self.with(id, "timeout", &[], |core, now| core.handle_timeout(now));
        } else {
            self.settle(id);
        }
    }

    fn on_datagram_at_line(&mut self, from: SocketAddr, to: HostId, datagram: Vec<u8>) {
        let now = self.now();
        let down = &mut self.seat(to).down;
        if down.is_full(now) {
            self.counts.datagrams_lost += 1;
            return;
        }
        let passed = down.pass(now, datagram.len());
        if passed == now {
            self.on_datagram(from, to, &datagram);
        } else {
            self.queue.plan(passed, Event::Datagram { from, to, datagram });
        }
    }

    fn on_datagram(&mut self, from: SocketAddr, to: HostId, datagram: &[u8]) {
        if self.seat(to).core.is_none() {
            self.counts.datagrams_lost += 1;
            return;
        }
        self.with(to, "datagram", datagram, |core, now| core.handle_datagram(now, from, datagram));
    }

    fn on_dialled(&mut self, id: StreamId) {
        let now = self.now();
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (from, to, dialled) = (stream.dialler.host, stream.listener.host, stream.dialled);
        // A dial comes from a port of its own, at which the dialler cannot be reached.
        let port = EPHEMERAL_PORTS + u16::try_from(self.counts.dials % 10_000).unwrap_or(0);
        let source = SocketAddr::new(self.addr(from).ip(), port);
        if self.seat(to).core.is_none() {
            self.queue.plan(now + DIAL_TIME_MAX, Event::DialFailed(id, DialError::Timeout));
            return;
        }
        let back = self.arrival(id, Side::Dialler, now);
        let is_open = dialled == self.addr(to);
        let accepted = is_open.then(|| self.seat(to).core.as_mut()?.accept(now, source)).flatten();
        self.trace.record(now, to, "dialled", &[u8::from(accepted.is_some())]);
        match accepted {
            Some(conn) => {
                self.streams.accept(id, conn);
                self.queue.plan(back, Event::Connected(id));
            }
            None => self.queue.plan(back, Event::DialFailed(id, DialError::Refused)),
        }
        self.settle(to);
    }

    fn on_connected(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (host, Some(conn)) = (stream.dialler.host, stream.dialler.conn) else { return };
        self.with(host, "connected", &[], |core, now| core.handle_connected(now, conn));
    }

    fn on_dial_failed(&mut self, id: StreamId, error: DialError) {
        let Some((host, conn)) = self.streams.close(id, Side::Dialler) else { return };
        self.with(host, "dial failed", &[], |core, now| {
            core.handle_connect_failed(now, conn, error)
        });
    }

    fn on_bytes_at_line(&mut self, stream: StreamId, to: Side, bytes: Bytes) {
        let now = self.now();
        let Some(end) = self.streams.get_mut(stream).map(|s| s.end(to).host) else { return };
        let passed = self.seat(end).down.pass(now, bytes.len());
        if passed == now {
            self.on_bytes(stream, to, &bytes);
        } else {
            self.queue.plan(passed, Event::Bytes { stream, to, bytes });
        }
    }

    fn on_bytes(&mut self, id: StreamId, to: Side, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.end(to).received.extend_from_slice(bytes);
        loop {
            // A frame may have made the host close the stream.
            let Some(stream) = self.streams.get_mut(id) else { return };
            let end = stream.end(to);
            let (host, Some(conn)) = (end.host, end.conn) else { return };
            match end.framer.next_frame(&mut end.received) {
                Ok(Some(frame)) => {
                    let copy = frame.clone();
                    self.with(host, "frame", &copy, |core, now| {
                        core.handle_frame(now, conn, frame)
                    });
                }
                Ok(None) => return,
                // Not our protocol: the driver ends such a connection itself.
                Err(_) => {
                    self.close(host, conn);
                    self.with(host, "closed", &[], |core, now| core.handle_closed(now, conn));
                    return;
                }
            }
        }
    }

    fn on_closed(&mut self, stream: StreamId, to: Side) {
        let Some((host, conn)) = self.streams.close(stream, to) else { return };
        self.with(host, "closed", &[], |core, now| core.handle_closed(now, conn));
    }

    // --- effects ------------------------------------------------------------------------------

    // Lets something happen to a host, and carries out what follows.
    fn with(
        &mut self,
        id: HostId,
        what: &'static str,
        bytes: &[u8],
        f: impl FnOnce(&mut H, Instant),
    ) {
        let now = self.now();
        let Some(core) = self.seat(id).core.as_mut() else { return };
        f(core, now);
        self.trace.record(now, id, what, bytes);
        self.settle(id);
    }

    // Carries out all effects of a host and plans its next wake.
    fn settle(&mut self, id: HostId) {
        let now = self.now();
        let mut effects = 0;
        while let Some(effect) = self.seat(id).core.as_mut().and_then(|core| core.poll_effect(now))
        {
            effects += 1;
            assert!(effects < EFFECTS_MAX, "host {} never stops: {}", id.0, self.trace);
            match effect {
                Effect::Transmit { to, datagram } => self.transmit(id, to, datagram),
                Effect::Connect { conn, addr } => self.connect(id, conn, addr),
                Effect::Send { conn, bytes } => self.send(id, conn, bytes),
                Effect::Close { conn } => self.close(id, conn),
                Effect::Note(note) => self.notes.push((now, id, note)),
            }
        }
        let trace = &self.trace;
        let seat = &mut self.seats[id.0 as usize];
        let Some(next) = seat.core.as_ref().and_then(Host::poll_timeout) else { return };
        seat.spins = if next <= now { seat.spins + 1 } else { 0 };
        assert!(seat.spins < SPINS_MAX, "host {} wants to be woken in the past: {trace}", id.0);
        let next = next.max(now);
        if seat.wake.is_none_or(|wake| wake > next) {
            seat.wake = Some(next);
            self.queue.plan(next, Event::Wake(id));
        }
    }

    fn transmit(&mut self, from: HostId, to: SocketAddr, datagram: Vec<u8>) {
        let now = self.now();
        self.counts.datagrams += 1;
        self.counts.datagram_bytes += datagram.len() as u64;
        let Some(target) = self.by_addr.get(&to.ip()).copied().filter(|t| self.addr(*t) == to)
        else {
            self.counts.datagrams_lost += 1;
            return;
        };
        if self.weather.loses(&mut self.rng) || self.seat(from).up.is_full(now) {
            self.counts.datagrams_lost += 1;
            return;
        }
        let left = self.seat(from).up.pass(now, datagram.len());
        let at = left + self.delay(from, target);
        let from = self.addr(from);
        self.queue.plan(at, Event::DatagramAtLine { from, to: target, datagram });
    }

    fn connect(&mut self, from: HostId, conn: ConnId, addr: SocketAddr) {
        let now = self.now();
        self.counts.dials += 1;
        let target = self.by_addr.get(&addr.ip()).copied();
        let stream = self.streams.open((from, conn), target.unwrap_or(from), addr);
        match target {
            None => {
                self.queue.plan(now + DIAL_TIME_MAX, Event::DialFailed(stream, DialError::Timeout))
            }
            Some(target) => {
                let at = now + self.delay(from, target) + self.resend_time();
                self.queue.plan(at, Event::Dialled(stream));
            }
        }
    }

    fn send(&mut self, from: HostId, conn: ConnId, mut bytes: Bytes) {
        let now = self.now();
        let Some((stream, side)) = self.streams.find(from, conn) else { return };
        self.counts.stream_bytes += bytes.len() as u64;
        let left = self.seat(from).up.pass(now, bytes.len());
        self.queue.plan(left, Event::Left { host: from, conn, bytes: bytes.len() });
        // Streams keep no borders: now and then a piece arrives in two.
        if bytes.len() > 1 && self.rng.chance(SPLIT_CHANCE) {
            let first = bytes.split_to(1 + self.rng.below(bytes.len() - 1));
            self.carry(stream, side.other(), left, first);
        }
        self.carry(stream, side.other(), left, bytes);
    }

    fn carry(&mut self, stream: StreamId, to: Side, left: Instant, bytes: Bytes) {
        let at = self.arrival(stream, to, left);
        self.queue.plan(at, Event::BytesAtLine { stream, to, bytes });
    }

    fn close(&mut self, host: HostId, conn: ConnId) {
        let Some((stream, side)) = self.streams.find(host, conn) else { return };
        let now = self.now();
        let left = self.seat(host).up.pass(now, 0);
        let at = self.arrival(stream, side.other(), left);
        self.streams.close(stream, side);
        self.queue.plan(at, Event::ClosedAtLine { stream, to: side.other() });
    }

    fn arrival(&mut self, stream: StreamId, to: Side, left: Instant) -> Instant {
        let Some(found) = self.streams.get_mut(stream) else { return left };
        let (from, host) = (found.end(to.other()).host, found.end(to).host);
        let at = left + self.delay(from, host) + self.resend_time();
        let end = self.streams.get_mut(stream).expect("found above").end(to);
        end.last_arrival = end.last_arrival.max(at);
        end.last_arrival
    }

    // What a lost packet costs a stream.
    fn resend_time(&mut self) -> Duration {
        if self.weather.loses(&mut self.rng) { RESEND_TIME } else { Duration::ZERO }
    }

    fn delay(&mut self, from: HostId, to: HostId) -> Duration {
        self.weather.delay(self.number, from, to, &mut self.rng)
    }

    fn seat(&mut self, id: HostId) -> &mut Seat<H> {
        &mut self.seats[id.0 as usize]
    }

    // A public address that nobody has, from all over the space: nodes treat neighbours as one.
    fn free_address(&mut self) -> IpAddr {
        loop {
            let ip = IpAddr::V4(Ipv4Addr::from_bits(self.rng.u32()));
            let is_public = SocketAddr::new(ip, PORT);
            if crate::base::addr::is_sendable(&is_public)
                && !is_private(ip)
                && !self.by_addr.contains_key(&ip)
            {
                return ip;
            }
        }
    }
}

/// The port at which every host listens.
const PORT: u16 = 6881;
const EPHEMERAL_PORTS: u16 = 40_000;
/// A dial to nobody fails after this.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);
/// A broken stream is noticed after this.
const BREAK_TIME: Duration = Duration::from_secs(1);
/// A lost packet of a stream is sent again after this.
const RESEND_TIME: Duration = Duration::from_millis(300);
/// How often bytes sent at once arrive in two pieces.
const SPLIT_CHANCE: f64 = 0.05;
/// A host that is woken this often in one moment will not go on by itself.
const SPINS_MAX: u32 = 1_000;
/// The same for effects after one input.
const EFFECTS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests;
