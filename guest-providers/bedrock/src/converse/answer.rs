//! An answer of Converse as events of a Messages stream: whole, or in an event stream of AWS
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>).

use sallyport_guest_codec::blocks::{Blocks, CallPiece};
use sallyport_guest_codec::carry;
use sallyport_guest_codec::error::garbage;
use sallyport_guest_codec::event_stream::{EventMessage, EventStream};
use sallyport_guest_codec::exchange::Decode;
use sallyport_guest_codec::headers;
use sallyport_guest_codec::names::ReplyContext;
use sallyport_guest_codec::usage::{Count, UNKNOWN};
use sallyport_guest_sdk::provider::{Failure, ResponseHead, StreamEvent, TransportFault};
use sallyport_guest_sdk::{Attribute, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::VENDOR;
use crate::base64::{decode, encode};
use crate::refusal;

/// What a carried signature begins with, behind whose it is: that of reasoning which can be read, and reasoning which cannot.
pub(super) const SIGNED: &str = "s.";
pub(super) const REDACTED: &str = "r.";

/// Turns bytes into events.
#[derive(Debug)]
pub struct Decoder {
    stream: EventStream,
    blocks: Blocks,
    usage: Usage,
    /// `stopReason`, once it came.
    stop: Option<String>,
    /// Reasoning that only the upstream can read: what came of it.
    redacted: Vec<u8>,
}

/// The payload of an event: whichever fields its type has.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    content_block_index: u64,
    start: Option<Start>,
    delta: Option<Delta>,
    stop_reason: Option<String>,
    usage: Option<Reported>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Start {
    tool_use: Option<Called>,
}

/// A tool call: its head in a stream, all of it in a whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Called {
    tool_use_id: String,
    name: String,
    input: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<InputPiece>,
    reasoning_content: Option<Reasoned>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputPiece {
    input: String,
}

/// Reasoning: pieces of it in a stream, all of it in a whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reasoned {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
    reasoning_text: Option<ReasoningText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReasoningText {
    text: String,
    signature: Option<String>,
}

/// A whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Whole {
    output: Option<Said>,
    stop_reason: Option<String>,
    usage: Option<Reported>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    message: Option<Spoken>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spoken {
    content: Vec<Piece>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Piece {
    text: Option<String>,
    tool_use: Option<Called>,
    reasoning_content: Option<Reasoned>,
}

/// `usage`: input tokens are those outside any cache.
#[expect(clippy::struct_field_names, reason = "the wire's names")]
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reported {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_write_input_tokens: Count,
}

const CUT: &str = "the upstream's stream ended in the middle of the answer";

// === impl Decoder ===

impl Decoder {
    pub(super) fn new(context: ReplyContext) -> Self {
        Self {
            stream: EventStream::default(),
            blocks: Blocks::new(context),
            usage: UNKNOWN,
            stop: None,
            redacted: Vec::new(),
        }
    }

    fn message(&mut self, message: &EventMessage<'_>) -> Result<(), Failure> {
        if message.is_exception() {
            return Err(refusal::of_exception(&message.name(), message.payload));
        }
        let event: Event = serde_json::from_slice(message.payload)
            .map_err(|_| garbage("the upstream sent a piece that is no event"))?;
        match &*message.name() {
            "messageStart" => self.blocks.begin(None, None, UNKNOWN),
            "contentBlockStart" => {
                if let Some(Called { tool_use_id: id, name, .. }) = event.start.and_then(|it| it.tool_use) {
                    let index = Some(event.content_block_index);
                    self.blocks.call(CallPiece { index, id: &id, name: &name, input: "" })?;
                }
            }
            "contentBlockDelta" => self.delta(event.content_block_index, event.delta.unwrap_or_default())?,
            "contentBlockStop" => self.redacted()?,
            "messageStop" => self.stop = Some(event.stop_reason.unwrap_or_default()),
            "metadata" => {
                if let Some(usage) = event.usage {
                    self.usage = usage.usage();
                }
                if self.stop.is_some() {
                    return self.finish();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn delta(&mut self, at: u64, delta: Delta) -> Result<(), Failure> {
        if let Some(text) = delta.text {
            self.blocks.text(text)?;
        }
        if let Some(InputPiece { input }) = delta.tool_use {
            self.blocks.call(CallPiece { index: Some(at), input: &input, ..CallPiece::default() })?;
        }
        match delta.reasoning_content {
            Some(reasoned) => self.reasoned(reasoned),
            None => Ok(()),
        }
    }

    fn reasoned(&mut self, reasoned: Reasoned) -> Result<(), Failure> {
        let ReasoningText { text, signature } = reasoned.reasoning_text.unwrap_or_default();
        for text in [Some(text), reasoned.text].into_iter().flatten() {
            self.blocks.thinking(text)?;
        }
        for signature in [signature, reasoned.signature].into_iter().flatten().filter(|it| !it.is_empty()) {
            self.blocks.signature(carry::carried(VENDOR, &format!("{SIGNED}{signature}")))?;
        }
        if let Some(redacted) = reasoned.redacted_content {
            let redacted =
                decode(&redacted).ok_or_else(|| garbage("the upstream's reasoning cannot be read"))?;
            self.redacted.extend(redacted);
            if self.redacted.len() > 1 << 20 {
                return Err(garbage("the upstream's reasoning is larger than 1 MiB"));
            }
        }
        Ok(())
    }

    /// Reasoning that cannot be read travels as the signature of thinking without a text.
    fn redacted(&mut self) -> Result<(), Failure> {
        let redacted = std::mem::take(&mut self.redacted);
        if redacted.is_empty() {
            return Ok(());
        }
        self.blocks.signature(carry::carried(VENDOR, &format!("{REDACTED}{}", encode(&redacted))))
    }

    /// Ends the reply: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_MessageStopEvent.html>.
    fn finish(&mut self) -> Result<(), Failure> {
        self.redacted()?;
        let called = self.blocks.has_calls();
        let reason = match self.stop.as_deref().unwrap_or_default() {
            "max_tokens" => "max_tokens",
            "stop_sequence" => "stop_sequence",
            "model_context_window_exceeded" => "model_context_window_exceeded",
            "guardrail_intervened" | "content_filtered" => "refusal",
            odd @ ("malformed_model_output" | "malformed_tool_use") => {
                return Err(garbage(format!("the upstream's model gave no answer that can be read [{odd}]")));
            }
            _ if called => "tool_use",
            _ => "end_turn",
        };
        self.blocks.finish(reason, None, self.usage)
    }
}

impl Decode for Decoder {
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stream = std::mem::take(&mut self.stream);
        let read = stream.push(bytes, |message| if self.is_over() { Ok(()) } else { self.message(&message) });
        self.stream = stream;
        read
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.is_over() {
            return Ok(());
        }
        if self.stop.is_some() {
            return self.finish();
        }
        Err(garbage(if self.blocks.has_begun() { CUT } else { "the upstream's stream was empty" }))
    }

    fn failed(&mut self, fault: &TransportFault) -> Result<(), Failure> {
        if self.is_over() {
            Ok(())
        } else if self.stop.is_some() {
            self.finish()
        } else {
            Err(Failure::transport(fault))
        }
    }

    fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let none = || garbage("the upstream's answer is no message");
        let whole: Whole = serde_json::from_slice(body).map_err(|_| none())?;
        let content = whole.output.and_then(|it| it.message).ok_or_else(none)?.content;
        self.usage = whole.usage.map_or(UNKNOWN, |it| it.usage());
        self.blocks.begin(None, None, self.usage);
        for (at, piece) in (0..).zip(content) {
            if let Some(text) = piece.text {
                self.blocks.text(text)?;
            }
            if let Some(reasoned) = piece.reasoning_content {
                self.reasoned(reasoned)?;
                self.redacted()?;
            }
            if let Some(Called { tool_use_id: id, name, input }) = piece.tool_use {
                let input = input.as_ref().map_or("{}", |it| it.get());
                self.blocks.call(CallPiece { index: Some(at), id: &id, name: &name, input })?;
            }
        }
        self.stop = Some(whole.stop_reason.unwrap_or_default());
        self.finish()
    }

    fn headers(head: &ResponseHead, _: u64) -> Vec<Attribute> {
        headers::renamed(head, &[("x-amzn-requestid", "request-id")])
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        refusal::of_answer(head, body)
    }

    fn take(&mut self) -> Vec<StreamEvent> {
        self.blocks.take()
    }

    fn is_over(&self) -> bool {
        self.blocks.is_over()
    }
}

// === impl Reported ===

impl Reported {
    fn usage(&self) -> Usage {
        Usage {
            input: self.input_tokens.0,
            output: self.output_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_write: self.cache_write_input_tokens.0,
            cache_write_1h: None,
        }
    }
}
