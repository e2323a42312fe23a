//! Doubles of the gateway for native unit tests: a body, counters, notes and servers that live in memory, and calls to
//! start from.

mod outside;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

pub use self::outside::FakeOutside;
use crate::{
    Attribute, Body, Call, Edit, Evidence, Host, Principal, Segment, SegmentKind, Window,
    hook::{Event, Occurrence, ToolCall},
    provider::{Begun, Exchange as _, Failure, Input, Output, Provider, Request, RequestBody, RequestKind},
};

/// A request body held in memory.
#[derive(Debug, Clone, Default)]
pub struct FakeBody {
    bytes: Vec<u8>,
    texts: Vec<Segment>,
}

/// A gateway that counts, and remembers what was noted. Its clock is fixed until [`FakeHost::advance`].
#[derive(Debug, Default)]
pub struct FakeHost {
    now: Cell<Duration>,
    /// When each bucket will be full again (the theoretical arrival time of GCRA).
    buckets: RefCell<BTreeMap<String, Duration>>,
    /// What is reserved and what is spent, by key and window, which never ends.
    budgets: RefCell<BTreeMap<String, (u64, u64)>>,
    notes: RefCell<Vec<(String, String)>>,
}

/// A call by `u_alice` of the tenant `acme` for `model`, with nothing remarkable about it.
pub fn call(model: &str) -> Call {
    Call {
        trace: "t_00000000000000000000000000000001".into(),
        time_ms: "1767225600000".into(),
        principal: principal("u_alice"),
        model: model.into(),
        route: "*".into(),
        provider: "anthropic".into(),
        streaming: false,
        max_tokens: Some(1024),
        body_bytes: 200,
        message_count: 1,
        tools: Vec::new(),
        agent: None,
        region: None,
        attributes: Vec::new(),
    }
}

/// A principal of the tenant `acme` who comes by the API and has no role.
pub fn principal(user: &str) -> Principal {
    Principal {
        user: user.into(),
        tenant: "acme".into(),
        session: "sess_00000000000000000000000000000001".into(),
        client: "sp_cli".into(),
        source: "api".into(),
        roles: Vec::new(),
        department: None,
        scopes: Vec::new(),
        attributes: Vec::new(),
    }
}

/// An event that the gateway saw pass in a session of `u_alice`.
pub fn occurrence(event: Event) -> Occurrence {
    Occurrence {
        trace: "t_00000000000000000000000000000001".into(),
        principal: principal("u_alice"),
        event,
        in_band: true,
        raw: None,
        attributes: Vec::new(),
    }
}

/// A call of a tool that belongs to no MCP server; `input` is JSON.
pub fn tool_call(name: &str, input: &str) -> ToolCall {
    ToolCall { id: "toolu_01".into(), name: name.into(), input: input.into(), server: None }
}

/// A `POST /v1/messages` with these bytes. The model, its span and the texts are read from them.
pub fn request(body: &str) -> Request {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let model = json.get("model").and_then(|model| model.as_str()).unwrap_or_default();
    let mut call = call(model);
    call.streaming = json.get("stream").and_then(serde_json::Value::as_bool).unwrap_or(false);
    call.max_tokens = json.get("max_tokens").and_then(|max| u32::try_from(max.as_u64()?).ok());
    call.body_bytes = offset(body.len());
    call.message_count =
        offset(json.get("messages").and_then(serde_json::Value::as_array).map_or(0, Vec::len));
    call.tools = json
        .get("tools")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tool| Some(tool.get("name")?.as_str()?.to_owned()))
        .collect();
    Request {
        upstream_model: call.model.clone(),
        model_span: model_span(body, model),
        call,
        body: Box::new(FakeBody::new(body)),
        headers: vec![
            attribute("anthropic-version", "2023-06-01"),
            attribute("content-type", "application/json"),
        ],
        kind: RequestKind::Message,
        target: "/v1/messages".into(),
    }
}

/// How a configured provider begins a call, or what `configure` said.
pub fn begin<P: Provider>(
    config: &str,
    request: Request,
) -> Result<Result<Begun<P::Exchange>, Failure>, String> {
    let provider = P::configure(crate::slot::parse(config)?)?;
    Ok(Rc::new(provider).begin(request))
}

