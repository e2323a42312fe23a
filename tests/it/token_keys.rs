//! Keys of access tokens that are exchanged while a gateway serves.

use std::time::Duration;

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::Value;

use crate::hello;

/// What a new key takes to sign: it is published before, and noticed within two seconds.
const ROTATED: Duration = Duration::from_secs(20);

async fn token(app: &TestApp) -> String {
    let bearer = format!("Bearer {}", app.token);
    let reply = app.client().send("POST", "/v1/auth/cowork/pat", &[("authorization", &bearer)], "").await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

fn kid(token: &str) -> String {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn published(app: &TestApp) -> Vec<String> {
    let jwks = app.client().send("GET", "/.well-known/jwks.json", &[], Bytes::new()).await.json();
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn call(app: &TestApp, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_serves_takes_another_key_and_nobody_notices() {
    let app = TestApp::start().await;
    let first = token(&app).await;
    assert_eq!(published(&app).await, [kid(&first)]);
    let made = app.cli_json(&["key", "rotate"]);
    let next = made["kid"].as_str().unwrap().to_owned();
    until("the new key is published", SOON, || async { published(&app).await.contains(&next).then_some(()) })
        .await;
    until("the new key signs, and stands first", ROTATED, || async {
        (published(&app).await.first() == Some(&next)).then_some(())
    })
    .await;
    let second = token(&app).await;
    assert_eq!(kid(&second), next);
    assert_eq!(published(&app).await, [next.clone(), kid(&first)]);
    assert_eq!((call(&app, &first).await, call(&app, &second).await), (200, 200));
    assert_eq!(app.cli_json(&["gateway", "capabilities"])["key"], next.as_str());

    // What the table holds makes no key: another process with the same files makes the same one.
    app.stop();
    app.launch().await;
    assert_eq!((call(&app, &first).await, call(&app, &second).await), (200, 200));

    let made = app.cli_json(&["key", "rotate", "--at-once"]);
    until("the keys before are believed no more", SOON, || async {
        (call(&app, &first).await == 401 && call(&app, &second).await == 401).then_some(())
    })
    .await;
    let third = token(&app).await;
    assert_eq!(call(&app, &third).await, 200);
    assert_eq!(published(&app).await, [made["kid"].as_str().unwrap()]);

    let rows = until("each exchange is a row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["payload"]["code"] == "key.rotate");
        std::future::ready((rows.len() == 2).then_some(rows))
    })
    .await;
    assert_eq!(rows[0]["payload"]["subject"], next.as_str(), "{rows:?}");
}
