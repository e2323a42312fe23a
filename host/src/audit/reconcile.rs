//! How an operator lets a gateway go on with a database that its spool does not know: what that would mean, and the approval that the
//! command leaves in the spool. The gateway reads it when it starts or within seconds, and says in a row what it did.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

use super::database::{self, AttachError, OtherDatabase, hex};
use super::drain;
use super::spool::cursor::{self, Cursor};
use super::spool::frame::Chain;
use super::spool::place::{DeliveryPlace, KnownDatabase};
use super::spool::recover::Marks;
use super::spool::segment::replace;
use super::{Action, AuditSettings, Event, Outcome, Who, place, replica_of};
use crate::db::Db;
use crate::db::audit::replica::{Mark, Standing, other_row};

/// The approval in the spool's directory.
const FILE: &str = "reconcile.json";

/// That somebody wants the gateway to go on with a database, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Approval {
    /// The database that was looked at.
    identity: String,
    /// The name under which rows go there.
    pub(super) replica: String,
    /// The name that the spool had.
    was: String,
    /// In the operator's words.
    reason: String,
}

/// What going on means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where delivery goes on.
    pub(super) mark: Mark,
    /// So many rows that the spool still holds go there.
    again: u64,
    /// Rows that neither the spool nor the database has.
    lost: Option<(u64, u64)>,
    found: String,
    was: Option<String>,
}

/// Whose spool it is.
pub(super) struct View<'a> {
    pub(super) dir: &'a Path,
    pub(super) chain: Chain,
    pub(super) replica: &'a str,
}

/// What `sallyport audit reconcile` found.
#[derive(Debug)]
pub struct Survey {
    /// What is wrong with the database.
    pub found: String,
    /// So many rows that the spool still holds will be delivered.
    pub again: u64,
    /// The first and the last row that neither the spool nor the database has.
    pub lost: Option<(u64, u64)>,
    dir: PathBuf,
    approval: Approval,
}

/// Why a spool and a database could not be compared, or cannot go together.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// There is no spool.
    #[error("there is no audit spool at {0}")]
    NoSpool(PathBuf),
    /// The two cannot go together.
    #[error("{0}. Rows cannot go there under this name: choose another audit.replica, and run this again")]
    Name(String),
    /// Spool or database failed.
    #[error("the spool and the database could not be compared")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

// === impl Approval ===

impl Approval {
    /// The approval that waits in the spool.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                if let Err(error) = &read {
                    tracing::error!(error = %error, "the approval in the audit spool cannot be read");
                }
                Ok(read.ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// It was acted on.
    pub(super) fn remove(dir: &Path) {
        if let Err(error) = fs::remove_file(dir.join(FILE)) {
            tracing::error!(error = %error, "the approval in the audit spool could not be removed");
        }
    }

    /// Whether it is about this database and this name.
    pub(super) fn means(&self, standing: &Standing, replica: &str) -> bool {
        standing.identity.as_ref() == Some(&self.identity) && self.replica == replica
    }

    /// The name that the spool had.
    pub(super) fn was(&self) -> &str {
        &self.was
    }

    /// The row that says what was done.
    pub(super) fn row(&self, now: OffsetDateTime, plan: Option<&Plan>) -> Event {
        let mut detail = json!({ "database": self.identity });
        if let (Some(fields), Some(plan)) = (detail.as_object_mut(), plan) {
            fields.insert("found".to_owned(), plan.found.as_str().into());
            fields.insert("rows_from_spool".to_owned(), plan.again.into());
            fields.insert(
                "rows_lost".to_owned(),
                plan.lost.map_or(json!(null), |(from, to)| json!([from, to])),
            );
            fields.insert("known_database".to_owned(), plan.was.as_deref().into());
        }
        if let (Some(fields), true) = (detail.as_object_mut(), self.was != self.replica) {
            fields.insert("replica_before".to_owned(), self.was.as_str().into());
        }
        let who = Who { user_id: "gateway".into(), call_source: "cli".into(), ..Who::nobody() };
        let payload = json!({ "reason": self.reason, "detail": detail });
        Event::change(now, Action::AuditReconciled, who, Outcome::Allowed, payload)
    }
}

// === impl View ===

