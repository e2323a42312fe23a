//! What is recorded: events and intents, and how they become a row's JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::db::audit::At;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call of a model.
    Inference,
    /// A tool that the model asked for.
    ToolCall,
    /// A tool run through the MCP proxy.
    McpExec,
    /// What a call cost; closes a trace.
    Cost,
    /// A sign-in, or its refusal.
    Auth,
    /// A report of a hook.
    Hook,
    /// A change made by an administrator, or by the gateway to itself.
    Admin,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It went through.
    Allowed,
    /// A policy, or the gateway, said no.
    Denied,
    /// It failed.
    Error,
}

/// Who did it, and in which context: the seven claims of the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
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
}

/// One row of the audit trail.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// What happened.
    pub kind: Kind,
    /// Who did it.
    pub who: Who,
    /// The model asked for.
    pub model: Option<String>,
    /// The provider that served it.
    pub provider: Option<String>,
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
    pub payload: Value,
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
    pub model: Option<String>,
    /// The provider it goes to.
    pub provider: Option<String>,
    /// What is known before the call; becomes the payload of the row if the call is interrupted.
    pub payload: Value,
}

/// An intent that is larger keeps the essence of its payload.
const LARGEST_INTENT: usize = 16 * 1024;
/// A text column holds at most so many bytes: a client chooses the name of a model, and a row must always fit a record.
const LONGEST_TEXT: usize = 256;

/// The columns of the table in their order.
#[derive(Serialize)]
struct Line<'a> {
    occurred_at: At,
    kind: Kind,
    user_id: &'a str,
    session_id: &'a str,
    trace_id: &'a str,
    client_id: &'a str,
    tenant_id: &'a str,
    policy_ver: &'a str,
    call_source: &'a str,
    model: Option<&'a str>,
    provider: Option<&'a str>,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    cost_micro: Option<i64>,
    latency_ms: Option<i64>,
    outcome: Outcome,
    payload: &'a Value,
}

// === impl Outcome ===

impl Outcome {
    /// As it stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

// === impl Who ===

impl Who {
    /// Nobody in particular: the gateway itself, or a caller who is not known.
    pub fn nobody() -> Self {
        let none = || "-".to_owned();
        Self {
            user_id: none(),
            session_id: none(),
            trace_id: none(),
            client_id: none(),
            tenant_id: none(),
            policy_ver: "unversioned".to_owned(),
            call_source: none(),
        }
    }
}

// === impl Event ===

impl Event {
    /// A row that is about no model: a sign-in, a change.
    pub fn plain(
        occurred_at: OffsetDateTime,
        kind: Kind,
        who: Who,
        outcome: Outcome,
        payload: Value,
    ) -> Self {
        Self {
            occurred_at,
            kind,
            who,
            model: None,
            provider: None,
            tokens_in: None,
            tokens_out: None,
            cost_micro: None,
            latency_ms: None,
            outcome,
            payload,
        }
    }

    fn line(&self) -> Line<'_> {
        Line {
            occurred_at: At(self.occurred_at),
            kind: self.kind,
            user_id: clip(&self.who.user_id),
            session_id: clip(&self.who.session_id),
            trace_id: clip(&self.who.trace_id),
            client_id: clip(&self.who.client_id),
            tenant_id: clip(&self.who.tenant_id),
            policy_ver: clip(&self.who.policy_ver),
            call_source: clip(&self.who.call_source),
            model: self.model.as_deref().map(clip),
            provider: self.provider.as_deref().map(clip),
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            cost_micro: self.cost_micro,
            latency_ms: self.latency_ms,
            outcome: self.outcome,
            payload: &self.payload,
        }
    }
}

// === impl Intent ===

impl Intent {
    /// The intent as the body of a record.
    pub(super) fn body(&self) -> Vec<u8> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if bytes.len() <= LARGEST_INTENT {
            return bytes;
        }
        let model = self.model.as_deref().map(|model| clip(model).to_owned());
        let small = Self { model, payload: essence(&self.payload), ..self.clone() };
        serde_json::to_vec(&small).unwrap_or_default()
    }

    /// The intent in the body of a record.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The row of a call whose outcome nobody recorded.
    pub(super) fn interrupted(self, now: OffsetDateTime) -> Event {
        let mut payload = if self.payload.is_object() { self.payload } else { json!({}) };
        if let Some(fields) = payload.as_object_mut() {
            fields.insert("reason".to_owned(), Value::from("interrupted"));
        }
        let passed = (now - self.occurred_at).whole_milliseconds();
        Event {
            occurred_at: self.occurred_at,
            kind: Kind::Inference,
            who: self.who,
            model: self.model,
            provider: self.provider,
            tokens_in: None,
            tokens_out: None,
            cost_micro: None,
            latency_ms: i64::try_from(passed.max(0)).ok(),
            outcome: Outcome::Error,
            payload,
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

/// The rows as the body of a record: a JSON array of objects with the table's column names.
pub(super) fn body(rows: &[Event]) -> Vec<u8> {
    let lines: Vec<Line<'_>> = rows.iter().map(Event::line).collect();
    let bytes = serde_json::to_vec(&lines).unwrap_or_default();
    if memchr::memmem::find(&bytes, br"\u0000").is_none() {
        return bytes;
    }
    // PostgreSQL has no NUL in text: one in a tool's name must not keep the row, and all behind it, out of the table.
    let mut clean = serde_json::to_value(&lines).unwrap_or_default();
    without_nul(&mut clean);
    serde_json::to_vec(&clean).unwrap_or_default()
}

/// The same rows with payloads cut to the fields that say what happened, for when there is no room for more. Rows that
/// still do not fit are left out, the last first, and counted in the first one.
pub(super) fn shrink(body: &[u8], limit: usize) -> (Vec<u8>, usize) {
    let mut rows: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
    for row in &mut rows {
        if let Some(fields) = row.as_object_mut() {
            let kept = fields.get("payload").map(essence).unwrap_or_default();
            fields.insert("payload".to_owned(), kept);
        }
    }
    let mut dropped = 0_usize;
    loop {
        let bytes = serde_json::to_vec(&rows).unwrap_or_default();
        if bytes.len() <= limit || rows.len() <= 1 {
            let count = rows.len();
            return (bytes, count);
        }
        rows.pop();
        dropped += 1;
        if let Some(payload) =
            rows.first_mut().and_then(|row| row.get_mut("payload")).and_then(Value::as_object_mut)
        {
            payload.insert("rows_left_out".to_owned(), Value::from(dropped));
        }
    }
}

fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default()
}

fn essence(payload: &Value) -> Value {
    let mut kept = json!({ "truncated": true });
    for name in ["reason", "code", "tool", "server", "department", "agent"] {
        if let (Some(text), Some(fields)) = (payload.get(name).and_then(Value::as_str), kept.as_object_mut())
        {
            fields.insert(name.to_owned(), Value::from(text.chars().take(64).collect::<String>()));
        }
    }
    kept
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(fields) => {
            let owned = std::mem::take(fields);
            fields.extend(owned.into_iter().map(|(name, mut value)| {
                without_nul(&mut value);
                (name.replace('\0', "\u{fffd}"), value)
            }));
        }
        _ => {}
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
