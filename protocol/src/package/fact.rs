//! The facts of a call that a policy may say it reads. A policy that does is told nothing else, so that what it said holds for
//! every call with the same facts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The beginning of an attribute's name.
const ATTRIBUTE: &str = "attributes.";
/// Longest name of an attribute, in bytes.
const MAX_BYTES: usize = 128;

/// A fact of a call. As text: `model`, `principal.roles`, `attributes.unknown`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// `u_...`
    User,
    /// The user's tenant.
    Tenant,
    /// The conversation, or the exchange of a token.
    Session,
    /// `sp_...`
    Client,
    /// cowork, subagent, job, ...
    Source,
    /// Roles within the tenant.
    Roles,
    /// The user's department.
    Department,
    /// What the credential may be used for.
    Scopes,
    /// The minute in which the call came in.
    Minute,
    /// The model that the client named.
    Model,
    /// The model pattern of the route.
    Route,
    /// Tag of the provider.
    Provider,
    /// The region that the route serves.
    Region,
    /// Whether the client asked for a stream.
    Streaming,
    /// `max_tokens` of the request.
    MaxTokens,
    /// Size of the body.
    BodyBytes,
    /// How many messages there are.
    MessageCount,
    /// Names of tools.
    Tools,
    /// Which agent of the client speaks.
    Agent,
    /// The attributes of the call that have this name.
    Attribute(String),
}

/// A name that no fact has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no fact {0:?}; there are {known}, and attributes.NAME", known = names())]
pub struct FactError(String);

// === impl Fact ===

impl Fact {
    /// Every fact but the attributes, which have names that nobody lists.
    pub const NAMED: [Self; 19] = [
        Self::User,
        Self::Tenant,
        Self::Session,
        Self::Client,
        Self::Source,
        Self::Roles,
        Self::Department,
        Self::Scopes,
        Self::Minute,
        Self::Model,
        Self::Route,
        Self::Provider,
        Self::Region,
        Self::Streaming,
        Self::MaxTokens,
        Self::BodyBytes,
        Self::MessageCount,
        Self::Tools,
        Self::Agent,
    ];

    /// Reads a name. Errors: [`FactError`].
    pub fn parse(text: &str) -> Result<Self, FactError> {
        let attribute = |name: &&str| (1..=MAX_BYTES).contains(&name.len());
        if let Some(name) = text.strip_prefix(ATTRIBUTE).filter(attribute) {
            return Ok(Self::Attribute(name.to_owned()));
        }
        let named = Self::NAMED.into_iter().find(|fact| fact.name() == text);
        named.ok_or_else(|| FactError(text.chars().take(MAX_BYTES).collect()))
    }

    /// As it stands in statements, but for the name of an attribute.
    const fn name(&self) -> &'static str {
        match self {
            Self::User => "principal.user",
            Self::Tenant => "principal.tenant",
            Self::Session => "principal.session",
            Self::Client => "principal.client",
            Self::Source => "principal.source",
            Self::Roles => "principal.roles",
            Self::Department => "principal.department",
            Self::Scopes => "principal.scopes",
            Self::Minute => "minute",
            Self::Model => "model",
            Self::Route => "route",
            Self::Provider => "provider",
            Self::Region => "region",
            Self::Streaming => "streaming",
            Self::MaxTokens => "max_tokens",
            Self::BodyBytes => "body_bytes",
            Self::MessageCount => "message_count",
            Self::Tools => "tools",
            Self::Agent => "agent",
            Self::Attribute(_) => ATTRIBUTE,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())?;
        match self {
            Self::Attribute(name) => out.write_str(name),
            _ => Ok(()),
        }
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

// === private helpers ===

fn names() -> String {
    Fact::NAMED.map(|fact| fact.name()).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_written_as_it_was_read() {
        let attribute = Fact::Attribute("unknown".to_owned());
        for fact in Fact::NAMED.into_iter().chain([attribute]) {
            let text = fact.to_string();
            assert_eq!(Fact::parse(&text).as_ref(), Ok(&fact));
            let json = serde_json::to_string(&fact).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Fact>(&json).unwrap(), fact);
        }
        assert_eq!(Fact::parse("attributes.a.b"), Ok(Fact::Attribute("a.b".to_owned())));
    }

    #[test]
    fn what_is_no_fact_of_a_call_is_refused_with_those_that_are() {
        let long = format!("attributes.{}", "a".repeat(MAX_BYTES + 1));
        for text in ["", "trace", "time_ms", "principal", "attributes", "attributes.", "Model", &long] {
            let error = Fact::parse(text).unwrap_err().to_string();
            assert!(error.contains("there are principal.user, ") && error.len() < 700, "{error}");
        }
    }
}
