//! A whole answer of an upstream or a provider: collected up to its limit, or folded from the provider's events.

use bytes::{Bytes, BytesMut};
use sallyport_protocol::messages::event::{StreamEvent, Usage};
use sallyport_protocol::messages::fold::Fold;
use sallyport_protocol::messages::grammar::Grammar;

use super::exchange::{Exchanging, HIDDEN, ProviderStep, describe};
use super::{Call, Refusal};
use crate::config::{ExposeSecret as _, SecretString};
use crate::upstream::{AnswerBody, Upstream};

/// Longest reply that is collected.
pub(super) const LONGEST_REPLY: usize = 32 * 1024 * 1024;
/// Longest error body that is collected.
pub(super) const LONGEST_ERROR: usize = 1024 * 1024;

/// A whole answer.
pub(super) enum Whole {
    /// The upstream's error, as it came.
    Error { status: u16, bytes: Bytes },
    /// A Messages reply, or the answer to a count.
    Json { bytes: Bytes, usage: Option<Usage> },
    /// A count that the provider made.
    Tokens { count: u32, estimate: bool },
}

// === impl Whole ===

impl Whole {
    /// Collects the body of an error.
    pub(super) async fn error(status: u16, body: AnswerBody) -> Result<Self, Refusal> {
        Ok(Self::Error { status, bytes: collect(body, LONGEST_ERROR).await? })
    }

    /// An error in which the credential does not stand, if the upstream repeated it.
    pub(super) fn without(self, credential: &SecretString) -> Self {
        let secret = credential.expose_secret().as_bytes();
        match self {
            Self::Error { status, bytes }
                if !secret.is_empty() && memchr::memmem::find(&bytes, secret).is_some() =>
            {
                let mut out = BytesMut::with_capacity(bytes.len());
                let mut from = 0;
                for at in memchr::memmem::find_iter(&bytes, secret) {
                    out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
                    out.extend_from_slice(HIDDEN.as_bytes());
                    from = at + secret.len();
                }
                out.extend_from_slice(bytes.get(from..).unwrap_or_default());
                Self::Error { status, bytes: out.freeze() }
            }
            whole => whole,
        }
    }

    /// Collects a reply.
    pub(super) async fn json(body: AnswerBody) -> Result<Self, Refusal> {
        Ok(Self::Json { bytes: collect(body, LONGEST_REPLY).await?, usage: None })
    }

    /// Folds a provider's events into the reply that they describe.
    pub(super) async fn fold(
        exchanging: &mut Exchanging,
        upstream: &Upstream,
        call: &Call,
        first: StreamEvent,
    ) -> Result<Self, Refusal> {
        let (mut grammar, mut fold) = (Grammar::new(), Fold::new());
        let mut usage = Usage::default();
        let mut event = first;
        loop {
            grammar.check(&event).map_err(|error| exchanging.broke_contract(&error.to_string()))?;
            fold.push(&event).map_err(|error| exchanging.broke_contract(&error.to_string()))?;
            // What the wire says may be zero where nothing is known; what is metered comes from the events.
            if let StreamEvent::MessageStart { usage: said, .. }
            | StreamEvent::MessageDelta { usage: said, .. } = &event
            {
                usage.merge(*said);
            }
            if grammar.is_over() {
                break;
            }
            event = match exchanging.next(upstream, call).await? {
                ProviderStep::Event(event) => event,
                ProviderStep::Done => return Err(exchanging.broke_contract("a reply without an end")),
                ProviderStep::Forward(..) | ProviderStep::Message(_) | ProviderStep::Tokens(..) => {
                    return Err(exchanging.broke_contract("two answers to one call"));
                }
            };
        }
        let bytes = fold.finish().map_err(|error| exchanging.broke_contract(&error.to_string()))?;
        Ok(Self::Json { bytes: bytes.into(), usage: Some(usage) })
    }
}

// === private helpers ===

/// All of a body, up to so many bytes.
pub(super) async fn collect(mut body: AnswerBody, limit: usize) -> Result<Bytes, Refusal> {
    let bad = |what: &str| Refusal::BadAnswer { what: what.to_owned() };
    // Most answers come in one piece, which is the answer then.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        match body.chunk().await {
            Ok(Some(chunk)) if first.len().max(all.len()) + chunk.len() > limit => {
                return Err(bad("it is too large"));
            }
            Ok(Some(chunk)) if first.is_empty() => first = chunk,
            Ok(Some(chunk)) => {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&chunk);
            }
            Ok(None) => return Ok(if all.is_empty() { first } else { all.freeze() }),
            Err(error) => return Err(bad(describe(&error.fault()))),
        }
    }
}
