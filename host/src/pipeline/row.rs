//! The rows of a call, gathered while it runs and written as one record when it ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::headers;
use sallyport_protocol::hooks::mcp_server;
use sallyport_protocol::id::{PolicyVersion, TraceId};
use sallyport_protocol::messages::event::Usage;
use sallyport_protocol::verdict::Verdict;
use serde_json::{Value, json};

use super::lineage::Lineage;
use super::many::{ComponentSums, ModelCost};
use super::refuse::RefusalCode;
use super::retries::Retry;
use super::{Inbound, Operation, facts};
use crate::audit::{Event, Intent, JsonEntries, Kind, Outcome, RowFields, Who};
use crate::auth::{self, Principal};
use crate::clip::{NAME, clip};
use crate::clock::Clock;
use crate::component::contract::Attribute;
use crate::component::contract::provider::Loss;
use crate::component::{Bundle, Component, EgressCall, Mode, Said};
use crate::config::{PriceList, Route, RouteTarget};
use crate::evidence::{Gathering, RecordedStep};

/// What is known of a call so far.
pub(super) struct Record {
    /// Whose call it is, and everything that is noted of it: durable before anything goes upstream, the row in the end.
    call: Intent,
    started: Duration,
    operation: Operation,
    components: JsonEntries,
    /// What components said of the requests of a batch, where these are summed up.
    sums: Option<ComponentSums>,
    /// What the requests of a batch cost, by the model that answered.
    costs: Vec<ModelCost>,
    hooks: Vec<HookRow>,
    tools: Vec<ToolCall>,
    /// Targets that were asked, or passed over.
    attempts: Vec<Value>,
    /// It is a copy of another call.
    mirror: bool,
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
    pub(super) step: Option<Box<RecordedStep>>,
}

/// What a provider did in a call.
#[derive(Clone, Copy)]
pub(super) struct ProviderPart<'a> {
    pub(super) component: &'a Component,
    /// Guest time so far.
    pub(super) micros: u32,
    /// How often the guest was called.
    pub(super) calls: u32,
    /// The provider failed, rather than its upstream.
    pub(super) broken: bool,
    /// What of the request it could not carry.
    pub(super) losses: &'a [Loss],
}

