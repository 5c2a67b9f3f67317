//! How many nodes there are, and so how near the nearest to a key should be.
//!
//! Ids are spread evenly, so the i-th nearest of N nodes lies at about i/N of the key space. Each lookup
//! that ends gives one estimate, and the median of many is what counts: whoever sits around one key
//! changes the estimate of that key alone. Far more nodes near a key than there should be have not come
//! there by chance: more than the estimate lets expect is a [`crowd`], more than right beside it a
//! [`cluster`]. The first is known while a lookup runs, and wrong if the network has grown since; the
//! second needs no estimate, but all nodes around the key.

use std::collections::VecDeque;

use super::bucket::K;
use crate::base::Distance;

/// How many nodes there are, from the lookups of late.
#[derive(Debug, Default)]
pub(super) struct Size {
    // The share of the key space that one answering node has to itself.
    spacings: VecDeque<f64>,
    // Of the nodes that were asked, the share that answered.
    alive: VecDeque<f64>,
}

/// What a lookup may expect around its target.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Density {
    /// Nodes in the whole key space that answer, if that is known.
    pub answering: Option<f64>,
    /// Nodes that others name, those included that do not answer: as many at most. `None` if the
    /// lookup shall judge nobody by it.
    pub named: Option<f64>,
}

impl Density {
    /// The share of the named nodes that answers, if that is known.
    pub fn alive(&self) -> Option<f64> {
        Some(self.answering? / self.named?)
    }
}

impl Size {
    /// A lookup ended, and these are the closest that answered, closest first, as shares of the key
    /// space; `asked` nodes were asked in all and `answered` did.
    pub fn on_lookup(&mut self, closest: &[f64], asked: usize, answered: usize) {
        if closest.len() < K || asked == 0 {
            return;
        }
        // Least squares: the line through zero on which distance grows with rank.
        let ranked = || (1u32..).map(f64::from).zip(closest.iter().take(K));
        let up: f64 = ranked().map(|(rank, distance)| rank * distance).sum();
        let down: f64 = ranked().map(|(rank, _)| rank * rank).sum();
        push(&mut self.spacings, up / down);
        push(&mut self.alive, answered as f64 / asked as f64);
    }

    /// How many nodes answer; `None` before enough lookups. If the last few all say that there are more
    /// than the median of all does, the network has grown. That it has shrunk is believed later: who
    /// takes it for too large is only less suspicious.
    pub fn answering(&self) -> Option<f64> {
        let late = self.spacings.iter().rev().take(GROWTH_SAMPLES).copied().fold(0.0, f64::max);
        (self.spacings.len() >= SAMPLES_MIN).then(|| 1.0 / median(&self.spacings).min(late))
    }

    /// What a lookup that starts now may expect.
    pub fn density(&self) -> Density {
        let answering = self.answering();
        let named = answering.map(|n| n / median(&self.alive).clamp(ALIVE_MIN, 1.0));
        Density { answering, named: Some(named.unwrap_or(NAMED_ASSUMED)) }
    }
}

fn push(ring: &mut VecDeque<f64>, value: f64) {
    if ring.len() >= SAMPLES_MAX {
        ring.pop_front();
    }
    ring.push_back(value);
}

fn median(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(1.0)
}

/// The share of the key space that is nearer than `distance`.
pub(super) fn share(distance: &Distance) -> f64 {
    distance.as_bytes().iter().rev().fold(0.0, |rest, byte| (rest + f64::from(*byte)) / 256.0)
}

/// How many of the nodes at these shares of the key space (closest first) are more than chance puts
/// there, if there are `nodes` in all of it: unless it may have grown since, and there are as many
/// right beyond them. Zero as a rule; else all up to the last that is too many.
pub(super) fn crowd(shares: impl Iterator<Item = f64> + Clone, nodes: f64) -> usize {
    let (mut crowd, mut edge) = (0, 0.0);
    for (count, share) in (1u32..).zip(shares.clone()) {
        // Those beyond the crowd so far, and how many belong there. Who was found out does not
        // incriminate the next.
        let (found, due) = (f64::from(count - crowd), nodes * (share - edge));
        if due >= found.min(DUE_MAX) {
            break;
        }
        let stands_out = || {
            let beyond = shares.clone().skip(usize::try_from(count).unwrap_or(usize::MAX));
            let (others, reach) =
                beyond.take(BESIDE).fold((-1.0, share), |(others, _), share| (others + 1.0, share));
            reach > share && imbalance(found, others, (share - edge) / (reach - edge)) > SURPRISE
        };
        let too_many = |due: f64| surprise(found, due) > SURPRISE;
        if too_many(due) && (too_many(due * GROWTH_MAX) || stands_out()) {
            (crowd, edge) = (count, share);
        }
    }
    usize::try_from(crowd).unwrap_or(usize::MAX)
}

