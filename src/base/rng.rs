//! Chance, drawn from a seed that the host gives. One seed, one history: the simulator replays a
//! failure by its seed alone, and the driver draws the seed from the system's entropy once.
//!
//! The generator is cryptographic (ChaCha): transaction ids and token secrets come from it.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// 32 bytes from which all chance of a core follows.
pub type Seed = [u8; 32];

/// A seeded random source, owned by one core.
#[derive(Debug)]
pub struct Rng(StdRng);

impl Rng {
    /// A source whose history is fixed by `seed`.
    pub fn from_seed(seed: Seed) -> Self {
        Rng(StdRng::from_seed(seed))
    }

    /// A seed for a child that shares no history with this source.
    pub fn fork(&mut self) -> Seed {
        self.array()
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        // Multiply-shift: the bias is below 2^-32 for every bound that fits memory here.
        let wide = u128::from(self.0.next_u64()) * bound as u128;
        (wide >> 64) as usize
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of `items`, or `None` if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Brings `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_history() {
        let (mut a, mut b) = (Rng::from_seed([7; 32]), Rng::from_seed([7; 32]));
        for _ in 0..100 {
            assert_eq!(a.u64(), b.u64());
        }
        assert_eq!(a.fork(), b.fork());
    }

    #[test]
    fn below_stays_in_range_and_reaches_every_value() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[rng.below(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.pick::<u8>(&[]), None);
    }
}
