//! Claude on Vertex AI (<https://docs.claude.com/en/api/claude-on-vertex-ai>): the model's name stands in the path, the version in the
//! body, and betas stay a header. Answers are Anthropic's own, byte for byte; errors may be Google's. Tokens are counted by a model that
//! is called `count-tokens`, whose body names the one it counts for
//! (<https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/count-tokens>).

use sallyport_guest_codec::error;
use sallyport_guest_codec::hosted::{self, Hosted};
use sallyport_guest_codec::proxy::{Relay, without_foreign_thinking};
use sallyport_guest_codec::request::counts_tokens;
use sallyport_guest_gemini::of_answer;
use sallyport_guest_sdk::provider::{Auth, Begun, Failure, Output, Request, RequestBody, UpstreamRequest};
use sallyport_guest_sdk::{Attribute, Edit};

use crate::Publisher;

/// What stands in the place of `anthropic-version`.
const VERSION: &str = "vertex-2023-10-16";

/// Asks the Claude of this name.
pub(crate) fn begin(request: &Request, name: &str) -> Result<Begun<Publisher>, Failure> {
    let (gone, model, method): (&[&str], _, _) = match (counts_tokens(request)?, request.call.streaming) {
        (true, _) => (&[], "count-tokens", "rawPredict"),
        (false, true) => (&["model"], name, "streamRawPredict"),
        (false, false) => (&["model"], name, "rawPredict"),
    };
    let body = request.body.read_all();
    let body = std::str::from_utf8(&body).map_err(|_| error::invalid("the body is not UTF-8"))?;
    let wanted = Hosted { version: VERSION, gone, betas: None, limited: false };
    let mut edits = hosted::edits(body, wanted).map_err(error::invalid)?;
    if gone.is_empty() {
        let (offset, len) = request.model_span;
        let replacement = serde_json::Value::from(name).to_string().into_bytes();
        edits.push(Edit { offset, len, replacement });
    }
    let (foreign, lost) = without_foreign_thinking(request);
    edits.extend(foreign);
    edits.sort_by_key(|edit| edit.offset);

    // The version is in the body.
    let mut headers: Vec<Attribute> =
        request.headers.iter().filter(|it| it.name != "anthropic-version").cloned().collect();
    if !headers.iter().any(|it| it.name == "content-type") {
        headers.push(Attribute { name: "content-type".to_owned(), value: "application/json".to_owned() });
    }
    let mut outputs: Vec<Output> = lost.into_iter().collect();
    outputs.push(Output::Send(UpstreamRequest {
        method: "POST".to_owned(),
        path: format!("/publishers/anthropic/models/{model}:{method}"),
        headers,
        body: RequestBody::Spliced(edits),
        auth: Auth::Credential,
    }));
    Ok(Begun::going(Publisher::Anthropic(Relay::new(of_answer)), outputs))
}
