//! What is remembered for a while and then forgotten, by key, in little memory: a tree, and no list of
//! who is the oldest. What is too old is looked for when there is an eighth more than there was,
//! and when an eighth of its time has passed since the last look: each new entry pays for a few steps.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::Instant;

/// Something that happened at a time, lately.
pub trait Dated {
    /// When that was.
    fn when(&self) -> Instant;
}

impl Dated for Instant {
    fn when(&self) -> Instant {
        *self
    }
}

/// A map of at most `limit` entries, which are forgotten after `memory` or a little later. When it is
/// full the oldest eighth goes.
#[derive(Debug)]
pub struct RecentMap<K, V> {
    entries: BTreeMap<K, V>,
    limit: usize,
    memory: Duration,
    tidied_at: Instant,
    tidy_beyond: usize,
}

impl<K: Ord + Copy, V: Dated> RecentMap<K, V> {
    /// Empty.
    pub const fn new(limit: usize, memory: Duration) -> Self {
        let entries = BTreeMap::new();
        Self { entries, limit, memory, tidied_at: Instant::ZERO, tidy_beyond: 0 }
    }

    /// The entries by key, some that are too old among them.
    pub fn entries(&self) -> &BTreeMap<K, V> {
        &self.entries
    }

    /// The value of `key`, however old it is.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Sets the value of `key`; the one that it had.
    pub fn insert(&mut self, now: Instant, key: K, value: V) -> Option<V> {
        let before = self.entries.insert(key, value);
        if before.is_none() {
            self.keep_within_bounds(now);
        }
        before
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// How many entries there are, some that are too old among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn keep_within_bounds(&mut self, now: Instant) {
        let is_full = self.entries.len() > self.limit;
        let is_late = now.since(self.tidied_at) >= self.memory / 8;
        if !is_full && !is_late && self.entries.len() <= self.tidy_beyond {
            return;
        }
        let memory = self.memory;
        self.entries.retain(|_, value| now.since(value.when()) < memory);
        if self.entries.len() > self.limit {
            self.drop_oldest(self.limit / 8 + 1);
        }
        self.tidied_at = now;
        self.tidy_beyond = self.entries.len() + self.entries.len() / 8 + GROWTH_MIN;
    }

    fn drop_oldest(&mut self, count: usize) {
        let mut times: Vec<Instant> = self.entries.values().map(Dated::when).collect();
        let at = count.min(times.len()) - 1;
        let (older, last, _) = times.select_nth_unstable(at);
        let last = *last;
        // Several may be of the same moment as the last that has to go.
        let mut spared = older.iter().filter(|when| **when < last).count();
        spared = count - spared;
        self.entries.retain(|_, value| {
            let goes = value.when() < last || (value.when() == last && spared > 0);
            spared -= usize::from(goes && value.when() == last);
            !goes
        });
    }
}

const GROWTH_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    const MEMORY: Duration = Duration::from_secs(80);

    #[test]
    fn what_is_old_is_gone_soon_after() {
        let mut map = RecentMap::new(1_000, MEMORY);
        for n in 0..1_000u64 {
            map.insert(at(n), n, at(n));
            assert!(map.len() <= 80 + 10 + GROWTH_MIN, "{} at {n}", map.len());
            let oldest = n.saturating_sub(79);
            assert!((oldest..=n).all(|n| map.get(&n) == Some(&at(n))), "{n}");
        }
        map.insert(at(5_000), 7, at(5_000));
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn full_map_forgets_the_oldest() {
        let mut map = RecentMap::new(800, MEMORY);
        for n in 0..20_000u64 {
            map.insert(at(2), n, at(1 + n / 10_000));
            assert!(map.len() <= 800);
            assert!(map.get(&n).is_some() || n < 10_000, "{n} is not older than others");
        }
        assert!(map.len() >= 700 && map.get(&0).is_none());
    }

    #[test]
    fn entry_that_is_set_again_is_no_new_one() {
        let mut map = RecentMap::new(2, MEMORY);
        assert_eq!((map.insert(at(0), 1, at(0)), map.insert(at(1), 1, at(1))), (None, Some(at(0))));
        map.insert(at(1), 2, at(1));
        assert_eq!((map.len(), map.remove(&1), map.remove(&1)), (2, Some(at(1)), None));
        assert!(map.get_mut(&2).is_some() && !map.is_empty());
    }
}
