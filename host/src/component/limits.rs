//! How much a guest may take, per kind: defaults that hold for every component, and the ceilings that nobody exceeds.

use std::time::Duration;

use super::inspect;
use crate::limits::Limit;
use sallyport_protocol::package::{Kind, Limits as Declared};
use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The largest linear memory that the pool has room for. It is address space, and costs nothing until a guest fills it.
pub(crate) const SLOT_BYTES: usize = 320 * MIB;
/// The most memory that a package's statement may ask for, before what its call hands over.
pub(crate) const DECLARED_BYTES: usize = 64 * MIB;
/// The step in which limits grow with what a guest is handed: less than this changes nothing.
pub(crate) const STEP_BYTES: usize = 16 * KIB;
/// Guest time for each mebibyte that a guest is handed.
pub(crate) const CPU_PER_MIB: Duration = Duration::from_millis(100);
/// Wall time for each mebibyte that a guest is handed.
pub(crate) const WALL_PER_MIB: Duration = Duration::from_secs(1);
/// Guest time of the whole exchange that each input of a provider adds: streams of many small pieces are ordinary.
pub(crate) const CPU_PER_INPUT: Duration = Duration::from_micros(100);
/// Bytes of memory for each byte that a guest is handed: it holds the bytes, what it made of them, and lists of both.
pub(crate) const MEMORY_PER_BYTE: usize = 6;
/// Bytes that may be copied out of a guest for each byte that it was handed.
pub(crate) const COPIED_PER_BYTE: usize = 3;
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

