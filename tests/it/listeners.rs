//! What each listener of the gateway answers.

use std::net::SocketAddr;

use sallyport_tests::client::Client;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::vendor::Admin;
use sallyport_tests::wait::{SOON, until};
use serde_json::json;

use crate::catalog::admin_rows;
use crate::encrypted::Files;
use crate::hello;

#[tokio::test(flavor = "multi_thread")]
async fn administration_with_a_listener_of_its_own_is_answered_there_alone() {
    let app = TestApp::with(|config| config.set("/server/admin_listen", json!("127.0.0.1:0"))).await;
    let text = std::fs::read_to_string(app.home().join("admin-address")).unwrap();
    let address: SocketAddr = text.parse().unwrap();
    assert_ne!(address, app.address());
    let own = Client::new(address);
    let admin = Admin::of(&app);
    let bearer = format!("Bearer {}", admin.token);
    let headers = [("authorization", bearer.as_str())];

    assert_eq!(own.send("GET", "/v1/admin/components", &headers, "").await.status, 200);
    assert_eq!(own.send("GET", "/ready", &[], "").await.status, 200);
    for path in ["/v1/models", "/.well-known/jwks.json"] {
        assert_eq!(own.send("GET", path, &headers, "").await.status, 404, "{path}");
    }
    let call = own.send("POST", "/v1/messages", &headers, hello().to_string()).await;
    assert_eq!(call.status, 404, "{call}");
    assert_eq!(app.upstream.seen(), 0);

    assert_eq!(admin.get("components").await.status, 404, "the listener of clients has none of it");
    assert_eq!(app.messages(hello()).await.status, 200);

    let token = app.home().join("components.token");
    std::fs::write(&token, &admin.token).unwrap();
    app.cli(&["component", "list", "--token-file", &token.display().to_string()]);

    let step =
        own.send("POST", "/v1/admin/components/acme/none/activate", &headers, r#"{"version":"1.0.0"}"#).await;
    assert_eq!(step.status, 404, "{step}");
    app.stop();
    let rows = admin_rows(&app, "admin_not_found");
    let peers: Vec<_> = rows.iter().map(|row| row["payload"]["peer"].as_str()).collect();
    assert_eq!(peers, [Some("127.0.0.1")], "the row says from where it was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_one_administration_is_answered_beside_the_calls() {
    let app = TestApp::start().await;
    assert!(!app.home().join("admin-address").exists());
    assert_eq!(Admin::of(&app).get("components").await.status, 200);
}

/// The value of one line of figures.
fn figure<'a>(text: &'a str, line: &str) -> &'a str {
    let found = text.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_have_a_listener_of_their_own_and_need_no_credential() {
    let files = Files::new();
    let app = TestApp::with(|config| {
        files
            .on(config)
            .set("/tls/listeners", json!(["public"]))
            .set("/server/metrics_listen", json!("127.0.0.1:0"))
    })
    .await;
    let address = std::fs::read_to_string(app.home().join("metrics-address")).unwrap();
    let own = Client::new(address.parse().unwrap());
    assert_eq!(app.messages(hello()).await.status, 200);
    assert_eq!(app.client().send("GET", "/v1/models", &[], "").await.status, 401);
    assert_eq!(app.client().send("GET", "/metrics", &[], "").await.status, 404, "nobody else answers it");
    app.client().raw(b"\x00").await;
    for path in ["/v1/models", "/v1/admin/components", "/v1/messages"] {
        assert_eq!(own.send("GET", path, &[], "").await.status, 404, "{path}");
    }
    // A connection is counted as failed, or as gone, after it is closed.
    let counted = [
        r#"sallyport_handshakes_failed_total{listener="public"} 1"#,
        r#"sallyport_connections{listener="metrics"} 1"#,
    ];
    let reply = until("what failed is counted, and what is gone no more", SOON, || async {
        let reply = own.send("GET", "/metrics", &[], "").await;
        let text = String::from_utf8_lossy(&reply.body);
        counted.iter().all(|line| text.contains(line)).then_some(reply)
    })
    .await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(figure(&text, r#"sallyport_answers_total{listener="public",status="2xx"}"#) >= "2", "{text}");
    assert_eq!(figure(&text, r#"sallyport_answers_total{listener="public",status="4xx"}"#), "2");
    assert_eq!(figure(&text, r#"sallyport_answers_total{listener="metrics",status="4xx"}"#), "3");
    for part in ["database", "spool", "components", "revocations", "upstream_credentials", "certificate"] {
        assert_eq!(figure(&text, &format!("sallyport_part_ok{{part=\"{part}\"}}")), "1", "{part}");
    }
    assert_eq!(figure(&text, "sallyport_ready"), "1");
    let end: u64 = figure(&text, "sallyport_certificate_valid_until_seconds").parse().unwrap();
    assert!(end > 1_700_000_000, "{end}");
    for known in ["claude", "default", app.token.as_str()] {
        assert!(!text.contains(known), "{known} in {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(
            text.contains(&format!("# TYPE {name} ")) && text.contains(&format!("# HELP {name} ")),
            "{line}"
        );
    }
}
