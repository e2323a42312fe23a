//! Events that a client reports. The client decides whether it heeds the answer, so a report informs; what has to hold is
//! enforced in band.

use std::sync::Arc;

use futures_util::future::join_all;
use http::HeaderMap;
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::hooks::{self as wire, Answer, Decision, Report, ReportError, mcp_server};
use sallyport_protocol::id::{PolicyVersion, TraceId};
use sallyport_protocol::package::HookEvent;
use sallyport_protocol::verdict::Verdict;
use serde_json::json;
use serde_json::value::RawValue;

use super::session::UserKey;
use super::{Hooks, MOST_DEPTH, Occasion, reported};
use crate::audit::{Event as Row, Kind, Outcome as Ended, Unavailable, Who};
use crate::auth::Principal;
use crate::component::Bundle;
use crate::component::contract::hook::{Event, Occurrence, Subagent, ToolCall, ToolFailure, ToolResult};
use crate::pipeline::lineage::Lineage;
use crate::pipeline::row::{self, HookRow};
use crate::pipeline::{Pipeline, facts};

/// Who reports, and how it came.
#[derive(Debug)]
pub struct Reporter {
    /// The verified caller.
    pub principal: Arc<Principal>,
    /// Headers, as they came.
    pub headers: HeaderMap,
    /// The client's own JSON.
    pub raw: String,
    /// The gateway's id of this HTTP request.
    pub request_id: String,
}

/// What came of a report.
#[derive(Debug)]
pub struct Reported {
    /// What the client is told.
    pub answer: Answer,
    /// The trace that it belongs to.
    pub trace: TraceId,
}

// === impl Pipeline ===

impl Pipeline {
    /// Asks the hooks in force about what a client reports. Answered once its rows are durable.
    pub async fn report(&self, reporter: Reporter, report: Report) -> Result<Reported, Unavailable> {
        let bundle = self.in_force.load().registry.snapshot(&reporter.principal.tenant);
        let bundle = bundle.seen_by(reporter.principal.user.as_str());
        self.hooks.report(&bundle, reporter, report).await
    }

    /// A report that cannot be read: a row says so.
    pub async fn refuse_report(
        &self,
        reporter: &Reporter,
        event: HookEvent,
        error: &ReportError,
    ) -> Result<(), Unavailable> {
        let version = self.policy_version(&reporter.principal.tenant);
        self.hooks.refuse_report(&version, reporter, event, error).await
    }
}

// === impl Hooks ===

impl Hooks {
    async fn report(
        &self,
        bundle: &Bundle,
        reporter: Reporter,
        report: Report,
    ) -> Result<Reported, Unavailable> {
        let Reporter { principal, headers, raw, request_id } = reporter;
        let session = UserKey::session(&principal, &report.session);
        let trace = self.trace_of_report(&principal, &headers, session, &report);
        let lineage = Lineage::of_report(&report, &principal);
        let who = row::who(&principal, &lineage, &trace, &bundle.version);
        let mut occasion = occasion(&report, &principal, &trace, raw);
        for (name, value) in [
            ("client_session", Some(report.session.as_str())),
            ("prompt_id", report.prompt.as_deref()),
            ("agent_id", report.agent.as_deref()),
            ("request_id", Some(request_id.as_str())),
            ("department", principal.department.as_deref()),
        ] {
            occasion.notes.extend(value.map(|value| (name, json!(value))));
        }
        let mut row = reported(&occasion, Ended::Allowed);
        let event = report.event;
        let exhausted = self.is_exhausted(session, &report);
        let mut answer = Answer::default();
        let mut rows = Vec::new();
        if exhausted {
            row::insert(&mut row.payload, "code", ErrorCode::HookDepth.as_str().into());
        } else {
            let told = self.dispatch(bundle, occasion).await;
            answer.context = told.context();
            answer.modified = told.modified.and_then(|json| RawValue::from_string(json).ok());
            if let Some(stopped) = told.stopped {
                row.outcome = Ended::Denied;
                let reason = format!("[{}] {}", stopped.hook, stopped.reason);
                answer.decision = if stopped.ask { Decision::Ask(reason) } else { Decision::Block(reason) };
            }
            rows = told.rows;
        }
        match event {
            HookEvent::SessionEnd => self.sessions.end(session),
            HookEvent::Stop if answer.decision != Decision::Proceed => self.sessions.resume(session),
            _ => {}
        }
        rows.insert(0, row);
        self.write_hooks(&who, rows).await?;
        Ok(Reported { answer, trace })
    }

