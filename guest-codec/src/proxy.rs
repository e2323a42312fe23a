//! The byte proxy, for upstreams that speak the Messages API themselves: the client's bytes go up, and the upstream's come back, also its
//! errors. Only the model's name is replaced where the route maps it, and what the provider leaves out.

use sallyport_guest_sdk::provider::{
    Auth, Begun, Exchange, Failure, Input, Loss, Output, Over, Request, RequestBody, ResponseHead,
    UpstreamRequest,
};
use sallyport_guest_sdk::{Attribute, Edit};

use crate::{error, unsigned};

/// The exchange with an upstream that answers Messages but has errors of its own: what is a success goes to the client as the bytes it
/// is, and an error is told as one of the Messages API.
#[derive(Debug)]
pub struct Relay {
    state: RelayState,
    refusal: fn(&ResponseHead, &[u8]) -> Failure,
}

#[derive(Debug)]
enum RelayState {
    /// The request is out.
    Asked,
    /// An answer comes in that is none; only its words matter.
    Failing(ResponseHead, Vec<u8>),
    Over,
}

/// The attribute of a call whose body may hold thinking that is not Anthropic's: the gateway looks whether there is any, so that no
/// other body has to be read.
const UNSIGNED: &str = "unsigned_thinking";

/// What of a call's body is left out for models of Anthropic's, and the loss that this is.
pub fn without_foreign_thinking(request: &Request) -> (Vec<Edit>, Option<Output>) {
    if !request.call.attributes.iter().any(|it| it.name == UNSIGNED) {
        return (Vec::new(), None);
    }
    let edits = unsigned::edits(&request.body.read_all());
    let lost = (!edits.is_empty()).then(|| {
        let how = format!("thinking without a signature dropped ({} times)", edits.len());
        Output::Lost(Loss { field: "messages[].content[].thinking".to_owned(), how })
    });
    (edits, lost)
}

// === impl Relay ===

impl Relay {
    /// The request is out; `refusal` says what an answer stands for whose status is no success.
    pub fn new(refusal: fn(&ResponseHead, &[u8]) -> Failure) -> Self {
        Self { state: RelayState::Asked, refusal }
    }
}

impl Exchange for Relay {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        if matches!(input, Input::Other(_)) {
            return Ok(Vec::new());
        }
        match (std::mem::replace(&mut self.state, RelayState::Over), input) {
            (RelayState::Asked, Input::Head(head)) if (200..300).contains(&head.status) => {
                Ok(vec![Output::Forward(head)])
            }
            (RelayState::Asked, Input::Head(head)) => {
                self.state = RelayState::Failing(head, Vec::new());
                Ok(Vec::new())
            }
            (RelayState::Asked, Input::Failed(fault)) => Err(Failure::transport(&fault)),
            (RelayState::Failing(head, mut body), Input::Chunk(bytes)) => {
                let room = error::LIMIT.saturating_sub(body.len());
                body.extend(bytes.into_iter().take(room));
                if body.len() >= error::LIMIT {
                    return Err((self.refusal)(&head, &body));
                }
                self.state = RelayState::Failing(head, body);
                Ok(Vec::new())
            }
            // An error that broke off is an error still.
            (RelayState::Failing(head, body), Input::End | Input::Failed(_)) => {
                Err((self.refusal)(&head, &body))
            }
            _ => Err(Failure::out_of_order()),
        }
    }
}

/// Hands the request on but for what these edits change, and has the answer handed back, whatever its status: clients match on the
/// wording of the upstream's own errors.
pub fn forward(request: Request, mut edits: Vec<Edit>, lost: Option<Output>) -> Begun<Over> {
    if request.upstream_model != request.call.model {
        let (offset, len) = request.model_span;
        let replacement = serde_json::Value::from(request.upstream_model).to_string().into_bytes();
        edits.push(Edit { offset, len, replacement });
    }
    edits.sort_by_key(|edit| edit.offset);
    let body = if edits.is_empty() { RequestBody::Original } else { RequestBody::Spliced(edits) };
    let mut headers = request.headers;
    if !headers.iter().any(|header| header.name == "content-type") {
        headers.push(Attribute { name: "content-type".to_owned(), value: "application/json".to_owned() });
    }
    let mut outputs: Vec<Output> = lost.into_iter().collect();
    outputs.push(Output::SendThenForward(UpstreamRequest {
        method: "POST".to_owned(),
        path: request.target,
        headers,
        body,
        auth: Auth::Credential,
    }));
    Begun::over(outputs)
}
