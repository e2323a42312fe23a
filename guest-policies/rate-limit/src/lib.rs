//! Limits requests and tokens per user, tenant or model with the gateway's counters (GCRA), which are exact across
//! replicas. A refusal says when the same request would fit.

use std::time::Duration;

use sallyport_guest_sdk::{
    Body, Call, Glob, Host, Refusal,
    policy::{Policy, Verdict},
};
use serde::Deserialize;

/// The policy: its limits, shortest window first.
pub struct RateLimit {
    limits: Vec<Bucket>,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// All of them hold.
    limits: Vec<Limit>,
}

/// One limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Who shares a bucket.
    per: Per,
    /// How many requests fit into the window. Either this or `tokens`.
    #[serde(default)]
    requests: Option<u32>,
    /// How many tokens fit into the window: `max_tokens` and a quarter of the body's bytes count.
    #[serde(default)]
    tokens: Option<u32>,
    /// How long the bucket takes to refill: `30s`, `1m`, `2h`, `1d`.
    window: String,
    /// Only calls for these models count; all, if not said.
    #[serde(default)]
    models: Option<Vec<Glob>>,
}

/// Who shares a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Every user has their own.
    User,
    /// The tenant has one.
    Tenant,
    /// Every model has its own.
    Model,
    /// Every user has their own for every model.
    #[serde(rename = "user+model")]
    UserModel,
}

sallyport_guest_sdk::export_policy!(RateLimit);

/// A model's name takes this many bytes of a counter's key at most: the client chooses it.
const KEY_MODEL_BYTES: usize = 120;

/// Bytes of a body that count as one token.
const TOKEN_BYTES: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Requests,
    Tokens,
}

/// A limit, checked.
struct Bucket {
    per: Per,
    unit: Unit,
    limit: u32,
    window: Duration,
    written: String,
    models: Option<Vec<Glob>>,
    /// What its keys begin with, so that changing one limit leaves the counts of the others.
    prefix: String,
}

// === impl RateLimit ===

impl Policy for RateLimit {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.limits.is_empty() {
            return Err("limits is empty: the policy would limit nothing".into());
        }
        let mut limits = Vec::new();
        for (index, limit) in config.limits.into_iter().enumerate() {
            limits.push(Bucket::checked(limit).map_err(|error| format!("limits[{index}]: {error}"))?);
        }
        // A call that a short window refuses must not be counted in a long one, where it would be missed for a day.
        limits.sort_by_key(|limit| limit.window);
        Ok(Self { limits })
    }

    fn check(&self, call: &Call, _: &dyn Body, host: &dyn Host) -> Verdict {
        let refusal = self
            .limits
            .iter()
            .filter(|limit| limit.counts(call))
            .find_map(|limit| limit.take(call, host).err());
        refusal.map_or(Verdict::Allow, Verdict::Deny)
    }
}

// === impl Bucket ===

impl Bucket {
    fn checked(limit: Limit) -> Result<Self, String> {
        let (unit, most) = match (limit.requests, limit.tokens) {
            (Some(requests), None) => (Unit::Requests, requests),
            (None, Some(tokens)) => (Unit::Tokens, tokens),
            _ => return Err("either requests or tokens has to be given".into()),
        };
        if most == 0 {
            return Err(format!("{} must be at least 1", unit.name()));
        }
        if limit.models.as_ref().is_some_and(Vec::is_empty) {
            return Err("models is empty: the limit would never count".into());
        }
        let window = window(&limit.window)?;
        let models: Vec<&str> = limit.models.iter().flatten().map(Glob::as_str).collect();
        let prefix =
            format!("{}/{}/{}/{}", unit.name(), limit.per.name(), window.as_secs(), models.join(","));
        Ok(Self {
            per: limit.per,
            unit,
            limit: most,
            window,
            written: limit.window,
            models: limit.models,
            prefix,
        })
    }

