mod attacks;

use super::measure::{Plan, measure};
use super::*;

fn small(public: bool) -> Network {
    Network::new(Options { nodes: 5_000, public, ..Options::usual() })
}

#[test]
fn network_is_as_large_and_as_dead_as_it_was_ordered() {
    for public in [false, true] {
        let net = small(public);
        let alive = net.nodes.iter().filter(|e| net.is_alive(e.ip)).count();
        assert!((4_200..=5_000).contains(&net.len()), "{}", net.len());
        let share = alive as f64 / net.len() as f64;
        assert!((0.66..0.74).contains(&share), "{share}");
        let mut rtts: Vec<_> = net.nodes.iter().map(|e| net.rtt(e.ip)).collect();
        rtts.sort_unstable();
        let median = rtts[rtts.len() / 2].as_millis();
        assert!((85..95).contains(&median), "{median}");
        assert!(net.nodes.iter().all(|e| net.exists(e.ip) && e.key == head(net.id(e.ip).key())));
    }
}

#[test]
fn node_names_eight_that_are_nearer_than_itself_until_it_is_one_of_the_nearest() {
    let net = small(false);
    let mut rng = Rng::from_seed([3; 32]);
    for _ in 0..100 {
        let target = rng.u64();
        let mut at = net.nodes[rng.below(net.len())].key;
        let mut steps = 0;
        loop {
            let known = net.closest_known(at, target);
            assert_eq!(known.len(), K);
            let best = known[0].key;
            if best ^ target >= at ^ target {
                break;
            }
            at = best;
            steps += 1;
        }
        let nearest = net.closest(target, 3 * K, |_| true);
        assert!(nearest.iter().any(|e| e.key == at), "it ends among the nearest");
        assert!(steps <= 12, "{steps}");
    }
}

#[test]
fn sybils_are_nearest_while_they_are_there() {
    let mut net = small(true);
    let key = Key::new([7; 20]);
    let before = net.closest_alive(key, K);
    for networks in [Networks::One, Networks::Many] {
        net.add_sybils(key, Sybils { count: 64, bits: 30, networks, says: Says::Nothing });
        assert_eq!(net.closest(head(key), 64, |_| true).len(), 64);
        assert!(net.closest(head(key), 64, |_| true).iter().all(|e| e.key ^ head(key) < 1 << 34));
        assert_eq!(net.closest_alive(key, K), before);
        net.remove_sybils();
    }
    assert_eq!(net.closest(head(key), 1, |ip| net.is_alive(ip))[0].ip, before[0]);
}

#[test]
fn same_seed_makes_the_same_table() {
    let options = Options { nodes: 3_000, loss: 0.05, liars: 0.1, ..Options::usual() };
    let plan = Plan { cold: 2, warm: 3, announces: 2, ..Plan::usual() };
    let [one, two, other] =
        [1..2, 1..2, 2..3].map(|seeds| measure(&options, &plan, seeds).to_string());
    assert_eq!(one, two);
    assert_ne!(one, other);
}

#[test]
fn lookups_in_a_calm_network_find_what_is_there() {
    let options = Options { nodes: 5_000, ..Options::usual() };
    let table = measure(&options, &Plan { cold: 5, warm: 5, announces: 5, ..Plan::usual() }, 1..2);
    println!("{table}");
    assert_eq!((table.cold.found, table.warm.found, table.announce.found), (5, 5, 0));
    // A node that is in none of the tables that were asked is not found by anybody.
    assert!(table.announce.closest_announced >= 5 * K - 2, "to the closest: {table}");
}

// A starved link: what was lost must not hold up what is left.
#[test]
fn lookups_find_what_is_there_where_seven_datagrams_in_ten_are_lost() {
    let options = Options { nodes: 5_000, loss: 0.7, ..Options::usual() };
    let plan = Plan { cold: 5, warm: 10, announces: 0, ..Plan::usual() };
    let table = measure(&options, &plan, 1..3);
    println!("{table}");
    assert!(table.cold.found >= 9 && table.warm.found >= 19, "{table}");
    for row in [&table.cold, &table.warm] {
        assert!(row.done.percentile(50) < Duration::from_secs(4), "nobody stands still: {table}");
        assert!(row.queries(100) <= 200);
    }
}

// A lookup waits for nobody as long as that, yet the answers are all there is.
#[test]
fn lookups_find_what_is_there_where_every_answer_takes_five_seconds() {
    let rtt_median = Duration::from_secs(5);
    let options = Options { nodes: 5_000, rtt_median, rtt_sigma: 0.15, ..Options::usual() };
    let plan = Plan { cold: 5, warm: 5, announces: 0, ..Plan::usual() };
    let table = measure(&options, &plan, 1..2);
    println!("{table}");
    assert_eq!((table.cold.found, table.warm.found), (5, 5), "{table}");
}

// The figures that lookups are judged by, all in a few seconds:
// `cargo test --release --lib implicit_worlds -- --ignored --nocapture`
#[test]
#[ignore = "a million nodes"]
fn implicit_worlds() {
    let usual = Options::usual();
    let worlds = [
        ("usual", usual.clone()),
        ("usual, one in ten lies", Options { liars: 0.1, ..usual.clone() }),
        ("harsh", Options::harsh()),
        ("usual, seven in ten lost", Options { loss: 0.7, ..usual.clone() }),
        (
            "usual, 4 s away",
            Options { rtt_median: Duration::from_secs(4), rtt_sigma: 0.15, ..usual.clone() },
        ),
        ("usual, public addresses", Options { public: true, ..usual }),
    ];
    for (name, options) in worlds {
        println!("{name}\n{}", measure(&options, &Plan::usual(), 1..11));
    }
}
