//! A torrent made from a file or folder.
//!
//! The info dictionary is the one that mktorrent makes of the same input and piece length: files
//! in the order of their whole paths as bytes, hidden and empty ones included, keys sorted, nothing
//! added. Symbolic links are followed, as other tools do, and told of; what cannot be shared
//! faithfully (links to nothing or in a circle, devices, files that change while they are read) is
//! refused by name, not left out in silence. Pieces are hashed on all cores, each from
//! a buffer of 256 KiB.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::io::Errno;

use crate::base::limits::{FILES_MAX, METADATA_SIZE_MAX, PIECE_LEN_MAX, PIECES_MAX};
use crate::base::{InfoHash, hash};
use crate::driver::resume::Stamp;
use crate::driver::storage::files::{Access, FileSet};
use crate::driver::storage::handles::Handles;
use crate::driver::storage::hashing::{for_each_piece, hash_piece};
use crate::driver::storage::locked;
use crate::swarm::DiskError;
use crate::swarm::layout::{Layout, LayoutError};
use crate::wire::bencode::Writer;
use crate::wire::metainfo::{FileEntry, Info};

/// How to make a torrent.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Bytes of a piece; by the size of the whole if `None`.
    pub piece_length: Option<u32>,
    /// Another name than the one on the disk. It can then not be seeded from where it is.
    pub name: Option<String>,
    /// BEP 27.
    pub private: bool,
}

/// A torrent that was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// The info dictionary.
    pub info_bytes: Bytes,
    /// Its SHA-1.
    pub info_hash: InfoHash,
    /// The directory that the file or folder is in, without symbolic links: where to seed from.
    pub root: PathBuf,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// Bytes in all.
    pub total: u64,
    /// How many files.
    pub files: usize,
    /// Symbolic links that were followed.
    pub links: Vec<PathBuf>,
}

