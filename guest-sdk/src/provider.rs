//! Upstream adapters: state machines that are fed what happened and answer what to do.

use std::rc::Rc;

use serde::de::DeserializeOwned;

pub use crate::bindings::provider::exports::sallyport::gateway::provider_api::{
    Auth, Block, BlockDelta, BlockStart, Delta, Failure, Input, Loss, MessageDelta, MessageStart, Output,
    Reply, RequestBody, RequestKind, ResponseHead, StreamEvent, ToolUse, TransportFault, UpstreamRequest,
};
use crate::{
    Attribute, Body, Call, bindings::provider::exports::sallyport::gateway::provider_api as generated,
};

/// An adapter for a kind of upstream.
///
/// ```
/// use sallyport_guest_sdk::{NoConfig, provider::{Auth, Begun, Failure, Over, Output, Provider, Request, RequestBody, UpstreamRequest}};
/// use std::rc::Rc;
///
/// /// Hands every request on as it is.
/// struct Forwarder;
///
/// impl Provider for Forwarder {
///     type Config = NoConfig;
///     type Exchange = Over;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Over>, Failure> {
///         Ok(Begun::over([Output::SendThenForward(UpstreamRequest {
///             method: "POST".into(),
///             path: request.target,
///             headers: request.headers,
///             body: RequestBody::Original,
///             auth: Auth::Credential,
///         })]))
///     }
/// }
///
/// sallyport_guest_sdk::export_provider!(Forwarder);
/// # fn main() {}
/// ```
pub trait Provider: Sized + 'static {
    /// What an entry's `config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;
    /// One client call.
    type Exchange: Exchange;

    /// Checks the configuration; an error keeps the entry from becoming active and is shown to the admin.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Begins a client call: what to do first, and who is told what comes of it.
    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Self::Exchange>, Failure>;
}

/// One client call after its beginning, to the last byte.
pub trait Exchange: 'static {
    /// What to do now that `input` happened.
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure>;

    /// What to do now that all of this happened: everything that came in meanwhile is told at once. Inputs that belong to an answer
    /// which an output gave up are passed over.
    fn next_all(&mut self, inputs: Vec<Input>) -> Result<Vec<Output>, (Vec<Output>, Failure)> {
        let mut outputs = Vec::new();
        for input in inputs {
            match self.next(input) {
                Ok(more) => outputs.extend(more),
                Err(failure) => return Err((outputs, failure)),
            }
            if outputs.iter().any(leaves_the_answer) {
                break;
            }
        }
        Ok(outputs)
    }
}

/// How a client call begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun<E> {
    /// Who is told what happens next; nobody, where the outputs end the exchange.
    pub exchange: Option<E>,
    /// What to do first.
    pub outputs: Vec<Output>,
}

/// The exchange of a provider whose first outputs end every exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {}

/// What the client asked for.
pub struct Request {
    /// The call's facts.
    pub call: Call,
    /// The client's bytes.
    pub body: Box<dyn Body>,
    /// The model that the upstream is to be asked for.
    pub upstream_model: String,
    /// Where the `model` value stands in the body, quotes included: offset and length.
    pub model_span: (u32, u32),
    /// `anthropic-version`, `anthropic-beta` and other headers that travel; lower-case names.
    pub headers: Vec<Attribute>,
    /// Which endpoint the client called.
    pub kind: RequestKind,
    /// Path and query of the client's request: `/v1/messages?beta=true`.
    pub target: String,
}

// === impl Begun ===

impl<E> Begun<E> {
    /// Do this, and tell `exchange` what comes of it.
    pub fn going(exchange: E, outputs: impl Into<Vec<Output>>) -> Self {
        Self { exchange: Some(exchange), outputs: outputs.into() }
    }

    /// Do this, which ends the exchange.
    pub fn over(outputs: impl Into<Vec<Output>>) -> Self {
        Self { exchange: None, outputs: outputs.into() }
    }
}

// === impl Over ===

impl Exchange for Over {
    fn next(&mut self, _: Input) -> Result<Vec<Output>, Failure> {
        match *self {}
    }
}

// === impl Request ===

impl Request {
    /// The value of the first header with this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl From<generated::MessagesRequest> for Request {
    fn from(request: generated::MessagesRequest) -> Self {
        Self {
            call: request.call,
            body: Box::new(request.body),
            upstream_model: request.upstream_model,
            model_span: request.model_span,
            headers: request.headers,
            kind: request.kind,
            target: request.target,
        }
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    /// The value of the first header with this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

// === impl Failure ===

impl Failure {
    /// A failure that no retry mends.
    pub fn new(status: u16, error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            error_type: error_type.into(),
            message: message.into(),
            retryable: false,
            retry_after_ms: None,
        }
    }

    /// The same, and another upstream, or the same one later, may succeed.
    #[must_use]
    pub fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }

    /// What a request that brought no answer becomes: 502, or 504 where time ran out.
    pub fn transport(fault: &TransportFault) -> Self {
        let (status, error_type, message) = match fault {
            TransportFault::Connect => (502, "api_error", "the upstream cannot be reached"),
            TransportFault::TimedOut => (504, "timeout_error", "the upstream did not answer in time"),
            TransportFault::Closed => (502, "api_error", "the connection to the upstream broke off"),
            TransportFault::TooLarge => {
                (502, "api_error", "the upstream's answer is larger than the gateway accepts")
            }
            TransportFault::Other(_) => (502, "api_error", "the upstream did not answer"),
        };
        let failure = Self::new(status, error_type, message);
        if matches!(fault, TransportFault::TooLarge) { failure } else { failure.retryable() }
    }

