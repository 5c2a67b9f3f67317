//! Streams between the hosts of a world: dials, bytes in pieces, ends.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::datagrams::Outside;
use super::{Event, World};
use crate::base::Instant;
use crate::peer::ConnId;
use crate::sim::streams::{Side, StreamId};
use crate::sim::{Host, HostId};
use crate::swarm::DialError;

impl<H: Host, O: Outside> World<H, O> {
    pub(super) fn on_left(&mut self, host: HostId, conn: ConnId, bytes: usize) {
        if self.streams.find(host, conn).is_some() {
            self.with(host, "sent", &[], |core, now| core.handle_sent(now, conn, bytes));
        }
    }

    pub(super) fn on_closed_at_line(&mut self, stream: StreamId, to: Side) {
        // Behind the last bytes in the receiver's queue.
        let now = self.now();
        let Some(end) = self.streams.get_mut(stream).map(|s| s.end(to).host) else {
            return;
        };
        let passed = self.seat(end).down.pass(now, 0);
        self.queue.plan(passed, Event::Closed { stream, to });
    }

    pub(super) fn on_dialled(&mut self, id: StreamId) {
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

    pub(super) fn on_connected(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (host, Some(conn)) = (stream.dialler.host, stream.dialler.conn) else { return };
        self.with(host, "connected", &[], |core, now| core.handle_connected(now, conn));
    }

    pub(super) fn on_dial_failed(&mut self, id: StreamId, error: DialError) {
        let Some((host, conn)) = self.streams.close(id, Side::Dialler) else { return };
        self.with(host, "dial failed", &[], |core, now| {
            core.handle_connect_failed(now, conn, error)
        });
    }

    pub(super) fn on_bytes_at_line(&mut self, stream: StreamId, to: Side, bytes: Bytes) {
        let now = self.now();
        let Some(end) = self.streams.get_mut(stream).map(|s| s.end(to).host) else { return };
        let passed = self.seat(end).down.pass(now, bytes.len());
        if passed == now {
            self.on_bytes(stream, to, &bytes);
        } else {
            self.queue.plan(passed, Event::Bytes { stream, to, bytes });
        }
    }

    pub(super) fn on_bytes(&mut self, id: StreamId, to: Side, bytes: &[u8]) {
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

    pub(super) fn on_closed(&mut self, stream: StreamId, to: Side) {
        let Some((host, conn)) = self.streams.close(stream, to) else { return };
        self.with(host, "closed", &[], |core, now| core.handle_closed(now, conn));
    }

    pub(super) fn connect(&mut self, from: HostId, conn: ConnId, addr: SocketAddr) {
        let now = self.now();
        self.counts.dials += 1;
        let target = self.by_ip.get(&addr.ip()).copied();
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

    pub(super) fn send(&mut self, from: HostId, conn: ConnId, mut bytes: Bytes) {
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

    pub(super) fn close(&mut self, host: HostId, conn: ConnId) {
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
}

const EPHEMERAL_PORTS: u16 = 40_000;
/// A dial to nobody fails after this.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);
/// A lost packet of a stream is sent again after this.
const RESEND_TIME: Duration = Duration::from_millis(300);
/// How often bytes sent at once arrive in two pieces.
const SPLIT_CHANCE: f64 = 0.05;
