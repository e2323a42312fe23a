//! Rows of `audit_events`: the drainer's insert, and the questions that the command line asks.

use std::borrow::Cow;
use std::sync::Arc;

use sallyport_protocol::errors::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::types::Json;
use sqlx::{Database, Decode, Encode, Postgres, QueryBuilder, Sqlite, Type};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::{Db, DbError, reading, writing};

pub mod replica;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// A row on its way into the table. Rows that were read together share the texts that they have in common.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Dense within the replica, from 1.
    pub sequence: i64,
    /// When it happened.
    pub occurred_at: At,
    /// inference, `tool_call`, `mcp_exec`, cost, auth, hook or admin.
    pub kind: Arc<str>,
    /// The verified user.
    pub user_id: Arc<str>,
    /// The session.
    pub session_id: Arc<str>,
    /// The trace.
    pub trace_id: Arc<str>,
    /// The client.
    pub client_id: Arc<str>,
    /// The tenant.
    pub tenant_id: Arc<str>,
    /// The bundle in force.
    pub policy_ver: Arc<str>,
    /// cowork, subagent, job, api, ...
    pub call_source: Arc<str>,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// The provider that served it.
    pub provider: Option<Arc<str>>,
    /// Tokens in.
    pub tokens_in: Option<i64>,
    /// Tokens out.
    pub tokens_out: Option<i64>,
    /// Microdollars.
    pub cost_micro: Option<i64>,
    /// Milliseconds.
    pub latency_ms: Option<i64>,
    /// allowed, denied or error.
    pub outcome: Arc<str>,
    /// Everything else, as JSON.
    pub payload: Box<RawValue>,
}

/// A row as a record of the spool has it.
#[derive(Deserialize)]
struct Spooled<'a> {
    occurred_at: At,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    session_id: Cow<'a, str>,
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    #[serde(borrow)]
    tenant_id: Cow<'a, str>,
    #[serde(borrow)]
    policy_ver: Cow<'a, str>,
    #[serde(borrow)]
    call_source: Cow<'a, str>,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    provider: Option<Text<'a>>,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    cost_micro: Option<i64>,
    latency_ms: Option<i64>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// A text that is borrowed where it holds no escape. Within an `Option` the library would copy it.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A payload as a value of the table.
struct Payload<'a>(&'a RawValue);

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
    /// Also calls that only counted tokens.
    pub counts: bool,
    /// At most so many, the newest.
    pub limit: i64,
}

/// A point in time with microseconds: `TIMESTAMPTZ` in PostgreSQL, text of fixed width in SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub OffsetDateTime);

/// A time that has no text in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time is not within the years 0 to 9999")]
pub struct OutOfRange;

/// Bytes of a time as text.
const WIDTH: usize = 27;
const FORMAT: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

const INSERT: &str = "INSERT INTO audit_events (occurred_at, kind, user_id, session_id, trace_id, client_id, \
     tenant_id, policy_ver, call_source, model, provider, tokens_in, tokens_out, cost_micro, latency_ms, \
     outcome, payload, replica, sequence) ";

/// So many rows go into the table by a statement that the connection keeps prepared. A statement for fewer is made for the occasion:
/// it would have to be kept for each number of rows.
const TOGETHER: usize = 64;

/// Inserts rows of a replica in one statement on a pool or in a transaction; how many were new.
macro_rules! insert_rows {
    ($executor:expr, $replica:expr, $rows:expr) => {{
        let replica: std::sync::Arc<str> = $replica.into();
        let mut query = QueryBuilder::new(INSERT);
        query.push_values($rows, |mut values, row| {
            values
                .push_bind(row.occurred_at)
                .push_bind(row.kind.clone())
                .push_bind(row.user_id.clone())
                .push_bind(row.session_id.clone())
                .push_bind(row.trace_id.clone())
                .push_bind(row.client_id.clone())
                .push_bind(row.tenant_id.clone())
                .push_bind(row.policy_ver.clone())
                .push_bind(row.call_source.clone())
                .push_bind(row.model.clone())
                .push_bind(row.provider.clone())
                .push_bind(row.tokens_in.map($crate::db::audit::narrow))
                .push_bind(row.tokens_out.map($crate::db::audit::narrow))
                .push_bind(row.cost_micro)
                .push_bind(row.latency_ms.map($crate::db::audit::narrow))
                .push_bind(row.outcome.clone())
                .push_bind($crate::db::audit::Payload(&row.payload))
                .push_bind(std::sync::Arc::clone(&replica))
                .push_bind(row.sequence);
        });
        query.push(" ON CONFLICT (replica, sequence) DO NOTHING");
        let kept = $rows.len() == $crate::db::audit::TOGETHER;
        query.build().persistent(kept).execute($executor).await?.rows_affected()
    }};
}
use insert_rows;

