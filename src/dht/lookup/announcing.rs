//! The end of a lookup that announces: `announce_peer` or `put` to the closest nodes that answered, each
//! asked once more if the first datagram may be lost.

use std::net::SocketAddr;

use super::candidates::State;
use super::{ANNOUNCES_MAX, Lookup, Next, Token};
use crate::base::NodeId;
use crate::dht::bucket::K;

/// An announce to one node.
#[derive(Debug)]
pub(super) struct Announce {
    id: NodeId,
    addr: SocketAddr,
    token: Token,
    tries: usize,
    waiting: usize,
    retry: bool,
}

impl Announce {
    /// To be sent.
    pub(super) fn new(id: NodeId, addr: SocketAddr, token: Token) -> Self {
        Self { id, addr, token, tries: 0, waiting: 0, retry: true }
    }
}

impl Lookup {
    pub(super) fn next_announce(&mut self) -> Next {
        let Some(announces) = &mut self.announces else { return Next::Wait };
        if let Some(announce) = announces.iter_mut().find(|a| a.retry) {
            announce.retry = false;
            announce.tries += 1;
            announce.waiting += 1;
            let (to, id, token) = (announce.addr, announce.id, announce.token.clone());
            return Next::Announce { to, id, token };
        }
        if announces.is_empty() { Next::Done } else { Next::Wait }
    }

    /// A candidate has answered. If that was too late for the choice of whom to announce to, and it is one
    /// of the eight, it is told as well.
    pub(super) fn announce_late(&mut self, at: usize) {
        let Some(announces) = &self.announces else { return };
        // One of them at least is still waited for: it was worth storing.
        if announces.is_empty() || announces.len() >= ANNOUNCES_MAX || at < self.crowd() {
            return;
        }
        let demand_valid = self.demands_valid_ids();
        let nearer = self.candidates.iter().take(at).skip(self.crowd());
        let nearer = nearer.filter(|c| c.state == State::Answered && (c.valid_id || !demand_valid));
        if nearer.count() < K {
            let candidate = &mut self.candidates[at];
            let Some(token) = candidate.token.take() else { return };
            let late = Announce::new(candidate.id, candidate.addr, token);
            self.announces.get_or_insert_default().push(late);
        }
    }

    /// The announce could not be sent, or no answer to it can come any more.
    pub fn on_announce_refused(&mut self, to: &SocketAddr, for_ever: bool) {
        let Some(announces) = &mut self.announces else { return };
        if for_ever {
            announces.retain(|a| a.addr != *to);
        } else if let Some(announce) = announces.iter_mut().find(|a| a.addr == *to) {
            announce.tries -= 1;
            announce.waiting -= 1;
            announce.retry = true;
        }
    }

    /// `from` took our announce, or refused it with an error's number.
    pub fn on_announce_answered(&mut self, from: &SocketAddr, answer: Result<(), i64>) {
        let Some(announces) = &mut self.announces else { return };
        let before = announces.len();
        announces.retain(|a| a.addr != *from);
        if announces.len() == before {
            return;
        }
        match answer {
            Ok(()) => self.announced += 1,
            Err(code) => self.on_store_refused(code),
        }
    }

    /// The announce to `to` may be lost: it is sent once more.
    pub fn on_announce_stalled(&mut self, to: &SocketAddr) {
        if !self.may_store_twice() {
            return;
        }
        let announces = self.announces.iter_mut().flatten();
        for announce in announces.filter(|a| a.addr == *to && a.tries < ANNOUNCE_TRIES_MAX) {
            announce.retry = true;
        }
    }

    /// Nobody waits for that answer any more.
    pub fn on_announce_overdue(&mut self, to: &SocketAddr) {
        let Some(announces) = &mut self.announces else { return };
        for announce in announces.iter_mut().filter(|a| a.addr == *to) {
            announce.waiting = announce.waiting.saturating_sub(1);
        }
        announces.retain(|a| a.addr != *to || a.waiting > 0 || a.retry);
    }
}

const ANNOUNCE_TRIES_MAX: usize = 2;
