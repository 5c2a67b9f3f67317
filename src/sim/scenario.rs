//! Worlds made from options, and what came of them. A scenario's options and everything that
//! happens in it follow from one number, which a failing test prints.

use crate::base::{Rng, Seed};

pub mod downloads;
pub mod limits;
pub mod lookups;
pub mod network;
pub mod swarms;
#[cfg(test)]
mod tests;

/// The seed of a world and of what a scenario draws, from one number.
pub fn seed(number: u64) -> Seed {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    // Spread it: two neighbouring numbers share nothing.
    Rng::from_seed(seed).fork()
}
