//! Torrent files and the info dictionary in them (BEP 3, 27, 47; BEP 52 as far as hybrids go).
//!
//! The info-hash is made over the bytes of the info dictionary as they came: unsorted or unknown
//! keys do not change it. Every number is checked here, so that a decoded [`Info`] is consistent:
//! as many piece hashes as its bytes need, and no sum that overflows. Names are taken raw; what of
//! them may become a path is decided by `swarm::layout`. Torrents of version 2 alone (BEP 52) are
//! recognised and refused; a hybrid is used by its version 1 half if both halves agree.

use bytes::Bytes;

use crate::base::limits::{FILES_MAX, METADATA_SIZE_MAX, PIECE_LEN_MAX, PIECES_MAX};
use crate::base::{Digest, InfoHash, hash};
use crate::wire::bencode::{self, BencodeError, Dict, Limits, List, Value, Writer};

/// Why a torrent file or info dictionary cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// More bytes than [`METADATA_SIZE_MAX`].
    #[error("larger than {METADATA_SIZE_MAX} bytes")]
    TooLarge,
    /// Not bencode.
    #[error("not a torrent: {0}")]
    Bencode(#[from] BencodeError),
    /// The outermost value is no dictionary.
    #[error("not a torrent: not a dictionary")]
    NotADict,
    /// A required key is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A value of the wrong kind.
    #[error("`{0}` is of the wrong kind")]
    WrongKind(&'static str),
    /// Zero, negative or larger than [`PIECE_LEN_MAX`].
    #[error("piece length {0} is out of range")]
    PieceLength(i64),
    /// Not a whole number of 20-byte hashes, or more than [`PIECES_MAX`].
    #[error("`pieces` has {0} bytes")]
    PiecesLength(usize),
    /// The sizes of the files do not agree with the number of hashes.
    #[error("{total} bytes need {need} pieces, but there are {found} hashes")]
    PieceCount {
        /// Bytes in all files.
        total: u64,
        /// Pieces that they need.
        need: u64,
        /// Hashes that are there.
        found: usize,
    },
    /// A file of negative size.
    #[error("file {0} has a negative size")]
    NegativeLength(usize),
    /// The sizes of the files add up to 2^63 or more.
    #[error("the file sizes add up to too much")]
    TotalTooLarge,
    /// `files` is empty.
    #[error("there are no files")]
    NoFiles,
    /// More than [`FILES_MAX`].
    #[error("more than {FILES_MAX} files")]
    TooManyFiles,
    /// BEP 3 allows one of the two.
    #[error("both `length` and `files` are there")]
    LengthAndFiles,
    /// A file without a path.
    #[error("file {0} has no path")]
    NoPath(usize),
    /// Only the version 2 half is there.
    #[error("this is a version 2 torrent (BEP 52), which is not supported yet")]
    V2Only,
    /// A `meta version` that nobody has defined.
    #[error("torrent version {0} is not supported")]
    Version(i64),
    /// The two halves of a hybrid describe different files.
    #[error("the version 1 and version 2 halves of this hybrid torrent disagree")]
    HybridMismatch,
}

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path components below the torrent's folder, as they came (`path.utf-8` if there is one).
    pub path: Vec<Vec<u8>>,
    /// Bytes.
    pub len: u64,
    /// Never on disk: padding (BEP 47, reads as zeros), or a symbolic link, which has no bytes.
    pub pad: bool,
}

/// A checked info dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The file's or folder's name as it came (`name.utf-8` if there is one).
    pub name: Vec<u8>,
    /// Bytes of every piece but the last.
    pub piece_length: u32,
    /// 20 bytes a piece.
    pub pieces: Bytes,
    /// In the order in which their bytes are in the pieces.
    pub files: Vec<FileEntry>,
    /// One file, called `name`, without a folder around it.
    pub single_file: bool,
    /// BEP 27: peers only from its trackers. Shown; a trackerless client has no other peers.
    pub private: bool,
}

impl Info {
    /// Reads the bytes of an info dictionary. `pieces` is a slice of them, not a copy.
    pub fn decode(info: &Bytes) -> Result<Info, MetainfoError> {
        if info.len() > METADATA_SIZE_MAX {
            return Err(MetainfoError::TooLarge);
        }
        let value = bencode::parse(info, Limits::TORRENT)?;
        decode_info(info, value.dict().ok_or(MetainfoError::NotADict)?)
    }

    /// Bytes of all files, padding included.
    pub fn total_len(&self) -> u64 {
        self.files.iter().map(|f| f.len).sum()
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.pieces.len() / DIGEST_LEN).expect("PIECES_MAX fits 32 bits")
    }

    /// What a piece must hash to.
    pub fn piece_hash(&self, index: u32) -> Option<Digest> {
        piece_hash(&self.pieces, index)
    }
}

