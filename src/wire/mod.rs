//! L1: codecs. Pure functions between bytes and meaning: no clock, no chance, no state. Whatever
//! bytes come, the answer is a value or a typed error, never a panic.

pub mod bencode;
pub mod bitfield;
pub mod bloom;
pub mod compact;
pub mod extension;
pub mod handshake;
pub mod item;
pub mod krpc;
pub mod magnet;
pub mod metainfo;
pub mod peer;
