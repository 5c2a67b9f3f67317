//! The world of an end-to-end test: processes, private networks, generated content, and scripted
//! peers and DHT nodes that speak the protocols with their own few lines of code rather than with
//! the library's, so that a mistake in a codec cannot hide itself.
//!
//! Waiting is always for something: a line, a datagram, a state, an end. Every wait has a limit and
//! a message that carries the last words of the process it waited for.

pub mod bencode;
pub mod content;
pub mod duel;
pub mod krpc;
pub mod link;
pub mod netns;
pub mod peer;
pub mod process;
pub mod rpc;
pub mod seeder;
pub mod sharing;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use bencode::B;
pub use content::Content;
pub use duel::{Duel, Fate};
pub use process::{Ended, Launch, Program};
pub use seeder::{Gate, Script, Seeder};

use krpc::Probe;

/// The program under test.
pub const TRACKLESS: &str = env!("CARGO_BIN_EXE_trackless");
/// The port that everything listens on, each at its own address.
pub const PORT: u16 = 6881;

/// A folder and a block of addresses, both gone with the test.
#[derive(Debug)]
pub struct World {
    folder: tempfile::TempDir,
    block: [u8; 3],
    hosts: AtomicU8,
}

impl World {
    /// A world of its own.
    pub fn new() -> Self {
        static WORLDS: AtomicU16 = AtomicU16::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        let block = if netns::is_inside() {
            [10, 77, low]
        } else {
            // Two runs of the tests at once differ in their process ids.
            let run = u8::try_from(std::process::id() % 120).unwrap() * 2 + 1;
            [127, run + high % 2, low]
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("home")).unwrap();
        Self { folder, block, hosts: AtomicU8::new(0) }
    }

    /// The world's folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder below it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// An address that nobody has had.
    pub fn ip(&self) -> Ipv4Addr {
        let host = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(host < 255, "this world is full");
        Ipv4Addr::new(self.block[0], self.block[1], self.block[2], host)
    }

    /// The same with a port.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip()), PORT)
    }

    /// The program, with this world as its home and nothing inherited that could steer it.
    pub fn trackless<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Launch {
        let mut launch = Launch::new(TRACKLESS)
            .args(args)
            .cwd(self.dir())
            .env("HOME", self.dir().join("home"))
            .env("NO_COLOR", "1");
        for (key, _) in std::env::vars() {
            let steers = key.starts_with("XDG_") || key.starts_with("TRACKLESS_");
            if steers {
                launch = launch.without_env(&key);
            }
        }
        launch
    }

    /// The same at an address of its own, with its state in a folder of its own.
    pub fn trackless_at<S: AsRef<std::ffi::OsStr>>(
        &self,
        addr: SocketAddr,
        args: impl IntoIterator<Item = S>,
    ) -> Launch {
        let state = self.folder(&format!("state-{}", addr.ip()));
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let is_flag = |arg: &std::ffi::OsString| arg.as_encoded_bytes().starts_with(b"-");
        // Before the first flag: the last may want its value next.
        let at = args.iter().position(is_flag).unwrap_or(args.len());
        self.trackless(&args[..at])
            .args(["--listen", &addr.to_string(), "--state-dir"])
            .arg(state)
            .args(&args[at..])
    }

    /// `get` without a DHT, from these peers.
    pub fn get(&self, link: &str, out: &Path, peers: &[SocketAddr]) -> Launch {
        self.get_at(self.addr(), link, out, peers)
    }

    /// The same at an address that the test knows: a second run finds the first one's state.
    pub fn get_at(&self, addr: SocketAddr, link: &str, out: &Path, peers: &[SocketAddr]) -> Launch {
        let mut launch = self.trackless_at(addr, ["get", link]).arg("-o").arg(out).arg("--no-dht");
        for peer in peers {
            launch = launch.args(["--peer", &peer.to_string()]);
        }
        launch
    }

    /// Starts `share` without a DHT; returns it with its magnet link and address.
    pub fn share(&self, path: &Path) -> Sharing {
        let addr = self.addr();
        let program = self.trackless_at(addr, ["share", "--no-dht"]).arg(path).start();
        Sharing::new(program, addr)
    }

    /// Starts `share` on a DHT.
    pub fn share_on(&self, dht: &Dht, path: &Path) -> Sharing {
        let addr = self.addr();
        let program =
            self.trackless_at(addr, ["share"]).arg(path).args(dht.bootstrap_flags()).start();
        Sharing::new(program, addr)
    }

    /// A private DHT of this many nodes that know each other.
    pub fn dht(&self, nodes: usize) -> Dht {
        let addrs: Vec<_> = (0..nodes).map(|_| self.addr()).collect();
        let start = |addr: &SocketAddr| {
            let mut launch = self.trackless_at(*addr, ["node", "--per-ip-rate", "off"]);
            for known in addrs.iter().filter(|a| *a != addr).take(BOOTSTRAP_NODES) {
                launch = launch.args(["--bootstrap", &known.to_string()]);
            }
            launch.start()
        };
        let mut dht = Dht { programs: addrs.iter().map(start).collect(), addrs: addrs.clone() };
        let probe = Probe::at(self.ip());
        let wanted = (nodes - 1).min(8);
        for (addr, program) in addrs.iter().zip(&mut dht.programs) {
            eventually(&format!("{addr} knows {wanted} others"), secs(60), || {
                program.expect_alive("a node of the private DHT");
                let target = B::str(&addr.ip().to_string().repeat(20).as_bytes()[..20]);
                let reply = probe.ask(*addr, "find_node", B::dict([("target", target)]))?;
                let known = reply.get("r")?.get("nodes")?.bytes()?.len() / 26;
                (known >= wanted).then_some(())
            });
        }
        dht
    }
}

