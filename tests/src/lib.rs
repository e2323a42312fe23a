//! The rig of the tests.

#![expect(clippy::expect_used, clippy::panic, reason = "a rig that is broken shall stop the test at once")]

pub mod binary;
pub mod hostile;
pub mod postgres;
