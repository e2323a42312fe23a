//! `/v1/admin`: components, publishers, grants and revocations, for administrators of the platform and of tenants. Each resource has
//! a file below; each endpoint asks for an [`Admin`], which is there only if the caller's role reaches far enough. Its description
//! follows from the types of its handler, and `docs/reference/admin-api.md` is printed from all of them.
//!
//! | role | may |
//! |---|---|
//! | `admin` of the tenant `default` | everything, in the platform's catalog and, with `?tenant=`, in a tenant's |
//! | `admin` of another tenant | what `tenant-admin` may |
//! | `tenant-admin` | upload, delete, step, trust and revoke in the catalog of its own tenant |
//! | `author` | upload to the catalog of its own tenant, and look at it |
//!
//! Whatever was not done leaves a row too. Another tenant's things are as if they were not there.

mod components;
mod document;
mod endpoint;
mod grants;
mod publishers;
mod revocations;

pub(crate) use self::document::{markdown, openapi};

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use sallyport_protocol::id::TenantId;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::endpoint::{
    AdminAnswer, AdminEndpoint, AdminInput, DocumentedCodes, JsonBody, NoBody, PackageBytes,
};
use super::error::{ApiError, catalog_code};
use super::listen::Peer;
use super::{BodyLimits, Edge, caller};
use crate::audit::{Event, Kind, Outcome};
use crate::auth::{DEFAULT_TENANT, Principal};
use crate::catalog::{Actor, Catalog, CatalogError};
use crate::tls::fingerprint;

/// The scope that a credential needs.
const SCOPE: &str = "admin";
/// Longest JSON body: a configuration is up to a megabyte.
pub(super) const MAX_JSON: usize = 2 * 1024 * 1024;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    let routed = endpoints().into_iter().map(AdminEndpoint::route);
    let router = routed.fold(Router::new(), |router, (path, handler)| router.route(path, handler));
    router.layer(DefaultBodyLimit::disable())
}

/// The same with their descriptions.
fn endpoints() -> Vec<AdminEndpoint> {
    [components::endpoints(), grants::endpoints(), publishers::endpoints(), revocations::endpoints()]
        .into_iter()
        .flatten()
        .collect()
}

/// A request of an administrator whose role reaches as far as `R`, and which brings a `B`.
struct Admin<R, B = NoBody> {
    edge: Arc<Edge>,
    actor: Actor,
    request_id: String,
    /// Method and path, for rows about what was not done.
    action: String,
    /// Read by whoever has the whole request. The lock is never waited for: a body alone cannot be shared between threads, and with it
    /// the request could not be either.
    body: Mutex<Body>,
    headers: HeaderMap,
    /// From where it came.
    peer: Option<Peer>,
    /// What the reference says that it may end in.
    documented: Option<DocumentedCodes>,
    form: PhantomData<fn() -> (R, B)>,
}

/// How far a role has to reach for an endpoint.
trait Reach: Send + Sync + 'static {
    const LEVEL: Level;
}

/// Looking at a catalog.
struct Look;
/// Bringing a package.
struct Upload;
/// Changing what is in force, or who is trusted.
struct Manage;

/// The same as a value: each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Look,
    Upload,
    Manage,
}

/// Which catalog is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    tenant: Option<String>,
}

/// Why an administrator gets no answer.
enum NotDone {
    /// The request cannot be read.
    Request(ApiError),
    /// The catalog did not do it.
    Catalog(CatalogError),
}

// === impl Reach ===

impl Reach for Look {
    const LEVEL: Level = Level::Look;
}

impl Reach for Upload {
    const LEVEL: Level = Level::Upload;
}

impl Reach for Manage {
    const LEVEL: Level = Level::Manage;
}

impl Level {
    /// Its name in the reference.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Upload => "upload",
            Self::Manage => "manage",
        }
    }
}

// === impl Admin ===

impl<R: Reach, B: AdminInput> FromRequest<Arc<Edge>> for Admin<R, B> {
    type Rejection = Response;

    /// Asks who it is and what it may. A refusal leaves a row.
    async fn from_request(request: Request, edge: &Arc<Edge>) -> Result<Self, Response> {
        let request_id = edge.request_id();
        let (head, body) = request.into_parts();
        let principal =
            caller::with_scope(edge, &head, SCOPE, &request_id).await.map_err(ApiError::into_response)?;
        let Ok(Query(scope)) = Query::<Scope>::try_from_uri(&head.uri) else {
            let said = "the query is not understood: it may hold tenant";
            return Err(ApiError::unreadable(said, &request_id).into_response());
        };
        let actor = Actor { who: caller::who(edge, &principal), tenant: None, platform: false };
        let action = format!("{} {}", head.method, head.uri.path());
        let edge = Arc::clone(edge);
        let (body, headers) = (Mutex::new(body), head.headers);
        let peer = head.extensions.get().cloned();
        let documented = head.extensions.get().cloned();
        let form = PhantomData;
        let mut admin = Self { edge, actor, request_id, action, body, headers, peer, documented, form };
        match admin.allow(&principal, &scope).await {
            Ok(()) => Ok(admin),
            Err(error) => Err(admin.refuse(&error).await),
        }
    }
}

impl<R: Reach, B: AdminInput> Admin<R, B> {
    /// What it is about.
    fn catalog(&self) -> &Catalog {
        &self.edge.catalog
    }