// === impl Db ===

impl Db {
    /// Inserts rows of a replica in one statement; rows that are there already stay as they are. Returns how many were new.
    pub async fn audit_insert(&self, replica: &str, rows: &[NewRow]) -> Result<u64, DbError> {
        if rows.is_empty() {
            return Ok(0);
        }
        Ok(writing!(self, pool => insert_rows!(pool, replica, rows)))
    }

    /// The last row number of a replica; `None` if it has no rows.
    pub async fn audit_last(&self, replica: &str) -> Result<Option<i64>, DbError> {
        Ok(
            reading!(self, pool => sqlx::query_scalar("SELECT MAX(sequence) FROM audit_events WHERE replica = $1")
            .bind(replica)
            .fetch_one(pool)
            .await?),
        )
    }

    /// What the table holds in a span of a replica's row numbers.
    pub async fn audit_stamps(&self, replica: &str, from: i64, to: i64) -> Result<Vec<Stamp>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
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
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT e.id, e.occurred_at, e.kind, e.user_id, e.session_id, e.trace_id, e.client_id, e.tenant_id, \
             e.policy_ver, e.call_source, e.model, e.provider, e.tokens_in, e.tokens_out, \
             COALESCE(e.cost_micro, (SELECT CAST(SUM(c.cost_micro) AS BIGINT) FROM audit_events c \
             WHERE c.trace_id = e.trace_id AND c.tenant_id = e.tenant_id AND c.kind = 'cost')) AS cost_micro, \
             e.latency_ms, e.outcome, e.payload, e.replica, e.sequence \
             FROM audit_events e WHERE e.kind = 'inference' \
             AND ($1 IS NULL OR e.tenant_id = $1) AND ($2 IS NULL OR e.user_id = $2) \
             AND ($3 IS NULL OR e.model = $3) AND e.occurred_at >= $4 \
             AND ($6 OR COALESCE(e.payload ->> 'operation', '') <> 'count_tokens') \
             ORDER BY e.occurred_at DESC, e.id DESC LIMIT $5")
            .bind(filter.tenant.as_deref())
            .bind(filter.user.as_deref())
            .bind(filter.model.as_deref())
            .bind(At(filter.since.unwrap_or(OffsetDateTime::UNIX_EPOCH)))
            .bind(filter.limit)
            .bind(filter.counts)
            .fetch_all(pool)
            .await?))
    }

    /// Every row of a trace in order.
    pub async fn audit_lineage(&self, trace: &str, tenant: Option<&str>) -> Result<Vec<Row>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT * FROM audit_events WHERE trace_id = $1 AND ($2 IS NULL OR tenant_id = $2) \
             ORDER BY occurred_at, id")
            .bind(trace)
            .bind(tenant)
            .fetch_all(pool)
            .await?))
    }

    /// Every row of a session in order, or those that one prompt of it caused: its calls, what they caused, and what was reported of
    /// it.
    pub async fn audit_session(
        &self,
        session: &str,
        prompt: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<Vec<Row>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT * FROM audit_events e WHERE e.session_id = $1 AND ($3 IS NULL OR e.tenant_id = $3) \
             AND ($2 IS NULL OR e.payload ->> 'prompt_id' = $2 \
             OR (e.payload ->> 'prompt_id' IS NULL AND EXISTS (SELECT 1 FROM audit_events c \
             WHERE c.trace_id = e.trace_id AND c.tenant_id = e.tenant_id AND c.user_id = e.user_id \
             AND c.kind = 'inference' AND c.payload ->> 'prompt_id' = $2))) \
             ORDER BY e.occurred_at, e.id")
            .bind(session)
            .bind(prompt)
            .bind(tenant)
            .fetch_all(pool)
            .await?))
    }

    /// The newest rows, oldest of them first.
    pub async fn audit_newest(&self, tenant: Option<&str>, limit: i64) -> Result<Vec<Row>, DbError> {
        let mut rows: Vec<Row> = reading!(self, pool => sqlx::query_as(
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
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT * FROM audit_events WHERE id > $1 AND ($2 IS NULL OR tenant_id = $2) ORDER BY id LIMIT $3")
            .bind(id)
            .bind(tenant)
            .bind(limit)
            .fetch_all(pool)
            .await?))
    }
}

