//! The rows of a call, gathered while it runs and written as one record when it ends.

use std::time::Duration;

use bytes::Bytes;
use sallyport_protocol::headers;
use sallyport_protocol::id::{PolicyVersion, TraceId};
use sallyport_protocol::messages::event::Usage;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::exchange::Exchanging;
use super::{Inbound, Operation, facts};
use crate::audit::{Event, Intent, Kind, Outcome, Who};
use crate::auth::{self, Principal};
use crate::clip::{NAME, clip};
use crate::clock::Clock;
use crate::component::contract::Attribute;
use crate::component::{Bundle, Component, Errand, Mode, Said};
use crate::config::{PriceList, Route};
use crate::evidence::{Gathering, Step};

/// What is known of a call so far.
pub(super) struct Record {
    who: Who,
    began: OffsetDateTime,
    started: Duration,
    operation: Operation,
    model: Option<String>,
    provider: Option<String>,
    payload: Map<String, Value>,
    components: Vec<Value>,
    hooks: Vec<HookRow>,
    tools: Vec<ToolCall>,
    usage: Usage,
    cost_micro: Option<i64>,
    first_byte: Option<Duration>,
    /// What components were asked, where it is recorded.
    gathering: Option<Gathering>,
}

/// A hook was asked.
#[derive(Debug)]
pub(super) struct HookRow {
    pub(super) outcome: Outcome,
    pub(super) payload: Value,
    /// What it was asked, where it is recorded.
    pub(super) step: Option<Box<Step>>,
}

/// How a call ended.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) code: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) status: Option<u16>,
}

/// A tool that the model asked for.
#[derive(Debug, Clone)]
pub(super) struct ToolCall {
    pub(super) id: String,
    pub(super) name: String,
    /// Why a hook stopped it, if one did.
    pub(super) blocked: Option<String>,
}

// === impl Record ===

