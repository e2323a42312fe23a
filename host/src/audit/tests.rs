//! Stories on real files and a real database.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use time::macros::datetime;
use tokio::task::JoinSet;

use super::spool::frame::{Found, Frame, Hash, Tag};
use super::spool::recover::Recovered;
use super::spool::segment::{RECORDS, SegmentFile, numbers, path};
use super::*;
use crate::clock::{ManualClock, SystemEntropy};
use crate::db::audit::Row;
use crate::db::audit::testing::{both, bring_back, sqlite, take_away};

mod database;
mod power;
mod recent;
mod shared_sync;
mod size;

/// A trail in a directory of its own.
struct Trail {
    dir: TempDir,
    db: Db,
    clock: Arc<ManualClock>,
    settings: AuditSettings,
}

impl Trail {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = sqlite(dir.path()).await;
        Self::on(dir, db)
    }

    fn on(dir: TempDir, db: Db) -> Self {
        let mut settings = AuditSettings::new(dir.path().join("spool"));
        settings.max_bytes = 1 << 20;
        Self { dir, db, clock: Arc::new(ManualClock::new(datetime!(2026-11-01 08:00 UTC))), settings }
    }

    async fn start(&self) -> Arc<Audit> {
        self.start_on(Arc::new(LocalDisk)).await
    }

    async fn start_on(&self, disk: Arc<dyn Disk>) -> Arc<Audit> {
        self.try_start(disk).await.unwrap()
    }

    async fn try_start(&self, disk: Arc<dyn Disk>) -> Result<Arc<Audit>, AuditStartError> {
        Audit::start_on(&self.settings, self.db.clone(), Arc::clone(&self.clock) as _, &SystemEntropy, disk)
            .await
    }

    /// The same trail as a SIGKILL now would leave it: what the kernel has of the files.
    fn killed(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut after = Self::on(dir, self.db.clone());
        after.settings = AuditSettings { spool_dir: after.settings.spool_dir, ..self.settings.clone() };
        // A kill takes one moment, a copy several: one during which a file went away is begun anew.
        while let Err(error) = copy(&self.settings.spool_dir, &after.settings.spool_dir) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            fs::remove_dir_all(&after.settings.spool_dir).unwrap();
        }
        after
    }

    async fn rows(&self) -> Vec<Row> {
        let mut rows = self.db.audit_newest(None, 100_000).await.unwrap();
        rows.sort_by_key(|row| row.sequence);
        rows
    }

    /// Each row as `sequence kind outcome trace reason`.
    async fn told(&self) -> Vec<String> {
        let rows = self.rows().await;
        let tell = |row: &Row| {
            let reason = row.payload.get("reason").and_then(Value::as_str).unwrap_or_default();
            format!("{} {} {} {} {reason}", row.sequence, row.kind, row.outcome, row.trace_id)
                .trim_end()
                .to_owned()
        };
        rows.iter().map(tell).collect()
    }

    fn recover(&self) -> Recovered {
        recover(&self.settings.spool_dir, Chain(None), None, 0).unwrap()
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn who(trace: &str) -> Who {
    Who {
        user_id: "u_29f8a3".into(),
        session_id: "sess_1".into(),
        trace_id: trace.into(),
        client_id: "sp_1".into(),
        tenant_id: "org_acme".into(),
        policy_ver: "v1".into(),
        call_source: "cowork".into(),
    }
}

fn intent(trace: &str) -> Intent {
    Intent {
        occurred_at: datetime!(2026-11-01 07:59:59 UTC),
        who: who(trace),
        model: Some("echo-1".into()),
        provider: Some("echo".into()),
        payload: json!({ "department": "research" }).into(),
    }
}

fn event(kind: Kind, trace: &str) -> Event {
    Event {
        occurred_at: datetime!(2026-11-01 07:59:59 UTC),
        kind,
        who: who(trace).into(),
        model: Some("echo-1".into()),
        provider: Some("echo".into()),
        tokens_in: Some(12),
        tokens_out: Some(5),
        cost_micro: Some(7),
        latency_ms: Some(840),
        outcome: Outcome::Allowed,
        payload: RowFields::default(),
        components: JsonEntries::default(),
    }
}

fn outcome(trace: &str) -> Vec<Event> {
    vec![event(Kind::Inference, trace), event(Kind::ToolCall, trace), event(Kind::Cost, trace)]
}

async fn call(audit: &Audit, trace: &str) -> Result<(), Unavailable> {
    audit.open(intent(trace)).await?.close(outcome(trace)).await
}

/// A disk whose segments fail on command, and that counts what is done to a file after it failed.
#[derive(Default)]
struct Faulty {
    sync_fails: AtomicBool,
    write_fails: AtomicBool,
    create_fails: AtomicBool,
    /// Whoever holds it keeps everybody from writing.
    gate: Mutex<()>,
    /// Bytes of the largest write since the last look.
    largest_write: AtomicUsize,
    touched_after_failure: Arc<AtomicUsize>,
}

struct FaultyFile {
    file: Box<dyn SegmentFile>,
    disk: Arc<Faulty>,
    failed: AtomicBool,
}

struct FaultyDisk(Arc<Faulty>);

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        if self.0.create_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let file = LocalDisk.create(path, size)?;
        Ok(Box::new(FaultyFile { file, disk: Arc::clone(&self.0), failed: AtomicBool::new(false) }))
    }
}

