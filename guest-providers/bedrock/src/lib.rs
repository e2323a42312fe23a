//! Amazon Bedrock behind Anthropic Messages
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>). Claude is asked by `InvokeModel`,
//! `InvokeModelWithResponseStream` and `CountTokens`: the client's bytes go up but for what the path says and the headers that become
//! fields; the stream comes in AWS's frames and goes out as events. Other models are asked by `Converse` and `ConverseStream`, which is a
//! translation.

mod base64;
mod config;
mod converse;
mod events;
mod refusal;

use std::rc::Rc;

use sallyport_guest_codec::error;
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_codec::hosted::{self, Hosted};
use sallyport_guest_codec::proxy::without_foreign_thinking;
use sallyport_guest_codec::request::{counts_tokens, json_request};
use sallyport_guest_sdk::provider::{
    Begun, Exchange, Failure, Input, Output, Provider, Request, RequestBody,
};
use serde_json::json;

pub use config::{Api, Config};
pub use converse::Decoder as ConverseDecoder;
pub use events::Decoder;

/// What stands in the place of `anthropic-version`
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>).
const VERSION: &str = "bedrock-2023-05-31";

/// The provider.
#[derive(Debug)]
pub struct Bedrock {
    config: Config,
}

/// One call, in the language of its API.
pub enum Spoken {
    /// `InvokeModel`: Claude answers Messages itself.
    Claude(Box<Asked<Decoder>>),
    /// Converse.
    Converse(Box<Asked<ConverseDecoder>>),
}

// === impl Bedrock ===

impl Provider for Bedrock {
    type Config = Config;
    type Exchange = Spoken;

    fn configure(config: Config) -> Result<Self, String> {
        if config.max_output_tokens == Some(0) {
            return Err("max_output_tokens: must be above 0".to_owned());
        }
        Ok(Self { config })
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Spoken>, Failure> {
        let Some(model) = segment(&request.upstream_model) else {
            return Err(error::invalid("model: no id or ARN of a model or inference profile of Bedrock"));
        };
        if self.config.converses(&request.upstream_model) {
            let Begun { exchange, outputs } = converse::begin(&request, &self.config, &model)?;
            Ok(Begun { exchange: exchange.map(|it| Spoken::Converse(Box::new(it))), outputs })
        } else {
            let Begun { exchange, outputs } = invoke(&request, &model)?;
            Ok(Begun { exchange: exchange.map(|it| Spoken::Claude(Box::new(it))), outputs })
        }
    }
}

// === impl Spoken ===

impl Exchange for Spoken {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match self {
            Self::Claude(asked) => asked.next(input),
            Self::Converse(asked) => asked.next(input),
        }
    }
}

// === private helpers ===

/// Asks a Claude by `InvokeModel`, with the client's own bytes. `model` is its name in a path.
fn invoke(request: &Request, model: &str) -> Result<Begun<Asked<Decoder>>, Failure> {
    let counting = counts_tokens(request)?;
    let streaming = request.call.streaming && !counting;
    let body = request.body.read_all();
    let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
    let betas = request.header("anthropic-beta").unwrap_or_default();
    let gone: &[&str] = if counting { &["model", "stream", "metadata"] } else { &["model", "stream"] };
    let wanted = Hosted { version: VERSION, gone, betas: Some(betas), limited: counting };
    let mut edits = hosted::edits(body, wanted).map_err(error::invalid)?;
    let (foreign, lost) = without_foreign_thinking(request);
    edits.extend(foreign);
    let mut outputs: Vec<Output> = lost.into_iter().collect();
    edits.sort_by_key(|edit| edit.offset);
    let (method, body) = if counting {
        let body = base64::encode(hosted::edited(body, &edits).as_bytes());
        let json = json!({"input": {"invokeModel": {"body": body}}}).to_string();
        ("count-tokens", RequestBody::Bytes(json.into_bytes()))
    } else if streaming {
        ("invoke-with-response-stream", RequestBody::Spliced(edits))
    } else {
        ("invoke", RequestBody::Spliced(edits))
    };
    let accept = if streaming { "application/vnd.amazon.eventstream" } else { "application/json" };
    outputs.push(Output::Send(json_request(format!("/model/{model}/{method}"), accept, body)));
    Ok(Begun::going(Asked::new(Decoder::new(counting), streaming, &request.call.time_ms), outputs))
}

/// What a name is in a path: an id (`anthropic.claude-opus-4-5-20251101-v1:0`, `us.anthropic...`) as it is, an ARN in one segment, its
/// colons and slashes encoded as AWS's own clients do. Nothing else is one.
fn segment(model: &str) -> Option<String> {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.' | b':');
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    if is_plain(model) && !model.starts_with("arn:") {
        return Some(model.to_owned());
    }
    let is_arn = model.starts_with("arn:") && model.split('/').all(is_plain);
    is_arn.then(|| model.replace(':', "%3A").replace('/', "%2F"))
}

sallyport_guest_sdk::export_provider!(Bedrock);

#[cfg(test)]
mod tests;
