//! One big file to be handed out, and its torrent.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::limits::random_file;
use crate::world::{World, hex, info_hash_of, secs};

/// A file that exists as long as this.
pub struct Payload {
    home: World,
    pub file: PathBuf,
    pub torrent: PathBuf,
    pub link: String,
}

impl Payload {
    /// So many random bytes, in pieces of this length.
    pub fn new(bytes: u64, piece: &str) -> Self {
        let home = World::new();
        let file = home.dir().join("payload.bin");
        random_file(&file, bytes);
        let (torrent, link) = torrent_of(&home, &file, piece);
        Self { home, file, torrent, link }
    }

    /// The folder with the file and the torrent.
    pub fn dir(&self) -> &Path {
        self.home.dir()
    }

    /// Was it downloaded into this folder?
    pub fn check(&self, out: &Path) -> Result<(), String> {
        let got = out.join(self.file.file_name().unwrap());
        let same = Command::new("cmp").arg(&self.file).arg(got).status();
        if same.is_ok_and(|status| status.success()) {
            Ok(())
        } else {
            Err("it is not the same file".to_owned())
        }
    }
}

/// The torrent of a file, beside it, and a link with the hash and nothing else.
pub fn torrent_of(world: &World, file: &Path, piece: &str) -> (PathBuf, String) {
    let torrent = file.with_extension("torrent");
    let made = world.trackless(["create", "--piece-length", piece, "-o"]).arg(&torrent).arg(file);
    let link = bare(made.run(secs(60)).expect(0, "a torrent").stdout.trim());
    (torrent, link)
}

/// The hash and nothing else.
pub fn bare(link: &str) -> String {
    format!("magnet:?xt=urn:btih:{}", hex(&info_hash_of(link)))
}
