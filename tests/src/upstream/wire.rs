//! The bytes of both wires: HTTP framing, Messages and chat-completions bodies and streams.

use bytes::Bytes;
use serde_json::{Value, json};

use super::script::Turn;

/// One server-sent event in Anthropic's shape.
pub fn sse(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or("message"))
}

/// A Messages reply.
pub fn anthropic_message(model: &str, parts: &[Turn]) -> Value {
    let content: Vec<Value> = parts
        .iter()
        .map(|part| match part {
            Turn::Text(text) => json!({"type": "text", "text": text}),
            Turn::Thinking(text, signature) => {
                json!({"type": "thinking", "thinking": text, "signature": signature})
            }
            Turn::Tool(id, name, input) => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        })
        .collect();
    json!({"id": "msg_01Scripted", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop_reason(parts), "stop_sequence": null,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 7}})
}

/// A Messages stream: text in two deltas, tool input in three, the last ones cut inside a string.
pub fn anthropic_stream(model: &str, parts: &[Turn]) -> String {
    let mut out = sse(
        &json!({"type": "message_start", "message": {"id": "msg_01Scripted", "type": "message",
        "role": "assistant", "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 1}}}),
    );
    out.push_str(&sse(&json!({"type": "ping"})));
    for (index, part) in parts.iter().enumerate() {
        let (block, deltas) = match part {
            Turn::Text(text) => (
                json!({"type": "text", "text": ""}),
                pieces(text, 2).iter().map(|p| json!({"type": "text_delta", "text": p})).collect::<Vec<_>>(),
            ),
            Turn::Thinking(text, signature) => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                vec![
                    json!({"type": "thinking_delta", "thinking": text}),
                    json!({"type": "signature_delta", "signature": signature}),
                ],
            ),
            Turn::Tool(id, name, input) => (
                json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                std::iter::once(String::new())
                    .chain(pieces(&input.to_string(), 2))
                    .map(|p| json!({"type": "input_json_delta", "partial_json": p}))
                    .collect(),
            ),
        };
        out.push_str(&sse(&json!({"type": "content_block_start", "index": index, "content_block": block})));
        for delta in deltas {
            out.push_str(&sse(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        out.push_str(&sse(&json!({"type": "content_block_stop", "index": index})));
    }
    out.push_str(&sse(&json!({"type": "message_delta",
        "delta": {"stop_reason": stop_reason(parts), "stop_sequence": null}, "usage": {"output_tokens": 7}})));
    out.push_str(&sse(&json!({"type": "message_stop"})));
    out
}

/// A chat completion.
pub fn openai_message(model: &str, parts: &[Turn]) -> Value {
    let text: String =
        parts.iter().filter_map(|p| if let Turn::Text(t) = p { Some(t.as_str()) } else { None }).collect();
    let calls: Vec<Value> = parts
        .iter()
        .filter_map(|part| match part {
            Turn::Tool(id, name, input) => Some(
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": input.to_string()}}),
            ),
            _ => None,
        })
        .collect();
    let mut message = json!({"role": "assistant", "content": text, "refusal": null});
    let finish = if calls.is_empty() { "stop" } else { "tool_calls" };
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    json!({"id": "chatcmpl-Scripted", "object": "chat.completion", "created": 1_700_000_000, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}], "usage": openai_usage()})
}

/// A chat-completions stream with usage and the closing mark.
pub fn openai_stream(model: &str, parts: &[Turn]) -> String {
    let mut out = openai_chunk(model, &json!({"role": "assistant", "content": ""}), None);
    let mut call = 0;
    for part in parts {
        match part {
            Turn::Text(text) => {
                for piece in pieces(text, 2) {
                    out.push_str(&openai_chunk(model, &json!({"content": piece}), None));
                }
            }
            Turn::Thinking(text, _) => {
                out.push_str(&openai_chunk(model, &json!({"reasoning_content": text}), None));
            }
            Turn::Tool(id, name, input) => {
                out.push_str(&openai_chunk(
                    model,
                    &json!({"tool_calls": [{"index": call, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]}),
                    None,
                ));
                for piece in pieces(&input.to_string(), 2) {
                    let delta = json!({"tool_calls": [{"index": call, "function": {"arguments": piece}}]});
                    out.push_str(&openai_chunk(model, &delta, None));
                }
                call += 1;
            }
        }
    }
    let finish = if call == 0 { "stop" } else { "tool_calls" };
    out.push_str(&openai_chunk(model, &json!({}), Some(finish)));
    out.push_str(&openai_tail(model));
    out
}

/// Start, one delta and end of a long text stream.
pub(crate) fn delta_stream(model: &str, openai: bool, count: usize) -> (String, String, String) {
    if openai {
        let start = openai_chunk(model, &json!({"role": "assistant", "content": ""}), None);
        let piece = openai_chunk(model, &json!({"content": " piece of text"}), None);
        let end = openai_chunk(model, &json!({}), Some("stop")) + &openai_tail(model);
        return (start, piece, end);
    }
    let start = sse(&json!({"type": "message_start", "message": {"id": "msg_01Scripted", "type": "message",
        "role": "assistant", "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 12, "output_tokens": 1}}}))
        + &sse(
            &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        );
    let piece = sse(&json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": " piece of text"}}));
    let end = sse(&json!({"type": "content_block_stop", "index": 0}))
        + &sse(&json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": count}}))
        + &sse(&json!({"type": "message_stop"}));
    (start, piece, end)
}

/// A response head; without a length the body is chunked.
pub(crate) fn head(status: u16, headers: &[(&str, &str)], length: Option<usize>) -> Bytes {
    let mut out = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        out.extend([name, ": ", value, "\r\n"]);
    }
    match length {
        Some(length) => out.extend(["content-length: ", &length.to_string(), "\r\n\r\n"]),
        None => out.push_str("transfer-encoding: chunked\r\n\r\n"),
    }
    out.into()
}

/// One chunk of a chunked body.
pub(crate) fn chunk(data: &[u8]) -> Bytes {
    let mut out = format!("{:x}\r\n", data.len()).into_bytes();
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// The end of a chunked body.
pub(crate) fn last_chunk() -> Bytes {
    Bytes::from_static(b"0\r\n\r\n")
}

/// A whole JSON answer with the headers that an upstream sends.
pub(crate) fn json(status: u16, body: &Value) -> Bytes {
    let body = body.to_string();
    let headers = [
        ("content-type", "application/json"),
        ("request-id", "req_up_json"),
        ("anthropic-ratelimit-requests-remaining", "41"),
        ("x-internal-host", "scripted-7"),
    ];
    let mut out = head(status, &headers, Some(body.len())).to_vec();
    out.extend_from_slice(body.as_bytes());
    out.into()
}

/// A whole event stream, each event a chunk of its own.
pub(crate) fn event_stream(body: &[u8]) -> Bytes {
    let headers = [("content-type", "text/event-stream; charset=utf-8"), ("request-id", "req_up_stream")];
    let mut out = head(200, &headers, None).to_vec();
    let text = String::from_utf8_lossy(body);
    for event in text.split_inclusive("\n\n") {
        out.extend_from_slice(&chunk(event.as_bytes()));
    }
    out.extend_from_slice(&last_chunk());
    out.into()
}

fn stop_reason(parts: &[Turn]) -> &'static str {
    if parts.iter().any(|part| matches!(part, Turn::Tool(..))) { "tool_use" } else { "end_turn" }
}

fn openai_usage() -> Value {
    json!({"prompt_tokens": 17, "completion_tokens": 7, "total_tokens": 24, "prompt_tokens_details": {"cached_tokens": 5}})
}

fn openai_chunk(model: &str, delta: &Value, finish: Option<&str>) -> String {
    let data = json!({"id": "chatcmpl-Scripted", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}], "usage": null});
    format!("data: {data}\n\n")
}

fn openai_tail(model: &str) -> String {
    let data = json!({"id": "chatcmpl-Scripted", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
        "choices": [], "usage": openai_usage()});
    format!("data: {data}\n\ndata: [DONE]\n\n")
}

/// `text` in `count` pieces, cut between characters.
fn pieces(text: &str, count: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let size = characters.len().div_ceil(count).max(1);
    characters.chunks(size).map(|piece| piece.iter().collect()).collect()
}
