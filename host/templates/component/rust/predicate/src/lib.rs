//! Takes long conversations: a route that names this predicate gets them, and leaves the others to the next route.

use sallyport_guest_sdk::{Body, Call, predicate::Predicate};
use serde::Deserialize;

/// What a route's `predicate_config` says. A key that is not listed here is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many messages a conversation has to exceed.
    #[serde(default)]
    more_than: u32,
}

/// The predicate, configured.
pub struct LongConversations(Config);

// One line makes a component of the type.
sallyport_guest_sdk::export_predicate!(LongConversations);

impl Predicate for LongConversations {
    type Config = Config;

    /// Runs once, when the route becomes active: check what you were given, and build what every call needs.
    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self(config))
    }

    /// Runs for every call whose model the route's pattern matches, each time in a fresh sandbox.
    fn matches(&self, call: &Call, _body: &dyn Body) -> bool {
        call.message_count > self.0.more_than
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::{FakeBody, call, configured};

    use super::*;

    #[test]
    fn a_long_conversation_is_taken() {
        let predicate = configured(r#"{"more_than":10}"#, LongConversations::configure).unwrap();
        let mut call = call("claude-opus-4-5");
        assert!(!predicate.matches(&call, &FakeBody::default()));
        call.message_count = 11;
        assert!(predicate.matches(&call, &FakeBody::default()));
    }
}
