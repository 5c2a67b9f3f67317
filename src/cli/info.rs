//! `trackless info`: what a torrent file or a magnet link says, without asking anybody.

use serde_json::{Value, json};

use super::args::InfoArgs;
use super::exit::{Code, Failure};
use super::format::{escape, size};
use super::input::Source;
use super::output::Console;
use crate::base::InfoHash;
use crate::swarm::layout::{Layout, LayoutFile};
use crate::wire::magnet::Link;
use crate::wire::metainfo::Metainfo;

/// Runs the verb.
pub fn run(args: &InfoArgs, console: &Console) -> Result<(), Failure> {
    match Source::read(&args.item)? {
        Source::Link(link) => console.record(|| link_table(&link), || link_json(&link)),
        Source::Torrent(metainfo) => {
            let layout = Layout::new(&metainfo.info)
                .map_err(|e| Failure::new(Code::BadLink, format!("{}: {e}", args.item)))?;
            console
                .record(|| torrent_table(&metainfo, &layout), || torrent_json(&metainfo, &layout));
        }
    }
    Ok(())
}

/// The magnet link of a torrent: its hash and its name, nobody's address.
pub fn magnet(info_hash: InfoHash, name: &str) -> Link {
    Link { name: Some(name.to_owned()), ..Link::new(info_hash) }
}

fn torrent_table(metainfo: &Metainfo, layout: &Layout) -> String {
    let info = &metainfo.info;
    let mut rows = vec![
        row("name", layout.name()),
        row("info-hash", &metainfo.info_hash.to_string()),
        row("size", &format!("{} ({} bytes)", size(info.total_len()), info.total_len())),
        row("pieces", &format!("{} of {}", info.piece_count(), size(info.piece_length.into()))),
    ];
    if info.private {
        rows.push(row("private", "yes"));
    }
    let optional = [("created by", &metainfo.created_by), ("comment", &metainfo.comment)];
    rows.extend(optional.iter().filter_map(|(key, value)| Some(row(key, value.as_deref()?))));
    rows.extend(metainfo.trackers.iter().map(|t| row("tracker", t)));
    rows.extend(metainfo.webseeds.iter().map(|w| row("web seed", w)));
    rows.extend(metainfo.nodes.iter().map(|(host, port)| row("node", &format!("{host}:{port}"))));
    rows.push(row("magnet", &magnet(metainfo.info_hash, layout.name()).to_string()));
    rows.push(String::new());
    let files = layout.files().iter().enumerate().filter(|(_, f)| !f.pad);
    rows.extend(files.map(|(index, file)| file_row(index, file)));
    rows.join("\n")
}

/// One file in a table: its index, size and path.
pub fn file_row(index: usize, file: &LayoutFile) -> String {
    format!("{index:>6}  {:>10}  {}", size(file.len), escape(&file.path.to_string_lossy()))
}

/// One file for scripts.
pub fn file_json(index: usize, file: &LayoutFile) -> Value {
    json!({"index": index, "path": file.path.to_string_lossy(), "bytes": file.len})
}

fn torrent_json(metainfo: &Metainfo, layout: &Layout) -> Value {
    let files: Vec<_> = layout
        .files()
        .iter()
        .enumerate()
        .filter(|(_, file)| !file.pad)
        .map(|(index, file)| file_json(index, file))
        .collect();
    let nodes: Vec<_> = metainfo.nodes.iter().map(|(h, p)| format!("{h}:{p}")).collect();
    json!({
        "code": 0,
        "info_hash": metainfo.info_hash.to_string(),
        "name": layout.name(),
        "bytes": metainfo.info.total_len(),
        "piece_length": metainfo.info.piece_length,
        "pieces": metainfo.info.piece_count(),
        "private": metainfo.info.private,
        "files": files,
        "trackers": metainfo.trackers,
        "webseeds": metainfo.webseeds,
        "nodes": nodes,
        "comment": metainfo.comment,
        "created_by": metainfo.created_by,
        "creation_date": metainfo.creation_date,
        "magnet": magnet(metainfo.info_hash, layout.name()).to_string(),
    })
}

fn link_table(link: &Link) -> String {
    let mut rows = vec![row("info-hash", &link.info_hash.to_string())];
    rows.extend(link.name.iter().map(|n| row("name", n)));
    rows.extend(link.peers.iter().map(|p| row("peer", &p.to_string())));
    rows.extend(link.trackers.iter().map(|t| row("tracker", t)));
    rows.extend(link.webseeds.iter().map(|w| row("web seed", w)));
    rows.extend(selection(link).map(|s| row("files", &s)));
    rows.join("\n")
}

fn link_json(link: &Link) -> Value {
    json!({
        "code": 0,
        "info_hash": link.info_hash.to_string(),
        "name": link.name,
        "peers": link.peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "trackers": link.trackers,
        "webseeds": link.webseeds,
        "files": selection(link),
    })
}

// The ranges of `so=` (BEP 53) as they are written there.
fn selection(link: &Link) -> Option<String> {
    let ranges = link.select.as_ref()?.iter().map(|range| match (range.start(), range.end()) {
        (a, b) if a == b => a.to_string(),
        (a, b) => format!("{a}-{b}"),
    });
    Some(ranges.collect::<Vec<_>>().join(","))
}

fn row(key: &str, value: &str) -> String {
    format!("{key:<11} {}", escape(value))
}
