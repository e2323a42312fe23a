//! Time and randomness, passed in: a decision can be replayed only if nobody reads a clock behind its back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Wall clock, UTC.
    fn now(&self) -> OffsetDateTime;
    /// Monotonic time since some fixed point.
    fn monotonic(&self) -> Duration;
}

/// Where unpredictable bytes come from.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct SystemEntropy;

/// A clock that stands until it is advanced, for tests and replay.
#[derive(Debug)]
pub struct ManualClock {
    origin: OffsetDateTime,
    passed_nanos: AtomicU64,
}

// === impl SystemClock ===

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that stands at `origin`.
    pub fn new(origin: OffsetDateTime) -> Self {
        Self { origin, passed_nanos: AtomicU64::new(0) }
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.passed_nanos.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        self.origin + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.passed_nanos.load(Ordering::SeqCst))
    }
}

// === impl SystemEntropy ===

impl Entropy for SystemEntropy {
    #[expect(
        clippy::expect_used,
        reason = "without the operating system's generator no secret can be made: stop"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system's random generator works");
    }
}
