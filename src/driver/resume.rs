//! What is remembered of a download between two runs.
//!
//! One record for each pair of torrent and directory: the pieces whose data was durable when the
//! record was written, and length, modification time and inode of every file then. At the next
//! start a piece is trusted if its files are still exactly those; all else is hashed again. The
//! info dictionary is kept beside the records as a torrent file of its own, so that a magnet link
//! does not have to be resolved twice. All of it is kept for the torrents that were used last; what
//! is dropped of the others costs a check, or a lookup, if they come back.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::{Deserialize, Serialize};

use crate::base::limits::METADATA_SIZE_MAX;
use crate::base::{InfoHash, hash};
use crate::driver::state_file;
use crate::wire::metainfo::{Metainfo, TorrentExtras, torrent_file};

/// What tells that a file was not changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Bytes.
    pub len: u64,
    /// Last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Which file it is on its file system.
    pub inode: u64,
}

impl Stamp {
    /// Of a file that was not there, but may have been made since; no file looks like that.
    pub const NONE: Stamp = Stamp { len: 0, mtime_ns: 0, inode: 0 };

    /// The stamp of a file.
    pub fn of(meta: &Metadata) -> Stamp {
        let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        Stamp { len: meta.len(), mtime_ns, inode: meta.ino() }
    }
}

/// The record of one download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Pieces that were good and durable, as in a bitfield message.
    pub have: Vec<u8>,
    /// The files that existed, by index; with [`Stamp::NONE`] those that were about to be made.
    pub files: Vec<(u32, Stamp)>,
    /// The side file, if there was one.
    pub parts: Option<Stamp>,
}

impl Record {
    /// The bytes of its file.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        state_file::encode(VERSION, self)
    }

    /// Reads the bytes of its file; else says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Record, String> {
        state_file::decode(bytes, VERSION)
    }
}

/// Where the state of one download is kept.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
    info_hash: InfoHash,
    root_mark: String,
}

impl Place {
    /// For a torrent that is put into `root`, a canonical path.
    pub fn new(state_dir: &Path, info_hash: InfoHash, root: &Path) -> Place {
        // Half a hash: two directories of one user do not meet by chance.
        let digest = hash::sha1(root.as_os_str().as_bytes());
        let root_mark = digest[..10].iter().map(|b| format!("{b:02x}")).collect();
        Place { dir: state_dir.join("resume"), info_hash, root_mark }
    }

    /// The side file of the download.
    pub fn parts(&self) -> PathBuf {
        self.dir.join(format!("{}-{}.parts", self.info_hash, self.root_mark))
    }

    fn record(&self) -> PathBuf {
        self.dir.join(format!("{}-{}.state", self.info_hash, self.root_mark))
    }

    /// The record, if there is one that can be used. A damaged one costs a check of the data,
    /// nothing else.
    pub fn load(&self) -> Option<Record> {
        match state_file::load::<Record>(&self.record(), VERSION) {
            Ok(record) => record.filter(|r| r.info_hash == self.info_hash),
            Err(e) => {
                tracing::warn!("{e}; the data will be checked instead");
                None
            }
        }
    }

    /// Used just now, though nothing is new: not the next to be dropped.
    pub fn touch(&self) {
        let now = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps { last_access: now(UTIME_OMIT), last_modification: now(UTIME_NOW) };
        // What cannot be touched, or is not there, is only dropped sooner.
        let _ = rustix::fs::utimensat(CWD, self.record(), &times, AtFlags::empty());
    }

    /// Replaces the record. What it says must be durable already.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        state_file::save(&self.record(), VERSION, record)
    }

    /// Forgets the download, and the info dictionary if no other download needs it. What cannot be
    /// removed is only untidy.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.record());
        let prefix = format!("{}-", self.info_hash);
        let is_record = |entry: io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name.starts_with(&prefix) && name.ends_with(".state")
            })
        };
        let mut left = std::fs::read_dir(&self.dir).into_iter().flatten();
        if !left.any(is_record) {
            let _ = std::fs::remove_file(info_path(&self.dir, &self.info_hash));
        }
    }

    /// Keeps the info dictionary, once.
    pub fn save_info(&self, info: &[u8]) -> io::Result<()> {
        let path = info_path(&self.dir, &self.info_hash);
        if path.exists() {
            return Ok(());
        }
        // Another process may do the same for another folder, with the same bytes.
        let written =
            state_file::write_atomically(&path, &torrent_file(info, &TorrentExtras::default()));
        if path.exists() { Ok(()) } else { written }
    }
}

/// Drops what is remembered of the torrents that were not used for longest, until the rest are few
/// and small enough. What cannot be looked at or removed stays.
pub fn sweep(state_dir: &Path) {
    sweep_to(&state_dir.join("resume"), RECORDS_MAX, BYTES_MAX);
}

