//! The world: hosts, the network between them and the time. It decides nothing but delay and loss,
//! and those from its seed.

mod connections;
mod datagrams;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use self::datagrams::Flight;
pub use self::datagrams::Outside;
use super::host::{Effect, Host, HostId};
use super::link::{Line, Pipe, Weather};
use super::nat::{Gate, Nat};
use super::queue::Queue;
use super::streams::{Side, StreamId, Streams};
use super::trace::Trace;
use crate::base::addr::is_private;
use crate::base::{Instant, Rng, Seed};
use crate::peer::ConnId;
use crate::swarm::DialError;

/// Hosts of one kind, a network and a clock; and those that are not hosts but are asked (`O`).
#[derive(Debug)]
pub struct World<H: Host, O: Outside = ()> {
    seats: Vec<Seat<H>>,
    // Never iterated.
    by_ip: HashMap<IpAddr, HostId, BuildHasherDefault<DefaultHasher>>,
    outside: O,
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
    gate: Gate,
    /// When it will be woken.
    wake: Option<Instant>,
    /// Times it was woken in this very moment.
    spins: u32,
}

#[derive(Debug)]
enum Event {
    Wake(HostId),
    /// A datagram is at the far end of the receiver's line.
    DatagramAtLine(Flight),
    Datagram(Flight),
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

/// Where and how a host is connected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Its line.
    pub line: Line,
    /// What stands before it.
    pub nat: Nat,
    /// Its address, which nobody has; `None` for any.
    pub ip: Option<IpAddr>,
}

impl<H: Host> World<H> {
    /// An empty world.
    pub fn new(weather: Weather, seed: Seed) -> Self {
        Self::beside((), weather, seed)
    }
}

impl<H: Host, O: Outside> World<H, O> {
    /// An empty world beside others who answer datagrams.
    pub fn beside(outside: O, weather: Weather, seed: Seed) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self {
            seats: Vec::new(),
            by_ip: HashMap::default(),
            outside,
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

    /// Those who are not hosts.
    pub fn outside(&mut self) -> &mut O {
        &mut self.outside
    }

    /// Adds a host at an address of its own, which `make` is told.
    pub fn add(&mut self, line: Line, make: impl FnOnce(SocketAddr, Seed, Instant) -> H) -> HostId {
        self.add_at(Place { line, ..Place::default() }, make)
    }

    /// Adds a host at a place. `make` is told its address.
    pub fn add_at(
        &mut self,
        place: Place,
        make: impl FnOnce(SocketAddr, Seed, Instant) -> H,
    ) -> HostId {
        let ip = place.ip.unwrap_or_else(|| self.free_address());
        let addr = SocketAddr::new(ip, PORT);
        let id = HostId(u32::try_from(self.seats.len()).expect("hosts are counted in 32 bits"));
        let core = make(addr, self.rng.fork(), self.now());
        let neighbour = self.by_ip.insert(ip, id);
        assert!(neighbour.is_none(), "each host has an address of its own");
        self.seats.push(Seat {
            addr,
            core: Some(core),
            up: Pipe::new(place.line.up),
            down: Pipe::new(place.line.down),
            gate: Gate::new(place.nat),
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
        let seat = self.seat(id);
        seat.core = Some(core);
        seat.gate = Gate::new(seat.gate.nat());
        self.settle(id);
    }

    /// Where a host is.
    pub fn addr(&self, id: HostId) -> SocketAddr {
        self.seats[id.0 as usize].addr
    }

    /// The host that lives at an address, switched on or not.
    pub fn host_at(&self, ip: IpAddr) -> Option<HostId> {
        self.by_ip.get(&ip).copied()
    }

    /// What stands before a host.
    pub fn nat(&self, id: HostId) -> Nat {
        self.seats[id.0 as usize].gate.nat()
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
            Event::DatagramAtLine(flight) => self.on_datagram_at_line(flight),
            Event::Datagram(flight) => self.on_datagram(&flight),
            Event::Dialled(stream) => self.on_dialled(stream),
            Event::Connected(stream) => self.on_connected(stream),
            Event::DialFailed(stream, error) => self.on_dial_failed(stream, error),
            Event::Left { host, conn, bytes } => self.on_left(host, conn, bytes),
            Event::BytesAtLine { stream, to, bytes } => self.on_bytes_at_line(stream, to, bytes),
            Event::Bytes { stream, to, bytes } => self.on_bytes(stream, to, &bytes),
            Event::ClosedAtLine { stream, to } => self.on_closed_at_line(stream, to),
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
                && !self.by_ip.contains_key(&ip)
                && !self.outside.lives_at(ip)
            {
                return ip;
            }
        }
    }
}

/// The port at which every host listens.
const PORT: u16 = 6881;
/// A broken stream is noticed after this.
const BREAK_TIME: Duration = Duration::from_secs(1);
/// A host that is woken this often in one moment will not go on by itself.
const SPINS_MAX: u32 = 1_000;
/// The same for effects after one input.
const EFFECTS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests;
