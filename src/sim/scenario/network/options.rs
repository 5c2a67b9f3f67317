//! What a network is like and what happens in it; and the scenarios that have names.

use std::time::Duration;

use crate::base::{Instant, Rng};
use crate::sim::chance::exponential;
use crate::sim::link::Weather;
use crate::sim::nat::Nat;

/// A network and what happens in it.
#[derive(Debug, Clone)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// Whole nodes.
    pub nodes: u32,
    /// Nodes around them of which only the answers are computed; 0 for none.
    pub implicit: u32,
    /// How long the whole nodes take to join.
    pub join_time: Duration,
    /// How long they are left alone before anything is measured.
    pub settle_time: Duration,
    /// How long it is measured.
    pub time: Duration,
    /// What one row of the table covers.
    pub row: Duration,
    /// The network.
    pub weather: Weather,
    /// How long nodes stay; `None` for ever.
    pub sessions: Option<Sessions>,
    /// What stands before them.
    pub nats: Nats,
    /// The share of nodes whose ids do not follow from their addresses (BEP 42).
    pub invalid_ids: f64,
    /// The share of nodes that never notice that nobody reaches them (BEP 43).
    pub unaware: f64,
    /// The share of nodes that start with a new id and an empty memory every time.
    pub forgetful: f64,
    /// The share of nodes that name none but dead ones.
    pub lazy: f64,
    /// An attack on some of the hashes.
    pub sybils: Option<Sybils>,
    /// Calamities.
    pub storms: Vec<Storm>,
    /// Hashes that are announced, each by one to `ANNOUNCERS_MAX` hosts, again every 15 minutes.
    pub hashes: u32,
    /// Lookups an hour, of all hashes, from anywhere in the network.
    pub lookups_per_hour: u32,
    /// The share of newcomers that begin with a lookup, knowing nobody yet.
    pub eager: f64,
}

/// How long hosts stay: most for hours, some for days.
#[derive(Debug, Clone, Copy)]
pub struct Sessions {
    /// The mean of the short ones.
    pub short: Duration,
    /// The mean of the long ones.
    pub long: Duration,
    /// The share of sessions that are short.
    pub short_share: f64,
}

impl Sessions {
    /// As measured in the public network: half are over within 200 minutes, 3 % last longer than 6.25
    /// days.
    pub const MEASURED: Sessions = Sessions {
        short: Duration::from_secs(126 * 60),
        long: Duration::from_secs(3_475 * 60),
        short_share: 0.6,
    };

    /// The mean of all.
    pub fn mean(&self) -> Duration {
        self.short.mul_f64(self.short_share) + self.long.mul_f64(1.0 - self.short_share)
    }

    /// How long a newcomer stays.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        let is_short = rng.chance(self.short_share);
        exponential(if is_short { self.short } else { self.long }, rng)
    }

    /// How much longer somebody stays who is there: who stays long is met more often.
    pub fn draw_rest(&self, rng: &mut Rng) -> Duration {
        let short = self.short.mul_f64(self.short_share);
        let is_short = rng.chance(short.as_secs_f64() / self.mean().as_secs_f64());
        exponential(if is_short { self.short } else { self.long }, rng)
    }
}

/// Shares of what stands before hosts; the rest is open.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nats {
    /// Full cone.
    pub full_cone: f64,
    /// Restricted.
    pub restricted: f64,
    /// Symmetric.
    pub symmetric: f64,
    /// Firewall.
    pub firewall: f64,
}

impl Nats {
    /// As measured among Mainline nodes: 36 % open and 19 % mapped by their routers, 3 % full cone, 31 %
    /// restricted or symmetric, 11 % behind firewalls.
    pub const MEASURED: Nats =
        Nats { full_cone: 0.03, restricted: 0.21, symmetric: 0.10, firewall: 0.11 };

    /// What stands before one host.
    pub fn draw(&self, rng: &mut Rng) -> Nat {
        let mut at = rng.unit();
        for (share, nat) in [
            (self.full_cone, Nat::FullCone),
            (self.restricted, Nat::Restricted),
            (self.symmetric, Nat::Symmetric),
            (self.firewall, Nat::Firewall),
        ] {
            if at < share {
                return nat;
            }
            at -= share;
        }
        Nat::Open
    }
}

