//! Generated content with awkward names and sizes, and the torrent of it, built here from BEP 3
//! alone: what the program makes of the same files has something to be compared with.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use trackless::base::Rng;
use trackless::base::hash::sha1;

use super::{B, hex};

/// Some files and the torrent that describes them.
#[derive(Debug, Clone)]
pub struct Content {
    /// Name of the torrent: the top folder, or the file.
    pub name: String,
    /// Path below the top folder (empty for a single file) and bytes.
    pub files: Vec<(Vec<String>, Vec<u8>)>,
    /// Bytes in a piece.
    pub piece_len: usize,
    /// Bytes of a key in the info dictionary that means nothing, which makes it as long as wanted.
    pub info_padding: usize,
}

impl Content {
    /// One file of random bytes.
    pub fn single(seed: u8, len: usize, piece_len: usize) -> Self {
        let files = vec![(Vec::new(), bytes(seed, 0, len))];
        Self { name: format!("single-{seed}.bin"), files, piece_len, info_padding: 0 }
    }

    /// A tree with empty files first, last and between, names beyond ASCII, and sizes that end
    /// everywhere but at piece borders. `bulk` bytes are in its largest file.
    pub fn tree(seed: u8, bulk: usize, piece_len: usize) -> Self {
        let sizes: [(&str, usize); 12] = [
            ("0 empty first", 0),
            ("a/one-byte", 1),
            ("a/piece-less-one.bin", piece_len - 1),
            ("a/piece.bin", piece_len),
            ("a/piece-plus-one.bin", piece_len + 1),
            ("big.bin", bulk),
            ("deep/er/est/x.txt", 77),
            ("empty between", 0),
            ("unicode ünï/emoji 🧲 & spaces.bin", 54_321),
            ("unicode ünï/日本語のファイル.bin", 123_457),
            ("zz-tail.bin", 13),
            ("zzz empty last", 0),
        ];
        let files = sizes
            .iter()
            .enumerate()
            .map(|(n, (path, len))| {
                let path = path.split('/').map(str::to_owned).collect();
                (path, bytes(seed, n, *len))
            })
            .collect();
        Self { name: format!("tree {seed} ✓"), files, piece_len, info_padding: 0 }
    }

    /// Many small files.
    pub fn many(seed: u8, count: usize, len: usize, piece_len: usize) -> Self {
        let files = (0..count)
            .map(|n| (vec![format!("{:02}", n % 20), format!("{n:05}.bin")], bytes(seed, n, len)))
            .collect();
        Self { name: format!("many-{seed}"), files, piece_len, info_padding: 0 }
    }

    /// The same with a longer info dictionary.
    #[must_use]
    pub fn with_info_padding(self, info_padding: usize) -> Self {
        Self { info_padding, ..self }
    }

    /// Is it one bare file?
    pub fn is_single(&self) -> bool {
        self.files.len() == 1 && self.files[0].0.is_empty()
    }

    /// All files' bytes, one after the other.
    pub fn bytes(&self) -> Vec<u8> {
        self.files.iter().map(|(_, data)| data.as_slice()).collect::<Vec<_>>().concat()
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.files.iter().map(|(_, data)| data.len()).sum()
    }

    /// How many pieces.
    pub fn pieces(&self) -> usize {
        self.len().div_ceil(self.piece_len)
    }

    /// The info dictionary as a value, for tests that change it.
    pub fn info_value(&self) -> B {
        let hashes: Vec<u8> = self.bytes().chunks(self.piece_len).flat_map(sha1).collect();
        let piece_len = i64::try_from(self.piece_len).unwrap();
        let info = B::dict([
            ("name", B::str(&self.name)),
            ("piece length", B::Int(piece_len)),
            ("pieces", B::Str(hashes)),
        ]);
        let padding = self.info_padding;
        let info = if padding == 0 { info } else { info.with("x", B::Str(vec![b'x'; padding])) };
        let len = |data: &Vec<u8>| B::Int(i64::try_from(data.len()).unwrap());
        if self.is_single() {
            return info.with("length", len(&self.files[0].1));
        }
        let files = self.files.iter().map(|(path, data)| {
            let path = B::List(path.iter().map(B::str).collect());
            B::dict([("length", len(data)), ("path", path)])
        });
        info.with("files", B::List(files.collect()))
    }

