//! What Claude Code and Claude Desktop ask of a gateway that they signed in to, besides tokens and messages.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::error::ApiError;
use super::spending::Spent;
use super::{Edge, caller};
use crate::auth::AuthFault;

/// One cent in microdollars.
const CENT: i64 = 10_000;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/managed/settings", get(managed))
        .route("/user/bootstrap", get(bootstrap))
        .route("/api/oauth/usage", get(usage))
        .route("/protocol", get(protocol))
}

/// `GET /protocol`
async fn protocol(State(edge): State<Arc<Edge>>) -> Response {
    let told = json!({ "gateway_protocol_version": 1, "issuer": edge.auth.issuer() });
    super::json(&edge.request_id(), &told)
}

/// `GET /managed/settings`: an answer that the client has already is a 304, and no settings are a 404.
async fn managed(State(edge): State<Arc<Edge>>, head: Parts) -> Result<Response, ApiError> {
    let request_id = edge.request_id();
    let principal = caller::caller(&edge, &head, &request_id).await?;
    let config = edge.pipeline.config();
    let Some(found) = config.claude_code.managed_for(&principal.roles) else {
        return Err(ApiError::not_found(&request_id, "there are no managed settings for you"));
    };
    let tag = format!("\"{}\"", found.checksum);
    let known = head.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    let known = known.flat_map(|it| it.split(',')).any(|it| it.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        super::mark(&mut response, &request_id);
        response
    } else {
        let told = json!({ "uuid": found.checksum, "checksum": found.checksum, "settings": found.settings });
        super::json(&request_id, &told)
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// `GET /user/bootstrap`: the configuration of Claude Desktop, where the operator wants it to come from here.
async fn bootstrap(State(edge): State<Arc<Edge>>, head: Parts) -> Result<Response, ApiError> {
    let request_id = edge.request_id();
    let principal = caller::caller(&edge, &head, &request_id).await?;
    let config = edge.pipeline.config();
    let Some(desktop) = &config.claude_code.desktop else {
        return Err(ApiError::not_found(&request_id, "the gateway does not configure Claude Desktop"));
    };
    let models = edge.pipeline.models(&principal).await;
    let models: Vec<Value> =
        models.iter().map(|it| json!({ "name": it.id, "labelOverride": it.display_name })).collect();
    let mut told = desktop.clone();
    if let Some(fields) = told.as_object_mut() {
        fields.insert("inferenceProvider".to_owned(), "gateway".into());
        fields.insert("inferenceGatewayBaseUrl".to_owned(), config.server.public_url.as_str().into());
        fields.insert("inferenceCredentialKind".to_owned(), "interactive".into());
        fields.insert("inferenceModels".to_owned(), models.into());
        let until = edge.clock.now() + config.auth.ttl;
        fields.insert("expiresAt".to_owned(), until.unix_timestamp().into());
    }
    let mut response = super::json(&request_id, &told);
    super::keep_out_of_caches(&mut response);
    Ok(response)
}

/// `GET /api/oauth/usage`: what the caller spent today, this week and this month, in cents of US dollars, as it was
/// some seconds ago at most. No limit is told here: what a policy refuses, it says with the refusal.
async fn usage(State(edge): State<Arc<Edge>>, head: Parts) -> Result<Response, ApiError> {
    let request_id = edge.request_id();
    let principal = caller::caller(&edge, &head, &request_id).await?;
    let Spent { day, week, month } = match edge.spending.of(&edge, &principal).await {
        Ok(spent) => spent,
        Err(error) => return Err(caller::refused(&edge, &AuthFault::Unavailable(error), &request_id).await),
    };
    let period = |micro: i64| json!({ "limit": null, "used_credits": cents(micro), "utilization": null });
    let told = json!({
        "extra_usage": {
            "is_enabled": true,
            "monthly_limit": null,
            "used_credits": cents(month),
            "utilization": null,
            "currency": "USD",
            "daily": period(day),
            "weekly": period(week),
        },
        "limits": [],
    });
    let mut response = super::json(&request_id, &told);
    super::keep_out_of_caches(&mut response);
    Ok(response)
}

// === private helpers ===

/// Microdollars as cents, with what is left of the last one behind the point.
fn cents(micro: i64) -> Value {
    serde_json::from_str(&format!("{}.{:04}", micro / CENT, micro % CENT)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_cent_is_lost() {
        assert_eq!(cents(0), json!(0.0));
        assert_eq!(cents(123_456), json!(12.3456));
        assert_eq!(cents(9), json!(0.0009));
    }
}
