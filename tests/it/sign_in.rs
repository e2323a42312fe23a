//! People at a browser: passwords, sessions, and a workstation that a browser lets in.

use bytes::Bytes;
use sallyport_tests::browser::{Browser, encode, form, hidden, query};
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::hello;

/// Appendix B of RFC 7636.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const SESSION: &str = "__Host-sp_session";

/// A gateway, and a password of its administrator.
async fn with_password() -> (TestApp, String) {
    let app = TestApp::start().await;
    let made = app.cli_json(&["user", "set-password", "admin", "--generate"]);
    (app, made["password"].as_str().unwrap().to_owned())
}

pub(crate) fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn link(redirect: &str, state: &str, challenge: &str) -> String {
    format!(
        "/cowork/device-link?redirect={}&state={}&code_challenge={}&device=Ann%27s%20%3Cb%3Elaptop",
        encode(redirect),
        encode(state),
        encode(challenge)
    )
}

async fn exchange(app: &TestApp, headers: &[(&str, &str)], body: Value) -> Reply {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    app.client().send("POST", "/v1/auth/cowork/session", &all, body.to_string()).await
}

async fn call(app: &TestApp, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await.status
}

fn auth_rows(app: &TestApp) -> Vec<(String, String)> {
    let rows = app.audit_rows();
    let rows = rows.iter().filter(|row| row["kind"] == "auth");
    rows.map(|row| {
        (row["payload"]["reason"].as_str().unwrap().to_owned(), row["outcome"].as_str().unwrap().to_owned())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_a_session_that_its_user_sees_and_ends() {
    let (app, password) = with_password().await;
    let mut laptop = Browser::of(&app);
    let first = laptop.get("/account").await;
    assert_eq!((first.status, first.header("location")), (303, Some("/sign-in?next=%2Faccount")));
    let page = laptop.get("/sign-in?next=%2Faccount").await;
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("script-src") && !policy.contains("unsafe") && !text(&page).contains("<script"));

    let wrong = laptop.sign_in("admin", "not the password at all", "/account").await;
    let nobody = laptop.sign_in("nobody", &password, "/account").await;
    let elsewhere = laptop.sign_in("admin of acme", &password, "/account").await;
    for reply in [&wrong, &nobody, &elsewhere] {
        assert_eq!(reply.status, 401);
        assert!(text(reply).contains("The name, the password or the organisation is wrong."));
    }
    assert_eq!(laptop.get("/account").await.status, 303, "nobody is signed in");

    let mut laptop = Browser::signed_in(&app, "admin", &password).await;
    let mut phone = Browser::signed_in(&app, "admin", &password).await;
    let account = text(&laptop.get("/account").await);
    assert_eq!(account.matches("Stories/1.0").count(), 4, "two sessions, each with its button: {account}");
    assert_eq!(account.matches("(this one)").count(), 1);

    // The other session ends from here, and this one by signing out.
    let own = phone.get("/account").await;
    let session = hidden_of(&text(&own), "(this one)");
    let csrf = hidden(&account).into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    let ended = laptop.submit("/account/end", &[("csrf", &csrf), ("session", &session)]).await;
    assert_eq!(ended.status, 303, "{ended}");
    assert_eq!(phone.get("/account").await.status, 303, "the phone has to sign in again");
    let cookie = laptop.cookies[SESSION].clone();
    assert_eq!(laptop.submit("/sign-out", &[("csrf", &csrf)]).await.status, 303);
    assert!(!laptop.cookies.contains_key(SESSION));
    laptop.cookies.insert(SESSION.to_owned(), cookie);
    assert_eq!(laptop.get("/account").await.status, 303, "the cookie is worth nothing any more");

    let rows = until("each of it is a row", SOON, || {
        let rows = auth_rows(&app);
        std::future::ready((rows.len() == 7).then_some(rows))
    })
    .await;
    let count = |reason: &str, outcome: &str| {
        rows.iter().filter(|row| **row == (reason.to_owned(), outcome.to_owned())).count()
    };
    assert_eq!(count("password_wrong", "denied"), 3, "{rows:?}");
    assert_eq!((count("signed_in", "allowed"), count("signed_out", "allowed")), (2, 2), "{rows:?}");
    let everything = format!("{:?}{}", app.audit_rows(), app.log());
    assert!(!everything.contains(&password), "no row and no log repeats a password");
}

/// The session of the row of a table that has this mark.
fn hidden_of(page: &str, mark: &str) -> String {
    let row = page.split("<tr>").find(|row| row.contains(mark)).unwrap();
    row.split("name=\"session\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_from_another_site_or_without_its_token_does_nothing() {
    let (app, password) = with_password().await;
    let mut browser = Browser::of(&app);
    let page = text(&browser.get("/sign-in").await);
    let csrf = hidden(&page).into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    let fields = [("name", "admin"), ("password", password.as_str()), ("tenant", "default")];
    let with = |csrf: &'static str| [("csrf", csrf), fields[0], fields[1], fields[2]];

    assert_eq!(browser.submit("/sign-in", &fields).await.status, 403, "no token");
    assert_eq!(
        browser.submit("/sign-in", &with("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).await.status,
        403
    );
    let right = [("csrf", csrf.as_str()), fields[0], fields[1], fields[2]];
    for origin in ["https://evil.example", "null", "", "http://127.0.0.1:1"] {
        let mut other = browser.clone();
        other.origin = origin.to_owned();
        assert_eq!(other.submit("/sign-in", &right).await.status, 403, "{origin:?}");
    }
    let mut thief = browser.clone();
    thief.cookies.clear();
    assert_eq!(thief.submit("/sign-in", &right).await.status, 403, "the token of another browser");

    let headers = [("origin", browser.origin.clone()), ("content-type", "application/json".to_owned())];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = app.client().send("POST", "/sign-in", &headers, form(&right)).await;
    assert_eq!(reply.status, 415);
    let twice = format!("{}&name=other", form(&right));
    let headers =
        [("origin", browser.origin.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(app.client().send("POST", "/sign-in", &headers, twice).await.status, 400);

    let mut signed_in = Browser::signed_in(&app, "admin", &password).await;
    for target in ["/sign-out", "/account/end", "/cowork/device-link", "/oauth/authorize", "/device"] {
        assert_eq!(
            signed_in.submit(target, &[("csrf", csrf.as_str())]).await.status,
            403,
            "{target}: another's token"
        );
        let mut other = signed_in.clone();
        other.origin = "https://evil.example".to_owned();
        let own = hidden(&text(&signed_in.get("/account").await))[0].1.clone();
        assert_eq!(
            other.submit(target, &[("csrf", own.as_str())]).await.status,
            403,
            "{target}: another site"
        );
    }
    assert_eq!(signed_in.get("/account").await.status, 200, "nothing of it ended the session");
    for next in ["//evil.example/", "https://evil.example/", "/\\evil.example"] {
        let reply = signed_in.get(&format!("/sign-in?next={}", encode(next))).await;
        assert_eq!((reply.status, reply.header("location")), (303, Some("/account")), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_passwords_waits_and_a_new_password_ends_what_the_old_one_began() {
    let (app, password) = with_password().await;
    let mut kept = Browser::signed_in(&app, "admin", &password).await;
    let (_, said) = app.cli_fails(&["user", "set-password", "nobody", "--generate"]);
    assert!(said.contains("there is no user nobody"), "{said}");
    let fresh = app.cli_json(&["user", "set-password", "admin", "--generate"])["password"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(kept.get("/account").await.status, 303, "the old session is over");

    let mut guesser = Browser::of(&app);
    assert_eq!(guesser.sign_in("admin", &password, "/account").await.status, 401, "the old password");
    for number in 1..10 {
        let reply = guesser.sign_in("admin", &format!("guess number {number:04}"), "/account").await;
        assert_eq!(reply.status, 401, "{number}");
    }
    let reply = guesser.sign_in("admin", &fresh, "/account").await;
    assert_eq!(reply.status, 429, "even the right one: {reply}");
    assert!(reply.header("retry-after").is_some());
    app.cli(&["user", "create", "ann"]);
    let other =
        app.cli_json(&["user", "set-password", "ann", "--generate"])["password"].as_str().unwrap().to_owned();
    Browser::signed_in(&app, "ann", &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workstation_is_let_in_by_a_browser_and_stays_in_until_it_is_thrown_out() {
    let (app, password) = with_password().await;
    let redirect = "http://127.0.0.1:49152/callback";
    let target = link(redirect, "state-12345678", CHALLENGE);
    let mut browser = Browser::of(&app);
    let first = browser.get(&target).await;
    assert_eq!(first.header("location"), Some(format!("/sign-in?next={}", encode(&target)).as_str()));
    let entered = browser.sign_in("admin", &password, &target).await;
    assert_eq!((entered.status, entered.header("location")), (303, Some(target.as_str())));
    let page = browser.get(&target).await;
    let html = text(&page);
    assert!(html.contains("Ann&#39;s &lt;b&gt;laptop") && html.contains("http://127.0.0.1:49152"), "{html}");
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("form-action 'self' http://127.0.0.1:49152;")
    );

    let refused = browser.answer("/cowork/device-link", &html, "refuse").await;
    let to = refused.header("location").unwrap();
    assert_eq!(to, format!("{redirect}?error=access_denied&state=state-12345678"));
    let allowed = browser.answer("/cowork/device-link", &html, "allow").await;
    assert_eq!(allowed.status, 303, "{allowed}");
    let to = allowed.header("location").unwrap().to_owned();
    assert!(to.starts_with(&format!("{redirect}?code=")), "{to}");
    assert_eq!(query(&to, "state").as_deref(), Some("state-12345678"));
    let code = query(&to, "code").unwrap();

    // Without the verifier the code is worth nothing, and is not used up by those who try.
    for (code, verifier) in
        [(code.as_str(), "a".repeat(43)), (&code, "short".to_owned()), ("unknown", VERIFIER.to_owned())]
    {
        let reply = exchange(&app, &[], json!({ "code": code, "code_verifier": verifier })).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (401, "authentication_error"), "{reply}");
    }
    for body in
        [json!({ "code": code }), json!({ "code": code, "code_verifier": VERIFIER, "x": 1 }), json!([])]
    {
        assert_eq!(exchange(&app, &[], body.clone()).await.status, 400, "{body}");
    }
    let issued = exchange(&app, &[], json!({ "code": code, "code_verifier": VERIFIER })).await;
    assert_eq!(issued.status, 200, "{issued}");
    assert_eq!(issued.header("cache-control"), Some("no-store"));
    let cookie = issued.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let body = issued.json();
    assert_eq!((body["ttl"].as_u64(), body["headers"].as_object().unwrap().len()), (Some(3600), 7));
    let token = body["token"].as_str().unwrap().to_owned();
    assert_eq!(crate::claims(&token)["auth_tier"], "session");
    assert_eq!(call(&app, &token).await, 200);

    // The cookie is good for more, from the gateway's own address alone.
    let url = app.url();
    let own = [("cookie", cookie.as_str()), ("origin", url.as_str())];
    let again = exchange(&app, &own, json!({})).await;
    assert_eq!(again.status, 200, "{again}");
    assert_eq!(again.json()["headers"]["x-session-id"], body["headers"]["x-session-id"], "one session");
    for (headers, body, status) in [
        (vec![("cookie", cookie.as_str())], "{}", 403),
        (vec![("cookie", cookie.as_str()), ("origin", "https://evil.example")], "{}", 403),
        (vec![("cookie", "__Host-sp_session=AAAA"), ("origin", url.as_str())], "{}", 401),
        (vec![], "{}", 401),
    ] {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers.clone());
        let reply = app.client().send("POST", "/v1/cowork/auth/session", &all, body).await;
        assert_eq!(reply.status, status, "{headers:?}: {reply}");
    }
    let form_type = [("content-type", "application/x-www-form-urlencoded"), own[0], own[1]];
    assert_eq!(app.client().send("POST", "/v1/auth/cowork/session", &form_type, "").await.status, 415);
    assert_eq!(app.client().send("GET", "/v1/auth/cowork/session", &own, Bytes::new()).await.status, 405);

    // A second use is a theft, of the first or of the second: all that came of the code ends.
    let second = exchange(&app, &[], json!({ "code": code, "code_verifier": VERIFIER })).await;
    assert_eq!(second.status, 401, "{second}");
    assert_eq!(exchange(&app, &own, json!({})).await.status, 401);
    until("the token is over", SOON, || async { (call(&app, &token).await == 401).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_elsewhere_or_proves_nothing_is_refused_before_anybody_signs_in() {
    let app = TestApp::start().await;
    let mut browser = Browser::of(&app);
    let good = "http://127.0.0.1:49152/cb";
    for redirect in [
        "https://127.0.0.1:1/cb",
        "http://localhost:1/cb",
        "http://127.0.0.1/cb",
        "http://127.0.0.1:1",
        "http://127.0.0.1:1@evil.example/",
        "http://127.0.0.1.evil.example:1/",
        "http://127.1:1/",
        "http://127.0.0.1:1/cb?x=1",
        "http://127.0.0.1:1/cb#x",
        "javascript:alert(1)",
        "",
    ] {
        let reply = browser.get(&link(redirect, "state-12345678", CHALLENGE)).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{redirect}");
    }
    for (state, challenge) in [
        ("", CHALLENGE),
        ("short", CHALLENGE),
        ("with a space", CHALLENGE),
        ("state-12345678", ""),
        ("state-12345678", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM="),
        ("state-12345678", "short"),
    ] {
        let reply = browser.get(&link(good, state, challenge)).await;
        assert_eq!((reply.status, reply.header("location")), (400, None), "{state} {challenge}");
    }
    let plain = format!("{}&code_challenge_method=plain", link(good, "state-12345678", CHALLENGE));
    assert_eq!(browser.get(&plain).await.status, 400);
    let twice = format!("{}&state=other-12345678", link(good, "state-12345678", CHALLENGE));
    assert_eq!(browser.get(&twice).await.status, 400);
    assert_eq!(browser.get(&link("http://[::1]:49152/", "state-12345678", CHALLENGE)).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_revoked_or_disabled_is_out_of_every_browser_and_device() {
    let (app, password) = with_password().await;
    for command in ["revoke", "disable"] {
        // A session that begins in the second in which its user was revoked counts as one from before.
        let mut browser = until("a new session counts", SOON, || async {
            let mut browser = Browser::of(&app);
            browser.sign_in("admin", &password, "/account").await;
            (browser.get("/account").await.status == 200).then_some(browser)
        })
        .await;
        let page = text(&browser.get(&link("http://127.0.0.1:9/cb", "state-12345678", CHALLENGE)).await);
        let to = browser
            .answer("/cowork/device-link", &page, "allow")
            .await
            .header("location")
            .unwrap()
            .to_owned();
        let code = query(&to, "code").unwrap();
        let issued = exchange(&app, &[], json!({ "code": code, "code_verifier": VERIFIER })).await;
        let cookie = issued.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let token = issued.json()["token"].as_str().unwrap().to_owned();
        assert_eq!(call(&app, &token).await, 200);
        app.cli(&["user", command, "admin"]);
        assert_eq!(browser.get("/account").await.status, 303, "{command}");
        let url = app.url();
        let reply = exchange(&app, &[("cookie", &cookie), ("origin", &url)], json!({})).await;
        assert_eq!(reply.status, 401, "{command}: {reply}");
        until("the token is over", SOON, || async { (call(&app, &token).await == 401).then_some(()) }).await;
    }
    let mut browser = Browser::of(&app);
    assert_eq!(browser.sign_in("admin", &password, "/account").await.status, 401, "a disabled user");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_roles_hold_at_once_and_end_what_said_the_old_ones() {
    let app = TestApp::start().await;
    app.cli(&["user", "create", "ann"]);
    let minted = app.cli_json(&[
        "gateway",
        "pat",
        "create",
        "--user",
        "ann",
        "--name",
        "x",
        "--scope",
        "admin",
        "--scope",
        "inference",
    ]);
    let pat = format!("Bearer {}", minted["token"].as_str().unwrap());
    let look = |bearer: String| {
        let client = app.client();
        async move {
            client
                .send("GET", "/v1/admin/publishers", &[("authorization", &bearer)], Bytes::new())
                .await
                .status
        }
    };
    let token = app.post("/v1/auth/cowork/pat", &[("authorization", &pat)], "").await.json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let exchanged = format!("Bearer {token}");
    assert_eq!((look(pat.clone()).await, look(exchanged.clone()).await), (403, 403));
    let shown = app.cli_json(&["user", "set", "ann", "--role", "author", "--department", "Finance"]);
    assert_eq!((&shown["roles"], &shown["department"]), (&json!(["author"]), &json!("Finance")));
    until("the new role holds", SOON, || async { (look(pat.clone()).await == 200).then_some(()) }).await;
    assert_eq!(look(exchanged).await, 401, "a token that says what held before");
    let shown = app.cli_json(&["user", "set", "ann", "--department", ""]);
    assert_eq!((&shown["roles"], &shown["department"]), (&json!(["author"]), &Value::Null));
    for bad in [
        &["user", "set", "ann"][..],
        &["user", "set", "ann", "--role", "Bad Role"],
        &["user", "set", "nobody", "--role", "author"],
    ] {
        app.cli_fails(bad);
    }
}
