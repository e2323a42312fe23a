//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: the bytes of a request in, the bytes of a reply out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::Frame;

use super::error::ApiError;
use super::{Edge, TRACE_ID, caller, mark};
use crate::config::DenyStatus;
use crate::pipeline::{Events, Inbound, Operation, Refused, Reply, ReplyBody};

/// `POST /v1/messages`
pub(super) async fn create(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    answer(&edge, Operation::Message, request).await
}

/// `POST /v1/messages/count_tokens`
pub(super) async fn count_tokens(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    answer(&edge, Operation::CountTokens, request).await
}

// === private helpers ===

async fn answer(edge: &Arc<Edge>, operation: Operation, request: Request) -> Response {
    let request_id = edge.request_id();
    let inbound = match read(edge, operation, request, &request_id).await {
        Ok(inbound) => inbound,
        Err(error) => return error.into_response(),
    };
    let deny = edge.settings.load().deny;
    let answered = Box::pin(edge.pipeline.run(inbound)).await;
    let told = match &answered {
        Err(refused) if deny == DenyStatus::Answer => super::answer::instead(refused),
        _ => None,
    };
    told_as(told, answered, deny, &request_id)
}

/// What a client is given of what came of its request: `told`, if that stands for it.
pub(super) fn told_as(
    told: Option<Response>,
    answered: Result<Reply, Refused>,
    deny: DenyStatus,
    request_id: &str,
) -> Response {
    let (mut response, trace) = match answered {
        Ok(Reply { status, headers, body, trace }) => (reply(status, headers, body), trace),
        Err(refused) => {
            let error = || ApiError::refused(&refused.refusal, deny, request_id).into_response();
            (told.unwrap_or_else(error), refused.trace)
        }
    };
    if let Ok(trace) = HeaderValue::from_str(trace.as_str()) {
        response.headers_mut().insert(TRACE_ID, trace);
    }
    mark(&mut response, request_id);
    response
}

/// Who calls comes first: a stranger's body is not even read.
pub(super) async fn read(
    edge: &Edge,
    operation: Operation,
    request: Request,
    request_id: &str,
) -> Result<Inbound, ApiError> {
    let (head, body) = request.into_parts();
    let principal = caller::caller(edge, &head, request_id).await?;
    let limits = edge.settings.load().bodies;
    let owner = (principal.tenant.shared(), principal.user.shared());
    let body = edge.bodies.read(&head.headers, body, owner, &limits, request_id).await?;
    let target = head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string);
    let request_id = request_id.to_owned();
    Ok(Inbound { operation, target, headers: head.headers, body, principal, request_id })
}

fn reply(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Response {
    let body = match body {
        ReplyBody::Whole(bytes) => Body::from(bytes),
        ReplyBody::Stream(events) => Body::new(EventBody(events)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A stream as a body. Dropped, because the client left, it ends the call.
struct EventBody(Events);

/// Not all came of what is passed on. The connection ends where the body does, so that nobody takes it for all of it.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
struct CutBody;

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = CutBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        self.0.poll_next(context).map(|piece| match piece {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.0.is_cut() => Some(Err(CutBody)),
            None => None,
        })
    }
}
