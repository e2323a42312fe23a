use serde_json::{Value, json};
use time::macros::datetime;

use super::testing::{both, take_away};
use super::*;

/// A row of the lineage query.
type Answer = (
    At,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<i32>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

fn row(sequence: i64, at: OffsetDateTime, kind: &str, fields: &Value) -> NewRow {
    let mut all = json!({
        "occurred_at": At(at).text().unwrap(), "kind": kind, "user_id": "u_29f8a3", "session_id": "sess_1",
        "trace_id": "t_a8bf...", "client_id": "sp_1", "tenant_id": "org_acme", "policy_ver": "v1",
        "call_source": "cowork", "outcome": "allowed", "payload": {},
    });
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    let mut rows = Vec::new();
    NewRow::read(json!([all]).to_string().as_bytes(), sequence, &mut rows).unwrap();
    rows.remove(0)
}

fn turn() -> Vec<NewRow> {
    let at = datetime!(2026-04-10 14:00:00 UTC);
    let micro = time::Duration::microseconds(1);
    vec![
        row(
            1,
            at,
            "inference",
            &json!({ "model": "claude-sonnet-4-6", "provider": "bedrock", "tokens_in": 12,
            "tokens_out": 5, "latency_ms": 840 }),
        ),
        row(2, at + micro, "tool_call", &json!({ "payload": { "tool": "Bash" } })),
        row(3, at + micro * 2, "mcp_exec", &json!({ "payload": { "tool": "search", "server": "jira" } })),
        row(
            4,
            at + micro * 3,
            "cost",
            &json!({ "model": "claude-sonnet-4-6", "provider": "bedrock",
            "cost_micro": 1_500, "payload": { "department": "research" } }),
        ),
        row(
            5,
            datetime!(2026-04-30 23:59:59.999_999 UTC),
            "cost",
            &json!({ "user_id": "u_2", "trace_id": "t_2",
            "provider": "anthropic", "cost_micro": 2_000, "payload": { "department": "sales" } }),
        ),
        row(
            6,
            datetime!(2026-05-01 00:00:00 UTC),
            "cost",
            &json!({ "user_id": "u_2", "trace_id": "t_3",
            "provider": "anthropic", "cost_micro": 4_000, "payload": { "department": "sales" } }),
        ),
        row(7, at, "inference", &json!({ "tenant_id": "org_other" })),
    ]
}

#[tokio::test]
async fn the_lineage_query_answers_in_order_on_both_databases() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let mut rows = turn();
        rows.reverse();
        assert_eq!(db.audit_insert("local", &rows).await.unwrap(), 7);
        let found: Vec<Answer> = reading!(&db, pool => sqlx::query_as(
"SELECT
  e.occurred_at,
  e.kind,
  e.outcome,
  e.model,
  e.provider,
  e.tokens_in,
  e.tokens_out,
  e.cost_micro,
  e.payload ->> 'tool'    AS tool_name,
  e.payload ->> 'server'  AS mcp_server
FROM audit_events e
WHERE e.tenant_id = 'org_acme'
  AND e.user_id   = 'u_29f8a3'
  AND e.trace_id  = 't_a8bf...'         -- from the user's session
ORDER BY e.occurred_at ASC;").fetch_all(pool).await.unwrap());
        let said: Vec<String> = found
            .iter()
            .map(|row| format!("{} {:?} {:?} {:?} {:?}", row.1, row.4, row.7, row.8, row.9))
            .collect();
        assert_eq!(
            said,
            [
                r#"inference Some("bedrock") None None None"#,
                r#"tool_call None None Some("Bash") None"#,
                r#"mcp_exec None None Some("search") Some("jira")"#,
                r#"cost Some("bedrock") Some(1500) None None"#,
            ]
        );
        let ours = db.audit_lineage("t_a8bf...", Some("org_acme")).await.unwrap();
        assert_eq!(ours.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(db.audit_lineage("t_a8bf...", Some("org_nobody")).await.unwrap(), []);
        assert_eq!(db.audit_lineage("t_a8bf...", None).await.unwrap().len(), 5);
    }
}

#[tokio::test]
async fn the_cost_queries_answer_right_on_both_databases() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        db.audit_insert("local", &turn()).await.unwrap();
        let by_user: Vec<(String, Option<i64>)> = reading!(&db, pool => sqlx::query_as(
            "SELECT user_id, CAST(SUM(cost_micro) AS BIGINT) FROM audit_events GROUP BY user_id ORDER BY user_id")
            .fetch_all(pool).await.unwrap());
        assert_eq!(by_user, [("u_2".into(), Some(6_000)), ("u_29f8a3".into(), Some(1_500))]);
        let by_provider: Vec<(String, String, Option<i64>)> = reading!(&db, pool => sqlx::query_as(
            "SELECT tenant_id, provider, CAST(SUM(cost_micro) AS BIGINT) FROM audit_events \
             WHERE cost_micro IS NOT NULL GROUP BY tenant_id, provider ORDER BY provider")
            .fetch_all(pool).await.unwrap());
        assert_eq!(
            by_provider,
            [
                ("org_acme".into(), "anthropic".into(), Some(6_000)),
                ("org_acme".into(), "bedrock".into(), Some(1_500)),
            ]
        );
        let by_department: Vec<(String, Option<String>, Option<i64>)> = reading!(&db, pool => sqlx::query_as(
            "SELECT tenant_id, payload ->> 'department', CAST(SUM(cost_micro) AS BIGINT) FROM audit_events \
             WHERE kind = 'cost' GROUP BY tenant_id, payload ->> 'department' ORDER BY 2")
            .fetch_all(pool).await.unwrap());
        assert_eq!(
            by_department,
            [
                ("org_acme".into(), Some("research".into()), Some(1_500)),
                ("org_acme".into(), Some("sales".into()), Some(6_000)),
            ]
        );
        let april: Vec<(String, Option<i64>)> = reading!(&db, pool => sqlx::query_as(
            "SELECT provider, CAST(SUM(cost_micro) AS BIGINT) FROM audit_events WHERE kind = 'cost' \
             AND occurred_at >= '2026-04-01T00:00:00.000000Z' AND occurred_at < '2026-05-01T00:00:00.000000Z' \
             GROUP BY provider ORDER BY provider").fetch_all(pool).await.unwrap());
        assert_eq!(april, [("anthropic".into(), Some(2_000)), ("bedrock".into(), Some(1_500))]);
    }
}

