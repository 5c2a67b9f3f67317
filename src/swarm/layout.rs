//! Where the bytes of a torrent live: pieces, blocks, files, and names that are safe on a disk.
//!
//! A torrent is one run of bytes, cut into pieces one way (BEP 3) and into files another. This
//! type answers every question about either cut. It also turns the raw names of an info dictionary
//! into relative paths that cannot leave the directory they are put in; `swarm::layout::names` has
//! the rules. Padding (BEP 47) has bytes but no path. Nothing here touches a file.

mod names;

use std::ops::Range;
use std::path::PathBuf;

use crate::base::limits::BLOCK_LEN;
use crate::swarm::PieceIndex;
use crate::wire::bitfield::Bitfield;
use crate::wire::metainfo::Info;

use names::{Names, Rules};

/// Why the names or sizes of a torrent cannot be laid out on a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// More folders inside one another than we make.
    #[error("the path of file {file} has {depth} parts")]
    TooDeep {
        /// Index of the file.
        file: usize,
        /// Components of its path.
        depth: usize,
    },
    /// Longer than what the system's calls take.
    #[error("the path of file {file} has {len} bytes")]
    TooLong {
        /// Index of the file.
        file: usize,
        /// Bytes of its path.
        len: usize,
    },
    /// A name that cannot be used as it is, where it has to be.
    #[error("the name of file {file} cannot be a file name")]
    BadName {
        /// Index of the file.
        file: usize,
    },
    /// The info dictionary contradicts itself.
    #[error("the sizes do not agree with the number of pieces")]
    Sizes,
}

/// One file of a torrent, as it lies on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutFile {
    /// Safe, relative, with the torrent's folder; empty if `pad`.
    pub path: PathBuf,
    /// Bytes.
    pub len: u64,
    /// Where its bytes begin in the torrent.
    pub offset: u64,
    /// Never on disk: reads as zeros.
    pub pad: bool,
}

/// A part of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Index in [`Layout::files`].
    pub file: usize,
    /// Where it begins in that file.
    pub file_offset: u64,
    /// Where it begins in what was asked for.
    pub at: u32,
    /// Bytes, at least one.
    pub len: u32,
}

/// The two cuts of a torrent's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    name: String,
    files: Vec<LayoutFile>,
    piece_length: u32,
    pieces: u32,
    total: u64,
}

impl Layout {
    /// Lays a stranger's torrent out: unsafe names are changed, the same way on each run.
    pub fn new(info: &Info) -> Result<Layout, LayoutError> {
        Self::with(info, Rules::HOST)
    }

    /// Lays out what was made from files of this machine: every name stays as it is there, or the
    /// whole is refused.
    pub fn verbatim(info: &Info) -> Result<Layout, LayoutError> {
        Self::with(info, Rules::VERBATIM)
    }

    fn with(info: &Info, rules: Rules) -> Result<Layout, LayoutError> {
        let (name, paths) = Names::lay_out(info, rules)?;
        let mut offset = 0u64;
        let mut files = Vec::with_capacity(info.files.len());
        for (entry, path) in info.files.iter().zip(paths) {
            files.push(LayoutFile { path, len: entry.len, offset, pad: entry.pad });
            offset = offset.checked_add(entry.len).ok_or(LayoutError::Sizes)?;
        }
        let piece_length = info.piece_length;
        if piece_length == 0
            || offset.div_ceil(u64::from(piece_length)) != u64::from(info.piece_count())
        {
            return Err(LayoutError::Sizes);
        }
        Ok(Layout { name, files, piece_length, pieces: info.piece_count(), total: offset })
    }

    /// The file's or folder's name, safe to use and to show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All files in the order of their bytes, padding included.
    pub fn files(&self) -> &[LayoutFile] {
        &self.files
    }

    /// Bytes of all files, padding included.
    pub fn total_len(&self) -> u64 {
        self.total
    }

    /// Bytes of every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        self.pieces
    }

    /// The piece of this number, if there is one.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.pieces).then_some(PieceIndex(index))
    }

    /// Every piece, ascending.
    pub fn all_pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.pieces).map(PieceIndex)
    }

    /// Where a piece begins in the torrent.
    pub fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.get()) * u64::from(self.piece_length)
    }

    /// Bytes in a piece.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let left = self.total.saturating_sub(self.piece_offset(piece));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.piece_length)
    }

    /// Blocks in a piece.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Bytes in a block: 16 KiB but for the last one of a piece; 0 if there is no such block.
    pub fn block_len(&self, piece: PieceIndex, block: u32) -> u32 {
        let begin = u64::from(block) * u64::from(BLOCK_LEN);
        let left = u64::from(self.piece_len(piece)).saturating_sub(begin);
        u32::try_from(left).unwrap_or(u32::MAX).min(BLOCK_LEN)
    }

    /// The parts of files that hold `len` bytes of a piece from `begin` on, in order. What lies
    /// behind the end of the torrent is left out.
    pub fn spans(
        &self,
        piece: PieceIndex,
        begin: u32,
        len: u32,
    ) -> impl Iterator<Item = Span> + '_ {
        let start = self.piece_offset(piece) + u64::from(begin);
        let end = (start + u64::from(len)).min(self.total);
        // The first file that ends behind `start`: files without bytes hold nothing.
        let mut file = self.files.partition_point(|f| f.offset + f.len <= start);
        let mut pos = start;
        std::iter::from_fn(move || {
            while pos < end {
                let f = &self.files[file];
                let upto = end.min(f.offset + f.len);
                let index = file;
                file += 1;
                if upto <= pos {
                    continue;
                }
                let part = |n: u64| u32::try_from(n).expect("a part of a 32-bit length");
                let (at, span_len) = (part(pos - start), part(upto - pos));
                let span = Span { file: index, file_offset: pos - f.offset, at, len: span_len };
                pos = upto;
                return Some(span);
            }
            None
        })
    }

    /// The pieces that hold bytes of a file; none for an empty file or one that does not exist.
    pub fn pieces_of_file(&self, file: usize) -> Range<u32> {
        let Some(f) = self.files.get(file).filter(|f| f.len > 0) else { return 0..0 };
        let piece_length = u64::from(self.piece_length);
        let index = |n: u64| u32::try_from(n).expect("piece numbers have 32 bits");
        index(f.offset / piece_length)..index((f.offset + f.len).div_ceil(piece_length))
    }

    /// The pieces needed for the wanted files; for all if `None`. Padding is never wanted for
    /// itself, and a file without a flag is not wanted.
    pub fn wanted_pieces(&self, wanted: Option<&[bool]>) -> Bitfield {
        let Some(wanted) = wanted else { return Bitfield::all(self.pieces) };
        let mut pieces = Bitfield::none(self.pieces);
        for (index, (file, wanted)) in self.files.iter().zip(wanted).enumerate() {
            if *wanted && !file.pad {
                for piece in self.pieces_of_file(index) {
                    pieces.set(piece);
                }
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
