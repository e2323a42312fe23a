//! Which tools, sources and kinds a hook is told of: the part of Claude Code's matchers that means the same in every reader.

use std::fmt;
use std::str::FromStr;

use crate::glob;

/// Names that may stand in one matcher.
const MOST_NAMES: usize = 64;

/// `Edit|Write`, `mcp__github__.*`, `*`: names, separated by `|`, where `.*` or `*` stands for any run of characters. A name has
/// to fit whole, and case matters. Nothing, or `*` alone, fits everything, also what has no name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matcher {
    written: String,
    /// Globs; none of them: everything fits.
    names: Vec<String>,
}

/// Why a text is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// Between two `|`, or at an end, stands nothing.
    #[error("a name is empty: a matcher is written Edit|Write")]
    Empty,
    /// A character that names do not have. Other regular expressions than `.*` would be read as names, and match nothing.
    #[error(
        "{0:?} stands in no name: a matcher knows names, | between them, and .* or * for any run of characters"
    )]
    Character(char),
    /// More names than anybody writes.
    #[error("there are more than {MOST_NAMES} names")]
    Many,
}

// === impl Matcher ===

impl Matcher {
    /// Checks `text`. Errors: [`MatcherError`].
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        let written = text.trim().to_owned();
        if matches!(written.as_str(), "" | "*" | ".*") {
            return Ok(Self { written, names: Vec::new() });
        }
        let names: Vec<String> = written.split('|').map(|name| name.trim().replace(".*", "*")).collect();
        if names.len() > MOST_NAMES {
            return Err(MatcherError::Many);
        }
        for name in &names {
            if name.is_empty() {
                return Err(MatcherError::Empty);
            }
            let stranger = |c: &char| {
                !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | ':' | '/' | '@' | ' ' | '*')
            };
            if let Some(stranger) = name.chars().find(stranger) {
                return Err(MatcherError::Character(stranger));
            }
        }
        Ok(Self { written, names })
    }

    /// Whether what is called `subject` fits. What has no name fits only what fits everything.
    pub fn fits(&self, subject: Option<&str>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        subject.is_some_and(|subject| self.names.iter().any(|name| glob::matches(name, subject)))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        Self::parse(text)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(matcher: &str, subject: &str) -> bool {
        Matcher::parse(matcher).unwrap().fits(Some(subject))
    }

    #[test]
    fn a_name_fits_whole_and_in_its_case() {
        assert!(fits("Write", "Write"));
        assert!(!fits("Write", "NotebookWrite") && !fits("Write", "write") && !fits("Write", "WriteAll"));
        assert!(
            fits("Edit|Write", "Edit") && fits("Edit | Write", "Write") && !fits("Edit|Write", "Edit|Write")
        );
    }

    #[test]
    fn a_run_of_characters_is_written_as_a_regular_expression_or_as_a_glob() {
        for matcher in ["mcp__github__.*", "mcp__github__*", "Bash|mcp__github__.*"] {
            assert!(fits(matcher, "mcp__github__merge"), "{matcher}");
            assert!(!fits(matcher, "mcp__gitlab__merge"), "{matcher}");
        }
        assert!(fits("mcp__.*__write.*", "mcp__files__write_all"));
    }

    #[test]
    fn nothing_and_a_star_fit_also_what_has_no_name() {
        for matcher in ["", "*", ".*"] {
            let matcher = Matcher::parse(matcher).unwrap();
            assert!(matcher.fits(None) && matcher.fits(Some("x")));
        }
        assert!(!Matcher::parse("startup").unwrap().fits(None));
    }

    #[test]
    fn what_would_silently_match_nothing_is_refused() {
        for (text, error) in [
            ("Edit||Write", MatcherError::Empty),
            ("|", MatcherError::Empty),
            ("^Edit$", MatcherError::Character('^')),
            ("(Edit|Write)", MatcherError::Character('(')),
            ("mcp__.+", MatcherError::Character('+')),
            ("Ba\nsh", MatcherError::Character('\n')),
        ] {
            assert_eq!(Matcher::parse(text), Err(error), "{text}");
        }
        assert_eq!(Matcher::parse(&["a"; 65].join("|")), Err(MatcherError::Many));
    }
}
