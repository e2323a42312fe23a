//! The authorization server on the wire (OAuth 2.1, RFC 8414, 7009, 7591, 7662, 8628, 8707, 9207, 9728): documents, the consent page, and the
//! endpoints of clients.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_protocol::audit::{ACCESS_GRANTED, TOKEN_ISSUED};
use serde_json::json;

use super::auth::object;
use super::listen::{Peer, is_among};
use super::pages::{self, Fields, FormFault, encode, escape, hidden, page, problem, see_other};
use super::{Edge, caller, connections, sign_in};
use crate::audit::Outcome;
use crate::auth::{
    AuthorizationRequest, AuthorizeFault, AuthorizeParams, DEVICE_CODE_LIFETIME, DEVICE_INTERVAL,
    OauthClient, OauthFault, SCOPES, SignedIn, TokenSet, is_document_id,
};

/// Parameters of a request to a browser, in the order in which the consent page hands them on.
const AUTHORIZE: [&str; 9] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "code_challenge",
    "code_challenge_method",
    "scope",
    "resource",
    "nonce",
    "state",
];
/// Longest `state`.
const LONGEST_STATE: usize = 2048;
/// The grant of a device (RFC 8628, section 3.4).
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/.well-known/oauth-protected-resource", get(resource))
        .route("/.well-known/oauth-protected-resource/{*path}", get(resource))
        .route("/oauth/authorize", get(ask).post(decide))
        .route("/oauth/token", post(token))
        .route("/oauth/revoke", post(revoke))
        .route("/oauth/introspect", post(introspect))
        .route("/oauth/userinfo", get(userinfo).post(userinfo))
        .route("/oauth/register", post(register))
        .route("/oauth/device_authorization", post(device))
        .route("/device", get(type_in).post(decide_device))
}

/// Where the document about the protected resource is: in the refusal of a credential (RFC 9728, section 5.1).
pub(super) fn resource_metadata(edge: &Edge) -> String {
    format!("{}/.well-known/oauth-protected-resource", edge.pipeline.config().server.public_url)
}

// === documents ===

/// `GET /.well-known/oauth-authorization-server`, and the same for `OpenID` Connect.
async fn metadata(State(edge): State<Arc<Edge>>) -> Response {
    let config = edge.pipeline.config();
    let issuer = edge.auth.issuer();
    let at = |path: &str| format!("{}{path}", config.server.public_url);
    let scopes: Vec<_> = SCOPES.iter().map(|(scope, _)| *scope).collect();
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": at("/oauth/authorize"),
        "token_endpoint": at("/oauth/token"),
        "jwks_uri": at("/.well-known/jwks.json"),
        "device_authorization_endpoint": at("/oauth/device_authorization"),
        "revocation_endpoint": at("/oauth/revoke"),
        "introspection_endpoint": at("/oauth/introspect"),
        "userinfo_endpoint": at("/oauth/userinfo"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_GRANT],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "sid", "name"],
        // Claude Code asks for it before it signs in.
        "gateway_protocol_version": 1,
    });
    if let (true, Some(fields)) = (edge.auth.registers(), document.as_object_mut()) {
        fields.insert("registration_endpoint".to_owned(), at("/oauth/register").into());
    }
    if let (true, Some(fields)) = (edge.auth.takes_documents(), document.as_object_mut()) {
        fields.insert("client_id_metadata_document_supported".to_owned(), true.into());
    }
    super::json(&edge.request_id(), &document)
}

/// `GET /.well-known/oauth-protected-resource[/path]`
async fn resource(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let path = head.uri.path().strip_prefix("/.well-known/oauth-protected-resource").unwrap_or_default();
    let scopes: Vec<_> = SCOPES.iter().map(|(scope, _)| *scope).collect();
    let document = json!({
        "resource": format!("{}{path}", edge.pipeline.config().server.public_url),
        "authorization_servers": [edge.auth.issuer()],
        "bearer_methods_supported": ["header"],
        "scopes_supported": scopes,
        "tls_client_certificate_bound_access_tokens": false,
    });
    super::json(&edge.request_id(), &document)
}

