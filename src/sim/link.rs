//! What the network does to bytes: delay, jitter, loss, a rate in each direction, and a bounded
//! queue in front of it. One link joins each host to a core network that is never the bottleneck.

use std::time::Duration;

use super::chance::{lognormal, mix, normal, unit};
use crate::base::{Instant, Rng};
use crate::sim::HostId;

/// What the network between all hosts is like.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Half of all pairs of hosts are nearer to each other than this.
    pub rtt_median: Duration,
    /// How far pairs differ: the sigma of a lognormal distribution; 0 makes all pairs alike.
    pub rtt_sigma: f64,
    /// How much of that spread (of its variance) is the hosts' own: a host with a slow line is far from
    /// everybody.
    pub rtt_home: f64,
    /// Every packet is late by up to this much more, evenly distributed: they overtake each other.
    pub jitter: Duration,
    /// The probability that a packet is lost.
    pub loss: f64,
}

impl Weather {
    /// The DHT of the public Internet, roughly: a median of 120 ms, one pair in a hundred above one
    /// second, and some loss.
    pub fn internet() -> Self {
        Self {
            rtt_median: Duration::from_millis(120),
            rtt_sigma: 0.9,
            rtt_home: 0.5,
            jitter: Duration::from_millis(10),
            loss: 0.01,
        }
    }

    /// One room: a millisecond, nothing lost.
    pub fn local() -> Self {
        Self {
            rtt_median: Duration::from_millis(1),
            rtt_sigma: 0.0,
            rtt_home: 0.0,
            jitter: Duration::ZERO,
            loss: 0.0,
        }
    }

    /// How long one packet takes from `from` to `to`. A pair keeps its distance.
    pub fn delay(&self, world: u64, from: HostId, to: HostId, rng: &mut Rng) -> Duration {
        let factor = match self.rtt_sigma {
            0.0 => 1.0,
            sigma => {
                let (low, high) = (u64::from(from.0.min(to.0)), u64::from(from.0.max(to.0)));
                let draw = |what: u64| normal(unit(mix(world ^ mix(what))));
                let home = draw(low) + draw(high);
                let pair = draw((low << 32) | (high + 1));
                // Two homes and a path, whose variances add up to one.
                let off = (0.5 * self.rtt_home).sqrt() * home + (1.0 - self.rtt_home).sqrt() * pair;
                lognormal(sigma, off)
            }
        };
        let base = self.rtt_median.mul_f64(0.5 * factor);
        base.clamp(DELAY_MIN, DELAY_MAX) + self.jitter.mul_f64(rng.unit())
    }

    /// Is this packet lost?
    pub fn loses(&self, rng: &mut Rng) -> bool {
        self.loss > 0.0 && rng.chance(self.loss)
    }
}

/// How one host is connected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Bytes a second that it can send; `None` for no limit.
    pub up: Option<u64>,
    /// Bytes a second that it can receive; `None` for no limit.
    pub down: Option<u64>,
}

/// One direction of a line: bytes pass one after the other at a rate.
#[derive(Debug, Clone, Copy)]
pub struct Pipe {
    rate: Option<u64>,
    free_at: Instant,
}

impl Pipe {
    /// An idle pipe.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate, free_at: Instant::ZERO }
    }

    /// When `bytes` that are handed over now have passed.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.rate else { return now };
        let wire = bytes + PACKET_OVERHEAD * bytes.div_ceil(PACKET_LEN).max(1);
        let time = Duration::from_secs_f64(wire as f64 / rate.max(1) as f64);
        self.free_at = self.free_at.max(now) + time;
        self.free_at
    }

    /// True if its queue is full: a packet that comes now is dropped.
    pub fn is_full(&self, now: Instant) -> bool {
        self.free_at.since(now) > QUEUE_TIME_MAX
    }
}

const DELAY_MIN: Duration = Duration::from_micros(50);
/// Farther than any pair of real hosts with a working line.
const DELAY_MAX: Duration = Duration::from_secs(4);
/// A queue longer than this in time drops datagrams: a home router's buffer.
const QUEUE_TIME_MAX: Duration = Duration::from_millis(500);
/// Payload of one packet on an Ethernet path.
const PACKET_LEN: usize = 1_460;
/// IP and TCP headers.
const PACKET_OVERHEAD: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pair_keeps_its_distance_in_both_directions() {
        let mut rng = Rng::from_seed([0; 32]);
        let weather = Weather { jitter: Duration::ZERO, ..Weather::internet() };
        let (a, b, c) = (HostId(1), HostId(2), HostId(3));
        let there = weather.delay(7, a, b, &mut rng);
        assert_eq!(there, weather.delay(7, b, a, &mut rng));
        assert_ne!(there, weather.delay(7, a, c, &mut rng));
        assert_ne!(there, weather.delay(8, a, b, &mut rng));
    }

    #[test]
    fn distances_have_the_median_and_the_tail_that_were_asked_for() {
        let mut rng = Rng::from_seed([0; 32]);
        let weather = Weather { jitter: Duration::ZERO, ..Weather::internet() };
        let rtt = |n, rng: &mut Rng| 2 * weather.delay(1, HostId(n), HostId(n + 5_000), rng);
        let mut rtts: Vec<_> = (0..5_000).map(|n| rtt(n, &mut rng)).collect();
        rtts.sort_unstable();
        let ms = |q: usize| rtts[rtts.len() * q / 100].as_millis();
        assert!((110..130).contains(&ms(50)), "{}", ms(50));
        assert!((700..1500).contains(&ms(99)), "{}", ms(99));
    }

    #[test]
    fn host_with_a_slow_line_is_far_from_everybody() {
        let mut rng = Rng::from_seed([0; 32]);
        let weather = Weather { jitter: Duration::ZERO, rtt_home: 0.9, ..Weather::internet() };
        let mean = |host: u32, rng: &mut Rng| {
            let others = (100..200).map(HostId);
            others.map(|n| weather.delay(1, HostId(host), n, rng)).sum::<Duration>() / 100
        };
        let means: Vec<_> = (0..50).map(|host| mean(host, &mut rng)).collect();
        let (near, far) = (means.iter().min().unwrap(), means.iter().max().unwrap());
        assert!(*far > 5 * *near, "{near:?} {far:?}");
    }

    #[test]
    fn pipe_passes_at_its_rate_and_fills_up() {
        let mut pipe = Pipe::new(Some(1_500_000));
        let now = Instant::ZERO;
        assert_eq!(pipe.pass(now, 1_460), Instant::from_micros(1_000));
        assert_eq!(pipe.pass(now, 1_460), Instant::from_micros(2_000));
        assert!(!pipe.is_full(now));
        pipe.pass(now, 1_460_000);
        assert!(pipe.is_full(now) && !pipe.is_full(now + Duration::from_secs(1)));
        assert_eq!(Pipe::new(None).pass(now, 1 << 30), now);
    }
}