/// Nodes that an attacker puts right beside hashes, before they are announced.
#[derive(Debug, Clone, Copy)]
pub struct Sybils {
    /// The share of hashes that are attacked.
    pub hashes: f64,
    /// Beside each.
    pub count: u32,
    /// All in one /24, or each in a /16 of its own.
    pub one_network: bool,
}

/// Something that happens to the whole network.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// When, counted from the beginning of the measurement.
    pub at: Duration,
    /// The share of datagrams that is lost from then on.
    pub loss: f64,
    /// The share of hosts that die at once, without a word, and do not come back.
    pub dies: f64,
}

/// A scenario with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Nothing happens.
    Calm,
    /// A day of comings and goings.
    Churn24h,
    /// Loss, and four in ten nodes dead at once.
    Storm,
    /// Half of the nodes cannot be reached.
    Nat,
    /// Attackers beside the hashes.
    Sybils,
    /// Nodes that name none but dead ones.
    Lazy,
    /// A hundred thousand whole nodes.
    Big,
    /// Whole nodes among a million others.
    Million,
}

impl Named {
    /// All of them.
    pub const ALL: [Named; 8] = [
        Named::Calm,
        Named::Churn24h,
        Named::Storm,
        Named::Nat,
        Named::Sybils,
        Named::Lazy,
        Named::Big,
        Named::Million,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Named::Calm => "calm",
            Named::Churn24h => "churn-24h",
            Named::Storm => "storm",
            Named::Nat => "nat",
            Named::Sybils => "sybils",
            Named::Lazy => "lazy",
            Named::Big => "big",
            Named::Million => "million",
        }
    }

    /// What it is, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Named::Calm => "nobody comes or goes, nothing is lost, everybody is reachable",
            Named::Churn24h => "the public network for a day: sessions, address translators, loss",
            Named::Storm => "the public network; in the middle 40 % die at once and 10 % is lost",
            Named::Nat => "64 % of the nodes let no stranger in, and most of them do not know it",
            Named::Sybils => {
                "16 attackers right beside every third hash, each in a network of its own"
            }
            Named::Lazy => "one node in ten names none but dead nodes right beside the target",
            Named::Big => "the public network, with as many whole nodes as memory holds",
            Named::Million => "whole nodes among a million others whose answers are computed",
        }
    }

    /// The scenario with this name.
    pub fn from_name(name: &str) -> Option<Named> {
        Named::ALL.into_iter().find(|named| named.name() == name)
    }

    /// How many nodes it has and how long it lasts, unless it is told otherwise.
    pub fn usual_size(self) -> (u32, Duration) {
        match self {
            Named::Calm | Named::Storm | Named::Nat | Named::Sybils | Named::Lazy => (1_000, HOUR),
            Named::Churn24h => (1_000, 24 * HOUR),
            Named::Big => (100_000, 3 * MINUTE),
            Named::Million => (2_000, HOUR),
        }
    }

    /// Its options, for so many nodes and so much time.
    pub fn options(self, seed: u64, nodes: u32, time: Duration) -> Options {
        let public = Options::public(seed, nodes, time);
        match self {
            Named::Calm => Options::calm(seed, nodes, time),
            Named::Churn24h => public,
            // So many need not come one after the other.
            Named::Big => Options { join_time: 5 * MINUTE, settle_time: 2 * MINUTE, ..public },
            Named::Storm => {
                let storm = Storm { at: time * 3 / 8, loss: 0.10, dies: 0.40 };
                Options { storms: vec![storm], ..public }
            }
            Named::Nat => {
                let nats =
                    Nats { full_cone: 0.03, restricted: 0.32, symmetric: 0.16, firewall: 0.16 };
                Options { nats, unaware: 0.9, ..public }
            }
            Named::Sybils => {
                let sybils = Sybils { hashes: 1.0 / 3.0, count: 16, one_network: false };
                Options { sybils: Some(sybils), ..public }
            }
            Named::Lazy => Options { lazy: 0.10, ..public },
            Named::Million => Options { implicit: 1_000_000, ..public },
        }
    }

    /// The command that runs it.
    pub fn command(self, options: &Options) -> String {
        let Options { seed, nodes, .. } = options;
        let hours = options.time.as_secs_f64() / 3_600.0;
        format!("trackless sim {} --seed {seed} --nodes {nodes} --hours {hours}", self.name())
    }

    /// The lines above a table: the command, and what the scenario is.
    pub fn head(self, options: &Options) -> String {
        format!("{}\n{}\n", self.command(options), self.about())
    }
}