// === browser ===

/// `GET /oauth/authorize`
async fn ask(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let Some(fields) = Fields::of_query(&head) else {
        // Nobody knows which of two clients, or of two addresses, would be meant.
        return problem(
            &edge,
            StatusCode::BAD_REQUEST,
            "invalid_request: a parameter is there twice, or cannot be read.",
        );
    };
    let by = match pages::visitor(&edge, &head).await {
        Ok(by) => by,
        Err(answer) => return answer,
    };
    if by.is_none() && edge.auth.takes_documents() && is_document_id(fields.text("client_id")) {
        return sign_in::first(&edge, &head);
    }
    let request = match read(&edge, &fields, by.as_ref()).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let Some(by) = by else { return sign_in::first(&edge, &head) };
    let meanings = request
        .scope
        .split(' ')
        .filter_map(|scope| SCOPES.iter().find(|(known, _)| *known == scope))
        .map(|(scope, meaning)| format!("<dt>{}</dt><dd>{}</dd>", escape(scope), escape(meaning)))
        .collect::<Vec<_>>()
        .concat();
    let origin = origin(&request.redirect_uri);
    let fields: Vec<_> = AUTHORIZE.iter().map(|name| (*name, fields.text(name))).collect();
    let registered = match (&request.client.document, request.client.registered) {
        (Some(document), _) => format!(
            "<p class=\"bad\">This program describes itself at <b>{}</b>. Nobody here has looked at it, and its name is what it says.</p>",
            escape(document)
        ),
        (None, true) => {
            "<p class=\"bad\">This program registered itself. Nobody has looked at it, and its name is what it says.</p>"
                .to_owned()
        }
        (None, false) => String::new(),
    };
    let body = format!(
        "{registered}<p><b>{}</b> wants to use the gateway as <b>{}</b> of <b>{}</b>, and may then:</p><dl>{meanings}\
         <dt>The answer goes to</dt><dd>{}</dd></dl>\
         <form method=\"post\" action=\"/oauth/authorize\">{}{}<button class=\"yes\" name=\"answer\" value=\"allow\">Allow</button>\
         <button name=\"answer\" value=\"refuse\">Refuse</button></form>",
        escape(&request.client.name),
        escape(&by.user.name),
        escape(by.user.tenant.as_str()),
        escape(origin),
        hidden(&[("csrf", &by.csrf)]),
        hidden(&fields),
    );
    page(&edge, StatusCode::OK, "Give a program access?", &body, origin)
}

/// `POST /oauth/authorize`
async fn decide(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (by, fields) = match sign_in::filled_in(&edge, request).await {
        Ok((by, fields, _)) => (by, fields),
        Err(answer) => return answer,
    };
    let request = match read(&edge, &fields, Some(&by)).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let allowed = match fields.text("answer") {
        "allow" => true,
        "refuse" => false,
        _ => return problem(&edge, StatusCode::BAD_REQUEST, "Nothing was answered."),
    };
    let outcome = if allowed { Outcome::Allowed } else { Outcome::Denied };
    let who = crate::audit::Who { client_id: request.client.id.as_str().into(), ..sign_in::who(&edge, &by) };
    if caller::row(&edge, who, ACCESS_GRANTED, outcome, &edge.request_id()).await.is_err() {
        return sign_in::unrecorded(&edge);
    }
    let granted = if allowed { edge.auth.grant_code(&by, &request).await } else { Err(OauthFault::Denied) };
    match granted {
        Ok(code) => back(&edge, &request.redirect_uri, &fields, &format!("code={}", code.as_str())),
        Err(fault) => told(&edge, &request.redirect_uri, &fields, &fault),
    }
}

