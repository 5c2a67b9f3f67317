//! Hashing what lies on the disk: many pieces at once, in bounded memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::Digest;
use crate::base::hash::Sha1;
use crate::driver::storage::aligned;
use crate::driver::storage::files::FileSet;
use crate::swarm::{DiskError, PieceIndex};

/// The SHA-1 of a piece as it lies on the disk. `buffer` is reused from piece to piece.
pub(in crate::driver) fn hash_piece(
    files: &FileSet,
    piece: PieceIndex,
    buffer: &mut Vec<u8>,
) -> Result<Digest, DiskError> {
    let len = files.layout().piece_len(piece);
    let mut sha = Sha1::new();
    let mut begin = 0;
    while begin < len {
        let part = (len - begin).min(READ_LEN);
        let out = &mut aligned::slice(buffer, READ_LEN as usize)[..part as usize];
        files.read(piece, begin, out)?;
        sha.update(out);
        begin += part;
    }
    Ok(sha.finish())
}

/// Does `work` for each piece on all cores, until `stop` is set. Each thread has one buffer.
pub(in crate::driver) fn for_each_piece(
    pieces: &[PieceIndex],
    stop: &AtomicBool,
    work: &(dyn Fn(PieceIndex, &mut Vec<u8>) + Sync),
) {
    let threads = threads().min(pieces.len());
    let next = AtomicUsize::new(0);
    let run = || {
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            work(*piece, &mut buffer);
        }
    };
    if threads < 2 {
        return run();
    }
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX))
}

/// Stays in a core's cache between being read and being hashed.
const READ_LEN: u32 = 256 << 10;
/// Beyond that no disk keeps up. 32 buffers of 256 KiB are 8 MiB.
const THREADS_MAX: usize = 32;
