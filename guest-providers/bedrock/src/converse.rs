//! The Converse API, for models of Bedrock that are not Claude:
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>.

mod answer;
mod model;
mod request;
mod turns;
mod wire;

use sallyport_guest_codec::error;
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::request::{counts_tokens, json_request};
use sallyport_guest_sdk::provider::{Begun, Failure, Output, Request, RequestBody};

use crate::config::Config;

pub use answer::Decoder;

/// Whose signatures are carried.
const VENDOR: &str = "bedrock";
/// The largest body translated: the gateway takes none that is larger.
const MOST: u32 = 32 << 20;

/// Asks a model, of which only an id is known, by Converse. `segment` is what it is in a path.
pub(crate) fn begin(
    request: &Request,
    config: &Config,
    segment: &str,
) -> Result<Begun<Asked<Decoder>>, Failure> {
    if request.body.len() > MOST {
        let message = "the request is larger than the 32 MiB that this provider translates";
        return Err(Failure::new(413, "request_too_large", message));
    }
    let id = &request.upstream_model;
    let body = request.body.read_all();
    let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
    let model = model::Model::of(id, config, &request.call);
    let context = ReplyContext::new(&request.call, id);
    let mut translated = request::translate(body, &model, config, context)?;
    let estimate = translated.body.estimate();
    if counts_tokens(request)? {
        // Bedrock counts for Claude alone.
        return Ok(Begun::over([Output::TokenEstimate(estimate), Output::Done]));
    }
    let streaming = request.call.streaming;
    translated.context.estimate = Some(estimate).filter(|_| streaming);
    let json = serde_json::to_vec(&translated.body)
        .map_err(|error| error::invalid(format!("the request cannot be translated: {error}")))?;
    let (method, accept) = if streaming {
        ("converse-stream", "application/vnd.amazon.eventstream")
    } else {
        ("converse", "application/json")
    };
    let mut outputs: Vec<Output> = translated.losses.into_losses().into_iter().map(Output::Lost).collect();
    let path = format!("/model/{segment}/{method}");
    outputs.push(Output::Send(json_request(path, accept, RequestBody::Bytes(json))));
    let decoder = Decoder::new(translated.context);
    Ok(Begun::going(Asked::new(decoder, streaming, &request.call.time_ms), outputs))
}
