//! Blocks tools by name, and where the entry says so only when their input contains certain words. The smallest hook that
//! is of use, and the one to copy from.

use sallyport_guest_sdk::{
    Evidence, Glob,
    hook::{Event, Hook, Occurrence, Outcome, ToolCall},
};
use serde::Deserialize;
use serde_json::Value;

/// The hook.
pub struct BlockTool {
    config: Config,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names of the tools; `*` stands for any run of characters.
    tools: Vec<Glob>,
    /// Shown to the user.
    #[serde(default)]
    reason: Option<String>,
    /// Block only an input that contains one of these, in the JSON or in one of its strings. Case matters.
    #[serde(default)]
    input_contains: Vec<String>,
}

sallyport_guest_sdk::export_hook!(BlockTool);

// === impl BlockTool ===

impl Hook for BlockTool {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.tools.is_empty() {
            return Err("tools is empty: the hook would block nothing".into());
        }
        if config.input_contains.iter().any(String::is_empty) {
            return Err("input_contains holds an empty text: it is in every input".into());
        }
        Ok(Self { config })
    }

    fn on_event(&self, what: &Occurrence, host: &dyn Evidence) -> Outcome {
        match &what.event {
            Event::PreToolUse(call) if self.blocks(call) => {
                host.note("block_tool.tool", &call.name);
                Outcome::Block(self.reason(&call.name))
            }
            _ => Outcome::Proceed,
        }
    }
}

impl BlockTool {
    fn blocks(&self, call: &ToolCall) -> bool {
        self.config.tools.iter().any(|tool| tool.matches(&call.name)) && self.names(&call.input)
    }

    /// Whether the input contains one of the words. An input that is no JSON cannot be looked into and counts as one.
    fn names(&self, input: &str) -> bool {
        let words = &self.config.input_contains;
        words.is_empty()
            || words.iter().any(|word| input.contains(word))
            || serde_json::from_str(input).map_or(true, |input| holds(&input, words))
    }

    fn reason(&self, tool: &str) -> String {
        match &self.config.reason {
            Some(reason) => reason.clone(),
            None => format!("the tool {tool} is blocked here"),
        }
    }
}

/// Whether a string of the input, unescaped, contains one of the words.
fn holds(input: &Value, words: &[String]) -> bool {
    match input {
        Value::String(text) => words.iter().any(|word| text.contains(word)),
        Value::Array(items) => items.iter().any(|item| holds(item, words)),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| words.iter().any(|word| key.contains(word)) || holds(value, words)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::{FakeHost, configured, occurrence, tool_call};

    use super::*;

    fn outcome(config: &str, tool: &str, input: &str) -> Outcome {
        let hook = configured(config, BlockTool::configure).unwrap();
        hook.on_event(&occurrence(Event::PreToolUse(tool_call(tool, input))), &FakeHost::default())
    }

    #[test]
    fn a_named_tool_is_blocked_with_the_reason() {
        let config = r#"{"tools":["Bash","mcp__github__*"],"reason":"no shells"}"#;
        assert_eq!(outcome(config, "Bash", "{}"), Outcome::Block("no shells".into()));
        assert_eq!(outcome(config, "mcp__github__merge", "{}"), Outcome::Block("no shells".into()));
        assert_eq!(outcome(config, "Read", "{}"), Outcome::Proceed);
    }

    #[test]
    fn without_a_reason_the_tool_is_named() {
        let expected = Outcome::Block("the tool Bash is blocked here".into());
        assert_eq!(outcome(r#"{"tools":["Bash"]}"#, "Bash", "{}"), expected);
    }

    #[test]
    fn a_word_of_the_input_is_found_however_it_is_escaped() {
        let config = r#"{"tools":["Bash"],"input_contains":["rm -rf"],"reason":"no"}"#;
        let blocked = Outcome::Block("no".into());
        assert_eq!(outcome(config, "Bash", r#"{"command":"rm -rf /"}"#), blocked);
        assert_eq!(outcome(config, "Bash", r#"{"command":"\u0072m -rf /"}"#), blocked);
        assert_eq!(outcome(config, "Bash", r#"{"steps":[{"do":"rm\u0020-rf /"}]}"#), blocked);
        assert_eq!(outcome(config, "Bash", r#"{"command":"ls"}"#), Outcome::Proceed);
    }

    #[test]
    fn an_input_that_is_no_json_is_blocked() {
        let config = r#"{"tools":["Bash"],"input_contains":["rm -rf"],"reason":"no"}"#;
        assert_eq!(outcome(config, "Bash", "{\"command\":"), Outcome::Block("no".into()));
    }

    #[test]
    fn a_block_leaves_a_note_and_other_events_pass() {
        let hook = configured(r#"{"tools":["*"]}"#, BlockTool::configure).unwrap();
        let host = FakeHost::default();
        assert_eq!(hook.on_event(&occurrence(Event::Stop("done".into())), &host), Outcome::Proceed);
        assert_eq!(host.notes(), []);
        hook.on_event(&occurrence(Event::PreToolUse(tool_call("Bash", "{}"))), &host);
        assert_eq!(host.notes(), [("block_tool.tool".to_owned(), "Bash".to_owned())]);
    }

    #[test]
    fn a_configuration_that_blocks_nothing_or_everything_by_accident_is_refused() {
        for config in
            ["{}", r#"{"tools":[]}"#, r#"{"tools":["a"],"input_contains":[""]}"#, r#"{"tool":["a"]}"#]
        {
            assert!(configured(config, BlockTool::configure).is_err(), "{config}");
        }
    }
}
