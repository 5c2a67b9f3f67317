//! `Session`: the library's async face. One session is one DHT node for each bound address, one
//! listening port, one disk pool, and any number of torrents.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};

use crate::base::addr::Family;
use crate::base::budget::RateLimits;
use crate::base::{InfoHash, PeerId};
use crate::dht;
use crate::driver::command::Command;
use crate::driver::event_loop::{EventLoop, Parts};
use crate::driver::{
    AddTorrent, Dht, Events, SessionStatus, Torrent, TorrentStatus, entropy, tcp, udp,
};
use crate::engine::{self, AddError, SocketId};

/// What a session is to be.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// TCP and DHT share each address and port; port 0 picks one. Empty: any IPv4 and IPv6 address.
    pub listen: Vec<SocketAddr>,
    /// Run DHT nodes.
    pub dht: bool,
    /// Ask, but answer nobody (BEP 43): for a session of seconds.
    pub read_only: bool,
    /// `host:port` of nodes to start from.
    pub bootstrap: Vec<String>,
    /// Where node ids, contacts and resume records are kept; nowhere if `None`.
    pub state_dir: Option<PathBuf>,
    /// DHT queries a second answered to one address; `None` for no limit.
    pub per_ip_rate: Option<u32>,
    /// Have nothing to do with public nodes whose id breaks BEP 42.
    pub enforce_node_ids: bool,
    /// New flows a second that DHT queries may open, over all addresses; `None` for any number. A home
    /// router holds an entry for each.
    pub flows_per_second: Option<u32>,
    /// Take incoming connections, and announce ourselves.
    pub accept: bool,
    /// Connections of all torrents; fewer where the process may not have the descriptors.
    pub connections_max: usize,
    /// How fast payload of all torrents together may flow.
    pub limits: RateLimits,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            dht: true,
            read_only: false,
            bootstrap: Vec::new(),
            state_dir: None,
            per_ip_rate: Some(dht::PER_IP_RATE),
            enforce_node_ids: false,
            flows_per_second: Some(dht::FLOWS_PER_SECOND),
            accept: true,
            connections_max: 500,
            limits: RateLimits::default(),
        }
    }
}

/// Why a session did not start.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// An address could not be bound.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// Which.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("no randomness from the system: {0}")]
    Entropy(io::Error),
}

/// A running session. Clones share it; when the last one is dropped it shuts down.
///
/// ```no_run
/// use trackless::base::InfoHash;
/// use trackless::driver::{AddTorrent, Output, Session, SessionConfig, TorrentEvent, public_bootstrap};
/// use trackless::swarm::Event;
///
/// # async fn example(info_hash: InfoHash) -> Result<(), Box<dyn std::error::Error>> {
/// let bootstrap = public_bootstrap().map(str::to_owned).collect();
/// let session = Session::start(SessionConfig { bootstrap, ..SessionConfig::default() }).await?;
/// let output = Output::Download("downloads".into());
/// let mut torrent = session.add(AddTorrent { output, ..AddTorrent::new(info_hash) }).await?;
/// while let Some(event) = torrent.next_event().await {
///     match event {
///         TorrentEvent::Swarm(Event::Finished) => break,
///         TorrentEvent::Swarm(Event::Failed(error)) => return Err(error.message.into()),
///         event => println!("{event:?}"),
///     }
/// }
/// session.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    local_addrs: Arc<[SocketAddr]>,
}

impl Session {
    /// Binds, loads state, and starts. The first datagrams leave before this returns to the caller.
    pub async fn start(config: SessionConfig) -> Result<Session, SessionError> {
        let mut seed = entropy::seed().map_err(SessionError::Entropy)?;
        let mut rng = crate::base::Rng::from_seed(seed);
        seed = rng.fork();
        let bound = bind_all(&config)?;
        let local_addrs: Arc<[SocketAddr]> = bound.iter().map(|b| b.addr).collect();
        let mut engine = engine::Config::new(PeerId::random(&mut rng));
        engine.connections_max = config.connections_max.min(tcp::connections_possible());
        engine.limits = config.limits;
        engine.listen_port = bound.iter().find(|b| b.tcp.is_some()).map(|b| b.addr.port());
        let (commands, wishes) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let parts = Parts { config, engine, bound, seed, wishes };
        tokio::spawn(EventLoop::new(parts).run());
        Ok(Session { commands, local_addrs })
    }

