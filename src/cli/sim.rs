//! `trackless sim`: a scenario of the simulator, its table as it grows, and a plot of it.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::args::SimArgs;
use super::config::usage;
use super::exit::Failure;
use super::files;
use super::format::{measured, size};
use super::output::Console;
use crate::sim::scenario::network::{Named, Options, Run, Step, Table};
use crate::sim::scenario::swarms::{Outcome, Swarm};
use crate::sim::tables::{self, Document};

/// Runs the verb.
pub fn run(args: &SimArgs, console: &Console) -> Result<(), Failure> {
    if args.scenario == "list" {
        list(console);
        return Ok(());
    }
    if args.scenario == "tables" {
        return write_tables(args, console);
    }
    if args.scenario == SWARM {
        return swarms(args, console);
    }
    let Some(named) = Named::from_name(&args.scenario) else {
        return Err(usage(format!("no scenario is called `{}`", args.scenario))
            .advise("`trackless sim list` names them"));
    };
    let options = options(named, args)?;
    if let Some(path) = &args.svg {
        files::check_place(path).map_err(|e| Failure::io(path.display(), &e))?;
    }
    if !console.is_json() {
        console.write(format!("{}\n{}\n", named.head(&options), Table::HEAD).as_bytes());
    }
    let title = named.command(&options);
    let table = simulate(options, console);
    if let Some(path) = &args.svg {
        let svg = table.plot(&title).to_string();
        files::replace(path, svg.as_bytes()).map_err(|e| Failure::io(path.display(), &e))?;
    }
    Ok(())
}

fn list(console: &Console) {
    for named in Named::ALL {
        let (nodes, time) = named.usual_size();
        let (name, about, hours) = (named.name(), named.about(), time.as_secs_f64() / 3_600.0);
        console.record(
            || format!("{name:<10} {nodes:>7} nodes {hours:>5.2} h  {about}"),
            || json!({ "scenario": name, "nodes": nodes, "hours": hours, "about": about }),
        );
    }
    let about = "downloads of 10, 100 and 1000 clients from one seeder with a slow line";
    console.record(
        || format!("{SWARM:<10}                     {about}"),
        || json!({ "scenario": SWARM, "about": about }),
    );
}

// Those of full size are written as they come: who stops it keeps what there is, and `--only` makes
// the others, one a process if there are cores for it.
fn write_tables(args: &SimArgs, console: &Console) -> Result<(), Failure> {
    let is_known = |name: &String| {
        [MINIATURES, SWARM].contains(&&name[..]) || Named::from_name(name).is_some()
    };
    if let Some(name) = args.only.iter().find(|name| !is_known(name)) {
        return Err(usage(format!("no table is called `{name}`"))
            .advise(format!("`{MINIATURES}` is one, and what `trackless sim list` names")));
    }
    files::check_place(&args.dir.join(MINIATURES))
        .map_err(|e| Failure::io(args.dir.display(), &e))?;
    let is_wanted = |name: &str| args.only.iter().any(|only| only == name);
    let write = |document: Document| -> Result<(), Failure> {
        let Document { name, text, svg } = document;
        let files = [("txt", Some(text)), ("svg", svg)];
        for (ending, content) in files.into_iter().filter_map(|(e, c)| Some((e, c?))) {
            let path = args.dir.join(name).with_extension(ending);
            files::replace(&path, content.as_bytes())
                .map_err(|e| Failure::io(path.display(), &e))?;
            let path = path.display();
            console.record(|| path.to_string(), || json!({ "path": path.to_string() }));
        }
        Ok(())
    };
    if args.only.is_empty() || is_wanted(MINIATURES) {
        write(tables::miniatures())?;
    }
    if args.all || is_wanted(SWARM) {
        let cost = Cost::start();
        let mut swarms = tables::all_swarms();
        swarms.text.push_str(&format!("\nIt took {}.\n", cost.told(None)));
        write(swarms)?;
    }
    let wanted = Named::ALL.into_iter().filter(|named| args.all || is_wanted(named.name()));
    wanted.map(full_size).try_for_each(write)
}

// What it cost to make is no part of what the tests compare.
fn full_size(named: Named) -> Document {
    let (cost, options) = (Cost::start(), tables::full_size(named));
    let table = Run::new(options).finish();
    let mut document = tables::document(named, &table);
    document.text.push_str(&format!("\nIt took {}.\n", cost.told(Some(&table))));
    document
}