impl FaultyFile {
    fn touch(&self) {
        if self.failed.load(Ordering::SeqCst) {
            self.disk.touched_after_failure.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.touch();
        drop(self.disk.gate.lock());
        self.disk.largest_write.fetch_max(bytes.len(), Ordering::SeqCst);
        if self.disk.write_fails.load(Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(io::Error::other("injected"));
        }
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.touch();
        if self.disk.sync_fails.load(Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(io::Error::other("injected"));
        }
        self.file.sync()
    }
}

/// Where each record of a segment begins, and its size.
fn records(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    let mut offset = RECORDS;
    while let Found::Frame { size, .. } = Chain(None).read(&bytes[offset..]) {
        all.push((offset, size));
        offset += size;
    }
    all
}

#[tokio::test]
async fn a_call_becomes_its_rows_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    for (number, db) in both(dir.path()).await.into_iter().enumerate() {
        let mut trail = Trail::on(tempfile::tempdir().unwrap(), db);
        trail.settings.chain_key = Some(ChainKey([7; 32]));
        let audit = trail.start().await;
        call(&audit, "t_1").await.unwrap();
        audit.record(event(Kind::Auth, "t_2")).await.unwrap();
        assert!(audit.flush().await, "database {number}: {:?}", audit.health());
        assert_eq!(
            trail.told().await,
            [
                "1 inference allowed t_1",
                "2 tool_call allowed t_1",
                "3 cost allowed t_1",
                "4 auth allowed t_2",
            ]
        );
        let rows = trail.rows().await;
        assert!(rows[0].occurred_at < rows[1].occurred_at && rows[1].occurred_at < rows[2].occurred_at);
        assert_eq!(rows.iter().map(|row| row.cost_micro).collect::<Vec<_>>(), [None, None, Some(7), Some(7)]);
        assert_eq!(audit.health(), Health::Ok);
        audit.close().await;
        assert_eq!(audit.open(intent("t_3")).await.unwrap_err(), Unavailable::Stopped);
    }
}

#[tokio::test]
async fn a_name_with_a_nul_reaches_both_databases() {
    let dir = tempfile::tempdir().unwrap();
    for db in both(dir.path()).await {
        let trail = Trail::on(tempfile::tempdir().unwrap(), db);
        let audit = trail.start().await;
        let mut row = event(Kind::ToolCall, "t_1");
        row.model = Some("mod\0el".into());
        row.payload = json!({ "tool": "rm\0", "key\0": [r"a literal \u0000"] }).into();
        audit.record(row).await.unwrap();
        assert!(audit.flush().await);
        let rows = trail.rows().await;
        assert_eq!(rows[0].model.as_deref(), Some("mod\u{fffd}el"));
        assert_eq!(rows[0].payload.0, json!({ "tool": "rm\u{fffd}", "key\u{fffd}": [r"a literal \u0000"] }));
    }
}

