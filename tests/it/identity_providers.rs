//! People who sign in at an identity provider: whom it means, what follows from its groups, and every way in which it may lie.

use sallyport_tests::browser::{Browser, encode, hidden, onward, query};
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::identity_provider::{IdentityProvider, Lie, SECRET};
use sallyport_tests::postgres::Server;
use sallyport_tests::upstream::Upstream;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::sign_in::text;
use crate::{another_second, hello, tell};

/// A provider, and a gateway whose people sign in there.
struct Stage {
    provider: IdentityProvider,
    app: TestApp,
}

impl Stage {
    async fn new(entry: Value) -> Self {
        Self::with(entry, |config| config).await
    }

    /// With these keys besides the usual ones of the provider's entry.
    async fn with(entry: Value, change: impl FnOnce(Config) -> Config) -> Self {
        let provider = IdentityProvider::start();
        let entry = merged(provider.entry("directory"), entry);
        let app = TestApp::on(Upstream::start(), |config| {
            change(config.secret("directory", json!(SECRET)).set("/auth/providers", json!([entry])))
        })
        .await;
        Self { provider, app }
    }

    /// Puts these keys into the provider's entry.
    fn reload(&self, entry: Value) {
        let entry = merged(self.provider.entry("directory"), entry);
        self.app.reload(|config| config.set("/auth/providers", json!([entry])));
    }

    /// Presses the provider's button: where the browser is sent.
    async fn sent(&self, browser: &mut Browser, next: &str) -> String {
        let reply = press(browser, "directory", next).await;
        assert_eq!(reply.status, 200, "{reply}");
        onward(&reply).unwrap().to_owned()
    }

    /// The whole way, with somebody who signs in at the provider.
    async fn enters(&self, browser: &mut Browser, person: Value, next: &str) -> Reply {
        let url = self.sent(browser, next).await;
        let target = self.provider.signs_in(&url, person);
        browser.arrive(&target).await
    }

    /// The same with a fresh browser; who is let in has one that is signed in.
    async fn comes(&self, person: Value) -> (Browser, Reply) {
        let mut browser = Browser::of(&self.app);
        let reply = self.enters(&mut browser, person, "/account").await;
        (browser, reply)
    }

    /// Reasons of rows of kind `auth`, without the usual ones, once there are so many.
    async fn reasons(&self, count: usize) -> Vec<String> {
        until("each has its row", SOON, || {
            let rows = self.app.audit_rows();
            let rows: Vec<_> = rows.iter().filter(|row| row["kind"] == "auth").collect();
            let reasons = rows.iter().map(|row| row["payload"]["reason"].as_str().unwrap().to_owned());
            let reasons: Vec<_> = reasons.filter(|reason| reason != "signed_in").collect();
            std::future::ready((reasons.len() >= count).then_some(reasons))
        })
        .await
    }

    fn user(&self, name: &str) -> Option<Value> {
        let users = self.app.cli_json(&["user", "list"]);
        users.as_array().unwrap().iter().find(|user| user["name"] == name).cloned()
    }
}

fn merged(mut entry: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (entry.as_object_mut(), more) {
        fields.extend(more);
    }
    entry
}

async fn press(browser: &mut Browser, provider: &str, next: &str) -> Reply {
    let page = text(&browser.get(&format!("/sign-in?next={}", encode(next))).await);
    let csrf = hidden(&page).into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    browser.submit("/sign-in/with", &[("csrf", &csrf), ("next", next), ("provider", provider)]).await
}

fn ann() -> Value {
    json!({"sub": "ann-1", "email": "ann@acme.example", "email_verified": true})
}

/// Nobody was let in: the page says how to go on.
#[track_caller]
fn stays_out(browser: &Browser, reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply}");
    let page = text(reply);
    assert!(page.contains("You are not signed in") && page.contains("role=\"alert\""), "{page}");
    assert!(page.contains("href=\"/sign-in?next="), "{page}");
    assert_eq!(onward(reply), None);
    assert!(!browser.cookies.contains_key("__Host-sp_session"));
}

