//! Routing that survives failure: a call goes to the next target where one does not answer, nothing is asked twice that may have been
//! done, and an upstream that keeps failing is left alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use sallyport_tests::client::{Reply, assert_legal};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::{Fault, Script, Upstream};
use sallyport_tests::wait::{SOON, until, until_true, within};
use serde_json::{Value, json};

use crate::ask;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";
/// What the scripted answer costs at the prices of `claude-elsewhere`: 12 tokens in at 1 and 7 out at 2 microdollars.
const ELSEWHERE: i64 = 26;

/// One route to an upstream, with further targets and whatever else the story wants.
fn group(config: Config, primary: &str, secondary: &[&str], more: &Value) -> Config {
    let further = secondary.iter().map(|upstream| {
        json!({"provider": "anthropic", "endpoint": upstream, "api_key_secret": "upstream", "upstream_model": "claude-elsewhere"})
    });
    let mut route = json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": primary, "api_key_secret": "upstream",
        "secondary": further.collect::<Vec<_>>()});
    for (key, value) in more.as_object().into_iter().flatten() {
        route[key] = value.clone();
    }
    let price = json!({"provider": "*", "model": "claude-elsewhere", "input": 1_000_000, "output": 2_000_000, "cache_read": 0,
        "cache_write": 0});
    config.set("/gateway/routes", json!([route])).set("/prices/models", json!([price]))
}

/// Targets and ends of a row's attempts.
fn attempts(row: &Value) -> Vec<(&str, &str)> {
    let all = row["payload"]["attempts"].as_array().unwrap_or_else(|| panic!("no attempts: {row}"));
    all.iter().map(|it| (it["target"].as_str().unwrap(), it["end"].as_str().unwrap())).collect()
}

fn question(stream: bool) -> Value {
    let mut body = ask("claude-sonnet-4-5", "Hello");
    body["stream"] = json!(stream);
    body
}

