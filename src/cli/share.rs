//! `trackless share`: files or folders become magnet links and are seeded until a signal. The link
//! is printed as soon as it works; nothing of the network is waited for.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::args::ShareArgs;
use super::config::{self, Network};
use super::create::{self, Plan};
use super::exit::{Code, Failure};
use super::format::{escape, size};
use super::info::magnet;
use super::input;
use super::node::start_where_found_again;
use super::online::{self, Role};
use super::output::Console;
use super::progress::Progress;
use super::stage::{percent, plural};
use crate::base::InfoHash;
use crate::dht::{LookupKind, LookupReport};
use crate::driver::{AddTorrent, Output, Session, Torrent, TorrentEvent, TorrentStatus};
use crate::swarm::{Event, FileStatus, Phase};
use crate::wire::magnet::Link;

/// Runs the verb.
pub fn run(args: &ShareArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let network = Network::new(&args.network)?.moving(&args.transfer, args.paths.len());
    let piece_length = config::piece_length(args.piece_length)?;
    online::block_on(async {
        let session = start_where_found_again(&network, Role::Member).await?;
        let work = async {
            let mut shares = Vec::with_capacity(args.paths.len());
            for path in &args.paths {
                let mut offer = offer(path, args.data.as_deref(), piece_length, console).await?;
                offer.super_seeding = !args.no_super_seeding;
                if shares.iter().any(|s: &Share| s.torrent.info_hash() == offer.info_hash) {
                    let (path, hash) = (Console::path_text(path), offer.info_hash);
                    console
                        .warn(&format!("{path}: the same torrent as before ({hash}): shared once"));
                    continue;
                }
                shares.push(share(&session, &network, offer, console).await?);
            }
            tokio::select! {
                failed = tend_all(&session, shares, console) => failed,
                () = online::at(network.timeout.map(|limit| Instant::now() + limit)) => Ok(()),
            }
        };
        online::conduct(&session, work).await.map_err(|failure| {
            // A signal is how sharing ends: there is nothing to explain.
            if failure.is_signal() { failure.reported() } else { failure }
        })
    })
}

// Something to share, with its info dictionary made or read.
struct Offer {
    info_hash: InfoHash,
    info: Bytes,
    name: String,
    bytes: u64,
    files: usize,
    private: bool,
    output: Output,
    super_seeding: bool,
}

struct Share {
    torrent: Torrent,
    name: String,
    /// The user was told that a file has changed.
    has_lost: Cell<bool>,
}

async fn offer(
    path: &Path,
    data: Option<&Path>,
    piece_length: Option<u32>,
    console: &Arc<Console>,
) -> Result<Offer, Failure> {
    if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("torrent")) {
        return read_offer(path, data);
    }
    let plan = Plan { path: path.to_owned(), piece_length, ..Plan::default() };
    let console = console.clone();
    let made = tokio::task::spawn_blocking(move || create::build(&plan, &console)).await;
    let made = made.map_err(|_| Failure::internal())??;
    Ok(Offer {
        info_hash: made.created.info_hash,
        info: made.created.info_bytes,
        name: made.name,
        bytes: made.created.total,
        files: made.created.files,
        private: false,
        output: Output::Seed(made.created.root),
        super_seeding: true,
    })
}

// A torrent that exists: its data is checked before it is offered.
fn read_offer(path: &Path, data: Option<&Path>) -> Result<Offer, Failure> {
    let metainfo = input::torrent(path)?;
    let layout = super::get::layout(&metainfo.info_bytes)?;
    let dir = match data {
        Some(dir) => dir.to_owned(),
        // A path without a folder in it lies in this one.
        None => Path::new(".").join(path.parent().unwrap_or(Path::new(""))),
    };
    let raw_name = String::from_utf8_lossy(&metainfo.info.name);
    if ![layout.name(), &raw_name].iter().any(|name| dir.join(name).exists()) {
        let error = format!("{}: not there", dir.join(layout.name()).display());
        return Err(Failure::new(Code::Mismatch, error).advise(NAME_THE_DATA));
    }
    Ok(Offer {
        info_hash: metainfo.info_hash,
        info: metainfo.info_bytes,
        name: layout.name().to_owned(),
        bytes: layout.total_len(),
        files: layout.files().iter().filter(|f| !f.pad).count(),
        private: metainfo.info.private,
        output: Output::SeedChecked(dir),
        super_seeding: true,
    })
}

