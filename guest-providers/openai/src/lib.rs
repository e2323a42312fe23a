//! OpenAI Chat Completions behind Anthropic Messages: for OpenAI itself and for every server that speaks its language,
//! vLLM, Ollama and sglang among them. A state machine without I/O: the host sends what it asks for and feeds it the
//! answer.

mod answer;
mod blocks;
mod chat;
mod config;
mod error;
mod estimate;
mod headers;
mod json;
mod ledger;
mod names;
mod reply;
mod request;
mod sse;
mod stream;
mod usage;

use std::rc::Rc;

use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::{
    Auth, Exchange, Failure, Input, Output, Provider, Request, RequestBody, RequestKind, ResponseHead,
    StreamEvent, UpstreamRequest,
};

pub use config::{Config, InlineSystem, Reasoning};
use names::Asked;
use stream::Decoder;

/// The provider.
#[derive(Debug)]
pub struct OpenAi {
    config: Config,
}

/// One client call.
pub struct Call {
    provider: Rc<OpenAi>,
    state: State,
    streaming: bool,
    now_ms: u64,
}

enum State {
    New(Box<Request>),
    /// The request is out.
    Asking(Asked),
    /// A streamed answer comes in.
    Streaming(Box<Decoder>),
    /// A whole answer comes in.
    Collecting(Asked, Vec<u8>),
    /// An answer comes in that is none; only its words matter.
    Failing(ResponseHead, Vec<u8>),
    Over,
}

/// The largest body translated: it and what becomes of it are in the guest's 64 MiB at once.
const MOST: u32 = 24 << 20;
/// Where the API is, below the route's endpoint.
const PATH: &str = "/v1/chat/completions";

// === impl OpenAi ===

impl Provider for OpenAi {
    type Config = Config;
    type Exchange = Call;

    fn configure(config: Config) -> Result<Self, String> {
        if config.max_output_tokens == Some(0) {
            return Err("max_output_tokens: must be above 0".to_owned());
        }
        Ok(Self { config })
    }

    fn begin(self: Rc<Self>, request: Request) -> Call {
        Call {
            provider: self,
            streaming: request.call.streaming,
            now_ms: request.call.time_ms.parse().unwrap_or_default(),
            state: State::New(Box::new(request)),
        }
    }
}

// === impl Call ===

impl Exchange for Call {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match (std::mem::replace(&mut self.state, State::Over), input) {
            (State::New(request), Input::Start) => self.start(&request),
            (State::Asking(asked), Input::Head(head)) => Ok(self.head(asked, head)),
            (State::Streaming(mut decoder), Input::Chunk(bytes)) => {
                let mut events = Vec::with_capacity(4);
                let result = decoder.chunk(&bytes, &mut events);
                let outputs = told(result, &decoder, events)?;
                if !decoder.is_over() {
                    self.state = State::Streaming(decoder);
                }
                Ok(outputs)
            }
            (State::Streaming(mut decoder), Input::End) => {
                let mut events = Vec::new();
                let result = decoder.end(&mut events);
                told(result, &decoder, events)
            }
            (State::Streaming(mut decoder), Input::Failed(fault)) => {
                let mut events = Vec::new();
                let result = decoder.failed(fault, &mut events);
                told(result, &decoder, events)
            }
            (State::Collecting(asked, mut body), Input::Chunk(bytes)) => {
                if body.len().saturating_add(bytes.len()) > reply::MOST {
                    return Err(error::garbage("the upstream's answer is larger than 16 MiB"));
                }
                body.extend_from_slice(&bytes);
                self.state = State::Collecting(asked, body);
                Ok(Vec::new())
            }
            (State::Collecting(asked, body), Input::End) => {
                Ok(vec![Output::Message(reply::translate(&body, &asked)?), Output::Done])
            }
            (State::Failing(head, mut body), Input::Chunk(bytes)) => {
                let room = error::MOST.saturating_sub(body.len());
                body.extend(bytes.into_iter().take(room));
                if body.len() >= error::MOST {
                    return Err(failed(&head, &body));
                }
                self.state = State::Failing(head, body);
                Ok(Vec::new())
            }
            // An error that broke off is an error still.
            (State::Failing(head, body), Input::End | Input::Failed(_)) => Err(failed(&head, &body)),
            (State::Asking(_) | State::Collecting(..), Input::Failed(fault)) => {
                Err(Failure::transport(fault))
            }
            // What the upstream says after its answer is of no interest.
            (State::Over, Input::Chunk(_) | Input::End | Input::Failed(_)) => Ok(Vec::new()),
            _ => Err(Failure::out_of_order()),
        }
    }
}

