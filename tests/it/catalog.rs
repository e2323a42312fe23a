//! The life of a component: uploaded, tried, put in force, replaced, rolled back and revoked, all without a restart.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use sallyport::app::{App, Deps};
use sallyport::clock::ManualClock;
use sallyport::config::Config;
use sallyport_protocol::package::{Capability, Statement};
use sallyport_tests::gateway::{TestApp, binary};
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};
use time::macros::datetime;

use crate::{hello, in_seconds};

const SCOPE: &str = "components/acme/scope";

/// Rules for `scope` that let nothing through.
fn nothing() -> Value {
    json!({"rules": [{"name": "none", "effect": "deny", "models": ["*"]}]})
}

/// Rules for `scope` that let everything through.
fn everything() -> Value {
    json!({"rules": []})
}

async fn trusting(app: &TestApp) -> (Admin<'_>, Vendor) {
    let (admin, acme) = (Admin::of(app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy", "scanner", "hook"])).await;
    (admin, acme)
}

pub(crate) fn stages(shown: &Value) -> Vec<(&str, &str)> {
    let versions = shown["versions"].as_array().unwrap();
    versions.iter().map(|it| (it["version"].as_str().unwrap(), it["stage"].as_str().unwrap())).collect()
}

pub(crate) fn admin_rows(app: &TestApp, code: &str) -> Vec<Value> {
    let mut rows = app.audit_rows();
    rows.retain(|row| row["kind"] == "admin" && row["payload"]["code"] == code);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_uploaded_tried_put_in_force_replaced_and_rolled_back() {
    let app = TestApp::start().await;
    let (admin, acme) = trusting(&app).await;

    let shown = admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    assert_eq!(stages(&shown), [("1.0.0", "staged")]);
    assert_eq!(app.messages(hello()).await.status, 200, "what is staged is asked nothing");

    let shown =
        admin.post(&format!("{SCOPE}/shadow"), json!({"version": "1.0.0", "config": nothing()})).await;
    assert_eq!(stages(&shown), [("1.0.0", "shadow")]);
    let shadowed = app.messages(hello()).await;
    assert_eq!(shadowed.status, 200, "what shadows stops nobody");
    let row = app.row_of(&shadowed).await;
    let said = &row["payload"]["components"][0];
    assert_eq!(
        (&said["name"], &said["verdict"], &said["mode"]),
        (&json!("acme/scope"), &json!("deny"), &json!("shadow"))
    );

    let shown = admin.post(&format!("{SCOPE}/activate"), json!({})).await;
    assert_eq!(stages(&shown), [("1.0.0", "active")], "by itself, what is tried is put in force");
    let denied = app.messages(hello()).await;
    assert_eq!((denied.status, denied.header("x-sallyport-policy")), (451, Some("acme/scope")));

    admin.push(acme.copy_of("scope", "1.1.0", 2)).await;
    let shown =
        admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.1.0", "config": everything()})).await;
    assert_eq!(stages(&shown), [("1.0.0", "superseded"), ("1.1.0", "active")]);
    let allowed = app.messages(hello()).await;
    assert_eq!(allowed.status, 200);

    let shown = admin.post(&format!("{SCOPE}/rollback"), json!({"reason": "too kind"})).await;
    assert_eq!(stages(&shown), [("1.0.0", "active"), ("1.1.0", "superseded")]);
    assert_eq!(app.messages(hello()).await.status, 451);

    // All of it is there after a restart, the step back included.
    app.stop();
    app.launch().await;
    assert_eq!(app.messages(hello()).await.status, 451);
    let shown = admin.post(&format!("{SCOPE}/retire"), json!({})).await;
    assert_eq!(stages(&shown), [("1.0.0", "superseded"), ("1.1.0", "superseded")]);
    assert_eq!(app.messages(hello()).await.status, 200);

    app.stop();
    for code in ["publisher.trust", "component.shadow", "component.rollback", "component.retire"] {
        let rows = admin_rows(&app, code);
        assert_eq!(rows.len(), 1, "{code}");
        assert!(rows[0]["user_id"].as_str().unwrap().starts_with("u_"), "{code}: {}", rows[0]);
    }
    assert_eq!(admin_rows(&app, "component.upload").len(), 2);
    let steps = admin_rows(&app, "component.activate");
    assert_eq!((steps.len(), &steps[1]["payload"]["replaces"]), (2, &json!("1.0.0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_for_its_share_of_users_and_a_user_stays_on_its_side() {
    let app = TestApp::start().await;
    let (admin, acme) = trusting(&app).await;
    admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    admin.push(acme.copy_of("scope", "2.0.0", 2)).await;
    admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": everything()})).await;
    // Refusals that jump would end it: this story is about who sees it.
    let slo = json!({"max_refusal_jump_percent": 100.0});
    let canary = json!({"version": "2.0.0", "percent": 50, "config": nothing(), "slo": slo});
    admin.post(&format!("{SCOPE}/canary"), canary).await;

    let mut sides = Vec::new();
    for number in 0..12 {
        let name = format!("user-{number}");
        app.cli(&["user", "create", &name]);
        let user = Admin::named(&app, &name, "default");
        let first = user.call(&hello()).await.status;
        assert_eq!(user.call(&hello()).await.status, first, "{name} stays on its side");
        sides.push(first);
    }
    assert!(sides.contains(&200) && sides.contains(&451), "both sides are there: {sides:?}");
    let over = json!({"version": "2.0.0", "percent": 101});
    let refused = admin.send("POST", &format!("{SCOPE}/canary"), over.to_string()).await;
    assert_eq!((refused.status, refused.header("x-sallyport-code")), (409, Some("no_such_step")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_traps_ends_by_itself_and_the_old_one_stays() {
    let app = TestApp::start().await;
    let (admin, acme) = trusting(&app).await;
    admin.push(acme.hostile("00-honest-policy", "judge", "1.0.0", 1)).await;
    admin.push(acme.hostile("24-panic", "judge", "2.0.0", 2)).await;
    let judge = "components/acme/judge";
    admin.post(&format!("{judge}/activate"), json!({"version": "1.0.0"})).await;
    admin.post(&format!("{judge}/canary"), json!({"version": "2.0.0", "percent": 100})).await;
    let ended = until("the canary is ended", SOON, || async {
        app.messages(hello()).await;
        let shown = admin.get(judge).await.json();
        shown["place"]["trial"].is_null().then_some(shown)
    })
    .await;
    assert_eq!(stages(&ended), [("1.0.0", "active"), ("2.0.0", "staged")]);
    until("calls go through again", SOON, || async {
        (app.messages(hello()).await.status == 200).then_some(())
    })
    .await;
    app.stop();
    let rows = admin_rows(&app, "component.withdraw");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["user_id"], "gateway");
    assert_eq!(rows[0]["payload"]["breach"], "canary_faults");
    assert!(rows[0]["payload"]["faults"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_decides_nothing_within_two_seconds_whatever_names_it() {
    for subject in ["digest", "version", "key"] {
        let app = TestApp::start().await;
        let (admin, acme) = trusting(&app).await;
        let shown = admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
        admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": everything()})).await;
        assert_eq!(app.messages(hello()).await.status, 200);
        let what = match subject {
            "digest" => shown["versions"][0]["digest"].clone(),
            "version" => json!("acme/scope@1.0.0"),
            _ => json!(acme.key_id()),
        };
        admin.post("revocations", json!({subject: what, "reason": "it lies"})).await;
        let refused = app.messages(hello()).await;
        assert_eq!(refused.status, 451, "{subject}: no call is let through by what is revoked");
        let row = app.row_of(&refused).await;
        assert_eq!(row["payload"]["components"][0]["fault"], "revoked", "{subject}: {row}");

        // A restart does not bring it back, and neither does another upload.
        app.stop();
        app.launch().await;
        assert_eq!(app.messages(hello()).await.status, 451, "{subject}");
        let again =
            admin.send("POST", &format!("{SCOPE}/activate"), json!({"version": "1.0.0"}).to_string()).await;
        assert!(again.status >= 400, "{subject}: {again}");
        admin.post(&format!("{SCOPE}/retire"), json!({})).await;
        assert_eq!(app.messages(hello()).await.status, 200, "{subject}");
        app.stop();
        assert_eq!(admin_rows(&app, "component.revoke").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_administrators_who_step_at_once_the_late_ones_are_told() {
    let app = TestApp::start().await;
    let (admin, acme) = trusting(&app).await;
    for serial in 1..=4_u64 {
        admin.push(acme.copy_of("scope", &format!("{serial}.0.0"), serial)).await;
    }
    admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": everything()})).await;
    let step = |version: u32| {
        let body = json!({"version": format!("{version}.0.0")}).to_string();
        async { admin.send("POST", &format!("{SCOPE}/shadow"), body).await }
    };
    let (one, two, three) = tokio::join!(step(2), step(3), step(4));
    let statuses = [one.status, two.status, three.status];
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{one} {two} {three}");
    let won = statuses.iter().filter(|status| **status == 200).count();
    assert!(won >= 1, "{statuses:?}");
    let shown = admin.get(SCOPE).await.json();
    assert_eq!(shown["place"]["revision"], 1 + won, "each step that was made is one revision");
    app.stop();
    let mut lost = admin_rows(&app, "component.shadow");
    lost.retain(|row| row["outcome"] == "error" && row["payload"]["lost"] == true);
    assert_eq!(lost.len(), 3 - won, "who lost left a row that says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_hook_is_seen_listed_and_run_by_that_tenant_alone() {
    let app = TestApp::start().await;
    let platform = Admin::of(&app);
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let other = Admin::new_tenant(&app, "other", "tenant-admin");
    let vendor = Vendor::new("acme", 7);
    acme.post("publishers", vendor.trust(&["policy", "hook"])).await;
    acme.push(vendor.copy_of("scope", "1.0.0", 1)).await;
    acme.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": nothing()})).await;

    assert_eq!(acme.call(&hello()).await.status, 451, "it runs for its tenant");
    assert_eq!(other.call(&hello()).await.status, 200, "and for nobody else");
    assert_eq!(platform.call(&hello()).await.status, 200);

    for stranger in [&other, &platform] {
        assert_eq!(stranger.get("components").await.json()["components"], json!([]));
        assert_eq!(stranger.get("publishers").await.json(), json!({"publishers": []}));
        let missing = stranger.get(SCOPE).await;
        let unknown = stranger.get("components/acme/no-such-thing").await;
        assert_eq!((missing.status, unknown.status), (404, 404));
        let message = |reply: &sallyport_tests::client::Reply| reply.json()["error"]["message"].clone();
        assert_eq!(message(&missing), message(&unknown), "what is not yours is not there");
        let step = stranger.send("POST", &format!("{SCOPE}/retire"), "{}").await;
        assert!(matches!(step.status, 404 | 409), "{step}");
    }
    let reaching = other.get("components?tenant=acme").await;
    assert_eq!(reaching.status, 404, "{reaching}");
    let stolen = other.send("POST", "components", vendor.copy_of("scope", "1.0.0", 1)).await;
    assert_eq!(
        (stolen.status, stolen.header("x-sallyport-code")),
        (422, Some("not_trusted")),
        "its key signs for acme alone"
    );
    assert_eq!(acme.call(&hello()).await.status, 451, "nobody changed anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_adds_and_never_loosens() {
    let app = TestApp::with(|config| config.component("sallyport/scope", nothing())).await;
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let vendor = Vendor::new("acme", 7);
    acme.post("publishers", vendor.trust(&["policy", "hook"])).await;
    acme.push(vendor.copy_of("scope", "1.0.0", 1)).await;
    acme.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": everything()})).await;
    let denied = acme.call(&hello()).await;
    assert_eq!((denied.status, denied.header("x-sallyport-policy")), (451, Some("sallyport/scope")));

    for (path, body, status) in [
        ("publishers", vendor.trust(&["provider"]), 403),
        ("publishers", Vendor::new("sallyport", 8).trust(&["policy"]), 403),
        ("components/acme/scope/grants", json!({"capability": "settle"}), 403),
        ("components/sallyport/scope/retire", json!({}), 409),
    ] {
        let refused = acme.send("POST", path, body.to_string()).await;
        assert_eq!(refused.status, status, "{path} {body}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_scopes_decide_who_may() {
    let app = TestApp::start().await;
    let plain = app.get("/v1/admin/components").await;
    assert_eq!((plain.status, plain.header("x-sallyport-code")), (403, Some("insufficient_scope")));
    let stranger = app.client().send("GET", "/v1/admin/components", &[], "").await;
    assert_eq!(stranger.status, 401);

    let author = Admin::new_tenant(&app, "acme", "author");
    app.cli(&["user", "create", "boss", "--tenant", "acme", "--role", "tenant-admin"]);
    app.cli(&["user", "create", "nobody", "--tenant", "acme", "--role", "member"]);
    let (boss, nobody) = (Admin::named(&app, "boss", "acme"), Admin::named(&app, "nobody", "acme"));
    assert_eq!(nobody.get("components").await.status, 403);
    let vendor = Vendor::new("acme", 7);
    let trust = vendor.trust(&["policy"]).to_string();
    assert_eq!(author.send("POST", "publishers", trust).await.status, 403);
    boss.post("publishers", vendor.trust(&["policy"])).await;
    author.push(vendor.copy_of("scope", "1.0.0", 1)).await;
    let step =
        author.send("POST", &format!("{SCOPE}/activate"), json!({"version": "1.0.0"}).to_string()).await;
    assert_eq!(step.status, 403);
    app.stop();
    assert_eq!(admin_rows(&app, "admin_forbidden").len(), 3, "each leaves a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_right_is_refused_and_leaves_a_row() {
    let app = TestApp::start().await;
    let (admin, acme) = trusting(&app).await;
    admin.push(acme.copy_of("scope", "1.1.0", 5)).await;
    admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.1.0", "config": everything()})).await;
    let good = acme.copy_of("scope", "1.2.0", 6);
    let mut tampered = good.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    let past = |statement: Statement| Statement {
        not_before: statement.not_before - time::Duration::days(900),
        expires: statement.not_before - time::Duration::days(400),
        ..statement
    };
    let cases = [
        ("cut in the middle", good.slice(..good.len() / 2), "not_trusted"),
        ("cut in the envelope", good.slice(..60), "malformed_package"),
        ("nothing", bytes::Bytes::new(), "malformed_package"),
        ("tampered", tampered.into(), "not_trusted"),
        ("signed by a stranger", Vendor::new("acme", 9).copy_of("scope", "1.2.0", 6), "not_trusted"),
        ("of a foreign namespace", Vendor::new("evil", 1).copy_of("scope", "1.2.0", 6), "not_trusted"),
        ("of a kind that its key may not sign", acme.copy_of("echo", "1.0.0", 1), "not_trusted"),
        ("expired", acme.release("scope", "1.2.0", 6, past), "not_trusted"),
        ("downgraded", acme.copy_of("scope", "1.0.0", 4), "not_trusted"),
        ("a version with other bytes", acme.release("scope", "1.1.0", 6, |it| it), "other_bytes"),
        ("a serial with other bytes", acme.copy_of("scope", "1.2.0", 5), "other_bytes"),
        (
            "for a newer gateway",
            acme.release("scope", "1.2.0", 6, |it| Statement {
                min_host: semver::Version::new(9, 0, 0),
                ..it
            }),
            "not_trusted",
        ),
        (
            "importing what its world does not have",
            acme.hostile("23-unknown-import", "odd", "1.0.0", 1),
            "not_admitted",
        ),
        ("looping at its start", acme.hostile("02-start-loop", "loop", "1.0.0", 1), "not_admitted"),
    ];
    for (what, package, code) in &cases {
        let refused = admin.send("POST", "components", package.clone()).await;
        assert!((400..500).contains(&refused.status), "{what}: {refused}");
        assert_eq!(refused.header("x-sallyport-code"), Some(*code), "{what}: {refused}");
    }
    let head = |bytes: usize| {
        format!(
            "POST /v1/admin/components HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {bytes}\r\n\r\n",
            admin.token
        )
    };
    let large = app.client().raw(head(40 << 20).as_bytes()).await;
    assert!(large.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&large));
    let mut broken_off = TcpStream::connect(app.address()).unwrap();
    broken_off.write_all(&[head(good.len()).as_bytes(), &good[..good.len() / 2]].concat()).unwrap();
    drop(broken_off);
    assert_eq!(stages(&admin.get(SCOPE).await.json()), [("1.1.0", "active")], "nothing changed");
    assert_eq!(app.messages(hello()).await.status, 200);
    // The same bytes again are no mistake.
    admin.push(good.clone()).await;
    admin.push(good).await;
    app.stop();
    let rows = app.audit_rows();
    let refused = rows.iter().filter(|row| row["kind"] == "admin" && row["outcome"] == "denied").count();
    assert_eq!(refused, cases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_own_components_have_expired_starts_all_the_same() {
    let app = TestApp::with(|config| config.component("sallyport/scope", nothing())).await;
    app.stop();
    let config = Config::load(&app.home().join("sallyport.yaml")).unwrap();
    let clock = Arc::new(ManualClock::new(datetime!(2045-01-01 12:00 UTC)));
    let deps = Deps { clock, compiler: Some(binary().to_owned()), ..Deps::default() };
    let built = App::build(config, deps).await;
    assert!(built.is_ok(), "{:#}", built.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_may_do_is_granted_and_what_is_new_is_granted_again() {
    let app = TestApp::start().await;
    let (admin, acme) = trusting(&app).await;
    let wants = |capabilities: &[&str]| {
        let capabilities = capabilities.iter().map(|it| Capability::parse(it).unwrap()).collect();
        move |it: Statement| Statement { capabilities, reads: None, ..it }
    };
    let shown = admin.push(acme.release("scope", "1.0.0", 1, wants(&["settle"]))).await;
    assert_eq!(shown["newest"]["needs_grant"], json!(["settle"]));
    let activate = |version: &str| json!({"version": version, "config": everything()}).to_string();
    let path = format!("{SCOPE}/activate");
    let refused = admin.send("POST", &path, activate("1.0.0")).await;
    assert_eq!((refused.status, refused.header("x-sallyport-code")), (409, Some("grant_needed")));
    admin.post(&format!("{SCOPE}/grants"), json!({"capability": "settle"})).await;
    assert_eq!(admin.send("POST", &path, activate("1.0.0")).await.status, 200);

    let shown = admin.push(acme.release("scope", "1.1.0", 2, wants(&["settle", "tell"]))).await;
    assert_eq!(shown["newest"]["added_capabilities"], json!(["tell"]), "the difference is shown");
    assert_eq!(shown["newest"]["needs_grant"], json!(["tell"]));
    assert_eq!(admin.send("POST", &path, activate("1.1.0")).await.status, 409);

    // A grant that is taken back, or that ends, ends what needs it.
    assert_eq!(app.messages(hello()).await.status, 200);
    let gone = admin.send("DELETE", &format!("{SCOPE}/grants/settle"), "").await;
    assert_eq!(gone.status, 200, "{gone}");
    let refused = app.messages(hello()).await;
    assert_eq!(refused.status, 451);
    assert_eq!(app.row_of(&refused).await["payload"]["components"][0]["fault"], "absent");
    let expires = in_seconds(3);
    admin.post(&format!("{SCOPE}/grants"), json!({"capability": "settle", "expires_at": expires})).await;
    assert_eq!(app.messages(hello()).await.status, 200);
    until("the grant has ended", Duration::from_secs(10), || async {
        (app.messages(hello()).await.status == 451).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_its_place_to_another_and_signs_nothing_new() {
    let app = TestApp::start().await;
    let (admin, old) = trusting(&app).await;
    let new = Vendor::new("acme", 2);
    admin.push(old.copy_of("scope", "1.0.0", 1)).await;
    admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": nothing()})).await;
    let mut rotation = new.trust(&["policy"]);
    rotation["replaces"] = json!(old.key_id());
    admin.post("publishers", rotation).await;
    let late = admin.send("POST", "components", old.copy_of("scope", "1.1.0", 2)).await;
    assert_eq!((late.status, late.header("x-sallyport-code")), (422, Some("not_trusted")));
    admin.push(new.copy_of("scope", "1.1.0", 2)).await;
    // What the old key signed before stays in force, also after a restart.
    app.stop();
    app.launch().await;
    assert_eq!(app.messages(hello()).await.status, 451);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_goes_live_and_back_with_commands_alone() {
    let app = TestApp::start().await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    let file = |name: &str, bytes: &[u8]| {
        let path = app.home().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let token = file("components.token", admin.token.as_bytes());
    let run = |command: &[&str]| app.cli(&[command, &["--token-file", &token]].concat());
    let key = acme.trust(&["policy"])["public_key"].as_str().unwrap().to_owned();
    run(&["key", "trust", &key, "--namespace", "acme", "--kind", "policy"]);
    assert!(run(&["key", "list"]).contains(&acme.key_id()));

    let package = file("scope.sallyport", &acme.copy_of("scope", "1.0.0", 1));
    assert!(run(&["component", "push", &package]).contains("staged"));
    let rules = file("rules.json", nothing().to_string().as_bytes());
    run(&["component", "canary", "acme/scope", "1.0.0", "--percent", "100", "--configuration", &rules]);
    assert_eq!(app.messages(hello()).await.status, 451);
    run(&["component", "activate", "acme/scope"]);
    assert!(run(&["component", "list"]).contains("active"));
    let package = file("scope.sallyport", &acme.copy_of("scope", "1.1.0", 2));
    run(&["component", "push", &package]);
    let rules = file("rules.json", everything().to_string().as_bytes());
    run(&["component", "activate", "acme/scope", "1.1.0", "--configuration", &rules]);
    assert_eq!(app.messages(hello()).await.status, 200);
    run(&["component", "rollback", "acme/scope", "--reason", "too kind"]);
    assert_eq!(app.messages(hello()).await.status, 451);
    run(&["component", "revoke", "acme/scope@1.0.0", "--reason", "a story"]);
    run(&["component", "retire", "acme/scope"]);
    assert_eq!(app.messages(hello()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_hook_is_told_of_the_tools_that_its_place_names() {
    let app = TestApp::start().await;
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let vendor = Vendor::new("acme", 7);
    acme.post("publishers", vendor.trust(&["hook"])).await;
    acme.push(vendor.copy_of("block-tool", "1.0.0", 1)).await;
    let path = "components/acme/block-tool/activate";
    let config = json!({"tools": ["*"], "reason": "not here"});
    let place =
        |matcher: &str| json!({"version": "1.0.0", "config": config, "attachment": {"matcher": matcher}});
    let odd = acme.send("POST", path, place("a(b").to_string()).await;
    assert_eq!((odd.status, odd.header("x-sallyport-code")), (400, Some("invalid")));
    acme.post(path, place("Write|Edit")).await;
    for (tool, blocked) in [("Read", false), ("Write", true)] {
        app.upstream.next(Script::Turn(vec![Turn::Tool(
            "toolu_01".into(),
            tool.into(),
            json!({"path": "/x"}),
        )]));
        let answer = acme.call(&hello()).await;
        assert_eq!(answer.text().contains("not here"), blocked, "{tool}: {answer}");
    }
}
