//! How far a torrent is, and what stands in its way: nobody who embeds this has to guess why a magnet
//! link hangs.

use std::fmt;
use std::time::Duration;

use crate::driver::TorrentStatus;
use crate::swarm::Phase;

/// The stages from a link to its data, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Its name, as the command line shows it: `bootstrap`, `nodes`, `peers`, `connected`, `metadata`, `data`.
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

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a torrent waits for. As text it is the one line that says why nothing comes. In the first moments
/// it only says what comes next; it is the reason once your patience is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// No bootstrap name could be looked up.
    NoBootstrapAddress {
        /// Names given.
        names: usize,
    },
    /// No node of the DHT has answered.
    NoAnswer {
        /// Bootstrap addresses asked.
        nodes: usize,
    },
    /// The DHT answers, and names no peer.
    NoPeers {
        /// Nodes that the lookups asked.
        asked: usize,
    },
    /// It is private (BEP 27), so that the DHT is not asked, and nobody named a peer.
    Private,
    /// The DHT is off, and nobody named a peer.
    NoDht,
    /// Peers are known, none could be reached.
    Unreachable {
        /// Peers known.
        peers: usize,
    },
    /// Peers were reached, and the info dictionary is still missing.
    NoMetadata {
        /// Peers whose handshake was good, ever.
        peers: usize,
    },
    /// Whoever was reached has gone, and data is missing.
    AllLeft,
    /// Nothing has come for a while, and nobody who is connected has what is missing.
    Incomplete {
        /// Peers connected.
        peers: usize,
    },
}

impl Obstacle {
    /// The stage that it keeps the torrent in.
    pub const fn stage(self) -> Stage {
        match self {
            Obstacle::NoBootstrapAddress { .. } | Obstacle::NoAnswer { .. } => Stage::Bootstrap,
            Obstacle::NoPeers { .. } => Stage::Peers,
            Obstacle::Private | Obstacle::NoDht | Obstacle::Unreachable { .. } => Stage::Connected,
            Obstacle::NoMetadata { .. } => Stage::Metadata,
            Obstacle::AllLeft | Obstacle::Incomplete { .. } => Stage::Data,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Obstacle::NoBootstrapAddress { names } => {
                let names = plural(names, "bootstrap name");
                write!(f, "none of {names} could be looked up: is there a network?")
            }
            Obstacle::NoAnswer { nodes } => {
                write!(
                    f,
                    "no answer from any of {}: is UDP blocked?",
                    plural(nodes, "bootstrap node")
                )
            }
            Obstacle::NoPeers { asked } => {
                let asked = plural(asked, "node");
                write!(f, "asked {asked}, none knows a peer for this hash: nobody shares it now")
            }
            Obstacle::Private => f.write_str("it is private (BEP 27), and no peer was given"),
            Obstacle::NoDht => f.write_str("no peer was given and the DHT is off"),
            Obstacle::Unreachable { peers } => {
                write!(f, "{} found, none reachable", plural(peers, "peer"))
            }
            Obstacle::NoMetadata { peers } => {
                write!(f, "{} reachable, none sent metadata", plural(peers, "peer"))
            }
            Obstacle::AllLeft => f.write_str("every peer left"),
            Obstacle::Incomplete { peers } => {
                write!(f, "{} connected, none has the rest", plural(peers, "peer"))
            }
        }
    }
}

/// `1 peer`, `2 peers`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

impl TorrentStatus {
    /// How far it is.
    pub fn stage(&self) -> Stage {
        if self.swarm.phase != Phase::FetchingMetadata {
            return Stage::Data;
        }
        if self.swarm.connected > 0 {
            return Stage::Metadata;
        }
        match self.dht {
            _ if self.swarm.peers_known > 0 => Stage::Connected,
            None => Stage::Connected,
            Some(dht) if dht.answered > 0 => Stage::Peers,
            Some(dht) if dht.replies > 0 => Stage::Nodes,
            Some(_) => Stage::Bootstrap,
        }
    }

