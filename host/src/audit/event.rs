//! What is recorded: events and intents, and how they become a row's JSON.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;

pub use sallyport_protocol::audit::{Action, Outcome, RowKind as Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::RowFields;
use crate::clip::{NAME, clip};
use crate::db::audit::At;

/// What the entries of a call mostly take.
const ENTRIES: usize = 2 * 1024;

/// Whose catalog a change is about, in its payload: a tenant's id or `platform`.
pub(crate) const CATALOG: &str = "catalog";

/// Who did it, and in which context: the seven claims of the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
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
}

/// One row of the audit trail.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// What happened.
    pub kind: Kind,
    /// Who did it.
    pub who: Arc<Who>,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// The provider that served it.
    pub provider: Option<Arc<str>>,
    /// Tokens in; absent is not zero.
    pub tokens_in: Option<i64>,
    /// Tokens out; absent is not zero.
    pub tokens_out: Option<i64>,
    /// Microdollars. Where a call has a cost row, that row alone carries it, so that `SUM(cost_micro)` counts it once.
    pub cost_micro: Option<i64>,
    /// Milliseconds.
    pub latency_ms: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Everything else.
    pub payload: RowFields,
    /// What components did; the payload's `components`.
    pub components: JsonEntries,
}

/// Entries of a list as JSON, written as they come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JsonEntries {
    json: Vec<u8>,
    longest: usize,
}

/// A call that is about to go upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// When it came in.
    #[serde(with = "stamp")]
    pub occurred_at: OffsetDateTime,
    /// Who makes it.
    pub who: Who,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// The provider it goes to.
    pub provider: Option<Arc<str>>,
    /// What is known before the call; becomes the payload of the row if the call is interrupted.
    pub payload: RowFields,
}

/// The columns of the table in their order; the payload is the last.
#[derive(Serialize)]
pub(super) struct RowColumns<'a> {
    occurred_at: At,
    kind: Kind,
    user_id: Cow<'a, str>,
    session_id: Cow<'a, str>,
    trace_id: Cow<'a, str>,
    client_id: Cow<'a, str>,
    tenant_id: Cow<'a, str>,
    policy_ver: Cow<'a, str>,
    call_source: Cow<'a, str>,
    model: Option<Cow<'a, str>>,
    provider: Option<Cow<'a, str>>,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    cost_micro: Option<i64>,
    latency_ms: Option<i64>,
    outcome: Outcome,
    payload: &'a RowFields,
}

// === impl Who ===

impl Who {
    /// Nobody in particular: the gateway itself, or a caller who is not known.
    pub fn nobody() -> Self {
        let none: Arc<str> = "-".into();
        let again = || Arc::clone(&none);
        Self {
            user_id: again(),
            session_id: again(),
            trace_id: again(),
            client_id: again(),
            tenant_id: again(),
            policy_ver: "unversioned".into(),
            call_source: none,
        }
    }
}

// === impl Event ===

impl Event {
    /// A row of kind `admin`: somebody changed something, or the outcome says that it came to nothing. `payload` has the fields that
    /// the change has; the code is added to it.
    pub fn change(
        occurred_at: OffsetDateTime,
        action: Action,
        who: impl Into<Arc<Who>>,
        outcome: Outcome,
        payload: impl Into<RowFields>,
    ) -> Self {
        let mut payload = payload.into();
        let known = |name: &str| name == CATALOG || action.fields().contains(&name);
        debug_assert!(payload.names().all(known), "{action} has a field that is not documented: {payload:?}");
        payload.set("code", action.as_str());
        Self::plain(occurred_at, Kind::Admin, who, outcome, payload)
    }

    /// A row that is about no model: a sign-in, a change.
    pub fn plain(
        occurred_at: OffsetDateTime,
        kind: Kind,
        who: impl Into<Arc<Who>>,
        outcome: Outcome,
        payload: impl Into<RowFields>,
    ) -> Self {
        Self {
            occurred_at,
            kind,
            who: who.into(),
            model: None,
            provider: None,
            tokens_in: None,
            tokens_out: None,
            cost_micro: None,
            latency_ms: None,
            outcome,
            payload: payload.into(),
            components: JsonEntries::default(),
        }
    }
}

// === impl JsonEntries ===

