//! Claims about whole nodes, in a small virtual network.

mod hostile;
mod life;
mod net;
mod store;
