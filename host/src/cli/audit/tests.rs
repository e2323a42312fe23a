use serde_json::json;
use time::macros::datetime;

use super::*;
use crate::db::audit::testing::sqlite;
use crate::db::audit::{At, NewRow};

async fn database(dir: &tempfile::TempDir) -> Db {
    let db = sqlite(dir.path()).await;
    let at = datetime!(2026-11-01 08:00:00.123 UTC);
    let row = |sequence: i64, kind: &str, fields: serde_json::Value| {
        let mut all = json!({
            "occurred_at": At(at + time::Duration::microseconds(sequence)).text().unwrap(), "kind": kind, "user_id": "u_1",
            "session_id": "sess_1", "trace_id": "t_1", "client_id": "sp_1", "tenant_id": "org_acme",
            "policy_ver": "v1", "call_source": "cowork", "outcome": "allowed", "payload": {},
        });
        for (name, value) in fields.as_object().unwrap() {
            all[name] = value.clone();
        }
        let mut rows = Vec::new();
        NewRow::read(json!([all]).to_string().as_bytes(), sequence, &mut rows).unwrap();
        rows.remove(0)
    };
    let rows = [
        row(
            1,
            "inference",
            json!({ "model": "echo-1", "provider": "echo", "tokens_in": 12, "tokens_out": 5,
            "latency_ms": 840 }),
        ),
        row(2, "tool_call", json!({ "payload": { "tool": "Ba\u{1b}[31msh" }, "outcome": "denied" })),
        row(3, "cost", json!({ "cost_micro": 1_234 })),
    ];
    db.audit_insert("local", &rows).await.unwrap();
    db
}

async fn shown(command: ReadCommand, db: &Db, json: bool) -> anyhow::Result<String> {
    let mut out = Vec::new();
    match command {
        ReadCommand::Lineage(asked) => lineage(&asked, db, json, &mut out).await?,
        ReadCommand::Session(asked) => session(&asked, db, json, &mut out).await?,
        ReadCommand::Tail(asked) => tail(&asked, db, json, &mut out).await?,
    }
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn a_lineage_reads_as_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(&dir).await;
    let asked = |trace: &str, tenant: Option<&str>| {
        ReadCommand::Lineage(LineageArgs { trace: trace.into(), tenant: tenant.map(Into::into) })
    };
    insta::assert_snapshot!(shown(asked("t_1", None), &db, false).await.unwrap(), @r"
    t_1  user u_1  tenant org_acme  session sess_1  client sp_1  source cowork  policy v1
    ├─ 2026-11-01 08:00:00.123 inference allowed  echo-1 via echo  in 12  out 5  840 ms
    ├─ 2026-11-01 08:00:00.123 tool_call denied   tool Ba�[31msh
    └─ 2026-11-01 08:00:00.123 cost      allowed  $0.001234
    ");
    let json: serde_json::Value =
        serde_json::from_str(&shown(asked("t_1", None), &db, true).await.unwrap()).unwrap();
    assert_eq!(json[2]["cost_micro"], 1_234);
    assert_eq!(json.as_array().unwrap().len(), 3);
    let error = shown(asked("t_1", Some("org_other")), &db, false).await.unwrap_err();
    assert_eq!(error.to_string(), "no rows have the trace t_1");
}

#[tokio::test]
async fn a_list_shows_what_each_call_cost() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(&dir).await;
    let mut asked =
        List { since: None, user: None, model: None, tenant: None, count_tokens: false, limit: 10 };
    let now = datetime!(2026-11-01 09:00 UTC);
    let mut out = Vec::new();
    list(&asked, now, &db, false, &mut out).await.unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
    TIME                     USER  MODEL   PROVIDER  OUTCOME  IN  OUT  COST       MS   TRACE
    2026-11-01 08:00:00.123  u_1   echo-1  echo      allowed  12  5    $0.001234  840  t_1
    ");
    asked.since = Some("30m".into());
    let mut out = Vec::new();
    list(&asked, now, &db, false, &mut out).await.unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "No calls match.\n");
}

#[tokio::test]
async fn a_tail_shows_the_newest_rows_last() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(&dir).await;
    let asked = |lines| ReadCommand::Tail(Tail { follow: false, lines, tenant: Some("org_acme".into()) });
    insta::assert_snapshot!(shown(asked(2), &db, false).await.unwrap(), @r"
    2026-11-01 08:00:00.123 tool_call denied   tool Ba�[31msh  u_1  t_1
    2026-11-01 08:00:00.123 cost      allowed  $0.001234  u_1  t_1
    ");
    assert_eq!(shown(asked(2), &db, true).await.unwrap().lines().count(), 2);
    assert_eq!(shown(asked(0), &db, false).await.unwrap(), "");
}

#[test]
fn since_is_a_time_or_how_long_ago() {
    let now = datetime!(2026-11-08 09:00 UTC);
    assert_eq!(since("7d", now).unwrap(), datetime!(2026-11-01 09:00 UTC));
    assert_eq!(since("90m", now).unwrap(), datetime!(2026-11-08 07:30 UTC));
    assert_eq!(since("2026-04-01T00:00:00Z", now).unwrap(), datetime!(2026-04-01 00:00 UTC));
    for wrong in ["", "d", "yesterday", "7y", "-", "999999999999999999d", "9223372036854775807d"] {
        assert!(since(wrong, now).is_err(), "{wrong}");
    }
}
