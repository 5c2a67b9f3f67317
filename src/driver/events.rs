//! What happens to all torrents of a session, as one stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::base::InfoHash;
use crate::driver::TorrentEvent;

/// News of a session.
#[expect(clippy::large_enum_variant, reason = "nearly all news are of the large kind")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// A torrent was added.
    Added(InfoHash),
    /// A torrent has news of its own.
    Torrent {
        /// Which.
        info_hash: InfoHash,
        /// What.
        event: TorrentEvent,
    },
    /// A torrent rests.
    Paused(InfoHash),
    /// A torrent goes on.
    Resumed(InfoHash),
    /// A torrent was removed.
    Removed(InfoHash),
    /// So many were missed: they came faster than they were taken.
    Missed(u64),
}

/// The news of a session, from when this was made. It ends with the session. Whoever does not take them
/// misses some, and nobody waits for it.
#[derive(Debug)]
pub struct Events {
    news: Option<broadcast::Receiver<SessionEvent>>,
    // Made when the stream has to wait: a receiver itself can only be awaited.
    waiting: Option<Waiting>,
}

type Received = (Result<SessionEvent, RecvError>, broadcast::Receiver<SessionEvent>);

struct Waiting(Pin<Box<dyn Future<Output = Received> + Send + Sync>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(news: Option<broadcast::Receiver<SessionEvent>>) -> Self {
        Self { news, waiting: None }
    }

    /// The next news; `None` once the session has ended.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        if let Some(news) = &mut self.news {
            match news.try_recv() {
                Ok(event) => return Poll::Ready(Some(event)),
                Err(TryRecvError::Lagged(missed)) => {
                    return Poll::Ready(Some(SessionEvent::Missed(missed)));
                }
                Err(TryRecvError::Closed) => self.news = None,
                Err(TryRecvError::Empty) => {}
            }
        }
        if let Some(mut news) = self.news.take() {
            self.waiting = Some(Waiting(Box::pin(async move { (news.recv().await, news) })));
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        let (received, news) = ready!(waiting.0.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(match received {
            Ok(event) => {
                self.news = Some(news);
                Some(event)
            }
            Err(RecvError::Lagged(missed)) => {
                self.news = Some(news);
                Some(SessionEvent::Missed(missed))
            }
            Err(RecvError::Closed) => None,
        })
    }
}

impl Stream for Events {
    type Item = SessionEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        self.get_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(n: u8) -> SessionEvent {
        SessionEvent::Removed(InfoHash::new([n; 20]))
    }

    #[tokio::test]
    async fn news_come_in_order_and_end_with_the_session() {
        let (tell, news) = broadcast::channel(4);
        let mut events = Events::new(Some(news));
        let teller = tokio::spawn(async move {
            for n in 0..3 {
                tell.send(removed(n)).unwrap();
                tokio::task::yield_now().await;
            }
        });
        for n in 0..3 {
            assert_eq!(events.next().await, Some(removed(n)));
        }
        teller.await.unwrap();
        assert_eq!(events.next().await, None);
        assert_eq!(events.next().await, None);
        assert_eq!(Events::new(None).next().await, None);
    }

    #[tokio::test]
    async fn slow_listener_is_told_how_much_it_missed() {
        let (tell, news) = broadcast::channel(4);
        let mut events = Events::new(Some(news));
        for n in 0..10 {
            tell.send(removed(n)).unwrap();
        }
        assert_eq!(events.next().await, Some(SessionEvent::Missed(6)));
        assert_eq!(events.next().await, Some(removed(6)));
    }
}
