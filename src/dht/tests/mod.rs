//! Claims about whole nodes, in a small virtual network.

mod chaos;
mod flood;
mod flows;
mod hostile;
mod identity;
mod life;
mod net;
mod reach;
mod store;
mod trace;
