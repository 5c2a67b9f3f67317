//! Memory that a file is read into, from the start of a cache line.
//!
//! The allocator gives large buffers that start 16 bytes into a page. On AMD's Zen 3 and 4 the
//! kernel's copy (`rep movsb`) from a page of a file to an address that lies 1 to 31 bytes further in
//! its page is three times slower than any other: 1.5 GB/s against 5.5 were measured.

/// A buffer of zeroes that is kept from call to call: the `len` bytes of it that are aligned.
pub(in crate::driver) fn slice(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    buffer.resize(len + LINE, 0);
    let start = offset(buffer);
    &mut buffer[start..][..len]
}

/// A new buffer, filled up to where the aligned room for `len` bytes starts, and where that is.
pub(in crate::driver) fn with_capacity(len: usize) -> (Vec<u8>, usize) {
    let mut buffer = Vec::with_capacity(len + LINE);
    let start = offset(&buffer);
    buffer.resize(start, 0);
    (buffer, start)
}

// The pointer may be of a kind that cannot be aligned, which no system that we run on has.
fn offset(buffer: &[u8]) -> usize {
    let offset = buffer.as_ptr().align_offset(LINE);
    if offset < LINE { offset } else { 0 }
}

/// Bytes of a cache line.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_aligned_and_as_long_as_was_asked() {
        let mut kept = Vec::new();
        for len in [1, 1000, 16 << 10, 256 << 10, 300_000] {
            let room = slice(&mut kept, len);
            assert_eq!((room.len(), room.as_ptr().addr() % LINE), (len, 0));
            let (mut new, start) = with_capacity(len);
            assert!(new.capacity() - start >= len);
            new.push(1);
            assert_eq!(new[start..].as_ptr().addr() % LINE, 0);
        }
    }
}
