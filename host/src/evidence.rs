//! Evidence: what components were asked in calls and what they answered, kept so that every decision can be run again. Calls hand
//! over what they gathered and go on; one writer seals and stores it. A full queue drops evidence, never a call.

mod record;
mod replay;
mod seal;
mod trial;
mod vault;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::causes::Causes;
use crate::db::DbError;

pub use self::record::{Asked, Draft, Gathering, RecordHead, Recorded, RecordedAnswer, RecordedStep, Texts};
pub use self::replay::{Again, Sameness, replay};
pub use self::seal::SealError;
pub use self::trial::{CandidateTrial, Judged, TrialError};
pub use self::vault::{Vault, VaultError};

/// Calls that wait for the writer at most.
const WAITING: usize = 256;
/// How long to wait after the database failed.
const RETRY: Duration = Duration::from_millis(500);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is recorded, and how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceSettings {
    /// Whose decisions are recorded.
    pub record: Recording,
    /// A call with a longer body is not recorded.
    pub max_body_bytes: usize,
    /// How many days a record is kept.
    pub keep_days: u16,
}

/// Whose decisions are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recording {
    /// Nobody's.
    #[default]
    Off,
    /// Those on calls.
    Calls,
}

/// What became of the evidence of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes to the database.
    Kept,
    /// It is larger than what is kept.
    TooLarge,
    /// The writer has more to do than it can.
    Dropped,
}

/// Takes evidence from calls, and stores it.
pub struct Evidence {
    vault: Vault,
    sender: mpsc::Sender<Draft>,
    queue: Mutex<Option<mpsc::Receiver<Draft>>>,
}

/// Calls whose time is over, by tenant.
#[derive(Debug)]
pub struct Expiry {
    /// How many of each tenant.
    pub counts: Vec<(String, i64)>,
    before_ms: i64,
}

// === impl EvidenceSettings ===

impl Default for EvidenceSettings {
    fn default() -> Self {
        Self { record: Recording::Off, max_body_bytes: 1024 * 1024, keep_days: 30 }
    }
}

// === impl Recording ===

impl Recording {
    /// As written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Calls => "calls",
        }
    }
}

// === impl Fate ===

impl Fate {
    /// As it stands in audit rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::TooLarge => "too_large",
            Self::Dropped => "dropped",
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// Nothing is stored before [`Evidence::run`].
    pub fn new(vault: Vault) -> Arc<Self> {
        let (sender, queue) = mpsc::channel(WAITING);
        Arc::new(Self { vault, sender, queue: Mutex::new(Some(queue)) })
    }

    /// Takes a call over; never waits.
    pub fn keep(&self, draft: Draft) -> Fate {
        if draft.is_too_large() {
            return Fate::TooLarge;
        }
        match self.sender.try_send(draft) {
            Ok(()) => Fate::Kept,
            Err(_) => Fate::Dropped,
        }
    }

    /// Stores what calls hand over, until `shutdown` and until nothing waits any more.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut queue) = queue else { return };
        loop {
            let draft = tokio::select! {
                biased;
                draft = queue.recv() => draft,
                () = shutdown.cancelled() => break,
            };
            let Some(draft) = draft else { return };
            self.store(draft, &shutdown).await;
        }
        queue.close();
        while let Some(draft) = queue.recv().await {
            self.store(draft, &shutdown).await;
        }
    }

    /// What was recorded more than `keep_days` ago.
    pub async fn expired(&self, keep_days: u16) -> Result<Expiry, DbError> {
        let before_ms = self.vault.now_ms() - i64::from(keep_days) * DAY_MS;
        Ok(Expiry { counts: self.vault.db().evidence_counts(0, before_ms, None).await?, before_ms })
    }

    /// Deletes it, and the configurations that nothing refers to any more.
    pub async fn expire(&self, expiry: &Expiry) -> Result<u64, DbError> {
        let before = expiry.before_ms;
        self.vault.db().expire_evidence(before, before - vault::CONFIG_GRACE_MS).await
    }

    /// Stores one call. While the database is away the queue fills, and rows say that evidence is dropped; a record that cannot
    /// be stored at all, or not before the gateway ends, is lost and said in the log.
    async fn store(&self, draft: Draft, shutdown: &CancellationToken) {
        let recorded = draft.finish();
        loop {
            let error = match self.vault.keep(&recorded).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let again = matches!(&error, VaultError::Db(error) if !error.refuses_values());
            let trace = recorded.head.call.trace.as_ref();
            let waited = async {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => true,
                    () = shutdown.cancelled() => false,
                }
            };
            if !again || !waited.await {
                tracing::error!(trace.id = trace, "the evidence of a call is lost: {}", Causes(&error));
                return;
            }
        }
    }
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Evidence")
            .field("waiting", &(WAITING - self.sender.capacity()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
