//! What a provider was shown to carry: calls that need more go elsewhere, or are refused by name.

use sallyport::component::conformance::corpus_version;
use sallyport::db::Db;
use sallyport::db::catalog::StoredLevels;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::upstream::Upstream;
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::{Value, json};

use crate::ask;

/// Routes of one pattern: the first to Moonshot, which takes no images, with further targets, and whatever else there is.
fn routes(config: Config, upstream: &str, secondary: &Value, more: &[Value]) -> Config {
    let first = json!({"model_pattern": "claude-*", "provider": "moonshot", "endpoint": upstream, "api_key_secret": "upstream",
        "upstream_model": "kimi-k2", "secondary": secondary});
    let price =
        json!({"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1});
    let all: Vec<_> = std::iter::once(first).chain(more.iter().cloned()).collect();
    config.set("/gateway/routes", json!(all)).set("/prices/models", json!([price]))
}

fn anthropic(upstream: &str) -> Value {
    json!({"provider": "anthropic", "endpoint": upstream, "api_key_secret": "upstream"})
}

fn picture() -> Value {
    let mut body = ask("claude-sonnet-4-5", "Hello");
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}});
    body["messages"][0]["content"] = json!([image, {"type": "text", "text": "What is it?"}]);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_not_shown_to_carry_images_is_passed_over_for_them_alone() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| routes(config, &url, &json!([anthropic(&url)]), &[])).await;
    let reply = app.messages(picture()).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert!(app.upstream.last().target.starts_with("/v1/messages"), "{:?}", app.upstream.last());
    let row = app.row_of(&reply).await;
    let passed =
        json!([{"route": "claude-*", "target": "primary", "provider": "moonshot", "level": "images"}]);
    assert_eq!((&row["payload"]["passed_over"], &row["provider"]), (&passed, &json!("anthropic")), "{row}");

    let plain = app.messages(ask("claude-sonnet-4-5", "Hello")).await;
    assert_eq!(plain.status, 200, "{plain}");
    let row = app.row_of(&plain).await;
    assert_eq!(
        (&row["payload"]["passed_over"], &row["provider"]),
        (&Value::Null, &json!("moonshot")),
        "{row}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_next_route_carries_it_that_takes_the_call_and_where_none_does_the_call_is_refused_by_name()
{
    let upstream = Upstream::start();
    let url = upstream.url();
    let mut next = anthropic(&url);
    next["model_pattern"] = json!("claude-*");
    let app = TestApp::on(upstream, |config| routes(config, &url, &json!([]), &[next])).await;
    let file = app.home().join("picture.json");
    std::fs::write(&file, picture().to_string()).unwrap();
    let explain = ["route", "explain", "--model", "claude-sonnet-4-5", "--user", "admin", "--body"];
    let explain = [&explain[..], &[file.to_str().unwrap()]].concat();
    let reply = app.messages(picture()).await;
    assert_eq!(app.row_of(&reply).await["provider"], "anthropic", "{reply}");
    let said = app.cli_json(&explain);
    assert_eq!(said["routes"][0]["why_not"], "its providers were not shown to carry images", "{said}");
    assert_eq!(said["routes"][1]["takes"], true, "{said}");

    app.upstream.forget();
    app.stop();
    app.change(|config| routes(config, &url, &json!([]), &[]));
    app.launch().await;
    let refused = app.messages(picture()).await;
    assert_eq!((refused.status, refused.error_type().as_str()), (400, "invalid_request_error"), "{refused}");
    assert_eq!(refused.header("x-sallyport-code"), Some("level_missing"));
    let text = refused.to_string();
    assert!(text.contains("images") && text.contains("moonshot"), "{text}");
    let row = app.row_of(&refused).await;
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("denied"), &json!("level_missing")),
        "{row}"
    );
    assert_eq!(app.upstream.seen(), 0);
    assert!(app.cli_fails(&explain).0.contains("not shown to carry images"));
    assert_eq!(app.get("/v1/models").await.status, 200);
}

/// What is kept of the one provider that was shown something, and a way to change it behind the gateway's back.
async fn kept(app: &TestApp) -> (Db, StoredLevels) {
    let db = Db::open(&format!("sqlite:{}", app.home().join("sallyport.sqlite").display())).await.unwrap();
    let corpus = corpus_version().unwrap();
    let [shown] = <[StoredLevels; 1]>::try_from(db.all_component_levels(&corpus).await.unwrap()).unwrap();
    (db, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vendors_provider_was_shown_to_carry_is_kept_and_tried_again_for_another_corpus_alone() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| routes(config, &url, &json!([anthropic(&url)]), &[])).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["provider"])).await;
    admin.push(acme.copy_of("moonshot", "1.0.0", 1)).await;
    let shown = admin.post("components/acme/moonshot/activate", json!({"version": "1.0.0"})).await;
    let levels = &shown["versions"][0]["levels"];
    assert_eq!((&levels["text"], &levels["images"]), (&json!("carried"), &json!("lost")), "{shown}");
    let listed = admin.get("components").await.json();
    assert_eq!(&listed["components"][0]["versions"][0]["levels"], levels, "{listed}");
    let vendors = |config: Config| config.set("/gateway/routes/0/provider", json!("acme/moonshot"));
    app.reload(vendors);
    let passed_over = async || {
        let reply = app.messages(picture()).await;
        let row = app.row_of(&reply).await;
        assert!(row["provider"].is_string(), "{reply} {row}");
        row["payload"]["passed_over"][0].clone()
    };
    let images =
        json!({"route": "claude-*", "target": "primary", "provider": "acme/moonshot", "level": "images"});
    let mut looked = passed_over().await;
    for _ in 0..50 {
        if looked == images {
            break;
        }
        looked = passed_over().await;
    }
    assert_eq!(looked, images, "the route is the vendor's");

    // Nobody tries it again: what is kept counts, whatever it says.
    app.stop();
    let (db, mut shown) = kept(&app).await;
    let carried = shown.levels.replace(r#""images":"lost""#, r#""images":"carried""#);
    assert_ne!(shown.levels, carried);
    shown.levels = carried;
    let now = time::OffsetDateTime::UNIX_EPOCH;
    db.keep_component_levels(&shown, now).await.unwrap();
    app.launch().await;
    assert_eq!(passed_over().await, Value::Null, "after a restart it is as it was shown");

    // What another edition of the corpus showed says nothing.
    app.stop();
    let older = StoredLevels { corpus: "1970-01-01".to_owned(), ..shown };
    db.keep_component_levels(&older, now).await.unwrap();
    app.launch().await;
    assert_eq!(passed_over().await, images, "it is tried again");
    assert!(kept(&app).await.1.levels.contains(r#""images":"lost""#), "and kept");
}
