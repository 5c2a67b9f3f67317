//! Claims about one lookup.

use super::*;
use crate::base::{InfoHash, Rng};
use crate::dht::flows::Priority;
use crate::dht::security::make_id;

const TARGET: Key = Key::new([0; 20]);
const HASH: InfoHash = InfoHash::new([0; 20]);

// One that nobody waits for: it asks no more than it has to.
fn lookup(kind: LookupKind) -> Lookup {
    let priority = Priority::Background;
    Lookup { priority, ..Lookup::new(Instant::ZERO, kind, TARGET, false) }
}

// The n-th closest to the target.
fn id(n: u16) -> NodeId {
    let mut id = [0; 20];
    id[18..].copy_from_slice(&n.to_be_bytes());
    NodeId::new(id)
}

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], n + 1))
}

fn node(n: u16) -> (NodeId, SocketAddr) {
    (id(n), addr(n))
}

// Whom it asks now, until it waits or is over.
fn asked(lookup: &mut Lookup) -> (Vec<SocketAddr>, Next) {
    let mut all = Vec::new();
    loop {
        match lookup.next() {
            Next::Ask { to, .. } => all.push(to),
            next => return (all, next),
        }
    }
}

fn answer(lookup: &mut Lookup, n: u16, named: &[u16]) {
    let informant = lookup.on_reply(&addr(n), id(n), Some(b"token"));
    lookup.on_contacts(informant, named.iter().map(|n| node(*n)));
}

#[test]
fn five_closest_are_asked_and_a_closer_one_at_once() {
    let mut lookup = lookup(LookupKind::FindNode);
    (10..30).rev().for_each(|n| lookup.add_contact(id(n), addr(n)));
    assert_eq!(asked(&mut lookup), ((10..15).map(addr).collect(), Next::Wait));
    // Four are still out, but these are closer than all of them.
    answer(&mut lookup, 14, &[1, 2, 3]);
    assert_eq!(asked(&mut lookup), ((1..4).map(addr).collect(), Next::Wait));
}

// Contacts at these distances, in bits from the first, which answer as quickly as that.
fn opened_with(contacts: &[(u16, Option<u64>)]) -> Lookup {
    let mut lookup = Lookup::new(Instant::ZERO, LookupKind::FindNode, TARGET, false);
    lookup.usual_rtt = Duration::from_millis(100);
    for (bit, rtt) in contacts {
        let mut id = [0; 20];
        id[usize::from(bit / 8)] = 0x80 >> (bit % 8);
        lookup.add_known(NodeId::new(id), addr(*bit), rtt.map(Duration::from_millis));
    }
    lookup
}

#[test]
fn opening_asks_the_quick_among_the_near_first() {
    let near = [(20, Some(400)), (19, None), (18, Some(20)), (12, Some(20)), (5, Some(20))];
    let order = |lookup: &mut Lookup| -> Vec<u16> {
        asked(lookup).0.into_iter().map(|to| to.port() - 1).collect()
    };
    assert_eq!(order(&mut opened_with(&near)), [18, 19, 12, 5, 20]);
    // In a small network 13 bits are as near as anybody has to be.
    let mut lookup = opened_with(&near);
    lookup.density.named = Some(65_536.0);
    assert_eq!(order(&mut lookup), [18, 12, 19, 5, 20]);
}

#[test]
fn start_of_who_knows_nobody_is_wide_until_some_have_answered_and_a_stalled_one_frees_its_place() {
    let contacts: Vec<_> = (20..60).map(|bit| (bit, None)).collect();
    let mut lookup = opened_with(&contacts);
    let (first, next) = asked(&mut lookup);
    assert_eq!((first.len(), next), (12, Next::Wait));
    lookup.on_stalled(&first[3]);
    assert_eq!(asked(&mut lookup).0.len(), 1);
    let best = lookup.candidates[2].id;
    lookup.on_reply(&first[2], best, None);
    assert_eq!(asked(&mut lookup).0.len(), 1);
    lookup.answered = walk::COLD_START;
    assert_eq!(asked(&mut lookup), (Vec::new(), Next::Wait));
    let next_best = lookup.candidates[1].id;
    lookup.on_reply(&first[1], next_best, None);
    assert_eq!(asked(&mut lookup), (Vec::new(), Next::Wait));
}

