//! Stops tools whose input contains certain words.

use sallyport_guest_sdk::{
    Evidence,
    hook::{Event, Hook, Occurrence, Outcome},
};
use serde::Deserialize;

/// What the gateway's configuration says about this hook. A key that is not listed here is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names of the tools to look at.
    tools: Vec<String>,
    /// Words that their input must not contain.
    words: Vec<String>,
    /// What the user is told.
    reason: String,
}

/// The hook, configured.
pub struct Guard(Config);

// One line makes a component of the type.
sallyport_guest_sdk::export_hook!(Guard);

impl Hook for Guard {
    type Config = Config;

    /// Runs once, when the hook becomes active: check what you were given, and build what every event needs.
    fn configure(config: Config) -> Result<Self, String> {
        if config.tools.is_empty() {
            return Err("tools is empty: the hook would stop nothing".into());
        }
        Ok(Self(config))
    }

    /// Runs for every event that component.toml names, each time in a fresh sandbox: nothing is remembered.
    fn on_event(&self, what: &Occurrence, host: &dyn Evidence) -> Outcome {
        let Event::PreToolUse(call) = &what.event else { return Outcome::Proceed };
        let Config { tools, words, reason } = &self.0;
        if tools.contains(&call.name) && words.iter().any(|word| call.input.contains(word)) {
            // A note goes to the call's row in the audit trail.
            host.note("blocked_tool", &call.name);
            return Outcome::Block(reason.clone());
        }
        Outcome::Proceed
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::{FakeHost, configured, occurrence, tool_call};

    use super::*;

    #[test]
    fn a_word_stops_the_tool() {
        let config = r#"{"tools":["Bash"],"words":["rm -rf"],"reason":"no"}"#;
        let guard = configured(config, Guard::configure).unwrap();
        let event = Event::PreToolUse(tool_call("Bash", r#"{"command":"rm -rf /"}"#));
        assert_eq!(guard.on_event(&occurrence(event), &FakeHost::default()), Outcome::Block("no".into()));
    }
}
