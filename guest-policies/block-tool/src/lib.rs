//! Blocks tools by name, and where the entry says so only when their input contains certain words. The smallest hook that
//! is of use, and the one to copy from.

use sallyport_guest_sdk::{
    Evidence, Glob, Words,
    hook::{Event, Hook, Occurrence, Outcome, ToolCall},
};
use serde::Deserialize;
use serde::de::IgnoredAny;

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
    /// Block only an input that contains one of these, in the JSON or in one of its strings and keys. Case matters, the kind and
    /// the amount of white space does not.
    #[serde(default)]
    input_contains: Words,
}

sallyport_guest_sdk::export_hook!(BlockTool);

// === impl BlockTool ===

impl Hook for BlockTool {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.tools.is_empty() {
            return Err("tools is empty: the hook would block nothing".into());
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
        // A tool of an MCP server has one name in Claude Code, and another where the upstream runs the server.
        let full = call.server.as_ref().map(|server| format!("mcp__{server}__{}", call.name));
        let names = [Some(call.name.as_str()), full.as_deref()];
        let named =
            names.into_iter().flatten().any(|name| self.config.tools.iter().any(|tool| tool.matches(name)));
        named && self.names(&call.input)
    }

    /// Whether the input contains one of the words. An input that is no JSON cannot be looked into and counts as one.
    fn names(&self, input: &str) -> bool {
        let words = &self.config.input_contains;
        words.is_empty() || words.found_in(input) || serde_json::from_str::<IgnoredAny>(input).is_err()
    }

    fn reason(&self, tool: &str) -> String {
        match &self.config.reason {
            Some(reason) => reason.clone(),
            None => format!("the tool {tool} is blocked here"),
        }
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
    fn a_word_hides_neither_behind_a_second_key_nor_behind_white_space() {
        let config = r#"{"tools":["Bash"],"input_contains":["rm -rf"],"reason":"no"}"#;
        let blocked = Outcome::Block("no".into());
        assert_eq!(outcome(config, "Bash", r#"{"command":"\u0072m -rf /","command":"ls"}"#), blocked);
        assert_eq!(outcome(config, "Bash", r#"{"command":"rm\t  -rf /"}"#), blocked);
    }

    #[test]
    fn a_tool_of_a_server_is_known_by_its_whole_name_too() {
        let hook =
            configured(r#"{"tools":["mcp__github__merge*"],"reason":"no"}"#, BlockTool::configure).unwrap();
        let mut call = tool_call("merge_pr", "{}");
        call.server = Some("github".into());
        let event = occurrence(Event::PreToolUse(call));
        assert_eq!(hook.on_event(&event, &FakeHost::default()), Outcome::Block("no".into()));
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
