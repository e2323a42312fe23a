//! Under attack: each attacker gets the documented answer again and again, and beside all of them at once no honest call fails or
//! loses its row. `cargo xtask soak attacks` goes on for ten minutes (`SALLYPORT_ATTACK_SECONDS` says otherwise) and judges times
//! and memory too.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::attacks::witness::{FORBIDDEN, FORBIDDEN_TOOL, Witness};
use sallyport_tests::attacks::{Findings, Site, Until, connections, replies, requests, tenants};
use sallyport_tests::gateway::{Config, TestApp, UPSTREAM_KEY};
use sallyport_tests::process::resident;
use sallyport_tests::upstream::Upstream;
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::json;
use tokio::task::JoinSet;

/// More than this the gateway never takes, however many bodies are held.
const MOST_MEMORY: u64 = 700 * 1024 * 1024;

/// How long an attacker waits to be let go, where heads and bodies have three seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that stands against attackers, as an operator would have it.
fn guarded(config: Config) -> Config {
    let tools = json!({"rules": [{"name": "vault", "effect": "deny", "tools": ["mcp__vault__*"]}]});
    let events = json!({"rules": [
        {"name": "plan", "on": ["UserPromptSubmit"], "contains": [FORBIDDEN], "then": {"block": "not for models"}},
        {"name": "answers", "on": ["PostToolUse"], "contains": ["10.99.0."], "then": {"mask": "[address]"}},
    ]});
    assert!(FORBIDDEN_TOOL.starts_with("mcp__vault__"));
    config
        .component("sallyport/scope", tools)
        .component("sallyport/secret-scan", json!({"action": "deny"}))
        .component("sallyport/event-rules", events)
        .component(
            "sallyport/block-tool",
            json!({"tools": ["Bash"], "input_contains": ["rm -rf"], "reason": "not for machines"}),
        )
        .set("/server/head_timeout_ms", json!(3000))
        .set("/components/quota", json!({"versions": 8, "uploads_per_hour": 40}))
}

/// A gateway, its witness, and a user of it who means harm.
struct Field {
    app: TestApp,
    witness: Witness,
    site: Site,
}

impl Field {
    async fn new() -> Self {
        let app = TestApp::on(Upstream::start_forgetful(), guarded).await;
        let witness = Witness::of(&app.upstream);
        let site = attacker(&app, "mallory");
        Self { app, witness, site }
    }

    /// An administrator of a tenant that takes more than its share, and whose components it signs.
    async fn greedy(&self) -> (Site, Vendor) {
        let boss = Admin::new_tenant(&self.app, "greedy", "tenant-admin");
        let vendor = Vendor::new("greedy", 66);
        boss.post("publishers", vendor.trust(&["policy"])).await;
        (Site { token: boss.token, ..self.site.seen_from(20) }, vendor)
    }

    /// The same gateway for a user of its own: what it holds is held against nobody else.
    fn as_user(&self, user: &str, from: u8) -> Site {
        attacker(&self.app, user).seen_from(from)
    }

    /// Nothing was found, nothing passed that should not, and the next caller is served.
    async fn stands(&self, findings: &[Findings]) {
        for found in findings {
            assert!(found.rounds > 0, "{} did not happen", found.attack);
            assert!(found.wrong.is_empty(), "{}: {:#?}", found.attack, found.wrong);
        }
        assert_eq!(self.witness.seen(), Vec::<String>::new(), "what no upstream may see");
        let reply = self.app.messages(crate::hello()).await;
        assert_eq!(reply.status, 200, "{reply}");
        assert_eq!(self.app.row_of(&reply).await["outcome"], "allowed");
    }
}

