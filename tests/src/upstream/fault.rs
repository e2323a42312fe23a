//! The upstream fault matrix: each way in which an upstream can fail on plain HTTP, as steps on the socket.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::script::{Step, Turn};
use super::wire;

/// One row of the matrix. Statuses are a row each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An HTTP error in the wire's own shape; 429 and 503 say `retry-after`.
    Status(u16),
    /// Nothing is answered at all.
    HeaderHang,
    /// 302 to another address.
    Redirect,
    /// 200 with a web page.
    Html,
    /// 200 with nothing.
    Empty,
    /// 200 with JSON that ends too early.
    BadJson,
    /// 200 with the right JSON as `text/plain`.
    WrongContentType,
    /// 200 with 256 KiB that inflate to 256 MiB.
    GzipBomb,
    /// One line of 1 GiB.
    GiantLine,
    /// The connection ends after the stream's head.
    CutBeforeFirstByte,
    /// In the middle of an event.
    CutMidEvent,
    /// Between two bytes of a character.
    CutMidUtf8,
    /// In the middle of a tool's input.
    CutMidToolJson,
    /// Everything came but the end.
    CutBeforeStop,
    /// The end came twice.
    DuplicateStop,
    /// An event nobody knows.
    UnknownEvent,
    /// A second of nothing but pings, then the rest.
    Pings,
    /// The connection is reset before the head.
    ResetBeforeHead,
    /// The connection is reset within the stream.
    ResetMidStream,
    /// `content-length` and `transfer-encoding` at once.
    LengthAndChunked,
    /// Fewer bytes than `content-length` said.
    LengthTooLong,
    /// More bytes than `content-length` said.
    LengthTooShort,
    /// A byte at a time for the first 64 bytes.
    Slow,
    /// The stream begins and then nothing comes any more, not even a ping.
    SilentMidStream,
}

/// Every row that an upstream on plain HTTP can act out but `HeaderHang` and `SilentMidStream`, which the gateway's own timers
/// end.
pub const WITHOUT_AN_ANSWER_OF_THEIR_OWN: &[Fault] = &[
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(408),
    Fault::Status(413),
    Fault::Status(422),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(502),
    Fault::Status(503),
    Fault::Status(529),
    Fault::Redirect,
    Fault::Html,
    Fault::Empty,
    Fault::BadJson,
    Fault::WrongContentType,
    Fault::GzipBomb,
    Fault::GiantLine,
    Fault::CutBeforeFirstByte,
    Fault::CutMidEvent,
    Fault::CutMidUtf8,
    Fault::CutMidToolJson,
    Fault::CutBeforeStop,
    Fault::DuplicateStop,
    Fault::UnknownEvent,
    Fault::Pings,
    Fault::ResetBeforeHead,
    Fault::ResetMidStream,
    Fault::LengthAndChunked,
    Fault::LengthTooLong,
    Fault::LengthTooShort,
    Fault::Slow,
];

