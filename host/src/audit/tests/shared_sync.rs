//! Intents that become durable together.

use super::*;

/// A disk that counts how often it was asked to make something durable.
#[derive(Default)]
struct CountingDisk(Arc<AtomicUsize>);

struct CountingFile {
    file: Box<dyn SegmentFile>,
    syncs: Arc<AtomicUsize>,
}

impl Disk for CountingDisk {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = LocalDisk.create(path, size)?;
        Ok(Box::new(CountingFile { file, syncs: Arc::clone(&self.0) }))
    }
}

impl SegmentFile for CountingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    /// As fast as a disk can be: what comes together then is not the disk's doing.
    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// As `docs/benchmarks.md` says it.
const INTERVAL: Duration = Duration::from_micros(500);

/// `callers` callers make `calls` calls each, one after the other.
async fn calls(audit: &Arc<Audit>, callers: usize, calls: usize) {
    let mut all = JoinSet::new();
    for caller in 0..callers {
        let audit = Arc::clone(audit);
        all.spawn(async move {
            for call in 0..calls {
                let trace = format!("t_{caller}_{call}");
                audit.open(intent(&trace)).await.unwrap().close(outcome(&trace)).await.unwrap();
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

/// A trail on a disk that counts, in which no segment comes to its end.
async fn counted() -> (Trail, Arc<Audit>, Arc<AtomicUsize>) {
    let mut trail = Trail::new().await;
    trail.settings.max_bytes = 64 << 20;
    let syncs = Arc::<AtomicUsize>::default();
    let audit = trail.start_on(Arc::new(CountingDisk(Arc::clone(&syncs)))).await;
    (trail, audit, syncs)
}

#[tokio::test]
async fn while_several_calls_are_under_way_the_disk_is_asked_once_in_a_while() {
    let (_trail, audit, syncs) = counted().await;
    let mut held = Vec::new();
    for trace in ["t_a", "t_b", "t_c"] {
        held.push(audit.open(intent(trace)).await.unwrap());
    }
    let (began, before) = (std::time::Instant::now(), syncs.load(Ordering::SeqCst));
    calls(&audit, 16, 40).await;
    let (asked, most) =
        (syncs.load(Ordering::SeqCst) - before, began.elapsed().as_micros() / INTERVAL.as_micros() + 1);
    assert!(asked as u128 <= most, "{asked} times, where {most} intervals had begun");
    for row in held {
        row.close(outcome("t_a")).await.unwrap();
    }
    audit.close().await;
}

#[tokio::test]
async fn a_call_that_is_alone_waits_for_no_other() {
    let (_trail, audit, syncs) = counted().await;
    let before = syncs.load(Ordering::SeqCst);
    calls(&audit, 1, 40).await;
    assert_eq!(syncs.load(Ordering::SeqCst) - before, 40);
    audit.close().await;
}