/// A new user who means harm.
fn attacker(app: &TestApp, user: &str) -> Site {
    app.cli(&["user", "create", user, "--tenant", "default", "--role", "member"]);
    let minted = app.cli_json(&["gateway", "pat", "create", "--user", user, "--name", "attack"]);
    Site {
        address: app.address(),
        token: minted["token"].as_str().unwrap().to_owned(),
        from: Ipv4Addr::new(127, 0, 66, 66),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_judged_wherever_it_stands() {
    let field = Field::new().await;
    let found = requests::prompts(&field.site, Until::once()).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_denied_wherever_it_is_named() {
    let field = Field::new().await;
    let found = requests::tools(&field.site, Until::once()).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_found_wherever_it_stands() {
    let field = Field::new().await;
    let found = requests::secrets(&field.site, Until::once()).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_no_count_is_refused() {
    let field = Field::new().await;
    let found = requests::numbers(&field.site, Until::once()).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_hardly_anything_are_let_go() {
    let field = Field::new().await;
    let (silent, slow) = (field.site.clone(), field.site.seen_from(12));
    let (silent, slow) = tokio::join!(
        connections::silent(&silent, Until::once(), 200, TIMEOUT),
        connections::slow_bodies(&slow, Until::once(), 8, TIMEOUT),
    );
    let held = connections::held_bodies(&field.site, Until::once(), 12, TIMEOUT).await;
    field.stands(&[silent, slow, held]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_lies_gets_no_tool_call_past_the_gate() {
    let field = Field::new().await;
    let found = replies::lying_upstream(&field.site, Until::once()).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_an_upstream_repeats_does_not_come_back() {
    let field = Field::new().await;
    let found = replies::echoed_credential(&field.site, Until::once(), UPSTREAM_KEY).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_mebibyte_are_answered_in_short() {
    let field = Field::new().await;
    let found = requests::long_names(&field.site, Until::once(), 1 << 20).await;
    field.stands(&[found]).await;
    assert!(field.app.log().len() < 1 << 20, "the log is short too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_read_in_one_way_and_what_is_meant_for_the_gateway_stops_there() {
    let field = Field::new().await;
    let found = requests::smuggling(&field.site, Until::once()).await;
    field.stands(&[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_many_rows_has_all_of_them_and_its_price() {
    let field = Field::new().await;
    let results = requests::many_results(&field.site, Until::once(), 400).await;
    let (calls, answered) = replies::many_tool_calls(&field.site, Until::once(), 400).await;
    field.stands(&[results, calls]).await;
    assert!(!answered.is_empty(), "so many calls are within the limits");
    has_all_rows(&field.app, &answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_takes_more_than_its_share_is_told_so() {
    let field = Field::new().await;
    let (site, vendor) = field.greedy().await;
    let (loops, versions) = (looping(&vendor), versions(&vendor));
    let uploads = tenants::uploads(&site, Until::once(), 8, versions).await;
    let compile = tenants::compile_loops(&site, Until::once(), loops).await;
    field.stands(&[uploads, compile]).await;
}

/// Releases of a component that loops before it is anything, by their number.
fn looping(vendor: &Vendor) -> impl Fn(usize) -> Bytes {
    |number| vendor.hostile("02-start-loop", "loop", &format!("1.{number}.0"), number as u64 + 1)
}

/// Releases of a component that works, by their number.
fn versions(vendor: &Vendor) -> impl Fn(usize) -> Bytes {
    |number| vendor.copy_of("scope", &format!("1.{number}.0"), number as u64 + 1)
}

/// Each of these traces has as many rows of tool calls as the reply had, its price, and what decided.
async fn has_all_rows(app: &TestApp, answered: &BTreeMap<String, usize>) {
    for (trace, calls) in answered {
        let rows = app.lineage(trace).await;
        let of = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
        assert_eq!(of("tool_call"), *calls, "{trace}");
        let call = rows.iter().find(|row| row["kind"] == "inference").unwrap();
        let cost: i64 = rows.iter().filter_map(|row| row["cost_micro"].as_i64()).sum();
        // 12 x 3 + 7 x 15 + 5 x 0.3 + 3 x 3.75 millionths, once.
        assert!((153..=154).contains(&cost), "{trace} costs {cost}: {call}");
        let components = call["payload"]["components"].as_array();
        assert!(components.is_some_and(|list| !list.is_empty()), "{trace} does not say what decided: {call}");
    }
}

// === all of them at once ===

/// How long all of them go on at once.
fn siege() -> Duration {
    let named = std::env::var_os("SALLYPORT_ATTACK_SECONDS").and_then(|it| it.to_str()?.parse().ok());
    let usual = if crate::soak() { 600 } else { 8 };
    Duration::from_secs(named.unwrap_or(usual))
}

/// Honest callers, each with a pause between calls as people have, until told to stop: how long each answer took.
async fn honest(app: &TestApp, until: Until) -> Vec<Duration> {
    let mut took = Vec::new();
    while until.goes_on(took.len()) {
        let mut body =
            crate::ask("claude-sonnet-4-5", &format!("Question {}: {}", took.len(), "why? ".repeat(400)));
        body["stream"] = json!(took.len() % 2 == 0);
        let began = Instant::now();
        let reply = app.messages(body).await;
        took.push(began.elapsed());
        assert!(
            reply.status == 200 && reply.complete && reply.text() == "Served.",
            "an honest call: {reply}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took
}

/// Both honest callers; 99 of 100 calls took at most so long.
async fn honest_ninety_nine(app: &TestApp, until: Until) -> (usize, Duration) {
    let (one, other) = tokio::join!(honest(app, until), honest(app, until));
    let mut all = [one, other].concat();
    all.sort_unstable();
    (all.len(), all[all.len() * 99 / 100])
}

/// The most memory that a process takes, looked at until told to stop.
async fn highest(pid: u32, stop: Arc<AtomicBool>) -> u64 {
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        most = most.max(resident(pid).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attacks_all_at_once_leave_honest_calls_alone_and_every_row_in_its_place() {
    let field = Field::new().await;
    let Field { app, site, .. } = &field;
    let (alone_calls, alone) = honest_ninety_nine(app, Until::after(siege() / 8)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut memory = JoinSet::new();
    memory.spawn(highest(app.pid(), Arc::clone(&stop)));
    let end = Until::after(siege());
    let mut attackers: JoinSet<Findings> = JoinSet::new();
    // Each has an address of its own.
    let from = |last| site.seen_from(last);
    let cuts = from(3);
    attackers.spawn(async move { replies::cut_streams(&cuts, end, 61).await });
    let prompts = from(5);
    attackers.spawn(async move { requests::prompts(&prompts, end).await });
    let tools = from(6);
    attackers.spawn(async move { requests::tools(&tools, end).await });
    let secrets = from(7);
    attackers.spawn(async move { requests::secrets(&secrets, end).await });
    let numbers = from(8);
    attackers.spawn(async move { requests::numbers(&numbers, end).await });
    let silent = from(1);
    attackers.spawn(async move { connections::silent(&silent, end, 100, TIMEOUT).await });
    let slow = field.as_user("slow", 2);
    attackers.spawn(async move { connections::slow_bodies(&slow, end, 8, TIMEOUT).await });
    let hoarder = field.as_user("hoarder", 4);
    attackers.spawn(async move { connections::held_bodies(&hoarder, end, 8, TIMEOUT).await });
    let liar = from(9);
    attackers.spawn(async move { replies::lying_upstream(&liar, end).await });
    let echo = from(10);
    attackers.spawn(async move { replies::echoed_credential(&echo, end, UPSTREAM_KEY).await });
    let long = field.as_user("verbose", 12);
    attackers.spawn(async move { requests::long_names(&long, end, 1 << 20).await });
    let heads = from(13);
    attackers.spawn(async move { requests::smuggling(&heads, end).await });
    let (results, many) = (from(11), if crate::soak() { 8000 } else { 400 });
    attackers.spawn(async move { requests::many_results(&results, end, many).await });
    let (greedy, vendor) = field.greedy().await;
    let (loops, patient) = (looping(&vendor), greedy.seen_from(21));
    let greed = async {
        let uploads = tenants::uploads(&greedy, end, 8, versions(&vendor)).await;
        [uploads, tenants::compile_loops(&patient, end, loops).await]
    };
    let calls = from(14);
    let many_calls =
        async { replies::many_tool_calls(&calls, end, if crate::soak() { 3000 } else { 400 }).await };
    let ((beside_calls, beside), (calls, answered), greed) =
        tokio::join!(honest_ninety_nine(app, end), many_calls, greed);
    let mut findings = attackers.join_all().await;
    findings.push(calls);
    findings.extend(greed);
    stop.store(true, Ordering::Relaxed);
    let most = memory.join_next().await.unwrap().unwrap();

    for found in &findings {
        crate::tell(&format!("{}: {} rounds, {} findings", found.attack, found.rounds, found.wrong.len()));
    }
    crate::tell(&format!(
        "honest p99 {alone:?} of {alone_calls} calls alone, {beside:?} of {beside_calls} under attack; {} MiB at most",
        most >> 20
    ));
    field.stands(&findings).await;
    has_all_rows(app, &answered).await;
    if crate::soak() {
        assert!(beside <= alone * 2, "honest calls cost at most twice as much: {alone:?}, {beside:?}");
        assert!(most < MOST_MEMORY, "{} MiB", most >> 20);
    }
    // That every honest answer has exactly its row, the rig asks where the story ends.
}
