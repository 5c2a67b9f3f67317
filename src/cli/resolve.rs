//! `trackless resolve`: from links to torrent files, one or a hundred thousand. Every link ends in
//! a result or a cause.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::ResolveArgs;
use super::config::{Network, usage};
use super::exit::Failure;
use super::files;
use super::format::{escape, measured};
use super::get;
use super::input;
use super::online::{self, Patience, Role, Watch};
use super::output::Console;
use super::progress::Progress;
use super::stage::plural;
use crate::base::InfoHash;
use crate::driver::{AddTorrent, Session};
use crate::wire::magnet::Link;
use crate::wire::metainfo::{TorrentExtras, torrent_file};

/// Runs the verb.
pub fn run(args: &ResolveArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let network = Network::new(&args.network)?;
    let is_single = args.input.is_none() && args.links.len() == 1 && args.links[0] != "-";
    let target = Target::new(args.output.as_deref(), is_single)?;
    let order = Arc::new(Order { network, target });
    if is_single {
        let link = input::link(&args.links[0])?;
        return online::block_on(async {
            let session = online::start(&order.network, Role::Visitor).await?;
            let work = single(&session, &order, &link, console);
            online::conduct(&session, work).await
        });
    }
    let (lines, typed) = (args.input.clone(), args.links.clone());
    online::block_on(async {
        let session = online::start(&order.network, Role::Visitor).await?;
        let links = read_in_background(typed, lines);
        let work = Bulk::new(&session, &order, console).run(links, args.jobs.into());
        online::conduct(&session, work).await
    })
}

struct Order {
    network: Network,
    target: Target,
}

// Where the result goes.
enum Target {
    Table,
    Stdout,
    File(PathBuf),
    Folder(PathBuf),
}

impl Target {
    fn new(output: Option<&Path>, is_single: bool) -> Result<Self, Failure> {
        let Some(path) = output else { return Ok(Target::Table) };
        let is_stdout = path == Path::new("-");
        let means_folder = path.is_dir() || path.to_string_lossy().ends_with('/');
        match (is_single, is_stdout, means_folder) {
            (false, true, _) => Err(usage("-o - takes one link: name a folder for several")),
            (true, true, _) => Ok(Target::Stdout),
            (true, false, false) => Ok(Target::File(path.to_owned())),
            (_, false, _) => {
                std::fs::create_dir_all(path).map_err(|e| Failure::io(path.display(), &e))?;
                Ok(Target::Folder(path.to_owned()))
            }
        }
    }

    fn path(&self, info_hash: InfoHash) -> Option<PathBuf> {
        match self {
            Target::Table | Target::Stdout => None,
            Target::File(path) => Some(path.clone()),
            Target::Folder(folder) => Some(folder.join(format!("{info_hash}.torrent"))),
        }
    }
}

// What became of a link, as much as its line needs.
#[derive(Debug, Clone)]
struct Row {
    info_hash: InfoHash,
    bytes: u64,
    files: usize,
    name: String,
    path: Option<PathBuf>,
}

async fn single(
    session: &Session,
    order: &Order,
    link: &Link,
    console: &Console,
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut progress = Progress::new(console);
    let info = metadata(session, order, link, &mut progress).await?;
    progress.clear();
    if let Target::Stdout = order.target {
        console.write(&torrent_file(&info, &extras(link)));
        return Ok(());
    }
    let row = keep(order, link, &info)?;
    print(console, &row, None);
    if let Some(path) = &row.path {
        let (path, took) = (path.to_string_lossy(), measured(started.elapsed()));
        console.note(&format!("{}: saved as {} in {took}", escape(&row.name), escape(&path)));
    }
    Ok(())
}

// Links in hand, links under way, and what became of those before.
struct Bulk<'a> {
    session: &'a Session,
    order: &'a Arc<Order>,
    console: &'a Arc<Console>,
    running: JoinSet<(String, InfoHash, Result<Row, Failure>)>,
    // By hash, so that a link that comes twice is asked for once.
    results: BTreeMap<InfoHash, Option<Result<Row, Failure>>>,
    repeated: Vec<(String, InfoHash)>,
    done: usize,
    failed: usize,
    // It decides how the program ends.
    first_failure: Option<Failure>,
}

impl<'a> Bulk<'a> {
    fn new(session: &'a Session, order: &'a Arc<Order>, console: &'a Arc<Console>) -> Self {
        Self {
            session,
            order,
            console,
            running: JoinSet::new(),
            results: BTreeMap::new(),
            repeated: Vec::new(),
            done: 0,
            failed: 0,
            first_failure: None,
        }
    }

    async fn run(
        mut self,
        mut links: mpsc::Receiver<Result<String, Failure>>,
        jobs: usize,
    ) -> Result<(), Failure> {
        let mut progress = Progress::new(self.console);
        let mut ticks = tokio::time::interval(progress.interval());
        let mut is_open = true;
        while is_open || !self.running.is_empty() {
            tokio::select! {
                text = links.recv(), if is_open && self.running.len() < jobs => match text {
                    Some(text) => self.begin(text?),
                    None => is_open = false,
                },
                Some(finished) = self.running.join_next() => {
                    let (text, info_hash, outcome) = finished
                        .map_err(|_| Failure::internal())?;
                    self.finish(&text, outcome.clone());
                    self.results.insert(info_hash, Some(outcome));
                }
                _ = ticks.tick() => progress.line(|| {
                    let (done, failed) = (self.done, self.failed);
                    format!("{done} resolved, {failed} failed, {} under way", self.running.len())
                }),
            }
        }
        progress.clear();
        for (text, info_hash) in std::mem::take(&mut self.repeated) {
            if let Some(Some(outcome)) = self.results.get(&info_hash) {
                let outcome = outcome.clone();
                self.finish(&text, outcome);
            }
        }
        self.outcome()
    }

