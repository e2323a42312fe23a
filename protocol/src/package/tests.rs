//! Stories of trust.
