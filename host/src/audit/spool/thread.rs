//! The writer's thread: what it takes from the queue, and when the disk makes it durable.
//!
//! An `fdatasync` costs the processor about as much as a sandbox, whether it makes one intent durable or ten. While several calls are
//! under way it is therefore begun at most once in a while, and the intents that come meanwhile share it. A call that is alone
//! waits for nothing but the disk.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::{GROUP, GROUP_BYTES, RETRY, Writer, WriterCommand};

/// Between the beginnings of two `fdatasync` lies at least this, while more than [`FEW`] calls are under way.
const SYNC_INTERVAL: Duration = Duration::from_micros(500);
/// With so few calls under way, an `fdatasync` begins at once.
const FEW: usize = 2;

/// Commands that are served together.
#[derive(Default)]
struct Group {
    commands: Vec<WriterCommand>,
    bytes: u64,
}

/// Serves commands until told to stop. It also ends if somebody panicked while writing: what the writer holds may be half a record
/// then, and without a writer every call is refused.
pub(in crate::audit) fn run(writer: &Mutex<Writer>, commands: &Receiver<WriterCommand>) {
    let mut last_sync: Option<Instant> = None;
    let mut group = Group::default();
    loop {
        let state = writer.lock().map(|it| (it.down || it.full, !it.backlog.is_empty(), it.open.len()));
        let Ok((tries, owes, open)) = state else { return };
        let first = if tries {
            match commands.recv_timeout(RETRY) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => {
                    let Ok(mut writer) = writer.lock() else { return };
                    writer.retry();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else if owes {
            commands.try_recv().ok()
        } else {
            match commands.recv() {
                Ok(command) => Some(command),
                Err(_) => return,
            }
        };
        group.bytes = 0;
        if let Some(first) = first {
            group.push(first);
        }
        group.fill(commands);
        if open > FEW && group.commands.iter().any(WriterCommand::wants_disk) {
            let since = last_sync.map_or(SYNC_INTERVAL, |last| last.elapsed());
            if let Some(rest) = SYNC_INTERVAL.checked_sub(since).filter(|rest| !rest.is_zero()) {
                // Whoever asks meanwhile need not wake this thread.
                thread::sleep(rest);
                group.fill(commands);
            }
        }
        let served = writer.lock().map(|mut writer| writer.serve(&mut group.commands));
        let Ok((mut waiting, syncing)) = served else { return };
        // Nobody holds the writer while the disk works: outcomes are written meanwhile.
        let synced = syncing.map(|syncing| {
            last_sync = Some(Instant::now());
            (syncing.file.sync(), syncing)
        });
        let Ok(mut writer) = writer.lock() else { return };
        let stop = waiting.stop.take();
        writer.answer(waiting, synced);
        if let Some(stopped) = stop {
            writer.finish(commands, &mut group.commands);
            drop(writer);
            if stopped.send(()).is_err() {
                tracing::debug!("nobody waits for the audit writer to end");
            }
            return;
        }
    }
}

// === impl Group ===

impl Group {
    fn push(&mut self, command: WriterCommand) {
        self.bytes += command.size();
        self.commands.push(command);
    }

    /// Takes what is in the queue, as far as a group reaches.
    fn fill(&mut self, commands: &Receiver<WriterCommand>) {
        while self.commands.len() < GROUP
            && self.bytes < GROUP_BYTES
            && let Ok(command) = commands.try_recv()
        {
            self.push(command);
        }
    }
}
