//! What vendors that speak Chat Completions do otherwise than OpenAI.

use sallyport_guest_codec::error;
use sallyport_guest_codec::names::NameLimits;
use sallyport_guest_codec::parts::Attachments;
use sallyport_guest_sdk::provider::{Failure, ResponseHead};
use serde::de::DeserializeOwned;

use crate::{Config, headers};

/// Where the API is, below a route's endpoint.
pub const PATH: &str = "/v1/chat/completions";

/// A vendor.
pub trait Vendor: Sized + 'static {
    /// What an entry's `config` holds: [`Config`], and what else the vendor needs.
    type Config: DeserializeOwned;

    /// Checks the configuration, and parts the vendor's own from what all have.
    fn configure(config: Self::Config) -> Result<(Self, Config), String>;

    /// The path and query that a model is asked at, below the route's endpoint.
    fn path(&self, _model: &str) -> Result<String, Failure> {
        Ok(PATH.to_owned())
    }

    /// How a model is asked.
    fn wire(&self, _model: &str) -> Wire {
        Wire::default()
    }

    /// What an answer stands for whose status is no success.
    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        refusal(head, body)
    }
}

/// How a model is asked. The defaults are OpenAI's.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of a vendor, and none follows from another"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The name of the limit on output tokens.
    pub limit: Limit,
    /// The most stop sequences.
    pub most_stops: usize,
    /// Whether `temperature` and `top_p` are taken.
    pub samples: bool,
    /// Whether `top_k` is taken.
    pub top_k: bool,
    /// Which attachments are taken.
    pub attachments: Attachments,
    /// How long names and ids may be.
    pub names: NameLimits,
    /// Which calls of tools can be forced.
    pub forced: Forced,
    /// The same, while the model thinks.
    pub forced_thinking: Forced,
    /// Whether the model calls several tools at once without being told that it may.
    pub parallel: bool,
    /// Whether a tool says that it is not strict: else it is.
    pub says_loose: bool,
    /// How thinking is switched on and off.
    pub switch: Switch,
    /// Whether the model wants its thinking of earlier turns back, whatever is known of it otherwise.
    pub thinks_back: bool,
    /// Whether a stream counts its tokens only where that is asked for.
    pub asks_for_usage: bool,
    /// Where thoughts are to stand.
    pub reasoning_format: Option<&'static str>,
}

/// The name of the limit on output tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Limit {
    /// `max_tokens`; of OpenAI's reasoning models `max_completion_tokens`.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`
    MaxCompletionTokens,
}

/// Which calls of tools can be forced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forced {
    /// One of all tools, or a named one.
    #[default]
    All,
    /// A named one.
    Named,
    /// None.
    Nothing,
}

/// How thinking is switched on and off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Switch {
    /// By an effort, as what is known of the model says.
    #[default]
    Effort,
    /// By the effort `none` and by nothing else.
    EffortNone,
    /// `thinking`: an object with the type `enabled` or `disabled`. It is on by itself.
    Thinking,
    /// `enable_thinking` and `thinking_budget`.
    EnableThinking {
        /// Whether it has to be off where the answer is not streamed, unless the client asks for it.
        off_when_whole: bool,
    },
    /// Not at all: the model always thinks.
    Always,
}

/// The same as OpenAI: the time to wait is the upstream's, or that of the limit that is used up.
pub fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
    Failure { retry_after_ms: headers::retry_after_ms(head), ..error::of_answer(head, body) }
}

/// The same, of an answer that means another status.
pub fn refusal_as(status: u16, head: &ResponseHead, body: &[u8]) -> Failure {
    refusal(&ResponseHead { status, headers: head.headers.clone() }, body)
}

// === impl Wire ===

impl Default for Wire {
    /// <https://platform.openai.com/docs/api-reference/chat/create>: `tools[].function.name` has 64 characters at most, ids of calls
    /// 40, and there are four stop sequences.
    fn default() -> Self {
        Self {
            limit: Limit::MaxTokens,
            most_stops: 4,
            samples: true,
            top_k: false,
            attachments: Attachments::default(),
            names: NameLimits { tool_name: 64, call_id: 40, ..NameLimits::default() },
            forced: Forced::All,
            forced_thinking: Forced::All,
            parallel: true,
            says_loose: false,
            switch: Switch::Effort,
            thinks_back: false,
            asks_for_usage: true,
            reasoning_format: None,
        }
    }
}