fn assert_served(what: &str, reply: &Reply, stream: bool) {
    assert_eq!(reply.status, 200, "{what}: {reply}");
    assert_eq!(reply.text(), "Hello from upstream.", "{what}: {reply}");
    if stream {
        assert_legal(&reply.events());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_keeps_a_target_from_answering_the_next_one_is_asked_and_the_client_sees_none_of_it() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let patience = json!({"timeouts": {"first_byte_ms": 400, "idle_ms": 400}, "breaker": {"enabled": false}});
    let app = TestApp::on(primary, |config| group(config, &first, &[&url], &patience)).await;
    let status = |status| Script::Fault(Fault::Status(status));
    // Without a `retry-after`.
    let busy = |status| Script::error(status, "overloaded_error", "full");
    let faults = [
        (status(401), "credential"),
        (status(408), "failed"),
        (status(500), "failed"),
        (status(502), "failed"),
        (status(529), "busy"),
        (busy(429), "busy"),
        (busy(503), "busy"),
        (Script::Fault(Fault::HeaderHang), "timed_out"),
        (Script::Fault(Fault::Redirect), "unusable"),
        (Script::Fault(Fault::Html), "unusable"),
        (Script::Fault(Fault::ResetBeforeHead), "broke_off"),
        (Script::Fault(Fault::CutBeforeFirstByte), "unusable"),
    ];
    let count = 2 * faults.len();
    for (fault, end) in faults {
        for stream in [false, true] {
            let what = format!("{fault:?} stream={stream}");
            app.upstream.script(fault.clone());
            app.upstream.forget();
            secondary.forget();
            let reply = within(&what, SOON, app.messages(question(stream))).await;
            assert_served(&what, &reply, stream);
            assert!(reply.header("retry-after").is_none(), "{what}: another upstream's: {reply}");
            assert_eq!((app.upstream.seen(), secondary.seen()), (1, 1), "{what}: each is asked once");
            assert_eq!(secondary.last().json()["model"], "claude-elsewhere", "{what}");
            let row = app.row_of(&reply).await;
            assert_eq!(attempts(&row), [("primary", end), ("secondary[0]", "answered")], "{what}: {row}");
            assert_eq!(row["payload"]["attempts"][1]["cost_micro"], ELSEWHERE, "{what}: {row}");
            assert_eq!(row["payload"]["upstream_model"], "claude-elsewhere", "{what}: {row}");
            assert_eq!(row["outcome"], "allowed", "{what}: {row}");
        }
    }
    let rows = app.audit_rows();
    let costs: Vec<_> =
        rows.iter().filter(|row| row["kind"] == "cost").map(|row| &row["cost_micro"]).collect();
    assert_eq!(costs, vec![&json!(ELSEWHERE); count], "each call is paid for once");
    until_true("no upstream is kept busy", SOON, || {
        app.upstream.busy_sockets() + secondary.busy_sockets() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_provider_translates_is_passed_over_in_the_same_way() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let chat = format!("{}/v1/chat/completions", primary.url());
    let more = json!({"provider": "openai", "upstream_model": "claude-elsewhere", "timeouts": {"first_byte_ms": 400, "idle_ms": 400},
        "breaker": {"enabled": false}});
    let app = TestApp::on(primary, |config| group(config, &chat, &[&url], &more)).await;
    let faults = [
        (Script::Fault(Fault::Status(401)), "credential"),
        (Script::Fault(Fault::Status(500)), "failed"),
        (Script::error(429, "rate_limit_error", "full"), "busy"),
        (Script::error(503, "overloaded_error", "full"), "busy"),
        (Script::Fault(Fault::HeaderHang), "timed_out"),
        (Script::Fault(Fault::ResetBeforeHead), "broke_off"),
        (Script::Fault(Fault::CutBeforeFirstByte), "unusable"),
        (Script::Fault(Fault::Html), "unusable"),
    ];
    for (fault, end) in faults {
        for stream in [false, true] {
            let what = format!("{end} {fault:?} stream={stream}");
            app.upstream.script(fault.clone());
            app.upstream.forget();
            secondary.forget();
            let reply = within(&what, SOON, app.messages(question(stream))).await;
            assert_served(&what, &reply, stream);
            assert_eq!((app.upstream.seen(), secondary.seen()), (1, 1), "{what}: each is asked once");
            let row = app.row_of(&reply).await;
            let found = attempts(&row);
            assert_eq!(found[1], ("secondary[0]", "answered"), "{what}: {row}");
            // A body that broke off is told as what happened to the connection.
            assert!(found[0].1 == end || found[0].1 == "broke_off", "{what}: {row}");
            assert_eq!(row["provider"], "anthropic", "{what}: {row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_reached_is_passed_over_whatever_its_provider() {
    let upstream = Upstream::start();
    let url = upstream.url();
    for primary in [
        json!({"provider": "anthropic", "endpoint": NOWHERE}),
        json!({"provider": "anthropic", "endpoint": "http://no-such-host.invalid"}),
        json!({"provider": "openai", "endpoint": format!("{NOWHERE}/v1/chat/completions"), "upstream_model": "claude-elsewhere"}),
        json!({"provider": "acme/nobody", "upstream_model": "claude-elsewhere"}),
    ] {
        let app = TestApp::with(|config| group(config, NOWHERE, &[&url], &primary)).await;
        for stream in [false, true] {
            let reply = app.messages(question(stream)).await;
            assert_served(&primary.to_string(), &reply, stream);
            let row = app.row_of(&reply).await;
            let end = if primary["provider"] == "acme/nobody" { "provider" } else { "unreachable" };
            assert_eq!(attempts(&row), [("primary", end), ("secondary[0]", "answered")], "{row}");
            assert_eq!(row["provider"], "anthropic", "the one that answered: {row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_request_is_asked_of_nobody_else() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[&url], &json!({}))).await;
    for status in [404, 413, 422] {
        app.upstream.script(Script::Fault(Fault::Status(status)));
        for stream in [false, true] {
            let reply = app.messages(question(stream)).await;
            assert_eq!(reply.status, status, "{reply}");
            assert!(reply.to_string().contains("scripted"), "in the upstream's words: {reply}");
            let row = app.row_of(&reply).await;
            assert_eq!(attempts(&row), [("primary", "refused")], "{row}");
        }
    }
    assert_eq!(secondary.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_after_its_first_byte_is_asked_for_nowhere_else() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[&url], &json!({}))).await;
    for fault in [Fault::CutMidEvent, Fault::CutMidToolJson, Fault::CutBeforeStop, Fault::ResetMidStream] {
        app.upstream.script(Script::Fault(fault));
        app.upstream.forget();
        let reply = app.messages(question(true)).await;
        assert_eq!(reply.status, 200, "{fault:?}: {reply}");
        let errors = reply.events().iter().filter(|event| event.name == "error").count();
        assert_eq!(errors, 1, "{fault:?}: {reply}");
        assert_eq!((app.upstream.seen(), secondary.seen()), (1, 0), "{fault:?}");
        let row = app.row_of(&reply).await;
        assert_eq!(attempts(&row), [("primary", "answered")], "{fault:?}: {row}");
        assert_eq!(
            (&row["outcome"], &row["payload"]["code"]),
            (&json!("error"), &json!("upstream_answer")),
            "{row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_begins_with_an_error_has_not_begun() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[&url], &json!({}))).await;
    let full = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"full\"}}\n\n";
    let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    app.upstream.script(Script::Status(200, headers.clone(), Bytes::from(full)));
    let reply = app.messages(question(true)).await;
    assert_served("an error first", &reply, true);
    assert_eq!(attempts(&app.row_of(&reply).await)[0], ("primary", "failed"));
    // Where nobody else answers either, the client is told what the upstreams said.
    secondary.script(Script::Status(200, headers, Bytes::from(full)));
    let reply = app.messages(question(true)).await;
    assert_eq!((reply.status, reply.events().len()), (200, 1), "{reply}");
    assert!(reply.to_string().contains("\"full\""), "{reply}");
    assert_eq!(app.row_of(&reply).await["outcome"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_target_answers_the_client_is_told_what_the_last_one_said() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[&url], &json!({}))).await;
    app.upstream.script(Script::Fault(Fault::Status(500)));
    secondary.script(Script::Fault(Fault::Status(529)));
    for stream in [false, true] {
        let reply = app.messages(question(stream)).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (529, "overloaded_error"), "{reply}");
        let row = app.row_of(&reply).await;
        assert_eq!(attempts(&row), [("primary", "failed"), ("secondary[0]", "busy")], "{row}");
        assert_eq!(row["payload"]["attempts"][1]["status"], 529, "{row}");
        assert_eq!(
            (&row["outcome"], &row["payload"]["code"]),
            (&json!("error"), &json!("upstream_error")),
            "{row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_elsewhere_is_asked_only_where_predicate_and_policies_let_the_call_go_there() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let abroad = json!({"provider": "anthropic", "endpoint": url, "api_key_secret": "upstream", "region": "us",
        "upstream_model": "claude-elsewhere"});
    let predicate = json!({"region": "eu", "predicate": "sallyport/region", "predicate_config": {"default": "eu"},
        "secondary": [abroad]});
    let translated = json!({"secondary": [{"provider": "openai", "endpoint": format!("{url}/v1/chat/completions"),
        "api_key_secret": "upstream", "upstream_model": "claude-elsewhere"}]});
    let only = json!({"rules": [{"name": "home", "effect": "allow", "providers": ["anthropic"]}], "default": "deny"});
    let app = TestApp::on(primary, |config| group(config, &first, &[], &predicate)).await;
    app.upstream.script(Script::Fault(Fault::Status(500)));
    let reply = app.messages(question(false)).await;
    assert_eq!(reply.status, 500, "the data stays where it is: {reply}");
    let row = app.row_of(&reply).await;
    assert_eq!(attempts(&row), [("primary", "failed"), ("secondary[0]", "not_allowed")], "{row}");
    assert_eq!(row["provider"], "anthropic", "{row}");

    app.stop();
    app.change(|config| {
        group(config, &first, &[], &translated).no_components().component("sallyport/scope", only)
    });
    app.launch().await;
    let reply = app.messages(question(false)).await;
    assert_eq!(reply.status, 500, "{reply}");
    let row = app.row_of(&reply).await;
    assert_eq!(attempts(&row), [("primary", "failed"), ("secondary[0]", "not_allowed")], "{row}");
    assert_eq!(secondary.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_asked_again_only_where_it_did_not_take_the_request() {
    let retry = json!({"retry": {"attempts": 1, "max_wait_ms": 2000}, "breaker": {"enabled": false}});
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[], &retry)).await;
    let again = |status: u16, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let headers = headers.chain([("content-type".to_owned(), "application/json".to_owned())]).collect();
        Script::Status(
            status,
            headers,
            Bytes::from_static(b"{\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"m\"}}"),
        )
    };
    for (what, script, seen, ends) in [
        ("busy", again(529, &[]), 2, vec!["busy", "answered"]),
        ("busy for a moment", again(503, &[("retry-after-ms", "50")]), 2, vec!["busy", "answered"]),
        ("busy for a second", again(429, &[("retry-after", "1")]), 2, vec!["busy", "answered"]),
        ("busy for long", again(429, &[("retry-after", "60")]), 1, vec!["busy"]),
        ("failed", again(500, &[]), 1, vec!["failed"]),
        ("lost", Script::Fault(Fault::ResetBeforeHead), 1, vec!["broke_off"]),
    ] {
        app.upstream.forget();
        app.upstream.next(script);
        let reply = app.messages(question(false)).await;
        assert_eq!(app.upstream.seen(), seen, "{what}: {reply}");
        assert_eq!(reply.status == 200, seen == 2, "{what}: {reply}");
        let row = app.row_of(&reply).await;
        assert_eq!(attempts(&row).into_iter().map(|(_, end)| end).collect::<Vec<_>>(), ends, "{what}: {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_in_trouble_is_given_no_more_retries_than_its_budget() {
    let retry = json!({"retry": {"attempts": 5, "max_wait_ms": 2000, "budget_percent": 10}});
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[], &retry)).await;
    let headers = vec![("retry-after-ms".to_owned(), "1".to_owned())];
    app.upstream.script(Script::Status(529, headers, Bytes::from_static(b"{}")));
    for _ in 0..20 {
        assert_eq!(app.messages(question(false)).await.status, 529);
    }
    assert_eq!(app.upstream.seen(), 20 + 10 + 2, "one a call, ten that are free, and a tenth of twenty");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_keeps_failing_is_left_alone_until_one_call_finds_it_well() {
    let breaker = json!({"breaker": {"failures": 2, "open_ms": 3000}});
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[], &breaker)).await;
    app.upstream.script(Script::Fault(Fault::Status(500)));
    for _ in 0..2 {
        assert_eq!(app.messages(question(false)).await.status, 500, "the upstream's own words");
    }
    let reply = app.messages(question(true)).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (529, "overloaded_error"), "{reply}");
    assert_eq!(reply.header("x-sallyport-code"), Some("upstreams_unavailable"), "{reply}");
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&after), "{reply}");
    assert_eq!(app.upstream.seen(), 2, "nobody asked");
    let row = app.row_of(&reply).await;
    assert_eq!(attempts(&row), [("primary", "breaker_open")], "{row}");
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("error"), &json!("upstreams_unavailable")),
        "{row}"
    );
    let ready = app.get("/ready").await.json();
    assert_eq!(
        (&ready["status"], &ready["upstreams"][0]["breaker"]),
        (&json!("degraded"), &json!("open")),
        "{ready}"
    );
    assert_eq!(ready["upstreams"][0]["upstream"], first, "{ready}");
    let explain = ["route", "explain", "--model", "claude-sonnet-4-5", "--user", "admin"];
    let explained = app.cli_json(&explain);
    // Open, or open for the call that finds out: the time is the gateway's.
    let breaker = explained["routes"][0]["targets"][0]["breaker"].as_str().unwrap().to_owned();
    assert!(["open", "half_open"].contains(&breaker.as_str()), "{explained}");
    assert!(app.cli(&explain).contains("BREAKER"));

    app.upstream.script(Script::default());
    let served = until("it is asked again", SOON, || async {
        let reply = app.messages(question(false)).await;
        (reply.status == 200).then_some(reply)
    })
    .await;
    assert_eq!(attempts(&app.row_of(&served).await), [("primary", "answered")]);
    let ready = app.get("/ready").await.json();
    assert_eq!(
        (&ready["status"], &ready["upstreams"][0]["breaker"]),
        (&json!("ready"), &json!("closed")),
        "{ready}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn three_upstreams_of_which_one_flaps_fail_no_call_of_three_hundred_and_none_is_asked_twice_of_one() {
    let others = [Upstream::start(), Upstream::start()];
    let urls: Vec<String> = others.iter().map(Upstream::url).collect();
    let primary = Upstream::start();
    let first = primary.url();
    let count = AtomicUsize::new(0);
    primary.choose(move |_| match count.fetch_add(1, Ordering::SeqCst) % 8 {
        0 => Script::Fault(Fault::Status(500)),
        1 => Script::Fault(Fault::ResetBeforeHead),
        2 => Script::Fault(Fault::CutBeforeFirstByte),
        3 => Script::Fault(Fault::Status(529)),
        _ => Script::default(),
    });
    let breaker = json!({"breaker": {"failures": 4, "window_ms": 1000, "open_ms": 50}});
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let app = TestApp::on(primary, |config| group(config, &first, &urls, &breaker)).await;
    let calls = futures_util::stream::iter(0..300).map(|number| {
        let mut body = ask("claude-sonnet-4-5", &format!("call {number}"));
        body["stream"] = json!(number % 2 == 0);
        app.messages(body)
    });
    let replies: Vec<Reply> = calls.buffer_unordered(24).collect().await;
    for reply in &replies {
        assert_served("one of three hundred", reply, false);
    }
    for upstream in [&app.upstream, &others[0], &others[1]] {
        let mut bodies: HashMap<Bytes, usize> = HashMap::new();
        for seen in upstream.requests() {
            *bodies.entry(seen.body).or_default() += 1;
        }
        assert!(bodies.values().all(|count| *count == 1), "a request came twice");
    }
    assert!(app.upstream.seen() > 20, "it is asked while it is well: {}", app.upstream.seen());
    until_true("no socket is kept busy", SOON, || {
        app.upstream.busy_sockets() + others[0].busy_sockets() + others[1].busy_sockets() == 0
    })
    .await;
    app.stop();
    let rows = app.audit_rows();
    for kind in ["inference", "cost"] {
        let mut traces: HashMap<&str, usize> = HashMap::new();
        for row in rows.iter().filter(|row| row["kind"] == kind) {
            *traces.entry(row["trace_id"].as_str().unwrap()).or_default() += 1;
        }
        assert!(traces.len() == 300 && traces.values().all(|count| *count == 1), "{kind}: {}", traces.len());
    }
    // 153.75 microdollars at the prices of the model that was asked for, rounded up; 26 elsewhere.
    for row in rows.iter().filter(|row| row["kind"] == "inference") {
        let elsewhere = row["payload"]["upstream_model"] == "claude-elsewhere";
        let attempts = row["payload"]["attempts"].as_array().unwrap();
        assert_eq!(attempts.last().unwrap()["cost_micro"], if elsewhere { ELSEWHERE } else { 154 }, "{row}");
    }
    assert!(app.log().lines().all(|line| !line.contains("panicked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_asks_for_a_pause_is_asked_last_until_it_has_had_it() {
    let secondary = Upstream::start();
    let url = secondary.url();
    let primary = Upstream::start();
    let first = primary.url();
    let app = TestApp::on(primary, |config| group(config, &first, &[&url], &json!({}))).await;
    // For seven seconds.
    app.upstream.script(Script::Fault(Fault::Status(429)));
    for _ in 0..4 {
        assert_served("elsewhere", &app.messages(question(false)).await, false);
    }
    assert_eq!((app.upstream.seen(), secondary.seen()), (1, 4), "it is believed");
    // Better than nobody.
    secondary.script(Script::Fault(Fault::Status(500)));
    app.upstream.script(Script::default());
    let reply = app.messages(question(false)).await;
    assert_served("nobody else", &reply, false);
    let row = app.row_of(&reply).await;
    assert_eq!(attempts(&row), [("secondary[0]", "failed"), ("primary", "answered")], "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_come_about_in_time_is_given_up() {
    // A listener whose queue is full answers no connection.
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4096 {
        match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => break,
        }
    }
    let secondary = Upstream::start();
    let url = secondary.url();
    let silent = format!("http://{address}");
    let timeouts = json!({"timeouts": {"connect_ms": 300}});
    let app = TestApp::with(|config| group(config, &silent, &[&url], &timeouts)).await;
    let reply = within("it is given up", Duration::from_secs(8), app.messages(question(false))).await;
    assert_served("no connection", &reply, false);
    assert_eq!(attempts(&app.row_of(&reply).await)[0], ("primary", "unreachable"));
}
