//! The `prices:` block: what calls cost.

use std::path::Path;

use sallyport_protocol::canonical;
use sallyport_protocol::cost::{self, Price, PriceList};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::node::Section;

const FILE: ConfigKey = ConfigKey::text("file", "A price list instead of the shipped one");
const MODELS: ConfigKey =
    ConfigKey::list("models", &Form::Mapping(&PRICE), "Entries that go before the list");
const FREE: ConfigKey = ConfigKey::list(
    "free",
    &Form::Text,
    "The upstream's names of models that cost nothing, such as those of your own servers: `llama-*`. They go before the list, after `models`",
);

/// A rate, in microdollars per million tokens.
const fn rate(name: &'static str, about: &'static str) -> ConfigKey {
    ConfigKey::of(name, Form::Number(0, u64::MAX), about)
}

/// One entry of `prices.models`: read by [`Price`] itself.
pub(super) const PRICE: ConfigBlock = ConfigBlock {
    about: "Rates of one model or family, in microdollars per million tokens (3 dollars are 3000000).",
    keys: &[
        ConfigKey::text("provider", "Tag of the provider; `*` for any").required(),
        ConfigKey::text("model", "The upstream's name of the model; `*` stands for any run of characters")
            .required(),
        ConfigKey::text(
            "from",
            "The first day, in UTC, on which these rates hold (`2026-12-01`). Until then the next entry that matches counts. Of entries of the \
             same model, the latest day stands first",
        )
        .or(Absent::Derived("they always did")),
        rate("input", "Input outside any cache").required(),
        rate("output", "Output").required(),
        rate("cache_read", "Input read from a prompt cache").required(),
        rate("cache_write", "Input written to a prompt cache").required(),
        rate("cache_write_1h", "Input written to a prompt cache for an hour")
            .or(Absent::Derived("twice `input`")),
        ConfigKey::of(
            "long_prompt",
            Form::Either(&[Form::Mapping(&LONG_PROMPT), Form::List(&Form::Mapping(&LONG_PROMPT))]),
            "Other rates for calls with a long prompt, where the vendor has them: one step, or a list of steps that ascend",
        ),
        ConfigKey::of(
            "batch_percent",
            Form::Number(0, 100),
            "What a request of a batch costs of all these rates, in percent",
        )
        .or(Absent::Derived("100")),
    ],
    notes: "",
};
/// `long_prompt` of an entry.
pub(super) const LONG_PROMPT: ConfigBlock = ConfigBlock {
    about: "Rates of calls whose prompt (input, cache reads and cache writes together) is long: they apply to the whole call.",
    keys: &[
        rate("above", "How many tokens a prompt has to exceed").required(),
        rate("input", "Input outside any cache").required(),
        rate("output", "Output").required(),
        rate("cache_read", "Input read from a prompt cache").required(),
        rate("cache_write", "Input written to a prompt cache").required(),
        rate("cache_write_1h", "Input written to a prompt cache for an hour")
            .or(Absent::Derived("twice `input`")),
    ],
    notes: "",
};

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "prices",
    &ConfigBlock { about: "What calls cost.", keys: &[FILE, MODELS, FREE], notes: "" },
    "What calls cost",
);

/// Reads the block; none if the list cannot be read.
pub(super) fn read(top: &Section<'_>, home: &Path) -> Option<PriceList> {
    let section = top.block(&KEY);
    let mut list = match section.get(&FILE) {
        None => PriceList::parse(cost::DEFAULT).ok()?,
        Some(node) => {
            let path = home.join(node.text()?);
            let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            let parsed = read.and_then(|text| PriceList::parse(&text).map_err(|error| with_causes(&error)));
            parsed.map_err(|error| node.error(format!("{}: {error}", path.display()))).ok()?
        }
    };
    let mut entries: Vec<Price> = Vec::new();
    for item in section.items(&MODELS) {
        match serde_json::from_value::<Price>(item.value().clone()) {
            Ok(price) if !price.ascends() => item.error_below(".long_prompt", "has steps that do not ascend"),
            Ok(price) if entries.iter().any(|earlier| earlier.hides(&price)) => item.error(
                "never counts: an earlier entry of the same model holds whenever it does (the latest `from` stands first)",
            ),
            Ok(price) => entries.push(price),
            Err(error) => item.error(format!("is no price: {error}")),
        }
    }
    for item in section.items(&FREE) {
        entries.extend(item.text().map(|model| Price::free("*", model)));
    }
    if entries.is_empty() {
        return Some(list);
    }
    // A row names the list that priced it: own prices make it another list.
    let digest = Sha256::digest(serde_json::to_vec(&entries).ok()?);
    let mark = canonical::hex(digest.get(..4)?);
    list.version = format!("{}+{mark}", list.version);
    list.models.splice(0..0, entries);
    Some(list)
}

/// An error and what caused it, down to the value that is wrong.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}

/// As `sallyport config show` prints it.
pub(super) fn show(list: &PriceList) -> Value {
    let free = |price: &&Price| **price == Price::free("*", &price.model);
    let free: Vec<_> = list.models.iter().filter(free).map(|price| &price.model).collect();
    json!({ "version": list.version, "models": list.models.len(), "free": free })
}