#[tokio::test]
async fn a_row_that_is_dropped_is_interrupted() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    drop(audit.open(intent("t_open")).await.unwrap());
    drop(audit.open(intent("t_opening")));
    drop(audit.open(intent("t_unpolled")).await.unwrap().close(outcome("t_unpolled")));
    call(&audit, "t_whole").await.unwrap();
    assert!(audit.flush().await);
    let told = trail.told().await;
    for trace in ["t_open", "t_opening", "t_unpolled"] {
        let lines: Vec<_> =
            told.iter().filter(|line| line.ends_with(&format!("{trace} interrupted"))).collect();
        assert_eq!(lines.len(), 1, "{told:?}");
        assert!(lines[0].contains("inference error"), "{told:?}");
    }
    assert_eq!(told.len(), 6);
    let row = trail.db.audit_lineage("t_open", None).await.unwrap().remove(0);
    assert_eq!(row.payload.0, json!({ "department": "research", "reason": "interrupted" }));
    assert_eq!(row.latency_ms, Some(1_000));
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    take_away(&trail.db).await;
    call(&audit, "t_1").await.unwrap();
    call(&audit, "t_2").await.unwrap();
    let image = trail.killed();
    let file = path(&image.settings.spool_dir, 1);
    let whole = fs::read(&file).unwrap();
    let (offset, size) = *records(&whole).last().unwrap();
    assert_eq!(image.recover().marks.first_sequence, 5);
    for kept in 0..size {
        let mut torn = whole.clone();
        torn[offset + kept..offset + size].fill(0);
        // Zeros as in a segment made ahead of time, or the end of the file.
        let torn = if kept % 2 == 0 { torn } else { whole[..offset + kept].to_vec() };
        fs::write(&file, torn).unwrap();
        let found = image.recover();
        assert_eq!(found.broken, None, "torn at {kept} of {size}");
        assert_eq!(found.marks.first_sequence, 4, "torn at {kept} of {size}");
        assert_eq!(found.marks.first_row, 4);
        assert_eq!(found.orphans.keys().copied().collect::<Vec<_>>(), [3], "torn at {kept} of {size}");
    }
    bring_back(&trail.db).await;
    let audit = image.start().await;
    assert!(audit.flush().await);
    assert_eq!(
        image.told().await,
        [
            "1 inference allowed t_1",
            "2 tool_call allowed t_1",
            "3 cost allowed t_1",
            "4 inference error t_2 interrupted",
        ]
    );
}

#[tokio::test]
async fn a_kill_leaves_every_call_closed_once() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    call(&audit, "t_1").await.unwrap();
    let open = audit.open(intent("t_2")).await.unwrap();
    let killed = trail.killed();
    let again = killed.start().await;
    assert!(again.flush().await);
    let expected = [
        "1 inference allowed t_1",
        "2 tool_call allowed t_1",
        "3 cost allowed t_1",
        "4 inference error t_2 interrupted",
    ];
    assert_eq!(killed.told().await, expected);
    // Killed again right away, and started again twice: nothing is closed a second time.
    for trail in [killed.killed(), killed.killed().killed()] {
        let audit = trail.start().await;
        assert!(audit.flush().await);
        assert_eq!(trail.told().await, expected);
    }
    drop(open);
}

#[tokio::test]
async fn rows_delivered_just_before_a_kill_are_not_delivered_twice() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    for number in 0..5 {
        call(&audit, &format!("t_{number}")).await.unwrap();
    }
    // The rows reach the database, but the kill comes before the place is remembered.
    let killed = trail.killed();
    assert!(audit.flush().await);
    let place = DeliveryPlace::load(&killed.settings.spool_dir.join("database.place")).unwrap().unwrap();
    assert_eq!(place.next, 1, "nothing is known to be delivered");
    assert_eq!(trail.rows().await.len(), 15);
    let again = killed.start().await;
    call(&again, "t_after").await.unwrap();
    assert!(again.flush().await, "{:?}", again.health());
    let sequences: Vec<i64> = killed.rows().await.iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, (1..=18).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_spool_goes_on_where_the_database_ends() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    call(&audit, "t_1").await.unwrap();
    assert!(audit.flush().await);
    audit.close().await;
    let mut fresh = Trail::on(tempfile::tempdir().unwrap(), trail.db.clone());
    let audit = fresh.start().await;
    call(&audit, "t_2").await.unwrap();
    assert!(audit.flush().await);
    assert_eq!(fresh.told().await[3], "4 inference allowed t_2");
    audit.close().await;
    // The first spool is an old copy now.
    let error = trail.killed().try_start(Arc::new(LocalDisk)).await.unwrap_err();
    assert!(matches!(error, AuditStartError::Foreign { last: 6, next: 4, .. }), "{error}");
    // While a gateway runs nobody else takes its spool, and nobody takes it under another name.
    assert!(matches!(fresh.try_start(Arc::new(LocalDisk)).await, Err(AuditStartError::Locked { .. })));
    fresh.settings.replica = "other".into();
    let mut other = fresh.killed();
    assert!(matches!(other.try_start(Arc::new(LocalDisk)).await, Err(AuditStartError::Replica { .. })));
    // Without a database a new spool cannot know its numbers.
    take_away(&trail.db).await;
    other.settings.spool_dir = other.dir.path().join("new");
    assert!(matches!(other.try_start(Arc::new(LocalDisk)).await, Err(AuditStartError::Database(_))));
}

