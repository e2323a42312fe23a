//! Losses of power: what was written since the last `fdatasync` is gone, wholly or in part. And writes that fail while one goes on.

use std::collections::HashMap;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Condvar;

use super::*;

/// A disk that knows what it did not promise yet.
#[derive(Default)]
struct Forgetful {
    /// By inode: a spare is given another name when it becomes a segment.
    unsynced: Mutex<HashMap<u64, Vec<UnsyncedWrite>>>,
    held: Mutex<bool>,
    let_go: Condvar,
    syncing: AtomicBool,
    write_fails: AtomicBool,
}

struct UnsyncedWrite {
    offset: u64,
    before: Vec<u8>,
}

struct ForgetfulFile {
    file: Box<dyn SegmentFile>,
    /// The same, to read what stands there.
    reader: File,
    inode: u64,
    disk: Arc<Forgetful>,
}

/// What becomes of a write that was not promised: nothing of it is there, so many bytes are, or all of it.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Lost,
    Torn(usize),
    Kept,
}

struct ForgetfulDisk(Arc<Forgetful>);

impl Disk for ForgetfulDisk {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = LocalDisk.create(path, size)?;
        let reader = File::open(path)?;
        let inode = reader.metadata()?.ino();
        // The number may be that of a file that is gone.
        self.0.unsynced.lock().unwrap().remove(&inode);
        Ok(Box::new(ForgetfulFile { file, reader, inode, disk: Arc::clone(&self.0) }))
    }
}

impl SegmentFile for ForgetfulFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut unsynced = self.disk.unsynced.lock().unwrap();
        if self.disk.write_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        let mut before = vec![0; bytes.len()];
        self.reader.read_exact_at(&mut before, offset)?;
        unsynced.entry(self.inode).or_default().push(UnsyncedWrite { offset, before });
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let written = self.disk.unsynced.lock().unwrap().get(&self.inode).map_or(0, Vec::len);
        self.disk.syncing.store(true, Ordering::SeqCst);
        let held = self.disk.held.lock().unwrap();
        drop(self.disk.let_go.wait_while(held, |held| *held).unwrap());
        self.file.sync()?;
        self.disk.syncing.store(false, Ordering::SeqCst);
        // What came while the disk worked is not promised.
        if let Some(writes) = self.disk.unsynced.lock().unwrap().get_mut(&self.inode) {
            writes.drain(..written);
        }
        Ok(())
    }
}

impl Forgetful {
    /// Has the next `fdatasync` wait, or go on.
    fn hold(&self, hold: bool) {
        *self.held.lock().unwrap() = hold;
        self.let_go.notify_all();
    }

    /// The trail as the machine finds it when its power is back.
    fn loses_power(&self, trail: &Trail, mut fate: impl FnMut(&UnsyncedWrite) -> Fate) -> Trail {
        // Nobody writes to a segment meanwhile.
        let unsynced = self.unsynced.lock().unwrap();
        let after = trail.killed();
        for entry in fs::read_dir(&trail.settings.spool_dir).unwrap() {
            let entry = entry.unwrap();
            let Some(writes) = unsynced.get(&entry.metadata().unwrap().ino()) else { continue };
            let copy = after.settings.spool_dir.join(entry.file_name());
            let copy = fs::OpenOptions::new().write(true).open(copy).unwrap();
            for write in writes.iter().rev() {
                let there = match fate(write) {
                    Fate::Lost => 0,
                    Fate::Torn(there) => there.min(write.before.len()),
                    Fate::Kept => write.before.len(),
                };
                copy.write_all_at(&write.before[there..], write.offset + there as u64).unwrap();
            }
        }
        after
    }
}

/// Calls that go on until they are told to stop: some end, some stay open. Those whose intent was acknowledged are told of.
async fn calls(
    audit: Arc<Audit>,
    caller: usize,
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
) {
    let mut open = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let trace = format!("t_{caller}_{number}");
        let Ok(row) = audit.open(intent(&trace)).await else { break };
        acknowledged.lock().unwrap().push(trace.clone());
        if number % 5 == 0 && open.len() < 8 {
            open.push(row);
        } else if row.close(outcome(&trace)).await.is_err() {
            break;
        }
    }
    // As a kill leaves them: nobody closes what is open.
    open.into_iter().for_each(std::mem::forget);
}

