//! How many entries each host and each network has, in a size that does not grow with the number of
//! hosts: a count-min sketch. It never says too few; with a million entries it may say ten too many.

use crate::base::Rng;

/// Counts for any number of keys.
#[derive(Debug)]
pub(super) struct Tally {
    // Secret, so that nobody can choose whom to share his counters with.
    key: [u64; 2],
    // Two rows of as many counters each. A key has one in each row; the smaller is its count.
    cells: Vec<u16>,
    entries: usize,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Host(u64),
    Network(u64),
}

impl Tally {
    pub fn new(rng: &mut Rng) -> Self {
        Self { key: [rng.u64(), rng.u64()], cells: Vec::new(), entries: 0 }
    }

    /// Forgets everything, and takes the size that so many entries need.
    pub fn reset(&mut self, entries: usize) {
        let row = (entries / ENTRIES_PER_CELL).next_power_of_two().clamp(ROW_MIN, ROW_MAX);
        self.cells.clear();
        self.cells.resize(2 * row, 0);
        self.cells.shrink_to_fit();
        self.entries = 0;
    }

    /// It would be more exact if it were larger: time to `reset` it and count again.
    pub fn is_small(&self) -> bool {
        self.entries >= self.row() * ENTRIES_PER_CELL && self.row() < ROW_MAX
    }

    /// Nothing was ever counted, or all is forgotten.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub fn heap_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u16>()
    }

    pub fn add(&mut self, whose: Whose) {
        if self.cells.is_empty() {
            self.reset(0);
        }
        for at in self.places(whose) {
            self.cells[at] = self.cells[at].saturating_add(1);
        }
        self.entries += 1;
    }

    /// Takes back what `add` added.
    pub fn remove(&mut self, whose: Whose) {
        for at in self.places(whose) {
            // A counter that reached its end has lost count: it stays there.
            if self.cells[at] != u16::MAX {
                self.cells[at] = self.cells[at].saturating_sub(1);
            }
        }
        self.entries -= 1;
    }

    pub fn count(&self, whose: Whose) -> usize {
        if self.cells.is_empty() {
            return 0;
        }
        let [a, b] = self.places(whose).map(|at| self.cells[at]);
        usize::from(a.min(b))
    }

    fn row(&self) -> usize {
        self.cells.len() / 2
    }

    fn places(&self, whose: Whose) -> [usize; 2] {
        let (key, number) = match whose {
            Whose::Host(number) => (self.key[0], number),
            Whose::Network(number) => (self.key[1], number),
        };
        let hash = fold(fold(number ^ key, ODD) ^ self.key[0], ODD ^ self.key[1]);
        let row = self.row() as u64;
        let within = |hash: u64| usize::try_from(hash & (row - 1)).expect("less than a length");
        [within(hash), self.row() + within(hash >> 32)]
    }
}

// All bits of the product of two numbers, in 64.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let low = u64::try_from(product & u128::from(u64::MAX)).expect("the lower half");
    low ^ u64::try_from(product >> 64).expect("the upper half")
}

// Half of its bits are set, in no order.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
const ENTRIES_PER_CELL: usize = 4;
const ROW_MIN: usize = 32;
/// A megabyte in all: with a million peers, each counted twice, eight in a counter.
const ROW_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_never_too_small_and_rarely_much_too_large() {
        let mut tally = Tally::new(&mut Rng::from_seed([1; 32]));
        tally.reset(100_000);
        for n in 0..100_000u64 {
            tally.add(Whose::Host(n % 50_000));
        }
        (0..300).for_each(|_| tally.add(Whose::Network(7)));
        let over: Vec<usize> = (0..50_000).map(|n| tally.count(Whose::Host(n)) - 2).collect();
        assert!(over.iter().sum::<usize>() < 3 * over.len(), "{}", over.iter().sum::<usize>());
        assert!(tally.count(Whose::Network(7)) - 300 < 20);
        for n in 0..100_000u64 {
            tally.remove(Whose::Host(n % 50_000));
        }
        assert_eq!((tally.count(Whose::Network(7)), tally.entries), (300, 300));
        assert_eq!(tally.count(Whose::Host(7)), 0);
    }

    #[test]
    fn size_follows_the_entries_up_to_its_limit() {
        let mut tally = Tally::new(&mut Rng::from_seed([1; 32]));
        assert_eq!((tally.heap_bytes(), tally.count(Whose::Host(1))), (0, 0));
        (0..128).for_each(|n| tally.add(Whose::Host(n)));
        assert!(tally.is_small());
        tally.reset(128);
        assert!(!tally.is_small());
        tally.reset(usize::MAX / 2);
        assert_eq!(tally.heap_bytes(), 1 << 20);
        (0..70_000).for_each(|_| tally.add(Whose::Host(1)));
        assert!(!tally.is_small());
        assert_eq!(tally.count(Whose::Host(1)), usize::from(u16::MAX));
    }
}
