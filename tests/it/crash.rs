//! SIGKILL under load: what a client was told happened has its row, exactly one, and what was under way is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Fault, Script};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::json;

use crate::ask;

fn rounds() -> usize {
    if crate::soak() { 200 } else { 4 }
}

/// Calls without a pause until told to stop; the traces of complete answers.
async fn caller(app: Arc<TestApp>, number: usize, stop: Arc<AtomicBool>, told: Arc<Mutex<Vec<String>>>) {
    let client = app.client();
    let bearer = format!("Bearer {}", app.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut body = ask(["claude-sonnet-4-5", "gpt-5", "echo"][number % 3], "Hello");
    body["stream"] = json!(number.is_multiple_of(2));
    let body = Bytes::from(body.to_string());
    while !stop.load(Ordering::Relaxed) {
        let Ok(reply) = client.try_send("POST", "/v1/messages", &headers, body.clone()).await else { return };
        let ended = reply.header("content-type").is_some_and(|m| m.starts_with("application/json"))
            || String::from_utf8_lossy(&reply.body).contains("event: message_stop");
        if reply.status == 200 && reply.complete && ended {
            told.lock().unwrap().push(reply.header("x-trace-id").unwrap().to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_load_loses_no_row_and_doubles_none() {
    let app = Arc::new(TestApp::start().await);
    // The calls that hang are under way at each kill; the others are wherever they are.
    let hanging = Arc::new(AtomicUsize::new(0));
    let hung = Arc::clone(&hanging);
    app.upstream.choose(move |seen| {
        if seen.json()["model"] == "claude-hang" {
            hung.fetch_add(1, Ordering::Relaxed);
            return Script::Fault(Fault::HeaderHang);
        }
        Script::Chunks(20, Duration::from_millis(1))
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    for round in 0..rounds() {
        let stop = Arc::new(AtomicBool::new(false));
        let before = told.lock().unwrap().len();
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..8 {
            callers.spawn(caller(Arc::clone(&app), number, Arc::clone(&stop), Arc::clone(&told)));
        }
        // Another moment each round: after so many answers.
        until_true("calls are answered", Duration::from_secs(30), || {
            told.lock().unwrap().len() >= before + 10 + round % 37
        })
        .await;
        let (client, bearer) = (app.client(), format!("Bearer {}", app.token));
        callers.spawn(async move {
            let body = ask("claude-hang", "Hello").to_string();
            let answer =
                client.try_send("POST", "/v1/messages", &[("authorization", &bearer)], body.into()).await;
            assert!(answer.is_err(), "nobody answers: {answer:?}");
        });
        until_true("one call is certainly under way", Duration::from_secs(30), || {
            hanging.load(Ordering::Relaxed) > round
        })
        .await;
        app.kill();
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
        let began = Instant::now();
        app.launch().await;
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let told = told.lock().unwrap().clone();
    let started = Instant::now();
    let counts = until("every answered call has its row", Duration::from_secs(20), || {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for row in app.audit_rows().iter().filter(|row| row["kind"] == "inference") {
            *counts.entry(row["trace_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        std::future::ready(told.iter().all(|trace| counts.contains_key(trace)).then_some(counts))
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(counts.values().all(|count| *count == 1), "a call has two rows: {counts:?}");
    // What was under way at a kill is closed as interrupted: an upstream that was called has a row.
    let rows = app.audit_rows();
    let interrupted = rows.iter().filter(|row| row.to_string().contains("interrupted")).count();
    assert!(interrupted >= rounds(), "{interrupted} of {} calls that certainly were under way", rounds());
    // The rows of `echo`, which has no upstream, cannot stand for a call that has none.
    let upstream = rows.iter().filter(|row| row["kind"] == "inference" && row["model"] != "echo").count();
    assert!(
        app.upstream.seen() <= upstream,
        "the upstream saw {} calls, {upstream} have rows",
        app.upstream.seen()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_kill_interrupted_is_closed_right_after_the_restart() {
    let app = Arc::new(TestApp::start().await);
    app.upstream.script(Script::Fault(Fault::HeaderHang));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = app.client();
        let bearer = format!("Bearer {}", app.token);
        calls.spawn(async move {
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let body = ask("claude-sonnet-4-5", "Hello").to_string();
            client.try_send("POST", "/v1/messages", &headers, body.into()).await.is_err()
        });
    }
    until_true("all of them are upstream", SOON, || app.upstream.busy_sockets() == 8).await;
    app.kill();
    assert!(calls.join_all().await.into_iter().all(|broke| broke), "nobody was answered");
    app.launch().await;
    let began = Instant::now();
    let rows = until("each of them has its row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["kind"] == "inference");
        std::future::ready((rows.len() == 8).then_some(rows))
    })
    .await;
    let took = began.elapsed();
    for row in rows {
        assert_eq!(row["outcome"], "error", "{row}");
        assert!(row.to_string().contains("interrupted"), "{row}");
    }
    crate::tell(&format!(
        "calls that a kill interrupted had their rows {took:?} after the gateway was ready"
    ));
    if crate::soak() {
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
