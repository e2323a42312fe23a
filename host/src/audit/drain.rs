//! Consumers of the spool: each follows it at its own pace, hands rows to the database or a SIEM, and remembers its place.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::database::{AttachError, Attached, AuditDatabase, LOOK, OtherDatabase};
use super::reconcile::Approval;
use super::rows::Records;
use super::siem::Outlet;
use super::spool::WriterCommand;
use super::spool::cursor::{Batch, Cursor};
use super::spool::place::{DeliveryPlace, PlaceFile};
use super::spool::shared::Shared;
use super::{Durability, Event, Unavailable};
use crate::causes::Causes;
use crate::db::DbError;
use crate::db::audit::NewRow;

/// Why rows do not come through.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    #[error("the spool cannot be read")]
    Spool(#[source] io::Error),
    #[error("a record of the spool holds no rows that this version knows")]
    Record(#[source] serde_json::Error),
    #[error("row {0} of the spool is no object")]
    NoObject(u64),
    #[error("row {0} has a number that the table cannot hold")]
    Sequence(u64),
    #[error("the audit writer is down")]
    Writer(#[source] Unavailable),
    #[error("the database does not take audit rows")]
    Database(#[source] DbError),
    #[error(transparent)]
    Other(#[from] OtherDatabase),
    #[error("the database was changed by somebody else while rows went there")]
    Moved,
    #[error("the audit rows could not be exported")]
    Sink(#[source] io::Error),
    #[error("a background task ended early")]
    Task(#[source] tokio::task::JoinError),
}

/// Where the rows go.
pub(super) enum Target {
    Database(Box<AuditDatabase>),
    Siem(Outlet, PlaceFile),
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

/// The database is the first of all consumers.
pub(super) const DATABASE: usize = 0;
/// Rows are gathered for so long: the disk serves the intents first, and one commit is for many rows.
const GATHER: Duration = Duration::from_millis(100);
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
                        // The database is looked at even if nothing goes there.
                        () = tokio::time::sleep(LOOK), if self.index == DATABASE => continue,
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
        if self.index == DATABASE {
            match &result {
                Ok(_) => self.shared.set_other(None),
                Err(DrainError::Other(other)) => self.shared.set_other(Some(other.to_string())),
                // Whether it is another one is not known.
                Err(_) => {}
            }
        }
        result
    }

    /// The gateway ends: its name in the database is free again.
    pub(super) async fn release(&self) {
        if let Target::Database(database) = &mut self.inner.lock().await.target {
            database.release().await;
        }
    }

    async fn deliver_all(&self, inner: &mut Inner) -> Result<u64, DrainError> {
        self.ready(inner).await?;
        let end = self.shared.progress().borrow().written;
        let mut next = inner.cursor.as_ref().map_or(end, Cursor::next);
        if next < end {
            // What the database or a SIEM has, the spool must not lose: durable first, delivered then.
            self.durable(end).await?;
        }
        while next < end {
            let batch = match inner.pending.take() {
                Some(batch) => batch,
                None => self.read(&mut inner.cursor, end).await?,
            };
            match self.deliver(&mut inner.target, &batch).await {
                Ok(true) => {}
                // It was left differently: by this gateway, if an answer got lost, else by somebody else.
                Ok(false) => {
                    inner.pending = Some(batch);
                    let before = next;
                    self.ready(inner).await?;
                    next = inner.cursor.as_ref().map_or(end, Cursor::next);
                    if next == before {
                        return Err(DrainError::Moved);
                    }
                    continue;
                }
                Err(error) => {
                    inner.pending = Some(batch);
                    return Err(error);
                }
            }
            next = batch.end.first_sequence;
            inner.delivered(next)?;
            self.shared.consumed(self.index, next);
        }
        Ok(next)
    }

    /// Whether the database is the one that the spool knows; goes on where it says.
    async fn ready(&self, inner: &mut Inner) -> Result<(), DrainError> {
        let Target::Database(database) = &mut inner.target else { return Ok(()) };
        let Some(Attached { next, reconciled }) = database.ready().await? else { return Ok(()) };
        if let Some(row) = reconciled {
            self.say_reconciled(database.dir(), row).await?;
        }
        let cursor = inner.cursor.as_mut().ok_or_else(lost)?;
        if cursor.next() != next {
            cursor.seek(next);
            inner.pending = None;
            self.shared.consumed(self.index, next);
        }
        Ok(())
    }

    /// What somebody allowed and the gateway did is a row, and then the approval is used up.
    pub(super) async fn say_reconciled(&self, dir: &Path, row: Event) -> Result<(), DrainError> {
        let rows = Records::one(row, self.shared.record).map_err(DrainError::Writer)?.first;
        let (reply, answer) = oneshot::channel();
        self.shared.send(WriterCommand::Add { rows, reply });
        answer.await.unwrap_or(Err(Unavailable::Stopped)).map_err(DrainError::Writer)?;
        Approval::remove(dir);
        tracing::warn!("the audit trail goes on with this database: an operator approved it");
        Ok(())
    }

    /// What comes next: from memory where the writer's last records reach back so far, else from files, on the blocking pool. The
    /// cursor goes there and comes back.
    async fn read(&self, place: &mut Option<Cursor>, end: u64) -> Result<Batch, DrainError> {
        let mut cursor = place.take().ok_or_else(lost)?;
        if let Some(batch) = self.shared.recent.read(cursor.next(), end) {
            cursor.rest();
            *place = Some(cursor);
            return Ok(batch);
        }
        let (cursor, batch) = tokio::task::spawn_blocking(move || {
            let batch = cursor.read(end);
            (cursor, batch)
        })
        .await
        .map_err(DrainError::Task)?;
        *place = Some(cursor);
        batch.map_err(DrainError::Spool)
    }

    async fn durable(&self, end: u64) -> Result<(), DrainError> {
        let mut progress = self.shared.progress();
        if progress.borrow().synced >= end {
            return Ok(());
        }
        let mut health = self.shared.changes();
        self.shared.send(WriterCommand::Sync);
        tokio::select! {
            // The sender lives in `self.shared`: neither wait can fail.
            reached = progress.wait_for(|progress| progress.synced >= end) => drop(reached),
            _ = health.wait_for(|health| matches!(health, super::Health::Down(_)) && self.shared.writer_down()) => {
                return Err(DrainError::Writer(self.shared.down()));
            }
        }
        Ok(())
    }

    /// False if the database is not as it was left: nothing was written then.
    async fn deliver(&self, target: &mut Target, batch: &Batch) -> Result<bool, DrainError> {
        if batch.entries.is_empty() {
            return Ok(true);
        }
        match target {
            Target::Database(database) => database.deliver(batch, &rows(batch)?).await,
            Target::Siem(outlet, _) => {
                let lines = lines(batch, &self.replica)?;
                let outlet = outlet.clone();
                let written = tokio::task::spawn_blocking(move || outlet.write(&lines)).await;
                written.map_err(DrainError::Task)?.map_err(DrainError::Sink)?;
                Ok(true)
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Remembers the place here and now: going to another thread and back would take longer than the write.
    fn delivered(&mut self, next: u64) -> Result<(), DrainError> {
        self.cursor.as_mut().ok_or_else(lost)?.delivered(next);
        match &mut self.target {
            Target::Database(database) => database.remember(next),
            Target::Siem(_, place) => place.write(&DeliveryPlace { next, known: None }),
        }
        .map_err(DrainError::Spool)
    }
}

// === impl DrainError ===

impl From<AttachError> for DrainError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Spool(error) => Self::Spool(error),
            AttachError::Database(error) => Self::Database(error),
            AttachError::Other(other) => Self::Other(other),
        }
    }
}

fn lost() -> DrainError {
    DrainError::Spool(io::Error::other("the cursor is lost"))
}

/// The rows of a batch, with their numbers.
pub(super) fn rows(batch: &Batch) -> Result<Vec<NewRow>, DrainError> {
    let mut all = Vec::new();
    for entry in &batch.entries {
        let first = i64::try_from(entry.first_row).map_err(|_| DrainError::Sequence(entry.first_row))?;
        NewRow::read(&entry.body, first, &mut all).map_err(DrainError::Record)?;
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
            let row = escaped(row.get());
            let fields = row.strip_suffix('}').ok_or(DrainError::NoObject(sequence))?;
            writeln!(out, "{fields},\"replica\":{replica},\"sequence\":{sequence}}}")
                .map_err(DrainError::Sink)?;
        }
    }
    Ok(out)
}

/// JSON with every control character written as an escape. The writer of JSON leaves those behind ASCII as they are, and some
/// terminals obey them, whoever chose the text.
fn escaped(json: &str) -> Cow<'_, str> {
    // Behind ASCII they begin with the byte 0xc2.
    if memchr::memchr2(0x7f, 0xc2, json.as_bytes()).is_none() {
        return Cow::Borrowed(json);
    }
    let is_control = |char: char| matches!(char, '\u{7f}'..='\u{9f}');
    let mut out = String::with_capacity(json.len() + 64);
    for char in json.chars() {
        if is_control(char) {
            out.push_str("\\u00");
            out.extend([4, 0].iter().filter_map(|shift| char::from_digit(u32::from(char) >> shift & 15, 16)));
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}
