//! What the upstream does with a request, as a list of steps on the socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Seen;
use super::fault::Fault;
use super::wire;

/// What the upstream answers.
#[derive(Debug, Clone)]
pub enum Script {
    /// One turn of text.
    Text(String),
    /// One turn made of these parts; `tool_use` parts make it stop for tools.
    Turn(Vec<Turn>),
    /// These parts as long as the conversation holds no tool result, then the text.
    ToolLoop(Vec<Turn>, String),
    /// A stream of so many text deltas, with this pause between two; no pause: all in one write.
    Chunks(usize, Duration),
    /// An HTTP answer with this status, these headers and this body.
    Status(u16, Vec<(String, String)>, Bytes),
    /// One row of the fault matrix.
    Fault(Fault),
    /// Exactly these steps.
    Steps(Vec<Step>),
    /// Nothing until the test opens the gate, and then this.
    Behind(Arc<Semaphore>, Box<Script>),
}

/// A part of the model's turn.
#[derive(Debug, Clone)]
pub enum Turn {
    /// Text.
    Text(String),
    /// Thinking and its signature.
    Thinking(String, String),
    /// A tool call: id, name, input.
    Tool(String, String, Value),
}

/// One step on the socket.
#[derive(Debug, Clone)]
pub enum Step {
    /// Write these bytes.
    Write(Bytes),
    /// Write these bytes so many times, with this pause after each.
    Repeat(Bytes, usize, Duration),
    /// Let time pass, unless the client goes away.
    Wait(Duration),
    /// Go on when the test releases a permit.
    Gate(Arc<Semaphore>),
    /// Say nothing until the client goes away.
    Hang,
    /// Close the connection in good order.
    Close,
    /// Close it with a reset.
    Reset,
}

// === impl Script ===

impl Default for Script {
    fn default() -> Self {
        Self::Text("Hello from upstream.".to_owned())
    }
}

impl Script {
    /// A text turn.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Calls `tool` once, then says `text`.
    pub fn tool_loop(tool: &str, input: Value, text: &str) -> Self {
        let call = Turn::Tool("toolu_01Scripted".to_owned(), tool.to_owned(), input);
        Self::ToolLoop(vec![Turn::Text("Calling.".to_owned()), call], text.to_owned())
    }

    /// An error in Anthropic's shape.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let body =
            json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_up"});
        Self::Status(
            status,
            vec![("content-type".into(), "application/json".into())],
            Bytes::from(body.to_string()),
        )
    }

    /// An event stream made of these pieces, each behind a gate of its own that the test opens.
    pub fn gated(pieces: &[&str], gate: &Arc<Semaphore>) -> Self {
        let mut steps = vec![Step::Write(wire::head(200, &[("content-type", "text/event-stream")], None))];
        for piece in pieces {
            steps.push(Step::Gate(Arc::clone(gate)));
            steps.push(Step::Write(wire::chunk(piece.as_bytes())));
        }
        steps.push(Step::Write(wire::last_chunk()));
        Self::Steps(steps)
    }

    /// The same, but not before the test opens the gate.
    #[must_use]
    pub fn behind(self, gate: &Arc<Semaphore>) -> Self {
        Self::Behind(Arc::clone(gate), Box::new(self))
    }

    /// What this means for the request at hand.
    pub(crate) fn steps(&self, seen: &Seen) -> Vec<Step> {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap_or(Value::Null);
        let openai = seen.target.contains("chat/completions");
        if seen.target.contains("/count_tokens")
            && !matches!(self, Self::Fault(_) | Self::Steps(_) | Self::Status(..))
        {
            return vec![Step::Write(wire::json(200, &json!({"input_tokens": seen.body.len() / 4})))];
        }
        match self {
            Self::Text(text) => turn(&asked, openai, &[Turn::Text(text.clone())]),
            Self::Turn(parts) => turn(&asked, openai, parts),
            Self::ToolLoop(parts, text) => {
                if has_tool_result(&seen.body) {
                    turn(&asked, openai, &[Turn::Text(text.clone())])
                } else {
                    turn(&asked, openai, parts)
                }
            }
            Self::Chunks(count, pause) => chunks(&asked, openai, *count, *pause),
            Self::Status(status, headers, body) => {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let mut bytes = wire::head(*status, &headers, Some(body.len())).to_vec();
                bytes.extend_from_slice(body);
                vec![Step::Write(bytes.into())]
            }
            Self::Fault(fault) => fault.steps(&asked, openai),
            Self::Steps(steps) => steps.clone(),
            Self::Behind(gate, script) => {
                let mut steps = vec![Step::Gate(Arc::clone(gate))];
                steps.extend(script.steps(seen));
                steps
            }
        }
    }
}

/// Whether the conversation answers a tool call, in either wire.
fn has_tool_result(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("\"tool_result\"") || text.contains("\"tool_call_id\"")
}

/// A whole turn as JSON or as a stream, as the client asked.
fn turn(asked: &Value, openai: bool, parts: &[Turn]) -> Vec<Step> {
    let model = asked["model"].as_str().unwrap_or("unknown");
    let streaming = asked["stream"].as_bool().unwrap_or(false);
    let bytes = match (streaming, openai) {
        (false, false) => wire::json(200, &wire::anthropic_message(model, parts)),
        (false, true) => wire::json(200, &wire::openai_message(model, parts)),
        (true, false) => wire::event_stream(wire::anthropic_stream(model, parts).as_bytes()),
        (true, true) => wire::event_stream(wire::openai_stream(model, parts).as_bytes()),
    };
    vec![Step::Write(bytes)]
}

/// A stream of `count` text deltas.
fn chunks(asked: &Value, openai: bool, count: usize, pause: Duration) -> Vec<Step> {
    let model = asked["model"].as_str().unwrap_or("unknown");
    let (start, piece, end) = wire::delta_stream(model, openai, count);
    let head =
        wire::head(200, &[("content-type", "text/event-stream"), ("request-id", "req_up_stream")], None);
    if pause.is_zero() {
        let mut all = head.to_vec();
        all.extend_from_slice(&wire::chunk(start.as_bytes()));
        for _ in 0..count {
            all.extend_from_slice(&wire::chunk(piece.as_bytes()));
        }
        all.extend_from_slice(&wire::chunk(end.as_bytes()));
        all.extend_from_slice(&wire::last_chunk());
        return vec![Step::Write(all.into())];
    }
    vec![
        Step::Write(head),
        Step::Write(wire::chunk(start.as_bytes())),
        Step::Repeat(wire::chunk(piece.as_bytes()), count, pause),
        Step::Write(wire::chunk(end.as_bytes())),
        Step::Write(wire::last_chunk()),
    ]
}
