//! What happened, as one number: two runs of the same seed must agree on it. And the last events in
//! clear, to be printed when a scenario fails.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::base::Instant;
use crate::sim::HostId;

/// A running hash over all events, and the last few of them.
#[derive(Debug)]
pub struct Trace {
    hash: SipHasher13,
    events: u64,
    recent: VecDeque<Entry>,
}

/// One event.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Instant,
    host: HostId,
    what: &'static str,
    bytes: usize,
}

impl Trace {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self { hash: SipHasher13::new(), events: 0, recent: VecDeque::new() }
    }

    /// Records that `what` happened to `host`, with its bytes.
    pub fn record(&mut self, at: Instant, host: HostId, what: &'static str, bytes: &[u8]) {
        self.events += 1;
        self.hash.write_u64(at.as_micros());
        self.hash.write_u32(host.0);
        self.hash.write(what.as_bytes());
        self.hash.write_usize(bytes.len());
        self.hash.write(bytes);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Entry { at, host, what, bytes: bytes.len() });
    }

    /// The number that stands for everything so far.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// How many events were recorded.
    pub fn events(&self) -> u64 {
        self.events
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Trace {
    /// The last events, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { at, host, what, bytes } in &self.recent {
            writeln!(f, "{at:?} host {} {what} ({bytes} bytes)", host.0)?;
        }
        write!(f, "{} events, trace {:016x}", self.events, self.hash())
    }
}

/// Events kept in clear: a few round trips of a few hosts.
const RECENT_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_counts() {
        let at = Instant::from_micros;
        let hash = |time, host, what, bytes: &[u8]| {
            let mut trace = Trace::new();
            trace.record(at(time), HostId(host), what, bytes);
            trace.hash()
        };
        let base = hash(1, 2, "datagram", b"x");
        assert_eq!(base, hash(1, 2, "datagram", b"x"));
        for other in [
            hash(2, 2, "datagram", b"x"),
            hash(1, 3, "datagram", b"x"),
            hash(1, 2, "frame", b"x"),
            hash(1, 2, "datagram", b"y"),
        ] {
            assert_ne!(base, other);
        }
    }
}
