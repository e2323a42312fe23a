//! An answer that comes as server-sent events with JSON in them, or as one such JSON: how it is read, whatever the pieces mean. What they
//! mean is the provider's, an [`Answers`]; [`Reader`] makes a [`Decode`] of it.

use sallyport_guest_sdk::Attribute;
use sallyport_guest_sdk::provider::{Failure, Output, ResponseHead, StreamEvent, TransportFault};
use serde::Deserialize;

use crate::blocks::Blocks;
use crate::error::{self, UpstreamError, garbage};
use crate::exchange::Decode;
use crate::sse::{Sse, SseEvent};
use crate::surrogate::{self, Half};

/// What a stream that broke off is.
pub const CUT: &str = "the upstream's stream ended in the middle of the answer";
/// What a stream is that says nothing.
pub const EMPTY: &str = "the upstream's stream was empty";

/// What the pieces of an answer mean.
pub trait Answers: 'static {
    /// The data of one event, without white space around it and never empty. `is_last`: the body is complete, so that this may be cut off.
    fn event(&mut self, data: &[u8], is_last: bool) -> Result<(), Failure>;

    /// All of an answer that came as one JSON text.
    fn whole(&mut self, body: &[u8]) -> Result<(), Failure>;

    /// Whether it is known how the answer ends: what is missing then is nothing that the client would miss.
    fn is_ending(&self) -> bool;

    /// Ends the reply.
    fn finish(&mut self) -> Result<(), Failure>;

    /// What was said of the reply.
    fn blocks(&self) -> &Blocks;

    /// The same, to say more.
    fn blocks_mut(&mut self) -> &mut Blocks;

    /// A whole answer where one was asked for, if it is no reply: a count.
    fn other(&mut self, _body: &[u8]) -> Option<Result<Vec<Output>, Failure>> {
        None
    }

    /// Headers of the answer that the client shall see.
    fn headers(_head: &ResponseHead, _now_ms: u64) -> Vec<Attribute> {
        Vec::new()
    }

    /// The failure that an answer with a status that is no success stands for.
    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        error::of_answer(head, body)
    }
}

/// Reads an answer.
#[derive(Debug)]
pub struct Reader<A> {
    sse: Sse,
    answers: A,
}

/// One JSON, read in place, also where it holds half characters; `half` keeps the one that ends it, for the JSON that begins with the
/// other. What cannot be read is the failure that it stands for.
pub fn piece<'d, T: Deserialize<'d>>(
    data: &'d [u8],
    mended: &'d mut Vec<u8>,
    half: Option<&mut Option<Half>>,
    is_last: bool,
) -> Result<T, Failure> {
    if let Ok(piece) = serde_json::from_slice(data) {
        return Ok(piece);
    }
    *mended = surrogate::mend(data, half);
    serde_json::from_slice(mended).map_err(|_| no_piece(data, is_last))
}

/// What data is that is no piece of an answer: an error in the upstream's words, if it is one.
pub fn no_piece(data: &[u8], is_last: bool) -> Failure {
    match &UpstreamError::read(data) {
        said if !said.is_empty() => error::of_object(said),
        _ if is_last => garbage(CUT),
        _ => garbage("the upstream sent an event that is no piece of an answer"),
    }
}

// === impl Reader ===

impl<A> Reader<A> {
    /// Nothing was read.
    pub fn new(answers: A) -> Self {
        Self { sse: Sse::default(), answers }
    }
}

impl<A: Answers> Decode for Reader<A> {
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_over() {
            return Ok(());
        }
        let Self { sse, answers } = self;
        sse.push(bytes, |it| event(answers, it, false))
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Self { sse, answers } = self;
        let tail = sse.end(|it| event(answers, it, true));
        if answers.blocks().is_over() {
            return Ok(());
        }
        if answers.is_ending() {
            // The answer is whole; a tail that is cut off says nothing about it.
            return answers.finish();
        }
        tail?;
        Err(garbage(if answers.blocks().has_begun() { CUT } else { EMPTY }))
    }

    /// A reply that had come to its end is whole without what was still missing.
    fn failed(&mut self, fault: &TransportFault) -> Result<(), Failure> {
        if self.is_over() {
            Ok(())
        } else if self.answers.is_ending() {
            self.answers.finish()
        } else {
            Err(Failure::transport(fault))
        }
    }

    fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.answers.whole(body)
    }

    fn reply(mut self, body: &[u8]) -> (Vec<Output>, Result<(), Failure>) {
        match self.answers.other(body) {
            Some(Ok(outputs)) => (outputs, Ok(())),
            Some(Err(failure)) => (Vec::new(), Err(failure)),
            None => {
                let read = self.whole(body);
                (self.take().into_iter().map(Output::Event).collect(), read)
            }
        }
    }

    fn headers(head: &ResponseHead, now_ms: u64) -> Vec<Attribute> {
        A::headers(head, now_ms)
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        A::refusal(head, body)
    }

    fn take(&mut self) -> Vec<StreamEvent> {
        self.answers.blocks_mut().take()
    }

    fn is_over(&self) -> bool {
        self.answers.blocks().is_over()
    }
}

// === private helpers ===

fn event(answers: &mut impl Answers, event: SseEvent<'_>, is_last: bool) -> Result<(), Failure> {
    let data = event.data.trim_ascii();
    if answers.blocks().is_over() || data.is_empty() {
        return Ok(());
    }
    answers.event(data, is_last)
}
