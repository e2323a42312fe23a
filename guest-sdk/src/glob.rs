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

    /// Whether there is a name that both this pattern and `other` match.
    pub fn overlaps(&self, other: &str) -> bool {
        let right = other.as_bytes();
        // `row[j]`: the part of the pattern read so far and the first `j` bytes of `other` have a match in common.
        let mut row = vec![true];
        for byte in right {
            row.push(row.last().copied().unwrap_or(false) && *byte == b'*');
        }
        for byte in self.0.bytes() {
            let star = byte == b'*';
            let mut diagonal = row.first().copied().unwrap_or(false);
            let mut before = diagonal && star;
            let mut next = vec![before];
            for (other, above) in right.iter().zip(row.iter().skip(1)) {
                let both = if star || *other == b'*' {
                    *above || before || diagonal
                } else {
                    diagonal && byte == *other
                };
                diagonal = *above;
                before = both;
                next.push(both);
            }
            row = next;
        }
        row.last().copied().unwrap_or(false)
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
    fn patterns_overlap_where_one_name_matches_both() {
        for (one, other) in [
            ("mcp__github__merge*", "mcp__github__*"),
            ("*", "mcp__x__*"),
            ("*merge*", "mcp__x__*"),
            ("mcp__x__*", "mcp__x__*"),
            ("same", "same"),
        ] {
            assert!(Glob::new(one).overlaps(other) && Glob::new(other).overlaps(one), "{one} {other}");
        }
        for (one, other) in [("mcp__github__*", "mcp__gitlab__*"), ("Bash", "mcp__x__*"), ("a*b", "a*c")] {
            assert!(!Glob::new(one).overlaps(other) && !Glob::new(other).overlaps(one), "{one} {other}");
        }
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
