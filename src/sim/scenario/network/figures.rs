//! What a run shows: counts of each stretch of time, the figures that they make, and the table.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::options::{Named, Options};
use crate::sim::report::Durations;

/// What was counted in one stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its end, counted from the beginning of the measurement.
    pub until: Duration,
    /// Hosts that were switched on at its end.
    pub alive: usize,
    /// Hosts that came.
    pub came: usize,
    /// Hosts that went.
    pub went: usize,
    /// Lookups that ended, by hosts that had been there for a while, of hashes that somebody announced.
    pub lookups: usize,
    /// Of them those that found at least one announcer.
    pub found: usize,
    /// Announcers that they could have found, in all.
    pub wanted: usize,
    /// Announcers that they did find.
    pub recalled: usize,
    /// To the first announcer.
    pub first: Durations,
    /// To the end of the lookup.
    pub end: Durations,
    /// Queries of these lookups, in all.
    pub queries: usize,
    /// Nodes that they asked, in all.
    pub asked: usize,
    /// Nodes that did not answer them, in all.
    pub dead: usize,
    /// Lookups by hosts that had just been switched on.
    pub cold: usize,
    /// Of them those that found an announcer.
    pub cold_found: usize,
    /// How long that took them.
    pub cold_first: Durations,
    /// Announces that ended.
    pub announces: usize,
    /// Nodes that took them, in all.
    pub takers: usize,
    /// Datagrams that all hosts sent.
    pub datagrams: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Time that all hosts were switched on, in all.
    pub uptime: Duration,
    /// Tables that were looked into at its end.
    pub tables: usize,
    /// Contacts in them.
    pub contacts: usize,
    /// Of them those that were switched on, with that id.
    pub live: usize,
    /// Of them those that a stranger reaches.
    pub open: usize,
}

/// The figures of a row, each with the digits that the table shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Hours since the measurement began.
    pub hours: f64,
    /// Hosts switched on.
    pub alive: usize,
    /// Hosts that came.
    pub came: usize,
    /// Hosts that went.
    pub went: usize,
    /// Lookups.
    pub lookups: usize,
    /// Percent of them that found an announcer.
    pub found: f64,
    /// Percent of the announcers that they found.
    pub recall: f64,
    /// To the first announcer: p50, p90, p99.
    pub first_ms: [u64; 3],
    /// To the end: p50, p90, p99.
    pub end_ms: [u64; 3],
    /// Queries a lookup.
    pub queries: f64,
    /// Percent of the nodes asked that did not answer.
    pub dead: f64,
    /// Lookups of newcomers.
    pub cold: usize,
    /// Percent of them that found an announcer.
    pub cold_found: f64,
    /// How long that took: p50, p90, p99.
    pub cold_first_ms: [u64; 3],
    /// Nodes that took an announce.
    pub takers: f64,
    /// Payload bytes that a host sent in a second.
    pub bytes_per_second: f64,
    /// Datagrams that a host sent in a second.
    pub packets_per_second: f64,
    /// Contacts in a table.
    pub contacts: f64,
    /// Percent of them that were there.
    pub fresh: f64,
    /// Percent of them that a stranger reaches.
    pub open: f64,
}

impl Row {
    /// Adds another stretch, which came after this one.
    pub fn add(&mut self, later: &Row) {
        self.until = later.until;
        self.alive = later.alive;
        self.came += later.came;
        self.went += later.went;
        self.lookups += later.lookups;
        self.found += later.found;
        self.wanted += later.wanted;
        self.recalled += later.recalled;
        self.first.extend(&later.first);
        self.end.extend(&later.end);
        self.queries += later.queries;
        self.asked += later.asked;
        self.dead += later.dead;
        self.cold += later.cold;
        self.cold_found += later.cold_found;
        self.cold_first.extend(&later.cold_first);
        self.announces += later.announces;
        self.takers += later.takers;
        self.datagrams += later.datagrams;
        self.bytes += later.bytes;
        self.uptime += later.uptime;
        self.tables += later.tables;
        self.contacts += later.contacts;
        self.live += later.live;
        self.open += later.open;
    }

    /// Its figures.
    pub fn figures(&self) -> Figures {
        let millis = |all: &Durations| {
            let ms = |percent| all.percentile(percent).as_millis();
            [50, 90, 99].map(|percent| u64::try_from(ms(percent)).unwrap_or(u64::MAX))
        };
        let uptime = self.uptime.as_secs_f64();
        Figures {
            hours: rounded(self.until.as_secs_f64() / 3_600.0, 100.0),
            alive: self.alive,
            came: self.came,
            went: self.went,
            lookups: self.lookups,
            found: percent(self.found, self.lookups),
            recall: percent(self.recalled, self.wanted),
            first_ms: millis(&self.first),
            end_ms: millis(&self.end),
            queries: mean(self.queries, self.lookups),
            dead: percent(self.dead, self.asked),
            cold: self.cold,
            cold_found: percent(self.cold_found, self.cold),
            cold_first_ms: millis(&self.cold_first),
            takers: mean(self.takers, self.announces),
            bytes_per_second: rounded(self.bytes as f64 / uptime.max(1.0), 10.0),
            packets_per_second: rounded(self.datagrams as f64 / uptime.max(1.0), 100.0),
            contacts: mean(self.contacts, self.tables),
            fresh: percent(self.live, self.contacts),
            open: percent(self.open, self.contacts),
        }
    }
}

