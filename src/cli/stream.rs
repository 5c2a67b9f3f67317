//! `get --stdout`: the data of files while they come, one after the other.

use std::future::Future;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::pin;
use tokio::time::timeout;

use super::exit::{Code, Failure};
use super::online;
use super::output::Console;
use crate::base::InfoHash;
use crate::driver::Session;
use crate::swarm::layout::Layout;

/// Writes the wanted files to stdout, until all is written or nobody reads any more.
pub async fn copy(
    session: &Session,
    info_hash: InfoHash,
    layout: &Layout,
    wanted: Option<&[bool]>,
    console: &Console,
) -> Result<(), Failure> {
    let torrent = session.torrent(info_hash).await.ok_or_else(online::gone)?;
    let is_wanted = |index: usize| wanted.is_none_or(|w| w.get(index) == Some(&true));
    let files = layout.files().iter().enumerate();
    let mut buffer = vec![0; BUFFER_LEN];
    for (index, _) in files.filter(|(index, file)| !file.pad && is_wanted(*index)) {
        let failed = |error: std::io::Error| Failure::new(Code::Disk, error.to_string());
        let mut reader = torrent.reader(index).await.map_err(|e| failed(e.into()))?;
        loop {
            let read = reader.read(&mut buffer).await.map_err(failed)?;
            if read == 0 {
                break;
            }
            // Who reads slowly holds this up and nothing else.
            tokio::task::block_in_place(|| console.write(&buffer[..read]));
            if console.is_closed() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Copies while the download is watched. Both end well, or the download is `passing`: then it need not
/// go on when all is written, or nobody reads.
pub async fn alongside(
    watched: impl Future<Output = Result<(), Failure>>,
    copied: impl Future<Output = Result<(), Failure>>,
    passing: impl Fn() -> bool,
) -> Result<(), Failure> {
    pin!(watched, copied);
    tokio::select! {
        ended = &mut watched => {
            ended?;
            copied.await
        }
        ended = &mut copied => match ended {
            Ok(()) if passing() => Ok(()),
            Ok(()) => watched.await,
            // It ends because the download did, which knows better why.
            Err(failure) => match timeout(CAUSE_MAX, watched).await {
                Ok(Err(cause)) => Err(cause),
                Ok(Ok(())) | Err(_) => Err(failure),
            },
        }
    }
}

const BUFFER_LEN: usize = 256 << 10;
const CAUSE_MAX: Duration = Duration::from_secs(1);
