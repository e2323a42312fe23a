//! What the audit trail adds to a call: intent (with its `fdatasync`) and outcome, one call after the other and 64 at once.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run must say so and stop")]

use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sallyport::audit::{Audit, AuditSettings, Event, Intent, JsonEntries, Kind, Outcome, Who};
use sallyport::clock::{SystemClock, SystemEntropy};
use sallyport::db::Db;
use serde_json::json;
use time::OffsetDateTime;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn who() -> Who {
    Who {
        user_id: "u_29f8a3d1".into(),
        session_id: "sess_0123456789abcdef0123456789abcdef".into(),
        trace_id: "t_0123456789abcdef0123456789abcdef".into(),
        client_id: "sp_bench".into(),
        tenant_id: "org_bench".into(),
        policy_ver: "0123456789abcdef".into(),
        call_source: "api".into(),
    }
}

fn intent() -> Intent {
    Intent {
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        who: who(),
        model: Some("claude-sonnet-4-6".into()),
        provider: Some("anthropic".into()),
        payload: json!({ "department": "research" }).into(),
    }
}

fn event(kind: Kind) -> Event {
    Event {
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        kind,
        who: Arc::new(who()),
        model: Some("claude-sonnet-4-6".into()),
        provider: Some("anthropic".into()),
        tokens_in: Some(1_200),
        tokens_out: Some(350),
        cost_micro: Some(8_850),
        latency_ms: Some(2_400),
        outcome: Outcome::Allowed,
        payload: json!({ "components": [{ "name": "sallyport/scope", "version": "1.0.0", "verdict": "allow", "micros": 40 }] }).into(),
        components: JsonEntries::default(),
    }
}

async fn call(audit: &Audit) {
    let row = audit.open(intent()).await.expect("the spool has room");
    row.close(vec![event(Kind::Inference), event(Kind::Cost)]).await.expect("the spool has room");
}

fn bench(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads can be started");
    // On the disk that holds the sources, not on a memory file system.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("the directory is writable");
    let shutdown = CancellationToken::new();
    let mut drainer = JoinSet::new();
    let audit = runtime.block_on(async {
        let db = Db::open(&format!("sqlite:{}", dir.path().join("audit.db").display()))
            .await
            .expect("SQLite opens");
        db.migrate().await.expect("the schema is new");
        let settings = AuditSettings::new(dir.path().join("spool"));
        let clock = Arc::new(SystemClock::default());
        let audit = Audit::start(settings, db, clock, &SystemEntropy).await.expect("the spool opens");
        drainer.spawn(Arc::clone(&audit).run(shutdown.clone()));
        audit
    });

    let mut group = criterion.benchmark_group("spool");
    for concurrent in [1_u64, 64] {
        group.throughput(Throughput::Elements(concurrent));
        group.bench_function(format!("open and close, {concurrent} at once"), |bencher| {
            bencher.to_async(&runtime).iter_custom(|rounds| {
                let audit = Arc::clone(&audit);
                async move {
                    let start = Instant::now();
                    let mut callers = JoinSet::new();
                    for _ in 0..concurrent {
                        let audit = Arc::clone(&audit);
                        callers.spawn(async move {
                            for _ in 0..rounds {
                                call(&audit).await;
                            }
                        });
                    }
                    callers.join_all().await;
                    start.elapsed()
                }
            });
        });
    }
    group.finish();
    runtime.block_on(async {
        shutdown.cancel();
        drainer.join_all().await;
        audit.close().await;
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