#[tokio::test]
async fn the_gateway_serves_on_while_the_database_is_away_and_recovers_by_itself() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&audit).run(shutdown.clone()));
    let mut health = audit.changes();

    take_away(&trail.db).await;
    call(&audit, "t_1").await.unwrap();
    health.wait_for(|health| matches!(health, Health::Degraded(_))).await.unwrap();
    call(&audit, "t_2").await.unwrap();

    trail.clock.advance(Duration::from_secs(60 * 60 + 1));
    assert_eq!(call(&audit, "t_late").await, Err(Unavailable::Database));
    assert!(matches!(audit.health(), Health::Down(_)));

    bring_back(&trail.db).await;
    health.wait_for(|health| *health == Health::Ok).await.unwrap();
    call(&audit, "t_3").await.unwrap();
    assert!(audit.flush().await);
    assert_eq!(trail.rows().await.len(), 9);
    shutdown.cancel();
    tasks.join_all().await;
    audit.close().await;
}

#[tokio::test]
async fn a_full_spool_refuses_calls_but_takes_every_outcome() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    take_away(&trail.db).await;
    let mut open = Vec::new();
    for number in 0..20 {
        open.push(audit.open(intent(&format!("t_open_{number}"))).await.unwrap());
    }
    let mut served = 0;
    while call(&audit, "t_fill").await.is_ok() {
        served += 1;
        assert!(served < 10_000, "the spool never fills");
    }
    assert!(served > 100, "{served}");
    assert_eq!(audit.open(intent("t_refused")).await.unwrap_err(), Unavailable::Full);
    assert!(matches!(audit.health(), Health::Down(_)));
    for row in open {
        // Far larger than the room that is kept: what is long is clipped, and it comes in.
        let mut rows = outcome("t_big");
        rows[0].payload = json!({ "reason": "long", "notes": "x".repeat(100_000) }).into();
        row.close(rows).await.unwrap();
    }
    let size: u64 =
        fs::read_dir(&trail.settings.spool_dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= trail.settings.max_bytes + 4096, "{size}");

    bring_back(&trail.db).await;
    assert!(audit.flush().await);
    let mut health = audit.changes();
    health.wait_for(|health| *health == Health::Ok).await.unwrap();
    call(&audit, "t_again").await.unwrap();
    assert!(audit.flush().await);
    let rows = trail.rows().await;
    let sequences: Vec<i64> = rows.iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, (1..=(served + 21) * 3).collect::<Vec<_>>());
    let big: Vec<_> = rows.iter().filter(|row| row.trace_id == "t_big" && row.kind == "inference").collect();
    assert_eq!(big.len(), 20);
    let notes = big[19].payload.0["notes"].as_str().unwrap();
    assert!(notes.starts_with("xxx") && notes.contains("[100000 bytes, blake3 "), "{notes}");
}

