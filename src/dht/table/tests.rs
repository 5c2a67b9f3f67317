//! Claims about the routing table.

use proptest::prelude::*;

use super::*;
use crate::base::Rng;
use crate::dht::security::make_id;

const OWN: NodeId = NodeId::new([0; 20]);
const RTT: Duration = Duration::from_millis(50);

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn table() -> Table {
    Table::new(OWN, false)
}

// An id in bucket `bucket`.
fn id_in(bucket: usize, rng: &mut Rng) -> NodeId {
    NodeId::new(*key_in_bucket(OWN.key(), bucket, rng).as_bytes())
}

fn loopback(n: usize) -> SocketAddr {
    let [.., a, b] = u32::try_from(n / 60_000).unwrap().to_be_bytes();
    SocketAddr::from(([127, 0, a, b], u16::try_from(n % 60_000).unwrap() + 1))
}

fn admit(table: &mut Table, now: Instant, id: NodeId, addr: SocketAddr) -> Admission {
    table.on_reply(now, id, addr, RTT).0
}

fn near(table: &Table, target: Key, count: usize) -> Vec<NodeId> {
    let mut out = Vec::new();
    table.closest(target, count, |_| true, &mut out);
    out.into_iter().map(|near| near.id).collect()
}

fn check(table: &Table) {
    assert_eq!(table.contacts().count(), table.len());
    for contact in table.contacts() {
        assert!(table.has(contact.id, &contact.addr()));
    }
}

#[test]
fn table_is_bounded_whatever_comes() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for n in 0..20_000 {
        admit(&mut table, at(0), NodeId::new(rng.array()), loopback(n));
    }
    let sizes: Vec<usize> = table.bucket_sizes().collect();
    assert_eq!(sizes[..7], [128, 64, 32, 16, 8, 8, 8]);
    assert!(sizes[7..].iter().all(|n| *n <= 8));
    assert!(table.buckets.iter().all(|b| b.spares().len() <= 8));
    check(&table);
}

#[test]
fn thousand_ids_from_one_address_get_one_place() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for port in 1..=1000 {
        admit(&mut table, at(0), NodeId::new(rng.array()), SocketAddr::from(([9, 9, 9, 9], port)));
    }
    assert_eq!(table.len(), 1);
    check(&table);
}

#[test]
fn one_network_gets_one_place_in_a_bucket() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for host in 0..=255 {
        admit(&mut table, at(0), id_in(0, &mut rng), SocketAddr::from(([9, 9, 9, host], 1)));
        admit(&mut table, at(0), id_in(1, &mut rng), SocketAddr::from(([9, 9, 9, host], 2)));
    }
    assert_eq!(table.bucket_sizes().collect::<Vec<_>>(), [1, 1]);
    let mut table = self::table();
    for host in 0..500u16 {
        let ip = [0x2001, 0xdb8, 0, 1, 0, 0, 0, host];
        admit(&mut table, at(0), id_in(0, &mut rng), SocketAddr::from((ip, 1)));
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn private_networks_are_exempt() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for port in 1..=100 {
        admit(&mut table, at(0), id_in(0, &mut rng), SocketAddr::from(([10, 77, 1, 1], port)));
    }
    assert_eq!(table.len(), 100);
}

#[test]
fn endpoint_that_changes_its_id_loses_its_place() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    let (a, b, c) = (id_in(0, &mut rng), id_in(1, &mut rng), id_in(2, &mut rng));
    admit(&mut table, at(0), a, loopback(1));
    // A client that was started again: its new id is taken, the old one is gone.
    assert_eq!(table.on_reply(at(1), b, loopback(1), RTT), (Admission::Added, true));
    assert!(!table.has(a, &loopback(1)) && table.has(b, &loopback(1)));
    // One that goes on is no longer believed.
    assert_eq!(table.on_reply(at(2), c, loopback(1), RTT), (Admission::Outside, true));
    assert_eq!(admit(&mut table, at(3), c, loopback(1)), Admission::Outside);
    assert!(!table.wants(at(3), c, &loopback(1)));
    assert_eq!(table.len(), 0);
    assert_eq!(admit(&mut table, at(1000), c, loopback(1)), Admission::Added);
    check(&table);
}

#[test]
fn id_cannot_be_taken_over_from_a_live_contact() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    let id = id_in(0, &mut rng);
    admit(&mut table, at(0), id, loopback(1));
    assert_eq!(admit(&mut table, at(1), id, loopback(2)), Admission::Outside);
    table.on_failure(at(2), &loopback(1), at(2));
    assert_eq!(admit(&mut table, at(3), id, loopback(2)), Admission::Added);
    assert_eq!((table.len(), table.has(id, &loopback(2))), (1, true));
    check(&table);
}

#[test]
fn own_id_is_never_a_contact() {
    let mut table = table();
    assert_eq!(admit(&mut table, at(0), OWN, loopback(1)), Admission::Outside);
    assert!(!table.wants(at(0), OWN, &loopback(1)));
}

