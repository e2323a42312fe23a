//! How an exchange begins with every provider: what the client asks for, what the route says of its model, and the request in JSON.

use sallyport_guest_sdk::provider::{Auth, Failure, Request, RequestBody, RequestKind, UpstreamRequest};
use sallyport_guest_sdk::{Attribute, Call};
use serde::de::DeserializeOwned;

use crate::error;

/// Whether the client wants its tokens counted, rather than an answer. Nothing else is asked of an upstream.
pub fn counts_tokens(request: &Request) -> Result<bool, Failure> {
    match &request.kind {
        RequestKind::Message => Ok(false),
        RequestKind::CountTokens => Ok(true),
        RequestKind::Other(kind) => {
            Err(error::invalid(format!("{kind} is not supported by this model's upstream")))
        }
    }
}

/// What the gateway hands over with a call of what is known of its model, as far as `T` names it. A form that the provider does not know,
/// from a gateway that is newer, says nothing: the model is then as with a plain server.
pub fn model_facts<T: DeserializeOwned + Default>(call: &Call) -> T {
    let told = call.attributes.iter().find(|it| it.name == "model_facts");
    told.and_then(|it| serde_json::from_str(&it.value).ok()).unwrap_or_default()
}

/// A request with a body in JSON and the route's credential, whose answer is of the media type `accept`.
pub fn json_request(path: String, accept: &str, body: RequestBody) -> UpstreamRequest {
    let header = |name: &str, value: &str| Attribute { name: name.to_owned(), value: value.to_owned() };
    UpstreamRequest {
        method: "POST".to_owned(),
        path,
        headers: vec![header("content-type", "application/json"), header("accept", accept)],
        body,
        auth: Auth::Credential,
    }
}