/// How a call ended.
pub(super) struct CallEnding {
    pub(super) outcome: Outcome,
    pub(super) code: Option<RefusalCode>,
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
    pub(super) fn begin(
        inbound: &Inbound,
        body: &blake3::Hash,
        lineage: &Lineage,
        trace: &TraceId,
        bundle: &Bundle,
        clock: &dyn Clock,
    ) -> Self {
        let principal = &inbound.principal;
        let mut payload = RowFields::new();
        let mut note = |name: &'static str, value: Option<Value>| {
            if let Some(value) = value {
                payload.set(name, value);
            }
        };
        let header = |name| facts::text(&inbound.headers, name).map(|text| Value::from(clip(text, NAME)));
        note("request_id", Some(inbound.request_id.clone().into()));
        note(
            "operation",
            (inbound.operation != Operation::Message).then(|| inbound.operation.as_str().into()),
        );
        note("department", principal.department.as_deref().map(Value::from));
        note("agent", header(headers::AGENT_NAME));
        // A name that is too long to be one joins nothing, and is on the row all the same.
        note("client_session", header(headers::CLAUDE_CODE_SESSION_ID));
        note("prompt_id", header(headers::CLAUDE_CODE_PROMPT_ID));
        note("agent_id", header(headers::CLAUDE_CODE_AGENT_ID));
        note("credential", Some(principal.credential.id().into()));
        let foreign = auth::foreign_headers(&inbound.headers);
        note("ignored_headers", (!foreign.is_empty()).then(|| foreign.into()));
        note("body_bytes", Some(inbound.body.len().into()));
        note("body_blake3", Some(body.to_hex().as_str().into()));
        let retries = header("x-stainless-retry-count").filter(|count| count != "0");
        note("client_retry", retries);
        let call = Intent {
            occurred_at: clock.now(),
            who: who(principal, lineage, trace, &bundle.version),
            model: None,
            provider: None,
            payload,
        };
        Self {
            call,
            started: clock.monotonic(),
            operation: inbound.operation,
            components: JsonEntries::default(),
            sums: None,
            costs: Vec::new(),
            hooks: Vec::new(),
            tools: Vec::new(),
            attempts: Vec::new(),
            mirror: false,
            usage: Usage::default(),
            cost_micro: None,
            first_byte: None,
            gathering: None,
        }
    }

    pub(super) fn model(&mut self, model: &str) {
        self.call.model = Some(model.into());
    }

    pub(super) fn routed(&mut self, route: &Route, target: &RouteTarget) {
        self.note("route", route.pattern.as_str());
        self.goes_to(target);
    }

    /// The call is a copy of this one, made for a shadow.
    pub(super) fn mirrors(&mut self, original: &TraceId, model: &str) {
        self.mirror = true;
        self.model(model);
        self.note("shadow_of", original.as_str());
    }

    /// Whether it is such a copy.
    pub(super) fn is_mirror(&self) -> bool {
        self.mirror
    }

    /// Which target is asked now.
    pub(super) fn goes_to(&mut self, target: &RouteTarget) {
        self.call.provider = Some(target.provider.as_str().into());
        match &target.upstream_model {
            Some(model) => self.note("upstream_model", model.as_str()),
            None => self.call.payload.remove("upstream_model"),
        }
    }

    /// One target was asked, or passed over.
    pub(super) fn attempt(&mut self, entry: Value) {
        self.attempts.push(entry);
    }

    /// The client asked for the same before, and did not get it.
    pub(super) fn repeats(&mut self, retry: &Retry) {
        self.note("retry_of", retry.first.as_str());
        self.note("attempt", retry.attempt);
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

    /// Records one question to a component and its answer, and the body that it was about, if it was about one.
    pub(super) fn record_step(&mut self, step: RecordedStep, body: Option<&Bytes>) {
        if let Some(gathering) = &mut self.gathering {
            gathering.hear(step, body);
        }
    }

    /// Everything that was gathered, and the version of the bundle that it was gathered under.
    pub(super) fn gathered(&mut self) -> Option<(Gathering, String)> {
        Some((self.gathering.take()?, self.call.who.policy_ver.as_ref().to_owned()))
    }

    /// What is durable before anything goes upstream.
    pub(super) fn intent(&self) -> &Intent {
        &self.call
    }

    pub(super) fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        self.call.payload.set(name, value);
    }

    /// Which component said what, and how long it took.
    pub(super) fn component(
        &mut self,
        component: &Component,
        mode: Mode,
        verdict: Verdict,
        micros: u32,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        component.tally().count(said(verdict), micros);
        self.entry(component, mode, verdict, micros, more);
    }

    /// What a policy had said before of the same facts.
    pub(super) fn remembered(
        &mut self,
        component: &Component,
        mode: Mode,
        verdict: Verdict,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        component.tally().count_remembered(said(verdict));
        self.entry(component, mode, verdict, 0, [("remembered", true.into())].into_iter().chain(more));
    }

    fn entry(
        &mut self,
        component: &Component,
        mode: Mode,
        verdict: Verdict,
        micros: u32,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        if let Some(sums) = &mut self.sums
            && sums.take(component, mode, verdict, micros)
        {
            return;
        }
        let mode = (mode != Mode::Enforce).then(|| ("mode", mode.as_str().into()));
        let more = [("micros", micros.into())].into_iter().chain(mode).chain(more);
        self.components.push(component.evidence(), ("verdict", verdict.as_str()), more);
    }

    /// From here on a component that has nothing against a request is counted, and not listed each time.
    pub(super) fn sum_up(&mut self) {
        self.sums = Some(ComponentSums::default());
    }

    /// What the requests of a batch cost: one row for each model.
    pub(super) fn costs(&mut self, costs: Vec<ModelCost>) {
        self.costs = costs;
    }

    /// The provider's part.
    pub(super) fn provider(&mut self, part: ProviderPart<'_>) {
        let ProviderPart { component, micros, calls, broken, losses } = part;
        let verdict = if broken { Verdict::Fault } else { Verdict::Served };
        self.component(component, Mode::Enforce, verdict, micros, [("calls", calls.into())]);
        if !losses.is_empty() {
            let losses = losses.iter().map(|loss| json!({ "field": loss.field, "how": loss.how }));
            self.note("loss", losses.collect::<Vec<_>>());
        }
    }

    /// Hooks were told of something.
    pub(super) fn hooks(&mut self, mut rows: Vec<HookRow>) {
        for row in &mut rows {
            if let Some(step) = row.step.take() {
                self.record_step(*step, None);
            }
        }
        self.hooks.extend(rows);
    }

    /// The model asked for a tool. What a copy's model asked for nobody runs.
    pub(super) fn tool(&mut self, tool: ToolCall) {
        if self.mirror {
            return;
        }
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
        let Some(provider) = &self.call.provider else { return };
        self.cost_micro = prices.on(self.call.occurred_at.date()).price(provider, model, &self.usage);
        if let (Some(cost), Some(last)) = (self.cost_micro, self.attempts.last_mut()) {
            insert(last, "cost_micro", cost.into());
        }
        self.note("price_list", prices.version.as_str());
    }

    pub(super) fn cost_micro(&self) -> Option<i64> {
        self.cost_micro
    }

    /// All rows: the call, its tools, its hooks, its cost.
    pub(super) fn close(mut self, ending: &CallEnding, clock: &dyn Clock) -> Vec<Event> {
        let latency = clock.monotonic().saturating_sub(self.started);
        let latency_ms = i64::try_from(latency.as_millis()).ok();
        let code = ending.code.as_ref().map(RefusalCode::as_str);
        for (name, value) in [("code", code), ("reason", ending.reason.as_deref())] {
            if let Some(value) = value {
                self.note(name, value);
            }
        }
        if let Some(status) = ending.status {
            self.note("status", status);
        }
        if !self.attempts.is_empty() {
            let attempts = std::mem::take(&mut self.attempts);
            self.note("attempts", attempts);
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
        if let Some(sums) = self.sums.take() {
            sums.list(&mut self.components);
        }
        self.say(ending, latency);
        let Self { call, components, hooks, tools, usage, cost_micro, operation, costs, .. } = self;
        let Intent { occurred_at, who, model, provider, payload: noted } = call;
        let who = Arc::new(who);
        let row = |kind, outcome, payload: RowFields| {
            let row = Event::plain(occurred_at, kind, Arc::clone(&who), outcome, payload);
            Event { model: model.clone(), provider: provider.clone(), ..row }
        };
        // Of the call, with its cost, what hooks said, and its tools.
        let mut others = Vec::with_capacity(2 + hooks.len() + tools.len());
        for HookRow { outcome, payload, .. } in hooks {
            others.push(row(Kind::Hook, outcome, payload.into()));
        }
        for tool in &tools {
            let outcome = if tool.blocked.is_some() { Outcome::Denied } else { Outcome::Allowed };
            let mut payload = json!({ "tool": tool.name, "tool_use_id": tool.id });
            if let Some(server) = mcp_server(&tool.name) {
                insert(&mut payload, "server", server.into());
            }
            if let Some(reason) = &tool.blocked {
                insert(&mut payload, "reason", reason.as_str().into());
            }
            others.push(row(Kind::ToolCall, outcome, payload.into()));
        }
        for cost in &costs {
            let row = row(Kind::Cost, ending.outcome, cost.payload(noted.get("department")).into());
            others.push(Event {
                model: Some(cost.model.as_str().into()),
                cost_micro: cost.cost_micro,
                ..row
            });
        }
        if operation == Operation::Message && costs.is_empty() && !usage.is_unknown() {
            let mut payload = RowFields::default();
            payload.set("priced", cost_micro.is_some());
            for name in ["usage", "department"] {
                if let Some(known) = noted.get(name) {
                    payload.set(name, known.clone());
                }
            }
            others.push(Event { cost_micro, ..row(Kind::Cost, ending.outcome, payload) });
        }
        let ended = clock.now();
        for row in &mut others {
            row.occurred_at = ended;
        }
        let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
        let inference = Event {
            model,
            provider,
            tokens_in: count(usage.input),
            tokens_out: count(usage.output),
            cost_micro,
            latency_ms,
            components,
            ..Event::plain(occurred_at, Kind::Inference, who, ending.outcome, noted)
        };
        others.insert(0, inference);
        others
    }

    /// The one line that the log has about a call: whose, what, and how it ended; never what was said.
    fn say(&self, ending: &CallEnding, latency: Duration) {
        let name = |text| clip(text, NAME);
        let model = self.call.model.as_deref().map(name);
        tracing::info!(
            caller.user = self.call.who.user_id.as_ref(),
            caller.session = &*name(&self.call.who.session_id),
            trace.id = self.call.who.trace_id.as_ref(),
            caller.client = self.call.who.client_id.as_ref(),
            tenant.id = self.call.who.tenant_id.as_ref(),
            policy.version = self.call.who.policy_ver.as_ref(),
            call.source = self.call.who.call_source.as_ref(),
            provider = self.call.provider.as_deref(),
            model = model.as_deref(),
            outcome = ending.outcome.as_str(),
            code = ending.code.as_ref().map(RefusalCode::as_str),
            latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            tokens.in = self.usage.input,
            tokens.out = self.usage.output,
            cost_micro = self.cost_micro,
            "call ended"
        );
    }
}

