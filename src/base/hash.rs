//! SHA-1, the hash that BEP 3 and BEP 5 are built on, behind a small face of our own.

use sha1::Digest as _;

/// A SHA-1 digest.
pub type Digest = [u8; 20];

/// The SHA-1 of `data`.
pub fn sha1(data: &[u8]) -> Digest {
    sha1::Sha1::digest(data).into()
}

/// SHA-1 over data that arrives in parts.
#[derive(Debug, Clone, Default)]
pub struct Sha1(sha1::Sha1);

impl Sha1 {
    /// A digest of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all that was appended.
    pub fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hash_like_the_whole() {
        let mut parts = Sha1::new();
        parts.update(b"ab");
        parts.update(b"c");
        let want = "a9993e364706816aba3e25717850c26c9cd0d89d";
        assert_eq!(crate::base::Key::new(parts.finish()).to_string(), want);
        assert_eq!(crate::base::Key::new(sha1(b"abc")).to_string(), want);
    }
}
