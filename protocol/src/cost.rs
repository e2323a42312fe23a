//! What calls cost, in integer microdollars from a versioned price list. No floating point: sums have to come
//! out the same on every machine.

mod day;

use serde::{Deserialize, Serialize};
use time::Date;

use crate::glob;
use crate::messages::event::Usage;
use crate::strict_json::{self, StrictError};

/// The price list that ships with the product, as JSON.
pub const DEFAULT: &str = include_str!("../prices.json");
/// The largest price list accepted, in bytes: 1 MiB.
pub const MAX_LIST: usize = 1024 * 1024;
/// Tokens to which a rate refers.
const RATE_TOKENS: u128 = 1_000_000;

/// What models cost: of the entries that hold on the day of a call, the first whose provider and model match counts.
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

/// What models cost on one day.
#[derive(Debug, Clone, Copy)]
pub struct DayPrices<'a> {
    list: &'a PriceList,
    day: Date,
}

/// Rates of one model or family, in microdollars per million tokens ($3 per million tokens is 3000000).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Provider tag: `anthropic`, `openai`, ...; `*` for any.
    pub provider: String,
    /// The upstream's name of the model; `*` stands for any run of characters.
    pub model: String,
    /// The first day, in UTC, on which these rates hold; not said: they always did. A later entry of the same model holds before.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "day")]
    pub from: Option<Date>,
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
    /// An entry never counts, since an earlier one has the same provider and model, and holds whenever this one does.
    #[error(
        "entry {0} of the price list never counts: an earlier one of the same model holds whenever it does (the latest `from` stands first)"
    )]
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
            if list.models.iter().take(position).any(|earlier| earlier.hides(entry)) {
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

    /// What holds on a day, in UTC.
    pub fn on(&self, day: Date) -> DayPrices<'_> {
        DayPrices { list: self, day }
    }

    /// Whether `model` of `provider` has an entry, whenever that holds.
    pub fn lists(&self, provider: &str, model: &str) -> bool {
        self.models.iter().any(|entry| entry.matches(provider, model))
    }
}

// === impl DayPrices ===

impl<'a> DayPrices<'a> {
    /// The entry that applies to `model` of `provider`; `None` where the list has none that holds on this day.
    pub fn entry(&self, provider: &str, model: &str) -> Option<&'a Price> {
        let holds = |entry: &&Price| entry.from.is_none_or(|from| from <= self.day);
        self.list.models.iter().filter(holds).find(|entry| entry.matches(provider, model))
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
            from: None,
            input: 0,
            output: 0,
            cache_read: 0,
            cache_write: 0,
            cache_write_1h: None,
            long_prompt: Vec::new(),
            batch_percent: None,
        }
    }

    /// Whether a later entry never counts because of this one.
    pub fn hides(&self, later: &Self) -> bool {
        self.provider == later.provider && self.model == later.model && self.from <= later.from
    }

    fn matches(&self, provider: &str, model: &str) -> bool {
        glob::matches(&self.provider, provider) && glob::matches(&self.model, model)
    }

    /// Whether its steps of long prompts stand in order.
    pub fn ascends(&self) -> bool {
        self.long_prompt.iter().zip(self.long_prompt.iter().skip(1)).all(|(one, next)| one.above < next.above)
    }

    /// What `usage` costs at these rates; see [`DayPrices::price`].
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
mod tests;
