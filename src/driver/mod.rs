//! L3: the host of the cores on a real machine: sockets, files, clock, entropy.

pub mod disk;
pub mod resume;
pub mod state_file;
mod storage;
