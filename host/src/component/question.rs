//! What a call may ask of a component, and what may come back: one table for the gateway's own guests and for those of its workers.
//! Providers are not in it: they answer with a state machine, and run in the gateway.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::contract::{Call, hook, policy, scanner};

/// A question.
#[expect(clippy::large_enum_variant, reason = "it is made for one call, and moves no further than that")]
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question<'a> {
    /// Of a policy: may this call be made? Its body goes beside it.
    Check { call: Arc<Call>, body_bytes: usize },
    /// Told to a policy: what the call came to.
    Settle { call: Arc<Call>, spent: policy::Settlement },
    /// Of a scanner: what is in this text?
    Scan { kind: scanner::TextKind, text: Cow<'a, str> },
    /// Of a predicate: does the route take this call? Its body goes beside it.
    Matches { call: Arc<Call>, body_bytes: usize },
    /// Of a hook: this happened.
    Event(Cow<'a, hook::Occurrence>),
}

/// What a guest said to one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum GuestReply {
    Verdict(policy::Verdict),
    Settled,
    Findings(Vec<scanner::Finding>),
    Matches(bool),
    Outcome(hook::Outcome),
}

/// Which question it was, so that an answer to another one is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuestionKind {
    Check,
    Settle,
    Scan,
    Matches,
    Event,
}

// === impl Question ===

impl Question<'_> {
    pub(super) fn kind(&self) -> QuestionKind {
        match self {
            Self::Check { .. } => QuestionKind::Check,
            Self::Settle { .. } => QuestionKind::Settle,
            Self::Scan { .. } => QuestionKind::Scan,
            Self::Matches { .. } => QuestionKind::Matches,
            Self::Event(_) => QuestionKind::Event,
        }
    }

    /// Bytes of the body that goes beside it; `None` where there is none.
    pub(super) fn body_bytes(&self) -> Option<usize> {
        match self {
            Self::Check { body_bytes, .. } | Self::Matches { body_bytes, .. } => Some(*body_bytes),
            Self::Settle { .. } | Self::Scan { .. } | Self::Event(_) => None,
        }
    }

    /// Bytes that it hands to the guest: its limits grow with them.
    pub(super) fn handed(&self) -> usize {
        match self {
            Self::Check { body_bytes, .. } | Self::Matches { body_bytes, .. } => *body_bytes,
            // The names of tools are all that a settlement has of a body.
            Self::Settle { call, .. } => call.tools.iter().map(String::len).sum(),
            Self::Scan { text, .. } => text.len(),
            Self::Event(what) => event_bytes(what),
        }
    }
}

// === impl GuestReply ===

impl GuestReply {
    /// The question that it answers.
    pub(super) fn answers(&self) -> QuestionKind {
        match self {
            Self::Verdict(_) => QuestionKind::Check,
            Self::Settled => QuestionKind::Settle,
            Self::Findings(_) => QuestionKind::Scan,
            Self::Matches(_) => QuestionKind::Matches,
            Self::Outcome(_) => QuestionKind::Event,
        }
    }

    pub(super) fn verdict(self) -> Option<policy::Verdict> {
        match self {
            Self::Verdict(verdict) => Some(verdict),
            _ => None,
        }
    }

    pub(super) fn settled(self) -> Option<()> {
        matches!(self, Self::Settled).then_some(())
    }

    pub(super) fn findings(self) -> Option<Vec<scanner::Finding>> {
        match self {
            Self::Findings(findings) => Some(findings),
            _ => None,
        }
    }

    pub(super) fn matches(self) -> Option<bool> {
        match self {
            Self::Matches(matches) => Some(matches),
            _ => None,
        }
    }

    pub(super) fn outcome(self) -> Option<hook::Outcome> {
        match self {
            Self::Outcome(outcome) => Some(outcome),
            _ => None,
        }
    }
}

// === private helpers ===

/// Bytes of an event.
fn event_bytes(what: &hook::Occurrence) -> usize {
    let event = match &what.event {
        hook::Event::PreToolUse(call) => call.input.len(),
        hook::Event::PostToolUse(result) => result.call.input.len().saturating_add(result.output.len()),
        hook::Event::PostToolUseFailure(failure) => {
            failure.call.input.len().saturating_add(failure.error.len())
        }
        hook::Event::SessionStart(text)
        | hook::Event::SessionEnd(text)
        | hook::Event::UserPromptSubmit(text)
        | hook::Event::Notification(text)
        | hook::Event::Stop(text) => text.len(),
        hook::Event::SubagentStart(_) | hook::Event::SubagentStop(_) => 0,
        hook::Event::Other(what) => what.value.len(),
    };
    event.saturating_add(what.raw.as_ref().map_or(0, String::len))
}
