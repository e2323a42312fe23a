//! Secrets in requests: formats of today, formats that an operator adds, and what a user is told of a refusal.

use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::ask;

/// Drawn, and put together here, so that nothing takes it for a live one.
const DRAWN: &str = "k7Qz2Xb9Lm4Np6Rs8Tv1Wy3Za5Bc7De9Fg0H";

async fn scanning(config: Value) -> TestApp {
    TestApp::with(|it| it.component("sallyport/secret-scan", config)).await
}

async fn refused(app: &TestApp, body: Value) -> String {
    let reply = app.messages(body).await;
    assert_eq!(reply.status, 451, "{reply}");
    reply.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_token_of_today_is_refused_wherever_it_stands() {
    let app = scanning(json!({})).await;
    let jwt = format!("eyJhbGciOiJFUzI1NiJ9.eyJpbnN0YWxsYXRpb24iOjEyMzQ1fQ.{DRAWN}{DRAWN}");
    for text in
        [format!("ghs_1234567_{jwt}"), format!("x_ghs_1234567_{jwt}y"), format!("token=ghs_1234567_{jwt}")]
    {
        let message = refused(&app, ask("claude-sonnet-4-5", &text)).await;
        assert!(message.contains("github_token"), "{message}");
    }
    let app = scanning(json!({"action": "deny"})).await;
    let message = refused(&app, ask("claude-sonnet-4-5", &format!("SESSION_{jwt}"))).await;
    assert!(message.contains("the rule jwt"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_come_from_a_file_that_a_reload_reads_again() {
    let app = TestApp::start().await;
    let write = |prefix: &str| {
        let formats = format!(
            "more_formats:\n  - {{ rule: acme_badge, like: '{prefix}-[A-Za-z0-9]{{20,40}}', source: 'https://wiki.acme.example' }}\n"
        );
        std::fs::write(app.home().join("formats.yaml"), formats).unwrap();
    };
    let entry = json!([{"component": "sallyport/secret-scan", "config_file": "formats.yaml", "config": {"action": "deny"}}]);
    write("acmebadge");
    app.reload(|config| config.set("/bundle", entry.clone()));
    let badge = |prefix: &str| ask("claude-sonnet-4-5", &format!("my badge is {prefix}-{DRAWN}"));
    until("the format of the file is in force", SOON, || async {
        (app.messages(badge("acmebadge")).await.status == 451).then_some(())
    })
    .await;
    assert_eq!(app.messages(badge("acmepass")).await.status, 200);
    write("acmepass");
    app.reload(|config| config.set("/bundle", entry));
    until("the changed file is in force", SOON, || async {
        (app.messages(badge("acmepass")).await.status == 451).then_some(())
    })
    .await;
    assert_eq!(app.messages(badge("acmebadge")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_where_the_secret_is_and_how_to_go_on() {
    let app = scanning(json!({"action": "deny"})).await;
    let secret = format!("ghp_{DRAWN}");
    let read = json!({"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": ".env"}});
    let answer =
        json!({"type": "tool_result", "tool_use_id": "toolu_1", "content": format!("GITHUB={secret}")});
    let mut body = ask("claude-sonnet-4-5", "What is in .env?");
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": [read]}),
        json!({"role": "user", "content": [answer]}),
    ]);
    let message = refused(&app, body.clone()).await;
    assert!(
        message.starts_with("sallyport/secret-scan: the answer of the tool Read (message 3 of 3)"),
        "{message}"
    );
    for said in ["github_token", "/rewind", "/clear", "rewrite: true"] {
        assert!(message.contains(said), "{message}");
    }
    assert!(!message.contains(&secret));

    let mut later = body;
    later["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": "A token."}),
        json!({"role": "user", "content": "Thank you."}),
    ]);
    let message = refused(&app, later).await;
    assert!(message.contains("the answer of the tool Read (message 3 of 5)"), "{message}");
    let message = refused(&app, ask("claude-sonnet-4-5", &secret)).await;
    assert!(message.contains("your prompt (message 1 of 1)"), "{message}");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_prompt_says_how_to_go_on() {
    let rule = json!({"name": "a", "on": ["UserPromptSubmit"], "contains": ["nightjar"], "then": {"block": "not for models"}});
    let app = TestApp::with(|it| it.component("sallyport/event-rules", json!({"rules": [rule]}))).await;
    let message = refused(&app, ask("claude-sonnet-4-5", "about nightjar")).await;
    for said in ["not for models. Take it out", "/rewind", "/clear"] {
        assert!(message.contains(said), "{message}");
    }
}
