//! `trackless get`: from links to verified files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::args::GetArgs;
use super::config::{Network, SeedGoal, usage};
use super::exit::{Code, Failure};
use super::files::Scratch;
use super::format::{escape, measured, size};
use super::info;
use super::input::{self, Source};
use super::online::{self, Names, Patience, Role, Watch};
use super::output::Console;
use super::progress::Progress;
use super::selection::Selection;
use super::stage::plural;
use super::stream;
use crate::base::InfoHash;
use crate::driver::{AddTorrent, Output, Session, Torrent, TorrentEvent, resume};
use crate::swarm::Event;
use crate::swarm::layout::Layout;
use crate::wire::metainfo::Info;

/// Runs the verb. A link that cannot be read is told, and the others are fetched all the same.
pub fn run(args: &GetArgs, console: &Arc<Console>) -> Result<(), Failure> {
    if args.stdout && console.is_json() {
        return Err(usage("--stdout writes the data itself: leave out --json"));
    }
    let scratch = match (args.stdout, &args.output) {
        (true, None) => Some(Scratch::new().map_err(|e| Failure::io("a temporary folder", &e))?),
        _ => None,
    };
    let dir = args.output.clone().unwrap_or_else(|| PathBuf::from("."));
    let stream = args.stdout.then_some(match scratch {
        Some(_) => Stream::Passing,
        None => Stream::Kept,
    });
    let selection = Selection::parse(&args.files)?;
    let network = Network::new(&args.network)?;
    let links = input::expand(&args.links)?;
    let order = Order {
        dir: scratch.as_ref().map_or(dir, |scratch| scratch.path().to_owned()),
        stream,
        selection,
        list: args.list,
        sequential: args.sequential,
        overwrite: args.overwrite,
        seed: args.seed,
        network: network.moving(&args.transfer, links.len()),
    };
    if args.stdout && links.len() > 1 {
        return Err(usage("--stdout takes one link at a time"));
    }
    let mut ledger = Ledger { is_single: links.len() == 1, ..Ledger::default() };
    let mut jobs = Vec::with_capacity(links.len());
    for text in links {
        match Source::read(&text) {
            Ok(source) => jobs.push(Job { text, source }),
            Err(failure) => ledger.fail(&text, failure, console)?,
        }
    }
    if jobs.is_empty() {
        return ledger.outcome;
    }
    fetch(order, distinct(jobs), ledger, console)
}

/// What to do with every link of one command.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where to save.
    pub dir: PathBuf,
    /// Write the data to stdout?
    pub stream: Option<Stream>,
    /// Which files.
    pub selection: Selection,
    /// Show the files, fetch nothing.
    pub list: bool,
    /// Pieces in order.
    pub sequential: bool,
    /// Replace files that hold something else?
    pub overwrite: bool,
    /// Go on sharing?
    pub seed: Option<SeedGoal>,
    /// How to reach the network.
    pub network: Network,
}

/// What becomes of data that is written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// It is saved too.
    Kept,
    /// It is gone when the program ends.
    Passing,
}

/// One link.
#[derive(Debug, Clone)]
pub struct Job {
    /// As it was typed.
    pub text: String,
    /// What it says.
    pub source: Source,
}

/// What became of the links so far.
#[derive(Debug)]
pub struct Ledger {
    /// The only link fails as the program does; several fail one by one.
    is_single: bool,
    /// Links that are neither saved nor failed.
    pending: usize,
    /// The first failure.
    outcome: Result<(), Failure>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { is_single: true, pending: 0, outcome: Ok(()) }
    }
}

impl Ledger {
    // A link failed: with others beside it that is told at once, and they go on.
    fn fail(&mut self, link: &str, failure: Failure, console: &Console) -> Result<(), Failure> {
        if self.is_single {
            return Err(failure);
        }
        console.fail_link(link, &failure);
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        self.outcome = outcome.and(Err(failure.reported()));
        Ok(())
    }

    // What the program ends with.
    fn close(self, ended: Result<(), Failure>, console: &Console) -> Result<(), Failure> {
        match ended {
            // Everything that was asked for is on disk: a signal is how sharing ends.
            Err(failure) if failure.is_signal() && self.pending == 0 => {
                console.note("sharing ended");
                self.outcome
            }
            Err(failure) => Err(failure),
            Ok(()) => self.outcome,
        }
    }
}

/// Fetches all of them, several at a time.
pub fn fetch(
    order: Order,
    jobs: Vec<Job>,
    mut ledger: Ledger,
    console: &Arc<Console>,
) -> Result<(), Failure> {
    if !order.list {
        std::fs::create_dir_all(&order.dir).map_err(|e| Failure::io(order.dir.display(), &e))?;
    }
    ledger.pending = jobs.len();
    let ended = online::block_on(async {
        let role = if order.list { Role::Visitor } else { Role::Member };
        let session = online::start(&order.network, role).await?;
        let work = all(&session, Arc::new(order), jobs, &mut ledger, console);
        online::conduct(&session, work).await
    });
    ledger.close(ended, console)
}

