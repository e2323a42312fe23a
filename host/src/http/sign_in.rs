//! Signing in with a browser: the form, the sessions of whoever is signed in, and signing out.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use sallyport_protocol::audit::{SIGNED_IN, SIGNED_OUT};
use sallyport_protocol::id::SessionId;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::listen::{Peer, is_among};
use super::pages::{
    self, FORM_COOKIE, Fields, FormFault, SESSION_COOKIE, encode, escape, hidden, page, problem, see_other,
    set_cookie,
};
use super::{Edge, caller, connections, provider_sign_in};
use crate::audit::{Outcome, Who};
use crate::auth::{BROWSER_LIFETIME, DEFAULT_TENANT, SignInFault, SignedIn, csrf};

/// Where a browser goes that has nowhere to go.
pub(super) const HOME: &str = "/account";
/// Longest address to go on to.
const LONGEST_NEXT: usize = 4096;
/// Longest name of a browser or a device.
const LONGEST_DEVICE: usize = 120;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/sign-in", get(form).post(enter))
        .route("/sign-out", post(leave))
        .route("/account", get(account))
        .route("/account/end", post(end))
        .route("/style.css", get(pages::style))
}

/// Sends a browser to the form, and back to where it wanted to go.
pub(super) fn first(edge: &Edge, head: &Parts) -> Response {
    let wanted = head.uri.path_and_query().map_or(HOME, |it| it.as_str());
    see_other(edge, &format!("/sign-in?next={}", encode(wanted)))
}

/// What a form of whoever is signed in has to be: from a page of ours, and made for this session.
pub(super) async fn filled_in(edge: &Edge, request: Request) -> Result<(SignedIn, Fields, Parts), Response> {
    let (head, body) = request.into_parts();
    if !pages::is_from_here(edge, &head) {
        return Err(problem(edge, StatusCode::FORBIDDEN, "This form was sent from another site."));
    }
    let Some(who) = pages::visitor(edge, &head).await? else {
        return Err(problem(
            edge,
            StatusCode::UNAUTHORIZED,
            "You are not signed in any more. Sign in, then try again.",
        ));
    };
    connections::prove(&head.extensions);
    let fields = read(edge, &head, body).await?;
    if !pages::same(fields.text("csrf"), &who.csrf) {
        return Err(problem(
            edge,
            StatusCode::FORBIDDEN,
            "This form was not made for you. Open the page again.",
        ));
    }
    Ok((who, fields, head))
}

/// Who is signed in, for rows.
pub(super) fn who(edge: &Edge, by: &SignedIn) -> Who {
    Who {
        user_id: by.user.id.shared(),
        session_id: by.sign_in.session.shared(),
        client_id: "sp_web".into(),
        tenant_id: by.user.tenant.shared(),
        policy_ver: edge.pipeline.policy_version(&by.user.tenant).shared(),
        call_source: "web".into(),
        ..Who::nobody()
    }
}

/// What a browser or a device says that it is, cut short.
pub(super) fn device(text: &str) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_DEVICE).collect();
    if shown.trim().is_empty() { "a device without a name".to_owned() } else { shown.trim().to_owned() }
}

// === private helpers ===

/// `GET /sign-in`
async fn form(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let Some(fields) = Fields::of_query(&head) else {
        return problem(&edge, StatusCode::BAD_REQUEST, "The address cannot be read.");
    };
    let next = next(fields.text("next"));
    match pages::visitor(&edge, &head).await {
        Ok(Some(_)) => see_other(&edge, next),
        Ok(None) => shown(&edge, StatusCode::OK, next, ("", ""), ""),
        Err(answer) => answer,
    }
}

/// The form, with what was filled in before and what was wrong with it.
fn shown(edge: &Edge, status: StatusCode, next: &str, filled: (&str, &str), wrong: &str) -> Response {
    let secret = edge.auth.form_secret();
    let (tenant, name) = filled;
    let wrong = if wrong.is_empty() {
        String::new()
    } else {
        format!("<p class=\"bad\" role=\"alert\">{}</p>", escape(wrong))
    };
    let body = format!(
        "{wrong}{}<form method=\"post\" action=\"/sign-in\">{}\
         <label for=\"name\">Name</label><input id=\"name\" name=\"name\" autocomplete=\"username\" required autofocus value=\"{}\">\
         <label for=\"password\">Password</label><input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\
         <label for=\"tenant\">Organisation</label><input id=\"tenant\" name=\"tenant\" autocomplete=\"organization\" value=\"{}\">\
         <button class=\"yes\">Sign in</button></form>",
        provider_sign_in::buttons(edge, &secret, next),
        hidden(&[("csrf", &csrf(&secret)), ("next", next)]),
        escape(name),
        escape(if tenant.is_empty() { DEFAULT_TENANT } else { tenant }),
    );
    let mut response = page(edge, status, "Sign in", &body, "");
    set_cookie(&mut response, FORM_COOKIE, &secret, 3600);
    response
}

