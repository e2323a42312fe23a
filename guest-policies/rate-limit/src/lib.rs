//! Limits requests and tokens per user, tenant or model with the gateway's counters (GCRA). A refusal says when the same
//! request would fit. Tokens are reserved before a call and corrected to what it used after it.

use std::time::Duration;

use sallyport_guest_sdk::{
    Body, Call, CallOutcome, Glob, Host, Refusal,
    policy::{Policy, Settlement, Verdict},
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
    /// How many tokens fit into the window: those of the prompt that no cache had, and those of the answer.
    #[serde(default)]
    tokens: Option<u32>,
    /// How much of `max_tokens` is reserved at most while a call runs: 8,192, if not said.
    #[serde(default)]
    reserve: Option<u32>,
    /// All of `max_tokens` is reserved, and a call that asks for more than the limit is refused.
    #[serde(default)]
    strict: bool,
    /// Whether tokens that the prompt cache had count as well. They do not, if not said.
    #[serde(default)]
    cache_reads: bool,
    /// Whether calls that only count tokens take from the limit too. They do not, if not said.
    #[serde(default)]
    count_tokens: bool,
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

/// Bytes of a body that are taken for one token, until the upstream has counted.
const TOKEN_BYTES: u32 = 4;

/// What is reserved of `max_tokens`, if the limit does not say. Clients ask for many times what a turn uses: a bucket that
/// held all of it for as long as a turn lasts would have room for few of them at once.
const RESERVED: u32 = 8_192;

/// A call reserves no more than this part of a limit, so that small limits have room for a few calls at once too.
const SHARES: u32 = 4;

/// The fact that says what the client asked for, and its value where that is a count of tokens.
const COUNT_TOKENS: (&str, &str) = ("operation", "count_tokens");

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
    reserve: u32,
    strict: bool,
    cache_reads: bool,
    count_tokens: bool,
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
        let mut taken = Vec::new();
        for limit in self.limits.iter().filter(|limit| limit.counts(call)) {
            match limit.take(call, host) {
                Ok(()) => taken.push(limit),
                Err(refusal) => {
                    // A refused call uses no tokens. It was a request all the same.
                    for limit in taken.iter().filter(|limit| limit.unit == Unit::Tokens) {
                        limit.correct(call, 0, host);
                    }
                    return Verdict::Deny(refusal);
                }
            }
        }
        Verdict::Allow
    }

    fn settle(&self, call: &Call, spent: &Settlement, host: &dyn Host) {
        for limit in self.limits.iter().filter(|limit| limit.unit == Unit::Tokens && limit.counts(call)) {
            if let Some(used) = limit.used(spent) {
                limit.correct(call, used, host);
            }
        }
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
        if unit == Unit::Requests && (limit.reserve.is_some() || limit.strict || limit.cache_reads) {
            return Err("reserve, strict and cache_reads belong to tokens".into());
        }
        if limit.strict && limit.reserve.is_some() {
            return Err("strict reserves all of max_tokens: there is nothing for reserve to say".into());
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
            reserve: limit.reserve.unwrap_or(RESERVED),
            strict: limit.strict,
            cache_reads: limit.cache_reads,
            count_tokens: limit.count_tokens,
            prefix,
        })
    }

    fn counts(&self, call: &Call) -> bool {
        let (name, value) = COUNT_TOKENS;
        let only_counts = || call.attributes.iter().any(|fact| fact.name == name && fact.value == value);
        let concerned = |models: &Vec<Glob>| models.iter().any(|model| model.matches(&call.model));
        self.models.as_ref().is_none_or(concerned) && (self.count_tokens || !only_counts())
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

    /// What a call takes before it runs: a guess, which must not refuse a call for ever where it is too high.
    fn cost(&self, call: &Call) -> u32 {
        if self.unit == Unit::Requests {
            return 1;
        }
        let (prompt, answer) = (call.body_bytes.div_ceil(TOKEN_BYTES), call.max_tokens.unwrap_or_default());
        if self.strict {
            return answer.saturating_add(prompt).max(1);
        }
        answer.min(self.reserve).saturating_add(prompt).clamp(1, self.limit.div_ceil(SHARES))
    }

    /// What a call came to; nothing, where it was served and nobody counted: then what was reserved stays.
    fn used(&self, spent: &Settlement) -> Option<u32> {
        let usage = &spent.usage;
        let cached = usage.cache_read.filter(|_| self.cache_reads);
        let counted = [usage.input, usage.output, usage.cache_write, cached];
        let uncounted = usage.input.is_none() && usage.output.is_none();
        if uncounted && spent.outcome == CallOutcome::Allowed {
            return None;
        }
        Some(counted.into_iter().flatten().fold(0, u32::saturating_add))
    }

    fn correct(&self, call: &Call, used: u32, host: &dyn Host) {
        host.correct(&self.key(call), self.cost(call), used, self.limit, self.window);
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
mod tests;
