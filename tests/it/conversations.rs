//! Conversations that grow: what a client sends again is known, and what becomes of the call is the same as if it were not.

use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::hello;

/// An access key in the shape that scanners know; it opens nothing.
const KEY: &str = "AKIAQ3EGRFZXNDOMVWJK";

/// A conversation of 2 KiB a message that ends with `last`.
fn conversation(turns: usize, last: &str) -> Value {
    let mut body = hello();
    let mut messages: Vec<Value> = (0..turns)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            json!({"role": role, "content": format!("turn {turn}: {}", "said before ".repeat(170))})
        })
        .collect();
    messages.push(json!({"role": "user", "content": last}));
    body["messages"] = messages.into();
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_conversation_that_grows_the_beginning_is_known_and_all_of_it_counts() {
    let scanning = json!({"action": "deny"});
    let app = TestApp::with(|config| config.component("sallyport/secret-scan", scanning)).await;

    let first = conversation(30, "And now?");
    let reply = app.messages(first.clone()).await;
    assert_eq!(reply.status, 200, "{reply}");
    let row = app.row_of(&reply).await;
    assert_eq!(row["payload"].get("body_known"), None, "{row}");

    let second = conversation(32, "And then?");
    let reply = app.messages(second.clone()).await;
    assert_eq!(reply.status, 200, "{reply}");
    let row = app.row_of(&reply).await;
    let (known, all) =
        (row["payload"]["body_known"].as_u64().unwrap(), row["payload"]["body_bytes"].as_u64().unwrap());
    assert!(known > 60_000 && known < all - 2_000, "{known} of {all}");
    assert_eq!(app.upstream.last().body, second.to_string(), "not a byte is another one");

    let leaked = app.messages(conversation(34, &format!("deploy with {KEY}"))).await;
    assert_eq!((leaked.status, leaked.header("x-sallyport-code")), (451, Some("aws_access_key")), "{leaked}");
    let broken = format!("{second}x");
    let broken = app.post("/v1/messages", &[], broken).await;
    assert_eq!(broken.status, 400, "{broken}");

    app.cli(&["user", "create", "bob", "--tenant", "default", "--role", "member"]);
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", "bob", "--name", "bob"]);
    let bearer = format!("Bearer {}", minted["token"].as_str().unwrap());
    let other = app
        .post("/v1/messages", &[("authorization", &bearer)], conversation(36, "And now?").to_string())
        .await;
    assert_eq!(other.status, 200, "{other}");
    let row = app.row_of(&other).await;
    assert_eq!(row["payload"].get("body_known"), None, "another user's conversation is another one: {row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_forgotten_when_another_bundle_comes_into_force() {
    let app = TestApp::start().await;
    let known = async |turns| {
        let reply = app.messages(conversation(turns, "And now?")).await;
        assert_eq!(reply.status, 200, "{reply}");
        app.row_of(&reply).await["payload"].get("body_known").is_some()
    };
    assert!(!known(30).await);
    assert!(known(32).await);
    app.reload(|config| config.component("sallyport/scope", json!({"default": "allow"})));
    until("the new bundle is in force", SOON, || async {
        let reply = app.messages(hello()).await;
        app.row_of(&reply).await["payload"]
            .get("components")
            .is_some_and(|it| it.to_string().contains("scope"))
            .then_some(())
    })
    .await;
    assert!(!known(34).await);
    assert!(known(36).await);
}