#[test]
fn failing_contact_makes_room_for_a_spare() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for n in 0..10 {
        admit(&mut table, at(n), id_in(5, &mut rng), loopback(usize::try_from(n).unwrap()));
    }
    assert_eq!(table.len(), 8);
    table.on_failure(at(20), &loopback(0), at(20));
    assert_eq!(table.contacts().count(), 8);
    table.on_failure(at(21), &loopback(0), at(21));
    // The spare that answered last came in.
    assert!(table.contacts().any(|c| c.addr() == loopback(9)) && table.len() == 8);
    assert!(!table.contacts().any(|c| c.addr() == loopback(0)));
    check(&table);
}

// Two nodes that were spares of each other pinged each other three times a second, each because the
// other had asked: a network of a thousand nodes spent nine tenths of its packets on that.
#[test]
fn fresh_spare_that_asks_is_not_wanted_again() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for n in 0..8 {
        assert_eq!(admit(&mut table, at(0), id_in(4, &mut rng), loopback(n)), Admission::Added);
    }
    let (spare, addr) = (id_in(4, &mut rng), loopback(8));
    assert!(table.wants(at(0), spare, &addr));
    assert_eq!(admit(&mut table, at(0), spare, addr), Admission::Outside);
    assert!(!table.wants(at(1), spare, &addr), "it waits already");
    assert!(table.wants(at(1), id_in(4, &mut rng), &loopback(9)), "there is room for others");
    assert!(table.wants(at(720), spare, &addr), "it has not answered for long");
    table.on_failure(at(2), &loopback(0), at(1));
    assert!(table.wants(at(2), spare, &addr), "somebody's place may be free");
}

#[test]
fn queries_that_were_lost_together_are_one_failure_and_none_if_another_was_answered() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    let id = id_in(0, &mut rng);
    let failures = |table: &Table| table.contacts().map(|c| c.failures).collect::<Vec<_>>();
    admit(&mut table, at(0), id, loopback(1));
    table.on_failure(at(18), &loopback(1), at(10));
    table.on_failure(at(19), &loopback(1), at(11));
    assert_eq!(failures(&table), [1]);
    // Asked again, it answers; the query before that is found to be lost only later.
    admit(&mut table, at(21), id, loopback(1));
    table.on_failure(at(28), &loopback(1), at(20));
    assert_eq!(failures(&table), [0]);
    table.on_failure(at(38), &loopback(1), at(30));
    table.on_failure(at(47), &loopback(1), at(39));
    assert_eq!(failures(&table), [2]);
}

#[test]
fn contact_without_a_spare_is_given_five_chances() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    let id = id_in(0, &mut rng);
    admit(&mut table, at(0), id, loopback(1));
    for failure in 1..5 {
        table.on_failure(at(failure), &loopback(1), at(failure));
        assert_eq!(table.len(), 1);
    }
    // An answer in between starts the count again.
    admit(&mut table, at(9), id, loopback(1));
    for failure in 10..15 {
        assert_eq!(table.len(), 1);
        table.on_failure(at(failure), &loopback(1), at(failure));
    }
    assert_eq!(table.len(), 0);
    check(&table);
}

#[test]
fn newcomer_replaces_who_fails_or_breaks_the_id_rule_or_is_much_slower() {
    let mut rng = Rng::from_seed([1; 32]);
    let public = |n: u8| SocketAddr::from(([50, n, 1, 1], 1));
    // An id that is valid at its address and falls into the first bucket.
    let mut valid = |addr: SocketAddr| loop {
        let id = make_id(addr.ip(), &mut rng);
        if id.as_bytes()[0] >= 0x80 {
            break id;
        }
    };
    let mut table = table();
    table.buckets.push(Bucket::new(5));
    for n in 0..8 {
        let id = valid(public(n));
        // The last one breaks the rule.
        let id = if n == 7 { NodeId::new([0xff; 20]) } else { id };
        assert_eq!(admit(&mut table, at(0), id, public(n)), Admission::Added);
    }
    let id = valid(public(10));
    assert_eq!(admit(&mut table, at(1), id, public(10)), Admission::Added);
    assert!(!table.contacts().any(|c| c.addr() == public(7)));
    let id = valid(public(11));
    assert_eq!(admit(&mut table, at(1), id, public(11)), Admission::Outside);
    // Much faster than somebody young.
    let id = valid(public(12));
    assert_eq!(table.on_reply(at(1), id, public(12), RTT / 5).0, Admission::Added);
    check(&table);
}

#[test]
fn enforced_ids_keep_others_out() {
    let (mut table, mut rng) = (Table::new(OWN, true), Rng::from_seed([1; 32]));
    let addr: SocketAddr = "50.1.1.1:1".parse().unwrap();
    assert_eq!(admit(&mut table, at(0), id_in(0, &mut rng), addr), Admission::Outside);
    assert_eq!(admit(&mut table, at(0), make_id(addr.ip(), &mut rng), addr), Admission::Added);
    assert_eq!(admit(&mut table, at(0), id_in(0, &mut rng), loopback(1)), Admission::Added);
}

