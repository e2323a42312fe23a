//! Ordinary sizes: what clients send every day passes on every route, and what upstreams repeat of a credential does not.

use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::Script;
use serde_json::{Value, json};

use crate::ask;

const MODELS: [&str; 2] = ["claude-sonnet-4-5", "gpt-5"];

/// A question with an image of so many bytes of base64.
fn image(model: &str, bytes: usize) -> Value {
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0K".repeat(bytes / 8)});
    let content = json!([{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]);
    json!({"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": content}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_long_texts_pass_on_every_route() {
    let app = TestApp::start().await;
    for model in MODELS {
        for bytes in [400_000, 2_000_000, 9_000_000] {
            let reply = app.messages(image(model, bytes)).await;
            assert_eq!(reply.status, 200, "{model}, an image of {bytes}: {reply}");
        }
        let reply = app.messages(ask(model, &"lorem ipsum ".repeat(700_000))).await;
        assert_eq!(reply.status, 200, "{model}, a text of 8 MB: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thinking_of_another_vendor_does_not_go_up_to_anthropic() {
    let app = TestApp::start().await;
    let mut body = ask("claude-sonnet-4-5", "Hello");
    body["messages"].as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "Hello"}]}),
        json!({"role": "user", "content": "Go on"}),
    ]);
    let reply = app.messages(body).await;
    assert_eq!(reply.status, 200, "{reply}");
    let sent = app.upstream.last().json();
    assert_eq!(sent["messages"][1]["content"], json!([{"type": "text", "text": "Hello"}]));
    let row = app.row_of(&reply).await;
    assert!(row["payload"]["loss"].to_string().contains("without a signature"), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_repeats_the_credential_does_not_show_it_to_the_client() {
    let app = TestApp::start().await;
    for model in MODELS {
        let secret = {
            app.messages(ask(model, "Hello")).await;
            let seen = app.upstream.last();
            let carried = seen.header("x-api-key").or_else(|| seen.header("authorization")).unwrap();
            carried.trim_start_matches("Bearer ").to_owned()
        };
        app.upstream.next(Script::error(400, "invalid_request_error", &format!("the key {secret} is odd")));
        let reply = app.messages(ask(model, "Hello")).await;
        assert_eq!(reply.status, 400, "{model}: {reply}");
        assert!(!reply.to_string().contains(&secret), "{model}: {reply}");
        assert!(reply.to_string().contains("[credential]"), "{model}: {reply}");
    }
}
