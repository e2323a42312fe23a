//! The trail knows its database: one that was removed, emptied, exchanged or brought back from a backup stops the gateway until it is
//! mended or somebody has said that things go on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sallyport_tests::client::Reply;
use sallyport_tests::gateway::{Config, TestApp};
use sallyport_tests::postgres::Server;
use sallyport_tests::upstream::Upstream;
use sallyport_tests::vendor::Admin;
use sallyport_tests::wait::until;
use serde_json::{Value, json};

use crate::{hello, tell};

/// A database that nobody writes to is looked at every two seconds.
const NOTICED: Duration = Duration::from_secs(10);

fn database(app: &TestApp) -> PathBuf {
    app.home().join("sallyport.sqlite")
}

/// The files of a SQLite database go somewhere else.
fn move_away(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let with = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        if with(from).exists() {
            fs::rename(with(from), with(to)).unwrap();
        }
    }
}

fn code(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.header("x-sallyport-code").unwrap_or_default())
}

/// Waits until `/ready` is a 503 that says this.
async fn is_down(app: &TestApp, why: &str) {
    let ready = until("the gateway notices", NOTICED, || async {
        let ready = app.get("/ready").await;
        // It may be down already, for what was wrong before.
        let says_why = ready.status == 503 && ready.json()["database"].as_str().unwrap().contains(why);
        says_why.then(|| ready.json())
    })
    .await;
    assert_eq!(ready["status"], "down", "{ready}");
    assert!(ready["spool"].as_str().unwrap().contains("sallyport audit reconcile"), "{ready}");
}

async fn refuses_calls(app: &TestApp) {
    let before = app.upstream.seen();
    let refused = app.messages(hello()).await;
    assert_eq!(code(&refused), (503, "audit_unavailable"), "{refused}");
    assert_eq!(app.upstream.seen(), before, "nothing went upstream");
}

async fn serves(app: &TestApp) -> String {
    let reply = app.messages(hello()).await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.header("x-trace-id").unwrap().to_owned()
}

