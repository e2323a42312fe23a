//! A workstation that is let in by a browser: the page that asks, the code that goes back to the workstation, and its exchange.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use sallyport_protocol::audit::DEVICE_LINKED;
use serde_json::Value;

use super::auth::{issued, object};
use super::error::ApiError;
use super::pages::{
    self, Fields, SESSION_COOKIE, encode, escape, hidden, page, problem, see_other, set_cookie,
};
use super::{Edge, caller, connections, sign_in};
use crate::audit::Outcome;
use crate::auth::{AuthFault, DEVICE_LIFETIME, is_challenge, loopback};

/// Longest `state`.
const LONGEST_STATE: usize = 512;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/cowork/device-link", get(ask).post(decide))
        .route("/v1/auth/cowork/session", post(exchange))
        .route("/v1/cowork/auth/session", post(exchange))
}

/// What a workstation asks for.
struct LinkRequest {
    redirect: String,
    state: String,
    challenge: String,
    device: String,
}

/// `GET /cowork/device-link?redirect&state&code_challenge[&device]`
async fn ask(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let link = match Fields::of_query(&head).as_ref().map(LinkRequest::read) {
        Some(Ok(link)) => link,
        Some(Err(said)) => return problem(&edge, StatusCode::BAD_REQUEST, said),
        None => return problem(&edge, StatusCode::BAD_REQUEST, "The address cannot be read."),
    };
    let by = match pages::visitor(&edge, &head).await {
        Ok(Some(by)) => by,
        Ok(None) => return sign_in::first(&edge, &head),
        Err(answer) => return answer,
    };
    let origin = link.origin();
    let body = format!(
        "<p>A program on a device wants to use the gateway as <b>{}</b> of <b>{}</b> for the next 90 days.</p>\
         <dl><dt>Device</dt><dd>{}</dd><dt>The answer goes to</dt><dd>{}</dd></dl>\
         <p>Allow this only if you have just started it yourself, on this device.</p>\
         <form method=\"post\" action=\"/cowork/device-link\">{}<button class=\"yes\" name=\"answer\" value=\"allow\">Allow</button>\
         <button name=\"answer\" value=\"refuse\">Refuse</button></form>",
        escape(&by.user.name),
        escape(by.user.tenant.as_str()),
        escape(&link.device),
        escape(origin),
        hidden(&[
            ("csrf", &by.csrf),
            ("redirect", &link.redirect),
            ("state", &link.state),
            ("code_challenge", &link.challenge),
            ("device", &link.device),
        ]),
    );
    page(&edge, StatusCode::OK, "Let a device in?", &body, origin)
}

/// `POST /cowork/device-link`
async fn decide(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (by, fields) = match sign_in::filled_in(&edge, request).await {
        Ok((by, fields, _)) => (by, fields),
        Err(answer) => return answer,
    };
    let link = match LinkRequest::read(&fields) {
        Ok(link) => link,
        Err(said) => return problem(&edge, StatusCode::BAD_REQUEST, said),
    };
    let (outcome, allowed) = match fields.text("answer") {
        "allow" => (Outcome::Allowed, true),
        "refuse" => (Outcome::Denied, false),
        _ => return problem(&edge, StatusCode::BAD_REQUEST, "Nothing was answered."),
    };
    let row = caller::row(&edge, sign_in::who(&edge, &by), DEVICE_LINKED, outcome, &edge.request_id()).await;
    if row.is_err() {
        return sign_in::unrecorded(&edge);
    }
    let back = |answer: &str| format!("{}?{answer}&state={}", link.redirect, encode(&link.state));
    if !allowed {
        return see_other(&edge, &back("error=access_denied"));
    }
    match edge.auth.link_device(&by, &link.challenge, &link.device).await {
        Ok(code) => see_other(&edge, &back(&format!("code={}", code.as_str()))),
        Err(_) => {
            problem(&edge, StatusCode::SERVICE_UNAVAILABLE, "The device could not be let in. Try again.")
        }
    }
}

