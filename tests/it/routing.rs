//! Routing by predicates: a route takes a call if its pattern matches and its component agrees.

use ed25519_dalek::SigningKey;
use sallyport_protocol::package::{Kind, Package};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::hostile;
use sallyport_tests::vendor::{Admin, Vendor};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_vendors_provider_takes_over_its_route_without_a_restart() {
    let app = TestApp::with(|config| {
        let price =
            json!({"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1});
        config
            .route(json!({"model_pattern": "acme-*", "provider": "acme/echo"}))
            .set("/prices/models", json!([price]))
    })
    .await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    let call = || app.messages(crate::ask("acme-1", "Hello"));
    let early = call().await;
    assert_eq!(early.status, 502, "the catalog does not have it yet: {early}");
    assert_eq!(app.messages(hello()).await.status, 200, "other routes are served");

    admin.post("publishers", acme.trust(&["provider"])).await;
    admin.push(acme.copy_of("echo", "1.0.0", 1)).await;
    assert_eq!(call().await.status, 502, "staged, it serves nobody");
    admin.post("components/acme/echo/activate", json!({"version": "1.0.0"})).await;
    let served = call().await;
    assert_eq!(served.status, 200, "{served}");
    let row = app.row_of(&served).await;
    assert_eq!(row["provider"], "acme/echo");
    assert_eq!(row["payload"]["components"][0]["name"], "acme/echo");

    // Taken out of force it serves nobody, and keeps nobody from starting.
    admin.post("components/acme/echo/retire", json!({})).await;
    assert_eq!(call().await.status, 502);
    app.stop();
    app.launch().await;
    assert_eq!(call().await.status, 502);
    assert_eq!(app.messages(hello()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predicate_of_the_catalog_is_configured_by_its_routes_and_replaced_under_them() {
    let app = TestApp::with(|config| {
        let route = json!({"model_pattern": "claude-*", "provider": "echo", "predicate": "acme/region",
            "region": "eu", "predicate_config": {"default": "eu"}});
        config.set("/gateway/routes", json!([route]))
    })
    .await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    let early = app.messages(hello()).await;
    assert_eq!(early.status, 404, "a route whose predicate is not there takes no call: {early}");
    let log = app.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("not in force")), "{log}");

    admin.post("publishers", acme.trust(&["predicate"])).await;
    admin.push(acme.copy_of("region", "1.0.0", 1)).await;
    admin.push(acme.copy_of("region", "2.0.0", 2)).await;
    let step = |step: &str| format!("components/acme/region/{step}");
    for (verb, body) in [
        ("shadow", json!({"version": "1.0.0"})),
        ("canary", json!({"version": "1.0.0", "percent": 10})),
        ("activate", json!({"version": "1.0.0", "config": {"default": "us"}})),
        ("activate", json!({"version": "1.0.0", "mode": "shadow"})),
    ] {
        let refused = admin.send("POST", &step(verb), body.to_string()).await;
        assert_eq!((refused.status, refused.header("x-sallyport-code")), (400, Some("invalid")), "{refused}");
    }
    for version in ["1.0.0", "2.0.0"] {
        admin.post(&step("activate"), json!({"version": version})).await;
        let reply = app.messages(hello()).await;
        assert_eq!(reply.status, 200, "{reply}");
        let row = app.row_of(&reply).await;
        let asked = &row["payload"]["components"][0];
        let said = [&asked["name"], &asked["version"], &asked["verdict"]];
        assert_eq!(said, ["acme/region", version, "match"], "{row}");
    }
    admin.post(&step("rollback"), json!({})).await;
    let reply = app.messages(hello()).await;
    assert_eq!(app.row_of(&reply).await["payload"]["components"][0]["version"], "1.0.0");
    admin.post("revocations", json!({"version": "acme/region@1.0.0", "reason": "a story"})).await;
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 404, "what was revoked agrees to nothing: {reply}");
}