const BOMB: &[u8] = include_bytes!("../../fixtures/bomb.json.gz");
const EVENT_STREAM: [(&str, &str); 1] = [("content-type", "text/event-stream")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

// === impl Fault ===

impl Fault {
    /// Whether a client can still be given a good answer: the fault is one of form only.
    pub fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::DuplicateStop | Self::UnknownEvent | Self::Pings | Self::Slow | Self::WrongContentType
        )
    }

    /// Whether an answer is owed, or an error; `None` where either is right. `openai` and `streaming` say what was asked for.
    pub fn owes_answer(self, openai: bool, streaming: bool) -> Option<bool> {
        match self {
            // RFC 9112 lets a client go by the chunks.
            Self::LengthAndChunked => None,
            // What is forwarded is what it says that it is; what is translated is read.
            Self::WrongContentType => Some(openai),
            // Every byte of the stream came, and then not what was announced besides.
            Self::LengthTooLong if streaming => Some(true),
            // The reason for the end and the usage are there: nothing is missing but a mark.
            Self::CutBeforeStop | Self::LengthTooShort if openai && streaming => None,
            _ => Some(self.is_harmless()),
        }
    }

    /// Whether an Anthropic stream says how many tokens it read before it goes wrong.
    pub fn says_its_input(self) -> bool {
        matches!(
            self,
            Self::CutMidEvent
                | Self::CutMidUtf8
                | Self::CutMidToolJson
                | Self::CutBeforeStop
                | Self::ResetMidStream
                | Self::DuplicateStop
                | Self::UnknownEvent
                | Self::Pings
        )
    }

    /// The steps for a request that asked for this.
    pub(crate) fn steps(self, asked: &Value, openai: bool) -> Vec<Step> {
        let shape = Shape {
            model: asked["model"].as_str().unwrap_or("unknown"),
            openai,
            streaming: asked["stream"] == json!(true),
        };
        match self {
            Self::Status(status) => shape.status(status),
            Self::HeaderHang => vec![Step::Hang],
            Self::Redirect => vec![
                whole(
                    302,
                    &[("location", "http://127.0.0.1:9/v1/messages"), ("content-type", "text/plain")],
                    b"moved",
                ),
                Step::Close,
            ],
            Self::Html => vec![whole(
                200,
                &[("content-type", "text/html")],
                b"<html><body>Sign in to the network</body></html>",
            )],
            Self::Empty => vec![whole(200, &JSON, b"")],
            Self::BadJson => vec![whole(200, &shape.media(), br#"{"id":"msg_1","type":"mess"#)],
            Self::WrongContentType => vec![whole(200, &[("content-type", "text/plain")], &shape.body())],
            Self::GzipBomb => {
                vec![whole(200, &[("content-type", "application/json"), ("content-encoding", "gzip")], BOMB)]
            }
            Self::GiantLine => vec![
                Step::Write(wire::head(200, &shape.media(), None)),
                Step::Write(wire::chunk(b"data: {\"type\":\"")),
                Step::Repeat(wire::chunk(&vec![b'a'; 1 << 20]), 1024, Duration::ZERO),
                Step::Write(wire::chunk(b"\"}\n\n")),
                Step::Write(wire::last_chunk()),
            ],
            Self::CutBeforeFirstByte => vec![Step::Write(wire::head(200, &shape.media(), None)), Step::Close],
            Self::CutMidEvent => shape.cut("piece", 3),
            Self::CutMidUtf8 => shape.cut_within_a_character(),
            Self::CutMidToolJson => shape.cut("\\\"pa", 3),
            Self::CutBeforeStop => shape.cut(if openai { "data: [DONE]" } else { "event: message_stop" }, 0),
            Self::DuplicateStop => shape.stream_with_tail(if openai {
                "data: [DONE]\n\n"
            } else {
                "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
            }),
            Self::UnknownEvent => {
                shape.stream_with_head("event: telepathy\ndata: {\"type\":\"telepathy\",\"n\":1}\n\n")
            }
            Self::Pings => shape.pings(),
            Self::ResetBeforeHead => vec![Step::Reset],
            Self::ResetMidStream => {
                let mut steps = shape.cut("piece", 3);
                steps.pop();
                // The bytes before a reset may be lost on the way: a pause lets them arrive.
                steps.push(Step::Wait(Duration::from_millis(50)));
                steps.push(Step::Reset);
                steps
            }
            Self::SilentMidStream => {
                let mut steps = shape.cut("piece", 3);
                steps.pop();
                steps.push(Step::Hang);
                steps
            }
            Self::LengthAndChunked => {
                let body = shape.body();
                let mut out = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n",
                    body.len()
                )
                .into_bytes();
                out.extend_from_slice(&wire::chunk(&body));
                out.extend_from_slice(&wire::last_chunk());
                vec![Step::Write(out.into()), Step::Close]
            }
            Self::LengthTooLong => vec![sized(&shape.media(), &shape.body(), 100), Step::Close],
            Self::LengthTooShort => vec![sized(&shape.media(), &shape.body(), -10), Step::Close],
            Self::Slow => {
                let bytes = shape.answer();
                let (slow, rest) = bytes.split_at(bytes.len().min(64));
                let mut steps: Vec<Step> = slow
                    .iter()
                    .flat_map(|byte| {
                        [Step::Write(Bytes::copy_from_slice(&[*byte])), Step::Wait(Duration::from_millis(5))]
                    })
                    .collect();
                steps.push(Step::Write(Bytes::copy_from_slice(rest)));
                steps
            }
        }
    }
}

/// Which of the four good answers is spoiled.
struct Shape<'a> {
    model: &'a str,
    openai: bool,
    streaming: bool,
}

// === impl Shape ===

