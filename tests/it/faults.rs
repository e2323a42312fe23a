//! The upstream fault matrix: whatever the upstream does, the client is told in its own language, once, and nothing leaks.

mod secure;
mod vendors;

use std::time::{Duration, Instant};

use sallyport_tests::client::{Reply, assert_legal};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Fault, Script, Upstream, WITHOUT_AN_ANSWER_OF_THEIR_OWN};
use sallyport_tests::wait::{SOON, until_true, within};
use serde_json::json;

use crate::ask;

/// The kinds of error that clients know.
const TYPES: [&str; 10] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
];

/// What the client may be shown: a whole answer, an error, or a stream that ends in one `error`. A stream that is handed
/// through byte for byte may break where the upstream's broke, but must then say so.
fn assert_told(what: &str, reply: &Reply) {
    if reply.status >= 400 {
        assert!(TYPES.contains(&reply.error_type().as_str()), "{what}: {reply}");
        return;
    }
    assert_eq!(reply.status, 200, "{what}: {reply}");
    assert!(reply.complete, "{what}: the connection broke without a word: {reply}");
    if reply.header("content-type").is_some_and(|media| media.starts_with("text/event-stream")) {
        let events = reply.events();
        let errors = events.iter().filter(|event| event.name == "error").count();
        if errors == 0 {
            assert!(
                events.iter().any(|event| event.name == "message_stop"),
                "{what}: neither an end nor an error: {reply}"
            );
        } else {
            assert_eq!(errors, 1, "{what}: {reply}");
            let last = events.iter().rfind(|event| event.name == "error").unwrap().json();
            assert!(TYPES.contains(&last["error"]["type"].as_str().unwrap_or_default()), "{what}: {last}");
        }
    } else {
        assert_eq!(reply.json()["type"], "message", "{what}: {reply}");
    }
}

/// What a status of another wire is told as: Anthropic's statuses of the same meaning, and the types that belong to them.
fn in_anthropics_words(status: u16) -> (u16, &'static str) {
    match status {
        404 => (404, "not_found_error"),
        408 => (504, "timeout_error"),
        413 => (413, "request_too_large"),
        422 => (400, "invalid_request_error"),
        429 => (429, "rate_limit_error"),
        503 | 529 => (529, "overloaded_error"),
        500 | 502 => (status, "api_error"),
        _ => panic!("no row of the matrix"),
    }
}