/// The limits of components, for the table of all limits.
pub(super) fn table() -> Vec<Limit> {
    const PART: &str = "component";
    const DENIED: &str = "a policy or scanner denies (451), a hook fails by its setting, a provider is a 502; 413 where the body is large";
    let (judge, provider) = (Limits::of(Kind::Policy), Limits::of(Kind::Provider));
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    vec![
        Limit::time(PART, "guest time of a policy, scanner, hook or predicate", judge.cpu, DENIED),
        Limit::time(PART, "guest time of one step of a provider", provider.cpu, DENIED),
        Limit::time(PART, "guest time of an exchange of a provider", provider.cpu_total, DENIED),
        Limit::time(PART, "more guest time for each MiB handed over", CPU_PER_MIB, DENIED),
        Limit::time(PART, "more guest time of an exchange for each input", CPU_PER_INPUT, DENIED),
        Limit::time(PART, "wall time of a call", judge.wall, DENIED),
        Limit::time(PART, "more wall time for each MiB handed over", WALL_PER_MIB, DENIED),
        Limit::time(PART, "guest time of `configure`", CONFIGURE_CPU, "it is not admitted"),
        Limit::bytes(PART, "memory of a policy, scanner, hook or predicate", judge.memory, DENIED),
        Limit::bytes(PART, "memory of a provider", provider.memory, DENIED),
        Limit::bytes(PART, "more memory for each byte handed over", MEMORY_PER_BYTE, DENIED),
        Limit::bytes(PART, "memory in all", SLOT_BYTES, DENIED),
        Limit::bytes(PART, "memory that a statement may ask for", DECLARED_BYTES, "it gets this much"),
        Limit::bytes(
            PART,
            "copied out of a policy, scanner, hook or predicate at once",
            judge.copied,
            DENIED,
        ),
        Limit::bytes(PART, "copied out of a provider at once", provider.copied, DENIED),
        Limit::bytes(PART, "more that is copied for each byte handed over", COPIED_PER_BYTE, DENIED),
        Limit::count(
            PART,
            "host calls of a policy, scanner, hook or predicate",
            judge.host_calls.into(),
            DENIED,
        ),
        Limit::count(PART, "host calls of a provider", provider.host_calls.into(), DENIED),
        Limit::count(PART, "handles of a policy, scanner, hook or predicate", count(judge.handles), DENIED),
        Limit::count(PART, "handles of a provider", count(provider.handles), DENIED),
        Limit::bytes(PART, "stack", STACK_BYTES, DENIED),
        Limit::count(PART, "elements of a table", count(TABLE_ELEMENTS), DENIED),
        Limit::bytes(PART, "log of a call", LOG_BYTES, "the rest is dropped"),
        Limit::bytes(PART, "notes of a call", NOTE_BYTES, "the rest is dropped, and the row says how many"),
        Limit::bytes(PART, "a package's component", inspect::MAX_BYTES, "it is not admitted"),
    ]
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
                memory: 128 * MIB,
                copied: 32 * MIB,
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
            let most = limits.memory.max(DECLARED_BYTES);
            limits.memory = usize::try_from(bytes).unwrap_or(usize::MAX).min(most);
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

    /// The same for a call that hands `bytes` over: time, memory and copies grow with them, in steps. Who is given more to
    /// read needs longer, and is no worse for it.
    #[must_use]
    pub fn handed(mut self, bytes: usize) -> Self {
        let steps = bytes / STEP_BYTES;
        if steps == 0 {
            return self;
        }
        let cpu = grown(CPU_PER_MIB, steps);
        self.cpu = self.cpu.saturating_add(cpu);
        self.cpu_total = self.cpu_total.saturating_add(cpu);
        self.wall = self.wall.saturating_add(grown(WALL_PER_MIB, steps));
        let bytes = steps.saturating_mul(STEP_BYTES);
        self.memory = self.memory.saturating_add(bytes.saturating_mul(MEMORY_PER_BYTE)).min(SLOT_BYTES);
        self.copied = self.copied.saturating_add(bytes.saturating_mul(COPIED_PER_BYTE));
        self
    }

    /// What inputs of these sizes, handed over at once, may take: guest time for themselves, and what they add to that of the exchange.
    #[must_use]
    pub(crate) fn inputs(&self, sizes: impl Iterator<Item = usize>) -> (Duration, Duration) {
        let (mut this, mut more) = (self.cpu, Duration::ZERO);
        for (at, bytes) in sizes.enumerate() {
            let grown = grown(CPU_PER_MIB, bytes / STEP_BYTES);
            // Pieces too small for a step of their own still count in sum.
            let exact = grown.max(CPU_PER_MIB.mul_f64(fraction(bytes)));
            let also = if at == 0 { grown } else { CPU_PER_INPUT.saturating_add(exact) };
            this = this.saturating_add(also);
            more = more.saturating_add(CPU_PER_INPUT).saturating_add(exact);
        }
        (this, more)
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

// === private helpers ===

/// `rate` for each mebibyte, for so many steps.
fn grown(rate: Duration, steps: usize) -> Duration {
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    let per_mib = u32::try_from(MIB / STEP_BYTES).unwrap_or(1);
    rate.saturating_mul(steps) / per_mib
}

/// How much of a mebibyte `bytes` are.
fn fraction(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / f64::from(1_u32 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_what_a_guest_is_handed_and_small_calls_are_as_they_were() {
        let base = Limits::of(Kind::Policy);
        assert_eq!(base.handed(STEP_BYTES - 1), base);
        let eight = base.handed(8 * MIB);
        assert_eq!(eight.cpu, Duration::from_millis(820));
        assert_eq!(eight.cpu_total, Duration::from_millis(820));
        assert_eq!(eight.wall, Duration::from_secs(18));
        assert_eq!(eight.memory, 80 * MIB);
        assert_eq!(eight.copied, 25 * MIB);
        assert_eq!(base.handed(usize::MAX).memory, SLOT_BYTES, "no more than the pool has room for");
    }

    #[test]
    fn a_body_of_the_usual_limit_fits_the_memory_of_every_kind() {
        for kind in [Kind::Policy, Kind::Provider] {
            let limits = Limits::of(kind).handed(32 * MIB);
            assert!(limits.memory >= 5 * 32 * MIB, "{kind:?}: {}", limits.memory);
        }
    }

    #[test]
    fn a_hundred_thousand_small_pieces_add_up_to_the_time_they_need() {
        let limits = Limits::of(Kind::Provider);
        let (one, more) = limits.inputs([200].into_iter());
        assert_eq!(one, limits.cpu, "a small piece has the time that it always had");
        assert!(more * 100_000 > Duration::from_secs(10), "{more:?}");
        let (many, more_at_once) = limits.inputs(std::iter::repeat_n(200, 1_000));
        assert_eq!(more_at_once, more * 1_000, "handed over at once they add as much");
        assert_eq!(many, limits.cpu + more * 999, "and are given it now");
    }
}
