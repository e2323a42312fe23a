//! Two gateways on one PostgreSQL: what is done at one is in force at the other within two seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_protocol::package::{Name, Statement};
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::postgres::Server;
use sallyport_tests::upstream::Upstream;
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::workers::child_of;
use crate::{ask, hello, in_seconds, tell};

/// What a change takes at most to be in force everywhere.
const EVERYWHERE: Duration = Duration::from_secs(2);
const SCOPE: &str = "components/acme/scope";

struct Pair {
    one: TestApp,
    two: TestApp,
    server: Server,
}

/// Two gateways with the same keys; `None`, and said so, where no PostgreSQL is installed.
async fn pair(story: &str) -> Option<Pair> {
    let Some(server) = Server::start().unwrap() else {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        tell(&format!("skipped: {story} (no PostgreSQL server is installed)"));
        return None;
    };
    let on = |name: &'static str| {
        let url = server.url().to_owned();
        move |config: Config| {
            let spool = format!("spool-{name}");
            let config = config.set("/database", json!({"url": url})).set("/audit/replica", json!(name));
            config.set("/audit/spool_dir", json!(spool))
        }
    };
    let mut one = TestApp::on(Upstream::start(), on("one")).await;
    let mut two = TestApp::on(Upstream::start(), on("two")).await;
    one.token = Admin::of(&one).token;
    two.token.clone_from(&one.token);
    Some(Pair { one, two, server })
}

fn rules(effect: &str) -> Value {
    json!({"rules": [{"name": "all", "effect": effect, "models": ["*"]}]})
}

async fn answers(app: &TestApp, status: u16) {
    follows(app, status, EVERYWHERE).await;
}

