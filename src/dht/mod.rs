//! L2 core: one Mainline DHT node (BEP 5) of one address family. Sans-IO: datagrams, timeouts and
//! commands go in, [`Output`]s come out.

mod config;
mod event;

pub use config::Config;
pub use event::{Event, LookupId, LookupKind, LookupReport, Output, PingId, SavedContact};
