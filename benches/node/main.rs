//! What a DHT node costs: codec, table, lookup step, answer path, stores.
//!
//! ```text
//! cargo bench --bench node                 the table for README.md: time, instructions, allocations
//! cargo bench --bench node -- NAME...      only the cases whose name contains one of these
//! ```
//!
//! Times are medians of short rounds and depend on the machine and on what else it does. Instructions
//! and allocations do not: they are counted by valgrind, if it is there, as the difference between a
//! run of some rounds and one of twice as many. `benches/report` writes the table into README.md.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures time, and may end"
)]

mod cases;
mod counts;

use std::time::{Duration, Instant};

use cases::Case;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, name, rounds] = &args[..]
        && flag == "--run"
    {
        // Called by `counts`, under valgrind.
        let mut case = cases::all().into_iter().find(|case| case.name == name).unwrap();
        return (case.prepare)()(rounds.parse().unwrap());
    }
    println!("| what | time | instructions | allocations |");
    println!("| --- | ---: | ---: | ---: |");
    let wanted = |case: &Case| args.is_empty() || args.iter().any(|a| case.name.contains(&a[..]));
    for mut case in cases::all().into_iter().filter(wanted) {
        let time = measure(&mut case);
        let figure = |n: Option<f64>| n.map_or("–".into(), |n| format!("{n:.0}"));
        let [instructions, allocations] = counts::of(case.name, case.rounds);
        println!(
            "| {} | {time:.0} ns | {} | {} |",
            case.name,
            figure(instructions),
            figure(allocations)
        );
    }
    for line in cases::memory() {
        println!("\n{line}");
    }
}

// The median, over many short rounds, of nanoseconds for one step.
fn measure(case: &mut Case) -> f64 {
    let mut run = (case.prepare)();
    run(case.rounds);
    let end = Instant::now() + MEASURE_FOR;
    let mut samples = Vec::new();
    while samples.len() < 11 || Instant::now() < end {
        let start = Instant::now();
        run(case.rounds);
        samples.push(start.elapsed().as_nanos() as f64 / f64::from(case.rounds));
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

const MEASURE_FOR: Duration = Duration::from_millis(500);
