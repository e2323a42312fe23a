//! The byte proxy for upstreams that speak the Messages API: the client's bytes go up and the upstream's come back, also
//! its errors. Nothing is parsed but a body that holds thinking without a signature, which is left out; only the model's name is
//! replaced where the route maps it.

mod unsigned;

use std::rc::Rc;

use sallyport_guest_sdk::{
    Attribute, Edit,
    provider::{
        Auth, Exchange, Failure, Input, Loss, Output, Provider, Request, RequestBody, UpstreamRequest,
    },
};
use serde::Deserialize;

/// Anthropic, and upstreams that answer like it.
pub struct Anthropic {
    auth: Auth,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How the upstream takes its credential.
    #[serde(default)]
    auth: Credential,
}

/// Where the route's credential stands in the upstream request.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// `x-api-key: <credential>`
    #[default]
    XApiKey,
    /// `authorization: Bearer <credential>`
    Bearer,
    /// The upstream takes none.
    None,
}

/// One client call: a request on its way, until the upstream answers.
pub struct Proxied {
    losses: Vec<Loss>,
    request: Option<UpstreamRequest>,
}

sallyport_guest_sdk::export_provider!(Anthropic);

// === impl Anthropic ===

impl Provider for Anthropic {
    type Config = Config;
    type Exchange = Proxied;

    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self {
            auth: match config.auth {
                Credential::XApiKey => Auth::Header("x-api-key".into()),
                Credential::Bearer => Auth::Bearer,
                Credential::None => Auth::None,
            },
        })
    }

    fn begin(self: Rc<Self>, request: Request) -> Proxied {
        let mut edits = Vec::new();
        let mut losses = Vec::new();
        // The gateway looks whether there is any, so that no other body has to be read.
        if request.call.attributes.iter().any(|it| it.name == "unsigned_thinking") {
            let unsigned = unsigned::edits(&request.body.read_all());
            if !unsigned.is_empty() {
                let how = format!("thinking without a signature dropped ({} times)", unsigned.len());
                losses.push(Loss { field: "messages[].content[].thinking".into(), how });
            }
            edits.extend(unsigned);
        }
        if request.upstream_model != request.call.model {
            let (offset, len) = request.model_span;
            let replacement = serde_json::Value::from(request.upstream_model).to_string().into_bytes();
            edits.push(Edit { offset, len, replacement });
        }
        edits.sort_by_key(|edit| edit.offset);
        let body = if edits.is_empty() { RequestBody::Original } else { RequestBody::Spliced(edits) };
        let mut headers = request.headers;
        if !headers.iter().any(|header| header.name == "content-type") {
            headers.push(Attribute { name: "content-type".into(), value: "application/json".into() });
        }
        Proxied {
            losses,
            request: Some(UpstreamRequest {
                method: "POST".into(),
                path: request.target,
                headers,
                body,
                auth: self.auth.clone(),
            }),
        }
    }
}

// === impl Proxied ===

impl Exchange for Proxied {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match (input, self.request.take()) {
            (Input::Start, Some(request)) => {
                let losses = std::mem::take(&mut self.losses).into_iter().map(Output::Lost);
                Ok(losses.chain([Output::Send(request)]).collect())
            }
            // Whatever the status: clients match on the wording of the upstream's own errors.
            (Input::Head(head), None) => Ok(vec![Output::Forward(head)]),
            (Input::Failed(fault), _) => Err(Failure::transport(fault)),
            _ => Err(Failure::out_of_order()),
        }
    }
}

#[cfg(test)]
mod tests;
