//! L3: a world in which the same cores run that the driver runs, with virtual time, a virtual
//! network, storage in memory, and one seed from which all chance follows. The same seed gives the
//! same history, event for event: a failure is replayed by its seed alone.
//!
//! It imports cores and nothing of the driver. A [`World`] holds hosts; each [`Host`] wraps one
//! core. Datagrams may be lost, late or out of order; streams are ordered and reliable, but arrive
//! in pieces. [`scenario`] builds worlds from options and says what must be true of them.

pub mod chance;
pub mod churn;
pub mod client;
pub mod disk;
pub mod host;
pub mod implicit;
pub mod link;
pub mod nat;
pub mod plot;
pub mod queue;
pub mod report;
pub mod scenario;
mod streams;
pub mod tables;
pub mod trace;
pub mod world;

pub use host::{Effect, Host, HostId};
pub use world::World;
