//! Deleting a download: the files that it wrote, and nothing else.
//!
//! A file is ours if we wrote to it, or if something in it is right; an empty one is nobody's loss.
//! Paths are walked as when writing: no symbolic link is followed, and what stands where our file
//! was is left alone. Then go folders of the torrent that are empty, and what was remembered of it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::driver::resume::Place;
use crate::driver::storage::errors::disk_error;
use crate::driver::storage::folders::FOLDER;
use crate::swarm::DiskError;
use crate::swarm::layout::Layout;

/// What was deleted of a torrent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// Files deleted.
    pub files: usize,
    /// Their bytes, as the torrent counts them.
    pub bytes: u64,
    /// Files at places of the torrent that are not what it wrote, and are still there.
    pub kept: Vec<PathBuf>,
}

/// What one download may delete, once it is closed.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) root: PathBuf,
    pub(super) layout: Arc<Layout>,
    /// For each file: is it ours?
    pub(super) ours: Vec<Ours>,
    pub(super) parts: PathBuf,
    pub(super) place: Option<Place>,
}

/// Whose the file at a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// We never opened it for writing, nor want it.
    No,
    /// If it is empty.
    IfEmpty,
    /// If it is still this inode.
    Yes(u64),
}

impl Claim {
    /// What was written before it was opened again is ours as well.
    pub(super) fn after(mut self, before: Option<Claim>) -> Claim {
        let before = before.into_iter().flat_map(|before| before.ours);
        for (ours, before) in self.ours.iter_mut().zip(before) {
            if *ours == Ours::No {
                *ours = before;
            }
        }
        self
    }

    /// Deletes all of it that can be deleted; the first failure, if there is one, is told at the end.
    pub(super) fn erase(&self) -> Result<Erased, DiskError> {
        let mut erased = Erased::default();
        let mut failure = None;
        let mut folders = BTreeSet::new();
        for (file, ours) in self.layout.files().iter().zip(&self.ours) {
            if file.pad || *ours == Ours::No {
                continue;
            }
            folders.extend(file.path.ancestors().skip(1).filter(|f| *f != Path::new("")));
            match self.delete(&file.path, *ours) {
                Ok(Outcome::Deleted) => {
                    erased.files += 1;
                    erased.bytes += file.len;
                }
                Ok(Outcome::Kept) => erased.kept.push(self.root.join(&file.path)),
                Ok(Outcome::Gone) => {}
                Err(e) => {
                    let path = self.root.join(&file.path);
                    failure.get_or_insert(disk_error("deleting", &path, &e.into()));
                }
            }
        }
        // A folder comes behind what is in it.
        for folder in folders.into_iter().rev() {
            self.remove_if_empty(folder);
        }
        // What cannot be removed of these is only untidy.
        let _ = std::fs::remove_file(&self.parts);
        if let Some(place) = &self.place {
            place.forget();
        }
        failure.map_or(Ok(erased), Err)
    }

    fn delete(&self, path: &Path, ours: Ours) -> Result<Outcome, Errno> {
        let Some((folder, name)) = self.folder_of(path)? else { return Ok(Outcome::Gone) };
        let meta = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(meta) => meta,
            Err(Errno::NOENT) => return Ok(Outcome::Gone),
            Err(e) => return Err(e),
        };
        let is_ours = match ours {
            Ours::No => false,
            Ours::IfEmpty => meta.st_size == 0,
            Ours::Yes(inode) => inode == 0 || inode == meta.st_ino,
        };
        if !is_ours || FileType::from_raw_mode(meta.st_mode) != FileType::RegularFile {
            return Ok(Outcome::Kept);
        }
        rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
        Ok(Outcome::Deleted)
    }

    fn remove_if_empty(&self, path: &Path) {
        if let Ok(Some((folder, name))) = self.folder_of(path) {
            // Most are not empty, which is what asking tells; a link is no folder.
            let _ = rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR);
        }
    }

    // The folder that something is in, and its name there; none if there is no such folder.
    fn folder_of<'a>(&self, path: &'a Path) -> Result<Option<(OwnedFd, &'a Path)>, Errno> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let mut folder = match rustix::fs::open(&self.root, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(e) => return no_folder(e),
        };
        for part in path.parent().into_iter().flat_map(Path::iter) {
            folder = match rustix::fs::openat(&folder, part, FOLDER, Mode::empty()) {
                Ok(folder) => folder,
                Err(e) => return no_folder(e),
            };
        }
        Ok(Some((folder, Path::new(name))))
    }
}

enum Outcome {
    Deleted,
    Kept,
    Gone,
}

// A link or a file where our folder was: what we wrote is not there any more.
fn no_folder<T>(error: Errno) -> Result<Option<T>, Errno> {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Ok(None),
        other => Err(other),
    }
}
