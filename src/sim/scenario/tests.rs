use std::time::Duration;

use super::lookups::{self, Options, Round};
use crate::sim::churn::ChurnRates;

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
    let report = lookups::run(options);
    assert_all_found(&report);
    assert_eq!(report.lonely, 0, "everybody knows others: {report}");
    assert_eq!(report.rounds[0].lookups, 500);
    assert_eq!(report.rounds[1].alive, 700);
}

#[test]
fn nodes_that_come_and_go_do_not_break_the_network() {
    let mut options = Options::new(3, 200);
    let session = Duration::from_secs(300);
    options.churn = Some(ChurnRates { session, absence: Duration::from_secs(100) });
    options.settle_time = Duration::from_secs(600);
    options.rounds = vec![Round { loss: 0.05, hashes: 20, ..Round::CALM }];
    assert_all_found(&lookups::run(options));
}

#[test]
fn random_small_networks_find_what_was_announced() {
    for seed in 0..5 {
        assert_all_found(&lookups::run(Options::random(seed)));
    }
}

#[test]
fn same_seed_makes_the_same_history_and_another_seed_another() {
    let options = Options::random(7);
    let first = lookups::run(options.clone());
    let second = lookups::run(options.clone());
    assert_eq!((first.trace, first.events), (second.trace, second.events), "seed 7 replays");
    assert_ne!(first.trace, lookups::run(Options { seed: 8, ..options }).trace);
}
