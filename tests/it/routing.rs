//! Routing by predicates: a route takes a call if its pattern matches and its component agrees.

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::hostile;
use serde_json::{Value, json};

use crate::hello;

/// Two regions and a user in one of them; the upstreams are told apart by the model that they are asked for.
fn regions(config: Config, upstream: &str, home: &str) -> Config {
    let route = |region: &str| {
        json!({"model_pattern": "claude-*", "provider": "anthropic", "endpoint": upstream, "api_key_secret": "upstream",
            "region": region, "upstream_model": format!("claude-{region}"), "predicate": "sallyport/region",
            "predicate_config": {"default": home}})
    };
    let prices = ["claude-eu", "claude-us"].map(|model| {
        json!({"provider": "*", "model": model, "input": 1, "output": 1, "cache_read": 1, "cache_write": 1})
    });
    config.set("/gateway/routes", json!([route("eu"), route("us")])).set("/prices/models", json!(prices))
}

/// Who was asked before the provider, and what it said.
fn predicates(row: &Value) -> Vec<(&str, &str)> {
    let all = row["payload"]["components"].as_array().unwrap();
    let asked = all.iter().filter(|it| it["name"] != "sallyport/anthropic");
    asked.map(|it| (it["name"].as_str().unwrap(), it["verdict"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_route_whose_predicate_agrees_takes_the_call() {
    for (home, asked) in [("eu", vec!["match"]), ("us", vec!["no_match", "match"])] {
        let upstream = sallyport_tests::upstream::Upstream::start();
        let url = upstream.url();
        let app = TestApp::on(upstream, |config| regions(config, &url, home)).await;
        let reply = app.messages(hello()).await;
        assert_eq!(reply.status, 200, "{reply}");
        assert_eq!(app.upstream.last().json()["model"], format!("claude-{home}"));
        let row = app.row_of(&reply).await;
        let verdicts: Vec<_> = predicates(&row).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts, asked, "{row}");
        assert_eq!(row["payload"]["upstream_model"], format!("claude-{home}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_no_predicate_takes_goes_nowhere() {
    let upstream = sallyport_tests::upstream::Upstream::start();
    let url = upstream.url();
    let app = TestApp::on(upstream, |config| regions(config, &url, "ch")).await;
    let reply = app.messages(hello()).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (404, "not_found_error"), "{reply}");
    let row = app.row_of(&reply).await;
    assert_eq!(predicates(&row), [("sallyport/region", "no_match"), ("sallyport/region", "no_match")]);
    assert_eq!(app.get("/v1/models").await.json()["data"], json!([]), "what cannot be called is not listed");
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predicate_that_does_not_answer_takes_no_call_and_raises_an_alarm() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (_, component) = hostile::component("01-loop-predicate");
    let statement = hostile::statement("01-loop-predicate", Kind::Predicate);
    let package = Package::build(statement, &key, &component).unwrap();
    let app = TestApp::start().await;
    std::fs::write(app.home().join("loop.sallyport"), package).unwrap();
    let before = app.messages(hello()).await;
    let before = app.row_of(&before).await;
    let public: String =
        key.verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    app.reload(|config| {
        config
            .set("/components/packages", json!(["loop.sallyport"]))
            .set("/components/publishers", json!([{"key": public, "namespace": "hostile", "kinds": ["predicate"]}]))
            .route(json!({"model_pattern": "claude-*", "provider": "echo", "predicate": "hostile/01-loop-predicate"}))
    });
    let row =
        sallyport_tests::wait::until("the predicate is in force", sallyport_tests::wait::SOON, || async {
            let reply = app.messages(hello()).await;
            assert_eq!(reply.status, 200, "the next route takes it: {reply}");
            let row = app.row_of(&reply).await;
            (row["policy_ver"] != before["policy_ver"]).then_some(row)
        })
        .await;
    assert_eq!(row["provider"], "anthropic");
    assert_eq!(predicates(&row), [("hostile/01-loop-predicate", "fault")]);
    assert_eq!(row["payload"]["components"][0]["fault"], "deadline", "{row}");
    let log = app.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("did not answer")), "{log}");
}
