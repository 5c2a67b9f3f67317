//! The flags of `dht` and of its operations.

use std::path::PathBuf;

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
    /// Fetch an item (BEP 44): prints its value
    #[command(after_help = GET_EXAMPLES)]
    Get {
        /// What `put` printed: 40 hex digits of an immutable item, or the 64 of a public key
        #[arg(value_name = "TARGET|PUBLICKEY")]
        key: String,
        /// Which of the items of that key
        #[arg(long, value_name = "TEXT", env = "TRACKLESS_SALT")]
        salt: Option<String>,
        /// Write the value's bytes here, or to stdout
        #[arg(short, long, value_name = "FILE|-", env = "TRACKLESS_OUTPUT")]
        output: Option<PathBuf>,
    },
    /// Store an item of up to 1000 bytes (BEP 44): prints what to `get` it by
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutArgs),
    /// List torrents that nodes have peers of (BEP 51): prints info-hashes
    #[command(after_help = SAMPLE_EXAMPLES)]
    Sample {
        /// Where to look: 40 hex digits; or the one node to ask [default: a random place]
        #[arg(value_name = "TARGET|HOST:PORT")]
        place: Option<String>,
    },
    /// Count who has a torrent (BEP 33): prints `seeds<TAB>others`
    #[command(
        after_help = "The counts are estimates of the nodes closest to the hash.\n\nExample:\n  trackless dht scrape 0123456789abcdef0123456789abcdef01234567"
    )]
    Scrape {
        /// Info-hash or magnet link
        #[arg(value_name = "HASH")]
        hash: String,
    },
    /// Many operations from stdin, all at the same time; events on stdout
    #[command(after_help = SHELL_EXAMPLES)]
    Shell,
}

/// `dht put`
#[derive(Debug, Clone, Args)]
pub struct PutArgs {
    /// The value as text, or - for stdin [default: stdin]
    #[arg(value_name = "VALUE", conflicts_with = "file")]
    pub value: Option<String>,
    /// Read the value from a file, or - for stdin
    #[arg(short, long, value_name = "FILE|-", env = "TRACKLESS_FILE")]
    pub file: Option<PathBuf>,
    /// The value is bencode already; else it is stored as a string
    #[arg(long, env = "TRACKLESS_BENCODE", value_parser = FalseyValueParser::new())]
    pub bencode: bool,
    /// Sign it, so that it can be replaced later: a file with an ed25519 seed, or its 64 hex digits
    #[arg(long, value_name = "FILE|HEX", env = "TRACKLESS_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Sign it with a new key, and keep that in a new file
    #[arg(long, value_name = "FILE", env = "TRACKLESS_NEW_KEY", conflicts_with = "key")]
    pub new_key: Option<PathBuf>,
    /// Which of the items of that key: at most 64 bytes
    #[arg(long, value_name = "TEXT", env = "TRACKLESS_SALT")]
    pub salt: Option<String>,
    /// Version number [default: one more than what is stored]
    #[arg(long, value_name = "N", env = "TRACKLESS_SEQ", value_parser = clap::value_parser!(i64).range(0..))]
    pub seq: Option<i64>,
    /// Replace only this version [default without --seq: the one found]
    #[arg(long, value_name = "N", env = "TRACKLESS_CAS", value_parser = clap::value_parser!(i64).range(0..))]
    pub cas: Option<i64>,
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

const GET_EXAMPLES: &str = "\
The item has proven itself by its hash or signature; of a signed one, the newest version is printed. Bytes that are no
text are shown in hex: -o gives them as they are.

Examples:
  trackless dht get e5f96f6f38320f0f33959cb4d3d656452117aadb
  trackless dht get 77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548 --salt news -o -";

const PUT_EXAMPLES: &str = "\
Prints the target of an immutable item, or the public key of a signed one. Nodes forget an item after two hours: put it
again in time. Exit code 12 if a newer version is stored, or another than --cas; 10 if the file of --new-key exists. A key on
the command line is seen by other users of this machine: rather use a file, or TRACKLESS_KEY.

Examples:
  trackless dht put 'Hello World!'
  trackless dht put --new-key ~/news.key --salt news 'first'
  date | trackless dht put --key ~/news.key --salt news";

const SAMPLE_EXAMPLES: &str = "\
With --json one record for each node that answered, with how many torrents it has and how long it wants to be left in
peace.

Examples:
  trackless dht sample
  trackless dht sample 192.0.2.1:6881 --json";

const SHELL_EXAMPLES: &str = "\
Lines on stdin:
  lookup HASH            find peers: `peer` events, then `done`
  bulk HASH              the same for one of thousands: each waits for its turn
  announce HASH [PORT]   find peers, then announce
  keep HASH [PORT]       `kept`: announce it, and again in time, while the shell runs
  drop HASH              `dropped`: keep it announced no longer
  scrape HASH            `done` with the counts
  find-node ID           `done` with the nodes
  sample [TARGET]        `samples` events, then `done`
  get KEY [SALT]         `item`, again if a newer version turns up, then `done`
  put VALUE              store the rest of the line: `done` with the target
  ping IP:PORT           `pong`
  status, quit

Example:
  echo lookup 0123456789abcdef0123456789abcdef01234567 | trackless dht shell --json";
