//! Tells a lookup step by step, to a host that wants to see it: whom it asked, how far that node is
//! from the target, how long the answer took and what came with it. A lookup that nobody traces pays
//! one look at an empty map a step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::event::{Event, LookupId, Step, StepKind};
use super::node::Node;
use super::queries::{Due, Pending, Purpose};
use crate::base::addr::is_believable;
use crate::base::{Instant, Key, NodeId};
use crate::wire::krpc::Reply;

/// The lookups that are traced. Each is one that runs, and goes when that does.
#[derive(Debug, Default)]
pub(super) struct Traces(BTreeMap<LookupId, Trace>);

#[derive(Debug, Clone, Copy)]
struct Trace {
    target: Key,
    started: Instant,
}

impl Traces {
    /// It is over.
    pub fn end(&mut self, lookup: LookupId) {
        self.0.remove(&lookup);
    }
}

impl Node {
    /// Tells each step of a lookup as [`Event::Step`], from its start if this is called in the same
    /// moment.
    pub fn trace(&mut self, now: Instant, lookup: LookupId) {
        let Some(running) = self.lookups.get(&lookup) else { return };
        self.traces.0.insert(lookup, Trace { target: running.target, started: now });
        let under_way = self.queries.iter().filter(|p| p.purpose.lookup() == Some(lookup));
        let mut under_way: Vec<Pending> = under_way.copied().collect();
        under_way.sort_by_key(|p| p.expect.map(|id| running.target.distance(id.key())));
        for query in under_way {
            self.trace_asked(now, query.purpose, query.to, query.expect);
        }
    }

    /// A query went out.
    pub(super) fn trace_asked(
        &mut self,
        now: Instant,
        purpose: Purpose,
        to: SocketAddr,
        id: Option<NodeId>,
    ) {
        self.trace_step(now, purpose, to, id, |_| StepKind::Asked);
    }

    /// An answer came.
    pub(super) fn trace_reply(&mut self, now: Instant, query: &Pending, reply: &Reply<'_>) {
        let family = self.config.family;
        self.trace_step(now, query.purpose, query.to, Some(reply.id), |target| {
            let own = target.distance(reply.id.key());
            let nearer = |(id, _): &(NodeId, SocketAddr)| target.distance(id.key()) < own;
            StepKind::Answered {
                rtt: now.since(query.sent),
                contacts: reply.contacts(family).count(),
                nearer: reply.contacts(family).filter(nearer).count(),
                peers: reply.peers().filter(|p| is_believable(p, query.to.ip())).collect(),
                has_token: reply.token.is_some(),
            }
        });
    }

    /// An error came.
    pub(super) fn trace_error(&mut self, now: Instant, query: &Pending, code: i64) {
        let rtt = now.since(query.sent);
        let step = |_| StepKind::Refused { rtt, code };
        self.trace_step(now, query.purpose, query.to, query.expect, step);
    }

    /// A query has passed a mark without an answer.
    pub(super) fn trace_due(&mut self, now: Instant, due: &Due) {
        let (query, kind) = match due {
            Due::Stalled(query) => (query, StepKind::Stalled),
            Due::Overdue(query) => (query, StepKind::GivenUp),
            Due::Dead(query) => (query, StepKind::Dead),
        };
        self.trace_step(now, query.purpose, query.to, query.expect, |_| kind);
    }

    fn trace_step(
        &mut self,
        now: Instant,
        purpose: Purpose,
        to: SocketAddr,
        id: Option<NodeId>,
        kind: impl FnOnce(Key) -> StepKind,
    ) {
        if self.traces.0.is_empty() {
            return;
        }
        let Some(lookup) = purpose.lookup() else { return };
        let Some(trace) = self.traces.0.get(&lookup) else { return };
        let after: Duration = now.since(trace.started);
        let distance = id.map(|id| trace.target.distance(id.key()));
        let stores = matches!(purpose, Purpose::Announce(_));
        let step = Step { after, to, id, distance, stores, kind: kind(trace.target) };
        self.emit(Event::Step { lookup, step });
    }
}
