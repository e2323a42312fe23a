//! Golden cases of a provider: a recorded exchange goes in, and all that the provider says comes out. Each case is also run with its
//! upstream's bytes cut at every place, so that no provider depends on how a network cuts them.
//!
//! A folder `golden/` holds for each case:
//!
//! | file | holds |
//! |---|---|
//! | `<case>.request.json` | `body`, the client's request; `upstream_model`; `count`, if it is `/v1/messages/count_tokens`; `headers`, the client's; `config`, the entry's, if it has one; `upstream`, status and headers of the answer, where they are not 200 and those that the answer's kind implies |
//! | `<case>.upstream.sse`, `.json` or `.bin` | the body of the answer: events, one JSON text, or an event stream of AWS |
//! | `<case>.response.json` | what the provider sent, lost and answered |
//!
//! ```no_run
//! # use sallyport_guest_codec::golden::Suite;
//! # use sallyport_guest_sdk::provider::Provider;
//! # fn tests<OpenAi: Provider>() {
//! Suite::<OpenAi>::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).check_all();
//! # }
//! ```

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a failed comparison fails the test that asked for it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use sallyport_guest_sdk::Usage;
use sallyport_guest_sdk::provider::{
    Begun, Block, Delta, Exchange as _, Failure, Input, Loss, Output, Provider, Request, RequestBody,
    RequestKind, ResponseHead, StreamEvent, UpstreamRequest,
};
use sallyport_guest_sdk::testing::{self, attribute};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// All that an exchange said.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The client's body, of which requests may be made.
    given: String,
    /// The last request that it made.
    pub request: Option<UpstreamRequest>,
    /// The body of that request, where it was JSON: the provider's own, or the client's but for some edits.
    pub sent: Option<Value>,
    /// What it lost: `field: how`.
    pub losses: Vec<String>,
    /// Status of an answer that is handed on as it is.
    pub forwarded: Option<u16>,
    /// Headers for the client: `name: value`.
    pub headers: Vec<String>,
    /// Events of a streamed reply.
    pub events: Vec<StreamEvent>,
    /// A whole reply.
    pub message: Option<Value>,
    /// An estimate of tokens.
    pub estimate: Option<u32>,
    /// Tokens, as the upstream counted them.
    pub count: Option<u32>,
    /// Whether it said that it is done.
    pub is_done: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// The golden cases of one provider.
#[derive(Debug)]
pub struct Suite<P> {
    folder: PathBuf,
    cases: Vec<Case>,
    prepare: fn(&mut Request),
    paths: bool,
    provider: PhantomData<fn() -> P>,
}

/// One recorded exchange.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The body of the upstream's answer.
    pub upstream: Vec<u8>,
    file: File,
    media_type: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    upstream_model: String,
    #[serde(default)]
    count: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    config: Option<Box<RawValue>>,
    #[serde(default)]
    upstream: Option<Upstream>,
    body: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upstream {
    status: u16,
    headers: BTreeMap<String, String>,
}

/// Endings of a recorded answer, and the media type that each implies.
const KINDS: [(&str, &str); 3] = [
    ("sse", "text/event-stream; charset=utf-8"),
    ("json", "application/json"),
    ("bin", "application/vnd.amazon.eventstream"),
];

/// Runs an exchange to its end, be it a failure.
pub fn run<P: Provider>(config: &str, request: Request, inputs: impl IntoIterator<Item = Input>) -> Outcome {
    let (mut exchange, mut outcome) = begin::<P>(config, request);
    for input in inputs {
        let goes_on = outcome.failure.is_none() && outcome.forwarded.is_none();
        let Some(exchange) = exchange.as_mut().filter(|_| goes_on) else { break };
        match exchange.next(input) {
            Ok(outputs) => outcome.take_all(outputs),
            Err(failure) => outcome.take(Output::Fail(failure)),
        }
    }
    outcome
}

/// The same, with everything told at once, as a gateway does that has read all of it.
pub fn run_at_once<P: Provider>(config: &str, request: Request, inputs: Vec<Input>) -> Outcome {
    let (exchange, mut outcome) = begin::<P>(config, request);
    if let Some(mut exchange) = exchange {
        let outputs = exchange.next_all(inputs).unwrap_or_else(|(mut outputs, failure)| {
            outputs.push(Output::Fail(failure));
            outputs
        });
        outcome.take_all(outputs);
    }
    outcome
}