async fn share(
    session: &Session,
    network: &Network,
    offer: Offer,
    console: &Console,
) -> Result<Share, Failure> {
    let request = AddTorrent {
        info: Some(offer.info),
        peers: network.peers.clone(),
        output: offer.output,
        super_seeding: offer.super_seeding,
        connections_max: network.transfer.connections_each,
        ..AddTorrent::new(offer.info_hash)
    };
    let torrent = online::add(session, request).await?;
    let link: Link = magnet(offer.info_hash, &offer.name);
    console.record(
        || link.to_string(),
        || {
            json!({
                "event": "magnet",
                "magnet": link.to_string(),
                "info_hash": offer.info_hash.to_string(),
                "name": offer.name,
                "bytes": offer.bytes,
                "files": offer.files,
                "private": offer.private,
            })
        },
    );
    let (name, files) = (escape(&offer.name), plural(offer.files, "file"));
    console.note(&format!("sharing {name}: {}, {files}; Ctrl-C ends it", size(offer.bytes)));
    if offer.private {
        create::tell_private(&offer.name, console);
    }
    Ok(Share { torrent, name: offer.name, has_lost: Cell::new(false) })
}

// Until every share has failed; they do not fail together.
async fn tend_all(
    session: &Session,
    shares: Vec<Share>,
    console: &Arc<Console>,
) -> Result<(), Failure> {
    // A line each as long as an eye can follow them, then one for all.
    let has_lines = shares.len() <= LINES_MAX;
    let mut tasks = JoinSet::new();
    for share in shares {
        tasks.spawn(tend(share, console.clone(), has_lines));
    }
    let (mut progress, mut ticks) = (Progress::new(console), interval(LOOK_INTERVAL));
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            ended = tasks.join_next() => {
                let Some(ended) = ended else { return outcome };
                let (name, failure) = ended.map_err(|_| Failure::internal())?;
                console.explain(Some(&name), &failure);
                outcome = outcome.and(Err(failure.reported()));
            }
            _ = ticks.tick(), if !has_lines => {
                // A thousand torrents at rest are not asked how they are for nobody's eyes.
                if progress.is_due() {
                    let all = session.torrents().await;
                    let status = session.status().await;
                    let is_behind = status.is_some_and(|s| s.nodes.iter().any(|n| n.announcing.is_behind));
                    progress.standing(|| line_of_all(&all, is_behind));
                }
            }
        }
    }
}

async fn tend(mut share: Share, console: Arc<Console>, has_line: bool) -> (String, Failure) {
    let mut progress = if has_line { Progress::new(&console) } else { Progress::off() };
    let mut ticks = interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            event = share.torrent.next_event() => {
                let Some(event) = event else {
                    return (share.name, online::gone());
                };
                if let TorrentEvent::Swarm(Event::Opened { have, pieces }) = event
                    && (1..pieces).contains(&have)
                {
                    tell_incomplete(&share.torrent, &share.name, (have, pieces), &console).await;
                }
                if let TorrentEvent::Swarm(Event::FileChanged { file }) = event {
                    online::tell_changed(&share.torrent, file, &console).await;
                }
                if let Err(failure) = hear(&share, &event, &console, has_line) {
                    return (share.name, failure);
                }
            }
            _ = ticks.tick(), if has_line => {
                if let Some(status) = share.torrent.status().await {
                    progress.standing(|| line(&share.name, &status));
                }
            }
        }
    }
}

fn line_of_all(all: &[TorrentStatus], is_behind: bool) -> String {
    let announced = all.iter().filter(|t| t.dht.is_some_and(|dht| dht.announced > 0)).count();
    format!(
        "sharing {}: {}, up {}/s, {} sent, {announced} announced{}",
        plural(all.len(), "torrent"),
        plural(all.iter().map(|t| t.swarm.connected).sum(), "peer"),
        size(all.iter().map(|t| t.swarm.upload_rate).sum()),
        size(all.iter().map(|t| t.swarm.uploaded).sum()),
        if is_behind { ", not all in time: raise --flows-per-second" } else { "" },
    )
}