/// Everything that a provider says to a call and to these inputs, one after the other; a failure is the last of it.
pub fn converse<P: Provider>(
    config: &str,
    request: Request,
    inputs: impl IntoIterator<Item = Input>,
) -> Result<Vec<Output>, String> {
    let (mut exchange, mut outputs) = match begin::<P>(config, request)? {
        Ok(Begun { exchange, outputs }) => (exchange, outputs),
        Err(failure) => return Ok(vec![Output::Fail(failure)]),
    };
    for input in inputs {
        let Some(exchange) = &mut exchange else {
            outputs.push(Output::Fail(Failure::out_of_order()));
            break;
        };
        match exchange.next(input) {
            Ok(more) => outputs.extend(more),
            Err(failure) => {
                outputs.push(Output::Fail(failure));
                break;
            }
        }
    }
    Ok(outputs)
}

/// What was said, one line an output, and the whole of each upstream body. `body` is the client's.
pub fn transcript(body: &str, outputs: &[Output]) -> String {
    outputs.iter().map(|output| line(body, output)).collect()
}

/// Compares what `answer` makes of each `<case>.request` in a folder with the `<case>.response` beside it.
///
/// # Panics
/// Where they differ, a file cannot be read or there is no case at all.
#[expect(clippy::expect_used, reason = "a failed comparison fails the test that asked for it")]
pub fn golden(folder: &str, answer: impl Fn(&str) -> String) {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of golden cases is there")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "request"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no golden case in {folder}");
    for case in cases {
        let request = std::fs::read_to_string(&case).expect("the request can be read");
        let expected = std::fs::read_to_string(case.with_extension("response")).unwrap_or_default();
        let answered = answer(&request);
        assert!(answered == expected, "{}\n--- expected\n{expected}--- answered\n{answered}", case.display());
    }
}

/// A configured guest, or what `configure` said: `configured(r#"{..}"#, Scope::configure)`.
pub fn configured<C: serde::de::DeserializeOwned, T>(
    config: &str,
    configure: impl FnOnce(C) -> Result<T, String>,
) -> Result<T, String> {
    configure(crate::slot::parse(config)?)
}

/// A header or any other named value.
pub fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), value: value.into() }
}

// === impl FakeBody ===

impl FakeBody {
    /// A body with these bytes; its texts are those of a Messages request: `system`, then each message's blocks.
    pub fn new(body: &str) -> Self {
        let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let mut texts = Vec::new();
        push_texts(&mut texts, body, SegmentKind::System, json.get("system"));
        for message in json.get("messages").and_then(serde_json::Value::as_array).into_iter().flatten() {
            let kind = match message.get("role").and_then(serde_json::Value::as_str) {
                Some("assistant") => SegmentKind::Assistant,
                Some("system") => SegmentKind::System,
                _ => SegmentKind::User,
            };
            push_texts(&mut texts, body, kind, message.get("content"));
        }
        Self { bytes: body.as_bytes().to_vec(), texts }
    }
}

impl Body for FakeBody {
    fn len(&self) -> u32 {
        offset(self.bytes.len())
    }

    fn read(&self, offset: u32, len: u32) -> Vec<u8> {
        let at = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        self.bytes.iter().skip(at(offset)).take(at(len)).copied().collect()
    }

    fn texts(&self) -> Vec<Segment> {
        self.texts.clone()
    }
}

// === impl FakeHost ===

impl FakeHost {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.now.set(self.now.get() + by);
    }

    /// What was noted so far, in order.
    pub fn notes(&self) -> Vec<(String, String)> {
        self.notes.borrow().clone()
    }

    /// What is reserved and what is spent under `key` in `window`.
    pub fn budget(&self, key: &str, window: Window) -> (u64, u64) {
        self.budgets.borrow().get(&name_of(key, window)).copied().unwrap_or_default()
    }

    /// The keys of the buckets that something was taken from.
    pub fn keys(&self) -> Vec<String> {
        self.buckets.borrow().keys().cloned().collect()
    }
}

impl Evidence for FakeHost {
    fn note(&self, name: &str, value: &str) {
        self.notes.borrow_mut().push((name.to_owned(), value.to_owned()));
    }
}

