//! Torrents of made-up data, for the tests of the storage and the disk threads.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::base::{InfoHash, Rng, hash};
use crate::driver::storage::{StorageConfig, StorageMode};
use crate::swarm::PieceIndex;
use crate::swarm::layout::Layout;
use crate::wire::bencode::Writer;
use crate::wire::metainfo::Info;

pub(in crate::driver) struct Fixture {
    pub(in crate::driver) info: Bytes,
    pub(in crate::driver) info_hash: InfoHash,
    pub(in crate::driver) layout: Layout,
    pub(in crate::driver) data: Vec<u8>,
}

impl Fixture {
    /// A torrent `top` with these files. A path that begins with `.pad` is padding.
    pub(in crate::driver) fn new(files: &[(&str, usize)], piece_length: u32) -> Fixture {
        let total = files.iter().map(|(_, len)| len).sum();
        let mut data = vec![0; total];
        Rng::from_seed([3; 32]).fill(&mut data);
        let mut at = 0;
        for (path, len) in files {
            if path.starts_with(".pad") {
                data[at..at + len].fill(0);
            }
            at += len;
        }
        Self::with_data(files, piece_length, data)
    }

    pub(in crate::driver) fn with_data(
        files: &[(&str, usize)],
        piece_length: u32,
        data: Vec<u8>,
    ) -> Fixture {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        let int = |n: usize| i64::try_from(n).unwrap();
        w.dict();
        if let [("top", len)] = files {
            w.bytes(b"length").int(int(*len));
        } else {
            w.bytes(b"files").list();
            for (path, len) in files {
                w.dict();
                if path.starts_with(".pad") {
                    w.bytes(b"attr").bytes(b"p");
                }
                w.bytes(b"length").int(int(*len)).bytes(b"path").list();
                for component in path.split('/') {
                    w.bytes(component.as_bytes());
                }
                w.end().end();
            }
            w.end();
        }
        w.bytes(b"name").bytes(b"top").bytes(b"piece length").int(i64::from(piece_length));
        let pieces: Vec<u8> = data.chunks(piece_length as usize).flat_map(hash::sha1).collect();
        w.bytes(b"pieces").bytes(&pieces).end();
        let info = Bytes::from(out);
        let layout = Layout::new(&Info::decode(&info).unwrap()).unwrap();
        Fixture { info_hash: InfoHash::new(hash::sha1(&info)), info, layout, data }
    }

    pub(in crate::driver) fn block(&self, piece: PieceIndex, begin: u32) -> Bytes {
        let at = usize::try_from(self.layout.piece_offset(piece)).unwrap() + begin as usize;
        let len = self.layout.block_len(piece, begin / 16384) as usize;
        Bytes::copy_from_slice(&self.data[at..at + len])
    }

    pub(in crate::driver) fn piece_data(&self, piece: PieceIndex) -> &[u8] {
        let at = usize::try_from(self.layout.piece_offset(piece)).unwrap();
        &self.data[at..at + self.layout.piece_len(piece) as usize]
    }

    /// Puts the finished files below `root`.
    pub(in crate::driver) fn lay_down(&self, root: &Path) {
        for (index, file) in self.layout.files().iter().enumerate() {
            if !file.pad {
                let path = root.join(&file.path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, self.file_data(index)).unwrap();
            }
        }
    }

    pub(in crate::driver) fn file_data(&self, file: usize) -> &[u8] {
        let file = &self.layout.files()[file];
        &self.data[usize::try_from(file.offset).unwrap()..][..usize::try_from(file.len).unwrap()]
    }

    /// Compares every file with what it should hold.
    pub(in crate::driver) fn assert_complete(&self, root: &Path) {
        for (index, file) in self.layout.files().iter().enumerate() {
            if file.pad {
                continue;
            }
            let path = root.join(&file.path);
            let found = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(found == self.file_data(index), "{} differs", path.display());
        }
    }
}

/// Downloads below `dir/out`, with state in `dir/state`.
pub(in crate::driver) fn config(dir: &Path) -> StorageConfig {
    let (root, state_dir) = (dir.join("out"), Some(dir.join("state")));
    StorageConfig { root, state_dir, mode: StorageMode::Download, overwrite: false }
}
