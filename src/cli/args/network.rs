//! The flags of the verbs that touch the network.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::super::config::{ByteRate, RateLimit, SeedGoal};
use super::super::parse;

/// Flags of every verb that touches the network.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Address for TCP and the DHT; port 0 picks one; once for IPv4, once for IPv6
    #[arg(
        long,
        global = true,
        value_name = "IP:PORT",
        env = "TRACKLESS_LISTEN",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,
    /// DHT node to start from, instead of the built-in list; repeatable
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "TRACKLESS_BOOTSTRAP",
        value_delimiter = ','
    )]
    pub bootstrap: Vec<String>,
    /// Peer to try at once; repeatable
    #[arg(
        long,
        global = true,
        value_name = "IP:PORT",
        env = "TRACKLESS_PEER",
        value_delimiter = ','
    )]
    pub peer: Vec<String>,
    /// Do not use the DHT
    #[arg(long, global = true, env = "TRACKLESS_NO_DHT", value_parser = FalseyValueParser::new())]
    pub no_dht: bool,
    /// Have nothing to do with public DHT nodes whose id does not follow from their address (BEP 42)
    #[arg(long, global = true, env = "TRACKLESS_ENFORCE_NODE_IDS", value_parser = FalseyValueParser::new())]
    pub enforce_node_ids: bool,
    /// New endpoints a second that DHT queries may go to: routers keep an entry for each
    #[arg(long, global = true, value_name = "N|off", env = "TRACKLESS_FLOWS_PER_SECOND", default_value = "50", value_parser = parse::rate_limit)]
    pub flows_per_second: RateLimit,
    /// Where DHT contacts and resume data are kept
    #[arg(long, global = true, value_name = "DIR", env = "TRACKLESS_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Give up after this long: 15s, 2m, 1h
    #[arg(long, global = true, value_name = "DURATION", env = "TRACKLESS_TIMEOUT", value_parser = parse::time_limit)]
    pub timeout: Option<Duration>,
}

/// Flags of the verbs that move data.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Transfer")]
pub struct TransferArgs {
    /// Receive at most so much data a second, of all torrents together
    #[arg(long, value_name = "BYTES|1.5MiB|off", env = "TRACKLESS_LIMIT_DOWN", default_value = "off", value_parser = parse::byte_rate)]
    pub limit_down: ByteRate,
    /// Send at most so much data a second, of all torrents together
    #[arg(long, value_name = "BYTES|1.5MiB|off", env = "TRACKLESS_LIMIT_UP", default_value = "off", value_parser = parse::byte_rate)]
    pub limit_up: ByteRate,
    /// Connections to peers at the same time, of all torrents together
    #[arg(long, value_name = "N", env = "TRACKLESS_CONNECTIONS", default_value_t = 500,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,
}

/// `get`
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// Magnet link, info-hash, .torrent file, or - for links on stdin
    #[arg(required = true, value_name = "LINK")]
    pub links: Vec<String>,
    /// Folder to save into [default: this one]
    #[arg(short, long, value_name = "DIR", env = "TRACKLESS_OUTPUT")]
    pub output: Option<PathBuf>,
    /// Write the data to stdout while it comes, file after file; it is kept only with --output
    #[arg(long, env = "TRACKLESS_STDOUT", value_parser = FalseyValueParser::new(), conflicts_with_all = ["list", "seed"])]
    pub stdout: bool,
    /// Go on sharing: up to a ratio (1.5), for a time (2h), or forever
    #[arg(
        long, value_name = "RATIO|DURATION|forever", env = "TRACKLESS_SEED", num_args = 0..=1,
        require_equals = true, default_missing_value = "forever", value_parser = parse::seed_goal
    )]
    pub seed: Option<SeedGoal>,
    /// Only these files: indexes or ranges as --list shows them, or patterns
    #[arg(long, value_name = "GLOB|INDEX,...", env = "TRACKLESS_FILES", value_delimiter = ',')]
    pub files: Vec<String>,
    /// List the files and stop
    #[arg(long, env = "TRACKLESS_LIST", value_parser = FalseyValueParser::new())]
    pub list: bool,
    /// Replace files that stand where the torrent's belong and hold something else
    #[arg(long, env = "TRACKLESS_OVERWRITE", value_parser = FalseyValueParser::new(), conflicts_with = "list")]
    pub overwrite: bool,
    /// Fetch pieces in order, to use the data while it comes
    #[arg(long, env = "TRACKLESS_SEQUENTIAL", value_parser = FalseyValueParser::new())]
    pub sequential: bool,
    /// How fast.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Where and how to reach the network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `resolve`