async fn all(
    session: &Session,
    order: Arc<Order>,
    jobs: Vec<Job>,
    ledger: &mut Ledger,
    console: &Arc<Console>,
) -> Result<(), Failure> {
    let mut waiting = jobs.into_iter();
    let mut fetching = JoinSet::new();
    // What is shared on takes no place from what is still to be fetched.
    let mut sharing = JoinSet::new();
    loop {
        while fetching.len() < DOWNLOADS_MAX {
            let Some(job) = waiting.next() else { break };
            let (session, order, console) = (session.clone(), order.clone(), console.clone());
            fetching.spawn(async move {
                let fetched = one(&session, &order, &job, &console).await;
                (job, fetched)
            });
        }
        tokio::select! {
            Some(done) = fetching.join_next() => {
                let (job, fetched) = done.map_err(|_| Failure::internal())?;
                ledger.pending -= 1;
                match (fetched, order.seed) {
                    (Ok(Some(torrent)), Some(goal)) => {
                        // A line each as long as an eye can follow them.
                        let progress = match sharing.len() < SHARING_LINES_MAX {
                            true => Progress::new(console),
                            false => Progress::off(),
                        };
                        sharing.spawn(seed(torrent, goal, progress, console.clone()));
                    }
                    (Ok(_), _) => {}
                    (Err(failure), _) => ledger.fail(&job.text, failure, console)?,
                }
            }
            Some(ended) = sharing.join_next() => ended.map_err(|_| Failure::internal())?,
            else => return Ok(()),
        }
    }
}

// The torrent whose wanted data is on disk; none if there was only something to show.
async fn one(
    session: &Session,
    order: &Order,
    job: &Job,
    console: &Console,
) -> Result<Option<Torrent>, Failure> {
    let started = Instant::now();
    let mut progress = Progress::new(console);
    // Where we listen was said on purpose: somebody may come there.
    let is_found = !order.network.listen.is_empty();
    let patience = Patience::new(&order.network, GET_IDLE_MAX, is_found);
    let (mut request, mut names) = request(order, job);
    let selection = match &job.source {
        Source::Link(link) if order.selection.is_all() => Selection::of_link(link),
        _ => order.selection.clone(),
    };
    // Which files are wanted can only be said once their names are known.
    let needs_names = order.list || order.stream.is_some() || !selection.is_all();
    if request.info.is_none() && needs_names {
        let mut torrent = online::add(session, request.clone()).await?;
        let progress = &mut progress;
        let (name, names) = (name_hint(job), &mut names);
        let info =
            Watch { torrent: &mut torrent, progress, patience, name, names }.metadata().await;
        torrent.remove().await;
        request.info = Some(info?);
    }
    if let Some(info) = &request.info {
        let layout = layout(info)?;
        request.wanted = selection.apply(&layout)?;
        if order.list {
            progress.clear();
            list(&layout, request.info_hash, request.wanted.as_deref(), console);
            return Ok(None);
        }
    }
    request.peers.append(&mut names.found);
    request.output = Output::Download(order.dir.clone());
    let wanted = request.wanted.clone();
    let mut info = request.info.clone();
    let mut torrent = online::add(session, request).await?;
    let (name, names) = (name_hint(job), &mut names);
    let known = info.as_ref().filter(|_| order.stream.is_some()).map(layout).transpose()?;
    let hash = torrent.info_hash();
    let mut watch = Watch { torrent: &mut torrent, progress: &mut progress, patience, name, names };
    let watched = watch.data(|metadata| info = Some(metadata.clone()));
    match &known {
        Some(layout) => {
            let copied = stream::copy(session, hash, layout, wanted.as_deref(), console);
            let passing = || order.stream == Some(Stream::Passing) || console.is_closed();
            stream::alongside(watched, copied, passing).await?;
        }
        None => watched.await?,
    }
    let layout = match &info {
        Some(info) => layout(info)?,
        None => return Err(Failure::new(Code::Other, "finished without an info dictionary")),
    };
    progress.clear();
    let paths = saved(&order.dir, &layout, wanted.as_deref());
    // With --stdout the data was the result.
    let paths = if order.stream.is_some() { Vec::new() } else { paths };
    announce_saved(job, &torrent, &layout, wanted.as_deref(), &paths, started.elapsed(), console)
        .await;
    Ok(Some(torrent))
}

fn request(order: &Order, job: &Job) -> (AddTorrent, Names) {
    let mut request = AddTorrent::new(job.source.info_hash());
    request.sequential = order.sequential || order.stream.is_some();
    request.overwrite = order.overwrite;
    request.connections_max = order.network.transfer.connections_each;
    request.remembered = order.stream != Some(Stream::Passing);
    let hints: &[_] = match &job.source {
        Source::Link(link) => {
            // A link that was resolved by an earlier run is not resolved again.
            let state = order.network.state_dir.as_deref();
            request.info = state.and_then(|dir| resume::saved_info(dir, &link.info_hash));
            &link.peers
        }
        Source::Torrent(metainfo) => {
            request.info = Some(metainfo.info_bytes.clone());
            &[]
        }
    };
    let (peers, names) = online::peers(&order.network.peers, hints);
    request.peers = peers;
    (request, names)
}