    /// What an input that makes no sense in this state becomes.
    pub fn out_of_order() -> Self {
        Self::new(502, "api_error", "the provider was given an event that it did not wait for")
    }
}

fn find<'a>(headers: &'a [Attribute], name: &str) -> Option<&'a str> {
    headers.iter().find(|header| header.name == name).map(|header| header.value.as_str())
}

/// Whether what comes after this output has nothing to do with the answer that was being read.
fn leaves_the_answer(output: &Output) -> bool {
    matches!(
        output,
        Output::Send(_) | Output::SendThenForward(_) | Output::Forward(_) | Output::Done | Output::Fail(_)
    )
}

/// What the export macro expands to; no part of the contract with guests.
#[doc(hidden)]
pub mod exported {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::{Begun, Exchange, Failure, Input, Output, Provider, Request};

    /// Begins the exchange of this instance.
    pub fn begin<P: Provider>(
        exchange: &RefCell<Option<P::Exchange>>,
        provider: Option<Rc<P>>,
        request: Request,
    ) -> Vec<Output> {
        let unconfigured = || Failure::new(500, "api_error", "the provider is not configured");
        match provider.ok_or_else(unconfigured).and_then(|provider| provider.begin(request)) {
            Ok(Begun { exchange: begun, outputs }) => {
                exchange.replace(begun);
                outputs
            }
            Err(failure) => vec![Output::Fail(failure)],
        }
    }

    /// Tells the exchange of this instance what happened.
    pub fn next<E: Exchange>(exchange: &RefCell<Option<E>>, inputs: Vec<Input>) -> Vec<Output> {
        let Some(exchange) = &mut *exchange.borrow_mut() else {
            return vec![Output::Fail(Failure::out_of_order())];
        };
        exchange.next_all(inputs).unwrap_or_else(|(mut outputs, failure)| {
            outputs.push(Output::Fail(failure));
            outputs
        })
    }
}

/// Exports a type that implements [`Provider`] as a component of the `provider` world.
#[macro_export]
macro_rules! export_provider {
    ($provider:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_configure!($provider, <$provider as $crate::provider::Provider>::configure);

            ::std::thread_local! {
                // An instance serves one client call.
                static SALLYPORT_EXCHANGE: ::std::cell::RefCell<
                    Option<<$provider as $crate::provider::Provider>::Exchange>,
                > = const { ::std::cell::RefCell::new(None) };
            }

            impl $crate::__private::provider::Guest for SallyportGuest {
                fn begin(
                    request: $crate::__private::provider::MessagesRequest,
                ) -> Vec<$crate::provider::Output> {
                    let provider = SALLYPORT_CONFIGURED.with($crate::__private::Slot::get);
                    SALLYPORT_EXCHANGE.with(|exchange| {
                        $crate::provider::exported::begin::<$provider>(exchange, provider, request.into())
                    })
                }

                fn next(inputs: Vec<$crate::provider::Input>) -> Vec<$crate::provider::Output> {
                    SALLYPORT_EXCHANGE.with(|exchange| $crate::provider::exported::next(exchange, inputs))
                }
            }

            $crate::bindings::provider::export_provider_part!(
                SallyportGuest with_types_in $crate::bindings::provider
            );
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says `ok` to each chunk, fails at the end, and asks anew where a head has the status 503.
    struct Example;

    fn request() -> UpstreamRequest {
        UpstreamRequest {
            method: "POST".into(),
            path: "/".into(),
            headers: Vec::new(),
            body: RequestBody::Original,
            auth: Auth::Credential,
        }
    }

    impl Exchange for Example {
        fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
            match input {
                Input::Head(head) if head.status == 503 => Ok(vec![Output::Send(request())]),
                Input::Chunk(_) => Ok(vec![Output::TokenCount(1)]),
                Input::End => Err(Failure::new(502, "api_error", "no")),
                _ => Ok(Vec::new()),
            }
        }
    }

    #[test]
    fn what_was_said_before_a_failure_is_said_with_it() {
        let exchange = std::cell::RefCell::new(Some(Example));
        let inputs = vec![Input::Chunk(vec![1]), Input::Chunk(vec![2]), Input::End, Input::Chunk(vec![3])];
        let said = exported::next(&exchange, inputs);
        let failure = Output::Fail(Failure::new(502, "api_error", "no"));
        assert_eq!(said, [Output::TokenCount(1), Output::TokenCount(1), failure]);
    }

    #[test]
    fn the_rest_of_an_answer_that_was_given_up_is_passed_over() {
        let head = ResponseHead { status: 503, headers: Vec::new() };
        let inputs = vec![Input::Head(head), Input::Chunk(vec![1]), Input::End];
        assert_eq!(Example.next_all(inputs), Ok(vec![Output::Send(request())]));
    }

    #[test]
    fn an_exchange_that_is_over_is_told_nothing() {
        let exchange = std::cell::RefCell::<Option<Example>>::new(None);
        let said = exported::next(&exchange, vec![Input::End]);
        assert_eq!(said, [Output::Fail(Failure::out_of_order())]);
    }
}
