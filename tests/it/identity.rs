//! Who calls: tokens, the exchange, and the seven headers as claims to check.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::postgres::Server;
use sallyport_tests::upstream::Upstream;
use sallyport_tests::vendor::Admin;
use sallyport_tests::wait::{SOON, until};

use crate::hello;

const SEVEN: [&str; 7] = [
    "x-user-id",
    "x-session-id",
    "x-trace-id",
    "x-client-id",
    "x-tenant-id",
    "x-policy-version",
    "x-call-source",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_access_token_works_as_bearer_and_as_api_key() {
    let app = TestApp::start().await;
    assert_eq!(app.messages(hello()).await.status, 200);
    assert_eq!(app.post("/v1/messages", &[("x-api-key", &app.token)], hello().to_string()).await.status, 200);
    let bearer = format!("Bearer {}", app.token);
    let both = [("authorization", bearer.as_str()), ("x-api-key", "sk-ant-something-else")];
    assert_eq!(app.post("/v1/messages", &both, hello().to_string()).await.status, 200, "the bearer wins");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_credential_gets_the_same_401_and_a_row() {
    let app = TestApp::start().await;
    let mut typo = app.token.clone();
    let last = typo.pop().unwrap();
    typo.push(if last == '0' { '1' } else { '0' });
    let mut bodies = Vec::new();
    for credential in
        ["", "Bearer ", "Bearer nonsense", "Basic YTpi", &format!("Bearer {typo}"), "Bearer a.b.c"]
    {
        let reply = app
            .client()
            .send("POST", "/v1/messages", &[("authorization", credential)], hello().to_string())
            .await;
        assert_eq!(
            (reply.status, reply.error_type().as_str()),
            (401, "authentication_error"),
            "{credential:?}"
        );
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        bodies.push(reply.json()["error"].to_string());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one message for all: {bodies:?}");
    assert_eq!(app.upstream.seen(), 0);
    let rows = until("each failure is a row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["kind"] == "auth");
        std::future::ready((rows.len() == 6).then_some(rows))
    })
    .await;
    for row in rows {
        assert_eq!(row["outcome"], "denied", "{row}");
        assert!(!row.to_string().contains(&typo), "a row must not repeat a credential");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_scope_is_a_403_and_a_row_that_names_its_user() {
    let app = TestApp::start().await;
    let minted =
        app.cli_json(&["gateway", "pat", "create", "--user", "admin", "--name", "ops", "--scope", "admin"]);
    let bearer = format!("Bearer {}", minted["token"].as_str().unwrap());
    for target in ["/v1/messages", "/v1/messages/count_tokens", "/v1/hooks/Stop"] {
        let reply = app.post(target, &[("authorization", &bearer)], hello().to_string()).await;
        assert_eq!(
            (reply.status, reply.header("x-sallyport-code")),
            (403, Some("insufficient_scope")),
            "{target}: {reply}"
        );
    }
    assert_eq!(app.upstream.seen(), 0);
    let rows = until("each refusal is a row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["kind"] == "auth" && row["payload"]["code"] == "insufficient_scope");
        std::future::ready((rows.len() == 3).then_some(rows))
    })
    .await;
    for row in rows {
        assert_eq!(row["outcome"], "denied", "{row}");
        assert!(row["user_id"].as_str().unwrap().starts_with("u_") && row["tenant_id"] == "default", "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_that_is_known_names_its_user_on_the_row_and_nothing_to_the_client() {
    let app = TestApp::start().await;
    app.cli(&["tenant", "create", "acme", "--name", "Acme"]);
    let user = app.cli_json(&["user", "create", "--tenant", "acme", "ann"]);
    let mint = |name: &str| {
        let made =
            app.cli_json(&["gateway", "pat", "create", "--tenant", "acme", "--user", "ann", "--name", name]);
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    };
    let refused = async |token: &str| {
        let bearer = format!("Bearer {token}");
        until("the credential is refused", SOON, || async {
            let reply = app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await;
            (reply.status == 401).then_some(reply)
        })
        .await
    };
    let (id, token) = mint("laptop");
    let issued = app.post("/v1/auth/cowork/pat", &[("authorization", &format!("Bearer {token}"))], "").await;
    let jwt = issued.json()["token"].as_str().unwrap().to_owned();
    app.cli(&["gateway", "pat", "revoke", "--tenant", "acme", &id]);
    let known = refused(&token).await;
    refused(&jwt).await;
    let (_, other) = mint("desktop");
    app.cli(&["user", "disable", "--tenant", "acme", "ann"]);
    refused(&other).await;
    // A secret that was guessed under a token's id is nobody's.
    let mut guessed = app.token.clone();
    let last = guessed.pop().unwrap();
    guessed.push(if last == '0' { '1' } else { '0' });
    let unknown = refused(&guessed).await;
    let said = |reply: &sallyport_tests::client::Reply| reply.json()["error"].to_string();
    assert_eq!(said(&known), said(&unknown), "the client learns nothing");

    let rows = until("each refusal is a row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["payload"]["code"] == "invalid_token");
        let reasons = ["pat_revoked", "user_disabled", "pat_mistyped"];
        let there = reasons.iter().all(|reason| rows.iter().any(|row| row["payload"]["reason"] == *reason));
        let both = rows.iter().filter(|row| row["payload"]["reason"] == "pat_revoked").count() >= 2;
        std::future::ready((there && both).then_some(rows))
    })
    .await;
    for row in rows {
        if row["payload"]["reason"] == "pat_mistyped" {
            assert_eq!((row["user_id"].as_str(), row["tenant_id"].as_str()), (Some("-"), Some("-")), "{row}");
            continue;
        }
        assert_eq!((&row["user_id"], row["tenant_id"].as_str()), (&user["id"], Some("acme")), "{row}");
        assert!(row["payload"]["credential"].as_str().is_some_and(|it| !it.is_empty()), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_gives_a_token_and_the_seven_headers_that_go_with_it() {
    let app = TestApp::start().await;
    for path in ["/v1/auth/cowork/pat", "/v1/cowork/auth/pat"] {
        let issued = app.post(path, &[], "").await;
        assert_eq!(issued.status, 200, "{issued}");
        let issued = issued.json();
        let token = issued["token"].as_str().unwrap();
        assert_eq!(issued["ttl"], 3600);
        let headers = issued["headers"].as_object().unwrap();
        for name in SEVEN {
            assert!(headers[name].as_str().is_some_and(|value| !value.is_empty()), "{name} of {headers:?}");
        }
        assert_eq!(headers.len(), 7);
        let bearer = format!("Bearer {token}");
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        let reply = app.post("/v1/messages", &all, hello().to_string()).await;
        assert_eq!(reply.status, 200, "{reply}");
        let row = app.row_of(&reply).await;
        for (column, name) in [
            ("user_id", "x-user-id"),
            ("session_id", "x-session-id"),
            ("client_id", "x-client-id"),
            ("tenant_id", "x-tenant-id"),
        ] {
            assert_eq!(row[column], headers[name], "{column}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_says_something_else_than_the_token_is_refused_and_is_a_row() {
    let app = TestApp::start().await;
    let pat = format!("Bearer {}", app.token);
    let issued = app.post("/v1/auth/cowork/pat", &[], "").await.json();
    let jwt = format!("Bearer {}", issued["token"].as_str().unwrap());
    let wrong = [
        (&pat, "x-user-id", "u_somebodyelse"),
        (&pat, "x-client-id", "sp_other"),
        (&pat, "x-tenant-id", "another-tenant"),
        (&pat, "x-policy-version", "0000"),
        (&pat, "x-call-source", "mcp"),
        (&jwt, "x-user-id", "u_somebodyelse"),
        (&jwt, "x-session-id", "sess_0123456789abcdef0123456789abcdef"),
        (&jwt, "x-client-id", "sp_other"),
        (&jwt, "x-tenant-id", "another-tenant"),
        (&jwt, "x-policy-version", "0000"),
        (&jwt, "x-call-source", "mcp"),
    ];
    for (credential, name, value) in wrong {
        let headers = [("authorization", credential.as_str()), (name, value)];
        let reply = app.post("/v1/messages", &headers, hello().to_string()).await;
        assert_eq!(reply.status, 403, "{name}: {reply}");
        assert_eq!(reply.header("x-sallyport-code"), Some("identity_mismatch"), "{name}: {reply}");
        assert_eq!(reply.error_type(), "permission_error", "{name}: {reply}");
    }
    assert_eq!(app.upstream.seen(), 0);
    until("each mismatch is a row", Duration::from_secs(10), || {
        let rows = app.audit_rows();
        let refused = rows.iter().filter(|row| row["kind"] == "auth" && row["outcome"] == "denied");
        std::future::ready((refused.count() == wrong.len()).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_other_software_has_under_these_names_are_noted_and_shut_nobody_out() {
    let app = TestApp::start().await;
    let foreign = [
        ("x-session-id", "ses_6a1bf8d2fffe"),
        ("x-session-affinity", "ses_6a1bf8d2fffe"),
        ("x-trace-id", "3a3828d5-0cad-4840-bf74-e3c4d76f3981"),
        ("x-client-id", "opencode"),
        ("x-call-source", "terminal"),
    ];
    let reply = app.post("/v1/messages", &foreign, hello().to_string()).await;
    assert_eq!(reply.status, 200, "{reply}");
    let row = app.row_of(&reply).await;
    let noted = &row["payload"]["ignored_headers"];
    assert_eq!(
        noted,
        &serde_json::json!(["x-session-id", "x-client-id", "x-call-source", "x-trace-id"]),
        "{row}"
    );
    let seen = app.upstream.last();
    for name in ["x-session-id", "x-trace-id", "x-client-id", "x-call-source"] {
        assert_eq!(seen.header(name), None, "{name} stops at the gateway");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_admin_reaches_the_platform_from_its_own_tenant_alone() {
    let app = TestApp::start().await;
    app.cli(&["tenant", "create", "acme", "--name", "Acme"]);
    let (_, said) = app.cli_fails(&["user", "create", "--tenant", "acme", "ann", "--role", "admin"]);
    assert!(said.contains("tenant-admin"), "{said}");
    let bearer = format!("Bearer {}", Admin::of(&app).token);
    let get = |path: &'static str| {
        let (client, bearer) = (app.client(), bearer.clone());
        async move { client.send("GET", path, &[("authorization", &bearer)], Bytes::new()).await }
    };
    let reply = get("/v1/admin/components?tenant=nobody").await;
    assert_eq!(reply.status, 404, "{reply}");
    for path in ["/v1/admin/components?x=1", "/v1/models/%ff"] {
        let reply = get(path).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply}");
        assert!(reply.header("request-id").is_some(), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_stops_working_soon_and_so_does_what_it_was_exchanged_for() {
    let app = TestApp::start().await;
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", "admin", "--name", "short"]);
    let pat = format!("Bearer {}", minted["token"].as_str().unwrap());
    let issued = app.post("/v1/auth/cowork/pat", &[("authorization", &pat)], "").await.json();
    let jwt = format!("Bearer {}", issued["token"].as_str().unwrap());
    for credential in [&pat, &jwt] {
        assert_eq!(
            app.post("/v1/messages", &[("authorization", credential)], hello().to_string()).await.status,
            200
        );
    }
    app.cli(&["gateway", "pat", "revoke", minted["id"].as_str().unwrap()]);
    let revoked = Instant::now();
    for credential in [&pat, &jwt] {
        until("the revocation takes effect", SOON, || async {
            let reply = app.post("/v1/messages", &[("authorization", credential)], hello().to_string()).await;
            (reply.status == 401).then_some(())
        })
        .await;
        if crate::soak() {
            assert!(revoked.elapsed() < Duration::from_millis(2500), "{:?}", revoked.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_and_the_capabilities_are_public_and_hold_no_secret() {
    let app = TestApp::start().await;
    let reply = app.client().send("GET", "/.well-known/jwks.json", &[], Bytes::new()).await;
    let keys = reply.json();
    let key = &keys["keys"][0];
    assert_eq!((&key["kty"], &key["crv"]), (&"OKP".into(), &"Ed25519".into()), "{keys}");
    assert!(key["kid"].is_string() && key.get("d").is_none());
    for path in ["/v1/auth/cowork/capabilities", "/v1/cowork/capabilities"] {
        let reply = app.client().send("GET", path, &[], Bytes::new()).await.json();
        assert!(reply["modes"].as_array().unwrap().iter().any(|mode| mode == "pat"), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_a_revoked_an_unknown_and_a_malformed_token_are_told_the_same_to_the_byte() {
    let Some(server) = Server::start().unwrap() else {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        crate::tell("skipped: expired tokens (no PostgreSQL server is installed)");
        return;
    };
    let on = |config: sallyport_tests::gateway::Config| {
        config.set("/database", serde_json::json!({"url": server.url()}))
    };
    let app = TestApp::on(Upstream::start(), on).await;
    // Of another gateway: well made, and known to nobody here.
    let unknown = app.token.clone();
    let live = Admin::of(&app).token;
    let mint = |name: &str| app.cli_json(&["gateway", "pat", "create", "--user", "admin", "--name", name]);
    let (expired, revoked) = (mint("expired"), mint("revoked"));
    let token = |minted: &serde_json::Value| minted["token"].as_str().unwrap().to_owned();
    server
        .execute("UPDATE pats SET expires_at = now() - interval '1 minute' WHERE name = 'expired'")
        .unwrap();
    app.cli(&["gateway", "pat", "revoke", revoked["id"].as_str().unwrap()]);
    let mut bodies = Vec::new();
    for bad in [token(&expired), token(&revoked), unknown, "sp_pat_nonsense".to_owned()] {
        let bearer = format!("Bearer {bad}");
        let reply = until("the token is refused", Duration::from_secs(5), || async {
            let reply = app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await;
            (reply.status == 401).then_some(reply)
        })
        .await;
        let id = reply.json()["request_id"].as_str().unwrap().to_owned();
        bodies.push(String::from_utf8(reply.body.to_vec()).unwrap().replace(&id, "req"));
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let bearer = format!("Bearer {live}");
    assert_eq!(
        app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await.status,
        200
    );
}