/// `POST /sign-in`
async fn enter(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !pages::is_from_here(&edge, &head) {
        return problem(&edge, StatusCode::FORBIDDEN, "This form was sent from another site.");
    }
    let fields = match read(&edge, &head, body).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let next = next(fields.text("next"));
    let made_for = pages::cookie(&head.headers, FORM_COOKIE).map(csrf);
    let (tenant, name) = (fields.text("tenant").trim(), fields.text("name").trim());
    if made_for.is_none_or(|made_for| !pages::same(&made_for, fields.text("csrf"))) {
        let said = "The form was too old, or your browser takes no cookies of this site. Try again.";
        return shown(&edge, StatusCode::FORBIDDEN, next, (tenant, name), said);
    }
    let tenant = if tenant.is_empty() { DEFAULT_TENANT } else { tenant };
    let password = Zeroizing::new(fields.text("password").to_owned());
    let agent = head.headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let peer = head.extensions.get::<Peer>().map(|peer| peer.address.ip());
    let proxies = &edge.pipeline.config().server.trusted_proxies;
    // Behind a proxy all addresses are the proxy's.
    let address = peer.filter(|peer| !is_among(*peer, proxies));
    let request_id = edge.request_id();
    match edge.auth.sign_in(tenant, name, password, address, &device(agent)).await {
        Ok((secret, by)) => {
            let row = caller::row(&edge, who(&edge, &by), SIGNED_IN, Outcome::Allowed, &request_id).await;
            if row.is_err() {
                return unrecorded(&edge);
            }
            connections::prove(&head.extensions);
            let mut response = see_other(&edge, next);
            set_cookie(&mut response, SESSION_COOKIE, &secret, BROWSER_LIFETIME.as_secs());
            set_cookie(&mut response, FORM_COOKIE, "", 0);
            response
        }
        Err(fault) => refused(&edge, &fault, next, (tenant, name), &request_id).await,
    }
}

async fn refused(
    edge: &Edge,
    fault: &SignInFault,
    next: &str,
    filled: (&str, &str),
    request_id: &str,
) -> Response {
    let named: String = filled.0.chars().take(64).collect();
    let tenant = Who { tenant_id: named.into(), ..Who::nobody() };
    let outcome = if matches!(fault, SignInFault::Unavailable(_)) { Outcome::Error } else { Outcome::Denied };
    if caller::stranger(edge, tenant, fault.code(), outcome, request_id).await.is_err() {
        return unrecorded(edge);
    }
    match fault {
        SignInFault::Wrong => shown(
            edge,
            StatusCode::UNAUTHORIZED,
            next,
            filled,
            "The name, the password or the organisation is wrong.",
        ),
        SignInFault::Throttled(wait) => {
            let said =
                format!("There were too many attempts. Try again in {} minutes.", wait.as_secs() / 60 + 1);
            let mut response = shown(edge, StatusCode::TOO_MANY_REQUESTS, next, filled, &said);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
            response
        }
        SignInFault::Password(_) | SignInFault::Unavailable(_) => {
            let said = "The gateway cannot look at passwords now. Try again in a moment.";
            shown(edge, StatusCode::SERVICE_UNAVAILABLE, next, filled, said)
        }
    }
}

/// `POST /sign-out`
async fn leave(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let by = match filled_in(&edge, request).await {
        Ok((by, _, _)) => by,
        Err(answer) => return answer,
    };
    let session = by.sign_in.session.clone();
    let mut response = over(&edge, &by, &session, "/sign-in").await;
    if response.status() == StatusCode::SEE_OTHER {
        set_cookie(&mut response, SESSION_COOKIE, "", 0);
    }
    response
}