#[derive(Debug, Clone, Args)]
pub struct ResolveArgs {
    /// Magnet link or info-hash, or - for links on stdin
    #[arg(required_unless_present = "input", value_name = "LINK")]
    pub links: Vec<String>,
    /// Write here: a .torrent file, a folder (as <infohash>.torrent), or - for stdout
    #[arg(short, long, value_name = "FILE|DIR|-", env = "TRACKLESS_OUTPUT")]
    pub output: Option<PathBuf>,
    /// Read links from a file, one a line, or - for stdin
    #[arg(short, long, value_name = "FILE|-", env = "TRACKLESS_INPUT")]
    pub input: Option<PathBuf>,
    /// Links resolved at the same time
    #[arg(long, value_name = "N", env = "TRACKLESS_JOBS", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub jobs: u16,
    /// Where and how to reach the network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `share`
#[derive(Debug, Clone, Args)]
pub struct ShareArgs {
    /// File, folder, or .torrent file whose data is at --data
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder that holds the data of a .torrent file [default: the one it lies in]
    #[arg(long, value_name = "DIR", env = "TRACKLESS_DATA")]
    pub data: Option<PathBuf>,
    /// Bytes in a piece: a power of two [default: by size]
    #[arg(long, value_name = "BYTES|1MiB", env = "TRACKLESS_PIECE_LENGTH", value_parser = parse::size)]
    pub piece_length: Option<u64>,
    /// Show every piece to everybody from the start, rather than hand each out once while alone
    #[arg(long, env = "TRACKLESS_NO_SUPER_SEEDING", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_super_seeding: bool,
    /// How fast.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Where and how to reach the network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `node`
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Queries a second answered to one address
    #[arg(long, value_name = "N|off", env = "TRACKLESS_PER_IP_RATE", default_value = "50", value_parser = parse::rate_limit)]
    pub per_ip_rate: RateLimit,
    /// How often to print the status
    #[arg(long, value_name = "DURATION", env = "TRACKLESS_STATUS_INTERVAL", default_value = "1m", value_parser = parse::duration)]
    pub status_interval: Duration,
    /// Serve figures for Prometheus at http://IP:PORT/metrics
    #[arg(long, value_name = "IP:PORT", env = "TRACKLESS_METRICS")]
    pub metrics: Option<String>,
    /// Where and how to reach the network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `open`
#[derive(Debug, Clone, Args)]
pub struct OpenArgs {
    /// Magnet link
    #[arg(value_name = "LINK")]
    pub link: String,
    /// Folder to save into [default: this user's download folder]
    #[arg(short, long, value_name = "DIR", env = "TRACKLESS_OUTPUT")]
    pub output: Option<PathBuf>,
    /// Where and how to reach the network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `demo`
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// DHT nodes beside the seeder and the downloader
    #[arg(long, value_name = "N", env = "TRACKLESS_NODES", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=200))]
    pub nodes: u16,
    /// Size of the shared file
    #[arg(long, value_name = "BYTES|1MiB", env = "TRACKLESS_SIZE", default_value = "16MiB", value_parser = parse::size)]
    pub size: u64,
}

pub(super) const GET_EXAMPLES: &str = "\
Prints the saved paths, one a line. Resumes what is there already. Gives up after 5 minutes in which nobody is \
found or reached, unless --timeout says otherwise. Of several links each ends for itself: those that fail are told, and the \
exit code is that of the first. A signal while it only goes on sharing (--seed) is no failure: exit code 0.

Examples:
  trackless get 'magnet:?xt=urn:btih:...' -o ~/Downloads
  trackless get film.torrent --files '*.mkv,0-2' --seed=1.5
  trackless get film.torrent --limit-down 2MiB --limit-up 256KiB
  trackless get film.torrent --files '*.mkv' --stdout | mpv -";

pub(super) const RESOLVE_EXAMPLES: &str = "\
Without -o prints `infohash<TAB>bytes<TAB>files<TAB>name` for each link. Gives up after 2 minutes a link unless --timeout says otherwise.

Examples:
  trackless resolve 'magnet:?xt=urn:btih:...' -o it.torrent
  trackless resolve -i links.txt -o torrents/ --jobs 100";

pub(super) const SHARE_EXAMPLES: &str = "\
The magnet link is the first line on stdout; sharing goes on until Ctrl-C.

Example:
  trackless share ~/Videos/holiday";

pub(super) const NODE_EXAMPLES: &str = "\
Answers others as soon as it runs. If strangers turn out not to reach it (a quarter of an hour without a query from
anybody it had not written to), it says so, asks and answers nobody (BEP 43), and tries again from time to time.

With --metrics, figures for Prometheus, for each node by family and address: trackless_dht_contacts, bucket_contacts (by bits), \
dead_share, network_size, crowded_lookups_total, rtt_seconds (a histogram), queries_in_total and queries_out_total (by method), errors_in_total and \
errors_out_total (by code), dropped_total (by reason), stored_torrents, stored_peers, stored_items, announced_torrents, \
announced_held, announces_behind, flows_left, open_flows, flows_total, reachability, read_only, and more: each says what it is.

Examples:
  trackless node --listen 0.0.0.0:6881 --listen '[::]:6881' --json
  trackless node --metrics 127.0.0.1:9681";

pub(super) const OPEN_EXAMPLES: &str = "\
Example:
  trackless open 'magnet:?xt=urn:btih:...'";

pub(super) const SIM_EXAMPLES: &str = "\
Whole nodes in virtual time on a virtual network; nothing leaves this machine. The same seed gives
the same table everywhere, to the last digit, and tells what it took: some 80 to 130 KiB a node, and for
an hour of a thousand nodes some two minutes of one core.

Examples:
  trackless sim list
  trackless sim storm --seed 7 --svg storm.svg
  trackless sim churn-24h --nodes 300 --json";

pub(super) const DEMO_EXAMPLES: &str = "\
A DHT of real nodes, a seeder and a downloader on loopback; nothing leaves this machine.

Example:
  trackless demo";