/// The request, if it may be put to a user.
async fn read(edge: &Edge, fields: &Fields, by: Option<&SignedIn>) -> Result<AuthorizationRequest, Response> {
    let asked = AuthorizeParams {
        client_id: fields.text("client_id"),
        redirect_uri: fields.text("redirect_uri"),
        response_type: fields.text("response_type"),
        code_challenge: fields.text("code_challenge"),
        code_challenge_method: fields.text("code_challenge_method"),
        scope: fields.text("scope"),
        resource: fields.text("resource"),
        nonce: fields.text("nonce"),
    };
    let read = edge.auth.authorization(asked, by, edge.client_documents.as_ref()).await;
    match read {
        Ok(_) if fields.text("state").len() > LONGEST_STATE => {
            Err(told(edge, asked.redirect_uri, &Fields::default(), &OauthFault::Request("state is too long")))
        }
        Ok(_) if fields.get("request").or_else(|| fields.get("request_uri")).is_some() => {
            let fault = OauthFault::Request("requests in objects are not taken");
            Err(told(edge, asked.redirect_uri, fields, &fault))
        }
        Ok(request) => Ok(request),
        Err(AuthorizeFault::Here(said)) => Err(problem(edge, StatusCode::BAD_REQUEST, said)),
        Err(AuthorizeFault::Document(fault)) => {
            let who = by.map_or_else(crate::audit::Who::nobody, |by| sign_in::who(edge, by));
            let row = caller::stranger(edge, who, fault.code(), Outcome::Denied, &edge.request_id()).await;
            if row.is_err() {
                return Err(sign_in::unrecorded(edge));
            }
            Err(problem(edge, StatusCode::BAD_REQUEST, &format!("invalid_client: {fault}")))
        }
        Err(AuthorizeFault::There(fault)) => Err(told(edge, asked.redirect_uri, fields, &fault)),
        Err(AuthorizeFault::Unavailable(_)) => Err(problem(
            edge,
            StatusCode::SERVICE_UNAVAILABLE,
            "The gateway cannot look at clients now. Try again.",
        )),
    }
}

/// Tells a client through the browser what is wrong.
fn told(edge: &Edge, redirect: &str, fields: &Fields, fault: &OauthFault) -> Response {
    let said = format!("error={}&error_description={}", fault.code(), encode(&fault.to_string()));
    back(edge, redirect, fields, &said)
}

/// Sends the browser back with an answer, with `state` and `iss` (RFC 9207).
fn back(edge: &Edge, redirect: &str, fields: &Fields, answer: &str) -> Response {
    let mark = if redirect.contains('?') { '&' } else { '?' };
    let state = fields.get("state").map(|state| format!("&state={}", encode(state))).unwrap_or_default();
    see_other(edge, &format!("{redirect}{mark}{answer}{state}&iss={}", encode(edge.auth.issuer())))
}

/// `https://app.example`, of an address that was checked.
fn origin(uri: &str) -> &str {
    let end = uri.match_indices(['/', '?']).map(|(at, _)| at).find(|at| *at > "https://".len());
    uri.get(..end.unwrap_or(uri.len())).unwrap_or(uri)
}