async fn somebody_signs_in_and_what_was_begun_goes_on(stage: &Stage) {
    let Stage { app, provider } = stage;
    // A device waits; its user comes to the page with the code and has to sign in first.
    let asked = app
        .client()
        .send(
            "POST",
            "/oauth/device_authorization",
            &[("content-type", "application/x-www-form-urlencoded")],
            "surface=claude_code",
        )
        .await
        .json();
    let next = format!("/device?user_code={}", asked["user_code"].as_str().unwrap());
    let mut browser = Browser::of(app);
    let page = browser.get(&format!("/sign-in?next={}", encode(&next))).await;
    assert!(text(&page).contains("Sign in with The &lt;Directory&gt;"), "{}", text(&page));
    let entered = stage.enters(&mut browser, ann(), &next).await;
    assert_eq!((entered.status, onward(&entered)), (200, Some(next.as_str())), "{entered}");
    let page = browser.get(&next).await;
    assert_eq!(page.status, 200, "{page}");
    let html = text(&page);
    assert!(html.contains("<b>ann@acme.example</b> of <b>default</b>"), "{html}");
    let let_in = browser.answer("/device", &html, "allow").await;
    assert_eq!(let_in.status, 200, "{let_in}");
    let fields = format!(
        "grant_type={}&device_code={}",
        encode("urn:ietf:params:oauth:grant-type:device_code"),
        asked["device_code"].as_str().unwrap()
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let tokens = app.client().send("POST", "/oauth/token", &form, fields).await;
    assert_eq!(tokens.status, 200, "{tokens}");
    let bearer = format!("Bearer {}", tokens.json()["access_token"].as_str().unwrap());
    let reply = app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await;
    assert_eq!(reply.status, 200, "{reply}");

    // The second time nothing is made, and metadata and keys are known.
    let (mut again, entered) = stage.comes(ann()).await;
    assert_eq!((entered.status, onward(&entered)), (200, Some("/account")), "{entered}");
    let own = text(&again.get("/account").await);
    assert!(own.contains("You are ann@acme.example of default."), "{own}");
    let asked = provider.requests();
    let of = |path: &str| asked.iter().filter(|seen| seen.target == path).count();
    assert_eq!((of("/.well-known/openid-configuration"), of("/keys"), of("/token")), (1, 1, 2));

    let rows = until("each of it is a row", SOON, || {
        let rows = app.audit_rows();
        let entered = rows.iter().filter(|row| row["payload"]["provider"] == "directory").count();
        std::future::ready((entered == 2).then_some(rows))
    })
    .await;
    let made: Vec<_> = rows.iter().filter(|row| row["payload"]["code"] == "user.create").collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["payload"]["detail"]["provider"], "directory");
    assert_eq!(made[0]["payload"]["detail"]["roles"], json!(["member"]));
    let everything = format!("{rows:?}{}", app.log());
    assert!(
        !everything.contains(SECRET) && !everything.contains("code-1"),
        "no secret and no code is written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_at_a_provider_is_a_user_and_what_was_begun_goes_on() {
    somebody_signs_in_and_what_was_begun_goes_on(&Stage::new(json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_postgresql() {
    let Some(server) = Server::start().unwrap() else {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        tell("skipped: a sign-in at a provider on PostgreSQL (no PostgreSQL server is installed)");
        return;
    };
    let url = server.url().to_owned();
    let stage = Stage::with(json!({}), |config| config.set("/database", json!({"url": url}))).await;
    somebody_signs_in_and_what_was_begun_goes_on(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_lies_lets_nobody_in() {
    let stage = Stage::new(json!({})).await;
    let lies = [
        (Lie::Issuer, 403, "id_token_issuer"),
        (Lie::Audience, 403, "id_token_audience"),
        (Lie::Audiences, 403, "id_token_authorized_party"),
        (Lie::AuthorizedParty, 403, "id_token_authorized_party"),
        (Lie::Nonce, 403, "id_token_nonce"),
        (Lie::NoNonce, 403, "id_token_nonce"),
        (Lie::Expired, 403, "id_token_expired"),
        (Lie::Future, 403, "id_token_issued_at"),
        (Lie::Old, 403, "id_token_issued_at"),
        (Lie::Unsigned, 403, "id_token_algorithm"),
        (Lie::Hmac, 403, "id_token_algorithm"),
        (Lie::OtherKey, 403, "id_token_signature"),
        (Lie::Type, 403, "id_token_type"),
        (Lie::Twice, 403, "id_token_form"),
        (Lie::NoSubject, 403, "id_token_claims"),
        (Lie::NoToken, 502, "provider_unusable"),
        (Lie::Html, 502, "provider_unusable"),
        (Lie::Redirect, 502, "provider_unusable"),
        (Lie::Huge, 502, "provider_unusable"),
        (Lie::Fails, 502, "provider_failing"),
        (Lie::Refuses, 502, "provider_refuses"),
    ];
    for (lie, status, _) in lies {
        stage.provider.lies(Some(lie));
        let (browser, reply) = stage.comes(ann()).await;
        stays_out(&browser, &reply, status);
        let page = text(&reply);
        assert!(page.contains("The &lt;Directory&gt;") && page.contains("req_"), "{lie:?}: {page}");
    }
    assert_eq!(stage.user("ann@acme.example"), None, "nothing of it made a user");
    let expected: Vec<_> = lies.iter().map(|(_, _, reason)| (*reason).to_owned()).collect();
    assert_eq!(stage.reasons(lies.len()).await, expected);
    assert!(stage.provider.requests().iter().all(|seen| seen.target != "/elsewhere"), "nothing is followed");
    stage.provider.lies(None);
    assert_eq!(stage.comes(ann()).await.1.status, 200, "the truth is taken at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_not_waited_for_and_others_sign_in_meanwhile() {
    let stage = Stage::new(json!({})).await;
    stage.provider.lies(Some(Lie::Hang));
    let mut browser = Browser::of(&stage.app);
    let url = stage.sent(&mut browser, "/account").await;
    let target = stage.provider.signs_in(&url, ann());
    let mut waiting = browser.clone();
    let mut waits = JoinSet::new();
    waits.spawn(async move {
        let reply = waiting.arrive(&target).await;
        (waiting, reply)
    });
    until("the provider was asked", SOON, || {
        let asked = stage.provider.requests().iter().any(|seen| seen.target == "/token");
        std::future::ready(asked.then_some(()))
    })
    .await;
    stage.provider.lies(None);
    assert_eq!(stage.comes(ann()).await.1.status, 200);
    let (browser, reply) = waits.join_next().await.unwrap().unwrap();
    stays_out(&browser, &reply, 502);
    assert_eq!(stage.reasons(1).await, ["provider_timed_out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_good_once_and_in_the_browser_that_was_sent() {
    let stage = Stage::new(json!({})).await;
    let mut browser = Browser::of(&stage.app);
    let url = stage.sent(&mut browser, "/account").await;
    let target = stage.provider.signs_in(&url, ann());

    // Somebody else is handed the address, with a sign-in of its own underway, and without.
    let mut stranger = Browser::of(&stage.app);
    let reply = stranger.arrive(&target).await;
    stays_out(&stranger, &reply, 400);
    stage.sent(&mut stranger, "/account").await;
    let reply = stranger.arrive(&target).await;
    stays_out(&stranger, &reply, 400);
    for broken in [
        target.replace("state=", "state=x"),
        target.replace("state=", "x="),
        format!("{target}&code=twice"),
        target.replace("/callback/directory", "/callback/nobody"),
    ] {
        let reply = browser.arrive(&broken).await;
        let status = match broken.as_str() {
            it if it.contains("/nobody") => 404,
            it if it.contains("twice") => 403,
            _ => 400,
        };
        stays_out(&browser, &reply, status);
    }
    assert!(!stage.provider.requests().iter().any(|seen| seen.target == "/token"), "no code was spent on it");

    let entered = browser.arrive(&target).await;
    assert_eq!(entered.status, 200, "it was good all the time: {entered}");
    let again = browser.arrive(&target).await;
    assert_eq!(again.status, 400, "{again}");
    // A code that was spent is worth nothing in a sign-in of its own.
    let code = query(&target, "code").unwrap();
    let mut other = Browser::of(&stage.app);
    let url = stage.sent(&mut other, "/account").await;
    let fresh = stage.provider.signs_in(&url, ann());
    let spent = fresh.replace(&query(&fresh, "code").unwrap(), &code);
    let refused = other.arrive(&spent).await;
    assert_eq!(refused.status, 502, "{refused}");
    let reasons = stage.reasons(8).await;
    assert_eq!(
        reasons,
        [
            "provider_other_browser",
            "provider_other_browser",
            "provider_state",
            "provider_state",
            "provider_answer",
            "provider_unknown",
            "provider_state",
            "provider_refuses",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_provider_or_a_refusal_there_lets_nobody_in() {
    let stage = Stage::new(json!({})).await;
    let changed = async |change: &dyn Fn(String) -> String| {
        let mut browser = Browser::of(&stage.app);
        let url = stage.sent(&mut browser, "/account").await;
        let target = change(stage.provider.signs_in(&url, ann()));
        let reply = browser.arrive(&target).await;
        stays_out(&browser, &reply, 403);
        text(&reply)
    };
    let issuer = encode(&stage.provider.issuer());
    changed(&|target| target.replace(&issuer, "https%3A%2F%2Felsewhere.example")).await;
    changed(&|target| target.replace(&format!("&iss={issuer}"), "")).await;
    let denied =
        changed(&|target| target.replace("code=", "error=access_denied&error_description=%3Cb%3E&x=")).await;
    assert!(denied.contains("nobody signed in there") && !denied.contains("<b>"), "{denied}");
    changed(&|target| target.replace("code=", "error=%3Cscript%3E&x=")).await;
    changed(&|target| target.replace("code=", "x=")).await;
    let reasons = stage.reasons(5).await;
    let expected =
        ["provider_issuer", "provider_issuer", "provider_refused", "provider_refused", "provider_answer"];
    assert_eq!(reasons, expected);

    // One that does not name itself may be silent, and is held to its name all the same if it speaks.
    let stage = Stage::new(json!({})).await;
    stage.provider.names_itself(false);
    assert_eq!(stage.comes(ann()).await.1.status, 200);
    let mut browser = Browser::of(&stage.app);
    let url = stage.sent(&mut browser, "/account").await;
    let target = format!("{}&iss=https%3A%2F%2Felsewhere.example", stage.provider.signs_in(&url, ann()));
    let reply = browser.arrive(&target).await;
    stays_out(&browser, &reply, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_exchanges_its_key_and_people_sign_in_with_the_new_one_at_once() {
    let stage = Stage::new(json!({})).await;
    assert_eq!(stage.comes(ann()).await.1.status, 200);
    stage.provider.exchanges_its_key("second");
    assert_eq!(stage.comes(ann()).await.1.status, 200);
    // The same name for another key: some do that.
    stage.provider.exchanges_its_key("second");
    assert_eq!(stage.comes(ann()).await.1.status, 200);
    stage.provider.exchanges_its_key_for_rsa("third");
    assert_eq!(stage.comes(ann()).await.1.status, 200);
    let fetched = stage.provider.requests().iter().filter(|seen| seen.target == "/keys").count();
    assert_eq!(fetched, 4, "once for each key");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_lead_elsewhere_are_not_used() {
    for (key, value) in [
        ("issuer", json!("https://elsewhere.example")),
        ("token_endpoint", json!("http://192.0.2.1/token")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("authorization_endpoint", json!("javascript:alert(1)")),
        ("authorization_endpoint", json!("http://user@127.0.0.1/")),
        ("code_challenge_methods_supported", json!(["plain"])),
        ("token_endpoint", Value::Null),
    ] {
        let stage = Stage::new(json!({})).await;
        let mut metadata = stage.provider.metadata();
        metadata[key] = value.clone();
        stage.provider.says_of_itself(Some(metadata));
        let mut browser = Browser::of(&stage.app);
        let reply = press(&mut browser, "directory", "/account").await;
        if key == "token_endpoint" && value.is_string() {
            // It looks like one, and is not dialled: what goes there proves who the gateway is.
            let url = onward(&reply).unwrap().to_owned();
            let target = stage.provider.signs_in(&url, ann());
            let reply = browser.arrive(&target).await;
            stays_out(&browser, &reply, 502);
            assert_eq!(stage.reasons(1).await, ["provider_unusable"]);
        } else {
            stays_out(&browser, &reply, 502);
            assert_eq!(stage.reasons(1).await, ["provider_metadata"], "{key} {value}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_say_roles_department_and_tenant_each_time() {
    let stage = Stage::new(json!({
        "groups_claim": "memberOf",
        "roles": ["member"],
        "groups_only": true,
        "groups": [
            {"group": "authors", "roles": ["author"]},
            {"group": "finance", "roles": ["ring-1"], "department": "Finance"},
            {"group": "legal", "department": "Legal"},
            {"group": "acme", "tenant": "acme"},
        ],
    }))
    .await;
    let with = |groups: Value| merged(ann(), json!({ "memberOf": groups }));
    let (browser, reply) = stage.comes(ann()).await;
    stays_out(&browser, &reply, 403);
    assert!(text(&reply).contains("you are in no group there"), "{}", text(&reply));
    stays_out(&browser, &stage.comes(with(json!(["others"]))).await.1, 403);
    stays_out(&browser, &stage.comes(with(json!([1]))).await.1, 403);

    let (mut laptop, reply) = stage.comes(with(json!(["finance", "authors", "others"]))).await;
    assert_eq!(reply.status, 200, "{reply}");
    let user = stage.user("ann@acme.example").unwrap();
    assert_eq!(
        (&user["roles"], &user["department"]),
        (&json!(["member", "author", "ring-1"]), &json!("Finance"))
    );

    // What changed ends what said otherwise; what did not change ends nothing.
    let (_, reply) = stage.comes(with(json!(["authors", "finance"]))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(laptop.get("/account").await.status, 200);
    let (mut phone, reply) = stage.comes(with(json!("legal"))).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert_eq!(phone.get("/account").await.status, 200, "who comes with it stays");
    assert_eq!(laptop.get("/account").await.status, 303, "who came before signs in anew");
    let user = stage.user("ann@acme.example").unwrap();
    assert_eq!((&user["roles"], &user["department"]), (&json!(["member"]), &json!("Legal")));

    // A user belongs to a tenant for good.
    stage.app.cli(&["tenant", "create", "acme"]);
    let (browser, reply) = stage.comes(with(json!(["acme"]))).await;
    stays_out(&browser, &reply, 403);
    let ben =
        json!({"sub": "ben-1", "email": "ben@acme.example", "email_verified": true, "memberOf": ["acme"]});
    assert_eq!(stage.comes(ben).await.1.status, 200);
    let users = stage.app.cli_json(&["user", "list", "--tenant", "acme"]);
    assert_eq!(users[0]["name"], "ben@acme.example", "{users}");
    let reasons = stage.reasons(4).await;
    assert_eq!(reasons, ["provider_groups", "provider_groups", "id_token_claims", "provider_tenant"]);
    let changed = until("the change is a row", SOON, || {
        let rows = stage.app.audit_rows();
        let changed: Vec<_> =
            rows.into_iter().filter(|row| row["payload"]["code"] == "user.change").collect();
        std::future::ready((!changed.is_empty()).then_some(changed))
    })
    .await;
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0]["payload"]["detail"]["department"], "Legal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_or_an_address_links_nobody_and_an_administrator_does() {
    let stage = Stage::new(json!({})).await;
    stage.app.cli(&["user", "create", "ann@acme.example", "--role", "author"]);
    let (browser, reply) = stage.comes(ann()).await;
    stays_out(&browser, &reply, 403);
    assert!(text(&reply).contains("somebody of your name is here already"), "{}", text(&reply));
    let unverified = json!({"sub": "eve-1", "email": "eve@acme.example", "email_verified": false});
    stays_out(&browser, &stage.comes(unverified).await.1, 403);
    for nameless in [
        json!({"sub": "x-1"}),
        json!({"sub": "x-1", "email": "u_x"}),
        json!({"sub": "x-1", "email": "a\u{202e}b"}),
    ] {
        stays_out(&browser, &stage.comes(nameless).await.1, 403);
    }
    stage.app.cli(&["user", "link-subject", "ann@acme.example", "directory", "ann-1"]);
    let (_, said) = stage.app.cli_fails(&["user", "link-subject", "admin", "directory", "ann-1"]);
    assert!(said.contains("linked already"), "{said}");
    let (_, said) = stage.app.cli_fails(&["user", "link-subject", "admin", "elsewhere", "ann-1"]);
    assert!(said.contains("auth.providers has no provider elsewhere"), "{said}");
    let (mut laptop, reply) = stage.comes(merged(ann(), json!({"email": "another@acme.example"}))).await;
    assert_eq!(reply.status, 200, "the subject says who it is: {reply}");
    let account = text(&laptop.get("/account").await);
    assert!(account.contains("You are ann@acme.example of default."), "{account}");
    assert_eq!(stage.user("ann@acme.example").unwrap()["roles"], json!(["author"]), "no groups, no change");

    stage.app.cli(&["user", "disable", "ann@acme.example"]);
    let (browser, reply) = stage.comes(ann()).await;
    stays_out(&browser, &reply, 403);
    assert!(text(&reply).contains("your access here has ended"), "{}", text(&reply));
    stage.app.cli(&["user", "enable", "ann@acme.example"]);
    another_second().await;
    let (mut laptop, reply) = stage.comes(ann()).await;
    assert_eq!((reply.status, laptop.get("/account").await.status), (200, 200));
    stage.app.cli(&["user", "unlink-subject", "ann@acme.example", "directory", "ann-1"]);
    assert_eq!(laptop.get("/account").await.status, 303, "what it signed in to is over");
    stays_out(&browser, &stage.comes(ann()).await.1, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_for_the_first_time_and_from_where_is_the_configurations_to_say() {
    let stage = Stage::new(json!({"create_users": false})).await;
    let (browser, reply) = stage.comes(ann()).await;
    stays_out(&browser, &reply, 403);
    assert_eq!(stage.reasons(1).await, ["provider_not_linked"]);

    stage.reload(json!({"email_domains": ["acme.example"]}));
    until("the entry is another one", SOON, || async {
        (stage.comes(ann()).await.1.status == 200).then_some(())
    })
    .await;
    for (number, person) in [
        json!({"email": "eve@evil.example", "email_verified": true}),
        json!({"email": "eve@acme.example.evil.example", "email_verified": true}),
        json!({"email": "eve@acme.example"}),
        json!({"email": "eve@acme.example", "email_verified": false}),
        json!({}),
    ]
    .into_iter()
    .enumerate()
    {
        let person = merged(json!({"sub": format!("eve-{number}")}), person);
        stays_out(&browser, &stage.comes(person).await.1, 403);
    }
    let dora = json!({"sub": "dora-1", "email": "dora@ACME.example", "email_verified": "true"});
    assert_eq!(stage.comes(dora).await.1.status, 200);

    // A provider that is configured no more lets nobody in, whoever is underway included.
    let mut browser = Browser::of(&stage.app);
    let url = stage.sent(&mut browser, "/account").await;
    let target = stage.provider.signs_in(&url, ann());
    stage.app.reload(|config| config.set("/auth/providers", json!([])));
    until("the button is gone", SOON, || async {
        let page = text(&Browser::of(&stage.app).get("/sign-in").await);
        (!page.contains("Sign in with")).then_some(())
    })
    .await;
    let reply = browser.arrive(&target).await;
    stays_out(&browser, &reply, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_that_another_site_presses_sends_nobody() {
    let stage = Stage::new(json!({})).await;
    let mut browser = Browser::of(&stage.app);
    let page = text(&browser.get("/sign-in").await);
    let csrf = hidden(&page).into_iter().find(|(name, _)| name == "csrf").unwrap().1;
    let fields = [("csrf", csrf.as_str()), ("next", "/account"), ("provider", "directory")];
    let mut other = browser.clone();
    other.origin = "https://evil.example".to_owned();
    assert_eq!(other.submit("/sign-in/with", &fields).await.status, 403);
    assert_eq!(browser.submit("/sign-in/with", &fields[1..]).await.status, 403, "no token");
    let mut thief = Browser::of(&stage.app);
    assert_eq!(thief.submit("/sign-in/with", &fields).await.status, 403, "the token of another browser");
    assert_eq!(browser.get("/sign-in/with").await.status, 405);
    let sent =
        browser.submit("/sign-in/with", &[fields[0], ("next", "https://evil.example/"), fields[2]]).await;
    let url = onward(&sent).unwrap().to_owned();
    let entered = browser.arrive(&stage.provider.signs_in(&url, ann())).await;
    assert_eq!(onward(&entered), Some("/account"), "nobody is sent to another site");
    let policy = sent.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(sent.header("referrer-policy"), Some("no-referrer"));
}
