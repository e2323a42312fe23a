//! Chat Completions behind Anthropic Messages: for OpenAI itself and for every server that speaks its language. A state machine
//! without I/O: the host sends what it asks for and feeds it the answer. What vendors do otherwise is a [`Vendor`]'s to say.

mod answer;
mod chat;
mod config;
mod estimate;
mod facts;
mod headers;
mod reply;
mod request;
mod stream;
mod usage;
mod vendor;

use std::rc::Rc;

use sallyport_guest_codec::answers::Reader;
use sallyport_guest_codec::error;
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::request::{counts_tokens, json_request};
use sallyport_guest_sdk::provider::{Begun, Failure, Output, Provider, Request, RequestBody};

pub use config::{Api, Config, InlineSystem, Reasoning};
pub use facts::Facts;
pub use headers::pass_on;
pub use request::{effort, enforced, parameters};
pub use sallyport_guest_codec::offer::ServerTools;
pub use stream::{ChatReply, Decoder};
pub use vendor::{Forced, Limit, PATH, Switch, Vendor, Wire, refusal, refusal_as};

/// The provider of a vendor.
#[derive(Debug)]
pub struct Chat<V> {
    vendor: V,
    config: Config,
}

/// The largest body translated: the gateway takes none that is larger.
const MOST: u32 = 32 << 20;

// === impl Chat ===

impl<V: Vendor> Provider for Chat<V> {
    type Config = V::Config;
    type Exchange = Asked<Decoder<V>>;

    fn configure(config: V::Config) -> Result<Self, String> {
        let (vendor, config) = V::configure(config)?;
        Ok(Self { vendor, config: config.checked()? })
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Asked<Decoder<V>>>, Failure> {
        let (context, outputs) = self.ask(&request)?;
        Ok(match context {
            Some(context) => {
                let (streaming, time_ms) = (request.call.streaming, &request.call.time_ms);
                Begun::going(Asked::new(Reader::new(ChatReply::new(context)), streaming, time_ms), outputs)
            }
            None => Begun::over(outputs),
        })
    }
}

impl<V: Vendor> Chat<V> {
    /// What is asked of the upstream, and what its answer will need; nothing of that where none comes.
    fn ask(&self, request: &Request) -> Result<(Option<ReplyContext>, Vec<Output>), Failure> {
        if request.body.len() > MOST {
            let message = "the request is larger than the 32 MiB that this provider translates";
            return Err(Failure::new(413, "request_too_large", message));
        }
        let path = self.vendor.path(&request.upstream_model)?;
        let body = request.body.read_all();
        let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
        let facts = Facts::of(&request.call);
        let target = request::Target {
            config: &self.config,
            facts: &facts,
            wire: self.vendor.wire(&request.upstream_model),
            model: &request.upstream_model,
            streaming: request.call.streaming,
        };
        let context = ReplyContext::new(&request.call, &request.upstream_model);
        let mut translated = request::translate(body, &target, context)?;
        if counts_tokens(request)? {
            let estimate = estimate::tokens(&translated.chat);
            return Ok((None, vec![Output::TokenEstimate(estimate), Output::Done]));
        }
        if request.call.streaming {
            translated.context.estimate = Some(estimate::tokens(&translated.chat));
        }
        let json = written(&translated.chat, body.len())
            .map_err(|error| error::invalid(format!("the request cannot be translated: {error}")))?;

        let mut outputs: Vec<Output> =
            translated.losses.into_losses().into_iter().map(Output::Lost).collect();
        let accept = if request.call.streaming { "text/event-stream" } else { "application/json" };
        outputs.push(Output::Send(json_request(path, accept, RequestBody::Bytes(json))));
        Ok((Some(translated.context), outputs))
    }
}

// === private helpers ===

/// The request as JSON, of a body of so many bytes: what it becomes is seldom longer, and a buffer that grows by doubling holds
/// twice what it needs.
fn written(chat: &chat::Request<'_>, bytes: usize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = Vec::with_capacity(bytes.saturating_add(bytes / 16).saturating_add(1024));
    serde_json::to_writer(&mut json, chat)?;
    Ok(json)
}
