//! The set of pieces that somebody has (BEP 3 "bitfield"): one bit a piece, the first piece in the
//! highest bit of the first byte, spare bits zero.

/// A set of piece indices below a fixed length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// A set for `len` pieces that holds none.
    pub fn none(len: u32) -> Self {
        Self { bytes: vec![0; byte_len(len)], len, ones: 0 }
    }

    /// A set for `len` pieces that holds all.
    pub fn all(len: u32) -> Self {
        let mut bytes = vec![0xff; byte_len(len)];
        if let Some(last) = bytes.last_mut() {
            *last &= last_mask(len);
        }
        Self { bytes, len, ones: len }
    }

    /// Reads a bitfield message of `len` pieces: `None` if its length is wrong or a spare bit set.
    pub fn decode(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != byte_len(len) {
            return None;
        }
        if bytes.last().is_some_and(|last| last & !last_mask(len) != 0) {
            return None;
        }
        let ones = bytes.iter().map(|b| b.count_ones()).sum();
        Some(Self { bytes: bytes.to_vec(), len, ones })
    }

    /// The bytes of a bitfield message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many pieces the set is for.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if the set is for no pieces at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pieces it holds.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// True if it holds every piece.
    pub fn is_all(&self) -> bool {
        self.ones == self.len
    }

    /// True if it holds no piece.
    pub fn is_none(&self) -> bool {
        self.ones == 0
    }

    /// True if it holds `index`; false out of range.
    pub fn has(&self, index: u32) -> bool {
        let Some(byte) = self.bytes.get(index as usize / 8) else { return false };
        byte & bit(index) != 0
    }

    /// Adds `index`. True if it was new; out of range does nothing.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.len || self.has(index) {
            return false;
        }
        self.bytes[index as usize / 8] |= bit(index);
        self.ones += 1;
        true
    }

    /// Removes `index`. True if it was there.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.has(index) {
            return false;
        }
        self.bytes[index as usize / 8] &= !bit(index);
        self.ones -= 1;
        true
    }

    /// The indices it holds, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.len).filter(|i| self.has(*i))
    }

    /// The indices it lacks, ascending.
    pub fn iter_missing(&self) -> impl Iterator<Item = u32> {
        (0..self.len).filter(|i| !self.has(*i))
    }
}

fn byte_len(len: u32) -> usize {
    len.div_ceil(8) as usize
}

fn bit(index: u32) -> u8 {
    0x80 >> (index % 8)
}

fn last_mask(len: u32) -> u8 {
    if len.is_multiple_of(8) { 0xff } else { !(0xff >> (len % 8)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_from_the_highest() {
        let mut b = Bitfield::none(10);
        assert!(b.set(0) && b.set(9) && !b.set(9) && !b.set(10));
        assert_eq!(b.as_bytes(), [0x80, 0x40]);
        assert_eq!(b.iter().collect::<Vec<_>>(), [0, 9]);
        assert_eq!((b.count(), b.iter_missing().count()), (2, 8));
        assert!(b.clear(0) && !b.clear(0) && !b.has(0));
    }

    #[test]
    fn wrong_length_and_spare_bits_are_refused() {
        assert!(Bitfield::decode(&[0xff], 10).is_none());
        assert!(Bitfield::decode(&[0xff, 0xff], 10).is_none());
        assert!(Bitfield::decode(&[0xff, 0xc0, 0], 10).is_none());
        let all = Bitfield::decode(&[0xff, 0xc0], 10).unwrap();
        assert_eq!(all, Bitfield::all(10));
        assert!(all.is_all());
        assert!(Bitfield::all(0).is_all() && Bitfield::none(0).is_none());
        assert_eq!(Bitfield::decode(&[], 0), Some(Bitfield::all(0)));
    }
}
