//! What the program works with: the raw flags, validated. May look at the machine (its user's
//! folders, its routes); never touches the network.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use directories::ProjectDirs;

use super::args::{NetworkArgs, TransferArgs};
use super::exit::{Code, Failure};
use crate::driver::{RateLimits, SessionConfig, public_bootstrap};

/// How long to go on sharing after a download.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SeedGoal {
    /// Until this many times the size was sent.
    Ratio(f64),
    /// For this long.
    For(Duration),
    /// Until a signal.
    Forever,
}

/// So many a second; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit(pub Option<u32>);

/// So many bytes a second; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub Option<NonZeroU64>);

/// How much may flow.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Of all torrents together.
    pub limits: RateLimits,
    /// Connections of all torrents.
    pub connections_max: usize,
    /// Connections of each.
    pub connections_each: usize,
}

impl Transfer {
    fn new(limits: RateLimits, connections_max: usize, torrents: usize) -> Self {
        // Half of all for a lone one, so that room for strangers is left; of many none is cut off
        // from its swarm. All together stay within the session's limit.
        let each = (connections_max / (torrents + 1)).max(TORRENT_CONNECTIONS_MIN);
        Self { limits, connections_max, connections_each: each }
    }
}

impl Default for Transfer {
    fn default() -> Self {
        let SessionConfig { limits, connections_max, .. } = SessionConfig::default();
        Self::new(limits, connections_max, 1)
    }
}

/// The validated network flags.
#[derive(Debug, Clone)]
pub struct Network {
    /// Where to listen; nowhere in particular if empty.
    pub listen: Vec<SocketAddr>,
    /// Where the DHT starts from, `host:port`.
    pub bootstrap: Vec<String>,
    /// Peers to try at once.
    pub peers: Vec<SocketAddr>,
    /// Use the DHT?
    pub dht: bool,
    /// Have nothing to do with nodes whose id does not follow from their address?
    pub enforce_node_ids: bool,
    /// New flows a second that DHT queries may open; `None` for any number.
    pub flows_per_second: Option<u32>,
    /// Where state is kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// The user's own time limit.
    pub timeout: Option<Duration>,
    /// How much data may flow.
    pub transfer: Transfer,
}

impl Network {
    /// Checks the flags.
    pub fn new(args: &NetworkArgs) -> Result<Self, Failure> {
        let listen =
            args.listen.iter().map(|l| address("--listen", l)).collect::<Result<_, _>>()?;
        let bootstrap = if args.bootstrap.is_empty() {
            public_bootstrap().map(str::to_owned).collect()
        } else {
            args.bootstrap.iter().map(|b| host_port("--bootstrap", b)).collect::<Result<_, _>>()?
        };
        let peers =
            args.peer.iter().map(|p| address("--peer", p)).collect::<Result<Vec<_>, _>>()?;
        if let Some(peer) = peers.iter().find(|p| !crate::base::addr::is_sendable(p)) {
            return Err(usage(format!("--peer {peer}: nobody can be reached there")));
        }
        Ok(Self {
            listen,
            bootstrap,
            peers,
            dht: !args.no_dht,
            enforce_node_ids: args.enforce_node_ids,
            flows_per_second: args.flows_per_second.0,
            state_dir: state_dir(args.state_dir.as_deref())?,
            timeout: args.timeout,
            transfer: Transfer::default(),
        })
    }

    /// The same, for a verb that moves the data of so many torrents.
    pub fn moving(self, args: &TransferArgs, torrents: usize) -> Self {
        let limits = RateLimits { down: args.limit_down.0, up: args.limit_up.0 };
        let transfer = Transfer::new(limits, args.connections.into(), torrents);
        Self { transfer, ..self }
    }
}

/// A wrong command line.
pub fn usage(error: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, error)
}

/// Reads `IP:PORT`.
pub fn address(what: &str, text: &str) -> Result<SocketAddr, Failure> {
    text.trim().parse().map_err(|_| {
        usage(format!(
            "{what} {text}: expected IP:PORT, such as 192.0.2.1:6881 or [2001:db8::1]:6881"
        ))
    })
}

/// Checks the form of `HOST:PORT`; the name is looked up later.
pub fn host_port(what: &str, text: &str) -> Result<String, Failure> {
    let text = text.trim();
    let valid = text.parse::<SocketAddr>().is_ok_and(|a| a.port() != 0)
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains([':', '/', ' ', '[', ']'])
                && port.parse::<u16>().is_ok_and(|p| p != 0)
        });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(usage(format!("{what} {text}: expected HOST:PORT")))
    }
}