fn percent(part: usize, of: usize) -> f64 {
    // Rounded down: a hundred percent is all of them.
    let permyriad = (part * 10_000).checked_div(of).unwrap_or(0);
    permyriad as f64 / 100.0
}

fn mean(sum: usize, count: usize) -> f64 {
    rounded(sum as f64 / count.max(1) as f64, 10.0)
}

fn rounded(x: f64, parts: f64) -> f64 {
    (x * parts).round() / parts
}

/// All rows of a run.
#[derive(Debug, Clone)]
pub struct Table {
    /// What was run.
    pub options: Options,
    /// The stretches of the measurement, in order.
    pub rows: Vec<Row>,
    /// All of them together.
    pub total: Row,
    /// The events of the whole run as a number.
    pub trace: u64,
    /// How many they were.
    pub events: u64,
}

impl Table {
    /// The lines above the rows.
    pub const HEAD: &'static str = concat!(
        " hours   alive   came   went | lookups  found% recall% | first ms   p90   p99 |",
        "  end ms   p90   p99 | queries dead% |  cold found%    ms   p90 |   B/s  pkt/s |",
        " contacts fresh%  open%"
    );

    /// The lines below the rows: all of them together, and the trace.
    pub fn foot(&self) -> String {
        format!("{}\ntrace {:016x}, {} events", self.total.figures(), self.trace, self.events)
    }

    /// The whole text: what was run, the rows, what the columns mean.
    pub fn document(&self, named: Named) -> String {
        format!("{}\n{self}\n\n{}\n", named.head(&self.options), Self::KEY)
    }

    /// What the columns mean.
    pub const KEY: &'static str = "\
hours    since the measurement began; the last row is all of it
lookups  ended, by hosts that had been there for a minute, of hashes with a live announcer
found    of them, the share that was told of at least one live announcer
recall   of all pairs of a lookup and a host that had announced its hash before it began and was
         still there when it ended, the share in which the lookup named the host
first    time to the first live announcer: half, 90 % and 99 % of the lookups took no longer
end      time to the end of the lookup, in the same way
queries  sent by a lookup, second tries included; dead: nodes asked that did not answer
cold     lookups by hosts that were switched on a moment before and knew nobody
B/s      payload sent by one host in a second, with everything that it does; pkt/s: its datagrams
fresh    contacts in routing tables that were there under that id; open: that let strangers in";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { first_ms: [f50, f90, f99], end_ms: [e50, e90, e99], .. } = *self;
        write!(f, "{:>6.2} {:>7} {:>6} {:>6} |", self.hours, self.alive, self.came, self.went)?;
        write!(f, " {:>7} {:>7.2} {:>7.2} |", self.lookups, self.found, self.recall)?;
        write!(f, " {f50:>8} {f90:>5} {f99:>5} | {e50:>7} {e90:>5} {e99:>5} |")?;
        write!(f, " {:>7.1} {:>5.1} |", self.queries, self.dead)?;
        let [c50, c90, _] = self.cold_first_ms;
        write!(f, " {:>5} {:>6.2} {c50:>5} {c90:>5} |", self.cold, self.cold_found)?;
        write!(f, " {:>5.0} {:>6.2} |", self.bytes_per_second, self.packets_per_second)?;
        write!(f, " {:>8.1} {:>6.2} {:>6.2}", self.contacts, self.fresh, self.open)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Self::HEAD)?;
        for row in &self.rows {
            writeln!(f, "{}", row.figures())?;
        }
        write!(f, "{}", self.foot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_of_two_rows_is_as_if_they_were_one() {
        let row = |found, ms| {
            let mut row =
                Row { lookups: 10, found, wanted: 20, recalled: 2 * found, ..Row::default() };
            row.first.push(Duration::from_millis(ms));
            (row.bytes, row.uptime) = (3_600, Duration::from_secs(36));
            row
        };
        let mut total = row(10, 100);
        total.add(&row(9, 50));
        let figures = total.figures();
        assert_eq!((figures.found, figures.recall), (95.0, 95.0));
        assert_eq!((figures.first_ms, figures.bytes_per_second), ([50, 100, 100], 100.0));
    }

    #[test]
    fn hundred_percent_is_all_of_them() {
        assert_eq!((percent(99_999, 100_000), percent(7, 7), percent(0, 0)), (99.99, 100.0, 0.0));
    }

    #[test]
    fn rows_stand_below_their_heads() {
        let row = Row::default().figures().to_string();
        let bars = |line: &str| line.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(bars(&row), bars(Table::HEAD), "\n{}\n{row}", Table::HEAD);
        assert_eq!(row.len(), Table::HEAD.len());
    }
}
