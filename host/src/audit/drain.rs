//! Consumers of the spool: each follows it at its own pace, hands rows to the database or a SIEM, and remembers its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::siem::Outlet;
use super::spool::Command;
use super::spool::cursor::{Batch, Cursor};
use super::spool::shared::Shared;
use super::{Durability, Unavailable};
use crate::db::audit::NewRow;
use crate::db::{Db, DbError};

/// Why rows do not come through.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    #[error("the spool cannot be read")]
    Spool(#[source] io::Error),
    #[error("a record of the spool holds no rows that this version knows")]
    Record(#[source] serde_json::Error),
    #[error("the audit writer is down")]
    Writer(#[source] Unavailable),
    #[error("the database does not take audit rows")]
    Database(#[source] DbError),
    #[error(
        "row {sequence} of replica {replica} in the database is not the one in the spool: two gateways use this name"
    )]
    Foreign { replica: String, sequence: i64 },
    #[error("the audit rows could not be exported")]
    Sink(#[source] io::Error),
    #[error("a background task ended early")]
    Task(#[source] tokio::task::JoinError),
}

/// Where the rows go.
pub(super) enum Target {
    Database(Db),
    Siem(Outlet),
}

/// One consumer.
pub(super) struct Consumer {
    index: usize,
    name: String,
    replica: String,
    shared: Arc<Shared>,
    hurry: Arc<Notify>,
    inner: Mutex<Inner>,
}

struct Inner {
    cursor: Option<Cursor>,
    target: Target,
    /// Read, but not delivered yet.
    pending: Option<Batch>,
}

/// Rows are gathered for so long, so that the disk serves the intents first.
const GATHER: Duration = Duration::from_millis(25);
/// After a failure the next try comes after this; it doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

// === impl Consumer ===

impl Consumer {
    pub(super) fn new(
        index: usize,
        name: String,
        replica: String,
        shared: Arc<Shared>,
        hurry: Arc<Notify>,
        cursor: Cursor,
        target: Target,
    ) -> Self {
        let inner = Mutex::new(Inner { cursor: Some(cursor), target, pending: None });
        Self { index, name, replica, shared, hurry, inner }
    }

    /// Follows the spool until shutdown.
    pub(super) async fn run(&self, shutdown: CancellationToken) {
        let mut progress = self.shared.progress();
        let mut pause = FIRST_PAUSE;
        while !shutdown.is_cancelled() {
            match self.catch_up().await {
                Ok(next) => {
                    pause = FIRST_PAUSE;
                    tokio::select! {
                        changed = progress.wait_for(|progress| progress.written > next) => if changed.is_err() { return },
                        () = shutdown.cancelled() => return,
                    }
                    if self.shared.durability == Durability::Spool {
                        tokio::select! {
                            () = tokio::time::sleep(GATHER) => {}
                            () = self.hurry.notified() => {}
                            () = shutdown.cancelled() => return,
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(consumer = self.name, error = %Causes(&error), "audit rows wait in the spool");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.hurry.notified() => {}
                        () = shutdown.cancelled() => return,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Delivers everything that was recorded before now. Returns the next sequence it needs.
    pub(super) async fn catch_up(&self) -> Result<u64, DrainError> {
        let mut inner = self.inner.lock().await;
        let result = self.deliver_all(&mut inner).await;
        self.shared.set_trouble(self.index, result.as_ref().err().map(|error| Causes(error).to_string()));
        result
    }

    async fn deliver_all(&self, inner: &mut Inner) -> Result<u64, DrainError> {
        let end = self.shared.progress().borrow().written;
        let mut next = inner.cursor.as_ref().map_or(end, Cursor::next);
        if next < end {
            // What the database or a SIEM has, the spool must not lose: durable first, delivered then.
            self.durable(end).await?;
        }
        while next < end {
            let batch = match inner.pending.take() {
                Some(batch) => batch,
                None => read(&mut inner.cursor, end).await?,
            };
            let delivered = self.deliver(&mut inner.target, &batch).await;
            if let Err(error) = delivered {
                inner.pending = Some(batch);
                return Err(error);
            }
            next = batch.next;
            remember(&mut inner.cursor, next)?;
            self.shared.consumed(self.index, next);
        }
        Ok(next)
    }

    async fn durable(&self, end: u64) -> Result<(), DrainError> {
        let mut progress = self.shared.progress();
        if progress.borrow().synced >= end {
            return Ok(());
        }
        let mut health = self.shared.changes();
        self.shared.send(Command::Sync);
        tokio::select! {
            // The sender lives in `self.shared`: neither wait can fail.
            reached = progress.wait_for(|progress| progress.synced >= end) => drop(reached),
            _ = health.wait_for(|health| matches!(health, super::Health::Down(_)) && self.shared.writer_down()) => {
                return Err(DrainError::Writer(self.shared.down()));
            }
        }
        Ok(())
    }

    async fn deliver(&self, target: &mut Target, batch: &Batch) -> Result<(), DrainError> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        match target {
            Target::Database(db) => store(db, &self.replica, &rows(batch)?).await,
            Target::Siem(outlet) => {
                let lines = lines(batch, &self.replica)?;
                let outlet = outlet.clone();
                let written = tokio::task::spawn_blocking(move || outlet.write(&lines)).await;
                written.map_err(DrainError::Task)?.map_err(DrainError::Sink)
            }
        }
    }
}

/// Reads on the blocking pool; the cursor goes there and comes back.
async fn read(place: &mut Option<Cursor>, end: u64) -> Result<Batch, DrainError> {
    let Some(mut cursor) = place.take() else {
        return Err(DrainError::Spool(io::Error::other("the cursor is lost")));
    };
    let (cursor, batch) = tokio::task::spawn_blocking(move || {
        let batch = cursor.read(end);
        (cursor, batch)
    })
    .await
    .map_err(DrainError::Task)?;
    *place = Some(cursor);
    batch.map_err(DrainError::Spool)
}

/// Remembers the place here and now: going to another thread and back would take longer than the write.
fn remember(place: &mut Option<Cursor>, next: u64) -> Result<(), DrainError> {
    let cursor = place.as_mut().ok_or_else(|| DrainError::Spool(io::Error::other("the cursor is lost")))?;
    cursor.delivered(next).map_err(DrainError::Spool)
}

fn rows(batch: &Batch) -> Result<Vec<NewRow>, DrainError> {
    let mut all = Vec::new();
    for entry in &batch.entries {
        let rows: Vec<NewRow> = serde_json::from_slice(&entry.body).map_err(DrainError::Record)?;
        for (row, sequence) in rows.into_iter().zip(entry.first_row..) {
            all.push(NewRow { sequence: i64::try_from(sequence).unwrap_or(i64::MAX), ..row });
        }
    }
    Ok(all)
}

/// Each row as a line of JSON with the table's column names.
fn lines(batch: &Batch, replica: &str) -> Result<Vec<u8>, DrainError> {
    let replica = serde_json::to_string(replica).map_err(DrainError::Record)?;
    let mut out = Vec::new();
    for entry in &batch.entries {
        let rows: Vec<&RawValue> = serde_json::from_slice(&entry.body).map_err(DrainError::Record)?;
        for (row, sequence) in rows.into_iter().zip(entry.first_row..) {
            let fields = row.get().strip_suffix('}').unwrap_or_default();
            out.extend_from_slice(
                format!("{fields},\"replica\":{replica},\"sequence\":{sequence}}}\n").as_bytes(),
            );
        }
    }
    Ok(out)
}

async fn store(db: &Db, replica: &str, rows: &[NewRow]) -> Result<(), DrainError> {
    // A record may bring many rows; a statement has room for so many values.
    for part in rows.chunks(500) {
        let new = match db.audit_insert(replica, part).await {
            Ok(new) => new,
            Err(error) if error.refuses_values() => {
                store_singly(db, replica, part).await?;
                continue;
            }
            Err(error) => return Err(DrainError::Database(error)),
        };
        if new < part.len() as u64 {
            same(db, replica, part).await?;
        }
    }
    Ok(())
}

/// One row that the database refuses must not keep all behind it in the spool: it goes in without its payload.
async fn store_singly(db: &Db, replica: &str, rows: &[NewRow]) -> Result<(), DrainError> {
    for row in rows {
        match db.audit_insert(replica, std::slice::from_ref(row)).await {
            Ok(_) => {}
            Err(error) if error.refuses_values() => {
                tracing::error!(row = row.sequence, error = %Causes(&error), "the database refuses an audit payload");
                let payload =
                    RawValue::from_string(r#"{"code":"payload_refused","truncated":true}"#.to_owned());
                let bare = NewRow { payload: payload.map_err(DrainError::Record)?, ..row.clone() };
                db.audit_insert(replica, &[bare]).await.map_err(DrainError::Database)?;
            }
            Err(error) => return Err(DrainError::Database(error)),
        }
    }
    Ok(())
}

/// Rows that were there already must be these rows, delivered before a crash; anything else is another gateway's.
async fn same(db: &Db, replica: &str, rows: &[NewRow]) -> Result<(), DrainError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let stamps =
        db.audit_stamps(replica, first.sequence, last.sequence).await.map_err(DrainError::Database)?;
    for (row, stamp) in rows.iter().zip(stamps) {
        let same = row.sequence == stamp.sequence && row.trace_id == stamp.trace_id && row.kind == stamp.kind;
        if !same || row.occurred_at != stamp.occurred_at {
            return Err(DrainError::Foreign { replica: replica.to_owned(), sequence: row.sequence });
        }
    }
    Ok(())
}

/// An error with its causes in one line.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
