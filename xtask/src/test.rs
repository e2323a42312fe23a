//! `cargo xtask test`: every test there is, summed up in one line.

use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::postgres::Server;
use crate::process::{cargo, run};
use crate::{build_guests, say};

/// Names the database of the tests.
const POSTGRES: &str = "SALLYPORT_TEST_POSTGRES_URL";

/// Which tests to run besides.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Also run the published clients against the gateway (needs Node.js and Python)
    #[arg(long)]
    clients: bool,
    /// Also build components with the toolchains of other languages (needs Node.js and Python)
    #[arg(long)]
    kits: bool,
    /// A test that says that it could not run is a failure
    #[arg(long)]
    nothing_skipped: bool,
}

/// What the runners said, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

// === impl Test ===

impl Test {
    /// Builds what the tests need and runs them all, also after one failed.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        build_guests(root)?;
        // The whole workspace, so that cargo unifies features as it does for the tests and builds nothing twice.
        run(&mut cargo(root, &["build", "--workspace", "--bin", "sallyport"]))?;
        let mut command = cargo(root, &["test", "--workspace", "--no-fail-fast"]);
        command.env("SALLYPORT_BIN", root.join("target/debug/sallyport"));
        let _server = postgres(&mut command)?;
        if self.clients {
            command.env("SALLYPORT_CLIENTS", "1");
        }
        if self.kits {
            command.env("SALLYPORT_KITS", "1");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
        let mut tally = Tally::default();
        let mut out = std::io::stdout();
        for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
            let line = line.context("cannot read what cargo test says")?;
            tally.read(&line);
            writeln!(out, "{line}")?;
        }
        let status = child.wait().context("cannot wait for cargo test")?;
        writeln!(out, "{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped)?;
        ensure!(status.success() && tally.failed == 0, "tests failed: {status}");
        ensure!(tally.passed > 0, "no test ran");
        ensure!(
            tally.skipped == 0 || !self.nothing_skipped,
            "what was skipped is named above, and nothing may be"
        );
        if tally.skipped > 0 {
            say("what was skipped is named above");
        }
        Ok(())
    }
}

/// Gives the tests a PostgreSQL: the one that the environment names, else a throw-away cluster. Without one they run on SQLite
/// alone, which continuous integration does not accept.
pub(crate) fn postgres(command: &mut Command) -> Result<Option<Server>> {
    if std::env::var_os(POSTGRES).is_some() {
        return Ok(None);
    }
    let server = Server::start().context("cannot start a throw-away PostgreSQL")?;
    match &server {
        Some(server) => drop(command.env(POSTGRES, server.url())),
        None if std::env::var_os("CI").is_some() => {
            bail!("no PostgreSQL server is installed, and {POSTGRES} is not set")
        }
        None => say("skipped: PostgreSQL (no server is installed): the database tests run on SQLite alone"),
    }
    Ok(server)
}

// === impl Tally ===

impl Tally {
    /// Adds a runner's last line: `test result: ok. 3 passed; 0 failed; 1 ignored; ..`; and a test that says of itself
    /// that it could not run: `skipped: ..`, behind its name where tests run one after another.
    fn read(&mut self, line: &str) {
        if line.starts_with("skipped: ") || (line.starts_with("test ") && line.contains(" ... skipped: ")) {
            self.skipped += 1;
            return;
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let counts = rest.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_lines_of_all_runners_are_summed() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.00s",
            "skipped: PostgreSQL (no server is installed)",
            "test disk::a_story ... skipped: a full disk (no file system may be mounted here)",
            "test a_story_of_what_is_skipped ... ok",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 4, failed: 2, skipped: 3 });
    }
}