// Chernoff's bound on the chance that a Poisson number of mean `due` is as large as `found`: it is
// less likely than e to minus this.
fn surprise(found: f64, due: f64) -> f64 {
    if found <= due { 0.0 } else { found * (found / due.max(f64::MIN_POSITIVE)).ln() - found + due }
}

/// How many of the nearest `within` of the nodes at these shares of the key space (closest first, and
/// all that there are) stand far closer together than those right beyond them. Zero as a rule. It holds
/// for a network of any size.
pub(super) fn cluster(shares: &[f64], within: usize) -> usize {
    let (mut cluster, mut edge) = (0, 0.0);
    for count in 1..=within {
        let Some((inside, beyond)) = shares.split_at_checked(count) else { break };
        let beyond = &beyond[..beyond.len().min(BESIDE)];
        let (Some(near), Some(reach)) = (inside.last(), beyond.last()) else { break };
        if beyond.len() < BESIDE_MIN {
            break;
        }
        // If the last of these is where it is, chance puts each of the others into the inner part
        // as often as that part is of the whole.
        let part = (near - edge) / (reach - edge);
        let (found, others) = ((count - cluster) as f64, (beyond.len() - 1) as f64);
        let is_dense = found * (1.0 - part) >= CONTRAST_MIN * (others + 1.0) * part;
        if is_dense && imbalance(found, others, part) > SURPRISE_BESIDE {
            (cluster, edge) = (count, *near);
        }
    }
    cluster
}

// Chernoff's bound again, on the chance that of `found` and `others` together so many are in a part of
// that size, if each is there as often as the part is of the whole.
fn imbalance(found: f64, others: f64, part: f64) -> f64 {
    let all = found + others;
    if found <= all * part {
        return 0.0;
    }
    let term = |count: f64, due: f64| {
        if count > 0.0 { count * (count / due.max(f64::MIN_POSITIVE)).ln() } else { 0.0 }
    };
    term(found, all * part) + term(others, all * (1.0 - part))
}