#[test]
fn where_more_nodes_are_gone_more_are_asked_at_once() {
    let asked_at_once = |alive: f64| {
        let strangers: Vec<_> = (5..45).map(|bit| (bit, None)).collect();
        let mut lookup = opened_with(&strangers);
        let answering = 1e15;
        lookup.density = Density { answering: Some(answering), named: Some(answering / alive) };
        let (opening, _) = asked(&mut lookup);
        opening.iter().for_each(|to| lookup.on_stalled(to));
        let first = opening[0].port() - 1;
        answer(&mut lookup, first, &[]);
        asked(&mut lookup).0.len()
    };
    assert_eq!([1.0, 0.7, 0.5, 0.4, 0.1].map(asked_at_once), [6, 6, 8, 10, 12]);
}

#[test]
fn stalled_query_frees_its_place_and_its_late_answer_counts() {
    let mut lookup = lookup(LookupKind::FindNode);
    (0..20).for_each(|n| lookup.add_contact(id(n), addr(n)));
    asked(&mut lookup);
    lookup.on_stalled(&addr(0));
    assert_eq!(asked(&mut lookup), (vec![addr(5)], Next::Wait));
    (1..=5).for_each(|n| answer(&mut lookup, n, &[]));
    asked(&mut lookup);
    (6..=8).for_each(|n| answer(&mut lookup, n, &[]));
    // Eight are alive, but a closer one may still come.
    assert_eq!(lookup.next(), Next::Wait);
    answer(&mut lookup, 0, &[]);
    assert_eq!(lookup.next(), Next::Done);
    let report = lookup.report(Instant::ZERO);
    assert_eq!(report.nodes, (0..8).map(node).collect::<Vec<_>>());
}

#[test]
fn overdue_and_dead_nodes_are_not_waited_for() {
    let mut lookup = lookup(LookupKind::FindNode);
    (0..11).for_each(|n| lookup.add_contact(id(n), addr(n)));
    for n in 0..11 {
        asked(&mut lookup);
        match n {
            0 | 3 => {
                silent(&mut lookup, n);
                lookup.give_up(&addr(n));
            }
            5 => lookup.on_dead(&addr(n)),
            n => answer(&mut lookup, n, &[]),
        }
    }
    assert_eq!(lookup.next(), Next::Done);
    let report = lookup.report(Instant::ZERO);
    assert_eq!((report.asked, report.answered, report.dead), (11, 8, 3));
    assert_eq!(report.closest, Some(TARGET.distance(id(1).key())));
}

fn silent(lookup: &mut Lookup, n: u16) {
    lookup.on_stalled(&addr(n));
    lookup.on_overdue(&addr(n));
}

#[test]
fn silent_node_among_the_closest_is_asked_once_more_before_it_counts_as_dead() {
    let mut lookup = lookup(LookupKind::FindNode);
    (0..20).for_each(|n| lookup.add_contact(id(n), addr(n)));
    asked(&mut lookup);
    // While nobody answers it is better to ask others.
    silent(&mut lookup, 0);
    assert_eq!(asked(&mut lookup), (vec![addr(5)], Next::Wait));
    answer(&mut lookup, 1, &[]);
    silent(&mut lookup, 2);
    assert_eq!(asked(&mut lookup), (vec![addr(0), addr(2)], Next::Wait));
    silent(&mut lookup, 0);
    // The first query to it is given up while the second is under way.
    lookup.on_expired(&addr(2));
    answer(&mut lookup, 2, &[]);
    (3..=5).for_each(|n| answer(&mut lookup, n, &[]));
    asked(&mut lookup);
    (6..=8).for_each(|n| answer(&mut lookup, n, &[]));
    assert_eq!(lookup.next(), Next::Done);
    let report = lookup.report(Instant::ZERO);
    assert_eq!((report.asked, report.answered), (11, 8));
    assert_eq!(report.nodes, (1..9).map(node).collect::<Vec<_>>());
}

