//! Streams between hosts: like TCP, bytes arrive complete and in order, but in pieces, after a
//! while, and with a second's delay where a packet was lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;

use crate::base::Instant;
use crate::peer::ConnId;
use crate::sim::HostId;
use crate::wire::peer::Framer;

/// Names one stream of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(u64);

/// The one who dialled, or the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Listener,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }
}

/// One end of a stream: where, and what has arrived there.
#[derive(Debug)]
pub(super) struct End {
    pub(super) host: HostId,
    /// Its name at its host; `None` before it is accepted and after it is over there.
    pub(super) conn: Option<ConnId>,
    pub(super) framer: Framer,
    pub(super) received: BytesMut,
    /// Nothing arrives here before what was sent earlier.
    pub(super) last_arrival: Instant,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) dialler: End,
    pub(super) listener: End,
    pub(super) dialled: SocketAddr,
}

impl Stream {
    pub(super) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Dialler => &mut self.dialler,
            Side::Listener => &mut self.listener,
        }
    }
}

/// All streams of a world.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    by_conn: BTreeMap<(HostId, ConnId), (StreamId, Side)>,
    opened: u64,
}

impl Streams {
    /// A stream that `from` has begun to dial.
    pub(super) fn open(
        &mut self,
        (from, conn): (HostId, ConnId),
        to: HostId,
        dialled: SocketAddr,
    ) -> StreamId {
        let id = StreamId(self.opened);
        self.opened += 1;
        let end = |host, conn| End {
            host,
            conn,
            framer: Framer::new(),
            received: BytesMut::new(),
            last_arrival: Instant::ZERO,
        };
        let stream = Stream { dialler: end(from, Some(conn)), listener: end(to, None), dialled };
        self.streams.insert(id, stream);
        let before = self.by_conn.insert((from, conn), (id, Side::Dialler));
        assert!(before.is_none(), "a connection id is used once");
        id
    }

    /// The listener has accepted it as `conn`.
    pub(super) fn accept(&mut self, id: StreamId, conn: ConnId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.listener.conn = Some(conn);
        let before = self.by_conn.insert((stream.listener.host, conn), (id, Side::Listener));
        assert!(before.is_none(), "a connection id is used once");
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    pub(super) fn find(&self, host: HostId, conn: ConnId) -> Option<(StreamId, Side)> {
        self.by_conn.get(&(host, conn)).copied()
    }

    /// The stream is over at one side: nothing is delivered there any more. Its name there, if it
    /// was still open.
    pub(super) fn close(&mut self, id: StreamId, side: Side) -> Option<(HostId, ConnId)> {
        let end = self.streams.get_mut(&id)?.end(side);
        let closed = end.conn.take().map(|conn| (end.host, conn));
        if let Some(key) = closed {
            self.by_conn.remove(&key);
        }
        let stream = self.streams.get_mut(&id)?;
        if stream.dialler.conn.is_none() && stream.listener.conn.is_none() {
            self.streams.remove(&id);
        }
        closed
    }

    /// The streams of a host, in a fixed order.
    pub(super) fn of(&self, host: HostId) -> Vec<(StreamId, Side)> {
        let all = self.by_conn.range((host, ConnId(0))..=(host, ConnId(u64::MAX)));
        all.map(|(_, found)| *found).collect()
    }

    /// Streams that are not over.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}
