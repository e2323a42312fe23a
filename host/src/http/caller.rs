//! Who calls: the credential of a request, checked, and the row that says that it was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use sallyport_protocol::errors::ErrorCode;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::listen::Peer;
use super::{Edge, connections};
use crate::audit::{Event, Kind, Outcome, Who};
use crate::auth::{AuthFault, Principal, check_headers};

/// Refusals of strangers that leave a row, per minute. Beyond that they are counted in the next row.
const ROWS_PER_MINUTE: u64 = 600;
/// What a call needs.
const SCOPE: &str = "inference";

/// Keeps strangers from filling the trail.
#[derive(Debug, Default)]
pub(crate) struct UnauthenticatedRowLimiter {
    minute: AtomicU64,
    seen: AtomicU64,
    left_out: AtomicU64,
}

/// Checks the credential of a call, its scope, and the identity headers beside it. Its connection is then one of a known caller.
pub(super) async fn caller(edge: &Edge, head: &Parts, request_id: &str) -> Result<Arc<Principal>, ApiError> {
    with_scope(edge, head, SCOPE, request_id).await
}

/// The same for another scope.
pub(super) async fn with_scope(
    edge: &Edge,
    head: &Parts,
    scope: &str,
    request_id: &str,
) -> Result<Arc<Principal>, ApiError> {
    let principal = known(edge, head, request_id).await?;
    if !principal.has_scope(scope) {
        row(edge, who(edge, &principal), ErrorCode::InsufficientScope.as_str(), Outcome::Denied, request_id)
            .await?;
        return Err(ApiError::scope(scope, request_id));
    }
    if let Err(mismatch) = check_headers(&head.headers, &principal) {
        row(edge, who(edge, &principal), ErrorCode::IdentityMismatch.as_str(), Outcome::Denied, request_id)
            .await?;
        return Err(ApiError::mismatch(mismatch.header, request_id));
    }
    connections::prove(&head.extensions);
    Ok(principal)
}

/// Checks the credential alone, whatever it is for.
pub(super) async fn known(edge: &Edge, head: &Parts, request_id: &str) -> Result<Arc<Principal>, ApiError> {
    let found = match credential(&head.headers) {
        // What stands in an address stands in logs (RFC 9700, section 4.3.2).
        _ if in_query(head) => Err(AuthFault::Ambiguous),
        Ok(credential) => {
            let certificate = head.extensions.get::<Peer>().and_then(|peer| peer.certificate.as_ref());
            edge.auth.authenticate(credential, certificate.map(|it| it.thumbprint())).await
        }
        Err(fault) => Err(fault),
    };
    match found {
        Ok(principal) => Ok(principal),
        Err(fault) => Err(refused(edge, &fault, request_id).await),
    }
}

/// Whether a credential stands in the address.
fn in_query(head: &Parts) -> bool {
    head.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("access_token=")))
}

/// The bearer token, else the API key header. One of each at most: two would leave open which one counts.
pub(super) fn credential(headers: &HeaderMap) -> Result<&str, AuthFault> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all("x-api-key").iter();
    let (bearer, key) = (bearers.next(), keys.next());
    if bearers.next().is_some() || keys.next().is_some() {
        return Err(AuthFault::Ambiguous);
    }
    if let Some(bearer) = bearer {
        let (scheme, token) =
            bearer.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(AuthFault::Missing)?;
        return if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(AuthFault::Missing) };
    }
    key.and_then(|key| key.to_str().ok()).ok_or(AuthFault::Missing)
}

/// A refused credential leaves a row, as long as there are not too many.
pub(super) async fn refused(edge: &Edge, fault: &AuthFault, request_id: &str) -> ApiError {
    let answer = ApiError::unauthenticated(fault, request_id)
        .resource_metadata(&super::oauth::resource_metadata(edge));
    let minute = edge.clock.monotonic().as_secs() / 60;
    let Some(left_out) = edge.unauthenticated_rows.admit(minute) else { return answer };
    let code = match fault {
        AuthFault::TierTooLow { .. } => ErrorCode::TierRequired,
        _ => ErrorCode::InvalidToken,
    };
    let mut payload = json!({ "code": code, "reason": fault.kind(), "request_id": request_id });
    if let (Some(holder), Some(fields)) = (fault.holder(), payload.as_object_mut()) {
        fields.insert("credential".to_owned(), holder.credential.id().into());
    }
    if let (1.., Some(fields)) = (left_out, payload.as_object_mut()) {
        fields.insert("rows_left_out".to_owned(), left_out.into());
    }
    let outcome = if fault.is_ours() { Outcome::Error } else { Outcome::Denied };
    let who = fault.holder().map_or_else(Who::nobody, |holder| who(edge, holder));
    match write(edge, who, payload, outcome, request_id).await {
        Ok(()) => answer,
        Err(error) => error,
    }
}