    /// What it waits for; `None` if it is at work, at rest or done. Why it stopped by itself says
    /// [`Status::stopped_by`](crate::swarm::Status::stopped_by).
    ///
    /// ```no_run
    /// # async fn example(torrent: trackless::driver::Torrent) -> Option<()> {
    /// let status = torrent.status().await?;
    /// match status.obstacle() {
    ///     // "peers: asked 61 nodes, none knows a peer for this hash: nobody shares it now"
    ///     Some(obstacle) => println!("{}: {obstacle}", obstacle.stage()),
    ///     None => println!("{} bytes to go", status.swarm.missing_bytes()),
    /// }
    /// # Some(())
    /// # }
    /// ```
    pub fn obstacle(&self) -> Option<Obstacle> {
        let swarm = &self.swarm;
        let is_fetching = swarm.phase == Phase::FetchingMetadata;
        let is_downloading = swarm.phase == Phase::Downloading && swarm.missing_bytes() > 0;
        if swarm.paused || !(is_fetching || is_downloading) {
            return None;
        }
        if swarm.peers_reached == 0 {
            return Some(self.nobody());
        }
        if is_fetching {
            return Some(Obstacle::NoMetadata { peers: swarm.peers_reached });
        }
        if swarm.connected == 0 {
            return Some(Obstacle::AllLeft);
        }
        let is_here = swarm.unavailable_bytes < swarm.missing_bytes();
        let is_stalled = swarm.silent_for >= STALLED_AFTER && !is_here;
        is_stalled.then_some(Obstacle::Incomplete { peers: swarm.connected })
    }

    // Why nobody was reached.
    fn nobody(&self) -> Obstacle {
        let peers = self.swarm.peers_known;
        match self.dht {
            _ if peers > 0 => Obstacle::Unreachable { peers },
            None if self.swarm.private => Obstacle::Private,
            None => Obstacle::NoDht,
            Some(dht) if dht.replies > 0 => Obstacle::NoPeers { asked: dht.asked },
            Some(dht) if dht.bootstrap_addrs == 0 => {
                Obstacle::NoBootstrapAddress { names: dht.bootstrap_names }
            }
            Some(dht) => Obstacle::NoAnswer { nodes: dht.bootstrap_addrs },
        }
    }
}

