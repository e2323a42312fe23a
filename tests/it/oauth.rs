//! The authorization server: what clients, browsers and devices are given, and every way to ask that is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sallyport_tests::browser::{Browser, encode, form, query};
use sallyport_tests::client::{Client, Reply};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::hello;
use crate::sign_in::text;

/// Appendix B of RFC 7636.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const REDIRECT: &str = "http://127.0.0.1:49152/callback";

/// A gateway with a client, and a browser in which its administrator is signed in.
pub(crate) struct Stage {
    pub(crate) app: TestApp,
    pub(crate) browser: Browser,
    pub(crate) client: String,
    issuer: String,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    pub(crate) async fn with(
        change: impl FnOnce(sallyport_tests::gateway::Config) -> sallyport_tests::gateway::Config,
    ) -> Self {
        // Documents name the address, so it is one that is known before.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let app =
            TestApp::with(|config| change(config.set("/server/listen", json!(format!("127.0.0.1:{port}")))))
                .await;
        let made = app.cli_json(&["user", "set-password", "admin", "--generate"]);
        let browser = Browser::signed_in(&app, "admin", made["password"].as_str().unwrap()).await;
        let made = app.cli_json(&[
            "gateway",
            "client",
            "create",
            "Notebook",
            "--redirect",
            "http://127.0.0.1/callback",
        ]);
        let client = made["id"].as_str().unwrap().to_owned();
        let issuer = app.url();
        Self { app, browser, client, issuer }
    }

    /// The parameters of a request that nothing is wrong with.
    fn request(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client_id", self.client.clone()),
            ("redirect_uri", REDIRECT.to_owned()),
            ("response_type", "code".to_owned()),
            ("code_challenge", CHALLENGE.to_owned()),
            ("code_challenge_method", "S256".to_owned()),
            ("scope", "inference openid offline_access".to_owned()),
            ("state", "st/te &1".to_owned()),
            ("nonce", "n-1".to_owned()),
        ]
    }

    /// The same with one of them changed, or without it.
    pub(crate) fn but(&self, name: &str, value: Option<&str>) -> String {
        let mut request = self.request();
        request.retain(|(it, _)| *it != name);
        let mut pairs: Vec<(&str, &str)> =
            request.iter().map(|(name, value)| (*name, value.as_str())).collect();
        pairs.extend(value.map(|value| (name, value)));
        format!("/oauth/authorize?{}", form(&pairs))
    }

    /// Where the browser is sent after its user allowed the request.
    async fn allowed(&mut self, target: &str) -> String {
        let page = self.browser.get(target).await;
        assert_eq!(page.status, 200, "{page}");
        let reply = self.browser.answer("/oauth/authorize", &text(&page), "allow").await;
        assert_eq!(reply.status, 303, "{reply}");
        reply.header("location").unwrap().to_owned()
    }

    pub(crate) async fn code(&mut self) -> String {
        let target = self.but("x", None);
        query(&self.allowed(&target).await, "code").unwrap()
    }

    pub(crate) fn exchange<'a>(&'a self, code: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("grant_type", "authorization_code"),
            ("client_id", &self.client),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ]
    }

    pub(crate) async fn tokens(&mut self) -> Value {
        let code = self.code().await;
        let reply = self.post("/oauth/token", &self.exchange(&code)).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    pub(crate) async fn post(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        post(&self.app.client(), target, &[], form(fields)).await
    }

    pub(crate) async fn call(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        self.app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await.status
    }
}

async fn post(client: &Client, target: &str, headers: &[(&str, &str)], body: String) -> Reply {
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend_from_slice(headers);
    client.send("POST", target, &all, body).await
}

