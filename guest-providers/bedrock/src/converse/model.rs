//! What is known of a model by its id, and by what its route says of it.

use sallyport_guest_codec::effort;
use sallyport_guest_codec::request::model_facts;
use sallyport_guest_sdk::Call;
use serde::Deserialize;

use crate::config::Config;

/// What is known of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    /// How it is told how much to think.
    pub(super) thinks: Thinks,
    /// Whether it takes cache points: of the models that are not Claude, Nova does
    /// (<https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html#prompt-caching-models>).
    pub(super) caches: bool,
    /// The most output tokens.
    pub(super) most: Option<u64>,
    efforts: Vec<String>,
}

/// How a model is told how much to think: a field beside those that Converse has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinks {
    /// `reasoning_effort`: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html>.
    Effort,
    /// `reasoningConfig`: <https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html>.
    Config,
    /// Not at all.
    Untold,
}

/// The part of the attribute `model_facts` that means something here: what the route says of its model.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    efforts: Vec<String>,
    max_output_tokens: Option<u64>,
}

// === impl Model ===

impl Model {
    /// The model with this id, as this call's route has it.
    pub(super) fn of(id: &str, config: &Config, call: &Call) -> Self {
        let facts: Facts = model_facts(call);
        let thinks = if id.contains("gpt-oss") {
            Thinks::Effort
        } else if id.contains("nova-2") {
            Thinks::Config
        } else {
            Thinks::Untold
        };
        Self {
            thinks,
            caches: id.contains("amazon.nova"),
            most: config.max_output_tokens.or(facts.max_output_tokens),
            efforts: facts.efforts,
        }
    }

    /// The step of effort that it takes, nearest to the one wanted.
    pub(super) fn effort(&self, wanted: &str) -> &'static str {
        effort::nearest(wanted, |step| match self.efforts.as_slice() {
            [] => matches!(step, "low" | "medium" | "high"),
            efforts => efforts.iter().any(|it| it == step),
        })
    }
}
