//! Calls that a client makes again because the last one failed. Clients hide it: Claude Code numbers none of its own retries, and
//! leaves out parts of a request that was refused. So a turn is known by its session, prompt and last message where the client
//! names a session, and by its whole body where it does not.

use std::time::Duration;

use quick_cache::sync::Cache;
use sallyport_protocol::id::TraceId;

use super::facts::Request;
use super::hooks::UserKey;

/// Turns that failed and are remembered.
const REMEMBERED: usize = 16_384;
/// What failed longer ago than this is not what a client repeats.
const WINDOW: Duration = Duration::from_mins(15);

/// Turns that failed.
pub(super) struct Retries {
    failed: Cache<UserKey, FailedTurn>,
}

/// A call that repeats another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retry {
    /// The first call of the turn.
    pub(super) first: TraceId,
    /// 2 for the first repetition.
    pub(super) attempt: u32,
}

#[derive(Debug, Clone)]
struct FailedTurn {
    first: TraceId,
    attempts: u32,
    at: Duration,
}

// === impl Retries ===

impl Retries {
    pub(super) fn new() -> Self {
        Self { failed: Cache::new(REMEMBERED) }
    }

    /// Which call `turn` repeats, if it does.
    pub(super) fn of(&self, turn: UserKey, now: Duration) -> Option<Retry> {
        let failed = self.failed.get(&turn).filter(|failed| now.saturating_sub(failed.at) <= WINDOW)?;
        Some(Retry { first: failed.first, attempt: failed.attempts.saturating_add(1) })
    }

    /// A call of `turn` has ended. One that was served ends the row of attempts.
    pub(super) fn ended(&self, turn: UserKey, trace: &TraceId, served: bool, now: Duration) {
        if served {
            self.failed.remove(&turn);
            return;
        }
        let failed = match self.of(turn, now) {
            Some(Retry { first, attempt }) => FailedTurn { first, attempts: attempt, at: now },
            None => FailedTurn { first: trace.clone(), attempts: 1, at: now },
        };
        self.failed.insert(turn, failed);
    }
}

/// The name of the turn that a request asks for.
pub(super) fn turn_of(request: &Request, body: &blake3::Hash) -> UserKey {
    let lineage = &request.lineage;
    let Some(session) = &lineage.session else {
        return UserKey::of(&request.principal, &[b"body", body.as_bytes()]);
    };
    let index = &request.body.index;
    let last = index.messages.last().map_or(&[][..], |message| message.content.of(&request.body.bytes));
    let parts: [&[u8]; 7] = [
        b"turn",
        request.operation.as_str().as_bytes(),
        session.as_bytes(),
        lineage.prompt.as_deref().unwrap_or_default().as_bytes(),
        index.model.as_bytes(),
        &index.message_count.to_le_bytes(),
        last,
    ];
    UserKey::of(&request.principal, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::hooks::testing::principal;

    #[test]
    fn a_turn_is_repeated_until_it_is_served_or_long_ago() {
        let retries = Retries::new();
        let turn = UserKey::of(&principal("acme", "u_alice"), &[b"turn"]);
        let trace = |number: u8| TraceId::from_bytes([number; 16]);
        let second = Duration::from_secs;
        assert_eq!(retries.of(turn, second(0)), None);
        retries.ended(turn, &trace(1), false, second(1));
        assert_eq!(retries.of(turn, second(2)), Some(Retry { first: trace(1), attempt: 2 }));
        retries.ended(turn, &trace(2), false, second(3));
        assert_eq!(retries.of(turn, second(4)), Some(Retry { first: trace(1), attempt: 3 }));
        // Whoever waits for so long means a new call.
        assert_eq!(retries.of(turn, second(4) + WINDOW), None);
        retries.ended(turn, &trace(3), true, second(5));
        assert_eq!(retries.of(turn, second(6)), None);
        // Another user's turn is another one, whatever it says.
        retries.ended(turn, &trace(4), false, second(7));
        let other = UserKey::of(&principal("acme", "u_bob"), &[b"turn"]);
        assert_eq!(retries.of(other, second(7)), None);
    }
}
