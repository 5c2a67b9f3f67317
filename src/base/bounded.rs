//! Containers that cannot outgrow their limit, whatever a stranger sends.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::base::Instant;

/// A queue of at most `limit` items. When it is full a new item is refused.
#[derive(Debug, Clone)]
pub struct BoundedQueue<T> {
    items: VecDeque<T>,
    limit: usize,
}

impl<T> BoundedQueue<T> {
    /// An empty queue for at most `limit` items.
    pub fn new(limit: usize) -> Self {
        Self { items: VecDeque::new(), limit }
    }

    /// Appends `item`, or gives it back if the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() >= self.limit {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// The oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }
}

/// Appends to a list that stays as long as it is: its room grows by an eighth, and not to twice what
/// it holds.
pub fn push_snugly<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(GROWTH_MIN));
    }
    list.push(item);
}

const GROWTH_MIN: usize = 4;

// `DefaultHasher::default()` has a fixed key, so that a history replays. A stranger who knows the
// key can make entries collide; the limits keep even the worst chain short.
type FixedState = BuildHasherDefault<DefaultHasher>;

/// A map of at most `limit` entries. When it is full the least recently used entry goes.
#[derive(Debug)]
pub struct LimitedMap<K: Hash + Eq, V>(lru::LruCache<K, V, FixedState>);

impl<K: Hash + Eq, V> LimitedMap<K, V> {
    /// An empty map for at most `limit` entries (at least one).
    pub fn new(limit: usize) -> Self {
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        // Grows on demand: a limit is a bound on memory, not a reservation of it.
        let mut map = lru::LruCache::unbounded_with_hasher(FixedState::default());
        map.resize(limit);
        Self(map)
    }

    /// Inserts and marks as just used. What had to leave, or the value replaced, is returned.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.0.push(key, value)
    }

    /// The value of `key`, marked as just used.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// The value of `key`; its age is left as it is.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.0.peek(key)
    }

    /// The value of `key`, made by `make` if absent, marked as just used.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.0.get_or_insert_mut(key, make)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.pop(key)
    }

    /// The least recently used entry.
    pub fn oldest(&self) -> Option<(&K, &V)> {
        self.0.peek_lru()
    }

    /// Takes the least recently used entry out.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        self.0.pop_lru()
    }

    /// Entries, most recently used first: an order that replays.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Allows `rate` events a second on average and `burst` at once.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    tokens: f64,
    last: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn full(burst: u32, now: Instant) -> Self {
        Self { tokens: f64::from(burst), last: now }
    }

    /// Takes one token if there is one.
    pub fn admit(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        self.admit_many(now, 1.0, rate, burst)
    }

    /// Takes `cost` tokens if there are that many.
    pub fn admit_many(&mut self, now: Instant, cost: f64, rate: u32, burst: u32) -> bool {
        let grown = self.tokens + now.since(self.last).as_secs_f64() * f64::from(rate);
        self.tokens = grown.min(f64::from(burst));
        self.last = now;
        if self.tokens < cost {
            return false;
        }
        self.tokens -= cost;
        true
    }

    /// How full it is, from 0 to 1; below 0 if more was spent than there was.
    pub fn fill(&mut self, now: Instant, rate: u32, burst: u32) -> f64 {
        self.admit_many(now, 0.0, rate, burst);
        self.tokens / f64::from(burst.max(1))
    }

    /// Has it been left alone for so long that it is full again, and so like a new one?
    pub fn is_full(&self, now: Instant, rate: u32, burst: u32) -> bool {
        let grown = self.tokens + now.since(self.last).as_secs_f64() * f64::from(rate);
        grown >= f64::from(burst)
    }

    /// Takes `cost` tokens, whether they are there or not.
    pub fn spend(&mut self, cost: f64) {
        self.tokens -= cost;
    }

    /// How long until `cost` tokens are there, counted from the last `admit`.
    pub fn wait_for(&self, cost: f64, rate: u32) -> Duration {
        let missing = (cost - self.tokens).max(0.0);
        Duration::from_secs_f64(missing / f64::from(rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queue_refuses_and_gives_the_item_back() {
        let mut q = BoundedQueue::new(2);
        assert!(q.push(1).is_ok() && q.push(2).is_ok());
        assert_eq!(q.push(3), Err(3));
        assert_eq!(q.pop(), Some(1));
        assert_eq!(q.len(), 1);
    }

    #[test]
    fn full_map_drops_the_least_recently_used() {
        let mut m = LimitedMap::new(2);
        m.insert("a", 1);
        m.insert("b", 2);
        m.get_mut(&"a");
        assert_eq!(m.insert("c", 3), Some(("b", 2)));
        assert_eq!(m.len(), 2);
        assert_eq!(m.peek(&"a"), Some(&1));
    }

    #[test]
    fn bucket_allows_its_burst_and_then_its_rate() {
        let mut b = TokenBucket::full(2, Instant::ZERO);
        assert!(b.admit(Instant::ZERO, 1, 2) && b.admit(Instant::ZERO, 1, 2));
        assert!(!b.admit(Instant::ZERO, 1, 2));
        assert_eq!(b.wait_for(1.0, 1), Duration::from_secs(1));
        let later = Instant::ZERO + Duration::from_secs(1);
        assert!(b.admit(later, 1, 2));
        b.spend(1.0);
        assert_eq!(b.fill(later, 1, 2), -0.5);
        assert_eq!(b.fill(later + Duration::from_secs(2), 1, 2), 0.5);
    }
}
