//! Telemetry that clients export goes to the operator's collector, and says who exported it as the credential says it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Upstream};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const PATHS: [&str; 3] = ["/v1/metrics", "/v1/logs", "/v1/traces"];

async fn app(collector: &Upstream, more: Value) -> TestApp {
    let mut telemetry = json!({ "collector": collector.url(), "auth": "bearer", "secret": "collector_key" });
    for (name, value) in more.as_object().unwrap() {
        telemetry[name] = value.clone();
    }
    collector.script(Script::Status(200, vec![("content-type".into(), JSON.into())], Bytes::from("{}")));
    TestApp::with(|config| {
        config
            .secret("collector_key", json!("canary-collector"))
            .set("/telemetry", telemetry)
            .set("/server/metrics_listen", json!("127.0.0.1:0"))
    })
    .await
}

async fn export(app: &TestApp, path: &str, media_type: &str, body: impl Into<Bytes>) -> Reply {
    let bearer = format!("Bearer {}", app.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
    app.client().send("POST", path, &headers, body).await
}

/// The value of a figure.
async fn figure(app: &TestApp, name: &str) -> u64 {
    let address = std::fs::read_to_string(app.home().join("metrics-address")).unwrap();
    let client = sallyport_tests::gateway::client_of(&address).unwrap();
    let reply = client.send("GET", "/metrics", &[], Bytes::new()).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a figure has reached a value, and no more.
async fn counted(app: &TestApp, name: &str, value: u64) {
    until(name, SOON, || async { (figure(app, name).await >= value).then_some(()) }).await;
    assert_eq!(figure(app, name).await, value, "{name}");
}

fn told(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

/// What a resource says under a name.
fn said<'a>(resource: &'a Value, name: &str) -> Vec<&'a str> {
    let all = resource["attributes"].as_array().unwrap();
    all.iter().filter(|it| it["key"] == name).map(|it| it["value"]["stringValue"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_reaches_the_collector_with_who_exported_it_and_no_other_name() {
    let collector = Upstream::start();
    let app = app(&collector, json!({})).await;
    let me = app.get("/v1/cowork/whoami").await.json();
    let lies = json!([
        told("service.name", "claude-code"),
        told("user.id", "u_forged"),
        told("user.email", "boss@example.com"),
        told("sallyport.tenant.id", "forged"),
        told("department", "forged")
    ]);
    let record =
        json!({ "attributes": [told("event.name", "user_prompt"), told("sallyport.user.id", "forged")] });
    let logs = json!({ "resourceLogs": [{ "resource": { "attributes": lies }, "scopeLogs": [{ "logRecords": [record] }] }] });
    let reply = export(&app, "/v1/logs", JSON, logs.to_string()).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(JSON)), "{reply}");
    assert_eq!(reply.json(), json!({}));
    until_true("the collector has it", SOON, || collector.seen() == 1).await;
    let seen = collector.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/logs"));
    assert_eq!(seen.header("authorization"), Some("Bearer canary-collector"), "the caller's own stays here");
    assert_eq!(seen.header("content-type"), Some(JSON));
    let resource = &seen.json()["resourceLogs"][0]["resource"];
    let user = me["user"].as_str().unwrap();
    assert_eq!(said(resource, "service.name"), ["claude-code"]);
    assert_eq!((said(resource, "user.id"), said(resource, "sallyport.user.id")), (vec![user], vec![user]));
    assert_eq!(said(resource, "sallyport.tenant.id"), [me["tenant"].as_str().unwrap()]);
    assert!(!String::from_utf8_lossy(&seen.body).contains("forged"), "{resource}");
    assert!(said(resource, "user.email").is_empty(), "nobody proved an address");
    assert_eq!(
        seen.json()["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"],
        json!([told("event.name", "user_prompt")])
    );

    // An entry without a resource, in protobuf: field 1 of the export, and in it a list of scopes.
    let reply = export(&app, "/v1/metrics", PROTOBUF, vec![0x0a, 0x02, 0x12, 0x00]).await;
    assert_eq!((reply.status, reply.header("content-type"), reply.body.len()), (200, Some(PROTOBUF), 0));
    until_true("the collector has it too", SOON, || collector.seen() == 2).await;
    let seen = collector.last();
    assert_eq!((seen.target.as_str(), seen.header("content-type")), ("/v1/metrics", Some(PROTOBUF)));
    assert!(seen.body.windows(user.len()).any(|window| window == user.as_bytes()));
    counted(&app, "sallyport_telemetry_exports_total{outcome=\"forwarded\"}", 2).await;
    assert_eq!(app.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_none_is_refused_and_never_reaches_the_collector() {
    let collector = Upstream::start();
    let app = app(&collector, json!({ "max_request_bytes": 4096, "user_bytes_per_minute": 10_000 })).await;
    let refused = async |media_type: &str, body: Bytes| {
        let reply = export(&app, "/v1/logs", media_type, body).await;
        (reply.status, reply.header("x-sallyport-code").unwrap_or_default().to_owned())
    };
    let code = |code: &str| code.to_owned();
    assert_eq!(refused(JSON, "hello".into()).await, (400, code("telemetry_malformed")));
    assert_eq!(refused(JSON, r#"{"resourceSpans":[]}"#.into()).await, (400, code("telemetry_malformed")));
    assert_eq!(refused(PROTOBUF, "hello".into()).await, (400, code("telemetry_malformed")));
    assert_eq!(refused("text/plain", "hello".into()).await, (415, String::new()));
    assert_eq!(refused(JSON, vec![b' '; 4097].into()).await, (413, code("request_too_large")));
    let bearer = format!("Bearer {}", app.token);
    let packed = [("authorization", bearer.as_str()), ("content-type", JSON), ("content-encoding", "gzip")];
    // Nothing is unpacked, so that nothing grows.
    let reply = app.client().send("POST", "/v1/logs", &packed, vec![0x1f, 0x8b, 0x08]).await;
    assert_eq!(reply.status, 400, "{reply}");
    for path in PATHS {
        let stranger = app.client().send("POST", path, &[("content-type", JSON)], "{}").await;
        assert_eq!(stranger.status, 401, "{path}: {stranger}");
    }
    let padded = format!("{}{}", json!({ "resourceLogs": [] }), " ".repeat(3_900));
    let mut last = None;
    for _ in 0..4 {
        last = Some(export(&app, "/v1/logs", JSON, padded.clone()).await);
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.header("x-sallyport-code")), (429, Some("telemetry_full")), "{last}");
    assert!(last.header("retry-after").is_some(), "{last}");
    // Another user has a share of its own.
    app.cli(&["user", "create", "ann"]);
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", "ann", "--name", "x"]);
    let bearer = format!("Bearer {}", minted["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    assert_eq!(app.client().send("POST", "/v1/logs", &headers, padded).await.status, 200);
    assert!(collector.requests().iter().all(|seen| seen.json()["resourceLogs"] == json!([])));
    app.stop();
    let rows = app.audit_rows();
    let of_exports: Vec<_> = rows.iter().filter(|row| row["kind"] == "auth").collect();
    assert!(of_exports.iter().all(|row| row["payload"]["code"] == "invalid_token"), "{of_exports:?}");
    assert_eq!(of_exports.len(), PATHS.len(), "a refused credential is a row, and an export is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_nobody_up_and_what_it_misses_is_counted() {
    let collector = Upstream::start();
    let app = app(&collector, json!({ "timeout_ms": 500 })).await;
    let gate = Arc::new(Semaphore::new(0));
    collector.script(Script::text("too late").behind(&gate));
    let body = json!({ "resourceSpans": [{ "scopeSpans": [] }] }).to_string();
    let began = Instant::now();
    for _ in 0..8 {
        assert_eq!(export(&app, "/v1/traces", JSON, body.clone()).await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "eight answers took {:?}", began.elapsed());
    let dropped = "sallyport_telemetry_exports_total{outcome=\"dropped\"}";
    counted(&app, dropped, 8).await;
    collector.script(Script::Status(503, vec![], Bytes::new()));
    assert_eq!(export(&app, "/v1/traces", JSON, body.clone()).await.status, 200);
    counted(&app, dropped, 9).await;
    assert_eq!(figure(&app, "sallyport_telemetry_waiting_bytes").await, 0, "what is gone holds nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_taken_and_clients_are_pointed_here_only_where_it_is_wanted() {
    let app = TestApp::start().await;
    assert_eq!(export(&app, "/v1/logs", JSON, "{}").await.status, 404);
    assert_eq!(app.get("/managed/settings").await.status, 404);
    let collector = json!({ "collector": "http://127.0.0.1:9" });
    app.reload(|config| config.set("/telemetry", collector.clone()));
    until_taken(&app).await;
    assert_eq!(
        app.get("/managed/settings").await.status,
        404,
        "telemetry is taken, and nobody is told to send any"
    );
    let own =
        json!({ "env": { "OTEL_METRICS_EXPORTER": "console" }, "permissions": { "deny": ["WebFetch"] } });
    app.reload(|config| {
        config
            .set("/telemetry", json!({ "collector": "http://127.0.0.1:9", "point_clients": true }))
            .set("/claude_code", json!({ "managed_settings": [{ "roles": ["author"], "settings": own }] }))
    });
    let settings = until("settings name the gateway", SOON, || async {
        let reply = app.get("/managed/settings").await;
        (reply.status == 200).then(|| reply.json())
    })
    .await;
    let env = &settings["settings"]["env"];
    let own_url = app.client().send("GET", "/protocol", &[], Bytes::new()).await.json()["issuer"].clone();
    assert_eq!(env["OTEL_EXPORTER_OTLP_ENDPOINT"], own_url, "{settings}");
    assert_eq!(
        (&env["CLAUDE_CODE_ENABLE_TELEMETRY"], &env["OTEL_LOGS_EXPORTER"]),
        (&json!("1"), &json!("otlp"))
    );
    let author = app.cli_json(&["gateway", "pat", "create", "--user", &author(&app), "--name", "x"]);
    let bearer = format!("Bearer {}", author["token"].as_str().unwrap());
    let theirs = app
        .client()
        .send("GET", "/managed/settings", &[("authorization", &bearer)], Bytes::new())
        .await
        .json();
    assert_eq!(theirs["settings"], own, "settings that say themselves what is exported stay");
}

/// A user with the role of authors.
fn author(app: &TestApp) -> String {
    app.cli(&["user", "create", "ann", "--role", "author"]);
    "ann".to_owned()
}

async fn until_taken(app: &TestApp) {
    until("telemetry is taken", SOON, || async {
        let reply = export(app, "/v1/logs", JSON, r#"{"resourceLogs":[]}"#).await;
        (reply.status == 200).then_some(())
    })
    .await;
}
