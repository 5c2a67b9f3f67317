//! `Dht`: the library's handle on the DHT alone. It comes from a [`Session`], or starts by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::base::{InfoHash, NodeId};
use crate::dht::{self, Step};
use crate::driver::command::{Command, DhtCommand};
use crate::driver::{DhtError, Lookup, NodeStatus, Session, SessionConfig, SessionError};
use crate::engine::NodeEvent;

/// What a DHT node is to be.
#[derive(Debug, Clone)]
pub struct DhtConfig {
    /// Where to listen, one node for each address; port 0 picks one. Empty: any IPv4 and any IPv6
    /// address (BEP 32: each family has a DHT of its own).
    pub listen: Vec<SocketAddr>,
    /// `host:port` of nodes to start from; [`public_bootstrap`] has those of the public network.
    pub bootstrap: Vec<String>,
    /// Ask, but answer nobody (BEP 43): for a program that runs for seconds.
    pub read_only: bool,
    /// Where node ids and contacts are kept; nowhere if `None`.
    pub state_dir: Option<PathBuf>,
    /// Queries a second answered to one address; `None` for no limit.
    pub per_ip_rate: Option<u32>,
    /// Have nothing to do with public nodes whose id breaks BEP 42.
    pub enforce_node_ids: bool,
}

impl Default for DhtConfig {
    /// A node that answers everybody and knows nobody to start from.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            bootstrap: Vec::new(),
            read_only: false,
            state_dir: None,
            per_ip_rate: Some(dht::PER_IP_RATE),
            enforce_node_ids: false,
        }
    }
}

/// A running DHT node, or two: one for each address family. Clones share it; when the last one is
/// dropped, and the last [`Lookup`] with it, the node ends.
///
/// Every lookup starts at once, from whatever nodes are known by then, and has a definite end.
///
/// ```
/// # use trackless::base::InfoHash;
/// # use trackless::driver::{Dht, DhtConfig, DhtError};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // Two nodes on loopback; the second starts from the first.
/// let listen = vec!["127.0.0.1:0".parse()?];
/// let first = Dht::start(DhtConfig { listen: listen.clone(), ..DhtConfig::default() }).await?;
/// let bootstrap = vec![first.local_addrs()[0].to_string()];
/// let dht = Dht::start(DhtConfig { listen, bootstrap, ..DhtConfig::default() }).await?;
///
/// let info_hash = InfoHash::new([7; 20]);
/// assert_eq!(dht.announce(info_hash, Some(4711)).await.finish().await?.announced(), 1);
///
/// let mut peers = first.get_peers(info_hash).await;
/// assert_eq!(peers.next().await, Some("127.0.0.1:4711".parse()?));
/// assert_eq!(peers.next().await, None, "the lookup is over");
/// println!("{} nodes were asked", peers.finish().await?.asked());
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(example())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dht {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) local_addrs: Arc<[SocketAddr]>,
}

/// A node that answered a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// Its id.
    pub id: NodeId,
    /// How long the answer took.
    pub rtt: Duration,
}

impl Dht {
    /// Binds, loads state, and starts. It bootstraps by itself; nobody has to wait for it.
    ///
    /// # Errors
    ///
    /// If an address cannot be bound, or the system has no randomness.
    pub async fn start(config: DhtConfig) -> Result<Dht, SessionError> {
        let DhtConfig { listen, bootstrap, read_only, state_dir, per_ip_rate, enforce_node_ids } =
            config;
        let config = SessionConfig {
            listen,
            bootstrap,
            read_only,
            state_dir,
            per_ip_rate,
            enforce_node_ids,
            accept: false,
            ..SessionConfig::default()
        };
        Ok(Session::start(config).await?.dht())
    }

    /// The bound addresses.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Where each node stands.
    ///
    /// # Errors
    ///
    /// [`DhtError::Ended`] after a shutdown.
    pub async fn status(&self) -> Result<Vec<NodeStatus>, DhtError> {
        let status = self.ask(Command::SessionStatus).await;
        status.map(|s| s.nodes).ok_or(DhtError::Ended)
    }

