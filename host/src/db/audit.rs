//! Rows of `audit_events`: the drainer's insert, and the questions that the command line asks.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::types::Json;
use sqlx::{Database, Decode, Encode, Postgres, QueryBuilder, Sqlite, Type};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::{Db, DbError, on};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// A row on its way into the table.
#[derive(Debug, Clone, Deserialize)]
pub struct NewRow {
    /// Dense within the replica, from 1.
    #[serde(skip)]
    pub sequence: i64,
    /// When it happened.
    pub occurred_at: At,
    /// inference, `tool_call`, `mcp_exec`, cost, auth, hook or admin.
    pub kind: String,
    /// The verified user.
    pub user_id: String,
    /// The session.
    pub session_id: String,
    /// The trace.
    pub trace_id: String,
    /// The client.
    pub client_id: String,
    /// The tenant.
    pub tenant_id: String,
    /// The bundle in force.
    pub policy_ver: String,
    /// cowork, subagent, job, api, ...
    pub call_source: String,
    /// The model asked for.
    pub model: Option<String>,
    /// The provider that served it.
    pub provider: Option<String>,
    /// Tokens in.
    pub tokens_in: Option<i64>,
    /// Tokens out.
    pub tokens_out: Option<i64>,
    /// Microdollars.
    pub cost_micro: Option<i64>,
    /// Milliseconds.
    pub latency_ms: Option<i64>,
    /// allowed, denied or error.
    pub outcome: String,
    /// Everything else, as JSON.
    pub payload: Box<RawValue>,
}

/// A row as it stands in the table.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns of audit_events, see `NewRow`")]
pub struct Row {
    pub id: i64,
    pub occurred_at: At,
    pub kind: String,
    pub user_id: String,
    pub session_id: String,
    pub trace_id: String,
    pub client_id: String,
    pub tenant_id: String,
    pub policy_ver: String,
    pub call_source: String,
    pub model: Option<String>,
    pub provider: Option<String>,
    pub tokens_in: Option<i32>,
    pub tokens_out: Option<i32>,
    pub cost_micro: Option<i64>,
    pub latency_ms: Option<i32>,
    pub outcome: String,
    pub payload: Json<serde_json::Value>,
    pub replica: String,
    pub sequence: i64,
}

/// Which rows of the table are the same rows that the spool holds.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Stamp {
    /// The row's number.
    pub sequence: i64,
    /// Its trace.
    pub trace_id: String,
    /// Its kind.
    pub kind: String,
    /// When it happened.
    pub occurred_at: At,
}

/// What `analytics requests list` may ask for; `None` does not filter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only rows at or after this time.
    pub since: Option<OffsetDateTime>,
    /// Only this user.
    pub user: Option<String>,
    /// Only this model.
    pub model: Option<String>,
    /// Only this tenant.
    pub tenant: Option<String>,
    /// At most so many, the newest.
    pub limit: i64,
}

/// A point in time with microseconds: `TIMESTAMPTZ` in PostgreSQL, text of fixed width in SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub OffsetDateTime);

const FORMAT: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

const INSERT: &str = "INSERT INTO audit_events (occurred_at, kind, user_id, session_id, trace_id, client_id, \
     tenant_id, policy_ver, call_source, model, provider, tokens_in, tokens_out, cost_micro, latency_ms, \
     outcome, payload, replica, sequence) ";

// === impl Db ===

impl Db {
    /// Inserts rows of a replica in one statement; rows that are there already stay as they are. Returns how many were new.
    pub async fn audit_insert(&self, replica: &str, rows: &[NewRow]) -> Result<u64, DbError> {
        if rows.is_empty() {
            return Ok(0);
        }
        Ok(on!(self, pool => {
            let mut query = QueryBuilder::new(INSERT);
            query.push_values(rows, |mut values, row| {
                values
                    .push_bind(row.occurred_at)
                    .push_bind(row.kind.as_str())
                    .push_bind(row.user_id.as_str())
                    .push_bind(row.session_id.as_str())
                    .push_bind(row.trace_id.as_str())
                    .push_bind(row.client_id.as_str())
                    .push_bind(row.tenant_id.as_str())
                    .push_bind(row.policy_ver.as_str())
                    .push_bind(row.call_source.as_str())
                    .push_bind(row.model.as_deref())
                    .push_bind(row.provider.as_deref())
                    .push_bind(row.tokens_in.map(narrow))
                    .push_bind(row.tokens_out.map(narrow))
                    .push_bind(row.cost_micro)
                    .push_bind(row.latency_ms.map(narrow))
                    .push_bind(row.outcome.as_str())
                    .push_bind(Json(&*row.payload))
                    .push_bind(replica)
                    .push_bind(row.sequence);
            });
            query.push(" ON CONFLICT (replica, sequence) DO NOTHING");
            query.build().execute(pool).await?.rows_affected()
        }))
    }