/// `POST /account/end`
async fn end(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (by, fields) = match filled_in(&edge, request).await {
        Ok((by, fields, _)) => (by, fields),
        Err(answer) => return answer,
    };
    match SessionId::parse(fields.text("session")) {
        Ok(session) => over(&edge, &by, &session, HOME).await,
        Err(_) => problem(&edge, StatusCode::NOT_FOUND, "There is no such session."),
    }
}

/// Ends a session after its row.
async fn over(edge: &Edge, by: &SignedIn, session: &SessionId, to: &str) -> Response {
    let row = Who { session_id: session.shared(), ..who(edge, by) };
    if caller::row(edge, row, SIGNED_OUT, Outcome::Allowed, &edge.request_id()).await.is_err() {
        return unrecorded(edge);
    }
    match edge.auth.end_session(&by.user, session).await {
        Ok(true) => see_other(edge, to),
        Ok(false) => problem(edge, StatusCode::NOT_FOUND, "There is no such session."),
        Err(_) => {
            problem(edge, StatusCode::SERVICE_UNAVAILABLE, "The session could not be ended. Try again.")
        }
    }
}

/// `GET /account`
async fn account(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let by = match pages::visitor(&edge, &head).await {
        Ok(Some(by)) => by,
        Ok(None) => return first(&edge, &head),
        Err(answer) => return answer,
    };
    let Ok(sessions) = edge.auth.sessions_of(&by.user).await else {
        return problem(&edge, StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot look at sessions now.");
    };
    let day = |at: time::OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let rows = sessions
        .iter()
        .map(|it| {
            let this = if it.session == by.sign_in.session { " (this one)" } else { "" };
            format!(
                "<tr><td>{}{this}</td><td>{}</td><td><form method=\"post\" action=\"/account/end\">{}\
                 <button aria-label=\"End the session of {}\">End</button></form></td></tr>",
                escape(&it.device),
                day(it.created_at),
                hidden(&[("csrf", &by.csrf), ("session", it.session.as_str())]),
                escape(&it.device),
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let body = format!(
        "<p>You are {} of {}.</p><h2>Signed in</h2><table><thead><tr><th scope=\"col\">Where</th><th scope=\"col\">Since</th>\
         <th scope=\"col\">End</th></tr></thead><tbody>{rows}</tbody></table>\
         <form method=\"post\" action=\"/sign-out\">{}<button class=\"yes\">Sign out here</button></form>",
        escape(&by.user.name),
        escape(by.user.tenant.as_str()),
        hidden(&[("csrf", &by.csrf)]),
    );
    page(&edge, StatusCode::OK, "Your account", &body, "")
}

/// Reads a form, or says what is wrong with it.
pub(super) async fn read(edge: &Edge, head: &Parts, body: axum::body::Body) -> Result<Fields, Response> {
    pages::form(&head.headers, body).await.map_err(|fault| match fault {
        FormFault::Media => {
            problem(edge, StatusCode::UNSUPPORTED_MEDIA_TYPE, "This takes application/x-www-form-urlencoded.")
        }
        FormFault::Unreadable => problem(edge, StatusCode::BAD_REQUEST, "The form cannot be read."),
        FormFault::Slow => problem(edge, StatusCode::REQUEST_TIMEOUT, "The form came too slowly."),
    })
}

/// Nobody signs in without a row.
pub(super) fn unrecorded(edge: &Edge) -> Response {
    let said = "The audit trail is not available, so the gateway does not go on. Try again in a moment.";
    problem(edge, StatusCode::SERVICE_UNAVAILABLE, said)
}

/// A path of the gateway's own to go on to: nobody is sent elsewhere by an address that somebody else wrote.
pub(super) fn next(text: &str) -> &str {
    let is_path = text.starts_with('/') && !text.starts_with("//") && text.len() <= LONGEST_NEXT;
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if is_path && is_plain { text } else { HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        assert_eq!(next("/cowork/device-link?a=1"), "/cowork/device-link?a=1");
        let long = format!("/{}", "a".repeat(LONGEST_NEXT));
        for bad in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "evil", "/a b", "/\r\nx", &long]
        {
            assert_eq!(next(bad), HOME, "{bad}");
        }
    }

    #[test]
    fn a_device_has_a_name_of_some_length() {
        assert_eq!(device("\n\t"), "a device without a name");
        assert_eq!(device(&"x".repeat(1000)).len(), LONGEST_DEVICE);
    }
}
