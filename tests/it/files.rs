//! Files: judged as the document that they are for a message, and their tenant's alone, in messages too.

use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{TestApp, UPSTREAM_KEY};
use sallyport_tests::upstream::{Script, Seen};
use sallyport_tests::vendor::Admin;
use serde_json::{Value, json};

use crate::batches::{json_of, send};

const FILES: &str = "/v1/files";
/// An access key in the shape that scanners know; it opens nothing.
const KEY: &str = "AKIAQ3EGRFZXNDOMVWJK";

fn file(number: usize) -> Value {
    json!({"id": format!("file_{number}"), "type": "file", "filename": "a.txt", "size_bytes": 2, "downloadable": true})
}

fn upstream(seen: &Seen) -> Script {
    let path = seen.target.split('?').next().unwrap();
    match (seen.method.as_str(), path) {
        ("POST", FILES) => json_of(200, &file(usize::from(seen.body.len() > 300) + 1)),
        ("GET", path) if path.ends_with("/content") => {
            let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
            Script::Status(200, headers, "<b>hi</b>".into())
        }
        ("DELETE", _) => json_of(200, &json!({"id": "file_1", "type": "file_deleted"})),
        _ => Script::default(),
    }
}

async fn app(
    change: impl FnOnce(sallyport_tests::gateway::Config) -> sallyport_tests::gateway::Config,
) -> TestApp {
    let app = TestApp::with(change).await;
    app.upstream.choose(upstream);
    app
}

fn form(content: &[u8]) -> Vec<u8> {
    let head = "--line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n";
    [head.as_bytes(), content, b"\r\n--line--\r\n"].concat()
}

async fn upload(app: &TestApp, token: &str, content: &[u8]) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "multipart/form-data; boundary=line"),
        ("anthropic-beta", "files-api-2025-04-14"),
    ];
    app.client().send("POST", FILES, &headers, form(content)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_through_its_life_as_the_bytes_it_is() {
    let app = app(|config| config).await;
    let made = upload(&app, &app.token, b"hi").await;
    assert_eq!((made.status, made.json()), (200, file(1)), "{made}");
    let seen = app.upstream.last();
    assert_eq!(seen.body, form(b"hi"));
    assert_eq!(seen.header("anthropic-beta"), Some("files-api-2025-04-14"));
    assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (Some(UPSTREAM_KEY), None));
    let row = app.row_of(&made).await;
    let payload = &row["payload"];
    assert_eq!((&payload["operation"], &payload["file"]), (&json!("file_upload"), &json!("file_1")), "{row}");
    assert_eq!(app.get("/v1/files/file_1").await.json(), file(1));
    let more = upload(&app, &app.token, &[b'x'; 400]).await;
    assert_eq!(more.json()["id"], "file_2");
    let listed = app.get("/v1/files?limit=1").await.json();
    assert_eq!((&listed["data"], &listed["has_more"]), (&json!([file(2)]), &json!(true)));
    let rest = app.get("/v1/files?after_id=file_2").await.json();
    assert_eq!((&rest["data"], &rest["last_id"]), (&json!([file(1)]), &json!("file_1")));
    let content = app.get("/v1/files/file_1/content").await;
    assert_eq!((content.status, content.body.as_ref()), (200, &b"<b>hi</b>"[..]));
    let kept = ["content-disposition", "x-content-type-options"].map(|name| content.header(name));
    assert_eq!(kept, [Some("attachment"), Some("nosniff")], "no browser runs it under the gateway's address");
    assert_eq!(app.row_of(&content).await["payload"]["content_bytes"], 9);
    assert_eq!(send(&app, &app.token, "DELETE", "/v1/files/file_1").await.status, 200);
    assert_eq!(app.get("/v1/files/file_1").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scanner_finds_in_a_file_is_refused_and_never_cut_out_unseen() {
    for (entry, status) in [
        (json!({"component": "sallyport/secret-scan", "config": {"action": "deny"}}), 451),
        (json!({"component": "sallyport/secret-scan", "rewrite": true, "config": {"action": "redact"}}), 451),
    ] {
        let app = app(|config| config.set("/bundle", json!([entry]))).await;
        let reply = upload(&app, &app.token, format!("the key is {KEY}, ok").as_bytes()).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (status, "permission_error"), "{reply}");
        let row = app.row_of(&reply).await;
        assert_eq!(row["outcome"], "denied", "{row}");
        assert_eq!(app.upstream.seen(), 0);
        assert_eq!(upload(&app, &app.token, b"nothing in it").await.status, 200);
        assert_eq!(
            upload(&app, &app.token, b"\xff\xfe\x00").await.status,
            200,
            "what is no text is a document as well"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_file_is_nobody_elses_in_a_message_either() {
    let app = app(|config| config).await;
    let other = Admin::new_tenant(&app, "other", "tenant-admin");
    assert_eq!(upload(&app, &app.token, b"hi").await.status, 200);
    let asked = app.upstream.seen();
    for (method, target) in
        [("GET", "/v1/files/file_1"), ("DELETE", "/v1/files/file_1"), ("GET", "/v1/files/file_1/content")]
    {
        let reply = send(&app, &other.token, method, target).await;
        assert_eq!(
            (reply.status, reply.error_type().as_str()),
            (404, "not_found_error"),
            "{method} {target}"
        );
    }
    assert_eq!(send(&app, &other.token, "GET", FILES).await.json()["data"], json!([]));
    let message = |id: &str| {
        let document = json!({"type": "document", "source": {"type": "file", "file_id": id}});
        json!({"model": "claude-sonnet-4-5", "max_tokens": 8, "messages": [{"role": "user", "content": [document]}]})
    };
    let refused = other.call(&message("file_1")).await;
    assert_eq!((refused.status, refused.header("x-sallyport-code")), (404, Some("not_found")), "{refused}");
    assert_eq!(app.row_of(&refused).await["outcome"], "denied");
    assert_eq!(app.upstream.seen(), asked, "the upstream is asked nothing");
    assert_eq!(
        other.call(&message("file_of_nobody")).await.status,
        200,
        "what nobody here has is the upstream's to judge"
    );
    assert_eq!(app.messages(message("file_1")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_form_of_one_file_or_has_no_upstream_for_it_is_refused_in_words() {
    let app = app(|config| config).await;
    let two = [form(b"hi"), form(b"ho")].concat();
    for (kind, body) in [
        ("application/json", form(b"hi")),
        ("multipart/form-data", form(b"hi")),
        ("multipart/form-data; boundary=other", form(b"hi")),
        ("multipart/form-data; boundary=line", two),
        ("multipart/form-data; boundary=line", Vec::new()),
    ] {
        let bearer = format!("Bearer {}", app.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let reply = app.client().send("POST", FILES, &headers, body).await;
        assert_eq!(reply.status, 400, "{kind}: {reply}");
        assert_eq!(reply.error_type(), "invalid_request_error");
    }
    assert_eq!(app.upstream.seen(), 0);
    let elsewhere = TestApp::with(|config| {
        config.set("/gateway/routes", json!([{"model_pattern": "*", "provider": "echo"}]))
    })
    .await;
    let reply = upload(&elsewhere, &elsewhere.token, b"hi").await;
    assert_eq!((reply.status, reply.header("x-sallyport-code")), (404, Some("not_offered")), "{reply}");
    assert_eq!(reply.error_type(), "not_found_error");
}