#[track_caller]
fn refused(reply: &Reply, status: u16, error: &str, what: &str) {
    let said = if reply.status == 200 { json!({}) } else { reply.json() };
    assert_eq!((reply.status, said["error"].as_str()), (status, Some(error)), "{what}: {reply}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_say_what_is_there_and_agree_with_the_configuration() {
    let stage = Stage::new().await;
    let get = async |path: &str| stage.app.client().send("GET", path, &[], Bytes::new()).await.json();
    let document = get("/.well-known/oauth-authorization-server").await;
    assert_eq!(document, get("/.well-known/openid-configuration").await);
    assert_eq!(document["issuer"], stage.issuer.as_str());
    assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(document["response_types_supported"], json!(["code"]));
    assert_eq!(document["authorization_response_iss_parameter_supported"], true);
    assert_eq!(document["gateway_protocol_version"], 1);
    assert!(document.get("registration_endpoint").is_none(), "switched off unless somebody wants it");
    for (name, value) in document.as_object().unwrap() {
        if name.ends_with("_endpoint") || name == "jwks_uri" {
            assert!(value.as_str().unwrap().starts_with(&stage.issuer), "{name}: {value}");
        }
    }
    let resource = get("/.well-known/oauth-protected-resource").await;
    assert_eq!(
        (&resource["resource"], &resource["authorization_servers"]),
        (&json!(stage.issuer), &json!([stage.issuer]))
    );
    let below = get("/.well-known/oauth-protected-resource/mcp/files").await;
    assert_eq!(below["resource"], format!("{}/mcp/files", stage.issuer));
    // A refused credential says where that is.
    let reply = stage.app.client().send("GET", "/v1/models", &[], Bytes::new()).await;
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(
        challenge.contains(&format!(
            "resource_metadata=\"{}/.well-known/oauth-protected-resource\"",
            stage.issuer
        ))
    );
    let reply = stage.app.post("/oauth/register", &[], "{}").await;
    assert_eq!(reply.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_with_its_verifier_becomes_tokens_that_open_the_gateway() {
    let mut stage = Stage::new().await;
    let target = stage.but("x", None);
    let page = stage.browser.get(&target).await;
    assert!(text(&page).contains("Notebook") && text(&page).contains("http://127.0.0.1:49152"), "{page}");
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    let no = stage.browser.answer("/oauth/authorize", &text(&page), "refuse").await;
    assert_eq!(query(no.header("location").unwrap(), "error").as_deref(), Some("access_denied"));
    let to = stage.allowed(&target).await;
    assert!(to.starts_with(&format!("{REDIRECT}?code=")), "{to}");
    assert_eq!(query(&to, "state").as_deref(), Some("st/te &1"));
    assert_eq!(query(&to, "iss").as_deref(), Some(stage.issuer.as_str()));

    let code = query(&to, "code").unwrap();
    let tokens = stage.post("/oauth/token", &stage.exchange(&code)).await.json();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(3600)), "{tokens}");
    assert_eq!(tokens["scope"], "inference openid");
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(stage.call(access).await, 200);
    let claims = crate::claims(access);
    assert_eq!(
        (&claims["cid"], &claims["src"], &claims["auth_tier"]),
        (&json!(stage.client), &json!("oauth"), &json!("session"))
    );
    let id = tokens["id_token"].as_str().unwrap();
    let claims = crate::claims(id);
    assert_eq!(
        (&claims["aud"], &claims["nonce"], &claims["iss"]),
        (&json!(stage.client), &json!("n-1"), &json!(stage.issuer))
    );
    assert_eq!(stage.call(id).await, 401, "an ID token opens nothing");

    let bearer = format!("Bearer {access}");
    let who = stage
        .app
        .client()
        .send("GET", "/oauth/userinfo", &[("authorization", &bearer)], Bytes::new())
        .await
        .json();
    assert_eq!((&who["sub"], &who["name"]), (&claims["sub"], &json!("admin")), "{who}");
    let pat = stage.app.get("/oauth/userinfo").await;
    assert_eq!((pat.status, pat.header("x-sallyport-code")), (403, Some("insufficient_scope")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_wrong_is_told_to_the_client_or_where_that_is_not_sure_to_nobody() {
    let mut stage = Stage::new().await;
    // O1 to O3, O6, O8, O9: the client is known, and is told.
    for (name, value, error) in [
        ("code_challenge", None, "invalid_request"),
        ("code_challenge", Some(""), "invalid_request"),
        ("code_challenge", Some("short"), "invalid_request"),
        ("code_challenge", Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM="), "invalid_request"),
        ("code_challenge", Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM"), "invalid_request"),
        ("code_challenge_method", None, "invalid_request"),
        ("code_challenge_method", Some("plain"), "invalid_request"),
        ("code_challenge_method", Some("S512"), "invalid_request"),
        ("response_type", None, "invalid_request"),
        ("response_type", Some("token"), "unsupported_response_type"),
        ("response_type", Some("id_token"), "unsupported_response_type"),
        ("scope", Some("root"), "invalid_scope"),
        ("scope", Some("inference admin"), "invalid_scope"),
        ("resource", Some("https://elsewhere.example"), "invalid_target"),
        ("resource", Some(&format!("{}/mcp#x", stage.issuer)), "invalid_target"),
        ("resource", Some(&format!("{}.evil.example", stage.issuer)), "invalid_target"),
        ("request_uri", Some("https://elsewhere.example/r"), "invalid_request"),
    ] {
        let reply = stage.browser.get(&stage.but(name, value)).await;
        let to = reply.header("location").unwrap_or_else(|| panic!("{name} {value:?}: {reply}"));
        assert!(to.starts_with(&format!("{REDIRECT}?error=")), "{to}");
        assert_eq!(query(to, "error").as_deref(), Some(error), "{name} {value:?}: {to}");
        assert_eq!(query(to, "iss").as_deref(), Some(stage.issuer.as_str()));
        assert_eq!(query(to, "state").as_deref(), Some("st/te &1"));
    }
    // O4, O5, O7: the browser stays here.
    for redirect in [
        "",
        "https://elsewhere.example/",
        "http://127.0.0.1:1/callback/x",
        "http://127.0.0.1:1/call",
        "http://127.0.0.1:1/x/../callback",
        "http://127.0.0.1:1/callback?x=1",
        "http://127.0.0.1:1/callback#x",
        "http://127.0.0.1:1/%63allback",
        "http://user@127.0.0.1:1/callback",
        "http://127.0.0.1.:1/callback",
        "http://127.0.0.1.evil.com:1/callback",
        "http://127.1:1/callback",
        "http://localhost:1/callback",
        "http://[::1]:1/callback",
        "HTTP://127.0.0.1:1/callback",
        "https://127.0.0.1:1/callback",
    ] {
        let reply = stage.browser.get(&stage.but("redirect_uri", Some(redirect))).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{redirect}");
    }
    for target in [
        stage.but("client_id", Some("sp_unknown")),
        stage.but("client_id", None),
        format!("{}&client_id=sp_unknown", stage.but("x", None)),
        format!("{}&state=other", stage.but("x", None)),
    ] {
        let reply = stage.browser.get(&target).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{target}");
    }
    // Nobody who is not signed in is asked, and nothing is granted without the page's own form.
    let mut stranger = Browser::of(&stage.app);
    let target = stage.but("x", None);
    assert_eq!(
        stranger.get(&target).await.header("location"),
        Some(format!("/sign-in?next={}", encode(&target)).as_str())
    );
    let request = stage.request();
    let fields: Vec<_> =
        request.iter().map(|(name, value)| (*name, value.as_str())).chain([("answer", "allow")]).collect();
    assert_eq!(stage.browser.submit("/oauth/authorize", &fields).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_once_for_its_client_its_address_and_its_verifier() {
    let mut stage = Stage::new().await;
    let other = stage.app.cli_json(&[
        "gateway",
        "client",
        "create",
        "Other",
        "--redirect",
        "http://127.0.0.1/callback",
    ]);
    let code = stage.code().await;
    let with = |name: &'static str, value: &'static str| {
        let mut fields = stage.exchange(&code);
        fields.retain(|(it, _)| *it != name);
        if !value.is_empty() {
            fields.push((name, value));
        }
        form(&fields)
    };
    let short: &'static str = VERIFIER.get(..42).unwrap();
    let other_id: &'static str = Box::leak(other["id"].as_str().unwrap().to_owned().into_boxed_str());
    let client = stage.app.client();
    for (name, value, status, error) in [
        ("code_verifier", "", 400, "invalid_request"),
        ("code_verifier", short, 400, "invalid_request"),
        ("code_verifier", "eBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", 400, "invalid_grant"),
        ("redirect_uri", "", 400, "invalid_request"),
        ("redirect_uri", "http://127.0.0.1:49153/callback", 400, "invalid_grant"),
        ("client_id", other_id, 400, "invalid_grant"),
        ("client_id", "sp_unknown", 401, "invalid_client"),
        ("code", "unknown", 400, "invalid_grant"),
        ("code", "", 400, "invalid_request"),
        ("grant_type", "", 400, "invalid_request"),
        ("grant_type", "password", 400, "unsupported_grant_type"),
        ("grant_type", "implicit", 400, "unsupported_grant_type"),
        ("grant_type", "client_credentials", 400, "unsupported_grant_type"),
    ] {
        let reply = post(&client, "/oauth/token", &[], with(name, value)).await;
        refused(&reply, status, error, &format!("{name}={value}"));
    }
    let twice = format!("{}&code=other", with("x", ""));
    refused(&post(&client, "/oauth/token", &[], twice).await, 400, "invalid_request", "a name twice");
    let reply = post(&client, &format!("/oauth/token?code={code}"), &[], with("code", "")).await;
    refused(&reply, 400, "invalid_request", "in the address");
    let reply = client.send("POST", "/oauth/token", &[("content-type", "application/json")], "{}").await;
    refused(&reply, 400, "invalid_request", "JSON");

    // None of it used the code up. Fifty at once: one has it, and what that one was given ends, since one of them was not its owner.
    let body = with("x", "");
    let racing = (0..50).map(|_| post(&client, "/oauth/token", &[], body.clone()));
    let replies = futures_util::future::join_all(racing).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 49));
    for reply in &lost {
        refused(reply, 400, "invalid_grant", "a second use");
    }
    let tokens = won[0].json();
    let access = tokens["access_token"].as_str().unwrap();
    until("the tokens of the code are over", SOON, || async {
        (stage.call(access).await == 401).then_some(())
    })
    .await;
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", stage.client.as_str()),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    refused(&stage.post("/oauth/token", &refresh).await, 400, "invalid_grant", "its refresh token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_its_family() {
    let mut stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let id = stage.client.clone();
    let with = |refresh: &str, more: &[(&str, &str)]| {
        let mut fields =
            vec![("grant_type", "refresh_token"), ("client_id", id.as_str()), ("refresh_token", refresh)];
        fields.extend_from_slice(more);
        form(&fields)
    };
    let client = stage.app.client();
    let first = tokens["refresh_token"].as_str().unwrap();
    // O16, and others' tokens: nothing of it uses the token up.
    for (body, error) in [
        (with(first, &[("scope", "inference admin")]), "invalid_scope"),
        (with(first, &[("resource", "https://elsewhere.example")]), "invalid_target"),
        (with("unknown", &[]), "invalid_grant"),
        (with(first, &[]).replace(&format!("client_id={id}&"), ""), "invalid_grant"),
    ] {
        refused(&post(&client, "/oauth/token", &[], body.clone()).await, 400, error, &body);
    }
    let narrowed = post(&client, "/oauth/token", &[], with(first, &[("scope", "inference")])).await;
    assert_eq!((narrowed.status, narrowed.json()["scope"].as_str()), (200, Some("inference")), "{narrowed}");
    let second = narrowed.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(second, first);
    let third = post(&client, "/oauth/token", &[], with(&second, &[])).await.json();
    assert_eq!(
        crate::claims(third["access_token"].as_str().unwrap())["sid"],
        crate::claims(tokens["access_token"].as_str().unwrap())["sid"]
    );
    assert_eq!(stage.call(third["access_token"].as_str().unwrap()).await, 200);

    refused(
        &post(&client, "/oauth/token", &[], with(&second, &[])).await,
        400,
        "invalid_grant",
        "a second use",
    );
    let newest = third["refresh_token"].as_str().unwrap();
    refused(&post(&client, "/oauth/token", &[], with(newest, &[])).await, 400, "invalid_grant", "the family");
    let access = third["access_token"].as_str().unwrap();
    until("its access tokens are over", SOON, || async { (stage.call(access).await == 401).then_some(()) })
        .await;

    let fresh = stage.tokens().await;
    let body = with(fresh["refresh_token"].as_str().unwrap(), &[]);
    let racing = (0..50).map(|_| post(&client, "/oauth/token", &[], body.clone()));
    let replies = futures_util::future::join_all(racing).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_proves_itself_in_one_way_and_may_ask_about_tokens_of_its_tenant() {
    let mut stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let access = tokens["access_token"].as_str().unwrap();
    let make = |name: &str, more: &[&str]| {
        let all = [&["gateway", "client", "create", name, "--confidential"], more].concat();
        let made = stage.app.cli_json(&all);
        (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
    };
    let (id, secret) = make("Server", &[]);
    let basic = |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let client = stage.app.client();
    let ask = async |headers: &[(&str, &str)], fields: &[(&str, &str)]| {
        post(&client, "/oauth/introspect", headers, form(fields)).await
    };
    let good = basic(&id, &secret);
    for reply in [
        ask(&[("authorization", &good)], &[("token", access)]).await,
        ask(&[], &[("token", access), ("client_id", &id), ("client_secret", &secret)]).await,
    ] {
        let told = reply.json();
        assert_eq!(
            (&told["active"], &told["client_id"], &told["scope"]),
            (&json!(true), &json!(stage.client), &json!("inference openid"))
        );
    }
    for (headers, fields, status, error) in [
        (vec![("authorization", basic(&id, "wrong"))], vec![("token", access)], 401, "invalid_client"),
        (vec![("authorization", "Bearer x".to_owned())], vec![("token", access)], 401, "invalid_client"),
        (
            vec![("authorization", good.clone())],
            vec![("token", access), ("client_secret", secret.as_str())],
            400,
            "invalid_request",
        ),
        (vec![], vec![("token", access)], 401, "invalid_client"),
        (vec![], vec![("token", access), ("client_id", stage.client.as_str())], 401, "invalid_client"),
        (vec![], vec![("token", access), ("client_id", id.as_str())], 401, "invalid_client"),
        (vec![("authorization", good.clone())], vec![], 400, "invalid_request"),
    ] {
        let borrowed: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = ask(&borrowed, &fields).await;
        refused(&reply, status, error, &format!("{headers:?} {fields:?}"));
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
    stage.app.cli(&["tenant", "create", "acme"]);
    let (other, other_secret) = make("Acme's", &["--tenant", "acme"]);
    let auth = basic(&other, &other_secret);
    for (auth, token) in [
        (auth.as_str(), access),
        (good.as_str(), "unknown"),
        (good.as_str(), access.get(..access.len() - 1).unwrap()),
    ] {
        let reply = ask(&[("authorization", auth)], &[("token", token)]).await;
        assert_eq!((reply.status, reply.json()), (200, json!({ "active": false })));
    }

    // RFC 7009: what nobody knows is taken back too, and another client's is left alone.
    let revoke =
        async |fields: &[(&str, &str)]| post(&client, "/oauth/revoke", &[], form(fields)).await.status;
    assert_eq!(revoke(&[("token", "unknown"), ("client_id", &stage.client)]).await, 200);
    assert_eq!(revoke(&[("token", tokens["refresh_token"].as_str().unwrap())]).await, 200);
    assert_eq!(stage.call(access).await, 200, "it was another client's");
    assert_eq!(
        revoke(&[("token", tokens["refresh_token"].as_str().unwrap()), ("client_id", &stage.client)]).await,
        200
    );
    until("the session is over", SOON, || async { (stage.call(access).await == 401).then_some(()) }).await;
    let told = ask(&[("authorization", &good)], &[("token", access)]).await.json();
    assert_eq!(told, json!({ "active": false }));
    let tokens = stage.tokens().await;
    let access = tokens["access_token"].as_str().unwrap();
    stage.app.cli(&["gateway", "client", "delete", &stage.client]);
    until("what the client was granted is over", SOON, || async {
        (stage.call(access).await == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_browser_is_let_in_by_its_user_as_claude_code_asks_for_it() {
    let mut stage = Stage::new().await;
    // The recorded request: no client, no scope.
    let begun = stage.post("/oauth/device_authorization", &[("surface", "claude_code")]).await;
    assert_eq!(begun.status, 200, "{begun}");
    let begun = begun.json();
    assert_eq!((&begun["expires_in"], &begun["interval"]), (&json!(600), &json!(5)));
    assert_eq!(begun["verification_uri"], format!("{}/device", stage.issuer));
    let code = begun["user_code"].as_str().unwrap().to_owned();
    assert_eq!(begun["verification_uri_complete"], format!("{}/device?user_code={code}", stage.issuer));
    assert!(
        code.len() == 9 && code.replace('-', "").bytes().all(|b| b"BCDFGHJKLMNPQRSTVWXZ".contains(&b)),
        "{code}"
    );
    let device = begun["device_code"].as_str().unwrap().to_owned();
    let poll = [("grant_type", DEVICE), ("device_code", device.as_str())];
    refused(&stage.post("/oauth/token", &poll).await, 400, "authorization_pending", "nobody has decided");
    refused(&stage.post("/oauth/token", &poll).await, 400, "slow_down", "too soon");
    let other =
        [("grant_type", DEVICE), ("device_code", device.as_str()), ("client_id", stage.client.as_str())];
    refused(&stage.post("/oauth/token", &other).await, 400, "invalid_grant", "another client");
    let unknown = [("grant_type", DEVICE), ("device_code", "unknown")];
    refused(&stage.post("/oauth/token", &unknown).await, 400, "invalid_grant", "an unknown code");

    let target = format!("/device?user_code={}", code.to_lowercase().replace('-', "%20"));
    let page = stage.browser.get(&target).await;
    assert!(text(&page).contains("Claude Code") && text(&page).contains(&code), "{page}");
    assert_eq!(stage.browser.get("/device?user_code=BBBB-BBBB").await.status, 404);
    let done = stage.browser.answer("/device", &text(&page), "allow").await;
    assert_eq!(done.status, 200, "{done}");
    assert_eq!(stage.browser.answer("/device", &text(&page), "refuse").await.status, 404, "it was decided");
    let tokens = stage.post("/oauth/token", &poll).await;
    assert_eq!(tokens.status, 200, "{tokens}");
    let tokens = tokens.json();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(
        (&crate::claims(access)["cid"], &crate::claims(access)["src"]),
        (&json!("sp_cli"), &json!("cli"))
    );
    assert_eq!(stage.call(access).await, 200);
    refused(&stage.post("/oauth/token", &poll).await, 400, "invalid_grant", "a second time");
    // As Claude Code refreshes: without a client.
    let refresh =
        [("grant_type", "refresh_token"), ("refresh_token", tokens["refresh_token"].as_str().unwrap())];
    assert_eq!(stage.post("/oauth/token", &refresh).await.status, 200);

    let begun = stage.post("/oauth/device_authorization", &[]).await.json();
    let page =
        stage.browser.get(&format!("/device?user_code={}", begun["user_code"].as_str().unwrap())).await;
    stage.browser.answer("/device", &text(&page), "refuse").await;
    let poll = [("grant_type", DEVICE), ("device_code", begun["device_code"].as_str().unwrap())];
    refused(&stage.post("/oauth/token", &poll).await, 400, "access_denied", "it was turned away");
    // Whoever guesses codes is stopped.
    for _ in 0..40 {
        stage.browser.get("/device?user_code=BCDF-GHJK").await;
    }
    assert_eq!(stage.browser.get("/device?user_code=BCDF-GHJK").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_registers_itself_where_that_is_switched_on_and_gets_the_least() {
    let mut stage = Stage::with(|config| config.set("/auth/open_registration", json!(true))).await;
    let document = stage
        .app
        .client()
        .send("GET", "/.well-known/oauth-authorization-server", &[], Bytes::new())
        .await
        .json();
    assert_eq!(document["registration_endpoint"], format!("{}/oauth/register", stage.issuer));
    let register = async |app: &TestApp, body: String| {
        app.client().send("POST", "/oauth/register", &[("content-type", "application/json")], body).await
    };
    // As Claude Code registers.
    let asked = json!({ "client_name": "Claude Code", "redirect_uris": ["http://localhost:7777/callback"],
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "application_type": "native", "token_endpoint_auth_method": "none" });
    let made = register(&stage.app, asked.to_string()).await;
    assert_eq!(made.status, 201, "{made}");
    let made = made.json();
    assert_eq!((&made["scope"], made.get("client_secret")), (&json!("inference openid"), None), "{made}");
    stage.client = made["client_id"].as_str().unwrap().to_owned();
    let target = stage.but("redirect_uri", Some("http://localhost:7777/callback"));
    let page = stage.browser.get(&target).await;
    assert!(
        text(&page).contains("registered itself") && text(&page).contains("http://localhost:7777"),
        "{page}"
    );
    assert_eq!(
        stage.browser.get(&stage.but("redirect_uri", Some("http://localhost:7778/callback"))).await.status,
        400
    );

    for (body, error) in [
        (json!({ "redirect_uris": ["javascript:alert(1)"] }).to_string(), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["http://a.example/"] }).to_string(), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["https://*.a.example/"] }).to_string(), "invalid_redirect_uri"),
        (
            json!({ "redirect_uris": ["https://a.example/"], "jwks_uri": "http://169.254.169.254/" })
                .to_string(),
            "invalid_client_metadata",
        ),
        (
            json!({ "redirect_uris": ["https://a.example/"], "client_name": "a\u{202e}b" }).to_string(),
            "invalid_client_metadata",
        ),
        ("x".repeat(70_000), "invalid_client_metadata"),
        ("[]".to_owned(), "invalid_client_metadata"),
    ] {
        refused(&register(&stage.app, body.clone()).await, 400, error, body.get(..80).unwrap_or(&body));
    }
    let mut last = 0;
    for _ in 0..21 {
        last = register(&stage.app, asked.to_string()).await.status;
    }
    assert_eq!(last, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_in_the_address_or_two_of_them_are_a_bad_request() {
    let app = TestApp::start().await;
    let reply = app.get(&format!("/v1/models?access_token={}", app.token)).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply}");
    let bearer = format!("Bearer {}", app.token);
    let two = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    let reply = app.client().send("GET", "/v1/models", &two, Bytes::new()).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply}");
}
