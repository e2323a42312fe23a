//! Answers lifecycle events by rules: on which events, of which tools, with which words, and what then.

use sallyport_guest_sdk::{
    Evidence, Glob, Words,
    hook::{Event, Hook, Occurrence, Outcome, ToolCall},
};
use serde::Deserialize;
use serde_json::Value;

/// The hook.
pub struct EventRules {
    config: Config,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first one that fits answers.
    rules: Vec<Rule>,
}

/// A rule: every condition has to hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// For the row.
    name: String,
    /// On these events.
    on: Vec<Name>,
    /// About one of these tools.
    #[serde(default)]
    tools: Vec<Glob>,
    /// With one of these words.
    #[serde(default)]
    contains: Words,
    /// Only what the gateway saw, or only what a client reported.
    #[serde(default)]
    in_band: Option<bool>,
    /// What then.
    then: Then,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Name {
    SessionStart,
    SessionEnd,
    UserPromptSubmit,
    PreToolUse,
    PostToolUse,
    PostToolUseFailure,
    Notification,
    Stop,
    SubagentStart,
    SubagentStop,
}

/// What a rule answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    /// No, and why.
    Block(String),
    /// A person has to agree, and why.
    Ask(String),
    /// A text for the model.
    AddContext(String),
    /// Another input or output.
    Replace(Value),
    /// This in place of the words.
    Mask(String),
}

sallyport_guest_sdk::export_hook!(EventRules);

// === impl EventRules ===

impl Hook for EventRules {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.rules.is_empty() {
            return Err("rules is empty: the hook would do nothing".into());
        }
        for rule in &config.rules {
            rule.check().map_err(|what| format!("the rule {}: {what}", rule.name))?;
        }
        Ok(Self { config })
    }

    fn on_event(&self, what: &Occurrence, host: &dyn Evidence) -> Outcome {
        let Some((name, tool, text)) = parts(&what.event) else { return Outcome::Proceed };
        let fits = |rule: &&Rule| rule.fits(name, tool, &text, what.in_band);
        let Some(rule) = self.config.rules.iter().find(fits) else { return Outcome::Proceed };
        host.note("event_rules.rule", &rule.name);
        match &rule.then {
            Then::Block(reason) => Outcome::Block(reason.clone()),
            Then::Ask(reason) => Outcome::Ask(reason.clone()),
            Then::AddContext(text) => Outcome::AddContext(text.clone()),
            Then::Replace(json) => Outcome::Modify(json.to_string()),
            Then::Mask(mask) => {
                let masked = masked(&text, &rule.contains, mask, name);
                // A number, or words with other white space between them, cannot be masked.
                if rule.contains.found_in(&masked) {
                    return Outcome::Block(format!("{} cannot be masked there", rule.name));
                }
                Outcome::Modify(masked)
            }
        }
    }
}

// === impl Rule ===

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
        let about_tools =
            |name: &Name| matches!(name, Name::PreToolUse | Name::PostToolUse | Name::PostToolUseFailure);
        if self.on.is_empty() {
            return Err("on is empty: it would never fit");
        }
        if !self.tools.is_empty() && !self.on.iter().all(about_tools) {
            return Err("tools stands beside an event without a tool: it would never fit there");
        }
        match &self.then {
            Then::Replace(_) | Then::Mask(_) if !self.on.iter().all(about_tools) => {
                Err("only what goes into a tool or comes out of it can be replaced")
            }
            Then::Mask(_) if self.contains.is_empty() => Err("mask needs contains: the words to mask"),
            Then::Mask(mask) if self.contains.stand_in(mask) => {
                Err("mask holds one of the words that it masks")
            }
            _ => Ok(()),
        }
    }

    fn fits(&self, name: Name, tool: Option<&ToolCall>, text: &str, in_band: bool) -> bool {
        let fits = |name: &str| self.tools.iter().any(|glob| glob.matches(name));
        // A tool of an MCP server has one name in Claude Code, and another where the upstream runs the server.
        let full =
            |tool: &ToolCall| tool.server.as_ref().map(|server| format!("mcp__{server}__{}", tool.name));
        let tool_fits =
            || tool.is_some_and(|tool| fits(&tool.name) || full(tool).is_some_and(|name| fits(&name)));
        self.on.contains(&name)
            && self.in_band.is_none_or(|wanted| wanted == in_band)
            && (self.tools.is_empty() || tool_fits())
            && (self.contains.is_empty() || self.contains.found_in(text))
    }
}

