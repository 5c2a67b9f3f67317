//! A real node that keeps thousands of torrents announced in an implicit network: what it costs, and how
//! much of it stands at any moment.
//!
//! A node of the network keeps an announce for half an hour, as the most impatient in use do. Nodes neither
//! come nor go: what is lost of an announce here is lost because it was late or went to the wrong ones.

use std::fmt;
use std::time::Duration;

use super::measure::Bench;
use super::{K, Network, Options};
use crate::base::addr::Family;
use crate::base::{InfoHash, Instant, Rng};
use crate::dht::{self, Announcement, Announcing, Event, Priority};
use crate::sim::report::Durations;

/// What is announced, and for how long it is watched.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From which the hashes and the node's chance follow.
    pub seed: u64,
    /// How many torrents are announced, all ordered in the same moment.
    pub torrents: u32,
    /// New flows a second that the node may open.
    pub rate: u32,
    /// How long it is let alone: until all were announced once.
    pub settle: Duration,
    /// How long it is looked at each minute.
    pub watch: Duration,
}

impl Plan {
    /// Ten thousand torrents, 50 flows a second, two hours.
    pub fn usual() -> Self {
        let [settle, watch] = [4_800, 7_200].map(Duration::from_secs);
        Self { seed: 1, torrents: 10_000, rate: 50, settle, watch }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// When all had been announced once.
    pub first_round: Option<Duration>,
    /// Of the eight closest live nodes of each torrent, the share that held its announce, at the worst
    /// minute and as a mean.
    pub held: (f64, f64),
    /// The share of torrents that all eight held, in the same way.
    pub whole: (f64, f64),
    /// The share of torrents that at least four held, in the same way.
    pub half: (f64, f64),
    /// New flows a second: the most in one minute, and as a mean.
    pub flows: (f64, f64),
    /// What the node itself says in the end.
    pub node: Announcing,
    /// Minutes at which it said that it is behind.
    pub behind: usize,
    /// Nodes that it remembered in the end because they answered.
    pub remembered: usize,
    /// How long lookups took that somebody waited for, one each minute.
    pub lookups: Durations,
}

/// Runs the plan.
pub fn measure(options: &Options, plan: &Plan) -> Report {
    let mut rng = Rng::from_seed(crate::sim::scenario::seed(plan.seed));
    let mut network = Network::new(options.clone());
    let hashes: Vec<InfoHash> = (0..plan.torrents).map(|_| InfoHash::new(rng.array())).collect();
    hashes.iter().for_each(|hash| network.start_watching(hash.key()));
    let config = dht::Config { flows_per_second: Some(plan.rate), ..dht::Config::new(Family::V4) };
    let mut bench = Bench::with_config(network, config, &mut rng);
    bench.run_until(Instant::ZERO + WARM_UP, |_| false);
    let how = Announcement { port: None, seed: true, priority: Priority::Bulk, keep: true };
    for hash in &hashes {
        bench.command(|node, now, _| node.announce_as(now, *hash, how));
    }
    let mut report = Report::default();
    let ordered = Instant::ZERO + WARM_UP;
    for minute in (1..).map(|n| ordered + n * MINUTE).take_while(|at| *at <= ordered + plan.settle)
    {
        bench.run_until(minute, |_| false);
        bench.forget_events();
        if report.first_round.is_none() && bench.node().bulk_lookups() == (0, 0) {
            report.first_round = Some(minute.since(ordered));
        }
    }
    watch(&mut bench, &hashes, plan, &mut rng, &mut report);
    report
}

fn watch(bench: &mut Bench, hashes: &[InfoHash], plan: &Plan, rng: &mut Rng, report: &mut Report) {
    let closest: Vec<_> =
        hashes.iter().map(|hash| bench.network().closest_alive(hash.key(), K)).collect();
    let start = Instant::ZERO + WARM_UP + plan.settle;
    let mut flows = bench.node().stats().flows.granted;
    let mut minutes: Vec<[f64; 4]> = Vec::new();
    for now in (1..).map(|n| start + n * MINUTE).take_while(|at| *at <= start + plan.watch) {
        let lookup = InfoHash::new(rng.array());
        let lookup = bench.command(|node, now, _| node.get_peers(now, lookup));
        bench.run_until(now, |event| is_end(event, lookup));
        let took = bench.reported(lookup).unwrap_or(MINUTE);
        report.lookups.push(took);
        bench.run_until(now, |_| false);
        bench.forget_events();
        let mut sums = [0usize; 3];
        for (hash, closest) in hashes.iter().zip(&closest) {
            let holders = bench.network().holders(hash.key(), now, STORED_FOR);
            let held = closest.iter().filter(|ip| holders(ip)).count();
            sums[0] += held;
            sums[1] += usize::from(held == K);
            sums[2] += usize::from(held >= K / 2);
        }
        let count = hashes.len() as f64;
        let opened = bench.node().stats().flows.granted;
        let per_second = (opened - flows) as f64 / MINUTE.as_secs_f64();
        flows = opened;
        let share = |sum: usize| sum as f64 / count;
        minutes.push([share(sums[0]) / K as f64, share(sums[1]), share(sums[2]), per_second]);
        report.node = bench.node().announcing(now);
        report.behind += usize::from(report.node.is_behind);
    }
    let mean = |at: usize| minutes.iter().map(|m| m[at]).sum::<f64>() / minutes.len() as f64;
    let least = |at: usize| minutes.iter().map(|m| m[at]).fold(f64::MAX, f64::min);
    let most = |at: usize| minutes.iter().map(|m| m[at]).fold(0.0, f64::max);
    report.held = (least(0), mean(0));
    report.whole = (least(1), mean(1));
    report.half = (least(2), mean(2));
    report.flows = (most(3), mean(3));
    report.remembered = bench.node().closest_remembered();
}

fn is_end(event: &Event, lookup: dht::LookupId) -> bool {
    matches!(event, Event::LookupDone { lookup: done, .. } if *done == lookup)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |time: Duration| time.as_secs_f64() / 60.0;
        let first =
            self.first_round.map_or("never".to_owned(), |t| format!("{:.0} min", minutes(t)));
        let node = &self.node;
        writeln!(f, "{} torrents, all announced once after {first}", node.torrents)?;
        for (what, (worst, mean)) in [
            ("of the eight closest hold it", self.held),
            ("of the torrents are held by all eight", self.whole),
            ("of the torrents are held by four or more", self.half),
        ] {
            writeln!(f, "{:.2} % {what} (worst minute {:.2} %)", mean * 100.0, worst * 100.0)?;
        }
        let (most, mean) = self.flows;
        writeln!(f, "{mean:.1} new flows a second (most in a minute {most:.1})")?;
        writeln!(
            f,
            "each renewal: {:.1} queries, {:.1} flows; interval {:.1} min, oldest {:.1} min; {} behind",
            node.queries_each,
            node.flows_each,
            minutes(node.interval),
            minutes(node.oldest.unwrap_or_default()),
            self.behind,
        )?;
        write!(
            f,
            "{} renewals, {} failed; {} nodes remembered; lookups beside it: {}",
            node.renewals, node.failures, self.remembered, self.lookups
        )
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(60);
const STORED_FOR: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    // A fiftieth of everything.
    #[test]
    fn hundreds_of_torrents_stay_announced_within_a_small_budget() {
        let options = Options { nodes: 2_000, public: true, ..Options::usual() };
        let [settle, watch] = [1_800, 1_500].map(Duration::from_secs);
        let plan = Plan { torrents: 200, rate: 2, settle, watch, ..Plan::usual() };
        let report = measure(&options, &plan);
        println!("{report}");
        assert!(report.first_round.is_some(), "{report}");
        assert!(report.held.0 > 0.9 && report.half.0 > 0.99, "{report}");
        assert!(report.flows.0 <= 4.0 && report.behind == 0, "{report}");
        assert_eq!((report.node.torrents, report.node.held), (200, 200));
    }

    #[test]
    fn node_says_so_if_its_budget_is_too_small() {
        let options = Options { nodes: 2_000, public: true, ..Options::usual() };
        let [settle, watch] = [600, 600].map(Duration::from_secs);
        let plan = Plan { torrents: 500, rate: 1, settle, watch, ..Plan::usual() };
        let report = measure(&options, &plan);
        println!("{report}");
        assert!(report.node.is_behind, "{report}");
        assert!(report.behind >= 9 && report.flows.1 <= 1.5, "{report}");
    }

    #[test]
    #[ignore = "ten thousand torrents in a network of a hundred thousand nodes: takes minutes"]
    fn ten_thousand_torrents() {
        for valid_ids in [0.6, 0.0] {
            let options = Options { public: true, valid_ids, ..Options::usual() };
            println!(
                "{valid_ids} of the nodes keep BEP 42\n{}\n",
                measure(&options, &Plan::usual())
            );
        }
    }
}