    /// Asks one node for its id (BEP 5 `ping`).
    ///
    /// # Errors
    ///
    /// [`DhtError::NoAnswer`] after eight seconds without an answer, [`DhtError::Refused`] if no
    /// node of that address family runs here.
    pub async fn ping(&self, addr: SocketAddr) -> Result<Pong, DhtError> {
        let mut news = self.begin(DhtCommand::Ping(addr)).await;
        loop {
            match news.recv().await {
                Some(NodeEvent::Pinged { id: Some(id), rtt }) => {
                    return Ok(Pong { id, rtt: rtt.unwrap_or_default() });
                }
                Some(NodeEvent::Pinged { id: None, .. }) => return Err(DhtError::NoAnswer(addr)),
                Some(NodeEvent::Refused(why)) => return Err(why.into()),
                Some(
                    NodeEvent::Peers(_)
                    | NodeEvent::Item(_)
                    | NodeEvent::Samples { .. }
                    | NodeEvent::Step(_)
                    | NodeEvent::Done { .. },
                ) => {}
                None => return Err(DhtError::Ended),
            }
        }
    }

    /// Looks for the nodes closest to `target` (BEP 5 `find_node`). They come when the lookup is
    /// over: at most eight of each address family, nearest first.
    pub async fn find_node(&self, target: NodeId) -> Lookup<(NodeId, SocketAddr)> {
        self.look_up(DhtCommand::FindNode(target), |event, found| {
            if let NodeEvent::Done { report, .. } = event {
                found.extend(&report.nodes);
            }
        })
        .await
    }

    /// Looks for the peers of a torrent (BEP 5 `get_peers`). They come as nodes name them, each
    /// once for each address family.
    pub async fn get_peers(&self, info_hash: InfoHash) -> Lookup<SocketAddr> {
        self.look_up(DhtCommand::GetPeers(info_hash), peers).await
    }

    /// The same search as [`get_peers`](Self::get_peers), told step by step: whom it asks, how far
    /// each is from the target, how long each answer takes, and what comes with it.
    pub async fn trace_peers(&self, info_hash: InfoHash) -> Lookup<Step> {
        self.look_up(DhtCommand::TracePeers(info_hash), |event, found| {
            if let NodeEvent::Step(step) = event {
                found.push_back(step.clone());
            }
        })
        .await
    }

    /// Looks for the peers of a torrent and then announces this machine to the closest nodes
    /// (BEP 5 `announce_peer`): at `port`, or at the port from which our datagrams come. Nodes
    /// forget it after half an hour or more: announce again every 15 minutes.
    pub async fn announce(&self, info_hash: InfoHash, port: Option<u16>) -> Lookup<SocketAddr> {
        self.look_up(DhtCommand::Announce(info_hash, port), peers).await
    }

    /// Ends the node and saves its state. Takes a few seconds at most. Every clone ends with it.
    pub async fn shutdown(&self) {
        self.ask(Command::Shutdown).await;
    }

    async fn look_up<T>(
        &self,
        command: DhtCommand,
        pick: fn(&NodeEvent, &mut VecDeque<T>),
    ) -> Lookup<T> {
        let news = self.begin(command).await;
        Lookup::new(news, self.commands.clone(), pick)
    }

    async fn begin(&self, command: DhtCommand) -> mpsc::Receiver<NodeEvent> {
        let (news, events) = mpsc::channel(NEWS_QUEUED_MAX);
        // A node that has ended drops `news`: the caller hears that.
        let _ = self.commands.send(Command::Dht(command, news)).await;
        events
    }

    // A node that has ended answers nothing.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn peers(event: &NodeEvent, found: &mut VecDeque<SocketAddr>) {
    if let NodeEvent::Peers(peers) = event {
        found.extend(peers);
    }
}

/// `host:port` of nodes that run for everybody: where the public network is entered.
pub fn public_bootstrap() -> impl Iterator<Item = &'static str> {
    include_str!("../../bootstrap-nodes.txt")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Events of one operation that wait for its caller: more than two nodes' lookups can have.
const NEWS_QUEUED_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