    fn counts(&self, call: &Call) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|model| model.matches(&call.model)))
    }

    fn take(&self, call: &Call, host: &dyn Host) -> Result<(), Refusal> {
        let (name, per, limit) = (self.unit.name(), self.per.name(), self.limit);
        let cost = self.cost(call);
        if cost > limit {
            let reason =
                format!("the call needs {cost} {name}, more than the {limit} per {per} in {}", self.written);
            return Err(Refusal::denied("request_exceeds_limit", reason));
        }
        host.take(&self.key(call), cost, limit, self.window).map(drop).map_err(|wait| {
            host.note("rate_limit.limit", &self.prefix);
            let reason = format!("the limit of {limit} {name} per {per} in {} is reached", self.written);
            let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            Refusal::rate_limited("rate_limited", reason, millis)
        })
    }

    fn cost(&self, call: &Call) -> u32 {
        match self.unit {
            Unit::Requests => 1,
            Unit::Tokens => call
                .max_tokens
                .unwrap_or_default()
                .saturating_add(call.body_bytes.div_ceil(TOKEN_BYTES))
                .max(1),
        }
    }

    fn key(&self, call: &Call) -> String {
        let model = call.model.get(..call.model.floor_char_boundary(KEY_MODEL_BYTES)).unwrap_or_default();
        let (prefix, user) = (&self.prefix, &call.principal.user);
        match self.per {
            Per::User => format!("{prefix}/{user}"),
            Per::Tenant => format!("{prefix}/"),
            Per::Model => format!("{prefix}/{model}"),
            Per::UserModel => format!("{prefix}/{user}/{model}"),
        }
    }
}

// === impl Unit ===

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

// === impl Per ===

impl Per {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Model => "model",
            Self::UserModel => "user and model",
        }
    }
}

/// `30s`, `1m`, `2h`, `1d`: up to 30 days.
fn window(written: &str) -> Result<Duration, String> {
    let seconds = written.char_indices().next_back().and_then(|(at, unit)| {
        let scale = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        written.get(..at)?.parse::<u64>().ok()?.checked_mul(scale)
    });
    match seconds {
        Some(seconds @ 1..=2_592_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("the window {written:?} is not a time between 1s and 30d")),
    }
}

#[cfg(test)]
mod tests {
    use sallyport_guest_sdk::{
        RefusalKind,
        testing::{FakeBody, FakeHost, call, configured},
    };

    use super::*;

    fn policy(config: &str) -> RateLimit {
        configured(config, RateLimit::configure).unwrap()
    }

    fn check(policy: &RateLimit, call: &Call, host: &FakeHost) -> Result<(), Refusal> {
        match policy.check(call, &FakeBody::default(), host) {
            Verdict::Allow => Ok(()),
            Verdict::Deny(refusal) => Err(refusal),
            other => panic!("neither yes nor no: {other:?}"),
        }
    }

    #[test]
    fn a_refused_request_fits_after_exactly_the_time_it_was_told() {
        let policy = policy(r#"{"limits":[{"per":"user","requests":2,"window":"1m"}]}"#);
        let (host, call) = (FakeHost::default(), call("echo"));
        assert_eq!(check(&policy, &call, &host), Ok(()));
        assert_eq!(check(&policy, &call, &host), Ok(()));
        let refusal = check(&policy, &call, &host).unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.kind), ("rate_limited", RefusalKind::RateLimited));
        assert_eq!(refusal.reason, "the limit of 2 requests per user in 1m is reached");
        let wait = Duration::from_millis(refusal.retry_after_ms.unwrap().into());
        host.advance(wait.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(check(&policy, &call, &host).is_err());
        host.advance(Duration::from_millis(1));
        assert_eq!(check(&policy, &call, &host), Ok(()));
    }

