//! Stories of typed events.