// === impl NewRow ===

impl NewRow {
    /// Appends the rows of a record, the first of which has the number `first`.
    pub fn read(record: &[u8], first: i64, rows: &mut Vec<Self>) -> serde_json::Result<()> {
        let read: Vec<Spooled<'_>> = serde_json::from_slice(record)?;
        rows.reserve(read.len());
        for (row, sequence) in read.into_iter().zip(first..) {
            let row = Self::of(&row, sequence, rows.last());
            rows.push(row);
        }
        Ok(())
    }

    fn of(row: &Spooled<'_>, sequence: i64, before: Option<&Self>) -> Self {
        let text = |text: &str, of: fn(&Self) -> &Arc<str>| shared(text, before.map(of));
        let name = |name: &Option<Text<'_>>, of: fn(&Self) -> Option<&Arc<str>>| {
            name.as_ref().map(|Text(name)| shared(name, before.and_then(of)))
        };
        Self {
            sequence,
            occurred_at: row.occurred_at,
            kind: text(&row.kind, |row| &row.kind),
            user_id: text(&row.user_id, |row| &row.user_id),
            session_id: text(&row.session_id, |row| &row.session_id),
            trace_id: text(&row.trace_id, |row| &row.trace_id),
            client_id: text(&row.client_id, |row| &row.client_id),
            tenant_id: text(&row.tenant_id, |row| &row.tenant_id),
            policy_ver: text(&row.policy_ver, |row| &row.policy_ver),
            call_source: text(&row.call_source, |row| &row.call_source),
            model: name(&row.model, |row| row.model.as_ref()),
            provider: name(&row.provider, |row| row.provider.as_ref()),
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            cost_micro: row.cost_micro,
            latency_ms: row.latency_ms,
            outcome: text(&row.outcome, |row| &row.outcome),
            payload: row.payload.to_owned(),
        }
    }

    /// The row with a payload that every database takes, and that says so.
    pub fn without_payload(&self) -> serde_json::Result<Self> {
        let payload = to_raw_value(&json!({ "code": ErrorCode::PayloadRefused, "truncated": true }))?;
        Ok(Self { payload, ..self.clone() })
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

    /// Whether a table is not there that the statement names.
    pub fn misses_a_table(&self) -> bool {
        let Self::Query(sqlx::Error::Database(error)) = self else { return false };
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    }
}

// === impl At ===

impl At {
    /// As text of fixed width. Years before 0 and after 9999 have none: their text would not sort as time does.
    pub fn text(self) -> Result<String, OutOfRange> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| OutOfRange)
    }

    fn bytes(self) -> Result<[u8; WIDTH], OutOfRange> {
        let at = self.0.checked_to_offset(UtcOffset::UTC).ok_or(OutOfRange)?;
        if !(0..=9999).contains(&at.year()) {
            return Err(OutOfRange);
        }
        let mut bytes = [0; WIDTH];
        let written = at.format_into(&mut bytes.as_mut_slice(), FORMAT);
        if written.is_ok_and(|written| written == WIDTH) { Ok(bytes) } else { Err(OutOfRange) }
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.bytes().map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&bytes).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Type<Sqlite> for Payload<'_> {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Payload<'_> {
    fn encode_by_ref(
        &self,
        buffer: &mut <Sqlite as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        <Arc<str> as Encode<'_, Sqlite>>::encode(self.0.get().into(), buffer)
    }
}

impl Type<Postgres> for Payload<'_> {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <Json<&RawValue> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Payload<'_> {
    fn encode_by_ref(
        &self,
        buffer: &mut <Postgres as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        <Json<&RawValue> as Encode<'_, Postgres>>::encode_by_ref(&Json(self.0), buffer)
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
        <Arc<str> as Encode<'_, Sqlite>>::encode(std::str::from_utf8(&self.bytes()?)?.into(), buffer)
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

/// The text, or that of the row before if it is the same.
fn shared(text: &str, before: Option<&Arc<str>>) -> Arc<str> {
    before.filter(|before| before.as_ref() == text).map_or_else(|| text.into(), Arc::clone)
}
