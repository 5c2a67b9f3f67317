//! Datagrams that wait to be sent, back to back in one buffer that is used again and again: writing
//! one allocates nothing once the buffer has grown, and a host hands all of them to the system in
//! one call.

use std::net::SocketAddr;

/// A bounded queue of datagrams. When it is full a new one is refused.
#[derive(Debug)]
pub struct DatagramQueue {
    bytes: Vec<u8>,
    // Where each goes and where in `bytes` it ends; those before `taken` are gone.
    ends: Vec<(SocketAddr, usize)>,
    taken: usize,
    limit: usize,
}

impl DatagramQueue {
    /// An empty queue for at most `limit` datagrams.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), taken: 0, limit }
    }

    /// Appends the datagram that `write` appends to the buffer, and tells its length; `None` if the
    /// queue is full, and then `write` is not called.
    pub fn push_with(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        if self.len() >= self.limit {
            return None;
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        assert!(self.bytes.len() >= start, "a writer appends");
        self.ends.push((to, self.bytes.len()));
        Some(self.bytes.len() - start)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.ends.len() - self.taken
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that wait, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SocketAddr, &[u8])> {
        (self.taken..self.ends.len())
            .map(|at| (self.ends[at].0, &self.bytes[self.start(at)..self.ends[at].1]))
    }

    /// Forgets them and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.taken = 0;
    }

    /// Takes the oldest out, for a host that keeps each by itself. With the last one the buffer
    /// goes as well: a world of many nodes does not pay for a hundred thousand idle ones.
    pub fn pop(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let (to, end) = *self.ends.get(self.taken)?;
        let start = self.start(self.taken);
        self.taken += 1;
        if !self.is_empty() {
            return Some((to, self.bytes[start..end].to_vec()));
        }
        let mut last = std::mem::take(&mut self.bytes);
        self.clear();
        last.drain(..start);
        Some((to, last))
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([1, 2, 3, 4], port))
    }

    #[test]
    fn datagrams_come_out_as_they_went_in() {
        let mut queue = DatagramQueue::new(3);
        for (port, text) in [(1, &b"one"[..]), (2, b""), (3, b"three")] {
            assert_eq!(queue.push_with(to(port), |out| out.extend(text)), Some(text.len()));
        }
        let all: Vec<_> = queue.iter().collect();
        assert_eq!(all, [(to(1), &b"one"[..]), (to(2), b""), (to(3), b"three")]);
        assert_eq!(queue.pop(), Some((to(1), b"one".to_vec())));
        assert_eq!(queue.iter().len(), 2);
        assert_eq!(queue.pop(), Some((to(2), Vec::new())));
        assert_eq!(queue.pop(), Some((to(3), b"three".to_vec())));
        assert_eq!((queue.pop(), queue.is_empty()), (None, true));
    }

    #[test]
    fn full_queue_refuses_until_it_is_drained() {
        let mut queue = DatagramQueue::new(2);
        assert!(queue.push_with(to(1), |out| out.push(1)).is_some());
        assert!(queue.push_with(to(2), |out| out.push(2)).is_some());
        assert_eq!(queue.push_with(to(3), |_| unreachable!("it is full")), None);
        queue.pop();
        assert!(queue.push_with(to(3), |out| out.push(3)).is_some());
        queue.clear();
        assert_eq!(queue.push_with(to(4), |out| out.push(4)), Some(1));
        assert_eq!(queue.iter().collect::<Vec<_>>(), [(to(4), &[4u8][..])]);
    }
}
