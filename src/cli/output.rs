//! The two streams. stdout carries the result and nothing else; everything for eyes goes to stderr.
//! A reader that went away (`| head`) is no error and never a panic: what cannot be written any more
//! is dropped, and verbs that go on ask [`Console::is_closed`].

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde_json::Value;

use super::args::CommonArgs;
use super::exit::{Code, Failure};
use super::format::{escape, shorten};

/// Where a verb puts what it has to say.
#[derive(Debug)]
pub struct Console {
    json: bool,
    quiet: bool,
    bars: Option<MultiProgress>,
    stdout_closed: AtomicBool,
    stdout_failed: AtomicBool,
}

impl Console {
    /// The streams as the flags want them.
    pub fn new(args: &CommonArgs) -> Self {
        // Lines that redraw themselves: not while log lines would cut through them.
        let redraws = !args.json && !args.quiet && args.verbose == 0 && io::stderr().is_terminal();
        let bars = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        Self {
            json: args.json,
            quiet: args.quiet,
            bars: redraws.then(bars),
            stdout_closed: AtomicBool::new(false),
            stdout_failed: AtomicBool::new(false),
        }
    }

    /// Is the result JSON?
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// May progress be shown at all?
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json
    }

    /// The place of lines that redraw themselves, if there are to be any.
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// True when nobody reads stdout any more.
    pub fn is_closed(&self) -> bool {
        self.stdout_closed.load(Ordering::Relaxed)
    }

    /// One record of the result: a line of text, or a line of JSON.
    pub fn record(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
        if self.json {
            self.write(format!("{}\n", json()).as_bytes());
        } else {
            self.write(format!("{}\n", text()).as_bytes());
        }
    }

    /// A path as a record: raw for programs, escaped for a terminal.
    pub fn path_text(path: &Path) -> String {
        let text = path.to_string_lossy();
        if io::stdout().is_terminal() { escape(&text).into_owned() } else { text.into_owned() }
    }

    /// Result bytes as they are (`-o -`).
    pub fn write(&self, bytes: &[u8]) {
        if self.is_closed() {
            return;
        }
        let written = self.aside(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        });
        if let Err(error) = written {
            self.stdout_closed.store(true, Ordering::Relaxed);
            // A full disk below `> file` is a failure; a reader that has seen enough is not.
            self.stdout_failed
                .fetch_or(error.kind() != io::ErrorKind::BrokenPipe, Ordering::Relaxed);
        }
    }

    /// The verb's own outcome, unless the result could not be stored.
    pub fn outcome(&self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        if outcome.is_ok() && self.stdout_failed.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::Disk, "stdout could not be written"));
        }
        outcome
    }

    /// A line for eyes. The caller has [`escape`]d foreign text in it.
    pub fn note(&self, line: &str) {
        if self.shows_progress() {
            self.aside(|| write_stderr(line));
        }
    }

    /// Something the user should know even when nothing else is shown but errors.
    pub fn warn(&self, line: &str) {
        if !self.quiet {
            self.aside(|| write_stderr(&format!("trackless: {}", escape(line))));
        }
    }

    /// The last words: JSON on stdout for scripts, two lines on stderr for people.
    pub fn fail(&self, failure: &Failure) {
        if failure.is_reported {
            return;
        }
        if self.json {
            self.write(format!("{}\n", failure.to_json()).as_bytes());
        } else {
            self.explain(None, failure);
        }
    }

    /// What became of one link of several, when nothing did.
    pub fn fail_link(&self, link: &str, failure: &Failure) {
        if self.json {
            let mut json = failure.to_json();
            json["link"] = link.into();
            self.write(format!("{json}\n").as_bytes());
        } else {
            self.explain(Some(&shorten(link)), failure);
        }
    }

    /// A failure on stderr; `subject` names which of several links it was.
    pub fn explain(&self, subject: Option<&str>, failure: &Failure) {
        let subject = subject.map(|s| format!("{}: ", escape(s))).unwrap_or_default();
        let mut text = format!("trackless: {subject}{}", escape(&failure.error));
        if !failure.advice().is_empty() {
            text.push_str(&format!("\n  {}", escape(failure.advice())));
        }
        self.aside(|| write_stderr(&text));
    }

    // Prints with the redrawn lines out of the way.
    fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// One line to stderr, whether or not anybody reads it. `eprintln!` would panic.
pub fn write_stderr(line: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(format!("{line}\n").as_bytes());
}
