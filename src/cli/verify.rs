//! `trackless verify`: data against its torrent, file by file.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::exit::{Code, Failure};
use super::format::escape;
use super::input;
use super::output::Console;
use super::progress::Progress;
use super::signals;
use super::stage::plural;
use crate::driver::verify::{FileCheck, FileVerdict, VerifyError, VerifyReport, verify};
use crate::swarm::{DiskError, DiskErrorKind};

/// Runs the verb.
pub fn run(args: &VerifyArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let metainfo = input::torrent(&args.torrent)?;
    let (dir, worker) = (args.dir.clone(), console.clone());
    let report = signals::interruptible(move || {
        let progress = Mutex::new(Progress::new(&worker));
        let show = |done: u64, total: u64| {
            // Whoever finds it taken leaves the showing to the one who has it.
            if let Ok(mut progress) = progress.try_lock() {
                progress.bytes("checking", done, total);
            }
        };
        verify(&metainfo, &dir, &show).map_err(|error| match error {
            VerifyError::Layout(error) => Failure::new(Code::BadLink, error.to_string()),
            VerifyError::Open(error) => Failure::from(&error),
        })
    })?;
    print(&report, console);
    if report.is_ok() {
        return Ok(());
    }
    let failure = failure(&report, &args.dir);
    // With --json the report has said it all.
    Err(if console.is_json() { failure.reported() } else { failure })
}

fn print(report: &VerifyReport, console: &Console) {
    if console.is_json() {
        let files: Vec<_> = report.files.iter().map(file_json).collect();
        let code = code(report);
        console.record(String::new, || {
            json!({
                "code": code.number(),
                "pieces": report.pieces,
                "good_pieces": report.good_pieces,
                "bytes": report.total,
                "files": files,
            })
        });
        return;
    }
    for file in &report.files {
        let path = escape(&file.path.to_string_lossy()).into_owned();
        let word = verdict(file.status);
        let gap = if word.len() < WORD_WIDTH { "" } else { " " };
        console.record(|| format!("{word:<WORD_WIDTH$}{gap}{path}"), || Value::Null);
    }
}

fn file_json(file: &FileCheck) -> Value {
    json!({
        "path": file.path.to_string_lossy(),
        "status": verdict(file.status),
        "bytes": file.len,
        "found_bytes": file.found_len,
        "bad_pieces": file.bad_pieces,
        "error": file.error.as_ref().map(|e| Failure::from(e).error),
    })
}

// What could not be read comes before what does not match: it may be whole.
fn code(report: &VerifyReport) -> Code {
    if report.is_ok() {
        return Code::Ok;
    }
    let mut errors = report.files.iter().filter_map(|f| f.error.as_ref()).peekable();
    if errors.peek().is_none() {
        return Code::Mismatch;
    }
    let is_forbidden = errors.any(|e| e.kind == DiskErrorKind::Permission);
    if is_forbidden { Code::Permission } else { Code::Disk }
}

fn failure(report: &VerifyReport, dir: &Path) -> Failure {
    let code = code(report);
    if code == Code::Mismatch {
        return mismatch(report, dir);
    }
    let errors = || report.files.iter().filter_map(|f| f.error.as_ref());
    let weighs =
        |e: &&DiskError| (e.kind == DiskErrorKind::Permission) == (code == Code::Permission);
    let first = errors().find(weighs).map(|e| Failure::from(e).error).unwrap_or_default();
    let more = match errors().count() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", plural(n - 1, "file")),
    };
    let bad = report.files.iter().filter(|f| f.status == FileVerdict::Bad).count();
    let bad = if bad == 0 { String::new() } else { format!("; {} bad", plural(bad, "file")) };
    let advice = match code {
        Code::Permission => "run it as somebody who may read the data, or change its permissions",
        _ => "look at the disk: what cannot be read may still be whole",
    };
    Failure::new(code, format!("{first}{more}{bad}")).advise(advice)
}

fn mismatch(report: &VerifyReport, dir: &Path) -> Failure {
    let count = |status| report.files.iter().filter(|f| f.status == status).count();
    let (bad, missing) = (count(FileVerdict::Bad), count(FileVerdict::Missing));
    let mut pieces: Vec<_> =
        report.files.iter().flat_map(|f| f.bad_pieces.iter().copied()).collect();
    pieces.sort_unstable();
    pieces.dedup();
    let shown: Vec<_> = pieces.iter().take(PIECES_SHOWN).map(u32::to_string).collect();
    let mut error = format!("{} bad, {missing} missing", plural(bad, "file"));
    if let unproven @ 1.. = count(FileVerdict::Unproven) {
        error.push_str(&format!(", {unproven} unproven beside them"));
    }
    if bad > 0 && !shown.is_empty() {
        let more = if pieces.len() > shown.len() { ", ..." } else { "" };
        error.push_str(&format!("; pieces {}{more} do not match", shown.join(", ")));
    }
    let failure = Failure::new(Code::Mismatch, error);
    if missing == report.files.len() {
        let advice =
            format!("nothing of it is in {}: name the folder it was saved into", dir.display());
        return failure.advise(advice);
    }
    failure
}

const fn verdict(status: FileVerdict) -> &'static str {
    match status {
        FileVerdict::Ok => "ok",
        FileVerdict::Bad => "bad",
        FileVerdict::Missing => "missing",
        FileVerdict::Unproven => "unproven",
        FileVerdict::Unreadable => "unreadable",
    }
}

/// The words that tell most have room here; two are longer.
const WORD_WIDTH: usize = 8;
/// As many piece numbers as one line holds; JSON has all.
const PIECES_SHOWN: usize = 8;
