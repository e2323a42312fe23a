//! The stream of a Chat Completions answer as events of a Messages stream.

use sallyport_guest_sdk::Usage;
use sallyport_guest_sdk::provider::{Failure, MessageDelta, MessageStart, StreamEvent, TransportFault};

use crate::answer::{Choice, Completion, Said, ToolCall, stop_reason};
use crate::blocks::{Blocks, Kind};
use crate::error::{self, Wrong, garbage};
use crate::names::Asked;
use crate::sse::Sse;
use crate::surrogate::{self, Half};

/// Turns chunks of bytes into events.
#[derive(Debug)]
pub(crate) struct Decoder {
    sse: Sse,
    reply: Reply,
}

/// How far the reply has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Within,
    Over,
}

/// What is known of the reply so far.
#[derive(Debug)]
struct Reply {
    blocks: Blocks,
    usage: Usage,
    refused: bool,
    /// `finish_reason`, once it came.
    finish: Option<String>,
    met: Option<String>,
    /// The body is complete: what is left of it may be cut off anywhere.
    ending: bool,
    stage: Stage,
    /// Half a character that the last event ended with.
    half: Option<Half>,
}

const CUT: &str = "the upstream's stream ended in the middle of the answer";
const EMPTY: &str = "the upstream's stream was empty";

// === impl Decoder ===

impl Decoder {
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            sse: Sse::default(),
            reply: Reply {
                blocks: Blocks::new(asked),
                usage: Usage {
                    input: None,
                    output: None,
                    cache_read: None,
                    cache_write: None,
                    cache_write_1h: None,
                },
                refused: false,
                finish: None,
                met: None,
                ending: false,
                stage: Stage::Before,
                half: None,
            },
        }
    }

    /// Whether `message-stop` was sent.
    pub(crate) fn is_over(&self) -> bool {
        self.reply.stage == Stage::Over
    }

    /// Bytes of the answer's body.
    pub(crate) fn chunk(&mut self, bytes: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if self.is_over() {
            return Ok(());
        }
        let Self { sse, reply } = self;
        sse.push(bytes, |data| reply.event(data, out)).map_err(|Wrong(failure)| failure)
    }

    /// A whole answer, where events were asked for: as the events that it would have been.
    pub(crate) fn whole(&mut self, body: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        let reply = &mut self.reply;
        reply.ending = true;
        reply.event(body, out).map_err(|Wrong(failure)| failure)?;
        match reply.stage {
            Stage::Before => Err(garbage("the upstream's answer is not JSON of a chat completion")),
            Stage::Within | Stage::Over => reply.finish(out),
        }
    }

    /// The answer's body is complete.
    pub(crate) fn end(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        let Self { sse, reply } = self;
        reply.ending = true;
        let tail = sse.end(|data| reply.event(data, out));
        if reply.stage == Stage::Over || reply.finish.is_some() {
            // The answer is whole; a tail that is cut off says nothing about it.
            return reply.finish(out);
        }
        match tail {
            Err(Wrong(failure)) => Err(failure),
            Ok(()) if reply.stage == Stage::Within => Err(garbage(CUT)),
            Ok(()) => Err(garbage(EMPTY)),
        }
    }

    /// The connection broke. A reply that had come to its end is whole without what was still missing.
    pub(crate) fn failed(
        &mut self,
        fault: TransportFault,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), Failure> {
        if self.is_over() || self.reply.finish.is_some() {
            self.reply.finish(out)
        } else {
            Err(Failure::transport(fault))
        }
    }
}

// === impl Reply ===

