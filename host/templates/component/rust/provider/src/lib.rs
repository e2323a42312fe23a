//! Talks to an upstream that speaks the Messages API itself: the client's bytes go up, the answer comes down.

use std::rc::Rc;

use sallyport_guest_sdk::{
    Attribute, NoConfig,
    provider::{
        Auth, Begun, Exchange, Failure, Input, Output, Provider, Request, RequestBody, UpstreamRequest,
    },
};

/// The provider. It has nothing to configure.
pub struct Upstream;

/// One client call: a state machine that is told what happened and says what to do. The gateway does all input and output,
/// and adds address and credential; the provider sees neither.
pub struct Call;

// One line makes a component of the type.
sallyport_guest_sdk::export_provider!(Upstream);

impl Provider for Upstream {
    type Config = NoConfig;
    type Exchange = Call;

    fn configure(_: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Call>, Failure> {
        let ask = Output::Send(UpstreamRequest {
            method: "POST".into(),
            path: request.target,
            headers: vec![Attribute { name: "content-type".into(), value: "application/json".into() }],
            body: RequestBody::Original,
            auth: Auth::Credential,
        });
        Ok(Begun::going(Call, [ask]))
    }
}

impl Exchange for Call {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match input {
            Input::Head(head) if head.status == 503 => {
                Err(Failure::new(529, "overloaded_error", "the upstream has no room").retryable())
            }
            // From here on the gateway pumps the bytes, and the provider is done.
            Input::Head(head) => Ok(vec![Output::Forward(head)]),
            Input::Failed(fault) => Err(Failure::transport(&fault)),
            _ => Err(Failure::out_of_order()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::{converse, request};

    use super::*;

    #[test]
    fn the_clients_bytes_go_up() {
        let body = r#"{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[]}"#;
        let outputs = converse::<Upstream>("{}", request(body), []).unwrap();
        assert!(matches!(&outputs[..], [Output::Send(up)] if up.body == RequestBody::Original));
    }
}
