//! A caller's handle on one torrent of a session.

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::base::InfoHash;
use crate::base::budget::RateLimits;
use crate::driver::command::Command;
use crate::driver::news::News;
use crate::driver::{Erased, FileReader, ReadError, TorrentEvent, TorrentStatus};
use crate::engine::TorrentId;
use crate::swarm::{DiskError, DiskErrorKind, FileStatus, PeerStatus};

/// One torrent of a session. Dropping the handle leaves the torrent in the session.
#[derive(Debug)]
pub struct Torrent {
    pub(super) id: TorrentId,
    pub(super) info_hash: InfoHash,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) news: News,
}

impl Torrent {
    /// Which torrent.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The next news; `None` once the torrent or the session is gone. Nobody waits for a handle that
    /// does not take its news: it misses the oldest, and is told how many ([`TorrentEvent::Missed`]).
    pub async fn next_event(&mut self) -> Option<TorrentEvent> {
        self.news.next().await
    }

    /// Where it stands; `None` once the torrent or the session is gone.
    pub async fn status(&self) -> Option<TorrentStatus> {
        self.ask(|reply| Command::Status(self.id, reply)).await.flatten()
    }

    /// Its connected peers.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        self.ask(|reply| Command::Peers(self.id, reply)).await.unwrap_or_default()
    }

    /// Its files; empty before the metadata is here.
    pub async fn files(&self) -> Vec<FileStatus> {
        self.ask(|reply| Command::Files(self.id, reply)).await.unwrap_or_default()
    }

    /// Reads one of its files, by its place among all files as [`FileStatus::index`] counts them. What is
    /// not here yet is waited for.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoMetadata`] before the files are known, and if there is no such file or it is not
    /// selected.
    pub async fn reader(&self, file: usize) -> Result<FileReader, ReadError> {
        FileReader::open(self.commands.clone(), self.id, file).await
    }

    /// More peers to try at once.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        let _ = self.commands.send(Command::AddPeers(self.id, peers)).await;
    }

    /// Other files are wanted now; `None` means all.
    pub async fn select(&self, wanted: Option<Vec<bool>>) {
        let _ = self.commands.send(Command::Select(self.id, wanted)).await;
    }

    /// Lets go of all its connections, and looks for no more, until it is resumed.
    pub async fn pause(&self) {
        let _ = self.commands.send(Command::Pause(self.id)).await;
    }

    /// Goes on where it was paused.
    pub async fn resume(&self) {
        let _ = self.commands.send(Command::Resume(self.id)).await;
    }

    /// Reads all its data again, whatever was recorded of it, and goes on with what is good: what is bad is
    /// fetched again, or not shared any more if it was only shared. [`Event::Opened`](crate::swarm::Event::Opened)
    /// tells when that is done; until then it has no peers. False if there is no data yet, or it is being
    /// read.
    pub async fn recheck(&self) -> bool {
        self.ask(|reply| Command::Recheck(self.id, reply)).await.unwrap_or(false)
    }

    /// Pieces in order of their index from now on, or rarest first again.
    pub async fn set_sequential(&self, sequential: bool) {
        let _ = self.commands.send(Command::SetSequential(self.id, sequential)).await;
    }

    /// Other limits of its own from now on; those of the session hold as well.
    pub async fn set_limits(&self, limits: RateLimits) {
        let _ = self.commands.send(Command::SetLimits(Some(self.id), limits)).await;
    }

    /// Ends it: peers are told, what is good is recorded.
    pub async fn remove(self) {
        self.ask(|reply| Command::Remove(self.id, reply)).await;
    }

    /// Ends it, and deletes what it downloaded: the files that it wrote or found to be right, folders
    /// of it that are empty then, and what was recorded of it. What somebody else has put in the place
    /// of a file stays, links are not followed, and data that was only shared is never touched.
    ///
    /// # Errors
    ///
    /// What could not be deleted first. Everything else is.
    ///
    /// ```no_run
    /// # async fn example(torrent: trackless::driver::Torrent) -> Result<(), Box<dyn std::error::Error>> {
    /// let erased = torrent.remove_with_data().await.map_err(|error| error.message)?;
    /// println!("{} files, {} bytes; {} are not ours", erased.files, erased.bytes, erased.kept.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_with_data(self) -> Result<Erased, DiskError> {
        let erased = self.ask(|reply| Command::Erase(self.id, reply)).await;
        erased.unwrap_or_else(|| {
            let (context, message) = ("deleting".to_owned(), "the session has ended".to_owned());
            Err(DiskError { kind: DiskErrorKind::Io, context, message })
        })
    }

    // A session that is gone answers nothing.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
