//! A row that is open: from the intent to the outcome. Whatever happens in between, one closing record is written.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use super::rows::{self, Records};
use super::spool::WriterCommand;
use super::spool::shared::Shared;
use super::{Durability, Event, Intent, Unavailable};

/// An intent on its way to the disk; the answer comes when it is durable. It is under way at once, so that other work can be
/// done meanwhile. Dropped, it closes the row as interrupted.
#[must_use = "nothing may go upstream before the intent is durable"]
pub struct Opening(OpeningStep);

enum OpeningStep {
    Refused(Option<Unavailable>),
    Waiting(oneshot::Receiver<Result<OpenRow, Unavailable>>),
}

/// An open row. Dropped unclosed, it is recorded as interrupted.
#[must_use = "a row that is dropped is recorded as interrupted"]
pub struct OpenRow {
    shared: Arc<Shared>,
    call: u64,
    /// The body of its record, for as long as the row is open.
    intent: Option<Arc<[u8]>>,
}

/// In durability `strict` a row waits so long for the database.
const COMMIT: Duration = Duration::from_secs(10);

// === impl Opening ===

impl Opening {
    pub(super) fn new(shared: &Shared, intent: &Intent) -> Self {
        if let Err(unavailable) = shared.admit() {
            return Self(OpeningStep::Refused(Some(unavailable)));
        }
        let body: Arc<[u8]> = match rows::intent(intent) {
            Ok(body) => body.into(),
            Err(unavailable) => return Self(OpeningStep::Refused(Some(unavailable))),
        };
        let (reply, answer) = oneshot::channel();
        shared.send(WriterCommand::Open { body, reply });
        Self(OpeningStep::Waiting(answer))
    }
}

impl Future for Opening {
    type Output = Result<OpenRow, Unavailable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            OpeningStep::Refused(unavailable) => {
                Poll::Ready(Err(unavailable.take().unwrap_or(Unavailable::Stopped)))
            }
            OpeningStep::Waiting(answer) => {
                // No answer: the writer is gone.
                let answer = ready!(Pin::new(answer).poll(context));
                Poll::Ready(answer.unwrap_or(Err(Unavailable::Stopped)))
            }
        }
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opening").finish_non_exhaustive()
    }
}

// === impl OpenRow ===

impl OpenRow {
    pub(super) fn new(shared: Arc<Shared>, call: u64, intent: Arc<[u8]>) -> Self {
        Self { shared, call, intent: Some(intent) }
    }

    /// Records the outcome: all rows in this order, in as many records as they need. Resolves when all of them outlive this process,
    /// in durability `strict` when the database has them. Once this was polled, they are written even if nobody waits.
    pub async fn close(mut self, rows: Vec<Event>) -> Result<(), Unavailable> {
        if rows.is_empty() {
            // A call without an outcome is an interrupted one: the drop says so.
            return Ok(());
        }
        // A row that has no form leaves the call interrupted.
        let records = Records::new(rows, self.shared.record)?;
        self.intent = None;
        let sequence = self.shared.close(self.call, records).await?;
        settled(&self.shared, sequence).await
    }
}

impl Drop for OpenRow {
    fn drop(&mut self) {
        if let Some(intent) = self.intent.take() {
            let Some(intent) = Intent::parse(&intent) else {
                tracing::error!("an interrupted call is closed at the next start");
                return;
            };
            match Records::one(intent.interrupted(self.shared.clock.now()), self.shared.record) {
                // Without a writer the next start finds the intent without outcome and says the same.
                Ok(rows) => {
                    self.shared.send(WriterCommand::Close { call: self.call, rows, reply: None });
                }
                Err(error) => {
                    tracing::error!(error = %error, "an interrupted call is closed at the next start");
                }
            }
        }
    }
}

impl std::fmt::Debug for OpenRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OpenRow").field("call", &self.call).finish_non_exhaustive()
    }
}

/// Waits for what the durability asks besides the spool.
pub(super) async fn settled(shared: &Shared, sequence: u64) -> Result<(), Unavailable> {
    if shared.durability == Durability::Strict {
        tokio::time::timeout(COMMIT, shared.committed(sequence)).await.map_err(|_| Unavailable::Database)?;
    }
    Ok(())
}
