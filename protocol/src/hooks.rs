//! Lifecycle events as Claude Code reports them over HTTP, what it understands as an answer, and how a hook is attached to
//! some of them.
//!
//! Vendor's page: <https://code.claude.com/docs/en/hooks>. What is not known here is passed over; what is read has to have the
//! type that the page gives it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::package::HookEvent;

mod matcher;

pub use self::matcher::{Matcher, MatcherError};

/// Longest id of a session, prompt, tool call or agent.
const LONGEST_ID: usize = 256;

/// An event that a client reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which event.
    pub event: HookEvent,
    /// The client's session.
    pub session: String,
    /// The client's prompt, which ties what it caused together.
    pub prompt: Option<String>,
    /// The client's subagent in which it happened.
    pub agent: Option<String>,
    /// What happened.
    pub what: Reported,
}

/// What happened, by event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// A session began: `startup`, `resume`, `clear`, `compact`.
    SessionStart(String),
    /// A session ended: why.
    SessionEnd(String),
    /// The user sent this prompt.
    UserPromptSubmit(String),
    /// A tool is about to run.
    PreToolUse(ToolCall),
    /// A tool answered.
    PostToolUse {
        /// The call.
        call: ToolCall,
        /// The answer: the text where it is one, else JSON.
        output: String,
        /// How long it took.
        duration_ms: Option<u64>,
    },
    /// A tool failed.
    PostToolUseFailure {
        /// The call.
        call: ToolCall,
        /// Why.
        error: String,
    },
    /// The client notified its user.
    Notification {
        /// The message.
        message: String,
        /// `permission_prompt`, `idle_prompt`, ...
        kind: Option<String>,
    },
    /// The model finished its turn.
    Stop(Stopping),
    /// An agent began.
    SubagentStart(Subagent),
    /// An agent ended.
    SubagentStop(Subagent, Stopping),
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// `toolu_...`
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its input: JSON.
    pub input: String,
}

/// The end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopping {
    /// The model's last text.
    pub message: String,
    /// Whether the turn went on only because a hook would not let it end.
    pub again: bool,
}

/// An agent that another agent started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subagent {
    /// The client's id of it.
    pub id: String,
    /// Which kind of agent.
    pub agent_type: String,
}

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is no JSON object, or something in it has another type, is missing or stands twice.
    #[error("the report cannot be read: {0}")]
    Shape(#[source] serde_json::Error),
    /// It reports something else than its address says.
    #[error("the report is of {found}, but was sent as {wanted}")]
    OtherEvent {
        /// What the body says.
        found: String,
        /// What the address says.
        wanted: HookEvent,
    },
    /// An id that is empty, too long, or holds control characters.
    #[error("{0} is no id")]
    Id(&'static str),
}

/// What the client is told.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Whether it may go on.
    pub decision: Decision,
    /// New tool input or tool output.
    pub modified: Option<Box<RawValue>>,
    /// Text for the model.
    pub context: Option<String>,
}

/// Whether what happened may go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Decision {
    /// Nothing stands against it; the client's own rules still apply.
    #[default]
    Proceed,
    /// No, and why.
    Block(String),
    /// The user decides, and why.
    Ask(String),
}

/// What a hook does where it cannot answer. As JSON: `"block"`, `"continue"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// What happened does not go on.
    Block,
    /// It goes on.
    Continue,
}

/// How a hook is attached to its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// What it is told of.
    pub matcher: Matcher,
    /// What becomes of an event that it does not answer; by default what [`OnFault::of`] says.
    pub on_fault: Option<OnFault>,
    /// How long an answer may take, waiting included; by default as long as the host lets any guest.
    pub timeout: Option<Duration>,
}

#[derive(Deserialize)]
struct Head {
    hook_event_name: String,
    session_id: String,
    prompt_id: Option<String>,
    agent_id: Option<String>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(rename = "tool_use_id")]
    id: String,
    #[serde(rename = "tool_name")]
    name: String,
    #[serde(borrow, rename = "tool_input")]
    input: &'a RawValue,
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    tool_response: &'a RawValue,
    duration_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Failed {
    error: String,
}

