//! How far a download is, in words: the progress line while it works (`bootstrap -> nodes -> peers ->
//! connected -> metadata -> data`), and the cause when it gives up.

use std::time::Duration;

use super::exit::{Code, Failure};
use super::format::{rough_duration, size};
pub(super) use crate::driver::plural;
use crate::driver::{Obstacle, Stage, TorrentStatus};
use crate::swarm::{Phase, Status};

/// The way so far, with counts: one line, no network text in it. Once nothing has happened for a while
/// (`waited`) it says what is in the way: nobody has to wait for the end to learn that.
pub fn line(status: &TorrentStatus, waited: Duration) -> String {
    let (stage, swarm) = (status.stage(), &status.swarm);
    let mut steps = Vec::new();
    // Once there is somebody, how they were found is no news any more.
    let is_searching = swarm.peers_known == 0 && swarm.phase != Phase::Checking;
    if let Some(dht) = status.dht.filter(|_| stage < Stage::Data || is_searching) {
        steps.push(format!("bootstrap {}", dht.bootstrap_addrs));
        steps.push(format!("nodes {}", dht.nodes.max(dht.answered)));
    }
    if stage >= Stage::Peers {
        steps.push(format!("peers {}", swarm.peers_known));
    }
    if stage >= Stage::Connected {
        let banned = match swarm.banned {
            0 => String::new(),
            banned => format!(", {banned} banned"),
        };
        steps.push(format!("connected {}{banned}", swarm.connected));
    }
    match (stage, swarm.metadata) {
        (Stage::Metadata, (_, 0)) => steps.push("metadata".to_owned()),
        (Stage::Metadata, (done, total)) => {
            steps.push(format!("metadata {}", percent(done as u64, total as u64)));
        }
        (Stage::Data, _) => steps.push(format!("data {}", data(status))),
        _ => {}
    }
    let mut line = steps.join(" -> ");
    // That nobody here has the rest is said as soon as it is known.
    let is_said = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Incomplete { .. });
    if let Some(obstacle) = status.obstacle().filter(|o| waited >= EXPLAINED_AFTER && !is_said(o)) {
        line.push_str(&format!("; {obstacle}"));
    }
    line
}

// The last stage in figures.
fn data(status: &TorrentStatus) -> String {
    let swarm = &status.swarm;
    if swarm.phase == Phase::Checking {
        let (done, total) = swarm.checking;
        return format!("checking what is there: {}", percent(done, total));
    }
    let (verified, wanted) = (swarm.verified_bytes, swarm.wanted_bytes);
    let mut text =
        format!("{} of {} ({})", size(verified), size(wanted), percent(verified, wanted));
    text.push_str(&format!(", {}/s", size(swarm.download_rate)));
    if swarm.upload_rate > 0 {
        text.push_str(&format!(", up {}/s", size(swarm.upload_rate)));
    }
    if let Some(Obstacle::Incomplete { .. }) = status.obstacle() {
        text.push_str(", nobody here has the rest");
    } else if let Some(eta) = swarm.eta.filter(|_| swarm.missing_bytes() > 0) {
        text.push_str(&format!(", {} left", rough_duration(eta)));
    }
    text
}

/// Why nothing came of it, and what to do. `waited` is how long nothing happened; `deadline` tells
/// that the user's own time limit ran out.
pub fn failure(status: &TorrentStatus, waited: Duration, deadline: bool) -> Failure {
    let (swarm, obstacle) = (&status.swarm, status.obstacle());
    if swarm.phase == Phase::FetchingMetadata {
        return match obstacle {
            Some(obstacle) => nobody(obstacle),
            None => Failure::new(Code::TimedOut, "time is up").at(status.stage()),
        };
    }
    let state = state(swarm, obstacle);
    let goes_on = deadline && swarm.verified_bytes > 0;
    match obstacle {
        Some(obstacle) if swarm.peers_reached == 0 && !goes_on => {
            let mut failure = nobody(obstacle);
            failure.error = format!("{}; {state}", failure.error);
            failure
        }
        Some(left @ Obstacle::AllLeft) if !deadline => {
            let error = format!("{left} for {}: {state}", rough_duration(waited));
            Failure::new(Code::NoPeers, error)
                .advise("run the same command again later: it goes on where it stopped")
                .at(Stage::Data)
        }
        _ => Failure::new(Code::TimedOut, format!("time is up: {state}")).at(Stage::Data),
    }
}

// What there is, and who is no help.
fn state(swarm: &Status, obstacle: Option<Obstacle>) -> String {
    let mut state =
        format!("{} of {} verified", size(swarm.verified_bytes), size(swarm.wanted_bytes));
    if swarm.banned > 0 {
        // Who sends other data than the torrent names is as good as nobody, and no reason to wait.
        let banned = plural(swarm.banned, "peer");
        state.push_str(&format!("; {banned} banned for wrong data or breaking the protocol"));
    }
    if let Some(incomplete @ Obstacle::Incomplete { .. }) = obstacle {
        state.push_str(&format!("; {incomplete}"));
    }
    state
}