    /// The bound addresses.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.local_addrs.to_vec()
    }

    /// Adds a torrent; its lookups and dials start at once. The handle may be dropped: the torrent
    /// stays.
    ///
    /// # Errors
    ///
    /// [`AddError::Duplicate`] if it is here already: [`Session::torrent`] has a handle on it.
    /// [`AddError::Full`] if there are too many, or the session has ended.
    pub async fn add(&self, add: AddTorrent) -> Result<Torrent, AddError> {
        let info_hash = add.info_hash;
        let added = self.ask(|reply| Command::Add(Box::new(add), reply)).await;
        let (id, news) = added.unwrap_or(Err(AddError::Full))?;
        Ok(Torrent { id, info_hash, commands: self.commands.clone(), news })
    }

    /// Another handle on a torrent; `None` if it is not here. It has events of its own, from now on.
    pub async fn torrent(&self, info_hash: InfoHash) -> Option<Torrent> {
        let (id, news) = self.ask(|reply| Command::Attach(info_hash, reply)).await??;
        Some(Torrent { id, info_hash, commands: self.commands.clone(), news })
    }

    /// Where all torrents stand, in the order in which they were added, as of one moment.
    pub async fn torrents(&self) -> Vec<TorrentStatus> {
        self.ask(Command::Statuses).await.unwrap_or_default()
    }

    /// What happens to all torrents from now on.
    pub async fn events(&self) -> Events {
        Events::new(self.ask(Command::Subscribe).await)
    }

    /// Other limits for all torrents together from now on.
    pub async fn set_limits(&self, limits: RateLimits) {
        // A session that is gone has nothing to limit.
        let _ = self.commands.send(Command::SetLimits(None, limits)).await;
    }

    /// Where the session stands; `None` once it has ended.
    pub async fn status(&self) -> Option<SessionStatus> {
        self.ask(Command::SessionStatus).await
    }

    /// Its DHT nodes. Where the session has none, every operation is refused.
    pub fn dht(&self) -> Dht {
        Dht { commands: self.commands.clone(), local_addrs: self.local_addrs.clone() }
    }

    /// Ends the session: peers are told, good data is recorded, the node's state is saved. Takes a
    /// few seconds at most.
    pub async fn shutdown(&self) {
        self.ask(Command::Shutdown).await;
    }

    // A session that is gone answers nothing.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// One bound address.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) addr: SocketAddr,
    pub(super) tcp: Option<TcpListener>,
    pub(super) udp: Option<UdpSocket>,
}

fn bind_all(config: &SessionConfig) -> Result<Vec<Bound>, SessionError> {
    if !config.listen.is_empty() {
        let bind = |addr: &SocketAddr| {
            bind_one(*addr, config).map_err(|source| SessionError::Bind { addr: *addr, source })
        };
        return config.listen.iter().map(bind).collect();
    }
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    let first = bind_one(v4, config).map_err(|source| SessionError::Bind { addr: v4, source });
    // The same port on both families, so that one announce serves both; a host may lack either.
    let port = first.as_ref().map_or(0, |b| b.addr.port());
    let second = bind_one(SocketAddr::new(v6.ip(), port), config);
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(vec![first, second]),
        (Ok(first), Err(_)) => Ok(vec![first]),
        (Err(_), Ok(second)) => Ok(vec![second]),
        (Err(e), Err(_)) => Err(e),
    }
}

// TCP and UDP on one port. With port 0 the system picks for TCP, and UDP has to get the same.
fn bind_one(addr: SocketAddr, config: &SessionConfig) -> io::Result<Bound> {
    let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = if config.accept { Some(tcp::listen(addr)?) } else { None };
        let mut bound = match &tcp {
            Some(tcp) => tcp.local_addr()?,
            None => addr,
        };
        let udp = match config.dht.then(|| udp::bind(bound)) {
            Some(Err(e)) if tries > 0 && e.kind() == io::ErrorKind::AddrInUse => continue,
            udp => udp.transpose()?,
        };
        if let Some(udp) = &udp {
            bound = udp.local_addr()?;
        }
        return Ok(Bound { addr: bound, tcp, udp });
    }
}

/// What a node is made from, by these settings.
pub(super) fn node_config(
    socket: SocketId,
    addr: SocketAddr,
    config: &SessionConfig,
) -> engine::NodeConfig {
    let mut dht = dht::Config::new(Family::of(&addr));
    dht.read_only = config.read_only;
    dht.per_ip_rate = config.per_ip_rate;
    dht.enforce_node_ids = config.enforce_node_ids;
    dht.flows_per_second = config.flows_per_second;
    let mut own_addrs = vec![addr];
    if addr.ip().is_unspecified() {
        own_addrs.extend(outward_ip(addr).map(|ip| SocketAddr::new(ip, addr.port())));
    }
    engine::NodeConfig { socket, port: addr.port(), dht, id: None, contacts: Vec::new(), own_addrs }
}

// The address of this machine on its way to the world. Documentation addresses: connecting a UDP
// socket asks the routing table and sends nothing.
fn outward_ip(listening: SocketAddr) -> Option<IpAddr> {
    let far = if listening.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(listening.ip(), 0)).ok()?;
    socket.connect(far).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

const PORT_TRIES: u32 = 16;
const COMMANDS_QUEUED_MAX: usize = 256;