fn begin<P: Provider>(config: &str, request: Request) -> (Option<P::Exchange>, Outcome) {
    let given = String::from_utf8(request.body.read_all()).unwrap_or_default();
    let mut outcome = Outcome { given, ..Outcome::default() };
    let begun = testing::begin::<P>(config, request).expect("the configuration is good");
    match begun {
        Ok(Begun { exchange, outputs }) => {
            outcome.take_all(outputs);
            (exchange, outcome)
        }
        Err(failure) => {
            outcome.take(Output::Fail(failure));
            (None, outcome)
        }
    }
}

/// A request with this body to a route whose upstream's model is `model`.
pub fn asking(model: &str, body: &Value) -> Request {
    let mut request = testing::request(&body.to_string());
    model.clone_into(&mut request.upstream_model);
    request
}

/// What goes up for such a request, and what is lost of it.
pub fn sent<P: Provider>(model: &str, body: &Value) -> (Value, Vec<String>) {
    let told = run::<P>("{}", asking(model, body), []);
    (told.sent.expect("a request is sent"), told.losses)
}

/// Status, type and message of the error that the client is told where the upstream refuses with `status` and this body.
pub fn refused<P: Provider>(status: u16, body: &Value) -> (u16, String, String) {
    let hi = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let chunk = Input::Chunk(body.to_string().into_bytes());
    let head = head(status, &[("content-type", "application/json")]);
    let told = run::<P>("{}", asking("m", &hi), [head, chunk, Input::End]);
    let failure = told.failure.expect("it fails");
    (failure.status, failure.error_type, failure.message)
}

/// Status and headers of an answer, as an input.
pub fn head(status: u16, headers: &[(&str, &str)]) -> Input {
    Input::Head(ResponseHead { status, headers: headers.iter().map(|(n, v)| attribute(n, v)).collect() })
}

/// The blocks of a reply as a client keeps them.
pub fn kept(events: &[StreamEvent]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let append = |block: &mut Value, key: &str, text: &str| {
        let so_far = block[key].as_str().unwrap_or_default().to_owned();
        block[key] = json!(so_far + text);
    };
    for event in events {
        match event {
            StreamEvent::BlockStart(it) => blocks.push(match &it.block {
                Block::Text => json!({"type": "text", "text": ""}),
                Block::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                Block::ToolUse(tool) => {
                    json!({"type": "tool_use", "id": tool.id, "name": tool.name, "input": ""})
                }
                other => panic!("{other:?}"),
            }),
            StreamEvent::BlockDelta(it) => {
                let block = blocks.last_mut().expect("a block is open");
                match &it.delta {
                    Delta::Text(text) => append(block, "text", text),
                    Delta::Thinking(text) => append(block, "thinking", text),
                    Delta::Signature(text) => append(block, "signature", text),
                    Delta::InputJson(text) => append(block, "input", text),
                    Delta::Raw(raw) => panic!("{raw}"),
                }
            }
            _ => {}
        }
    }
    for block in &mut blocks {
        if let Some(input) = block["input"].as_str() {
            block["input"] = serde_json::from_str(input).expect("an input is JSON");
        }
    }
    blocks
}

/// Asserts that events are in the order that the Messages stream allows, and that they end as they should: `is_complete`, with
/// `message_stop`, and otherwise before it.
pub fn assert_well_formed(events: &[StreamEvent], is_complete: bool) {
    let (mut begun, mut open, mut next, mut ending, mut over) = (false, None, 0, false, false);
    for event in events {
        assert!(!over, "after message_stop: {event:?}");
        match event {
            StreamEvent::MessageStart(_) => assert!(!std::mem::replace(&mut begun, true), "a second start"),
            StreamEvent::BlockStart(it) => {
                assert!(begun && !ending && open.is_none() && it.index == next, "{event:?}");
                open = Some(it.index);
            }
            StreamEvent::BlockDelta(it) => assert_eq!(open, Some(it.index), "{event:?}"),
            StreamEvent::BlockStop(index) => {
                assert_eq!(open.take(), Some(*index), "{event:?}");
                next += 1;
            }
            StreamEvent::MessageDelta(_) => {
                assert!(begun && open.is_none() && !ending, "{event:?}");
                ending = true;
            }
            StreamEvent::MessageStop => {
                assert!(ending, "no message_delta before it");
                over = true;
            }
            StreamEvent::Ping => {}
            StreamEvent::Raw(raw) => panic!("an event that no translation says: {raw:?}"),
        }
    }
    assert_eq!(over, is_complete, "a stream ends with message_stop, and only then");
}