impl Record {
    pub(super) fn begin(inbound: &Inbound, trace: &TraceId, bundle: &Bundle, clock: &dyn Clock) -> Self {
        let principal = &inbound.principal;
        let mut payload = Map::new();
        let mut note = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                payload.insert(name.to_owned(), value);
            }
        };
        let header = |name| facts::text(&inbound.headers, name).map(|text| Value::from(clip(text, NAME)));
        note("request_id", Some(inbound.request_id.clone().into()));
        note("operation", (inbound.operation == Operation::CountTokens).then(|| "count_tokens".into()));
        note("department", principal.department.clone().map(Value::from));
        note("agent", header(headers::AGENT_NAME));
        note("client_session", header(headers::CLAUDE_CODE_SESSION_ID));
        note("prompt_id", header(headers::CLAUDE_CODE_PROMPT_ID));
        note("credential", Some(principal.credential.id().into()));
        let foreign = auth::foreign_headers(&inbound.headers);
        note("ignored_headers", (!foreign.is_empty()).then(|| foreign.into()));
        note("body_bytes", Some(inbound.body.len().into()));
        note("body_blake3", Some(blake3::hash(&inbound.body).to_hex().as_str().into()));
        let retries = header("x-stainless-retry-count").filter(|count| count != "0");
        note("client_retry", retries);
        Self {
            who: who(principal, trace, &bundle.version),
            began: clock.now(),
            started: clock.monotonic(),
            operation: inbound.operation,
            model: None,
            provider: None,
            payload,
            components: Vec::new(),
            hooks: Vec::new(),
            tools: Vec::new(),
            usage: Usage::default(),
            cost_micro: None,
            first_byte: None,
            gathering: None,
        }
    }

    pub(super) fn model(&mut self, model: &str) {
        self.model = Some(model.to_owned());
    }

    pub(super) fn routed(&mut self, route: &Route) {
        self.provider = Some(route.provider.clone());
        self.note("route", route.pattern.as_str());
        if let Some(model) = &route.upstream_model {
            self.note("upstream_model", model.as_str());
        }
    }

    /// What goes upstream is not what the client sent.
    pub(super) fn forwards(&mut self, body: &[u8]) {
        self.note("forwarded_bytes", body.len());
        self.note("forwarded_blake3", blake3::hash(body).to_hex().as_str());
    }

    /// What components are asked is recorded from here on, up to so many bytes.
    pub(super) fn gather(&mut self, most: usize) {
        self.gathering = Some(Gathering::new(most));
    }

    /// Whether what components are asked is recorded.
    pub(super) fn gathers(&self) -> bool {
        self.gathering.is_some()
    }

    /// A component was asked; about `body`, if it was about one.
    pub(super) fn hear(&mut self, step: Step, body: Option<&Bytes>) {
        if let Some(gathering) = &mut self.gathering {
            gathering.hear(step, body);
        }
    }

    /// Everything that was gathered, and the version of the bundle that it was gathered under.
    pub(super) fn gathered(&mut self) -> Option<(Gathering, String)> {
        Some((self.gathering.take()?, self.who.policy_ver.clone()))
    }

    /// What is durable before anything goes upstream.
    pub(super) fn intent(&self) -> Intent {
        Intent {
            occurred_at: self.began,
            who: self.who.clone(),
            model: self.model.clone(),
            provider: self.provider.clone(),
            payload: Value::Object(self.payload.clone()),
        }
    }

    pub(super) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.payload.insert(name.to_owned(), value.into());
    }

    /// Which component said what, and how long it took.
    pub(super) fn component(
        &mut self,
        component: &Component,
        mode: Mode,
        verdict: &str,
        micros: u32,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        component.tally().count(said(verdict), micros);
        let mut row = evidence(component, verdict, micros);
        if mode != Mode::Enforce {
            insert(&mut row, "mode", mode.as_str().into());
        }
        for (name, value) in more {
            insert(&mut row, name, value);
        }
        self.components.push(row);
    }

    /// The provider's part.
    pub(super) fn provider(&mut self, exchanging: &Exchanging) {
        let losses = exchanging.losses();
        let verdict = if exchanging.is_broken() { "fault" } else { "served" };
        self.component(exchanging.component(), Mode::Enforce, verdict, exchanging.micros(), []);
        if !losses.is_empty() {
            let losses = losses.iter().map(|loss| json!({ "field": loss.field, "how": loss.how }));
            self.note("loss", losses.collect::<Vec<_>>());
        }
    }

    /// Hooks were told of something.
    pub(super) fn hooks(&mut self, mut rows: Vec<HookRow>) {
        for row in &mut rows {
            if let Some(step) = row.step.take() {
                self.hear(*step, None);
            }
        }
        self.hooks.extend(rows);
    }

    pub(super) fn tool(&mut self, tool: ToolCall) {
        self.tools.push(tool);
    }

    pub(super) fn used(&mut self, usage: Usage) {
        self.usage.merge(usage);
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) fn first_byte(&mut self, clock: &dyn Clock) {
        self.first_byte.get_or_insert_with(|| clock.monotonic().saturating_sub(self.started));
    }

    /// What the call costs, now that its usage is known.
    pub(super) fn price(&mut self, prices: &PriceList, model: &str) {
        let Some(provider) = &self.provider else { return };
        self.cost_micro = prices.price(provider, model, &self.usage);
        self.note("price_list", prices.version.as_str());
    }

    pub(super) fn cost_micro(&self) -> Option<i64> {
        self.cost_micro
    }

    /// All rows: the call, its tools, its hooks, its cost.
    pub(super) fn close(mut self, ending: &Ending, clock: &dyn Clock) -> Vec<Event> {
        let latency = clock.monotonic().saturating_sub(self.started);
        let latency_ms = i64::try_from(latency.as_millis()).ok();
        for (name, value) in [("code", &ending.code), ("reason", &ending.reason)] {
            if let Some(value) = value {
                self.note(name, value.as_str());
            }
        }
        if let Some(status) = ending.status {
            self.note("status", status);
        }
        if let Some(first) = self.first_byte {
            self.note("first_byte_ms", u64::try_from(first.as_millis()).unwrap_or(u64::MAX));
        }
        for (name, count) in [
            ("cache_read_tokens", self.usage.cache_read),
            ("cache_write_tokens", self.usage.cache_write),
            ("cache_write_1h_tokens", self.usage.cache_write_1h),
        ] {
            if let Some(count) = count {
                self.note(name, count);
            }
        }
        let components = std::mem::take(&mut self.components);
        self.note("components", components);
        let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
        let mut call = self.row(Kind::Inference, ending.outcome, Value::Object(self.payload.clone()));
        call.occurred_at = self.began;
        call.tokens_in = count(self.usage.input);
        call.tokens_out = count(self.usage.output);
        call.cost_micro = self.cost_micro;
        call.latency_ms = latency_ms;
        let mut rows = vec![call];
        for HookRow { outcome, payload, .. } in std::mem::take(&mut self.hooks) {
            rows.push(self.row(Kind::Hook, outcome, payload));
        }
        for tool in &self.tools {
            let outcome = if tool.blocked.is_some() { Outcome::Denied } else { Outcome::Allowed };
            let mut payload = json!({ "tool": tool.name, "tool_use_id": tool.id });
            if let Some(server) = server_of(&tool.name) {
                insert(&mut payload, "server", server.into());
            }
            if let Some(reason) = &tool.blocked {
                insert(&mut payload, "reason", reason.as_str().into());
            }
            rows.push(self.row(Kind::ToolCall, outcome, payload));
        }
        if self.operation == Operation::Message && !self.usage.is_unknown() {
            let mut payload = json!({ "priced": self.cost_micro.is_some() });
            if let Some(department) = self.payload.get("department") {
                insert(&mut payload, "department", department.clone());
            }
            let mut cost = self.row(Kind::Cost, ending.outcome, payload);
            cost.cost_micro = self.cost_micro;
            rows.push(cost);
        }
        let ended = clock.now();
        for row in rows.iter_mut().skip(1) {
            row.occurred_at = ended;
        }
        self.say(ending, latency);
        rows
    }

    /// The one line that the log has about a call: whose, what, and how it ended; never what was said.
    fn say(&self, ending: &Ending, latency: Duration) {
        let name = |text| clip(text, NAME);
        let model = self.model.as_deref().map(name);
        tracing::info!(
            caller.user = self.who.user_id,
            caller.session = &*name(&self.who.session_id),
            trace.id = self.who.trace_id,
            caller.client = self.who.client_id,
            tenant.id = self.who.tenant_id,
            policy.version = self.who.policy_ver,
            call.source = self.who.call_source,
            provider = self.provider.as_deref(),
            model = model.as_deref(),
            outcome = ending.outcome.as_str(),
            code = ending.code.as_deref().map(name).as_deref(),
            latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            tokens.input = self.usage.input,
            tokens.output = self.usage.output,
            cost_micro = self.cost_micro,
            "call ended"
        );
    }

    fn row(&self, kind: Kind, outcome: Outcome, payload: Value) -> Event {
        let row = Event::plain(self.began, kind, self.who.clone(), outcome, payload);
        Event { model: self.model.clone(), provider: self.provider.clone(), ..row }
    }
}

