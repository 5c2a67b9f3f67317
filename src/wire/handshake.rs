//! The 68 bytes with which a peer connection begins (BEP 3): protocol name, reserved bits,
//! info-hash, peer id.
//!
//! Encryption (MSE) is not spoken here: its first bytes are not this handshake, so that such a
//! connection fails at once and the other side falls back to plain text.

use crate::base::{InfoHash, PeerId};

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// What every handshake begins with: the length of the protocol's name, and the name.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// A handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The torrent that is talked about.
    pub info_hash: InfoHash,
    /// Who talks.
    pub peer_id: PeerId,
    /// Bits that announce extensions.
    pub reserved: [u8; 8],
}

/// Why bytes are not a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not 68 bytes.
    #[error("a handshake has 68 bytes")]
    Length,
    /// Another protocol, or an encrypted connection.
    #[error("not the BitTorrent protocol")]
    Protocol,
}

impl Handshake {
    /// A handshake that announces what we speak: the extension protocol (BEP 10), the fast
    /// extension (BEP 6) and, if `dht`, the DHT (BEP 5).
    pub fn new(info_hash: InfoHash, peer_id: PeerId, dht: bool) -> Self {
        let mut reserved = [0; 8];
        reserved[EXTENSIONS.0] |= EXTENSIONS.1;
        reserved[FAST.0] |= FAST.1;
        if dht {
            reserved[DHT.0] |= DHT.1;
        }
        Self { info_hash, peer_id, reserved }
    }

    /// Reads a handshake.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let bytes: &[u8; HANDSHAKE_LEN] = bytes.try_into().map_err(|_| HandshakeError::Length)?;
        let (protocol, rest) = bytes.split_at(PROTOCOL.len());
        if protocol != PROTOCOL {
            return Err(HandshakeError::Protocol);
        }
        let (reserved, rest) = rest.split_at(8);
        let (info_hash, peer_id) = rest.split_at(20);
        Ok(Self {
            info_hash: InfoHash::from_slice(info_hash).ok_or(HandshakeError::Length)?,
            peer_id: PeerId::from_slice(peer_id).ok_or(HandshakeError::Length)?,
            reserved: reserved.try_into().map_err(|_| HandshakeError::Length)?,
        })
    }

    /// The 68 bytes.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved);
        bytes[28..48].copy_from_slice(self.info_hash.as_bytes());
        bytes[48..].copy_from_slice(self.peer_id.as_bytes());
        bytes
    }

    /// The fast extension (BEP 6).
    pub fn supports_fast(&self) -> bool {
        self.has(FAST)
    }

    /// The extension protocol (BEP 10).
    pub fn supports_extensions(&self) -> bool {
        self.has(EXTENSIONS)
    }

    /// PORT messages (BEP 5).
    pub fn supports_dht(&self) -> bool {
        self.has(DHT)
    }

    fn has(&self, (byte, bit): (usize, u8)) -> bool {
        self.reserved[byte] & bit != 0
    }
}

// Which reserved byte, and which bit in it.
const EXTENSIONS: (usize, u8) = (5, 0x10);
const FAST: (usize, u8) = (7, 0x04);
const DHT: (usize, u8) = (7, 0x01);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_bits_are_set_and_read() {
        let h = Handshake::new(InfoHash::new([1; 20]), PeerId::new([2; 20]), true);
        assert!(h.supports_fast() && h.supports_extensions() && h.supports_dht());
        assert_eq!(&h.encode()[20..28], b"\0\0\0\0\0\x10\0\x05");
        let h = Handshake::new(InfoHash::new([1; 20]), PeerId::new([2; 20]), false);
        assert!(!h.supports_dht());
    }

    #[test]
    fn another_protocol_is_refused() {
        let mut bytes = Handshake::new(InfoHash::new([1; 20]), PeerId::new([2; 20]), true).encode();
        assert_eq!(Handshake::decode(&bytes[..67]), Err(HandshakeError::Length));
        bytes[3] ^= 1;
        assert_eq!(Handshake::decode(&bytes), Err(HandshakeError::Protocol));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(hash: [u8; 20], id: [u8; 20], reserved: [u8; 8]) {
            let h = Handshake {
                info_hash: InfoHash::new(hash), peer_id: PeerId::new(id), reserved,
            };
            prop_assert_eq!(Handshake::decode(&h.encode()), Ok(h));
        }

        #[test]
        fn no_bytes_whatsoever_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Handshake::decode(&bytes);
        }
    }
}
