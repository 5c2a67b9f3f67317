//! A host: one core and what it is to the world. The world carries out its effects and hands it
//! what arrives, as the driver would.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::Instant;
use crate::dht;
use crate::peer::ConnId;
use crate::swarm::DialError;

/// Names one host of a world: its place in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// What a host wants done.
#[derive(Debug)]
pub enum Effect<N> {
    /// Send a datagram.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// The bytes.
        datagram: Vec<u8>,
    },
    /// Open a stream; answered by `handle_connected` or `handle_connect_failed`.
    Connect {
        /// Its name at this host.
        conn: ConnId,
        /// Where to.
        addr: SocketAddr,
    },
    /// Send bytes on a stream; answered by `handle_sent`, and by nothing if the stream is over.
    Send {
        /// Which stream.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// End a stream after what was sent. Not answered.
    Close {
        /// Which stream.
        conn: ConnId,
    },
    /// Something the scenario may want to know.
    Note(N),
}

/// A core in the world.
pub trait Host {
    /// What it tells the scenario.
    type Note;

    /// A datagram came.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]);
    /// The time that `poll_timeout` named has come.
    fn handle_timeout(&mut self, now: Instant);
    /// The next effect. Drained after every call.
    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Self::Note>>;
    /// When `handle_timeout` has to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Somebody connects: its name here, or `None` to refuse.
    fn accept(&mut self, _now: Instant, _from: SocketAddr) -> Option<ConnId> {
        None
    }
    /// A dial succeeded.
    fn handle_connected(&mut self, _now: Instant, _conn: ConnId) {}
    /// A dial failed.
    fn handle_connect_failed(&mut self, _now: Instant, _conn: ConnId, _error: DialError) {}
    /// A frame came on a stream.
    fn handle_frame(&mut self, _now: Instant, _conn: ConnId, _frame: Bytes) {}
    /// So many bytes of a stream have left this host.
    fn handle_sent(&mut self, _now: Instant, _conn: ConnId, _bytes: usize) {}
    /// A stream was ended by the other side.
    fn handle_closed(&mut self, _now: Instant, _conn: ConnId) {}
}

impl Host for dht::Node {
    type Note = dht::Event;

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        dht::Node::handle_datagram(self, now, from, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        dht::Node::handle_timeout(self, now);
    }

    fn poll_effect(&mut self, _now: Instant) -> Option<Effect<dht::Event>> {
        Some(match self.poll_output()? {
            dht::Output::Transmit { to, datagram } => Effect::Transmit { to, datagram },
            dht::Output::Event(event) => Effect::Note(event),
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        dht::Node::poll_timeout(self)
    }
}
