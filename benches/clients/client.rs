//! The clients, each driven as its own program: to seed, to download, to resolve links.
//!
//! A peer is named by the client's own flag; those that have none are told of it by a tracker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::tracker::Tracker;
use crate::world::{Dht, Launch, Program, World, installed, netns, rpc};

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Ours.
    Trackless,
    /// By its Python binding.
    Libtorrent,
    /// `rqbit`.
    Rqbit,
    /// `aria2c`.
    Aria2,
    /// `transmission-daemon`.
    Transmission,
    /// `qbittorrent-nox`.
    Qbittorrent,
}

/// Where peers are found.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// In this DHT.
    Dht(&'a Dht),
    /// Here.
    Peer(SocketAddr),
}

impl<'a> From<'a> {
    fn dht(self) -> Option<&'a Dht> {
        match self {
            From::Dht(dht) => Some(dht),
            From::Peer(_) => None,
        }
    }

    // As ours takes it.
    fn flags(self) -> Vec<String> {
        match self {
            From::Dht(dht) => dht.bootstrap_flags(),
            From::Peer(peer) => ["--no-dht", "--peer", &peer.to_string()].map(str::to_owned).into(),
        }
    }

    // The trackers that tell those without a flag for it, and the link with them in it.
    fn in_link(self, at: SocketAddr, link: &str) -> (Vec<Tracker>, String) {
        let trackers = tracker(at, self);
        let link = trackers.first().map_or(link.to_owned(), |t| t.in_link(link));
        (trackers, link)
    }
}

/// A client that seeds.
#[derive(Debug)]
pub struct Seeding {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Links of what it seeds, if it makes torrents of its own.
    pub links: Vec<String>,
    /// It.
    pub program: Program,
}

/// A client at work that ends.
#[derive(Debug)]
pub struct Working {
    program: Program,
    started: Instant,
    until: Until,
    trackers: Vec<Tracker>,
}

