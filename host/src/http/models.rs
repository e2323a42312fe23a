//! `GET /v1/models`: the list shape of the Models API <https://docs.claude.com/en/api/models-list>, of what the caller may call.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{Edge, caller};
use crate::pipeline::Listing;

/// Largest page, and the default one.
pub(super) const LARGEST_PAGE: usize = 1_000;
const USUAL_PAGE: usize = 20;

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    after_id: Option<String>,
    before_id: Option<String>,
}

/// `GET /v1/models`
pub(super) async fn list(
    State(edge): State<Arc<Edge>>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
    head: Parts,
) -> Response {
    let request_id = edge.request_id();
    let principal = match caller::caller(&edge, &head, &request_id).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    let unreadable = |what| ApiError::unreadable(what, &request_id).into_response();
    let Ok(Query(page)) = page else { return unreadable("limit, after_id and before_id are not readable") };
    let limit = page.limit.unwrap_or(USUAL_PAGE);
    if limit == 0 || limit > LARGEST_PAGE {
        return unreadable("limit must be 1 to 1000");
    }
    let models = edge.pipeline.models(&principal).await;
    let Some((models, has_more)) = slice(&models, &page, limit) else {
        return unreadable("after_id and before_id must be ids of the list, and not both");
    };
    let end = |model: Option<&Listing>| model.map_or(Value::Null, |model| model.id.as_str().into());
    let answer = json!({
        "data": models.iter().map(object).collect::<Vec<_>>(),
        "has_more": has_more,
        "first_id": end(models.first()),
        "last_id": end(models.last()),
    });
    super::json(&request_id, &answer)
}

/// `GET /v1/models/{id}`
pub(super) async fn one(State(edge): State<Arc<Edge>>, Path(id): Path<String>, head: Parts) -> Response {
    let request_id = edge.request_id();
    let principal = match caller::caller(&edge, &head, &request_id).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    let models = edge.pipeline.models(&principal).await;
    match models.iter().find(|model| model.id == id) {
        Some(model) => super::json(&request_id, &object(model)),
        None => ApiError::not_found(&request_id, "there is no such model").into_response(),
    }
}

// === private helpers ===

fn object(model: &Listing) -> Value {
    // The API's models have a date; a route has none that would mean anything.
    json!({ "type": "model", "id": model.id, "display_name": model.display_name, "created_at": "1970-01-01T00:00:00Z" })
}

/// The page that is asked for, and whether there are more in its direction.
fn slice<'a>(models: &'a [Listing], page: &Page, limit: usize) -> Option<(&'a [Listing], bool)> {
    let place = |id: &str| models.iter().position(|model| model.id == id);
    match (&page.after_id, &page.before_id) {
        (Some(_), Some(_)) => None,
        (Some(after), None) => {
            let rest = models.get(place(after)? + 1..)?;
            Some((rest.get(..limit).unwrap_or(rest), rest.len() > limit))
        }
        (None, Some(before)) => {
            let rest = models.get(..place(before)?)?;
            let start = rest.len().saturating_sub(limit);
            Some((rest.get(start..)?, start > 0))
        }
        (None, None) => Some((models.get(..limit).unwrap_or(models), models.len() > limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_forward_and_back() {
        let models: Vec<_> =
            ["a", "b", "c"].map(|id| Listing { id: id.into(), display_name: id.into() }).into();
        let ids = |page: &Page, limit| {
            slice(&models, page, limit).map(|(page, more)| {
                (page.iter().map(|model| model.id.as_str()).collect::<Vec<_>>().join(""), more)
            })
        };
        let page = |after: Option<&str>, before: Option<&str>| Page {
            limit: None,
            after_id: after.map(str::to_owned),
            before_id: before.map(str::to_owned),
        };
        assert_eq!(ids(&page(None, None), 2), Some(("ab".into(), true)));
        assert_eq!(ids(&page(Some("b"), None), 2), Some(("c".into(), false)));
        assert_eq!(ids(&page(None, Some("c")), 1), Some(("b".into(), true)));
        assert_eq!(ids(&page(Some("x"), None), 1), None);
        assert_eq!(ids(&page(Some("a"), Some("c")), 1), None);
    }
}