/// `GET /device[?user_code]`
async fn type_in(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let Some(fields) = Fields::of_query(&head) else {
        return problem(&edge, StatusCode::BAD_REQUEST, "The address cannot be read.");
    };
    let by = match pages::visitor(&edge, &head).await {
        Ok(Some(by)) => by,
        Ok(None) => return sign_in::first(&edge, &head),
        Err(answer) => return answer,
    };
    let typed = fields.text("user_code");
    let form = |wrong: &str, status| {
        let body = format!(
            "{wrong}<form method=\"get\" action=\"/device\"><label for=\"user_code\">The code that your device shows</label>\
             <input id=\"user_code\" name=\"user_code\" autocomplete=\"off\" autocapitalize=\"characters\" required autofocus>\
             <button class=\"yes\">Next</button></form>"
        );
        page(&edge, status, "Let a device in?", &body, "")
    };
    if typed.is_empty() {
        return form("", StatusCode::OK);
    }
    match edge.auth.waiting_device(&by, typed).await {
        Ok(Some((code, device, name))) => {
            let body = format!(
                "<p><b>{}</b> on a device wants to use the gateway as <b>{}</b> of <b>{}</b>.</p>\
                 <dl><dt>Code</dt><dd>{code}</dd><dt>May then</dt><dd>{}</dd></dl>\
                 <p>Allow this only if your device shows this very code, and you have just started the sign-in yourself. \
                 Somebody who sent you the code would get your access.</p>\
                 <form method=\"post\" action=\"/device\">{}<button class=\"yes\" name=\"answer\" value=\"allow\">Allow</button>\
                 <button name=\"answer\" value=\"refuse\">Refuse</button></form>",
                escape(&name),
                escape(&by.user.name),
                escape(by.user.tenant.as_str()),
                escape(&device.scope),
                hidden(&[("csrf", &by.csrf), ("user_code", &code)]),
            );
            page(&edge, StatusCode::OK, "Let a device in?", &body, "")
        }
        Ok(None) => form(
            "<p class=\"bad\" role=\"alert\">No device waits with this code. It may be mistyped or too old.</p>",
            StatusCode::NOT_FOUND,
        ),
        Err(fault) => page_of(&edge, &fault),
    }
}