#[derive(Debug)]
enum Until {
    Exit,
    Transmission(SocketAddr, &'static str),
    Qbittorrent(SocketAddr),
    /// Answers to requests that run on threads of their own.
    Threads(Vec<std::thread::JoinHandle<bool>>),
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From the start of the process.
    pub time: Duration,
    /// Of all cores together.
    pub cpu: Duration,
    /// The most memory that was resident.
    pub peak_kib: u64,
}

impl Client {
    /// All but ours.
    pub const OTHERS: [Client; 5] = [
        Client::Libtorrent,
        Client::Rqbit,
        Client::Aria2,
        Client::Transmission,
        Client::Qbittorrent,
    ];

    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Client::Trackless => "trackless",
            Client::Libtorrent => "libtorrent",
            Client::Rqbit => "rqbit",
            Client::Aria2 => "aria2",
            Client::Transmission => "transmission",
            Client::Qbittorrent => "qbittorrent",
        }
    }

    /// Is it here, and does it work here?
    pub fn installed(self) -> Result<(), String> {
        match self {
            Client::Trackless => Ok(()),
            Client::Libtorrent => python().map(drop),
            Client::Rqbit => installed("rqbit"),
            Client::Aria2 => installed("aria2c"),
            Client::Transmission if !netns::is_inside() => Err("it shuns 127.0.0.0/8".to_owned()),
            Client::Transmission => installed("transmission-daemon"),
            Client::Qbittorrent => installed("qbittorrent-nox"),
        }
    }

    /// Seeds one file; comes back when it is ready to. Others check `torrent`, ours makes its own.
    pub fn seed(self, world: &World, torrent: &Path, file: &Path) -> Seeding {
        let (addr, dir) = (world.addr(), file.parent().unwrap());
        match self {
            Client::Trackless => {
                let sharing = world.share(file);
                let (addr, links) = (sharing.addr, vec![sharing.magnet]);
                Seeding { addr, links, program: sharing.program }
            }
            Client::Libtorrent => libtorrent_seed(world, None, dir, &[torrent.to_owned()]),
            Client::Rqbit => {
                let (program, api) = rqbit_server(world, addr, dir);
                let add = format!("POST /torrents?overwrite=true&output_folder={}", dir.display());
                rpc::http(api, &add, "", &std::fs::read(torrent).unwrap(), WORK_TIME).unwrap();
                until("rqbit seeds", || {
                    rpc::json(api, "GET /torrents/0/stats/v1", b"")?["finished"].as_bool()
                });
                Seeding { addr, links: Vec::new(), program }
            }
            Client::Aria2 => {
                let rpc = rpc::free_port();
                let port = format!("--rpc-listen-port={}", rpc.port());
                let seeding = ["--check-integrity=true", "--seed-ratio=0.0", "--enable-rpc", &port];
                let program = aria2(world, addr, dir, None).args(seeding).arg(torrent).start();
                until("aria2 seeds", || {
                    let active = rpc::aria2(rpc, "aria2.tellActive", &json!([["seeder"]]))?;
                    Some(active[0]["seeder"] == "true")
                });
                Seeding { addr, links: Vec::new(), program }
            }
            Client::Transmission => {
                let (program, rpc) = transmission(world, addr, dir, None);
                rpc::transmission(rpc, "torrent-add", &json!({ "filename": torrent })).unwrap();
                until("transmission seeds", || {
                    Some(rpc::transmission_torrent(rpc, ["status"])? == [rpc::TRANSMISSION_SEEDS])
                });
                Seeding { addr, links: Vec::new(), program }
            }
            Client::Qbittorrent => {
                let (program, web) = qbittorrent(world, addr, dir);
                let torrent = std::fs::read(torrent).unwrap();
                qbittorrent_add(web, dir, "torrents", &torrent).unwrap();
                until("qbittorrent seeds", || Some(qbittorrent_state(web)?.ends_with("UP")));
                Seeding { addr, links: Vec::new(), program }
            }
        }
    }

    /// Downloads a link.
    pub fn get(self, world: &World, link: &str, out: &Path, from: From<'_>) -> Working {
        let (addr, started) = (world.addr(), Instant::now());
        match self {
            Client::Trackless => {
                let get = world.trackless_at(addr, ["get", link]).arg("-o").arg(out);
                Working::new(started, get.args(from.flags()).start())
            }
            Client::Libtorrent => {
                let lt = libtorrent("get", addr, from).arg(link).arg(out);
                Working::new(started, lt.start())
            }
            Client::Rqbit => {
                let rqbit = rqbit(world, addr, from);
                let rqbit = rqbit.args(["download", "-e", "--disable-http-api", "-o"]).arg(out);
                Working::new(started, initial_peers(rqbit, from).arg(link).start())
            }
            Client::Aria2 => {
                let (trackers, link) = from.in_link(addr, link);
                let flags = ["--seed-time=0", "--follow-torrent=mem", &link];
                let aria2 = aria2(world, addr, out, from.dht()).args(flags);
                Working { trackers, ..Working::new(started, aria2.start()) }
            }
            Client::Transmission => {
                let (trackers, link) = from.in_link(addr, link);
                let (program, rpc) = transmission(world, addr, out, from.dht());
                let add = json!({ "filename": link });
                rpc::transmission(rpc, "torrent-add", &add).unwrap();
                let until = Until::Transmission(rpc, "leftUntilDone");
                Working { program, started, until, trackers }
            }
            Client::Qbittorrent => {
                // Its settings have no DHT.
                let (trackers, link) = from.in_link(addr, link);
                let (program, web) = qbittorrent(world, addr, out);
                qbittorrent_add(web, out, "urls", link.as_bytes()).unwrap();
                let until = Until::Qbittorrent(web);
                Working { program, started, until, trackers }
            }
        }
    }

    /// Resolves links, all in one process.
    pub fn resolve(self, world: &World, links: &[String], from: From<'_>) -> Option<Working> {
        let (addr, started) = (world.addr(), Instant::now());
        let list = world.dir().join("links");
        std::fs::write(&list, links.join("\n") + "\n").unwrap();
        Some(match self {
            Client::Trackless => {
                let jobs = links.len().min(JOBS).to_string();
                let resolve = world.trackless_at(addr, ["resolve", "--jobs", &jobs, "-i"]);
                let resolve = resolve.arg(&list).arg("-o").arg(world.folder("resolved"));
                Working::new(started, resolve.args(from.flags()).start())
            }
            Client::Libtorrent => {
                Working::new(started, libtorrent("resolve", addr, from).arg(&list).start())
            }
            Client::Rqbit if links.len() > 1 => rqbit_bulk(world, addr, links, from),
            Client::Rqbit => {
                let rqbit = rqbit(world, addr, from).args([
                    "download",
                    "--list",
                    "--disable-http-api",
                    "-o",
                ]);
                let rqbit = rqbit.arg(world.folder("resolved"));
                Working::new(started, initial_peers(rqbit, from).args(links).start())
            }
            Client::Aria2 => {
                let trackers = tracker(addr, from);
                let in_link =
                    |link: &String| trackers.first().map_or(link.clone(), |t| t.in_link(link));
                let lines: Vec<String> = links.iter().map(in_link).collect();
                std::fs::write(&list, lines.join("\n") + "\n").unwrap();
                let aria2 = aria2(world, addr, &world.folder("resolved"), from.dht())
                    .args(["--bt-metadata-only=true", "--max-concurrent-downloads=1000", "-i"])
                    .arg(&list);
                Working { trackers, ..Working::new(started, aria2.start()) }
            }
            Client::Transmission if links.len() == 1 => {
                let (trackers, link) = from.in_link(addr, &links[0]);
                let folder = world.folder("resolved");
                let (program, rpc) = transmission(world, addr, &folder, from.dht());
                rpc::transmission(rpc, "torrent-add", &json!({ "filename": link })).unwrap();
                let until = Until::Transmission(rpc, "metadataPercentComplete");
                Working { program, started, until, trackers }
            }
            Client::Transmission | Client::Qbittorrent => return None,
        })
    }
}

