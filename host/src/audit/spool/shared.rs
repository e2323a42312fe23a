//! What the writer, the open rows and the consumers share: the way to the writer, how far everyone is, and what is wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::recent::Recent;
use super::{Writer, WriterCommand};
use crate::audit::rows::Records;
use crate::audit::{AuditSettings, Durability, Health, Unavailable};
use crate::clock::Clock;

/// How far the writer is: sequences that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything before is in the file.
    pub(crate) written: u64,
    /// Everything before is durable.
    pub(crate) synced: u64,
}

/// State of the spool that the writer, open rows and consumers share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    /// Most bytes of a record.
    pub(crate) record: u64,
    max_age: Duration,
    commands: Sender<WriterCommand>,
    /// The writer, for as long as its thread runs.
    at_work: OnceLock<Weak<Mutex<Writer>>>,
    progress: watch::Sender<Progress>,
    /// What the writer wrote last.
    pub(crate) recent: Recent,
    /// The next sequence that each consumer needs; the database is the first.
    consumers: Vec<AtomicU64>,
    /// Where the oldest full segment ends: nothing can be let go of before all consumers are there.
    oldest_end: AtomicU64,
    /// The next sequence that the database lacks.
    committed: watch::Sender<u64>,
    state: Mutex<SpoolState>,
    changed: watch::Sender<Health>,
}

/// An outcome waits so long for room in the spool.
const ROOM: Duration = Duration::from_secs(10);

