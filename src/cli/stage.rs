//! How far a download is: `bootstrap -> nodes -> peers -> connected -> metadata -> data`. From the
//! same counts come the progress line while it works and the cause when it gives up.

use std::time::Duration;

use super::exit::{Code, Failure};
use super::format::{rough_duration, size};

/// The stages from a link to its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody in the DHT has answered yet.
    Bootstrap,
    /// The first nodes answered; the lookup has not begun.
    Nodes,
    /// The lookup looks for peers.
    Peers,
    /// Peers are known, none is connected.
    Connected,
    /// Connected; the info dictionary is missing.
    Metadata,
    /// The info dictionary is here.
    Data,
}

impl Stage {
    /// Its name in the progress line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Bootstrap => "bootstrap",
            Stage::Nodes => "nodes",
            Stage::Peers => "peers",
            Stage::Connected => "connected",
            Stage::Metadata => "metadata",
            Stage::Data => "data",
        }
    }
}

/// What is counted on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Is the DHT used at all?
    pub dht: bool,
    /// It is private (BEP 27), or the DHT would be used.
    pub private: bool,
    /// Bootstrap names given.
    pub bootstrap_names: usize,
    /// Addresses they stand for, as far as looked up: these were asked.
    pub bootstrap_addrs: usize,
    /// Answers of any node.
    pub replies: u64,
    /// Contacts in the routing table.
    pub nodes: usize,
    /// Nodes that the lookups asked.
    pub asked: usize,
    /// Nodes that answered a lookup.
    pub answered: usize,
    /// Distinct peers heard of.
    pub peers: usize,
    /// Peers whose handshake was good, ever.
    pub reached: usize,
    /// Connected peers now.
    pub connected: usize,
    /// Addresses that are banned for what they sent.
    pub banned: usize,
    /// Is the info dictionary here?
    pub has_metadata: bool,
    /// Its bytes received and its size.
    pub metadata: (u64, u64),
    /// Bytes checked and to check, while that is what it does.
    pub checking: Option<(u64, u64)>,
    /// Bytes verified.
    pub verified: u64,
    /// Bytes wanted.
    pub wanted: u64,
    /// Bytes a second in.
    pub down_rate: u64,
    /// Bytes a second out.
    pub up_rate: u64,
    /// Time left.
    pub eta: Option<Duration>,
    /// Bytes missing that nobody who is connected has.
    pub unavailable: u64,
    /// No data has come for a while.
    pub is_stalled: bool,
}

impl Counts {
    /// The stage that it is in.
    pub fn stage(&self) -> Stage {
        if self.has_metadata { Stage::Data } else { self.way() }
    }

    // How far the way to the peers is, whatever is known of the torrent.
    fn way(&self) -> Stage {
        if self.connected > 0 {
            Stage::Metadata
        } else if self.peers > 0 || !self.dht {
            Stage::Connected
        } else if self.answered > 0 {
            Stage::Peers
        } else if self.replies > 0 {
            Stage::Nodes
        } else {
            Stage::Bootstrap
        }
    }

    /// The way so far, with counts: one line, no network text in it.
    pub fn line(&self) -> String {
        let stage = self.stage();
        let mut steps = Vec::new();
        // Once there is somebody, how they were found is no news any more.
        let is_searching = self.peers == 0 && self.checking.is_none();
        if self.dht && (stage < Stage::Data || is_searching) {
            steps.push(format!("bootstrap {}", self.bootstrap_addrs));
            steps.push(format!("nodes {}", self.nodes.max(self.answered)));
        }
        if stage >= Stage::Peers {
            steps.push(format!("peers {}", self.peers));
        }
        if stage >= Stage::Connected {
            let banned = self.banned;
            let banned = if banned == 0 { String::new() } else { format!(", {banned} banned") };
            steps.push(format!("connected {}{banned}", self.connected));
        }
        if stage == Stage::Metadata {
            steps.push(match self.metadata {
                (_, 0) => "metadata".to_owned(),
                (done, total) => format!("metadata {}", percent(done, total)),
            });
        }
        if stage == Stage::Data {
            steps.push(format!("data {}", self.data()));
        }
        steps.join(" -> ")
    }

    /// The last stage in figures.
    pub fn data(&self) -> String {
        if let Some((done, total)) = self.checking {
            return format!("checking what is there: {}", percent(done, total));
        }
        let mut text = format!(
            "{} of {} ({})",
            size(self.verified),
            size(self.wanted),
            percent(self.verified, self.wanted)
        );
        text.push_str(&format!(", {}/s", size(self.down_rate)));
        if self.up_rate > 0 {
            text.push_str(&format!(", up {}/s", size(self.up_rate)));
        }
        if self.lacks_owner() {
            text.push_str(", nobody here has the rest");
        } else if let Some(eta) = self.eta.filter(|_| self.verified < self.wanted) {
            text.push_str(&format!(", {} left", rough_duration(eta)));
        }
        text
    }

