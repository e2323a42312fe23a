//! Gemini's `generateContent`, `streamGenerateContent` and `countTokens` behind Anthropic Messages
//! (<https://ai.google.dev/api/generate-content>, <https://ai.google.dev/api/tokens>), for every service of Google's that has them. A
//! state machine without I/O: the host sends what it asks for, with the credential, and feeds it the answer.

mod answer;
mod config;
mod refusal;
mod request;
mod stream;
mod wire;

use sallyport_guest_codec::answers::Reader;
use sallyport_guest_codec::error;
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::request::counts_tokens;
use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::{Auth, Begun, Failure, Output, Request, RequestBody, UpstreamRequest};

pub use config::{Config, ThinkingForm};
pub use refusal::of_answer;
pub use stream::{Decoder, Reply};

/// A service that has Gemini models, and what it does otherwise than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Whose thought signatures are carried: a signature goes back to the service that gave it, and to no other.
    pub vendor: &'static str,
    /// What the path of each request begins with, before the resource.
    pub root: &'static str,
    /// Whether a body names the model, and a count holds the request as a field. Otherwise the path alone names the model, and a count
    /// is the request itself.
    pub names_model: bool,
    /// Whether a file that is fetched from an address needs its media type beside it.
    pub typed_files: bool,
}

/// The largest body translated: the gateway takes none that is larger.
const MOST: u32 = 32 << 20;

// === impl Service ===

impl Service {
    /// The Gemini API, `v1beta`: <https://ai.google.dev/api/generate-content>.
    pub const GEMINI: Self =
        Self { vendor: "gemini", root: "/v1beta/", names_model: true, typed_files: false };

    /// Vertex AI, below an endpoint that ends with project and location:
    /// <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>. The path binds the model there, and
    /// `fileData.mimeType` is required.
    pub const VERTEX: Self = Self { vendor: "vertex", root: "/", names_model: false, typed_files: true };
}

/// Asks `resource` (`models/gemini-3-flash`) for what the client wants.
pub fn ask(
    request: &Request,
    config: &Config,
    service: Service,
    resource: &str,
) -> Result<Begun<Asked<Decoder>>, Failure> {
    if request.body.len() > MOST {
        let message = "the request is larger than the 32 MiB that this provider translates";
        return Err(Failure::new(413, "request_too_large", message));
    }
    let body = request.body.read_all();
    let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
    let context = ReplyContext::new(&request.call, &request.upstream_model);
    let to = request::Target { config, service, resource };
    let translated = request::translate(body, &to, &request.call, context)?;
    let counting = counts_tokens(request)?;
    let streaming = request.call.streaming && !counting;
    let method = match (counting, streaming) {
        (true, _) => ":countTokens",
        (_, true) => ":streamGenerateContent?alt=sse",
        (_, false) => ":generateContent",
    };
    let json = if counting && service.names_model {
        serde_json::to_vec(&wire::Count { generate_content_request: &translated.generate })
    } else {
        serde_json::to_vec(&translated.generate)
    };
    let json = json.map_err(|error| error::invalid(format!("the request cannot be translated: {error}")))?;
    let mut outputs: Vec<Output> = translated.losses.into_losses().into_iter().map(Output::Lost).collect();
    outputs.push(Output::Send(UpstreamRequest {
        method: "POST".to_owned(),
        path: format!("{}{resource}{method}", service.root),
        headers: vec![Attribute { name: "content-type".to_owned(), value: "application/json".to_owned() }],
        body: RequestBody::Bytes(json),
        auth: Auth::Credential,
    }));
    let decoder = Reader::new(Reply::new(translated.context, service.vendor, counting));
    Ok(Begun::going(Asked::new(decoder, streaming, &request.call.time_ms), outputs))
}
