//! Calls with many rows and rows with long texts: nothing is lost, and nobody else waits.

use std::future::Future as _;
use std::task::{Context, Waker};

use proptest::prelude::*;
use serde_json::Map;

use super::super::spool::frame::OVERHEAD;
use super::*;

/// What the writer may put into the file before it looks at what came meanwhile.
const TURN: usize = 400 * 1024;

fn tool(trace: &str, number: usize) -> Event {
    let payload = json!({ "tool": format!("tool_{number}"), "tool_use_id": "x".repeat(200) });
    Event { cost_micro: None, payload: payload.into(), ..event(Kind::ToolCall, trace) }
}

/// A call with so many tools; a dollar and a half.
fn wide(trace: &str, tools: usize) -> Vec<Event> {
    let payload = json!({
        "request_id": "req_1",
        "components": [{ "name": "a/b", "version": "1.0.0", "digest": "d", "config": "c", "verdict": "allow" }],
    });
    let mut rows = vec![Event { payload: payload.into(), ..event(Kind::Inference, trace) }];
    rows.extend((0..tools).map(|number| tool(trace, number)));
    rows.push(Event { cost_micro: Some(1_500_000), ..event(Kind::Cost, trace) });
    rows
}

async fn big_trail() -> Trail {
    let mut trail = Trail::new().await;
    trail.settings.max_bytes = 256 << 20;
    trail
}

/// Where each record of the first segment begins, and what it is.
fn tags(trail: &Trail) -> Vec<(usize, Tag)> {
    let bytes = fs::read(path(&trail.settings.spool_dir, 1)).unwrap();
    records(&bytes)
        .into_iter()
        .map(|(offset, _)| {
            let Found::Frame { frame, .. } = Chain(None).read(&bytes[offset..]) else { unreachable!() };
            (offset, frame.tag)
        })
        .collect()
}