impl Shape<'_> {
    fn media(&self) -> [(&'static str, &'static str); 1] {
        if self.streaming { EVENT_STREAM } else { JSON }
    }

    /// The good body.
    fn body(&self) -> Vec<u8> {
        let parts = [
            Turn::Text("a piece of text, h\u{fc}bsch".to_owned()),
            Turn::Tool("toolu_01Fault".to_owned(), "Read".to_owned(), json!({"path": "/etc/hosts"})),
        ];
        match (self.streaming, self.openai) {
            (false, false) => wire::anthropic_message(self.model, &parts).to_string(),
            (false, true) => wire::openai_message(self.model, &parts).to_string(),
            (true, false) => wire::anthropic_stream(self.model, &parts),
            (true, true) => wire::openai_stream(self.model, &parts),
        }
        .into_bytes()
    }

    /// The good answer.
    fn answer(&self) -> Bytes {
        let mut out = wire::head(200, &self.media(), None).to_vec();
        out.extend_from_slice(&wire::chunk(&self.body()));
        out.extend_from_slice(&wire::last_chunk());
        out.into()
    }

    fn status(&self, status: u16) -> Vec<Step> {
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            408 | 500 | 502 | 503 => "api_error",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            _ => "invalid_request_error",
        };
        let body = if self.openai {
            json!({"error": {"message": format!("scripted {status}"), "type": kind, "param": null, "code": null}})
        } else {
            json!({"type": "error", "error": {"type": kind, "message": format!("scripted {status}")}, "request_id": "req_up_err"})
        };
        let mut headers = vec![("content-type", "application/json"), ("request-id", "req_up_err")];
        if matches!(status, 429 | 503) {
            headers.push(("retry-after", "7"));
        }
        vec![whole(status, &headers, body.to_string().as_bytes())]
    }

    /// The good body up to `offset` bytes into `mark`, then the end of the connection. Where the wire at hand has no such
    /// mark, half of the body.
    fn cut(&self, mark: &str, offset: usize) -> Vec<Step> {
        let body = self.body();
        let at = String::from_utf8_lossy(&body).find(mark).map_or(body.len() / 2, |at| at + offset);
        self.first(&body[..at])
    }

    fn cut_within_a_character(&self) -> Vec<Step> {
        let body = self.body();
        let at = body.iter().position(|byte| *byte == 0xc3).map_or(body.len() / 2, |at| at + 1);
        self.first(&body[..at])
    }

    fn first(&self, body: &[u8]) -> Vec<Step> {
        vec![Step::Write(wire::head(200, &self.media(), None)), Step::Write(wire::chunk(body)), Step::Close]
    }

    fn stream_with_tail(&self, tail: &str) -> Vec<Step> {
        if !self.streaming {
            return vec![Step::Write(self.answer())];
        }
        let mut body = self.body();
        body.extend_from_slice(tail.as_bytes());
        vec![Step::Write(wire::event_stream(&body))]
    }

    fn stream_with_head(&self, head: &str) -> Vec<Step> {
        if !self.streaming {
            return vec![Step::Write(self.answer())];
        }
        let body = String::from_utf8_lossy(&self.body()).into_owned();
        let (first, rest) = body.split_once("\n\n").unwrap_or((&body, ""));
        vec![Step::Write(wire::event_stream(format!("{first}\n\n{head}{rest}").as_bytes()))]
    }

    fn pings(&self) -> Vec<Step> {
        if !self.streaming {
            return vec![Step::Wait(Duration::from_millis(300)), Step::Write(self.answer())];
        }
        let ping =
            if self.openai { ": keep-alive\n\n" } else { "event: ping\ndata: {\"type\":\"ping\"}\n\n" };
        let body = String::from_utf8_lossy(&self.body()).into_owned();
        let (first, rest) = body.split_once("\n\n").unwrap_or((&body, ""));
        vec![
            Step::Write(wire::head(200, &EVENT_STREAM, None)),
            Step::Write(wire::chunk(format!("{first}\n\n").as_bytes())),
            Step::Repeat(wire::chunk(ping.as_bytes()), 10, Duration::from_millis(100)),
            Step::Write(wire::chunk(rest.as_bytes())),
            Step::Write(wire::last_chunk()),
        ]
    }
}

fn whole(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Step {
    let mut out = wire::head(status, headers, Some(body.len())).to_vec();
    out.extend_from_slice(body);
    Step::Write(out.into())
}

/// A body whose `content-length` is wrong by so many bytes.
fn sized(headers: &[(&str, &str)], body: &[u8], wrong_by: isize) -> Step {
    let length = body.len().saturating_add_signed(wrong_by);
    let mut out = wire::head(200, headers, Some(length)).to_vec();
    out.extend_from_slice(body);
    Step::Write(out.into())
}
