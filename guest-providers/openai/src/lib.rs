//! OpenAI behind Anthropic Messages, by Chat Completions or by the Responses API as the configuration says: for OpenAI itself and for every
//! server that speaks its language, vLLM, Ollama and sglang among them. All of it is `guest-chat` and `guest-responses`, whose defaults are
//! OpenAI's.

use std::rc::Rc;

use sallyport_guest_chat::{Api, Chat, Config, Decoder, Facts, InlineSystem, Reasoning, ServerTools, Vendor};
use sallyport_guest_codec::exchange::Asked;
use sallyport_guest_responses::{Call, Place, Settings, Summary, ask};
use sallyport_guest_sdk::provider::{Begun, Exchange, Failure, Input, Output, Provider, Request};
use serde::Deserialize;

/// The provider.
#[derive(Debug)]
pub struct OpenAi {
    chat: Rc<Chat<Itself>>,
    responses: Settings,
    /// Which of them is asked, where the route does not say.
    api: Api,
}

/// OpenAI, and servers that do as it does.
#[derive(Debug)]
pub struct Itself;

/// What an entry's `config` holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenAiConfig {
    /// Which API is asked, where the route does not say.
    api: Api,
    /// See [`Config::max_output_tokens`].
    max_output_tokens: Option<u64>,
    /// See [`Config::reasoning`].
    reasoning: Reasoning,
    /// See [`Config::server_tools`].
    server_tools: ServerTools,
    /// See [`Config::inline_system`].
    inline_system: InlineSystem,
    /// Which summary of its reasoning a model is asked for; the Responses API alone has it.
    reasoning_summary: Summary,
}

/// One call, in the language of its API.
pub enum Spoken {
    /// Chat Completions.
    Chat(Box<Asked<Decoder<Itself>>>),
    /// Responses.
    Responses(Box<Call>),
}

/// Where the Responses API is.
const RESPONSES: Place = Place { vendor: "openai", path: "/v1/responses" };

// === impl OpenAi ===

impl Provider for OpenAi {
    type Config = OpenAiConfig;
    type Exchange = Spoken;

    fn configure(config: OpenAiConfig) -> Result<Self, String> {
        let OpenAiConfig {
            api,
            max_output_tokens,
            reasoning,
            server_tools,
            inline_system,
            reasoning_summary,
        } = config;
        let common = Config { max_output_tokens, reasoning, server_tools, inline_system };
        let chat = Rc::new(Chat::configure(common.clone())?);
        Ok(Self { chat, responses: Settings { common, summary: reasoning_summary }, api })
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Spoken>, Failure> {
        match Facts::of(&request.call).api.unwrap_or(self.api) {
            Api::ChatCompletions => {
                let Begun { exchange, outputs } = Rc::clone(&self.chat).begin(request)?;
                Ok(Begun { exchange: exchange.map(|it| Spoken::Chat(Box::new(it))), outputs })
            }
            Api::Responses => {
                let Begun { exchange, outputs } = ask(&request, &self.responses, RESPONSES)?;
                Ok(Begun { exchange: exchange.map(|it| Spoken::Responses(Box::new(it))), outputs })
            }
        }
    }
}

// === impl Itself ===

impl Vendor for Itself {
    type Config = Config;

    fn configure(config: Config) -> Result<(Self, Config), String> {
        Ok((Self, config))
    }
}

// === impl Spoken ===

impl Exchange for Spoken {
    fn next(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        match self {
            Self::Chat(asked) => asked.next(input),
            Self::Responses(call) => call.next(input),
        }
    }
}

sallyport_guest_sdk::export_provider!(OpenAi);

#[cfg(test)]
mod responses;
#[cfg(test)]
mod tests;
