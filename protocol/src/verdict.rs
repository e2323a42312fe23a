//! What a component said, in one word: the field `verdict` of its part of a row, and what a rehearsal shows. A closed list.

use std::fmt;

use serde::{Serialize, Serializer};

/// Lists the verdicts once: variant, word, who gives it, what it means.
macro_rules! verdicts {
    ($($variant:ident, $word:literal, $by:literal, $about:literal;)+) => {
        /// What a component said.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Verdict {
            $(
                #[doc = $about]
                $variant,
            )+
        }

        impl Verdict {
            /// Every verdict.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in the row.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Who gives it.
            pub const fn by(self) -> &'static str {
                match self {
                    $(Self::$variant => $by,)+
                }
            }

            /// What it means.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)+
                }
            }
        }
    };
}

verdicts! {
    Allow, "allow", "policy, scanner", "It has nothing against the call.";
    Deny, "deny", "policy, scanner", "It refuses the call.";
    Ask, "ask", "policy, hook", "It wants a person's consent.";
    Flag, "flag", "scanner", "It found something, and lets it pass.";
    Redact, "redact", "scanner", "It found something, and cuts it out.";
    Match, "match", "predicate", "The route takes the call.";
    NoMatch, "no_match", "predicate", "The route does not take the call.";
    Served, "served", "provider", "It carried the call.";
    Proceed, "proceed", "hook", "It has nothing against what happened.";
    Block, "block", "hook", "It stops what happened.";
    Modify, "modify", "hook", "It puts another input or output in.";
    AddContext, "add-context", "hook", "It has a text for the model.";
    Other, "other", "policy", "It said something that this version of the gateway does not know: a refusal.";
    Fault, "fault", "any component", "It did not answer; `fault` says why.";
    Garbage, "garbage", "hook", "It answered what means nothing here: a fault.";
    Reported, "reported", "the gateway", "A client reported an event.";
    Refused, "refused", "the gateway", "A client reported an event that cannot be read.";
}

// === impl Verdict ===

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The verdicts as a table in Markdown.
pub fn markdown() -> String {
    let row = |verdict: &Verdict| format!("| `{verdict}` | {} | {} |\n", verdict.by(), verdict.about());
    let rows: Vec<_> = Verdict::ALL.iter().map(row).collect();
    format!("## `verdict`\n| `verdict` | of | means |\n|---|---|---|\n{}\n", rows.concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_verdict_has_a_word_of_its_own_and_is_written_as_the_page_says() {
        let words: BTreeSet<_> = Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
        assert_eq!(words.len(), Verdict::ALL.len());
        let page = markdown();
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
            assert!(page.contains(&format!("\n| `{verdict}` | ")), "{verdict}");
        }
    }
}