#[test]
fn both_answers_of_a_node_that_was_asked_twice_count_as_one() {
    let mut lookup = lookup(LookupKind::FindNode);
    (0..9).for_each(|n| lookup.add_contact(id(n), addr(n)));
    asked(&mut lookup);
    answer(&mut lookup, 1, &[]);
    silent(&mut lookup, 0);
    assert!(asked(&mut lookup).0.contains(&addr(0)));
    answer(&mut lookup, 0, &[]);
    answer(&mut lookup, 0, &[]);
    assert_eq!(lookup.report(Instant::ZERO).answered, 2);
}

#[test]
fn lookup_with_few_answers_asks_for_more_of_the_table_once() {
    let mut lookup = lookup(LookupKind::FindNode);
    (0..10).for_each(|n| lookup.add_contact(id(n), addr(n)));
    let mut all = Vec::new();
    loop {
        let (now_asked, next) = asked(&mut lookup);
        for to in &now_asked {
            match to.port() - 1 {
                n @ 4..10 => silent(&mut lookup, n),
                n => answer(&mut lookup, n, &[]),
            }
        }
        all.extend(now_asked);
        match next {
            Next::Starved => {
                (20..24).for_each(|n| lookup.add_contact(id(n), addr(n)));
                lookup.start_again();
            }
            Next::Done => break,
            _ => {}
        }
    }
    let report = lookup.report(Instant::ZERO);
    assert_eq!((report.asked, report.answered), (14, 8));
    // Six are dead, and were asked twice.
    assert_eq!(all.len(), 14 + 6);
}