    /// Whose catalog; none is the platform's.
    fn tenant(&self) -> Option<&TenantId> {
        self.actor.tenant.as_ref()
    }

    /// Answers with what was done, or says why it was not and leaves a row of that.
    async fn answer<A: Serialize>(self, done: Result<A, NotDone>) -> AdminAnswer<A> {
        AdminAnswer::new(self.respond(done).await)
    }

    async fn respond<A: Serialize>(self, done: Result<A, NotDone>) -> Response {
        let error = match done {
            Ok(done) => match serde_json::to_value(done) {
                Ok(answer) => return super::json(&self.request_id, &answer),
                Err(_) => CatalogError::Stored("what was asked for".to_owned()),
            },
            Err(NotDone::Request(error)) => return error.into_response(),
            Err(NotDone::Catalog(error)) => error,
        };
        self.refuse(&error).await
    }

    /// Which catalog, and whether the role reaches that far.
    async fn allow(&mut self, principal: &Principal, scope: &Scope) -> Result<(), CatalogError> {
        let has = |role: &str| principal.roles.iter().any(|it| it == role);
        if has("admin") && principal.tenant.as_str() == DEFAULT_TENANT {
            self.actor.platform = true;
            if let Some(tenant) = &scope.tenant {
                let tenant = TenantId::parse(tenant).map_err(|_| CatalogError::NotFound)?;
                let known = self.edge.db.tenant(&tenant).await.map_err(CatalogError::Db)?;
                self.actor.tenant = Some(known.ok_or(CatalogError::NotFound)?.id);
            }
            return Ok(());
        }
        let most = if has("admin") || has("tenant-admin") {
            Level::Manage
        } else if has("author") {
            Level::Upload
        } else {
            return Err(CatalogError::Forbidden("this takes the role admin, tenant-admin or author"));
        };
        if scope.tenant.as_ref().is_some_and(|tenant| tenant != principal.tenant.as_str()) {
            return Err(CatalogError::NotFound);
        }
        if R::LEVEL > most {
            return Err(CatalogError::Forbidden("this takes the role tenant-admin"));
        }
        self.actor.tenant = Some(principal.tenant.clone());
        Ok(())
    }

    async fn bytes(&mut self) -> Result<bytes::Bytes, NotDone> {
        let body = std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner));
        let limits = BodyLimits { each: B::SHAPE.limit(), ..self.edge.settings.load().bodies };
        let owner = (Arc::clone(&self.actor.who.tenant_id), Arc::clone(&self.actor.who.user_id));
        self.edge
            .bodies
            .read(&self.headers, body, owner, &limits, &self.request_id)
            .await
            .map_err(NotDone::Request)
    }

    /// What was not done is told, and is a row unless somebody only looked.
    async fn refuse(self, error: &CatalogError) -> Response {
        let looked = R::LEVEL == Level::Look;
        let code = catalog_code(error);
        debug_assert!(
            self.documented.as_ref().is_none_or(|codes| codes.0.contains(&code)),
            "{} ends in {code}, which the reference does not have",
            self.action
        );
        let answer = ApiError::catalog(error, &self.request_id).into_response();
        if answer.status().is_server_error() {
            tracing::error!(request.id = self.request_id, "{} was not done: {error:?}", self.action);
        }
        let forbidden = matches!(error, CatalogError::Forbidden(_));
        if looked && !forbidden || matches!(error, CatalogError::Audit(_)) {
            return answer;
        }
        let outcome = if answer.status().is_server_error() { Outcome::Error } else { Outcome::Denied };
        let mut payload = json!({
            "code": code.of_admin(),
            "reason": error.to_string(),
            "action": self.action,
            "catalog": self.actor.tenant.as_ref().map_or("platform", TenantId::as_str),
            "request_id": self.request_id,
            "peer": self.peer.as_ref().map(|peer| peer.address.ip().to_string()),
        });
        let certificate = self.peer.as_ref().and_then(|peer| peer.certificate.as_ref());
        if let (Some(certificate), Some(fields)) = (certificate, payload.as_object_mut()) {
            let names: Vec<_> = certificate.names().iter().map(ToString::to_string).collect();
            let shown = json!({ "sha256": fingerprint(certificate.der()), "names": names });
            fields.insert("peer_certificate".to_owned(), shown);
        }
        let who = self.actor.who.clone();
        let row = Event::plain(self.edge.clock.now(), Kind::Admin, who, outcome, payload);
        match self.edge.audit.record(row).await {
            Ok(()) => answer,
            Err(_) => ApiError::audit_unavailable(&self.request_id).into_response(),
        }
    }
}

impl<R: Reach> Admin<R, PackageBytes> {
    /// The package.
    async fn package(&mut self) -> Result<bytes::Bytes, NotDone> {
        self.bytes().await
    }
}

impl<R: Reach, T: DeserializeOwned + JsonSchema + 'static> Admin<R, JsonBody<T>> {
    /// A JSON body; none is an empty object.
    async fn json(&mut self) -> Result<T, NotDone> {
        let bytes = self.bytes().await?;
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(bytes).map_err(|error| CatalogError::Unread(error).into())
    }
}

// === impl NotDone ===

impl From<CatalogError> for NotDone {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}
