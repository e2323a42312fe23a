//! Finds credentials in a conversation: keys with a known shape, private keys, passwords in addresses, card numbers and
//! assignments of something random to something called a secret. One pass over the text; a finding names its rule and its
//! range and repeats no byte of what it found.

mod anchors;
mod card;
mod detect;
mod formats;
mod look;
mod shape;

use std::collections::BTreeMap;

use sallyport_guest_sdk::{
    Glob,
    scanner::{Action, Finding, Scanner, TextKind},
};
use serde::Deserialize;

use detect::{Detectors, Match};
use formats::{Formats, Listed, Written};

/// The scanner.
pub struct SecretScan {
    detectors: Detectors,
    /// What happens about each rule, in the order of the formats; nothing, where it is off.
    actions: Vec<Option<Action>>,
    allow: Vec<Glob>,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What happens about every rule that `rules` does not name. Not said: `flag` for the rules that can be mistaken, `deny`
    /// for the others.
    #[serde(default)]
    action: Option<Response>,
    /// What happens about single rules.
    #[serde(default)]
    rules: BTreeMap<String, Response>,
    /// Texts that are no secrets, such as the keys of a documentation; `*` stands for any run of characters.
    #[serde(default)]
    allow: Vec<Glob>,
    /// Looked for instead of the formats that ship with the scanner.
    #[serde(default)]
    formats: Option<Listed>,
    /// Looked for as well.
    #[serde(default)]
    more_formats: Vec<Written>,
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
        let formats = Formats::read(config.formats, config.more_formats)?;
        if let Some(unknown) = config.rules.keys().find(|name| formats.rule(name).is_none()) {
            let version = &formats.version;
            return Err(format!(
                "rules.{unknown} is no rule of this scanner, whose formats are of {version}"
            ));
        }
        if config.allow.iter().any(|glob| glob.as_str().chars().all(|char| char == '*')) {
            return Err("allow holds a pattern that allows everything".into());
        }
        let usual = |rule: &String| {
            if formats.flagged.contains(rule) { Response::Flag } else { Response::Deny }
        };
        let actions = formats.rules.iter().map(|rule| {
            let response = config.rules.get(rule).copied().or(config.action);
            response.unwrap_or_else(|| usual(rule)).action()
        });
        let actions = actions.collect();
        Ok(Self { detectors: Detectors::new(formats), actions, allow: config.allow })
    }

    fn scan(&self, _: TextKind, text: &str) -> Vec<Finding> {
        let mut found: Vec<Match> = Vec::new();
        let mut pass = self.detectors.pass(text);
        let mut at = 0;
        while let Some(anchor) = pass.next(at) {
            at = anchor + 1;
            let Some(found_here) = pass.at(anchor) else { continue };
            if !self.concerns(text, &found_here) {
                continue;
            }
            if found_here.guessed {
                // A rule that knows the value's shape may still find it within; the pass goes on behind the `=`.
                if found.last().is_none_or(|last| last.range.end <= found_here.range.start) {
                    found.push(found_here);
                }
                continue;
            }
            at = at.max(found_here.range.end);
            found.pop_if(|last| last.guessed && last.range.end > found_here.range.start);
            found.push(found_here);
        }
        found.iter().filter_map(|found| self.finding(found)).collect()
    }
}

impl SecretScan {
    fn action(&self, rule: usize) -> Option<Action> {
        self.actions.get(rule).cloned().flatten()
    }

    /// Whether the rule is on and the text no exception.
    fn concerns(&self, text: &str, found: &Match) -> bool {
        let secret = text.get(found.range.clone()).unwrap_or_default();
        self.action(found.rule).is_some() && !self.allow.iter().any(|allowed| allowed.matches(secret))
    }

    fn finding(&self, found: &Match) -> Option<Finding> {
        let name = self.detectors.formats.rules.get(found.rule)?;
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
mod corpus;
#[cfg(test)]
mod tests;
