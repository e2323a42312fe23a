//! How often a provider is called for one call of a client: once for a forwarder, and of a translator once for each read of the network,
//! however many events a read brings. And in which form its credential is sent, which it does not say.

use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Step, Turn, Upstream, openai_stream};
use serde_json::{Value, json};

use crate::ask;

/// How often the provider was called, which its part of the row says.
fn calls(row: &Value) -> u64 {
    let components = row["payload"]["components"].as_array().unwrap();
    components.iter().find_map(|component| component["calls"].as_u64()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarder_is_called_once_and_a_translator_once_more_for_a_whole_answer() {
    let app = TestApp::start().await;
    for (model, expected) in [("claude-sonnet-4-5", 1), ("echo", 1), ("gpt-4", 2)] {
        let reply = app.messages(ask(model, "Hello")).await;
        assert_eq!(reply.status, 200, "{model}: {reply}");
        assert_eq!(calls(&app.row_of(&reply).await), expected, "{model}");
    }
    let stream = app.messages_stream(ask("claude-sonnet-4-5", "Hello")).await.whole().await;
    assert_eq!(calls(&app.row_of(&stream).await), 1, "and a stream is forwarded without it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_translated_stream_costs_a_call_for_each_read_and_not_for_each_event() {
    let app = TestApp::start().await;
    let stream = openai_stream("gpt-4", &vec![Turn::Text("Hello. ".to_owned()); 200]);
    let events = stream.matches("data: ").count();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    app.upstream.next(Script::Steps(vec![Step::Write(format!("{head}{stream}").into()), Step::Close]));
    let reply = app.messages_stream(ask("gpt-4", "Hello")).await.whole().await;
    assert_eq!(reply.text(), "Hello. ".repeat(200));
    let calls = calls(&app.row_of(&reply).await);
    assert!(
        events > 200 && usize::try_from(calls).unwrap() * 20 < events,
        "{calls} calls for {events} events"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_sent_as_the_package_says_and_as_a_route_says_otherwise() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| {
        let route = json!({"model_pattern": "claude-sonnet-*", "provider": "anthropic", "endpoint": url,
            "api_key_secret": "upstream", "api_key_form": "bearer"});
        config.route(route)
    })
    .await;
    for (model, header, other) in [
        ("claude-opus-4-5", "x-api-key", "authorization"),
        ("claude-sonnet-4-5", "authorization", "x-api-key"),
        ("gpt-4", "authorization", "x-api-key"),
    ] {
        assert_eq!(app.messages(ask(model, "Hello")).await.status, 200, "{model}");
        let seen = app.upstream.last();
        let sent = seen.header(header).unwrap_or_default();
        assert_eq!(sent.starts_with("Bearer "), header == "authorization", "{model}");
        assert!(!sent.is_empty() && seen.header(other).is_none(), "{model}: {seen:?}");
    }
}
