//! Compiling happens in a child process with limits of its own, so that a component made to hurt the compiler never
//! touches the gateway. This file owns the job, the answer and the parent's side.

mod child;
mod configure;
mod queue;
mod snapshot;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::Kind;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::queue::{Busy, Queue};
use super::engine::Fuel;
use super::limits::Limits;
use super::program;
use super::world::Needs;
use crate::clock::Clock;
use crate::limits::Limit;

pub use self::child::compile_child;
pub use self::snapshot::possible as can_be_snapshotted;

/// The argument that makes the binary a compiler.
pub const VERB: &str = "compile-component";

/// Wall time of one job: beyond the child's own limit of CPU time, should it sleep.
const TIMEOUT: Duration = Duration::from_secs(150);
/// When a tenant whose line is full had better come back.
const SOON: Duration = Duration::from_secs(10);
/// Bytes of compiled code that are taken from a child.
const MAX_CODE: usize = 256 * 1024 * 1024;
/// Bytes of its last words that are kept.
const MAX_LAST_WORDS: u64 = 4 * 1024;
/// Bytes of a frame's head.
const MAX_HEAD: usize = 4 * 1024 * 1024;

/// The limits of compilers.
pub(super) fn limits() -> Vec<Limit> {
    const PART: &str = "component";
    const REFUSED: &str = "it is not admitted";
    let waiting = queue::MOST_WAITING as u64;
    vec![
        Limit::time(PART, "compiling one component, on the wall's clock", TIMEOUT, REFUSED),
        Limit::time(
            PART,
            "compiling one component, of a processor",
            Duration::from_secs(child::MAX_CPU),
            REFUSED,
        ),
        Limit::count(
            PART,
            "components of a tenant that wait to be compiled",
            waiting,
            "429 `compile_queue_full`",
        ),
        Limit::bytes(PART, "compiled code", MAX_CODE, REFUSED),
    ]
}

/// What to compile, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// Its kind.
    pub(crate) kind: Kind,
    /// What it is linked with besides what its kind gets.
    pub(crate) needs: Needs,
    /// It can be snapshotted, as far as its structure shows.
    pub(crate) snapshot: bool,
    /// The export that holds `configure`.
    pub(crate) configurable: String,
    /// The entry's configuration, JSON.
    pub(crate) config: String,
    /// What calls may take.
    pub(crate) limits: Limits,
    /// Whether the code counts its work.
    pub(crate) fuel: Fuel,
    /// It is compiled for a tenant: calls and the platform's own components come first.
    pub(crate) yields: bool,
}

/// What the child says, ahead of the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum CompilerAnswer {
    /// The code follows.
    Compiled {
        /// `configure` has run, and what it made is part of the code.
        snapshotted: bool,
    },
    /// `configure` said no.
    Refused {
        /// What it said.
        message: String,
    },
    /// `configure` did not answer.
    Faulted {
        /// What happened.
        message: String,
    },
    /// It could not be compiled or linked.
    Failed {
        /// Why.
        message: String,
    },
}

