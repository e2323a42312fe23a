//! Batches: each request is judged as a message would be, a batch is its tenant's alone, and what it cost is on one row.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{TestApp, UPSTREAM_KEY};
use sallyport_tests::upstream::{Script, Seen};
use sallyport_tests::vendor::Admin;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const BATCHES: &str = "/v1/messages/batches";
/// An access key in the shape that scanners know; it opens nothing.
const KEY: &str = "AKIAQ3EGRFZXNDOMVWJK";

/// What two answers of a batch cost, by the prices of `claude-sonnet-4-5`: half of 1,000 x 3 + 100 x 15, twice.
const COST: i64 = 4_500;

pub(super) fn json_of(status: u16, body: &Value) -> Script {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Script::Status(status, headers, Bytes::from(body.to_string()))
}

fn batch(id: &str, status: &str) -> Value {
    let url = (status == "ended").then(|| format!("https://api.anthropic.com{BATCHES}/{id}/results"));
    json!({"id": id, "type": "message_batch", "processing_status": status, "results_url": url})
}

fn results() -> String {
    let line = |id: &str| {
        let message = json!({"id": "msg_1", "type": "message", "model": "claude-sonnet-4-5-20250929",
            "usage": {"input_tokens": 1000, "output_tokens": 100}});
        json!({"custom_id": id, "result": {"type": "succeeded", "message": message}}).to_string()
    };
    format!("{}\n{}\n", line("a"), line("b"))
}

/// An upstream whose batches end when they are looked at.
fn upstream(seen: &Seen) -> Script {
    let path = seen.target.split('?').next().unwrap().to_owned();
    let rest = path.strip_prefix(BATCHES).unwrap_or_else(|| panic!("not a batch: {path}"));
    let id = rest.split('/').nth(1).unwrap_or_default();
    match (seen.method.as_str(), rest.rsplit('/').next()) {
        ("POST", Some("")) => json_of(200, &batch("msgbatch_1", "in_progress")),
        ("POST", Some("cancel")) => json_of(200, &batch(id, "canceling")),
        ("GET", Some("results")) => {
            let headers = vec![("content-type".to_owned(), "application/x-jsonl".to_owned())];
            Script::Status(200, headers, results().into())
        }
        ("GET", _) => json_of(200, &batch(id, "ended")),
        ("DELETE", _) => json_of(200, &json!({"id": id, "type": "message_batch_deleted"})),
        other => panic!("nobody asks for {other:?}"),
    }
}

async fn app(
    change: impl FnOnce(sallyport_tests::gateway::Config) -> sallyport_tests::gateway::Config,
) -> TestApp {
    let app = TestApp::with(change).await;
    app.upstream.choose(upstream);
    app
}

fn request(id: &str, model: &str, text: &str) -> Value {
    json!({"custom_id": id, "params": crate::ask(model, text)})
}

fn hello(id: &str) -> Value {
    request(id, "claude-sonnet-4-5", "Hello")
}

async fn create(app: &TestApp, requests: &[Value]) -> Reply {
    app.post(BATCHES, &[], json!({"requests": requests}).to_string()).await
}

