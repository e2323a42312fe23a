//! A trail that cannot be kept, and one that takes its time: no call is answered and none goes upstream of which no row would tell.
//! The database is kept busy by another writer, as a backup or a person with a shell would do.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sallyport::db::Db;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::{Value, json};

use crate::catalog::stages;
use crate::{ask, hello};

const SCOPE: &str = "components/acme/scope";
/// How long it is watched that nothing comes.
const A_WHILE: Duration = Duration::from_millis(700);

async fn database(app: &TestApp) -> Db {
    Db::open(&format!("sqlite:{}", app.home().join("sallyport.sqlite").display())).await.unwrap()
}

/// What a caller is told while no row can be written.
fn is_unavailable(reply: &Reply) -> bool {
    reply.status == 503
        && reply.error_type() == "api_error"
        && reply.header("x-sallyport-code") == Some("audit_unavailable")
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

/// Calls without an upstream until the spool has no room for another one.
async fn fill(app: &TestApp) {
    let caller = async || {
        loop {
            let reply = app.messages(ask("echo", "Hello")).await;
            if reply.status != 200 {
                break reply;
            }
        }
    };
    for reply in join_all((0..4).map(|_| caller())).await {
        assert!(is_unavailable(&reply), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_without_room_refuses_calls_steps_and_strangers_until_there_is_room_again() {
    let app = TestApp::with(|config| config.set("/audit/max_bytes", json!(1_048_576))).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.copy_of("scope", "1.0.0", 1)).await;

    let db = database(&app).await;
    let Db::Sqlite { writing: pool, .. } = &db else { panic!("the usual database is SQLite") };
    let writing = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    fill(&app).await;
    for body in [hello(), streamed(hello()), ask("gpt-5", "Hello")] {
        let refused = app.messages(body).await;
        assert!(is_unavailable(&refused), "{refused}");
    }
    assert_eq!(app.upstream.seen(), 0, "nothing goes upstream of which there would be no row");
    // The row of a call that is turned away is small: a few of them may still fit.
    let turned_away = until("not even a small row fits", SOON, || async {
        let reply = app.messages(ask("nobody-has-this", "Hello")).await;
        (reply.status != 404).then_some(reply)
    })
    .await;
    assert!(is_unavailable(&turned_away), "{turned_away}");
    for (target, headers) in [
        ("/v1/messages", vec![("authorization", "Bearer nonsense")]),
        ("/v1/messages", vec![("x-user-id", "u_somebodyelse")]),
        ("/v1/hooks/Stop", vec![]),
    ] {
        let body = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
        // The rows of strangers are smaller still.
        until("its row does not fit either", SOON, || async {
            let reply = app.post(target, &headers, body.clone()).await;
            assert!(is_unavailable(&reply) || (401..=403).contains(&reply.status), "{target}: {reply}");
            is_unavailable(&reply).then_some(())
        })
        .await;
    }
    let ready = app.get("/ready").await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("down")), "{ready}");
    assert_eq!(ready.json()["spool"], "down: the spool has reached its size", "{ready}");

    let nothing = json!({"rules": [{"name": "none", "effect": "deny", "models": ["*"]}]});
    let step = json!({"version": "1.0.0", "config": nothing});
    let refused = admin.send("POST", &format!("{SCOPE}/activate"), step.to_string()).await;
    assert!(is_unavailable(&refused), "{refused}");
    assert_eq!(
        stages(&admin.get(SCOPE).await.json()),
        [("1.0.0", "staged")],
        "a step without a row is no step"
    );

    writing.rollback().await.unwrap();
    let served = until("there is room again", Duration::from_secs(30), || async {
        Some(app.messages(hello()).await).filter(|reply| reply.status == 200)
    })
    .await;
    assert_eq!(app.row_of(&served).await["outcome"], "allowed");
    until_true("it is ready", SOON, || app.upstream.seen() > 0).await;
    let ready = until("all rows are delivered", SOON, || async {
        Some(app.get("/ready").await).filter(|reply| reply.json()["status"] == "ready")
    })
    .await;
    assert_eq!(ready.status, 200);
    admin.post(&format!("{SCOPE}/activate"), step).await;
    assert_eq!(app.messages(hello()).await.status, 451);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_durability_no_answer_is_complete_before_the_database_has_its_rows() {
    let app = TestApp::with(|config| config.set("/audit/durability", json!("strict"))).await;
    assert_eq!(app.messages(hello()).await.status, 200);
    let db = database(&app).await;
    let Db::Sqlite { writing: pool, .. } = &db else { panic!("the usual database is SQLite") };
    let writing = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();

    let mut stream = app.messages_stream(hello()).await;
    let trace = stream.headers["x-trace-id"].to_str().unwrap().to_owned();
    stream.next_named("message_start").await;
    stream.next_named("content_block_stop").await;
    let mut end = std::pin::pin!(stream.next_named("message_stop"));
    let mut whole = std::pin::pin!(app.messages(hello()));
    let early = tokio::time::timeout(A_WHILE, async {
        tokio::select! {
            event = &mut end => format!("{event:?}"),
            reply = &mut whole => reply.to_string(),
        }
    })
    .await;
    assert!(early.is_err(), "complete before the database has its rows: {early:?}");
    assert_eq!(app.upstream.seen(), 3, "both wait for the database, not for the upstream");

    writing.rollback().await.unwrap();
    let (_, whole) = tokio::join!(end, whole);
    assert_eq!(whole.status, 200, "{whole}");
    // Without waiting: the answer said that they are there.
    let rows = app.audit_rows();
    for trace in [trace.as_str(), whole.header("x-trace-id").unwrap()] {
        let row = rows.iter().find(|row| row["trace_id"] == trace && row["kind"] == "inference");
        assert_eq!(row.map(|row| row["outcome"].clone()), Some(json!("allowed")), "{trace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_durability_a_database_that_takes_no_rows_refuses_what_it_was_asked_for() {
    let app = TestApp::with(|config| config.set("/audit/durability", json!("strict"))).await;
    assert_eq!(app.messages(hello()).await.status, 200);
    let db = database(&app).await;
    let Db::Sqlite { writing: pool, .. } = &db else { panic!("the usual database is SQLite") };
    let writing = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();

    // Both are upstream when the database stops taking rows; neither is told a success of which there is no row.
    let (whole, stream) = tokio::join!(app.messages(hello()), app.messages(streamed(hello())));
    assert!(is_unavailable(&whole), "{whole}");
    let names: Vec<String> = stream.events().into_iter().map(|event| event.name).collect();
    assert_eq!(names.first().map(String::as_str), Some("message_start"), "{names:?}");
    assert_eq!(names.last().map(String::as_str), Some("error"), "{names:?}");
    assert!(!names.iter().any(|name| name == "message_stop"), "{names:?}");
    assert_eq!(app.upstream.seen(), 3);

    let next = app.messages(hello()).await;
    assert!(is_unavailable(&next), "{next}");
    assert_eq!(app.upstream.seen(), 3, "and whoever comes now is refused before anything goes upstream");
    let ready = app.client().send("GET", "/ready", &[], Bytes::new()).await;
    assert_eq!(ready.status, 503, "{ready}");

    writing.rollback().await.unwrap();
    until("the database takes rows again", Duration::from_secs(30), || async {
        Some(app.messages(hello()).await).filter(|reply| reply.status == 200)
    })
    .await;
    for told in [&whole, &stream] {
        let trace = told.header("x-trace-id").unwrap();
        assert_eq!(app.lineage(trace).await.iter().filter(|row| row["kind"] == "inference").count(), 1);
    }
}
