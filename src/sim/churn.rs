//! Hosts come and go. Sessions and absences are exponentially distributed: memoryless, as they
//! look to somebody who meets a host by chance.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chance::exponential;
use crate::base::{Instant, Rng, Seed};
use crate::sim::HostId;

/// How long hosts stay and stay away.
#[derive(Debug, Clone, Copy)]
pub struct ChurnRates {
    /// The mean of a session.
    pub session: Duration,
    /// The mean of an absence.
    pub absence: Duration,
}

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// It goes, without a word.
    Leave,
    /// It comes back.
    Return,
}

/// The comings and goings of some hosts, in order.
#[derive(Debug)]
pub struct Churn {
    rates: ChurnRates,
    next: BTreeSet<(Instant, HostId, Move)>,
    rng: Rng,
}

impl Churn {
    /// These hosts are there at `now`, and go when their session ends.
    pub fn new(
        rates: ChurnRates,
        hosts: impl IntoIterator<Item = HostId>,
        now: Instant,
        seed: Seed,
    ) -> Self {
        let mut rng = Rng::from_seed(seed);
        let next = hosts
            .into_iter()
            .map(|host| (now + exponential(rates.session, &mut rng), host, Move::Leave))
            .collect();
        Self { rates, next, rng }
    }

    /// The next move before `end`, with its time. The one after it is planned.
    pub fn next_before(&mut self, end: Instant) -> Option<(Instant, HostId, Move)> {
        let (at, host, step) = self.next.first().copied().filter(|(at, ..)| *at < end)?;
        self.next.pop_first();
        let (mean, then) = match step {
            Move::Leave => (self.rates.absence, Move::Return),
            Move::Return => (self.rates.session, Move::Leave),
        };
        self.next.insert((at + exponential(mean, &mut self.rng), host, then));
        Some((at, host, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_alternate_and_keep_their_means() {
        let rates =
            ChurnRates { session: Duration::from_secs(60), absence: Duration::from_secs(30) };
        let mut churn = Churn::new(rates, (0..50).map(HostId), Instant::ZERO, [1; 32]);
        let mut up = [true; 50];
        let mut last = Instant::ZERO;
        let mut moves = 0;
        while let Some((at, host, step)) =
            churn.next_before(Instant::ZERO + Duration::from_secs(9_000))
        {
            assert!(at >= last);
            last = at;
            let is_up = &mut up[host.0 as usize];
            assert_eq!(*is_up, step == Move::Leave);
            *is_up = !*is_up;
            moves += 1;
        }
        // Two moves in 90 seconds each: 50 * 9000 / 45.
        assert!((9_000..11_000).contains(&moves), "{moves}");
    }
}