/// Why no torrent could be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Something could not be looked at.
    #[error("{path}: {error}")]
    Io {
        /// What.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file could not be read to its end.
    #[error("{0}")]
    Read(DiskError),
    /// Something that is neither a file nor a folder.
    #[error("{path} is {kind}; only files and folders can be shared")]
    Kind {
        /// What.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A symbolic link to nothing, or one that leads back to where it is.
    #[error("{path} is a symbolic link {to}")]
    Link {
        /// What.
        path: PathBuf,
        /// Where it leads.
        to: &'static str,
    },
    /// No file.
    #[error("{path}: there is no file in it")]
    Empty {
        /// What.
        path: PathBuf,
    },
    /// It changed between its first and its last byte.
    #[error("{path} changed while it was read; try again when nothing writes to it")]
    Changed {
        /// What.
        path: PathBuf,
    },
    /// More than [`FILES_MAX`].
    #[error("more than {FILES_MAX} files")]
    TooManyFiles,
    /// Outside of 1..=[`PIECE_LEN_MAX`].
    #[error("a piece length of {0} bytes is out of range (1 to {PIECE_LEN_MAX})")]
    PieceLength(u32),
    /// The info dictionary would be larger than what can be shared.
    #[error("{0} pieces are too many; take a larger piece length")]
    TooManyPieces(u64),
    /// A name that no torrent can hold.
    #[error("`{0}` cannot be the name of a torrent")]
    Name(String),
    /// Names or sizes do not fit.
    #[error("{0}")]
    Layout(LayoutError),
}

/// Makes a torrent of the file or folder at `path`. `progress` is told bytes hashed and bytes in
/// all, from any thread.
pub fn create(
    path: &Path,
    options: CreateOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Created, CreateError> {
    let path = path.canonicalize().map_err(|error| CreateError::Io { path: path.into(), error })?;
    let (Some(root), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(CreateError::Name(path.display().to_string()));
    };
    let (found, links) = Search::new(&path).run()?;
    if found.is_empty() {
        return Err(CreateError::Empty { path });
    }
    let total: u64 = found.iter().map(|f| f.stamp.len).sum();
    let mut info = Info {
        name: name.as_bytes().to_vec(),
        piece_length: piece_length(options.piece_length, total)?,
        pieces: Bytes::new(),
        single_file: found.iter().all(|f| f.parts.is_empty()),
        files: found.iter().map(|f| f.entry(name)).collect(),
        private: options.private,
    };
    info.pieces = hash_all(&info, root, &found, progress)?;
    if let Some(name) = options.name {
        if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(CreateError::Name(name));
        }
        info.name = name.into_bytes();
    }
    let info_bytes = Bytes::from(encode(&info));
    if info_bytes.len() > METADATA_SIZE_MAX {
        return Err(CreateError::TooManyPieces(info.piece_count().into()));
    }
    Ok(Created {
        info_hash: InfoHash::new(hash::sha1(&info_bytes)),
        info_bytes,
        root: root.to_owned(),
        piece_length: info.piece_length,
        total,
        files: found.len(),
        links,
    })
}

// A file that was found, with its path below the folder; no parts if it is all there is.
struct Found {
    path: PathBuf,
    parts: Vec<Vec<u8>>,
    stamp: Stamp,
}

impl Found {
    fn entry(&self, name: &OsStr) -> FileEntry {
        let mut path = self.parts.clone();
        if path.is_empty() {
            path.push(name.as_bytes().to_vec());
        }
        FileEntry { path, len: self.stamp.len, pad: false }
    }
}

// A walk through a folder, deepest last.
struct Search {
    found: Vec<Found>,
    links: Vec<PathBuf>,
    left: Vec<Place>,
    // Folders seen; a folder may be seen again through a link.
    folders: usize,
}

// A path, with its parts below the folder that is shared.
struct Place {
    path: PathBuf,
    parts: Vec<Vec<u8>>,
    // The folders that it is in, as they are on the disk: the way back that a link must not take.
    above: Option<Arc<Above>>,
    // The last link on the way.
    via: Option<PathBuf>,
}

struct Above {
    id: (u64, u64),
    next: Option<Arc<Above>>,
}

impl Search {
    fn new(top: &Path) -> Search {
        let top = Place { path: top.to_owned(), parts: Vec::new(), above: None, via: None };
        Search { found: Vec::new(), links: Vec::new(), left: vec![top], folders: 0 }
    }

    fn run(mut self) -> Result<(Vec<Found>, Vec<PathBuf>), CreateError> {
        while let Some(place) = self.left.pop() {
            self.visit(place)?;
        }
        // `a-b` before `a/b` before `ab`: the order of mktorrent, the same on every machine.
        self.found.sort_by_cached_key(|f| f.parts.join(&b'/'));
        self.links.sort();
        Ok((self.found, self.links))
    }

    fn visit(&mut self, place: Place) -> Result<(), CreateError> {
        let io = |error: io::Error| CreateError::Io { path: place.path.clone(), error };
        let mut meta = place.path.symlink_metadata().map_err(io)?;
        let is_link = meta.is_symlink();
        if is_link {
            meta = place.path.metadata().map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => place.link("to nothing"),
                Some(Errno::LOOP) => place.link("to itself"),
                _ => io(error),
            })?;
        }
        if !meta.is_file() && !meta.is_dir() {
            let kind = "a device, pipe or socket";
            return Err(CreateError::Kind { path: place.path, kind });
        }
        if self.found.len() + self.folders >= FILES_MAX {
            return Err(CreateError::TooManyFiles);
        }
        if is_link {
            self.links.push(place.path.clone());
        }
        if meta.is_file() {
            let Place { path, parts, .. } = place;
            self.found.push(Found { path, parts, stamp: Stamp::of(&meta) });
            return Ok(());
        }
        self.folders += 1;
        let id = (meta.dev(), meta.ino());
        let via = if is_link { Some(place.path.clone()) } else { place.via.clone() };
        if place.is_below(id) {
            let path = via.unwrap_or(place.path);
            return Err(CreateError::Link { path, to: "to a folder that it is in" });
        }
        let above = Some(Arc::new(Above { id, next: place.above.clone() }));
        for entry in fs::read_dir(&place.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let mut parts = place.parts.clone();
            parts.push(entry.file_name().as_bytes().to_vec());
            let (above, via) = (above.clone(), via.clone());
            self.left.push(Place { path: entry.path(), parts, above, via });
        }
        Ok(())
    }
}

impl Place {
    fn link(&self, to: &'static str) -> CreateError {
        CreateError::Link { path: self.path.clone(), to }
    }

