//! The ways to prove who one is before an access token is given out: which are offered, what each takes, and what a tenant asks for.

use bytes::Bytes;
use sallyport_tests::client::{Client, Protocol, Reply};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::tls::{self, Pair, Validity, authority, replace};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::encrypted::Files;
use crate::hello;

const MTLS: [&str; 2] = ["/v1/auth/cowork/mtls", "/v1/cowork/auth/mtls"];

/// A gateway that asks its clients for certificates, and takes those of the stories' authority.
async fn asking(files: &Files) -> TestApp {
    replace(&files.directory.path().join("clients.pem"), &authority().pem());
    TestApp::with(|config| {
        files
            .on(config)
            .set("/tls/client_ca", json!(files.path("clients.pem")))
            .set("/tls/client_certificates", json!({ "public": "request" }))
    })
    .await
}

fn holding(app: &TestApp, own: Option<&Pair>) -> Client {
    Client::secure(app.address(), tls::believing(&authority().pem(), own), Protocol::Http1)
}

async fn call(client: &Client, bearer: &str) -> Reply {
    let bearer = format!("Bearer {bearer}");
    client.send("POST", "/v1/messages", &[("authorization", &bearer)], hello().to_string()).await
}

/// The payloads of refused credentials with this reason, once there are so many.
async fn refusals(app: &TestApp, reason: &str, count: usize) -> Vec<Value> {
    until("each refusal is a row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["kind"] == "auth" && row["payload"]["reason"] == reason);
        std::future::ready((rows.len() == count).then_some(rows))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_exchanged_for_a_token_that_is_good_only_beside_it() {
    let files = Files::new();
    let app = asking(&files).await;
    let user = app.cli_json(&["user", "create", "ann", "--department", "Finance"]);
    let [own, other] = ["laptop-7.example.org", "laptop-8.example.org"].map(|name| authority().client(name));
    let device = holding(&app, Some(&own));

    // Nobody's name is nobody: what TLS verified says whose device it is only after somebody said so.
    for path in MTLS {
        let reply = device.send("POST", path, &[], Bytes::new()).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (401, "authentication_error"), "{reply}");
    }
    refusals(&app, "certificate_unknown", 2).await;
    app.cli(&["user", "link-certificate", "ann", "dns:laptop-7.example.org"]);
    let (_, said) = app.cli_fails(&["user", "link-certificate", "admin", "dns:laptop-7.example.org"]);
    assert!(said.contains("linked already"), "{said}");

    for path in MTLS {
        let reply = device.send("POST", path, &[], "{}").await;
        assert_eq!(reply.status, 200, "{reply}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let issued = reply.json();
        assert_eq!(issued["headers"]["x-user-id"], user["id"], "{issued}");
        let token = issued["token"].as_str().unwrap();
        let claims = crate::claims(token);
        assert_eq!(claims["auth_tier"], "mtls", "{claims}");
        // `openssl x509 -outform DER | openssl dgst -sha256 -binary | base64url`, by other code than the gateway's.
        let thumbprint = hex_to_base64url(&tls::sha256(&own.der()));
        assert_eq!(claims["cnf"], json!({ "x5t#S256": thumbprint }), "{claims}");

        let beside = call(&device, token).await;
        assert_eq!(beside.status, 200, "{beside}");
        for elsewhere in [holding(&app, None), holding(&app, Some(&other))] {
            let reply = call(&elsewhere, token).await;
            assert_eq!(
                (reply.status, reply.header("x-sallyport-code")),
                (401, Some("invalid_token")),
                "{reply}"
            );
        }
        let bearer = format!("Bearer {token}");
        let who =
            device.send("GET", "/v1/cowork/whoami", &[("authorization", &bearer)], Bytes::new()).await.json();
        assert_eq!(
            (&who["name"], &who["tier"], &who["department"]),
            (&json!("ann"), &json!("mtls"), &json!("Finance"))
        );
        assert_eq!((&who["user"], &who["roles"]), (&user["id"], &json!(["member"])), "{who}");
    }
    for row in refusals(&app, "token_binding", 4).await {
        assert_eq!(row["user_id"], user["id"], "{row}");
    }
    // Without a certificate, with one that no header can replace, and with more than the certificate.
    let xfcc = format!("By=spiffe://x;Hash={};DNS=laptop-7.example.org", tls::sha256(&own.der()));
    for (client, headers, body, status) in [
        (&holding(&app, None), vec![], "{}", 401),
        (&holding(&app, None), vec![("x-forwarded-client-cert", xfcc.as_str())], "{}", 401),
        (&holding(&app, Some(&other)), vec![("x-forwarded-client-cert", xfcc.as_str())], "{}", 401),
        (&device, vec![], "[]", 400),
        (&device, vec![], r#"{"assertion":"eyJ"}"#, 400),
    ] {
        let reply = client.send("POST", MTLS[0], &headers, body).await;
        assert_eq!(reply.status, status, "{body}: {reply}");
    }

    app.cli(&["user", "unlink-certificate", "ann", "dns:laptop-7.example.org"]);
    assert_eq!(device.send("POST", MTLS[0], &[], "{}").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_certificate_ends_with_it_and_names_of_two_users_are_nobodys() {
    let files = Files::new();
    let app = asking(&files).await;
    app.cli(&["user", "create", "ann"]);
    app.cli(&["user", "create", "ben"]);
    app.cli(&["user", "link-certificate", "ann", "dns:shared.example.org"]);
    app.cli(&["user", "link-certificate", "ben", "dns:laptop.example.org"]);
    let both = authority().client_of(&["shared.example.org", "laptop.example.org"], Validity::Days(30));
    assert_eq!(holding(&app, Some(&both)).send("POST", MTLS[0], &[], "").await.status, 401);
    refusals(&app, "certificate_ambiguous", 1).await;

    let brief = authority().client_for("laptop.example.org", Validity::Seconds(120));
    let issued = holding(&app, Some(&brief)).send("POST", MTLS[0], &[], "").await;
    assert_eq!(issued.status, 200, "{issued}");
    let ttl = issued.json()["ttl"].as_u64().unwrap();
    assert!((1..=120).contains(&ttl), "{ttl}");

    let lasting = authority().client("laptop.example.org");
    let device = holding(&app, Some(&lasting));
    let token = device.send("POST", MTLS[0], &[], "").await.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(call(&device, &token).await.status, 200);
    app.cli(&["user", "disable", "ben"]);
    until("the token is over", SOON, || async { (call(&device, &token).await.status == 401).then_some(()) })
        .await;
    assert_eq!(device.send("POST", MTLS[0], &[], "").await.status, 401, "and there is no other one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_asks_for_a_stronger_way_refuses_the_weaker_ones_and_says_which_it_takes() {
    let files = Files::new();
    let app = asking(&files).await;
    let plain = holding(&app, None);
    let pat = format!("Bearer {}", app.token);
    let issued = plain.send("POST", "/v1/auth/cowork/pat", &[("authorization", &pat)], "").await.json();
    let exchanged = issued["token"].as_str().unwrap().to_owned();
    assert_eq!(call(&plain, &exchanged).await.status, 200);

    let shown = app.cli_json(&["tenant", "set-tier", "default", "mtls"]);
    assert_eq!(shown["min_auth_tier"], "mtls");
    for credential in [app.token.as_str(), &exchanged] {
        let reply = until("the tier holds", SOON, || async {
            let reply = call(&plain, credential).await;
            (reply.status != 200).then_some(reply)
        })
        .await;
        assert_eq!((reply.status, reply.header("x-sallyport-code")), (403, Some("tier_required")), "{reply}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("mtls"), "{reply}");
    }
    for path in ["/v1/auth/cowork/pat", "/v1/cowork/auth/pat"] {
        let reply = plain.send("POST", path, &[("authorization", &pat)], "").await;
        assert_eq!((reply.status, reply.header("x-sallyport-code")), (403, Some("tier_required")), "{reply}");
    }
    for row in refusals(&app, "tier_required", 4).await {
        assert_eq!(
            (&row["payload"]["code"], &row["outcome"]),
            (&json!("tier_required"), &json!("denied")),
            "{row}"
        );
        assert_eq!(row["tenant_id"], "default", "{row}");
    }
    // The way that it asks for is open, and so are other tenants.
    app.cli(&["user", "link-certificate", "admin", "dns:laptop"]);
    let own = authority().client("laptop");
    let device = holding(&app, Some(&own));
    let token = device.send("POST", MTLS[0], &[], "").await.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(call(&device, &token).await.status, 200);
    app.cli(&["tenant", "create", "acme"]);
    app.cli(&["user", "create", "--tenant", "acme", "ann"]);
    let minted =
        app.cli_json(&["gateway", "pat", "create", "--tenant", "acme", "--user", "ann", "--name", "x"]);
    assert_eq!(call(&plain, minted["token"].as_str().unwrap()).await.status, 200);
    app.cli(&["tenant", "set-tier", "default", "pat"]);
    until("it takes every way again", SOON, || async {
        (call(&plain, &exchanged).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_that_are_offered_are_those_that_the_configuration_can_carry_out() {
    let app = TestApp::start().await;
    let modes = async |client: &Client| {
        let mut said = Vec::new();
        for path in ["/v1/auth/cowork/capabilities", "/v1/cowork/capabilities"] {
            said.push(client.send("GET", path, &[], Bytes::new()).await.json()["modes"].clone());
        }
        assert_eq!(said[0], said[1]);
        said.remove(0)
    };
    assert_eq!(modes(&app.client()).await, json!(["pat", "session"]));
    let reply = app.post("/v1/auth/cowork/mtls", &[], "{}").await;
    assert_eq!((reply.status, reply.error_type().as_str()), (401, "authentication_error"), "{reply}");
    let who = app.get("/v1/cowork/whoami").await.json();
    assert_eq!((&who["name"], &who["tier"]), (&json!("admin"), &json!("pat")), "{who}");
    assert_eq!(app.client().send("GET", "/v1/cowork/whoami", &[], Bytes::new()).await.status, 401);

    let key = app.client().send("GET", "/v1/cowork/pubkey", &[], Bytes::new()).await.json();
    let jwks = app.client().send("GET", "/.well-known/jwks.json", &[], Bytes::new()).await.json();
    assert_eq!((&key["alg"], &key["crv"], &key["next"]), (&json!("EdDSA"), &json!("Ed25519"), &Value::Null));
    assert_eq!(key["x"].as_str().map(str::len), Some(43), "{key}");
    assert_ne!(key["x"], jwks["keys"][0]["x"], "no key serves two purposes");

    let files = Files::new();
    let app = asking(&files).await;
    assert_eq!(modes(&holding(&app, None)).await, json!(["pat", "session", "mtls"]));
    drop(app);

    let app = TestApp::with(|config| config.set("/auth/tiers", json!(["session"]))).await;
    assert_eq!(modes(&app.client()).await, json!(["session"]));
    let reply = app.post("/v1/auth/cowork/pat", &[], "").await;
    assert_eq!(reply.status, 401, "{reply}");
    refusals(&app, "tier_disabled", 1).await;
}

fn hex_to_base64url(hex: &str) -> String {
    use base64::Engine as _;
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
