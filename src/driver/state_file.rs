//! State files: what has to survive a crash at any moment.
//!
//! A file is written beside its place, made durable, and renamed into it: a reader finds the old
//! state or the new one, never half of one. A header carries a magic number, a version and a
//! checksum, and bincode sees the rest only when these are right. A file that cannot be read is set
//! aside under another name, never deleted, and never a reason not to start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::hash;
use crate::driver::descriptors::patiently;

/// Why a state file was not used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be read at all.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is cut, garbled, or of another version; it was set aside.
    #[error("{path} {why}; it was set aside as {aside}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Its name now.
        aside: PathBuf,
    },
}

/// Writes `value` to `path`, durably and at once. Makes the directory if it is missing.
pub fn save(path: &Path, version: u32, value: &impl Serialize) -> io::Result<()> {
    write_atomically(path, &encode(version, value)?)
}

/// The bytes of a state file.
pub fn encode(version: u32, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = bincode::serde::encode_to_vec(value, CONFIG).map_err(io::Error::other)?;
    Ok(seal(version, &body))
}

/// Puts the header before an encoded value.
pub fn seal(version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&hash::sha1(body));
    bytes.extend_from_slice(body);
    bytes
}

/// Reads what [`save`] wrote: `None` if there is no such file. A file that is damaged or of
/// another version is renamed to `<name>.damaged-N`.
pub fn load<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>, StateError> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::Io { path: path.to_owned(), error }),
    };
    decode(&bytes, version).map(Some).map_err(|why| set_aside(path, why))
}

/// Writes `bytes` to `path` so that a crash leaves the old content or the new, and syncs both the
/// file and its directory. One process at a time: the temporary file has one name, so that a
/// thousand crashes leave one behind and not a thousand.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = dir.join(name);
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        // The first error is the one to tell; a temporary file left behind is only untidy.
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    patiently(|| File::open(dir))?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = patiently(|| options.open(path))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    patiently(|| File::open(path))?.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the bytes of a state file; else says what is wrong with them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], version: u32) -> Result<T, String> {
    if bytes.len() > FILE_LEN_MAX {
        return Err("is far too large".to_owned());
    }
    let (header, body) = bytes.split_at_checked(HEADER_LEN).ok_or("is cut short")?;
    let (magic, header) = header.split_at(MAGIC.len());
    let (found, digest) = header.split_at(4);
    if magic != MAGIC {
        return Err("is no state file".to_owned());
    }
    if digest != hash::sha1(body) {
        return Err("does not match its checksum".to_owned());
    }
    if found != version.to_le_bytes() {
        let found = found.try_into().map(u32::from_le_bytes).unwrap_or_default();
        return Err(format!("has version {found}, not {version}"));
    }
    match bincode::serde::decode_from_slice(body, CONFIG) {
        Ok((value, len)) if len == body.len() => Ok(value),
        Ok(_) => Err("has bytes behind its end".to_owned()),
        Err(e) => Err(format!("cannot be decoded: {e}")),
    }
}

fn set_aside(path: &Path, why: String) -> StateError {
    let name = |n: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".damaged-{n}"));
        path.with_file_name(name)
    };
    // The last name is used again when all are taken: a file that breaks every day must not fill
    // the directory.
    let aside = (1..ASIDE_MAX).map(name).find(|p| !p.exists()).unwrap_or_else(|| name(ASIDE_MAX));
    match fs::rename(path, &aside) {
        Ok(()) => StateError::Damaged { path: path.to_owned(), why, aside },
        Err(error) => StateError::Io { path: path.to_owned(), error },
    }
}

const MAGIC: &[u8; 8] = b"trklstat";
const HEADER_LEN: usize = MAGIC.len() + 4 + 20;
/// Bytes of a state file that are read: far above the record of half a million files.
const FILE_LEN_MAX: usize = 256 << 20;
/// Damaged copies that are kept.
const ASIDE_MAX: u32 = 10;
const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<FILE_LEN_MAX>,
> = bincode::config::standard().with_limit::<FILE_LEN_MAX>();

#[cfg(test)]
mod tests {
    use super::*;

    type State = (u64, Vec<String>, Option<Vec<u8>>);

    fn state() -> State {
        (7, vec!["a".into(), "b".into()], Some(vec![1; 30]))
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        assert!(load::<State>(&path, 1).unwrap().is_none());
        save(&path, 1, &state()).unwrap();
        save(&path, 1, &state()).unwrap();
        assert_eq!(load::<State>(&path, 1).unwrap(), Some(state()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn file_cut_at_any_length_or_flipped_anywhere_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        save(&path, 3, &state()).unwrap();
        let good = fs::read(&path).unwrap();
        let flips = (0..good.len()).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            bad
        });
        let cuts = (0..good.len()).map(|at| good[..at].to_vec());
        let zeroed = [vec![0; good.len()], vec![0; 5], [&good[..], b"x"].concat()];
        for bad in cuts.chain(flips).chain(zeroed) {
            fs::write(&path, &bad).unwrap();
            let err = load::<State>(&path, 3).unwrap_err();
            let StateError::Damaged { aside, .. } = err else { panic!("{err}") };
            assert_eq!(fs::read(aside).unwrap(), bad);
            assert!(!path.exists());
        }
        assert!(fs::read_dir(dir.path()).unwrap().count() <= ASIDE_MAX as usize);
    }

    #[test]
    fn another_version_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        save(&path, 2, &state()).unwrap();
        let err = load::<State>(&path, 1).unwrap_err().to_string();
        assert!(err.contains("has version 2, not 1"), "{err}");
    }
}
