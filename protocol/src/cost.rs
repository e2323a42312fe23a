//! What calls cost, in integer microdollars from a versioned price list. No floating point: sums have to come
//! out the same on every machine.

use serde::{Deserialize, Serialize};

use crate::glob;
use crate::messages::event::Usage;
use crate::strict_json::{self, StrictError};

/// The price list that ships with the product, as JSON.
pub const DEFAULT: &str = include_str!("../prices.json");
/// The largest price list accepted, in bytes: 1 MiB.
pub const MAX_LIST: usize = 1024 * 1024;
/// Tokens to which a rate refers.
const RATE_TOKENS: u128 = 1_000_000;

/// What models cost: the first entry whose provider and model match counts.
///
/// The shipped list has the vendors' public list prices
/// (<https://platform.claude.com/docs/en/about-claude/pricing>,
/// <https://developers.openai.com/api/docs/pricing>): standard service tier, no regional premium. Other terms
/// go into an own list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Names this edition of the list: a date.
    pub version: String,
    /// The entries, most specific first.
    pub models: Vec<Price>,
}

/// Rates of one model or family, in microdollars per million tokens ($3 per million tokens is 3000000).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Provider tag: `anthropic`, `openai`, ...; `*` for any.
    pub provider: String,
    /// The upstream's name of the model; `*` stands for any run of characters.
    pub model: String,
    /// Input outside any cache.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a prompt cache.
    pub cache_read: u64,
    /// Input written to a prompt cache, at the rate of the shortest life that the vendor offers.
    pub cache_write: u64,
    /// Input written to a prompt cache for an hour; not said: twice `input`, which is what the vendor that offers it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<u64>,
    /// Other rates for calls with a long prompt, where the vendor has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_prompt: Option<LongPrompt>,
}

/// Rates for calls whose prompt (input, cache reads and cache writes together) is long: they apply to the
/// whole call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongPrompt {
    /// How many tokens a prompt has to exceed.
    pub above: u64,
    /// Input outside any cache.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a prompt cache.
    pub cache_read: u64,
    /// Input written to a prompt cache.
    pub cache_write: u64,
    /// Input written to a prompt cache for an hour; not said: twice `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<u64>,
}

/// Why a price list is refused.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// Not JSON of the right shape; rates are integers.
    #[error("the price list is malformed")]
    Malformed(#[source] StrictError),
    /// An entry has no provider or no model.
    #[error("entry {0} of the price list names no model")]
    Nameless(usize),
    /// An entry can never match, since an earlier one has the same provider and model.
    #[error("entry {0} of the price list stands there twice")]
    Twice(usize),
}

// === impl PriceList ===

impl PriceList {
    /// Reads a price list. Errors: see [`CostError`]; entries are counted from 0.
    pub fn parse(json: &str) -> Result<Self, CostError> {
        let list: Self = strict_json::parse(json.as_bytes(), MAX_LIST).map_err(CostError::Malformed)?;
        for (position, entry) in list.models.iter().enumerate() {
            if entry.provider.is_empty() || entry.model.is_empty() {
                return Err(CostError::Nameless(position));
            }
            let same = |earlier: &Price| earlier.provider == entry.provider && earlier.model == entry.model;
            if list.models.iter().take(position).any(same) {
                return Err(CostError::Twice(position));
            }
        }
        Ok(list)
    }

    /// The list that ships with the product. Errors: none, unless the file in the source tree is broken.
    pub fn shipped() -> Result<Self, CostError> {
        Self::parse(DEFAULT)
    }

    /// The entry that applies to `model` of `provider`; `None` where the list has none.
    pub fn entry(&self, provider: &str, model: &str) -> Option<&Price> {
        self.models
            .iter()
            .find(|entry| glob::matches(&entry.provider, provider) && glob::matches(&entry.model, model))
    }

    /// What `usage` costs in microdollars, rounded up once, over what is known of it. `None` where the list
    /// has no entry for the model, where nothing is known of the usage, or where the sum does not fit.
    pub fn price(&self, provider: &str, model: &str, usage: &Usage) -> Option<i64> {
        self.entry(provider, model)?.of(usage)
    }
}

// === impl Price ===

