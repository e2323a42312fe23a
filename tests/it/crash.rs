//! SIGKILL under load: what a client was told happened has its row, exactly one, and what was under way is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Fault, Script, Seen};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::json;
use tokio::task::JoinSet;

use crate::ask;

fn rounds() -> usize {
    if crate::soak() { 200 } else { 4 }
}

/// A trace of the story's own: the client names it in a header, and the body repeats it, so that the upstream can say of which
/// traces it was asked.
fn trace(number: u64) -> String {
    format!("t_{number:032x}")
}

fn trace_in(seen: &Seen) -> String {
    let text = seen.json()["messages"][0]["content"].to_string();
    let at = text.find("t_").unwrap();
    text.get(at..at + 34).unwrap().to_owned()
}

/// What the callers know.
#[derive(Default)]
struct Told {
    next: AtomicU64,
    /// Traces of answers that came to their end: all of a JSON body, or `message_stop`.
    ended: Mutex<Vec<String>>,
}

/// Calls without a pause until told to stop or cut off.
async fn caller(app: Arc<TestApp>, number: usize, stop: Arc<AtomicBool>, told: Arc<Told>) {
    let client = app.client();
    let bearer = format!("Bearer {}", app.token);
    let model = ["claude-sonnet-4-5", "gpt-5", "echo"][number % 3];
    while !stop.load(Ordering::Relaxed) {
        let trace = trace(told.next.fetch_add(1, Ordering::Relaxed));
        let mut body = ask(model, &trace);
        body["stream"] = json!(number.is_multiple_of(2));
        let headers = [("authorization", bearer.as_str()), ("x-trace-id", trace.as_str())];
        let body = Bytes::from(body.to_string());
        // The last event counts when it is read, also where the connection breaks right behind it.
        let Ok(mut stream) = client.try_open("POST", "/v1/messages", &headers, body).await else { return };
        if stream.status != 200 {
            let reply = stream.whole().await;
            panic!("a call failed while the gateway ran: {reply}");
        }
        assert_eq!(stream.headers["x-trace-id"], trace.as_str());
        let is_stream = stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream");
        let ended = if is_stream {
            loop {
                match stream.next().await {
                    Ok(Some(event)) if event.name == "message_stop" => break true,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break false,
                }
            }
        } else {
            stream.whole().await.complete
        };
        if !ended {
            return;
        }
        told.ended.lock().unwrap().push(trace);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_load_loses_no_row_and_doubles_none() {
    let app = Arc::new(TestApp::start().await);
    let asked: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    // The calls that hang are under way at each kill; the others are wherever they are.
    let hanging: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (noted, hung) = (Arc::clone(&asked), Arc::clone(&hanging));
    app.upstream.choose(move |seen| {
        noted.lock().unwrap().insert(trace_in(seen));
        if seen.json()["model"] == "claude-hang" {
            hung.lock().unwrap().insert(trace_in(seen));
            return Script::Fault(Fault::HeaderHang);
        }
        if seen.json()["stream"] == true {
            Script::Chunks(20, Duration::from_millis(1))
        } else {
            Script::default()
        }
    });
    let told = Arc::new(Told::default());
    let ended = || told.ended.lock().unwrap().len();
    for round in 0..rounds() {
        let stop = Arc::new(AtomicBool::new(false));
        let before = ended();
        let mut callers = JoinSet::new();
        for number in 0..8 {
            callers.spawn(caller(Arc::clone(&app), number, Arc::clone(&stop), Arc::clone(&told)));
        }
        // Another moment each round: after so many answers.
        until_true("calls are answered", Duration::from_secs(30), || ended() >= before + 10 + round % 37)
            .await;
        let (client, bearer) = (app.client(), format!("Bearer {}", app.token));
        let trace = trace(told.next.fetch_add(1, Ordering::Relaxed));
        callers.spawn(async move {
            let body = ask("claude-hang", &trace).to_string();
            let headers = [("authorization", bearer.as_str()), ("x-trace-id", trace.as_str())];
            let answer = client.try_send("POST", "/v1/messages", &headers, body.into()).await;
            assert!(answer.is_err(), "nobody answers: {answer:?}");
        });
        until_true("one call is certainly under way", Duration::from_secs(30), || {
            hanging.lock().unwrap().len() > round
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
    // What is delivered before the process is gone is all that there is: nothing comes later.
    app.stop();
    let mut outcomes: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for row in app.audit_rows().iter().filter(|row| row["kind"] == "inference") {
        let interrupted = row["payload"]["reason"] == "interrupted";
        let outcome = (row["outcome"].as_str().unwrap().to_owned(), interrupted);
        outcomes.entry(row["trace_id"].as_str().unwrap().to_owned()).or_default().push(outcome);
    }
    let served = vec![("allowed".to_owned(), false)];
    let interrupted = vec![("error".to_owned(), true)];
    for (trace, outcomes) in &outcomes {
        // Where the answer broke at the kill, or its end was on the way to the client.
        assert!([&served, &interrupted].contains(&outcomes), "{trace}: {outcomes:?}");
    }
    for trace in told.ended.lock().unwrap().iter() {
        assert_eq!(outcomes.get(trace), Some(&served), "{trace}: its client was told its end");
    }
    for trace in asked.lock().unwrap().iter() {
        assert!(outcomes.contains_key(trace), "{trace}: the upstream was asked, and no row tells of it");
    }
    for trace in hanging.lock().unwrap().iter() {
        assert_eq!(outcomes.get(trace), Some(&interrupted), "{trace} was under way at a kill");
    }
    app.launch().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_kill_interrupted_is_closed_right_after_the_restart() {
    let app = Arc::new(TestApp::start().await);
    app.upstream.script(Script::Fault(Fault::HeaderHang));
    let mut calls = JoinSet::new();
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