#[tokio::test]
async fn a_disk_without_room_refuses_calls_before_they_begin() {
    let trail = Trail::new().await;
    let faulty = Arc::new(Faulty::default());
    let audit = trail.start_on(Arc::new(FaultyDisk(Arc::clone(&faulty)))).await;
    faulty.create_fails.store(true, Ordering::SeqCst);
    let mut open = Vec::new();
    let refused = loop {
        match audit.open(intent("t_1")).await {
            Ok(row) => open.push(row),
            Err(unavailable) => break unavailable,
        }
    };
    assert_eq!(refused, Unavailable::Full);
    assert!(matches!(audit.health(), Health::Down(reason) if reason.contains("no room")));
    let begun = i64::try_from(open.len()).unwrap();
    for row in open {
        row.close(outcome("t_1")).await.unwrap();
    }
    assert!(audit.flush().await);
    assert_eq!(trail.rows().await.len(), usize::try_from(begun * 3).unwrap());
}

#[tokio::test]
async fn after_a_failed_fdatasync_the_file_is_left_alone_and_nothing_is_lost() {
    let trail = Trail::new().await;
    let faulty = Arc::new(Faulty::default());
    let audit = trail.start_on(Arc::new(FaultyDisk(Arc::clone(&faulty)))).await;
    let before = audit.open(intent("t_before")).await.unwrap();
    let late = audit.open(intent("t_late")).await.unwrap();

    faulty.sync_fails.store(true, Ordering::SeqCst);
    let refused = audit.open(intent("t_refused")).await.unwrap_err();
    assert!(
        matches!(&refused, Unavailable::Down(reason) if reason.contains("fdatasync failed on segment 1"))
    );
    assert!(matches!(audit.health(), Health::Down(_)));
    assert!(matches!(audit.open(intent("t_next")).await, Err(Unavailable::Down(_))));
    assert!(audit.record(event(Kind::Auth, "t_auth")).await.is_err());
    assert!(before.close(outcome("t_before")).await.is_err(), "an answer must not go out now");
    assert!(!audit.flush().await, "the database must not know more than the disk");
    assert_eq!(trail.told().await, [""; 0]);

    let mut health = audit.changes();
    faulty.sync_fails.store(false, Ordering::SeqCst);
    health.wait_for(|health| !matches!(health, Health::Down(_))).await.unwrap();
    late.close(outcome("t_late")).await.unwrap();
    call(&audit, "t_after").await.unwrap();
    assert!(audit.flush().await);
    let expected = [
        "1 inference allowed t_before",
        "2 tool_call allowed t_before",
        "3 cost allowed t_before",
        "4 inference error t_refused interrupted",
        "5 inference allowed t_late",
        "6 tool_call allowed t_late",
        "7 cost allowed t_late",
        "8 inference allowed t_after",
        "9 tool_call allowed t_after",
        "10 cost allowed t_after",
    ];
    assert_eq!(trail.told().await, expected);
    assert_eq!(audit.health(), Health::Ok);
    assert_eq!(faulty.touched_after_failure.load(Ordering::SeqCst), 0);
    let killed = trail.killed();
    let again = killed.start().await;
    assert_eq!(again.health(), Health::Ok, "the chain goes on across the two segments");
    assert!(again.flush().await);
    assert_eq!(killed.told().await, expected);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_lets_no_answer_out_and_the_spool_comes_back_by_itself() {
    let trail = Trail::new().await;
    let faulty = Arc::new(Faulty::default());
    let audit = trail.start_on(Arc::new(FaultyDisk(Arc::clone(&faulty)))).await;
    let (one, other) = (audit.open(intent("t_1")).await.unwrap(), audit.open(intent("t_2")).await.unwrap());
    faulty.write_fails.store(true, Ordering::SeqCst);
    assert!(matches!(one.close(outcome("t_1")).await, Err(Unavailable::Down(_))));
    assert!(matches!(audit.open(intent("t_3")).await, Err(Unavailable::Down(_))));

    // Nobody calls meanwhile: the writer tries a fresh segment all the same.
    let mut health = audit.changes();
    faulty.write_fails.store(false, Ordering::SeqCst);
    health.wait_for(|health| !matches!(health, Health::Down(_))).await.unwrap();
    other.close(outcome("t_2")).await.unwrap();
    assert!(audit.flush().await);
    let told = trail.told().await;
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(
        told[0].ends_with("inference allowed t_1") && told[3].ends_with("inference allowed t_2"),
        "{told:?}"
    );
    assert_eq!(faulty.touched_after_failure.load(Ordering::SeqCst), 0, "the file that failed is left alone");
    audit.close().await;
}

#[tokio::test]
async fn an_edited_byte_is_found_wherever_it_is() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    take_away(&trail.db).await;
    for number in 0..3 {
        call(&audit, &format!("t_{number}")).await.unwrap();
    }
    let image = trail.killed();
    let file = path(&image.settings.spool_dir, 1);
    let whole = fs::read(&file).unwrap();
    let all = records(&whole);
    let (last, _) = *all.last().unwrap();
    for at in (0..last).step_by(7).filter(|at| !(60..RECORDS).contains(at)) {
        let mut edited = whole.clone();
        edited[at] ^= 1;
        fs::write(&file, &edited).unwrap();
        assert!(image.recover().broken.is_some(), "byte {at}");
        fs::remove_dir_all(image.settings.spool_dir.join("set-aside")).unwrap();
    }
    // A forger who corrects the checksum is found out by the hash in the next record.
    let (offset, size) = all[2];
    let mut forged = Vec::new();
    let Found::Frame { frame, .. } = Chain(None).read(&whole[offset..]) else { unreachable!() };
    let body = String::from_utf8(frame.body.to_vec()).unwrap().replace("t_1", "t_X");
    Chain(None).write(&mut forged, &Frame { body: body.as_bytes(), ..frame });
    assert_eq!(forged.len(), size);
    let mut edited = whole.clone();
    edited[offset..offset + size].copy_from_slice(&forged);
    fs::write(&file, &edited).unwrap();
    let found = image.recover();
    assert!(found.broken.unwrap().contains("(record 4)"));
    assert_eq!(found.marks.first_sequence, 4);
}

