//! What stands between a host and the network: who reaches it depends on whom it wrote to.
//!
//! Datagrams only; a dial finds every host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::chance::mix;
use crate::base::Instant;
use crate::base::addr::PackedAddr;

/// Kinds of address translation and filtering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nat {
    /// Everybody reaches it.
    #[default]
    Open,
    /// Everybody reaches it while it writes to somebody now and then.
    FullCone,
    /// Only those reach it to whose very endpoint it wrote a short time ago.
    Restricted,
    /// As restricted, and each endpoint sees it at another port.
    Symmetric,
    /// As restricted, with a shorter memory.
    Firewall,
}

impl Nat {
    /// True if strangers get through, as long as it is not silent.
    pub fn is_reachable(self) -> bool {
        match self {
            Nat::Open | Nat::FullCone => true,
            Nat::Restricted | Nat::Symmetric | Nat::Firewall => false,
        }
    }

    fn memory(self) -> Duration {
        match self {
            Nat::Open => Duration::MAX,
            Nat::FullCone | Nat::Restricted | Nat::Symmetric => MAPPING_LIFE,
            Nat::Firewall => FIREWALL_LIFE,
        }
    }
}

/// The translator of one host, with what it remembers.
#[derive(Debug, Default)]
pub(super) struct Gate {
    nat: Nat,
    written: BTreeMap<PackedAddr, Instant>,
    last: Option<Instant>,
    // Remembered endpoints that were fresh when it was last tidied up.
    kept: usize,
}

impl Gate {
    pub fn new(nat: Nat) -> Self {
        Self { nat, ..Self::default() }
    }

    pub fn nat(&self) -> Nat {
        self.nat
    }

    /// A datagram goes from `own` to `to`: here is where `to` will see it come from.
    pub fn on_sent(&mut self, now: Instant, own: SocketAddr, to: SocketAddr) -> SocketAddr {
        self.last = Some(now);
        if !self.nat.is_reachable() {
            self.written.insert(to.into(), now);
            if self.written.len() > 2 * self.kept + TIDY_MIN {
                let memory = self.nat.memory();
                self.written.retain(|_, at| now.since(*at) < memory);
                self.kept = self.written.len();
            }
        }
        self.outside(own, to)
    }

    /// Does a datagram from `from` to `to` reach the host, which is at `own`?
    pub fn lets_in(&self, now: Instant, own: SocketAddr, from: SocketAddr, to: SocketAddr) -> bool {
        let fresh = |at: &Instant| now.since(*at) < self.nat.memory();
        let has_mapping = match self.nat {
            Nat::Open => true,
            Nat::FullCone => self.last.as_ref().is_some_and(fresh),
            Nat::Restricted | Nat::Symmetric | Nat::Firewall => {
                self.written.get(&from.into()).is_some_and(fresh)
            }
        };
        has_mapping && to == self.outside(own, from)
    }

    fn outside(&self, own: SocketAddr, other: SocketAddr) -> SocketAddr {
        if self.nat != Nat::Symmetric {
            return own;
        }
        let ip = |addr: SocketAddr| match addr.ip() {
            std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
            std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
        };
        let pair = mix(ip(own) ^ mix(ip(other) ^ (u64::from(other.port()) << 32)));
        let port = PORTS_FROM + u16::try_from(pair % PORTS).unwrap_or(0);
        SocketAddr::new(own.ip(), port)
    }
}

/// A mapping of a home router lives at least this long after the last datagram out.
const MAPPING_LIFE: Duration = Duration::from_secs(60);
/// A firewall that only knows answers forgets sooner.
const FIREWALL_LIFE: Duration = Duration::from_secs(20);
const PORTS_FROM: u16 = 10_000;
const PORTS: u64 = 50_000;
// Below this many it is not worth looking for forgotten ones.
const TIDY_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([1, 2, 3, n], 6881))
    }

    // After a datagram to 9 at second 100: who gets in, and when.
    fn gate(nat: Nat) -> (Gate, SocketAddr) {
        let mut gate = Gate::new(nat);
        let seen = gate.on_sent(at(100), addr(1), addr(9));
        (gate, seen)
    }

    #[test]
    fn strangers_reach_the_open_and_those_behind_a_full_cone_that_speaks() {
        let (open, seen) = gate(Nat::Open);
        assert!(seen == addr(1) && open.lets_in(at(9_000), addr(1), addr(7), addr(1)));
        let (cone, seen) = gate(Nat::FullCone);
        assert!(seen == addr(1) && cone.lets_in(at(159), addr(1), addr(7), addr(1)));
        assert!(!cone.lets_in(at(160), addr(1), addr(9), addr(1)));
        assert!(!Gate::new(Nat::FullCone).lets_in(at(0), addr(1), addr(9), addr(1)));
    }

    #[test]
    fn restricted_hosts_are_reached_by_those_they_wrote_to_for_a_while() {
        for (nat, last) in [(Nat::Restricted, 159), (Nat::Symmetric, 159), (Nat::Firewall, 119)] {
            let (gate, seen) = gate(nat);
            assert!(gate.lets_in(at(last), addr(1), addr(9), seen), "{nat:?}");
            assert!(!gate.lets_in(at(last + 1), addr(1), addr(9), seen), "{nat:?}");
            assert!(!gate.lets_in(at(101), addr(1), addr(7), seen), "{nat:?}");
            let other_port = SocketAddr::new(addr(9).ip(), 1);
            assert!(!gate.lets_in(at(101), addr(1), other_port, seen), "{nat:?}");
            assert_eq!(seen == addr(1), nat != Nat::Symmetric);
        }
    }

    #[test]
    fn symmetric_port_that_one_heard_of_is_of_no_use_to_another() {
        let (mut gate, seen_by_9) = gate(Nat::Symmetric);
        let seen_by_7 = gate.on_sent(at(100), addr(1), addr(7));
        assert_ne!(seen_by_7, seen_by_9);
        assert!(gate.lets_in(at(101), addr(1), addr(7), seen_by_7));
        assert!(!gate.lets_in(at(101), addr(1), addr(7), seen_by_9));
    }

    #[test]
    fn memory_of_old_mappings_goes() {
        let mut gate = Gate::new(Nat::Restricted);
        for secs in 0..10_000 {
            gate.on_sent(at(secs), addr(1), SocketAddr::from(([2, 3, 4, 5], 1 + secs as u16)));
        }
        assert!(gate.written.len() <= 3 * 60 + TIDY_MIN, "{}", gate.written.len());
    }
}
