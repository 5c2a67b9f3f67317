//! `Lookup`: one DHT operation as a stream of what it finds, with a definite end and a report.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::base::NodeId;
use crate::dht::{LookupReport, Scrape};
use crate::driver::command::Command;
use crate::engine::{NodeEvent, Refused};

/// A running lookup: a stream of what it finds, as it finds it. The stream ends when the lookup
/// does, which is never later than a minute and a half, unless it is one of many that wait for their
/// turn; then [`finish`](Lookup::finish) tells what it did. Dropping it cancels the lookup.
#[derive(Debug)]
pub struct Lookup<T> {
    news: mpsc::Receiver<NodeEvent>,
    commands: mpsc::Sender<Command>,
    pick: Pick<T>,
    ready: VecDeque<T>,
    outcome: Outcome,
    end: Option<Result<(), DhtError>>,
}

/// Takes out of an event what this lookup is a stream of.
pub(super) type Pick<T> = fn(&NodeEvent, &mut VecDeque<T>);

/// What a lookup came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One for each node of ours that took part: one for each address family.
    pub reports: Vec<LookupReport>,
}

/// Why a DHT operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DhtError {
    /// The node was shut down.
    #[error("the DHT node has ended")]
    Ended,
    /// It was not started.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The one node that was asked did not answer.
    #[error("{0}: no answer")]
    NoAnswer(SocketAddr),
}

impl<T> Lookup<T> {
    pub(super) fn new(
        news: mpsc::Receiver<NodeEvent>,
        commands: mpsc::Sender<Command>,
        pick: Pick<T>,
    ) -> Self {
        let (ready, outcome) = (VecDeque::new(), Outcome::default());
        Self { news, commands, pick, ready, outcome, end: None }
    }

    /// The next thing found; `None` once the lookup is over.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits for the end. What was found and not yet taken from the stream is dropped.
    ///
    /// # Errors
    ///
    /// [`DhtError::Refused`] if it was not started, [`DhtError::Ended`] if the node was shut down
    /// meanwhile. That nobody answered is no error: the [`Outcome`] says so.
    pub async fn finish(mut self) -> Result<Outcome, DhtError> {
        while self.next().await.is_some() {}
        match self.end.take() {
            Some(Ok(())) => Ok(std::mem::take(&mut self.outcome)),
            Some(Err(error)) => Err(error),
            None => Err(DhtError::Ended),
        }
    }

    /// What it came to so far: the reports of the nodes that are done with it.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Poll::Ready(Some(found));
            }
            if self.end.is_some() {
                return Poll::Ready(None);
            }
            match self.news.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.end = Some(Err(DhtError::Ended)),
                Poll::Ready(Some(event)) => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: NodeEvent) {
        (self.pick)(&event, &mut self.ready);
        if event.is_last() {
            self.end = Some(Ok(()));
        }
        match event {
            NodeEvent::Done { report, .. } => self.outcome.reports.push(report),
            NodeEvent::Refused(why) => self.end = Some(Err(why.into())),
            NodeEvent::Peers(_)
            | NodeEvent::Item(_)
            | NodeEvent::Samples { .. }
            | NodeEvent::Step(_)
            | NodeEvent::Pinged { .. } => {}
        }
    }
}

impl<T> Stream for Lookup<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().poll(cx)
    }
}

// Nothing in it is ever pinned.
impl<T> Unpin for Lookup<T> {}

impl<T> Drop for Lookup<T> {
    fn drop(&mut self) {
        self.news.close();
        if self.end.is_none() {
            // If the loop is busy it finds the closed channel with the next news of this lookup.
            let _ = self.commands.try_send(Command::Sweep);
        }
    }
}

impl Outcome {
    /// Nodes that were asked.
    pub fn asked(&self) -> usize {
        self.reports.iter().map(|r| r.asked).sum()
    }

    /// Nodes that answered.
    pub fn answered(&self) -> usize {
        self.reports.iter().map(|r| r.answered).sum()
    }

    /// Nodes that did not answer in time.
    pub fn dead(&self) -> usize {
        self.reports.iter().map(|r| r.dead).sum()
    }

    /// Peers that were found; one that both address families named counts twice.
    pub fn peers(&self) -> usize {
        self.reports.iter().map(|r| r.peers).sum()
    }

    /// Nodes that stored what was to be stored.
    pub fn announced(&self) -> usize {
        self.reports.iter().map(|r| r.announced).sum()
    }

    /// Nodes that answered and sit nearer to the target than chance brings so many: zero as a rule.
    pub fn crowd(&self) -> usize {
        self.reports.iter().map(|r| r.crowd).sum()
    }

    /// The numbers of the errors with which nodes refused to store an item (BEP 44).
    pub fn refused(&self) -> impl Iterator<Item = i64> + '_ {
        self.reports.iter().flat_map(|r| r.refused.iter().copied())
    }

    /// How many have the torrent that was counted. Of both address families the larger count: most of
    /// those that have both are in both.
    pub fn scrape(&self) -> Option<Scrape> {
        self.reports.iter().filter_map(|r| r.scrape).reduce(|a, b| Scrape {
            seeds: a.seeds.max(b.seeds),
            peers: a.peers.max(b.peers),
            nodes: a.nodes + b.nodes,
        })
    }

    /// The closest nodes that answered: at most eight of each address family, nearest first.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        self.reports.iter().flat_map(|r| r.nodes.iter().copied())
    }

    /// From the command to the end.
    pub fn took(&self) -> Duration {
        self.reports.iter().map(|r| r.took).max().unwrap_or_default()
    }
}
