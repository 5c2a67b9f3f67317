//! `xdg-mime`, the desktop's own program for what opens what: it knows where each desktop keeps its
//! choice. It is not everywhere; `handler` can do without.

use std::io;
use std::process::{Command, Stdio};

use super::desktop::{DESKTOP_ID, MAGNET};

/// `xdg-mime` as found in PATH, with what it said about magnet links.
#[derive(Debug)]
pub struct XdgMime {
    /// The desktop entry that opens magnet links, if it names one. It names none that is not
    /// installed.
    pub default: Option<String>,
}

impl XdgMime {
    /// Asks it; `None` if there is no such program, or if it does not work here.
    pub fn find() -> Option<Self> {
        let answer = run(&["query", "default", MAGNET]).ok()?;
        let default = answer.lines().map(str::trim).find(|line| !line.is_empty());
        Some(Self { default: default.map(str::to_owned) })
    }

    /// Does it name us?
    pub fn is_ours(&self) -> bool {
        self.default.as_deref() == Some(DESKTOP_ID)
    }
}

/// Gives magnet links to a desktop entry.
pub fn set_default(entry: &str) -> io::Result<()> {
    run(&arguments(entry)).map(drop)
}

/// The same as a person would type it.
pub fn command_line(entry: &str) -> String {
    format!("{PROGRAM} {}", arguments(entry).join(" "))
}

fn arguments(entry: &str) -> [&str; 3] {
    ["default", entry, MAGNET]
}

fn run(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default().trim();
        return Err(io::Error::other(format!("{} ({said})", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const PROGRAM: &str = "xdg-mime";
