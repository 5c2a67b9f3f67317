//! Bootstrap names to addresses. Literals cost nothing; names are asked all at once, each on its
//! own task, so that one slow or blocked name does not hold up the others.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;

/// The addresses among `names` that need no look-up.
pub(super) fn literals(names: &[String]) -> Vec<SocketAddr> {
    names.iter().filter_map(|n| n.parse().ok()).collect()
}

/// Resolves the names among `names`, each on its own; results arrive on `found` as they come.
pub(super) fn resolve(names: &[String], found: &mpsc::Sender<Vec<SocketAddr>>) {
    for name in names.iter().filter(|n| n.parse::<SocketAddr>().is_err()) {
        let (name, found) = (name.clone(), found.clone());
        tokio::spawn(async move {
            let addrs = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host(name.as_str())).await;
            match addrs {
                Ok(Ok(addrs)) => {
                    let addrs: Vec<_> = addrs.take(ADDRS_PER_NAME_MAX).collect();
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

const TIMEOUT: Duration = Duration::from_secs(10);
/// A name with more addresses than this is not a bootstrap node.
const ADDRS_PER_NAME_MAX: usize = 8;
