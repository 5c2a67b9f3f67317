//! What a session is asked to add: a torrent by its link, its file or its hash, and what to do with it.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::base::InfoHash;
use crate::base::budget::RateLimits;
use crate::base::limits::{FILES_MAX, METADATA_SIZE_MAX};
use crate::wire::magnet::{Link, LinkError, PeerHint};
use crate::wire::metainfo::{Metainfo, MetainfoError};

/// Where a torrent's data goes or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Nowhere: only the info dictionary is fetched.
    None,
    /// Download below this directory.
    Download(PathBuf),
    /// All data is below this directory already and was just hashed: seed it, never write.
    Seed(PathBuf),
    /// Data is below this directory: check it, then seed what is good, never write.
    SeedChecked(PathBuf),
}

/// A torrent to add.
#[derive(Debug, Clone)]
pub struct AddTorrent {
    /// Which one.
    pub info_hash: InfoHash,
    /// The info dictionary, if it is known already.
    pub info: Option<Bytes>,
    /// Peers to try at once.
    pub peers: Vec<SocketAddr>,
    /// Where its data goes or is.
    pub output: Output,
    /// Which files are wanted; `None` means all. A file beyond the last flag is not wanted.
    pub wanted: Option<Vec<bool>>,
    /// Pieces in order rather than rarest first.
    pub sequential: bool,
    /// Hand each piece out once, if we have everything from the start and are alone (BEP 16).
    pub super_seeding: bool,
    /// How fast its payload may flow; the session's limits hold as well.
    pub limits: RateLimits,
    /// Its connections, of those that the session may have.
    pub connections_max: usize,
    /// Look what is there, and nothing more until [`Torrent::resume`](crate::driver::Torrent::resume).
    pub paused: bool,
    /// Download over files that hold something else: they are lost. Without it such a file is left
    /// alone, and the download refused.
    pub overwrite: bool,
    /// Record what is here, for the next session that has the same state directory.
    pub remembered: bool,
}

/// Why a torrent file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TorrentFileError {
    /// It could not be opened or read.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// It is no torrent.
    #[error("{0}: {1}")]
    Bad(PathBuf, MetainfoError),
}

impl AddTorrent {
    /// A torrent known by its hash alone, to be resolved.
    pub fn new(info_hash: InfoHash) -> Self {
        let (info, peers, output) = (None, Vec::new(), Output::None);
        Self {
            info_hash,
            info,
            peers,
            output,
            wanted: None,
            sequential: false,
            super_seeding: true,
            limits: RateLimits::default(),
            connections_max: 100,
            paused: false,
            overwrite: false,
            remembered: true,
        }
    }

    /// What a magnet link names, or a bare info-hash: the torrent, the peers that it gives by address
    /// (BEP 9), and the files that it selects (BEP 53).
    ///
    /// # Errors
    ///
    /// What is wrong with the link.
    ///
    /// ```
    /// use trackless::driver::AddTorrent;
    ///
    /// let hash = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";
    /// let link = format!("magnet:?xt=urn:btih:{hash}&x.pe=192.0.2.1:6881&so=0,2");
    /// let add = AddTorrent::magnet(&link)?;
    /// assert_eq!(add.info_hash.to_string(), hash);
    /// assert_eq!(add.peers, ["192.0.2.1:6881".parse()?]);
    /// assert_eq!(add.wanted, Some(vec![true, false, true]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn magnet(link: &str) -> Result<Self, LinkError> {
        let link = Link::parse(link)?;
        let peers = link.peers.iter().filter_map(|peer| match peer {
            PeerHint::Addr(addr) => Some(*addr),
            PeerHint::Host(..) => None,
        });
        let peers = peers.take(LINK_PEERS_MAX).collect();
        Ok(Self { peers, wanted: selected(&link), ..Self::new(link.info_hash) })
    }

    /// The torrent that the bytes of a torrent file describe.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn torrent(file: &Bytes) -> Result<Self, MetainfoError> {
        let metainfo = Metainfo::decode(file)?;
        Ok(Self { info: Some(metainfo.info_bytes), ..Self::new(metainfo.info_hash) })
    }

    /// The torrent that a torrent file describes.
    ///
    /// # Errors
    ///
    /// Why the file could not be read, or what is wrong with it.
    pub async fn torrent_file(path: impl AsRef<Path>) -> Result<Self, TorrentFileError> {
        let path = path.as_ref();
        let read = tokio::task::spawn_blocking({
            let path = path.to_owned();
            move || read(&path)
        });
        let bytes = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let bytes = bytes.map_err(|error| TorrentFileError::Io(path.to_owned(), error))?;
        Self::torrent(&bytes.into()).map_err(|error| TorrentFileError::Bad(path.to_owned(), error))
    }

    /// The same, downloaded below this directory.
    pub fn into_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self { output: Output::Download(dir.into()), ..self }
    }
}

// Never more of a file than a torrent can be.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = METADATA_SIZE_MAX as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

// The flags up to the last file that is selected.
fn selected(link: &Link) -> Option<Vec<bool>> {
    let ranges = link.select.as_ref()?;
    let last = ranges.iter().map(|range| *range.end()).max().unwrap_or(0);
    let last = usize::try_from(last).unwrap_or(usize::MAX).min(FILES_MAX - 1);
    let files = u32::try_from(last).unwrap_or(u32::MAX);
    Some((0..=files).map(|index| link.is_selected(index)).collect())
}

/// Peers of a link: it is made by a person, for a handful of them.
const LINK_PEERS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";

    #[test]
    fn link_cannot_make_more_flags_than_there_can_be_files() {
        let link = format!("magnet:?xt=urn:btih:{HASH}&so=1-4000000000");
        let add = AddTorrent::magnet(&link).unwrap();
        let wanted = add.wanted.unwrap();
        assert_eq!(wanted.len(), FILES_MAX);
        assert!(!wanted[0] && wanted[1]);
        assert_eq!(AddTorrent::magnet(HASH).unwrap().wanted, None);
        assert!(AddTorrent::magnet("magnet:?dn=x").is_err());
    }

    #[test]
    fn torrent_bytes_bring_their_info_dictionary() {
        let info = b"d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        let file = [&b"d4:info"[..], info, b"e"].concat();
        let add = AddTorrent::torrent(&Bytes::from(file)).unwrap().into_dir("here");
        assert_eq!(add.info.as_deref(), Some(&info[..]));
        assert_eq!(add.info_hash, InfoHash::new(crate::base::hash::sha1(info)));
        assert_eq!(add.output, Output::Download("here".into()));
        assert!(AddTorrent::torrent(&Bytes::from_static(b"de")).is_err());
    }

    #[tokio::test]
    async fn missing_file_and_bad_file_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.torrent");
        let missing = AddTorrent::torrent_file(&path).await.unwrap_err();
        assert!(matches!(&missing, TorrentFileError::Io(at, _) if *at == path), "{missing}");
        std::fs::write(&path, "no torrent").unwrap();
        let bad = AddTorrent::torrent_file(&path).await.unwrap_err();
        assert!(matches!(&bad, TorrentFileError::Bad(at, _) if *at == path), "{bad}");
    }
}
