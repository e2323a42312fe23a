//! `cargo xtask soak`: the stories with the counts that continuous integration has no time for, against a release binary.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::build_guests;
use crate::process::{cargo, run};

/// Tells the stories to count far.
const SOAK: &str = "SALLYPORT_SOAK";

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Only the stories whose names contain this
    filter: Option<String>,
}

// === impl Soak ===

impl Soak {
    /// Builds the gateway as it is shipped and the stories as tests are, and runs them one after another: what they measure
    /// shall not be each other.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        build_guests(root)?;
        run(&mut cargo(root, &["build", "--release", "--workspace", "--bin", "sallyport"]))?;
        // The whole workspace, so that cargo unifies features as it does for `cargo xtask test` and builds nothing twice.
        let mut stories = cargo(root, &["test", "--workspace", "--test", "it"]);
        stories.env(SOAK, "1").env("SALLYPORT_BIN", root.join("target/release/sallyport"));
        stories.arg("--").arg("--test-threads=1").args(&self.filter);
        run(&mut stories)
    }
}
