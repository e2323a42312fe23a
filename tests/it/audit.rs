//! The audit: what a row holds, that traces join, that nothing is missing.

use std::collections::BTreeSet;

use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::Script;
use sallyport_tests::wait::{SOON, until};
use serde_json::json;

use crate::{ask, hello};

/// The columns of the table, in the order of the specification.
const COLUMNS: [&str; 17] = [
    "id",
    "occurred_at",
    "kind",
    "user_id",
    "session_id",
    "trace_id",
    "client_id",
    "tenant_id",
    "policy_ver",
    "call_source",
    "model",
    "provider",
    "tokens_in",
    "tokens_out",
    "cost_micro",
    "latency_ms",
    "outcome",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_leaves_a_row_with_every_column_and_its_price() {
    let app = TestApp::start().await;
    let reply = app.messages(hello()).await;
    let row = app.row_of(&reply).await;
    for column in COLUMNS {
        assert!(row.get(column).is_some(), "{column} is missing: {row}");
    }
    assert_eq!(
        (&row["model"], &row["provider"], &row["outcome"]),
        (&json!("claude-sonnet-4-5"), &json!("anthropic"), &json!("allowed"))
    );
    assert_eq!((&row["tokens_in"], &row["tokens_out"]), (&json!(12), &json!(7)));
    let rows = app.lineage(row["trace_id"].as_str().unwrap()).await;
    let costs: Vec<_> = rows.iter().filter_map(|row| row["cost_micro"].as_i64()).collect();
    assert!(
        // Per million $3 for 12 in, $15 for 7 out, $3.75 for 3 written to the cache, $0.30 for 5 read from it: $0.00015375.
        costs == [154],
        "the cost row alone carries the cost, so that sums are right: {rows:?}"
    );
    assert!(row["latency_ms"].as_i64().unwrap() < 30_000);
    assert!(
        row["payload"]["components"].as_array().unwrap().iter().any(|c| c["digest"].is_string()),
        "the provider decided too: {row}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_costs_what_the_model_costs_that_the_upstream_was_asked_for() {
    // The first price of the usual ones is that of `claude-renamed`, to which the route renames.
    let app = TestApp::with(|config| config.set("/prices/models/0/input", json!(30_000_000))).await;
    for stream in [false, true] {
        let mut body = ask("renamed-7", "Hello");
        body["stream"] = json!(stream);
        let reply = app.messages(body).await;
        let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
        let costs: Vec<_> = rows.iter().filter_map(|row| row["cost_micro"].as_i64()).collect();
        // Per million $30 for 12 in, $15 for 7 out, $3.75 for 3 written to the cache, $0.30 for 5 read from it: $0.00047775.
        assert_eq!(costs, [478], "stream {stream}: {rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_metered_like_a_reply_on_both_wires() {
    let app = TestApp::start().await;
    for (model, tokens_in) in [("claude-sonnet-4-5", 12), ("gpt-5", 12)] {
        for stream in [false, true] {
            let mut body = ask(model, "Hello");
            body["stream"] = json!(stream);
            let row = app.row_of(&app.messages(body).await).await;
            assert_eq!(
                (&row["tokens_in"], &row["tokens_out"]),
                (&json!(tokens_in), &json!(7)),
                "{model} {stream}: {row}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_calls_and_the_cost_are_rows_of_the_same_trace() {
    let app = TestApp::start().await;
    app.upstream.script(Script::tool_loop("Read", json!({"path": "/x"}), "Done."));
    let reply = app.messages(hello()).await;
    let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
    let kinds: BTreeSet<_> = rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert!(kinds.is_superset(&BTreeSet::from(["inference", "tool_call", "cost"])), "{kinds:?}");
    let tool = rows.iter().find(|row| row["kind"] == "tool_call").unwrap();
    assert_eq!(tool["payload"]["tool"], "Read", "{tool}");
    let lineage = app.cli_json(&["audit", "lineage", reply.header("x-trace-id").unwrap()]);
    assert!(lineage.to_string().matches("\"kind\"").count() >= rows.len(), "{lineage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_the_client_brings_is_the_trace_of_the_row() {
    let app = TestApp::start().await;
    let parent = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let reply = app.post("/v1/messages", &parent, hello().to_string()).await;
    assert_eq!(reply.header("x-trace-id"), Some("t_0af7651916cd43dd8448eb211c80319c"));
    app.row_of(&reply).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_a_siem_line_with_the_columns_of_the_table_and_no_sequence_is_missing() {
    let app = TestApp::start().await;
    for n in 0..20 {
        let model = if n % 3 == 0 { "claude-sonnet-4-5" } else { "echo" };
        assert_eq!(app.messages(ask(model, &format!("call {n}"))).await.status, 200);
    }
    app.post("/v1/messages", &[("authorization", "Bearer wrong")], "{}").await;
    let rows = until("all rows are drained", SOON, || {
        // What commands change has rows, and no gateway to pass them on.
        let mut rows = app.audit_rows();
        rows.retain(|row| row["replica"] != "command-line");
        let lines = app.siem_lines();
        let calls = rows.iter().filter(|row| row["kind"] == "inference").count();
        std::future::ready((calls == 20 && lines.len() >= rows.len()).then_some(rows))
    })
    .await;
    let lines = app.siem_lines();
    for line in &lines {
        for column in COLUMNS.iter().filter(|column| **column != "id") {
            assert!(line.get(*column).is_some(), "{column} is missing: {line}");
        }
    }
    for row in &rows {
        let line = lines.iter().find(|line| line["sequence"] == row["sequence"]).unwrap();
        for column in COLUMNS.iter().skip(1).chain(&["payload", "replica"]) {
            assert_eq!(line[*column], row[*column], "{column}: {line} {row}");
        }
    }
    let mut sequences: Vec<i64> = rows.iter().filter_map(|row| row["sequence"].as_i64()).collect();
    assert!(!sequences.is_empty(), "rows carry their sequence");
    sequences.sort_unstable();
    sequences.dedup();
    let (first, last) = (sequences[0], sequences[sequences.len() - 1]);
    assert_eq!(
        usize::try_from(last - first + 1).unwrap(),
        sequences.len(),
        "a sequence is missing: {sequences:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_not_in_the_clear() {
    let app = TestApp::start().await;
    let canary = "canary-7f3a-of-the-prompt";
    app.upstream.script(Script::text("canary-91bc-of-the-answer"));
    let row = app.row_of(&app.messages(ask("claude-sonnet-4-5", canary)).await).await;
    let siem = std::fs::read_to_string(app.home().join("siem.jsonl")).unwrap_or_default();
    for text in [row.to_string(), app.log(), siem] {
        assert!(!text.contains("canary-"), "{text}");
        assert!(!text.contains(&app.token) && !text.contains("sk-upstream-credential"));
    }
}