    fn begin(&mut self, text: String) {
        let link = match input::link(&text) {
            Ok(link) => link,
            Err(failure) => return self.finish(&text, Err(failure)),
        };
        let info_hash = link.info_hash;
        if self.results.contains_key(&info_hash) {
            self.repeated.push((text, info_hash));
            return;
        }
        self.results.insert(info_hash, None);
        let (session, order) = (self.session.clone(), self.order.clone());
        self.running.spawn(async move {
            let mut unseen = Progress::off();
            let row = match metadata(&session, &order, &link, &mut unseen).await {
                Ok(info) => keep(&order, &link, &info),
                Err(failure) => Err(failure),
            };
            (text, info_hash, row)
        });
    }

    fn finish(&mut self, text: &str, outcome: Result<Row, Failure>) {
        match outcome {
            Ok(row) => {
                self.done += 1;
                print(self.console, &row, Some(text));
            }
            Err(failure) => {
                self.console.fail_link(text, &failure);
                self.failed += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }

    fn outcome(self) -> Result<(), Failure> {
        let all = plural(self.done + self.failed, "link");
        let (done, failed) = (self.done, self.failed);
        self.console.note(&format!("{done} of {all} resolved, {failed} failed"));
        match self.first_failure {
            None => Ok(()),
            Some(first) => Err(first.reported()),
        }
    }
}

async fn metadata(
    session: &Session,
    order: &Order,
    link: &Link,
    progress: &mut Progress,
) -> Result<Bytes, Failure> {
    let (peers, mut names) = online::peers(&order.network.peers, &link.peers);
    let request = AddTorrent { peers, ..AddTorrent::new(link.info_hash) };
    let mut patience = Patience::new(&order.network, RESOLVE_MAX, false);
    // Metadata comes soon or never: all the time counts, not the idle time alone.
    patience.deadline.get_or_insert_with(|| Instant::now() + RESOLVE_MAX);
    let mut torrent = online::add(session, request).await?;
    let (name, names) = (link.name.clone(), &mut names);
    let info = Watch { torrent: &mut torrent, progress, patience, name, names }.metadata().await;
    torrent.remove().await;
    info
}

fn keep(order: &Order, link: &Link, info: &Bytes) -> Result<Row, Failure> {
    let layout = get::layout(info)?;
    let path = order.target.path(link.info_hash);
    if let Some(path) = &path {
        files::replace(path, &torrent_file(info, &extras(link)))
            .map_err(|e| Failure::io(path.display(), &e))?;
    }
    Ok(Row {
        info_hash: link.info_hash,
        bytes: layout.total_len(),
        files: layout.files().iter().filter(|f| !f.pad).count(),
        name: layout.name().to_owned(),
        path,
    })
}

// What the link knows and the info dictionary does not.
fn extras(link: &Link) -> TorrentExtras {
    TorrentExtras {
        trackers: link.trackers.clone(),
        webseeds: link.webseeds.clone(),
        ..TorrentExtras::default()
    }
}

fn print(console: &Console, row: &Row, link: Option<&str>) {
    if console.is_json() {
        let path = row.path.as_ref().map(|p| p.to_string_lossy());
        let mut json = json!({
            "code": 0,
            "info_hash": row.info_hash.to_string(),
            "bytes": row.bytes,
            "files": row.files,
            "name": row.name,
            "path": path,
        });
        if let Some(link) = link {
            json["link"] = link.into();
        }
        console.record(String::new, || json);
    } else if row.path.is_none() {
        let (hash, bytes, files) = (row.info_hash, row.bytes, row.files);
        console
            .record(|| format!("{hash}\t{bytes}\t{files}\t{}", escape(&row.name)), || Value::Null);
    }
}

// Reading stdin or a file may block: it happens on a thread of its own, a few lines ahead.
fn read_in_background(
    typed: Vec<String>,
    from: Option<PathBuf>,
) -> mpsc::Receiver<Result<String, Failure>> {
    let (send, links) = mpsc::channel(LINKS_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let sources = typed.into_iter().map(|text| match text.as_str() {
            "-" => input::lines(Path::new("-")),
            _ => Ok(Box::new(std::iter::once(Ok(text))) as input::Lines),
        });
        for source in sources.chain(from.as_deref().map(input::lines)) {
            let lines = match source {
                Ok(lines) => lines,
                Err(failure) => Box::new(std::iter::once(Err(failure))),
            };
            for line in lines {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        }
    });
    links
}

/// Without --timeout: when to give a link up.
const RESOLVE_MAX: Duration = Duration::from_secs(120);
const LINKS_AHEAD_MAX: usize = 64;
