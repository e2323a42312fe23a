//! Signing in at an identity provider, as a browser sees it: the button, the way there, and the way back.
//!
//! The way back begins on another site, so no cookie comes along that is kept from other sites: a cookie of its own says which browser it
//! was, and the page that lets somebody in leads on by itself, so that what follows begins here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use sallyport_protocol::audit::SIGNED_IN;
use serde_json::{Map, Value, json};

use super::listen::{Peer, is_among};
use super::pages::{
    self, FORM_COOKIE, Fields, SESSION_COOKIE, encode, escape, hidden, page, problem, set_cookie,
    set_returning_cookie,
};
use super::sign_in::{self, HOME, next};
use super::{Edge, caller, connections};
use crate::audit::{Action, Event, Outcome, Who};
use crate::auth::{
    BROWSER_LIFETIME, EntryStep, NotEntered, OidcFault, PlacementFault, ProviderAnswer, ProviderEntry,
    VISIT_LIFETIME, csrf,
};

/// The cookie of a browser that was sent to a provider.
const PROVIDER_COOKIE: &str = "__Host-sp_provider";

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/sign-in/with", post(send)).route("/sign-in/callback/{provider}", get(back))
}

/// A form with a button for each provider, for the page on which people sign in.
pub(super) fn buttons(edge: &Edge, secret: &str, next: &str) -> String {
    let button = |provider: &Arc<crate::auth::OidcProvider>| {
        format!(
            "<form method=\"post\" action=\"/sign-in/with\">{}<button class=\"yes\">Sign in with {}</button></form>",
            hidden(&[("csrf", &csrf(secret)), ("next", next), ("provider", &provider.name)]),
            escape(&provider.label),
        )
    };
    edge.auth.providers().iter().map(button).collect::<Vec<_>>().concat()
}

/// `POST /sign-in/with`
async fn send(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !pages::is_from_here(&edge, &head) {
        return problem(&edge, StatusCode::FORBIDDEN, "This form was sent from another site.");
    }
    let fields = match sign_in::read(&edge, &head, body).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let made_for = pages::cookie(&head.headers, FORM_COOKIE).map(csrf);
    let (name, next) = (fields.text("provider"), next(fields.text("next")));
    if made_for.is_none_or(|made_for| !pages::same(&made_for, fields.text("csrf"))) {
        let said = "The form was too old, or your browser takes no cookies of this site.";
        return failed(&edge, StatusCode::FORBIDDEN, said, Some(next));
    }
    let peer = head.extensions.get::<Peer>().map(|peer| peer.address.ip());
    let proxies = &edge.pipeline.config().server.trusted_proxies;
    // Behind a proxy all addresses are the proxy's.
    let address = peer.filter(|peer| !is_among(*peer, proxies));
    let browser = pages::cookie(&head.headers, PROVIDER_COOKIE);
    let servers = edge.identity_servers.as_ref();
    let sent =
        edge.auth.send_to_provider(servers, name, browser, &callback(&edge, name), next, address).await;
    match sent {
        Ok(to) => {
            let mut response =
                onward(&edge, "Sign in elsewhere", "You are sent to where you sign in.", &to.url);
            set_returning_cookie(&mut response, PROVIDER_COOKIE, &to.browser, VISIT_LIFETIME.as_secs());
            response
        }
        Err(fault) => refused(&edge, name, &fault, Some(next)).await,
    }
}

/// `GET /sign-in/callback/{provider}`
async fn back(State(edge): State<Arc<Edge>>, Path(name): Path<String>, head: Parts) -> Response {
    let Some(fields) = Fields::of_query(&head) else {
        return refused(&edge, &name, &OidcFault::Answer, None).await;
    };
    let answer = ProviderAnswer {
        state: fields.text("state"),
        code: fields.text("code"),
        iss: fields.text("iss"),
        error: fields.text("error"),
    };
    let browser = pages::cookie(&head.headers, PROVIDER_COOKIE);
    let servers = edge.identity_servers.as_ref();
    let entry = edge.auth.back_from_provider(servers, &name, browser, &callback(&edge, &name), answer).await;
    match entry {
        Ok(entry) => enter(&edge, &head, &entry).await,
        Err(NotEntered { fault, next }) => refused(&edge, &name, &fault, next.as_deref()).await,
    }
}

/// Lets somebody in: what changes has its row before it is stored, and nobody is let in without one.
async fn enter(edge: &Edge, head: &Parts, entry: &ProviderEntry) -> Response {
    if change(edge, entry).await.is_err() {
        return sign_in::unrecorded(edge);
    }
    let agent = head.headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (secret, by) = match edge.auth.enter_from_provider(entry, &sign_in::device(agent)).await {
        Ok(entered) => entered,
        Err(fault) => return refused(edge, &entry.provider.name, &fault, Some(&entry.next)).await,
    };
    let at = provider_field(&entry.provider.name);
    let who = sign_in::who(edge, &by);
    let row = caller::row_with(edge, who, SIGNED_IN, Outcome::Allowed, &edge.request_id(), at).await;
    if row.is_err() {
        return sign_in::unrecorded(edge);
    }
    connections::prove(&head.extensions);
    let mut response = onward(edge, "Signed in", "You are signed in.", &entry.next);
    set_cookie(&mut response, SESSION_COOKIE, &secret, BROWSER_LIFETIME.as_secs());
    set_cookie(&mut response, FORM_COOKIE, "", 0);
    response
}

