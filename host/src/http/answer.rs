//! `deny.status: answer`: a denial as a normal reply of one block, for clients that make too much of an error.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use sallyport_protocol::messages::event::{Block, Delta, StreamEvent, Usage};
use sallyport_protocol::messages::fold::Fold;

use crate::component::contract::RefusalKind;
use crate::pipeline::{Refusal, Refused};

/// The reply, if the refusal is a denial that may be told as one.
pub(super) fn instead(refused: &Refused) -> Option<Response> {
    let denied = matches!(refused.refusal.kind(), Some(RefusalKind::Denied | RefusalKind::Other(_)))
        || matches!(refused.refusal, Refusal::Undecided { .. });
    if !denied || refused.model.is_empty() {
        return None;
    }
    let events = events(refused);
    let (bytes, media) = if refused.stream {
        let mut bytes = Vec::new();
        for event in &events {
            event.write(&mut bytes);
        }
        (bytes, "text/event-stream; charset=utf-8")
    } else {
        let mut fold = Fold::new();
        events.iter().try_for_each(|event| fold.push(event)).ok()?;
        (fold.finish().ok()?, "application/json")
    };
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Some(response)
}

// === private helpers ===

fn events(refused: &Refused) -> [StreamEvent; 6] {
    let usage = Usage { input: Some(0), output: Some(0), ..Usage::default() };
    let trace = refused.trace.as_str();
    let id = format!("msg_{}", trace.strip_prefix("t_").unwrap_or(trace));
    [
        StreamEvent::MessageStart { id, model: refused.model.clone(), usage },
        StreamEvent::BlockStart { index: 0, block: Block::text() },
        StreamEvent::BlockDelta { index: 0, delta: Delta::Text(format!("[{}]", refused.refusal)) },
        StreamEvent::BlockStop { index: 0 },
        StreamEvent::MessageDelta { stop_reason: Some("end_turn".to_owned()), stop_sequence: None, usage },
        StreamEvent::MessageStop,
    ]
}
