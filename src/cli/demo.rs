//! `trackless demo`: the whole way on loopback inside one process. A private DHT of real nodes, a
//! seeder that shares a generated file, a downloader that knows nothing but the magnet link, and a
//! comparison of both files by a hash that BitTorrent has no part in.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::args::DemoArgs;
use super::config::usage;
use super::create::{self, Plan};
use super::exit::{Code, Failure};
use super::format::{measured, size};
use super::info::magnet;
use super::online::{self, Names, Patience, Watch};
use super::output::Console;
use super::progress::Progress;
use super::signals::{Signals, stopped};
use super::stage::plural;
use crate::driver::{AddTorrent, Output, Session, SessionConfig, Torrent, TorrentEvent, entropy};
use crate::wire::magnet::Link;

/// Runs the verb.
pub fn run(args: &DemoArgs, console: &Arc<Console>) -> Result<(), Failure> {
    if !(1..=SIZE_MAX).contains(&args.size) {
        return Err(usage(format!("--size must be from 1 byte to {}", size(SIZE_MAX))));
    }
    let folder = Folder::new()?;
    let demo = Demo { nodes: args.nodes, size: args.size, dir: folder.0.clone() };
    online::block_on(async {
        let mut signals = Signals::listen();
        tokio::select! {
            outcome = demo.run(console) => outcome,
            code = signals.next() => Err(stopped(code).reported()),
        }
    })
}

struct Demo {
    nodes: u16,
    size: u64,
    dir: PathBuf,
}

impl Demo {
    async fn run(&self, console: &Arc<Console>) -> Result<(), Failure> {
        let mut stages = Stages::new(console);

        let network = PrivateNetwork::start(self.nodes).await?;
        let seeder = network.join().await?;
        let downloader = network.join().await?;
        let all = usize::from(self.nodes) + 2;
        stages.done("network", &format!("{} on loopback", plural(all, "DHT node")));

        let source = self.dir.join("shared").join(FILE_NAME);
        generate(&source, self.size)?;
        let expected = sha256(&source)?;
        stages.done("file", &format!("{} of random data", size(self.size)));

        let (mut shared, link) = offer(&seeder, &source, console).await?;
        stages.done("share", &link.to_string());

        let taken = announced(&mut shared).await?;
        stages.done("announce", &format!("taken by {}", plural(taken, "node")));

        let target = self.dir.join("downloaded");
        std::fs::create_dir_all(&target).map_err(|e| Failure::io(target.display(), &e))?;
        let info_hash = Link::parse(&link.to_string())
            .map_err(|e| Failure::new(Code::BadLink, e.to_string()))?
            .info_hash;
        let request =
            AddTorrent { output: Output::Download(target.clone()), ..AddTorrent::new(info_hash) };
        let mut fetched = online::add(&downloader, request).await?;
        let (mut progress, mut names) = (Progress::off(), Names::default());
        let deadline = Some(Instant::now() + DEADLINE);
        let mut watch = Watch {
            torrent: &mut fetched,
            progress: &mut progress,
            patience: Patience { deadline, idle: None, alone: None },
            name: None,
            names: &mut names,
        };
        let info = watch.metadata().await?;
        stages.done(
            "metadata",
            &format!("{} over the DHT, from the link alone", size(info.len() as u64)),
        );
        let data = Instant::now();
        watch.data(|_| {}).await?;
        let rate = self.size as f64 / data.elapsed().as_secs_f64().max(1e-6);
        stages
            .done("data", &format!("{}, {:.0} MiB/s", size(self.size), rate / f64::from(1 << 20)));

        let found = sha256(&target.join(FILE_NAME))?;
        if found != expected {
            return Err(Failure::new(
                Code::Mismatch,
                format!("SHA-256 {found}, expected {expected}"),
            ));
        }
        stages.done("verify", &format!("SHA-256 {found}, the same on both sides"));
        self.summary(&stages, &found, console);
        Ok(())
    }

    fn summary(&self, stages: &Stages, sha256: &str, console: &Console) {
        let took = stages.started.elapsed();
        console.record(
            || {
                let (size, took) = (size(self.size), measured(took));
                format!("ok: {size} from magnet link to verified file in {took}, SHA-256 {sha256}")
            },
            || {
                json!({
                    "code": 0,
                    "bytes": self.size,
                    "sha256": sha256,
                    "seconds": took.as_secs_f64(),
                    "stages": stages.taken,
                })
            },
        );
    }
}

// What was done, and how long it took.
struct Stages<'a> {
    console: &'a Console,
    started: Instant,
    last: Instant,
    taken: serde_json::Map<String, Value>,
}

