//! Claims about lookups where somebody has put nodes next to the key.

use super::super::measure::{Plan, Row, Table, measure, measure_in};
use super::super::*;

const SAYS: [Says; 4] = [Says::Nothing, Says::Allies, Says::Forged, Says::Dead];

fn world(nodes: u32) -> Network {
    Network::new(Options { nodes, public: true, ..Options::usual() })
}

fn plan(each: u32, sybils: Option<Sybils>) -> Plan {
    Plan { cold: each, warm: each, announces: each.div_ceil(2), sybils, ..Plan::usual() }
}

// Of a hundred: found, told of, and of the eight closest honest nodes those that were announced to.
fn shares(table: &Table) -> [usize; 3] {
    let searches = [&table.cold, &table.warm];
    let all = [&table.cold, &table.warm, &table.announce];
    let sum = |rows: &[&Row], of: fn(&Row) -> usize| -> usize { rows.iter().map(|r| of(r)).sum() };
    let [lookups, found] = [|r: &Row| r.lookups, |r: &Row| r.found].map(|of| sum(&searches, of));
    let closest = K * table.announce.lookups;
    [
        100 * found / lookups,
        100 * sum(&all, Row::alarms) / sum(&all, |r| r.lookups),
        100 * table.announce.closest_announced / closest,
    ]
}

// From eight to 64 of them, just next to the key or far nearer than anybody else, in one network or each
// in its own; seen by nodes that have just started and by others.
#[test]
fn what_was_announced_is_found_and_the_alarm_raised_whoever_sits_next_to_it() {
    let mut network = world(100_000);
    let mut total = Table::default();
    for networks in [Networks::One, Networks::Many] {
        for (says, (count, bits)) in SAYS.into_iter().zip([(8, 30), (64, 30), (16, 45), (64, 60)]) {
            let sybils = Sybils { count, bits, networks, says };
            let table;
            (table, network) = measure_in(network, &plan(3, Some(sybils)), 1..2);
            println!("{sybils:?}: {:?}\n{table}", shares(&table));
            total.add(&table);
        }
    }
    let [found, alarms, announced] = shares(&total);
    assert!(found >= 95 && alarms >= 90 && announced >= 80, "{found} {alarms} {announced}");
}

#[test]
fn no_alarm_is_raised_where_nobody_attacks() {
    for (nodes, public) in [(200, false), (5_000, false), (5_000, true), (100_000, true)] {
        let network = Network::new(Options { nodes, public, ..Options::usual() });
        let (table, _) = measure_in(network, &plan(6, None), 1..2);
        let [found, alarms, _] = shares(&table);
        assert_eq!((found, alarms), (100, 0), "{nodes} nodes: {table}");
    }
}

#[test]
fn hundred_lookups_find_what_is_there_in_usual_time_whatever_one_node_in_ten_says_instead() {
    let world = |liars, lie| Options { nodes: 20_000, liars, lie, ..Options::usual() };
    let plan = Plan { cold: 10, warm: 40, announces: 0, ..Plan::usual() };
    let honest = measure(&world(0.0, Lie::Dead), &plan, 1..3);
    println!("{honest}");
    for lie in [Lie::MadeUp, Lie::Dead, Lie::Allied] {
        let table = measure(&world(0.1, lie), &plan, 1..3);
        println!("{lie:?}: {table}");
        for (row, usual) in [(&table.cold, &honest.cold), (&table.warm, &honest.warm)] {
            assert_eq!(row.found, row.lookups, "{lie:?}");
            let [half, most] = [50, 90].map(|percent| {
                let [had, wanted] = [&row.first, &usual.first].map(|d| d.percentile(percent));
                had.as_secs_f64() / wanted.as_secs_f64()
            });
            assert!(half <= 1.3 && most <= 2.0, "{lie:?}: {half:.2} {most:.2}");
        }
    }
}

// `TRACKLESS_NODES=1000000 cargo test --release --lib table_of_attacks -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: prints a table, takes minutes"]
fn table_of_attacks() {
    let nodes = std::env::var("TRACKLESS_NODES").map_or(100_000, |n| n.parse().expect("a number"));
    let mut network = world(nodes);
    println!("found %, alarms %, announced to of the closest eight %");
    for networks in [Networks::One, Networks::Many] {
        for bits in [30, 45, 60] {
            for says in SAYS {
                for count in [8, 16, 64] {
                    let sybils = Sybils { count, bits, networks, says };
                    let table;
                    (table, network) = measure_in(network, &plan(10, Some(sybils)), 1..3);
                    println!("{:?} {sybils:?}", shares(&table));
                }
            }
        }
    }
}
