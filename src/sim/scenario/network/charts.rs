//! The plot of a table.

use super::figures::{Figures, Table};
use crate::sim::plot::{Line, Panel, Plot, Scale};

impl Table {
    /// Its rows as lines over the hours.
    pub fn plot(&self, title: &str) -> Plot {
        let rows: Vec<Figures> = self.rows.iter().map(|row| row.figures()).collect();
        let total = self.total.figures();
        let line = |name: &str, value: &dyn Fn(&Figures) -> f64| Line {
            name: name.to_owned(),
            points: rows.iter().map(|row| (row.hours, value(row))).collect(),
        };
        let millis = |of: fn(&Figures) -> [u64; 3]| {
            let percentile = move |at: usize| move |row: &Figures| of(row)[at] as f64;
            vec![
                line("median", &percentile(0)),
                line("90 %", &percentile(1)),
                line("99 %", &percentile(2)),
            ]
        };
        let panel = |title: &str, scale, lines| Panel { title: title.to_owned(), scale, lines };
        let subtitle = format!(
            "{} lookups, {:.2} % found an announcer, {:.2} % of all announcers found, trace {:016x}",
            total.lookups, total.found, total.recall, self.trace
        );
        Plot {
            title: title.to_owned(),
            subtitle,
            along: "hours".to_owned(),
            panels: vec![
                panel(
                    "Time to the first announcer, ms",
                    Scale::FromZero,
                    millis(|row| row.first_ms),
                ),
                panel("Time to the end of a lookup, ms", Scale::FromZero, millis(|row| row.end_ms)),
                panel(
                    "Found, %",
                    Scale::Percent,
                    vec![
                        line("lookups that found an announcer", &|row| row.found),
                        line("recall of announcers", &|row| row.recall),
                    ],
                ),
                panel(
                    "Queries of a lookup",
                    Scale::FromZero,
                    vec![
                        line("sent", &|row| row.queries),
                        line("nodes that did not answer, %", &|row| row.dead),
                    ],
                ),
                panel(
                    "Traffic of a host, bytes a second",
                    Scale::FromZero,
                    vec![line("sent", &|row| row.bytes_per_second)],
                ),
                panel(
                    "Contacts in tables, %",
                    Scale::Percent,
                    vec![
                        line("there, under that id", &|row| row.fresh),
                        line("and open to strangers", &|row| row.open),
                    ],
                ),
            ],
        }
    }
}
