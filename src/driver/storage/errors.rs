//! From what the system said to what the user can do about it.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::swarm::{DiskError, DiskErrorKind};

/// The failure of `doing` something with `path`.
pub(in crate::driver) fn disk_error(doing: &str, path: &Path, error: &io::Error) -> DiskError {
    let context = format!("{doing} {}", path.display());
    let message = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file is shorter than it was".to_owned(),
        _ => error.to_string(),
    };
    DiskError { kind: kind(error), context, message }
}

/// Something that is no file of ours stands in the way.
pub(in crate::driver) fn conflict(path: &Path, why: &str) -> DiskError {
    at(DiskErrorKind::Conflict, path, why.to_owned())
}

/// A file of somebody else stands where one of the torrent's belongs.
pub(in crate::driver) fn occupied(path: &Path, why: String) -> DiskError {
    at(DiskErrorKind::Occupied, path, why)
}

fn at(kind: DiskErrorKind, path: &Path, message: String) -> DiskError {
    DiskError { kind, context: path.display().to_string(), message }
}

fn kind(error: &io::Error) -> DiskErrorKind {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => DiskErrorKind::Full,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => DiskErrorKind::Permission,
        Some(Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::EXIST) => DiskErrorKind::Conflict,
        Some(Errno::NAMETOOLONG) => DiskErrorKind::Layout,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR) => DiskErrorKind::Busy,
        _ => DiskErrorKind::Io,
    }
}
