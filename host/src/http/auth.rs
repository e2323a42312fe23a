//! Exchanging what a user shows for a short-lived access token and the seven headers, and what the gateway says of itself to whoever
//! has to choose how to sign in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use sallyport_protocol::audit::TOKEN_ISSUED;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::listen::Peer;
use super::{Edge, caller, connections};
use crate::audit::{Outcome, Who};
use crate::auth::{AuthFault, Issued, ShownCertificate};

/// Longest body of an exchange.
pub(super) const LONGEST_EXCHANGE: usize = 16 * 1024;

/// `POST /v1/auth/cowork/pat`
pub(super) async fn exchange_pat(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let request_id = edge.request_id();
    told(&request_id, pat(&edge, &head, &request_id).await)
}

/// `POST /v1/auth/cowork/mtls`
pub(super) async fn exchange_certificate(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let request_id = edge.request_id();
    told(&request_id, certificate(&edge, request, &request_id).await)
}

/// `GET /v1/cowork/whoami`
pub(super) async fn whoami(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let request_id = edge.request_id();
    told(&request_id, own_view(&edge, &head, &request_id).await)
}

/// `GET /v1/cowork/pubkey`
pub(super) async fn manifest_key(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &edge.auth.manifest_key())
}

/// `GET /v1/auth/cowork/capabilities`
pub(super) async fn capabilities(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &edge.auth.capabilities())
}

/// `GET /.well-known/jwks.json`
pub(super) async fn jwks(State(edge): State<Arc<Edge>>) -> Response {
    super::json(&edge.request_id(), &edge.auth.jwks())
}

/// An answer with a token, after its row.
pub(super) async fn issued(
    edge: &Edge,
    who: Who,
    issued: &Issued,
    request_id: &str,
) -> Result<Value, ApiError> {
    caller::row(edge, who, TOKEN_ISSUED, Outcome::Allowed, request_id).await?;
    let headers: Map<String, Value> =
        issued.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    Ok(json!({ "token": issued.token, "ttl": issued.ttl_seconds, "headers": headers }))
}

/// The JSON object that an exchange brings; none is an empty one.
pub(super) async fn object(body: Body, request_id: &str) -> Result<Map<String, Value>, ApiError> {
    let unreadable = || ApiError::unreadable("the body is no JSON object of at most 16 KiB", request_id);
    let read = Limited::new(body, LONGEST_EXCHANGE).collect();
    let read = tokio::time::timeout(super::secure::HANDSHAKE, read).await;
    let bytes: Bytes = match read {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(_)) => return Err(unreadable()),
        Err(_) => return Err(ApiError::too_slow(request_id)),
    };
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|_| unreadable())
}

// === private helpers ===

fn told(request_id: &str, answer: Result<Value, ApiError>) -> Response {
    let mut response = match answer {
        Ok(answer) => super::json(request_id, &answer),
        Err(error) => error.into_response(),
    };
    super::keep_out_of_caches(&mut response);
    response
}

async fn pat(edge: &Edge, head: &Parts, request_id: &str) -> Result<Value, ApiError> {
    let principal = caller::known(edge, head, request_id).await?;
    let exchanged = match caller::credential(&head.headers) {
        Ok(pat) => {
            let version = edge.pipeline.policy_version(&principal.tenant);
            edge.auth.exchange_pat(pat, &version).await
        }
        Err(fault) => Err(fault),
    };
    match exchanged {
        Ok(token) => issued(edge, caller::who(edge, &principal), &token, request_id).await,
        Err(fault) => Err(caller::refused(edge, &fault, request_id).await),
    }
}

/// The certificate is the one of the connection: no header names another.
async fn certificate(edge: &Edge, request: Request, request_id: &str) -> Result<Value, ApiError> {
    let (head, body) = request.into_parts();
    let shown = head.extensions.get::<Peer>().and_then(|peer| peer.certificate.as_ref());
    let shown = shown.map(|certificate| ShownCertificate {
        thumbprint: certificate.thumbprint().to_owned(),
        names: certificate.names().iter().map(ToString::to_string).collect(),
        until: certificate.until().unix_timestamp(),
    });
    if let Some(field) = object(body, request_id).await?.keys().next() {
        let said = format!("the gateway takes no {field} beside the certificate: send an empty object");
        return Err(ApiError::unreadable(&said, request_id));
    }
    let version = |tenant: &_| edge.pipeline.policy_version(tenant);
    match edge.auth.exchange_certificate(shown.as_ref(), version).await {
        Ok((principal, token)) => {
            connections::prove(&head.extensions);
            issued(edge, caller::who(edge, &principal), &token, request_id).await
        }
        Err(fault) => Err(caller::refused(edge, &fault, request_id).await),
    }
}

async fn own_view(edge: &Edge, head: &Parts, request_id: &str) -> Result<Value, ApiError> {
    let principal = caller::known(edge, head, request_id).await?;
    let user = match edge.db.user(&principal.tenant, &principal.user).await {
        Ok(user) => user,
        Err(error) => {
            return Err(caller::refused(edge, &AuthFault::Unavailable(error), request_id).await);
        }
    };
    connections::prove(&head.extensions);
    Ok(json!({
        "user": principal.user,
        "name": user.map(|user| user.name),
        "tenant": principal.tenant,
        "roles": principal.roles,
        "department": principal.department,
        "scopes": principal.scopes,
        "session": principal.session,
        "client": principal.client,
        "tier": principal.credential.tier().as_str(),
        "policy_version": edge.pipeline.policy_version(&principal.tenant),
    }))
}
