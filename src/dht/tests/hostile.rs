//! What others send that they should not.
