//! L2 core: one Mainline DHT node (BEP 5) of one address family. Sans-IO: datagrams, timeouts and
//! commands go in, [`Output`]s come out.

mod announcer;
#[doc(hidden)]
pub mod bench;
mod beside;
mod bucket;
mod bulk;
mod by_id;
mod closest_cache;
mod config;
mod density;
mod errands;
mod event;
mod flows;
mod heard;
mod item_store;
mod keeper;
mod limiter;
mod line;
mod lookup;
mod lookups;
mod maintenance;
mod node;
mod peer_store;
mod queries;
mod reachability;
mod rtt;
mod sampling;
mod second_tries;
mod security;
mod server;
mod stats;
mod survey;
mod table;
mod tokens;
mod trace;
mod unreachable;
mod vote;
mod waiting;

#[cfg(test)]
mod tests;

pub use crate::wire::item::{Item, ItemError, ItemKey, SecretKey, string_value};
pub use config::{Config, PER_IP_RATE};
pub use event::{
    Announcement, Announcing, Event, LookupCost, LookupId, LookupKind, LookupReport, Output,
    PingId, SavedContact, Scrape, Step, StepKind,
};
pub use flows::{FLOWS_PER_SECOND, FlowBudget, FlowStats, Priority};
pub use node::{LookupProgress, Node};
pub use reachability::Reachability;
pub use security::{is_valid_id, make_id};
pub use stats::{ByCode, ByMethod, Dropped, RttCounts, Stats};
