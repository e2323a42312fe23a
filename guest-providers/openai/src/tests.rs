//! The exchange as the host drives it: golden cases, every byte split of every recorded stream, real clients'
//! requests, and input that makes no sense.

mod cases;
mod exchange;
mod fixtures;
mod fuzz;
mod golden;

use sallyport_guest_sdk::provider::{
    Block, Delta, Exchange, Failure, Input, Loss, Output, Request, RequestBody, ResponseHead, StreamEvent,
};
use sallyport_guest_sdk::testing::{self, attribute};
use serde_json::{Value, json};

use crate::OpenAi;

/// What an exchange came to.
#[derive(Debug, Default)]
struct Told {
    sent: Option<Value>,
    losses: Vec<String>,
    headers: Vec<String>,
    events: Vec<StreamEvent>,
    message: Option<Value>,
    estimate: Option<u32>,
    done: bool,
    failure: Option<Failure>,
}

/// A Messages request for `model`.
fn request(body: &str, model: &str) -> Request {
    let mut request = testing::request(body);
    model.clone_into(&mut request.upstream_model);
    // As the gateway does it.
    let facts =
        sallyport_protocol::facts::FactTable::shipped().expect("the table is good").of("openai", model);
    request.call.attributes.extend(facts.json().map(|it| attribute("model_facts", &it)));
    request
}

fn head(status: u16, headers: &[(&str, &str)]) -> Input {
    Input::Head(ResponseHead { status, headers: headers.iter().map(|(n, v)| attribute(n, v)).collect() })
}

/// Runs an exchange to its end.
fn run(config: &str, request: Request, inputs: impl IntoIterator<Item = Input>) -> Told {
    let mut exchange = testing::exchange::<OpenAi>(config, request).expect("the configuration is good");
    let mut told = Told::default();
    for input in std::iter::once(Input::Start).chain(inputs) {
        match exchange.next(input) {
            Ok(outputs) => outputs.into_iter().for_each(|it| told.take(it)),
            Err(failure) => {
                told.failure = Some(failure);
                break;
            }
        }
    }
    told
}

impl Told {
    fn take(&mut self, output: Output) {
        assert!(!self.done, "nothing comes after done: {output:?}");
        match output {
            Output::Send(sent) => {
                assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/v1/chat/completions"));
                let RequestBody::Bytes(bytes) = sent.body else { panic!("a body of its own") };
                self.sent = Some(serde_json::from_slice(&bytes).expect("JSON is sent"));
            }
            Output::Lost(Loss { field, how }) => self.losses.push(format!("{field}: {how}")),
            Output::ResponseHeaders(headers) => {
                self.headers.extend(headers.into_iter().map(|it| format!("{}: {}", it.name, it.value)));
            }
            Output::Event(event) => self.events.push(event),
            Output::Message(reply) => {
                self.message = Some(serde_json::from_slice(&reply.json).expect("the reply is JSON"));
            }
            Output::TokenEstimate(tokens) => self.estimate = Some(tokens),
            Output::Done => self.done = true,
            other => panic!("never said: {other:?}"),
        }
    }

    /// As a golden file holds it.
    fn json(&self) -> Value {
        let mut json = json!({});
        let mut put = |name: &str, value: Value| {
            if !matches!(&value, Value::Null) && value != json!([]) {
                json[name] = value;
            }
        };
        put("sent", json!(self.sent));
        put("losses", json!(self.losses));
        put("headers", json!(self.headers));
        put("events", self.events.iter().map(wire).collect());
        put("message", json!(self.message));
        put("failure", self.failure.as_ref().map_or(Value::Null, |it| {
            json!({
                "status": it.status, "type": it.error_type, "message": it.message, "retryable": it.retryable,
                "retry_after_ms": it.retry_after_ms,
            })
        }));
        json
    }
}

/// An event in the words of the wire.
fn wire(event: &StreamEvent) -> Value {
    let usage = |it: &sallyport_guest_sdk::Usage| json!({"input": it.input, "output": it.output, "cache_read": it.cache_read});
    match event {
        StreamEvent::MessageStart(it) => {
            json!({"message_start": {"id": it.id, "model": it.model, "usage": usage(&it.usage)}})
        }
        StreamEvent::BlockStart(it) => json!({"start": it.index, "block": match &it.block {
            Block::Text => json!("text"),
            Block::Thinking => json!("thinking"),
            Block::ToolUse(tool) => json!({"id": tool.id, "name": tool.name}),
            other => panic!("never said: {other:?}"),
        }}),
        StreamEvent::BlockDelta(it) => match &it.delta {
            Delta::Text(text) => json!({"delta": it.index, "text": text}),
            Delta::Thinking(text) => json!({"delta": it.index, "thinking": text}),
            Delta::InputJson(text) => json!({"delta": it.index, "json": text}),
            other => panic!("never said: {other:?}"),
        },
        StreamEvent::BlockStop(index) => json!({"stop": index}),
        StreamEvent::MessageDelta(it) => json!({"message_delta": {
            "stop_reason": it.stop_reason, "stop_sequence": it.stop_sequence, "usage": usage(&it.usage),
        }}),
        StreamEvent::MessageStop => json!("message_stop"),
        other => panic!("never said: {other:?}"),
    }
}

/// Whether the events are in the order that the Messages stream allows, and end as they should.
fn assert_legal(events: &[StreamEvent], complete: bool) {
    let (mut begun, mut open, mut next, mut told, mut over) = (false, None, 0, false, false);
    for event in events {
        assert!(!over, "after message_stop: {event:?}");
        match event {
            StreamEvent::MessageStart(_) => assert!(!std::mem::replace(&mut begun, true)),
            StreamEvent::BlockStart(it) => {
                assert!(begun && !told && open.is_none() && it.index == next, "{event:?}");
                open = Some(it.index);
            }
            StreamEvent::BlockDelta(it) => assert_eq!(open, Some(it.index)),
            StreamEvent::BlockStop(index) => {
                assert_eq!(open.take(), Some(*index));
                next += 1;
            }
            StreamEvent::MessageDelta(_) => {
                assert!(begun && open.is_none() && !told);
                told = true;
            }
            StreamEvent::MessageStop => {
                assert!(told);
                over = true;
            }
            other => panic!("never said: {other:?}"),
        }
    }
    assert_eq!(over, complete, "a stream ends with message_stop, and only then");
}