async fn follows(app: &TestApp, status: u16, limit: Duration) {
    until("the other gateway follows", limit, || async {
        (app.messages(hello()).await.status == status).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_one_gateway_is_in_force_at_the_other_within_two_seconds() {
    let Some(Pair { server: _server, one, two }) = pair("two gateways on one database").await else { return };
    let (at_one, at_two) = (Admin::of(&one), Admin::of(&two));
    let acme = Vendor::new("acme", 1);
    at_one.post("publishers", acme.trust(&["policy"])).await;
    at_one.push(acme.copy_of("scope", "1.0.0", 1)).await;
    let shown = at_two.push(acme.copy_of("scope", "2.0.0", 2)).await;
    assert_eq!(shown["versions"].as_array().unwrap().len(), 2, "one catalog");

    at_one.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": rules("deny")})).await;
    assert_eq!(one.messages(hello()).await.status, 451, "at once where it was done");
    answers(&two, 451).await;

    at_two.post(&format!("{SCOPE}/activate"), json!({"version": "2.0.0", "config": rules("allow")})).await;
    answers(&one, 200).await;

    // Who was down meanwhile comes back to what is in force.
    two.stop();
    at_one.post(&format!("{SCOPE}/rollback"), json!({})).await;
    two.launch().await;
    assert_eq!(two.messages(hello()).await.status, 451);

    at_one.post(&format!("{SCOPE}/activate"), json!({"version": "2.0.0", "config": rules("allow")})).await;
    answers(&two, 200).await;
    at_two.post("revocations", json!({"version": "acme/scope@2.0.0", "reason": "a story"})).await;
    answers(&one, 451).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_gateway_wrote_does_not_keep_alive_what_is_revoked() {
    let Some(Pair { server, one, two }) = pair("a gateway beside a newer one").await else { return };
    let admin = Admin::of(&one);
    let acme = Vendor::new("acme", 1);
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    follow_an_allowing_release(&admin, &two).await;

    // A key that this gateway does not know could mean anything: it keeps the bundle that it has.
    admin.push(acme.copy_of("rate-limit", "1.0.0", 1)).await;
    let unknown = "UPDATE component_entries SET place = place || '{\"from_tomorrow\": 1}' \
                   WHERE name = 'acme/rate-limit'";
    server.execute(unknown).unwrap();
    assert_eq!(one.messages(hello()).await.status, 200);

    let revocation = json!({"version": "acme/scope@1.0.0", "reason": "a story"});
    admin.send("POST", "revocations", revocation.to_string()).await;
    answers(&one, 451).await;
    answers(&two, 451).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_compiles_for_long_serves_on_and_ends_what_is_revoked_meanwhile() {
    let Some(Pair { server: _server, one, two }) = pair("a revocation during a reload").await else { return };
    let admin = Admin::of(&one);
    let acme = Vendor::new("acme", 1);
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    follow_an_allowing_release(&admin, &two).await;

    // Two dozen policies that this gateway has never seen: it compiles them one after the other.
    let mut listed = Vec::new();
    for number in 0..24 {
        let file = format!("slow-{number}.sallyport");
        let name = format!("acme/slow-{number}");
        let package = acme.release("scope", &format!("1.0.{number}"), 1, |statement| Statement {
            name: Name::parse(&name).unwrap(),
            ..statement
        });
        std::fs::write(two.home().join(&file), package).unwrap();
        listed.push(json!({"component": file, "config": rules("allow")}));
    }
    two.reload(|config| config.set("/bundle", json!(listed)));
    child_of(two.pid(), "compile-component").await;

    admin.post("revocations", json!({"version": "acme/scope@1.0.0", "reason": "a story"})).await;
    answers(&two, 451).await;
    assert!(!two.log().contains("read again"), "and it still compiles: {}", two.log());
}

/// Puts a release in force that lets everything through, and returns when the other gateway has it: an answer alone could be
/// that of before.
async fn follow_an_allowing_release(admin: &Admin<'_>, other: &TestApp) {
    let step = |effect: &str| json!({"version": "1.0.0", "config": rules(effect)});
    admin.post(&format!("{SCOPE}/activate"), step("deny")).await;
    follows(other, 451, SOON).await;
    admin.post(&format!("{SCOPE}/activate"), step("allow")).await;
    follows(other, 200, SOON).await;
}

fn rounds() -> (usize, usize) {
    if crate::soak() { (200, 20) } else { (10, 2) }
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_and_revocations_under_load_fail_no_call_and_mix_no_bundles() {
    let Some(Pair { server: _server, one, two }) = pair("swaps under load on two gateways").await else {
        return;
    };
    let (swaps, revocations) = rounds();
    let admin = Admin::of(&one);
    let acme = Vendor::new("acme", 1);
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.copy_of("scope", "0.1.0", 1)).await;
    admin.push(acme.copy_of("scope", "0.2.0", 2)).await;
    let activate = |version: String| json!({"version": version, "config": rules("allow")});
    let denying = json!({"version": "0.1.0", "config": rules("deny")});
    admin.post(&format!("{SCOPE}/activate"), denying).await;
    answers(&two, 451).await;
    admin.post(&format!("{SCOPE}/activate"), activate("0.1.0".to_owned())).await;
    answers(&two, 200).await;

    let stop = Arc::new(AtomicBool::new(false));
    let (good, denied, bad) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for (client, token) in [(one.client(), &one.token), (two.client(), &two.token)] {
        for _ in 0..2 {
            let (client, bearer) = (client.clone(), format!("Bearer {token}"));
            let (stop, good, denied, bad) =
                (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&denied), Arc::clone(&bad));
            callers.spawn(async move {
                let body = Bytes::from(ask("echo", "Hello").to_string());
                while !stop.load(Ordering::Relaxed) {
                    let headers = [("authorization", bearer.as_str())];
                    let counter = match client.try_send("POST", "/v1/messages", &headers, body.clone()).await
                    {
                        Ok(reply) if reply.status == 200 && reply.complete => &good,
                        Ok(reply) if reply.status == 451 => &denied,
                        _ => &bad,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let started = Instant::now();
    for round in 0..swaps {
        // To the other one and back: every second step goes to an older serial, and is a step back.
        let step = if round % 2 == 0 { "activate" } else { "rollback" };
        let body = if round % 2 == 0 { activate("0.2.0".to_owned()) } else { json!({"version": "0.1.0"}) };
        admin.post(&format!("{SCOPE}/{step}"), body).await;
    }
    let swapping = started.elapsed();
    assert_eq!(denied.load(Ordering::Relaxed), 0, "a swap denies nobody");
    let mut revoked: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..revocations {
        let version = format!("1.{round}.0");
        let shown = admin.push(acme.copy_of("scope", &version, 10 + round as u64)).await;
        admin.post(&format!("{SCOPE}/activate"), activate(version.clone())).await;
        let versions = shown["versions"].as_array().unwrap();
        let digest = versions.iter().find(|it| it["version"] == version.as_str()).unwrap()["digest"].clone();
        answers(&two, 200).await;
        admin.post("revocations", json!({"digest": digest, "reason": "a story"})).await;
        let at = in_seconds(i64::try_from(EVERYWHERE.as_secs()).unwrap());
        revoked.insert(digest.as_str().unwrap().to_owned(), at);
        answers(&two, 451).await;
    }
    stop.store(true, Ordering::Relaxed);
    while callers.join_next().await.is_some() {}
    let (good, bad) = (good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed));
    tell(&format!(
        "two gateways: {swaps} swaps in {swapping:?}, {revocations} revocations, {good} calls answered, {} denied, {bad} failed",
        denied.load(Ordering::Relaxed)
    ));
    assert_eq!(bad, 0, "of {good} calls");

    one.stop();
    two.stop();
    let rows = one.audit_rows();
    let mut bundles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["kind"] == "inference") {
        let decided = row["payload"]["components"].as_array().unwrap();
        let policies: Vec<_> = decided.iter().filter(|it| it["name"] == "acme/scope").collect();
        assert!(policies.len() <= 1, "a call sees one release: {row}");
        let Some(policy) = policies.first() else { continue };
        let digest = policy["digest"].as_str().unwrap().to_owned();
        if let (Some(latest), "allow") = (revoked.get(&digest), policy["verdict"].as_str().unwrap()) {
            let at = row["occurred_at"].as_str().unwrap();
            assert!(at < latest.as_str(), "{digest} was revoked, and decided at {at}, after {latest}");
        }
        bundles.entry(row["policy_ver"].as_str().unwrap().to_owned()).or_default().insert(digest);
    }
    assert!(bundles.len() > 2, "{bundles:?}");
    assert!(bundles.values().all(|digests| digests.len() == 1), "a version is one bundle: {bundles:?}");
}

/// How many calls a user makes at one gateway while it is revoked at the other, and over how long.
fn raced_calls() -> (u32, Duration) {
    (if crate::soak() { 1_000 } else { 200 }, Duration::from_secs(6))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_revoked_at_one_gateway_has_no_call_taken_at_the_other_after_two_seconds() {
    let Some(Pair { server: _server, one, two }) = pair("a user is revoked amid calls").await else { return };
    one.cli(&["user", "create", "ann"]);
    let made = one.cli_json(&["gateway", "pat", "create", "--user", "ann", "--name", "race"]);
    let pat = made["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {pat}");
    let headers = [("authorization", bearer.as_str())];
    let exchanged = one.client().send("POST", "/v1/auth/cowork/pat", &headers, Bytes::new()).await.json();
    let token = exchanged["token"].as_str().unwrap().to_owned();

    // Half of the calls come with the personal access token, half with the access token that it was exchanged for.
    let (calls, span) = raced_calls();
    let began = Instant::now();
    let mut under_way = tokio::task::JoinSet::new();
    let revoking = tokio::task::spawn_blocking(move || {
        std::thread::sleep(span / 6);
        one.cli(&["user", "revoke", "ann"]);
        (one, Instant::now())
    });
    for number in 0..calls {
        tokio::time::sleep_until((began + span * number / calls).into()).await;
        let client = two.client();
        let bearer = format!("Bearer {}", if number % 2 == 0 { &pat } else { &token });
        under_way.spawn(async move {
            let asked = Instant::now();
            let reply = client
                .send("POST", "/v1/messages", &[("authorization", bearer.as_str())], hello().to_string())
                .await;
            (asked, number % 2, reply.status)
        });
    }
    let answered = under_way.join_all().await;
    let (_one, revoked) = revoking.await.unwrap();
    assert_eq!(answered.len(), usize::try_from(calls).unwrap());
    assert!(answered.iter().all(|(_, _, status)| [200, 401].contains(status)), "{answered:?}");
    let late = |(asked, _, _): &&(Instant, u32, u16)| *asked > revoked + EVERYWHERE;
    for kind in 0..2 {
        let of_kind: Vec<_> = answered.iter().filter(|it| it.1 == kind).collect();
        assert!(of_kind.iter().any(|it| it.2 == 200), "{kind}: some were taken before");
        let after: Vec<_> = of_kind.into_iter().filter(late).collect();
        assert!(after.len() > 10, "{kind}: {} calls came after it had to be known", after.len());
        assert!(after.iter().all(|it| it.2 == 401), "{kind}: a call was taken after two seconds: {after:?}");
    }
    let last = answered.iter().filter(|it| it.2 == 200).map(|it| it.0).max().unwrap();
    tell(&format!(
        "revoked amid {calls} calls: the last one was taken {:?} after",
        last.saturating_duration_since(revoked)
    ));
}
