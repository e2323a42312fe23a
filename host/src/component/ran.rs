//! What came of a call of a component: its answer or why there is none, and what the call took.

use std::time::Duration;

use super::capability::EgressCall;
use super::contract::{Attribute, Taken};
use super::fault::Fault;

/// What a call came to.
#[derive(Debug)]
pub struct Ran<T> {
    /// The guest's answer, or why there is none.
    pub result: Result<T, Fault>,
    /// Guest time in microseconds.
    pub micros: u32,
    /// Linear memory at its peak, in bytes.
    pub memory: usize,
    /// Fuel, where the engine counts it.
    pub fuel: Option<u64>,
    /// Notes for the audit row.
    pub notes: Vec<Attribute>,
    /// What it took from counters, in order. Added by whoever saw it from outside.
    pub taken: Vec<Taken>,
    /// Wall clock shown to the guest, since 1970; frozen for the whole call.
    pub now: Duration,
    /// What the guest wrote to standard error.
    pub log: Option<String>,
    /// The requests that it made.
    pub egress_calls: Vec<EgressCall>,
}

// === impl Ran ===

impl<T> Ran<T> {
    /// The same with `read` of its answer; where that is none, the answer was to another question.
    pub(super) fn read<U>(self, read: impl FnOnce(T) -> Option<U>) -> Ran<U> {
        let Self { result, micros, memory, fuel, notes, taken, now, log, egress_calls } = self;
        let result = result.and_then(|reply| {
            read(reply).ok_or_else(|| Fault::Worker { what: "an answer to another question".to_owned() })
        });
        Ran { result, micros, memory, fuel, notes, taken, now, log, egress_calls }
    }

    /// An answer that was given before, at no time.
    pub(crate) fn remembered(answer: T, notes: Vec<Attribute>) -> Self {
        Self { notes, ..Self::at_once(Ok(answer)) }
    }

    /// No answer at all.
    pub(crate) fn failed(fault: Fault) -> Self {
        Self::at_once(Err(fault))
    }

    /// What took nothing and left nothing.
    fn at_once(result: Result<T, Fault>) -> Self {
        Self {
            result,
            micros: 0,
            memory: 0,
            fuel: None,
            notes: Vec::new(),
            taken: Vec::new(),
            now: Duration::ZERO,
            log: None,
            egress_calls: Vec::new(),
        }
    }
}
