//! A provider component on trial: one exchange at a time, and all that it said.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ConformanceError, CorpusWire};
use crate::component::contract::provider::{
    Block, Delta, Failure, Input, Output, RequestBody, RequestKind, ResponseHead, StreamEvent,
};
use crate::component::contract::{Attribute, BodyView, Call, Edit, Principal};
use crate::component::request::RecordedBody;
use crate::component::{Component, Components, ExchangeRequest, Fault};

/// How often a component may act within one exchange.
const MOST_STEPS: usize = 16;

/// Everything that a component said in one exchange.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// The body of what it sent.
    pub(super) sent: Option<String>,
    pub(super) forwards: bool,
    pub(super) losses: Vec<String>,
    pub(super) text: String,
    pub(super) thought: String,
    pub(super) tools: Vec<(String, String)>,
    pub(super) stop_reason: Option<String>,
    pub(super) count: Option<u32>,
    pub(super) estimate: Option<u32>,
    pub(super) failure: Option<Failure>,
}

/// A provider that the corpus is run against.
pub(super) struct ProviderUnderTest<'a> {
    pub(super) components: &'a Components,
    pub(super) component: Arc<Component>,
    pub(super) model: String,
}

// === impl ProviderUnderTest ===

impl ProviderUnderTest<'_> {
    pub(super) async fn answered(
        &self,
        wire: &CorpusWire,
        answer: &str,
    ) -> Result<Transcript, ConformanceError> {
        let missing = || ConformanceError::Missing(format!("answer {answer}"));
        let text = wire.answers.get(answer).ok_or_else(missing)?;
        let body = if wire.hex { unhex(text).ok_or_else(missing)? } else { text.clone().into_bytes() };
        Ok(self.talk(&asking(&self.model), RequestKind::Message, Some((200, &wire.media, body))).await)
    }

    /// One exchange: the request, and the answer if there is one.
    pub(super) async fn talk(
        &self,
        body: &Value,
        kind: RequestKind,
        answer: Option<(u16, &str, Vec<u8>)>,
    ) -> Transcript {
        let mut body = body.clone();
        if let Some(model) = body.get_mut("model") {
            *model = json!(self.model);
        }
        let text = body.to_string();
        let request = self.exchange_request(&text, kind);
        let mut talk = Transcript::default();
        let (mut exchange, mut outputs) = match self.components.exchange(&self.component, request).await {
            Ok(begun) => begun,
            Err(fault) => return talk.broke(&fault),
        };
        let mut answer = answer;
        for _ in 0..MOST_STEPS {
            let mut inputs = Vec::new();
            for output in outputs {
                match talk.take(output, &text) {
                    NextMove::Ask => match answer.take() {
                        Some((status, media, bytes)) => {
                            let headers = vec![attribute("content-type", media)];
                            inputs = vec![
                                Input::Head(ResponseHead { status, headers }),
                                Input::Chunk(bytes),
                                Input::End,
                            ];
                        }
                        None => return talk,
                    },
                    NextMove::Wait => inputs.push(Input::Elapsed),
                    NextMove::Over => return talk,
                    NextMove::On => {}
                }
            }
            if inputs.is_empty() {
                break;
            }
            outputs = match exchange.next(inputs).await {
                Ok(outputs) => outputs,
                Err(fault) => return talk.broke(&fault),
            };
        }
        talk
    }

    fn exchange_request(&self, text: &str, kind: RequestKind) -> ExchangeRequest {
        let bytes = text.as_bytes().to_vec();
        let index = sallyport_protocol::messages::index::Index::parse(&bytes).ok();
        let body = RecordedBody::of(bytes, &[]);
        let span = index.as_ref().map_or((0, 0), |read| (read.model_span.start, read.model_span.len()));
        let target = match kind {
            RequestKind::CountTokens => "/v1/messages/count_tokens",
            _ => "/v1/messages",
        };
        let call = Call {
            trace: "t_00000000000000000000000000000001".into(),
            time_ms: "1767225600000".into(),
            principal: Principal {
                user: "u_conformance".into(),
                tenant: "conformance".into(),
                session: "sess_00000000000000000000000000000001".into(),
                client: "sp_cli".into(),
                source: "api".into(),
                roles: Arc::default(),
                department: None,
                scopes: Arc::default(),
                attributes: Vec::new(),
            },
            model: self.model.as_str().into(),
            route: "*".into(),
            provider: "conformance".into(),
            streaming: index.as_ref().is_some_and(|read| read.stream),
            max_tokens: index.as_ref().and_then(|read| read.max_tokens),
            body_bytes: u32::try_from(text.len()).unwrap_or(u32::MAX),
            message_count: index.as_ref().map_or(1, |read| read.message_count),
            tools: index.as_ref().map_or_else(Vec::new, |read| read.tools.clone()).into(),
            agent: None,
            region: None,
            attributes: Vec::new(),
        };
        let body: Arc<dyn BodyView> = Arc::new(body);
        ExchangeRequest {
            call,
            body,
            upstream_model: self.model.clone(),
            model_span: span,
            headers: vec![
                attribute("anthropic-version", "2023-06-01"),
                attribute("content-type", "application/json"),
            ],
            kind,
            target: target.to_owned(),
        }
    }
}

