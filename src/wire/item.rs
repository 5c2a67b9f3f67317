//! The items of BEP 44: values that the DHT stores, known by their hash, or by the key of who signs
//! them.
//!
//! A value is bencode, and hashes and signatures are made over its bytes as they came: nothing here
//! encodes a value anew. What is checked is whole: an [`Item`] made by one of the constructors may be
//! told, stored and sent on. Does not know tokens, nodes or time.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::base::hash::Sha1;
use crate::base::limits::{ITEM_SALT_MAX, ITEM_VALUE_MAX};
use crate::base::{Key, hash};
use crate::wire::bencode::{self, Limits, Writer};
use crate::wire::krpc::{ErrorCode, Put, SignedPut};

/// What an item is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKey {
    /// The SHA-1 of its value.
    Immutable(Key),
    /// Who signs it, and which of his items it is.
    Mutable {
        /// An ed25519 key.
        public_key: [u8; 32],
        /// At most 64 bytes; often none.
        salt: Vec<u8>,
    },
}

impl ItemKey {
    /// Where it lives in the key space.
    pub fn target(&self) -> Key {
        match self {
            ItemKey::Immutable(target) => *target,
            ItemKey::Mutable { public_key, salt } => mutable_target(public_key, salt),
        }
    }
}

/// A stored value with all that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Proven by its hash.
    Immutable {
        /// Bencode.
        value: Vec<u8>,
    },
    /// Proven by a signature; a higher sequence number replaces it.
    Mutable {
        /// An ed25519 key.
        public_key: [u8; 32],
        /// At most 64 bytes; often none.
        salt: Vec<u8>,
        /// The version.
        seq: i64,
        /// Bencode.
        value: Vec<u8>,
        /// Over salt, sequence number and value.
        signature: [u8; 64],
    },
}

/// Why something is no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The value is not bencode, or not in its one canonical spelling.
    #[error("the value is not canonical bencode")]
    Value,
    /// The value is longer than nodes have to store.
    #[error("the value is longer than {ITEM_VALUE_MAX} bytes")]
    ValueLength,
    /// The salt is too long.
    #[error("the salt is longer than {ITEM_SALT_MAX} bytes")]
    SaltLength,
    /// The sequence number is negative.
    #[error("the sequence number is negative")]
    Seq,
    /// The value has another hash, or the signature does not fit.
    #[error("the value is not what its key or signature says")]
    Forged,
}

impl ItemError {
    /// The error with which a node refuses it.
    pub fn code(self) -> ErrorCode {
        match self {
            ItemError::Value | ItemError::Seq => ErrorCode::Protocol,
            ItemError::ValueLength => ErrorCode::ValueLength,
            ItemError::SaltLength => ErrorCode::SaltLength,
            ItemError::Forged => ErrorCode::Signature,
        }
    }
}

impl Item {
    /// An item known by its hash.
    pub fn immutable(value: Vec<u8>) -> Result<Item, ItemError> {
        check_value(&value)?;
        Ok(Item::Immutable { value })
    }

    /// What a `put` brings, if it proves itself.
    pub fn from_put(put: &Put<'_>) -> Result<Item, ItemError> {
        match &put.signed {
            None => Item::immutable(put.value.to_vec()),
            Some(signed) => Item::from_signed(signed, put.value),
        }
    }

    /// A signed value, if the signature fits.
    pub fn from_signed(signed: &SignedPut<'_>, value: &[u8]) -> Result<Item, ItemError> {
        check_value(value)?;
        check_signed(signed.salt, signed.seq)?;
        let buffer = signed_bytes(signed.salt, signed.seq, value);
        let key = VerifyingKey::from_bytes(signed.public_key).map_err(|_| ItemError::Forged)?;
        let signature = Signature::from_bytes(signed.signature);
        // Strict: weak keys and second spellings of a signature, which honest signers never make, are
        // refused.
        key.verify_strict(&buffer, &signature).map_err(|_| ItemError::Forged)?;
        Ok(Item::Mutable {
            public_key: *signed.public_key,
            salt: signed.salt.to_vec(),
            seq: signed.seq,
            value: value.to_vec(),
            signature: *signed.signature,
        })
    }

