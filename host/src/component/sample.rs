//! Samples: events and calls that a component is tried with, and what it should say to them. A project keeps one JSON file
//! for each; the built component carries them in a custom section, so that one digest and one signature cover both.

use std::collections::BTreeMap;
use std::sync::Arc;

use sallyport_protocol::hooks::mcp_server;
use sallyport_protocol::package::Kind;
use sallyport_protocol::strict_json::{self, StrictError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wasmparser::{Parser, Payload};

use super::contract::scanner::TextKind;
use super::contract::{Attribute, Call, Principal, hook, provider};
use super::request::{RecordedBody, unknown_of};

/// The custom section of a component that holds its samples.
pub const SECTION: &str = "sallyport-samples";
/// Bytes of all samples of a component, as JSON.
pub const MAX_BYTES: usize = 256 * 1024;
/// Samples of one component.
pub const MAX_SAMPLES: usize = 64;

/// Samples by name, as they were written: what they mean is read when they are used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Samples(BTreeMap<String, Value>);

/// One case. Exactly one of `event`, `call`, `text` and `request` says what the component is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What it shows, for people.
    #[serde(default)]
    pub about: String,
    /// The entry's configuration; `{}` if not said.
    #[serde(default = "nothing")]
    pub config: Value,
    /// Who calls; a user without roles if not said.
    #[serde(default)]
    pub principal: Caller,
    /// For hooks: what happened.
    pub event: Option<SampleEvent>,
    /// For policies: the facts of a call. What is not said is read from `body`, or is unremarkable.
    pub call: Option<Facts>,
    /// For policies: the client's request, as its JSON.
    pub body: Option<Value>,
    /// For scanners: the text.
    pub text: Option<String>,
    /// For scanners: where the text comes from; `user` if not said.
    pub text_kind: Option<TextOrigin>,
    /// For providers: the client's request, as its JSON.
    pub request: Option<Value>,
    /// For providers: what the upstream answers, one after the other.
    #[serde(default)]
    pub upstream: Vec<SampleUpstream>,
    /// What the answer must contain: every member that stands here, and any others besides. Not said: any answer, but no
    /// fault.
    pub expect: Option<Value>,
}

/// Who calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caller {
    user: String,
    tenant: String,
    session: String,
    client: String,
    source: String,
    roles: Vec<String>,
    department: Option<String>,
    scopes: Vec<String>,
}

/// What happened, in the words of Claude Code's hooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "hook_event_name", deny_unknown_fields)]
pub enum SampleEvent {
    /// A session began.
    SessionStart {
        /// `startup`, `resume`, `clear` or `compact`
        source: String,
    },
    /// A session ended.
    SessionEnd {
        /// Why.
        reason: String,
    },
    /// The user sent a prompt.
    UserPromptSubmit {
        /// Its text.
        prompt: String,
    },
    /// The model wants to use a tool.
    PreToolUse {
        /// The tool's name.
        tool_name: String,
        /// Its input.
        tool_input: Value,
    },
    /// A tool answered.
    PostToolUse {
        /// The tool's name.
        tool_name: String,
        /// Its input.
        tool_input: Value,
        /// What it answered.
        tool_response: Value,
        /// How long it took.
        duration_ms: Option<u32>,
    },
    /// A tool failed.
    PostToolUseFailure {
        /// The tool's name.
        tool_name: String,
        /// Its input.
        tool_input: Value,
        /// Why.
        error: String,
    },
    /// The client notified its user.
    Notification {
        /// The message.
        message: String,
    },
    /// The model finished its turn.
    Stop {
        /// Its last text.
        last_assistant_message: String,
    },
    /// A subagent began.
    SubagentStart {
        /// The client's id of it.
        agent_id: String,
        /// Which kind of agent.
        agent_type: String,
    },
    /// A subagent ended.
    SubagentStop {
        /// The client's id of it.
        agent_id: String,
        /// Which kind of agent.
        agent_type: String,
    },
}

/// Facts of a call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Facts {
    model: Option<String>,
    route: Option<String>,
    provider: Option<String>,
    streaming: Option<bool>,
    max_tokens: Option<u32>,
    message_count: Option<u32>,
    tools: Option<Vec<String>>,
    agent: Option<String>,
    region: Option<String>,
    time_ms: Option<String>,
}

