//! Patterns of model names: `*` stands for any run of characters.

use std::fmt;

use sallyport_protocol::glob;

/// A model name in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// A character that no model name has.
    #[error("must be a model name in which * stands for anything: no spaces, no control characters")]
    Character,
}

// === impl Pattern ===

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if text.is_empty() || text.contains(odd) {
            Err(PatternError::Character)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// Whether it takes `model`.
    pub fn matches(&self, model: &str) -> bool {
        glob::matches(&self.0, model)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one model.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether there is a name that both this pattern and `other` match.
    pub fn overlaps(&self, other: &str) -> bool {
        overlap(self.0.as_bytes(), other.as_bytes())
    }

    /// Whether every name that `other` matches is matched by this pattern, as far as can be told without trying them all.
    pub fn covers(&self, other: &Self) -> bool {
        // A `*` in `other` is matched like any other character: only a `*` of this pattern takes it.
        glob::matches(&self.0, &other.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether two patterns have a match in common: a table over their prefixes, so that no pattern takes long.
fn overlap(left: &[u8], right: &[u8]) -> bool {
    // `row[j]`: the part of `left` read so far and the first `j` bytes of `right` have a match in common.
    let mut row = Vec::with_capacity(right.len() + 1);
    row.push(true);
    for byte in right {
        let before = row.last().copied().unwrap_or(false);
        row.push(before && *byte == b'*');
    }
    for byte in left {
        let star = *byte == b'*';
        let mut diagonal = row.first().copied().unwrap_or(false);
        let mut before = diagonal && star;
        let mut next = vec![before];
        for (other, above) in right.iter().zip(row.iter().skip(1)) {
            let both =
                if star || *other == b'*' { *above || before || diagonal } else { diagonal && byte == other };
            diagonal = *above;
            before = both;
            next.push(both);
        }
        row = next;
    }
    row.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_star_takes_any_run_of_characters() {
        assert!(pattern("claude-opus-*").matches("claude-opus-4-6"));
        assert!(pattern("gpt-4.*").matches("gpt-4.1"));
        assert!(!pattern("gpt-4.*").matches("gpt-41"));
        assert!(pattern("*").matches("anything"));
    }

    #[test]
    fn patterns_that_share_a_name_overlap() {
        for (left, right) in [
            ("claude-*", "claude-opus-*"),
            ("*-mini", "gpt-*"),
            ("*", "x"),
            ("a*c", "*b*"),
            ("same", "same"),
            ("a*", "*a"),
        ] {
            assert!(pattern(left).overlaps(right), "{left} {right}");
            assert!(pattern(right).overlaps(left), "{right} {left}");
        }
        for (left, right) in [("claude-*", "gpt-*"), ("*-mini", "*-nano"), ("one", "other"), ("a*b", "a*c")] {
            assert!(!pattern(left).overlaps(right), "{left} {right}");
            assert!(!pattern(right).overlaps(left), "{right} {left}");
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        assert!(pattern("claude-*").covers(&pattern("claude-opus-*")));
        assert!(pattern("*").covers(&pattern("claude-opus-4")));
        assert!(!pattern("claude-opus-*").covers(&pattern("claude-*")));
    }
}
