//! Globs for names of models, tools and routes: `*` stands for any run of characters, everything else for itself.

use serde::{Deserialize, Deserializer};

/// A pattern over a name: `claude-opus-*`, `mcp__github__*`, `*`. Case matters; `*` is the only special character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

// === impl Glob ===

impl Glob {
    /// Every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Box::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).matches(name)
    }

    #[test]
    fn a_pattern_without_a_star_is_the_name_itself() {
        assert!(matches("echo", "echo"));
        assert!(!matches("echo", "echo-1"));
        assert!(!matches("echo", "an-echo"));
        assert!(matches("", ""));
        assert!(!matches("", "a"));
    }

    #[test]
    fn a_star_stands_for_any_run_also_none() {
        assert!(matches("*", ""));
        assert!(matches("claude-*", "claude-"));
        assert!(matches("claude-*-5*", "claude-opus-4-5-20251101"));
        assert!(!matches("claude-*-5", "claude-opus-4-5-20251101"));
        assert!(matches("*opus*", "claude-opus-5"));
        assert!(matches("a**b", "ab"));
    }

    #[test]
    fn the_same_characters_are_not_matched_twice() {
        assert!(!matches("ab*ba", "aba"));
        assert!(matches("ab*ba", "abba"));
        assert!(!matches("*aa*aa", "aaa"));
    }
}
