//! What a LINK argument can be: a magnet link, a bare info-hash, a torrent file, or `-` for links
//! on stdin.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::exit::{Code, Failure};
use crate::base::InfoHash;
use crate::base::limits::METADATA_SIZE_MAX;
use crate::wire::magnet::Link;
use crate::wire::metainfo::Metainfo;

/// A LINK, read.
#[derive(Debug, Clone)]
pub enum Source {
    /// A magnet link or info-hash.
    Link(Link),
    /// A torrent file.
    Torrent(Box<Metainfo>),
}

impl Source {
    /// Reads one LINK. Text that is neither a link nor a file is explained as what it looks like.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if is_magnet(text) {
            return link(text).map(Source::Link);
        }
        let path = Path::new(text);
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("torrent")) || path.is_file() {
            return torrent(path).map(|m| Source::Torrent(Box::new(m)));
        }
        link(text)
            .map(Source::Link)
            .map_err(|failure| failure.advise(format!("{EXPECTED_LINK}, or a .torrent file")))
    }

    /// What it names.
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Source::Link(link) => link.info_hash,
            Source::Torrent(metainfo) => metainfo.info_hash,
        }
    }
}

/// Reads a magnet link or info-hash.
pub fn link(text: &str) -> Result<Link, Failure> {
    Link::parse(text)
        .map_err(|error| Failure::new(Code::BadLink, error.to_string()).advise(EXPECTED_LINK))
}

/// Reads a torrent file, never more of it than a torrent can be.
pub fn torrent(path: &Path) -> Result<Metainfo, Failure> {
    let failed = |error: io::Error| {
        let failure = Failure::io(path.display(), &error);
        // No such file is no trouble with the disk.
        let code = if failure.code == Code::Disk { Code::BadLink } else { failure.code };
        Failure::new(code, failure.error).advise("check the path of the torrent file")
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let limit = METADATA_SIZE_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Metainfo::decode(&Bytes::from(bytes))
        .map_err(|e| Failure::new(Code::BadLink, format!("{}: {e}", path.display())))
}

/// Links as they are read.
pub type Lines = Box<dyn Iterator<Item = Result<String, Failure>>>;

/// Reads links, one a line, from a file or (`-`) stdin: blank lines and `#` comments are skipped.
pub fn lines(from: &Path) -> Result<Lines, Failure> {
    let name: PathBuf = if from == Path::new("-") { "stdin".into() } else { from.to_owned() };
    let reader: Box<dyn BufRead> = if from == Path::new("-") {
        Box::new(io::BufReader::new(io::stdin()))
    } else {
        let file = std::fs::File::open(from).map_err(|e| Failure::io(from.display(), &e))?;
        Box::new(io::BufReader::new(file))
    };
    let lines = reader.lines().filter_map(move |line| match line {
        Ok(line) => {
            let line = line.trim();
            (!line.is_empty() && !line.starts_with('#')).then(|| Ok(line.to_owned()))
        }
        Err(error) => Some(Err(Failure::io(name.display(), &error))),
    });
    Ok(Box::new(lines))
}

/// The links of a command line, `-` replaced by what stdin holds.
pub fn expand(links: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::with_capacity(links.len());
    for text in links {
        if text == "-" {
            all.extend(lines(Path::new("-"))?.collect::<Result<Vec<_>, _>>()?);
        } else {
            all.push(text.clone());
        }
    }
    if all.is_empty() {
        return Err(super::config::usage("no link on stdin"));
    }
    Ok(all)
}

fn is_magnet(text: &str) -> bool {
    text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
}

const EXPECTED_LINK: &str = "expected a magnet link, 40 hex digits or 32 base32 digits";
