//! The spool: the commit point of the audit trail. One thread appends records to segments; whoever waits for an intent is
//! answered after one `fdatasync` for all that came meanwhile. An outcome has to be in the file, not on the disk: whoever
//! brings one writes it there and then, unless somebody else is writing. Then it goes to the thread, as all else does. While the
//! disk works nobody is writing.
//!
//! *Invariant:* after a failed write or `fdatasync` nothing is written to that file again: the kernel may have dropped the
//! pages and would report success. The records that were not durable yet are kept and go to a fresh segment, whose header
//! supersedes the rest of the old one. Until that works the spool is down, and every new call is refused.

pub(super) mod cursor;
pub(super) mod frame;
pub(super) mod place;
pub(super) mod recent;
pub(super) mod recover;
pub(super) mod segment;
pub(super) mod shared;
mod spare;
mod thread;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::oneshot;

use self::frame::{Chain, Frame, OVERHEAD, Tag};
use self::recover::{Marks, Recovered, Sealed};
use self::segment::{Disk, RECORDS, SegmentFile, path, sync_dir};
use self::shared::{Progress, Shared};
use self::spare::Spares;
pub(super) use self::thread::run;
use self::turn::{Backlog, Owed};
use super::row::OpenRow;
use super::rows::{Records, Rows};
use super::{Event, Intent, Kind, Outcome, Unavailable, Who};

/// Room that an intent keeps for its outcome.
pub(super) const RESERVE: u64 = 8 * 1024;
/// While down, a fresh segment is tried this often.
const RETRY: Duration = Duration::from_millis(250);
/// Records that nobody waits for are made durable at the latest when there are so many bytes of them.
const UNSYNCED: usize = 1 << 20;
/// So many commands make a group at most, and so many bytes of them.
const GROUP: usize = 1024;
const GROUP_BYTES: u64 = 256 * 1024;

/// What the writer is asked to do.
pub(super) enum WriterCommand {
    /// Record an intent; the answer comes when it is durable.
    Open { body: Arc<[u8]>, reply: oneshot::Sender<Result<OpenRow, Unavailable>> },
    /// Record the outcome of a call; the answer is its sequence.
    Close { call: u64, rows: Records, reply: Option<oneshot::Sender<Result<u64, Unavailable>>> },
    /// Record rows that belong to no call.
    Add { rows: Rows, reply: oneshot::Sender<Result<u64, Unavailable>> },
    /// Make all records durable.
    Sync,
    /// A consumer went on: let go of segments that nobody needs.
    Release,
    /// Make all records durable and end.
    Stop { reply: oneshot::Sender<()> },
}

/// How the spool uses its space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) segment: u64,
    pub(super) segments: usize,
    pub(super) record: u64,
}

/// A call that is under way.
struct OpenCall {
    segment: u64,
    body: Arc<[u8]>,
}

struct Active {
    number: u64,
    file: Arc<dyn SegmentFile>,
    /// Everything before this is durable.
    synced: u64,
}

/// Whoever holds it may write.
pub(super) struct Writer {
    dir: PathBuf,
    chain: Chain,
    sizes: Sizes,
    shared: Arc<Shared>,
    spares: Spares,
    sealed: VecDeque<Sealed>,
    active: Active,
    /// What the next record continues.
    marks: Marks,
    /// The same as of the last `fdatasync`.
    synced: Marks,
    /// Records since the last `fdatasync`, and how many of their bytes are in the file.
    tail: Vec<u8>,
    written: usize,
    open: BTreeMap<u64, OpenCall>,
    reserved: u64,
    /// Rows that wait for their turn, or for room.
    backlog: Backlog,
    /// Calls that were refused because their intent did not become durable.
    refused: Vec<u64>,
    down: bool,
    /// The last call was refused for want of room.
    full: bool,
    /// Its thread was told to stop: nothing is written any more.
    ended: bool,
}

/// Who is answered once what they asked for is durable.
#[derive(Default)]
struct Unanswered {
    opens: Vec<OpenReply>,
    release: bool,
    stop: Option<oneshot::Sender<()>>,
}

/// A segment and how much of it an `fdatasync` that begins now makes durable.
struct Syncing {
    file: Arc<dyn SegmentFile>,
    bytes: usize,
    marks: Marks,
}

type OpenReply = (Arc<[u8]>, u64, oneshot::Sender<Result<OpenRow, Unavailable>>);
type RowReply = (Option<oneshot::Sender<Result<u64, Unavailable>>>, Result<u64, Unavailable>);