// Why nobody gave anything.
fn nobody(obstacle: Obstacle) -> Failure {
    let code = match obstacle {
        Obstacle::NoBootstrapAddress { .. } | Obstacle::NoAnswer { .. } => Code::NoNetwork,
        Obstacle::NoPeers { .. }
        | Obstacle::Private
        | Obstacle::NoDht
        | Obstacle::Unreachable { .. }
        | Obstacle::NoMetadata { .. }
        | Obstacle::AllLeft
        | Obstacle::Incomplete { .. } => Code::NoPeers,
    };
    let failure = Failure::new(code, obstacle.to_string()).at(obstacle.stage());
    match obstacle {
        Obstacle::Unreachable { .. } => {
            failure.advise("try again later; a firewall here may also stop outgoing connections")
        }
        Obstacle::Private => failure
            .advise("name one with --peer IP:PORT: the DHT is not asked about private torrents"),
        Obstacle::NoDht => failure.advise("name one with --peer IP:PORT, or leave out --no-dht"),
        _ => failure,
    }
}

/// `4 %`, rounded down, so that 100 % means all.
pub fn percent(done: u64, total: u64) -> String {
    match total {
        0 => "0 %".to_owned(),
        total => format!("{} %", u128::from(done.min(total)) * 100 / u128::from(total)),
    }
}

