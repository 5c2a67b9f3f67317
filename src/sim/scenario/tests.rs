use std::time::Duration;

use super::downloads;
use super::lookups::{self, Options, Round};
use crate::sim::churn::ChurnRates;
use crate::sim::disk::{DiskFaults, Loss};

// The options come first, with their seed: a panic in the middle of a run is replayed by them.
fn run_lookups(options: Options) -> lookups::Report {
    println!("{options:?}");
    lookups::run(options)
}

fn run_downloads(options: downloads::Options) -> downloads::Report {
    println!("{options:?}");
    downloads::run(options)
}

// Every lookup ends and finds what was announced.
fn assert_all_found(report: &lookups::Report) {
    println!("{report}");
    for outcome in &report.rounds {
        assert_eq!(outcome.unannounced, 0, "all were announced: {report}");
        assert_eq!(outcome.ended, outcome.lookups, "every lookup ends: {report}");
        assert_eq!(outcome.found, outcome.lookups, "every lookup finds it: {report}");
    }
}

// A thousand nodes start from one address. First nothing is wrong, then three in ten contacts are
// dead and one datagram in ten is lost.
#[test]
fn thousand_nodes_find_what_was_announced_in_calm_and_in_storm() {
    let mut options = Options::new(1, 1_000);
    options.rounds = vec![Round::CALM, Round { loss: 0.10, dead_before: 0.30, ..Round::CALM }];
    let report = run_lookups(options);
    println!("{report}");
    // Who joined while there were few does not take the many of now for attackers. Where half of those
    // around a hash are silent, those that answer look like a cluster now and then.
    for (outcome, (found_min, alarms_max)) in report.rounds.iter().zip([(500, 0), (498, 10)]) {
        assert_eq!((outcome.unannounced, outcome.ended), (0, outcome.lookups), "{report}");
        // Where one round trip in five fails, one lookup in a thousand may miss all who know.
        assert!(outcome.found >= found_min, "{report}");
        assert!(outcome.alarms <= alarms_max, "{report}");
    }
    assert_eq!(report.lonely, 0, "everybody knows others: {report}");
    assert_eq!(report.rounds[0].lookups, 500);
    assert_eq!(report.rounds[1].alive, 700);
    // No node that did not answer was asked more than twice.
    let storm = &report.rounds[1];
    assert!(storm.asked + storm.dead <= 45 * storm.lookups, "few queries: {report}");
}

#[test]
fn nodes_that_come_and_go_do_not_break_the_network() {
    let mut options = Options::new(3, 200);
    let session = Duration::from_secs(300);
    options.churn = Some(ChurnRates { session, absence: Duration::from_secs(100) });
    options.settle_time = Duration::from_secs(600);
    options.rounds = vec![Round { loss: 0.05, hashes: 20, ..Round::CALM }];
    assert_all_found(&run_lookups(options));
}

#[test]
fn random_small_networks_find_what_was_announced() {
    for seed in 0..5 {
        assert_all_found(&run_lookups(Options::random(seed)));
    }
}

// Almost half of thirty nodes die around the announces. A lookup once ended with six answers, and
// living nodes unasked.
#[test]
fn lookup_that_meets_mostly_dead_nodes_asks_the_rest_of_its_table() {
    assert_all_found(&run_lookups(Options::random(141)));
}

#[test]
fn same_seed_makes_the_same_history_and_another_seed_another() {
    let options = Options::random(7);
    let first = run_lookups(options.clone());
    let second = run_lookups(options.clone());
    assert_eq!((first.trace, first.events), (second.trace, second.events), "seed 7 replays");
    assert_ne!(first.trace, run_lookups(Options { seed: 8, ..options }).trace);
}

// Every downloader finishes, and with the right bytes.
fn assert_all_verified(report: &downloads::Report) {
    println!("{report}");
    let all = report.options.downloaders as usize;
    assert_eq!(report.finished, all, "all finish: {report}\n{}", report.tail);
    assert_eq!(report.verified, all, "all have the right bytes: {report}");
    assert_eq!(report.honest_banned, 0, "nobody honest is banned: {report}");
}

#[test]
fn fifty_downloaders_get_everything_from_one_seeder_and_a_magnet_link() {
    let report = run_downloads(downloads::Options::new(1, 50));
    assert_all_verified(&report);
    assert_eq!((report.hash_failures, report.metadata.len()), (0, 50));
}

#[test]
fn liars_are_banned_and_everybody_else_completes() {
    let mut options = downloads::Options::new(2, 5);
    (options.liars, options.lie_rate) = (3, 0.3);
    let report = run_downloads(options);
    assert_all_verified(&report);
    assert!(report.hash_failures > 0 && report.liars_banned > 0, "they lied: {report}");
}

// Ten honest clients, ten liars who spoil every tenth block they send.
#[test]
fn half_of_a_swarm_that_spoils_blocks_is_banned_and_nobody_else() {
    let mut options = downloads::Options::new(40, 9);
    (options.liars, options.lie_rate) = (10, 0.1);
    options.size = 8 << 20;
    let report = run_downloads(options);
    assert_all_verified(&report);
    assert!(report.hash_failures > 0, "{report}");
    assert_eq!(report.liars_convicted, 10, "all of them, and nobody else: {report}");
}