    /// The last row number of a replica; `None` if it has no rows.
    pub async fn audit_last(&self, replica: &str) -> Result<Option<i64>, DbError> {
        Ok(on!(self, pool => sqlx::query_scalar("SELECT MAX(sequence) FROM audit_events WHERE replica = $1")
            .bind(replica)
            .fetch_one(pool)
            .await?))
    }

    /// What the table holds in a span of a replica's row numbers.
    pub async fn audit_stamps(&self, replica: &str, from: i64, to: i64) -> Result<Vec<Stamp>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT sequence, trace_id, kind, occurred_at FROM audit_events \
             WHERE replica = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence")
            .bind(replica)
            .bind(from)
            .bind(to)
            .fetch_all(pool)
            .await?))
    }

    /// The inference rows that match, newest first, each with what its trace cost.
    pub async fn audit_requests(&self, filter: &Filter) -> Result<Vec<Row>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT e.id, e.occurred_at, e.kind, e.user_id, e.session_id, e.trace_id, e.client_id, e.tenant_id, \
             e.policy_ver, e.call_source, e.model, e.provider, e.tokens_in, e.tokens_out, \
             COALESCE(e.cost_micro, (SELECT CAST(SUM(c.cost_micro) AS BIGINT) FROM audit_events c \
             WHERE c.trace_id = e.trace_id AND c.tenant_id = e.tenant_id AND c.kind = 'cost')) AS cost_micro, \
             e.latency_ms, e.outcome, e.payload, e.replica, e.sequence \
             FROM audit_events e WHERE e.kind = 'inference' \
             AND ($1 IS NULL OR e.tenant_id = $1) AND ($2 IS NULL OR e.user_id = $2) \
             AND ($3 IS NULL OR e.model = $3) AND e.occurred_at >= $4 \
             ORDER BY e.occurred_at DESC, e.id DESC LIMIT $5")
            .bind(filter.tenant.as_deref())
            .bind(filter.user.as_deref())
            .bind(filter.model.as_deref())
            .bind(At(filter.since.unwrap_or(OffsetDateTime::UNIX_EPOCH)))
            .bind(filter.limit)
            .fetch_all(pool)
            .await?))
    }

    /// Every row of a trace in order.
    pub async fn audit_lineage(&self, trace: &str, tenant: Option<&str>) -> Result<Vec<Row>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT * FROM audit_events WHERE trace_id = $1 AND ($2 IS NULL OR tenant_id = $2) \
             ORDER BY occurred_at, id")
            .bind(trace)
            .bind(tenant)
            .fetch_all(pool)
            .await?))
    }

    /// The newest rows, oldest of them first.
    pub async fn audit_newest(&self, tenant: Option<&str>, limit: i64) -> Result<Vec<Row>, DbError> {
        let mut rows: Vec<Row> = on!(self, pool => sqlx::query_as(
            "SELECT * FROM audit_events WHERE ($1 IS NULL OR tenant_id = $1) ORDER BY id DESC LIMIT $2")
            .bind(tenant)
            .bind(limit)
            .fetch_all(pool)
            .await?);
        rows.reverse();
        Ok(rows)
    }

    /// Rows that came into the table after the row `id`, in the order they came.
    pub async fn audit_after(&self, id: i64, tenant: Option<&str>, limit: i64) -> Result<Vec<Row>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT * FROM audit_events WHERE id > $1 AND ($2 IS NULL OR tenant_id = $2) ORDER BY id LIMIT $3")
            .bind(id)
            .bind(tenant)
            .bind(limit)
            .fetch_all(pool)
            .await?))
    }
}

// === impl DbError ===

impl DbError {
    /// Whether the database is well but will not take these values, however often it is asked.
    pub fn refuses_values(&self) -> bool {
        let Self::Query(sqlx::Error::Database(error)) = self else { return false };
        match error.code() {
            // PostgreSQL: data exception, integrity, program limit (nesting). SQLite: TOOBIG, CONSTRAINT, MISMATCH.
            Some(code) if code.len() == 5 => ["22", "23", "54"].iter().any(|class| code.starts_with(class)),
            Some(code) => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20)),
            None => false,
        }
    }
}

// === impl At ===

impl At {
    /// As text of fixed width.
    pub fn text(self) -> String {
        // A date of this calendar always fits the format.
        self.0.to_offset(UtcOffset::UTC).format(FORMAT).unwrap_or_default()
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Type<Sqlite> for At {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for At {
    fn encode_by_ref(
        &self,
        buffer: &mut <Sqlite as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        <String as Encode<'_, Sqlite>>::encode(self.text(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for At {
    fn decode(value: <Sqlite as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <&str as Decode<'r, Sqlite>>::decode(value)?;
        Ok(Self(OffsetDateTime::parse(text, &Rfc3339)?))
    }
}

impl Type<Postgres> for At {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for At {
    fn encode_by_ref(
        &self,
        buffer: &mut <Postgres as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        <OffsetDateTime as Encode<'_, Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for At {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        <OffsetDateTime as Decode<'r, Postgres>>::decode(value).map(Self)
    }
}

/// The table's `INTEGER` has 32 bits in PostgreSQL.
fn narrow(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}
