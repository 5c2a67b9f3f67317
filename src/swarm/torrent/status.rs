//! Snapshots for eyes and scripts.

use std::time::Duration;

use super::Torrent;
use super::downloading::Ending;
use crate::base::Instant;
use crate::swarm::{FileStatus, PeerStatus, Phase, Status};

impl Torrent {
    /// Which torrent this is.
    pub fn info_hash(&self) -> crate::base::InfoHash {
        self.info_hash
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Is nobody connected although somebody is needed?
    pub fn is_lonely(&self) -> bool {
        let wants = matches!(self.phase, Phase::FetchingMetadata | Phase::Downloading);
        self.peers.is_empty() && wants && !self.paused
    }

    /// Is every piece here, wanted or not (BEP 33)?
    pub fn is_seed(&self) -> bool {
        self.transfer.as_ref().is_some_and(|t| t.picker.have().is_all())
    }

    /// Does it share everything it wants, with nobody?
    pub fn is_idle_seed(&self) -> bool {
        self.phase == Phase::Seeding && self.peers.is_empty() && !self.paused
    }

    /// Was it paused?
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Would more peers help?
    pub fn wants_peers(&self) -> bool {
        if self.paused {
            return false;
        }
        let here = self.peers.len() + self.candidates.dialling() + self.candidates.ready(self.now);
        match self.phase {
            Phase::FetchingMetadata => true,
            Phase::Checking | Phase::Downloading => here < self.config.connections_max,
            // Leechers find a seed by its announce; it only looks for those it cannot hear.
            Phase::Seeding => here < SEED_PEERS_MIN,
            Phase::Stopped => false,
        }
    }

    /// A snapshot.
    pub fn status(&self, now: Instant) -> Status {
        let stats = self.candidates.stats();
        let wanted_bytes = self.transfer.as_ref().map_or(0, |t| t.wanted_bytes);
        let missing = self.transfer.as_ref().map_or(0, |t| t.picker.missing_bytes());
        let download_rate = self.download.per_second();
        let open = || self.peers.values().filter(|p| p.conn.is_open());
        Status {
            info_hash: self.info_hash,
            phase: self.phase,
            paused: self.paused,
            stopped_by: self.stopped_by.clone(),
            finished: self.transfer.as_ref().is_some_and(|t| t.ending == Ending::Told)
                && self.phase == Phase::Seeding,
            name: self.content.as_ref().map(|c| c.layout.name().to_owned()),
            private: self.is_private(),
            wanted_bytes,
            verified_bytes: wanted_bytes - missing,
            unavailable_bytes: self.unavailable_bytes(),
            checking: self.checking,
            pieces: self.content.as_ref().map_or(0, |c| c.layout.piece_count()),
            pieces_have: self.transfer.as_ref().map_or(0, |t| t.picker.have().count()),
            downloaded: self.download.total(),
            uploaded: self.upload.total(),
            wasted: self.wasted,
            silent_for: now.since(self.block_at),
            download_rate,
            upload_rate: self.upload.per_second(),
            peers_known: stats.known,
            peers_tried: stats.tried,
            dials_failed: stats.failed,
            peers_reached: stats.reached,
            connected: open().count(),
            dialling: self.candidates.dialling(),
            seeds: open().filter(|p| p.conn.is_seed()).count(),
            metadata: self.metadata_progress(),
            banned: self.candidates.banned(now),
            hash_failures: self.hash_failures,
            eta: (missing > 0)
                .then(|| missing.checked_div(download_rate))
                .flatten()
                .map(Duration::from_secs),
        }
    }

    fn unavailable_bytes(&self) -> u64 {
        let downloads = self.phase == Phase::Downloading;
        self.transfer.as_ref().filter(|_| downloads).map_or(0, |t| t.picker.unavailable_bytes())
    }

    fn metadata_progress(&self) -> (usize, usize) {
        match &self.content {
            Some(content) => (content.bytes.len(), content.bytes.len()),
            None => self.metadata.progress(),
        }
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let open = self.peers.values().filter(|p| p.conn.is_open());
        let peers = open.map(|peer| PeerStatus {
            addr: peer.addr,
            client: peer.conn.extensions().and_then(|e| e.client.clone()),
            source: peer.source,
            pieces_have: peer.conn.pieces().map_or(0, |pieces| pieces.count()),
            download_rate: peer.conn.download.per_second(),
            upload_rate: peer.conn.upload.per_second(),
            choked: peer.conn.is_peer_choking(),
            choking: peer.conn.is_choking(),
        });
        peers.collect()
    }

    /// The files, padding left out; empty as long as they are not known.
    pub fn files(&self) -> Vec<FileStatus> {
        let Some(content) = &self.content else { return Vec::new() };
        let layout = &content.layout;
        let have = self.transfer.as_ref().map(|t| t.picker.have());
        let files = layout.files().iter().enumerate().filter(|(_, file)| !file.pad);
        let status = files.map(|(index, file)| {
            let end = file.offset + file.len;
            let pieces = layout.pieces_of_file(index).filter_map(|piece| layout.piece(piece));
            let good = pieces.filter(|piece| have.is_some_and(|have| have.has(piece.get())));
            let verified = good.map(|piece| {
                let from = layout.piece_offset(piece);
                let to = from + u64::from(layout.piece_len(piece));
                to.min(end) - from.max(file.offset)
            });
            let wanted = self.config.wanted.as_ref();
            FileStatus {
                index,
                path: file.path.clone(),
                len: file.len,
                verified: verified.sum(),
                wanted: wanted.is_none_or(|wanted| wanted.get(index).is_some_and(|w| *w)),
            }
        });
        status.collect()
    }
}

/// Peers that a seed knows or has before it stops looking for more.
pub(super) const SEED_PEERS_MIN: usize = 20;