#[tokio::test]
async fn a_row_that_comes_twice_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let rows = turn();
        assert_eq!(db.audit_insert("a", &rows[..3]).await.unwrap(), 3);
        assert_eq!(db.audit_insert("a", &rows).await.unwrap(), 4);
        assert_eq!(db.audit_insert("b", &rows[..1]).await.unwrap(), 1, "another replica counts for itself");
        assert_eq!(db.audit_last("a").await.unwrap(), Some(7));
        assert_eq!(db.audit_last("nobody").await.unwrap(), None);
    }
}

#[tokio::test]
async fn requests_are_filtered_and_carry_the_cost_of_their_trace() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        db.audit_insert("local", &turn()).await.unwrap();
        let filter = Filter { tenant: Some("org_acme".into()), limit: 10, ..Filter::default() };
        let found = db.audit_requests(&filter).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].cost_micro, found[0].tokens_in), (Some(1_500), Some(12)));
        let nothing = [
            Filter { user: Some("u_2".into()), ..filter.clone() },
            Filter { model: Some("gpt-9".into()), ..filter.clone() },
            Filter { since: Some(datetime!(2026-04-10 14:00:01 UTC)), ..filter.clone() },
        ];
        for filter in nothing {
            assert_eq!(db.audit_requests(&filter).await.unwrap(), [], "{filter:?}");
        }
        let newest = db.audit_newest(Some("org_acme"), 2).await.unwrap();
        assert_eq!(newest.iter().map(|row| row.sequence).collect::<Vec<_>>(), [5, 6]);
        let after = db.audit_after(newest[0].id, None, 10).await.unwrap();
        assert_eq!(after.iter().map(|row| row.sequence).collect::<Vec<_>>(), [6, 7]);
    }
}