#[test]
fn contact_is_due_after_its_time_and_sooner_if_it_failed() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    let (a, b) = (id_in(0, &mut rng), id_in(1, &mut rng));
    admit(&mut table, at(0), a, loopback(1));
    admit(&mut table, at(100), b, loopback(2));
    assert_eq!(table.overdue(at(719), |_| false), None);
    assert_eq!(table.overdue(at(720), |_| false), Some((a, loopback(1))));
    assert_eq!(table.overdue(at(720), |addr| *addr == loopback(1)), None);
    table.on_failure(at(720), &loopback(1), at(720));
    assert_eq!(table.overdue(at(729), |_| false), None);
    assert_eq!(table.overdue(at(730), |_| false), Some((a, loopback(1))));
}

#[test]
fn stale_parts_of_the_key_space_are_named_once() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    assert_eq!(table.stale_bucket(at(0), &mut rng), None);
    for bucket in 0..4 {
        admit(&mut table, at(0), id_in(bucket, &mut rng), loopback(bucket));
    }
    let mut named = Vec::new();
    while let Some(key) = table.stale_bucket(at(10), &mut rng) {
        named.push(shared_bits(OWN.key(), key));
        table.on_lookup(at(10), key);
    }
    named.sort_unstable();
    assert_eq!(named, [0, 1, 2, 3]);
    assert!(table.stale_bucket(at(10 + 900), &mut rng).is_some());
}

#[test]
fn new_own_id_keeps_the_contacts() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    for n in 0..60 {
        admit(&mut table, at(0), NodeId::new(rng.array()), loopback(n));
    }
    let before = table.len();
    table.set_own(at(1), NodeId::new([0xaa; 20]));
    assert!(table.len() + 8 >= before);
    check(&table);
}

#[test]
fn saved_contacts_carry_their_age_over_a_restart() {
    let (mut table, mut rng) = (table(), Rng::from_seed([1; 32]));
    let id = id_in(0, &mut rng);
    admit(&mut table, at(0), id, loopback(1));
    admit(&mut table, at(500), id, loopback(1));
    let saved = table.saved();
    assert_eq!((saved.len(), saved[0].age_secs, saved[0].rtt_micros), (1, 500, Some(50_000)));
    let mut table = self::table();
    admit(&mut table, at(10), id, loopback(1));
    table.remember(&loopback(1), &saved[0]);
    admit(&mut table, at(20), id, loopback(1));
    assert_eq!(table.saved()[0].age_secs, 510);
}

proptest! {
    #[test]
    fn closest_are_the_closest(
        own in any::<[u8; 20]>(),
        ids in prop::collection::vec((any::<[u8; 20]>(), 0..40usize), 0..120),
        target in any::<[u8; 20]>(),
        shared in 0..60usize,
        count in 1..30usize,
    ) {
        let own = NodeId::new(own);
        let mut table = Table::new(own, false);
        // Ids at all depths around us, and a target at any.
        let beside = |bits: [u8; 20], shared: usize| {
            let mut rng = Rng::from_seed([bits[0]; 32]);
            let mut key = *key_in_bucket(own.key(), shared, &mut rng).as_bytes();
            key[10..].copy_from_slice(&bits[10..]);
            NodeId::new(key)
        };
        for (n, (bits, shared)) in ids.into_iter().enumerate() {
            admit(&mut table, at(0), beside(bits, shared), loopback(n));
        }
        check(&table);
        let target = beside(target, shared).key();
        let mut all: Vec<NodeId> = table.contacts().map(|c| c.id).collect();
        all.sort_by_key(|id| target.distance(id.key()));
        all.truncate(count);
        prop_assert_eq!(near(&table, target, count), all);
    }

    #[test]
    fn key_in_bucket_shares_exactly_that_many_bits(own in any::<[u8; 20]>(), bucket in 0..160usize, seed in any::<u8>()) {
        let own = Key::new(own);
        let key = key_in_bucket(own, bucket, &mut Rng::from_seed([seed; 32]));
        prop_assert_eq!(own.shared_prefix_bits(key), u32::try_from(bucket).unwrap());
    }

    #[test]
    fn counts_agree_after_any_history(steps in prop::collection::vec((0..6u8, 0..30u16, 0..12usize, any::<u8>()), 0..300)) {
        let (mut table, mut rng) = (table(), Rng::from_seed([9; 32]));
        let ids: Vec<NodeId> = (0..12).map(|n| id_in(n % 6, &mut rng)).collect();
        for (now, (what, host, id, rtt)) in steps.into_iter().enumerate() {
            let now = at(now as u64 * 7);
            let [_, host] = host.to_be_bytes();
            let addr = SocketAddr::from(([50, host / 8, host / 2, host], 1));
            match what {
                0..=2 => { table.on_reply(now, ids[id], addr, Duration::from_millis(rtt.into())); }
                3 | 4 => table.on_failure(now, &addr, now),
                _ => table.remove(&addr),
            }
            prop_assert_eq!(table.contacts().count(), table.len());
            prop_assert!(table.contacts().all(|c| table.has(c.id, &c.addr())));
            let mut ips: Vec<_> = table.contacts().map(|c| c.addr().ip()).collect();
            ips.sort_unstable();
            ips.dedup();
            prop_assert_eq!(ips.len(), table.len());
        }
    }
}