/// All text of a reply.
pub fn text_of(events: &[StreamEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        StreamEvent::BlockDelta(it) => match &it.delta {
            Delta::Text(text) => Some(text.as_str()),
            _ => None,
        },
        _ => None,
    });
    texts.collect()
}

/// Ids and inputs of a reply's tool calls.
pub fn calls_of(events: &[StreamEvent]) -> Vec<(String, String)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in events {
        match event {
            StreamEvent::BlockStart(it) => {
                if let Block::ToolUse(tool) = &it.block {
                    calls.push((tool.id.clone(), String::new()));
                }
            }
            StreamEvent::BlockDelta(it) => {
                if let (Delta::InputJson(text), Some((_, input))) = (&it.delta, calls.last_mut()) {
                    input.push_str(text);
                }
            }
            _ => {}
        }
    }
    calls
}

/// An event in the words of a golden file.
pub fn event_json(event: &StreamEvent) -> Value {
    let usage = |it: &Usage| json!({"input": it.input, "output": it.output, "cache_read": it.cache_read});
    match event {
        StreamEvent::MessageStart(it) => {
            json!({"message_start": {"id": it.id, "model": it.model, "usage": usage(&it.usage)}})
        }
        StreamEvent::BlockStart(it) => json!({"start": it.index, "block": match &it.block {
            Block::Text => json!("text"),
            Block::Thinking => json!("thinking"),
            Block::ToolUse(tool) => json!({"id": tool.id, "name": tool.name}),
            other => json!(format!("{other:?}")),
        }}),
        StreamEvent::BlockDelta(it) => match &it.delta {
            Delta::Text(text) => json!({"delta": it.index, "text": text}),
            Delta::Thinking(text) => json!({"delta": it.index, "thinking": text}),
            Delta::InputJson(text) => json!({"delta": it.index, "json": text}),
            Delta::Signature(text) => json!({"delta": it.index, "signature": text}),
            Delta::Raw(raw) => json!({"delta": it.index, "raw": raw}),
        },
        StreamEvent::BlockStop(index) => json!({"stop": index}),
        StreamEvent::MessageDelta(it) => json!({"message_delta": {
            "stop_reason": it.stop_reason, "stop_sequence": it.stop_sequence, "usage": usage(&it.usage),
        }}),
        StreamEvent::MessageStop => json!("message_stop"),
        other => json!(format!("{other:?}")),
    }
}

// === impl Outcome ===

