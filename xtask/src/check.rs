//! `cargo xtask check`: what a reviewer should not have to say.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, run};
use crate::{build_guests, say, wit};

/// What to leave out.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only what is cheap: format and lints
    #[arg(long)]
    quick: bool,
}

// === impl Check ===

impl Check {
    /// Runs all of it; the first thing that is wrong ends it.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        say("format");
        run(&mut cargo(root, &["fmt", "--all", "--check"]))?;
        run(&mut cargo(&root.join("fuzz"), &["fmt", "--check"]))?;
        say("contract with guests");
        wit::check(&root.join("wit"))?;
        // The gateway embeds them: without them, lints would see a build that nobody uses.
        build_guests(root)?;
        say("lints");
        run(&mut cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
        if self.quick {
            return Ok(());
        }
        say("documentation");
        run(cargo(root, &["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
        let mut deny = Command::new("cargo-deny");
        let installed = deny.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        if installed {
            say("dependencies");
            run(&mut cargo(root, &["deny", "check"]))?;
        } else {
            say("skipped: cargo deny (not installed)");
        }
        Ok(())
    }
}