    /// The info dictionary.
    pub fn info(&self) -> Vec<u8> {
        self.info_value().encode()
    }

    /// SHA-1 of the info dictionary.
    pub fn info_hash(&self) -> [u8; 20] {
        sha1(&self.info())
    }

    /// A magnet link with nothing but the hash.
    pub fn magnet(&self) -> String {
        magnet(&self.info_hash())
    }

    /// The `.torrent` file.
    pub fn torrent(&self) -> Vec<u8> {
        torrent_of(&self.info())
    }

    /// Where a file lies below the output folder.
    pub fn path(&self, file: usize) -> PathBuf {
        let mut path = PathBuf::from(&self.name);
        path.extend(&self.files[file].0);
        path
    }

    /// Writes all of it below `dir`; returns the path to share.
    pub fn write_to(&self, dir: &Path) -> PathBuf {
        for (n, (_, data)) in self.files.iter().enumerate() {
            let path = dir.join(self.path(n));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, data).unwrap();
        }
        dir.join(&self.name)
    }

    /// Fails the test unless every file below `dir` has the right SHA-256.
    #[track_caller]
    pub fn assert_in(&self, dir: &Path) {
        for (n, (_, data)) in self.files.iter().enumerate() {
            self.assert_file(dir, n, data);
        }
    }

    /// The same, for a client that does not create empty files.
    #[track_caller]
    pub fn assert_in_but_empty_files(&self, dir: &Path) {
        for (n, (_, data)) in self.files.iter().enumerate().filter(|(_, (_, d))| !d.is_empty()) {
            self.assert_file(dir, n, data);
        }
    }

    #[track_caller]
    fn assert_file(&self, dir: &Path, n: usize, data: &[u8]) {
        let path = dir.join(self.path(n));
        let found = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(
            sha256(&found),
            sha256(data),
            "{}: {} bytes there, {} expected; first difference at {:?}",
            path.display(),
            found.len(),
            data.len(),
            found.iter().zip(data).position(|(a, b)| a != b)
        );
    }

    /// How many bytes of the files below `dir` are right already, piece by piece.
    pub fn good_pieces(&self, dir: &Path) -> Vec<bool> {
        let mut there = Vec::with_capacity(self.len());
        for (n, (_, data)) in self.files.iter().enumerate() {
            let mut found = std::fs::read(dir.join(self.path(n))).unwrap_or_default();
            found.resize(data.len(), 0);
            there.extend(found);
        }
        let wanted = self.bytes();
        there
            .chunks(self.piece_len)
            .zip(wanted.chunks(self.piece_len))
            .map(|(a, b)| a == b)
            .collect()
    }
}

/// A magnet link with nothing but the hash.
pub fn magnet(info_hash: &[u8; 20]) -> String {
    format!("magnet:?xt=urn:btih:{}", hex(info_hash))
}

/// A `.torrent` file around an info dictionary, whatever that is.
pub fn torrent_of(info: &[u8]) -> Vec<u8> {
    B::dict([("info", B::raw(info))]).encode()
}

/// SHA-256 in hex.
pub fn sha256(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

/// `len` bytes that follow from the two numbers.
pub fn bytes(seed: u8, stream: usize, len: usize) -> Vec<u8> {
    let mut key = [seed; 32];
    key[..8].copy_from_slice(&u64::try_from(stream).unwrap().to_le_bytes());
    let mut out = vec![0; len];
    Rng::from_seed(key).fill(&mut out);
    out
}
