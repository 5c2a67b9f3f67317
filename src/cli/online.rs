//! What the network verbs share: the runtime, the session, its clean end, and the watch over one
//! torrent from its link to its data.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::config::Network;
use super::exit::{Code, Failure};
use super::output::Console;
use super::progress::Progress;
use super::signals::{Signals, stopped};
use super::stage::failure;
use crate::driver::{
    AddTorrent, Session, SessionConfig, SessionError, Stage, Torrent, TorrentEvent, TorrentStatus,
};
use crate::swarm::{Event, Phase};
use crate::wire::magnet::PeerHint;

/// Runs a network verb in a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("starting", &e))?;
    let outcome = runtime.block_on(work);
    // A DNS query under way would hold a normal shutdown up for as long as it likes.
    runtime.shutdown_background();
    outcome
}

/// What kind of node a verb needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Asks and goes again: answers nobody, listens for nobody (BEP 43).
    Visitor,
    /// Downloads or shares: a full node that takes connections.
    Member,
    /// A DHT node and nothing else.
    Node {
        /// Queries a second answered to one address.
        per_ip_rate: Option<u32>,
    },
}

/// Starts the session that the flags and the verb ask for.
pub async fn start(network: &Network, role: Role) -> Result<Session, Failure> {
    let mut config = SessionConfig {
        listen: network.listen.clone(),
        dht: network.dht,
        enforce_node_ids: network.enforce_node_ids,
        flows_per_second: network.flows_per_second,
        bootstrap: network.bootstrap.clone(),
        state_dir: network.state_dir.clone(),
        read_only: role == Role::Visitor,
        accept: role == Role::Member,
        limits: network.transfer.limits,
        connections_max: network.transfer.connections_max,
        ..SessionConfig::default()
    };
    if let Role::Node { per_ip_rate } = role {
        config.per_ip_rate = per_ip_rate;
    }
    Session::start(config).await.map_err(|error| session_failure(&error))
}

fn session_failure(error: &SessionError) -> Failure {
    match error {
        SessionError::Bind { addr, source } => bind_failure("listen", "--listen", *addr, source),
        SessionError::Entropy(_) => Failure::new(Code::Other, error.to_string()),
    }
}

/// An address that was to be bound for `what`, as `flag` says, was not.
pub fn bind_failure(what: &str, flag: &str, addr: SocketAddr, source: &std::io::Error) -> Failure {
    let failure = Failure::io(format!("cannot {what} on {addr}"), source);
    match source.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(Code::Conflict, failure.error)
            .advise("another program has that port: use another, or 0 for any"),
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Permission, failure.error).advise("use a port above 1023")
        }
        _ => Failure::new(Code::NoNetwork, failure.error)
            .advise(format!("use an address of this machine with {flag}")),
    }
}

/// Does `work` until it ends, or a signal does. Either way the session ends cleanly.
pub async fn conduct<T>(
    session: &Session,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = Signals::listen();
    let outcome = tokio::select! {
        outcome = work => outcome,
        code = signals.next() => Err(stopped(code)),
    };
    signals.second_ends_at_once();
    if timeout(SHUTDOWN_MAX, session.shutdown()).await.is_err() {
        tracing::warn!("the session did not end in {SHUTDOWN_MAX:?}");
    }
    outcome
}

/// The peers that a link calls by name: looked up all at once, while the torrent is under way.
#[derive(Debug, Default)]
pub struct Names {
    lookups: JoinSet<Vec<SocketAddr>>,
    /// What was found so far.
    pub found: Vec<SocketAddr>,
}

/// Splits the peers that a link names into addresses, behind the given ones, and names.
pub fn peers(given: &[SocketAddr], hints: &[PeerHint]) -> (Vec<SocketAddr>, Names) {
    let (mut peers, mut names) = (given.to_vec(), Names::default());
    for hint in hints.iter().take(HINTS_MAX) {
        match hint {
            PeerHint::Addr(addr) => peers.push(*addr),
            PeerHint::Host(host, port) if names.lookups.len() < HINT_NAMES_MAX => {
                let lookup = timeout(HINT_LOOKUP_MAX, look_up(host.clone(), *port));
                names.lookups.spawn(async move { lookup.await.unwrap_or_default() });
            }
            PeerHint::Host(..) => {}
        }
    }
    (peers, names)
}