    async fn refuse_report(
        &self,
        version: &PolicyVersion,
        reporter: &Reporter,
        event: HookEvent,
        error: &ReportError,
    ) -> Result<(), Unavailable> {
        let Reporter { principal, headers, request_id, .. } = reporter;
        let trace = facts::trace_of(headers, self.clock.as_ref(), self.entropy.as_ref());
        let payload = json!({
            "event": event.as_str(),
            "in_band": false,
            "verdict": Verdict::Refused,
            "code": ErrorCode::ReportMalformed,
            // The error may repeat what the client wrote.
            "reason": error.code(),
            "request_id": request_id,
        });
        let row = HookRow { outcome: Ended::Error, payload, step: None };
        self.write_hooks(
            &row::who(principal, &Lineage::of_call(headers, principal), &trace, version),
            vec![row],
        )
        .await
    }

    /// Rows of hooks outside a call, all durable.
    pub(super) async fn write_hooks(&self, who: &Who, rows: Vec<HookRow>) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let written = rows.into_iter().map(|HookRow { outcome, payload, .. }| {
            self.audit.record(Row::plain(now, Kind::Hook, who.clone(), outcome, payload))
        });
        join_all(written).await.into_iter().collect()
    }

    /// The call that asked for the tool, else the last call of the prompt or session, else a trace of its own.
    fn trace_of_report(
        &self,
        principal: &Principal,
        headers: &HeaderMap,
        session: UserKey,
        report: &Report,
    ) -> TraceId {
        let issued =
            report.what.tool().and_then(|tool| self.sessions.issued(UserKey::tool(principal, &tool.id)));
        issued
            .map(|issued| issued.trace)
            .or_else(|| self.sessions.trace(session, report.prompt.as_deref()))
            .unwrap_or_else(|| facts::trace_of(headers, self.clock.as_ref(), self.entropy.as_ref()))
    }

    /// Whether hooks have kept this turn from ending often enough: what they say makes the client go on, and the end of that is
    /// reported to them again.
    fn is_exhausted(&self, session: UserKey, report: &Report) -> bool {
        match &report.what {
            wire::Reported::Stop(stopping) => self.sessions.resumed(session, stopping.again) >= MOST_DEPTH,
            _ => false,
        }
    }
}

// === private helpers ===

fn occasion(report: &Report, principal: &Principal, trace: &TraceId, raw: String) -> Occasion {
    let tool = |call: &wire::ToolCall| ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        input: call.input.clone(),
        server: mcp_server(&call.name).map(str::to_owned),
    };
    let agent =
        |agent: &wire::Subagent| Subagent { id: agent.id.clone(), agent_type: agent.agent_type.clone() };
    let event = match &report.what {
        wire::Reported::SessionStart(source) => Event::SessionStart(source.clone()),
        wire::Reported::SessionEnd(reason) => Event::SessionEnd(reason.clone()),
        wire::Reported::UserPromptSubmit(prompt) => Event::UserPromptSubmit(prompt.clone()),
        wire::Reported::PreToolUse(call) => Event::PreToolUse(tool(call)),
        wire::Reported::PostToolUse { call, output, duration_ms } => Event::PostToolUse(ToolResult {
            call: tool(call),
            output: output.clone(),
            duration_ms: duration_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)),
        }),
        wire::Reported::PostToolUseFailure { call, error } => {
            Event::PostToolUseFailure(ToolFailure { call: tool(call), error: error.clone() })
        }
        wire::Reported::Notification { message, .. } => Event::Notification(message.clone()),
        wire::Reported::Stop(stopping) => Event::Stop(stopping.message.clone()),
        wire::Reported::SubagentStart(started) => Event::SubagentStart(agent(started)),
        wire::Reported::SubagentStop(stopped, _) => Event::SubagentStop(agent(stopped)),
    };
    let what = Occurrence {
        trace: trace.as_str().to_owned(),
        principal: facts::principal_facts(principal),
        event,
        in_band: false,
        raw: Some(raw),
        attributes: Vec::new(),
    };
    let tool = report.what.tool().map(|call| (call.id.clone(), call.name.clone()));
    let subject = report.what.subject().map(str::to_owned);
    Occasion { event: report.event, subject, tool, what, notes: Vec::new(), recorded: false }
}
