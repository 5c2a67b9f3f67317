//! Claims about the routing table.
