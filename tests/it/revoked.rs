//! Revocations that meet calls in progress, tenants that share a publisher, and records that nobody here signed.

use std::sync::Arc;

use futures_util::FutureExt as _;
use sallyport::component::contract::provider::Input;
use sallyport::component::contract::scanner::TextKind;
use sallyport::component::{Component, Fault, RunsIn};
use sallyport::db::Db;
use sallyport::db::catalog::Json;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Step, Turn, Upstream, openai_stream};
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::rig::{Rig, tool_use};
use crate::{ask, hello};

const SCOPE: &str = "components/acme/scope";

fn rules(effect: &str) -> Value {
    json!({"rules": [{"name": "all", "effect": effect, "models": ["*"]}]})
}

/// Asks, and revokes while the answer is on its way from another process.
async fn revoked_meanwhile<T>(component: &Arc<Component>, asked: impl Future<Output = T>) -> T {
    let mut asked = std::pin::pin!(asked);
    assert!((&mut asked).now_or_never().is_none(), "it is asked, and has not answered");
    component.revoke("a story");
    asked.await
}

#[tokio::test]
async fn what_a_component_says_while_it_is_revoked_is_not_heard() {
    let rig = Rig::new().await;
    let revoked = |fault: &Fault| matches!(fault, Fault::Revoked { reason } if reason == "a story");
    let policy = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    assert!(rig.check(&policy).await.is_ok());
    let fault = revoked_meanwhile(&policy, rig.check(&policy)).await.unwrap_err();
    assert!(revoked(&fault), "{fault:?}");

    let scanner = rig.admit_to(RunsIn::Process, "acme", "00-honest-scanner").await.unwrap();
    let scan = async || rig.components.scan(&scanner, TextKind::User, "hello").await.result;
    assert!(scan().await.is_ok());
    let fault = revoked_meanwhile(&scanner, scan()).await.unwrap_err();
    assert!(revoked(&fault), "{fault:?}");

    let config = json!({"tools": ["Bash"], "reason": "not here"});
    let hook = rig.shipped(RunsIn::Process, "sallyport/block-tool", &config).await;
    let read = tool_use("Read", &json!({}));
    assert!(rig.components.on_event(&hook, &read).await.result.is_ok());
    let fault = revoked_meanwhile(&hook, rig.components.on_event(&hook, &read)).await.result.unwrap_err();
    assert!(revoked(&fault), "{fault:?}");
}