// === impl WriterCommand ===

impl WriterCommand {
    /// Whether somebody waits until it is durable.
    fn wants_disk(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Sync)
    }

    /// About what it takes of a turn.
    fn size(&self) -> u64 {
        match self {
            Self::Open { body, .. } => body.len() as u64,
            Self::Close { rows, .. } => rows.size(),
            Self::Add { rows, .. } => rows.size(),
            Self::Sync | Self::Release | Self::Stop { .. } => 0,
        }
    }
}

// === impl Sizes ===

impl Sizes {
    /// Segments of 16 MiB, smaller ones where the spool is small.
    pub(super) fn new(max_bytes: u64) -> Self {
        let segment = (max_bytes / 8).clamp(64 * 1024, 16 << 20) & !4095;
        let segments = usize::try_from(max_bytes / segment).unwrap_or(usize::MAX).max(3);
        Self { segment, segments, record: (segment / 4).min(256 * 1024) }
    }
}

// === impl Writer ===

impl Writer {
    /// Goes on behind what was recovered: in a fresh segment, with every orphan closed, all of it durable.
    pub(super) fn begin(
        dir: &Path,
        sizes: Sizes,
        chain: Chain,
        disk: Arc<dyn Disk>,
        recovered: Recovered,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let now = shared.clock.monotonic();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("spare-") {
                fs::remove_file(entry.path())?;
            }
        }
        let mut spares = Spares::start(dir, disk, sizes.segment)?;
        spares.order(now);
        if !spares.wait(now) {
            let kind = spares.refused(now).map_or(io::ErrorKind::Other, io::Error::kind);
            return Err(io::Error::new(kind, "no room for a segment"));
        }
        let active = begin_segment(dir, &mut spares, recovered.next_number, &recovered.marks, &[])?;
        let mut writer = Self {
            dir: dir.to_owned(),
            chain,
            sizes,
            shared,
            spares,
            sealed: recovered.sealed.into(),
            active,
            marks: recovered.marks,
            synced: recovered.marks,
            tail: Vec::new(),
            written: 0,
            open: BTreeMap::new(),
            reserved: 0,
            backlog: Backlog::new(),
            refused: Vec::new(),
            down: false,
            full: false,
            ended: false,
        };
        for (call, body) in recovered.orphans {
            writer.reserved += RESERVE;
            writer.open.insert(call, OpenCall { segment: writer.active.number, body: body.into() });
            writer.interrupt(call);
        }
        for (call, body) in recovered.unfinished {
            writer.say_unfinished(call, &body);
        }
        writer.take_turns();
        if writer.down {
            return Err(io::Error::other("the first records could not be written"));
        }
        writer.order_spare();
        writer.publish();
        Ok(writer)
    }

    /// Records an outcome if that takes no more than a write: no next segment, no `fdatasync`, nothing to wait for. Otherwise
    /// the rows come back.
    pub(super) fn close_at_once(
        &mut self,
        call: u64,
        rows: Records,
    ) -> Result<Result<u64, Unavailable>, Records> {
        let size = rows.first.size();
        let room = size <= RESERVE.min(self.sizes.record) && size <= self.left() && rows.rest.is_empty();
        if self.down || self.ended || !room || self.tail.len() > UNSYNCED {
            return Err(rows);
        }
        self.reserved = self.reserved.saturating_sub(self.open.remove(&call).map_or(0, |_| RESERVE));
        let closed = self.stage(Tag::Close, call, &rows.first).ok_or_else(|| self.shared.down());
        self.flush();
        self.publish();
        if self.down {
            // The thread sleeps until it is asked for something: it has to try a fresh segment from now on.
            self.shared.send(WriterCommand::Sync);
            return Ok(closed.and_then(|_| Err(self.shared.down())));
        }
        Ok(closed)
    }

    /// What was asked before the end is still done, and what that led to.
    fn finish(&mut self, commands: &Receiver<WriterCommand>, group: &mut Vec<WriterCommand>) {
        while let Ok(command) = commands.try_recv() {
            group.push(command);
            let (waiting, syncing) = self.serve(group);
            let synced = syncing.map(|syncing| (syncing.file.sync(), syncing));
            self.answer(waiting, synced);
        }
        self.take_turns();
        self.publish();
        self.ended = true;
    }

    /// One group: stage all, write once, answer the outcomes. What has to be durable now, and who waits for that.
    fn serve(&mut self, group: &mut Vec<WriterCommand>) -> (Unanswered, Option<Syncing>) {
        let mut waiting = Unanswered::default();
        let mut rows: Vec<RowReply> = Vec::new();
        let mut sync = false;
        for command in group.drain(..) {
            match command {
                WriterCommand::Open { body, reply } => match self.stage_intent(&body) {
                    Ok(call) => waiting.opens.push((body, call, reply)),
                    Err(unavailable) => drop(reply.send(Err(unavailable))),
                },
                WriterCommand::Close { call, rows, reply } => {
                    self.backlog.push_back(Owed::new(call, rows, reply));
                }
                WriterCommand::Add { rows: body, reply } => rows.push((Some(reply), self.stage_rows(&body))),
                WriterCommand::Sync => sync = true,
                WriterCommand::Release => waiting.release = true,
                WriterCommand::Stop { reply } => waiting.stop = Some(reply),
            }
        }
        self.turn(&mut rows);
        self.flush();
        self.publish();
        for (reply, result) in rows {
            let result = if self.down { result.and_then(|_| Err(self.shared.down())) } else { result };
            if let Some(reply) = reply {
                drop(reply.send(result));
            }
        }
        sync |= !waiting.opens.is_empty() || waiting.stop.is_some() || self.tail.len() > UNSYNCED;
        let syncing = (sync && !self.down && self.written > 0).then(|| Syncing {
            file: Arc::clone(&self.active.file),
            bytes: self.written,
            marks: self.marks,
        });
        (waiting, syncing)
    }

    /// The disk is done, or had nothing to do: answers the intents. Meanwhile others may have written more, and that may have failed.
    fn answer(&mut self, waiting: Unanswered, synced: Option<(io::Result<()>, Syncing)>) {
        match synced {
            Some((Ok(()), Syncing { bytes, marks, .. })) => self.synced_up_to(bytes, marks),
            Some((Err(error), _)) => self.go_down("fdatasync failed", &error),
            None => {}
        }
        self.publish();
        for (intent, call, reply) in waiting.opens {
            if self.down {
                self.refused.push(call);
                drop(reply.send(Err(self.shared.down())));
            } else {
                // If the caller is gone, dropping the row records that the call was interrupted.
                drop(reply.send(Ok(OpenRow::new(Arc::clone(&self.shared), call, intent))));
            }
        }
        if waiting.release {
            self.release();
        }
        self.order_spare();
    }

    fn stage_intent(&mut self, body: &Arc<[u8]>) -> Result<u64, Unavailable> {
        if self.down {
            return Err(self.shared.down());
        }
        self.make_room(RESERVE + (OVERHEAD + body.len()) as u64)?;
        let call = self.stage_body(Tag::Intent, 0, body, 0).ok_or_else(|| self.shared.down())?;
        self.reserved += RESERVE;
        self.open.insert(call, OpenCall { segment: self.active.number, body: Arc::clone(body) });
        Ok(call)
    }

    fn stage_rows(&mut self, rows: &Rows) -> Result<u64, Unavailable> {
        if self.down {
            return Err(self.shared.down());
        }
        self.make_room(rows.size())?;
        self.stage(Tag::Rows, 0, rows).ok_or_else(|| self.shared.down())
    }

    /// Appends a record to the tail, in the next segment if this one is full. While down the tail only grows in memory, as
    /// far as a segment reaches.
    fn stage(&mut self, tag: Tag, call: u64, rows: &Rows) -> Option<u64> {
        self.stage_body(tag, call, &rows.body, rows.count)
    }

    fn stage_body(&mut self, tag: Tag, call: u64, body: &[u8], rows: u32) -> Option<u64> {
        let size = (OVERHEAD + body.len()) as u64;
        if size > self.left() && !self.roll() {
            return None;
        }
        let frame = Frame {
            sequence: self.marks.first_sequence,
            previous: self.marks.previous,
            tag,
            call,
            first_row: self.marks.first_row,
            rows,
            body,
        };
        let hash = self.chain.write(&mut self.tail, &frame);
        self.shared.recent.keep(&frame, hash);
        self.marks = Marks::behind(&frame, hash);
        Some(frame.sequence)
    }

    /// Closes a call that nobody else will close.
    fn interrupt(&mut self, call: u64) {
        let Some(intent) = self.open.get(&call).and_then(|open| Intent::parse(&open.body)) else {
            // Unreadable as an intent although its hash is right: written by a version that this one does not know.
            tracing::error!(
                call,
                "an intent without outcome cannot be read; no row says that it was interrupted"
            );
            return;
        };
        match Records::one(intent.interrupted(self.shared.clock.now()), self.sizes.record) {
            Ok(rows) => self.backlog.push_back(Owed::new(call, rows, None)),
            Err(error) => tracing::error!(call, error = %error, "an interrupted call is not closed"),
        }
    }

    /// Bytes left in the segment behind the tail.
    fn left(&self) -> u64 {
        self.sizes.segment.saturating_sub(self.active.synced + self.tail.len() as u64)
    }

    /// Makes sure that `need` bytes can be written whatever the open calls will take.
    fn make_room(&mut self, need: u64) -> Result<(), Unavailable> {
        let now = self.shared.clock.monotonic();
        loop {
            let usable = self.sizes.segment - RECORDS as u64 - self.sizes.record;
            let spare = self.spares.ready(now) as u64 * usable;
            let free = self.left().saturating_sub(self.sizes.record) + spare;
            if free >= self.reserved + need {
                if self.full {
                    self.full = false;
                    self.shared.set_full(None);
                }
                return Ok(());
            }
            if self.spares.count() == self.spares.ready(now) {
                let refused = self.spares.refused(now).map(|error| format!("the disk has no room: {error}"));
                let full = (self.sealed.len() + 1 + self.spares.count() >= self.sizes.segments)
                    .then(|| "the spool has reached its size".to_owned());
                if let Some(reason) = full.or(refused) {
                    self.full = true;
                    self.shared.set_full(Some(reason));
                    return Err(Unavailable::Full);
                }
                self.spares.order(now);
            }
            self.spares.wait(now);
        }
    }

    /// Keeps one segment ready.
    fn order_spare(&mut self) {
        let now = self.shared.clock.monotonic();
        let allowed = self.sealed.len() + 1 + self.spares.count() < self.sizes.segments;
        if self.spares.ready(now) == 0
            && self.spares.count() == 0
            && allowed
            && self.spares.refused(now).is_none()
        {
            self.spares.order(now);
        }
    }

    /// Goes on in the next segment. Whether it did.
    fn roll(&mut self) -> bool {
        if self.down {
            return false;
        }
        self.flush();
        self.sync();
        if self.down {
            return false;
        }
        let now = self.shared.clock.monotonic();
        if self.spares.ready(now) == 0 {
            if self.spares.count() == 0 {
                self.spares.order(now);
            }
            self.spares.wait(now);
        }
        match begin_segment(&self.dir, &mut self.spares, self.active.number + 1, &self.marks, &[]) {
            Ok(active) => {
                self.sealed.push_back(Sealed { number: self.active.number, end: self.marks.first_sequence });
                self.active = active;
                true
            }
            Err(error) => {
                self.go_down("a segment could not be begun", &error);
                false
            }
        }
    }

    /// Hands what is staged to the operating system: it outlives this process.
    fn flush(&mut self) {
        let fresh = self.tail.get(self.written..).unwrap_or_default();
        if self.down || fresh.is_empty() {
            return;
        }
        match self.active.file.write_at(fresh, self.active.synced + self.written as u64) {
            Ok(()) => self.written = self.tail.len(),
            Err(error) => self.go_down("a record could not be written", &error),
        }
    }

    /// Makes what was written durable: it outlives the machine's power.
    fn sync(&mut self) {
        if self.down || self.tail.is_empty() {
            return;
        }
        match self.active.file.sync() {
            Ok(()) => self.synced_up_to(self.tail.len(), self.marks),
            Err(error) => self.go_down("fdatasync failed", &error),
        }
    }

    /// So many bytes of the tail are durable: the records before `marks`.
    fn synced_up_to(&mut self, bytes: usize, marks: Marks) {
        self.active.synced += bytes as u64;
        drop(self.tail.drain(..bytes.min(self.tail.len())));
        self.written = self.written.saturating_sub(bytes);
        self.synced = marks;
    }

    fn go_down(&mut self, what: &str, error: &io::Error) {
        self.down = true;
        tracing::error!(
            segment = self.active.number,
            error = %error,
            "audit spool is down: {what}; a fresh segment is being tried"
        );
        self.shared.set_writer(Some(format!("{what} on segment {}: {error}", self.active.number)));
    }

    /// Readiness must come back without a call that asks for it.
    fn retry(&mut self) {
        if self.down {
            self.reopen();
        } else if let Err(error) = self.make_room(2 * RESERVE) {
            tracing::debug!(error = %error, "the audit spool has no room yet");
        }
    }

    /// Tries to go on in a fresh segment with everything that the old one may have lost.
    fn reopen(&mut self) {
        let now = self.shared.clock.monotonic();
        if self.spares.ready(now) == 0 {
            if self.spares.count() == 0 {
                self.spares.order(now);
            }
            if !self.spares.wait(now) {
                return;
            }
        }
        let number = self.active.number + 1;
        match begin_segment(&self.dir, &mut self.spares, number, &self.synced, &self.tail) {
            Ok(active) => {
                self.sealed.push_back(Sealed { number: self.active.number, end: self.synced.first_sequence });
                self.active = active;
                // Intents that were not durable yet stand in the fresh segment now.
                for (_, call) in self.open.range_mut(self.synced.first_sequence..) {
                    call.segment = number;
                }
            }
            Err(error) => {
                tracing::warn!(segment = number, error = %error, "a fresh segment for the audit spool failed too");
                return;
            }
        }
        self.down = false;
        self.synced_up_to(self.tail.len(), self.marks);
        for call in std::mem::take(&mut self.refused) {
            self.interrupt(call);
        }
        self.take_turns();
        if !self.down {
            tracing::info!(segment = number, "audit spool is up again in a fresh segment");
            self.shared.set_writer(None);
        }
        self.publish();
    }

    fn publish(&self) {
        self.shared.set_oldest_end(self.sealed.front().map(|sealed| sealed.end));
        self.shared
            .publish(Progress { written: self.marks.first_sequence, synced: self.synced.first_sequence });
    }

    /// Removes segments that every consumer is done with. Calls still open there move on to the segment in use.
    fn release(&mut self) {
        let needed = self.shared.slowest();
        let mut removed = false;
        while let Some(front) = self.sealed.front().copied()
            && front.end <= needed
            && !self.down
        {
            if !self.carry(front.number) {
                break;
            }
            if let Err(error) = fs::remove_file(path(&self.dir, front.number)) {
                tracing::warn!(segment = front.number, error = %error, "a drained audit segment could not be removed");
                break;
            }
            self.sealed.pop_front();
            removed = true;
        }
        self.publish();
        if removed && let Err(error) = sync_dir(&self.dir) {
            tracing::warn!(error = %error, "the removal of audit segments may not be durable");
        }
        if removed && self.full {
            self.retry();
        }
    }

    /// Whether no open call needs the segment any more.
    fn carry(&mut self, segment: u64) -> bool {
        let held: Vec<(u64, Arc<[u8]>)> = (self.open.iter())
            .filter(|(_, call)| call.segment == segment)
            .map(|(call, open)| (*call, Arc::clone(&open.body)))
            .collect();
        if held.is_empty() {
            return true;
        }
        for (call, body) in held {
            let room = self.make_room((OVERHEAD + body.len()) as u64).is_ok();
            if !room || self.stage_body(Tag::Carried, call, &body, 0).is_none() {
                return false;
            }
            let number = self.active.number;
            if let Some(open) = self.open.get_mut(&call) {
                open.segment = number;
            }
        }
        self.flush();
        self.sync();
        self.publish();
        !self.down
    }
}

/// Turns a spare into the segment `number`, with its first records, all durable.
fn begin_segment(
    dir: &Path,
    spares: &mut Spares,
    number: u64,
    marks: &Marks,
    records: &[u8],
) -> io::Result<Active> {
    let spare =
        spares.take().ok_or_else(|| io::Error::new(io::ErrorKind::StorageFull, "no segment is ready"))?;
    let mut first = marks.bytes().to_vec();
    first.extend_from_slice(records);
    let path = path(dir, number);
    let begun = fs::rename(&spare.path, &path)
        .and_then(|()| spare.file.write_at(&first, 0))
        .and_then(|()| spare.file.sync())
        .and_then(|()| sync_dir(dir));
    match begun {
        Ok(()) => Ok(Active { number, file: spare.file.into(), synced: RECORDS as u64 }),
        Err(error) => {
            // It must not be taken for the successor of the segment before.
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(segment = number, error = %error, "a failed audit segment could not be removed");
            }
            Err(error)
        }
    }
}
