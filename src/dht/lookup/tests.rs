//! Claims about one lookup.
