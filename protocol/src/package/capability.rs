//! What a component asks for beyond its world. Each needs a grant, since each lets it do more than look and answer.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The beginning of an egress capability, before the name of its grant.
const EGRESS: &str = "egress:";
const REWRITE: &str = "rewrite";
const SETTLE: &str = "settle";
/// Longest name, in bytes.
const MAX_BYTES: usize = 128;

/// A capability. As text: `egress:tickets`, `rewrite`, `settle`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// A hook may call out as the operator's configuration says below `egress`, under this name.
    Egress(String),
    /// A scanner may cut out of requests what it finds.
    Rewrite,
    /// A policy is told what every call came to.
    Settle,
    /// This version knows no meaning of it. It is kept as it was signed, and needs a grant like the others.
    Other(String),
}

/// A name that no capability can have: one to 128 of `a-z`, `0-9`, `-`, `.`, `:`, `/` and `_` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a capability has no proper name")]
pub struct CapabilityError;

// === impl Capability ===

impl Capability {
    /// Reads a name. Errors: [`CapabilityError`].
    pub fn parse(text: &str) -> Result<Self, CapabilityError> {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:/_".contains(&b);
        if !(1..=MAX_BYTES).contains(&text.len()) || !text.bytes().all(fine) {
            return Err(CapabilityError);
        }
        Ok(match text {
            REWRITE => Self::Rewrite,
            SETTLE => Self::Settle,
            _ => match text.strip_prefix(EGRESS) {
                Some("") => return Err(CapabilityError),
                Some(name) => Self::Egress(name.to_owned()),
                None => Self::Other(text.to_owned()),
            },
        })
    }

    /// The name of the grant, if it is egress.
    pub fn egress(&self) -> Option<&str> {
        match self {
            Self::Egress(name) => Some(name),
            Self::Rewrite | Self::Settle | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Egress(name) => write!(f, "{EGRESS}{name}"),
            Self::Rewrite => f.write_str(REWRITE),
            Self::Settle => f.write_str(SETTLE),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_written_as_it_was_read() {
        for (text, capability) in [
            ("rewrite", Capability::Rewrite),
            ("settle", Capability::Settle),
            ("egress:tickets", Capability::Egress("tickets".to_owned())),
            ("counters", Capability::Other("counters".to_owned())),
            ("rewrite:all", Capability::Other("rewrite:all".to_owned())),
        ] {
            assert_eq!(Capability::parse(text).as_ref(), Ok(&capability));
            assert_eq!(capability.to_string(), text);
            let json = serde_json::to_string(&capability).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Capability>(&json).unwrap(), capability);
        }
    }

    #[test]
    fn a_name_that_nobody_could_grant_is_no_capability() {
        for text in ["", "egress:", "A", "a b", "é", &"a".repeat(MAX_BYTES + 1)] {
            assert_eq!(Capability::parse(text), Err(CapabilityError), "{text}");
            assert!(serde_json::from_str::<Capability>(&format!("{text:?}")).is_err());
        }
        assert!(Capability::parse(&"a".repeat(MAX_BYTES)).is_ok());
    }

    #[test]
    fn only_egress_names_a_grant() {
        let named = |text| Capability::parse(text).unwrap().egress().map(str::to_owned);
        assert_eq!(named("egress:tickets").as_deref(), Some("tickets"));
        assert_eq!([named("rewrite"), named("settle"), named("egresses")], [None, None, None]);
    }
}
