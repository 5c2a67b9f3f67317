//! The flags of `dht` and of its operations.

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand};

use super::network::NetworkArgs;

/// `dht`
#[derive(Debug, Clone, Args)]
pub struct DhtArgs {
    /// Which one.
    #[command(subcommand)]
    pub operation: DhtOperation,
    /// Where and how to reach the network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// The operations of `dht`.
#[derive(Debug, Clone, Subcommand)]
pub enum DhtOperation {
    /// Ask one node for its id
    #[command(after_help = "Example:\n  trackless dht ping dht.libtorrent.org:25401")]
    Ping {
        /// The node
        #[arg(value_name = "HOST:PORT")]
        node: String,
    },
    /// Find the nodes closest to an id: prints `id ip:port` lines
    #[command(
        after_help = "Example:\n  trackless dht find-node 0123456789abcdef0123456789abcdef01234567"
    )]
    FindNode {
        /// 40 hex digits
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Find the peers of a torrent: prints `ip:port` lines as they come
    #[command(visible_alias = "lookup", after_help = GET_PEERS_EXAMPLES)]
    GetPeers {
        /// Info-hash or magnet link
        #[arg(value_name = "HASH")]
        hash: String,
        /// Print every step too: who was asked, how far it is from the hash, how long it took, what came
        #[arg(long, env = "TRACKLESS_TRACE", value_parser = FalseyValueParser::new())]
        trace: bool,
    },
    /// Say that this machine has a torrent: prints how many nodes took it
    #[command(after_help = ANNOUNCE_EXAMPLES)]
    Announce {
        /// Info-hash or magnet link
        #[arg(value_name = "HASH")]
        hash: String,
        /// TCP port to announce [default: the one the queries come from]
        #[arg(long, value_name = "PORT", env = "TRACKLESS_PORT",
              value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Then look for it as a stranger: from another node id and another port
        #[arg(long, env = "TRACKLESS_VERIFY", value_parser = FalseyValueParser::new())]
        verify: bool,
    },
    /// Many operations from stdin: `lookup HASH`, `announce HASH PORT`, `find-node ID`, `ping IP:PORT`, `status`, `quit`
    #[command(
        after_help = "Example:\n  echo lookup 0123456789abcdef0123456789abcdef01234567 | trackless dht shell --json"
    )]
    Shell,
}

pub(super) const DHT_EXAMPLES: &str = "\
Example:
  trackless dht get-peers 0123456789abcdef0123456789abcdef01234567 --json";

const GET_PEERS_EXAMPLES: &str = "\
With --trace the steps come in the order in which they happened: `asked`, `answered`, `refused` (with an error),
`stalled` (another is asked in its place, and its answer would still count), `given up`. The distance is given as a power
of two; with --json in full.

Examples:
  trackless dht get-peers 0123456789abcdef0123456789abcdef01234567
  trackless dht lookup --trace 0123456789abcdef0123456789abcdef01234567";

const ANNOUNCE_EXAMPLES: &str = "\
Nodes forget an announce after half an hour or so. With --verify the exit code is 4 if a stranger would not find it.

Examples:
  trackless dht announce 0123456789abcdef0123456789abcdef01234567 --port 6881
  trackless dht announce --verify 0123456789abcdef0123456789abcdef01234567";
