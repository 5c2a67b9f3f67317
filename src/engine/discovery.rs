//! When a torrent asks the DHT: at once, again with back-off while it has nobody, and at once when the
//! table grows. A node that keeps it announced renews that by itself; else it is looked up every 14
//! minutes. Where there are hundreds, those that only could use more peers look less often.

use std::time::Duration;

use crate::base::Instant;
use crate::dht::{LookupId, LookupKind, LookupReport};
use crate::engine::SocketId;

/// What the lookups of a torrent have come to, over all its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiscoveryStatus {
    /// Lookups that are over.
    pub lookups_done: usize,
    /// Lookups under way.
    pub running: usize,
    /// Nodes asked, in all lookups.
    pub asked: usize,
    /// Nodes that answered, in all lookups.
    pub answered: usize,
    /// Peers named by the DHT, with repetitions between lookups.
    pub peers_found: usize,
    /// Nodes that hold our announce, by the last lookup.
    pub announced: usize,
}

/// How much a torrent needs another lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It has nobody.
    Nobody,
    /// More peers would help.
    More,
    /// Only the announce has to be kept alive.
    Nothing,
}

/// What there is to know when the next lookup is planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// How much the torrent needs one.
    pub(super) need: Need,
    /// Nodes keep it announced by themselves.
    pub(super) is_kept: bool,
    /// How many torrents there are.
    pub(super) torrents: u32,
}

/// The lookups of one torrent.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    running: Vec<(SocketId, LookupId)>,
    next_at: Option<Instant>,
    fruitless: u32,
    last_announce: Option<Instant>,
    stirred_at: Option<Instant>,
    // By node: how many hold our announce.
    announced: Vec<(SocketId, usize)>,
    done: DiscoveryStatus,
}

impl Discovery {
    /// The first lookup is due at once.
    pub(super) fn start(now: Instant) -> Self {
        Self { next_at: Some(now), ..Self::default() }
    }