/// `POST /v1/auth/cowork/session`
async fn exchange(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let request_id = edge.request_id();
    let (head, body) = request.into_parts();
    let mut response = match exchanged(&edge, &head, body, &request_id).await {
        Ok((answer, cookie)) => {
            connections::prove(&head.extensions);
            let mut response = super::json(&request_id, &answer);
            if let Some(cookie) = cookie {
                set_cookie(&mut response, SESSION_COOKIE, &cookie, DEVICE_LIFETIME.as_secs());
            }
            response
        }
        Err(error) => error.into_response(),
    };
    super::keep_out_of_caches(&mut response);
    response
}

/// A code and its verifier, or the cookie of a session. With the cookie it has to be said where the request comes from: a browser sends
/// cookies whether its user wants to or not.
async fn exchanged(
    edge: &Edge,
    head: &Parts,
    body: axum::body::Body,
    request_id: &str,
) -> Result<(Value, Option<zeroize::Zeroizing<String>>), ApiError> {
    debug_assert_eq!(head.method, Method::POST);
    let media = head.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media("application/json", request_id));
    }
    let asked = object(body, request_id).await?;
    let text = |name: &str| asked.get(name).and_then(Value::as_str);
    let version = |tenant: &_| edge.pipeline.policy_version(tenant);
    if !asked.is_empty() {
        let (Some(code), Some(verifier), 2) = (text("code"), text("code_verifier"), asked.len()) else {
            let said =
                "the body holds code and code_verifier, or is an empty object beside the cookie of a session";
            return Err(ApiError::unreadable(said, request_id));
        };
        return match edge.auth.exchange_code(code, verifier, version).await {
            Ok(linked) => {
                let who = caller::who(edge, &linked.principal);
                Ok((issued(edge, who, &linked.issued, request_id).await?, Some(linked.cookie)))
            }
            Err(fault) => Err(caller::refused(edge, &fault, request_id).await),
        };
    }
    let Some(cookie) = pages::cookie(&head.headers, SESSION_COOKIE) else {
        return Err(caller::refused(edge, &AuthFault::Missing, request_id).await);
    };
    if !pages::is_from_here(edge, head) {
        return Err(ApiError::other_origin(request_id));
    }
    match edge.auth.exchange_session(cookie, version).await {
        Ok((principal, token)) => {
            Ok((issued(edge, caller::who(edge, &principal), &token, request_id).await?, None))
        }
        Err(fault) => Err(caller::refused(edge, &fault, request_id).await),
    }
}

// === impl LinkRequest ===

impl LinkRequest {
    fn read(fields: &Fields) -> Result<Self, &'static str> {
        let redirect = fields.text("redirect");
        if !loopback(redirect) || redirect.contains('?') {
            return Err(
                "redirect has to be http://127.0.0.1:<port>/ or http://[::1]:<port>/, with a path and without a query.",
            );
        }
        let state = fields.text("state");
        if state.len() < 8 || state.len() > LONGEST_STATE || !state.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("state has to be 8 to 512 visible characters.");
        }
        let challenge = fields.text("code_challenge");
        if !is_challenge(challenge) || !matches!(fields.text("code_challenge_method"), "" | "S256") {
            return Err(
                "code_challenge has to be the SHA-256 of a verifier in base64url (S256), 43 characters.",
            );
        }
        Ok(Self {
            redirect: redirect.to_owned(),
            state: state.to_owned(),
            challenge: challenge.to_owned(),
            device: sign_in::device(fields.text("device")),
        })
    }

    /// `http://127.0.0.1:<port>`
    fn origin(&self) -> &str {
        let slash = self.redirect.match_indices('/').nth(2).map_or(self.redirect.len(), |(at, _)| at);
        self.redirect.get(..slash).unwrap_or(&self.redirect)
    }
}