/// `POST /device`
async fn decide_device(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (by, fields) = match sign_in::filled_in(&edge, request).await {
        Ok((by, fields, _)) => (by, fields),
        Err(answer) => return answer,
    };
    let allow = match fields.text("answer") {
        "allow" => true,
        "refuse" => false,
        _ => return problem(&edge, StatusCode::BAD_REQUEST, "Nothing was answered."),
    };
    let code = match edge.auth.waiting_device(&by, fields.text("user_code")).await {
        Ok(Some((code, _, _))) => code,
        Ok(None) => return problem(&edge, StatusCode::NOT_FOUND, "No device waits with this code any more."),
        Err(fault) => return page_of(&edge, &fault),
    };
    let outcome = if allow { Outcome::Allowed } else { Outcome::Denied };
    if caller::row(&edge, sign_in::who(&edge, &by), ACCESS_GRANTED, outcome, &edge.request_id())
        .await
        .is_err()
    {
        return sign_in::unrecorded(&edge);
    }
    match edge.auth.decide_device(&by, &code, allow).await {
        Ok(true) => {
            let said = if allow {
                "The device is let in. You may close this page."
            } else {
                "The device was turned away."
            };
            page(&edge, StatusCode::OK, "Done", &format!("<p role=\"status\">{said}</p>"), "")
        }
        Ok(false) => problem(&edge, StatusCode::NOT_FOUND, "No device waits with this code any more."),
        Err(_) => {
            problem(&edge, StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot answer now. Try again.")
        }
    }
}

fn page_of(edge: &Edge, fault: &OauthFault) -> Response {
    match fault {
        OauthFault::TooMany(wait) => {
            let said =
                format!("There were too many attempts. Try again in {} minutes.", wait.as_secs() / 60 + 1);
            problem(edge, StatusCode::TOO_MANY_REQUESTS, &said)
        }
        _ => problem(edge, StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot answer now. Try again."),
    }
}

// === clients ===

/// `POST /oauth/token`
async fn token(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let answer = tokens(&edge, &head, body).await;
    match answer {
        Ok(tokens) => {
            connections::prove(&head.extensions);
            let request_id = edge.request_id();
            let who = caller::who(&edge, &tokens.principal);
            match caller::row(&edge, who, TOKEN_ISSUED, Outcome::Allowed, &request_id).await {
                Ok(()) => private(super::json(&request_id, &tokens.answer)),
                Err(error) => error.into_response(),
            }
        }
        Err(fault) => refused(&edge, &head, &fault).await,
    }
}

async fn tokens(edge: &Edge, head: &Parts, body: Body) -> Result<TokenSet, OauthFault> {
    let fields = posted(head, body).await?;
    let policy = |tenant: &_| edge.pipeline.policy_version(tenant);
    let grant = fields.text("grant_type");
    let client = client(edge, &head.headers, &fields).await?;
    match grant {
        "authorization_code" => {
            let (code, redirect) = (fields.text("code"), fields.text("redirect_uri"));
            let (verifier, resource) = (fields.text("code_verifier"), fields.text("resource"));
            edge.auth.tokens_for_code(&client, code, redirect, verifier, resource, policy).await
        }
        "refresh_token" => {
            let (scope, resource) = (fields.text("scope"), fields.text("resource"));
            edge.auth.tokens_for_refresh(&client, fields.text("refresh_token"), scope, resource, policy).await
        }
        DEVICE_GRANT => edge.auth.tokens_for_device(&client, fields.text("device_code"), policy).await,
        "" => Err(OauthFault::Request("grant_type is needed")),
        _ => Err(OauthFault::GrantType),
    }
}

/// `POST /oauth/device_authorization`
async fn device(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let waits = async {
        let fields = posted(&head, body).await?;
        let client = client(&edge, &head.headers, &fields).await?;
        edge.auth.device_request(&client, fields.text("scope"), address(&edge, &head)).await
    };
    match waits.await {
        Ok(wait) => {
            let page = format!("{}/device", edge.pipeline.config().server.public_url);
            let mut answer = json!({
                "device_code": wait.device_code.as_str(),
                "user_code": wait.user_code,
                "verification_uri": page,
                "verification_uri_complete": format!("{page}?user_code={}", wait.user_code),
                "expires_in": DEVICE_CODE_LIFETIME.as_secs(),
                "interval": DEVICE_INTERVAL.as_secs(),
            });
            let notice = edge.pipeline.config().claude_code.notice.clone();
            if let (Some(notice), Some(fields)) = (notice, answer.as_object_mut()) {
                fields.insert("login_notice".to_owned(), notice.into());
            }
            private(super::json(&edge.request_id(), &answer))
        }
        Err(fault) => refused(&edge, &head, &fault).await,
    }
}

/// `POST /oauth/revoke`
async fn revoke(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let revoked = async {
        let fields = posted(&head, body).await?;
        let client = client(&edge, &head.headers, &fields).await?;
        let token = fields.get("token").ok_or(OauthFault::Request("token is needed"))?;
        edge.auth.revoke_token(&client, token).await.map_err(OauthFault::from)
    };
    match revoked.await {
        Ok(()) => private(super::json(&edge.request_id(), &json!({}))),
        Err(fault) => refused(&edge, &head, &fault).await,
    }
}

/// `POST /oauth/introspect`
async fn introspect(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let told = async {
        let fields = posted(&head, body).await?;
        let client = client(&edge, &head.headers, &fields).await?;
        if client.secret.is_none() {
            return Err(OauthFault::Client);
        }
        let token = fields.get("token").ok_or(OauthFault::Request("token is needed"))?;
        edge.auth.introspect(&client, token).await
    };
    match told.await {
        Ok(told) => private(super::json(&edge.request_id(), &told)),
        Err(fault) => refused(&edge, &head, &fault).await,
    }
}

/// `GET /oauth/userinfo`
async fn userinfo(State(edge): State<Arc<Edge>>, head: Parts) -> Response {
    let request_id = edge.request_id();
    let principal = match caller::with_scope(&edge, &head, "openid", &request_id).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    match edge.auth.userinfo(&principal).await {
        Ok(told) => private(super::json(&request_id, &told)),
        Err(error) => {
            let fault = crate::auth::AuthFault::Unavailable(error);
            caller::refused(&edge, &fault, &request_id).await.into_response()
        }
    }
}

/// `POST /oauth/register`
async fn register(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let request_id = edge.request_id();
    if !edge.auth.registers() {
        return super::error::ApiError::not_found(&request_id, "clients do not register themselves here")
            .into_response();
    }
    let Ok(asked) = object(body, &request_id).await else {
        let fault = OauthFault::ClientMetadata("the body is no JSON object of at most 16 KiB");
        return refused(&edge, &head, &fault).await;
    };
    match edge.auth.register(&asked, address(&edge, &head)).await {
        Ok(told) => {
            let mut response = private(super::json(&request_id, &told));
            *response.status_mut() = StatusCode::CREATED;
            response
        }
        Err(fault) => refused(&edge, &head, &fault).await,
    }
}

// === private helpers ===

/// The form of a client.
async fn posted(head: &Parts, body: Body) -> Result<Fields, OauthFault> {
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(OauthFault::Request("parameters stand in the body"));
    }
    pages::form(&head.headers, body).await.map_err(|fault| match fault {
        FormFault::Media => OauthFault::Request("the body has to be application/x-www-form-urlencoded"),
        FormFault::Unreadable => {
            OauthFault::Request("a parameter is there twice, or the body cannot be read")
        }
        FormFault::Slow => OauthFault::Request("the body came too slowly"),
    })
}

/// Who speaks: by HTTP's own authentication or in the form, and not by both (RFC 6749, section 2.3).
async fn client(edge: &Edge, headers: &HeaderMap, fields: &Fields) -> Result<OauthClient, OauthFault> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(given_first) = given.next() else {
        return edge.auth.client(fields.text("client_id"), fields.get("client_secret")).await;
    };
    if given.next().is_some() || fields.get("client_secret").is_some() {
        return Err(OauthFault::Request("a client proves who it is in one way"));
    }
    let text = given_first.to_str().map_err(|_| OauthFault::Client)?;
    let (scheme, basic) = text.split_once(' ').ok_or(OauthFault::Client)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(OauthFault::Client);
    }
    let decoded = STANDARD.decode(basic.trim()).map_err(|_| OauthFault::Client)?;
    let decoded = String::from_utf8(decoded).map_err(|_| OauthFault::Client)?;
    let (id, secret) = decoded.split_once(':').ok_or(OauthFault::Client)?;
    // Both were encoded like a form first (RFC 6749, section 2.3.1); ours have nothing that changes by it.
    if fields.get("client_id").is_some_and(|other| other != id) {
        return Err(OauthFault::Request("a client has one id"));
    }
    edge.auth.client(id, Some(secret)).await
}