/// Where a text comes from.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextOrigin {
    /// The system prompt.
    System,
    /// Text the user wrote.
    User,
    /// Text the model wrote.
    Assistant,
    /// A tool call.
    ToolInput,
    /// What a tool answered.
    ToolOutput,
    /// Text of a document block.
    Document,
    /// What the request says of a tool.
    Tool,
    /// An address or a file that the upstream reads.
    Link,
    /// A value beside the conversation.
    Parameter,
    /// The query string and the headers that travel.
    Head,
    /// What the gateway does not know.
    Other,
}

/// What an upstream answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleUpstream {
    /// HTTP status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Headers, lower-case names.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: a text as it is, everything else as its JSON.
    #[serde(default)]
    pub body: Value,
}

/// Why samples are refused.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// Not JSON of this form.
    #[error("the samples cannot be read")]
    Json(#[from] StrictError),
    /// One of them is not of its form.
    #[error("the sample {name} is refused: {why}")]
    Form {
        /// Which one.
        name: String,
        /// Why.
        why: String,
    },
    /// Too many of them.
    #[error("there are {0} samples, more than {MAX_SAMPLES}")]
    TooMany(usize),
    /// They are too large.
    #[error("the samples have {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// They stand in the component twice.
    #[error("the component carries samples twice")]
    Twice,
}

// === impl Samples ===

impl Samples {
    /// Adds one case, read strictly from its file.
    pub fn add(&mut self, name: &str, json: &[u8]) -> Result<(), SampleError> {
        let value = strict_json::parse(json, MAX_BYTES).map_err(|error| form(name, &chain(&error)))?;
        self.0.insert(name.to_owned(), value);
        if self.0.len() > MAX_SAMPLES {
            return Err(SampleError::TooMany(self.0.len()));
        }
        Ok(())
    }

