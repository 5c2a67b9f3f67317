//! The folder that a torrent is in: opened, and made and locked for writing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::driver::descriptors::patiently;
use crate::driver::storage::errors::{conflict, disk_error};
use crate::driver::storage::files::Access;
use crate::swarm::DiskError;
use crate::swarm::layout::Layout;

// The folder, how many components of each path it stands for, and what is locked if not it.
type Base = (OwnedFd, usize, Option<OwnedFd>);

/// Opens the folder that the paths of a torrent are below.
pub(super) fn open_base(root: &Path, layout: &Layout, access: Access) -> Result<Base, DiskError> {
    let io = |path: &Path, e: io::Error| disk_error("opening", path, &e);
    let dir = patiently(|| Ok(rustix::fs::open(root, FOLDER, Mode::empty())?));
    let dir = dir.map_err(|e| io(root, e))?;
    let Some(first) = layout.files().iter().find(|f| !f.pad) else { return Ok((dir, 0, None)) };
    let top = first.path.iter().next().unwrap_or_default();
    let path = root.join(top);
    let single = first.path.as_os_str() == top;
    if single {
        if access == Access::Read {
            return Ok((dir, 0, None));
        }
        let flags =
            OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = patiently(|| Ok(rustix::fs::openat(&dir, top, flags, NEW_FILE)?));
        let file = file.map_err(|e| io(&path, e))?;
        lock(&file, &path)?;
        return Ok((dir, 0, Some(file)));
    }
    if access == Access::Write {
        make_dir(&dir, top).map_err(|e| disk_error("making", &path, &e))?;
    }
    let folder =
        patiently(|| Ok(rustix::fs::openat(&dir, top, access.flags(FOLDER), Mode::empty())?));
    let folder = folder.map_err(|e| io(&path, e))?;
    if access == Access::Write {
        lock(&folder, &path)?;
    }
    Ok((folder, 1, None))
}

fn lock(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(conflict(path, "is being downloaded already")),
        // Some network file systems have no locks; better to go on than to refuse them.
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn make_dir(at: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mkdirat(at, name, NEW_FOLDER) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A folder, and no link to one.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What the umask leaves of these is what new files and folders get.
pub(super) const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
const NEW_FOLDER: Mode = Mode::from_raw_mode(0o777);