#[tokio::test]
async fn a_broken_spool_is_set_aside_and_everybody_is_told() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    take_away(&trail.db).await;
    for number in 0..3 {
        call(&audit, &format!("t_{number}")).await.unwrap();
    }
    let image = trail.killed();
    let file = path(&image.settings.spool_dir, 1);
    let mut bytes = fs::read(&file).unwrap();
    let (offset, _) = records(&bytes)[3];
    bytes[offset + 100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    bring_back(&trail.db).await;

    let again = image.start().await;
    assert!(
        matches!(again.health(), Health::Degraded(reason) if reason.contains("segment 1 is broken at byte"))
    );
    call(&again, "t_after").await.unwrap();
    assert!(again.flush().await, "{:?}", again.health());
    let told = image.told().await;
    assert_eq!(told[3], "4 inference error t_1 interrupted");
    assert!(told[4].starts_with("5 admin error - segment 1 is broken at byte"), "{told:?}");
    assert_eq!(told[5], "6 inference allowed t_after");
    let aside =
        fs::read_dir(image.settings.spool_dir.join("set-aside")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read(path(&aside, 1)).unwrap(), bytes, "the evidence is whole");
    let third = image.killed();
    assert_eq!(third.start().await.health(), Health::Ok, "what remained is a sound chain");
}

#[tokio::test]
async fn a_spool_that_lost_what_it_delivered_is_told_of() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    call(&audit, "t_1").await.unwrap();
    assert!(audit.flush().await);
    let image = trail.killed();
    fs::remove_file(path(&image.settings.spool_dir, 1)).unwrap();
    let again = image.start().await;
    assert!(matches!(again.health(), Health::Degraded(reason) if reason.contains("were delivered")));
    call(&again, "t_2").await.unwrap();
    assert!(again.flush().await);
    assert_eq!(image.told().await[4], "5 inference allowed t_2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_writers_leave_no_gap() {
    let mut trail = Trail::new().await;
    trail.settings.max_bytes = 64 << 20;
    let audit = trail.start().await;
    let shutdown = CancellationToken::new();
    let mut drainer = JoinSet::new();
    drainer.spawn(Arc::clone(&audit).run(shutdown.clone()));
    let mut writers = JoinSet::new();
    for writer in 0..50 {
        let audit = Arc::clone(&audit);
        writers.spawn(async move {
            for number in 0..10 {
                let trace = format!("t_{writer}_{number}");
                match number % 4 {
                    0 => call(&audit, &trace).await.unwrap(),
                    1 => drop(audit.open(intent(&trace)).await.unwrap()),
                    2 => audit.record(event(Kind::Hook, &trace)).await.unwrap(),
                    _ => drop(audit.open(intent(&trace))),
                }
            }
        });
    }
    writers.join_all().await;
    shutdown.cancel();
    drainer.join_all().await;
    audit.close().await;
    let rows = trail.rows().await;
    assert_eq!(rows.len(), 50 * (3 * 3 + 3 + 2 + 2));
    assert!(rows.iter().zip(1..).all(|(row, sequence)| row.sequence == sequence));
    assert_eq!(trail.recover().broken, None);
}