impl Names {
    // The addresses of the next name that has any; waits for ever when there are no more.
    async fn next(&mut self) -> Vec<SocketAddr> {
        match self.lookups.join_next().await {
            Some(addrs) => {
                let addrs = addrs.unwrap_or_default();
                self.found.extend(&addrs);
                addrs
            }
            None => std::future::pending().await,
        }
    }
}

// A lookup cannot be called back: it keeps its place until the system has done with it, whether or
// not anybody still waits for it.
async fn look_up(host: String, port: u16) -> Vec<SocketAddr> {
    let Ok(place) = NAME_PLACES.acquire().await else { return Vec::new() };
    let lookup = tokio::spawn(async move {
        let addrs = tokio::net::lookup_host((host.as_str(), port)).await;
        drop(place);
        addrs.map(|addrs| addrs.take(HINT_ADDRS_MAX).collect::<Vec<_>>())
    });
    lookup.await.map(Result::unwrap_or_default).unwrap_or_default()
}

/// Adds a torrent to the session.
pub async fn add(session: &Session, add: AddTorrent) -> Result<Torrent, Failure> {
    session.add(add).await.map_err(|error| Failure::new(Code::Conflict, error.to_string()))
}

/// When a watch gives up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The user's own limit.
    pub deadline: Option<Instant>,
    /// Without a limit: how long nothing may happen. `None` waits for ever.
    pub idle: Option<Duration>,
    /// The same while nobody is known, where nobody can become known: without the DHT.
    pub alone: Option<Duration>,
}

impl Patience {
    /// The user's limit, or this much idle time. With the DHT off, and without a place where
    /// somebody may come (`is_found`), who is alone stays alone: there is nothing to wait for.
    pub fn new(network: &Network, idle: Duration, is_found: bool) -> Self {
        Self {
            deadline: network.timeout.map(|limit| Instant::now() + limit),
            idle: network.timeout.is_none().then_some(idle),
            alone: (!is_found).then_some(ALONE_MAX),
        }
    }
}

/// Follows one torrent, showing how far it is.
pub struct Watch<'a> {
    /// The torrent.
    pub torrent: &'a mut Torrent,
    /// Where to show it.
    pub progress: &'a mut Progress,
    /// When to give up.
    pub patience: Patience,
    /// What to call it before its own name is known.
    pub name: Option<String>,
    /// Peers whose addresses are still looked for.
    pub names: &'a mut Names,
}

