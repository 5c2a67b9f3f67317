//! The real clients that Debian and PyPI install, behind one face: libtorrent, Transmission and
//! aria2. Each is started as a user would start it, with a private DHT in place of the public one.
//!
//! What had to be learned of each stands where it is used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::{Dht, Launch, Program, World, eventually, installed, rpc, secs};

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// By its Python binding.
    Libtorrent,
    /// `transmission-daemon` 3.00 or later.
    Transmission,
    /// `aria2c`.
    Aria2,
}

/// A client at work.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    program: Program,
    rpc: Option<SocketAddr>,
    client: Client,
}

impl Client {
    /// Is it here?
    pub fn installed(self) -> Result<(), String> {
        match self {
            Client::Libtorrent => python().map(drop),
            Client::Transmission => installed("transmission-daemon"),
            Client::Aria2 => installed("aria2c"),
        }
    }

    /// Does it create files of no bytes? Transmission 3.00 does not.
    pub fn creates_empty_files(self) -> bool {
        self != Client::Transmission
    }

    /// Seeds; comes back when it has checked its data.
    pub fn seed(self, world: &World, dht: &Dht, torrent: &Path, dir: &Path) -> Running {
        let mut running = match self {
            Client::Libtorrent => libtorrent(world, dht, "seed", torrent.to_str().unwrap(), dir),
            Client::Transmission => transmission(world, dht, dir),
            Client::Aria2 => aria2(world, dht, dir, Some(rpc::free_port()), |argv| {
                argv.args(["--check-integrity=true", "--seed-ratio=0.0"]).arg(torrent)
            }),
        };
        match self {
            Client::Libtorrent => {
                running.program.stdout_line("seeding", secs(60), |line| line == "seeding");
            }
            Client::Transmission => {
                running.transmission("torrent-add", &json!({ "filename": torrent }));
                running.until("transmission seeds", 60, |running| {
                    running.torrent(["status"]) == Some([rpc::TRANSMISSION_SEEDS])
                });
            }
            Client::Aria2 => running.until("aria2 seeds", 60, |running| {
                let active = running
                    .rpc
                    .and_then(|rpc| rpc::aria2(rpc, "aria2.tellActive", &json!([["seeder"]])));
                active.is_some_and(|a| a[0]["seeder"] == "true")
            }),
        }
        running
    }

    /// Starts a download.
    pub fn get(self, world: &World, dht: &Dht, magnet: &str, out: &Path) -> Running {
        match self {
            Client::Libtorrent => libtorrent(world, dht, "get", magnet, out),
            Client::Transmission => {
                let running = transmission(world, dht, out);
                running.transmission("torrent-add", &json!({ "filename": magnet }));
                running
            }
            // With RPC it would not end when its download does.
            Client::Aria2 => aria2(world, dht, out, None, |argv| {
                argv.args(["--seed-time=0", "--follow-torrent=mem"]).arg(magnet)
            }),
        }
    }
}

impl Running {
    /// Waits until the download is complete.
    pub fn finish(mut self, limit: u64) {
        if self.client == Client::Transmission {
            return self.until("transmission is complete", limit, |running| {
                let state = running.torrent(["status", "leftUntilDone", "sizeWhenDone"]);
                state.is_some_and(|[status, left, size]| {
                    status == rpc::TRANSMISSION_SEEDS && left == 0 && size > 0
                })
            });
        }
        self.program.wait(secs(limit)).expect(0, "the client's download");
    }