impl JsonEntries {
    /// Adds an object: the fields of `known`, which is one in JSON, a word without anything that JSON escapes, and some more.
    pub fn push<'a>(
        &mut self,
        known: &str,
        word: (&str, &'static str),
        more: impl IntoIterator<Item = (&'a str, Value)>,
    ) {
        self.json.reserve(if self.json.is_empty() { ENTRIES } else { 0 });
        let before = self.json.len();
        if before > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(known.strip_suffix('}').unwrap_or(known).as_bytes());
        let (name, word) = word;
        for part in [",\"", name, "\":\"", word, "\""] {
            self.json.extend_from_slice(part.as_bytes());
        }
        for (name, value) in more {
            // Nothing written to memory fails.
            drop(write!(self.json, ",\"{name}\":{value}"));
        }
        self.json.push(b'}');
        self.longest = self.longest.max(self.json.len() - before);
    }

    /// The entries, with commas between them.
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Whether each of them takes at most so many bytes.
    pub(super) fn are_short(&self, limit: usize) -> bool {
        self.longest <= limit
    }

    /// The entries one by one.
    pub(super) fn values(&self) -> serde_json::Result<Vec<Value>> {
        let list = [b"[", &self.json[..], b"]"].concat();
        serde_json::from_slice(&list)
    }
}

// === impl RowColumns ===

impl<'a> RowColumns<'a> {
    /// A client chooses the name of a model: columns are clipped, so that a row always fits a record.
    pub(super) fn new(event: &'a Event, payload: &'a RowFields) -> Self {
        let name = |text: &'a str| clip(text, NAME);
        Self {
            occurred_at: At(event.occurred_at),
            kind: event.kind,
            user_id: name(&event.who.user_id),
            session_id: name(&event.who.session_id),
            trace_id: name(&event.who.trace_id),
            client_id: name(&event.who.client_id),
            tenant_id: name(&event.who.tenant_id),
            policy_ver: name(&event.who.policy_ver),
            call_source: name(&event.who.call_source),
            model: event.model.as_deref().map(name),
            provider: event.provider.as_deref().map(name),
            tokens_in: event.tokens_in,
            tokens_out: event.tokens_out,
            cost_micro: event.cost_micro,
            latency_ms: event.latency_ms,
            outcome: event.outcome,
            payload,
        }
    }
}

// === impl Intent ===

impl Intent {
    /// The intent in the body of a record.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The row of a call whose outcome nobody recorded.
    pub(super) fn interrupted(self, now: OffsetDateTime) -> Event {
        let mut payload = self.payload;
        payload.set("reason", "interrupted");
        let passed = (now - self.occurred_at).whole_milliseconds();
        Event {
            occurred_at: self.occurred_at,
            kind: Kind::Inference,
            who: Arc::new(self.who),
            model: self.model,
            provider: self.provider,
            tokens_in: None,
            tokens_out: None,
            cost_micro: None,
            latency_ms: i64::try_from(passed.max(0)).ok(),
            outcome: Outcome::Error,
            payload,
            components: JsonEntries::default(),
        }
    }
}

/// Makes the times of one record's rows strictly increase, so that `ORDER BY occurred_at` alone gives their order.
pub(super) fn in_order(rows: &mut [Event]) {
    let mut last: Option<OffsetDateTime> = None;
    for row in rows {
        // The databases keep microseconds; what they would drop must not decide the order.
        let nanos = row.occurred_at.nanosecond();
        let mut at = row.occurred_at.replace_nanosecond(nanos - nanos % 1000).unwrap_or(row.occurred_at);
        if let Some(last) = last
            && at <= last
        {
            at = last + Duration::microseconds(1);
        }
        row.occurred_at = at;
        last = Some(at);
    }
}

/// Leaves the cost of a call to its cost row, if it has one.
pub(super) fn cost_once(rows: &mut [Event]) {
    if rows.iter().any(|row| row.kind == Kind::Cost && row.cost_micro.is_some()) {
        for row in rows.iter_mut().filter(|row| row.kind != Kind::Cost) {
            row.cost_micro = None;
        }
    }
}

mod stamp {
    //! Times as RFC 3339 text.

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use time::OffsetDateTime;

    use crate::db::audit::At;

    pub(super) fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        At(*at).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        At::deserialize(deserializer).map(|at| at.0)
    }
}