    #[test]
    fn users_do_not_share_a_bucket_and_tenants_do() {
        for (per, shared) in [("user", false), ("tenant", true), ("model", true), ("user+model", false)] {
            let policy = policy(&format!(r#"{{"limits":[{{"per":"{per}","requests":1,"window":"1m"}}]}}"#));
            let (host, mut call) = (FakeHost::default(), call("echo"));
            assert_eq!(check(&policy, &call, &host), Ok(()));
            assert!(check(&policy, &call, &host).is_err());
            call.principal.user = "u_bob".into();
            assert_eq!(check(&policy, &call, &host).is_err(), shared, "{per}");
        }
    }

    #[test]
    fn tokens_are_what_the_call_may_use_at_most() {
        let policy = policy(r#"{"limits":[{"per":"user","tokens":3000,"window":"1h"}]}"#);
        let (host, mut call) = (FakeHost::default(), call("echo"));
        call.max_tokens = Some(1000);
        call.body_bytes = 1999;
        assert_eq!(check(&policy, &call, &host), Ok(()));
        assert_eq!(check(&policy, &call, &host), Ok(()));
        assert_eq!(check(&policy, &call, &host).unwrap_err().retry_after_ms, Some(1_800_000));
    }

    #[test]
    fn a_call_larger_than_the_whole_limit_is_refused_for_good() {
        let policy = policy(r#"{"limits":[{"per":"user","tokens":100,"window":"1m"}]}"#);
        let refusal = check(&policy, &call("echo"), &FakeHost::default()).unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.kind), ("request_exceeds_limit", RefusalKind::Denied));
        assert_eq!(refusal.retry_after_ms, None);
    }

    #[test]
    fn a_call_refused_by_the_minute_is_not_missed_in_the_day() {
        let policy = policy(
            r#"{"limits":[{"per":"user","requests":3,"window":"1d"},{"per":"user","requests":1,"window":"1m"}]}"#,
        );
        let (host, call) = (FakeHost::default(), call("echo"));
        assert_eq!(check(&policy, &call, &host), Ok(()));
        for _ in 0..10 {
            assert!(check(&policy, &call, &host).is_err());
        }
        host.advance(Duration::from_mins(1));
        assert_eq!(check(&policy, &call, &host), Ok(()));
    }

    #[test]
    fn a_limit_for_some_models_leaves_the_others() {
        let policy =
            policy(r#"{"limits":[{"per":"user","requests":1,"window":"1m","models":["claude-opus-*"]}]}"#);
        let host = FakeHost::default();
        assert_eq!(check(&policy, &call("claude-opus-5"), &host), Ok(()));
        assert!(check(&policy, &call("claude-opus-4"), &host).is_err());
        assert_eq!(check(&policy, &call("claude-haiku-4-5"), &host), Ok(()));
    }

    #[test]
    fn a_models_name_cannot_blow_up_the_key() {
        let policy = policy(r#"{"limits":[{"per":"model","requests":1,"window":"1m"}]}"#);
        let host = FakeHost::default();
        assert_eq!(check(&policy, &call(&"é".repeat(100_000)), &host), Ok(()));
        assert!(host.keys().iter().all(|key| key.len() < 200));
    }

    #[test]
    fn a_configuration_that_cannot_hold_is_refused_with_its_place() {
        for (limit, why) in [
            (r#"{"per":"user","window":"1m"}"#, "limits[0]: either requests or tokens"),
            (
                r#"{"per":"user","requests":1,"tokens":1,"window":"1m"}"#,
                "limits[0]: either requests or tokens",
            ),
            (r#"{"per":"user","requests":0,"window":"1m"}"#, "limits[0]: requests must be at least 1"),
            (r#"{"per":"user","requests":1,"window":"1"}"#, "limits[0]: the window \"1\""),
            (r#"{"per":"user","requests":1,"window":"0s"}"#, "limits[0]: the window \"0s\""),
            (r#"{"per":"user","requests":1,"window":"31d"}"#, "limits[0]: the window \"31d\""),
            (r#"{"per":"user","requests":1,"window":"1m","models":[]}"#, "limits[0]: models is empty"),
            (r#"{"per":"planet","requests":1,"window":"1m"}"#, "planet"),
            (r#"{"per":"user","request":1,"window":"1m"}"#, "request"),
        ] {
            let error =
                configured(&format!(r#"{{"limits":[{limit}]}}"#), RateLimit::configure).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
        assert!(configured(r#"{"limits":[]}"#, RateLimit::configure).is_err());
        assert!(configured("{}", RateLimit::configure).is_err());
    }
}