/// A piece length that BEP 3 and every client can live with.
pub fn piece_length(bytes: Option<u64>) -> Result<Option<u32>, Failure> {
    let Some(bytes) = bytes else { return Ok(None) };
    match u32::try_from(bytes) {
        Ok(length) if length.is_power_of_two() && PIECE_LENGTHS.contains(&length) => {
            Ok(Some(length))
        }
        _ => Err(usage(format!(
            "--piece-length {bytes}: expected a power of two from 16KiB to 256MiB"
        ))),
    }
}

// A folder that was asked for must work; the usual one is left out where it cannot (a read-only
// or missing home): the download is worth more than the memory of it.
fn state_dir(given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    if let Some(dir) = given {
        make_writable(dir).map_err(|e| Failure::io(dir.display(), &e))?;
        return Ok(Some(dir.to_owned()));
    }
    let Some(project) = ProjectDirs::from("", "", "trackless") else { return Ok(None) };
    let dir = project.state_dir().unwrap_or_else(|| project.data_local_dir()).to_owned();
    match make_writable(&dir) {
        Ok(()) => Ok(Some(dir)),
        Err(error) => {
            tracing::warn!("{}: {error}: nothing will be remembered", dir.display());
            Ok(None)
        }
    }
}

// Makes a folder, and makes sure that files can be made in it: it may be another user's.
fn make_writable(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::File::create(&probe)?;
    std::fs::remove_file(&probe)
}

/// The addresses of a program that others come back to: the usual port, on each family that has a
/// route; before there is a network, on each that the machine knows.
pub fn usual_addresses() -> Vec<SocketAddr> {
    // Documentation addresses: connecting a UDP socket asks the routing table and sends nothing.
    let far = |at: &SocketAddr| if at.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let bind = |at: &SocketAddr| UdpSocket::bind(SocketAddr::new(at.ip(), 0));
    usual_among(|at| bind(at).and_then(|s| s.connect(far(at))).is_ok(), |at| bind(at).is_ok())
}

fn usual_among(
    has_route: impl Fn(&SocketAddr) -> bool,
    is_known: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let families =
        [SocketAddr::from(([0, 0, 0, 0], USUAL_PORT)), SocketAddr::from(([0u16; 8], USUAL_PORT))];
    let routed: Vec<_> = families.into_iter().filter(|at| has_route(at)).collect();
    if routed.is_empty() {
        families.into_iter().filter(|at| is_known(at)).collect()
    } else {
        routed
    }
}

// What most clients use, and users open in their routers.
const USUAL_PORT: u16 = 6881;
/// What the library gives a torrent of which nothing else is said.
const TORRENT_CONNECTIONS_MIN: usize = 100;
const PIECE_LENGTHS: std::ops::RangeInclusive<u32> = 16 << 10..=256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_bootstrap_list_parses_and_has_no_doubles() {
        let nodes: Vec<_> = public_bootstrap().collect();
        assert!(nodes.len() >= 5, "{nodes:?}");
        for node in &nodes {
            assert_eq!(host_port("list", node).as_deref(), Ok(*node));
        }
        let mut unique = nodes.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), nodes.len());
        for wanted in ["dht.libtorrent.org:25401", "router.bittorrent.com:6881"] {
            assert!(nodes.contains(&wanted), "{wanted}");
        }
    }

    #[test]
    fn program_that_starts_before_the_network_has_the_usual_port_all_the_same() {
        let ports = |all: &[SocketAddr]| all.iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!(ports(&usual_among(|_| false, |_| true)), [USUAL_PORT; 2]);
        assert_eq!(usual_among(|at| at.is_ipv4(), |_| true).len(), 1);
        assert!(usual_among(|_| false, |at| at.is_ipv6())[0].is_ipv6());
    }

    #[test]
    fn lone_torrent_may_have_more_connections_than_one_of_many() {
        let each = |torrents| Transfer::new(RateLimits::default(), 500, torrents).connections_each;
        assert_eq!((each(1), each(1000)), (250, TORRENT_CONNECTIONS_MIN));
    }

    #[test]
    fn host_and_port_are_checked_for_form_alone() {
        for good in ["a.example:1", "127.0.0.1:6881", "[::1]:6881", " a:2 "] {
            assert!(host_port("x", good).is_ok(), "{good}");
        }
        for bad in ["", "a", "a:", "a:0", ":1", "a:99999", "::1:1", "http://a:1", "1.2.3.4:0"] {
            assert_eq!(host_port("x", bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    #[test]
    fn piece_lengths_are_powers_of_two_in_range() {
        assert_eq!(piece_length(None), Ok(None));
        assert_eq!(piece_length(Some(262_144)), Ok(Some(262_144)));
        for bad in [0, 1, 8192, 100_000, 1 << 29, 1 << 40] {
            assert_eq!(piece_length(Some(bad)).unwrap_err().code, Code::Usage, "{bad}");
        }
    }
}
