//! Datagrams between the hosts of a world: lost, late, translated, or answered from outside.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Event, World};
use crate::base::Instant;
use crate::sim::{Host, HostId};

/// Those who are not hosts of the world: nobody sees what goes on in them, but they answer.
pub trait Outside: fmt::Debug {
    /// A datagram has been sent from `from` to `to`, where no host lives: what comes back, and after
    /// what time.
    fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Option<(Duration, Vec<u8>)>;

    /// Is the address taken by one of them?
    fn lives_at(&self, ip: IpAddr) -> bool;
}

/// Nobody.
impl Outside for () {
    fn answer(
        &mut self,
        _now: Instant,
        _from: SocketAddr,
        _to: SocketAddr,
        _datagram: &[u8],
    ) -> Option<(Duration, Vec<u8>)> {
        None
    }

    fn lives_at(&self, _ip: IpAddr) -> bool {
        false
    }
}

/// Some, or nobody.
impl<O: Outside> Outside for Option<O> {
    fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Option<(Duration, Vec<u8>)> {
        self.as_mut()?.answer(now, from, to, datagram)
    }

    fn lives_at(&self, ip: IpAddr) -> bool {
        self.as_ref().is_some_and(|outside| outside.lives_at(ip))
    }
}

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Flight {
    from: SocketAddr,
    to: HostId,
    // The port of `to` that it was sent to.
    port: u16,
    datagram: Vec<u8>,
}

impl<H: Host, O: Outside> World<H, O> {
    pub(super) fn transmit(&mut self, from: HostId, to: SocketAddr, datagram: Vec<u8>) {
        let now = self.now();
        self.counts.datagrams += 1;
        self.counts.datagram_bytes += datagram.len() as u64;
        let seat = self.seat(from);
        let own = seat.addr;
        let seen_at = seat.gate.on_sent(now, own, to);
        let Some(target) = self.by_ip.get(&to.ip()).copied() else {
            return self.transmit_outside(from, seen_at, to, &datagram);
        };
        if self.weather.loses(&mut self.rng) || self.seat(from).up.is_full(now) {
            self.counts.datagrams_lost += 1;
            return;
        }
        let left = self.seat(from).up.pass(now, datagram.len());
        let at = left + self.delay(from, target);
        let flight = Flight { from: seen_at, to: target, port: to.port(), datagram };
        self.queue.plan(at, Event::DatagramAtLine(flight));
    }

    fn transmit_outside(
        &mut self,
        host: HostId,
        seen_at: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) {
        let now = self.now();
        match self.outside.answer(now, seen_at, to, datagram) {
            Some((delay, datagram)) => {
                let flight = Flight { from: to, to: host, port: seen_at.port(), datagram };
                self.queue.plan(now + delay, Event::DatagramAtLine(flight));
            }
            None => self.counts.datagrams_lost += 1,
        }
    }

    pub(super) fn on_datagram_at_line(&mut self, flight: Flight) {
        let now = self.now();
        let down = &mut self.seat(flight.to).down;
        if down.is_full(now) {
            self.counts.datagrams_lost += 1;
            return;
        }
        let passed = down.pass(now, flight.datagram.len());
        if passed == now {
            self.on_datagram(&flight);
        } else {
            self.queue.plan(passed, Event::Datagram(flight));
        }
    }

    pub(super) fn on_datagram(&mut self, flight: &Flight) {
        let Flight { from, to, port, ref datagram } = *flight;
        let now = self.now();
        let seat = self.seat(to);
        let sent_to = SocketAddr::new(seat.addr.ip(), port);
        if seat.core.is_none() || !seat.gate.lets_in(now, seat.addr, from, sent_to) {
            self.counts.datagrams_lost += 1;
            return;
        }
        self.with(to, "datagram", datagram, |core, now| core.handle_datagram(now, from, datagram));
    }
}
