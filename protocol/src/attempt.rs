//! How asking one target of a route ended, in one word: the field `end` of an entry of `attempts` in a row. A closed list.

use std::fmt;

use serde::{Serialize, Serializer};

/// Lists the ends once: variant, word, whether another target is asked, what happened.
macro_rules! ends {
    ($($variant:ident, $word:literal, $next:literal, $about:literal;)+) => {
        /// How asking one target ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum AttemptEnd {
            $(
                #[doc = $about]
                $variant,
            )+
        }

        impl AttemptEnd {
            /// Every end.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in the row.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Whether the next target is asked.
            pub const fn goes_on(self) -> bool {
                match self {
                    $(Self::$variant => $next,)+
                }
            }

            /// What happened.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)+
                }
            }
        }
    };
}

ends! {
    Answered, "answered", false, "It began to answer. What becomes of the answer is the call's outcome.";
    Refused, "refused", false, "It does not take this request (400, 404, 413, 422 and the like), and neither would another one.";
    TooLong, "too_long", true, "It says that the prompt is too long for its model, and the route has `context_fallback`.";
    Busy, "busy", true, "It has no room: 429, 503 or 529. It did not take the request.";
    Failed, "failed", true, "It answered with another error: 408, 500, 502, 504 and the like.";
    Unreachable, "unreachable", true, "There was no connection. Nothing was sent.";
    TimedOut, "timed_out", true, "It did not answer in time.";
    BrokeOff, "broke_off", true, "The connection ended before an answer began. What became of the request there nobody knows.";
    Unusable, "unusable", true, "What it answered is no answer of the API, or broke off before a byte of it went to the client.";
    Credential, "credential", true, "It does not take the gateway's credential (401 or 403), or an identity server gave none out.";
    Provider, "provider", true, "The provider is not in force, or broke.";
    NotCarried, "not_carried", true, "The provider does not carry the request, or the route is lossless and it would lose a part.";
    BreakerOpen, "breaker_open", true, "It was not asked: its circuit breaker is open.";
    NotAllowed, "not_allowed", true, "It was not asked: a policy or the route's predicate does not let the call go there.";
    Gateway, "gateway", false, "The gateway itself could not go on.";
}

// === impl AttemptEnd ===

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for AttemptEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The ends as a table in Markdown.
pub fn markdown() -> String {
    let row = |end: &AttemptEnd| {
        let next = if end.goes_on() { "yes" } else { "no" };
        format!("| `{end}` | {next} | {} |\n", end.about())
    };
    let rows: Vec<_> = AttemptEnd::ALL.iter().map(row).collect();
    format!("## `end` of an attempt\n| `end` | next target | means |\n|---|---|---|\n{}\n", rows.concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_end_has_a_word_of_its_own_and_is_written_as_the_page_says() {
        let words: BTreeSet<_> = AttemptEnd::ALL.iter().map(|end| end.as_str()).collect();
        assert_eq!(words.len(), AttemptEnd::ALL.len());
        let page = markdown();
        for end in AttemptEnd::ALL {
            assert_eq!(serde_json::to_value(end).unwrap(), end.as_str());
            assert!(page.contains(&format!("\n| `{end}` | ")), "{end}");
        }
    }
}