// === impl CallEnding ===

impl CallEnding {
    /// The call was served, with this status.
    pub(super) fn served(status: u16) -> Self {
        Self { outcome: Outcome::Allowed, code: None, reason: None, status: Some(status) }
    }

    /// The call failed.
    pub(super) fn failed(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Error,
            code: Some(RefusalCode::Own(code)),
            reason: Some(reason.into()),
            status: None,
        }
    }
}

// === private helpers ===

/// What a verdict means for the component's tally.
pub(super) fn said(verdict: Verdict) -> Said {
    match verdict {
        Verdict::Fault | Verdict::Garbage => Said::Fault,
        Verdict::Deny | Verdict::Ask | Verdict::Block | Verdict::Other => Said::Refusal,
        Verdict::Allow
        | Verdict::Flag
        | Verdict::Redact
        | Verdict::Match
        | Verdict::NoMatch
        | Verdict::Served
        | Verdict::Proceed
        | Verdict::Modify
        | Verdict::AddContext
        | Verdict::Reported
        | Verdict::Refused => Said::Answer,
    }
}

/// The seven columns of a caller within a trace.
pub(super) fn who(principal: &Principal, lineage: &Lineage, trace: &TraceId, version: &PolicyVersion) -> Who {
    Who {
        user_id: principal.user.shared(),
        session_id: lineage.session_id.shared(),
        trace_id: trace.shared(),
        client_id: principal.client.shared(),
        tenant_id: principal.tenant.shared(),
        policy_ver: version.shared(),
        call_source: lineage.source.as_str().into(),
    }
}

pub(super) fn evidence(component: &Component, verdict: Verdict, micros: u32) -> Value {
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

/// One request that a hook made: through which grant, and what came of it.
pub(super) fn egress_call(egress_call: &EgressCall) -> Value {
    let ms = u64::try_from(egress_call.took.as_millis()).unwrap_or(u64::MAX);
    match egress_call.outcome {
        Ok(status) => {
            json!({ "grant": egress_call.grant, "status": status, "bytes": egress_call.bytes, "ms": ms })
        }
        Err(fault) => json!({ "grant": egress_call.grant, "fault": fault, "ms": ms }),
    }
}

pub(super) fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}