#[tokio::test]
async fn values_that_a_database_refuses_are_told_from_a_database_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        if matches!(db, Db::Postgres(_)) {
            let nul = row(1, OffsetDateTime::UNIX_EPOCH, "hook", &json!({ "payload": { "tool": "a\0b" } }));
            assert!(db.audit_insert("local", &[nul]).await.unwrap_err().refuses_values());
        }
        take_away(&db).await;
        assert!(!db.audit_insert("local", &turn()).await.unwrap_err().refuses_values());
    }
}

#[test]
fn times_sort_as_text() {
    let whole = At(datetime!(2026-01-01 00:00:00 UTC)).text().unwrap();
    let half = At(datetime!(2026-01-01 02:00:00.5 +2)).text().unwrap();
    assert_eq!(
        (whole.as_str(), half.as_str()),
        ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.500000Z")
    );
    assert!(whole < half);
}

#[tokio::test]
async fn a_session_is_told_as_a_whole_or_by_prompt() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let at = datetime!(2026-04-10 14:00:00 UTC);
        let micro = time::Duration::microseconds(1);
        let mut sequence = 0;
        let mut next = |kind: &str, fields: Value| {
            sequence += 1;
            row(sequence, at + micro * i32::try_from(sequence).unwrap(), kind, &fields)
        };
        let prompt =
            |trace: &str, prompt: &str| json!({ "trace_id": trace, "payload": { "prompt_id": prompt } });
        let rows = [
            next("hook", prompt("t_1", "p1")),
            next("inference", prompt("t_2", "p1")),
            next("tool_call", json!({ "trace_id": "t_2", "payload": { "tool": "Bash" } })),
            next("cost", json!({ "trace_id": "t_2" })),
            next("inference", prompt("t_3", "p2")),
            // A report of the second prompt that names a tool of the first one's call.
            next("hook", prompt("t_2", "p2")),
            next("inference", json!({ "session_id": "sess_2", "payload": { "prompt_id": "p1" } })),
            // Somebody else gave the same names to a session and a trace.
            next(
                "inference",
                json!({ "user_id": "u_2", "trace_id": "t_9", "payload": { "prompt_id": "p1" } }),
            ),
            next("cost", json!({ "trace_id": "t_9" })),
        ];
        db.audit_insert("local", &rows).await.unwrap();
        let found = async |prompt: Option<&str>, tenant: Option<&str>| {
            let rows = db.audit_session("sess_1", prompt, tenant).await.unwrap();
            rows.iter().map(|row| row.sequence).collect::<Vec<_>>()
        };
        assert_eq!(found(None, None).await, [1, 2, 3, 4, 5, 6, 8, 9]);
        assert_eq!(found(Some("p1"), Some("org_acme")).await, [1, 2, 3, 4, 8]);
        assert_eq!(found(Some("p2"), None).await, [5, 6]);
        assert_eq!(found(None, Some("org_other")).await, [0; 0]);
    }
}

#[test]
fn a_time_whose_text_would_not_sort_has_none() {
    for (outside, inside) in [
        (datetime!(-0001-12-31 23:59:59 UTC), datetime!(0000-01-01 00:00:00 UTC)),
        (datetime!(9999-12-31 23:30:00 -1), datetime!(9999-12-31 23:59:59 UTC)),
    ] {
        assert!(At(outside).text().is_err(), "{outside}");
        assert!(serde_json::to_string(&At(outside)).is_err(), "{outside}");
        assert_eq!(At(inside).text().unwrap().len(), 27, "{inside}");
    }
}