/// What a piece must hash to, by the hashes of all pieces one after another.
pub fn piece_hash(pieces: &[u8], index: u32) -> Option<Digest> {
    pieces.chunks_exact(DIGEST_LEN).nth(index as usize)?.try_into().ok()
}

/// A torrent file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metainfo {
    /// SHA-1 of `info_bytes`.
    pub info_hash: InfoHash,
    /// What it describes.
    pub info: Info,
    /// The info dictionary, byte for byte.
    pub info_bytes: Bytes,
    /// `announce` and `announce-list` in one: kept, not contacted.
    pub trackers: Vec<String>,
    /// `url-list` (BEP 19): kept, not contacted.
    pub webseeds: Vec<String>,
    /// DHT nodes that the maker recommends (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// Unix time.
    pub creation_date: Option<i64>,
}

impl Metainfo {
    /// Reads a torrent file. Space behind its end, which editors and downloads leave, is no part of it.
    pub fn decode(file: &Bytes) -> Result<Metainfo, MetainfoError> {
        if file.len() > METADATA_SIZE_MAX {
            return Err(MetainfoError::TooLarge);
        }
        let top = bencode::parse(file.trim_ascii_end(), Limits::TORRENT)?
            .dict()
            .ok_or(MetainfoError::NotADict)?;
        let info = top.get(b"info").ok_or(MetainfoError::Missing("info"))?;
        let info = info.dict().ok_or(MetainfoError::WrongKind("info"))?;
        let info_bytes = file.slice_ref(info.raw());
        let text = |key: &[u8]| top.get(key).and_then(Value::bytes).map(lossy);
        Ok(Metainfo {
            info_hash: InfoHash::new(hash::sha1(&info_bytes)),
            info: decode_info(&info_bytes, info)?,
            trackers: trackers(top),
            webseeds: webseeds(top),
            nodes: nodes(top),
            comment: text(b"comment.utf-8").or_else(|| text(b"comment")),
            created_by: text(b"created by.utf-8").or_else(|| text(b"created by")),
            creation_date: top.get(b"creation date").and_then(Value::int),
            info_bytes,
        })
    }
}

/// What a torrent file says around its info dictionary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TorrentExtras {
    /// Announce URLs, each its own tier.
    pub trackers: Vec<String>,
    /// BEP 19.
    pub webseeds: Vec<String>,
    /// Recommended DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that makes it.
    pub created_by: Option<String>,
    /// Unix time.
    pub creation_date: Option<i64>,
}

/// A torrent file around `info_bytes`, which are kept byte for byte.
pub fn torrent_file(info_bytes: &[u8], extras: &TorrentExtras) -> Vec<u8> {
    let mut out = Vec::with_capacity(info_bytes.len() + 256);
    let mut w = Writer::new(&mut out);
    w.dict();
    if let Some(first) = extras.trackers.first() {
        w.bytes(b"announce").bytes(first.as_bytes());
    }
    if extras.trackers.len() > 1 {
        w.bytes(b"announce-list").list();
        for url in &extras.trackers {
            w.list().bytes(url.as_bytes()).end();
        }
        w.end();
    }
    if let Some(comment) = &extras.comment {
        w.bytes(b"comment").bytes(comment.as_bytes());
    }
    if let Some(created_by) = &extras.created_by {
        w.bytes(b"created by").bytes(created_by.as_bytes());
    }
    if let Some(date) = extras.creation_date {
        w.bytes(b"creation date").int(date);
    }
    w.bytes(b"info").raw(info_bytes);
    if !extras.nodes.is_empty() {
        w.bytes(b"nodes").list();
        for (host, port) in &extras.nodes {
            w.list().bytes(host.as_bytes()).int(i64::from(*port)).end();
        }
        w.end();
    }
    if !extras.webseeds.is_empty() {
        w.bytes(b"url-list").list();
        for url in &extras.webseeds {
            w.bytes(url.as_bytes());
        }
        w.end();
    }
    w.end();
    out
}

// The values of an info dictionary, found in one walk: a dictionary of 32 MiB is not walked once
// for each key.
#[derive(Default)]
struct Keys<'a> {
    name: Option<Value<'a>>,
    name_utf8: Option<Value<'a>>,
    piece_length: Option<Value<'a>>,
    pieces: Option<Value<'a>>,
    length: Option<Value<'a>>,
    files: Option<Value<'a>>,
    private: Option<Value<'a>>,
    version: Option<Value<'a>>,
    tree: Option<Value<'a>>,
}

