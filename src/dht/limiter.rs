//! Who is answered, and how fully, when many ask.
//!
//! Three limits, each for another kind of flood. A *host* (an address, or a /64) has a rate of
//! queries, beyond which it is not heard. All hosts that never proved that they are where they say
//! they are share two purses: one of answers, one of *gifts*, the bytes by which answers are longer
//! than their queries. Without a gift an answer is cut to the length of its query: nobody who forges
//! source addresses gets more sent to his victim than he sends himself, however many nodes he asks.
//!
//! A purse that has been drawn on is open to those who drew little: **the emptier it is, the less one's wide
//! network (a /16 or /32) may have had of it in the last seconds.** So the few queries of a quiet network
//! are answered in full in the middle of a flood from all over the world, and the flood shares what is
//! left. Whoever has answered us is known to be where he says, and is not part of this.

use std::net::IpAddr;

use crate::base::addr::{network, wide_network};
use crate::base::bounded::{LimitedMap, TokenBucket};
use crate::base::{Instant, Rng};

/// Rates of those who ask.
#[derive(Debug)]
pub(super) struct Limiter {
    hosts: LimitedMap<u64, TokenBucket>,
    answers: TokenBucket,
    gifts: TokenBucket,
    // What each wide network has had; nothing is counted before somebody draws on a purse.
    meters: Vec<Meter>,
    key: u64,
}

// What one network has had, most of it in the last `PERIOD_SECS`.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    answers: f32,
    gifts: f32,
    // In tenths of a second.
    when: u32,
}

/// What a query may be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// All that was asked for.
    Full,
    /// The same, and no purse pays for it: it has answered us, so no source is forged.
    Known,
    /// No more bytes than it has itself.
    Brief,
    /// Nothing: its host asks too often.
    Nothing,
    /// Nothing: its network, or everybody together, asks too often.
    Crowded,
}

impl Limiter {
    pub fn new(now: Instant, rng: &mut Rng) -> Self {
        Self {
            hosts: LimitedMap::new(HOSTS_TRACKED_MAX),
            answers: TokenBucket::full(ANSWERS_BURST, now),
            gifts: TokenBucket::full(GIFTS_BURST, now),
            meters: Vec::new(),
            key: rng.u64(),
        }
    }

    /// A query came from `from`; `rate` a second are heard from one host.
    pub fn on_query(
        &mut self,
        now: Instant,
        from: IpAddr,
        rate: u32,
        is_known: impl FnOnce() -> bool,
    ) -> Room {
        let burst = rate.saturating_mul(BURST_SECS);
        let host = self.hosts.get_or_insert_with(host_key(from), || TokenBucket::full(burst, now));
        let is_admitted = host.admit(now, rate, burst);
        self.forget_quiet(now, rate, burst);
        if !is_admitted {
            return Room::Nothing;
        }
        let answers = self.answers.fill(now, ANSWERS_RATE, ANSWERS_BURST);
        let gifts = self.gifts.fill(now, GIFTS_RATE, GIFTS_BURST);
        if self.meters.is_empty() && answers.min(gifts) < CALM {
            self.meters.resize(METERS, Meter::default());
        }
        let meter = self.meter(now, from);
        let had = meter.copied().unwrap_or_default();
        let is_answered = may_draw(had.answers, answers, ANSWERS_RATE);
        let is_gifted = may_draw(had.gifts, gifts, GIFTS_RATE);
        if !(is_answered && is_gifted) && is_known() {
            return Room::Known;
        }
        if !is_answered {
            return Room::Crowded;
        }
        self.answers.spend(1.0);
        if let Some(meter) = self.meter(now, from) {
            meter.answers += 1.0;
        }
        if is_gifted { Room::Full } else { Room::Brief }
    }

    /// It was answered in full, with so many bytes more than it had itself.
    pub fn on_gift(&mut self, now: Instant, from: IpAddr, bytes: usize) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.gifts.spend(f64::from(bytes));
        if let Some(meter) = self.meter(now, from) {
            meter.gifts += f32::from(bytes);
        }
    }

    // A host that has been quiet for as long as it takes to fill its bucket is like a newcomer: what is
    // remembered is who asked in the last seconds, not who ever did. Two go for each that comes.
    fn forget_quiet(&mut self, now: Instant, rate: u32, burst: u32) {
        for _ in 0..2 {
            let oldest = self.hosts.oldest();
            if oldest.is_none_or(|(_, bucket)| !bucket.is_full(now, rate, burst)) {
                return;
            }
            self.hosts.pop_oldest();
        }
    }

    fn meter(&mut self, now: Instant, from: IpAddr) -> Option<&mut Meter> {
        // Each /16 has its own. Those of IPv6 share, and nobody can choose with whom.
        let at = match from {
            IpAddr::V4(ip) => ip.to_bits() >> 16,
            IpAddr::V6(_) => mix(key(wide_network(from)) ^ self.key) & 0xffff,
        };
        let meter = self.meters.get_mut(usize::try_from(at).unwrap_or(usize::MAX))?;
        meter.decay(now);
        Some(meter)
    }

    /// Hosts and networks that are remembered.
    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        (self.hosts.len(), self.meters.len())
    }
}

