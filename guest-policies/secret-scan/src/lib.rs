//! Finds credentials in a conversation: keys with a known shape, private keys, passwords in addresses, card numbers and
//! assignments of something random to something called a secret. One pass over the text; a finding names its rule and its
//! range and repeats no byte of what it found.

mod detect;
mod rules;

use std::collections::BTreeMap;

use sallyport_guest_sdk::{
    Glob,
    scanner::{Action, Finding, Scanner, TextKind},
};
use serde::Deserialize;

use detect::Anchors;
use rules::Rule;

/// The scanner.
pub struct SecretScan {
    anchors: Anchors,
    /// What happens about each rule, in the order of [`Rule::ALL`]; nothing, where it is off.
    actions: Vec<Option<Action>>,
    allow: Vec<Glob>,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What happens about every rule that `rules` does not name. Not said: `flag` for the rules that can be mistaken
    /// (`jwt`, `generic_secret`), `deny` for the others.
    #[serde(default)]
    action: Option<Response>,
    /// What happens about single rules.
    #[serde(default)]
    rules: BTreeMap<String, Response>,
    /// Texts that are no secrets, such as the keys of a documentation; `*` stands for any run of characters.
    #[serde(default)]
    allow: Vec<Glob>,
}

/// What happens about a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// Nothing.
    Off,
    /// Note it on the row.
    Flag,
    /// Replace it by `[redacted:<rule>]`.
    Redact,
    /// Refuse the call.
    Deny,
}

sallyport_guest_sdk::export_scanner!(SecretScan);

// === impl SecretScan ===

impl Scanner for SecretScan {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if let Some(unknown) =
            config.rules.keys().find(|name| !Rule::ALL.iter().any(|rule| rule.name() == *name))
        {
            return Err(format!("rules.{unknown} is no rule of this scanner"));
        }
        if config.allow.iter().any(|glob| glob.as_str().chars().all(|char| char == '*')) {
            return Err("allow holds a pattern that allows everything".into());
        }
        let actions = Rule::ALL.iter().map(|rule| {
            let response = config.rules.get(rule.name()).copied().or(config.action);
            response.unwrap_or_else(|| rule.usual()).action()
        });
        Ok(Self { anchors: Anchors::new(), actions: actions.collect(), allow: config.allow })
    }

    fn scan(&self, _: TextKind, text: &str) -> Vec<Finding> {
        let mut found: Vec<detect::Match> = Vec::new();
        let mut at = 0;
        while let Some(anchor) = self.anchors.next(text.as_bytes(), at) {
            at = anchor + 1;
            let Some(found_here) = detect::at(text, anchor) else { continue };
            if !self.concerns(text, &found_here) {
                continue;
            }
            if found_here.rule == Rule::GenericSecret {
                // A rule that knows the value's shape may still find it within; the pass goes on behind the `=`.
                if found.last().is_none_or(|last| last.range.end <= found_here.range.start) {
                    found.push(found_here);
                }
                continue;
            }
            at = at.max(found_here.range.end);
            found.pop_if(|last| last.range.end > found_here.range.start);
            found.push(found_here);
        }
        found.iter().filter_map(|found| self.finding(found)).collect()
    }
}

impl SecretScan {
    fn action(&self, rule: Rule) -> Option<Action> {
        let index = Rule::ALL.iter().position(|known| *known == rule)?;
        self.actions.get(index).copied().flatten()
    }

    /// Whether the rule is on and the text no exception.
    fn concerns(&self, text: &str, found: &detect::Match) -> bool {
        let secret = text.get(found.range.clone()).unwrap_or_default();
        self.action(found.rule).is_some() && !self.allow.iter().any(|allowed| allowed.matches(secret))
    }

    fn finding(&self, found: &detect::Match) -> Option<Finding> {
        let name = found.rule.name();
        let mut finding = Finding::new(name, self.action(found.rule)?, found.range.clone());
        finding.replacement = format!("[redacted:{name}]");
        Some(finding)
    }
}

// === impl Response ===

impl Response {
    fn action(self) -> Option<Action> {
        match self {
            Self::Off => None,
            Self::Flag => Some(Action::Flag),
            Self::Redact => Some(Action::Redact),
            Self::Deny => Some(Action::Deny),
        }
    }
}

#[cfg(test)]
mod tests;