#[derive(Default)]
struct SpoolState {
    writer: Option<String>,
    full: Option<String>,
    broken: Option<String>,
    /// Why the database is not the one that the trail was delivered to.
    other: Option<String>,
    stopped: bool,
    /// Since when a consumer fails, and why.
    troubles: Vec<Option<(Duration, String)>>,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        settings: &AuditSettings,
        record: u64,
        commands: Sender<WriterCommand>,
        consumers: &[u64],
        next: u64,
        broken: Option<String>,
    ) -> Self {
        let state = SpoolState { broken, troubles: vec![None; consumers.len()], ..SpoolState::default() };
        Self {
            clock,
            durability: settings.durability,
            record,
            max_age: settings.max_age,
            commands,
            at_work: OnceLock::new(),
            progress: watch::Sender::new(Progress { written: next, synced: next }),
            recent: Recent::default(),
            consumers: consumers.iter().copied().map(AtomicU64::new).collect(),
            oldest_end: AtomicU64::new(u64::MAX),
            committed: watch::Sender::new(consumers.first().copied().unwrap_or(next)),
            changed: watch::Sender::new(state.health()),
            state: Mutex::new(state),
        }
    }

    /// Asks the writer; false if it is gone.
    pub(crate) fn send(&self, command: WriterCommand) -> bool {
        self.commands.send(command).is_ok()
    }

    /// The writer has begun its work: it may be borrowed from now on.
    pub(crate) fn lend(&self, writer: &Arc<Mutex<Writer>>) {
        // There is one writer in the life of a spool.
        drop(self.at_work.set(Arc::downgrade(writer)));
    }

    /// Records the outcome of a call; its sequence once it is in the file. Once this was polled, it is recorded even if nobody
    /// waits.
    pub(crate) async fn close(&self, call: u64, rows: Records) -> Result<u64, Unavailable> {
        let rows = match self.close_at_once(call, rows) {
            Ok(closed) => return closed,
            Err(rows) => rows,
        };
        let (reply, answer) = oneshot::channel();
        self.send(WriterCommand::Close { call, rows, reply: Some(reply) });
        // Rows for which there is no room are written once there is some; whoever waits for them must be told something before.
        let answer = tokio::time::timeout(ROOM, answer).await.map_err(|_| Unavailable::Full)?;
        answer.unwrap_or(Err(Unavailable::Stopped))
    }

    /// The same without another thread, where nobody else is writing.
    fn close_at_once(&self, call: u64, rows: Records) -> Result<Result<u64, Unavailable>, Records> {
        let Some(writer) = self.at_work.get().and_then(Weak::upgrade) else { return Err(rows) };
        match writer.try_lock() {
            Ok(mut writer) => writer.close_at_once(call, rows),
            Err(_) => Err(rows),
        }
    }

    /// Whether a call may begin.
    pub(crate) fn admit(&self) -> Result<(), Unavailable> {
        let now = self.clock.monotonic();
        let state = self.lock();
        if state.stopped {
            return Err(Unavailable::Stopped);
        }
        if let Some(reason) = &state.writer {
            return Err(Unavailable::Down(reason.clone()));
        }
        if let Some(reason) = &state.other {
            return Err(Unavailable::OtherDatabase(reason.clone()));
        }
        match state.troubles.first() {
            Some(Some(_)) if self.durability == Durability::Strict => Err(Unavailable::Database),
            Some(Some((since, _))) if now.saturating_sub(*since) > self.max_age => Err(Unavailable::Database),
            _ => Ok(()),
        }
    }

    /// Why the writer is down.
    pub(crate) fn down(&self) -> Unavailable {
        let reason = self.lock().writer.clone();
        Unavailable::Down(reason.unwrap_or_else(|| "the segment is full".to_owned()))
    }

    pub(crate) fn writer_down(&self) -> bool {
        self.lock().writer.is_some()
    }

    pub(crate) fn set_writer(&self, reason: Option<String>) {
        self.update(|state| state.writer = reason);
    }

    pub(crate) fn set_full(&self, reason: Option<String>) {
        if self.lock().full != reason {
            self.update(|state| state.full = reason);
        }
    }

    /// The database is not the one that the trail was delivered to, or is again.
    pub(crate) fn set_other(&self, reason: Option<String>) {
        if self.lock().other == reason {
            return;
        }
        if let Some(reason) = &reason {
            tracing::error!("calls are refused: {}", Unavailable::OtherDatabase(reason.clone()));
        } else {
            tracing::info!("the database is the one that the audit trail goes to");
        }
        self.update(|state| state.other = reason);
    }

    /// Why the database is not the one that the trail was delivered to.
    pub(crate) fn other(&self) -> Option<String> {
        self.lock().other.clone()
    }

    /// From now on every call is refused.
    pub(crate) fn stop(&self) {
        self.update(|state| state.stopped = true);
    }

    /// A consumer failed, or works again.
    pub(crate) fn set_trouble(&self, consumer: usize, reason: Option<String>) {
        let now = self.clock.monotonic();
        self.update(|state| {
            if let Some(trouble) = state.troubles.get_mut(consumer) {
                let since = trouble.as_ref().map_or(now, |(since, _)| *since);
                *trouble = reason.map(|reason| (since, reason));
            }
        });
    }

    pub(crate) fn health(&self) -> Health {
        if let Err(unavailable) = self.admit() {
            return Health::Down(unavailable.to_string());
        }
        self.lock().health()
    }

    /// The health whenever it changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Health> {
        self.changed.subscribe()
    }

    pub(crate) fn publish(&self, progress: Progress) {
        self.progress.send_if_modified(|current| std::mem::replace(current, progress) != progress);
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A consumer has everything before `next`.
    pub(crate) fn consumed(&self, consumer: usize, next: u64) {
        if let Some(place) = self.consumers.get(consumer) {
            place.store(next, Ordering::Release);
        }
        if consumer == 0 {
            self.committed.send_replace(next);
        }
        let needed = self.slowest();
        self.recent.release(needed);
        // The writer's thread is woken only for what it can do.
        if needed >= self.oldest_end.load(Ordering::Acquire) {
            self.send(WriterCommand::Release);
        }
    }

    /// Where the oldest full segment ends, if there is one.
    pub(crate) fn set_oldest_end(&self, end: Option<u64>) {
        self.oldest_end.store(end.unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The next sequence that some consumer needs.
    pub(crate) fn slowest(&self) -> u64 {
        self.consumers.iter().map(|next| next.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// Waits until the database has the record.
    pub(crate) async fn committed(&self, sequence: u64) {
        let mut committed = self.committed.subscribe();
        // The sender lives in `self`: this cannot fail while we wait.
        drop(committed.wait_for(|next| *next > sequence).await);
    }

    fn update(&self, change: impl FnOnce(&mut SpoolState)) {
        let health = {
            let mut state = self.lock();
            change(&mut state);
            state.health()
        };
        self.changed.send_if_modified(|current| {
            let modified = *current != health;
            *current = health;
            modified
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SpoolState> {
        // No code panics while it holds the lock; a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SpoolState ===

impl SpoolState {
    fn health(&self) -> Health {
        if let Some(reason) = &self.writer {
            return Health::Down(reason.clone());
        }
        if let Some(reason) = &self.full {
            return Health::Down(reason.clone());
        }
        if let Some(reason) = &self.other {
            return Health::Down(Unavailable::OtherDatabase(reason.clone()).to_string());
        }
        if let Some((_, reason)) = self.troubles.iter().flatten().next() {
            return Health::Degraded(reason.clone());
        }
        match &self.broken {
            Some(reason) => Health::Degraded(format!("the spool was broken: {reason}")),
            None => Health::Ok,
        }
    }
}