/// The row of a user that is made, or may do other things from now on.
async fn change(edge: &Edge, entry: &ProviderEntry) -> Result<(), ()> {
    let action = match entry.step {
        EntryStep::Known => return Ok(()),
        EntryStep::Change => Action::UserChange,
        EntryStep::Create => Action::UserCreate,
    };
    let user = &entry.user;
    let who = Who {
        tenant_id: user.tenant.to_string().into(),
        client_id: "sp_web".into(),
        call_source: "web".into(),
        ..Who::nobody()
    };
    let detail = json!({
        "name": user.name,
        "roles": user.roles,
        "department": user.department,
        "provider": entry.provider.name,
    });
    let payload = json!({ "subject": user.id, "detail": detail });
    let event = Event::change(edge.clock.now(), action, who, Outcome::Allowed, payload);
    edge.audit.record(event).await.map_err(drop)
}

/// Nobody is let in: the row, and a page that says how to go on.
async fn refused(edge: &Edge, name: &str, fault: &OidcFault, next: Option<&str>) -> Response {
    let providers = edge.auth.providers();
    let provider = providers.iter().find(|it| it.name == name);
    let who = Who {
        tenant_id: provider.map_or_else(|| Who::nobody().tenant_id, |it| it.tenant.to_string().into()),
        ..Who::nobody()
    };
    let mut more = provider.map_or_else(Map::new, |it| provider_field(&it.name));
    more.extend(fault.detail().map(|detail| ("detail".to_owned(), Value::from(detail))));
    let outcome = if fault.is_ours() { Outcome::Error } else { Outcome::Denied };
    let request_id = edge.request_id();
    if caller::stranger_with(edge, who, fault.code(), outcome, &request_id, more).await.is_err() {
        return sign_in::unrecorded(edge);
    }
    let label = provider.map_or("the identity provider", |it| it.label.as_str());
    let (status, said) = told(fault, label);
    let said = match fault {
        OidcFault::IdToken(_) | OidcFault::Metadata(_) | OidcFault::Issuer | OidcFault::Server(_) => {
            format!("{said} If it happens again, tell your administrator: {request_id}.")
        }
        _ => said,
    };
    let mut response = failed(edge, status, &said, next);
    if let OidcFault::Throttled(wait) = fault {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

/// What somebody is told who is not let in. What exactly is wrong with an answer is the row's to say.
fn told(fault: &OidcFault, label: &str) -> (StatusCode, String) {
    let nobody = "Nobody was signed in.";
    match fault {
        OidcFault::Provider => {
            (StatusCode::NOT_FOUND, "There is no such way to sign in any more. Begin again.".to_owned())
        }
        OidcFault::Throttled(wait) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("There were too many attempts. Try again in {} minutes.", wait.as_secs() / 60 + 1),
        ),
        OidcFault::Busy => {
            (StatusCode::TOO_MANY_REQUESTS, "Too many people sign in now. Try again in a moment.".to_owned())
        }
        OidcFault::Visit(_) => (
            StatusCode::BAD_REQUEST,
            "This sign-in was begun in another browser, took too long, or was used already. Begin again."
                .to_owned(),
        ),
        OidcFault::Refused(_) => (
            StatusCode::FORBIDDEN,
            format!("{label} says that nobody signed in there. Begin again, or take another way."),
        ),
        OidcFault::Issuer | OidcFault::Answer | OidcFault::IdToken(_) => (
            StatusCode::FORBIDDEN,
            format!("The answer of {label} is not one that can be believed. {nobody} Begin again."),
        ),
        OidcFault::Server(_) | OidcFault::Metadata(_) => (
            StatusCode::BAD_GATEWAY,
            format!("{label} does not answer as it should. {nobody} Try again in a moment."),
        ),
        OidcFault::Placement(fault) => (StatusCode::FORBIDDEN, placed(*fault, label)),
        OidcFault::Unavailable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The gateway cannot look at users now. Try again in a moment.".to_owned(),
        ),
    }
}

fn placed(fault: PlacementFault, label: &str) -> String {
    let why = match fault {
        PlacementFault::Domain => "your address there is not verified, or not one that may come in",
        PlacementFault::Groups => "you are in no group there that may come in",
        PlacementFault::NotLinked => "nobody here is linked to who you are there",
        PlacementFault::Name => "it gives no name that can be used here",
        PlacementFault::NameTaken => {
            "somebody of your name is here already, and nobody has said yet that this is you"
        }
        PlacementFault::Roles | PlacementFault::Tenant => {
            "what it says of you does not fit to what is known here"
        }
        PlacementFault::Disabled => "your access here has ended",
    };
    format!("{label} knows you, but you are not let in: {why}. Ask your administrator.")
}

/// A page that says what is wrong, and leads back to where people sign in.
fn failed(edge: &Edge, status: StatusCode, said: &str, next: Option<&str>) -> Response {
    let to = format!("/sign-in?next={}", encode(next.unwrap_or(HOME)));
    let body = format!(
        "<p class=\"bad\" role=\"alert\">{}</p><p><a href=\"{}\">Back to sign in</a></p>",
        escape(said),
        escape(&to)
    );
    page(edge, status, "You are not signed in", &body, "")
}

/// A page that leads on by itself. Forms of the gateway's pages may be sent nowhere else, and a redirect of one counts as that.
fn onward(edge: &Edge, title: &str, said: &str, to: &str) -> Response {
    let body = format!("<p role=\"status\">{}</p><p><a href=\"{}\">Go on</a></p>", escape(said), escape(to));
    let mut response = page(edge, StatusCode::OK, title, &body, "");
    if let Ok(value) = HeaderValue::from_str(&format!("0; url={to}")) {
        response.headers_mut().insert(header::REFRESH, value);
    }
    response
}

fn callback(edge: &Edge, name: &str) -> String {
    format!("{}/sign-in/callback/{name}", edge.pipeline.config().server.public_url)
}

fn provider_field(name: &str) -> Map<String, Value> {
    Map::from_iter([("provider".to_owned(), Value::from(name))])
}
