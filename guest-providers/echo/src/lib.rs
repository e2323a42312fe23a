//! Answers locally what the user said last: a provider for the first minutes with a gateway, and for tests that need a
//! deterministic upstream. No request leaves the gateway.

use std::rc::Rc;

use sallyport_guest_sdk::{
    Body, SegmentKind, Usage,
    provider::{
        Begun, Block, BlockDelta, BlockStart, Delta, Failure, MessageDelta, MessageStart, Output, Over,
        Provider, Request, RequestKind, StreamEvent, ToolUse,
    },
};
use serde::Deserialize;

/// The echo.
pub struct Echo {
    piece_chars: usize,
}

/// An entry's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many characters a delta of the stream carries; 16 if not said.
    #[serde(default = "sixteen")]
    piece_chars: usize,
}

sallyport_guest_sdk::export_provider!(Echo);

/// An answer never has more deltas than this; the pieces of a long one are longer.
const MOST_PIECES: usize = 256;

/// Bytes that count as one token, in usage and in `max_tokens`.
const TOKEN_BYTES: u32 = 4;

/// What the answer is made of.
enum Said {
    Text { text: String, cut: bool },
    Tool { name: String, input: String },
}

// === impl Echo ===

impl Provider for Echo {
    type Config = Config;
    type Exchange = Over;

    fn configure(config: Config) -> Result<Self, String> {
        if config.piece_chars == 0 {
            return Err("piece_chars must be at least 1".into());
        }
        Ok(Self { piece_chars: config.piece_chars })
    }

    fn begin(self: Rc<Self>, request: Request) -> Result<Begun<Over>, Failure> {
        match &request.kind {
            RequestKind::Message => {
                let events = self.events(&request).into_iter().map(Output::Event);
                Ok(Begun::over(events.chain([Output::Done]).collect::<Vec<_>>()))
            }
            RequestKind::CountTokens => {
                // A third of the bytes: no tokenizer needs more for the JSON of a conversation.
                Ok(Begun::over([Output::TokenEstimate(request.call.body_bytes.div_ceil(3)), Output::Done]))
            }
            RequestKind::Other(kind) => {
                let message = format!("{kind} has no echo");
                Err(Failure::new(400, "invalid_request_error", message))
            }
        }
    }
}

impl Echo {
    fn events(&self, request: &Request) -> Vec<StreamEvent> {
        let call = &request.call;
        let number = call.trace.strip_prefix("t_").unwrap_or(&call.trace);
        let said = said(request.body.as_ref(), &call.tools, call.max_tokens);
        let input = call.body_bytes.div_ceil(TOKEN_BYTES);
        let (content, block, stop_reason) = match &said {
            Said::Text { text, cut: false } => (text, Block::Text, "end_turn"),
            Said::Text { text, cut: true } => (text, Block::Text, "max_tokens"),
            Said::Tool { name, input } => {
                let tool = ToolUse { id: format!("toolu_{number}"), name: name.clone() };
                (input, Block::ToolUse(tool), "tool_use")
            }
        };
        let mut events = vec![
            StreamEvent::MessageStart(MessageStart {
                id: format!("msg_{number}"),
                model: request.upstream_model.clone(),
                usage: usage(input, 0),
            }),
            StreamEvent::BlockStart(BlockStart { index: 0, block }),
        ];
        events.extend(pieces(content, self.piece_chars).map(|piece| {
            let delta = match &said {
                Said::Text { .. } => Delta::Text(piece),
                Said::Tool { .. } => Delta::InputJson(piece),
            };
            StreamEvent::BlockDelta(BlockDelta { index: 0, delta })
        }));
        events.extend([
            StreamEvent::BlockStop(0),
            StreamEvent::MessageDelta(MessageDelta {
                stop_reason: Some(stop_reason.into()),
                stop_sequence: None,
                usage: usage(input, tokens(content)),
            }),
            StreamEvent::MessageStop,
        ]);
        events
    }
}

/// What to answer to the last thing that the user, or a tool in the user's name, said.
fn said(body: &dyn Body, offered: &[String], max_tokens: Option<u32>) -> Said {
    let last = body
        .texts()
        .into_iter()
        .rev()
        .find(|segment| matches!(segment.kind, SegmentKind::User | SegmentKind::ToolOutput));
    let Some(last) = last else { return Said::Text { text: String::new(), cut: false } };
    // A tool's answer ends the demonstration: read as a command, it would call tools for ever.
    if last.kind == SegmentKind::User
        && let Some((name, input)) = tool_call(&last.text)
        && offered.iter().any(|tool| tool == name)
    {
        return Said::Tool { name: name.to_owned(), input: input.to_owned() };
    }
    let most = max_tokens.unwrap_or(u32::MAX).max(1).saturating_mul(TOKEN_BYTES);
    let room = last.text.floor_char_boundary(usize::try_from(most).unwrap_or(usize::MAX));
    let cut = room < last.text.len();
    let mut text = last.text;
    text.truncate(room);
    Said::Text { text, cut }
}

/// `use tool NAME {json}`: the name and its input, `{}` if there is none.
fn tool_call(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim().strip_prefix("use tool ")?.trim_start();
    let (name, input) = rest.split_once(char::is_whitespace).unwrap_or((rest, "{}"));
    let input = input.trim();
    let is_object = input.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(input).is_ok();
    is_object.then_some((name, input))
}

fn pieces(text: &str, chars: usize) -> impl Iterator<Item = String> {
    let size = chars.max(text.chars().count().div_ceil(MOST_PIECES));
    let mut rest = text.chars();
    std::iter::from_fn(move || {
        let piece: String = rest.by_ref().take(size).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

fn tokens(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX).div_ceil(TOKEN_BYTES)
}

fn usage(input: u32, output: u32) -> Usage {
    Usage {
        input: Some(input),
        output: Some(output),
        cache_read: None,
        cache_write: None,
        cache_write_1h: None,
    }
}

fn sixteen() -> usize {
    16
}

#[cfg(test)]
mod tests;
