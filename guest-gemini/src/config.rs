//! What an entry's `config` may say, and what is known of a model by its name.

use sallyport_guest_codec::effort;
use sallyport_guest_codec::offer::ServerTools;
use sallyport_guest_codec::request::model_facts;
use sallyport_guest_sdk::Call;
use serde::Deserialize;

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most output tokens that the models behind this route take; a larger `max_tokens` is lowered to it.
    pub max_output_tokens: Option<u64>,
    /// How the models are told how much to think.
    pub thinking: ThinkingForm,
    /// What becomes of tools that Anthropic's API runs itself and this upstream does not have.
    pub server_tools: ServerTools,
}

/// How a model is told how much to think: <https://ai.google.dev/gemini-api/docs/thinking>.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinkingForm {
    /// As its name says.
    #[default]
    Auto,
    /// `thinkingLevel`: Gemini 3 and later.
    Level,
    /// `thinkingBudget`: Gemini 2.5.
    Budget,
    /// Not at all: models that do not think.
    None,
}

/// What is known of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// How it is told how much to think.
    pub(crate) form: ThinkingForm,
    /// The least and the most of a thinking budget.
    pub(crate) budget: (u64, u64),
    /// The levels that it takes.
    levels: Vec<String>,
    /// The most output tokens.
    pub(crate) most: u64,
}

/// The part of the attribute `model_facts` that means something here: what the route says of its model.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    efforts: Vec<String>,
    max_output_tokens: Option<u64>,
}

/// `maxOutputTokens` of all models since 2.5, and of those before: <https://ai.google.dev/gemini-api/docs/models>.
const MOST: u64 = 65_536;
const MOST_BEFORE: u64 = 8192;

// === impl Config ===

impl Config {
    /// The same, unless a value makes no sense: what is then wrong with it.
    pub fn checked(self) -> Result<Self, String> {
        if self.max_output_tokens == Some(0) {
            return Err("max_output_tokens: must be above 0".to_owned());
        }
        Ok(self)
    }
}

// === impl Model ===

impl Model {
    /// The model of this name, as this call's route has it.
    pub(crate) fn of(name: &str, config: &Config, call: &Call) -> Self {
        let facts: Facts = model_facts(call);
        let is = |part: &str| name.contains(part);
        let before = is("gemini-2.0") || is("gemini-1") || is("gemma");
        let form = match config.thinking {
            ThinkingForm::Auto if before => ThinkingForm::None,
            ThinkingForm::Auto if is("gemini-2.5") || is("robotics-er-1.5") => ThinkingForm::Budget,
            ThinkingForm::Auto => ThinkingForm::Level,
            said => said,
        };
        // "Thinking budgets", a table in the page on thinking.
        let budget = if is("2.5-pro") {
            (128, 32_768)
        } else if is("2.5-flash-lite") {
            (512, 24_576)
        } else {
            (1, 24_576)
        };
        // "Thinking levels" there: the first Pro of 3 takes two of them, later ones three, and models that are no Pro all four.
        let levels = match facts.efforts {
            efforts if !efforts.is_empty() => efforts,
            _ if is("gemini-3-pro") => vec!["low".to_owned(), "high".to_owned()],
            _ if is("-pro") => ["low", "medium", "high"].map(str::to_owned).into(),
            _ => ["minimal", "low", "medium", "high"].map(str::to_owned).into(),
        };
        let most = config.max_output_tokens.or(facts.max_output_tokens).unwrap_or(if before {
            MOST_BEFORE
        } else {
            MOST
        });
        Self { form, budget, levels, most }
    }

    /// Whether it can be told not to think: the Pro of 2.5 cannot.
    pub(crate) fn may_not_think(&self) -> bool {
        self.budget.0 != 128
    }

    /// The level nearest to a step of effort.
    pub(crate) fn level(&self, wanted: &str) -> &'static str {
        effort::nearest(wanted, |step| self.levels.iter().any(|it| it == step))
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Model, ThinkingForm};
    use sallyport_guest_sdk::testing::{attribute, call};

    #[test]
    fn a_models_name_says_how_it_is_told_to_think() {
        let of = |name: &str| Model::of(name, &Config::default(), &call("m"));
        for (name, form) in [
            ("gemini-2.0-flash", ThinkingForm::None),
            ("gemma-3-27b-it", ThinkingForm::None),
            ("gemini-2.5-pro", ThinkingForm::Budget),
            ("gemini-3-pro-preview", ThinkingForm::Level),
            ("gemini-flash-latest", ThinkingForm::Level),
            ("gemini-4-flash", ThinkingForm::Level),
        ] {
            assert_eq!(of(name).form, form, "{name}");
        }
        assert_eq!(of("gemini-3-pro-preview").level("medium"), "low");
        assert_eq!(of("gemini-3.1-pro").level("medium"), "medium");
        assert_eq!(of("gemini-3-flash").level("max"), "high");
        assert!(!of("gemini-2.5-pro").may_not_think() && of("gemini-2.5-flash").may_not_think());
    }

    #[test]
    fn what_the_route_says_goes_before_what_the_name_says() {
        let mut call = call("m");
        let facts = r#"{"efforts":["low","xhigh"],"max_output_tokens":1000}"#;
        call.attributes.push(attribute("model_facts", facts));
        let model = Model::of("gemini-9", &Config::default(), &call);
        assert_eq!((model.level("max"), model.most), ("xhigh", 1000));
        let config = Config { thinking: ThinkingForm::None, max_output_tokens: Some(7), ..Config::default() };
        let model = Model::of("gemini-9", &config, &call);
        assert_eq!((model.form, model.most), (ThinkingForm::None, 7));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"thinkin":"none"}"#).is_err());
    }
}
