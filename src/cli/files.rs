//! Files that are seen whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a file under another name and renames it: a reader sees the old content or the new one.
/// A symbolic link stays one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = write_beside(&target, content)?;
    fs::rename(&temporary, &target).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Could `path` be replaced? For who works for hours before there is something to write.
pub fn check_place(path: &Path) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if target.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    fs::remove_file(write_beside(&target, b"")?)
}

/// A folder that nobody else may enter, and that is gone when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one where temporary files go.
    pub fn new() -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let path = (0..SCRATCH_TRIES).find_map(|n| {
            let path = std::env::temp_dir().join(format!("trackless-{}-{n}", std::process::id()));
            match builder.create(&path) {
                Ok(()) => Some(Ok(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            }
        });
        path.unwrap_or(Err(io::ErrorKind::AlreadyExists.into())).map(Self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("{}: {error}", self.0.display());
        }
    }
}

/// Writes a file that must not exist yet; fails with `AlreadyExists` if it does.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, content)?;
    // A hard link, unlike a rename, never replaces.
    let made = fs::hard_link(&temporary, path).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has hard links.
        _ => File::create_new(path).and_then(|mut file| file.write_all(content)),
    });
    drop(fs::remove_file(&temporary));
    made
}

/// Writes a file that must not exist yet and that nobody else may read.
pub fn create_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    // Half a secret is none.
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .inspect_err(|_| drop(fs::remove_file(path)))
}

/// May others than its owner read this file?
pub fn is_readable_by_others(file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|m| m.permissions().mode() & 0o044 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

fn write_beside(target: &Path, content: &[u8]) -> io::Result<std::path::PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    match File::create(&temporary).and_then(|mut file| file.write_all(content)) {
        Ok(()) => Ok(temporary),
        Err(error) => {
            drop(fs::remove_file(&temporary));
            Err(error)
        }
    }
}

// Names that others may have taken, by chance or not.
const SCRATCH_TRIES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replace_leaves_one_file_with_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a"]);
        // Looking whether it could be done changes nothing.
        check_place(&path).unwrap();
        check_place(&dir.path().join("b")).unwrap();
        check_place(dir.path()).unwrap_err();
        check_place(&dir.path().join("no/such")).unwrap_err();
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"two".to_vec(), vec!["a".into()])
        );
    }

    #[test]
    #[cfg(unix)]
    fn secret_is_for_its_owner_alone_and_never_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_secret(&path, b"one").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!is_readable_by_others(&file));
        let error = create_secret(&path, b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(is_readable_by_others(&File::open(&path).unwrap()));
    }

    #[test]
    fn create_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        create(&path, b"one").unwrap();
        let error = create(&path, b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["a"]);
    }
}