// What a run takes of the machine, from its start.
struct Cost(Instant);

impl Cost {
    fn start() -> Self {
        // From now on the most that is used counts anew, where the system knows such a thing.
        _ = std::fs::write("/proc/self/clear_refs", "5");
        Self(Instant::now())
    }

    fn told(&self, table: Option<&Table>) -> String {
        let took = self.0.elapsed();
        let event = table.map(|table| {
            let micros = took.as_secs_f64() * 1e6 / table.events.max(1) as f64;
            format!(", {micros:.1} us for an event")
        });
        let memory = memory_used().map(|bytes| {
            let node = table.map(|table| size(bytes / u64::from(table.options.nodes)));
            let node = node.map(|node| format!(", {node} for a node"));
            format!(", {} of memory{}", size(bytes), node.unwrap_or_default())
        });
        format!("{}{}{}", measured(took), event.unwrap_or_default(), memory.unwrap_or_default())
    }
}

// One seeder with a slow line: the swarms of the table, or one of so many.
fn swarms(args: &SimArgs, console: &Console) -> Result<(), Failure> {
    if args.hours.is_some() || args.svg.is_some() {
        return Err(usage(format!("`{SWARM}` has neither --hours nor --svg")));
    }
    let all = match args.nodes {
        None => Swarm::ALL.to_vec(),
        Some(downloaders @ 1..=DOWNLOADERS_MAX) => vec![Swarm { downloaders, ..Swarm::ALL[0] }],
        Some(_) => return Err(usage(format!("--nodes must be from 1 to {DOWNLOADERS_MAX}"))),
    };
    if !console.is_json() {
        console.write(format!("{}\n", Outcome::HEAD).as_bytes());
    }
    for swarm in all {
        let outcome = Swarm { seed: args.seed, ..swarm }.run();
        console.record(|| outcome.to_string(), || json!({ "row": outcome }));
    }
    if !console.is_json() {
        console.write(format!("\n{}\n", Outcome::KEY).as_bytes());
    }
    Ok(())
}

fn options(named: Named, args: &SimArgs) -> Result<Options, Failure> {
    let (nodes, time) = named.usual_size();
    let nodes = args.nodes.unwrap_or(nodes);
    if !(NODES_MIN..=NODES_MAX).contains(&nodes) {
        return Err(usage(format!("--nodes must be from {NODES_MIN} to {NODES_MAX}")));
    }
    let time = match args.hours {
        None => time,
        Some(hours) if hours > 0.0 && hours <= HOURS_MAX => {
            Duration::from_secs_f64(hours * 3_600.0)
        }
        Some(_) => return Err(usage(format!("--hours must be above 0 and at most {HOURS_MAX}"))),
    };
    Ok(named.options(args.seed, nodes, time))
}

// Rows are shown when they are there; what it cost is for eyes only.
fn simulate(options: Options, console: &Console) -> Table {
    let nodes = options.nodes;
    let cost = Cost::start();
    let mut told = Instant::now();
    let mut run = Run::new(options);
    loop {
        match run.step() {
            Step::Joining(present) => {
                if told.elapsed() >= TELL_EVERY {
                    told = Instant::now();
                    console.note(&format!("{present} of {nodes} nodes are there"));
                }
            }
            Step::Row(row) => {
                let figures = row.figures();
                console.record(|| figures.to_string(), || json!({ "row": figures }));
            }
            Step::Over => break,
        }
    }
    let table = run.finish();
    let (total, trace) = (table.total.figures(), format!("{:016x}", table.trace));
    console.record(
        || format!("{}\n\n{}", table.foot(), Table::KEY),
        || json!({ "total": total, "trace": trace, "events": table.events }),
    );
    console.note(&cost.told(Some(&table)));
    table
}

// The most that this process ever used, where the system tells.
fn memory_used() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

const SWARM: &str = "swarm";
const MINIATURES: &str = "miniatures";
/// A line for each pair of them that talks has to be kept in memory.
const DOWNLOADERS_MAX: u32 = 10_000;
/// Fewer are no network.
const NODES_MIN: u32 = 10;
/// More than any machine has memory for.
const NODES_MAX: u32 = 10_000_000;
/// A year and some.
const HOURS_MAX: f64 = 10_000.0;
/// The joining of many takes minutes.
const TELL_EVERY: Duration = Duration::from_secs(5);