impl<'a> Stages<'a> {
    fn new(console: &'a Console) -> Self {
        let now = Instant::now();
        Self { console, started: now, last: now, taken: serde_json::Map::new() }
    }

    fn done(&mut self, stage: &str, what: &str) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        self.taken.insert(stage.to_owned(), took.as_secs_f64().into());
        self.console.note(&format!("{stage:<9} {:>8}  {what}", measured(took)));
    }
}

// Nodes that know nobody outside.
struct PrivateNetwork {
    nodes: Vec<Session>,
}

impl PrivateNetwork {
    async fn start(count: u16) -> Result<Self, Failure> {
        let mut network = Self { nodes: Vec::new() };
        for _ in 0..count {
            let session = network.session(false).await?;
            network.nodes.push(session);
        }
        // Everybody knows somebody; lookups do the rest.
        let deadline = Instant::now() + DEADLINE;
        for node in &network.nodes {
            while contacts(node).await < usize::from(count > 1) {
                if Instant::now() > deadline {
                    return Err(Failure::new(Code::NoNetwork, "the nodes do not find each other")
                        .advise("is UDP on 127.0.0.1 blocked?"));
                }
                sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(network)
    }

    // A session that takes connections, introduced by the newest node.
    async fn join(&self) -> Result<Session, Failure> {
        self.session(true).await
    }

    async fn session(&self, accept: bool) -> Result<Session, Failure> {
        let introducers: Vec<_> = self.nodes.iter().take(INTRODUCERS).collect();
        let bootstrap = introducers.iter().flat_map(|s| s.local_addrs()).map(|a| a.to_string());
        let config = SessionConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            bootstrap: bootstrap.collect(),
            accept,
            ..SessionConfig::default()
        };
        Session::start(config).await.map_err(|e| Failure::new(Code::NoNetwork, e.to_string()))
    }
}

async fn contacts(session: &Session) -> usize {
    let nodes = session.status().await.map(|s| s.nodes).unwrap_or_default();
    nodes.iter().map(|n| n.contacts).sum()
}

async fn offer(
    seeder: &Session,
    source: &Path,
    console: &Arc<Console>,
) -> Result<(Torrent, Link), Failure> {
    let plan = Plan { path: source.to_owned(), ..Plan::default() };
    let console = console.clone();
    let made = tokio::task::spawn_blocking(move || create::build(&plan, &console)).await;
    let made = made.map_err(|_| Failure::internal())??;
    let request = AddTorrent {
        info: Some(made.created.info_bytes),
        output: Output::Seed(made.created.root),
        ..AddTorrent::new(made.created.info_hash)
    };
    let torrent = online::add(seeder, request).await?;
    Ok((torrent, magnet(made.created.info_hash, &made.name)))
}

// Until nodes hold the announce; the first rounds may come before the table has anybody.
async fn announced(shared: &mut Torrent) -> Result<usize, Failure> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        tokio::select! {
            event = shared.next_event() => match event {
                Some(TorrentEvent::LookupDone(report)) if report.announced > 0 => {
                    return Ok(report.announced);
                }
                Some(TorrentEvent::LookupDone(_) | TorrentEvent::Missed(_)) => {}
                Some(TorrentEvent::Swarm(event)) => online::fatal(&event).map_or(Ok(()), Err)?,
                None => return Err(online::gone()),
            },
            () = online::at(Some(deadline)) => {
                return Err(Failure::new(Code::NoPeers, "no node took the announce"));
            }
        }
    }
}

fn generate(path: &Path, size: u64) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::io(path.display(), &e);
    let seed = entropy::seed().map_err(failed)?;
    let mut rng = crate::base::Rng::from_seed(seed);
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    let mut left = size;
    while left > 0 {
        let chunk: [u8; 4096] = rng.array();
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        file.write_all(&chunk[..take]).map_err(failed)?;
        left -= take as u64;
    }
    file.flush().map_err(failed)
}

fn sha256(path: &Path) -> Result<String, Failure> {
    let failed = |e: std::io::Error| Failure::io(path.display(), &e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

// A folder that goes when the demo does, however it ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let name = format!("trackless-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(|e| Failure::io(path.display(), &e))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

const FILE_NAME: &str = "trackless-demo.bin";
/// Two copies are written below the temporary folder, which may be memory.
const SIZE_MAX: u64 = 4 << 30;
/// Real nodes that a newcomer is introduced by; the rest it finds.
const INTRODUCERS: usize = 3;
/// Far longer than loopback ever needs.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