impl Outcome {
    fn take_all(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            self.take(output);
        }
    }

    /// Takes in what an exchange said.
    pub fn take(&mut self, output: Output) {
        assert!(!self.is_done && self.failure.is_none(), "nothing comes after the end: {output:?}");
        match output {
            Output::Send(request) => {
                match &request.body {
                    RequestBody::Bytes(bytes) => {
                        self.sent = Some(serde_json::from_slice(bytes).expect("JSON is sent"));
                    }
                    RequestBody::Spliced(edits) => {
                        let text = crate::hosted::edited(&self.given, edits);
                        self.sent = Some(serde_json::from_str(&text).expect("what is left is JSON"));
                    }
                    _ => {}
                }
                self.request = Some(request);
            }
            Output::Lost(Loss { field, how }) => self.losses.push(format!("{field}: {how}")),
            Output::ResponseHeaders(headers) => {
                self.headers.extend(headers.into_iter().map(|it| format!("{}: {}", it.name, it.value)));
            }
            Output::Event(event) => self.events.push(event),
            Output::Message(reply) => {
                self.message = Some(serde_json::from_slice(&reply.json).expect("the reply is JSON"));
            }
            Output::Forward(head) => self.forwarded = Some(head.status),
            Output::TokenEstimate(tokens) => self.estimate = Some(tokens),
            Output::TokenCount(tokens) => self.count = Some(tokens),
            Output::Done => self.is_done = true,
            Output::Fail(failure) => self.failure = Some(failure),
            other => panic!("an output that no translation says: {other:?}"),
        }
    }

    /// As a golden file holds it.
    pub fn json(&self) -> Value {
        let mut json = serde_json::Map::new();
        let mut put = |name: &str, value: Value| {
            if !matches!(&value, Value::Null) && value != json!([]) {
                json.insert(name.to_owned(), value);
            }
        };
        put("sent", json!(self.sent));
        put("losses", json!(self.losses));
        put("forwarded", json!(self.forwarded));
        put("headers", json!(self.headers));
        put("events", self.events.iter().map(event_json).collect());
        put("message", json!(self.message));
        put("count", json!(self.count));
        put("failure", self.failure.as_ref().map_or(Value::Null, |it| {
            json!({
                "status": it.status, "type": it.error_type, "message": it.message, "retryable": it.retryable,
                "retry_after_ms": it.retry_after_ms,
            })
        }));
        Value::Object(json)
    }

    /// Asserts that an exchange that was fed all there is has ended, one way or the other, and well formed.
    pub fn assert_ended(&self) {
        let is_done = self.is_done || self.forwarded.is_some();
        assert_ne!(is_done, self.failure.is_some(), "it is done or failed");
        let streamed = self.message.is_none() && self.count.is_none();
        assert_well_formed(&self.events, self.is_done && streamed);
    }
}

// === impl Suite ===

