//! Every way a guest call can fail to answer, and how wasmtime's errors become one of them.

use std::time::Duration;

use sallyport_protocol::fault::FaultCode;
use serde::{Deserialize, Serialize};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::limits::{Limits, TABLE_ELEMENTS};

/// How wasmtime begins a list of frames.
const FRAMES: &str = "error while executing at wasm backtrace";

/// Why a guest did not answer. A policy's fault denies; a hook's follows its failure mode; a provider's fails over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Fault {
    /// It ran too long.
    #[error("deadline of {limit:?} passed")]
    Deadline {
        /// Guest time it had.
        limit: Duration,
    },
    /// It wanted more linear memory than it may have.
    #[error("memory limit of {limit} bytes reached")]
    Memory {
        /// Bytes it had.
        limit: usize,
    },
    /// It wanted a larger table than it may have.
    #[error("table limit of {limit} elements reached")]
    Table {
        /// Elements it had.
        limit: usize,
    },
    /// It recursed too deep.
    #[error("stack exhausted")]
    StackOverflow,
    /// It stopped itself: a panic, an uncaught exception, a division by zero.
    #[error("guest trapped: {what}")]
    Trap {
        /// Which trap.
        what: String,
    },
    /// It handed the host values that the contract does not allow.
    #[error("guest answered with garbage: {what}")]
    Garbage {
        /// What was wrong with them.
        what: String,
    },
    /// It called the host too often.
    #[error("limit of {limit} host calls reached")]
    HostCalls {
        /// Calls it had.
        limit: u32,
    },
    /// It handed the host more than the host is willing to copy at once.
    #[error("limit of {limit} bytes copied at once reached")]
    TooMuchData {
        /// Bytes it had.
        limit: usize,
    },
    /// It held too many resources.
    #[error("limit of {limit} handles reached")]
    Handles {
        /// Handles it had.
        limit: usize,
    },
    /// It asked for too many random bytes at once.
    #[error("limit of {limit} random bytes reached")]
    Random {
        /// Bytes it had.
        limit: u64,
    },
    /// `configure` refused a configuration that it took when the component was admitted.
    #[error("the component refused its configuration: {message}")]
    Configure {
        /// What it said.
        message: String,
    },
    /// It was revoked, and runs no more.
    #[error("the component was revoked: {reason}")]
    Revoked {
        /// Why.
        reason: String,
    },
    /// It has a place in the bundle, but could not be put there.
    #[error("the component is not in force: {reason}")]
    Absent {
        /// Why.
        reason: String,
    },
    /// The gateway runs as many guests as it has room for.
    #[error("no room for another guest")]
    Exhausted,
    /// The exchange has ended before: by a fault, a failure, or a call that was given up half-way.
    #[error("the exchange is over")]
    Over,
    /// What its counters are kept in cannot be reached.
    #[error("its counters cannot be reached")]
    Counters,
    /// The worker process that it runs in ended, hung, or said what no worker says.
    #[error("worker process: {what}")]
    Worker {
        /// What happened.
        what: String,
    },
}

/// Why the host itself stopped a guest; travels through wasmtime as the error of a host function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("deadline")]
    Deadline(Duration),
    #[error("memory")]
    Memory(usize),
    #[error("table")]
    Table,
    #[error("host calls")]
    HostCalls(u32),
    #[error("host call not allowed while configuring")]
    Configuring,
    #[error("an amount that is no whole number")]
    Amount,
    #[error("a window that this host does not know")]
    Window,
    #[error("counters")]
    Counters,
}

// === impl Fault ===

impl Fault {
    /// Whether it may be the size of what it was given that a guest ran out of something.
    pub fn is_of_size(&self) -> bool {
        matches!(
            self,
            Self::Deadline { .. } | Self::Memory { .. } | Self::TooMuchData { .. } | Self::HostCalls { .. }
        )
    }