/// The layout of an info dictionary.
pub fn layout(info: &Bytes) -> Result<Layout, Failure> {
    let bad = |error: String| Failure::new(Code::BadLink, error);
    let info = Info::decode(info).map_err(|e| bad(e.to_string()))?;
    Layout::new(&info).map_err(|e| bad(e.to_string()))
}

// The torrent's own file or folder; with a choice of files, those.
fn saved(dir: &Path, layout: &Layout, wanted: Option<&[bool]>) -> Vec<PathBuf> {
    let Some(wanted) = wanted else {
        return vec![dir.join(layout.name())];
    };
    let files = layout.files().iter().zip(wanted);
    files.filter(|(file, wanted)| **wanted && !file.pad).map(|(f, _)| dir.join(&f.path)).collect()
}

fn saved_bytes(layout: &Layout, wanted: Option<&[bool]>) -> u64 {
    let Some(wanted) = wanted else { return layout.total_len() };
    let files = layout.files().iter().zip(wanted);
    files.filter(|(file, wanted)| **wanted && !file.pad).map(|(file, _)| file.len).sum()
}

async fn announce_saved(
    job: &Job,
    torrent: &Torrent,
    layout: &Layout,
    wanted: Option<&[bool]>,
    paths: &[PathBuf],
    took: Duration,
    console: &Console,
) {
    let status = torrent.status().await.map(|s| s.swarm);
    let downloaded = status.as_ref().map_or(0, |s| s.downloaded);
    let uploaded = status.as_ref().map_or(0, |s| s.uploaded);
    if console.is_json() {
        let paths: Vec<_> = paths.iter().map(|p| p.to_string_lossy()).collect();
        console.record(String::new, || {
            json!({
                "code": 0,
                "link": job.text,
                "info_hash": torrent.info_hash().to_string(),
                "name": layout.name(),
                "paths": paths,
                "bytes": saved_bytes(layout, wanted),
                "downloaded": downloaded,
                "uploaded": uploaded,
                "seconds": took.as_secs_f64(),
            })
        });
        return;
    }
    for path in paths {
        console.record(|| Console::path_text(path), || Value::Null);
    }
    let peers = plural(status.map_or(0, |s| s.peers_reached), "peer");
    console.note(&format!(
        "{}: {} fetched from {peers} in {}",
        escape(layout.name()),
        size(downloaded),
        measured(took)
    ));
}

async fn seed(mut torrent: Torrent, goal: SeedGoal, mut progress: Progress, console: Arc<Console>) {
    let started = Instant::now();
    let mut looks = interval(SEED_LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            event = torrent.next_event() => match event {
                Some(TorrentEvent::Swarm(Event::FileChanged { file })) => {
                    online::tell_changed(&torrent, file, &console).await;
                    continue;
                }
                Some(_) => continue,
                None => return,
            },
        }
        let Some(status) = torrent.status().await.map(|s| s.swarm) else { return };
        let reached = match goal {
            SeedGoal::Forever => false,
            SeedGoal::For(time) => started.elapsed() >= time,
            // Shares of what the files are, not of what was fetched: a resumed download owes too.
            SeedGoal::Ratio(ratio) => status.uploaded as f64 >= ratio * status.wanted_bytes as f64,
        };
        if reached {
            return;
        }
        progress.standing(|| {
            format!(
                "sharing: {} connected, up {}/s, {} sent",
                plural(status.connected, "peer"),
                size(status.upload_rate),
                size(status.uploaded)
            )
        });
    }
}

fn list(layout: &Layout, info_hash: InfoHash, wanted: Option<&[bool]>, console: &Console) {
    let is_wanted = |index: usize| wanted.is_none_or(|w| w.get(index) == Some(&true));
    let files = layout.files().iter().enumerate();
    let files = files.filter(|&(index, file)| !file.pad && is_wanted(index));
    if console.is_json() {
        let files: Vec<_> = files.map(|(index, file)| info::file_json(index, file)).collect();
        console.record(String::new, || {
            json!({
                "code": 0,
                "info_hash": info_hash.to_string(),
                "name": layout.name(),
                "bytes": layout.total_len(),
                "files": files,
            })
        });
        return;
    }
    for (index, file) in files {
        console.record(|| info::file_row(index, file), || Value::Null);
    }
}

fn name_hint(job: &Job) -> Option<String> {
    match &job.source {
        Source::Link(link) => link.name.clone(),
        Source::Torrent(_) => None,
    }
}

// The same torrent twice is one download.
fn distinct(jobs: Vec<Job>) -> Vec<Job> {
    let mut seen = std::collections::BTreeSet::new();
    jobs.into_iter().filter(|job| seen.insert(job.source.info_hash())).collect()
}

/// Downloads at the same time; the rest wait. Fewer would be held up by a few that nobody shares.
const DOWNLOADS_MAX: usize = 100;
const SHARING_LINES_MAX: usize = 5;
/// Without --timeout: how long nobody may be found or reached.
const GET_IDLE_MAX: Duration = Duration::from_secs(300);
const SEED_LOOK_INTERVAL: Duration = Duration::from_millis(500);