    /// Every case for a component of `kind`, in the order of their names.
    pub fn read(&self, kind: Kind) -> Result<Vec<(String, Sample)>, SampleError> {
        self.0.iter().map(|(name, value)| Ok((name.clone(), Sample::read(name, value, kind)?))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The samples that `component` carries; none, where it has no such section or is no WebAssembly at all.
    pub fn carried(component: &[u8]) -> Result<Self, SampleError> {
        let mut found = None;
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(component) {
            match payload {
                Ok(Payload::Version { .. }) => depth += 1,
                Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
                Ok(Payload::CustomSection(section)) if depth == 1 && section.name() == SECTION => {
                    if found.replace(section.data()).is_some() {
                        return Err(SampleError::Twice);
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let Some(json) = found else { return Ok(Self::default()) };
        if json.len() > MAX_BYTES {
            return Err(SampleError::TooLarge(json.len()));
        }
        let samples: Self = strict_json::parse(json, MAX_BYTES)?;
        if samples.0.len() > MAX_SAMPLES { Err(SampleError::TooMany(samples.0.len())) } else { Ok(samples) }
    }

    /// `component` with these samples in it, which carried none before.
    pub fn put_into(&self, component: &[u8]) -> Result<Vec<u8>, SampleError> {
        if !Self::carried(component)?.is_empty() {
            return Err(SampleError::Twice);
        }
        let json = serde_json::to_vec(self).map_err(|error| SampleError::Json(StrictError::Shape(error)))?;
        if json.len() > MAX_BYTES {
            return Err(SampleError::TooLarge(json.len()));
        }
        let mut section = leb128(SECTION.len());
        section.extend_from_slice(SECTION.as_bytes());
        section.extend_from_slice(&json);
        let mut whole = component.to_vec();
        // A custom section: id 0, its length, its name, its content.
        whole.push(0);
        whole.extend_from_slice(&leb128(section.len()));
        whole.extend_from_slice(&section);
        Ok(whole)
    }
}

// === impl Sample ===

impl Sample {
    fn read(name: &str, value: &Value, kind: Kind) -> Result<Self, SampleError> {
        let sample: Self =
            serde_json::from_value(value.clone()).map_err(|error| form(name, &error.to_string()))?;
        let (subject, said) = match kind {
            Kind::Hook => ("event", sample.event.is_some()),
            Kind::Policy | Kind::Predicate => ("call", sample.call.is_some() || sample.body.is_some()),
            Kind::Scanner => ("text", sample.text.is_some()),
            Kind::Provider => ("request", sample.request.is_some()),
        };
        if !said {
            return Err(form(name, &format!("a {kind} is given a `{subject}`")));
        }
        // A predicate is given what a policy is given.
        let like = if kind == Kind::Predicate { Kind::Policy } else { kind };
        let foreign = [
            ("event", sample.event.is_some(), Kind::Hook),
            ("call", sample.call.is_some(), Kind::Policy),
            ("body", sample.body.is_some(), Kind::Policy),
            ("text", sample.text.is_some(), Kind::Scanner),
            ("text_kind", sample.text_kind.is_some(), Kind::Scanner),
            ("request", sample.request.is_some(), Kind::Provider),
            ("upstream", !sample.upstream.is_empty(), Kind::Provider),
        ];
        if let Some((key, ..)) = foreign.iter().find(|(_, said, of)| *said && *of != like) {
            return Err(form(name, &format!("`{key}` is not for a {kind}")));
        }
        if !sample.config.is_object() {
            return Err(form(name, "`config` is no object"));
        }
        Ok(sample)
    }

    /// What a hook is told.
    pub(super) fn occurrence(&self) -> Option<hook::Occurrence> {
        let event = self.event.clone()?.into_contract();
        Some(hook::Occurrence {
            trace: TRACE.to_owned(),
            principal: self.principal.clone().into(),
            event,
            in_band: true,
            raw: None,
            attributes: Vec::new(),
        })
    }

    /// What a policy is asked about: the facts of the call and the client's body.
    pub(super) fn call(&self) -> (Call, RecordedBody) {
        let json = self.body.as_ref().or(self.request.as_ref());
        let bytes = json.filter(|json| !json.is_null()).map(|json| json.to_string().into_bytes());
        let body = RecordedBody::of(bytes.unwrap_or_default(), &[]);
        let said = self.call.clone().unwrap_or_default();
        let index = &body.index;
        let call = Call {
            trace: TRACE.into(),
            time_ms: said.time_ms.map_or_else(|| NOW_MS.into(), Arc::from),
            principal: self.principal.clone().into(),
            model: said
                .model
                .as_deref()
                .or_else(|| index.as_ref().map(|read| read.model.as_str()))
                .unwrap_or(MODEL)
                .into(),
            route: said.route.as_deref().unwrap_or("*").into(),
            provider: said.provider.as_deref().unwrap_or("anthropic").into(),
            streaming: said.streaming.unwrap_or_else(|| index.as_ref().is_some_and(|read| read.stream)),
            max_tokens: said.max_tokens.or_else(|| index.as_ref().and_then(|read| read.max_tokens)),
            body_bytes: u32::try_from(body.bytes.len()).unwrap_or(u32::MAX),
            message_count: said
                .message_count
                .unwrap_or_else(|| index.as_ref().map_or(1, |read| read.message_count)),
            tools: said
                .tools
                .unwrap_or_else(|| index.as_ref().map_or_else(Vec::new, |read| read.tools.clone()))
                .into(),
            agent: said.agent.map(Arc::from),
            region: said.region.map(Arc::from),
            attributes: unknown_of(index.as_ref()),
        };
        (call, body)
    }

    /// Whether `answer` contains what is expected of it; a fault or a refused configuration that nobody expects does not.
    pub fn is_met_by(&self, answer: &Value) -> bool {
        match &self.expect {
            Some(expected) => contains(answer, expected),
            None => answer.get("fault").is_none() && answer.get("configure").is_none(),
        }
    }
}

/// The trace of every sample.
const TRACE: &str = "t_00000000000000000000000000000001";
/// The time of every sample that names none: 1 January 2026, a Thursday, midnight UTC.
const NOW_MS: &str = "1767225600000";
const MODEL: &str = "claude-sonnet-4-5";

// === impl Caller ===

impl Default for Caller {
    fn default() -> Self {
        Self {
            user: "u_alice".to_owned(),
            tenant: "t_acme".to_owned(),
            session: "sess_00000000000000000000000000000001".to_owned(),
            client: "sp_cli".to_owned(),
            source: "api".to_owned(),
            roles: Vec::new(),
            department: None,
            scopes: Vec::new(),
        }
    }
}

impl From<Caller> for Principal {
    fn from(caller: Caller) -> Self {
        let Caller { user, tenant, session, client, source, roles, department, scopes } = caller;
        Self {
            user: user.into(),
            tenant: tenant.into(),
            session: session.into(),
            client: client.into(),
            source: source.into(),
            roles: roles.into(),
            department: department.map(Arc::from),
            scopes: scopes.into(),
            attributes: Vec::new(),
        }
    }
}

// === impl SampleEvent ===

impl SampleEvent {
    fn into_contract(self) -> hook::Event {
        match self {
            Self::SessionStart { source } => hook::Event::SessionStart(source),
            Self::SessionEnd { reason } => hook::Event::SessionEnd(reason),
            Self::UserPromptSubmit { prompt } => hook::Event::UserPromptSubmit(prompt),
            Self::PreToolUse { tool_name, tool_input } => {
                hook::Event::PreToolUse(tool_call(tool_name, &tool_input))
            }
            Self::PostToolUse { tool_name, tool_input, tool_response, duration_ms } => {
                hook::Event::PostToolUse(hook::ToolResult {
                    call: tool_call(tool_name, &tool_input),
                    output: as_text(&tool_response),
                    duration_ms,
                })
            }
            Self::PostToolUseFailure { tool_name, tool_input, error } => {
                let call = tool_call(tool_name, &tool_input);
                hook::Event::PostToolUseFailure(hook::ToolFailure { call, error })
            }
            Self::Notification { message } => hook::Event::Notification(message),
            Self::Stop { last_assistant_message } => hook::Event::Stop(last_assistant_message),
            Self::SubagentStart { agent_id, agent_type } => {
                hook::Event::SubagentStart(hook::Subagent { id: agent_id, agent_type })
            }
            Self::SubagentStop { agent_id, agent_type } => {
                hook::Event::SubagentStop(hook::Subagent { id: agent_id, agent_type })
            }
        }
    }
}

// === impl TextOrigin ===

impl From<TextOrigin> for TextKind {
    fn from(kind: TextOrigin) -> Self {
        match kind {
            TextOrigin::System => Self::System,
            TextOrigin::User => Self::User,
            TextOrigin::Assistant => Self::Assistant,
            TextOrigin::ToolInput => Self::ToolInput,
            TextOrigin::ToolOutput => Self::ToolOutput,
            TextOrigin::Document => Self::Document,
            TextOrigin::Tool => Self::Tool,
            TextOrigin::Link => Self::Link,
            TextOrigin::Parameter => Self::Parameter,
            TextOrigin::Head => Self::Head,
            TextOrigin::Other => Self::Other,
        }
    }
}

// === impl SampleUpstream ===

impl SampleUpstream {
    pub(super) fn inputs(&self) -> [provider::Input; 3] {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| Attribute { name: name.clone(), value: value.clone() });
        let head = provider::ResponseHead { status: self.status, headers: headers.collect() };
        [
            provider::Input::Head(head),
            provider::Input::Chunk(as_text(&self.body).into_bytes()),
            provider::Input::End,
        ]
    }
}

// === private helpers ===

/// Whether `answer` has everything that `expected` names: members of objects, all elements of lists in their order, and
/// the very same scalars.
fn contains(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (Value::Object(answer), Value::Object(expected)) => {
            expected.iter().all(|(key, wanted)| answer.get(key).is_some_and(|found| contains(found, wanted)))
        }
        (Value::Array(answer), Value::Array(expected)) => {
            answer.len() == expected.len()
                && answer.iter().zip(expected).all(|(found, wanted)| contains(found, wanted))
        }
        _ => answer == expected,
    }
}

fn tool_call(name: String, input: &Value) -> hook::ToolCall {
    let server = mcp_server(&name).map(str::to_owned);
    hook::ToolCall { id: "toolu_01Sample".to_owned(), name, input: input.to_string(), server }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn nothing() -> Value {
    json!(Map::new())
}

const fn ok() -> u16 {
    200
}

fn form(name: &str, why: &str) -> SampleError {
    SampleError::Form { name: name.to_owned(), why: why.to_owned() }
}

/// An error with what caused it: `the json has another shape: unknown field ..`.
fn chain(error: &StrictError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Unsigned LEB128.
fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests;