#[tokio::test]
async fn a_call_with_thousands_of_rows_keeps_every_one_and_its_cost() {
    let trail = big_trail().await;
    let audit = trail.start().await;
    audit.open(intent("t_wide")).await.unwrap().close(wide("t_wide", 8_000)).await.unwrap();
    call(&audit, "t_after").await.unwrap();
    assert!(audit.flush().await, "{:?}", audit.health());
    let rows = trail.rows().await;
    assert_eq!(rows.len(), 8_002 + 3);
    assert!(rows.iter().zip(1..).all(|(row, sequence)| row.sequence == sequence));
    let row = |at: usize| (rows[at].kind.as_str(), rows[at].cost_micro);
    assert_eq!((row(0), row(1)), (("inference", None), ("cost", Some(1_500_000))));
    assert_eq!(rows[0].payload.0["rows"], 8_002);
    assert_eq!(rows[0].payload.0["components"][0]["digest"], "d");
    // In the order of their times the cost is the last, whatever the order in the spool.
    let lineage = trail.db.audit_lineage("t_wide", None).await.unwrap();
    assert_eq!(lineage.last().unwrap().kind, "cost");
    let tools: Vec<_> = lineage.iter().filter(|row| row.kind == "tool_call").collect();
    assert!(tools.iter().enumerate().all(|(at, row)| row.payload.0["tool"] == format!("tool_{at}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_thousands_of_rows_delays_another_by_no_more_than_a_turn_of_the_writer() {
    let trail = big_trail().await;
    let faulty = Arc::new(Faulty::default());
    let audit = trail.start_on(Arc::new(FaultyDisk(Arc::clone(&faulty)))).await;
    for tools in [3_000, 8_000] {
        let open = audit.open(intent("t_wide")).await.unwrap();
        let held = faulty.gate.lock().unwrap();
        faulty.largest_write.store(0, Ordering::SeqCst);
        let mut wide = Box::pin(open.close(wide("t_wide", tools)));
        let mut other = Box::pin(audit.open(intent("t_other")));
        let mut context = Context::from_waker(Waker::noop());
        // Both are asked for while the disk does nothing; the large one first.
        assert!(wide.as_mut().poll(&mut context).is_pending());
        assert!(other.as_mut().poll(&mut context).is_pending());
        drop(held);
        drop(other.await.unwrap());
        wide.await.unwrap();
        let written = faulty.largest_write.load(Ordering::SeqCst);
        assert!(written <= TURN, "one turn of the writer wrote {written} bytes");
        let tags = tags(&trail);
        let at = |tag| tags.iter().rev().find(|(_, found)| *found == tag).unwrap().0;
        let (wide, other) = (at(Tag::Closing), at(Tag::Intent));
        assert!(other < wide + 2 * TURN, "another call waited for {} bytes", other - wide);
        assert!(at(Tag::Last) > other + TURN, "the large call went on afterwards");
    }
}

#[tokio::test]
async fn calls_with_many_rows_take_turns() {
    let trail = big_trail().await;
    let audit = trail.start().await;
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let open = audit.open(intent(&format!("t_{number}"))).await.unwrap();
        calls.spawn(async move { open.close(wide(&format!("t_{number}"), 500)).await });
    }
    assert!(calls.join_all().await.into_iter().all(|closed| closed.is_ok()));
    assert!(audit.flush().await);
    let rows = trail.rows().await;
    assert_eq!(rows.len(), 10 * 502);
    assert_eq!(rows.iter().filter_map(|row| row.cost_micro).sum::<i64>(), 15_000_000);
    assert_eq!(trail.recover().broken, None);
}

#[tokio::test]
async fn a_kill_between_the_records_of_a_call_closes_it_once_and_says_that_rows_are_missing() {
    let trail = big_trail().await;
    let audit = trail.start().await;
    take_away(&trail.db).await;
    audit.open(intent("t_wide")).await.unwrap().close(wide("t_wide", 400)).await.unwrap();
    let whole = trail.killed();
    let bytes = fs::read(path(&whole.settings.spool_dir, 1)).unwrap();
    let all = records(&bytes);
    assert!(all.len() > 4, "intent, the call and its cost, and at least three with tools");
    bring_back(&trail.db).await;
    for kept in 2..=all.len() {
        let mut torn = whole.killed();
        let home = tempfile::tempdir().unwrap();
        torn.db = sqlite(home.path()).await;
        // Nothing was delivered yet, and each kill gets a database of its own.
        fs::remove_file(torn.settings.spool_dir.join("database.place")).unwrap();
        let end = all.get(kept).map_or(bytes.len(), |(offset, _)| *offset);
        let mut image = bytes.clone();
        image[end..].fill(0);
        fs::write(path(&torn.settings.spool_dir, 1), image).unwrap();
        let mut after = torn;
        // Killed once more right away, too.
        for _ in 0..2 {
            let audit = after.start().await;
            assert!(audit.flush().await, "{:?}", audit.health());
            let rows = after.rows().await;
            let of = |kind: &str| rows.iter().filter(|row| &*row.kind == kind).count();
            assert_eq!((of("inference"), of("cost")), (1, 1), "{kept} of {} records", all.len());
            assert!(rows.iter().zip(1..).all(|(row, sequence)| row.sequence == sequence));
            let missing: Vec<_> = rows.iter().filter(|row| row.kind == "admin").collect();
            assert_eq!(missing.len(), usize::from(kept < all.len()), "{kept}");
            assert_eq!(of("tool_call") == 400, kept == all.len());
            if let Some(row) = missing.first() {
                assert_eq!(
                    (row.trace_id.as_str(), &row.payload.0["code"]),
                    ("t_wide", &json!("rows_missing"))
                );
            }
            let next = after.killed();
            drop(audit);
            after = next;
        }
    }
}

#[tokio::test]
async fn rows_without_room_wait_for_it_and_are_not_cut() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    let wide_call = audit.open(intent("t_wide")).await.unwrap();
    take_away(&trail.db).await;
    while call(&audit, "t_fill").await.is_ok() {}
    let closing = wide_call.close(wide("t_wide", 300));
    tokio::pin!(closing);
    let mut context = Context::from_waker(Waker::noop());
    assert!(closing.as_mut().poll(&mut context).is_pending(), "there is no room, so there is no answer");
    bring_back(&trail.db).await;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&audit).run(shutdown.clone()));
    closing.await.unwrap();
    assert!(audit.flush().await);
    let rows = trail.db.audit_lineage("t_wide", None).await.unwrap();
    assert_eq!(rows.len(), 302);
    assert_eq!(rows.iter().filter_map(|row| row.cost_micro).sum::<i64>(), 1_500_000);
    shutdown.cancel();
    tasks.join_all().await;
}

/// What somebody else may have chosen: long, and made of characters that take more room in JSON.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\0".to_owned()),
        Just("\u{1}".to_owned()),
        Just("\u{2028}".to_owned()),
        Just("é\u{1f600}".to_owned()),
        "[ -~]{1,20}",
    ];
    (piece, prop_oneof![0..3_usize, 50..400_usize, 10_000..90_000_usize])
        .prop_map(|(piece, times)| piece.repeat(times.min(200_000 / piece.len())))
}

