//! L0: what every room needs and no protocol owns: virtual time, ids, seeded chance, bounded
//! containers, limits and address rules. Imports nothing of ours.

pub mod addr;
pub mod bounded;
pub mod budget;
pub mod datagrams;
pub mod hash;
pub mod id;
pub mod limits;
pub mod recent;
pub mod rng;
pub mod time;

pub use hash::Digest;
pub use id::{Distance, InfoHash, Key, NodeId, PeerId};
pub use rng::{Rng, Seed};
pub use time::Instant;
