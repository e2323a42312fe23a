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
/// use sallyport_guest_sdk::{NoConfig, provider::{Exchange, Failure, Input, Output, Provider, Request}};
/// use std::rc::Rc;
///
/// struct Silent;
/// struct Silence;
///
/// impl Provider for Silent {
///     type Config = NoConfig;
///     type Exchange = Silence;
///     fn configure(_: NoConfig) -> Result<Self, String> { Ok(Self) }
///     fn begin(self: Rc<Self>, _: Request) -> Silence { Silence }
/// }
///
/// impl Exchange for Silence {
///     fn next(&mut self, _: Input) -> Result<Vec<Output>, Failure> { Ok(vec![Output::Done]) }
/// }
///
/// sallyport_guest_sdk::export_provider!(Silent);
/// # fn main() {}
/// ```
pub trait Provider: Sized + 'static {
    /// What an entry's `config` holds. Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;
    /// One client call.
    type Exchange: Exchange;

    /// Checks the configuration; an error keeps the entry from becoming active and is shown to the admin.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Begins a client call. No I/O happens before the first [`Exchange::next`].
    fn begin(self: Rc<Self>, request: Request) -> Self::Exchange;
}

/// One client call, from the first byte to the last.
pub trait Exchange: 'static {
    /// What to do now that `input` happened. The first input is [`Input::Start`].
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure>;
}

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
    pub fn transport(fault: TransportFault) -> Self {
        let (status, error_type, message) = match fault {
            TransportFault::Connect => (502, "api_error", "the upstream cannot be reached"),
            TransportFault::TimedOut => (504, "timeout_error", "the upstream did not answer in time"),
            TransportFault::Closed => (502, "api_error", "the connection to the upstream broke off"),
            TransportFault::TooLarge => {
                (502, "api_error", "the upstream's answer is larger than the gateway accepts")
            }
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

/// Exports a type that implements [`Provider`] as a component of the `provider` world.
#[macro_export]
macro_rules! export_provider {
    ($provider:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_configure!($provider, <$provider as $crate::provider::Provider>::configure);

            struct SallyportExchange(
                ::std::cell::RefCell<Option<<$provider as $crate::provider::Provider>::Exchange>>,
            );

            impl $crate::__private::provider::Guest for SallyportGuest {
                type Exchange = SallyportExchange;
            }

            impl $crate::__private::provider::GuestExchange for SallyportExchange {
                fn new(request: $crate::__private::provider::MessagesRequest) -> Self {
                    let provider = SALLYPORT_CONFIGURED.with($crate::__private::Slot::get);
                    Self(::std::cell::RefCell::new(provider.map(|provider| {
                        <$provider as $crate::provider::Provider>::begin(provider, request.into())
                    })))
                }

                fn next(
                    &self,
                    input: $crate::provider::Input,
                ) -> Result<Vec<$crate::provider::Output>, $crate::provider::Failure> {
                    match self.0.borrow_mut().as_mut() {
                        Some(exchange) => $crate::provider::Exchange::next(exchange, input),
                        None => Err($crate::provider::Failure::new(
                            500,
                            "api_error",
                            "the provider is not configured",
                        )),
                    }
                }
            }

            $crate::bindings::provider::export_provider_part!(
                SallyportGuest with_types_in $crate::bindings::provider
            );
        };
    };
}
