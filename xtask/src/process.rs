//! Starting other programs, and being sure that they end.

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long a program that was told to stop may take before it is killed.
const TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A program in the background, stopped when dropped.
pub(crate) struct Background {
    child: Child,
}

/// `cargo`, in the workspace.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command.args(arguments).current_dir(root);
    command
}

/// Runs a program to its end; an error if that is not a good one.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed: {}\n{complaint}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed something that is not text"))
}

// === impl Background ===

impl Background {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        Ok(Self { child: command.spawn().with_context(|| format!("cannot run {shown}"))? })
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask how the program does")
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the program")
    }

    /// Asks it to stop and waits until it did.
    pub(crate) fn stop(mut self) -> Result<()> {
        ensure!(self.end(), "the program did not stop when asked and was killed");
        Ok(())
    }

    /// Whether it went when asked.
    fn end(&mut self) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return true;
        }
        // `kill` is a builtin of every shell: no unsafe code and no further dependency.
        drop(Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status());
        let asked = Instant::now();
        while asked.elapsed() < TIMEOUT {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            thread::sleep(POLL);
        }
        drop(self.child.kill());
        drop(self.child.wait());
        false
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}
