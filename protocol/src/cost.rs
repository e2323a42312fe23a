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
/// (<https://platform.claude.com/docs/en/about-claude/pricing>, <https://developers.openai.com/api/docs/pricing>,
/// <https://ai.google.dev/gemini-api/docs/pricing>, <https://aws.amazon.com/bedrock/pricing/>, <https://groq.com/pricing>,
/// <https://platform.kimi.ai/docs/pricing/chat>, <https://platform.minimax.io/docs/guides/pricing-paygo>,
/// <https://www.alibabacloud.com/help/en/model-studio/models>; the last seven as the package `genai-prices` 0.2.3 and these pages'
/// reports have them): standard service tier, no regional premium; of batches the vendors' discount where Messages has them. Other terms go into an own list.
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
    /// Other rates for calls with a long prompt, where the vendor has them: one step, or several that ascend.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "steps")]
    pub long_prompt: Vec<LongPrompt>,
    /// What a request of a batch costs of all these rates, in percent; not said: as much as any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_percent: Option<u8>,
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
    /// The steps of an entry do not ascend.
    #[error("entry {0} of the price list has steps of long prompts that do not ascend")]
    Steps(usize),
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
            if !entry.ascends() {
                return Err(CostError::Steps(position));
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
    /// Entries of this model that cost nothing.
    pub fn free(provider: &str, model: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            input: 0,
            output: 0,
            cache_read: 0,
            cache_write: 0,
            cache_write_1h: None,
            long_prompt: Vec::new(),
            batch_percent: None,
        }
    }

    /// Whether its steps of long prompts stand in order.
    pub fn ascends(&self) -> bool {
        self.long_prompt.iter().zip(self.long_prompt.iter().skip(1)).all(|(one, next)| one.above < next.above)
    }

    /// What `usage` costs at these rates; see [`PriceList::price`].
    pub fn of(&self, usage: &Usage) -> Option<i64> {
        self.share_of(usage, 100)
    }

    /// What `usage` of a request in a batch costs.
    pub fn in_batch(&self, usage: &Usage) -> Option<i64> {
        self.share_of(usage, self.batch_percent.unwrap_or(100))
    }

    /// So many hundredths of what `usage` costs, rounded up once.
    fn share_of(&self, usage: &Usage, percent: u8) -> Option<i64> {
        if usage.is_unknown() {
            return None;
        }
        let prompt = [usage.input, usage.cache_read, usage.cache_write.max(usage.cache_write_1h)]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add);
        let hour = |own: Option<u64>, input: u64| own.unwrap_or_else(|| input.saturating_mul(2));
        let rates = match self.long_prompt.iter().rfind(|long| prompt > long.above) {
            Some(long) => [
                long.input,
                long.output,
                long.cache_read,
                long.cache_write,
                hour(long.cache_write_1h, long.input),
            ],
            None => [
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
        let share = sum.checked_mul(u128::from(percent))?;
        i64::try_from(share.div_ceil(RATE_TOKENS * 100)).ok()
    }
}

/// Steps as they are written: one as it is, several as a list.
mod steps {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use serde_json::Value;

    use super::LongPrompt;

