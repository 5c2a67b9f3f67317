//! Virtual time: what will happen, in order. Two events of the same moment happen in the order in
//! which they were planned, so that a history has one order only.
//!
//! A calendar: a ring of days of a millisecond for what happens in the next seconds, a heap for what
//! is later, and a heap for today. A hundred thousand planned events cost as little as a hundred.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::Instant;

/// A queue of future events.
#[derive(Debug)]
pub struct Queue<E> {
    // What is planned for `day` or before it.
    today: BinaryHeap<Reverse<Entry>>,
    day: u64,
    // The days after it, each at its number modulo the length.
    ring: Vec<Vec<Reverse<Entry>>>,
    in_ring: usize,
    // The days after those of the ring.
    later: BinaryHeap<Reverse<Entry>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
    now: Instant,
}

// When, the number that orders one moment, and where the event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    number: u64,
    event: u32,
}

impl Entry {
    fn day(&self) -> u64 {
        self.at.as_micros() / DAY_MICROS
    }
}

impl<E> Queue<E> {
    /// Nothing is planned; the time is zero.
    pub fn new() -> Self {
        Self {
            today: BinaryHeap::new(),
            day: 0,
            ring: (0..DAYS).map(|_| Vec::new()).collect(),
            in_ring: 0,
            later: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            planned: 0,
            now: Instant::ZERO,
        }
    }

    /// The time of the last event that happened.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Plans an event. What should have happened already happens next.
    pub fn plan(&mut self, at: Instant, event: E) {
        let slot = self.keep(event);
        let entry = Entry { at: at.max(self.now), number: self.planned, event: slot };
        self.planned += 1;
        let day = entry.day();
        if day <= self.day {
            self.today.push(Reverse(entry));
        } else if day - self.day < DAYS as u64 {
            self.ring[place(day)].push(Reverse(entry));
            self.in_ring += 1;
        } else {
            self.later.push(Reverse(entry));
        }
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Instant> {
        if let Some(Reverse(next)) = self.today.peek() {
            return Some(next.at);
        }
        let later = self.later.peek().map(|Reverse(next)| next.at);
        let ring = self.next_day_of_ring().and_then(|day| self.ring[place(day)].iter().max());
        crate::base::time::soonest(ring.map(|Reverse(next)| next.at), later)
    }

    /// Lets time go on to the next event, if that is not after `end`.
    pub fn pop_until(&mut self, end: Instant) -> Option<E> {
        if self.today.is_empty() {
            self.begin_day();
        }
        if self.today.peek()?.0.at > end {
            return None;
        }
        let Reverse(entry) = self.today.pop()?;
        self.now = entry.at;
        self.free.push(entry.event);
        self.events[entry.event as usize].take()
    }

    /// Lets time go on to `end`; every earlier event must have happened.
    pub fn advance_to(&mut self, end: Instant) {
        assert!(self.next_at().is_none_or(|at| at > end), "no event is skipped");
        self.now = self.now.max(end);
    }

    /// How many events are planned.
    pub fn len(&self) -> usize {
        self.today.len() + self.in_ring + self.later.len()
    }

    /// True if nothing will ever happen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn keep(&mut self, event: E) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.events[slot as usize] = Some(event);
            return slot;
        }
        self.events.push(Some(event));
        u32::try_from(self.events.len() - 1).expect("fewer events wait than memory holds")
    }

    // The next day for which something is planned is today.
    fn begin_day(&mut self) {
        let later = self.later.peek().map(|Reverse(next)| next.day());
        let Some(day) = self.next_day_of_ring().into_iter().chain(later).min() else { return };
        self.day = day;
        let planned = &mut self.ring[place(day)];
        // What is here is planned for this very day: the ring holds no second one of that place.
        self.in_ring -= planned.len();
        self.today.extend(planned.drain(..));
        while let Some(Reverse(next)) = self.later.peek()
            && next.day() <= day
        {
            self.today.extend(self.later.pop());
        }
    }

    fn next_day_of_ring(&self) -> Option<u64> {
        if self.in_ring == 0 {
            return None;
        }
        (self.day + 1..self.day + DAYS as u64).find(|day| !self.ring[place(*day)].is_empty())
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

fn place(day: u64) -> usize {
    usize::try_from(day % DAYS as u64).expect("below the length of the ring")
}

const DAY_MICROS: u64 = 1_024;
/// Together eight seconds: the ticks and timeouts of a node, and all that is on its way.
const DAYS: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_happen_in_order_of_time_then_of_planning() {
        let mut queue = Queue::new();
        let at = Instant::from_micros;
        for (time, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd'), (9, 'e')] {
            queue.plan(at(time), event);
        }
        let early: String = std::iter::from_fn(|| queue.pop_until(at(5))).collect();
        assert_eq!(early, "bdac");
        queue.advance_to(at(7));
        queue.plan(at(1), 'f');
        assert_eq!(queue.pop_until(at(20)), Some('f'));
        assert_eq!(queue.now(), at(7), "time never goes back");
        assert_eq!((queue.pop_until(at(20)), queue.pop_until(at(20))), (Some('e'), None));
    }

    // Against the plainest queue there is, over steps from microseconds to days.
    #[test]
    fn calendar_keeps_the_order_of_a_sorted_list() {
        let mut rng = crate::base::Rng::from_seed([3; 32]);
        let mut queue = Queue::new();
        let mut sorted = std::collections::BTreeSet::new();
        for number in 0..30_000u64 {
            let ahead = rng.u64() % (1 << (3 + rng.below(35)));
            let at = Instant::from_micros(queue.now().as_micros() + ahead);
            queue.plan(at, number);
            sorted.insert((at, number));
            assert_eq!(queue.next_at(), sorted.first().map(|(at, _)| *at));
            for _ in 0..rng.below(3) {
                let end = queue.now() + std::time::Duration::from_millis(rng.below(9_000) as u64);
                let next = sorted.first().copied().filter(|(at, _)| *at <= end);
                assert_eq!(queue.pop_until(end), next.map(|(_, number)| number));
                match next {
                    Some(next) => {
                        sorted.remove(&next);
                        assert_eq!(queue.now(), next.0);
                    }
                    None => queue.advance_to(end),
                }
            }
            assert_eq!(queue.len(), sorted.len());
        }
        assert!(queue.events.len() < 16_000, "places are used again: {}", queue.events.len());
    }
}