fn component(number: usize, notes: &str) -> Value {
    json!({
        "name": format!("acme/policy-{number}"), "version": "1.0.0", "digest": "a".repeat(64), "config": "b".repeat(64),
        "verdict": "allow", "fuel": null, "micros": 12, "notes": [{ "name": notes, "value": notes }],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_others_send_the_cost_the_tools_and_the_core_of_each_row_are_there(
        texts in prop::collection::vec(hostile(), 12),
        tools in prop_oneof![0..5_usize, 200..400_usize, 9_900..10_000_usize],
        components in 1..30_usize,
        losses in prop_oneof![Just(0_usize), Just(20_000_usize)],
        record in prop_oneof![Just(16 * 1024_u64), Just(256 * 1024_u64)],
    ) {
        let text = |at: usize| texts[at % texts.len()].as_str();
        let core = [("request_id", "req_1"), ("credential", "pat_1"), ("route", "claude-*"), ("body_blake3", "0123")];
        let mut payload: Map<String, Value> = core.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        for (at, name) in ["agent", "prompt_id", "client_session", "agent_id", "reason", "code", "loss_text"].iter().enumerate() {
            payload.insert((*name).to_owned(), text(at).into());
        }
        payload.insert("components".to_owned(), (0..components).map(|at| component(at, text(at))).collect());
        payload.insert("loss".to_owned(), (0..losses).map(|_| json!({ "field": "f", "how": "dropped" })).collect());
        let mut call = Event { payload: Value::from(payload).into(), model: Some(text(7).into()), ..event(Kind::Inference, "t_1") };
        call.provider = Some(text(8).into());
        Arc::make_mut(&mut call.who).session_id = text(9).into();
        let mut rows = vec![call];
        let hook = json!({ "hook": "acme/hook", "digest": "d", "verdict": "block", "reason": text(10), "tool": text(11) });
        rows.push(Event { payload: hook.into(), cost_micro: None, ..event(Kind::Hook, "t_1") });
        for at in 0..tools {
            let mut tool = tool("t_1", at);
            if at < 20 {
                tool.payload = json!({ "tool": text(at), "tool_use_id": text(at + 1), "reason": text(at + 2), "server": text(at + 3) }).into();
            }
            rows.push(tool);
        }
        rows.push(Event { cost_micro: Some(18_000_000), ..event(Kind::Cost, "t_1") });

        let Records { first, rest } = Records::new(rows, record).unwrap();
        let mut found: Vec<crate::db::audit::NewRow> = Vec::new();
        let parts = rest.len() + 1;
        for (at, rows) in std::iter::once(first).chain(rest).enumerate() {
            prop_assert!((OVERHEAD + rows.body.len()) as u64 <= record, "record {} has {} bytes", at, rows.body.len());
            let before = found.len();
            crate::db::audit::NewRow::read(&rows.body, 1, &mut found).unwrap();
            prop_assert_eq!(found.len() - before, rows.count as usize);
        }
        let of = |kind: &str| found.iter().filter(|row| &*row.kind == kind).count();
        prop_assert_eq!((of("inference"), of("hook"), of("tool_call"), of("cost")), (1, 1, tools, 1));
        prop_assert_eq!(found.iter().filter_map(|row| row.cost_micro).sum::<i64>(), 18_000_000);
        let payload: Value = serde_json::from_str(found[0].payload.get()).unwrap();
        for (name, value) in core {
            prop_assert_eq!(&payload[name], value);
        }
        let told = payload["components"].as_array().unwrap();
        prop_assert_eq!(told.len(), components);
        for (at, component) in told.iter().enumerate() {
            prop_assert_eq!(&component["name"], &json!(format!("acme/policy-{at}")));
            for field in ["digest", "config", "verdict", "version"] {
                prop_assert!(component[field].is_string());
            }
        }
        if parts > 1 {
            prop_assert_eq!(&payload["rows"], found.len());
        }
        let hook: Value = serde_json::from_str(found.iter().find(|row| &*row.kind == "hook").unwrap().payload.get()).unwrap();
        prop_assert_eq!(&hook["verdict"], "block");
        prop_assert_eq!(&hook["digest"], "d");
    }
}

#[test]
fn an_intent_leaves_room_for_the_row_that_says_that_it_was_interrupted() {
    let long = "\"\\".repeat(80_000);
    let mut intent = intent("t_1");
    intent.model = Some(long.as_str().into());
    intent.payload = json!({ "agent": long, "prompt_id": long, "client_session": long, "credential": "pat_1", "deep": [long] }).into();
    let body = rows::intent(&intent).unwrap();
    assert!(body.len() <= rows::LARGEST_INTENT);
    let read = Intent::parse(&body).unwrap();
    assert_eq!(read.payload.get("credential"), Some(&json!("pat_1")));
    let row = Records::one(read.interrupted(datetime!(2026-11-01 08:00 UTC)), 16 * 1024).unwrap();
    assert!(row.first.size() <= spool::RESERVE, "{}", row.first.size());
}
