//! What is known of the model behind a route: data that the gateway hands over with the call (the attribute `model_facts`), from
//! the table that ships with it and from the route's own. Vendors change such things every few months; code does not have to.

use sallyport_guest_codec::effort;
use sallyport_guest_codec::request::model_facts;
use sallyport_guest_sdk::Call;
use serde::Deserialize;

use crate::config::{Api, Reasoning};

/// Facts of one model. What is not said is as with a plain server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Which API it is asked by, where the provider speaks several.
    pub api: Option<Api>,
    /// How it is told how much to reason.
    pub reasoning: Option<Reasoning>,
    /// The steps of effort that it knows, from the least.
    pub efforts: Vec<String>,
    /// The one step that it takes where tools are offered.
    pub effort_with_tools: Option<String>,
    /// Whether it can be told to call one tool at a time.
    pub parallel_tool_calls: Option<bool>,
    /// Whether it wants its thinking of earlier turns back, as `reasoning_content`.
    pub reasoning_content: bool,
    /// The most output tokens that it takes.
    pub max_output_tokens: Option<u64>,
}

// === impl Facts ===

impl Facts {
    /// Those that came with a call.
    pub fn of(call: &Call) -> Self {
        model_facts(call)
    }

    /// The name under which the model knows a step of effort, or the nearest below or above it.
    pub fn effort(&self, wanted: &str) -> &'static str {
        effort::nearest(wanted, |step| match self.efforts.as_slice() {
            [] => matches!(step, "low" | "medium" | "high"),
            efforts => efforts.iter().any(|it| it == step),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Facts;

    #[test]
    fn a_step_that_the_model_does_not_know_is_the_nearest_that_it_does() {
        let facts = |efforts: &[&str]| Facts {
            efforts: efforts.iter().map(|it| (*it).to_owned()).collect(),
            ..Facts::default()
        };
        let plain = facts(&[]);
        assert_eq!(
            ["none", "low", "xhigh", "max"].map(|it| plain.effort(it)),
            ["low", "low", "high", "high"]
        );
        let newer = facts(&["none", "low", "medium", "high", "xhigh"]);
        assert_eq!(
            ["none", "minimal", "low", "max"].map(|it| newer.effort(it)),
            ["none", "low", "low", "xhigh"]
        );
        assert_eq!(facts(&["minimal", "low"]).effort("none"), "minimal");
    }
}