/// Any other request, with a token.
pub(super) async fn send(app: &TestApp, token: &str, method: &str, target: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    app.client().send(method, target, &[("authorization", &bearer)], Bytes::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_through_its_life_and_its_cost_is_on_one_row() {
    let app = app(|config| config).await;
    let body = format!(r#"{{ "requests": [ {}, {} ] }}"#, hello("a"), hello("b"));
    let made = app.post(&format!("{BATCHES}?beta=true"), &[("anthropic-beta", "x-1")], body.clone()).await;
    assert_eq!((made.status, &made.json()["id"]), (200, &json!("msgbatch_1")), "{made}");
    let seen = app.upstream.last();
    assert_eq!(seen.body, body, "the client's bytes");
    assert_eq!(
        (seen.target.as_str(), seen.header("anthropic-beta")),
        ("/v1/messages/batches?beta=true", Some("x-1"))
    );
    assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (Some(UPSTREAM_KEY), None));
    let row = app.row_of(&made).await;
    let payload = &row["payload"];
    assert_eq!(
        (&row["outcome"], &payload["operation"]),
        (&json!("allowed"), &json!("batch_create")),
        "{row}"
    );
    assert_eq!((&payload["batch"], &payload["requests"]), (&json!("msgbatch_1"), &json!(2)), "{row}");
    assert_eq!(
        payload["components"][0]["requests"], 2,
        "components are counted, not listed each time: {row}"
    );

    let looked = app.get(&format!("{BATCHES}/msgbatch_1")).await.json();
    assert_eq!(
        looked["results_url"], "/v1/messages/batches/msgbatch_1/results",
        "not the upstream's address"
    );
    let listed = app.get(BATCHES).await.json();
    assert_eq!((&listed["data"], &listed["has_more"]), (&json!([looked]), &json!(false)));

    let mut costs = Vec::new();
    for _ in 0..2 {
        let read = app.get(&format!("{BATCHES}/msgbatch_1/results")).await;
        assert_eq!((read.status, read.body.as_ref()), (200, results().as_bytes()), "untouched");
        assert_eq!(read.header("content-type"), Some("application/x-jsonl"));
        let rows = app.lineage(read.header("x-trace-id").unwrap()).await;
        costs.extend(rows.into_iter().filter(|row| row["kind"] == "cost"));
    }
    let [cost] = <[Value; 1]>::try_from(costs).expect("one row has the cost");
    assert_eq!(
        (&cost["cost_micro"], &cost["model"]),
        (&json!(COST), &json!("claude-sonnet-4-5-20250929")),
        "{cost}"
    );

    assert_eq!(send(&app, &app.token, "POST", &format!("{BATCHES}/msgbatch_1/cancel")).await.status, 200);
    assert_eq!(send(&app, &app.token, "DELETE", &format!("{BATCHES}/msgbatch_1")).await.status, 200);
    let gone = app.get(&format!("{BATCHES}/msgbatch_1")).await;
    assert_eq!((gone.status, gone.error_type().as_str()), (404, "not_found_error"), "{gone}");
    assert_eq!(app.get(BATCHES).await.json()["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_request_refuses_the_batch_and_is_named() {
    let rules = json!({"rules": [{"name": "no-opus", "effect": "deny", "models": ["claude-opus-*"]}]});
    let app = app(|config| {
        config
            .component("sallyport/scope", rules)
            .component("sallyport/secret-scan", json!({"action": "deny"}))
    })
    .await;
    let secret = request("leak", "claude-sonnet-4-5", &format!("my key is {KEY}"));
    let opus = request("dear", "claude-opus-4-5", "Hello");
    let unread =
        json!({"custom_id": "odd", "params": {"model": "claude-sonnet-4-5", "messages": [], "Messages": []}});
    for (bad, status, code, id) in [
        (secret, 451, None, "leak"),
        (opus, 451, Some("model_not_allowed"), "dear"),
        (unread, 400, Some("body_ambiguous"), "odd"),
        (request("lost", "nobody", "Hello"), 404, Some("no_route"), "lost"),
    ] {
        let reply = create(&app, &[hello("good"), bad, hello("better")]).await;
        assert_eq!(reply.status, status, "{reply}");
        let said = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(said.contains(&format!("request 1 ({id}) of the batch")), "{said}");
        assert!(!said.contains(KEY), "{said}");
        let row = app.row_of(&reply).await;
        assert_ne!(row["outcome"], "allowed", "{row}");
        assert!(row["payload"]["reason"].as_str().unwrap().contains(id), "{row}");
        if let Some(code) = code {
            assert_eq!(row["payload"]["code"], code, "{row}");
        }
    }
    assert_eq!(app.upstream.seen(), 0, "nothing of them was sent");
    assert_eq!(create(&app, &[hello("good"), hello("better")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_and_a_scanner_change_in_a_message_they_change_in_a_request_of_a_batch() {
    let app = app(|config| {
        config.set(
            "/bundle",
            json!([{"component": "sallyport/secret-scan", "rewrite": true, "config": {"action": "redact"}}]),
        )
    })
    .await;
    let mut secret = request("b", "renamed-1", &format!("my key is {KEY}, be careful"));
    secret["params"]["metadata"] = json!({"user_id": "someone"});
    let reply = create(&app, &[request("a", "claude-sonnet-4-5", "Hello"), secret]).await;
    assert_eq!(reply.status, 200, "{reply}");
    let sent = app.upstream.last().json();
    let models: Vec<_> =
        sent["requests"].as_array().unwrap().iter().map(|it| it["params"]["model"].clone()).collect();
    assert_eq!(models, ["claude-sonnet-4-5", "claude-renamed"]);
    let text = sent["requests"][1].to_string();
    assert!(!text.contains(KEY) && text.contains("be careful"), "{text}");
    let row = app.row_of(&reply).await;
    assert!(row["payload"]["forwarded_blake3"].is_string(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_made_no_other_finds_reads_lists_or_deletes() {
    let app = app(|config| config).await;
    let other = Admin::new_tenant(&app, "other", "tenant-admin");
    assert_eq!(create(&app, &[hello("a")]).await.status, 200);
    let asked = app.upstream.seen();
    let one = format!("{BATCHES}/msgbatch_1");
    for (method, target) in [
        ("GET", one.clone()),
        ("DELETE", one.clone()),
        ("POST", format!("{one}/cancel")),
        ("GET", format!("{one}/results")),
        ("GET", format!("{BATCHES}?after_id=msgbatch_1")),
        ("GET", format!("{BATCHES}/..%2f..%2fmodels")),
    ] {
        let reply = send(&app, &other.token, method, &target).await;
        assert_eq!(
            (reply.status, reply.error_type().as_str()),
            (404, "not_found_error"),
            "{method} {target}: {reply}"
        );
        assert_eq!(app.row_of(&reply).await["payload"]["code"], "not_found", "{method} {target}");
    }
    assert_eq!(send(&app, &other.token, "GET", BATCHES).await.json()["data"], json!([]));
    assert_eq!(app.upstream.seen(), asked, "the upstream, which knows no tenants, is not asked");
    assert_eq!(app.client().send("GET", &one, &[], "").await.status, 401);
    assert_eq!(app.get(&one).await.status, 200, "its own has it still");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_or_has_no_upstream_for_it_is_refused_in_words() {
    let app = app(|config| config).await;
    for (body, status, code) in [
        ("nonsense".to_owned(), 400, "body_malformed"),
        (json!({"requests": []}).to_string(), 400, "body_malformed"),
        (json!({"requests": [hello("a"), hello("a")]}).to_string(), 400, "body_malformed"),
        (json!({"requests": [hello("a")], "system": "beside"}).to_string(), 400, "body_malformed"),
        (json!({"requests": [request("a", "gpt-5", "Hello")]}).to_string(), 404, "not_offered"),
        (json!({"requests": [hello("a"), request("b", "gpt-5", "Hello")]}).to_string(), 400, "batch_split"),
    ] {
        let reply = app.post(BATCHES, &[], body.clone()).await;
        assert_eq!((reply.status, reply.header("x-sallyport-code")), (status, Some(code)), "{body}: {reply}");
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{body}: {reply}");
        assert_eq!(app.row_of(&reply).await["payload"]["code"], code);
    }
    assert_eq!(app.upstream.seen(), 0);
    for query in ["limit=0", "limit=x", "after_id=a&before_id=b"] {
        let reply = app.get(&format!("{BATCHES}?{query}")).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_error_is_the_clients_and_a_batch_that_it_did_not_take_is_nobodys() {
    let app = TestApp::start().await;
    app.upstream.script(Script::error(
        400,
        "invalid_request_error",
        &format!("bad batch, key {UPSTREAM_KEY}"),
    ));
    let reply = create(&app, &[hello("a")]).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply}");
    assert!(!reply.to_string().contains(UPSTREAM_KEY), "{reply}");
    assert_eq!(app.row_of(&reply).await["payload"]["code"], "upstream_error");
    app.upstream.script(Script::Status(200, Vec::new(), "[]".into()));
    assert_eq!(create(&app, &[hello("a")]).await.status, 502);
    app.upstream.script(Script::Status(401, Vec::new(), "{}".into()));
    let refused = create(&app, &[hello("a")]).await;
    assert_eq!(
        (refused.status, refused.header("x-sallyport-code")),
        (502, Some("upstream_credential")),
        "{refused}"
    );
    assert_eq!(app.get(BATCHES).await.json()["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_break_off_do_not_look_whole_and_cost_nothing_yet() {
    use sallyport_tests::upstream::Step;
    let app = app(|config| config).await;
    assert_eq!(create(&app, &[hello("a")]).await.status, 200);
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{}", results());
    // It breaks off once the client has the head: before, there is nothing that could look whole.
    let gate = Arc::new(Semaphore::new(0));
    app.upstream.next(Script::Steps(vec![
        Step::Write(cut.into()),
        Step::Gate(Arc::clone(&gate)),
        Step::Close,
    ]));
    let target = format!("{BATCHES}/msgbatch_1/results");
    let authorization = format!("Bearer {}", app.token);
    let headers = [("authorization", authorization.as_str())];
    let begun = app.client().try_open("GET", &target, &headers, Bytes::new()).await.unwrap();
    gate.add_permits(1);
    let broken = begun.whole().await;
    assert!(!broken.complete, "{broken}");
    let row = app.row_of(&broken).await;
    assert_eq!(
        (&row["outcome"], &row["payload"]["code"]),
        (&json!("error"), &json!("upstream_answer")),
        "{row}"
    );
    let whole = app.get(&target).await;
    let rows = app.lineage(whole.header("x-trace-id").unwrap()).await;
    let cost: Vec<_> =
        rows.iter().filter(|row| row["kind"] == "cost").map(|row| &row["cost_micro"]).collect();
    assert_eq!(cost, [&json!(COST)], "{rows:?}");
}

/// An upstream whose batches end once the gate is open, and which fails as often as it is told to.
fn slow_upstream(gate: Arc<AtomicBool>, fails: Arc<AtomicUsize>) -> impl Fn(&Seen) -> Script + Send + Sync {
    move |seen| {
        let one_less = |left: usize| left.checked_sub(1);
        if seen.method == "GET" && fails.fetch_update(SeqCst, SeqCst, one_less).is_ok() {
            return json_of(
                500,
                &json!({"type": "error", "error": {"type": "api_error", "message": "down"}}),
            );
        }
        let rest = seen.target.strip_prefix(BATCHES).unwrap().to_owned();
        match rest.trim_start_matches('/') {
            id if !gate.load(SeqCst) && !id.is_empty() => json_of(200, &batch(id, "in_progress")),
            _ => upstream(seen),
        }
    }
}

/// The rows about what became of batches that nobody has read, once there are so many.
async fn settled(app: &TestApp, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let rows: Vec<_> = app
            .siem_lines()
            .into_iter()
            .filter(|row| row["payload"]["operation"] == "batch_settle")
            .collect();
        if rows.len() >= count {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no row says what became of the batch: {}", app.log());
}

fn costs_of(app: &TestApp, trace: &Value) -> Vec<Value> {
    let of = |row: &Value| row["kind"] == "cost" && row["trace_id"] == *trace;
    app.siem_lines().into_iter().filter(of).collect()
}

fn impatient(config: sallyport_tests::gateway::Config) -> sallyport_tests::gateway::Config {
    config.set("/gateway/settle_batches_after_seconds", json!(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_nobody_reads_has_its_cost_and_a_reader_after_that_does_not_price_it_twice() {
    let (gate, fails) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(1)));
    let app = TestApp::with(impatient).await;
    app.upstream.choose(slow_upstream(Arc::clone(&gate), Arc::clone(&fails)));
    let made = app
        .post(
            BATCHES,
            &[("anthropic-beta", "x-1")],
            json!({"requests": [hello("a"), hello("b")]}).to_string(),
        )
        .await;
    assert_eq!(made.status, 200, "{made}");
    let asked = |times: usize| {
        let app = &app;
        async move {
            for _ in 0..200 {
                let seen = app.upstream.requests();
                if seen.iter().filter(|seen| seen.method == "GET").count() >= times {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("it is not asked {times} times: {}", app.log());
        }
    };
    // The first question fails, the second finds that the batch is not at its end.
    let seen = asked(2).await;
    let [one, other] = seen.iter().filter(|seen| seen.method == "GET").collect::<Vec<_>>()[..] else {
        panic!("it is asked at intervals that grow: {seen:?}")
    };
    assert!(other.at - one.at >= Duration::from_millis(1_900), "after twice as long");
    assert_eq!(
        (one.target.as_str(), one.header("x-api-key")),
        ("/v1/messages/batches/msgbatch_1", Some(UPSTREAM_KEY))
    );
    assert_eq!(
        (one.header("anthropic-version"), one.header("anthropic-beta")),
        (Some("2023-06-01"), Some("x-1"))
    );
    let none =
        app.siem_lines().into_iter().filter(|row| row["payload"]["operation"] == "batch_settle").count();
    assert_eq!(none, 0, "nothing is fetched that a model said, so there is no row yet");

    gate.store(true, SeqCst);
    let [row] = <[Value; 1]>::try_from(settled(&app, 1).await).unwrap();
    let created = app.row_of(&made).await;
    for name in ["user_id", "tenant_id", "session_id", "client_id", "call_source"] {
        assert_eq!(row[name], created[name], "{name}: {row}");
    }
    let payload = &row["payload"];
    assert_eq!(
        (&row["outcome"], &payload["batch"], &payload["requests"]),
        (&json!("allowed"), &json!("msgbatch_1"), &json!(2)),
        "{row}"
    );
    assert_eq!(payload["made_by_trace"], created["trace_id"], "{row}");
    let [cost] = <[Value; 1]>::try_from(costs_of(&app, &row["trace_id"])).unwrap();
    assert_eq!(
        (&cost["cost_micro"], &cost["model"]),
        (&json!(COST), &json!("claude-sonnet-4-5-20250929")),
        "{cost}"
    );

    let read = app.get(&format!("{BATCHES}/msgbatch_1/results")).await;
    assert_eq!(read.status, 200, "{read}");
    let reading = app.row_of(&read).await;
    assert_eq!(reading["payload"]["cost"], "on an earlier row", "{reading}");
    assert_eq!(costs_of(&app, &reading["trace_id"]), Vec::<Value>::new());
    let seen = app.upstream.seen();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(app.upstream.seen(), seen, "nobody asks about what is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_cost_that_its_upstream_never_says_a_row_calls_unknown_and_it_is_asked_no_more() {
    use sallyport::db::Db;
    use sallyport::db::stored::{FirstAsk, StoredObject};

    let app = TestApp::with(impatient).await;
    app.upstream
        .choose(slow_upstream(Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(usize::MAX))));
    let made = create(&app, &[hello("a")]).await;
    assert_eq!(made.status, 200, "{made}");
    let created = app.row_of(&made).await;
    let db = Db::open(&format!("sqlite:{}", app.home().join("sallyport.sqlite").display())).await.unwrap();
    let tenant = created["tenant_id"].as_str().unwrap();
    let known = db.stored(tenant, "batch", "msgbatch_1").await.unwrap().unwrap();
    // Made so long ago that its results are gone.
    let made_ms = known.made_ms - 30 * 24 * 60 * 60 * 1_000;
    let old = StoredObject { id: "msgbatch_old".to_owned(), made_ms, ..known };
    let maker = json!({"session": created["session_id"], "client": created["client_id"], "source": created["call_source"],
        "credential": "pat_1", "trace": created["trace_id"], "department": "research", "headers": []});
    db.keep_stored(&old, Some(&FirstAsk { maker: maker.to_string(), ask_ms: made_ms })).await.unwrap();
    let [row] = <[Value; 1]>::try_from(settled(&app, 1).await).unwrap();
    let payload = &row["payload"];
    assert_eq!(
        (&row["outcome"], &payload["batch"], &payload["cost"]),
        (&json!("error"), &json!("msgbatch_old"), &json!("unknown")),
        "{row}"
    );
    assert_eq!(
        (&payload["code"], &payload["department"]),
        (&json!("upstream_error"), &json!("research")),
        "{row}"
    );
    assert_eq!(costs_of(&app, &row["trace_id"]), Vec::<Value>::new());
    let of_old = |seen: &&Seen| seen.target.ends_with("msgbatch_old");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(app.upstream.requests().iter().filter(of_old).count(), 1, "it is asked no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_deleted_unread_has_its_cost_on_the_row_of_its_deletion() {
    let app = app(|config| config).await;
    assert_eq!(create(&app, &[hello("a"), hello("b")]).await.status, 200);
    let gone = send(&app, &app.token, "DELETE", &format!("{BATCHES}/msgbatch_1")).await;
    assert_eq!(gone.status, 200, "{gone}");
    let rows = app.lineage(gone.header("x-trace-id").unwrap()).await;
    let cost: Vec<_> =
        rows.iter().filter(|row| row["kind"] == "cost").map(|row| &row["cost_micro"]).collect();
    assert_eq!(cost, [&json!(COST)], "{rows:?}");

    assert_eq!(create(&app, &[hello("a")]).await.status, 200);
    app.upstream
        .next(json_of(500, &json!({"type": "error", "error": {"type": "api_error", "message": "down"}})));
    let gone = send(&app, &app.token, "DELETE", &format!("{BATCHES}/msgbatch_1")).await;
    assert_eq!(
        (gone.status, &app.row_of(&gone).await["payload"]["cost"]),
        (200, &json!("unknown")),
        "{gone}"
    );
}
