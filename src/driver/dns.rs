//! Bootstrap names to addresses. Literals cost nothing; names are asked all at once, each on its
//! own task, so that one slow or blocked name does not hold up the others.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

/// The addresses among `names` that need no look-up.
pub(super) fn literals(names: &[String]) -> Vec<SocketAddr> {
    names.iter().filter_map(|n| n.parse().ok()).collect()
}

/// Resolves the names among `names`, each on its own; results arrive on `found` as they come.
pub(super) fn resolve(names: &[String], found: &mpsc::Sender<Vec<SocketAddr>>) {
    for name in names.iter().filter(|n| n.parse::<SocketAddr>().is_err()) {
        let (name, found) = (name.clone(), found.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(TIMEOUT, look_up(name.clone())).await {
                Ok(Ok(addrs)) => {
                    tracing::debug!(%name, ?addrs, "bootstrap name resolved");
                    // The session may have ended meanwhile.
                    let _ = found.send(addrs).await;
                }
                Ok(Err(error)) => tracing::debug!(%name, %error, "bootstrap name not resolved"),
                Err(_) => tracing::debug!(%name, "bootstrap name: no answer from DNS"),
            }
        });
    }
}

// A lookup cannot be called back: it holds a thread, and its place, until the system has done with
// it, whether or not anybody still waits for it.
async fn look_up(name: String) -> io::Result<Vec<SocketAddr>> {
    let place = PLACES.acquire().await.map_err(io::Error::other)?;
    let lookup = tokio::spawn(async move {
        let addrs = tokio::net::lookup_host(name.as_str()).await;
        drop(place);
        addrs.map(|addrs| addrs.take(ADDRS_PER_NAME_MAX).collect())
    });
    lookup.await.map_err(io::Error::other)?
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// Names that are looked up at the same time. A node without a network asks again every few seconds,
/// and a resolver that does not answer can hold a lookup for half a minute.
static PLACES: Semaphore = Semaphore::const_new(16);
/// A name with more addresses than this is not a bootstrap node.
const ADDRS_PER_NAME_MAX: usize = 8;
