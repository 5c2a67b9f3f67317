//! Claims about whole nodes, in a small virtual network.

mod away;
mod bulk;
mod chaos;
mod claims;
mod client;
mod errands;
mod flood;
mod flows;
mod hostile;
mod identity;
mod items;
mod life;
mod net;
mod reach;
mod store;
mod trace;
