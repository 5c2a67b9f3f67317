//! The three 20-byte names of BitTorrent (BEP 3, BEP 5) as three types, and the key space in which
//! the DHT measures distance. They never convert silently: a node id is not an info-hash.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::Rng;

/// Bytes in an id.
pub const ID_LEN: usize = 20;
/// How the peer ids of this program begin (BEP 20).
const OWN_PREFIX: &[u8; 8] = b"-TK0010-";

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// Wraps 20 bytes.
            pub const fn new(bytes: [u8; ID_LEN]) -> Self {
                Self(bytes)
            }

            /// The id in `bytes`, if there are exactly 20.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The 20 bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }

            /// The first 64 bits as a number, for those who compare many.
            pub fn leading(&self) -> u64 {
                let high = self.0.first_chunk().expect("8 of 20 bytes");
                u64::from_be_bytes(*high)
            }

            fn numbers(&self) -> (u128, u32) {
                let (high, low) = self.0.split_at(16);
                let high = <[u8; 16]>::try_from(high).expect("16 of 20 bytes");
                let low = <[u8; 4]>::try_from(low).expect("the other four");
                (u128::from_be_bytes(high), u32::from_be_bytes(low))
            }
        }

        // Two comparisons of numbers instead of a call of `memcmp`: maps by distance and the
        // closest contacts to a key are made of these.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.numbers().cmp(&other.numbers())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            /// 40 lower-case hex digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            /// Reads 40 hex digits of either case.
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                parse_hex(s).map(Self)
            }
        }
    };
}

id_type! {
    /// A DHT node's id (BEP 5).
    NodeId
}
id_type! {
    /// The SHA-1 of a torrent's info dictionary (BEP 3): what a magnet link names.
    InfoHash
}
id_type! {
    /// A download partner's id (BEP 20).
    PeerId
}
id_type! {
    /// A point of the DHT's key space: where node ids and info-hashes meet.
    Key
}
id_type! {
    /// The XOR of two keys. Ordered: smaller is closer.
    Distance
}

impl NodeId {
    /// Where this node lives in the key space.
    pub const fn key(self) -> Key {
        Key(self.0)
    }
}

impl InfoHash {
    /// Where this torrent's announces live in the key space.
    pub const fn key(self) -> Key {
        Key(self.0)
    }
}

impl PeerId {
    /// An id of ours (BEP 20, Azureus style): `-TK0010-` and twelve random bytes.
    pub fn random(rng: &mut Rng) -> PeerId {
        let mut id: [u8; ID_LEN] = rng.array();
        id[..OWN_PREFIX.len()].copy_from_slice(OWN_PREFIX);
        PeerId(id)
    }
}

impl Key {
    /// The XOR metric of Kademlia (BEP 5).
    pub fn distance(self, other: Key) -> Distance {
        Distance(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    /// How many leading bits two keys share: 0..=160.
    pub fn shared_prefix_bits(self, other: Key) -> u32 {
        self.distance(other).leading_zeros()
    }
}

impl Distance {
    /// Leading zero bits: 0..=160.
    pub fn leading_zeros(self) -> u32 {
        let mut bits = 0;
        for byte in self.0 {
            bits += byte.leading_zeros();
            if byte != 0 {
                break;
            }
        }
        bits
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 40 hex digits")]
pub struct ParseIdError;

fn parse_hex(s: &str) -> Result<[u8; ID_LEN], ParseIdError> {
    let digits = s.as_bytes();
    if digits.len() != 2 * ID_LEN {
        return Err(ParseIdError);
    }
    let mut id = [0; ID_LEN];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let (hi, lo) = (char::from(pair[0]).to_digit(16), char::from(pair[1]).to_digit(16));
        let (Some(hi), Some(lo)) = (hi, lo) else { return Err(ParseIdError) };
        *byte = u8::try_from(hi * 16 + lo).expect("two hex digits fit one byte");
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_of_either_case_reads_back() {
        let text = "0123456789abcdefABCDEF0123456789abcdef01";
        let id: InfoHash = text.parse().unwrap();
        assert_eq!(id.to_string(), text.to_lowercase());
        assert_eq!("xyz".parse::<InfoHash>(), Err(ParseIdError));
        assert!("é123456789abcdef0123456789abcdef0123456".parse::<InfoHash>().is_err());
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        let mut rng = crate::base::Rng::from_seed([3; 32]);
        for at in 0..ID_LEN {
            let a: [u8; ID_LEN] = rng.array();
            let mut b = a;
            b[at] ^= 1 << (at % 8);
            b[at + 1..].copy_from_slice(&rng.array::<ID_LEN>()[at + 1..]);
            assert_eq!(Key::new(a).cmp(&Key::new(b)), a.cmp(&b));
            assert_eq!(Key::new(b).cmp(&Key::new(a)), b.cmp(&a));
            assert_eq!(Key::new(a).cmp(&Key::new(a)), Ordering::Equal);
        }
    }

    #[test]
    fn distance_orders_keys_and_counts_shared_bits() {
        let zero = Key::new([0; 20]);
        let mut near = [0; 20];
        near[19] = 1;
        let mut far = [0; 20];
        far[0] = 0x10;
        assert!(zero.distance(Key::new(near)) < zero.distance(Key::new(far)));
        assert_eq!(zero.shared_prefix_bits(Key::new(near)), 159);
        assert_eq!(zero.shared_prefix_bits(Key::new(far)), 3);
        assert_eq!(zero.shared_prefix_bits(zero), 160);
    }
}