impl Reply {
    /// The data of one server-sent event.
    fn event(&mut self, data: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), Wrong> {
        let data = data.trim_ascii();
        if self.stage == Stage::Over || data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            return if self.stage == Stage::Within {
                Ok(self.finish(out)?)
            } else {
                Err(garbage(EMPTY).into())
            };
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
            if self.stage == Stage::Within {
                self.blocks.text(Kind::Text, "\u{fffd}".to_owned(), out)?;
            }
        }
        let Some(chunk) = chunk else {
            let said = error::said(data);
            let failure = match &said {
                said if !said.is_empty() => error::object(said),
                _ if self.ending => garbage(CUT),
                _ => garbage("the upstream sent an event that is no chunk of an answer"),
            };
            return Err(failure.into());
        };
        if chunk.is_error() {
            let json = chunk.choice_error().map_or(data, |it| it.get().as_bytes());
            return Err(error::object(&error::said(json)).into());
        }
        self.chunk(chunk, out)?;
        Ok(())
    }

    fn chunk(&mut self, mut chunk: Completion<'_>, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        let counted = chunk.usage();
        if let Some(counted) = counted {
            merge(&mut self.usage, counted);
        }
        let Some(choices) = chunk.choices.take() else {
            return if counted.is_some() { self.all_told(out) } else { Ok(()) };
        };
        if self.stage == Stage::Before {
            self.stage = Stage::Within;
            out.push(StreamEvent::MessageStart(MessageStart {
                id: self.blocks.asked().message_id(chunk.id.as_ref().map(|it| &*it.0)),
                model: match chunk.model {
                    Some(model) if !model.0.is_empty() => model.0.into_owned(),
                    _ => self.blocks.asked().model.clone(),
                },
                usage: Usage {
                    input: self.usage.input.or_else(|| self.blocks.asked().estimate),
                    ..self.usage
                },
            }));
        }
        let told = choices.is_empty() && counted.is_some();
        for choice in choices {
            if choice.index.unwrap_or_default() == 0 {
                self.choice(choice, out)?;
            }
        }
        if told { self.all_told(out) } else { Ok(()) }
    }

    fn choice(&mut self, choice: Choice<'_>, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if let Some(met) = choice.met(self.blocks.asked()) {
            self.met = Some(met);
        }
        let finish = choice.finish_reason.filter(|it| !it.0.is_empty());
        if let Some(said) = choice.delta.or(choice.message) {
            self.said(said, out)?;
        }
        if let Some(finish) = finish {
            if finish.0 == "error" {
                return Err(garbage("the upstream reported an error in the middle of the answer"));
            }
            self.finish.get_or_insert_with(|| finish.0.into_owned());
        }
        Ok(())
    }

    fn said(&mut self, mut said: Said<'_>, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if let Some(thought) = said.take_reasoning() {
            self.blocks.text(Kind::Thinking, thought.into_owned(), out)?;
        }
        if let Some(content) = said.content {
            content.each(false, &mut |is_thinking, text| {
                let kind = if is_thinking { Kind::Thinking } else { Kind::Text };
                self.blocks.text(kind, text.into_owned(), out)
            })?;
        }
        if let Some(text) = said.refusal.filter(|it| !it.0.is_empty()) {
            self.refused = true;
            self.blocks.text(Kind::Text, text.0.into_owned(), out)?;
        }
        for call in said.tool_calls.iter().flatten() {
            self.blocks.call(call, out)?;
        }
        if let Some(function) = said.function_call {
            self.blocks.call(&ToolCall::only(function), out)?;
        }
        Ok(())
    }

    /// The counts that servers send last of all have come.
    fn all_told(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if self.finish.is_some() { self.finish(out) } else { Ok(()) }
    }

    /// Ends the reply.
    fn finish(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), Failure> {
        if self.stage == Stage::Over {
            return Ok(());
        }
        self.blocks.finish(out)?;
        let (reason, stop_sequence) =
            stop_reason(self.finish.as_deref(), self.blocks.called(), self.refused, self.met.take());
        out.push(StreamEvent::MessageDelta(MessageDelta {
            stop_reason: Some(reason),
            stop_sequence,
            usage: self.usage,
        }));
        out.push(StreamEvent::MessageStop);
        self.stage = Stage::Over;
        Ok(())
    }
}

/// Takes over what `newer` knows.
fn merge(usage: &mut Usage, newer: Usage) {
    usage.input = newer.input.or(usage.input);
    usage.output = newer.output.or(usage.output);
    usage.cache_read = newer.cache_read.or(usage.cache_read);
    usage.cache_write = newer.cache_write.or(usage.cache_write);
    usage.cache_write_1h = newer.cache_write_1h.or(usage.cache_write_1h);
}
