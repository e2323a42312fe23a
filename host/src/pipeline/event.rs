//! From the contract's events to the wire's: a provider says what happened, the host alone writes it.

use sallyport_protocol::messages::event as wire;

use crate::component::contract::provider::{Block, Delta, StreamEvent};
use crate::component::contract::{Attribute, Usage};

/// The same event, as the wire knows it.
pub(super) fn wire(event: StreamEvent) -> wire::StreamEvent {
    match event {
        StreamEvent::MessageStart(start) => {
            wire::StreamEvent::MessageStart { id: start.id, model: start.model, usage: usage(start.usage) }
        }
        StreamEvent::BlockStart(start) => {
            wire::StreamEvent::BlockStart { index: start.index, block: block(start.block) }
        }
        StreamEvent::BlockDelta(piece) => {
            wire::StreamEvent::BlockDelta { index: piece.index, delta: delta(piece.delta) }
        }
        StreamEvent::BlockStop(index) => wire::StreamEvent::BlockStop { index },
        StreamEvent::MessageDelta(end) => wire::StreamEvent::MessageDelta {
            stop_reason: end.stop_reason,
            stop_sequence: end.stop_sequence,
            usage: usage(end.usage),
        },
        StreamEvent::MessageStop => wire::StreamEvent::MessageStop,
        StreamEvent::Ping => wire::StreamEvent::Ping,
        StreamEvent::Raw(Attribute { name, value }) => wire::StreamEvent::Raw { name, data: value },
    }
}

pub(super) fn usage(usage: Usage) -> wire::Usage {
    wire::Usage {
        input: usage.input.map(u64::from),
        output: usage.output.map(u64::from),
        cache_read: usage.cache_read.map(u64::from),
        cache_write: usage.cache_write.map(u64::from),
        cache_write_1h: usage.cache_write_1h.map(u64::from),
    }
}

/// The other way, for policies that settle.
pub(super) fn counted(usage: wire::Usage) -> Usage {
    let count = |tokens: Option<u64>| tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    Usage {
        input: count(usage.input),
        output: count(usage.output),
        cache_read: count(usage.cache_read),
        cache_write: count(usage.cache_write),
        cache_write_1h: count(usage.cache_write_1h),
    }
}

fn block(block: Block) -> wire::Block {
    match block {
        Block::Text => wire::Block::text(),
        Block::Thinking => wire::Block::thinking(),
        Block::RedactedThinking(data) => wire::Block::RedactedThinking(data),
        Block::ToolUse(tool) => wire::Block::tool_use(tool.id, tool.name),
        Block::Raw(json) => wire::Block::Raw(json),
    }
}

fn delta(delta: Delta) -> wire::Delta {
    match delta {
        Delta::Text(text) => wire::Delta::Text(text),
        Delta::InputJson(text) => wire::Delta::InputJson(text),
        Delta::Thinking(text) => wire::Delta::Thinking(text),
        Delta::Signature(text) => wire::Delta::Signature(text),
        Delta::Raw(json) => wire::Delta::Raw(json),
    }
}