/// What an output asks of whoever reads it.
enum NextMove {
    On,
    Ask,
    Wait,
    Over,
}

// === impl Transcript ===

impl Transcript {
    fn broke(mut self, fault: &Fault) -> Self {
        self.failure = Some(Failure {
            status: 500,
            error_type: "fault".to_owned(),
            message: fault.to_string(),
            retryable: false,
            retry_after_ms: None,
        });
        self
    }

    fn take(&mut self, output: Output, given: &str) -> NextMove {
        match output {
            Output::Send(request) => {
                self.sent = Some(written(&request.body, given));
                return NextMove::Ask;
            }
            Output::SendThenForward(request) => {
                self.sent = Some(written(&request.body, given));
                self.forwards = true;
                return NextMove::Over;
            }
            Output::Forward(_) => {
                self.forwards = true;
                return NextMove::Over;
            }
            Output::Event(event) => self.event(event),
            Output::Message(reply) => self.message(&reply.json),
            Output::TokenCount(count) => self.count = Some(count),
            Output::TokenEstimate(count) => self.estimate = Some(count),
            Output::Lost(loss) => self.losses.push(format!("{}: {}", loss.field, loss.how)),
            Output::Wait(_) => return NextMove::Wait,
            Output::Fail(failure) => {
                self.failure = Some(failure);
                return NextMove::Over;
            }
            Output::Done => return NextMove::Over,
            Output::ResponseHeaders(_) | Output::Other(_) => {}
        }
        NextMove::On
    }

    fn event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::BlockStart(it) => {
                if let Block::ToolUse(tool) = it.block {
                    self.tools.push((tool.name, String::new()));
                }
            }
            StreamEvent::BlockDelta(it) => match it.delta {
                Delta::Text(text) => self.text.push_str(&text),
                Delta::Thinking(text) => self.thought.push_str(&text),
                Delta::InputJson(json) => {
                    if let Some((_, input)) = self.tools.last_mut() {
                        input.push_str(&json);
                    }
                }
                Delta::Signature(_) | Delta::Raw(_) => {}
            },
            StreamEvent::MessageDelta(it) => self.stop_reason = it.stop_reason,
            _ => {}
        }
    }

    /// A whole reply, as the events that it would have been.
    fn message(&mut self, json: &[u8]) {
        let reply: Value = serde_json::from_slice(json).unwrap_or_default();
        let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
        self.stop_reason = text(&reply, "stop_reason");
        for block in reply.get("content").and_then(Value::as_array).into_iter().flatten() {
            self.text.extend(text(block, "text"));
            self.thought.extend(text(block, "thinking"));
            if let Some(name) = text(block, "name") {
                let input = block.get("input").map(Value::to_string).unwrap_or_default();
                self.tools.push((name, input));
            }
        }
    }
}

// === private helpers ===

/// A plain question, streamed.
pub(super) fn asking(model: &str) -> Value {
    let tool = json!({"name": "Canary_tool", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}});
    json!({"model": model, "max_tokens": 2048, "stream": true, "tools": [tool],
        "messages": [{"role": "user", "content": "Hello"}]})
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: value.to_owned() }
}

/// What is sent, of a client's body.
fn written(body: &RequestBody, given: &str) -> String {
    match body {
        RequestBody::Original => given.to_owned(),
        RequestBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        RequestBody::Spliced(edits) => edited(given, edits),
        RequestBody::Empty | RequestBody::Other(_) => String::new(),
    }
}

fn edited(given: &str, edits: &[Edit]) -> String {
    let mut text = String::with_capacity(given.len());
    let mut from = 0;
    for edit in edits {
        let (start, len) = (edit.offset as usize, edit.len as usize);
        text.push_str(given.get(from..start).unwrap_or_default());
        text.push_str(&String::from_utf8_lossy(&edit.replacement));
        from = start.saturating_add(len);
    }
    text.push_str(given.get(from..).unwrap_or_default());
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}
