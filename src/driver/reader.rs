//! `FileReader`: one file of a torrent as a stream of bytes, while it is being downloaded.

use std::future::Future;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use crate::driver::command::{Command, Read};
use crate::engine::TorrentId;
use crate::swarm::{DiskError, DiskErrorKind, ReaderId};

/// Reads one file of a torrent. What is not here yet is waited for, and fetched before everything
/// else, together with what follows it; every byte that comes out was verified.
///
/// ```no_run
/// # use tokio::io::{AsyncReadExt, AsyncSeekExt};
/// # async fn example(torrent: &trackless::driver::Torrent) -> std::io::Result<()> {
/// let mut file = torrent.reader(0).await?;
/// let mut head = [0; 16];
/// file.read_exact(&mut head).await?;
/// file.seek(std::io::SeekFrom::End(-16)).await?;
/// let mut tail = [0; 16];
/// file.read_exact(&mut tail).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FileReader {
    commands: mpsc::Sender<Command>,
    id: ReaderId,
    // While it lives the session keeps the window of this reader.
    token: Arc<()>,
    len: u64,
    /// Where the next byte comes from.
    at: u64,
    ahead: u64,
    /// Bytes from there on.
    ready: Bytes,
    pending: Option<Pending>,
}

struct Pending(Pin<Box<dyn Future<Output = Result<Bytes, ReadError>> + Send + Sync>>);

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Why a torrent's data could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The torrent was removed, or it failed, or the session has ended.
    #[error("the torrent is not there any more")]
    Ended,
    /// The files are not known before the info dictionary is here.
    #[error("the files of the torrent are not known yet")]
    NoMetadata,
    /// There is no such file.
    #[error("the torrent has no file number {0}")]
    NoFile(usize),
    /// The file is not selected: it would never come.
    #[error("the file is not selected")]
    NotSelected,
    /// Only the info dictionary is fetched: there is no data.
    #[error("the torrent has no place for its data")]
    NoData,
    /// The storage failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Ended => io::ErrorKind::BrokenPipe,
            ReadError::NoMetadata => io::ErrorKind::NotConnected,
            ReadError::NoFile(_) | ReadError::NotSelected | ReadError::NoData => {
                io::ErrorKind::NotFound
            }
            ReadError::Disk(disk) => match disk.kind {
                DiskErrorKind::Full => io::ErrorKind::StorageFull,
                DiskErrorKind::Permission => io::ErrorKind::PermissionDenied,
                DiskErrorKind::Busy => io::ErrorKind::ResourceBusy,
                DiskErrorKind::Conflict
                | DiskErrorKind::Occupied
                | DiskErrorKind::Layout
                | DiskErrorKind::Io => io::ErrorKind::Other,
            },
        };
        io::Error::new(kind, error)
    }
}

impl FileReader {
    pub(super) async fn open(
        commands: mpsc::Sender<Command>,
        torrent: TorrentId,
        file: usize,
    ) -> Result<Self, ReadError> {
        let token = Arc::new(());
        let (reply, answer) = oneshot::channel();
        let open = Command::OpenReader(torrent, file, Arc::downgrade(&token), reply);
        commands.send(open).await.map_err(|_| ReadError::Ended)?;
        let opened = answer.await.map_err(|_| ReadError::Ended)??;
        Ok(Self {
            commands,
            id: opened.reader,
            token,
            len: opened.len,
            at: 0,
            ahead: READ_AHEAD,
            ready: Bytes::new(),
            pending: None,
        })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Has the file no bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How much of what follows is fetched before the rest of the torrent; 16 MiB unless told.
    pub fn set_read_ahead(&mut self, bytes: u64) {
        self.ahead = bytes;
    }

    // The bytes from here on; none at the end of the file.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut Bytes, ReadError>> {
        if self.ready.is_empty() && self.at < self.len {
            let pending = match &mut self.pending {
                Some(pending) => pending,
                None => {
                    let next = self.next_read();
                    self.pending.insert(Pending(Box::pin(next)))
                }
            };
            let read = ready!(pending.0.as_mut().poll(cx));
            self.pending = None;
            self.ready = read?;
        }
        Poll::Ready(Ok(&mut self.ready))
    }

    fn next_read(&self) -> impl Future<Output = Result<Bytes, ReadError>> + Send + Sync + use<> {
        let (commands, id) = (self.commands.clone(), self.id);
        let read = Read { at: self.at, len: READ_LEN, ahead: self.ahead };
        async move {
            let (reply, answer) = oneshot::channel();
            let read = Command::Read(id, read, reply);
            commands.send(read).await.map_err(|_| ReadError::Ended)?;
            answer.await.map_err(|_| ReadError::Ended)?
        }
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        let ready = ready!(reader.poll_ready(cx))?;
        let len = ready.len().min(out.remaining());
        out.put_slice(&ready[..len]);
        ready.advance(len);
        reader.at += len as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for FileReader {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let reader = self.get_mut();
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => reader.len.checked_add_signed(by),
            SeekFrom::Current(by) => reader.at.checked_add_signed(by),
        };
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        let skipped = at.checked_sub(reader.at).and_then(|by| usize::try_from(by).ok());
        match skipped.filter(|by| *by <= reader.ready.len()) {
            Some(by) => reader.ready.advance(by),
            None => reader.ready = Bytes::new(),
        }
        if at != reader.at {
            reader.pending = None;
        }
        reader.at = at;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        self.token = Arc::new(());
        // If the loop is busy it finds the lost token when the next reader asks for something.
        let _ = self.commands.try_send(Command::Sweep);
    }
}

/// Bytes asked for at once, as the disk reads them.
const READ_LEN: u32 = 256 << 10;
/// Twenty seconds of a film in high definition.
const READ_AHEAD: u64 = 16 << 20;
