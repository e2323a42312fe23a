//! How much a guest may take, per kind: defaults that hold for every component, and the ceilings that nobody exceeds.

use std::time::Duration;

use sallyport_protocol::package::{Kind, Limits as Declared};
use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The largest linear memory that the pool has room for.
pub(crate) const SLOT_BYTES: usize = 64 * MIB;
/// Core instances that one component may consist of: as many as it may have core modules.
pub(crate) const INSTANCES: u32 = 48;
/// Tables that one component may have.
pub(crate) const TABLES: u32 = 8;
/// Linear memories that one component may have.
pub(crate) const MEMORIES: u32 = 4;
/// Elements that one table may have. A Python guest needs 5,676.
pub(crate) const TABLE_ELEMENTS: usize = 10_000;
/// Wasm stack of a call.
pub(crate) const STACK_BYTES: usize = 256 * KIB;
/// Guest log (standard error) kept per call.
pub(crate) const LOG_BYTES: usize = 8 * KIB;
/// Evidence notes kept per call.
pub(crate) const NOTE_BYTES: usize = 16 * KIB;
/// Guest time that `configure` may take.
pub(crate) const CONFIGURE_CPU: Duration = Duration::from_secs(10);

/// What one call of a component may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Guest time of one call: of one `next` for a provider.
    pub cpu: Duration,
    /// Guest time of a whole exchange; the same as `cpu` for the other kinds.
    pub cpu_total: Duration,
    /// Wall time after which a call ends whatever it is doing: a safety net, far beyond the guest time.
    pub wall: Duration,
    /// Bytes of linear memory, all memories together.
    pub memory: usize,
    /// Bytes that the host copies out of the guest, per host call or answer.
    pub copied: usize,
    /// Handles of resources.
    pub handles: usize,
    /// Host calls.
    pub host_calls: u32,
    /// Random bytes per request for some.
    pub random: u64,
}

// === impl Limits ===

impl Limits {
    /// What holds where nothing else is said.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Policy | Kind::Scanner | Kind::Hook | Kind::Predicate => Self {
                cpu: Duration::from_millis(20),
                cpu_total: Duration::from_millis(20),
                wall: Duration::from_secs(10),
                memory: 32 * MIB,
                copied: MIB,
                handles: 256,
                host_calls: 1_000,
                random: 4 * KIB as u64,
            },
            Kind::Provider => Self {
                cpu: Duration::from_millis(5),
                cpu_total: Duration::from_millis(200),
                wall: Duration::from_secs(10),
                memory: SLOT_BYTES,
                copied: 8 * MIB,
                handles: 1_024,
                host_calls: 10_000,
                random: 64 * KIB as u64,
            },
        }
    }

    /// The defaults of `kind`, changed to what the package's publisher declared, within what the gateway allows at all.
    #[must_use]
    pub fn declared(kind: Kind, declared: &Declared) -> Self {
        let mut limits = Self::of(kind);
        if let Some(bytes) = declared.memory_bytes {
            limits.memory = usize::try_from(bytes).unwrap_or(usize::MAX).min(SLOT_BYTES);
        }
        if let Some(ms) = declared.cpu_ms {
            let wanted = Duration::from_millis(u64::from(ms));
            match kind {
                Kind::Provider => limits.cpu_total = wanted.min(limits.cpu_total),
                Kind::Policy | Kind::Scanner | Kind::Hook | Kind::Predicate => {
                    limits.cpu = wanted.min(Duration::from_millis(50));
                    limits.cpu_total = limits.cpu;
                }
            }
        }
        limits
    }

    /// What `configure` may take: more time, the same memory.
    #[must_use]
    pub(crate) fn configuring(mut self) -> Self {
        self.cpu = CONFIGURE_CPU;
        self.cpu_total = CONFIGURE_CPU;
        self.wall = CONFIGURE_CPU * 6;
        self.copied = self.copied.max(SLOT_BYTES * 2);
        self
    }
}
