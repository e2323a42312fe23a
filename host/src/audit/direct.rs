//! Rows that go straight to the table: changes made on the command line, which has no spool of its own. They carry a replica
//! name of their own, so that their numbers have no gap either.

use super::Unavailable;
use super::event::Event;
use super::rows::Records;
use crate::db::audit::NewRow;
use crate::db::{Db, DbError};

/// The replica name of the command line's rows.
pub const COMMAND_LINE: &str = "command-line";
/// Most bytes of such a row.
const LARGEST: u64 = 64 * 1024;
/// Two commands at once may want the same number; one of them takes the next.
const TRIES: u32 = 100;

/// Why a change has no row.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The database failed.
    #[error("the audit row could not be written")]
    Database(#[from] DbError),
    /// The row has no place in the table.
    #[error("the audit row could not be made")]
    Row(#[from] Unavailable),
    /// The row does not read as what was written.
    #[error("the audit row could not be read back")]
    Read(#[from] serde_json::Error),
    /// Others were faster every time.
    #[error("the audit row found no number")]
    Crowded,
}

/// Records one row.
pub async fn record_directly(db: &Db, event: Event) -> Result<(), DirectError> {
    let mut rows = Vec::new();
    NewRow::read(&Records::one(event, LARGEST)?.first.body, 0, &mut rows)?;
    for _ in 0..TRIES {
        let next = db.audit_last(COMMAND_LINE).await?.unwrap_or(0) + 1;
        for row in &mut rows {
            row.sequence = next;
        }
        if db.audit_insert(COMMAND_LINE, &rows).await? > 0 {
            return Ok(());
        }
    }
    Err(DirectError::Crowded)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;
    use crate::audit::{Action, Outcome, Who};

    fn change(number: u32) -> Event {
        let payload = json!({ "subject": number.to_string() });
        Event::change(
            OffsetDateTime::UNIX_EPOCH,
            Action::UserDisable,
            Who::nobody(),
            Outcome::Allowed,
            payload,
        )
    }

    #[tokio::test]
    async fn commands_at_once_leave_a_row_each_and_no_gap() {
        let home = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite:{}", home.path().join("db").display())).await.unwrap();
        db.migrate().await.unwrap();
        let all = (0..20).map(|number| record_directly(&db, change(number)));
        for recorded in futures_util::future::join_all(all).await {
            recorded.unwrap();
        }
        let rows = db.audit_newest(None, 100).await.unwrap();
        let mut numbers: Vec<_> = rows.iter().map(|row| row.sequence).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        assert!(rows.iter().all(|row| row.replica == COMMAND_LINE && row.kind == "admin"));
    }
}