    /// Checks an item whose fields were filled in by hand.
    pub fn check(&self) -> Result<(), ItemError> {
        Item::from_put(&self.to_put(b"", None)).map(|_| ())
    }

    /// What asks a node to store it; `cas` is for mutable items alone.
    pub fn to_put<'a>(&'a self, token: &'a [u8], cas: Option<i64>) -> Put<'a> {
        let signed = match self {
            Item::Immutable { .. } => None,
            Item::Mutable { public_key, salt, seq, signature, .. } => {
                Some(SignedPut { public_key, salt, seq: *seq, signature, cas })
            }
        };
        Put { token, value: self.value(), signed }
    }

    /// What it is known by.
    pub fn key(&self) -> ItemKey {
        match self {
            Item::Immutable { value } => ItemKey::Immutable(immutable_target(value)),
            Item::Mutable { public_key, salt, .. } => {
                ItemKey::Mutable { public_key: *public_key, salt: salt.clone() }
            }
        }
    }

    /// Where it lives in the key space.
    pub fn target(&self) -> Key {
        match self {
            Item::Immutable { value } => immutable_target(value),
            Item::Mutable { public_key, salt, .. } => mutable_target(public_key, salt),
        }
    }

    /// The bencoded value.
    pub fn value(&self) -> &[u8] {
        match self {
            Item::Immutable { value } | Item::Mutable { value, .. } => value,
        }
    }

    /// What is in the value, if that is a string: as good as always.
    pub fn content(&self) -> Option<&[u8]> {
        bencode::parse(self.value(), Limits::MESSAGE).ok()?.bytes()
    }

    /// The version of a mutable item.
    pub fn seq(&self) -> Option<i64> {
        match self {
            Item::Immutable { .. } => None,
            Item::Mutable { seq, .. } => Some(*seq),
        }
    }
}

/// Signs mutable items.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key that 32 secret random bytes make (RFC 8032). The same bytes make the same key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What others know its items by.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `value`, which is bencode, as version `seq` of the item that `salt` names.
    pub fn sign(&self, salt: &[u8], seq: i64, value: Vec<u8>) -> Result<Item, ItemError> {
        check_value(&value)?;
        check_signed(salt, seq)?;
        let signature = self.0.sign(&signed_bytes(salt, seq, &value)).to_bytes();
        let (public_key, salt) = (self.public_key(), salt.to_vec());
        Ok(Item::Mutable { public_key, salt, seq, value, signature })
    }
}

impl fmt::Debug for SecretKey {
    /// The public half alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public_key()).finish()
    }
}

/// The value that holds `content` as a string.
pub fn string_value(content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(content.len() + 5);
    Writer::new(&mut value).bytes(content);
    value
}

/// The key of an immutable item: the SHA-1 of its value.
pub fn immutable_target(value: &[u8]) -> Key {
    Key::new(hash::sha1(value))
}

/// The key of a mutable item: the SHA-1 of public key and salt.
pub fn mutable_target(public_key: &[u8; 32], salt: &[u8]) -> Key {
    let mut hash = Sha1::new();
    hash.update(public_key);
    hash.update(salt);
    Key::new(hash.finish())
}

fn check_value(value: &[u8]) -> Result<(), ItemError> {
    if value.len() > ITEM_VALUE_MAX {
        return Err(ItemError::ValueLength);
    }
    let parsed = bencode::parse(value, Limits::MESSAGE).map_err(|_| ItemError::Value)?;
    if parsed.is_canonical() { Ok(()) } else { Err(ItemError::Value) }
}

fn check_signed(salt: &[u8], seq: i64) -> Result<(), ItemError> {
    if salt.len() > ITEM_SALT_MAX {
        return Err(ItemError::SaltLength);
    }
    if seq < 0 { Err(ItemError::Seq) } else { Ok(()) }
}

