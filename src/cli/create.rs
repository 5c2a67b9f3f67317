//! `trackless create`: a torrent file from a file or folder, and its magnet link.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::args::CreateArgs;
use super::config;
use super::exit::{Code, Failure};
use super::files;
use super::format::{escape, size};
use super::info::magnet;
use super::output::Console;
use super::progress::Progress;
use super::signals;
use super::stage::plural;
use crate::driver::create::{CreateError, CreateOptions, Created, create};
use crate::wire::metainfo::{Info, TorrentExtras, torrent_file};

/// Runs the verb.
pub fn run(args: &CreateArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let plan = Plan {
        path: args.path.clone(),
        piece_length: config::piece_length(args.piece_length)?,
        name: args.name.clone(),
        private: args.private,
    };
    let is_private = plan.private;
    // An hour of hashing must not end in "exists".
    if let Some(path) = args.output.as_deref().filter(|p| !args.force && *p != Path::new("-"))
        && path.exists()
    {
        return Err(exists(path));
    }
    let worker = console.clone();
    let made = signals::interruptible(move || build(&plan, &worker))?;
    let extras = TorrentExtras {
        comment: args.comment.clone(),
        created_by: Some(concat!("trackless ", env!("CARGO_PKG_VERSION")).to_owned()),
        ..TorrentExtras::default()
    };
    let torrent = torrent_file(&made.created.info_bytes, &extras);
    let output = match &args.output {
        Some(path) if path.as_os_str() == "-" => {
            console.write(&torrent);
            return Ok(());
        }
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.torrent", made.name)),
    };
    let written = if args.force {
        files::replace(&output, &torrent)
    } else {
        files::create(&output, &torrent)
    };
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(&output),
        _ => Failure::io(output.display(), &error),
    })?;
    report(&made, &output, console);
    if is_private {
        tell_private(&made.name, console);
    }
    Ok(())
}

/// What to build a torrent from.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// File or folder.
    pub path: PathBuf,
    /// Bytes in a piece; by size if `None`.
    pub piece_length: Option<u32>,
    /// Instead of the path's own name.
    pub name: Option<String>,
    /// BEP 27.
    pub private: bool,
}

/// A torrent that was built.
#[derive(Debug, Clone)]
pub struct Made {
    /// The torrent's name.
    pub name: String,
    /// The rest.
    pub created: Created,
}

/// Hashes everything, on all cores. Blocks.
pub fn build(plan: &Plan, console: &Console) -> Result<Made, Failure> {
    let options = CreateOptions {
        piece_length: plan.piece_length,
        name: plan.name.clone(),
        private: plan.private,
    };
    let progress = Mutex::new(Progress::new(console));
    let show = |done: u64, total: u64| {
        // Whoever finds it taken leaves the showing to the one who has it.
        if let Ok(mut progress) = progress.try_lock() {
            progress.bytes("hashing", done, total);
        }
    };
    let made = create(&plan.path, options, &show).map_err(|e| failure(&e))?;
    tell_links(&made.links, console);
    let info = Info::decode(&made.info_bytes)
        .map_err(|e| Failure::new(Code::Other, format!("{}: {e}", plan.path.display())))?;
    Ok(Made { name: String::from_utf8_lossy(&info.name).into_owned(), created: made })
}

// What is shared through a link may not be what its owner thinks of.
fn tell_links(links: &[PathBuf], console: &Console) {
    if links.is_empty() {
        return;
    }
    let shown: Vec<_> =
        links.iter().take(LINKS_SHOWN).map(|l| escape(&l.to_string_lossy()).into_owned()).collect();
    let more = match links.len().saturating_sub(LINKS_SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let count = plural(links.len(), "symbolic link");
    console.warn(&format!("{count} followed: {}{more}", shown.join(", ")));
}

fn report(made: &Made, output: &Path, console: &Console) {
    let link = magnet(made.created.info_hash, &made.name).to_string();
    console.record(
        || link.clone(),
        || {
            json!({
                "code": 0,
                "magnet": link,
                "info_hash": made.created.info_hash.to_string(),
                "name": made.name,
                "bytes": made.created.total,
                "files": made.created.files,
                "path": output.to_string_lossy(),
            })
        },
    );
    let (total, files) = (size(made.created.total), plural(made.created.files, "file"));
    console.note(&format!("{}: {total} in {files}", escape(&output.to_string_lossy())));
}

/// What a private torrent means to whoever wants it (BEP 27).
pub fn tell_private(name: &str, console: &Console) {
    console.warn(&format!(
        "{}: private (BEP 27): nobody finds it through the DHT; whoever fetches it has to be told \
         of a peer: `trackless get ... --peer IP:PORT`",
        escape(name)
    ));
}

fn exists(path: &Path) -> Failure {
    Failure::new(Code::Conflict, format!("{}: exists already", path.display()))
        .advise("replace it with --force, or choose another name with -o")
}

// What is only read needs no place that can be written to.
fn readable(failure: Failure) -> Failure {
    match failure.code {
        Code::Permission => failure.advise("allow reading it, or take it out of what is shared"),
        _ => failure,
    }
}

fn failure(error: &CreateError) -> Failure {
    match error {
        CreateError::Io { path, error } => {
            let failure = Failure::io(path.display(), error);
            match error.kind() {
                ErrorKind::NotFound => Failure::new(Code::Usage, failure.error)
                    .advise("check the path of what is to be shared"),
                _ => readable(failure),
            }
        }
        CreateError::Read(error) => readable(Failure::from(error)),
        CreateError::Changed { .. } => Failure::new(Code::Conflict, error.to_string())
            .advise("try again when nothing writes to it"),
        CreateError::Kind { .. } => config::usage(error.to_string())
            .advise("take it out of the folder: only files can be shared"),
        CreateError::Link { .. } => config::usage(error.to_string())
            .advise("remove the link, or put what it is to stand for in its place"),
        CreateError::Empty { .. } => config::usage(error.to_string())
            .advise("put a file into it: a torrent holds files, and no empty folders"),
        CreateError::TooManyFiles => {
            config::usage(error.to_string()).advise("share parts of it, or pack it into one file")
        }
        CreateError::TooManyPieces(_) => {
            config::usage(error.to_string()).advise("give a larger --piece-length")
        }
        CreateError::PieceLength(_) | CreateError::Name(_) | CreateError::Layout(_) => {
            config::usage(error.to_string())
        }
    }
}

/// Links that are named on one line.
const LINKS_SHOWN: usize = 8;