/// Lookups remembered: an attacker on one key in ten changes nothing, a growing network does.
const SAMPLES_MAX: usize = 32;
const SAMPLES_MIN: usize = 3;
// So many of the last lookups together are believed that there are more nodes than before. Chance lets
// four of them err to the same side once in sixteen times, and not by much.
const GROWTH_SAMPLES: usize = 4;
// Fewer than that answer nowhere.
const ALIVE_MIN: f64 = 0.1;
// Before we know better: more than there have ever been on the public network.
const NAMED_ASSUMED: f64 = 5e7;
// Nearer than where so many belong. Farther away an estimate that is wrong by a half would show.
const DUE_MAX: f64 = 2.0;
// One key in a million is crowded by chance: e^14.
const SURPRISE: f64 = 14.0;
// The bound is less good with so few: chance makes a cluster at fewer than one key in two thousand.
const SURPRISE_BESIDE: f64 = 11.0;
// Those beyond that a crowd is compared with: more reach to where not all are known.
const BESIDE: usize = 8;
const BESIDE_MIN: usize = 4;
// As many times as an estimate there are at most. A network that joins at once grows as much between two
// lookups; an attacker who feigns it comes five bits nearer than others, and no more.
const GROWTH_MAX: f64 = 32.0;
// Of nodes farther away fewer are known: half of them, perhaps.
const CONTRAST_MIN: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    // The shares of the `count` nearest of `nodes` nodes, sorted.
    fn nearest(rng: &mut Rng, nodes: u32, count: usize) -> Vec<f64> {
        let mut all: Vec<f64> = (0..nodes).map(|_| rng.unit()).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.truncate(count);
        all
    }

    #[test]
    fn share_halves_with_each_bit() {
        let mut bytes = [0; 20];
        bytes[0] = 0x80;
        assert_eq!(share(&Distance::new(bytes)), 0.5);
        bytes[0] = 0x40;
        assert_eq!(share(&Distance::new(bytes)), 0.25);
        bytes = [0; 20];
        bytes[19] = 1;
        assert_eq!(share(&Distance::new(bytes)), 2f64.powi(-160));
    }

    #[test]
    fn size_is_estimated_within_a_fifth_whoever_sits_on_some_keys() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut size = Size::default();
        assert_eq!(size.answering(), None);
        for lookup in 0..SAMPLES_MAX {
            let mut closest = nearest(&mut rng, 20_000, K);
            if lookup % 5 == 0 {
                closest.iter_mut().for_each(|share| *share /= 1e6);
            }
            size.on_lookup(&closest, 40, 30);
        }
        let n = size.answering().unwrap();
        assert!((16_000.0..26_000.0).contains(&n), "{n}");
        let named = size.density().named.unwrap();
        assert!((named / n - 4.0 / 3.0).abs() < 0.01, "{named}");
    }

    #[test]
    fn lookup_with_few_answers_says_nothing() {
        let mut size = Size::default();
        (0..10).for_each(|_| size.on_lookup(&[0.1; K - 1], 40, 7));
        assert_eq!(size.answering(), None);
    }

    #[test]
    fn chance_makes_no_crowd_and_an_attacker_does() {
        let mut rng = Rng::from_seed([2; 32]);
        for _ in 0..300 {
            let honest = nearest(&mut rng, 10_000, 100);
            assert_eq!(crowd(honest.iter().copied(), 10_000.0), 0);
            // Too low an estimate is no harm.
            assert_eq!(crowd(honest.iter().copied(), 6_700.0), 0);
            for sybils in [2, 8, 64] {
                let near = (1..=sybils).map(|n| f64::from(n) * 2f64.powi(-34));
                let all: Vec<f64> = near.chain(honest.iter().copied()).collect();
                let crowd = crowd(all.iter().copied(), 10_000.0);
                // All of them but the last, perhaps, and nobody else.
                let sybils = usize::try_from(sybils).unwrap();
                assert!((sybils - 1..=sybils + 1).contains(&crowd), "{crowd} of {sybils}");
            }
        }
    }

    #[test]
    fn growth_is_believed_after_four_lookups_and_shrinkage_after_most() {
        let mut rng = Rng::from_seed([5; 32]);
        let mut size = Size::default();
        let mut look_up = |size: &mut Size, nodes: f64, times: usize| {
            (0..times).for_each(|_| size.on_lookup(&spread(&mut rng, nodes, K), 40, 30));
            size.answering().unwrap()
        };
        assert!(look_up(&mut size, 1e3, SAMPLES_MAX) < 2e3);
        assert!(look_up(&mut size, 1e5, GROWTH_SAMPLES - 1) < 2e3, "three may be an attacker's");
        assert!(look_up(&mut size, 1e5, 1) > 4e4);
        assert!(look_up(&mut size, 1e5, SAMPLES_MAX) > 7e4);
        assert!(look_up(&mut size, 1e3, SAMPLES_MAX / 3) > 5e4);
        assert!(look_up(&mut size, 1e3, SAMPLES_MAX) < 2e3);
    }

    // The shares of the nearest `count`, if there are very many that are spread evenly.
    fn spread(rng: &mut Rng, nodes: f64, count: usize) -> Vec<f64> {
        let mut reach = 0.0;
        let mut next = || {
            reach -= (1.0 - rng.unit()).ln() / nodes;
            reach
        };
        (0..count).map(|_| next()).collect()
    }

    // Whatever the size, and known to nobody: fewer than one lookup in two thousand takes chance for an
    // attacker, and each of those that an attacker meets is found out.
    #[test]
    fn chance_makes_no_cluster_and_an_attacker_does() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut alarms = 0;
        for round in 0..40_000 {
            let nodes = 10f64.powf(2.0 + f64::from(round % 5));
            let honest = spread(&mut rng, nodes, 60);
            alarms += usize::from(cluster(&honest, 60) > 0);
        }
        println!("{alarms} false alarms in 40,000 lookups");
        assert!(alarms < 20, "{alarms}");
        for nodes in [1e2, 1e4, 1e6] {
            for (sybils, bits) in [(8u32, 30), (16, 45), (64, 60), (2, 34), (1, 48)] {
                let near = (1..=sybils).map(|n| f64::from(n) / 64.0 * 2f64.powi(-bits));
                let all: Vec<f64> = near.chain(spread(&mut rng, nodes, 16)).collect();
                let found = cluster(&all, all.len());
                assert_eq!(found, sybils as usize, "2^-{bits} of {nodes}");
            }
        }
    }

    // Who joined when there were fifty, and looks something up among a thousand.
    #[test]
    fn network_that_has_grown_makes_no_crowd() {
        let mut rng = Rng::from_seed([4; 32]);
        let alarms = (0..10_000).filter(|_| crowd(spread(&mut rng, 1e3, 40).into_iter(), 5e1) > 0);
        assert!(alarms.count() <= 1);
    }

    #[test]
    fn one_that_claims_to_be_right_at_the_key_is_a_crowd() {
        assert_eq!(crowd([2f64.powi(-150), 0.001].into_iter(), 5e7), 1);
        assert_eq!(crowd([2f64.powi(-28), 0.001].into_iter(), 5e7), 0);
        assert_eq!(crowd(std::iter::empty(), 5e7), 0);
    }
}