/// How many rows of a call each trace has.
fn calls(rows: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows.iter().filter(|row| row["kind"] == "inference") {
        *counts.entry(row["trace_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn reconciled(rows: &[Value], code: &str) -> usize {
    rows.iter().filter(|row| row["payload"]["code"] == code).count()
}

/// `None`, and said so, where no PostgreSQL is installed.
fn server(story: &str) -> Option<Server> {
    let server = Server::start().unwrap();
    if server.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server is installed");
        tell(&format!("skipped: {story} (no PostgreSQL server is installed)"));
    }
    server
}

async fn on(server: &Server) -> TestApp {
    let url = server.url().to_owned();
    let mut app = TestApp::on(Upstream::start(), |config| config.set("/database", json!({"url": url}))).await;
    app.token = Admin::of(&app).token;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_database_file_is_noticed_at_once_and_after_a_restart() {
    let app = TestApp::start().await;
    let away = app.home().join("away.sqlite");
    let first = serves(&app).await;
    app.lineage(&first).await;
    move_away(&database(&app), &away);
    is_down(&app, "was removed").await;
    refuses_calls(&app).await;

    // Started again, it makes an empty one, and serves nobody on it.
    app.kill();
    app.launch_until(503).await;
    is_down(&app, "another one").await;
    assert_eq!(
        app.messages(hello()).await.status,
        503,
        "not a 401, with which clients would forget their token"
    );

    // The right one is back: nothing more needs to be said.
    app.stop();
    for end in ["", "-wal", "-shm"] {
        drop(fs::remove_file(format!("{}{end}", database(&app).display())));
    }
    move_away(&away, &database(&app));
    app.launch().await;
    serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_back_in_time_is_taken_back_without_a_restart() {
    let app = TestApp::start().await;
    let away = app.home().join("away.sqlite");
    serves(&app).await;
    fs::rename(database(&app), &away).unwrap();
    is_down(&app, "was removed").await;
    fs::rename(&away, database(&app)).unwrap();
    until("the gateway goes on", NOTICED, || async { (app.get("/ready").await.status == 200).then_some(()) })
        .await;
    serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_yesterday_is_noticed_and_reconciled_with_every_row_once() {
    let app = TestApp::start().await;
    let first = serves(&app).await;
    app.lineage(&first).await;
    app.stop();
    let backup = app.home().join("backup.sqlite");
    fs::copy(database(&app), &backup).unwrap();
    app.launch().await;
    let mut traces = vec![first];
    for _ in 0..3 {
        traces.push(serves(&app).await);
    }
    app.stop();
    fs::copy(&backup, database(&app)).unwrap();

    app.launch_until(503).await;
    is_down(&app, "as from a backup").await;
    refuses_calls(&app).await;
    let dry = app.cli_json(&["audit", "reconcile", "--dry-run"]);
    assert_eq!((&dry["approved"], &dry["rows_lost"]), (&json!(false), &json!(null)), "{dry}");
    refuses_calls(&app).await;

    let said = app.cli(&["audit", "reconcile", "--reason", "the disk failed"]);
    assert!(said.contains("No row is lost."), "{said}");
    until("the gateway goes on", NOTICED, || async { (app.get("/ready").await.status == 200).then_some(()) })
        .await;
    traces.push(serves(&app).await);
    app.stop();
    let rows = app.audit_rows();
    let counts = calls(&rows);
    assert!(traces.iter().all(|trace| counts.get(trace) == Some(&1)), "{counts:?}");
    assert_eq!((reconciled(&rows, "audit.reconcile"), reconciled(&rows, "audit.reconciled")), (1, 1));
    let row = rows.iter().find(|row| row["payload"]["code"] == "audit.reconciled").unwrap();
    assert_eq!(row["payload"]["reason"], "the disk failed", "{row}");
    app.launch().await;
    let said = app.cli(&["audit", "reconcile"]);
    assert!(said.contains("nothing to reconcile"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_reconciled_and_gets_what_the_spool_holds() {
    let mut app = TestApp::start().await;
    let trace = serves(&app).await;
    app.lineage(&trace).await;
    app.stop();
    move_away(&database(&app), &app.home().join("gone.sqlite"));
    let dry = app.cli(&["audit", "reconcile", "--dry-run"]);
    assert!(dry.contains("is missing") && !database(&app).exists(), "{dry}");
    app.cli(&["audit", "reconcile"]);
    app.launch().await;
    app.token = Admin::of(&app).token;
    serves(&app).await;
    assert_eq!(app.lineage(&trace).await.iter().filter(|row| row["kind"] == "inference").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_was_emptied_or_set_back_is_noticed_while_the_gateway_runs() {
    let Some(server) = server("a database that was emptied, on PostgreSQL") else { return };
    let app = on(&server).await;
    let trace = serves(&app).await;
    app.lineage(&trace).await;
    server.execute("CREATE TABLE kept_events AS SELECT * FROM audit_events").unwrap();
    server.execute("CREATE TABLE kept_replicas AS SELECT * FROM audit_replicas").unwrap();
    let later = serves(&app).await;
    app.lineage(&later).await;

    server.execute("TRUNCATE audit_events").unwrap();
    is_down(&app, "is not in the database").await;
    refuses_calls(&app).await;

    // As a backup would leave it.
    server.execute("INSERT INTO audit_events SELECT * FROM kept_events").unwrap();
    server
        .execute(
            "UPDATE audit_replicas r SET next_record = k.next_record, hash = k.hash, last_row = k.last_row \
             FROM kept_replicas k",
        )
        .unwrap();
    is_down(&app, "as from a backup").await;
    refuses_calls(&app).await;
    app.cli(&["audit", "reconcile"]);
    until("the gateway goes on", NOTICED, || async { (app.get("/ready").await.status == 200).then_some(()) })
        .await;
    let last = serves(&app).await;
    app.stop();
    let counts = calls(&app.audit_rows());
    for trace in [trace, later, last] {
        assert_eq!(counts.get(&trace), Some(&1), "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_not_emptied_into_another_postgresql() {
    let (story, other) = ("a database that was exchanged, on PostgreSQL", "another one");
    let (Some(one), Some(two)) = (server(story), server(story)) else { return };
    let app = on(&one).await;
    serves(&app).await;
    app.stop();
    let to = |server: &Server| {
        let url = server.url().to_owned();
        move |config: Config| config.set("/database", json!({"url": url}))
    };
    app.change(to(&two));
    app.launch_until(503).await;
    is_down(&app, other).await;
    assert_eq!(app.messages(hello()).await.status, 503);
    app.stop();
    assert!(app.audit_rows().iter().all(|row| row["replica"] == "command-line"), "nothing went there");
    app.change(to(&one));
    app.launch().await;
    serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_gateways_with_one_name_the_second_does_not_start() {
    let Some(server) = server("two gateways with one name, on PostgreSQL") else { return };
    let app = on(&server).await;
    serves(&app).await;
    let url = server.url().to_owned();
    let second = TestApp::start().await;
    second.stop();
    second.change(|config| {
        config.set("/database", json!({"url": url})).set("/audit/spool_dir", json!("other"))
    });
    let said = second.launch_fails();
    assert!(said.contains("another gateway writes audit rows as replica gateway-1"), "{said}");
    assert!(said.contains("give each gateway its own audit.replica"), "{said}");

    // Killed, the first one is back at once: its spool still has the name.
    app.kill();
    app.launch().await;
    let last = serves(&app).await;
    app.lineage(&last).await;
    // Gone, its name is free when the lease is over.
    app.kill();
    until("the lease is over", Duration::from_secs(30), || {
        let over = "DO $$ BEGIN IF EXISTS (SELECT 1 FROM audit_replicas, audit_clock WHERE leased_until > seconds) \
                    THEN RAISE 'not yet'; END IF; END $$";
        std::future::ready(server.execute(over).ok())
    })
    .await;
    second.launch().await;
    assert_eq!(second.get("/ready").await.json()["status"], "ready");
    second.stop();
}
