//! Who calls: the credential of a request, checked, and the row that says that it was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, header};
use serde_json::json;

use super::Edge;
use super::error::ApiError;
use crate::audit::{Event, Kind, Outcome, Who};
use crate::auth::{AuthFault, Principal, check_headers};

/// Refusals of strangers that leave a row, per minute. Beyond that they are counted in the next row.
const ROWS_PER_MINUTE: u64 = 600;
/// What a call needs.
const SCOPE: &str = "inference";

/// Keeps strangers from filling the trail.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    minute: AtomicU64,
    seen: AtomicU64,
    left_out: AtomicU64,
}

/// Checks the credential of a call, its scope, and the identity headers beside it.
pub(super) async fn caller(
    edge: &Edge,
    headers: &HeaderMap,
    request_id: &str,
) -> Result<Arc<Principal>, ApiError> {
    with_scope(edge, headers, SCOPE, request_id).await
}

/// The same for another scope.
pub(super) async fn with_scope(
    edge: &Edge,
    headers: &HeaderMap,
    scope: &str,
    request_id: &str,
) -> Result<Arc<Principal>, ApiError> {
    let credential = match credential(headers) {
        Ok(credential) => credential,
        Err(fault) => return Err(refused(edge, &fault, request_id).await),
    };
    let principal = match edge.auth.authenticate(credential).await {
        Ok(principal) => principal,
        Err(fault) => return Err(refused(edge, &fault, request_id).await),
    };
    if !principal.has_scope(scope) {
        row(edge, who(edge, &principal), "insufficient_scope", Outcome::Denied, request_id).await?;
        return Err(ApiError::scope(scope, request_id));
    }
    if let Err(mismatch) = check_headers(headers, &principal) {
        row(edge, who(edge, &principal), "identity_mismatch", Outcome::Denied, request_id).await?;
        return Err(ApiError::mismatch(mismatch.header, request_id));
    }
    Ok(principal)
}

/// The bearer token, else the API key header. One of each at most: two would leave open which one counts.
pub(super) fn credential(headers: &HeaderMap) -> Result<&str, AuthFault> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all("x-api-key").iter();
    let (bearer, key) = (bearers.next(), keys.next());
    if bearers.next().is_some() || keys.next().is_some() {
        return Err(AuthFault::Missing);
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
    let answer = ApiError::unauthenticated(fault, request_id);
    let minute = edge.clock.monotonic().as_secs() / 60;
    let Some(left_out) = edge.strangers.admit(minute) else { return answer };
    let mut payload = json!({ "code": "invalid_token", "reason": fault.kind(), "request_id": request_id });
    if let (AuthFault::Pat { id: Some(id), .. }, Some(fields)) = (fault, payload.as_object_mut()) {
        fields.insert("credential".to_owned(), id.as_str().into());
    }
    if let (1.., Some(fields)) = (left_out, payload.as_object_mut()) {
        fields.insert("rows_left_out".to_owned(), left_out.into());
    }
    let outcome = if fault.is_ours() { Outcome::Error } else { Outcome::Denied };
    match write(edge, Who::nobody(), payload, outcome, request_id).await {
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
    let payload = json!({ "code": code, "reason": code, "request_id": request_id });
    write(edge, who, payload, outcome, request_id).await
}

/// The seven columns of a caller outside a call.
pub(super) fn who(edge: &Edge, principal: &Principal) -> Who {
    Who {
        user_id: principal.user.as_str().to_owned(),
        session_id: principal.session.as_str().to_owned(),
        client_id: principal.client.as_str().to_owned(),
        tenant_id: principal.tenant.as_str().to_owned(),
        policy_ver: edge.pipeline.policy_version(&principal.tenant).as_str().to_owned(),
        call_source: principal.source.as_str().to_owned(),
        ..Who::nobody()
    }
}

// === impl Strangers ===

impl Strangers {
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
    payload: serde_json::Value,
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
        let strangers = Strangers::default();
        for _ in 0..ROWS_PER_MINUTE {
            assert_eq!(strangers.admit(1), Some(0));
        }
        assert_eq!(strangers.admit(1), None);
        assert_eq!(strangers.admit(1), None);
        assert_eq!(strangers.admit(2), Some(2));
        assert_eq!(strangers.admit(2), Some(0));
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