/// A row about a caller who is known.
pub(super) async fn row(
    edge: &Edge,
    who: Who,
    code: &str,
    outcome: Outcome,
    request_id: &str,
) -> Result<(), ApiError> {
    row_with(edge, who, code, outcome, request_id, Map::new()).await
}

/// The same with more to say.
pub(super) async fn row_with(
    edge: &Edge,
    who: Who,
    code: &str,
    outcome: Outcome,
    request_id: &str,
    more: Map<String, Value>,
) -> Result<(), ApiError> {
    let mut payload = json!({ "code": code, "reason": code, "request_id": request_id });
    if let Some(fields) = payload.as_object_mut() {
        fields.extend(more);
    }
    write(edge, who, payload, outcome, request_id).await
}

/// A row about somebody who is not known, as long as there are not too many.
pub(super) async fn stranger(
    edge: &Edge,
    who: Who,
    reason: &str,
    outcome: Outcome,
    request_id: &str,
) -> Result<(), ApiError> {
    stranger_with(edge, who, reason, outcome, request_id, Map::new()).await
}

/// The same with more to say.
pub(super) async fn stranger_with(
    edge: &Edge,
    who: Who,
    reason: &str,
    outcome: Outcome,
    request_id: &str,
    more: Map<String, Value>,
) -> Result<(), ApiError> {
    let minute = edge.clock.monotonic().as_secs() / 60;
    let Some(left_out) = edge.unauthenticated_rows.admit(minute) else { return Ok(()) };
    let mut payload = json!({ "code": ErrorCode::InvalidToken, "reason": reason, "request_id": request_id });
    if let Some(fields) = payload.as_object_mut() {
        fields.extend(more);
        if left_out > 0 {
            fields.insert("rows_left_out".to_owned(), left_out.into());
        }
    }
    write(edge, who, payload, outcome, request_id).await
}

/// The seven columns of a caller outside a call.
pub(super) fn who(edge: &Edge, principal: &Principal) -> Who {
    Who {
        user_id: principal.user.shared(),
        session_id: principal.session.shared(),
        client_id: principal.client.shared(),
        tenant_id: principal.tenant.shared(),
        policy_ver: edge.pipeline.policy_version(&principal.tenant).shared(),
        call_source: principal.source.as_str().into(),
        ..Who::nobody()
    }
}

// === impl UnauthenticatedRowLimiter ===

impl UnauthenticatedRowLimiter {
    /// How many rows were left out before this one; `None` if this one is left out too.
    fn admit(&self, minute: u64) -> Option<u64> {
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.seen.store(0, Ordering::Relaxed);
        }
        if self.seen.fetch_add(1, Ordering::Relaxed) >= ROWS_PER_MINUTE {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

// === private helpers ===

async fn write(
    edge: &Edge,
    who: Who,
    payload: Value,
    outcome: Outcome,
    request_id: &str,
) -> Result<(), ApiError> {
    let event = Event::plain(edge.clock.now(), Kind::Auth, who, outcome, payload);
    edge.audit.record(event).await.map_err(|_| ApiError::audit_unavailable(request_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_a_minute_and_the_next_one_says_how_many_were_left_out() {
        let unauthenticated_rows = UnauthenticatedRowLimiter::default();
        for _ in 0..ROWS_PER_MINUTE {
            assert_eq!(unauthenticated_rows.admit(1), Some(0));
        }
        assert_eq!(unauthenticated_rows.admit(1), None);
        assert_eq!(unauthenticated_rows.admit(1), None);
        assert_eq!(unauthenticated_rows.admit(2), Some(2));
        assert_eq!(unauthenticated_rows.admit(2), Some(0));
    }

    #[test]
    fn the_bearer_token_wins_and_two_of_a_kind_are_none() {
        let mut headers = HeaderMap::new();
        assert!(credential(&headers).is_err());
        headers.insert("x-api-key", "k".parse().unwrap());
        assert_eq!(credential(&headers).unwrap(), "k");
        headers.insert("authorization", "Bearer b".parse().unwrap());
        assert_eq!(credential(&headers).unwrap(), "b");
        headers.append("authorization", "Bearer c".parse().unwrap());
        assert!(credential(&headers).is_err());
    }
}
