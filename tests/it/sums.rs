//! Whatever a client or an upstream sends, the trail's sums are right: one row for each tool that the client was given a call of,
//! and each microdollar once. The oracle has nothing of the gateway's: it counts what the story itself made up.

use std::collections::BTreeMap;

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::generated::SplitMix;
use sallyport_tests::upstream::{Script, sse};
use serde_json::{Map, Value, json};

use crate::ask;

/// What the story's model costs, in microdollars per million tokens: input, output, read from the cache, written to it.
const RATES: [u128; 4] = [3_000_000, 15_000_000, 300_000, 3_750_000];
const NAMES: [&str; 4] =
    ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];

/// A reply that was made up, and what the trail has to say of it.
struct Made {
    script: Script,
    stream: bool,
    tools: usize,
    /// Tokens in the order of [`NAMES`]; nothing where nobody said.
    usage: [Option<u64>; 4],
}

fn count() -> u64 {
    if crate::soak() { 2_000 } else { 60 }
}

fn tokens(random: &mut SplitMix) -> Option<u64> {
    match random.next() % 6 {
        0 => None,
        1 => Some(0),
        2 | 3 => Some(random.next() % 100_000),
        4 => Some(random.next() % (1 << 31)),
        _ => Some(random.next() % 1_000_000_000_000),
    }
}

/// Names that models have made up, and worse ones.
fn name(random: &mut SplitMix) -> String {
    let odd = [
        "Bash",
        "mcp__jira__search",
        "mcp____",
        "",
        "\u{0}",
        "\u{1b}[31m\u{202e}",
        "\\\"'}],",
        "\u{1f9e8}",
        "tool_use",
        "message_stop",
    ];
    let name = odd[usize::try_from(random.next()).unwrap_or(0) % odd.len()];
    let times = [1, 1, 1, 3_000][usize::try_from(random.next()).unwrap_or(0) % 4];
    name.repeat(times)
}

fn usage_of(usage: &[Option<u64>; 4]) -> Map<String, Value> {
    NAMES.iter().zip(usage).filter_map(|(name, count)| Some(((*name).to_owned(), json!((*count)?)))).collect()
}

fn made(seed: u64) -> Made {
    let mut random = SplitMix(seed);
    let stream = random.next().is_multiple_of(2);
    let usage = [(); 4].map(|()| tokens(&mut random));
    let blocks: Vec<Value> = (0..random.next() % 12)
        .map(|number| match random.next() % 3 {
            0 => json!({"type": "text", "text": name(&mut random)}),
            1 => json!({"type": "news", "tool_use": name(&mut random)}),
            _ => json!({"type": "tool_use", "id": format!("toolu_{}", number % 5), "name": name(&mut random),
                "input": {"x": name(&mut random)}}),
        })
        .collect();
    let is_tool = |block: &&Value| block["type"] == "tool_use";
    let message = |content: &Value, usage: Map<String, Value>| {
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
            "content": content, "stop_reason": "tool_use", "stop_sequence": null, "usage": usage})
    };
    if !stream {
        let tools = blocks.iter().filter(is_tool).count();
        let body = message(&json!(blocks), usage_of(&usage)).to_string();
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        return Made { script: Script::Status(200, headers, body.into()), stream, tools, usage };
    }
    // The start counts the input, the end the output; it may come to no end.
    let [input, output, read, written] = usage;
    let start = message(&json!([]), usage_of(&[input, None, read, written]));
    let mut events = vec![json!({"type": "message_start", "message": start})];
    for (index, block) in blocks.iter().enumerate() {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
        "usage": usage_of(&[None, output, None, None])}));
    events.push(json!({"type": "message_stop"}));
    let most = u64::try_from(events.len()).unwrap();
    let sent = if random.next().is_multiple_of(3) { random.next() % most } else { most };
    events.truncate(usize::try_from(sent).unwrap());
    let has = |kind: &str| events.iter().any(|event| event["type"] == kind);
    let seen = |count: Option<u64>, kind: &str| count.filter(|_| has(kind));
    let usage = [
        seen(input, "message_start"),
        seen(output, "message_delta"),
        seen(read, "message_start"),
        seen(written, "message_start"),
    ];
    let tools = events.iter().filter(|event| event["content_block"]["type"] == "tool_use").count();
    let body: String = events.iter().map(sse).collect();
    let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    Made { script: Script::Status(200, headers, Bytes::from(body)), stream, tools, usage }
}

/// What it costs, rounded up once.
fn cost(usage: &[Option<u64>; 4]) -> Option<i64> {
    usage.iter().any(Option::is_some).then(|| {
        let sum: u128 =
            usage.iter().zip(RATES).map(|(count, rate)| u128::from(count.unwrap_or(0)) * rate).sum();
        i64::try_from(sum.div_ceil(1_000_000)).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_upstream_says_tool_calls_are_counted_and_each_microdollar_is_there_once() {
    let price = json!([{"provider": "*", "model": "claude-*", "input": 3_000_000, "output": 15_000_000,
        "cache_read": 300_000, "cache_write": 3_750_000}]);
    let app = TestApp::with(|config| config.set("/prices/models", price)).await;
    let mut expected = BTreeMap::new();
    for seed in 0..count() {
        let Made { script, stream, tools, usage } = made(seed);
        app.upstream.script(script);
        let mut body = ask("claude-sonnet-4-5", &format!("made up {seed}"));
        body["stream"] = json!(stream);
        let agent = format!("agent \\\"{}", "x".repeat(usize::try_from(seed % 7).unwrap() * 300));
        let reply = app.post("/v1/messages", &[("x-agent-name", &agent)], body.to_string()).await;
        let trace = reply.header("x-trace-id").unwrap().to_owned();
        expected.insert(trace, (seed, tools, cost(&usage)));
    }
    app.stop();
    let rows = app.audit_rows();
    for (trace, (seed, tools, cost)) in expected {
        let rows: Vec<_> = rows.iter().filter(|row| row["trace_id"] == trace.as_str()).collect();
        let of = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
        assert_eq!((of("inference"), of("tool_call")), (1, tools), "reply {seed}: {rows:?}");
        let costs: Vec<_> = rows.iter().filter_map(|row| row["cost_micro"].as_i64()).collect();
        assert_eq!(costs, Vec::from_iter(cost), "reply {seed}: {rows:?}");
    }
}