impl Watch<'_> {
    /// Until the info dictionary is here.
    pub async fn metadata(&mut self) -> Result<Bytes, Failure> {
        self.until(|event| match event {
            Event::MetadataReady { info } => Some(info.clone()),
            _ => None,
        })
        .await
    }

    /// Until all wanted data is verified on disk. `on_metadata` hears of the info dictionary if
    /// that comes on the way.
    pub async fn data(&mut self, mut on_metadata: impl FnMut(&Bytes)) -> Result<(), Failure> {
        self.until(|event| {
            if let Event::MetadataReady { info } = event {
                on_metadata(info);
            }
            matches!(event, Event::Finished).then_some(())
        })
        .await
    }

    async fn until<T>(
        &mut self,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, Failure> {
        let mut ticks = interval(self.progress.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = Idle::new();
        loop {
            tokio::select! {
                event = self.torrent.next_event() => {
                    let Some(event) = event else { return Err(gone()) };
                    let TorrentEvent::Swarm(event) = event else { continue };
                    if let Some(found) = wanted(&event) {
                        return Ok(found);
                    }
                    if let Some(failure) = fatal(&event) {
                        return Err(failure);
                    }
                }
                addrs = self.names.next() => self.torrent.add_peers(addrs).await,
                _ = ticks.tick() => {
                    let status = self.look(&mut idle).await?;
                    let is_alone = status.dht.is_none()
                        && status.swarm.peers_known == 0
                        && self.names.lookups.is_empty();
                    let alone = self.patience.alone.filter(|_| is_alone);
                    let waited = idle.since.elapsed();
                    if alone.or(self.patience.idle).is_some_and(|limit| waited >= limit) {
                        return Err(failure(&status, waited, false));
                    }
                }
                () = at(self.patience.deadline) => {
                    let status = self.look(&mut idle).await?;
                    return Err(failure(&status, idle.since.elapsed(), true));
                }
            }
        }
    }

    async fn look(&mut self, idle: &mut Idle) -> Result<TorrentStatus, Failure> {
        let status = self.torrent.status().await.ok_or_else(gone)?;
        idle.observe(&status);
        let name = status.swarm.name.as_deref().or(self.name.as_deref());
        self.progress.download(name, &status, idle.since.elapsed());
        Ok(status)
    }
}

// Since when nothing has happened that could lead anywhere.
struct Idle {
    since: Instant,
    seen: Option<(usize, usize, usize, u64, u64)>,
}

impl Idle {
    fn new() -> Self {
        Self { since: Instant::now(), seen: None }
    }

    fn observe(&mut self, status: &TorrentStatus) {
        let swarm = &status.swarm;
        let seen = (
            swarm.peers_known,
            swarm.peers_reached,
            swarm.metadata.0,
            swarm.downloaded,
            swarm.checking.0,
        );
        let is_busy = match swarm.phase {
            Phase::Checking => true,
            // What is complete is being made durable.
            Phase::Downloading => swarm.connected > 0 || swarm.missing_bytes() == 0,
            Phase::FetchingMetadata | Phase::Seeding | Phase::Stopped => false,
        };
        if is_busy || self.seen != Some(seen) {
            self.since = Instant::now();
            self.seen = Some(seen);
        }
    }
}

/// Sleeps until a deadline, or for ever.
pub async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Tells that somebody else changed a file that is shared.
pub async fn tell_changed(torrent: &Torrent, file: usize, console: &Console) {
    let files = torrent.files().await;
    let Some(file) = files.iter().find(|f| f.index == file) else { return };
    let path = file.path.to_string_lossy();
    if console.is_json() {
        console.record(String::new, || {
            json!({
                "event": "changed",
                "info_hash": torrent.info_hash().to_string(),
                "path": path,
            })
        });
    }
    console.warn(&format!(
        "{path} was changed while it is shared: what of it does not match any more is not given \
         away"
    ));
}

/// What a torrent cannot go on after.
pub fn fatal(event: &Event) -> Option<Failure> {
    match event {
        Event::MetadataUnusable { reason, .. } => {
            Some(Failure::new(Code::BadLink, reason.clone()).at(Stage::Metadata))
        }
        Event::Failed(error) => Some(Failure::from(error)),
        Event::MetadataReady { .. }
        | Event::Opened { .. }
        | Event::PieceVerified(_)
        | Event::PieceFailed(_)
        | Event::PieceLost(_)
        | Event::FileChanged { .. }
        | Event::Finished
        | Event::PeerMisbehaved { .. }
        | Event::PeerBanned { .. }
        | Event::DhtNode { .. } => None,
    }
}

/// The session is not there any more.
pub fn gone() -> Failure {
    Failure::new(Code::Other, "the session ended unexpectedly")
}

// Peers that are told of a farewell answer at once; one that is not there is not waited for.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
// Long enough to find that all of it is there already.
const ALONE_MAX: Duration = Duration::from_millis(500);
// A link is typed or clicked by a person: a handful of peers, not a list of victims.
const HINTS_MAX: usize = 20;
// Names among them. A resolver that does not answer holds a thread for each for half a minute.
const HINT_NAMES_MAX: usize = 8;
// The same for all links of one command together.
static NAME_PLACES: Semaphore = Semaphore::const_new(32);
const HINT_ADDRS_MAX: usize = 4;
const HINT_LOOKUP_MAX: Duration = Duration::from_secs(3);