/// Compiled code, as it came from a child.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub(crate) snapshotted: bool,
    pub(crate) code: Vec<u8>,
}

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler could not be started.
    #[error("the compiler could not be started")]
    Start(#[source] std::io::Error),
    /// Talking to it failed.
    #[error("the compiler could not be talked to")]
    Talk(#[source] std::io::Error),
    /// As many of the tenant's components wait for the compiler as may.
    #[error("{} components of this tenant wait to be compiled already", queue::MOST_WAITING)]
    QueueFull,
    /// The tenant used up its time.
    #[error("this tenant has used up its time for compiling; there is more in {} s", retry_after.as_secs())]
    Spent {
        /// From when there is time again.
        retry_after: Duration,
    },
    /// It took too long.
    #[error("compiling took longer than {0:?}")]
    TimedOut(Duration),
    /// It was stopped by a limit, or broke.
    #[error("the compiler ended with {status}: {last_words}")]
    Ended {
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        last_words: String,
    },
    /// It answered with nothing that makes sense, or too much of it.
    #[error("the compiler's answer is unreadable")]
    Garbled,
    /// `configure` refused the configuration.
    #[error("the component refuses its configuration: {0}")]
    Refused(String),
    /// `configure` trapped or ran too long.
    #[error("the component failed while it was configured: {0}")]
    Configure(String),
    /// It could not be compiled or linked.
    #[error("the component could not be compiled: {0}")]
    Failed(String),
}

/// Starts compilers: one at a time for the platform, and one at a time for its tenants.
#[derive(Debug)]
pub(crate) struct Compiler {
    program: PathBuf,
    queue: Queue,
    timeouts: Duration,
}

// === impl Compiler ===

impl Compiler {
    /// A tenant's components may take `hourly` seconds of compiling in an hour.
    pub(crate) fn new(program: PathBuf, hourly: u32, clock: Arc<dyn Clock>) -> Self {
        Self { program, queue: Queue::new(hourly, clock), timeouts: TIMEOUT }
    }

    /// Compiles `component` in a child process, for `owner`, a tenant, or for the platform.
    pub(crate) async fn compile(
        &self,
        owner: Option<&TenantId>,
        job: &Job,
        component: &[u8],
    ) -> Result<Compiled, CompileError> {
        let _turn = self.queue.turn(owner).await?;
        let head = frame_head(job).ok_or(CompileError::Garbled)?;
        match tokio::time::timeout(self.timeouts, self.talk(&head, component)).await {
            Ok(answer) => answer,
            Err(_) => Err(CompileError::TimedOut(self.timeouts)),
        }
    }

    /// Dropped half-way, it takes the child along.
    async fn talk(&self, head: &[u8], component: &[u8]) -> Result<Compiled, CompileError> {
        let mut child = program::start(&self.program, VERB).map_err(CompileError::Start)?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(CompileError::Garbled);
        };
        let ask = async {
            // A child that dies early closes the pipe; how it ended says more than that.
            let asked = async {
                stdin.write_all(head).await?;
                stdin.write_all(component).await?;
                stdin.shutdown().await
            };
            drop(asked.await);
            drop(stdin);
        };
        let answer = async {
            let mut bytes = Vec::new();
            let limit = MAX_CODE.saturating_add(MAX_HEAD);
            stdout.take(limit as u64 + 1).read_to_end(&mut bytes).await.map(|_| bytes)
        };
        let last_words = async {
            let mut bytes = Vec::new();
            drop(stderr.take(MAX_LAST_WORDS).read_to_end(&mut bytes).await);
            String::from_utf8_lossy(&bytes).trim().chars().filter(|c| !c.is_control()).collect::<String>()
        };
        let ((), answer, last_words) = tokio::join!(ask, answer, last_words);
        let answer = answer.map_err(CompileError::Talk)?;
        if answer.len() > MAX_CODE {
            return Err(CompileError::Garbled);
        }
        let status = child.wait().await.map_err(CompileError::Talk)?;
        if !status.success() {
            return Err(CompileError::Ended { status: describe(status), last_words });
        }
        read_answer(answer)
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { snapshotted, code } = self;
        out.debug_struct("Compiled").field("snapshotted", snapshotted).field("bytes", &code.len()).finish()
    }
}

// === impl CompileError ===

impl CompileError {
    /// When it is worth trying again, if only the compiler was not to be had.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull => Some(SOON),
            Self::Spent { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

impl From<Busy> for CompileError {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Full => Self::QueueFull,
            Busy::Spent { retry_after } => Self::Spent { retry_after },
        }
    }
}

// === private helpers ===

/// A frame is the length of its head (four bytes, big endian), the head (JSON), and bytes until the end.
fn frame_head(head: &impl Serialize) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(head).ok()?;
    if json.len() > MAX_HEAD {
        return None;
    }
    let mut frame = u32::try_from(json.len()).ok()?.to_be_bytes().to_vec();
    frame.extend_from_slice(&json);
    Some(frame)
}

fn read_frame<T: for<'de> Deserialize<'de>>(frame: &[u8]) -> Option<(T, usize)> {
    let (length, rest) = frame.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= MAX_HEAD)?;
    let head = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((head, 4 + length))
}

fn read_answer(mut frame: Vec<u8>) -> Result<Compiled, CompileError> {
    let (answer, start) = read_frame::<CompilerAnswer>(&frame).ok_or(CompileError::Garbled)?;
    match answer {
        CompilerAnswer::Compiled { snapshotted } => {
            frame.drain(..start);
            Ok(Compiled { snapshotted, code: frame })
        }
        CompilerAnswer::Refused { message } => Err(CompileError::Refused(message)),
        CompilerAnswer::Faulted { message } => Err(CompileError::Configure(message)),
        CompilerAnswer::Failed { message } => Err(CompileError::Failed(message)),
    }
}

pub(super) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock::SystemClock;

    /// It may not use its processor time at all: only the clock on the wall ends it.
    #[tokio::test]
    async fn a_compiler_that_sleeps_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("compiler");
        let mark = directory.path().join("pid");
        std::fs::write(&program, format!("#!/bin/sh\necho $$ >{}\nexec sleep 1000\n", mark.display()))
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let timeouts = Duration::from_secs(1);
        let clock = Arc::new(SystemClock::default());
        let compiler = Compiler { timeouts, ..Compiler::new(program, 1, clock) };
        let job = Job {
            kind: Kind::Policy,
            needs: Needs::default(),
            snapshot: false,
            configurable: String::new(),
            config: String::new(),
            limits: Limits::of(Kind::Policy),
            fuel: Fuel::Off,
            yields: false,
        };
        let compiled = tokio::time::timeout(timeouts * 30, compiler.compile(None, &job, b"")).await;
        let error = compiled.expect("it is not waited for without end").unwrap_err();
        assert!(matches!(error, CompileError::TimedOut(limit) if limit == timeouts), "{error:?}");
        let pid = std::fs::read_to_string(&mark).unwrap();
        let running = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        let asked = std::time::Instant::now();
        while running() {
            assert!(asked.elapsed() < timeouts * 30, "the process goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