impl Options {
    /// Nothing goes wrong.
    pub fn calm(seed: u64, nodes: u32, time: Duration) -> Self {
        let weather = Weather { loss: 0.0, ..Weather::internet() };
        Self {
            seed,
            nodes,
            implicit: 0,
            join_time: Duration::from_secs(120) + Duration::from_millis(10) * nodes,
            settle_time: Duration::from_secs(15 * 60),
            time,
            row: row_of(time),
            weather,
            sessions: None,
            nats: Nats::default(),
            invalid_ids: 0.0,
            unaware: 0.0,
            forgetful: 0.0,
            lazy: 0.0,
            sybils: None,
            storms: Vec::new(),
            hashes: (nodes / 20).clamp(10, 1_000),
            lookups_per_hour: (2 * nodes).clamp(600, 20_000),
            eager: 0.0,
        }
    }

    /// The public network, as far as it has been measured.
    pub fn public(seed: u64, nodes: u32, time: Duration) -> Self {
        Self {
            weather: Weather { loss: 0.02, rtt_sigma: 1.0, ..Weather::internet() },
            sessions: Some(Sessions::MEASURED),
            nats: Nats::MEASURED,
            invalid_ids: 0.4,
            unaware: 0.8,
            forgetful: 0.02,
            eager: 0.5,
            ..Self::calm(seed, nodes, time)
        }
    }

    /// When the measurement begins.
    pub fn begins_at(&self) -> Instant {
        Instant::ZERO + self.join_time + self.settle_time
    }

    /// When all is over.
    pub fn ends_at(&self) -> Instant {
        self.begins_at() + self.time
    }
}

// Six rows for an hour, and an hour for each row of a day.
fn row_of(time: Duration) -> Duration {
    if time >= 6 * HOUR { HOUR } else { (time / 6).max(Duration::from_secs(1)) }
}

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_sessions_end_within_200_minutes_and_a_few_last_for_a_week() {
        let mut rng = Rng::from_seed([1; 32]);
        let sessions = Sessions::MEASURED;
        let all: Vec<_> = (0..50_000).map(|_| sessions.draw(&mut rng)).collect();
        let share = |longer_than: u64| {
            let limit = Duration::from_secs(longer_than * 60);
            all.iter().filter(|session| **session > limit).count() as f64 / 50_000.0
        };
        assert!((0.49..0.51).contains(&share(200)), "{}", share(200));
        assert!((0.027..0.033).contains(&share(9_000)), "{}", share(9_000));
        let mean = all.iter().sum::<Duration>() / 50_000;
        let ratio = mean.as_secs_f64() / sessions.mean().as_secs_f64();
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
    }

    #[test]
    fn translators_have_their_shares() {
        let mut rng = Rng::from_seed([1; 32]);
        let all: Vec<_> = (0..10_000).map(|_| Nats::MEASURED.draw(&mut rng)).collect();
        let count = |nat| all.iter().filter(|n| **n == nat).count();
        assert!((5_300..5_700).contains(&count(Nat::Open)), "{}", count(Nat::Open));
        assert!((1_950..2_250).contains(&count(Nat::Restricted)));
        assert!(count(Nat::FullCone) > 200 && count(Nat::Symmetric) > 900);
    }

    #[test]
    fn every_scenario_is_found_by_its_name() {
        for named in Named::ALL {
            assert_eq!(Named::from_name(named.name()), Some(named));
            let (nodes, time) = named.usual_size();
            let options = named.options(7, nodes, time);
            assert!(options.time == time && options.row <= HOUR, "{options:?}");
            let command = named.command(&options);
            let start = format!("trackless sim {} --seed 7 --nodes {nodes} --hours ", named.name());
            assert!(command.starts_with(&start), "{command}");
        }
        assert_eq!(Named::from_name("nothing"), None);
    }
}
