//! Verdicts that are remembered: those of policies that say which facts they read, for calls with the same facts, and no others.

use bytes::Bytes;
use sallyport_protocol::package::{Fact, Kind, Statement};
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::hostile;
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::{Value, json};

use crate::{ask, hello};

const ACTIVATE: &str = "components/acme/scope/activate";

/// `scope` as a vendor that reads `facts` alone, so that no minute ends within a story.
fn copy(vendor: &Vendor, version: &str, serial: u64, facts: &[Fact]) -> Bytes {
    let reads = Some(facts.to_vec());
    vendor.release("scope", version, serial, |statement| Statement { reads, ..statement })
}

fn rules(denied: &str) -> Value {
    let rule =
        |name: &str, effect: &str, models: &str| json!({"name": name, "effect": effect, "models": [models]});
    json!({"rules": [rule("refused", "deny", denied), rule("welcome", "allow", "*")]})
}

/// What the row of a call says of the copy.
async fn entry(app: &TestApp, reply: &Reply) -> Value {
    let row = app.row_of(reply).await;
    let components = row["payload"]["components"].as_array().unwrap_or_else(|| panic!("{row}"));
    let found = components.iter().find(|entry| entry["name"] == "acme/scope");
    found.unwrap_or_else(|| panic!("{row}")).clone()
}

/// Whether the verdict of a call was one that the copy had given before.
async fn remembered(app: &TestApp, reply: &Reply) -> bool {
    entry(app, reply).await.get("remembered") == Some(&json!(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_about_the_same_facts_is_remembered_and_its_row_says_so() {
    let app = TestApp::start().await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(copy(&acme, "1.0.0", 1, &[Fact::Model, Fact::User])).await;
    admin.post(ACTIVATE, json!({"version": "1.0.0", "config": rules("claude-opus-*")})).await;

    let (first, second) =
        (app.messages(hello()).await, app.messages(ask("claude-sonnet-4-5", "Other words")).await);
    let (asked, again) = (entry(&app, &first).await, entry(&app, &second).await);
    assert_eq!((asked.get("remembered"), &again["remembered"]), (None, &json!(true)), "{asked} {again}");
    assert_eq!(asked["notes"], json!([{"name": "scope.rule", "value": "welcome"}]));
    for same in ["notes", "verdict", "digest", "config"] {
        assert_eq!(asked[same], again[same], "{same}");
    }
    assert_eq!(again["micros"], 0);

    let opus = || ask("claude-opus-4-5", "Hello");
    let (denied, denied_again) = (app.messages(opus()).await, app.messages(opus()).await);
    assert!(!remembered(&app, &denied).await, "another model is another question");
    assert!(remembered(&app, &denied_again).await);
    assert_eq!((denied.status, denied_again.status), (451, 451));
    assert_eq!(denied.json()["error"], denied_again.json()["error"]);

    app.cli(&["user", "create", "bob", "--tenant", "default", "--role", "member"]);
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", "bob", "--name", "bob"]);
    let bearer = format!("Bearer {}", minted["token"].as_str().unwrap());
    let other = app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await;
    assert!(!remembered(&app, &other).await, "another user is another question");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_of_one_tenants_calls_is_not_said_of_anothers() {
    let app = TestApp::start().await;
    let (platform, vendor) = (Admin::of(&app), Vendor::new("acme", 1));
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let other = Admin::new_tenant(&app, "other", "tenant-admin");
    platform.post("publishers", vendor.trust(&["policy"])).await;
    platform.push(copy(&vendor, "1.0.0", 1, &[Fact::Model])).await;
    platform.post(ACTIVATE, json!({"version": "1.0.0", "config": rules("claude-opus-*")})).await;
    for caller in [&acme, &other] {
        let (first, second) = (caller.call(&hello()).await, caller.call(&hello()).await);
        assert_eq!((first.status, second.status), (200, 200));
        assert!(!remembered(&app, &first).await, "it was asked about this tenant's call");
        assert!(remembered(&app, &second).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_forgotten_with_its_configuration_and_with_its_policy() {
    let app = TestApp::start().await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(copy(&acme, "1.0.0", 1, &[Fact::Model])).await;
    let (open, closed) = (rules("claude-opus-*"), rules("*"));
    let in_force = async |config: &Value| {
        admin.post(ACTIVATE, json!({"version": "1.0.0", "config": config})).await;
        let (first, second) = (app.messages(hello()).await, app.messages(hello()).await);
        assert!(
            !remembered(&app, &first).await,
            "{config}: it was asked by another configuration, or before"
        );
        assert!(remembered(&app, &second).await);
        (first.status, second.status)
    };
    assert_eq!(in_force(&open).await, (200, 200));
    assert_eq!(in_force(&closed).await, (451, 451));
    assert_eq!(in_force(&open).await, (200, 200));
    admin.post("revocations", json!({"version": "acme/scope@1.0.0", "reason": "a story"})).await;
    let revoked = app.messages(hello()).await;
    assert_eq!(
        (revoked.status, revoked.header("x-sallyport-code")),
        (451, Some("policy_fault")),
        "what it said before does not count any more: {revoked}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_verdict_comes_out_the_same_again() {
    let app = TestApp::with(|config| config.set("/evidence", json!({"record": "calls"}))).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    let (kind, component) = hostile::component("12-random-verdict");
    assert_eq!(kind, Some(Kind::Policy));
    admin
        .push(acme.package("dice", &component, |it| Statement { reads: Some(vec![Fact::Model]), ..it }))
        .await;
    admin.post("components/acme/dice/activate", json!({"version": "1.0.0"})).await;
    let replies = [app.messages(hello()).await, app.messages(hello()).await];
    let code = |reply: &Reply| reply.header("x-sallyport-code").unwrap().to_owned();
    assert_eq!(code(&replies[0]), code(&replies[1]), "chance is the same for the same facts");
    assert_eq!(app.row_of(&replies[1]).await["payload"]["components"][0]["remembered"], true);
    app.stop();
    for reply in &replies {
        let replayed = app.cli_json(&["audit", "replay", reply.header("x-trace-id").unwrap()]);
        let step = &replayed["calls"][0]["steps"][0];
        assert_eq!((&step["name"], &step["same"]), (&json!("acme/dice"), &json!("same")), "{replayed}");
        assert_eq!(step["recorded"], format!("deny {}", code(reply)));
    }
}