fn hear(
    share: &Share,
    event: &TorrentEvent,
    console: &Console,
    has_line: bool,
) -> Result<(), Failure> {
    match event {
        TorrentEvent::LookupDone(report) => {
            // Scripts are told of each; a page of them is for nobody's eyes.
            let is_told = has_line || console.is_json();
            if is_told && matches!(report.kind, LookupKind::Announce(_)) {
                announced(share, report, console);
            }
            Ok(())
        }
        TorrentEvent::Swarm(Event::Opened { have: 0, pieces }) if *pieces > 0 => {
            Err(Failure::new(Code::Mismatch, "none of the data matches the torrent")
                .advise(NAME_THE_DATA))
        }
        TorrentEvent::Swarm(Event::PieceLost(piece)) => {
            // Of a file that was cut or removed this is told for each piece that is asked for.
            let name = escape(&share.name);
            tracing::debug!("{name}: piece {} cannot be read any more", piece.get());
            if !share.has_lost.replace(true) {
                console.warn(&format!("{name}: a file has changed: not all of it is shared now"));
            }
            Ok(())
        }
        TorrentEvent::Swarm(event) => online::fatal(event).map_or(Ok(()), Err),
        // Only those that are not needed.
        TorrentEvent::Missed(_) => Ok(()),
    }
}

// What is not whole is shared as far as it goes; whose fault that is can be put right.
async fn tell_incomplete(
    torrent: &Torrent,
    name: &str,
    (have, pieces): (u32, u32),
    console: &Console,
) {
    let files = torrent.files().await;
    let incomplete: Vec<_> = files.iter().filter(|f| f.verified < f.len).collect();
    if console.is_json() {
        let file = |f: &&FileStatus| {
            json!({
                "path": f.path.to_string_lossy(),
                "bytes": f.len,
                "verified_bytes": f.verified,
            })
        };
        console.record(String::new, || {
            json!({
                "event": "incomplete",
                "info_hash": torrent.info_hash().to_string(),
                "pieces": pieces,
                "good_pieces": have,
                "files": incomplete.iter().map(file).collect::<Vec<_>>(),
            })
        });
    }
    let shown = incomplete.iter().take(FILES_SHOWN).map(|f| f.path.to_string_lossy());
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match incomplete.len().saturating_sub(FILES_SHOWN) {
        0 => String::new(),
        n => format!(" and {}", plural(n, "other file")),
    };
    let name = escape(name);
    console.warn(&format!(
        "{name}: only {have} of {pieces} pieces are good; not shared whole: {shown}{more}"
    ));
}

fn announced(share: &Share, report: &LookupReport, console: &Console) {
    let (taken, near) = (report.announced, report.nodes.len());
    if console.is_json() {
        console.record(String::new, || {
            json!({
                "event": "announced",
                "info_hash": share.torrent.info_hash().to_string(),
                "nodes": taken,
                "asked": report.asked,
                "answered": report.answered,
            })
        });
        return;
    }
    let name = escape(&share.name);
    console.note(&format!("{name}: announced to {taken}/{near} nodes ({} asked)", report.asked));
}

fn line(name: &str, status: &TorrentStatus) -> String {
    let swarm = &status.swarm;
    let name = escape(name);
    if swarm.phase == Phase::Checking {
        let (done, total) = swarm.checking;
        return format!("{name}: checking {}", percent(done, total));
    }
    let nodes = status.dht.map(|d| format!(", announced to {}", plural(d.announced, "node")));
    format!(
        "{name}: {}, up {}/s, {} sent{}",
        plural(swarm.connected, "peer"),
        size(swarm.upload_rate),
        size(swarm.uploaded),
        nodes.unwrap_or_default()
    )
}

const NAME_THE_DATA: &str = "name the folder that holds the data with --data DIR";
/// Shares that have a progress line each.
const LINES_MAX: usize = 5;
/// Incomplete files that are named on one line; JSON has all.
const FILES_SHOWN: usize = 8;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