impl View<'_> {
    /// What going on with this database would mean; an error if its rows under this name are not the spool's.
    pub(super) async fn plan(
        &self,
        db: &Db,
        was: &str,
        known: Option<&KnownDatabase>,
        standing: &Standing,
        found: &OtherDatabase,
    ) -> Result<Plan, AttachError> {
        let nothing = Marks { first_sequence: 1, first_row: 1, previous: [0; 32] };
        let (begin, end) = cursor::bounds(self.dir, self.chain)?.unwrap_or((nothing, nothing));
        if standing.last >= end.first_row {
            return Err(OtherDatabase::Ahead { last: standing.last, next: end.first_row }.into());
        }
        // Rows that stand in this very database under the spool's former name are not delivered under the new one.
        let same = known.map(|known| &known.identity) == standing.identity.as_ref();
        let before =
            if was == self.replica || !same { standing.clone() } else { db.audit_standing(was).await? };
        let mut from = begin;
        if let Some(mark) = before.mark.filter(|mark| before.last >= mark.last_row)
            && let Some(at) = cursor::marks_at(self.dir, self.chain, mark.next)?
            && hex(&at.previous) == mark.hash
        {
            from = at;
        }
        self.overlap_is_ours(db, &from, &end, standing.last).await?;
        let missing = before.last + 1;
        Ok(Plan {
            mark: Mark { next: from.first_sequence, hash: hex(&from.previous), last_row: standing.last },
            again: end.first_row.saturating_sub(from.first_row.max(standing.last + 1)),
            lost: (missing < from.first_row).then(|| (missing, from.first_row - 1)),
            found: found.to_string(),
            was: known.map(|known| known.identity.clone()),
        })
    }

    /// Rows of the spool that the database has already must be the same.
    async fn overlap_is_ours(
        &self,
        db: &Db,
        from: &Marks,
        end: &Marks,
        last: u64,
    ) -> Result<(), AttachError> {
        let mut cursor = Cursor::new(self.dir, self.chain, from.first_sequence);
        let mut at = *from;
        while at.first_row <= last && at.first_sequence < end.first_sequence {
            let batch = cursor.read(end.first_sequence)?;
            cursor.delivered(batch.end.first_sequence);
            at = batch.end;
            let rows = drain::rows(&batch).map_err(io::Error::other)?;
            let (Some(first), Some(final_row)) = (rows.first(), rows.last()) else { continue };
            let there = db.audit_stamps(self.replica, first.sequence, final_row.sequence).await?;
            if let Some(row) = other_row(&rows, &there) {
                return Err(OtherDatabase::Taken { replica: self.replica.to_owned(), row }.into());
            }
        }
        Ok(())
    }
}

// === impl Survey ===

impl Survey {
    /// Compares spool and database; `None` if they belong together.
    pub async fn take(settings: &AuditSettings, db: &Db, reason: &str) -> Result<Option<Self>, SurveyError> {
        let dir = &settings.spool_dir;
        let failed = |error: AttachError| SurveyError::Failed(Box::new(error));
        let Some(was) = replica_of(dir).map_err(|error| failed(error.into()))? else {
            return Err(SurveyError::NoSpool(dir.clone()));
        };
        let chain = Chain(settings.chain_key.as_ref().map(|key| key.0));
        let replica = &settings.replica;
        let known = DeliveryPlace::load(&place(dir, "database")).map_err(|error| failed(error.into()))?;
        let known = known.and_then(|place| place.known);
        let (standing, verdict) =
            database::compare(db, dir, chain, replica, known.as_ref()).await.map_err(failed)?;
        let Err(found) = verdict else { return Ok(None) };
        let plan = View { dir, chain, replica }.plan(db, &was, known.as_ref(), &standing, &found).await;
        let plan = match plan {
            Ok(plan) => plan,
            Err(AttachError::Other(other)) => return Err(SurveyError::Name(other.to_string())),
            Err(error) => return Err(failed(error)),
        };
        let approval = Approval {
            identity: standing.identity.unwrap_or_default(),
            replica: replica.clone(),
            was,
            reason: reason.to_owned(),
        };
        let Plan { again, lost, found, .. } = plan;
        Ok(Some(Self { found, again, lost, dir: dir.clone(), approval }))
    }

    /// Leaves the approval where the gateway finds it.
    pub fn approve(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.approval).map_err(io::Error::other)?;
        replace(&self.dir.join(FILE), &bytes)
    }

    /// The identity of the database.
    pub fn database(&self) -> &str {
        &self.approval.identity
    }
}