    /// Is a lookup due?
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }

    /// A lookup began on each of these nodes.
    pub(super) fn on_started(
        &mut self,
        now: Instant,
        running: Vec<(SocketId, LookupId)>,
        announces: bool,
    ) {
        if announces {
            self.last_announce = Some(now);
        }
        self.next_at = None;
        // What nodes hold they go on holding while it is asked anew, for as long as their socket lives.
        self.announced.retain(|(socket, _)| running.iter().any(|(other, _)| other == socket));
        if running.is_empty() {
            self.next_at = Some(now + RETRY_MAX);
        }
        self.running = running;
    }

    /// One of ours is over. When the last one is, the next is planned: soon if it brought nobody.
    pub(super) fn on_done(
        &mut self,
        now: Instant,
        socket: SocketId,
        lookup: LookupId,
        report: &LookupReport,
        outlook: Outlook,
    ) {
        self.running.retain(|r| *r != (socket, lookup));
        self.note(socket, report);
        if self.running.is_empty() {
            self.plan(now, outlook);
        }
    }

    /// A node has announced the torrent anew, by itself.
    pub(super) fn on_renewed(
        &mut self,
        now: Instant,
        socket: SocketId,
        report: &LookupReport,
        outlook: Outlook,
    ) {
        self.last_announce = Some(now);
        self.note(socket, report);
        // Where nothing was wanted before, something may be by now.
        if self.running.is_empty() && self.next_at.is_none() {
            self.fruitless = 0;
            self.plan(now, outlook);
        }
    }

    fn note(&mut self, socket: SocketId, report: &LookupReport) {
        self.done.lookups_done += 1;
        self.done.asked += report.asked;
        self.done.answered += report.answered;
        if !matches!(report.kind, LookupKind::Announce(_)) {
            return;
        }
        self.announced.retain(|(other, _)| *other != socket);
        self.announced.push((socket, report.announced));
    }

    // When to look again: soon if nobody was found; not at all if the announce is kept alive and no more
    // is wanted.
    fn plan(&mut self, now: Instant, outlook: Outlook) {
        let Outlook { need, is_kept, torrents } = outlook;
        let (first, longest, crowd) = match need {
            Need::Nobody => (RETRY_FIRST, RETRY_MAX, RETRY_CROWD),
            Need::More | Need::Nothing => (MORE_FIRST, MORE_MAX, MORE_CROWD),
        };
        let mut retry = first.saturating_mul(1 << self.fruitless.min(10)).min(longest);
        if self.fruitless >= FRUITLESS_AT_ONCE {
            retry = retry.max(crowd.saturating_mul(torrents));
        }
        self.fruitless = self.fruitless.saturating_add(1);
        let renew =
            self.last_announce.map_or(ANNOUNCE_EVERY, |at| (at + ANNOUNCE_EVERY).since(now));
        // An announce that few nodes hold is renewed as soon as more are wanted.
        let wait = if need != Need::Nothing || self.is_thin() { retry.min(renew) } else { renew };
        self.next_at = Some(now + wait).filter(|_| wait < renew || !is_kept);
    }

    /// One of ours came to nothing, while another did.
    pub(super) fn on_cancelled(&mut self, socket: SocketId, lookup: LookupId) {
        self.running.retain(|r| *r != (socket, lookup));
    }

    /// The lookup named new peers: the next search may start its back-off anew.
    pub(super) fn on_peers(&mut self, count: usize) {
        self.done.peers_found += count;
    }

    /// Do too few nodes hold our announce, as far as we know?
    pub(super) fn is_thin(&self) -> bool {
        self.last_announce.is_some() && self.holders() < ANNOUNCED_WANTED
    }

    fn holders(&self) -> usize {
        self.announced.iter().map(|(_, nodes)| nodes).sum()
    }

    /// The table grew, or peers are wanted again: look now rather than at the end of the back-off.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.running.is_empty() {
            self.next_at = Some(self.next_at.map_or(now, |at| at.min(now)));
            self.fruitless = 0;
        }
    }

    /// Somebody came to a seed that had nobody: it looks for those that come with it, once they have
    /// announced themselves, and starts its back-off anew. Not each time that somebody comes and goes.
    pub(super) fn stir(&mut self, now: Instant) {
        let is_late = self.stirred_at.is_none_or(|at| now.since(at) >= STIR_EVERY);
        if is_late && self.running.is_empty() {
            self.stirred_at = Some(now);
            let at = now + STIR_DELAY;
            self.next_at = Some(self.next_at.map_or(at, |next| next.min(at)));
            self.fruitless = 0;
        }
    }

    pub(super) fn running(&self) -> &[(SocketId, LookupId)] {
        &self.running
    }

    /// Nothing is looked for until [`Discovery::hurry`]: the first lookup is not due.
    pub(super) fn resting() -> Self {
        Self::default()
    }

    /// Stop looking; the running lookups are returned, to be cancelled.
    pub(super) fn stop(&mut self) -> Vec<(SocketId, LookupId)> {
        self.next_at = None;
        std::mem::take(&mut self.running)
    }

    /// Totals of what is over; the caller adds the progress of what is running.
    pub(super) fn status(&self) -> DiscoveryStatus {
        DiscoveryStatus { running: self.running.len(), announced: self.holders(), ..self.done }
    }
}

