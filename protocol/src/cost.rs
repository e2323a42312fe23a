//! What calls cost, in integer microdollars from a versioned price list. No floating point: sums have to come out the same on every machine.

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
    /// Input written to a prompt cache.
    pub cache_write: u64,
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

    /// What `usage` costs in microdollars, rounded up once, over what is known of it. `None` where the list has no entry
    /// for the model, where nothing is known of the usage, or where the sum does not fit.
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
        let parts = [
            (usage.input, self.input),
            (usage.output, self.output),
            (usage.cache_read, self.cache_read),
            (usage.cache_write, self.cache_write),
        ];
        let mut sum = 0_u128;
        for (tokens, rate) in parts {
            sum = sum.checked_add(u128::from(tokens.unwrap_or(0)).checked_mul(u128::from(rate))?)?;
        }
        i64::try_from(sum.div_ceil(RATE_TOKENS)).ok()
    }
}

