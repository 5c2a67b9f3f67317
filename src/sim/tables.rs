//! Committed results: what scenarios came to, so that a change of behaviour shows in the diff.
//!
//! `miniatures` are the scenarios that have names, in worlds so small that the tests run them all and
//! compare every figure. The others take hours and stand beside them; the same command writes them, and
//! each names the one that makes it alone. A table is changed on purpose only: with what changes it.

use std::time::Duration;

use super::scenario::network::{Named, Options, Run, Sessions, Sybils, Table};
use super::scenario::swarms::{Outcome, Swarm};

/// A file of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name without an ending.
    pub name: &'static str,
    /// The table.
    pub text: String,
    /// A plot of it, if there is something to plot.
    pub svg: Option<String>,
}

/// The miniatures as they should be.
pub const MINIATURES: &str = include_str!("tables/miniatures.txt");
/// Writes `MINIATURES`.
pub const COMMAND: &str = "cargo run -- sim tables";

/// All scenarios in small worlds: some seconds.
pub fn miniatures() -> Document {
    let mut text = format!(
        "Every scenario in a small world; the tests compare it. After a change of behaviour:\n\
         \n    {COMMAND}\n"
    );
    for named in MINIATURE_SCENARIOS {
        let table = Run::new(miniature(named)).finish();
        text.push_str(&format!("\n{}: {}\n\n", named.name(), named.about()));
        text.push_str(&format!("{}\n", Table::HEAD));
        let rows = table.rows.iter().chain([&table.total]);
        rows.for_each(|row| text.push_str(&format!("{}\n", row.figures())));
    }
    text.push_str(&format!("\n{}\n", Table::KEY));
    text.push_str(&swarms(&[MINIATURE_SWARM]));
    Document { name: "miniatures", text, svg: None }
}

/// One of the scenarios at its own size, which takes from minutes to hours.
pub fn full_size(named: Named) -> Options {
    let (nodes, time) = named.usual_size();
    named.options(SEED, nodes, time)
}

/// A table as a file.
pub fn document(named: Named, table: &Table) -> Document {
    let title = named.command(&table.options);
    let svg = Some(table.plot(&title).to_string());
    Document { name: named.name(), text: table.document(named), svg }
}

/// Swarms of all sizes with one slow seeder: minutes.
pub fn all_swarms() -> Document {
    Document { name: "swarm", text: swarms(&Swarm::ALL), svg: None }
}

fn swarms(all: &[Swarm]) -> String {
    let rows: String = all.iter().map(|swarm| format!("{}\n", swarm.run())).collect();
    format!("\nswarm: one seeder with a slow line\n\n{}\n{rows}\n{}\n", Outcome::HEAD, Outcome::KEY)
}

/// A scenario in a world so small, and with so short lives, that it takes a second.
fn miniature(named: Named) -> Options {
    let mut options = named.options(SEED, 30, Duration::from_secs(240));
    options.join_time = Duration::from_secs(30);
    options.settle_time = Duration::from_secs(60);
    options.row = Duration::from_secs(120);
    options.lookups_per_hour = 1_200;
    options.hashes = 6;
    options.implicit = options.implicit.min(20_000);
    // As many as there are honest ones would be another scenario.
    options.sybils = options.sybils.map(|sybils| Sybils { count: 4, ..sybils });
    options.sessions = options.sessions.map(|_| Sessions {
        short: Duration::from_secs(120),
        long: Duration::from_secs(1_200),
        short_share: 0.5,
    });
    options
}

/// `big` differs from `churn-24h` in its size alone.
const MINIATURE_SCENARIOS: [Named; 7] = [
    Named::Calm,
    Named::Churn24h,
    Named::Storm,
    Named::Nat,
    Named::Sybils,
    Named::Lazy,
    Named::Million,
];
const MINIATURE_SWARM: Swarm =
    Swarm { seed: SEED, downloaders: 10, size: 2_500_000, rate: 156_250 };
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    // A change of behaviour belongs into the commit that makes it.
    #[test]
    fn miniatures_are_as_committed() {
        let Document { text, .. } = miniatures();
        let changed: Vec<(&str, &str)> = MINIATURES
            .lines()
            .zip(text.lines())
            .filter(|(committed, new)| committed != new)
            .take(3)
            .collect();
        assert!(
            text == MINIATURES,
            "scenarios come out otherwise than src/sim/tables/miniatures.txt says; if that is meant, \
             this writes it anew: {COMMAND}\n(committed, new): {changed:#?}\n\n{text}"
        );
    }
}