    // Somebody is here, and none of them has anything that is missing. Where something flows, it may be
    // handed out piece by piece.
    fn lacks_owner(&self) -> bool {
        let missing = self.wanted.saturating_sub(self.verified);
        self.connected > 0 && self.is_stalled && missing > 0 && self.unavailable >= missing
    }

    /// Why nothing came of it, and what to do. `waited` is how long nothing happened;
    /// `deadline` tells that the user's own time limit ran out.
    pub fn failure(&self, waited: Duration, deadline: bool) -> Failure {
        if !self.has_metadata {
            return self.nobody();
        }
        let mut state = format!("{} of {} verified", size(self.verified), size(self.wanted));
        if self.banned > 0 {
            // Who sends other data than the torrent names is as good as nobody, and no reason to wait.
            let banned = plural(self.banned, "peer");
            state.push_str(&format!("; {banned} banned for wrong data or breaking the protocol"));
        }
        if self.lacks_owner() {
            let connected = plural(self.connected, "peer");
            state.push_str(&format!("; {connected} connected, none has the rest"));
        }
        if deadline && (self.verified > 0 || self.reached > 0) {
            return Failure::new(Code::TimedOut, format!("time is up: {state}")).at(Stage::Data);
        }
        if self.reached == 0 {
            let mut failure = self.nobody();
            failure.error = format!("{}; {state}", failure.error);
            return failure;
        }
        let waited = rough_duration(waited);
        Failure::new(Code::NoPeers, format!("every peer left for {waited}: {state}"))
            .advise("run the same command again later: it goes on where it stopped")
            .at(Stage::Data)
    }

    // Why nobody gave anything.
    fn nobody(&self) -> Failure {
        let failure = if self.reached > 0 {
            let reached = plural(self.reached, "peer");
            Failure::new(Code::NoPeers, format!("{reached} reachable, none sent metadata"))
        } else if self.peers > 0 {
            let found = plural(self.peers, "peer");
            Failure::new(Code::NoPeers, format!("{found} found, none reachable"))
                .advise("try again later; a firewall here may also stop outgoing connections")
        } else if self.private {
            Failure::new(Code::NoPeers, "it is private (BEP 27), and no peer was given")
                .advise("name one with --peer IP:PORT: the DHT is not asked about private torrents")
        } else if !self.dht {
            Failure::new(Code::NoPeers, "no peer was given and the DHT is off")
                .advise("name one with --peer IP:PORT, or leave out --no-dht")
        } else if self.replies > 0 {
            let asked = plural(self.asked, "node");
            Failure::new(
                Code::NoPeers,
                format!("asked {asked}, none knows a peer for this hash: nobody shares it now"),
            )
        } else if self.bootstrap_addrs == 0 {
            let names = plural(self.bootstrap_names, "bootstrap name");
            let error = format!("none of {names} could be looked up: is there a network?");
            Failure::new(Code::NoNetwork, error)
        } else {
            let n = plural(self.bootstrap_addrs, "bootstrap node");
            Failure::new(Code::NoNetwork, format!("no answer from any of {n}: is UDP blocked?"))
        };
        failure.at(self.way())
    }
}

/// `4 %`, rounded down, so that 100 % means all.
pub fn percent(done: u64, total: u64) -> String {
    match total {
        0 => "0 %".to_owned(),
        total => format!("{} %", u128::from(done.min(total)) * 100 / u128::from(total)),
    }
}