impl Meter {
    fn decay(&mut self, now: Instant) {
        let tenths = u32::try_from(now.as_micros() / 100_000).unwrap_or(u32::MAX);
        let passed = u16::try_from(tenths.saturating_sub(self.when)).unwrap_or(u16::MAX);
        let left = (1.0 - f32::from(passed) / (10.0 * PERIOD_SECS)).max(0.0);
        (self.answers, self.gifts, self.when) = (self.answers * left, self.gifts * left, tenths);
    }
}

// May a network that has had so much draw on a purse that is so full? Of a full one it may have all
// that comes in; of one that is down to a tenth, a ten thousandth.
fn may_draw(had: f32, fill: f64, rate: u32) -> bool {
    let share = fill * fill * fill * fill;
    fill > 0.0 && f64::from(had) <= share * f64::from(PERIOD_SECS) * f64::from(rate)
}

// An IPv6 host has a whole /64 to speak from.
fn host_key(ip: IpAddr) -> u64 {
    key(match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(_) => network(ip),
    })
}

fn key(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 64).expect("the upper half"),
    }
}

// Spreads the bits of a number over 32.
fn mix(n: u64) -> u32 {
    let n = (n ^ (n >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    u32::try_from(n >> 32).expect("the upper half")
}

/// Hosts whose rate is remembered, of 80 bytes each: the one that has not asked for longest goes.
pub(super) const HOSTS_TRACKED_MAX: usize = 16_384;
// With 12 bytes each, three quarters of a megabyte: both together stay below two and a half.
const METERS: usize = 1 << 16;
// What a host may ask at once after a silence, in seconds of its rate.
const BURST_SECS: u32 = 2;
// Answers a second to all who are not known: more than any node of the public network is asked for, and
// at most twenty megabits a second of a line, whatever comes in.
const ANSWERS_RATE: u32 = 25_000;
const ANSWERS_BURST: u32 = 50_000;
// Bytes a second that such answers may be longer than their queries: a thousand answers with contacts.
const GIFTS_RATE: u32 = 256 << 10;
const GIFTS_BURST: u32 = 512 << 10;
// What is remembered of a network, and how full both purses are while nobody needs to be.
const PERIOD_SECS: f32 = 10.0;
const CALM: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    const GIFT: usize = 220;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn limiter() -> Limiter {
        Limiter::new(at(0), &mut Rng::from_seed([2; 32]))
    }

    // Ten seconds of `rate` queries a second from addresses that `source` picks, and four a second
    // from an honest one. What each got: full, brief, nothing.
    fn flood(rate: u64, source: impl Fn(&mut Rng) -> IpAddr) -> ([u32; 3], [u32; 3]) {
        let mut limiter = limiter();
        let mut rng = Rng::from_seed([1; 32]);
        let (mut theirs, mut honest) = ([0; 3], [0; 3]);
        for n in 0..rate * 10 {
            let now = at(n * 1_000_000 / rate);
            let is_honest = n % (rate / 4) == rate / 8;
            let from = source(&mut rng);
            let quiet: IpAddr = match from {
                IpAddr::V4(_) => [9, 9, 9, 9].into(),
                IpAddr::V6(_) => [0x2a09, 9, 9, 9, 9, 9, 9, 9].into(),
            };
            let from = if is_honest { quiet } else { from };
            let counts = if is_honest { &mut honest } else { &mut theirs };
            match limiter.on_query(now, from, 50, || false) {
                Room::Full | Room::Known => {
                    counts[0] += 1;
                    limiter.on_gift(now, from, GIFT);
                }
                Room::Brief => counts[1] += 1,
                Room::Nothing | Room::Crowded => counts[2] += 1,
            }
        }
        (theirs, honest)
    }

    #[test]
    fn one_host_gets_its_rate_and_the_others_do_not_notice() {
        let (theirs, honest) = flood(20_000, |_| ip(0x3030_3030));
        assert!((590..=601).contains(&theirs[0]) && theirs[1] == 0, "{theirs:?}");
        assert_eq!(honest, [40, 0, 0]);
    }

    #[test]
    fn flood_from_64_networks_leaves_the_quiet_ones_their_full_answers() {
        let v4 = |r: &mut Rng| {
            let n = r.u32() % 4_096;
            ip(0x3000_0000 + ((n % 64) << 16) + ((n / 64) << 8))
        };
        let v6 = |r: &mut Rng| {
            let [_, net, host, _] = r.array::<4>().map(u16::from);
            IpAddr::from([0x2a01, net % 64, host, 0, 0, 0, 0, 1])
        };
        for source in [&v4 as &dyn Fn(&mut Rng) -> IpAddr, &v6] {
            for rate in [2_000, 20_000, 80_000] {
                let (theirs, honest) = flood(rate, source);
                assert_eq!(honest, [40, 0, 0], "{rate}");
                assert_is_bounded(rate, theirs);
            }
        }
    }

    #[test]
    fn flood_from_everywhere_leaves_everybody_an_answer() {
        // 4096 networks; all there are, forged.
        let some = |r: &mut Rng| ip(0x3000_0000 + (r.u32() % 4_096) * 0x1_0000);
        let all = |r: &mut Rng| ip(r.u32());
        for source in [&some as &dyn Fn(&mut Rng) -> IpAddr, &all] {
            let (theirs, honest) = flood(20_000, source);
            assert_eq!(honest[2], 0);
            assert_is_bounded(20_000, theirs);
            assert_eq!(theirs[2], 0);
        }
    }

    fn assert_is_bounded(rate: u64, [full, brief, nothing]: [u32; 3]) {
        let allowed = (10 * GIFTS_RATE + GIFTS_BURST) as usize;
        let gifts = full as usize * GIFT;
        assert!(gifts <= allowed + GIFT, "{rate}: {full} in full");
        assert!(gifts > allowed / 4 || brief + nothing == 0, "{rate}: {full} in full");
        assert!(full + brief <= 10 * ANSWERS_RATE + ANSWERS_BURST + 1, "{rate}: {full}, {brief}");
    }

    #[test]
    fn calm_times_know_no_limit_but_that_of_the_host() {
        let (theirs, honest) = flood(800, |r| ip(r.u32()));
        assert_eq!((theirs[1], theirs[2], honest), (0, 0, [40, 0, 0]));
        // One provider may send all of it.
        let (theirs, _) = flood(800, |r| ip(0x3000_0000 + (r.u32() & 0xffff)));
        assert_eq!((theirs[1], theirs[2]), (0, 0));
    }

    #[test]
    fn who_is_known_is_answered_in_full_from_a_flooding_network() {
        let mut limiter = limiter();
        let mut brief = 0;
        for n in 0..100_000u32 {
            let from = ip(0x3000_0000 + n % 60_000);
            let is_known = n % 1_000 == 999;
            match limiter.on_query(at(u64::from(n)), from, 50, || is_known) {
                Room::Full => limiter.on_gift(at(u64::from(n)), from, GIFT),
                Room::Known => assert!(is_known),
                Room::Brief | Room::Nothing | Room::Crowded => {
                    assert!(!is_known);
                    brief += 1;
                }
            }
        }
        assert!(brief > 50_000);
    }

    #[test]
    fn memory_is_bounded() {
        let mut limiter = limiter();
        let mut rng = Rng::from_seed([1; 32]);
        for n in 0..40_000 {
            limiter.on_query(at(n), ip(rng.u32()), 50, || false);
            limiter.on_gift(at(n), ip(rng.u32()), 2_000_000_000);
        }
        assert_eq!(limiter.len(), (HOSTS_TRACKED_MAX, METERS));
    }

    #[test]
    fn quiet_hosts_are_forgotten_as_others_come() {
        let mut limiter = limiter();
        (0..2_000).for_each(|n| _ = limiter.on_query(at(n), ip(0x3000_0000), 50, || false));
        (0..1_000).for_each(|n| _ = limiter.on_query(at(5_000), ip(n << 16), 50, || false));
        // The first has two seconds of its rate to make up for, the others next to nothing.
        (0..400).for_each(|n| _ = limiter.on_query(at(1_000_000), ip(n << 16 | 1), 50, || false));
        assert_eq!(limiter.len().0, 1 + 1_000 + 400);
        (0..600).for_each(|n| _ = limiter.on_query(at(3_000_000), ip(n << 16 | 2), 50, || false));
        assert_eq!(limiter.len().0, 1_401 + 600 - 2 * 600);
    }

    #[test]
    fn whole_64_is_one_host() {
        let mut limiter = limiter();
        let from = |n: u128| IpAddr::V6((0x2001_0db8 << 96 | n).into());
        let heard =
            |limiter: &mut Limiter, n| limiter.on_query(at(0), from(n), 50, || false) == Room::Full;
        assert_eq!((0..1_000).filter(|n| heard(&mut limiter, *n)).count(), 100);
        assert_eq!(limiter.len().0, 1);
        assert_eq!(limiter.on_query(at(1_000_000), from(7), 50, || false), Room::Full);
    }
}