async fn matrix(model: &str) {
    let app = TestApp::start().await;
    for fault in WITHOUT_AN_ANSWER_OF_THEIR_OWN {
        for stream in [false, true] {
            let what = format!("{model} {fault:?} stream={stream}");
            app.upstream.script(Script::Fault(*fault));
            let mut body = ask(model, "Hello");
            body["stream"] = json!(stream);
            let reply = within(&what, Duration::from_mins(1), app.messages(body)).await;
            assert_told(&what, &reply);
            if let Fault::Status(401 | 403) = fault {
                // The operator's credential, and nothing that the client could mend by logging in again.
                assert_eq!(reply.status, 502, "{what}: {reply}");
                assert_eq!(reply.header("x-should-retry"), Some("false"), "{what}: {reply}");
                assert!(
                    reply.to_string().contains("the gateway's credential was refused"),
                    "{what}: {reply}"
                );
                let ready = app.get("/ready").await;
                assert_eq!(
                    (ready.status, ready.json()["status"].clone()),
                    (200, json!("degraded")),
                    "{what}"
                );
                assert!(app.log().contains("the upstream refuses the gateway's credential"), "{what}");
            } else if let (Fault::Status(status), "claude-sonnet-4-5") = (fault, model) {
                assert_eq!(reply.status, *status, "{what}: the upstream's status is the client's");
            } else if let (Fault::Status(status), "gpt-5") = (fault, model) {
                let told = in_anthropics_words(*status);
                assert_eq!((reply.status, reply.error_type().as_str()), told, "{what}: {reply}");
                let after = matches!(status, 429 | 503).then_some("7");
                assert_eq!(reply.header("retry-after"), after, "{what}: {reply}");
            }
            if *fault == Fault::Pings && stream {
                assert_legal(&reply.events());
            }
            let row = app.row_of(&reply).await;
            let good = reply.status == 200 && !String::from_utf8_lossy(&reply.body).contains("event: error");
            if let Some(owed) = fault.owes_answer(model.starts_with("gpt"), stream) {
                assert_eq!(good, owed, "{what}: {reply}");
            }
            if good {
                assert!(reply.text().contains("a piece of text, h\u{fc}bsch"), "{what}: {reply}");
                assert!(String::from_utf8_lossy(&reply.body).contains("toolu_01Fault"), "{what}: {reply}");
            }
            assert_eq!(row["outcome"], if good { "allowed" } else { "error" }, "{what}: {row}");
            assert_eq!(row["payload"]["code"].is_string(), !good, "{what}: an error has its reason: {row}");
            if fault.says_its_input() && stream && model.starts_with("claude") {
                assert_eq!(row["tokens_in"], 12, "{what}: what was counted until then is kept: {row}");
            }
            assert!(app.is_up(), "{what}: the gateway died");
            until_true(&what, SOON, || app.upstream.busy_sockets() == 0).await;
        }
    }
    app.upstream.script(Script::default());
    assert_eq!(app.messages(ask(model, "Hello")).await.status, 200, "after all that it still serves");
    assert_eq!(
        app.get("/ready").await.json()["refused_credentials"],
        json!([]),
        "and its credential is taken"
    );
    assert!(app.upstream.open_sockets() <= 4, "{} sockets leaked", app.upstream.open_sockets());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_an_anthropic_upstream_is_told_in_anthropics_words() {
    matrix("claude-sonnet-4-5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_an_openai_upstream_is_told_in_anthropics_words() {
    matrix("gpt-5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_is_an_error_that_names_no_address() {
    let app = TestApp::with(|config| {
        config
            .route(json!({"model_pattern": "claude-refused", "provider": "anthropic", "endpoint": "http://127.0.0.1:9", "api_key_secret": "upstream"}))
            .route(json!({"model_pattern": "claude-nowhere", "provider": "anthropic", "endpoint": "http://no-such-host.invalid", "api_key_secret": "upstream"}))
            .route(json!({"model_pattern": "gpt-refused", "provider": "openai", "endpoint": "http://127.0.0.1:9/v1/chat/completions", "api_key_secret": "upstream"}))
    })
    .await;
    for model in ["claude-refused", "claude-nowhere", "gpt-refused"] {
        let reply = app.messages(ask(model, "Hello")).await;
        assert!(matches!(reply.status, 502..=504 | 529), "{model}: {reply}");
        assert_told(model, &reply);
        assert!(
            !reply.to_string().contains("127.0.0.1") && !reply.to_string().contains("no-such-host"),
            "{reply}"
        );
        assert_eq!(app.row_of(&reply).await["outcome"], "error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_tls_is_not_talked_to_in_the_clear() {
    let app = TestApp::start().await;
    let secure = app.upstream.url().replace("http://", "https://");
    app.reload(|config| {
        config.route(json!({"model_pattern": "claude-tls", "provider": "anthropic", "endpoint": secure, "api_key_secret": "upstream"}))
    });
    sallyport_tests::wait::until("the route is there", SOON, || async {
        let reply = app.messages(ask("claude-tls", "Hello")).await;
        (reply.status != 200).then_some(())
    })
    .await;
    app.upstream.forget();
    assert_told("TLS", &app.messages(ask("claude-tls", "Hello")).await);
    assert_eq!(app.upstream.seen(), 0);
}

/// Routes that wait for a moment where the usual ones wait for minutes.
async fn impatient() -> TestApp {
    let upstream = Upstream::start();
    let url = upstream.url();
    let timeouts = json!({"first_byte_ms": 400, "idle_ms": 400});
    TestApp::on(upstream, |config| {
        config
            .route(json!({"model_pattern": "claude-renamed", "provider": "anthropic", "endpoint": url, "timeouts": timeouts}))
            .route(json!({"model_pattern": "gpt-refused", "provider": "openai", "endpoint": format!("{url}/v1/chat/completions"), "timeouts": timeouts}))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_never_answers_is_an_error_when_its_time_is_over() {
    let app = impatient().await;
    app.upstream.script(Script::Fault(Fault::HeaderHang));
    for model in ["claude-renamed", "gpt-refused"] {
        for stream in [false, true] {
            let mut body = ask(model, "Hello");
            body["stream"] = json!(stream);
            let began = Instant::now();
            let reply = app.messages(body).await;
            assert!(began.elapsed() >= Duration::from_millis(400), "{model}: it was given its time");
            assert_eq!(
                (reply.status, reply.error_type().as_str()),
                (504, "timeout_error"),
                "{model}: {reply}"
            );
            let row = app.row_of(&reply).await;
            assert_eq!(row["outcome"], "error", "{row}");
            assert!(row["payload"]["code"].is_string() && row["payload"]["reason"].is_string(), "{row}");
            until_true("the upstream is let go", SOON, || app.upstream.busy_sockets() == 0).await;
        }
    }
    assert!(app.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_stream_and_pings_keep_it_alive_however_long() {
    let app = impatient().await;
    // What the upstream had counted until then, or the estimate that the stream began with where it counts at the end.
    for (model, counted) in [("claude-renamed", json!(12)), ("gpt-refused", json!(16))] {
        app.upstream.script(Script::Fault(Fault::SilentMidStream));
        let mut body = ask(model, "Hello");
        body["stream"] = json!(true);
        let reply = app.messages(body.clone()).await;
        assert_told(model, &reply);
        assert_eq!(reply.events().last().map(|event| event.name.as_str()), Some("error"), "{model}: {reply}");
        let row = app.row_of(&reply).await;
        assert_eq!((&row["outcome"], &row["tokens_in"]), (&json!("error"), &counted), "{model}: {row}");
        until_true("the upstream is let go", SOON, || app.upstream.busy_sockets() == 0).await;

        // A second of pings, more than twice the patience.
        app.upstream.script(Script::Fault(Fault::Pings));
        let reply = app.messages(body).await;
        assert_eq!(reply.status, 200, "{model}: {reply}");
        assert_legal(&reply.events());
        assert_eq!(app.row_of(&reply).await["outcome"], "allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_nothing_is_let_go_when_the_client_goes() {
    let app = TestApp::start().await;
    app.upstream.script(Script::Fault(Fault::HeaderHang));
    for model in ["claude-sonnet-4-5", "gpt-5"] {
        let call = tokio::time::timeout(Duration::from_millis(300), app.messages(ask(model, "Hello"))).await;
        assert!(call.is_err(), "nothing was said, so nothing can be answered");
        until_true("the upstream is let go", SOON, || app.upstream.busy_sockets() == 0).await;
    }
    assert!(app.is_up());
}