#[tokio::test]
async fn a_long_call_does_not_hold_the_segments_behind_it() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    let long = audit.open(intent("t_long")).await.unwrap();
    for _ in 0..10 {
        for _ in 0..100 {
            call(&audit, "t_short").await.unwrap();
        }
        assert!(audit.flush().await);
    }
    // The writer removes segments in the order of its commands: after one more call it has.
    call(&audit, "t_short").await.unwrap();
    let left = numbers(&trail.settings.spool_dir).unwrap();
    assert!(left.len() <= 2 && left[0] > 5, "{left:?}");
    let killed = trail.killed();
    let again = killed.start().await;
    assert!(again.flush().await);
    assert!(killed.told().await.last().unwrap().ends_with("inference error t_long interrupted"));
    drop(long);
}

#[tokio::test]
async fn a_strict_outcome_waits_for_the_database() {
    let mut trail = Trail::new().await;
    trail.settings.durability = Durability::Strict;
    let audit = trail.start().await;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&audit).run(shutdown.clone()));
    call(&audit, "t_1").await.unwrap();
    assert_eq!(trail.rows().await.len(), 3, "no flush was needed");
    take_away(&trail.db).await;
    let row = audit.open(intent("t_2")).await.unwrap();
    let mut health = audit.changes();
    let closing = row.close(outcome("t_2"));
    tokio::pin!(closing);
    tokio::select! {
        biased;
        _ = &mut closing => unreachable!("the database has no such row"),
        _ = health.wait_for(|health| matches!(health, Health::Degraded(_))) => {}
    }
    assert_eq!(audit.open(intent("t_3")).await.unwrap_err(), Unavailable::Database);
    bring_back(&trail.db).await;
    closing.await.unwrap();
    assert_eq!(trail.rows().await.len(), 6);
    shutdown.cancel();
    tasks.join_all().await;
}

#[tokio::test]
async fn a_siem_gets_every_row_as_a_line_and_goes_on_after_a_restart() {
    let mut trail = Trail::new().await;
    let file = trail.dir.path().join("siem.jsonl");
    trail.settings.siem = vec![Sink::File(file.clone())];
    let audit = trail.start().await;
    take_away(&trail.db).await;
    call(&audit, "t_1").await.unwrap();
    assert!(!audit.flush().await, "the database is away, the SIEM is not");
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
    audit.close().await;
    drop(audit);
    bring_back(&trail.db).await;
    let audit = trail.start().await;
    call(&audit, "t_2").await.unwrap();
    assert!(audit.flush().await);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<i64> = lines.iter().map(|line| line["sequence"].as_i64().unwrap()).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
    for (line, row) in lines.iter().zip(trail.rows().await) {
        let mut row = serde_json::to_value(row).unwrap();
        row.as_object_mut().unwrap().remove("id");
        assert_eq!(*line, row, "the line is the row");
    }
}

#[test]
fn a_record_is_hashed_with_everything_before_it() {
    let frame = |previous: Hash| Frame {
        sequence: 1,
        previous,
        tag: Tag::Rows,
        call: 0,
        first_row: 1,
        rows: 1,
        body: b"[]",
    };
    let hash =
        |key: Option<[u8; 32]>, previous: u8| Chain(key).write(&mut Vec::new(), &frame([previous; 32]));
    assert_eq!(hash(None, 0), hash(None, 0));
    assert_ne!(hash(None, 0), hash(None, 1));
    assert_ne!(hash(None, 0), hash(Some([1; 32]), 0), "without the key nobody forges the chain");
    assert_ne!(hash(Some([1; 32]), 0), hash(Some([2; 32]), 0));
    assert_eq!(format!("{:?}", ChainKey([7; 32])), "ChainKey(..)");
}
