//! What one seeder with a slow line costs a swarm: the seeder's line could carry the content once in
//! size / rate, and no swarm is done sooner. How close one comes, and how many copies the seeder sends,
//! as a table over the number of downloaders.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::downloads::{Options, run};
use crate::sim::link::Line;

/// A swarm with one seeder.
#[derive(Debug, Clone, Copy)]
pub struct Swarm {
    /// From which all chance follows.
    pub seed: u64,
    /// Clients that download; all start within half a second.
    pub downloaders: u32,
    /// Bytes of the content.
    pub size: u32,
    /// Bytes a second of the seeder's line.
    pub rate: u32,
}

/// What came of it, with the digits that the table shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Clients that downloaded.
    pub downloaders: u32,
    /// Of them those that ended with the right bytes.
    pub verified: usize,
    /// Bytes of the content.
    pub size: u32,
    /// Bytes a second of the seeder's line.
    pub rate: u32,
    /// The size divided by that, in seconds.
    pub optimum: f64,
    /// How long half of the downloads took, in seconds.
    pub median: f64,
    /// How long the slowest took.
    pub slowest: f64,
    /// The slowest, in optima.
    pub ratio: f64,
    /// Copies of the content that the seeder sent.
    pub copies: f64,
    /// How long half of the downloads waited for the info dictionary.
    pub metadata: f64,
    /// Events of the run.
    pub events: u64,
    /// The same as a number.
    pub trace: u64,
}

impl Swarm {
    /// The sizes of the table. The seeder's line is slow, so that it is the line that counts and not how
    /// long it takes to begin.
    pub const ALL: [Swarm; 3] = [
        Swarm { seed: 1, downloaders: 10, size: 12_500_000, rate: 156_250 },
        Swarm { seed: 1, downloaders: 100, size: 12_500_000, rate: 156_250 },
        Swarm { seed: 1, downloaders: 1_000, size: 12_500_000, rate: 156_250 },
    ];

    /// Its options.
    pub fn options(&self) -> Options {
        let mut options = Options::new(self.seed, self.downloaders);
        options.seeder_line = Line { up: Some(self.rate.into()), down: options.line.down };
        options.size = self.size;
        options.start_time = Duration::from_millis(500);
        options
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        let report = run(self.options());
        let optimum = f64::from(self.size) / f64::from(self.rate);
        let slowest = report.took.max().as_secs_f64();
        Outcome {
            downloaders: self.downloaders,
            verified: report.verified,
            size: self.size,
            rate: self.rate,
            optimum: rounded(optimum),
            median: rounded(report.took.percentile(50).as_secs_f64()),
            slowest: rounded(slowest),
            ratio: rounded(slowest / optimum),
            copies: rounded(report.seeder_sent as f64 / f64::from(self.size)),
            metadata: rounded(report.metadata.percentile(50).as_secs_f64()),
            events: report.events,
            trace: report.trace,
        }
    }
}

impl Outcome {
    /// The line above the rows.
    pub const HEAD: &'static str = "downloaders verified     bytes    rate | optimum  half of them  slowest  ratio | copies  metadata";

    /// What the columns mean.
    pub const KEY: &'static str = "\
rate     bytes a second of the seeder's line; the downloaders' lines have 2.5 MB/s up, 12.5 MB/s down
optimum  bytes / rate, in seconds
half     of the downloads took no longer, from a magnet link and one address of the DHT to the last byte
slowest  of all downloads; ratio: the same in optima. Headers of packets alone cost three hundredths
copies   of the content that the seeder sent
metadata when half of them had the info dictionary";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { downloaders, verified, size, rate, optimum, median, .. } = self;
        write!(f, "{downloaders:>11} {verified:>8} {size:>9} {rate:>7} |")?;
        let Self { slowest, ratio, copies, metadata, .. } = self;
        write!(f, " {optimum:>7.2} {median:>13.2} {slowest:>8.2} {ratio:>6.2} |")?;
        write!(f, " {copies:>6.2} {metadata:>9.2}")
    }
}

fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_their_head() {
        let outcome = Outcome {
            downloaders: 1_000,
            verified: 1_000,
            size: 100_000_000,
            rate: 1_250_000,
            optimum: 80.0,
            median: 81.0,
            slowest: 88.0,
            ratio: 1.1,
            copies: 1.15,
            metadata: 0.5,
            events: 1,
            trace: 1,
        };
        let bars = |line: &str| line.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
        let row = outcome.to_string();
        assert_eq!(bars(&row), bars(Outcome::HEAD), "\n{}\n{row}", Outcome::HEAD);
        assert_eq!(row.len(), Outcome::HEAD.len());
    }
}