// === impl Ending ===

impl Ending {
    /// The call was served, with this status.
    pub(super) fn served(status: u16) -> Self {
        Self { outcome: Outcome::Allowed, code: None, reason: None, status: Some(status) }
    }

    /// The call failed.
    pub(super) fn failed(code: &str, reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Error,
            code: Some(code.to_owned()),
            reason: Some(reason.into()),
            status: None,
        }
    }
}

// === private helpers ===

/// What a verdict means for the component's tally.
pub(super) fn said(verdict: &str) -> Said {
    match verdict {
        "fault" | "garbage" => Said::Fault,
        "deny" | "ask" | "block" | "other" => Said::Refusal,
        _ => Said::Answer,
    }
}

/// The seven columns of a caller within a trace.
pub(super) fn who(principal: &Principal, trace: &TraceId, version: &PolicyVersion) -> Who {
    Who {
        user_id: principal.user.as_str().to_owned(),
        session_id: principal.session.as_str().to_owned(),
        trace_id: trace.as_str().to_owned(),
        client_id: principal.client.as_str().to_owned(),
        tenant_id: principal.tenant.as_str().to_owned(),
        policy_ver: version.as_str().to_owned(),
        call_source: principal.source.as_str().to_owned(),
    }
}

pub(super) fn evidence(component: &Component, verdict: &str, micros: u32) -> Value {
    json!({
        "name": component.name(),
        "version": component.version().to_string(),
        "digest": component.digest(),
        "config": component.config_digest(),
        "verdict": verdict,
        // Counting fuel would cost every call a quarter more time; replay counts it.
        "fuel": null,
        "micros": micros,
    })
}

pub(super) fn notes_of(notes: &[Attribute]) -> Value {
    notes.iter().map(|note| json!({ "name": note.name, "value": note.value })).collect()
}

/// One request that a hook made to the outside: through which grant, and what came of it.
pub(super) fn errand(errand: &Errand) -> Value {
    let ms = u64::try_from(errand.took.as_millis()).unwrap_or(u64::MAX);
    match errand.outcome {
        Ok(status) => json!({ "grant": errand.grant, "status": status, "bytes": errand.bytes, "ms": ms }),
        Err(fault) => json!({ "grant": errand.grant, "fault": fault, "ms": ms }),
    }
}

pub(super) fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// The MCP server of a tool, as Claude clients name them: `mcp__<server>__<tool>`.
pub(super) fn server_of(tool: &str) -> Option<&str> {
    tool.strip_prefix("mcp__")?.split_once("__").map(|(server, _)| server)
}
