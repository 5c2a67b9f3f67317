//! How many nodes there are, and so how near the nearest to a key should be.
//!
//! Ids are spread evenly, so the i-th nearest of N nodes lies at about i/N of the key space. Each lookup
//! that ends gives one estimate, and the median of many is what counts: whoever sits around one key
//! changes the estimate of that key alone. Far more nodes near a key than there should be have not come
//! there by chance; see [`crowd`].

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

    /// How many nodes answer; `None` before enough lookups.
    pub fn answering(&self) -> Option<f64> {
        (self.spacings.len() >= SAMPLES_MIN).then(|| 1.0 / median(&self.spacings))
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
/// there, if there are `nodes` in all of it. Zero as a rule; else all up to the last that is too many.
pub(super) fn crowd(shares: impl Iterator<Item = f64>, nodes: f64) -> usize {
    let (mut crowd, mut reach) = (0, 0.0);
    for (count, share) in (1u32..).zip(shares) {
        // Those beyond the crowd so far, and how many belong there. Who was found out does not
        // incriminate the next.
        let (found, due) = (f64::from(count - crowd), nodes * share - reach);
        if due >= found.min(DUE_MAX) {
            break;
        }
        // Chernoff's bound on the chance that a Poisson number of this mean is as large.
        let due_at_least = due.max(f64::MIN_POSITIVE);
        if found * (found / due_at_least).ln() - found + due > SURPRISE {
            (crowd, reach) = (count, nodes * share);
        }
    }
    usize::try_from(crowd).unwrap_or(usize::MAX)
}

/// Lookups remembered: an attacker on one key in ten changes nothing, a growing network does.
const SAMPLES_MAX: usize = 32;
const SAMPLES_MIN: usize = 3;
// Fewer than that answer nowhere.
const ALIVE_MIN: f64 = 0.1;
// Before we know better: more than there have ever been on the public network.
const NAMED_ASSUMED: f64 = 5e7;
// Nearer than where so many belong. Farther away an estimate that is wrong by a half would show.
const DUE_MAX: f64 = 2.0;
// One key in a million is crowded by chance: e^14.
const SURPRISE: f64 = 14.0;

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
    fn one_that_claims_to_be_right_at_the_key_is_a_crowd() {
        assert_eq!(crowd([2f64.powi(-150), 0.001].into_iter(), 5e7), 1);
        assert_eq!(crowd([2f64.powi(-28), 0.001].into_iter(), 5e7), 0);
        assert_eq!(crowd(std::iter::empty(), 5e7), 0);
    }
}