impl Working {
    /// Something that ends by itself.
    pub fn new(started: Instant, program: Program) -> Self {
        Self { program, started, until: Until::Exit, trackers: Vec::new() }
    }

    /// Waits; why it did not work out, if it did not.
    pub fn wait(mut self, limit: Duration) -> Result<Took, String> {
        loop {
            // Read before it is looked whether it has ended: afterwards it is gone.
            let cpu = self.program.cpu();
            let ended = self.program.poll();
            let is_done = match &self.until {
                Until::Exit => ended == Some(0),
                Until::Transmission(rpc, field) => {
                    // In one answer: nothing is left of a torrent whose metadata comes a moment later.
                    let state = rpc::transmission_torrent(*rpc, [*field, "sizeWhenDone"]);
                    let goal = if *field == "leftUntilDone" { 0 } else { 1 };
                    state.is_some_and(|[value, size]| value == goal && size > 0)
                }
                Until::Qbittorrent(web) => {
                    qbittorrent_state(*web).is_some_and(|state| state.ends_with("UP"))
                }
                Until::Threads(threads) => threads.iter().all(std::thread::JoinHandle::is_finished),
            };
            let time = self.started.elapsed();
            if is_done {
                if let Until::Threads(threads) = self.until
                    && threads.into_iter().any(|thread| !thread.join().unwrap())
                {
                    return Err("not all".to_owned());
                }
                return Ok(Took { time, cpu, peak_kib: self.program.peak_kib() });
            }
            if let Some(code) = ended {
                return Err(format!("ended with {code}: {}", self.program.last_words()));
            }
            if time > limit {
                return Err(format!("not within {limit:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// libtorrent as a seeder of many, in a DHT or not.
pub fn libtorrent_seed(
    world: &World,
    dht: Option<&Dht>,
    dir: &Path,
    torrents: &[PathBuf],
) -> Seeding {
    let addr = world.addr();
    let launch = match dht {
        Some(dht) => libtorrent("seed", addr, From::Dht(dht)),
        None => libtorrent_alone("seed", addr),
    };
    let program = launch.arg(dir).args(torrents).start();
    program.stdout_line("seeding", Duration::from_secs(120), |line| line == "seeding");
    Seeding { addr, links: Vec::new(), program }
}

fn libtorrent(verb: &str, addr: SocketAddr, from: From<'_>) -> Launch {
    let launch = libtorrent_alone(verb, addr);
    match from {
        From::Dht(dht) => launch.args(["--bootstrap", &known(dht)]),
        From::Peer(peer) => launch.args(["--peer", &peer.to_string()]),
    }
}

fn libtorrent_alone(verb: &str, addr: SocketAddr) -> Launch {
    libtorrent_offline(verb).args(["--at", &addr.to_string()])
}

/// libtorrent for something that needs no network.
pub fn libtorrent_offline(verb: &str) -> Launch {
    Launch::new(python().unwrap()).arg(script()).arg(verb)
}

fn rqbit(world: &World, addr: SocketAddr, from: From<'_>) -> Launch {
    let launch = Launch::new("rqbit")
        .args(["-v", "warn", "--ipv4-only", "--disable-lsd", "--disable-upnp-port-forward"])
        .args(["--disable-dht-persistence", "--listen-ip", &addr.ip().to_string()])
        .args(["--listen-port", &addr.port().to_string()])
        .args(["--announce-port", &addr.port().to_string()])
        .env("HOME", world.dir());
    match from {
        From::Dht(dht) => launch.args(["--dht-bootstrap-addrs", &known(dht)]),
        From::Peer(_) => launch.arg("--disable-dht"),
    }
}

fn initial_peers(download: Launch, from: From<'_>) -> Launch {
    match from {
        From::Dht(_) => download,
        From::Peer(peer) => download.args(["--initial-peers", &peer.to_string()]),
    }
}

fn rqbit_server(world: &World, addr: SocketAddr, dir: &Path) -> (Program, SocketAddr) {
    rqbit_server_on(world, addr, dir, From::Peer(addr))
}

fn rqbit_server_on(
    world: &World,
    addr: SocketAddr,
    dir: &Path,
    from: From<'_>,
) -> (Program, SocketAddr) {
    let api = rpc::free_port();
    let launch = rqbit(world, addr, from).args(["--http-api-listen-addr", &api.to_string()]);
    let program = launch.args(["server", "start", "--disable-persistence"]).arg(dir).start();
    until("rqbit answers", || rpc::json(api, "GET /stats", b"").map(|_| true));
    (program, api)
}

// By its API, which takes no peers: a tracker names the one.
fn rqbit_bulk(world: &World, addr: SocketAddr, links: &[String], from: From<'_>) -> Working {
    let (started, trackers) = (Instant::now(), tracker(addr, from));
    let (program, api) = rqbit_server_on(world, addr, world.dir(), from);
    let ask = |link: &String| {
        let link = trackers.first().map_or(link.clone(), |t| t.in_link(link));
        std::thread::spawn(move || {
            (0..20).any(|_| {
                let answer =
                    rpc::http(api, "POST /torrents/resolve_magnet", "", link.as_bytes(), WORK_TIME);
                answer.is_some_and(|(head, _)| head.contains(" 200 "))
            })
        })
    };
    let until = Until::Threads(links.iter().map(ask).collect());
    Working { program, started, until, trackers }
}

/// `--dht-listen-addr` is undocumented, and needed to bind the DHT; it takes one entry point.
fn aria2(world: &World, addr: SocketAddr, dir: &Path, dht: Option<&Dht>) -> Launch {
    let launch = Launch::new("aria2c")
        .args(["--no-conf=true", "--disable-ipv6=true", "--bt-enable-lpd=false"])
        .args(["--file-allocation=none", "--summary-interval=0", "--enable-color=false"])
        .args(["--enable-dht6=false", "--allow-overwrite=true", "--auto-save-interval=0"])
        .arg(format!("--dir={}", dir.display()))
        .arg(format!("--listen-port={}", addr.port()))
        .arg(format!("--interface={}", addr.ip()));
    let Some(dht) = dht else { return launch.arg("--enable-dht=false") };
    launch
        .arg("--enable-dht=true")
        .arg(format!("--dht-entry-point={}", dht.addrs[0]))
        .arg(format!("--dht-listen-port={}", addr.port()))
        .arg(format!("--dht-listen-addr={}", addr.ip()))
        .arg(format!("--dht-file-path={}", world.dir().join("aria2-dht").display()))
}

fn transmission(
    world: &World,
    addr: SocketAddr,
    dir: &Path,
    dht: Option<&Dht>,
) -> (Program, SocketAddr) {
    let (program, rpc) = rpc::start_transmission(world, addr, dir, dht, 0);
    until("transmission answers", || {
        rpc::transmission(rpc, "session-get", &json!({})).map(|_| true)
    });
    (program, rpc)
}

fn qbittorrent(world: &World, addr: SocketAddr, dir: &Path) -> (Program, SocketAddr) {
    let web = rpc::free_port();
    let profile = world.folder(&format!("qbittorrent-{}", addr.ip()));
    let conf = profile.join("qBittorrent/config");
    std::fs::create_dir_all(&conf).unwrap();
    let settings = format!(
        "[LegalNotice]\nAccepted=true\n[BitTorrent]\nSession\\DHTEnabled=false\n\
         Session\\LSDEnabled=false\nSession\\Port={}\nSession\\InterfaceAddress={}\n\
         Session\\DefaultSavePath={}\nSession\\BTProtocol=TCP\n\
         Session\\QueueingSystemEnabled=false\nSession\\MultiConnectionsPerIp=true\n\
         Session\\AddExtensionToIncompleteFiles=false\n[Network]\nPortForwardingEnabled=false\n\
         [Preferences]\nWebUI\\Port={}\nWebUI\\Address=127.0.0.1\nWebUI\\LocalHostAuth=false\n\
         WebUI\\HostHeaderValidation=false\nWebUI\\CSRFProtection=false\nWebUI\\UseUPnP=false\n",
        addr.port(),
        addr.ip(),
        dir.display(),
        web.port()
    );
    std::fs::write(conf.join("qBittorrent.conf"), settings).unwrap();
    let program = Launch::new("qbittorrent-nox")
        .args([format!("--profile={}", profile.display()), format!("--webui-port={}", web.port())])
        .env("HOME", &profile)
        .start();
    until("qbittorrent answers", || {
        rpc::http(web, "GET /api/v2/app/version", "", b"", WORK_TIME)
            .map(|(head, _)| head.contains(" 200 "))
    });
    (program, web)
}

/// A torrent file or a link handed to qBittorrent.
fn qbittorrent_add(to: SocketAddr, dir: &Path, name: &str, value: &[u8]) -> Option<()> {
    let mark = "boundary-of-the-parts";
    let file = if name == "torrents" { "; filename=\"it.torrent\"" } else { "" };
    let mut body = format!(
        "--{mark}\r\nContent-Disposition: form-data; name=\"savepath\"\r\n\r\n{}\r\n\
         --{mark}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n",
        dir.display()
    )
    .into_bytes();
    body.extend_from_slice(value);
    body.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
    let head = format!("Content-Type: multipart/form-data; boundary={mark}\r\n");
    rpc::http(to, "POST /api/v2/torrents/add", &head, &body, WORK_TIME).map(drop)
}

// Empty while it has no metadata, which is a state that ends in "UP" too on its way.
fn qbittorrent_state(web: SocketAddr) -> Option<String> {
    let answer = rpc::json(web, "GET /api/v2/torrents/info", b"")?;
    let torrent = answer.get(0)?;
    let is_whole = torrent["size"].as_i64() > Some(0) && torrent["progress"].as_f64() == Some(1.0);
    is_whole.then(|| torrent["state"].as_str().map(str::to_owned))?
}

fn tracker(addr: SocketAddr, from: From<'_>) -> Vec<Tracker> {
    match from {
        From::Dht(_) => Vec::new(),
        From::Peer(peer) => vec![Tracker::of(addr.ip(), peer)],
    }
}

fn known(dht: &Dht) -> String {
    dht.addrs.iter().take(3).map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

fn until(what: &str, mut is_done: impl FnMut() -> Option<bool>) {
    crate::world::eventually(what, Duration::from_secs(120), || is_done()?.then_some(()));
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/clients/lt.py")
}

// The Python that `integration/run` has put libtorrent into, or the system's.
fn python() -> Result<String, String> {
    let peers = std::env::var("TRACKLESS_PEERS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers").to_owned());
    for candidate in [format!("{peers}/bin/python"), "python3".to_owned()] {
        let is_there = Path::new(&candidate).is_file() || installed(&candidate).is_ok();
        let version = || Launch::new(&candidate).arg(script()).arg("version");
        if is_there && version().run(Duration::from_secs(30)).code == 0 {
            return Ok(candidate);
        }
    }
    Err("libtorrent for Python is not installed".to_owned())
}

/// Links under way at once.
pub const JOBS: usize = 200;
/// For what a client does before it answers: a check, a look-up.
const WORK_TIME: Duration = Duration::from_secs(120);