    fn is_below(&self, id: (u64, u64)) -> bool {
        let mut above = self.above.as_ref();
        while let Some(folder) = above {
            if folder.id == id {
                return true;
            }
            above = folder.next.as_ref();
        }
        false
    }
}

fn piece_length(given: Option<u32>, total: u64) -> Result<u32, CreateError> {
    let piece_length = match given {
        Some(len) if len == 0 || u64::from(len) > PIECE_LEN_MAX => {
            return Err(CreateError::PieceLength(len));
        }
        Some(len) => len,
        None => auto_piece_length(total),
    };
    let pieces = total.div_ceil(u64::from(piece_length));
    if pieces > PIECES_MAX as u64 {
        return Err(CreateError::TooManyPieces(pieces));
    }
    Ok(piece_length)
}

// 1000 to 2000 pieces: a magnet link's metadata stays within three blocks of 16 KiB, and a piece
// is small enough to be shared on soon.
fn auto_piece_length(total: u64) -> u32 {
    let wanted = total.div_ceil(PIECES_WANTED).next_power_of_two();
    u32::try_from(wanted).unwrap_or(AUTO_PIECE_MAX).clamp(AUTO_PIECE_MIN, AUTO_PIECE_MAX)
}

fn hash_all(
    info: &Info,
    root: &Path,
    found: &[Found],
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Bytes, CreateError> {
    let total = info.total_len();
    let count = usize::try_from(total.div_ceil(u64::from(info.piece_length)));
    let count = count.map_err(|_| CreateError::TooManyPieces(total))?;
    let blank = Info { pieces: Bytes::from(vec![0; count * 20]), ..info.clone() };
    let layout = Arc::new(Layout::verbatim(&blank).map_err(CreateError::Layout)?);
    let pieces: Vec<_> = layout.all_pieces().collect();
    // Nothing is set aside when nothing is written.
    let no_parts = PathBuf::new();
    let files = FileSet::open(root, layout.clone(), Access::Read, no_parts, Handles::new());
    let files = files.map_err(CreateError::Read)?;
    let (digests, failed) = (Mutex::new(vec![0; count * 20]), Mutex::new(None));
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    for_each_piece(&pieces, &stop, &|piece, buffer| match hash_piece(&files, piece, buffer) {
        Ok(digest) => {
            let at = piece.get() as usize * 20;
            locked(&digests)[at..at + 20].copy_from_slice(&digest);
            let len = u64::from(layout.piece_len(piece));
            progress(done.fetch_add(len, Ordering::Relaxed) + len, total);
        }
        Err(e) => {
            locked(&failed).get_or_insert(e);
            stop.store(true, Ordering::Relaxed);
        }
    });
    // A file that changed says more than the read that failed because of it.
    for file in found {
        let now = file.path.metadata().map(|meta| Stamp::of(&meta));
        if now.ok() != Some(file.stamp) {
            return Err(CreateError::Changed { path: file.path.clone() });
        }
    }
    match failed.into_inner().unwrap_or_default() {
        Some(error) => Err(CreateError::Read(error)),
        None => Ok(Bytes::from(digests.into_inner().unwrap_or_default())),
    }
}

fn encode(info: &Info) -> Vec<u8> {
    let mut out = Vec::with_capacity(info.pieces.len() + 256);
    let mut w = Writer::new(&mut out);
    // Sizes were checked to add up to less than 2^63.
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    w.dict();
    if info.single_file {
        w.bytes(b"length").int(int(info.total_len()));
    } else {
        w.bytes(b"files").list();
        for file in &info.files {
            w.dict().bytes(b"length").int(int(file.len)).bytes(b"path").list();
            for part in &file.path {
                w.bytes(part);
            }
            w.end().end();
        }
        w.end();
    }
    w.bytes(b"name").bytes(&info.name);
    w.bytes(b"piece length").int(i64::from(info.piece_length));
    w.bytes(b"pieces").bytes(&info.pieces);
    if info.private {
        w.bytes(b"private").int(1);
    }
    w.end();
    out
}

const PIECES_WANTED: u64 = 2_000;
/// One block: smaller pieces cost more than they help.
const AUTO_PIECE_MIN: u32 = 16 << 10;
/// Some clients take no larger pieces.
const AUTO_PIECE_MAX: u32 = 16 << 20;

#[cfg(test)]
mod tests;