/// The event's name, the tool it is about, and its text.
fn parts(event: &Event) -> Option<(Name, Option<&ToolCall>, String)> {
    let (name, tool, text) = match event {
        Event::SessionStart(text) => (Name::SessionStart, None, text),
        Event::SessionEnd(text) => (Name::SessionEnd, None, text),
        Event::UserPromptSubmit(text) => (Name::UserPromptSubmit, None, text),
        Event::PreToolUse(call) => (Name::PreToolUse, Some(call), &call.input),
        Event::PostToolUse(result) => (Name::PostToolUse, Some(&result.call), &result.output),
        Event::PostToolUseFailure(failure) => (Name::PostToolUseFailure, Some(&failure.call), &failure.error),
        Event::Notification(text) => (Name::Notification, None, text),
        Event::Stop(text) => (Name::Stop, None, text),
        Event::SubagentStart(agent) => (Name::SubagentStart, None, &agent.agent_type),
        Event::SubagentStop(agent) => (Name::SubagentStop, None, &agent.agent_type),
        Event::Other(_) => return None,
    };
    Some((name, tool, text.clone()))
}

/// The same with the mask in place of each word, as JSON. An input stays an object; an output of plain text stays text.
fn masked(text: &str, words: &Words, mask: &str, name: Name) -> String {
    fn walk(value: &mut Value, change: &impl Fn(&str) -> String) {
        match value {
            Value::String(text) => *text = change(text),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
            Value::Object(fields) => {
                let kept = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                    walk(&mut value, change);
                    (change(&key), value)
                });
                fields.extend(kept.collect::<Vec<_>>());
            }
            _ => {}
        }
    }
    let change = |text: &str| words.iter().fold(text.to_owned(), |text, word| text.replace(word, mask));
    let structured = |json: &Value| json.is_object() || (json.is_array() && name != Name::PreToolUse);
    match serde_json::from_str::<Value>(text) {
        Ok(mut json) if structured(&json) => {
            walk(&mut json, &change);
            json.to_string()
        }
        _ => Value::from(change(text)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::hook::{Subagent, ToolResult};
    use sallyport_guest_sdk::testing::{FakeHost, configured, occurrence, tool_call};

    use super::*;

    fn answer(rule: &str, event: Event) -> Outcome {
        let hook = configured(&format!(r#"{{"rules":[{rule}]}}"#), EventRules::configure).unwrap();
        hook.on_event(&occurrence(event), &FakeHost::default())
    }

    fn output(text: &str) -> Event {
        let call = tool_call("Bash", r#"{"command":"hostname"}"#);
        Event::PostToolUse(ToolResult { call, output: text.to_owned(), duration_ms: None })
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let rules = r#"{"name":"a","on":["UserPromptSubmit"],"contains":["nightjar"],"then":{"block":"no"}},
            {"name":"b","on":["UserPromptSubmit","Stop"],"then":{"add_context":"be brief"}}"#;
        let prompt = |text: &str| Event::UserPromptSubmit(text.to_owned());
        assert_eq!(answer(rules, prompt("about nightjar")), Outcome::Block("no".into()));
        assert_eq!(answer(rules, prompt("hello")), Outcome::AddContext("be brief".into()));
        assert_eq!(answer(rules, Event::SessionStart("startup".into())), Outcome::Proceed);
    }

    #[test]
    fn a_rule_about_tools_looks_at_names_inputs_and_outputs() {
        let rule =
            r#"{"name":"a","on":["PreToolUse"],"tools":["Bash"],"contains":["rm"],"then":{"ask":"sure?"}}"#;
        let call = |tool: &str, input: &str| Event::PreToolUse(tool_call(tool, input));
        assert_eq!(answer(rule, call("Bash", r#"{"c":"\u0072m x"}"#)), Outcome::Ask("sure?".into()));
        assert_eq!(answer(rule, call("Read", r#"{"c":"rm x"}"#)), Outcome::Proceed);
        assert_eq!(answer(rule, call("Bash", r#"{"c":"ls"}"#)), Outcome::Proceed);
    }

    #[test]
    fn words_are_masked_in_text_and_in_json() {
        let rule = r#"{"name":"a","on":["PostToolUse"],"contains":["10.0.0."],"then":{"mask":"[x]"}}"#;
        assert_eq!(answer(rule, output("at 10.0.0.7")), Outcome::Modify(r#""at [x]7""#.into()));
        let json = r#"{"stdout":"10.0.0.7","n":1}"#;
        assert_eq!(answer(rule, output(json)), Outcome::Modify(r#"{"n":1,"stdout":"[x]7"}"#.into()));
        let rule = rule.replace("PostToolUse", "PreToolUse");
        let call = Event::PreToolUse(tool_call("Bash", r#"{"c":"ping 10.0.0.7"}"#));
        assert_eq!(answer(&rule, call), Outcome::Modify(r#"{"c":"ping [x]7"}"#.into()));
    }

    #[test]
    fn what_cannot_be_masked_does_not_pass() {
        let rule =
            r#"{"name":"a","on":["PostToolUse"],"contains":["4711","top secret"],"then":{"mask":"[x]"}}"#;
        assert_eq!(
            answer(rule, output(r#"{"4711":"at 4711"}"#)),
            Outcome::Modify(r#"{"[x]":"at [x]"}"#.into())
        );
        let blocked = Outcome::Block("a cannot be masked there".into());
        assert_eq!(answer(rule, output(r#"{"n":4711}"#)), blocked);
        assert_eq!(answer(rule, output("top\tsecret")), blocked);
        assert_eq!(
            answer(rule, output(r#"{"a":"\u0034711","a":"x"}"#)),
            Outcome::Modify(r#"{"a":"x"}"#.into()),
            "of two equal keys one is left, and it holds nothing"
        );
    }

    #[test]
    fn what_was_reported_can_be_told_from_what_was_seen() {
        let rule = r#"{"name":"a","on":["SubagentStart"],"in_band":false,"then":{"block":"no"}}"#;
        let agent = || Event::SubagentStart(Subagent { id: "a".into(), agent_type: "Explore".into() });
        assert_eq!(answer(rule, agent()), Outcome::Proceed);
        let hook = configured(&format!(r#"{{"rules":[{rule}]}}"#), EventRules::configure).unwrap();
        let mut reported = occurrence(agent());
        reported.in_band = false;
        assert_eq!(hook.on_event(&reported, &FakeHost::default()), Outcome::Block("no".into()));
    }

    #[test]
    fn a_rule_that_can_never_fit_is_refused() {
        for rule in [
            "",
            r#"{"name":"a","on":[],"then":{"block":"no"}}"#,
            r#"{"name":"a","on":["Stop"],"contains":[""],"then":{"block":"no"}}"#,
            r#"{"name":"a","on":["Stop"],"tools":["Bash"],"then":{"block":"no"}}"#,
            r#"{"name":"a","on":["Stop"],"then":{"replace":{}}}"#,
            r#"{"name":"a","on":["PreToolUse"],"then":{"mask":"x"}}"#,
            r#"{"name":"a","on":["PreToolUse"],"contains":["x"],"then":{"mask":"[x]"}}"#,
            r#"{"name":"a","on":["Never"],"then":{"block":"no"}}"#,
            r#"{"name":"a","on":["Stop"],"then":{}}"#,
            r#"{"name":"a","on":["Stop"],"then":{"block":"no"},"else":1}"#,
        ] {
            assert!(
                configured(&format!(r#"{{"rules":[{rule}]}}"#), EventRules::configure).is_err(),
                "{rule}"
            );
        }
    }
}