// Whoever was killed finds all that it had, whoever lost its power what it had recorded; nobody
// fetches that again, and no piece that came to harm is taken for good.
#[test]
fn killed_and_powerless_downloaders_go_on_where_their_disks_stand() {
    for (seed, crash) in [(50, Loss::Kill), (51, Loss::PowerCut), (52, Loss::PowerCut)] {
        let mut options = downloads::Options::new(seed, 4);
        (options.crashes, options.crash) = (12, Some(crash));
        options.size = 12 << 20;
        options.seeder_line.up = Some(600_000);
        let report = run_downloads(options);
        assert_all_verified(&report);
        assert_eq!((report.refetched, report.hash_failures), (0, 0), "{report}");
    }
}

// Every kind of trouble that a disk makes: the download ends with a word, and the next one on a
// disk that works has the right bytes.
#[test]
fn downloads_whose_disks_fail_are_completed_on_disks_that_work() {
    let cases = [
        ("full", DiskFaults { writes_max: Some(70), ..DiskFaults::default() }),
        ("EIO", DiskFaults { write_fails: 0.02, ..DiskFaults::default() }),
        ("truncated", DiskFaults { truncated_after: Some(90), ..DiskFaults::default() }),
        ("reads fail", DiskFaults { read_fails: 0.2, ..DiskFaults::default() }),
    ];
    for (seed, (what, faults)) in (60..).zip(cases) {
        let mut options = downloads::Options::new(seed, 5);
        (options.faulty, options.faults) = (3, faults);
        let report = run_downloads(options);
        assert_all_verified(&report);
        let failed = if what == "reads fail" { 0 } else { 3 };
        assert_eq!(report.disk_failures, failed, "{what}: {report}");
        // What somebody cut off has to come again; nothing else has.
        assert_eq!(report.refetched > 0, what == "truncated", "{what}: {report}");
    }
}

// Peers that unchoke and then send nothing cost a few seconds, not the download.
#[test]
fn peers_that_promise_everything_and_send_nothing_cost_at_most_five_seconds() {
    let mut options = downloads::Options::new(5, 3);
    // They promise it all at once.
    options.super_seeding = false;
    let without = run_downloads(options);
    options.mutes = 3;
    let with = run_downloads(options);
    assert_all_verified(&with);
    let lost = with.took.max().saturating_sub(without.took.max());
    assert!(lost <= Duration::from_secs(5), "{with}\nwithout: {without}");
}

#[test]
fn random_swarms_complete() {
    for seed in 0..8 {
        assert_all_verified(&run_downloads(downloads::Options::random(seed)));
    }
}

#[test]
fn same_seed_makes_the_same_download() {
    let options = downloads::Options::random(3);
    let (first, second) = (run_downloads(options), run_downloads(options));
    assert_eq!((first.trace, first.events), (second.trace, second.events), "seed 3 replays");
    let other = run_downloads(downloads::Options { seed: 4, ..options });
    assert_ne!(first.trace, other.trace);
}

// A soak: `TRACKLESS_SIM_SEEDS=1000..1100 cargo test --release --lib soak -- --ignored`.
#[test]
#[ignore = "runs for minutes"]
fn soak_of_random_scenarios() {
    let range = std::env::var("TRACKLESS_SIM_SEEDS").unwrap_or_else(|_| "100..150".to_owned());
    let (from, to) = range.split_once("..").expect("FROM..TO");
    for seed in from.parse().expect("a number")..to.parse().expect("a number") {
        assert_all_found(&run_lookups(Options::random(seed)));
        assert_all_verified(&run_downloads(downloads::Options::random(seed)));
    }
}

fn capped_seeder(downloaders: u32, size: u32) -> downloads::Options {
    let mut options = downloads::Options::new(1, downloaders);
    options.seeder_line = crate::sim::link::Line { up: Some(1_250_000), down: Some(12_500_000) };
    options.size = size;
    options.piece_len = 64 * 1024;
    options.start_time = Duration::from_millis(500);
    options
}

// The promise of a swarm: the seeder's line carries the content once.
#[test]
fn capped_seeder_sends_little_more_than_one_copy() {
    let report = downloads::run(capped_seeder(10, 12_500_000));
    assert_all_verified(&report);
    let size = u64::from(report.options.size);
    assert!(report.seeder_sent <= size * 115 / 100, "{report}");
    // 12.5 MB with their headers take 10.3 s; whoever finds the swarm last ends a second later.
    assert!(report.took.percentile(50) < Duration::from_millis(12_000), "{report}");
    assert!(report.took.max() < Duration::from_millis(13_000), "{report}");
}

#[test]
#[ignore = "a measurement: prints a table, takes minutes"]
fn table_of_capped_seeders() {
    for n in [2, 4, 10, 50] {
        for super_seeding in [false, true] {
            let options = downloads::Options { super_seeding, ..capped_seeder(n, 50_000_000) };
            let report = downloads::run(options);
            let copies = report.seeder_sent as f64 / 5e7;
            println!("{n} downloaders, super-seeding {super_seeding}: {} {copies:.2}", report.took);
        }
    }
}
