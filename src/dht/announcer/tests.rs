use super::*;

const RATE: Option<u32> = Some(50);

fn hash(n: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b1).to_be_bytes());
    InfoHash::new(bytes)
}

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn spent(queries: usize, flows: usize) -> LookupCost {
    LookupCost { queries, flows, ..LookupCost::default() }
}

// All of them announced at `now`, by orders of the host.
fn announced(now: Instant, rate: Option<u32>, count: u32) -> Announcer {
    let mut announcer = Announcer::new(rate);
    for n in 0..count {
        assert!(announcer.keep(now, hash(n), Announcement::default(), LookupId(n.into())));
    }
    for n in 0..count {
        assert!(!announcer.on_over(now, LookupId(n.into()), hash(n), 8, spent(20, 12)));
    }
    announcer
}

// What `renew_announces` does, and every renewal ends at once.
fn renew(announcer: &mut Announcer, now: Instant, taken: usize, cost: LookupCost) -> Vec<InfoHash> {
    let mut done = Vec::new();
    while let Some(hash) = announcer.next_due(now) {
        let lookup = LookupId(u64::MAX - announcer.totals.renewals);
        announcer.kept.get_mut(&hash).unwrap().busy += 1;
        announcer.rest(hash, None);
        announcer.lookups.insert(lookup, (hash, Why::Renewal));
        announcer.renewing += 1;
        assert!(announcer.on_over(now, lookup, hash, taken, cost));
        done.push(hash);
    }
    done
}

#[test]
fn renewals_are_spread_over_the_interval_in_the_order_of_the_hashes() {
    let mut announcer = announced(at(0), RATE, 840);
    assert_eq!(announcer.interval(), INTERVAL_MIN);
    // What is fresh has no turn: the first half of the interval is quiet.
    for second in 0..INTERVAL_MIN.as_secs() / 2 {
        assert_eq!(renew(&mut announcer, at(second), 8, spent(16, 8)), []);
    }
    let (mut all, mut most) = (Vec::new(), 0);
    for second in INTERVAL_MIN.as_secs() / 2..2 * INTERVAL_MIN.as_secs() {
        let done = renew(&mut announcer, at(second), 8, spent(16, 8));
        most = most.max(done.len());
        all.extend(done);
    }
    assert!(most <= 2, "no herd: {most} in one second");
    let mut rounds = 1;
    for pair in all.windows(2) {
        rounds += usize::from(pair[1] < pair[0]);
    }
    assert!(rounds <= 3, "{rounds} rounds");
    let status = announcer.status(at(2 * INTERVAL_MIN.as_secs()));
    assert_eq!((status.torrents, status.held, status.is_behind), (840, 840, false));
    assert!(status.oldest.unwrap() <= INTERVAL_MAX, "{status:?}");
    assert_eq!(status.flows, 8 * status.renewals);
    // One a second, with eight flows each.
    assert!((7.5..9.0).contains(&status.flows_per_second), "{status:?}");
}

#[test]
fn interval_grows_as_far_as_stores_allow_and_then_it_says_so() {
    for (count, expected, behind) in
        [(1_000, INTERVAL_MIN, false), (5_000, Duration::from_secs(1_500), false)]
    {
        let announcer = announced(at(0), RATE, count);
        assert_eq!((announcer.interval(), announcer.status(at(1)).is_behind), (expected, behind));
    }
    let mut announcer = announced(at(0), RATE, 10_000);
    assert_eq!(announcer.interval(), INTERVAL_MAX);
    assert!(announcer.status(at(1)).is_behind, "twelve flows each are too many");
    // They turn out to be cheaper.
    for n in 0..1_000 {
        announcer.note_cost(8, spent(16, 7 + n % 2));
    }
    assert!(!announcer.status(at(1)).is_behind);
    assert!(announcer.interval() <= INTERVAL_MAX);
    // Without a budget nothing holds them back.
    assert_eq!(announced(at(0), None, 10_000).interval(), INTERVAL_MIN);
}

#[test]
fn overdue_one_goes_first_and_the_oldest_of_them() {
    let mut announcer = announced(at(0), RATE, 3);
    announcer.on_over(at(60), LookupId(77), hash(1), 8, spent(1, 1));
    let late = at(60) + INTERVAL_MAX;
    assert!(!announcer.status(at(30 * 60)).is_behind);
    assert!(announcer.status(late + STORED_FOR).is_behind);
    let mut first: Vec<_> = std::iter::from_fn(|| {
        let hash = announcer.next_due(late)?;
        announcer.rest(hash, None);
        Some(hash)
    })
    .collect();
    assert_eq!(first.pop(), Some(hash(1)));
    first.sort_unstable();
    let mut others = [hash(0), hash(2)];
    others.sort_unstable();
    assert_eq!(first, others);
}

#[test]
fn renewal_that_nobody_took_is_tried_again_soon() {
    let mut announcer = announced(at(0), RATE, 2);
    let first = announcer.next_due(at(14 * 60)).unwrap();
    announcer.kept.get_mut(&first).unwrap().busy += 1;
    announcer.rest(first, None);
    announcer.lookups.insert(LookupId(9), (first, Why::Renewal));
    announcer.renewing += 1;
    announcer.on_over(at(14 * 60), LookupId(9), first, 0, spent(9, 9));
    assert_eq!(announcer.next_due(at(14 * 60 + 119)).filter(|hash| *hash == first), None);
    assert_eq!(announcer.overdue(at(16 * 60)), Some(first));
    assert_eq!(announcer.status(at(16 * 60)).failures, 1);
    assert_eq!(announcer.poll_timeout().unwrap(), announcer.next.min(at(16 * 60)));
}

#[test]
fn forgotten_one_is_not_renewed_and_a_full_list_takes_no_more() {
    let mut announcer = announced(at(0), RATE, 2);
    assert!(announcer.forget(hash(0)) && !announcer.forget(hash(0)));
    for minute in 0..60 {
        assert!(!renew(&mut announcer, at(minute * 60), 8, spent(1, 1)).contains(&hash(0)));
    }
    assert!(announcer.forget(hash(1)));
    assert_eq!((announcer.poll_timeout(), announcer.next_due(at(99_999))), (None, None));

    let full = u32::try_from(KEPT_MAX).unwrap();
    let mut announcer = announced(at(0), RATE, full);
    assert!(!announcer.keep(at(0), hash(full), Announcement::default(), LookupId(0)));
    assert!(announcer.keep(at(0), hash(1), Announcement::default(), LookupId(0)));
    announcer.forget(hash(7));
    assert!(announcer.keep(at(0), hash(full), Announcement::default(), LookupId(1)));
}
