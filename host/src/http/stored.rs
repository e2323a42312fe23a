//! `/v1/messages/batches` and `/v1/files`: who calls, what is asked for, and the body where there is one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Deserialize;

use super::error::ApiError;
use super::messages::{read, told_as};
use super::{Edge, caller};
use crate::pipeline::{Inbound, ListPage, Operation, StoredCall, StoredKind};

/// Largest page of a list, and the usual one.
pub(super) const LARGEST_LIST: usize = 100;
const USUAL_LIST: usize = 20;

#[derive(Debug, Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    after_id: Option<String>,
    before_id: Option<String>,
}

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    use StoredKind::{Batch, File};
    Router::new()
        .route(
            "/v1/messages/batches",
            post(create_batch).get(|state, query, head| list(state, Batch, query, head)),
        )
        .route(
            "/v1/messages/batches/{id}",
            get(|state, id, head| one(state, id, head, |id| StoredCall::Retrieve(Batch, id)))
                .delete(|state, id, head| one(state, id, head, |id| StoredCall::Delete(Batch, id))),
        )
        .route(
            "/v1/messages/batches/{id}/cancel",
            post(|state, id, head| one(state, id, head, StoredCall::CancelBatch)),
        )
        .route(
            "/v1/messages/batches/{id}/results",
            get(|state, id, head| one(state, id, head, |id| StoredCall::Content(Batch, id))),
        )
        .route("/v1/files", post(upload_file).get(|state, query, head| list(state, File, query, head)))
        .route(
            "/v1/files/{id}",
            get(|state, id, head| one(state, id, head, |id| StoredCall::Retrieve(File, id)))
                .delete(|state, id, head| one(state, id, head, |id| StoredCall::Delete(File, id))),
        )
        .route(
            "/v1/files/{id}/content",
            get(|state, id, head| one(state, id, head, |id| StoredCall::Content(File, id))),
        )
}

async fn create_batch(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    with_body(&edge, request, StoredCall::CreateBatch).await
}

async fn upload_file(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    with_body(&edge, request, StoredCall::UploadFile).await
}

async fn with_body(edge: &Arc<Edge>, request: Request, wanted: StoredCall) -> Response {
    let request_id = edge.request_id();
    match read(edge, Operation::Message, request, &request_id).await {
        Ok(inbound) => serve(edge, inbound, wanted, &request_id).await,
        Err(error) => error.into_response(),
    }
}

type ListQueryResult = Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>;

async fn list(
    State(edge): State<Arc<Edge>>,
    kind: StoredKind,
    query: ListQueryResult,
    head: Parts,
) -> Response {
    let wanted = || {
        let Ok(Query(ListQuery { limit, after_id, before_id })) = query else {
            return Err("limit, after_id and before_id are not readable");
        };
        let limit = limit.unwrap_or(USUAL_LIST);
        if limit == 0 || (after_id.is_some() && before_id.is_some()) {
            return Err("limit must be 1 or more, and of after_id and before_id there may be one");
        }
        Ok(StoredCall::List(kind, ListPage { limit: limit.min(LARGEST_LIST), after_id, before_id }))
    };
    without_body(&edge, head, wanted).await
}

async fn one(
    State(edge): State<Arc<Edge>>,
    Path(id): Path<String>,
    head: Parts,
    wanted: impl FnOnce(String) -> StoredCall,
) -> Response {
    without_body(&edge, head, || Ok(wanted(id))).await
}

/// Who calls comes first: a stranger is not told what is wrong with the request.
async fn without_body(
    edge: &Arc<Edge>,
    head: Parts,
    wanted: impl FnOnce() -> Result<StoredCall, &'static str>,
) -> Response {
    let request_id = edge.request_id();
    let principal = match caller::caller(edge, &head, &request_id).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(what) => return ApiError::unreadable(what, &request_id).into_response(),
    };
    let inbound = Inbound {
        operation: Operation::Message,
        target: head.uri.path().to_owned(),
        headers: head.headers,
        body: Bytes::new(),
        principal,
        request_id: request_id.clone(),
    };
    serve(edge, inbound, wanted, &request_id).await
}

async fn serve(edge: &Arc<Edge>, inbound: Inbound, wanted: StoredCall, request_id: &str) -> Response {
    let deny = edge.settings.load().deny;
    let answered = Box::pin(edge.pipeline.stored(inbound, wanted)).await;
    told_as(None, answered, deny, request_id)
}
