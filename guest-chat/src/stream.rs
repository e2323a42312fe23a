//! The stream of a Chat Completions answer as events of a Messages stream.

use std::marker::PhantomData;

use sallyport_guest_codec::answers::{Answers, EMPTY, Reader, no_piece};
use sallyport_guest_codec::blocks::{Blocks, CallPiece};
use sallyport_guest_codec::error::{self, UpstreamError, garbage};
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::surrogate::{self, Half};
use sallyport_guest_codec::usage::{UNKNOWN, merge};
use sallyport_guest_sdk::provider::{Failure, Output, ResponseHead};
use sallyport_guest_sdk::{Attribute, Usage};

use crate::answer::{AnsweredFunction, AnsweredToolCall, Choice, Completion, Said, stop_reason};
use crate::vendor::Vendor;
use crate::{headers, reply};

/// Turns chunks of bytes into events.
pub type Decoder<V> = Reader<ChatReply<V>>;

/// What is known of the reply so far.
#[derive(Debug)]
pub struct ChatReply<V> {
    blocks: Blocks,
    usage: Usage,
    refused: bool,
    /// `finish_reason`, once it came.
    finish: Option<String>,
    met: Option<String>,
    /// Half a character that the last event ended with.
    half: Option<Half>,
    vendor: PhantomData<fn() -> V>,
}

// === impl ChatReply ===

impl<V> ChatReply<V> {
    pub(crate) fn new(context: ReplyContext) -> Self {
        Self {
            blocks: Blocks::new(context),
            usage: UNKNOWN,
            refused: false,
            finish: None,
            met: None,
            half: None,
            vendor: PhantomData,
        }
    }

    fn chunk(&mut self, mut chunk: Completion<'_>) -> Result<(), Failure> {
        let counted = chunk.usage();
        if let Some(counted) = counted {
            merge(&mut self.usage, counted);
        }
        let Some(choices) = chunk.choices.take() else {
            return if counted.is_some() { self.counted() } else { Ok(()) };
        };
        self.blocks.begin(chunk.id(), chunk.model.as_ref().map(|it| &*it.0), self.usage);
        let is_last = choices.is_empty() && counted.is_some();
        for choice in choices {
            if choice.index.unwrap_or_default() == 0 {
                self.choice(choice)?;
            }
        }
        if is_last { self.counted() } else { Ok(()) }
    }

    fn choice(&mut self, choice: Choice<'_>) -> Result<(), Failure> {
        if let Some(met) = choice.met(self.blocks.context()) {
            self.met = Some(met);
        }
        let finish = choice.finish_reason.filter(|it| !it.0.is_empty());
        if let Some(said) = choice.delta.or(choice.message) {
            self.said(said)?;
        }
        if let Some(finish) = finish {
            if finish.0 == "error" {
                return Err(garbage("the upstream reported an error in the middle of the answer"));
            }
            self.finish.get_or_insert_with(|| finish.0.into_owned());
        }
        Ok(())
    }

    fn said(&mut self, mut said: Said<'_>) -> Result<(), Failure> {
        if let Some(thought) = said.take_reasoning() {
            self.blocks.thinking(thought.into_owned())?;
        }
        if let Some(content) = said.content {
            content.each(false, &mut |is_thinking, text| {
                let text = text.into_owned();
                if is_thinking { self.blocks.thinking(text) } else { self.blocks.text(text) }
            })?;
        }
        if let Some(text) = said.refusal.filter(|it| !it.0.is_empty()) {
            self.refused = true;
            self.blocks.text(text.0.into_owned())?;
        }
        for call in said.tool_calls.iter().flatten() {
            self.call(call)?;
        }
        if let Some(function) = said.function_call {
            self.call(&AnsweredToolCall::only(function))?;
        }
        Ok(())
    }

    fn call(&mut self, call: &AnsweredToolCall<'_>) -> Result<(), Failure> {
        let function = call.function.as_ref();
        let input = function.map(AnsweredFunction::arguments).unwrap_or_default();
        let name = function.map_or("", AnsweredFunction::name);
        self.blocks.call(CallPiece { index: call.index, id: call.id(), name, input: &input })
    }

    /// The counts that servers send last of all have come.
    fn counted(&mut self) -> Result<(), Failure> {
        if self.finish.is_some() { self.end_reply() } else { Ok(()) }
    }

    /// Ends the reply.
    fn end_reply(&mut self) -> Result<(), Failure> {
        let (reason, stop_sequence) =
            stop_reason(self.finish.as_deref(), self.blocks.has_calls(), self.refused, self.met.take());
        self.blocks.finish(reason, stop_sequence, self.usage)
    }
}

impl<V: Vendor> Answers for ChatReply<V> {
    fn event(&mut self, data: &[u8], is_last: bool) -> Result<(), Failure> {
        if data == b"[DONE]" {
            return if self.blocks.has_begun() { self.finish() } else { Err(garbage(EMPTY)) };
        }
        let before = self.half.is_some();
        let mended;
        let mut chunk = serde_json::from_slice::<Completion<'_>>(data).ok();
        if chunk.is_none() {
            mended = surrogate::mend(data, Some(&mut self.half));
            chunk = serde_json::from_slice(&mended).ok();
        } else if before {
            // The other half did not come.
            self.half = None;
            if self.blocks.has_begun() {
                self.blocks.text("\u{fffd}".to_owned())?;
            }
        }
        let chunk = chunk.ok_or_else(|| no_piece(data, is_last))?;
        if chunk.is_error() {
            let json = chunk.choice_error().map_or(data, |it| it.get().as_bytes());
            return Err(error::of_object(&UpstreamError::read(json)));
        }
        self.chunk(chunk)
    }

    fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let body = body.trim_ascii();
        if !body.is_empty() {
            self.event(body, true)?;
        }
        if self.blocks.has_begun() {
            self.finish()
        } else {
            Err(garbage("the upstream's answer is not JSON of a chat completion"))
        }
    }

    fn is_ending(&self) -> bool {
        self.finish.is_some()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.end_reply()
    }

    fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    fn other(&mut self, body: &[u8]) -> Option<Result<Vec<Output>, Failure>> {
        Some(reply::translate(body, self.blocks.context()).map(|message| vec![Output::Message(message)]))
    }

    fn headers(head: &ResponseHead, now_ms: u64) -> Vec<Attribute> {
        headers::pass_on(head, now_ms)
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        V::refusal(head, body)
    }
}
