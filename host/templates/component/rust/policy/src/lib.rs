//! Allows models by how their names begin.

use sallyport_guest_sdk::{
    Body, Call, Host, Refusal,
    policy::{Policy, Verdict},
};
use serde::Deserialize;

/// What the gateway's configuration says about this policy. A key that is not listed here is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How the names of allowed models begin.
    models: Vec<String>,
}

/// The policy, configured.
pub struct Allowlist(Config);

// One line makes a component of the type.
sallyport_guest_sdk::export_policy!(Allowlist);

impl Policy for Allowlist {
    type Config = Config;

    /// Runs once, when the policy becomes active: check what you were given, and build what every call needs.
    fn configure(config: Config) -> Result<Self, String> {
        if config.models.is_empty() {
            return Err("models is empty: the policy would refuse every call".into());
        }
        Ok(Self(config))
    }

    /// Runs for every call, each time in a fresh sandbox. `body` is there to be read, and `host` counts and takes notes.
    fn check(&self, call: &Call, _body: &dyn Body, host: &dyn Host) -> Verdict {
        let admin = call.principal.roles.iter().any(|role| role == "admin");
        if admin || self.0.models.iter().any(|start| call.model.starts_with(start.as_str())) {
            return Verdict::Allow;
        }
        host.note("refused_model", &call.model);
        Refusal::not_entitled("model_not_listed", format!("the model {} is not for you", call.model)).into()
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::testing::{FakeBody, FakeHost, call, configured};

    use super::*;

    #[test]
    fn a_model_that_is_not_listed_is_refused() {
        let policy = configured(r#"{"models":["claude-haiku-"]}"#, Allowlist::configure).unwrap();
        let verdict = |model| policy.check(&call(model), &FakeBody::default(), &FakeHost::default());
        assert_eq!(verdict("claude-haiku-4-5"), Verdict::Allow);
        assert_ne!(verdict("claude-opus-4-5"), Verdict::Allow);
    }
}