/// Where a request comes from, unless a proxy stands before it.
fn address(edge: &Edge, head: &Parts) -> Option<IpAddr> {
    let peer = head.extensions.get::<Peer>().map(|peer| peer.address.ip())?;
    (!is_among(peer, &edge.pipeline.config().server.trusted_proxies)).then_some(peer)
}

/// What a client is told of a refusal (RFC 6749, section 5.2), after its row.
async fn refused(edge: &Edge, head: &Parts, fault: &OauthFault) -> Response {
    let request_id = edge.request_id();
    let status = match fault {
        OauthFault::Client => StatusCode::UNAUTHORIZED,
        OauthFault::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        OauthFault::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    // A device that asks again and again is no event.
    if !matches!(fault, OauthFault::Pending | OauthFault::SlowDown) {
        let outcome = if status.is_server_error() { Outcome::Error } else { Outcome::Denied };
        let nobody = crate::audit::Who::nobody();
        if let Err(error) = caller::stranger(edge, nobody, fault.code(), outcome, &request_id).await {
            return error.into_response();
        }
    }
    let answer = json!({ "error": fault.code(), "error_description": fault.to_string() });
    let mut response = private(super::json(&request_id, &answer));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED && head.headers.contains_key(header::AUTHORIZATION) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"sallyport\""));
    } else if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    }
    if let OauthFault::TooMany(wait) = fault {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

fn private(mut response: Response) -> Response {
    super::keep_out_of_caches(&mut response);
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_an_address_is_all_before_its_path() {
        assert_eq!(origin("https://app.example/cb?x"), "https://app.example");
        assert_eq!(origin("https://app.example?x"), "https://app.example");
        assert_eq!(origin("http://127.0.0.1:80/cb"), "http://127.0.0.1:80");
        assert_eq!(origin("https://app.example:8443"), "https://app.example:8443");
    }
}
