//! What one tenant may take of what all share: the compiler, the catalog's storage, uploads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::catalog::{admin_rows, stages};
use crate::hello;
use crate::workers::child_of;

const LOOP: &str = "components/acme/loop";
const SCOPE: &str = "components/acme/scope";

/// Longest that a story waits for several compilers in a row on a busy machine.
const COMPILED: Duration = Duration::from_mins(1);

async fn vendor_of(boss: &Admin<'_>) -> Vendor {
    let vendor = Vendor::new("acme", 7);
    boss.post("publishers", vendor.trust(&["policy", "hook"])).await;
    vendor
}

/// Rules for `scope` that let everything through. `mark` makes it another configuration.
fn everything(mark: usize) -> Value {
    json!({"rules": [{"name": format!("none-{mark}"), "effect": "deny", "models": ["no-such-model"]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_components_take_for_ever_to_configure_holds_up_nobody_else() {
    let app = TestApp::start().await;
    let platform = Admin::of(&app);
    let (acme, other) =
        (Admin::new_tenant(&app, "acme", "tenant-admin"), Admin::new_tenant(&app, "other", "tenant-admin"));
    let (vendor, second) = (vendor_of(&acme).await, vendor_of(&other).await);
    platform.post("publishers", Vendor::new("first", 3).trust(&["policy"])).await;
    acme.push(vendor.hostile("02-configure-loop", "loop", "1.0.0", 1)).await;
    other.push(Vendor::new("acme", 7).copy_of("scope", "1.0.0", 1)).await;
    drop(second);
    platform.push(Vendor::new("first", 3).copy_of("scope", "1.0.0", 1)).await;

    // One more than may wait besides the one that is compiled.
    let (ended, full) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut steps = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (client, bearer) = (app.client().patient(), format!("Bearer {}", acme.token));
        let (ended, full) = (Arc::clone(&ended), Arc::clone(&full));
        steps.spawn(async move {
            let body = json!({"version": "1.0.0", "config": {"number": number}}).to_string();
            let target = format!("/v1/admin/{LOOP}/activate");
            let headers = [("authorization", bearer.as_str())];
            let Ok(reply) = client.try_send("POST", &target, &headers, Bytes::from(body)).await else {
                return;
            };
            if reply.status == 429 {
                assert_eq!(reply.header("x-sallyport-code"), Some("compile_queue_full"), "{reply}");
                assert!(reply.header("retry-after").is_some(), "{reply}");
                full.fetch_add(1, Ordering::SeqCst);
            } else {
                assert_eq!(reply.status, 422, "{reply}");
                ended.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    until("one finds no place in the tenant's line", SOON, || {
        std::future::ready((full.load(Ordering::SeqCst) > 0).then_some(()))
    })
    .await;
    child_of(app.pid(), "compile-component").await;
    let before = ended.load(Ordering::SeqCst);

    let step = json!({"version": "1.0.0", "config": everything(1)});
    let shown = platform.post("components/first/scope/activate", step).await;
    assert_eq!(stages(&shown), [("1.0.0", "active")]);
    let meanwhile = ended.load(Ordering::SeqCst) - before;
    assert!(meanwhile <= 1, "the platform waited for {meanwhile} compilers of a tenant");

    // A revocation does not wait either, and nor does another tenant for more than one compiler.
    platform.post("revocations", json!({"version": "first/scope@1.0.0", "reason": "a story"})).await;
    let meanwhile = ended.load(Ordering::SeqCst) - before;
    assert!(meanwhile <= 1, "a revocation waited for {meanwhile} compilers of a tenant");
    let before = ended.load(Ordering::SeqCst);
    let step = json!({"version": "1.0.0", "config": everything(2)}).to_string();
    let reply = other.send("POST", &format!("{SCOPE}/activate"), step).await;
    assert_eq!(reply.status, 200, "{reply}");
    let meanwhile = ended.load(Ordering::SeqCst) - before;
    assert!(meanwhile <= 2, "another tenant waited for {meanwhile} compilers of this one");
    steps.shutdown().await;
    app.stop();
    assert_eq!(admin_rows(&app, "admin_compile_queue_full").len(), full.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_used_up_its_time_for_compiling_waits_and_others_do_not() {
    let quota = json!({"quota": {"compile_seconds_per_hour": 8}});
    let app = TestApp::with(|config| config.set("/components", quota)).await;
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let other = Admin::new_tenant(&app, "other", "tenant-admin");
    let vendor = vendor_of(&acme).await;
    vendor_of(&other).await;
    acme.push(vendor.hostile("02-configure-loop", "loop", "1.0.0", 1)).await;
    let step = json!({"version": "1.0.0", "config": {"for": "ever"}}).to_string();
    let looped = acme.send("POST", &format!("{LOOP}/activate"), step).await;
    assert_eq!((looped.status, looped.header("x-sallyport-code")), (422, Some("not_admitted")), "{looped}");

    let spent = acme.send("POST", "components", vendor.copy_of("scope", "1.0.0", 1)).await;
    assert_eq!(
        (spent.status, spent.header("x-sallyport-code")),
        (429, Some("compile_time_spent")),
        "{spent}"
    );
    let after: u64 = spent.header("retry-after").unwrap().parse().unwrap();
    assert!(after > 60, "ten seconds of eight an hour: {after}");
    assert_eq!(spent.header("x-should-retry"), Some("false"), "more than a minute: {spent}");

    other.push(vendor.copy_of("scope", "1.0.0", 1)).await;
    let platform = Admin::of(&app);
    vendor_of(&platform).await;
    platform.push(vendor.copy_of("rate-limit", "1.0.0", 1)).await;
    app.stop();
    assert_eq!(admin_rows(&app, "admin_compile_time_spent").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_to_compile_a_tenants_components_anew_serves_everybody_else_meanwhile() {
    let app = TestApp::start().await;
    let platform = Admin::of(&app);
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let vendor = vendor_of(&acme).await;
    acme.push(vendor.copy_of("scope", "1.0.0", 1)).await;
    acme.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": everything(1)})).await;
    assert_eq!(acme.call(&hello()).await.status, 200);

    // As after an upgrade: none of the code that is kept fits.
    app.stop();
    std::fs::remove_dir_all(app.home().join("cache")).unwrap();
    app.launch().await;
    let refused = AtomicUsize::new(0);
    until("the tenant's policy is compiled", COMPILED, || {
        let (platform, acme, refused) = (&platform, &acme, &refused);
        async move {
            let mine = acme.call(&hello()).await;
            if mine.status == 200 {
                return Some(());
            }
            refused.fetch_add(1, Ordering::SeqCst);
            assert_eq!((mine.status, mine.header("x-sallyport-policy")), (451, Some("acme/scope")), "{mine}");
            assert_eq!(platform.call(&hello()).await.status, 200, "others are served");
            None
        }
    })
    .await;
    crate::tell(&format!("{refused:?} calls were refused while a tenant's policy was compiled"));
    let served = acme.call(&hello()).await;
    let row = app.row_of(&served).await;
    assert_eq!(row["payload"]["components"][0]["verdict"], "allow", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_stores_and_uploads_as_much_as_it_may_and_deletes_what_nobody_uses() {
    let quota = json!({"quota": {"versions": 3, "uploads_per_hour": 7}});
    let app = TestApp::with(|config| config.set("/components", quota)).await;
    let acme = Admin::new_tenant(&app, "acme", "tenant-admin");
    let vendor = vendor_of(&acme).await;
    let packages: Vec<Bytes> =
        (1..=9).map(|serial| vendor.copy_of("scope", &format!("{serial}.0.0"), serial)).collect();
    for package in &packages[..3] {
        acme.push(package.clone()).await;
    }
    let activate = async |version: &str| {
        acme.post(&format!("{SCOPE}/activate"), json!({"version": version, "config": everything(1)})).await
    };
    activate("1.0.0").await;
    activate("2.0.0").await;
    let refused = acme.send("POST", "components", packages[3].clone()).await;
    assert_eq!(
        (refused.status, refused.header("x-sallyport-code")),
        (409, Some("quota_versions")),
        "{refused}"
    );

    let usage = acme.get("components").await.json()["usage"].clone();
    let bytes: usize = packages[..3].iter().map(Bytes::len).sum();
    assert_eq!((&usage["versions"], &usage["max_versions"]), (&json!(3), &json!(3)), "{usage}");
    assert_eq!(usage["bytes"], bytes, "{usage}");

    for (version, why) in [("2.0.0", "is in force"), ("1.0.0", "a rollback may lead to it")] {
        let kept = acme.send("DELETE", &format!("{SCOPE}/{version}"), "").await;
        assert_eq!((kept.status, kept.header("x-sallyport-code")), (409, Some("in_use")), "{kept}");
        assert!(kept.to_string().contains(why), "{kept}");
    }
    acme.post(&format!("{SCOPE}/canary"), json!({"version": "3.0.0", "percent": 1})).await;
    let kept = acme.send("DELETE", &format!("{SCOPE}/3.0.0"), "").await;
    assert!(kept.status == 409 && kept.to_string().contains("is tried"), "{kept}");
    acme.post(&format!("{SCOPE}/withdraw"), json!({})).await;
    let gone = acme.send("DELETE", &format!("{SCOPE}/3.0.0"), "").await;
    assert_eq!((gone.status, &gone.json()["usage"]["versions"]), (200, &json!(2)), "{gone}");
    assert_eq!(acme.send("DELETE", &format!("{SCOPE}/3.0.0"), "").await.status, 404);
    let back = acme.send("POST", &format!("{SCOPE}/rollback"), "{}").await;
    assert_eq!(back.status, 200, "what a rollback leads to was kept: {back}");

    // Once nothing is in force there is nothing to step back from.
    acme.post(&format!("{SCOPE}/retire"), json!({})).await;
    assert_eq!(acme.send("DELETE", &format!("{SCOPE}/1.0.0"), "").await.status, 200);
    let stranger = Admin::new_tenant(&app, "other", "tenant-admin");
    assert_eq!(stranger.send("DELETE", &format!("{SCOPE}/2.0.0"), "").await.status, 404);
    app.cli(&["user", "create", "writer", "--tenant", "acme", "--role", "author"]);
    let author = Admin::named(&app, "writer", "acme");
    assert_eq!(author.send("DELETE", &format!("{SCOPE}/2.0.0"), "").await.status, 403);

    acme.push(packages[4].clone()).await;
    app.reload(|config| config.set("/components/quota/bytes", json!(bytes)));
    until("the catalog is too small", SOON, || async {
        let refused = acme.get("components").await.json();
        (refused["usage"]["max_bytes"] == bytes).then_some(())
    })
    .await;
    acme.push(packages[5].clone()).await;
    app.reload(|config| config.set("/components/quota/versions", json!(9)));
    until("more versions may be stored", SOON, || async {
        (acme.get("components").await.json()["usage"]["max_versions"] == 9).then_some(())
    })
    .await;
    let refused = acme.send("POST", "components", packages[6].clone()).await;
    assert_eq!((refused.status, refused.header("x-sallyport-code")), (413, Some("quota_bytes")), "{refused}");

    // Three, one refused, two, one refused: seven in all.
    let refused = acme.send("POST", "components", packages[7].clone()).await;
    assert_eq!(
        (refused.status, refused.header("x-sallyport-code")),
        (429, Some("quota_uploads")),
        "{refused}"
    );
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3_600 / 7 + 1).contains(&after), "{after}");
    vendor_of(&stranger).await;
    stranger.push(packages[0].clone()).await;

    app.stop();
    for code in ["admin_quota_versions", "admin_quota_bytes", "admin_quota_uploads"] {
        assert_eq!(admin_rows(&app, code).len(), 1, "{code}");
    }
    assert_eq!(admin_rows(&app, "admin_in_use").len(), 3);
    let deleted = admin_rows(&app, "component.delete");
    assert_eq!((deleted.len(), &deleted[0]["payload"]["version"]), (2, &json!("3.0.0")));
    assert_eq!(deleted[0]["payload"]["digest"].as_str().unwrap().len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_stays_while_evidence_is_kept_of_what_it_decided() {
    let app = TestApp::with(|config| config.set("/evidence", json!({"record": "calls"}))).await;
    let platform = Admin::of(&app);
    let vendor = vendor_of(&platform).await;
    platform.push(vendor.copy_of("scope", "1.0.0", 1)).await;
    platform.push(vendor.copy_of("scope", "2.0.0", 2)).await;
    platform.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": everything(1)})).await;
    assert_eq!(app.messages(hello()).await.status, 200);
    platform.post(&format!("{SCOPE}/retire"), json!({})).await;
    // What is on its way to the database is there when a gateway has ended.
    app.stop();
    app.launch().await;
    let kept = platform.send("DELETE", &format!("{SCOPE}/1.0.0"), "").await;
    assert_eq!((kept.status, kept.header("x-sallyport-code")), (409, Some("in_use")), "{kept}");
    assert!(kept.to_string().contains("evidence"), "{kept}");
    assert_eq!(
        platform.send("DELETE", &format!("{SCOPE}/2.0.0"), "").await.status,
        200,
        "it decided nothing"
    );
}
