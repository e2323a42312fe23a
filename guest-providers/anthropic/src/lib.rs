//! The byte proxy for Anthropic and upstreams that answer like it. Nothing is parsed but a body that holds thinking which is not
//! Anthropic's, which is left out; only the model's name is replaced where the route maps it.

use std::rc::Rc;

use sallyport_guest_codec::proxy::{forward, without_foreign_thinking};
use sallyport_guest_sdk::NoConfig;
use sallyport_guest_sdk::provider::{Begun, Failure, Over, Provider, Request};

/// Anthropic, and upstreams that answer like it.
#[derive(Debug)]
pub struct Anthropic;

sallyport_guest_sdk::export_provider!(Anthropic);

// === impl Anthropic ===

impl Provider for Anthropic {
    type Config = NoConfig;
    type Exchange = Over;

    fn configure(_: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Over>, Failure> {
        let (edits, lost) = without_foreign_thinking(&request);
        Ok(forward(request, edits, lost))
    }
}

#[cfg(test)]
mod tests;
