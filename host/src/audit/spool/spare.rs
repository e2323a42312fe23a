//! Segments made ahead of time on their own thread, so that the writer never waits for 16 MiB of zeros to reach the disk.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::segment::{Disk, SegmentFile};

/// A segment without a number.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn SegmentFile>,
}

/// The segments that are ready, and the thread that makes more.
pub(crate) struct Spares {
    dir: PathBuf,
    ready: VecDeque<Spare>,
    wanted: Sender<PathBuf>,
    made: Receiver<io::Result<Spare>>,
    ordered: usize,
    counter: u64,
    failed: Option<(Duration, io::Error)>,
}

/// After the disk refused a segment it is not asked again for so long.
const PAUSE: Duration = Duration::from_millis(500);

// === impl Spares ===

impl Spares {
    pub(crate) fn start(dir: &Path, disk: Arc<dyn Disk>, size: u64) -> io::Result<Self> {
        let (wanted, orders) = channel::<PathBuf>();
        let (deliver, made) = channel();
        thread::Builder::new().name("audit-segments".to_owned()).spawn(move || {
            while let Ok(path) = orders.recv() {
                let spare = disk.create(&path, size).map(|file| Spare { path, file });
                if deliver.send(spare).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            ready: VecDeque::new(),
            wanted,
            made,
            ordered: 0,
            counter: 0,
            failed: None,
        })
    }

    /// How many are ready or on their way.
    pub(crate) fn count(&self) -> usize {
        self.ready.len() + self.ordered
    }

    /// How many are ready.
    pub(crate) fn ready(&mut self, now: Duration) -> usize {
        while let Ok(made) = self.made.try_recv() {
            self.arrived(made, now);
        }
        self.ready.len()
    }

    /// Whether the disk refused the last one a moment ago.
    pub(crate) fn refused(&self, now: Duration) -> Option<&io::Error> {
        self.failed.as_ref().filter(|(at, _)| now < *at + PAUSE).map(|(_, error)| error)
    }

    /// Asks for one more.
    pub(crate) fn order(&mut self, now: Duration) {
        self.counter += 1;
        let path = self.dir.join(format!("spare-{}", self.counter));
        match self.wanted.send(path) {
            Ok(()) => self.ordered += 1,
            Err(_) => self.failed = Some((now, io::Error::other("the thread that makes segments ended"))),
        }
    }

    /// Waits for one that was ordered. Whether one came.
    pub(crate) fn wait(&mut self, now: Duration) -> bool {
        if self.ordered == 0 {
            return false;
        }
        match self.made.recv() {
            Ok(made) => self.arrived(made, now),
            Err(_) => self.ordered = 0,
        }
        !self.ready.is_empty()
    }

    /// Takes one that is ready.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        self.ready.pop_front()
    }

    fn arrived(&mut self, made: io::Result<Spare>, now: Duration) {
        self.ordered = self.ordered.saturating_sub(1);
        match made {
            Ok(spare) => {
                self.failed = None;
                self.ready.push_back(spare);
            }
            Err(error) => self.failed = Some((now, error)),
        }
    }
}
