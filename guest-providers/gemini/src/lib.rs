//! Google's Gemini API behind Anthropic Messages: `guest-gemini` with the addresses of `v1beta`. The host sends the key in
//! `x-goog-api-key`.

use std::rc::Rc;

use sallyport_guest_codec::error;
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_gemini::{Config, Decoder, Service, ask};
use sallyport_guest_sdk::provider::{Begun, Failure, Provider, Request};

/// The provider.
#[derive(Debug)]
pub struct Gemini {
    config: Config,
}

/// Collections whose members can be asked; a name without one is a model.
const COLLECTIONS: [&str; 2] = ["models/", "tunedModels/"];

// === impl Gemini ===

impl Provider for Gemini {
    type Config = Config;
    type Exchange = Asked<Decoder>;

    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self { config: config.checked()? })
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Asked<Decoder>>, Failure> {
        let resource = resource(&request.upstream_model)?;
        ask(&request, &self.config, Service::GEMINI, &resource)
    }
}

// === private helpers ===

/// What is asked, by its name: `models/gemini-3-flash`. It becomes part of a path, so it holds nothing that means something there.
fn resource(model: &str) -> Result<String, Failure> {
    let (collection, name) = COLLECTIONS
        .iter()
        .find_map(|it| Some((*it, model.strip_prefix(it)?)))
        .unwrap_or((COLLECTIONS[0], model));
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(error::invalid("model: no name of a Gemini model"));
    }
    Ok(format!("{collection}{name}"))
}

sallyport_guest_sdk::export_provider!(Gemini);

#[cfg(test)]
mod tests;