/// `1 peer`, `2 peers`.
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITED: Duration = Duration::from_secs(300);

    fn fresh() -> Counts {
        Counts { dht: true, bootstrap_names: 4, bootstrap_addrs: 4, ..Counts::default() }
    }

    #[test]
    fn stages_follow_the_counts() {
        let mut counts = fresh();
        assert_eq!(counts.stage(), Stage::Bootstrap);
        counts.replies = 1;
        assert_eq!(counts.stage(), Stage::Nodes);
        (counts.asked, counts.answered) = (20, 3);
        assert_eq!(counts.stage(), Stage::Peers);
        counts.peers = 3;
        assert_eq!(counts.stage(), Stage::Connected);
        counts.connected = 1;
        assert_eq!(counts.stage(), Stage::Metadata);
        counts.has_metadata = true;
        assert_eq!(counts.stage(), Stage::Data);
    }

    #[test]
    fn line_shows_the_way_so_far() {
        let mut counts = Counts { replies: 20, nodes: 17, asked: 40, answered: 12, ..fresh() };
        assert_eq!(counts.line(), "bootstrap 4 -> nodes 17 -> peers 0");
        (counts.peers, counts.connected, counts.metadata) = (9, 2, (512, 1024));
        assert_eq!(
            counts.line(),
            "bootstrap 4 -> nodes 17 -> peers 9 -> connected 2 -> metadata 50 %"
        );
        counts.has_metadata = true;
        (counts.verified, counts.wanted, counts.down_rate) = (1 << 20, 4 << 20, 1 << 19);
        counts.eta = Some(Duration::from_secs(6));
        assert_eq!(
            counts.line(),
            "peers 9 -> connected 2 -> data 1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6 s left"
        );
    }

    #[test]
    fn each_stage_dies_with_its_own_words_and_code() {
        let mut counts = fresh();
        let cause = |counts: &Counts| {
            let failure = counts.failure(WAITED, false);
            (failure.code.number(), failure.error)
        };
        assert_eq!(
            cause(&counts),
            (6, "no answer from any of 4 bootstrap nodes: is UDP blocked?".to_owned())
        );
        (counts.replies, counts.asked, counts.answered) = (60, 61, 50);
        assert_eq!(
            cause(&counts),
            (4, "asked 61 nodes, none knows a peer for this hash: nobody shares it now".to_owned())
        );
        counts.peers = 31;
        assert_eq!(cause(&counts), (4, "31 peers found, none reachable".to_owned()));
        counts.reached = 9;
        assert_eq!(cause(&counts), (4, "9 peers reachable, none sent metadata".to_owned()));
        counts.has_metadata = true;
        (counts.verified, counts.wanted) = (1 << 20, 4 << 20);
        assert_eq!(
            cause(&counts),
            (4, "every peer left for 5 min: 1.0 MiB of 4.0 MiB verified".to_owned())
        );
        let timed_out = counts.failure(WAITED, true);
        assert_eq!(timed_out.code, Code::TimedOut);
        assert_eq!(timed_out.error, "time is up: 1.0 MiB of 4.0 MiB verified");
        counts.banned = 1;
        assert_eq!(
            counts.failure(WAITED, true).error,
            "time is up: 1.0 MiB of 4.0 MiB verified; 1 peer banned for wrong data or breaking the protocol"
        );
        assert!(counts.line().contains("connected 0, 1 banned -> data"), "{}", counts.line());
    }

    #[test]
    fn line_and_failure_say_that_nobody_who_is_here_has_the_rest() {
        let mut counts =
            Counts { has_metadata: true, peers: 2, reached: 2, connected: 2, ..fresh() };
        (counts.verified, counts.wanted, counts.unavailable) = (1 << 20, 4 << 20, 3 << 20);
        counts.is_stalled = true;
        assert_eq!(
            counts.line(),
            "peers 2 -> connected 2 -> data 1.0 MiB of 4.0 MiB (25 %), 0 B/s, nobody here has the rest"
        );
        assert_eq!(
            counts.failure(WAITED, true).error,
            "time is up: 1.0 MiB of 4.0 MiB verified; 2 peers connected, none has the rest"
        );
        // The rate of the last seconds says nothing about the next.
        (counts.down_rate, counts.eta) = (9_216, Some(Duration::from_secs(350)));
        assert!(
            counts.line().ends_with("9.0 KiB/s, nobody here has the rest"),
            "{}",
            counts.line()
        );
        // While something flows, more may be handed out; and what is on its way is not missing.
        counts.is_stalled = false;
        assert!(!counts.line().contains("nobody"), "{}", counts.line());
        (counts.is_stalled, counts.unavailable) = (true, 2 << 20);
        assert!(!counts.line().contains("nobody"), "{}", counts.line());
    }

    #[test]
    fn who_has_the_metadata_and_nobody_else_hears_why() {
        let mut counts = Counts { has_metadata: true, wanted: 4 << 20, ..fresh() };
        assert_eq!(
            counts.line(),
            "bootstrap 4 -> nodes 0 -> peers 0 -> connected 0 -> data 0 B of 4.0 MiB (0 %), 0 B/s"
        );
        for deadline in [false, true] {
            let offline = counts.failure(WAITED, deadline);
            assert_eq!((offline.code, offline.stage), (Code::NoNetwork, Some(Stage::Bootstrap)));
            assert!(offline.error.contains("is UDP blocked?; 0 B of 4.0 MiB"), "{offline:?}");
        }
        counts.peers = 2;
        assert_eq!(counts.failure(WAITED, true).code, Code::NoPeers, "there is nothing to resume");
        counts.verified = 1;
        assert_eq!(counts.failure(WAITED, true).code, Code::TimedOut);
        assert_eq!(counts.failure(WAITED, false).code, Code::NoPeers);
    }

    #[test]
    fn no_name_resolved_and_no_dht_are_told_apart() {
        let offline = Counts { dht: true, ..Counts::default() };
        assert_eq!(offline.failure(WAITED, false).code, Code::NoNetwork);
        let private = Counts { private: true, has_metadata: true, ..Counts::default() };
        let private = private.failure(WAITED, false);
        assert_eq!(private.code, Code::NoPeers);
        assert!(private.error.contains("private") && private.advice().contains("--peer"));
        assert!(!private.advice().contains("--no-dht"), "{}", private.advice());
        let off = Counts::default();
        assert_eq!(off.failure(WAITED, false).code, Code::NoPeers);
        assert!(off.failure(WAITED, false).advice().contains("--peer"));
    }

    #[test]
    fn percent_never_rounds_up_to_all() {
        assert_eq!(percent(999, 1000), "99 %");
        assert_eq!(percent(1000, 1000), "100 %");
        assert_eq!(percent(5, 0), "0 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100 %");
    }
}
