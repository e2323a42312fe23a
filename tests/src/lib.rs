//! The rig of the tests: a scripted upstream, the real gateway in a process of its own, a load generator and a bare proxy.
//! It exists so that each story in `it/` and each number of the benchmark is told against sockets and a binary, not mocks.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a rig that is broken shall stop the test at once"
)]

#[path = "../attacks/attacks.rs"]
pub mod attacks;
pub mod binary;
pub mod browser;
pub mod client;
pub mod gateway;
pub mod generated;
pub mod hostile;
pub mod identity_provider;
pub mod load;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod tls;
pub mod upstream;
pub mod vendor;
pub mod wait;