impl Price {
    /// What `usage` costs at these rates; see [`PriceList::price`].
    pub fn of(&self, usage: &Usage) -> Option<i64> {
        if usage.is_unknown() {
            return None;
        }
        let prompt = [usage.input, usage.cache_read, usage.cache_write.max(usage.cache_write_1h)]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add);
        let hour = |own: Option<u64>, input: u64| own.unwrap_or_else(|| input.saturating_mul(2));
        let rates = match &self.long_prompt {
            Some(long) if prompt > long.above => [
                long.input,
                long.output,
                long.cache_read,
                long.cache_write,
                hour(long.cache_write_1h, long.input),
            ],
            _ => [
                self.input,
                self.output,
                self.cache_read,
                self.cache_write,
                hour(self.cache_write_1h, self.input),
            ],
        };
        let for_an_hour = usage.cache_write_1h;
        let shorter = usage.cache_write.map(|all| all.saturating_sub(for_an_hour.unwrap_or(0)));
        let counts = [usage.input, usage.output, usage.cache_read, shorter, for_an_hour];
        let mut sum = 0_u128;
        for (tokens, rate) in counts.into_iter().zip(rates) {
            sum = sum.checked_add(u128::from(tokens.unwrap_or(0)).checked_mul(u128::from(rate))?)?;
        }
        i64::try_from(sum.div_ceil(RATE_TOKENS)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usage(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Usage {
        Usage {
            input: Some(input),
            output: Some(output),
            cache_read: Some(cache_read),
            cache_write: Some(cache_write),
            cache_write_1h: None,
        }
    }

    fn list(entries: &str) -> Result<PriceList, CostError> {
        PriceList::parse(&format!(r#"{{"version":"v","models":[{entries}]}}"#))
    }

    fn entry(model: &str, rate: u64) -> String {
        format!(
            r#"{{"provider":"p","model":"{model}","input":{rate},"output":{rate},"cache_read":{rate},"cache_write":{rate}}}"#
        )
    }

    #[test]
    fn the_shipped_list_prices_what_the_vendors_list() {
        let prices = PriceList::shipped().unwrap();
        let each = usage(1_000_000, 1_000_000, 1_000_000, 1_000_000);
        let models = [
            ("echo", "claude-opus-5-5"),
            ("anthropic", "claude-opus-5-5"),
            ("anthropic", "claude-opus-5-20260724"),
            ("anthropic", "claude-opus-4-1-20250805"),
            ("anthropic", "claude-sonnet-5-5"),
            ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            ("vertex", "claude-haiku-4-5@20251001"),
            ("openai", "gpt-5-2025-08-07"),
            ("openai", "gpt-5-mini"),
            ("openai", "gpt-4o"),
            ("openai", "gpt-4o-mini"),
        ];
        let lines = models.map(|(provider, model)| {
            let rates = prices.entry(provider, model).unwrap();
            let Price { input, output, cache_read, cache_write, .. } = rates;
            format!("{provider} {model}: {input} {output} {cache_read} {cache_write}")
        });
        let seen = lines.join("\n");
        insta::assert_snapshot!(seen, @"
        echo claude-opus-5-5: 0 0 0 0
        anthropic claude-opus-5-5: 4000000 20000000 200000 5000000
        anthropic claude-opus-5-20260724: 5000000 25000000 500000 6250000
        anthropic claude-opus-4-1-20250805: 15000000 75000000 1500000 18750000
        anthropic claude-sonnet-5-5: 2000000 10000000 100000 2500000
        bedrock eu.anthropic.claude-sonnet-4-5-20250929-v1:0: 3000000 15000000 300000 3750000
        vertex claude-haiku-4-5@20251001: 1000000 5000000 100000 1250000
        openai gpt-5-2025-08-07: 1250000 10000000 125000 1250000
        openai gpt-5-mini: 250000 2000000 25000 250000
        openai gpt-4o: 2500000 10000000 1250000 2500000
        openai gpt-4o-mini: 150000 600000 75000 150000
        ");
        assert_eq!(prices.price("echo", "anything", &each), Some(0));
        assert_eq!(prices.price("anthropic", "claude-opus-5-5", &each), Some(29_200_000));
    }

    #[test]
    fn every_entry_of_the_shipped_list_can_be_reached() {
        let prices = PriceList::shipped().unwrap();
        for entry in &prices.models {
            let model = entry.model.replace('*', "");
            let reached = prices.entry(entry.provider.trim_matches('*'), &model).unwrap();
            assert!(std::ptr::eq(reached, entry) || entry.provider == "echo", "{} is shadowed", entry.model);
        }
    }

    #[test]
    fn what_is_cached_for_an_hour_costs_twice_the_input_unless_the_list_says_otherwise() {
        let hour = |cache_write, hour| Usage { cache_write_1h: Some(hour), ..usage(0, 0, 0, cache_write) };
        let shipped = PriceList::shipped().unwrap();
        let price = |usage| shipped.price("anthropic", "claude-opus-5-5", &usage);
        assert_eq!(price(hour(1_000_000, 0)), Some(5_000_000));
        assert_eq!(price(hour(1_000_000, 1_000_000)), Some(8_000_000));
        assert_eq!(price(hour(1_000_000, 400_000)), Some(3_000_000 + 3_200_000));
        let own = list(&entry("m", 1_000_000).replace('}', r#","cache_write_1h":7000000}"#)).unwrap();
        assert_eq!(own.price("p", "m", &hour(1_000_000, 1_000_000)), Some(7_000_000));
    }

    #[test]
    fn a_long_prompt_costs_its_own_rates_for_the_whole_call() {
        let prices = PriceList::shipped().unwrap();
        let price = |usage: Usage| prices.price("anthropic", "claude-haiku-5-5", &usage);
        assert_eq!(price(usage(60_000, 1_000, 40_000, 0)), Some(6_000 + 500 + 400));
        assert_eq!(price(usage(60_001, 1_000, 40_000, 0)), Some(30_001 + 2_500 + 2_000));
    }

    #[test]
    fn an_unknown_model_has_no_price_and_unknown_usage_costs_nothing_known() {
        let prices = list(&entry("m", 1)).unwrap();
        assert_eq!(prices.price("p", "n", &usage(1, 1, 1, 1)), None);
        assert_eq!(prices.price("q", "m", &usage(1, 1, 1, 1)), None);
        assert_eq!(prices.price("p", "m", &Usage::default()), None);
        assert_eq!(prices.price("p", "m", &Usage { input: Some(0), ..Usage::default() }), Some(0));
    }

    #[test]
    fn a_fraction_of_a_microdollar_is_rounded_up_once() {
        let prices = list(&entry("m", 1)).unwrap();
        assert_eq!(prices.price("p", "m", &usage(1, 1, 1, 1)), Some(1));
        assert_eq!(prices.price("p", "m", &usage(1_000_000, 0, 0, 0)), Some(1));
        assert_eq!(prices.price("p", "m", &usage(1_000_000, 0, 0, 1)), Some(2));
    }

    #[test]
    fn a_sum_that_does_not_fit_is_no_price() {
        let prices = list(&entry("m", 9_007_199_254_740_991)).unwrap();
        assert_eq!(prices.price("p", "m", &usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX)), None);
    }

    #[test]
    fn the_first_entry_that_matches_counts() {
        let prices = list(&format!("{},{}", entry("a-*", 1_000_000), entry("*", 2_000_000))).unwrap();
        assert_eq!(prices.price("p", "a-1", &usage(1, 0, 0, 0)), Some(1));
        assert_eq!(prices.price("p", "b", &usage(1, 0, 0, 0)), Some(2));
    }

    #[test]
    fn a_list_that_is_not_plain_is_refused() {
        for entries in [
            entry("m", 1).replace(":1,", ":1.5,"),
            entry("m", 1).replace(":1,", ":-1,"),
            entry("m", 1).replace("\"output\"", "\"outputs\""),
            entry("m", 1).replace("\"output\":1", "\"input\":1"),
        ] {
            assert!(matches!(list(&entries), Err(CostError::Malformed(_))), "{entries}");
        }
        assert!(matches!(list(&entry("", 1)), Err(CostError::Nameless(0))));
        let twice = format!("{},{},{}", entry("m", 1), entry("n", 1), entry("m", 2));
        assert!(matches!(list(&twice), Err(CostError::Twice(2))));
    }

    proptest! {
        #[test]
        fn more_tokens_never_cost_less(
            rate in 0..10_000_000_u64,
            tokens in 0..1_000_000_000_u64,
            more in 0..1_000_000_u64,
        ) {
            let prices = list(&entry("m", rate)).unwrap();
            let less = prices.price("p", "m", &usage(tokens, 0, 0, 0)).unwrap();
            let later = prices.price("p", "m", &usage(tokens + more, 0, 0, 0)).unwrap();
            prop_assert!(later >= less);
        }
    }
}