/// A running `share`.
#[derive(Debug)]
pub struct Sharing {
    /// The process.
    pub program: Program,
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it printed.
    pub magnet: String,
}

impl Sharing {
    /// Waits for the link on stdout.
    pub fn new(program: Program, addr: SocketAddr) -> Self {
        let magnet = program.stdout_line("magnet link", secs(60), |_| true);
        assert!(magnet.starts_with("magnet:?xt=urn:btih:"), "first line of stdout: {magnet}");
        Self { program, addr, magnet }
    }

    /// The hash in the link.
    pub fn info_hash(&self) -> [u8; 20] {
        info_hash_of(&self.magnet)
    }
}

/// A private DHT.
#[derive(Debug)]
pub struct Dht {
    /// Where its nodes are.
    pub addrs: Vec<SocketAddr>,
    /// The nodes.
    pub programs: Vec<Program>,
}

impl Dht {
    /// `--bootstrap` for the program.
    pub fn bootstrap_flags(&self) -> Vec<String> {
        let some = self.addrs.iter().take(BOOTSTRAP_NODES);
        some.flat_map(|addr| ["--bootstrap".to_owned(), addr.to_string()]).collect()
    }

    /// Waits until some node knows this peer of the torrent.
    pub fn wait_for_peer(&self, probe: &Probe, info_hash: &[u8; 20], peer: SocketAddr, limit: u64) {
        eventually(&format!("{peer} is announced on the DHT"), secs(limit), || {
            self.addrs.iter().find_map(|node| {
                let reply = probe.get_peers(*node, info_hash)?;
                reply.peers.contains(&peer).then_some(())
            })
        });
    }
}

/// The hash of a magnet link in hex.
pub fn info_hash_of(magnet: &str) -> [u8; 20] {
    let hex = magnet.split("btih:").nth(1).and_then(|rest| rest.get(..40)).unwrap_or_default();
    let byte = |n: usize| u8::from_str_radix(&hex[n * 2..n * 2 + 2], 16).unwrap();
    assert_eq!(hex.len(), 40, "no hash in {magnet}");
    std::array::from_fn(byte)
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// May the test go on? What it needs and lacks is named on stderr, past the test harness's capture;
/// where `CI=true` it is a failure.
pub fn have(means: Result<(), String>) -> bool {
    let Err(missing) = means else { return true };
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{missing}, and CI=true wants every test"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}");
    false
}

/// Is this program installed?
pub fn installed(program: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if found { Ok(()) } else { Err(format!("{program} is not installed")) }
}

/// Are we root?
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("this needs root".to_owned()) }
}

/// Seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const BOOTSTRAP_NODES: usize = 3;