#[tokio::test]
async fn a_provider_that_is_revoked_says_nothing_more_in_its_exchange() {
    let rig = Rig::new().await;
    let honest = rig.admit("00-honest-provider").await;
    let mut exchange = rig.begin(&honest).await.unwrap();
    assert!(exchange.next(vec![Input::End]).await.is_ok());
    honest.revoke("a story");
    let ended = exchange.next(vec![Input::End]).await.unwrap_err();
    assert!(matches!(ended, Fault::Revoked { .. }), "{ended:?}");

    // In the middle of an answer that it computes.
    let hog = rig.admit("28-provider-hog").await;
    let mut exchange = rig.begin(&hog).await.unwrap();
    let ended = revoked_meanwhile(&hog, exchange.next(vec![Input::End])).await.unwrap_err();
    assert!(matches!(ended, Fault::Revoked { .. }), "{ended:?}");
    drop(exchange);
    rig.honest_work_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_provider_is_revoked_half_way_ends_with_an_error() {
    let upstream = Upstream::start();
    let route = json!({"model_pattern": "acme-*", "provider": "acme/openai",
        "endpoint": format!("{}/v1/chat/completions", upstream.url()),
        "api_key_secret": "upstream"});
    let app = TestApp::on(upstream, |config| config.route(route)).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["provider"])).await;
    admin.push(acme.copy_of("openai", "1.0.0", 1)).await;
    admin.post("components/acme/openai/activate", json!({"version": "1.0.0"})).await;

    let gate = Arc::new(Semaphore::new(0));
    let all = openai_stream("acme-1", &[Turn::Text("Hello.".into())]);
    let (first, rest) = all.split_once("\n\n").unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    app.upstream.next(Script::Steps(vec![
        Step::Write(format!("{head}{first}\n\n").into()),
        Step::Gate(Arc::clone(&gate)),
        Step::Write(rest.to_owned().into()),
        Step::Close,
    ]));
    let mut stream = app.messages_stream(ask("acme-1", "Hello")).await;
    let trace = stream.headers["x-trace-id"].to_str().unwrap().to_owned();
    stream.next_named("message_start").await;
    admin.post("revocations", json!({"version": "acme/openai@1.0.0", "reason": "a story"})).await;
    gate.add_permits(1);
    let mut names = Vec::new();
    while let Ok(Some(event)) = stream.next().await {
        names.push(event.name);
    }
    assert_eq!(names.last().map(String::as_str), Some("error"), "{names:?}");
    assert!(!names.iter().any(|name| name == "message_stop"), "{names:?}");
    let rows = app.lineage(&trace).await;
    let row = rows.iter().find(|row| row["kind"] == "inference").unwrap();
    assert_eq!(row["outcome"], "error", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_with_one_package_share_no_worker_no_grant_and_no_revocation() {
    let app = TestApp::start().await;
    let platform = Admin::of(&app);
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let other = Admin::new_tenant(&app, "other", "tenant-admin");
    let vendor = Vendor::new("acme", 7);
    let package = vendor.release("scope", "1.0.0", 1, |it| sallyport_protocol::package::Statement {
        capabilities: vec![sallyport_protocol::package::Capability::Settle],
        reads: None,
        ..it
    });
    for boss in [&acme, &other] {
        boss.post("publishers", vendor.trust(&["policy"])).await;
        boss.push(package.clone()).await;
    }
    platform.post("components/acme/scope/grants?tenant=acme", json!({"capability": "settle"})).await;
    let step = json!({"version": "1.0.0", "config": rules("allow")});
    acme.post(&format!("{SCOPE}/activate"), step.clone()).await;
    let refused = other.send("POST", &format!("{SCOPE}/activate"), step.to_string()).await;
    assert_eq!(
        (refused.status, refused.header("x-sallyport-code")),
        (409, Some("grant_needed")),
        "{refused}"
    );
    platform.post("components/acme/scope/grants?tenant=other", json!({"capability": "settle"})).await;
    other.post(&format!("{SCOPE}/activate"), step.clone()).await;
    // The same publisher signs for the platform too.
    platform.post("publishers", vendor.trust(&["policy"])).await;
    platform.push(vendor.hostile("00-honest-policy", "judge", "1.0.0", 1)).await;
    platform.post("components/acme/judge/activate", json!({"version": "1.0.0"})).await;

    until("each tenant has a worker", SOON, || async {
        let ready = app.get("/ready").await.json();
        (ready["workers"]["running"] == 2).then_some(())
    })
    .await;
    for caller in [&acme, &other, &platform] {
        assert_eq!(caller.call(&hello()).await.status, 200);
    }

    for subject in ["version", "key"] {
        let what = if subject == "key" { vendor.key_id() } else { "acme/scope@1.0.0".to_owned() };
        acme.post("revocations", json!({subject: what, "reason": "a story"})).await;
        assert_eq!(acme.call(&hello()).await.status, 451, "{subject}: it is revoked for who revoked it");
        assert_eq!(other.call(&hello()).await.status, 200, "{subject}: and for nobody else");
        assert_eq!(platform.call(&hello()).await.status, 200, "{subject}: the platform's goes on");
    }
    let seen = other.get("revocations").await.json();
    assert_eq!(seen["revocations"], json!([]), "what a tenant revoked is its own");
    app.stop();
    app.launch().await;
    assert_eq!(acme.call(&hello()).await.status, 451);
    until("the other's is compiled or kept", SOON, || async {
        (other.call(&hello()).await.status == 200).then_some(())
    })
    .await;
}

/// A gateway with two releases, of which the second is in force and denies nothing.
async fn with_two_releases() -> TestApp {
    let app = TestApp::start().await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    for (version, serial) in [("1.0.0", 1), ("2.0.0", 2)] {
        admin.push(acme.copy_of("scope", version, serial)).await;
        let step = json!({"version": version, "config": rules("allow")});
        admin.post(&format!("{SCOPE}/activate"), step).await;
    }
    app
}

async fn database(app: &TestApp) -> Db {
    Db::open(&format!("sqlite:{}", app.home().join("sallyport.sqlite").display())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_step_back_counts_only_if_this_gateway_signed_it() {
    let (app, stranger) = (with_two_releases().await, with_two_releases().await);
    // Each gateway has keys of its own: the same step back, signed by another.
    std::fs::remove_file(stranger.home().join("keys/rollback.key")).unwrap();
    stranger.stop();
    stranger.launch().await;
    Admin::of(&stranger).post(&format!("{SCOPE}/rollback"), json!({})).await;
    assert_eq!(stranger.messages(hello()).await.status, 200, "where it was signed it counts");
    stranger.stop();
    let taken = database(&stranger).await.component_place(None, "acme/scope").await.unwrap().unwrap();

    app.stop();
    let db = database(&app).await;
    let mut place = db.component_place(None, "acme/scope").await.unwrap().unwrap();
    let Json(forged) = taken.place;
    assert!(forged["active"]["rollback"].is_string(), "{forged}");
    place.place = Json(forged);
    place.revision += 1;
    assert!(db.step_component_place(&place).await.unwrap());
    db.close().await;
    app.launch().await;
    let refused = app.messages(hello()).await;
    assert_eq!(refused.status, 451, "{refused}");
    let row = app.row_of(&refused).await;
    assert_eq!(row["payload"]["components"][0]["fault"], "absent", "{row}");
}