// `4:salt6:foobar3:seqi4e1:v12:Hello world!`; without a salt, without its key.
fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(salt.len() + value.len() + 40);
    let mut w = Writer::new(&mut out);
    if !salt.is_empty() {
        w.bytes(b"salt").bytes(salt);
    }
    w.bytes(b"seq").int(seq).bytes(b"v").raw(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: &[u8] = b"12:Hello World!";

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    // The test vectors of BEP 44.
    fn vector(salt: &[u8], signature: &str) -> Result<Item, ItemError> {
        let public_key = hex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
        let signature = hex(signature);
        let signed =
            SignedPut { public_key: &public_key, salt, seq: 1, signature: &signature, cas: None };
        Item::from_signed(&signed, HELLO)
    }

    #[test]
    fn test_vectors_of_the_specification_hold() {
        let plain = "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                     1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01";
        let item = vector(b"", plain).unwrap();
        assert_eq!(item.target().to_string(), "4a533d47ec9c7d95b1ad75f576cffc641853b750");
        let salted = "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                      df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08";
        let item = vector(b"foobar", salted).unwrap();
        assert_eq!(item.target().to_string(), "411eba73b6f087ca51a3795d9c8c938d365e32c1");
        assert_eq!(item.key().target(), item.target());
        assert_eq!(vector(b"", salted), Err(ItemError::Forged));
        assert_eq!(vector(b"foobaz", salted), Err(ItemError::Forged));
        let item = Item::immutable(HELLO.to_vec()).unwrap();
        assert_eq!(item.target().to_string(), "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    }

    #[test]
    fn what_is_signed_is_spelled_as_specified() {
        assert_eq!(signed_bytes(b"", 4, b"12:Hello world!"), b"3:seqi4e1:v12:Hello world!");
        let salted = signed_bytes(b"foobar", 4, b"12:Hello world!");
        assert_eq!(salted, b"4:salt6:foobar3:seqi4e1:v12:Hello world!");
    }

    #[test]
    fn content_of_a_string_value_is_what_was_put_in() {
        for content in [&b""[..], b"Hello World!", &[0, 255, 10]] {
            let item = Item::immutable(string_value(content)).unwrap();
            assert_eq!(item.content(), Some(content));
        }
        assert_eq!(string_value(b"Hello World!"), HELLO);
        assert_eq!(Item::immutable(b"li1ee".to_vec()).unwrap().content(), None);
    }

    #[test]
    fn values_and_salts_have_their_limits() {
        let long = |len: usize| format!("{len}:{}", "x".repeat(len)).into_bytes();
        assert_eq!(long(996).len(), ITEM_VALUE_MAX);
        assert!(Item::immutable(long(996)).is_ok());
        assert_eq!(Item::immutable(long(997)), Err(ItemError::ValueLength));
        for bad in [&b""[..], b"x", b"3:ab", b"1:ab", b"d1:bi1e1:ai1ee", b"03:abc", b"i01e"] {
            assert_eq!(Item::immutable(bad.to_vec()), Err(ItemError::Value));
        }
        let key = SecretKey::from_seed(&[7; 32]);
        assert!(key.sign(&[1; 64], 0, HELLO.to_vec()).is_ok());
        assert_eq!(key.sign(&[1; 65], 0, HELLO.to_vec()), Err(ItemError::SaltLength));
        assert_eq!(key.sign(b"", -1, HELLO.to_vec()), Err(ItemError::Seq));
    }

    #[test]
    fn secret_key_does_not_print_its_secret() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert!(!format!("{key:?}").contains("7, 7, 7"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_signed_proves_itself_and_nothing_else_does(
            seed in any::<[u8; 32]>(),
            salt in prop::collection::vec(any::<u8>(), 0..=64),
            seq in 0..=i64::MAX,
            text in prop::collection::vec(any::<u8>(), 0..200),
            flip in any::<usize>(),
        ) {
            let mut value = Vec::new();
            Writer::new(&mut value).bytes(&text);
            let item = SecretKey::from_seed(&seed).sign(&salt, seq, value).unwrap();
            prop_assert_eq!(item.check(), Ok(()));
            prop_assert_eq!(&Item::from_put(&item.to_put(b"t", Some(3))).unwrap(), &item);
            let Item::Mutable { public_key, salt, seq, value, mut signature } = item else { panic!() };
            signature[flip % 64] ^= 1 << (flip / 64 % 8);
            let bad = Item::Mutable { public_key, salt, seq, value, signature };
            prop_assert_eq!(bad.check(), Err(ItemError::Forged));
        }
    }
}