impl<'a> Keys<'a> {
    fn of(info: Dict<'a>) -> Self {
        let mut keys = Keys::default();
        for (key, value) in info.iter() {
            let slot = match key {
                b"name" => &mut keys.name,
                b"name.utf-8" => &mut keys.name_utf8,
                b"piece length" => &mut keys.piece_length,
                b"pieces" => &mut keys.pieces,
                b"length" => &mut keys.length,
                b"files" => &mut keys.files,
                b"private" => &mut keys.private,
                b"meta version" => &mut keys.version,
                b"file tree" => &mut keys.tree,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        keys
    }
}

fn decode_info(bytes: &Bytes, info: Dict<'_>) -> Result<Info, MetainfoError> {
    let keys = Keys::of(info);
    let version = keys.version.map_or(Ok(1), |v| int(v, "meta version"))?;
    if !(1..=2).contains(&version) {
        return Err(MetainfoError::Version(version));
    }
    let v2_half = version == 2 || keys.tree.is_some();
    if v2_half && keys.pieces.is_none() {
        return Err(MetainfoError::V2Only);
    }
    let pieces = keys.pieces.ok_or(MetainfoError::Missing("pieces"))?;
    let pieces = pieces.bytes().ok_or(MetainfoError::WrongKind("pieces"))?;
    if pieces.len() % DIGEST_LEN != 0 || pieces.len() / DIGEST_LEN > PIECES_MAX {
        return Err(MetainfoError::PiecesLength(pieces.len()));
    }
    let name = keys.name_utf8.and_then(Value::bytes).or(keys.name.and_then(Value::bytes));
    let name = name.ok_or(match keys.name {
        Some(_) => MetainfoError::WrongKind("name"),
        None => MetainfoError::Missing("name"),
    })?;
    let files = match (keys.length, keys.files) {
        (Some(_), Some(_)) => return Err(MetainfoError::LengthAndFiles),
        (None, None) => return Err(MetainfoError::Missing("length")),
        (Some(length), None) => {
            vec![FileEntry { path: vec![name.to_vec()], len: file_len(length, 0)?, pad: false }]
        }
        (None, Some(files)) => files_of(files.list().ok_or(MetainfoError::WrongKind("files"))?)?,
    };
    let decoded = Info {
        name: name.to_vec(),
        piece_length: piece_length(keys.piece_length)?,
        pieces: bytes.slice_ref(pieces),
        files,
        single_file: keys.length.is_some(),
        private: keys.private.and_then(Value::int) == Some(1),
    };
    check_piece_count(&decoded)?;
    if v2_half {
        check_hybrid(&decoded, keys.tree)?;
    }
    Ok(decoded)
}

fn piece_length(value: Option<Value<'_>>) -> Result<u32, MetainfoError> {
    let n = int(value.ok_or(MetainfoError::Missing("piece length"))?, "piece length")?;
    let in_range = |len: &u32| *len > 0 && u64::from(*len) <= PIECE_LEN_MAX;
    u32::try_from(n).ok().filter(in_range).ok_or(MetainfoError::PieceLength(n))
}

fn check_piece_count(info: &Info) -> Result<(), MetainfoError> {
    let mut total = 0u64;
    for file in &info.files {
        // 2^63: sizes are kept as offsets that the system's calls take as signed numbers.
        total = total
            .checked_add(file.len)
            .filter(|t| *t < 1 << 63)
            .ok_or(MetainfoError::TotalTooLarge)?;
    }
    let need = total.div_ceil(u64::from(info.piece_length));
    let found = info.pieces.len() / DIGEST_LEN;
    if need != found as u64 {
        return Err(MetainfoError::PieceCount { total, need, found });
    }
    Ok(())
}

fn files_of(list: List<'_>) -> Result<Vec<FileEntry>, MetainfoError> {
    let mut files = Vec::new();
    for (index, value) in list.iter().enumerate() {
        if index >= FILES_MAX {
            return Err(MetainfoError::TooManyFiles);
        }
        let dict = value.dict().ok_or(MetainfoError::WrongKind("files"))?;
        files.push(file_of(dict, index)?);
    }
    if files.is_empty() {
        return Err(MetainfoError::NoFiles);
    }
    Ok(files)
}

fn file_of(dict: Dict<'_>, index: usize) -> Result<FileEntry, MetainfoError> {
    let attr = dict.get(b"attr").and_then(Value::bytes).unwrap_or_default();
    let (padding, symlink) = (attr.contains(&b'p'), attr.contains(&b'l'));
    let len = match dict.get(b"length") {
        // BEP 47: a link takes no bytes of the pieces, whatever it says.
        _ if symlink => 0,
        Some(length) => file_len(length, index)?,
        None => return Err(MetainfoError::Missing("length")),
    };
    let list = dict.get(b"path.utf-8").and_then(Value::list).filter(|l| l.iter().next().is_some());
    let list = list.or_else(|| dict.get(b"path").and_then(Value::list));
    let pad = padding || symlink;
    let Some(list) = list else {
        let path = Vec::new();
        return if pad {
            Ok(FileEntry { path, len, pad })
        } else {
            Err(MetainfoError::NoPath(index))
        };
    };
    let path = list.iter().map(|c| c.bytes().map(<[u8]>::to_vec)).collect::<Option<Vec<_>>>();
    let path = path.ok_or(MetainfoError::WrongKind("path"))?;
    if path.is_empty() && !pad {
        return Err(MetainfoError::NoPath(index));
    }
    Ok(FileEntry { path, len, pad })
}

fn file_len(value: Value<'_>, index: usize) -> Result<u64, MetainfoError> {
    u64::try_from(int(value, "length")?).map_err(|_| MetainfoError::NegativeLength(index))
}

// The version 2 half must describe the same files in the same order (BEP 52, "upgrade path"), or
// two clients with the same link would store different things.
fn check_hybrid(info: &Info, tree: Option<Value<'_>>) -> Result<(), MetainfoError> {
    let tree = tree.and_then(Value::dict).ok_or(MetainfoError::HybridMismatch)?;
    let mut v1 = info.files.iter().filter(|f| !f.pad);
    let mut path = Vec::new();
    if same_files(tree, &mut path, &mut v1) && v1.next().is_none() {
        return Ok(());
    }
    Err(MetainfoError::HybridMismatch)
}

// Recursion is bounded: the scanner allowed no more than `TORRENT_DEPTH_MAX` levels.
fn same_files<'a, 'f>(
    tree: Dict<'a>,
    path: &mut Vec<&'a [u8]>,
    v1: &mut impl Iterator<Item = &'f FileEntry>,
) -> bool {
    tree.iter().all(|(name, value)| {
        let Some(dict) = value.dict() else { return false };
        if name.is_empty() {
            let attr = dict.get(b"attr").and_then(Value::bytes).unwrap_or_default();
            if attr.contains(&b'l') {
                return true;
            }
            let len = dict.get(b"length").and_then(Value::int);
            return v1.next().is_some_and(|file| {
                len.and_then(|l| u64::try_from(l).ok()) == Some(file.len)
                    && file.path.iter().map(Vec::as_slice).eq(path.iter().copied())
            });
        }
        path.push(name);
        let same = same_files(dict, path, v1);
        path.pop();
        same
    })
}

fn int(value: Value<'_>, key: &'static str) -> Result<i64, MetainfoError> {
    value.int().ok_or(MetainfoError::WrongKind(key))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trackers(top: Dict<'_>) -> Vec<String> {
    let mut urls = Vec::new();
    let tiers = top.get(b"announce-list").and_then(Value::list);
    let listed = tiers.iter().flat_map(|l| l.iter()).filter_map(Value::list);
    let listed = listed.flat_map(|tier| tier.iter().collect::<Vec<_>>());
    for url in top.get(b"announce").into_iter().chain(listed).filter_map(Value::str) {
        if urls.len() < URLS_MAX && urls.last().is_none_or(|last| last != url) {
            urls.push(url.to_owned());
        }
    }
    // `announce` repeats the first tier in most files.
    if urls.len() > 1 && urls[1..].contains(&urls[0]) {
        urls.remove(0);
    }
    urls
}

fn webseeds(top: Dict<'_>) -> Vec<String> {
    let urls: Vec<Value<'_>> = match top.get(b"url-list") {
        Some(Value::List(list)) => list.iter().take(URLS_MAX).collect(),
        Some(url @ Value::Bytes(_)) => vec![url],
        Some(Value::Int(_) | Value::Dict(_)) | None => Vec::new(),
    };
    urls.into_iter().filter_map(Value::str).filter(|u| !u.is_empty()).map(str::to_owned).collect()
}

fn nodes(top: Dict<'_>) -> Vec<(String, u16)> {
    let Some(list) = top.get(b"nodes").and_then(Value::list) else { return Vec::new() };
    let node = |value: Value<'_>| {
        let mut pair = value.list()?.iter().collect::<Vec<_>>().into_iter();
        let host = pair.next()?.str()?.to_owned();
        let port = u16::try_from(pair.next()?.int()?).ok()?;
        (port != 0 && !host.is_empty()).then_some((host, port))
    };
    list.iter().filter_map(node).take(URLS_MAX).collect()
}

const DIGEST_LEN: usize = 20;
/// Trackers, web seeds or nodes that are kept of one torrent file. Real ones have a few hundred.
const URLS_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
