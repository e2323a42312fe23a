//! What Claude Code asks of a gateway after `/login`: managed settings, the configuration of Claude Desktop, and what was spent.

use std::time::Duration;

use bytes::Bytes;
use sallyport_protocol::canonical;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::json;

use crate::hello;

#[tokio::test(flavor = "multi_thread")]
async fn managed_settings_are_those_of_the_role_and_are_sent_once() {
    let settings = json!({ "permissions": { "deny": ["WebFetch"] }, "availableModels": ["claude-opus-4-5"] });
    let app = TestApp::with(|config| {
        config.set(
            "/claude_code",
            json!({ "managed_settings": [{ "roles": ["admin", "ops"], "settings": settings }], "login_notice": "Use is recorded." }),
        )
    })
    .await;
    let reply = app.get("/managed/settings").await;
    assert_eq!(reply.status, 200, "{reply}");
    let told = reply.json();
    assert_eq!(told["settings"], settings);
    // The recorded form: sha256 over compact JSON with sorted keys, written out here.
    let text = r#"{"availableModels":["claude-opus-4-5"],"permissions":{"deny":["WebFetch"]}}"#;
    assert_eq!(told["checksum"], canonical::sha256(text.as_bytes()));
    assert_eq!(told["uuid"], told["checksum"]);
    let tag = reply.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", told["checksum"].as_str().unwrap()));

    let bearer = format!("Bearer {}", app.token);
    let again = |tag: String| {
        let (client, bearer) = (app.client(), bearer.clone());
        async move {
            let headers = [("authorization", bearer.as_str()), ("if-none-match", tag.as_str())];
            client.send("GET", "/managed/settings", &headers, Bytes::new()).await
        }
    };
    let same = again(tag.clone()).await;
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(tag.as_str())));
    assert_eq!(again("\"sha256:00\"".to_owned()).await.status, 200);

    app.cli(&["user", "create", "ann"]);
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", "ann", "--name", "x"]);
    let bearer = format!("Bearer {}", minted["token"].as_str().unwrap());
    let other =
        app.client().send("GET", "/managed/settings", &[("authorization", &bearer)], Bytes::new()).await;
    assert_eq!((other.status, other.error_type().as_str()), (404, "not_found_error"), "{other}");
    for path in ["/managed/settings", "/user/bootstrap", "/api/oauth/usage"] {
        assert_eq!(app.client().send("GET", path, &[], Bytes::new()).await.status, 401, "{path}");
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let begun =
        app.client().send("POST", "/oauth/device_authorization", &form, "surface=claude_code").await.json();
    assert_eq!(begun["login_notice"], "Use is recorded.", "{begun}");
    let protocol = app.client().send("GET", "/protocol", &[], Bytes::new()).await.json();
    assert_eq!(protocol["gateway_protocol_version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_desktop_is_configured_only_where_the_operator_wants_it() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/user/bootstrap").await.status, 404);
    drop(app);
    let app = TestApp::with(|config| {
        let desktop = json!({ "disabledBuiltinTools": ["WebFetch"], "inferenceProvider": "elsewhere" });
        config.set("/claude_code", json!({ "desktop": desktop }))
    })
    .await;
    let reply = app.get("/user/bootstrap").await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")), "{reply}");
    let told = reply.json();
    assert_eq!(told["disabledBuiltinTools"], json!(["WebFetch"]));
    assert_eq!(told["inferenceProvider"], "gateway", "where it infers is not for the file to say");
    assert_eq!(told["inferenceCredentialKind"], "interactive");
    let names: Vec<_> =
        told["inferenceModels"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"claude-sonnet-4-5"), "{told}");
    assert!(told["expiresAt"].as_i64().unwrap() > 1_700_000_000, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_spent_is_told_to_that_user() {
    let app = TestApp::start().await;
    let usage = app.get("/api/oauth/usage").await.json();
    assert_eq!(usage["extra_usage"]["used_credits"].as_f64(), Some(0.0), "{usage}");
    assert_eq!(usage["extra_usage"]["currency"], "USD");
    assert_eq!(app.messages(hello()).await.status, 200);
    let spent = until("the call has a cost", SOON, || {
        let rows = app.audit_rows();
        let cost = rows
            .iter()
            .filter(|row| row["kind"] == "cost")
            .filter_map(|row| row["cost_micro"].as_i64())
            .sum::<i64>();
        std::future::ready((cost > 0).then_some(cost))
    })
    .await;
    // What was told a moment ago is told for some seconds.
    let usage = until("the sum is a new one", Duration::from_secs(20), || async {
        let usage = app.get("/api/oauth/usage").await.json();
        (usage["extra_usage"]["used_credits"].as_f64() > Some(0.0)).then_some(usage)
    })
    .await;
    for period in [&usage["extra_usage"], &usage["extra_usage"]["daily"], &usage["extra_usage"]["weekly"]] {
        let micro = period["used_credits"].as_f64().unwrap() * 10_000.0;
        assert!((micro - f64::from(i32::try_from(spent).unwrap())).abs() < 0.5, "{usage}: {spent}");
    }
}