/// Data that is handed out piece by piece comes sooner.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// For tests: a torrent that was just added from a magnet link.
#[cfg(test)]
impl TorrentStatus {
    pub(crate) fn fresh(dht: Option<crate::driver::DhtStage>) -> Self {
        use crate::base::{InfoHash, Instant, PeerId};
        use crate::swarm::{Config, Torrent};
        let (config, info_hash) = (Config::new(PeerId::new([1; 20])), InfoHash::new([1; 20]));
        let torrent = Torrent::new(config, info_hash, None, [1; 32], Instant::ZERO);
        Self { swarm: torrent.status(Instant::ZERO), dht }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DhtStage;
    use crate::swarm::{DiskError, DiskErrorKind, StopCause};

    fn dht() -> DhtStage {
        DhtStage { bootstrap_names: 4, bootstrap_addrs: 4, ..DhtStage::default() }
    }

    fn downloading() -> TorrentStatus {
        let mut status = TorrentStatus::fresh(Some(dht()));
        let swarm = &mut status.swarm;
        (swarm.phase, swarm.verified_bytes, swarm.wanted_bytes) = (Phase::Downloading, 1, 4);
        status
    }

    #[test]
    fn stages_and_obstacles_follow_what_is_known() {
        let mut status = TorrentStatus::fresh(Some(DhtStage { bootstrap_addrs: 0, ..dht() }));
        let mut seen = Vec::new();
        let steps: [fn(&mut TorrentStatus); 6] = [
            |_| {},
            |s| s.dht = Some(dht()),
            |s| s.dht = Some(DhtStage { replies: 1, asked: 20, ..dht() }),
            |s| s.dht = Some(DhtStage { replies: 9, asked: 20, answered: 3, ..dht() }),
            |s| s.swarm.peers_known = 3,
            |s| (s.swarm.connected, s.swarm.peers_reached) = (1, 2),
        ];
        for step in steps {
            step(&mut status);
            seen.push((status.stage(), status.obstacle().unwrap()));
        }
        assert_eq!(
            seen,
            [
                (Stage::Bootstrap, Obstacle::NoBootstrapAddress { names: 4 }),
                (Stage::Bootstrap, Obstacle::NoAnswer { nodes: 4 }),
                (Stage::Nodes, Obstacle::NoPeers { asked: 20 }),
                (Stage::Peers, Obstacle::NoPeers { asked: 20 }),
                (Stage::Connected, Obstacle::Unreachable { peers: 3 }),
                (Stage::Metadata, Obstacle::NoMetadata { peers: 2 }),
            ]
        );
        status.swarm.connected = 0;
        assert_eq!(status.stage(), Stage::Connected, "whoever was here has gone");
    }

    #[test]
    fn without_the_dht_peers_must_be_given() {
        let mut status = TorrentStatus::fresh(None);
        assert_eq!((status.stage(), status.obstacle()), (Stage::Connected, Some(Obstacle::NoDht)));
        status.swarm.private = true;
        assert_eq!(status.obstacle(), Some(Obstacle::Private));
        status.swarm.peers_known = 1;
        assert_eq!(status.obstacle(), Some(Obstacle::Unreachable { peers: 1 }));
    }

    #[test]
    fn download_lacks_whoever_has_the_rest() {
        let mut status = downloading();
        assert_eq!(status.stage(), Stage::Data);
        assert_eq!(status.obstacle(), Some(Obstacle::NoAnswer { nodes: 4 }), "nobody was reached");
        status.swarm.peers_reached = 2;
        assert_eq!(status.obstacle(), Some(Obstacle::AllLeft));
        (status.swarm.connected, status.swarm.unavailable_bytes) = (2, 3);
        assert_eq!(status.obstacle(), None, "more may be handed out at any moment");
        status.swarm.silent_for = STALLED_AFTER;
        assert_eq!(status.obstacle(), Some(Obstacle::Incomplete { peers: 2 }));
        status.swarm.unavailable_bytes = 2;
        assert_eq!(status.obstacle(), None, "somebody has a byte of it");
    }

    #[test]
    fn who_rests_or_has_all_waits_for_nothing() {
        let mut status = downloading();
        status.swarm.paused = true;
        assert_eq!(status.obstacle(), None);
        status.swarm.paused = false;
        status.swarm.verified_bytes = 4;
        assert_eq!(status.obstacle(), None, "what is complete is being made durable");
        status.swarm.verified_bytes = 1;
        for phase in [Phase::Checking, Phase::Seeding, Phase::Stopped] {
            status.swarm.phase = phase;
            assert_eq!((status.stage(), status.obstacle()), (Stage::Data, None));
        }
        let full = DiskError {
            kind: DiskErrorKind::Full,
            context: "writing".to_owned(),
            message: "no space".to_owned(),
        };
        status.swarm.stopped_by = Some(StopCause::Storage(full));
        assert_eq!(status.obstacle(), None, "that is another kind of reason");
    }

    #[test]
    fn obstacles_read_as_one_line_each() {
        let lines = [
            (Obstacle::NoBootstrapAddress { names: 1 }, "none of 1 bootstrap name could be"),
            (Obstacle::NoAnswer { nodes: 4 }, "no answer from any of 4 bootstrap nodes: is UDP"),
            (Obstacle::NoPeers { asked: 61 }, "asked 61 nodes, none knows a peer for this hash"),
            (Obstacle::Unreachable { peers: 31 }, "31 peers found, none reachable"),
            (Obstacle::NoMetadata { peers: 9 }, "9 peers reachable, none sent metadata"),
            (Obstacle::Incomplete { peers: 1 }, "1 peer connected, none has the rest"),
        ];
        for (obstacle, line) in lines {
            assert!(obstacle.to_string().starts_with(line), "{obstacle}");
        }
        let stages: Vec<_> = lines.iter().map(|(obstacle, _)| obstacle.stage().name()).collect();
        assert_eq!(stages, ["bootstrap", "bootstrap", "peers", "connected", "metadata", "data"]);
    }
}
