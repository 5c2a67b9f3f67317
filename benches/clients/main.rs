//! trackless beside the real clients: what a user waits for, and what it costs.
//!
//! ```text
//! cargo bench --bench clients                            every table, as the README has them
//! cargo bench --bench clients -- transfer --runs 1       one of: transfer metadata bulk many swarm files
//! cargo bench --bench clients -- transfer --only aria2   beside one client
//! ```
//!
//! Tables go to stdout, progress to stderr. Everything runs in a private network of the kernel's
//! loopback device, with its files in memory, if namespaces are permitted; without them the clients
//! that will not talk to 127.0.0.0/8 are left out, as is every client that is not installed. Nothing
//! passes or fails here: compare figures of one run, and with nothing else running.
//! `benches/report clients` writes the tables into README.md.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]
#![allow(
    dead_code,
    unused_imports,
    reason = "the world of the tests has more in it than is used here"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures time, and may end"
)]

mod client;
mod files;
mod limits;
mod many;
mod payload;
mod resolving;
mod swarm;
mod tracker;
mod transfer;
#[path = "../../integration"]
mod integration {
    pub mod world;
}

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use client::Client;
use integration::world;
use world::netns;

/// What to measure, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    tables: Vec<String>,
    /// Each figure is the median of so many runs.
    pub runs: usize,
    /// The size of the big file.
    pub mib: u64,
    /// Links in the large bulk.
    pub links: usize,
    /// The real clients that are here.
    pub others: Vec<Client>,
}

fn main() {
    enter();
    let plan = Plan::from_args();
    println!("{}", machine());
    for (name, table) in TABLES {
        if plan.tables.is_empty() || plan.tables.iter().any(|wanted| wanted == name) {
            println!();
            table(&plan);
            let _ = std::io::stdout().flush();
        }
    }
}

type Table = fn(&Plan);
const TABLES: [(&str, Table); 6] = [
    ("transfer", transfer::table),
    ("metadata", resolving::metadata),
    ("bulk", resolving::bulk),
    ("many", many::table),
    ("swarm", swarm::table),
    ("files", files::table),
];

impl Plan {
    fn from_args() -> Self {
        let mut plan =
            Self { tables: Vec::new(), runs: 3, mib: 1024, links: 10_000, others: Vec::new() };
        let mut only = String::new();
        let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} wants a value"));
            match arg.as_str() {
                "--runs" => plan.runs = value().parse().unwrap(),
                "--mib" => plan.mib = value().parse().unwrap(),
                "--links" => plan.links = value().parse().unwrap(),
                "--only" => only = value(),
                table if TABLES.iter().any(|(name, _)| *name == table) => plan.tables.push(arg),
                other => panic!("{other}: no such table or option"),
            }
        }
        for client in Client::OTHERS {
            let is_wanted = only.is_empty() || only.split(',').any(|name| name == client.name());
            match client.installed() {
                Ok(()) if is_wanted => plan.others.push(client),
                Err(missing) if is_wanted => say(&format!("without {}: {missing}", client.name())),
                _ => {}
            }
        }
        plan
    }

    /// Is this client here and wanted?
    pub fn has(&self, client: Client) -> bool {
        self.others.contains(&client)
    }
}

// Starts this program again in a private network, with the memory as its disk.
fn enter() {
    if netns::is_inside() {
        return;
    }
    if let Err(reason) = netns::permitted() {
        return say(&format!("in the network of this machine: {reason}"));
    }
    let this = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(netns::wrapping()).arg(this).args(std::env::args().skip(1)).env(netns::INSIDE, "1");
    if Path::new("/dev/shm").is_dir() {
        again.env("TMPDIR", "/dev/shm");
    }
    panic!("unshare: {}", again.exec());
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or("an unknown processor".into());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    // Without what a distribution, or a host, adds.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{cores} cores of {cpu}, {} GiB of memory, Linux {kernel}.", (kib + (1 << 19)) >> 20)
}

/// A word on how far it is.
pub fn say(text: &str) {
    eprintln!("# {text}");
}

/// The middle one; of two, their mean.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// A figure for a table.
pub fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A row of a table.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// The head of a table: the first column to the left, figures to the right.
pub fn head(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
    println!("| --- |{}", " ---: |".repeat(cells.len() - 1));
}
