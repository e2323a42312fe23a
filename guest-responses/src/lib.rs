//! OpenAI's Responses API behind Anthropic Messages (<https://platform.openai.com/docs/api-reference/responses>): a state machine without
//! I/O. Nothing is stored upstream: what the model reasoned comes encrypted, travels with the client in the signature of thinking blocks,
//! and goes back in its place (<https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items>).

mod answer;
mod estimate;
mod request;
mod wire;

use sallyport_guest_chat::{Config, Facts};
use sallyport_guest_codec::answers::Reader;
use sallyport_guest_codec::error;
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::request::{counts_tokens, json_request};
use sallyport_guest_sdk::provider::{Begun, Exchange, Failure, Input, Output, Request, RequestBody};
use serde::Deserialize;

pub use answer::Reply;

/// Where the API is, and whose reasoning is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The vendor: encrypted reasoning goes back to whom it came from, and to nobody else.
    pub vendor: &'static str,
    /// The path below the route's endpoint.
    pub path: &'static str,
}

/// What an entry's `config` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What it says for Chat Completions too.
    pub common: Config,
    /// Which summary of its reasoning a model is asked for.
    pub summary: Summary,
}

/// Which summary of its reasoning a model is asked for, where the client wants to see it think. OpenAI gives summaries to organizations
/// that it has verified, and refuses others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// The most detailed that the model has.
    #[default]
    Auto,
    /// A short one.
    Concise,
    /// A long one.
    Detailed,
    /// None: the client sees that the model thinks, but not what.
    None,
}

/// One call.
pub struct Call {
    asked: Asked<Reader<Reply>>,
    /// The estimate that stands in for a count where the server has none: compatible servers lack that endpoint.
    estimate: Option<u32>,
}

/// The largest body translated: the gateway takes none that is larger.
const MOST: u32 = 32 << 20;

/// Asks for what the client wants.
pub fn ask(request: &Request, settings: &Settings, place: Place) -> Result<Begun<Call>, Failure> {
    if request.body.len() > MOST {
        let message = "the request is larger than the 32 MiB that this provider translates";
        return Err(Failure::new(413, "request_too_large", message));
    }
    let counting = counts_tokens(request)?;
    let streaming = request.call.streaming && !counting;
    let body = request.body.read_all();
    let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
    let facts = Facts::of(&request.call);
    let target = request::Target { settings, facts: &facts, place, model: &request.upstream_model };
    let context = ReplyContext::new(&request.call, &request.upstream_model);
    let mut translated = request::translate(body, &target, context)?;
    let estimate = (counting || streaming).then(|| estimate::tokens(&translated.body));
    if streaming {
        translated.context.estimate = estimate;
    }
    let (path, json) = if counting {
        (format!("{}/input_tokens", place.path), serde_json::to_vec(&translated.body))
    } else {
        let made = wire::Made {
            body: &translated.body,
            store: false,
            stream: streaming,
            include: if translated.reasons { &["reasoning.encrypted_content"] } else { &[] },
            sampling: translated.sampling,
        };
        (place.path.to_owned(), serde_json::to_vec(&made))
    };
    let json = json.map_err(|error| error::invalid(format!("the request cannot be translated: {error}")))?;
    let mut outputs: Vec<Output> = translated.losses.into_losses().into_iter().map(Output::Lost).collect();
    let accept = if streaming { "text/event-stream" } else { "application/json" };
    outputs.push(Output::Send(json_request(path, accept, RequestBody::Bytes(json))));
    let reply = Reply::new(translated.context, place.vendor, counting);
    let asked = Asked::new(Reader::new(reply), streaming, &request.call.time_ms);
    Ok(Begun::going(Call { asked, estimate: estimate.filter(|_| counting) }, outputs))
}

// === impl Call ===

impl Exchange for Call {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match (&input, self.estimate) {
            (Input::Head(head), Some(estimate)) if matches!(head.status, 404 | 405 | 501) => {
                Ok(vec![Output::TokenEstimate(estimate), Output::Done])
            }
            _ => self.asked.next(input),
        }
    }
}

// === impl Summary ===

impl Summary {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => Some("auto"),
            Self::Concise => Some("concise"),
            Self::Detailed => Some("detailed"),
            Self::None => None,
        }
    }
}
