//! The one place that reads the system's randomness: seeds for the cores, once each.

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::base::Seed;

/// A seed that nobody can guess.
pub fn seed() -> std::io::Result<Seed> {
    let mut seed = Seed::default();
    SysRng.try_fill_bytes(&mut seed).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(seed)
}
