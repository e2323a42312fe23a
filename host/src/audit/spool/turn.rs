//! Outcomes take turns: in one turn of the writer no call gets more than a bounded number of bytes into the file, so that a call
//! with many rows delays no other by more than a turn.
//!
//! A call with one record is closed by it. Where there are more, the first closes the intent: it holds the call and its cost. What a
//! crash leaves of the rest stays, and the next start writes a row that says that rows are missing; the call is not closed again.
//! An outcome for which there is no room waits here, unchanged, until there is some.

use std::collections::VecDeque;

use sallyport_protocol::errors::ErrorCode;
use serde_json::json;
use tokio::sync::oneshot;

use super::{Event, Kind, Outcome, RESERVE, Records, RowReply, Rows, Tag, Unavailable, Who, Writer};

/// In one turn so many bytes of outcomes are staged, and then one record more at most.
const TURN: u64 = 256 * 1024;
/// Of one call so many bytes; then the next one is served.
const SHARE: u64 = 64 * 1024;

/// Outcomes that wait for their turn.
pub(super) type Backlog = VecDeque<Owed>;

/// What is still to be written of a call.
pub(super) struct Owed {
    call: u64,
    /// The first record is not written yet.
    begun: bool,
    records: VecDeque<Rows>,
    reply: Option<oneshot::Sender<Result<u64, Unavailable>>>,
}

/// How far a turn came with one call.
enum Came {
    /// All of it is staged; the sequence of its last record.
    Through(u64),
    /// Its share of this turn is used.
    Part,
    /// There is no room, or the writer is down.
    Stuck,
}

// === impl Owed ===

impl Owed {
    pub(super) fn new(
        call: u64,
        rows: Records,
        reply: Option<oneshot::Sender<Result<u64, Unavailable>>>,
    ) -> Self {
        let Records { first, rest: mut records } = rows;
        records.push_front(first);
        Self { call, begun: false, records, reply }
    }
}

// === impl Writer ===

impl Writer {
    /// One turn: every outcome that waits gets its share, as far as the turn reaches.
    pub(super) fn turn(&mut self, done: &mut Vec<RowReply>) {
        let mut left = TURN;
        let mut stuck = VecDeque::new();
        while left > 0
            && let Some(mut owed) = self.backlog.pop_front()
        {
            match self.serve_owed(&mut owed, &mut left) {
                Came::Through(sequence) => done.push((owed.reply, Ok(sequence))),
                Came::Part => self.backlog.push_back(owed),
                Came::Stuck if self.down => {
                    // No answer goes out now; the rows are kept for the next segment.
                    if let Some(reply) = owed.reply.take() {
                        done.push((Some(reply), Err(self.shared.down())));
                    }
                    stuck.push_back(owed);
                }
                Came::Stuck => stuck.push_back(owed),
            }
        }
        stuck.append(&mut self.backlog);
        self.backlog = stuck;
    }

    /// Turns until nothing waits, or nothing moves; all of it durable.
    pub(super) fn take_turns(&mut self) {
        loop {
            let before = self.marks.first_sequence;
            let mut done = Vec::new();
            self.turn(&mut done);
            self.flush();
            self.sync();
            self.publish();
            for (reply, result) in done {
                let result = if self.down { result.and_then(|_| Err(self.shared.down())) } else { result };
                if let Some(reply) = reply {
                    // Whoever waited may have left.
                    drop(reply.send(result));
                }
            }
            if self.backlog.is_empty() || self.marks.first_sequence == before {
                return;
            }
        }
    }

    fn serve_owed(&mut self, owed: &mut Owed, left: &mut u64) -> Came {
        let mut share = SHARE;
        loop {
            let Some(rows) = owed.records.front() else { return Came::Part };
            let (size, last) = (rows.size(), owed.records.len() == 1);
            let tag = match (owed.begun, last) {
                (false, true) => Tag::Close,
                (false, false) => Tag::Closing,
                (true, false) => Tag::More,
                (true, true) => Tag::Last,
            };
            // Room for the outcome was kept when the intent was written, up to a size.
            let kept = !owed.begun && size <= RESERVE && self.open.contains_key(&owed.call);
            if self.down || !kept && self.make_room(size).is_err() {
                return Came::Stuck;
            }
            let Some(sequence) = self.stage(tag, owed.call, rows) else { return Came::Stuck };
            owed.records.pop_front();
            if !std::mem::replace(&mut owed.begun, true) && self.open.remove(&owed.call).is_some() {
                self.reserved = self.reserved.saturating_sub(RESERVE);
            }
            if last {
                return Came::Through(sequence);
            }
            (share, *left) = (share.saturating_sub(size), left.saturating_sub(size));
            if share == 0 || *left == 0 {
                return Came::Part;
            }
        }
    }

    /// The gateway ended while it wrote the rows of a call: those that are there stay, and one more says that some are missing.
    pub(super) fn say_unfinished(&mut self, call: u64, body: &[u8]) {
        let who = serde_json::from_slice::<Vec<Who>>(body).ok().and_then(|rows| rows.into_iter().next());
        let payload = json!({
            "code": ErrorCode::RowsMissing,
            "reason": "the gateway ended before all rows of this call were in the spool",
        });
        let who = who.unwrap_or_else(Who::nobody);
        let row = Event::plain(self.shared.clock.now(), Kind::Admin, who, Outcome::Error, payload);
        match Records::one(row, self.sizes.record) {
            // It ends the call: the next start finds nothing unfinished.
            Ok(rows) => self.backlog.push_back(Owed { begun: true, ..Owed::new(call, rows, None) }),
            Err(error) => tracing::error!(call, error = %error, "rows of a call are missing"),
        }
    }
}
