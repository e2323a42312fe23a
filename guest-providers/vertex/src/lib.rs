//! Google's Vertex AI behind Anthropic Messages: Claude by `rawPredict` and `streamRawPredict`, where the client's bytes go up but for what
//! the path says (<https://docs.claude.com/en/api/claude-on-vertex-ai>), and Gemini by `generateContent`
//! (<https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>). Project and location stand in the route's
//! endpoint; the host sends an access token.

mod claude;
mod model;

use std::rc::Rc;

use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_codec::proxy::Relay;
use sallyport_guest_gemini::{Config, Decoder, Service, ask};
use sallyport_guest_sdk::provider::{Begun, Exchange, Failure, Input, Output, Provider, Request};

use model::Model;

/// The provider.
#[derive(Debug)]
pub struct Vertex {
    config: Config,
}

/// One call, in the language of the model's publisher.
pub enum Publisher {
    /// Claude answers Messages itself.
    Anthropic(Relay),
    /// Gemini is translated.
    Google(Box<Asked<Decoder>>),
}

// === impl Vertex ===

impl Provider for Vertex {
    type Config = Config;
    type Exchange = Publisher;

    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self { config: config.checked()? })
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Publisher>, Failure> {
        match Model::read(&request.upstream_model)? {
            Model::Claude(name) => claude::begin(&request, name),
            Model::Gemini(resource) => {
                let Begun { exchange, outputs } = ask(&request, &self.config, Service::VERTEX, &resource)?;
                Ok(Begun { exchange: exchange.map(|it| Publisher::Google(Box::new(it))), outputs })
            }
        }
    }
}

// === impl Publisher ===

impl Exchange for Publisher {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match self {
            Self::Anthropic(relay) => relay.next(input),
            Self::Google(asked) => asked.next(input),
        }
    }
}

sallyport_guest_sdk::export_provider!(Vertex);

#[cfg(test)]
mod tests;
