//! Stories of the workstation binary: the real process against a gateway that answers by script. What the real gateway answers
//! is in `tests/it/workstations.rs` of the workspace.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a story are tests too"
)]

mod browser;
mod contract;
mod device;
mod double;
mod hostile;
mod injected;
mod inputs;
mod install;
mod sign_in;
mod station;

use std::io::Write as _;

/// Says on standard output why a story is not told here; continuous integration counts these lines.
pub(crate) fn tell(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
