//! The rig of the tests.

pub mod postgres;
