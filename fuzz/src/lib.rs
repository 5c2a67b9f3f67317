//! The bodies of the fuzz targets: functions of bytes that panic if a promise is broken.
//!
//! libFuzzer drives them through `fuzz_targets/`:
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run node
//! ```
//!
//! The integration tests include this file as a module and run each body over its committed corpus
//! and over mutations of it, on a stable compiler. So nothing here names `crate::`.

mod bencode;
mod files;
mod input;
mod krpc;
pub mod mutate;
mod node;
mod peer;
mod reference;

pub use self::bencode::bencode;
pub use self::files::{magnet, metainfo, resume};
pub use self::krpc::krpc;
pub use self::node::node;
pub use self::peer::{extension, handshake, messages};

/// Takes any bytes; panics if they made us break a promise.
pub type Target = fn(&[u8]);

/// Every target: its name, which is that of its corpus, and its body.
pub const TARGETS: [(&str, Target); 9] = [
    ("bencode", bencode),
    ("krpc", krpc),
    ("node", node),
    ("handshake", handshake),
    ("messages", messages),
    ("extension", extension),
    ("metainfo", metainfo),
    ("magnet", magnet),
    ("resume", resume),
];