    fn until(&mut self, what: &str, limit: u64, done: impl Fn(&Self) -> bool) {
        let end = std::time::Instant::now() + secs(limit);
        while !done(self) {
            self.program.expect_alive(what);
            let words = self.program.last_words();
            assert!(std::time::Instant::now() < end, "not within {limit} s: {what}\n{words}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn torrent<const N: usize>(&self, fields: [&str; N]) -> Option<[i64; N]> {
        rpc::transmission_torrent(self.rpc?, fields)
    }

    // It takes what it is told.
    fn transmission(&self, method: &str, arguments: &Value) {
        let answer = self.rpc.and_then(|rpc| rpc::transmission(rpc, method, arguments));
        assert!(answer.is_some(), "transmission {method}: {}", self.program.last_words());
    }
}

fn libtorrent(world: &World, dht: &Dht, verb: &str, what: &str, dir: &Path) -> Running {
    let addr = world.addr();
    let bootstrap: Vec<_> = dht.addrs.iter().take(3).map(SocketAddr::to_string).collect();
    let program = Launch::new(python().expect("it was asked whether it is installed"))
        .arg(script())
        .args([verb, what])
        .arg(dir)
        .args([addr.to_string(), bootstrap.join(",")])
        .start();
    Running { addr, program, rpc: None, client: Client::Libtorrent }
}

/// libtorrent puts and gets items (BEP 44): the answers to these requests, one each.
pub fn libtorrent_items(world: &World, known: &[SocketAddr], requests: &[Value]) -> Vec<Value> {
    let bootstrap: Vec<_> = known.iter().take(3).map(SocketAddr::to_string).collect();
    let ended = Launch::new(python().expect("it was asked whether it is installed"))
        .arg(script())
        .args(["items", &world.addr().to_string(), &bootstrap.join(",")])
        .args(requests.iter().map(Value::to_string))
        .run(secs(300))
        .expect(0, "libtorrent puts and gets");
    let answers = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let answers: Vec<Value> = answers.collect();
    assert_eq!(answers.len(), requests.len());
    answers
}

/// As many DHT nodes of libtorrent, in one process, that know each other.
pub fn libtorrent_nodes(world: &World, count: usize) -> (Program, Vec<SocketAddr>) {
    let addrs: Vec<_> = (0..count).map(|_| world.addr()).collect();
    let list: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
    let program = Launch::new(python().expect("it was asked whether it is installed"))
        .arg(script())
        .args(["nodes", &list.join(",")])
        .start();
    program.stdout_line("the nodes of libtorrent", secs(120), |line| line == "up");
    (program, addrs)
}

fn transmission(world: &World, dht: &Dht, dir: &Path) -> Running {
    let addr = world.addr();
    let (program, rpc) = rpc::start_transmission(world, addr, dir, Some(dht), 1);
    let mut running = Running { addr, program, rpc: Some(rpc), client: Client::Transmission };
    running.until("transmission answers", 30, |_| {
        rpc::transmission(rpc, "session-get", &json!({})).is_some()
    });
    running
}

/// `--dht-listen-addr` is undocumented, and needed to bind the DHT; it takes one entry point.
fn aria2(
    world: &World,
    dht: &Dht,
    dir: &Path,
    rpc: Option<SocketAddr>,
    more: impl Fn(Launch) -> Launch,
) -> Running {
    let addr = world.addr();
    let state = world.folder(&format!("aria2-{}", addr.ip()));
    let argv = Launch::new("aria2c").args([
        "--no-conf=true".to_owned(),
        format!("--dir={}", dir.display()),
        format!("--listen-port={}", addr.port()),
        format!("--interface={}", addr.ip()),
        "--disable-ipv6=true".to_owned(),
        "--bt-enable-lpd=false".to_owned(),
        "--file-allocation=none".to_owned(),
        "--summary-interval=0".to_owned(),
        "--enable-color=false".to_owned(),
        "--enable-dht6=false".to_owned(),
        "--enable-dht=true".to_owned(),
        "--allow-overwrite=true".to_owned(),
        format!("--dht-entry-point={}", dht.addrs[0]),
        format!("--dht-listen-port={}", addr.port()),
        format!("--dht-listen-addr={}", addr.ip()),
        format!("--dht-file-path={}", state.join("dht.dat").display()),
    ]);
    let argv = match rpc {
        Some(rpc) => argv.args(["--enable-rpc=true", &format!("--rpc-listen-port={}", rpc.port())]),
        None => argv,
    };
    Running { addr, program: more(argv).start(), rpc, client: Client::Aria2 }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/clients/lt.py")
}

/// A Python that has libtorrent: the one that `TRACKLESS_TEST_PYTHON` names, the one that
/// `integration/run` has put into the folder `TRACKLESS_PEERS`, or the system's.
fn python() -> Result<String, String> {
    let named = std::env::var("TRACKLESS_TEST_PYTHON").ok();
    let made = std::env::var("TRACKLESS_PEERS").ok().map(|dir| format!("{dir}/bin/python"));
    for candidate in named.into_iter().chain(made).chain(["python3".to_owned()]) {
        let there = Path::new(&candidate).is_file() || installed(&candidate).is_ok();
        if there && Launch::new(&candidate).arg(script()).arg("version").run(secs(30)).code == 0 {
            return Ok(candidate);
        }
    }
    Err("libtorrent for Python is not installed".to_owned())
}

/// Waits for a client's announce to be seen on the DHT.
pub fn wait_announced(
    world: &World,
    dht: &Dht,
    info_hash: &[u8; 20],
    client: &Running,
    limit: u64,
) {
    let probe = crate::world::krpc::Probe::at(world.ip());
    eventually("the client's announce is on the DHT", secs(limit), || {
        let known = dht.addrs.iter().any(|node| {
            probe.get_peers(*node, info_hash).is_some_and(|r| r.peers.contains(&client.addr))
        });
        known.then_some(())
    });
}