    pub(super) fn serialize<S: Serializer>(steps: &[LongPrompt], to: S) -> Result<S::Ok, S::Error> {
        if let [one] = steps { one.serialize(to) } else { steps.serialize(to) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LongPrompt>, D::Error> {
        let value = Value::deserialize(from)?;
        let steps = match value {
            Value::Null => return Ok(Vec::new()),
            Value::Array(steps) => steps,
            one => vec![one],
        };
        let read = |step| serde_json::from_value(step).map_err(D::Error::custom);
        steps.into_iter().map(read).collect()
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
    fn a_request_of_a_batch_costs_half_where_the_list_says_so_and_is_rounded_once() {
        let prices = PriceList::shipped().unwrap();
        let batch = |provider, model, usage| prices.entry(provider, model).unwrap().in_batch(&usage);
        // 1,234 x 4 + 567 x 20 + 80,000 x 0.20 + 5,000 x 5 = 57,276 in microdollars, and half of it.
        assert_eq!(batch("anthropic", "claude-opus-5-5", usage(1_234, 567, 80_000, 5_000)), Some(28_638));
        // A long prompt: 200,001 x 6 + 1,000 x 22.50 = 1,222,506.
        assert_eq!(batch("anthropic", "claude-sonnet-4-5", usage(200_001, 1_000, 0, 0)), Some(611_253));
        // Half of 7 x 0.1 + 1 x 0.5 = 1.2 is 0.6.
        assert_eq!(batch("anthropic", "claude-haiku-5-5", usage(7, 1, 0, 0)), Some(1));
        assert_eq!(batch("openai", "gpt-5", usage(8, 11, 0, 0)), Some(120));
        let own = list(&entry("m", 1_000_000).replace('}', r#","batch_percent":30}"#)).unwrap();
        assert_eq!(own.entry("p", "m").unwrap().in_batch(&usage(10, 0, 0, 0)), Some(3));
    }

    /// The arithmetic of each invoice stands beside it, from the vendors' pages: dollars per million tokens times tokens is microdollars.
    #[test]
    fn invoices_of_every_wire_come_out_to_the_microdollar() {
        let prices = PriceList::shipped().unwrap();
        let hour = |usage: Usage, hour| Usage { cache_write_1h: Some(hour), ..usage };
        let invoices = [
            // Messages: 1,234 x 4 + 567 x 20 + 80,000 x 0.20 + 4,000 x 5 (five minutes) + 1,000 x 8 (an hour)
            // = 4,936 + 11,340 + 16,000 + 20,000 + 8,000
            ("anthropic", "claude-opus-5-5", hour(usage(1_234, 567, 80_000, 5_000), 1_000), 60_276),
            // The same model elsewhere costs the same. 10 x 8 + 20 x 40 + 30 x 0.20 + 40 x 10 = 80 + 800 + 6 + 400
            ("bedrock", "us.anthropic.claude-fable-5-2-v1:0", usage(10, 20, 30, 40), 1_286),
            ("vertex", "claude-fable-5-2", usage(10, 20, 30, 40), 1_286),
            // A prompt of 200,001 tokens: 200,001 x 6 + 1,000 x 22.50 = 1,200,006 + 22,500; of 200,000: 200,000 x 3 + 1,000 x 15
            ("anthropic", "claude-sonnet-4-5", usage(200_001, 1_000, 0, 0), 1_222_506),
            ("anthropic", "claude-sonnet-4-5", usage(200_000, 1_000, 0, 0), 615_000),
            // Chat Completions: 7 x 1.25 + 11 x 10 + 1,001 x 0.125 = 8.75 + 110 + 125.125 = 243.875, rounded up
            ("openai", "gpt-5", usage(7, 11, 1_001, 0), 244),
            ("azure", "gpt-5", usage(7, 11, 1_001, 0), 244),
            // generateContent: 190,000 + 10,001 cached exceed 200,000: 190,000 x 4 + 2,000 x 18 + 10,001 x 0.40
            // = 760,000 + 36,000 + 4,000.4, rounded up
            ("gemini", "gemini-3.1-pro-preview", usage(190_000, 2_000, 10_001, 0), 800_001),
            // One cached token less: 190,000 x 2 + 2,000 x 12 + 10,000 x 0.20 = 380,000 + 24,000 + 2,000
            ("vertex", "gemini-3.1-pro-preview", usage(190_000, 2_000, 10_000, 0), 406_000),
            // Groq: 1,000,000 x 0.15 + 500,000 x 0.60 + 250,000 x 0.075 = 150,000 + 300,000 + 18,750
            ("groq", "openai/gpt-oss-120b", usage(1_000_000, 500_000, 250_000, 0), 468_750),
            // Moonshot: 333 x 3 + 77 x 15 + 9,999 x 0.30 = 999 + 1,155 + 2,999.7, rounded up
            ("moonshot", "kimi-k3", usage(333, 77, 9_999, 0), 5_154),
            // MiniMax: 100 x 0.30 + 200 x 1.20 + 1,000 x 0.06 + 800 x 0.375 = 30 + 240 + 60 + 300
            ("minimax", "MiniMax-M2.7", usage(100, 200, 1_000, 800), 630),
            // Qwen, three steps: 32,000 x 1.20; 32,001 x 2.40 = 76,802.4; 128,001 x 3
            ("qwen", "qwen3-max", usage(32_000, 0, 0, 0), 38_400),
            ("qwen", "qwen3-max", usage(32_001, 0, 0, 0), 76_803),
            ("qwen", "qwen3-max", usage(128_001, 0, 0, 0), 384_003),
            // Converse: 1,000 x 0.80 + 100 x 3.20 + 400 x 0.20 = 800 + 320 + 80
            ("bedrock", "eu.amazon.nova-pro-v1:0", usage(1_000, 100, 400, 0), 1_200),
        ];
        for (provider, model, usage, microdollars) in invoices {
            assert_eq!(prices.price(provider, model, &usage), Some(microdollars), "{provider} {model}");
        }
    }

    #[test]
    fn steps_of_long_prompts_are_one_or_several_that_ascend() {
        let step = |above: u64, rate: u64| {
            format!(
                r#"{{"above":{above},"input":{rate},"output":{rate},"cache_read":{rate},"cache_write":{rate}}}"#
            )
        };
        let with =
            |steps: &str| list(&entry("m", 1_000_000).replace('}', &format!(r#","long_prompt":{steps}}}"#)));
        let several = with(&format!("[{},{}]", step(10, 2_000_000), step(20, 3_000_000))).unwrap();
        let price = |tokens| several.price("p", "m", &usage(tokens, 0, 0, 0));
        assert_eq!([price(10), price(11), price(20), price(21)], [10, 22, 40, 63].map(Some));
        let one = with(&step(10, 2_000_000)).unwrap();
        assert_eq!(one.price("p", "m", &usage(11, 0, 0, 0)), Some(22));
        for made in [&one, &several] {
            let text = serde_json::to_string(made).unwrap();
            assert_eq!(PriceList::parse(&text).unwrap(), *made, "{text}");
        }
        for steps in
            [format!("[{},{}]", step(20, 1), step(10, 1)), format!("[{},{}]", step(10, 1), step(10, 1))]
        {
            assert!(matches!(with(&steps), Err(CostError::Steps(0))), "{steps}");
        }
        assert!(matches!(with("[1]"), Err(CostError::Malformed(_))));
    }

    #[test]
    fn every_provider_that_ships_has_priced_models() {
        let prices = PriceList::shipped().unwrap();
        for (provider, model) in [
            ("anthropic", "claude-opus-5-5"),
            ("bedrock", "eu.anthropic.claude-opus-5-5-v1:0"),
            ("vertex", "gemini-4-argon"),
            ("gemini", "gemini-3.8-flash"),
            ("openai", "gpt-6.1-sol"),
            ("azure", "gpt-6-luna"),
            ("groq", "llama-3.3-70b-versatile"),
            ("moonshot", "kimi-k2.6"),
            ("qwen", "qwen3-max"),
            ("minimax", "MiniMax-M3"),
            ("echo", "anything"),
        ] {
            assert!(prices.entry(provider, model).is_some(), "{provider} {model}");
        }
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