impl Call {
    fn start(&mut self, request: &Request) -> Result<Vec<Output>, Failure> {
        if request.body.len() > MOST {
            let message = "the request is larger than the 24 MiB that this provider translates";
            return Err(Failure::new(413, "request_too_large", message));
        }
        let body = request.body.read_all();
        let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
        let target = request::Target {
            config: &self.provider.config,
            model: &request.upstream_model,
            streaming: self.streaming,
        };
        let asked = Asked::new(&request.call, &request.upstream_model);
        let translated = request::translate(body, &target, asked)
            .map_err(|request::Invalid(what)| error::invalid(what))?;
        if request.kind == RequestKind::CountTokens {
            return Ok(vec![Output::TokenEstimate(estimate::tokens(&translated.chat)), Output::Done]);
        }
        let json = written(&translated.chat)
            .map_err(|error| error::invalid(format!("the request cannot be translated: {error}")))?;

        let mut outputs: Vec<Output> =
            translated.losses.into_losses().into_iter().map(Output::Lost).collect();
        let accept = if self.streaming { "text/event-stream" } else { "application/json" };
        outputs.push(Output::Send(UpstreamRequest {
            method: "POST".to_owned(),
            path: PATH.to_owned(),
            headers: [("content-type", "application/json"), ("accept", accept)]
                .map(|(name, value)| Attribute { name: name.to_owned(), value: value.to_owned() })
                .into(),
            body: RequestBody::Bytes(json),
            auth: Auth::Bearer,
        }));
        self.state = State::Asking(translated.asked);
        Ok(outputs)
    }

    fn head(&mut self, asked: Asked, head: ResponseHead) -> Vec<Output> {
        let passed = headers::pass_on(&head, self.now_ms);
        let media_type =
            head.header("content-type").map(|it| it.split(';').next().unwrap_or_default().trim());
        let expected =
            |types: &[&str]| media_type.is_none_or(|it| types.iter().any(|ty| it.eq_ignore_ascii_case(ty)));
        self.state = if !(200..300).contains(&head.status) {
            State::Failing(head, Vec::new())
        } else if self.streaming && expected(&["text/event-stream"]) {
            State::Streaming(Box::new(Decoder::new(asked)))
        } else if !self.streaming && expected(&["application/json", "text/json"]) {
            State::Collecting(asked, Vec::new())
        } else {
            State::Failing(head, Vec::new())
        };
        if passed.is_empty() { Vec::new() } else { vec![Output::ResponseHeaders(passed)] }
    }
}

/// The request as JSON. It is measured first: a buffer that grew by doubling would hold twice what it needs.
fn written(chat: &chat::Request<'_>) -> Result<Vec<u8>, serde_json::Error> {
    struct Size(usize);
    impl std::io::Write for Size {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut size = Size(0);
    serde_json::to_writer(&mut size, chat)?;
    let mut json = Vec::with_capacity(size.0);
    serde_json::to_writer(&mut json, chat)?;
    Ok(json)
}

/// The failure that an answer stands for which is none: not a success, or not of the type asked for.
fn failed(head: &ResponseHead, body: &[u8]) -> Failure {
    if !(200..300).contains(&head.status) {
        return error::status(head, body);
    }
    let said = error::said(body);
    if said.is_empty() {
        let got = head.header("content-type").unwrap_or_default();
        error::garbage(format!("the upstream answered with {got:?} in place of a chat completion"))
    } else {
        error::object(&said)
    }
}

/// What a decoder made of its input. Events before a failure are lost with it: the host ends the stream anyway.
fn told(
    result: Result<(), Failure>,
    decoder: &Decoder,
    events: Vec<StreamEvent>,
) -> Result<Vec<Output>, Failure> {
    result?;
    let mut outputs: Vec<Output> = events.into_iter().map(Output::Event).collect();
    if decoder.is_over() {
        outputs.push(Output::Done);
    }
    Ok(outputs)
}

sallyport_guest_sdk::export_provider!(OpenAi);

#[cfg(test)]
mod tests;