impl<P: Provider> Suite<P> {
    /// The cases in a folder.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let mut names: Vec<String> = fs::read_dir(&folder)
            .expect("the folder of golden cases is there")
            .filter_map(|it| Some(it.ok()?.file_name().to_str()?.strip_suffix(".request.json")?.to_owned()))
            .collect();
        names.sort();
        assert!(!names.is_empty(), "no golden case in {}", folder.display());
        let cases = names.into_iter().map(|name| Case::open(&folder, name)).collect();
        Self { folder, cases, prepare: |_| (), paths: false, provider: PhantomData }
    }

    /// The same, with something done to each request before it is handed over: what the gateway adds to a call.
    #[must_use]
    pub fn prepared(self, prepare: fn(&mut Request)) -> Self {
        Self { prepare, ..self }
    }

    /// The same, and the files hold to which path the request goes: where that is not the same for all.
    #[must_use]
    pub fn with_paths(self) -> Self {
        Self { paths: true, ..self }
    }

    /// The cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Runs a case with the upstream's bytes in these pieces.
    pub fn run<'a>(&self, case: &Case, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        run::<P>(case.config(), self.request(case), case.inputs(pieces))
    }

    /// Runs a case with the upstream's bytes in these pieces, all told at once.
    pub fn run_at_once<'a>(&self, case: &Case, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        run_at_once::<P>(case.config(), self.request(case), case.inputs(pieces))
    }

    fn request(&self, case: &Case) -> Request {
        let mut request = testing::request(case.file.body.get());
        case.file.upstream_model.clone_into(&mut request.upstream_model);
        request.headers.extend(case.file.headers.iter().map(|(name, value)| attribute(name, value)));
        if case.file.count {
            request.kind = RequestKind::CountTokens;
            "/v1/messages/count_tokens".clone_into(&mut request.target);
        }
        (self.prepare)(&mut request);
        request
    }

    /// Every check below.
    pub fn check_all(&self) {
        self.check_outcomes();
        self.check_splits();
        self.check_cuts();
    }

    /// Each case comes out as recorded. What came out instead is written to `target/golden/<crate>`.
    pub fn check_outcomes(&self) {
        let target = self.folder.ancestors().map(|it| it.join("target")).find(|it| it.is_dir());
        let crate_name = self.folder.parent().and_then(Path::file_name).unwrap_or_default();
        let actual_folder = target.unwrap_or_else(std::env::temp_dir).join("golden").join(crate_name);
        let mut wrong = Vec::new();
        for case in &self.cases {
            let outcome = self.run(case, [case.upstream.as_slice()]);
            assert_well_formed(&outcome.events, outcome.failure.is_none() && !outcome.events.is_empty());
            let mut actual = outcome.json();
            if let (true, Some(request), Some(fields)) =
                (self.paths, &outcome.request, actual.as_object_mut())
            {
                fields.insert("path".to_owned(), json!(request.path));
            }
            let name = format!("{}.response.json", case.name);
            let recorded = fs::read(self.folder.join(&name)).ok();
            let recorded = recorded.and_then(|it| serde_json::from_slice::<Value>(&it).ok());
            if recorded.as_ref() != Some(&actual) {
                fs::create_dir_all(&actual_folder).expect("the folder for what came out");
                let text = serde_json::to_string_pretty(&actual).expect("JSON") + "\n";
                fs::write(actual_folder.join(&name), text).expect("what came out is written");
                wrong.push(name);
            }
        }
        assert!(wrong.is_empty(), "what came out is in {}: {wrong:?}", actual_folder.display());
    }

    /// Each case comes out the same however its bytes are cut into two, and byte by byte, told one after the other or at once.
    pub fn check_splits(&self) {
        for case in &self.cases {
            let whole = self.run(case, [case.upstream.as_slice()]);
            let mut splits: Vec<Vec<&[u8]>> = vec![case.upstream.chunks(1).collect()];
            // A whole reply is collected before it is read: one byte at a time says it all.
            let streamed = if whole.events.is_empty() { 0 } else { case.upstream.len() };
            splits.extend((1..streamed).map(|at| {
                let (a, b) = case.upstream.split_at(at);
                vec![a, b]
            }));
            for pieces in splits {
                let at = pieces.first().map(|it| it.len());
                let told = |split: &Outcome| {
                    assert_eq!(split.failure, whole.failure, "{} at {at:?}", case.name);
                    assert_eq!(split.is_done, whole.is_done, "{} at {at:?}", case.name);
                    assert_eq!(split.forwarded, whole.forwarded, "{} at {at:?}", case.name);
                    assert_eq!(split.message, whole.message, "{} at {at:?}", case.name);
                    assert_eq!(split.events, whole.events, "{} at {at:?}", case.name);
                };
                told(&self.run(case, pieces.iter().copied()));
                told(&self.run_at_once(case, pieces));
            }
        }
    }

    /// Each streamed case that is cut off anywhere comes out whole, or as a failure of the upstream.
    pub fn check_cuts(&self) {
        for case in &self.cases {
            let whole = self.run(case, [case.upstream.as_slice()]);
            if whole.failure.is_some() || whole.events.is_empty() {
                continue;
            }
            for at in 0..case.upstream.len() {
                let cut = self.run(case, [case.upstream.get(..at).unwrap_or_default()]);
                match &cut.failure {
                    Some(failure) => {
                        let said = (failure.status, failure.error_type.as_str());
                        assert_eq!(said, (502, "api_error"), "{} at {at}", case.name);
                        assert!(!cut.is_done, "{} at {at}", case.name);
                        assert_well_formed(&cut.events, false);
                    }
                    None => assert_well_formed(&cut.events, true),
                }
            }
        }
    }
}

// === impl Case ===

impl Case {
    fn config(&self) -> &str {
        self.file.config.as_deref().map_or("{}", RawValue::get)
    }

    fn inputs<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Input> {
        let (status, mut headers) = match &self.file.upstream {
            Some(it) => (it.status, it.headers.iter().map(|(n, v)| attribute(n, v)).collect()),
            None => (200, Vec::new()),
        };
        if !headers.iter().any(|it| it.name == "content-type") {
            headers.push(attribute("content-type", self.media_type));
        }
        let head = Input::Head(ResponseHead { status, headers });
        let chunks = pieces.into_iter().map(|it| Input::Chunk(it.to_vec()));
        std::iter::once(head).chain(chunks).chain([Input::End]).collect()
    }

    fn open(folder: &Path, name: String) -> Self {
        let path = |end: &str| folder.join(format!("{name}.{end}"));
        let file = fs::read(path("request.json")).expect("a request");
        let file = serde_json::from_slice(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = KINDS.into_iter().find_map(|(end, media_type)| {
            Some((fs::read(path(&format!("upstream.{end}"))).ok()?, media_type))
        });
        let (upstream, media_type) = found.unwrap_or_else(|| panic!("{name}: no upstream"));
        Self { name, upstream, file, media_type }
    }
}
