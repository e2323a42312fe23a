//! A workstation: a home of its own, and the binary run in it with nothing of this machine's environment.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A token in the form of ours.
pub(crate) const PAT: &str = "sp_pat_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_00000000";

/// The binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_sp-cowork-auth");

/// A user at a machine.
pub(crate) struct Station {
    home: TempDir,
    environment: Vec<(String, String)>,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; -1 for a signal.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

// === impl Station ===

impl Station {
    /// A machine that knows its gateway and keeps secrets in a file.
    pub(crate) fn new(gateway: &str) -> Self {
        let station = Self::bare();
        station.write_config(&format!("gateway_url = \"{gateway}\"\nkeystore = \"file\"\n"));
        station
    }

    /// A machine where nothing is configured.
    pub(crate) fn bare() -> Self {
        Self { home: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// With a variable.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Writes the configuration.
    pub(crate) fn write_config(&self, text: &str) {
        fs::create_dir_all(self.config().parent().unwrap()).unwrap();
        fs::write(self.config(), text).unwrap();
    }

    /// The home.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.home().join(".config/systemprompt/systemprompt-cowork.toml")
    }

    /// The file that keeps secrets.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.config().with_file_name("systemprompt-cowork.secrets.json")
    }

    /// The cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.home().join(".cache/systemprompt/systemprompt-cowork.json")
    }

    /// Changes the times of the cached credential.
    pub(crate) fn age(&self, issued_ago: u64, ends_in: u64) {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut cached: Value = serde_json::from_slice(&fs::read(self.cache()).unwrap()).unwrap();
        cached["issued_at"] = (now - issued_ago).into();
        cached["expires_at"] = (now + ends_in).into();
        fs::write(self.cache(), cached.to_string()).unwrap();
    }

    /// Files below the home, by their paths.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), root, found);
                } else {
                    found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.home(), self.home(), &mut found);
        found.sort();
        found
    }

    /// A command, ready to run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(BINARY, arguments)
    }

    /// The same of another program.
    pub(crate) fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", self.home()).env("PATH", "/usr/bin:/bin");
        command.envs(self.environment.iter().cloned()).current_dir(self.home());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the binary.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }

    /// Runs it with a text on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // Whoever does not read its input may have ended.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Signs in.
    pub(crate) fn login(&self) {
        let ran = self.run_with(&["login"], PAT);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
}

// === impl Ran ===

impl Ran {
    /// Runs a command.
    pub(crate) fn of(mut command: Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// The credential that was printed, which is all that was printed.
    pub(crate) fn credential(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        let line = self.out.strip_suffix('\n').expect("a line ends");
        assert!(!line.contains('\n'), "one line: {line}");
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(
            value["token"].is_string() && value["ttl"].is_u64() && value["headers"].is_object(),
            "{value}"
        );
        value
    }

    /// That it failed as the contract has it: this code, nothing on standard output, one line on standard error. The line.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "nothing on standard output");
        let line = self.err.strip_suffix('\n').unwrap_or_else(|| panic!("a line: {self:?}"));
        assert!(!line.contains('\n'), "one line: {line}");
        assert!(!line.contains("0123456789abcdef"), "no secret: {line}");
        line
    }
}

impl From<std::process::Output> for Ran {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
