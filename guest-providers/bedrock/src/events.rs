//! The stream of `InvokeModelWithResponseStream`: an event stream of AWS whose events are those of a Messages stream, in base64
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html>).

use sallyport_guest_codec::error::{self, garbage};
use sallyport_guest_codec::event_stream::{EventMessage, EventStream};
use sallyport_guest_codec::exchange::Decode;
use sallyport_guest_codec::headers;
use sallyport_guest_codec::usage::{Count, UNKNOWN, merge};
use sallyport_guest_sdk::provider::{
    Block, BlockDelta, BlockStart, Delta, Failure, MessageDelta, MessageStart, Output, Reply, ResponseHead,
    StreamEvent, ToolUse, TransportFault,
};
use sallyport_guest_sdk::{Attribute, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base64::decode;
use crate::refusal;

/// Turns bytes into events.
#[derive(Debug)]
pub struct Decoder {
    stream: EventStream,
    said: Vec<StreamEvent>,
    begun: bool,
    over: bool,
    /// Not a reply was asked for, but a count.
    counting: bool,
    usage: Usage,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    bytes: std::borrow::Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    index: u32,
    message: Option<Message>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    usage: Option<Reported>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    id: String,
    model: String,
    usage: Option<Reported>,
}

/// A content block or a delta: whichever fields its type has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Piece {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    name: String,
    data: String,
    text: String,
    thinking: String,
    signature: String,
    partial_json: String,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

/// `usage`: <https://docs.claude.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance>.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reported {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_creation: Option<Tiers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tiers {
    ephemeral_1h_input_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Whole {
    #[serde(rename = "type")]
    kind: String,
    usage: Option<Reported>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    input_tokens: u32,
}

const CUT: &str = "the upstream's stream ended in the middle of the answer";

// === impl Decoder ===

impl Decoder {
    pub(crate) fn new(counting: bool) -> Self {
        Self {
            stream: EventStream::default(),
            said: Vec::new(),
            begun: false,
            over: false,
            counting,
            usage: UNKNOWN,
        }
    }

    fn message(&mut self, message: &EventMessage<'_>) -> Result<(), Failure> {
        if message.is_exception() {
            return Err(refusal::of_exception(&message.name(), message.payload));
        }
        if message.name() != "chunk" {
            return Ok(());
        }
        let odd = || garbage("the upstream sent a piece that is no event");
        let chunk: Chunk<'_> = serde_json::from_slice(message.payload).map_err(|_| odd())?;
        let bytes = decode(&chunk.bytes).ok_or_else(odd)?;
        let event: Event<'_> = serde_json::from_slice(&bytes).map_err(|_| odd())?;
        if event.kind == "error" || event.error.is_some() {
            return Err(error::of_object(&error::UpstreamError::read(&bytes)));
        }
        let event = self.event(&event, &bytes)?;
        self.said.extend(event);
        Ok(())
    }

    /// An event of the Messages stream, as the host takes it.
    fn event(&mut self, event: &Event<'_>, bytes: &[u8]) -> Result<Option<StreamEvent>, Failure> {
        let index = event.index;
        if let Some(reported) = event.usage.as_ref().or_else(|| event.message.as_ref()?.usage.as_ref()) {
            merge(&mut self.usage, reported.usage());
        }
        Ok(Some(match event.kind.as_str() {
            "message_start" => {
                self.begun = true;
                let message = event.message.as_ref().ok_or_else(|| garbage("a message without a head"))?;
                let (id, model) = (message.id.clone(), message.model.clone());
                StreamEvent::MessageStart(MessageStart { id, model, usage: self.usage })
            }
            "content_block_start" => {
                let block = block(event.content_block)?;
                StreamEvent::BlockStart(BlockStart { index, block })
            }
            "content_block_delta" => match delta(event.delta)? {
                Some(delta) => StreamEvent::BlockDelta(BlockDelta { index, delta }),
                None => return Ok(None),
            },
            "content_block_stop" => StreamEvent::BlockStop(index),
            "message_delta" => {
                let piece: Piece = read(event.delta)?;
                let Piece { stop_reason, stop_sequence, .. } = piece;
                StreamEvent::MessageDelta(MessageDelta { stop_reason, stop_sequence, usage: self.usage })
            }
            "message_stop" => {
                self.over = true;
                StreamEvent::MessageStop
            }
            "ping" => StreamEvent::Ping,
            other => StreamEvent::Raw(Attribute {
                name: other.to_owned(),
                value: String::from_utf8_lossy(bytes).into_owned(),
            }),
        }))
    }
}

impl Decode for Decoder {
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stream = std::mem::take(&mut self.stream);
        let read = stream.push(bytes, |message| if self.over { Ok(()) } else { self.message(&message) });
        self.stream = stream;
        read
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.over {
            return Ok(());
        }
        Err(garbage(if self.begun { CUT } else { "the upstream's stream was empty" }))
    }

    fn failed(&mut self, fault: &TransportFault) -> Result<(), Failure> {
        if self.over { Ok(()) } else { Err(Failure::transport(fault)) }
    }

    fn whole(&mut self, _: &[u8]) -> Result<(), Failure> {
        Err(garbage("the upstream answered with one text where a stream was asked for"))
    }

    /// A whole reply is what a client of Anthropic's gets, byte for byte.
    fn reply(self, body: &[u8]) -> (Vec<Output>, Result<(), Failure>) {
        if self.counting {
            return match serde_json::from_slice::<Counted>(body) {
                Ok(counted) => (vec![Output::TokenCount(counted.input_tokens)], Ok(())),
                Err(_) => (Vec::new(), Err(garbage("the upstream's answer is no count of tokens"))),
            };
        }
        match serde_json::from_slice::<Whole>(body) {
            Ok(whole) if whole.kind == "message" => {
                let usage = whole.usage.map_or(UNKNOWN, |it| it.usage());
                (vec![Output::Message(Reply { json: body.to_vec(), usage })], Ok(()))
            }
            _ => (Vec::new(), Err(garbage("the upstream's answer is no message"))),
        }
    }

    fn headers(head: &ResponseHead, _: u64) -> Vec<Attribute> {
        headers::renamed(head, &[("x-amzn-requestid", "request-id")])
    }

    fn refusal(head: &ResponseHead, body: &[u8]) -> Failure {
        refusal::of_answer(head, body)
    }

    fn take(&mut self) -> Vec<StreamEvent> {
        std::mem::take(&mut self.said)
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

// === impl Reported ===

impl Reported {
    fn usage(&self) -> Usage {
        Usage {
            input: self.input_tokens.0,
            output: self.output_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_write: self.cache_creation_input_tokens.0,
            cache_write_1h: self.cache_creation.as_ref().and_then(|it| it.ephemeral_1h_input_tokens.0),
        }
    }
}

// === private helpers ===

fn read(raw: Option<&RawValue>) -> Result<Piece, Failure> {
    let raw = raw.ok_or_else(|| garbage("the upstream sent an event without what it is about"))?;
    serde_json::from_str(raw.get()).map_err(|_| garbage("the upstream sent an event that cannot be read"))
}

/// A block that begins. One of a type that the contract has no case for is its JSON.
fn block(raw: Option<&RawValue>) -> Result<Block, Failure> {
    let kind = raw.and_then(|it| serde_json::from_str::<Whole>(it.get()).ok()).unwrap_or_default().kind;
    Ok(match kind.as_str() {
        "text" => Block::Text,
        "thinking" => Block::Thinking,
        "redacted_thinking" => Block::RedactedThinking(read(raw)?.data),
        "tool_use" => {
            let Piece { id, name, .. } = read(raw)?;
            Block::ToolUse(ToolUse { id, name })
        }
        _ => Block::Raw(raw.ok_or_else(|| garbage("a block without a head"))?.get().to_owned()),
    })
}

fn delta(raw: Option<&RawValue>) -> Result<Option<Delta>, Failure> {
    let kind = raw.and_then(|it| serde_json::from_str::<Whole>(it.get()).ok()).unwrap_or_default().kind;
    Ok(Some(match kind.as_str() {
        "text_delta" => Delta::Text(read(raw)?.text),
        "thinking_delta" => Delta::Thinking(read(raw)?.thinking),
        "signature_delta" => Delta::Signature(read(raw)?.signature),
        "input_json_delta" => {
            let piece = read(raw)?.partial_json;
            if piece.is_empty() {
                return Ok(None);
            }
            Delta::InputJson(piece)
        }
        _ => Delta::Raw(raw.ok_or_else(|| garbage("a delta without a piece"))?.get().to_owned()),
    }))
}