/// The first pause after a lookup that brought nobody; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between lookups of a torrent that has nobody.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The same for a torrent that has somebody and could use more.
const MORE_FIRST: Duration = Duration::from_secs(15);
const MORE_MAX: Duration = Duration::from_secs(5 * 60);
/// Clients that start together with the one that came to a seed first have announced themselves by then:
/// aria2 asks an empty table first, waits for five seconds, and announces itself with its second lookup.
const STIR_DELAY: Duration = Duration::from_secs(7);
/// Whoever comes again and again does not make us look again and again.
const STIR_EVERY: Duration = Duration::from_secs(10 * 60);
/// From the third pause on it is no shorter than this for each torrent there is: all of them together
/// then take a fifth of the usual budget of new flows, with forty for a lookup.
const MORE_CROWD: Duration = Duration::from_secs(4);
/// Who has nobody may have all of it.
const RETRY_CROWD: Duration = Duration::from_millis(800);
const FRUITLESS_AT_ONCE: u32 = 2;
/// Nodes that should hold our announce: the closest bucket (BEP 5).
const ANNOUNCED_WANTED: usize = 8;
/// Nodes keep an announce for 15 minutes or more; a minute early allows for a slow lookup.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(14 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::InfoHash;

    fn report(announced: usize) -> LookupReport {
        LookupReport {
            kind: LookupKind::Announce(InfoHash::new([0; 20])),
            asked: 5,
            queries: 5,
            answered: 3,
            dead: 2,
            closest: None,
            nodes: Vec::new(),
            crowd: 0,
            peers: 0,
            announced,
            refused: Vec::new(),
            copies: 0,
            scrape: None,
            cost: crate::dht::LookupCost::default(),
            took: Duration::ZERO,
        }
    }

    fn one_round(d: &mut Discovery, now: Instant, announced: usize, need: Need) -> Duration {
        let id = (SocketId(0), LookupId(1));
        d.on_started(now, vec![id], announced > 0);
        d.on_done(now, id.0, id.1, &report(announced), alone(need));
        d.poll_timeout().unwrap().since(now)
    }

    fn alone(need: Need) -> Outlook {
        Outlook { need, is_kept: false, torrents: 1 }
    }

    #[test]
    fn torrent_that_nodes_keep_announced_looks_again_only_if_it_needs_to() {
        let (mut d, at) = (Discovery::start(Instant::ZERO), Instant::ZERO);
        let id = (SocketId(0), LookupId(1));
        d.on_started(at, vec![id], true);
        let kept = Outlook { is_kept: true, ..alone(Need::Nothing) };
        d.on_done(at, id.0, id.1, &report(8), kept);
        assert_eq!((d.poll_timeout(), d.is_thin()), (None, false));
        // Its peers have left, which is noticed when it is announced anew.
        let later = at + ANNOUNCE_EVERY;
        d.on_renewed(later, id.0, &report(7), Outlook { need: Need::Nobody, ..kept });
        assert_eq!(d.poll_timeout(), Some(later + RETRY_FIRST));
        assert_eq!((d.status().announced, d.status().lookups_done), (7, 2));
        // Two nodes renew, each for itself.
        d.on_renewed(later, SocketId(1), &report(3), kept);
        assert_eq!(d.status().announced, 10);
    }

    #[test]
    fn one_of_many_that_could_use_more_peers_leaves_the_budget_to_others() {
        let pauses = |torrents| {
            let mut d = Discovery::start(Instant::ZERO);
            let outlook = Outlook { need: Need::More, is_kept: true, torrents };
            let id = (SocketId(0), LookupId(1));
            let mut round = || {
                d.on_started(Instant::ZERO, vec![id], true);
                d.on_done(Instant::ZERO, id.0, id.1, &report(8), outlook);
                d.poll_timeout().map(|at| at.since(Instant::ZERO).as_secs())
            };
            [round(), round(), round(), round()]
        };
        assert_eq!(pauses(1), [Some(15), Some(30), Some(60), Some(120)]);
        assert_eq!(pauses(100), [Some(15), Some(30), Some(400), Some(400)]);
        assert_eq!(pauses(1_000), [Some(15), Some(30), None, None]);
    }

    #[test]
    fn pause_doubles_while_nobody_is_found_and_stays_bounded() {
        let mut d = Discovery::start(Instant::ZERO);
        assert!(d.is_due(Instant::ZERO));
        let pauses: Vec<u64> =
            (0..9).map(|_| one_round(&mut d, Instant::ZERO, 0, Need::Nobody).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        d.hurry(Instant::ZERO);
        assert!(d.is_due(Instant::ZERO));
        assert_eq!(one_round(&mut d, Instant::ZERO, 0, Need::Nobody).as_secs(), 1);
    }

    #[test]
    fn contented_torrent_announces_again_within_fifteen_minutes() {
        let mut d = Discovery::start(Instant::ZERO);
        assert_eq!(one_round(&mut d, Instant::ZERO, 8, Need::Nothing), ANNOUNCE_EVERY);
        assert!(ANNOUNCE_EVERY <= Duration::from_secs(15 * 60));
        assert_eq!(d.status().lookups_done, 1);
        assert_eq!(d.status().announced, 8);
    }

    #[test]
    fn torrent_with_some_peers_looks_less_often_than_one_with_none() {
        let mut d = Discovery::start(Instant::ZERO);
        let pauses: Vec<u64> =
            (0..6).map(|_| one_round(&mut d, Instant::ZERO, 0, Need::More).as_secs()).collect();
        assert_eq!(pauses, [15, 30, 60, 120, 240, 300]);
    }

    #[test]
    fn announce_that_few_nodes_hold_is_renewed_soon() {
        let mut d = Discovery::start(Instant::ZERO);
        assert_eq!(one_round(&mut d, Instant::ZERO, 2, Need::Nothing), MORE_FIRST);
        assert!(d.is_thin());
        assert_eq!(one_round(&mut d, Instant::ZERO, 8, Need::Nothing), ANNOUNCE_EVERY);
        assert!(!d.is_thin());
    }

    #[test]
    fn seed_that_somebody_comes_to_looks_for_others_but_not_each_time() {
        let (mut d, now) = (Discovery::start(Instant::ZERO), Instant::ZERO);
        assert_eq!(one_round(&mut d, now, 8, Need::Nothing), ANNOUNCE_EVERY);
        d.stir(now);
        assert_eq!(d.poll_timeout(), Some(now + STIR_DELAY));
        assert_eq!(one_round(&mut d, now + STIR_DELAY, 8, Need::More), MORE_FIRST);
        assert_eq!(one_round(&mut d, now + STIR_EVERY / 2, 8, Need::More), 2 * MORE_FIRST);
        let next = d.poll_timeout();
        d.stir(now + STIR_EVERY / 2);
        assert_eq!(d.poll_timeout(), next);
        d.stir(now + STIR_EVERY);
        assert!(d.poll_timeout() < Some(now + STIR_EVERY + 2 * STIR_DELAY));
    }

    #[test]
    fn what_nodes_hold_counts_while_they_are_asked_anew() {
        let (mut d, now) = (Discovery::start(Instant::ZERO), Instant::ZERO);
        one_round(&mut d, now, 8, Need::Nobody);
        let id = (SocketId(0), LookupId(2));
        d.on_started(now, vec![id], true);
        assert_eq!((d.status().announced, d.is_thin()), (8, false));
        // One that only looks says nothing of them; one that announced to nobody does.
        let looked =
            LookupReport { kind: LookupKind::GetPeers(InfoHash::new([0; 20])), ..report(0) };
        d.on_done(now, id.0, id.1, &looked, alone(Need::Nobody));
        assert_eq!(d.status().announced, 8);
        one_round(&mut d, now, 0, Need::Nobody);
        assert_eq!((d.status().announced, d.is_thin()), (0, true));
        // Its socket is gone, and with it the address that they name.
        one_round(&mut d, now, 8, Need::Nobody);
        d.on_started(now, vec![(SocketId(1), LookupId(3))], true);
        assert_eq!(d.status().announced, 0);
    }

    #[test]
    fn grown_table_does_not_start_a_second_lookup() {
        let mut d = Discovery::start(Instant::ZERO);
        d.on_started(Instant::ZERO, vec![(SocketId(0), LookupId(1))], false);
        d.hurry(Instant::ZERO);
        assert!(!d.is_due(Instant::FAR_FUTURE));
    }
}
