//! What authentication does by itself: looks for what other processes revoked, and writes when tokens were last used.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Auth;
use crate::db::DbError;

/// How often other processes' changes are looked for.
const POLL: Duration = Duration::from_secs(1);
/// How often the times of last use are written.
const FLUSH: Duration = Duration::from_secs(10);

/// Whether the database does something now. Said when that changes, not every time.
struct Outage {
    lasts: bool,
    begins: &'static str,
    ends: &'static str,
}

// === impl Auth ===

impl Auth {
    /// Runs until `shutdown`. Neither waits for the other: a database that takes no writes still says what was revoked.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::join!(self.keep_refreshing(&shutdown), self.keep_flushing(&shutdown));
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "the last uses of personal access tokens were not written");
        }
    }

    async fn keep_refreshing(&self, shutdown: &CancellationToken) {
        let mut outage = Outage {
            lasts: false,
            begins: "revocations made elsewhere take no effect until the database answers",
            ends: "revocations are read again",
        };
        let mut ticks = ticks(POLL);
        while next(&mut ticks, shutdown).await {
            outage.note(self.refresh().await.map(drop));
        }
    }

    async fn keep_flushing(&self, shutdown: &CancellationToken) {
        let mut outage = Outage {
            lasts: false,
            begins: "the last uses of personal access tokens are kept in memory until the database takes writes",
            ends: "the last uses of personal access tokens are written again",
        };
        let mut ticks = ticks(FLUSH);
        while next(&mut ticks, shutdown).await {
            outage.note(self.flush().await);
        }
    }
}

// === impl Outage ===

impl Outage {
    fn note(&mut self, outcome: Result<(), DbError>) {
        let failed = outcome.is_err();
        match outcome {
            Ok(()) if self.lasts => tracing::info!("{}", self.ends),
            Err(error) if !self.lasts => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "{}", self.begins);
            }
            _ => {}
        }
        self.lasts = failed;
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next tick; false at `shutdown`.
async fn next(ticks: &mut Interval, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        _ = ticks.tick() => true,
    }
}
