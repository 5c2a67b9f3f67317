//! The real clients that Debian and PyPI install, behind one face: libtorrent, Transmission and
//! aria2. Each is started as a user would start it, with a private DHT in place of the public one.
//!
//! What had to be learned of each stands where it is used.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::krpc::compact;
use crate::world::{B, Dht, Launch, Program, World, eventually, installed, secs};

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
            Client::Aria2 => aria2(world, dht, dir, Some(free_port()), |argv| {
                argv.args(["--check-integrity=true", "--seed-ratio=0.0"]).arg(torrent)
            }),
        };
        match self {
            Client::Libtorrent => {
                running.program.stdout_line("seeding", secs(60), |line| line == "seeding");
            }
            Client::Transmission => {
                let bytes = base64(&std::fs::read(torrent).unwrap());
                running.transmission("torrent-add", &json!({ "metainfo": bytes }));
                running.until("transmission seeds", 60, |running| {
                    running.torrent(["status"]) == Some([SEEDS])
                });
            }
            Client::Aria2 => running.until("aria2 seeds", 60, |running| {
                let active = running.aria2("aria2.tellActive", &json!([["seeder"]]));
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
                // In one answer: nothing is left of a torrent whose metadata comes a moment later.
                let state = running.torrent(["status", "leftUntilDone", "sizeWhenDone"]);
                state.is_some_and(|[status, left, size]| status == SEEDS && left == 0 && size > 0)
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

    // Numbers that Transmission gives of its torrent, all as of one moment.
    fn torrent<const N: usize>(&self, fields: [&str; N]) -> Option<[i64; N]> {
        let answer = self.transmission("torrent-get", &json!({ "fields": fields.to_vec() }))?;
        let torrent = answer["torrents"].get(0)?;
        let values: Option<Vec<i64>> = fields.iter().map(|f| torrent.get(f)?.as_i64()).collect();
        values?.try_into().ok()
    }

    fn transmission(&self, method: &str, arguments: &Value) -> Option<Value> {
        let body = json!({ "method": method, "arguments": arguments }).to_string();
        let rpc = self.rpc?;
        let refused = http_post(rpc, "/transmission/rpc", "", &body)?;
        let key = "x-transmission-session-id:";
        let session = refused.lines().find_map(|line| {
            let (head, value) = line.split_at_checked(key.len())?;
            head.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
        })?;
        let header = format!("X-Transmission-Session-Id: {session}\r\n");
        let answer = http_post(rpc, "/transmission/rpc", &header, &body)?;
        let json: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        assert_eq!(json["result"], "success", "transmission {method}: {json}");
        Some(json["arguments"].clone())
    }

    fn aria2(&self, method: &str, params: &Value) -> Option<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": "1", "method": method, "params": params });
        let answer = http_post(self.rpc?, "/jsonrpc", "", &body.to_string())?;
        let json: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        json.get("result").cloned()
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

/// Transmission's number for a torrent that is complete and shared.
const SEEDS: i64 = 6;

/// uTP stays off: 3.00 and others connect over uTP on loopback and then hang for a minute. Its DHT
/// searches only with more than eight known nodes and reads `dht.bootstrap` at one line in 15
/// seconds, so it gets the `dht.dat` that a used client has.
fn transmission(world: &World, dht: &Dht, dir: &Path) -> Running {
    let (addr, rpc) = (world.addr(), free_port());
    let conf = world.folder(&format!("transmission-{}", addr.ip()));
    let settings = json!({
        "bind-address-ipv4": addr.ip().to_string(), "bind-address-ipv6": "::1",
        "peer-port": addr.port(),
        "dht-enabled": true, "lpd-enabled": false, "pex-enabled": true, "utp-enabled": false,
        "port-forwarding-enabled": false,
        "rpc-enabled": true, "rpc-bind-address": "127.0.0.1", "rpc-port": rpc.port(),
        "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
        "rpc-authentication-required": false,
        "download-dir": dir, "start-added-torrents": true, "download-queue-enabled": false,
        "seed-queue-enabled": false, "queue-stalled-enabled": false, "preallocation": 0,
        "rename-partial-files": false, "ratio-limit-enabled": false,
        "idle-seeding-limit-enabled": false, "message-level": 2,
    });
    std::fs::write(conf.join("settings.json"), settings.to_string()).unwrap();
    let nodes: Vec<u8> = dht.addrs.iter().flat_map(|addr| compact(*addr)).collect();
    let known = B::dict([("id", B::Str(vec![0x44; 20])), ("nodes", B::Str(nodes))]);
    std::fs::write(conf.join("dht.dat"), known.encode()).unwrap();
    let program = Launch::new("transmission-daemon").args(["-f", "-g"]).arg(&conf).start();
    let mut running = Running { addr, program, rpc: Some(rpc), client: Client::Transmission };
    running
        .until("transmission answers", 30, |r| r.transmission("session-get", &json!({})).is_some());
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

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Head and body of the answer; HTTP/1.0, so that the body ends with the connection.
fn http_post(to: SocketAddr, path: &str, headers: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, secs(5)).ok()?;
    stream.set_read_timeout(Some(secs(10))).ok()?;
    let len = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {len}\r\n");
    stream
        .write_all(
            format!("{head}Content-Type: application/json\r\n{headers}\r\n{body}").as_bytes(),
        )
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let index = usize::try_from(word >> (18 - 6 * digit) & 63).unwrap();
            out.push(if digit <= chunk.len() { DIGITS[index].into() } else { '=' });
        }
    }
    out
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
