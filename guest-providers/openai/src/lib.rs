//! OpenAI Chat Completions behind Anthropic Messages: for OpenAI itself and for every server that speaks its language,
//! vLLM, Ollama and sglang among them. A state machine without I/O: the host sends what it asks for and feeds it the
//! answer.

mod answer;
mod arguments;
mod blocks;
mod chat;
mod config;
mod context;
mod error;
mod estimate;
mod facts;
mod headers;
mod json;
mod ledger;
mod names;
mod reply;
mod request;
mod sniff;
mod sse;
mod stream;
mod surrogate;
mod usage;

use std::rc::Rc;

use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::{
    Auth, Exchange, Failure, Input, Output, Provider, Request, RequestBody, RequestKind, ResponseHead,
    StreamEvent, UpstreamRequest,
};

pub use config::{Config, InlineSystem, Reasoning, ServerTools};
use facts::Facts;
use names::Asked;
use sniff::Form;
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
    /// An answer begins; whether it is events or one JSON text is what its first bytes say.
    Beginning(Asked, ResponseHead, Vec<u8>),
    /// A streamed answer comes in.
    Streaming(Box<Decoder>),
    /// A whole answer comes in.
    Collecting(Asked, Vec<u8>),
    /// An answer comes in that is none; only its words matter.
    Failing(ResponseHead, Vec<u8>),
    Over,
}

/// The largest body translated: the gateway takes none that is larger.
const MOST: u32 = 32 << 20;
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
            (State::Beginning(asked, head, mut body), Input::Chunk(bytes)) => {
                body.extend_from_slice(&bytes);
                match sniff::form(&body, &head, false) {
                    None => {
                        self.state = State::Beginning(asked, head, body);
                        Ok(Vec::new())
                    }
                    Some(form) => self.begun(form, asked, head, body),
                }
            }
            (State::Beginning(asked, head, body), Input::End) => {
                let form = sniff::form(&body, &head, true).unwrap_or(Form::Other);
                let mut outputs = self.begun(form, asked, head, body)?;
                outputs.extend(self.next(Input::End)?);
                Ok(outputs)
            }
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
            (State::Collecting(asked, body), Input::End) if self.streaming => {
                let mut decoder = Decoder::new(asked);
                let mut events = Vec::new();
                let result = decoder.whole(&body, &mut events);
                told(result, &decoder, events)
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
            (State::Asking(_) | State::Beginning(..) | State::Collecting(..), Input::Failed(fault)) => {
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
            let message = "the request is larger than the 32 MiB that this provider translates";
            return Err(Failure::new(413, "request_too_large", message));
        }
        let body = request.body.read_all();
        let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
        let facts = Facts::of(&request.call);
        let target = request::Target {
            config: &self.provider.config,
            facts: &facts,
            model: &request.upstream_model,
            streaming: self.streaming,
        };
        let asked = Asked::new(&request.call, &request.upstream_model);
        let translated = request::translate(body, &target, asked)
            .map_err(|request::Invalid(what)| error::invalid(what))?;
        if request.kind == RequestKind::CountTokens {
            return Ok(vec![Output::TokenEstimate(estimate::tokens(&translated.chat)), Output::Done]);
        }
        let mut translated = translated;
        if self.streaming {
            translated.asked.estimate = Some(estimate::tokens(&translated.chat));
        }
        let json = written(&translated.chat, body.len())
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
        self.state = if (200..300).contains(&head.status) {
            State::Beginning(asked, head, Vec::new())
        } else {
            State::Failing(head, Vec::new())
        };
        if passed.is_empty() { Vec::new() } else { vec![Output::ResponseHeaders(passed)] }
    }
}

impl Call {
    /// Goes on with an answer whose form is known.
    fn begun(
        &mut self,
        form: Form,
        asked: Asked,
        head: ResponseHead,
        body: Vec<u8>,
    ) -> Result<Vec<Output>, Failure> {
        self.state = match form {
            Form::Events => State::Streaming(Box::new(Decoder::new(asked))),
            Form::Json => State::Collecting(asked, Vec::new()),
            Form::Other => State::Failing(head, Vec::new()),
        };
        if body.is_empty() { Ok(Vec::new()) } else { self.next(Input::Chunk(body)) }
    }
}

/// The request as JSON, of a body of so many bytes: what it becomes is seldom longer, and a buffer that grows by doubling holds
/// twice what it needs.
fn written(chat: &chat::Request<'_>, bytes: usize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = Vec::with_capacity(bytes.saturating_add(bytes / 16).saturating_add(1024));
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