/// What becomes of unpromised writes in the round `round`.
fn fates(round: u64) -> impl FnMut(&UnsyncedWrite) -> Fate {
    let mut chance = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |write| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        match (round, chance % 3) {
            (0, _) | (_, 0) => Fate::Lost,
            (_, 1) => Fate::Torn(usize::try_from(chance >> 8).unwrap_or(0) % write.before.len().max(1)),
            _ => Fate::Kept,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loss_of_power_loses_no_intent_that_was_acknowledged() {
    for round in 0..8 {
        let mut trail = Trail::new().await;
        trail.settings.max_bytes = 64 << 20;
        let disk = Arc::new(Forgetful::default());
        let audit = trail.start_on(Arc::new(ForgetfulDisk(Arc::clone(&disk)))).await;
        let (acknowledged, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut callers = JoinSet::new();
        for caller in 0..6 {
            callers.spawn(calls(Arc::clone(&audit), caller, Arc::clone(&acknowledged), Arc::clone(&stop)));
        }
        while acknowledged.lock().unwrap().len() < 60 {
            tokio::task::yield_now().await;
        }
        // Those before the power goes; others may follow, and be lost or not.
        let promised: Vec<String> = acknowledged.lock().unwrap().clone();
        let after = tokio::task::block_in_place(|| disk.loses_power(&trail, fates(round)));
        stop.store(true, Ordering::SeqCst);
        while callers.join_next().await.is_some() {}
        // Nothing was delivered: what is known now is known from the disk alone.
        assert_eq!(trail.rows().await.len(), 0);
        let again = after.start().await;
        assert!(again.flush().await, "{round}: {:?}", again.health());
        let mut rows: HashMap<String, usize> = HashMap::new();
        for row in after.rows().await.into_iter().filter(|row| row.kind == "inference") {
            *rows.entry(row.trace_id).or_default() += 1;
        }
        for trace in &promised {
            assert_eq!(rows.get(trace), Some(&1), "{round}: {trace} was acknowledged");
        }
        assert!(rows.values().all(|count| *count == 1), "{round}: {rows:?}");
        // Where a later write outlived an earlier one, nobody can tell what the power took from what somebody changed: it is set aside,
        // and said.
        match again.health() {
            Health::Ok => {}
            Health::Degraded(what) if round > 0 && what.contains("whole records follow a damaged one") => {}
            other => panic!("{round}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_fails_during_an_fdatasync_loses_neither_what_was_synced_nor_what_failed() {
    let trail = Trail::new().await;
    let disk = Arc::new(Forgetful::default());
    let audit = trail.start_on(Arc::new(ForgetfulDisk(Arc::clone(&disk)))).await;
    let (early, late) =
        (audit.open(intent("t_early")).await.unwrap(), audit.open(intent("t_late")).await.unwrap());

    disk.hold(true);
    let mut opening = JoinSet::new();
    opening.spawn(audit.open(intent("t_opening")));
    while !disk.syncing.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    disk.write_fails.store(true, Ordering::SeqCst);
    let refused = early.close(outcome("t_early")).await.unwrap_err();
    assert!(
        matches!(&refused, Unavailable::Down(reason) if reason.contains("could not be written")),
        "{refused}"
    );
    assert!(matches!(audit.health(), Health::Down(_)));
    assert!(late.close(outcome("t_late")).await.is_err(), "an answer must not go out now");
    disk.hold(false);
    assert!(
        opening.join_next().await.unwrap().unwrap().is_err(),
        "its intent is on the disk, and its call is refused all the same"
    );

    let mut health = audit.changes();
    disk.write_fails.store(false, Ordering::SeqCst);
    health.wait_for(|health| !matches!(health, Health::Down(_))).await.unwrap();
    call(&audit, "t_after").await.unwrap();
    assert!(audit.flush().await, "{:?}", audit.health());
    let expected = [
        "1 inference allowed t_early",
        "2 tool_call allowed t_early",
        "3 cost allowed t_early",
        "4 inference allowed t_late",
        "5 tool_call allowed t_late",
        "6 cost allowed t_late",
        "7 inference error t_opening interrupted",
        "8 inference allowed t_after",
        "9 tool_call allowed t_after",
        "10 cost allowed t_after",
    ];
    assert_eq!(trail.told().await, expected);
    // A loss of power right after it finds a chain that goes on across the two segments.
    let after = disk.loses_power(&trail, |_| Fate::Lost);
    drop(audit);
    let again = after.start().await;
    assert_eq!(again.health(), Health::Ok);
    assert!(again.flush().await);
    assert_eq!(after.told().await, expected);
}