fn sweep_to(dir: &Path, records_max: usize, bytes_max: u64) {
    // When something of a torrent was last written, what all of it takes, and its files.
    type Kept = ((i64, i64), u64, Vec<PathBuf>);
    let mut torrents: BTreeMap<InfoHash, Kept> = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let hash = name.to_str().and_then(|name| name.get(..40)?.parse().ok());
        let (Some(hash), Ok(meta)) = (hash, entry.metadata()) else { continue };
        let (used, bytes, files) = torrents.entry(hash).or_default();
        *used = (meta.mtime(), meta.mtime_nsec()).max(*used);
        // A side file is sparse.
        *bytes += meta.blocks() * 512;
        files.push(entry.path());
    }
    let mut torrents: Vec<Kept> = torrents.into_values().collect();
    torrents.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
    let mut total = 0;
    let fits = |(n, (_, bytes, _)): (usize, &Kept)| {
        total += bytes;
        n < records_max && total <= bytes_max
    };
    let kept = torrents.iter().enumerate().map(fits).take_while(|fits| *fits).count();
    for path in torrents.iter().skip(kept).flat_map(|(.., files)| files) {
        let _ = std::fs::remove_file(path);
    }
}

/// The info dictionary of a torrent that was downloaded before, if it is remembered.
pub fn saved_info(state_dir: &Path, info_hash: &InfoHash) -> Option<Bytes> {
    let path = info_path(&state_dir.join("resume"), info_hash);
    let len = path.symlink_metadata().ok().filter(Metadata::is_file)?.len();
    if len > METADATA_SIZE_MAX as u64 {
        return None;
    }
    let file = Bytes::from(std::fs::read(path).ok()?);
    Metainfo::decode(&file).ok().filter(|m| m.info_hash == *info_hash).map(|m| m.info_bytes)
}

fn info_path(dir: &Path, info_hash: &InfoHash) -> PathBuf {
    dir.join(format!("{info_hash}.torrent"))
}

/// Torrents that are remembered: more than anybody shares from torrent files at once.
const RECORDS_MAX: usize = 10_000;
/// Bytes on the disk that all of it may take. A record is some hundred bytes, an info dictionary some
/// ten thousand.
const BYTES_MAX: u64 = 256 << 20;
/// The format of a record.
pub const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_kept_by_torrent_and_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (InfoHash::new([1; 20]), InfoHash::new([2; 20]));
        let place = Place::new(dir.path(), one, Path::new("/a"));
        let stamp = Stamp { len: 5, mtime_ns: -7, inode: 9 };
        let record = Record {
            info_hash: one,
            have: vec![0x80],
            files: vec![(3, stamp)],
            parts: Some(stamp),
        };
        assert_eq!(place.load(), None);
        place.save(&record).unwrap();
        assert_eq!(place.load(), Some(record));
        assert_eq!(Place::new(dir.path(), one, Path::new("/b")).load(), None);
        assert_eq!(Place::new(dir.path(), two, Path::new("/a")).load(), None);
    }

    #[test]
    fn info_dictionary_is_remembered_if_it_is_still_right() {
        let dir = tempfile::tempdir().unwrap();
        let info = [&b"d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:"[..], &[7; 20], b"e"]
            .concat();
        let info_hash = InfoHash::new(hash::sha1(&info));
        let place = Place::new(dir.path(), info_hash, Path::new("/a"));
        assert_eq!(saved_info(dir.path(), &info_hash), None);
        place.save_info(&info).unwrap();
        assert_eq!(saved_info(dir.path(), &info_hash).as_deref(), Some(&info[..]));
        let path = info_path(&dir.path().join("resume"), &info_hash);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(saved_info(dir.path(), &info_hash), None);
    }
    #[test]
    fn torrents_that_were_not_used_for_longest_are_forgotten_first() {
        let dir = tempfile::tempdir().unwrap();
        let place = |n| Place::new(dir.path(), InfoHash::new([n; 20]), Path::new("/a"));
        let record = |n| Record {
            info_hash: InfoHash::new([n; 20]),
            have: vec![0x80],
            files: Vec::new(),
            parts: None,
        };
        let age = |n: u8| {
            let file = std::fs::File::open(place(n).record()).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH;
            file.set_modified(time + std::time::Duration::from_secs(n.into())).unwrap();
        };
        for n in 0..6 {
            place(n).save(&record(n)).unwrap();
            age(n);
        }
        let other = dir.path().join("resume/of somebody else");
        std::fs::write(&other, b"x").unwrap();
        std::fs::write(place(2).parts(), b"x").unwrap();
        // Used again: the second by what is written for it, the first by a look.
        place(0).touch();
        let left = || (0..6).filter(|n| place(*n).load().is_some()).collect::<Vec<_>>();
        sweep_to(&dir.path().join("resume"), 4, u64::MAX);
        assert_eq!(left(), [0, 2, 4, 5]);
        sweep_to(&dir.path().join("resume"), 2, u64::MAX);
        assert_eq!((left(), place(2).parts().exists()), (vec![0, 2], true));
        sweep_to(&dir.path().join("resume"), 2, 0);
        assert_eq!((left(), place(2).parts().exists(), other.exists()), (vec![], false, true));
        sweep(&dir.path().join("absent"));
    }
}