#[test]
fn thousands_of_invented_nodes_cost_bounded_queries_and_memory() {
    let mut lookup = lookup(LookupKind::FindNode);
    lookup.add_contact(id(60_000), addr(60_000));
    let mut rng = Rng::from_seed([1; 32]);
    let mut asked_in_all = 0;
    loop {
        match lookup.next() {
            Next::Ask { to, expect } => {
                asked_in_all += 1;
                // Each names 2,500 that are closer still, and answers as all of them.
                let informant = lookup.on_reply(&to, expect.unwrap(), None);
                let invented = (0..2_500).map(|_| {
                    let mut id: [u8; 20] = [0; 20];
                    rng.fill(&mut id[4..]);
                    let [_, a, b, c] = rng.u32().to_be_bytes();
                    (NodeId::new(id), SocketAddr::from(([127, a, b, c], 1)))
                });
                lookup.on_contacts(informant, invented);
                assert!(lookup.candidates.len() <= CANDIDATES_MAX);
            }
            Next::Done => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(asked_in_all <= QUERIES_PER_LOOKUP_MAX, "{asked_in_all}");
}

#[test]
fn lookup_that_has_asked_as_many_as_it_remembers_still_hears_of_closer_ones() {
    let mut lookup = lookup(LookupKind::FindNode);
    let far = CANDIDATES_MAX as u16 + 40;
    lookup.add_contact(id(far), addr(far));
    // Each knows but those that are a little closer, and every fifth is gone.
    while let (to, Next::Wait) = asked(&mut lookup)
        && !to.is_empty()
    {
        for n in to.iter().map(|to| to.port() - 1) {
            if n % 5 == 3 {
                lookup.on_dead(&addr(n));
            } else {
                answer(&mut lookup, n, &[n.saturating_sub(1), n.saturating_sub(2)]);
            }
        }
    }
    assert!(lookup.asked > CANDIDATES_MAX && lookup.candidates.len() <= CANDIDATES_MAX);
    let nodes = lookup.report(Instant::ZERO).nodes;
    assert_eq!(nodes, [0, 1, 2, 4, 5, 6, 7, 9].map(node));
}

#[test]
fn invented_nodes_that_never_answer_are_asked_less_and_less() {
    let mut lookup = lookup(LookupKind::FindNode);
    lookup.add_contact(id(1000), addr(1000));
    lookup.add_contact(id(2000), addr(2000));
    asked(&mut lookup);
    // The liar's nodes are the closest of all; the honest one's are there.
    answer(&mut lookup, 1000, &(0..16).collect::<Vec<_>>());
    answer(&mut lookup, 2000, &(100..116).collect::<Vec<_>>());
    let (mut dead, mut honest) = (0, 0);
    loop {
        let (now_asked, next) = asked(&mut lookup);
        if next == Next::Done {
            break;
        }
        for to in now_asked {
            if to.port() <= 20 {
                dead += 1;
                lookup.on_stalled(&to);
                lookup.on_overdue(&to);
            } else {
                honest += 1;
                answer(&mut lookup, to.port() - 1, &[]);
            }
        }
    }
    assert!(honest >= 8 && dead <= 8, "{honest} {dead}");
}

#[test]
fn one_public_network_has_one_candidate_and_the_valid_id_wins() {
    let mut lookup = lookup(LookupKind::FindNode);
    let mut rng = Rng::from_seed([1; 32]);
    for host in 1..=200 {
        lookup.add_contact(id(host), SocketAddr::from(([9, 9, 9, u8::try_from(host).unwrap()], 1)));
    }
    assert_eq!(lookup.candidates.len(), 1);
    let at: SocketAddr = "9.9.9.250:1".parse().unwrap();
    let valid = make_id(at.ip(), &mut rng);
    lookup.add_contact(valid, at);
    assert_eq!((lookup.candidates.len(), lookup.candidates[0].id), (1, valid));
    lookup.add_contact(
        make_id("9.9.9.251".parse().unwrap(), &mut rng),
        "9.9.9.251:1".parse().unwrap(),
    );
    assert_eq!(lookup.candidates[0].id, valid);
}

#[test]
fn ids_that_break_the_address_rule_do_not_end_a_lookup_where_the_rule_is_kept() {
    let mut rng = Rng::from_seed([1; 32]);
    let honest = |n: u8| SocketAddr::from(([60, n, 1, 1], 1));
    let sybil = |n: u8| SocketAddr::from(([90, n, 1, 1], 1));
    let mut lookup = lookup(LookupKind::FindNode);
    lookup.ids_follow = true;
    for n in 0..8 {
        lookup.add_contact(make_id(honest(n).ip(), &mut rng), honest(n));
        lookup.add_contact(id(n.into()), sybil(n));
    }
    loop {
        match lookup.next() {
            Next::Ask { to, expect } => {
                lookup.on_reply(&to, expect.unwrap(), None);
            }
            Next::Done => break,
            other => panic!("{other:?}"),
        }
    }
    // Eight Sybils next to the target did not keep it from eight honest nodes.
    assert_eq!(lookup.report(Instant::ZERO).answered, 16);
}

#[test]
fn node_that_answers_under_another_id_counts_as_what_it_says() {
    let mut lookup = lookup(LookupKind::FindNode);
    lookup.add_contact(id(1), addr(1));
    asked(&mut lookup);
    lookup.on_reply(&addr(1), id(500), None);
    assert_eq!((lookup.next(), lookup.next()), (Next::Starved, Next::Done));
    assert_eq!(lookup.report(Instant::ZERO).nodes, [(id(500), addr(1))]);
}

#[test]
fn if_nobody_answers_the_start_is_tried_again_and_then_it_ends() {
    let mut lookup = lookup(LookupKind::FindNode);
    lookup.add_seed(addr(1));
    lookup.add_contact(id(2), addr(2));
    let mut all = Vec::new();
    loop {
        let (now_asked, next) = asked(&mut lookup);
        for to in &now_asked {
            lookup.on_stalled(to);
            lookup.on_overdue(to);
        }
        match next {
            Next::Starved => lookup.start_again(),
            // Nothing says how long an answer takes here: the first may still come.
            Next::Wait if now_asked.is_empty() => break,
            Next::Wait => {}
            other => panic!("{other:?}"),
        }
        all.extend(now_asked);
    }
    assert_eq!(all.len(), 2 * (1 + STARTS_MAX));
    for to in &all {
        assert_eq!(lookup.next(), Next::Wait);
        lookup.on_expired(to);
    }
    assert_eq!(lookup.next(), Next::Done);
}

#[test]
fn where_answers_come_late_those_under_way_are_waited_for_and_elsewhere_they_are_not() {
    for (is_late, own_account) in [(true, false), (false, false), (true, true)] {
        let mut lookup = Lookup { own_account, ..lookup(LookupKind::FindNode) };
        lookup.add_contact(id(9), addr(9));
        asked(&mut lookup);
        silent(&mut lookup, 9);
        while asked(&mut lookup).1 == Next::Starved {}
        if is_late {
            lookup.note_late();
        }
        answer(&mut lookup, 9, &[1, 2]);
        // Both are asked twice, and then nobody is left.
        let mut queries = 0;
        let end = loop {
            let (now_asked, next) = asked(&mut lookup);
            now_asked.iter().for_each(|to| silent(&mut lookup, to.port() - 1));
            queries += now_asked.len();
            if now_asked.is_empty() && next != Next::Starved {
                break next;
            }
        };
        assert_eq!(queries, 4);
        if !is_late || own_account {
            assert_eq!(end, Next::Done, "it is definite");
            continue;
        }
        assert_eq!(end, Next::Wait);
        lookup.note_late();
        answer(&mut lookup, 1, &[0]);
        assert_eq!(asked(&mut lookup), (vec![addr(0)], Next::Wait));
        answer(&mut lookup, 0, &[]);
        [1, 2, 2].iter().for_each(|n| lookup.on_expired(&addr(*n)));
        assert_eq!(asked(&mut lookup), (vec![], Next::Done));
    }
}

#[test]
fn while_nobody_answers_few_are_under_way() {
    let mut lookup = lookup(LookupKind::FindNode);
    (0..100).for_each(|n| lookup.add_contact(id(n), addr(n)));
    let mut out = 0;
    for _ in 0..100 {
        let (now_asked, _) = asked(&mut lookup);
        out += now_asked.len();
        for to in now_asked {
            lookup.on_stalled(&to);
            lookup.on_overdue(&to);
        }
    }
    assert_eq!(out, IN_FLIGHT_MIN);
    lookup.on_dead(&addr(0));
    assert_eq!(asked(&mut lookup).0.len(), 1);
}

#[test]
fn peers_are_named_once_and_bounded() {
    let mut lookup = lookup(LookupKind::GetPeers(HASH));
    assert_eq!(lookup.on_peers([addr(1), addr(2), addr(1)].into_iter()), [addr(1), addr(2)]);
    assert_eq!(lookup.on_peers([addr(2), addr(3)].into_iter()), [addr(3)]);
    let rest = lookup.on_peers((0..5_000).map(addr));
    assert_eq!(rest.len(), PEERS_PER_LOOKUP_MAX - 3);
    assert!(lookup.on_peers((5_000..6_000).map(addr)).is_empty());
    assert_eq!(lookup.report(Instant::ZERO).peers, PEERS_PER_LOOKUP_MAX);
}

#[test]
fn announce_goes_to_the_eight_closest_with_their_tokens_and_is_sent_twice_if_lost() {
    let mut lookup = lookup(LookupKind::Announce(HASH));
    (0..12).for_each(|n| lookup.add_contact(id(n), addr(n)));
    let mut announced = Vec::new();
    loop {
        match lookup.next() {
            Next::Ask { to, .. } => answer(&mut lookup, to.port() - 1, &[]),
            Next::Announce { to, token, .. } => {
                assert_eq!(&token[..], b"token");
                announced.push(to);
            }
            Next::Wait => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(announced, (0..8).map(addr).collect::<Vec<_>>());
    (0..7).for_each(|n| {
        lookup.on_announce_answered(&addr(n), if n == 3 { Err(203) } else { Ok(()) })
    });
    assert_eq!(lookup.next(), Next::Wait);
    lookup.on_announce_stalled(&addr(7));
    assert!(matches!(lookup.next(), Next::Announce { to, .. } if to == addr(7)));
    lookup.on_announce_stalled(&addr(7));
    lookup.on_announce_overdue(&addr(7));
    assert_eq!(lookup.next(), Next::Wait);
    lookup.on_announce_overdue(&addr(7));
    assert_eq!(lookup.next(), Next::Done);
    assert_eq!(lookup.report(Instant::ZERO).announced, 6);
}

#[test]
fn long_token_is_not_echoed() {
    let mut lookup = lookup(LookupKind::Announce(HASH));
    for (n, len) in [(0, 64), (1, 65), (2, 60_000)] {
        lookup.add_contact(id(n), addr(n));
        asked(&mut lookup);
        lookup.on_reply(&addr(n), id(n), Some(&vec![1; len]));
    }
    assert_eq!(lookup.next(), Next::Starved);
    assert!(matches!(lookup.next(), Next::Announce { to, .. } if to == addr(0)));
    assert_eq!(lookup.next(), Next::Wait);
}

#[test]
fn lookup_out_of_time_announces_to_who_answered() {
    let mut lookup = lookup(LookupKind::Announce(HASH));
    (0..3).for_each(|n| lookup.add_contact(id(n), addr(n)));
    asked(&mut lookup);
    answer(&mut lookup, 0, &[]);
    assert_eq!(lookup.next(), Next::Wait);
    assert!(lookup.hurry());
    assert!(matches!(lookup.next(), Next::Announce { to, .. } if to == addr(0)));
    assert!(!lookup.hurry());
}

#[test]
fn who_answers_too_late_for_the_choice_is_announced_to_while_others_are_waited_for() {
    let mut lookup = lookup(LookupKind::Announce(HASH));
    (0..10).for_each(|n| lookup.add_contact(id(n), addr(n)));
    asked(&mut lookup);
    silent(&mut lookup, 2);
    lookup.give_up(&addr(2));
    for n in [0, 1, 3, 4, 5, 6, 7] {
        answer(&mut lookup, n, &[]);
        asked(&mut lookup);
    }
    answer(&mut lookup, 8, &[]);
    let announced = |lookup: &mut Lookup| -> Vec<SocketAddr> {
        let next = std::iter::from_fn(|| match lookup.next() {
            Next::Announce { to, .. } => Some(to),
            _ => None,
        });
        next.collect()
    };
    assert_eq!(announced(&mut lookup), [0, 1, 3, 4, 5, 6, 7, 8].map(addr));
    answer(&mut lookup, 2, &[]);
    assert_eq!(announced(&mut lookup), [addr(2)]);
    // Eight are nearer than this one.
    answer(&mut lookup, 9, &[]);
    assert_eq!(announced(&mut lookup), []);
    (0..9).for_each(|n| lookup.on_announce_answered(&addr(n), Ok(())));
    assert_eq!(lookup.next(), Next::Done);
    assert_eq!(lookup.report(Instant::ZERO).announced, 9);
}

// Around the target nodes stand as in a network of a thousand.
fn spaced(n: u16) -> NodeId {
    let mut id = [0; 20];
    id[..2].copy_from_slice(&(64 * (n + 1)).to_be_bytes());
    NodeId::new(id)
}

// Everybody answers under that id and takes announces: who was announced to.
fn announced_where_all_answer(lookup: &mut Lookup, id_of: impl Fn(u16) -> NodeId) -> BTreeSet<u16> {
    let mut announced = BTreeSet::new();
    loop {
        match lookup.next() {
            Next::Ask { to, .. } => {
                lookup.on_reply(&to, id_of(to.port() - 1), Some(b"token"));
            }
            Next::Announce { to, .. } => {
                announced.insert(to.port() - 1);
                lookup.on_announce_answered(&to, Ok(()));
            }
            Next::Done => return announced,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wrong_suspicion_costs_queries_and_hides_nobody() {
    let mut lookup = lookup(LookupKind::Announce(HASH));
    lookup.density.named = Some(1e9);
    (0..40).for_each(|n| lookup.add_contact(spaced(n), addr(n)));
    lookup.suspects_to = Some(lookup.candidates[11].share);
    let announced = announced_where_all_answer(&mut lookup, spaced);
    assert_eq!(announced, (0..8).chain(12..20).collect());
    assert_eq!(lookup.report(Instant::ZERO).crowd, 0, "it was wrong");
}

// Nothing is known of the size of the network; it is seen at the end that eight of them do not belong.
#[test]
fn search_does_not_end_among_nodes_that_stand_too_close_together() {
    let id_of = |n: u16| match n.checked_sub(8) {
        Some(n) => spaced(n),
        None => NodeId::new(std::array::from_fn(|at| {
            if at == 2 { [1, 2, 3, 4, 5, 6, 7, 8][usize::from(n)] } else { 0 }
        })),
    };
    let mut lookup = lookup(LookupKind::Announce(HASH));
    lookup.density.named = Some(5e7);
    (0..40).for_each(|n| lookup.add_contact(id_of(n), addr(n)));
    assert_eq!(lookup.crowd(), 0);
    let announced = announced_where_all_answer(&mut lookup, id_of);
    assert_eq!(announced, (0..16).collect());
    assert_eq!(lookup.report(Instant::ZERO).crowd, 8);
}