#[derive(Deserialize)]
struct Started {
    source: String,
}

#[derive(Deserialize)]
struct Ended {
    reason: String,
}

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
}

#[derive(Deserialize)]
struct Notified {
    message: String,
    notification_type: Option<String>,
}

#[derive(Deserialize)]
struct Agent {
    agent_id: String,
    agent_type: String,
}

#[derive(Deserialize)]
struct Stop {
    #[serde(default)]
    last_assistant_message: Option<String>,
    #[serde(default)]
    stop_hook_active: bool,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    go_on: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_specific_output: Option<Specific<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Specific<'a> {
    hook_event_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    permission_decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permission_decision_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_tool_output: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_context: Option<&'a str>,
}

// === impl Report ===

impl Report {
    /// Reads the body of a report that was sent as `wanted`. Errors: [`ReportError`].
    pub fn parse(wanted: HookEvent, body: &[u8]) -> Result<Self, ReportError> {
        let head: Head = read(body)?;
        if HookEvent::parse(&head.hook_event_name) != Some(wanted) {
            let found = head.hook_event_name.chars().take(64).collect();
            return Err(ReportError::OtherEvent { found, wanted });
        }
        check_id("session_id", &head.session_id)?;
        if let Some(prompt) = &head.prompt_id {
            check_id("prompt_id", prompt)?;
        }
        if let Some(agent) = &head.agent_id {
            check_id("agent_id", agent)?;
        }
        let what = match wanted {
            HookEvent::SessionStart => Reported::SessionStart(read::<Started>(body)?.source),
            HookEvent::SessionEnd => Reported::SessionEnd(read::<Ended>(body)?.reason),
            HookEvent::UserPromptSubmit => Reported::UserPromptSubmit(read::<Prompt>(body)?.prompt),
            HookEvent::PreToolUse => Reported::PreToolUse(tool_call(body)?),
            HookEvent::PostToolUse => {
                let Answered { tool_response, duration_ms } = read(body)?;
                let output = output(tool_response);
                Reported::PostToolUse { call: tool_call(body)?, output, duration_ms }
            }
            HookEvent::PostToolUseFailure => {
                Reported::PostToolUseFailure { call: tool_call(body)?, error: read::<Failed>(body)?.error }
            }
            HookEvent::Notification => {
                let Notified { message, notification_type } = read(body)?;
                Reported::Notification { message, kind: notification_type }
            }
            HookEvent::Stop => Reported::Stop(stopping(body)?),
            HookEvent::SubagentStart => Reported::SubagentStart(agent(body)?),
            HookEvent::SubagentStop => Reported::SubagentStop(agent(body)?, stopping(body)?),
        };
        let Head { session_id, prompt_id, agent_id, .. } = head;
        Ok(Self { event: wanted, session: session_id, prompt: prompt_id, agent: agent_id, what })
    }
}

// === impl ReportError ===

impl ReportError {
    /// A stable name, for rows.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Shape(_) => "shape",
            Self::OtherEvent { .. } => "other_event",
            Self::Id(_) => "id",
        }
    }
}

// === impl Reported ===

impl Reported {
    /// The tool call it is about, if it is about one.
    pub fn tool(&self) -> Option<&ToolCall> {
        match self {
            Self::PreToolUse(call)
            | Self::PostToolUse { call, .. }
            | Self::PostToolUseFailure { call, .. } => Some(call),
            _ => None,
        }
    }

