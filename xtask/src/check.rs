//! `cargo xtask check`: what a reviewer should not have to say.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, run};
use crate::{build_guests, say, wit};

/// The oldest `cargo deny` that `deny.toml` was tried with.
const DENY: (u32, u32) = (0, 20);

/// What to leave out.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only what is cheap: format, the contract with guests, and lints
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
        if is_installed("typos") {
            say("spelling");
            run(Command::new("typos").current_dir(root))?;
        } else {
            say("skipped: spelling (`typos` is not installed: pip install typos)");
        }
        dependencies(root)
    }
}

/// Licences, sources and duplicate versions of what is linked, and known vulnerabilities where their database can be fetched.
fn dependencies(root: &Path) -> Result<()> {
    match deny_version(root) {
        Some(version) if version >= DENY => {}
        Some((major, minor)) => {
            say(&format!(
                "skipped: dependencies (`cargo deny` {major}.{minor} cannot read deny.toml: cargo install cargo-deny --locked)"
            ));
            return Ok(());
        }
        None => {
            say("skipped: dependencies (`cargo deny` is not installed: cargo install cargo-deny --locked)");
            return Ok(());
        }
    }
    say("dependencies");
    run(&mut cargo(root, &["deny", "--workspace", "check", "bans", "licenses", "sources"]))?;
    if run(&mut cargo(root, &["deny", "fetch", "db"])).is_err() {
        say("skipped: known vulnerabilities (their database cannot be fetched)");
        return Ok(());
    }
    run(&mut cargo(root, &["deny", "--workspace", "check", "--disable-fetch", "advisories"]))
}

/// Major and minor version of the `cargo deny` that cargo finds: `cargo-deny 0.20.2`. `None` without one.
fn deny_version(root: &Path) -> Option<(u32, u32)> {
    let output = cargo(root, &["deny", "--version"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, rest) = text.trim().strip_prefix("cargo-deny ")?.split_once('.')?;
    Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
}

/// Whether a program can be started.
fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
