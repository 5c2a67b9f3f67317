//! Virtual time: what will happen, in order. Two events of the same moment happen in the order in
//! which they were planned, so that a history has one order only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::Instant;

/// A queue of future events.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    planned: u64,
    now: Instant,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    /// Nothing is planned; the time is zero.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0, now: Instant::ZERO }
    }

    /// The time of the last event that happened.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Plans an event. What should have happened already happens next.
    pub fn plan(&mut self, at: Instant, event: E) {
        let entry = Entry { at: at.max(self.now), number: self.planned, event };
        self.planned += 1;
        self.heap.push(Reverse(entry));
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Lets time go on to the next event, if that is not after `end`.
    pub fn pop_until(&mut self, end: Instant) -> Option<E> {
        if self.next_at()? > end {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// Lets time go on to `end`; every earlier event must have happened.
    pub fn advance_to(&mut self, end: Instant) {
        assert!(self.next_at().is_none_or(|at| at > end), "no event is skipped");
        self.now = self.now.max(end);
    }

    /// How many events are planned.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True if nothing will ever happen.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

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
}