    /// What matchers look at: the tool's name, the source, the reason, the kind of notification or agent.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::SessionStart(subject) | Self::SessionEnd(subject) => Some(subject),
            Self::Notification { kind, .. } => kind.as_deref(),
            Self::SubagentStart(agent) | Self::SubagentStop(agent, _) => Some(&agent.agent_type),
            Self::UserPromptSubmit(_) | Self::Stop(_) => None,
            Self::PreToolUse(_) | Self::PostToolUse { .. } | Self::PostToolUseFailure { .. } => {
                self.tool().map(|call| call.name.as_str())
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    /// The client's schema. What the event has no word for is left out.
    pub fn to_json(&self, event: HookEvent) -> String {
        let mut specific = Specific {
            hook_event_name: event.as_str(),
            permission_decision: None,
            permission_decision_reason: None,
            updated_input: None,
            updated_tool_output: None,
            additional_context: self.context.as_deref(),
        };
        let mut wire = Wire::default();
        match (event, &self.decision) {
            (HookEvent::PreToolUse, decision) => {
                (specific.permission_decision, specific.permission_decision_reason) = match decision {
                    Decision::Block(reason) => (Some("deny"), Some(reason.as_str())),
                    Decision::Ask(reason) => (Some("ask"), Some(reason.as_str())),
                    // An input is replaced only beside a decision.
                    Decision::Proceed if self.modified.is_some() => (Some("allow"), None),
                    // To say "allow" would pass over the user's own rules.
                    Decision::Proceed => (None, None),
                };
                if !matches!(decision, Decision::Block(_)) {
                    specific.updated_input = self.modified.as_deref();
                }
            }
            (_, Decision::Proceed) => {}
            (HookEvent::SessionStart, Decision::Block(reason) | Decision::Ask(reason)) => {
                (wire.go_on, wire.stop_reason) = (Some(false), Some(reason.as_str()));
            }
            (_, Decision::Block(reason) | Decision::Ask(reason)) => {
                (wire.decision, wire.reason) = (Some("block"), Some(reason.as_str()));
            }
        }
        if event == HookEvent::PostToolUse {
            specific.updated_tool_output = self.modified.as_deref();
        }
        if specific.says_something() {
            wire.hook_specific_output = Some(specific);
        }
        serde_json::to_string(&wire).unwrap_or_else(|_| "{}".to_owned())
    }
}

impl Specific<'_> {
    fn says_something(&self) -> bool {
        self.permission_decision.is_some()
            || self.updated_input.is_some()
            || self.updated_tool_output.is_some()
            || self.additional_context.is_some()
    }
}

// === impl OnFault ===

impl OnFault {
    /// What holds where nothing is said: what has not happened yet does not happen.
    pub const fn of(event: HookEvent) -> Self {
        match event {
            HookEvent::PreToolUse | HookEvent::UserPromptSubmit => Self::Block,
            _ => Self::Continue,
        }
    }

    /// As written in configuration and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Continue => "continue",
        }
    }
}

// === impl Attachment ===

impl Attachment {
    /// What becomes of `event` where the hook does not answer.
    pub fn on_fault(&self, event: HookEvent) -> OnFault {
        self.on_fault.unwrap_or_else(|| OnFault::of(event))
    }
}

// === private helpers ===

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ReportError> {
    serde_json::from_slice(body).map_err(ReportError::Shape)
}

fn check_id(name: &'static str, id: &str) -> Result<(), ReportError> {
    let fine = !id.is_empty() && id.len() <= LONGEST_ID && !id.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(ReportError::Id(name)) }
}

fn tool_call(body: &[u8]) -> Result<ToolCall, ReportError> {
    let Tool { id, name, input } = read(body)?;
    check_id("tool_use_id", &id)?;
    check_id("tool_name", &name)?;
    Ok(ToolCall { id, name, input: input.get().to_owned() })
}

/// A tool's answer as hooks see it: the text where it is one, else the JSON.
pub fn output(json: &RawValue) -> String {
    serde_json::from_str::<String>(json.get()).unwrap_or_else(|_| json.get().to_owned())
}

/// The MCP server of a tool, as Claude clients name them: `github` of `mcp__github__merge`.
pub fn mcp_server(tool: &str) -> Option<&str> {
    tool.strip_prefix("mcp__")?.split_once("__").map(|(server, _)| server)
}

fn agent(body: &[u8]) -> Result<Subagent, ReportError> {
    let Agent { agent_id, agent_type } = read(body)?;
    check_id("agent_id", &agent_id)?;
    Ok(Subagent { id: agent_id, agent_type })
}

fn stopping(body: &[u8]) -> Result<Stopping, ReportError> {
    let Stop { last_assistant_message, stop_hook_active } = read(body)?;
    Ok(Stopping { message: last_assistant_message.unwrap_or_default(), again: stop_hook_active })
}

#[cfg(test)]
mod tests;