    /// Its name in rows and logs.
    pub fn code(&self) -> FaultCode {
        match self {
            Self::Deadline { .. } => FaultCode::Deadline,
            Self::Memory { .. } => FaultCode::Memory,
            Self::Table { .. } => FaultCode::Table,
            Self::StackOverflow => FaultCode::StackOverflow,
            Self::Trap { .. } => FaultCode::Trap,
            Self::Garbage { .. } => FaultCode::Garbage,
            Self::HostCalls { .. } => FaultCode::HostCalls,
            Self::TooMuchData { .. } => FaultCode::TooMuchData,
            Self::Handles { .. } => FaultCode::Handles,
            Self::Random { .. } => FaultCode::Random,
            Self::Configure { .. } => FaultCode::Configure,
            Self::Revoked { .. } => FaultCode::Revoked,
            Self::Absent { .. } => FaultCode::Absent,
            Self::Exhausted => FaultCode::Exhausted,
            Self::Over => FaultCode::Over,
            Self::Worker { .. } => FaultCode::Worker,
            Self::Counters => FaultCode::Counters,
        }
    }

    /// What `error` means for a guest that ran under `limits`.
    pub(crate) fn of(error: &wasmtime::Error, limits: &Limits) -> Self {
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return match *stop {
                Stop::Deadline(limit) => Self::Deadline { limit },
                Stop::Memory(limit) => Self::Memory { limit },
                Stop::Table => Self::Table { limit: TABLE_ELEMENTS },
                Stop::HostCalls(limit) => Self::HostCalls { limit },
                Stop::Configuring => Self::Trap { what: stop.to_string() },
                Stop::Amount | Stop::Window => Self::Garbage { what: stop.to_string() },
                Stop::Counters => Self::Counters,
            };
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Self::of_trap(*trap, limits);
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Self::Exhausted;
        }
        if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
            return Self::Handles { limit: limits.handles };
        }
        if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            return Self::Trap { what: format!("exit with status {}", exit.0) };
        }
        Self::of_text(&causes(error), limits)
    }

    /// As a worker told it: whatever else is in there, it is one short line.
    pub(crate) fn told(self) -> Self {
        match self {
            Self::Trap { what } => Self::Trap { what: first_line(&what) },
            Self::Garbage { what } => Self::Garbage { what: first_line(&what) },
            Self::Configure { message } => Self::Configure { message: first_line(&message) },
            Self::Worker { what } => Self::Worker { what: first_line(&what) },
            other => other,
        }
    }

    fn of_trap(trap: Trap, limits: &Limits) -> Self {
        match trap {
            Trap::StackOverflow => Self::StackOverflow,
            Trap::Interrupt | Trap::OutOfFuel => Self::Deadline { limit: limits.cpu },
            Trap::AllocationTooLarge => Self::Memory { limit: limits.memory },
            Trap::InvalidChar
            | Trap::InvalidDiscriminant
            | Trap::UnalignedPointer
            | Trap::StringOutOfBounds
            | Trap::ListOutOfBounds => Self::Garbage { what: trap.to_string() },
            other => Self::Trap { what: other.to_string() },
        }
    }

    /// wasmtime has no types for what goes wrong while values cross the border, only texts; what is left after the known
    /// ones is a value that could not be read.
    fn of_text(text: &str, limits: &Limits) -> Self {
        if text.contains("fuel allocated for hostcalls") {
            return Self::TooMuchData { limit: limits.copied };
        }
        if text.contains("handle limit exceeded") || text.contains("too many active lends") {
            return Self::Handles { limit: limits.handles };
        }
        if text.contains("requested len") && text.contains("exceeds limit") {
            return Self::Random { limit: limits.random };
        }
        if text.contains("exceeds the limit") && text.contains("memory") {
            return Self::Memory { limit: limits.memory };
        }
        if text.contains("wasm trap: ")
            || text.contains("cannot leave component")
            || text.contains("cannot enter component")
        {
            return Self::Trap { what: first_line(text) };
        }
        Self::Garbage { what: first_line(text) }
    }
}

// === private helpers ===

/// What went wrong, without where: wasmtime puts the frames of the guest before the cause.
fn causes(error: &wasmtime::Error) -> String {
    let texts = error.chain().map(ToString::to_string);
    texts.filter(|text| !text.starts_with(FRAMES)).collect::<Vec<_>>().join(": ")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