// A lookup that finds somebody is over by then, and whoever answers has.
const EXPLAINED_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DhtStage;

    const WAITED: Duration = Duration::from_secs(300);
    const NOT_LONG: Duration = Duration::from_secs(1);
    const MIB: u64 = 1 << 20;

    fn dht() -> DhtStage {
        DhtStage { bootstrap_names: 4, bootstrap_addrs: 4, ..DhtStage::default() }
    }

    fn fresh() -> TorrentStatus {
        TorrentStatus::fresh(Some(dht()))
    }

    // With a quarter of its data.
    fn downloading(dht: Option<DhtStage>) -> TorrentStatus {
        let mut status = TorrentStatus::fresh(dht);
        let swarm = &mut status.swarm;
        (swarm.phase, swarm.verified_bytes, swarm.wanted_bytes) =
            (Phase::Downloading, MIB, 4 * MIB);
        status
    }

    #[test]
    fn line_shows_the_way_so_far() {
        let mut status = fresh();
        status.dht = Some(DhtStage { replies: 20, nodes: 17, asked: 40, answered: 12, ..dht() });
        assert_eq!(line(&status, NOT_LONG), "bootstrap 4 -> nodes 17 -> peers 0");
        let swarm = &mut status.swarm;
        (swarm.peers_known, swarm.connected, swarm.metadata) = (9, 2, (512, 1024));
        assert_eq!(
            line(&status, NOT_LONG),
            "bootstrap 4 -> nodes 17 -> peers 9 -> connected 2 -> metadata 50 %"
        );
        let mut status = downloading(status.dht);
        let swarm = &mut status.swarm;
        (swarm.peers_known, swarm.connected, swarm.download_rate) = (9, 2, MIB / 2);
        swarm.eta = Some(Duration::from_secs(6));
        assert_eq!(
            line(&status, NOT_LONG),
            "peers 9 -> connected 2 -> data 1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6 s left"
        );
        (status.swarm.phase, status.swarm.checking) = (Phase::Checking, (1, 3));
        assert_eq!(
            line(&status, NOT_LONG),
            "peers 9 -> connected 2 -> data checking what is there: 33 %"
        );
    }

    #[test]
    fn line_says_what_is_in_the_way_when_nothing_happens() {
        let mut status = fresh();
        assert_eq!(line(&status, NOT_LONG), "bootstrap 4 -> nodes 0");
        assert_eq!(
            line(&status, WAITED),
            "bootstrap 4 -> nodes 0; no answer from any of 4 bootstrap nodes: is UDP blocked?"
        );
        status = downloading(status.dht);
        (status.swarm.peers_known, status.swarm.peers_reached) = (2, 2);
        assert_eq!(
            line(&status, WAITED),
            "peers 2 -> connected 0 -> data 1.0 MiB of 4.0 MiB (25 %), 0 B/s; every peer left"
        );
        status.swarm.connected = 2;
        assert!(line(&status, WAITED).ends_with("0 B/s"), "somebody is here, and may have it");
    }

    #[test]
    fn each_stage_dies_with_its_own_words_and_code() {
        let mut status = fresh();
        let cause = |status: &TorrentStatus| {
            let failure = failure(status, WAITED, false);
            (failure.code.number(), failure.stage, failure.error)
        };
        let silent = "no answer from any of 4 bootstrap nodes: is UDP blocked?";
        assert_eq!(cause(&status), (6, Some(Stage::Bootstrap), silent.to_owned()));
        status.dht = Some(DhtStage { replies: 60, asked: 61, answered: 50, ..dht() });
        let unshared = "asked 61 nodes, none knows a peer for this hash: nobody shares it now";
        assert_eq!(cause(&status), (4, Some(Stage::Peers), unshared.to_owned()));
        status.swarm.peers_known = 31;
        let unreachable = "31 peers found, none reachable";
        assert_eq!(cause(&status), (4, Some(Stage::Connected), unreachable.to_owned()));
        status.swarm.peers_reached = 9;
        let mute = "9 peers reachable, none sent metadata";
        assert_eq!(cause(&status), (4, Some(Stage::Metadata), mute.to_owned()));

        let mut status = downloading(status.dht);
        (status.swarm.peers_known, status.swarm.peers_reached) = (31, 9);
        let left = "every peer left for 5 min: 1.0 MiB of 4.0 MiB verified";
        assert_eq!(cause(&status), (4, Some(Stage::Data), left.to_owned()));
        let timed_out = failure(&status, WAITED, true);
        assert_eq!(timed_out.code, Code::TimedOut);
        assert_eq!(timed_out.error, "time is up: 1.0 MiB of 4.0 MiB verified");
        status.swarm.banned = 1;
        assert_eq!(
            failure(&status, WAITED, true).error,
            "time is up: 1.0 MiB of 4.0 MiB verified; 1 peer banned for wrong data or breaking the protocol"
        );
        assert!(
            line(&status, NOT_LONG).contains("connected 0, 1 banned -> data"),
            "{}",
            line(&status, NOT_LONG)
        );
    }

    #[test]
    fn line_and_failure_say_that_nobody_who_is_here_has_the_rest() {
        let mut status = downloading(Some(dht()));
        let swarm = &mut status.swarm;
        (swarm.peers_known, swarm.peers_reached, swarm.connected) = (2, 2, 2);
        (swarm.unavailable_bytes, swarm.silent_for) = (3 * MIB, WAITED);
        assert_eq!(
            line(&status, NOT_LONG),
            "peers 2 -> connected 2 -> data 1.0 MiB of 4.0 MiB (25 %), 0 B/s, nobody here has the rest"
        );
        assert_eq!(
            failure(&status, WAITED, true).error,
            "time is up: 1.0 MiB of 4.0 MiB verified; 2 peers connected, none has the rest"
        );
        // The rate of the last seconds says nothing about the next.
        let swarm = &mut status.swarm;
        (swarm.download_rate, swarm.eta) = (9_216, Some(Duration::from_secs(350)));
        let shown = line(&status, NOT_LONG);
        assert!(shown.ends_with("9.0 KiB/s, nobody here has the rest"), "{shown}");
        // While something flows, more may be handed out; and what is on its way is not missing.
        status.swarm.silent_for = Duration::ZERO;
        assert!(!line(&status, NOT_LONG).contains("nobody"), "{}", line(&status, NOT_LONG));
        (status.swarm.silent_for, status.swarm.unavailable_bytes) = (WAITED, 2 * MIB);
        assert!(!line(&status, NOT_LONG).contains("nobody"), "{}", line(&status, NOT_LONG));
    }

    #[test]
    fn who_has_the_metadata_and_nobody_else_hears_why() {
        let mut status = downloading(Some(dht()));
        status.swarm.verified_bytes = 0;
        assert_eq!(
            line(&status, NOT_LONG),
            "bootstrap 4 -> nodes 0 -> peers 0 -> connected 0 -> data 0 B of 4.0 MiB (0 %), 0 B/s"
        );
        for deadline in [false, true] {
            let offline = failure(&status, WAITED, deadline);
            assert_eq!((offline.code, offline.stage), (Code::NoNetwork, Some(Stage::Bootstrap)));
            assert!(offline.error.contains("is UDP blocked?; 0 B of 4.0 MiB"), "{offline:?}");
        }
        status.swarm.peers_known = 2;
        assert_eq!(
            failure(&status, WAITED, true).code,
            Code::NoPeers,
            "there is nothing to resume"
        );
        status.swarm.verified_bytes = 1;
        assert_eq!(failure(&status, WAITED, true).code, Code::TimedOut);
        assert_eq!(failure(&status, WAITED, false).code, Code::NoPeers);
        // Looking at what is there took all the time.
        status.swarm.phase = Phase::Checking;
        assert_eq!(failure(&status, WAITED, true).code, Code::TimedOut);
    }

    #[test]
    fn no_name_resolved_and_no_dht_are_told_apart() {
        let offline = TorrentStatus::fresh(Some(DhtStage::default()));
        assert_eq!(failure(&offline, WAITED, false).code, Code::NoNetwork);
        let mut private = downloading(None);
        private.swarm.private = true;
        let private = failure(&private, WAITED, false);
        assert_eq!(private.code, Code::NoPeers);
        assert!(private.error.contains("private") && private.advice().contains("--peer"));
        assert!(!private.advice().contains("--no-dht"), "{}", private.advice());
        let off = failure(&TorrentStatus::fresh(None), WAITED, false);
        assert_eq!(off.code, Code::NoPeers);
        assert!(off.advice().contains("--peer"));
    }

    #[test]
    fn percent_never_rounds_up_to_all() {
        assert_eq!(percent(999, 1000), "99 %");
        assert_eq!(percent(1000, 1000), "100 %");
        assert_eq!(percent(5, 0), "0 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100 %");
    }
}