impl Host for FakeHost {
    fn take(&self, key: &str, cost: u32, limit: u32, window: Duration) -> Result<u32, Duration> {
        let (now, each) = (self.now.get(), window / limit.max(1));
        let mut buckets = self.buckets.borrow_mut();
        let full_at = buckets.get(key).copied().unwrap_or_default().max(now) + each * cost;
        let over = full_at.saturating_sub(now).saturating_sub(window);
        if !over.is_zero() || cost > limit {
            return Err(over);
        }
        buckets.insert(key.to_owned(), full_at);
        let left = window.saturating_sub(full_at.saturating_sub(now)).as_nanos() / each.as_nanos().max(1);
        Ok(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Like the gateway's, for one call at a time: what has refilled meanwhile is not given back again.
    fn correct(&self, key: &str, taken: u32, used: u32, limit: u32, window: Duration) {
        let (now, each) = (self.now.get(), window / limit.max(1));
        if let Some(full_at) = self.buckets.borrow_mut().get_mut(key) {
            *full_at = (*full_at).max(now) + each * used;
            *full_at = full_at.saturating_sub(each * taken).max(now);
        }
    }

    fn reserve(&self, key: &str, micro: u64, cap: u64, window: Window) -> Result<u64, Duration> {
        let mut budgets = self.budgets.borrow_mut();
        let (reserved, spent) = budgets.entry(name_of(key, window)).or_default();
        let taken = reserved.saturating_add(*spent);
        match cap.checked_sub(taken).and_then(|left| left.checked_sub(micro)) {
            Some(left) => {
                *reserved += micro;
                Ok(left)
            }
            None => Err(Duration::from_hours(1)),
        }
    }

    fn release(&self, key: &str, reserved: u64, spent: u64, window: Window) {
        let mut budgets = self.budgets.borrow_mut();
        let budget = budgets.entry(name_of(key, window)).or_default();
        budget.0 = budget.0.saturating_sub(reserved);
        budget.1 = budget.1.saturating_add(spent);
    }
}

fn name_of(key: &str, window: Window) -> String {
    format!("{key} by {window:?}")
}

fn line(body: &str, output: &Output) -> String {
    let (then, request) = match output {
        Output::Send(request) => ("", request),
        Output::SendThenForward(request) => (" then forward", request),
        other => return format!("{other:?}\n"),
    };
    let headers: Vec<String> =
        request.headers.iter().map(|header| format!("{}: {}\n", header.name, header.value)).collect();
    let sent = match &request.body {
        RequestBody::Empty => Vec::new(),
        RequestBody::Original => body.as_bytes().to_vec(),
        RequestBody::Spliced(edits) => spliced(body.as_bytes(), edits),
        RequestBody::Bytes(bytes) => bytes.clone(),
        RequestBody::Other(other) => format!("{other:?}").into_bytes(),
    };
    let (method, path, auth) = (&request.method, &request.path, &request.auth);
    format!("{method} {path} {auth:?}{then}\n{}\n{}\n", headers.concat(), String::from_utf8_lossy(&sent))
}

fn spliced(body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let at = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let mut sent = Vec::new();
    let mut from = 0;
    for edit in edits {
        sent.extend_from_slice(body.get(from..at(edit.offset)).unwrap_or_default());
        sent.extend_from_slice(&edit.replacement);
        from = at(edit.offset.saturating_add(edit.len));
    }
    sent.extend_from_slice(body.get(from..).unwrap_or_default());
    sent
}

fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn model_span(body: &str, model: &str) -> (u32, u32) {
    let quoted = format!("\"{model}\"");
    let value = body
        .find("\"model\"")
        .and_then(|key| Some(key + "\"model\"".len() + body.get(key + "\"model\"".len()..)?.find(&quoted)?));
    value.map_or((0, 0), |at| (offset(at), offset(quoted.len())))
}

fn push_texts(texts: &mut Vec<Segment>, body: &str, kind: SegmentKind, content: Option<&serde_json::Value>) {
    match content {
        Some(serde_json::Value::String(text)) => texts.push(segment(body, kind, text)),
        Some(serde_json::Value::Array(blocks)) => {
            for block in blocks {
                match block.get("type").and_then(serde_json::Value::as_str) {
                    Some("text") => push_texts(texts, body, kind, block.get("text")),
                    Some("tool_result") => {
                        push_texts(texts, body, SegmentKind::ToolOutput, block.get("content"));
                    }
                    Some("tool_use") => {
                        texts.push(segment(body, SegmentKind::ToolInput, &block.to_string()));
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn segment(body: &str, kind: SegmentKind, text: &str) -> Segment {
    let written = serde_json::Value::from(text).to_string();
    let at = body.find(&written).unwrap_or_default();
    Segment { kind, text: text.to_owned(), offset: offset(at), len: offset(written.len()) }
}
