//! Prices: lists that are refused, and sums that were made by hand.

use super::*;
use proptest::prelude::*;
use time::macros::date;

fn usage(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Usage {
    Usage {
        input: Some(input),
        output: Some(output),
        cache_read: Some(cache_read),
        cache_write: Some(cache_write),
        cache_write_1h: None,
    }
}

/// A day on which every undated entry holds, and no dated one.
const DAY: Date = date!(1970 - 01 - 01);

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
        let rates = prices.on(DAY).entry(provider, model).unwrap();
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
    assert_eq!(prices.on(DAY).price("echo", "anything", &each), Some(0));
    assert_eq!(prices.on(DAY).price("anthropic", "claude-opus-5-5", &each), Some(29_200_000));
}

#[test]
fn every_entry_of_the_shipped_list_can_be_reached() {
    let prices = PriceList::shipped().unwrap();
    for entry in &prices.models {
        let model = entry.model.replace('*', "");
        let day = entry.from.unwrap_or(DAY);
        let reached = prices.on(day).entry(entry.provider.trim_matches('*'), &model).unwrap();
        assert!(std::ptr::eq(reached, entry) || entry.provider == "echo", "{} is shadowed", entry.model);
    }
}

#[test]
fn what_is_cached_for_an_hour_costs_twice_the_input_unless_the_list_says_otherwise() {
    let hour = |cache_write, hour| Usage { cache_write_1h: Some(hour), ..usage(0, 0, 0, cache_write) };
    let shipped = PriceList::shipped().unwrap();
    let price = |usage| shipped.on(DAY).price("anthropic", "claude-opus-5-5", &usage);
    assert_eq!(price(hour(1_000_000, 0)), Some(5_000_000));
    assert_eq!(price(hour(1_000_000, 1_000_000)), Some(8_000_000));
    assert_eq!(price(hour(1_000_000, 400_000)), Some(3_000_000 + 3_200_000));
    let own = list(&entry("m", 1_000_000).replace('}', r#","cache_write_1h":7000000}"#)).unwrap();
    assert_eq!(own.on(DAY).price("p", "m", &hour(1_000_000, 1_000_000)), Some(7_000_000));
}

#[test]
fn a_long_prompt_costs_its_own_rates_for_the_whole_call() {
    let prices = PriceList::shipped().unwrap();
    let price = |usage: Usage| prices.on(DAY).price("anthropic", "claude-haiku-5-5", &usage);
    assert_eq!(price(usage(60_000, 1_000, 40_000, 0)), Some(6_000 + 500 + 400));
    assert_eq!(price(usage(60_001, 1_000, 40_000, 0)), Some(30_001 + 2_500 + 2_000));
}

#[test]
fn a_request_of_a_batch_costs_half_where_the_list_says_so_and_is_rounded_once() {
    let prices = PriceList::shipped().unwrap();
    let batch = |provider, model, usage| prices.on(DAY).entry(provider, model).unwrap().in_batch(&usage);
    // 1,234 x 4 + 567 x 20 + 80,000 x 0.20 + 5,000 x 5 = 57,276 in microdollars, and half of it.
    assert_eq!(batch("anthropic", "claude-opus-5-5", usage(1_234, 567, 80_000, 5_000)), Some(28_638));
    // A long prompt: 200,001 x 6 + 1,000 x 22.50 = 1,222,506.
    assert_eq!(batch("anthropic", "claude-sonnet-4-5", usage(200_001, 1_000, 0, 0)), Some(611_253));
    // Half of 7 x 0.1 + 1 x 0.5 = 1.2 is 0.6.
    assert_eq!(batch("anthropic", "claude-haiku-5-5", usage(7, 1, 0, 0)), Some(1));
    assert_eq!(batch("openai", "gpt-5", usage(8, 11, 0, 0)), Some(120));
    let own = list(&entry("m", 1_000_000).replace('}', r#","batch_percent":30}"#)).unwrap();
    assert_eq!(own.on(DAY).entry("p", "m").unwrap().in_batch(&usage(10, 0, 0, 0)), Some(3));
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
        assert_eq!(prices.on(DAY).price(provider, model, &usage), Some(microdollars), "{provider} {model}");
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
    let price = |tokens| several.on(DAY).price("p", "m", &usage(tokens, 0, 0, 0));
    assert_eq!([price(10), price(11), price(20), price(21)], [10, 22, 40, 63].map(Some));
    let one = with(&step(10, 2_000_000)).unwrap();
    assert_eq!(one.on(DAY).price("p", "m", &usage(11, 0, 0, 0)), Some(22));
    for made in [&one, &several] {
        let text = serde_json::to_string(made).unwrap();
        assert_eq!(PriceList::parse(&text).unwrap(), *made, "{text}");
    }
    for steps in [format!("[{},{}]", step(20, 1), step(10, 1)), format!("[{},{}]", step(10, 1), step(10, 1))]
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
        assert!(prices.on(DAY).entry(provider, model).is_some(), "{provider} {model}");
    }
}

#[test]
fn an_unknown_model_has_no_price_and_unknown_usage_costs_nothing_known() {
    let prices = list(&entry("m", 1)).unwrap();
    assert_eq!(prices.on(DAY).price("p", "n", &usage(1, 1, 1, 1)), None);
    assert_eq!(prices.on(DAY).price("q", "m", &usage(1, 1, 1, 1)), None);
    assert_eq!(prices.on(DAY).price("p", "m", &Usage::default()), None);
    assert_eq!(prices.on(DAY).price("p", "m", &Usage { input: Some(0), ..Usage::default() }), Some(0));
}

#[test]
fn a_fraction_of_a_microdollar_is_rounded_up_once() {
    let prices = list(&entry("m", 1)).unwrap();
    assert_eq!(prices.on(DAY).price("p", "m", &usage(1, 1, 1, 1)), Some(1));
    assert_eq!(prices.on(DAY).price("p", "m", &usage(1_000_000, 0, 0, 0)), Some(1));
    assert_eq!(prices.on(DAY).price("p", "m", &usage(1_000_000, 0, 0, 1)), Some(2));
}

#[test]
fn a_sum_that_does_not_fit_is_no_price() {
    let prices = list(&entry("m", 9_007_199_254_740_991)).unwrap();
    assert_eq!(prices.on(DAY).price("p", "m", &usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX)), None);
}

#[test]
fn the_first_entry_that_matches_counts() {
    let prices = list(&format!("{},{}", entry("a-*", 1_000_000), entry("*", 2_000_000))).unwrap();
    assert_eq!(prices.on(DAY).price("p", "a-1", &usage(1, 0, 0, 0)), Some(1));
    assert_eq!(prices.on(DAY).price("p", "b", &usage(1, 0, 0, 0)), Some(2));
}

fn dated(model: &str, from: &str, rate: u64) -> String {
    entry(model, rate).replace("\"input\"", &format!("\"from\":\"{from}\",\"input\""))
}

#[test]
fn a_price_counts_from_its_day_on_and_the_one_before_it_until_then() {
    let december = r#"{"provider":"*","model":"m*","from":"2026-12-01","input":3000000,"output":12000000,"cache_read":300000,"cache_write":3000000,"batch_percent":50}"#;
    let before = r#"{"provider":"*","model":"m*","input":2000000,"output":10000000,"cache_read":100000,"cache_write":2000000,"batch_percent":50}"#;
    let prices = list(&format!("{december},{before}")).unwrap();
    // 1,000 x 2 + 100 x 10 + 500 x 0.10 = 3,050; from December 1,000 x 3 + 100 x 12 + 500 x 0.30 = 4,350.
    let usage = usage(1_000, 100, 500, 0);
    for (day, whole, half) in [
        (date!(1970 - 01 - 01), 3_050, 1_525),
        (date!(2026 - 11 - 30), 3_050, 1_525),
        (date!(2026 - 12 - 01), 4_350, 2_175),
        (date!(2030 - 01 - 01), 4_350, 2_175),
    ] {
        let on = prices.on(day);
        let batch = on.entry("p", "m1").and_then(|price| price.in_batch(&usage));
        assert_eq!((on.price("p", "m1", &usage), batch), (Some(whole), Some(half)), "{day}");
    }
    let text = serde_json::to_string(&prices).unwrap();
    assert_eq!(PriceList::parse(&text).unwrap(), prices, "{text}");
}

#[test]
fn an_entry_that_has_not_begun_hides_none_and_a_model_that_has_no_other_has_no_price_yet() {
    let prices = list(&format!("{},{}", dated("m", "2027-01-01", 9), entry("*", 1))).unwrap();
    let of = |day: Date| prices.on(day).entry("p", "m").unwrap().input;
    assert_eq!([of(date!(2026 - 12 - 31)), of(date!(2027 - 01 - 01))], [1, 9]);
    let alone = list(&dated("m", "2027-01-01", 9)).unwrap();
    assert!(alone.on(date!(2026 - 12 - 31)).entry("p", "m").is_none() && alone.lists("p", "m"));
    assert!(!alone.lists("p", "n"));
    let three = [dated("m", "2027-02-01", 3), dated("m", "2027-01-01", 2), entry("m", 1)].join(",");
    let three = list(&three).unwrap();
    let of = |day: Date| three.on(day).entry("p", "m").unwrap().input;
    assert_eq!([date!(2026 - 12 - 31), date!(2027 - 01 - 31), date!(2027 - 02 - 01)].map(of), [1, 2, 3]);
}

#[test]
fn days_that_no_calendar_has_and_entries_that_never_count_are_refused() {
    for day in [
        "",
        "2026-13-01",
        "2026-02-29",
        "2026-12-1",
        "26-12-01",
        "+026-12-01",
        "2026-12-01-",
        "2026-12-01T00:00:00Z",
        "1.12.2026",
    ] {
        let error = list(&dated("m", day, 1)).unwrap_err();
        let CostError::Malformed(cause) = &error else { panic!("{day}: {error}") };
        let cause = std::error::Error::source(cause).map_or_else(|| cause.to_string(), ToString::to_string);
        assert!(cause.contains("no day of the form 2026-12-01"), "{day}: {cause}");
    }
    assert!(list(&dated("m", "2028-02-29", 1)).is_ok());
    for (first, second) in [
        (dated("m", "2026-12-01", 1), dated("m", "2026-12-01", 2)),
        (dated("m", "2026-12-01", 1), dated("m", "2027-01-01", 2)),
        (entry("m", 1), dated("m", "2026-12-01", 2)),
    ] {
        let twice = list(&format!("{first},{second}")).unwrap_err();
        assert!(matches!(twice, CostError::Twice(1)), "{twice}");
    }
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
        let less = prices.on(DAY).price("p", "m", &usage(tokens, 0, 0, 0)).unwrap();
        let later = prices.on(DAY).price("p", "m", &usage(tokens + more, 0, 0, 0)).unwrap();
        prop_assert!(later >= less);
    }
}
