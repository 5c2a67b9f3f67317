//! What one handle on a torrent is told: a bounded queue that never makes the teller wait. When it is
//! full the oldest news that only pass by make room, and the listener hears how many it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::driver::TorrentEvent;
use crate::driver::storage::locked;
use crate::swarm::Event;

/// A queue, and both its ends.
pub(super) fn channel() -> (Teller, News) {
    let shared = Arc::new(Shared::default());
    (Teller(shared.clone()), News(shared))
}

/// Where news are put in. Dropping it ends the news.
#[derive(Debug)]
pub(super) struct Teller(Arc<Shared>);

/// Where news come out.
#[derive(Debug)]
pub(super) struct News(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<TorrentEvent>,
    missed: u64,
    is_over: bool,
}

impl Teller {
    /// Tells the listener; never waits.
    pub(super) fn tell(&self, event: TorrentEvent) {
        let mut queue = locked(&self.0.queue);
        if queue.events.len() >= NEWS_QUEUED_MAX {
            // What changes what the torrent is comes through, as long as there is anything else.
            let passing = queue.events.iter().position(|event| !is_lasting(event));
            queue.events.remove(passing.unwrap_or(0));
            queue.missed += 1;
        }
        queue.events.push_back(event);
        drop(queue);
        self.0.arrived.notify_one();
    }

    /// Does nobody listen any more?
    pub(super) fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) < 2
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        locked(&self.0.queue).is_over = true;
        self.0.arrived.notify_one();
    }
}

impl News {
    /// The next news; `None` when there will be no more. Whoever stops waiting loses none.
    pub(super) async fn next(&mut self) -> Option<TorrentEvent> {
        loop {
            let arrived = {
                let mut queue = locked(&self.0.queue);
                let missed = std::mem::take(&mut queue.missed);
                if missed > 0 {
                    return Some(TorrentEvent::Missed(missed));
                }
                let event = queue.events.pop_front();
                if event.is_some() || queue.is_over {
                    return event;
                }
                // There is one listener, and a permit is kept for it: nothing is slept through.
                self.0.arrived.notified()
            };
            arrived.await;
        }
    }
}

// After these the torrent is something else than before.
fn is_lasting(event: &TorrentEvent) -> bool {
    match event {
        TorrentEvent::Swarm(event) => match event {
            Event::MetadataReady { .. }
            | Event::MetadataUnusable { .. }
            | Event::Opened { .. }
            | Event::Finished
            | Event::Failed(_) => true,
            Event::PieceVerified(_)
            | Event::PieceFailed(_)
            | Event::PieceLost(_)
            | Event::FileChanged { .. }
            | Event::PeerMisbehaved { .. }
            | Event::PeerBanned { .. }
            | Event::DhtNode { .. } => false,
        },
        TorrentEvent::LookupDone(_) | TorrentEvent::Missed(_) => false,
    }
}

/// News that wait for one listener.
const NEWS_QUEUED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(n: usize) -> TorrentEvent {
        let port = u16::try_from(n).unwrap();
        TorrentEvent::Swarm(Event::PeerBanned { addr: ([127, 0, 0, 1], port).into() })
    }

    const FINISHED: TorrentEvent = TorrentEvent::Swarm(Event::Finished);

    async fn all(mut news: News) -> Vec<TorrentEvent> {
        let mut told = Vec::new();
        while let Some(event) = news.next().await {
            told.push(event);
        }
        told
    }

    #[tokio::test]
    async fn news_come_in_order_and_end_with_the_teller() {
        let (teller, news) = channel();
        let listener = tokio::spawn(all(news));
        for n in 0..3 {
            teller.tell(banned(n));
            tokio::task::yield_now().await;
        }
        drop(teller);
        assert_eq!(listener.await.unwrap(), [banned(0), banned(1), banned(2)]);
    }

    #[tokio::test]
    async fn full_queue_lets_go_of_the_oldest_that_only_pass_by_and_says_how_many() {
        let (teller, news) = channel();
        teller.tell(FINISHED);
        (0..NEWS_QUEUED_MAX + 9).for_each(|n| teller.tell(banned(n)));
        drop(teller);
        let told = all(news).await;
        assert_eq!(told[..3], [TorrentEvent::Missed(10), FINISHED, banned(10)]);
        assert_eq!(told.len(), NEWS_QUEUED_MAX + 1);
        assert_eq!(told.last(), Some(&banned(NEWS_QUEUED_MAX + 8)));
    }

    #[tokio::test]
    async fn queue_of_nothing_but_lasting_news_is_bounded_too() {
        let (teller, news) = channel();
        (0..2 * NEWS_QUEUED_MAX).for_each(|_| teller.tell(FINISHED));
        drop(teller);
        let told = all(news).await;
        assert_eq!(told.len(), NEWS_QUEUED_MAX + 1);
        assert_eq!(told[0], TorrentEvent::Missed(NEWS_QUEUED_MAX as u64));
    }

    #[tokio::test]
    async fn teller_knows_that_nobody_listens() {
        let (teller, news) = channel();
        assert!(!teller.is_closed());
        drop(news);
        assert!(teller.is_closed());
    }
}
