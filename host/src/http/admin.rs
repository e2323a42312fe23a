//! `/v1/admin`: components, publishers, grants and revocations, for administrators of the platform and of tenants.
//!
//! | role | may |
//! |---|---|
//! | `admin` of the tenant `default` | everything, in the platform's catalog and, with `?tenant=`, in a tenant's |
//! | `admin` of another tenant | what `tenant-admin` may |
//! | `tenant-admin` | upload, delete, step, trust and revoke in the catalog of its own tenant |
//! | `author` | upload to the catalog of its own tenant, and look at it |
//!
//! Whatever was not done leaves a row too. Another tenant's things are as if they were not there.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::MAX_PACKAGE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::error::{ApiError, catalog_table};
use super::{BodyLimits, Edge, caller, connections};
use crate::audit::{Event, Kind, Outcome};
use crate::auth::{DEFAULT_TENANT, Principal};
use crate::catalog::{Actor, CatalogError, NewGrant, NewKey, NewRevocation, Slo, Told, Verb, Wanted};
use crate::component::Mode;
use crate::db::catalog::RevocationKind;

/// What a credential needs.
const SCOPE: &str = "admin";
/// Longest JSON body: a configuration is up to a megabyte.
pub(super) const MAX_JSON: usize = 2 * 1024 * 1024;

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    let component = "/v1/admin/components/{namespace}/{name}";
    Router::new()
        .route("/v1/admin/components", get(list).post(upload))
        .route(component, get(show))
        .route(&format!("{component}/{{step}}"), post(step).delete(remove))
        .route(&format!("{component}/grants"), post(grant))
        .route(&format!("{component}/grants/{{*capability}}"), delete(withdraw_grant))
        .route("/v1/admin/publishers", get(publishers).post(trust))
        .route("/v1/admin/revocations", get(revocations).post(revoke))
        .layer(DefaultBodyLimit::disable())
}

/// What an administrator asks for.
enum Ask {
    List,
    Upload,
    Show { name: String },
    Step { name: String, step: String },
    Delete { name: String, version: String },
    Grant { name: String },
    WithdrawGrant { name: String, capability: String },
    Publishers,
    Trust,
    Revocations,
    Revoke,
}

/// Which catalog is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    tenant: Option<String>,
}

/// What a role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Look,
    Upload,
    Step,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StepBody {
    version: Option<String>,
    config: Option<Value>,
    mode: Option<Mode>,
    percent: Option<u8>,
    slo: Option<Slo>,
    order: Option<i32>,
    told: Option<Told>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    public_key: String,
    namespace: String,
    kinds: Vec<String>,
    #[serde(default)]
    label: String,
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    replaces: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    capability: String,
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationBody {
    digest: Option<String>,
    version: Option<String>,
    key: Option<String>,
    reason: String,
}

/// One request of an administrator.
struct Desk {
    edge: Arc<Edge>,
    actor: Actor,
    request_id: String,
    action: String,
    body: Body,
    headers: HeaderMap,
}

type Named = Path<(String, String)>;
type NamedAnd = Path<(String, String, String)>;

// === handlers ===

async fn list(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    Desk::serve(edge, request, Ask::List).await
}

async fn upload(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Upload).await
}

async fn show(State(edge): State<Arc<Edge>>, Path((namespace, name)): Named, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Show { name: format!("{namespace}/{name}") }).await
}

async fn step(
    State(edge): State<Arc<Edge>>,
    Path((namespace, name, step)): NamedAnd,
    request: Request,
) -> Response {
    Desk::serve(edge, request, Ask::Step { name: format!("{namespace}/{name}"), step }).await
}

async fn remove(
    State(edge): State<Arc<Edge>>,
    Path((namespace, name, version)): NamedAnd,
    request: Request,
) -> Response {
    Desk::serve(edge, request, Ask::Delete { name: format!("{namespace}/{name}"), version }).await
}

async fn grant(State(edge): State<Arc<Edge>>, Path((namespace, name)): Named, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Grant { name: format!("{namespace}/{name}") }).await
}

async fn withdraw_grant(
    State(edge): State<Arc<Edge>>,
    Path((namespace, name, capability)): NamedAnd,
    request: Request,
) -> Response {
    let ask = Ask::WithdrawGrant { name: format!("{namespace}/{name}"), capability };
    Desk::serve(edge, request, ask).await
}

async fn publishers(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Publishers).await
}

async fn trust(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Trust).await
}

async fn revocations(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Revocations).await
}

async fn revoke(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    Desk::serve(edge, request, Ask::Revoke).await
}

// === impl Ask ===

impl Ask {
    /// How far a role has to reach.
    fn reach(&self) -> Reach {
        match self {
            Self::List | Self::Show { .. } | Self::Publishers | Self::Revocations => Reach::Look,
            Self::Upload => Reach::Upload,
            Self::Step { .. }
            | Self::Delete { .. }
            | Self::Grant { .. }
            | Self::WithdrawGrant { .. }
            | Self::Trust
            | Self::Revoke => Reach::Step,
        }
    }
}

// === impl Desk ===

/// Why an administrator gets no answer.
enum Refused {
    /// The request cannot be read.
    Request(ApiError),
    /// It was not done.
    Catalog(CatalogError),
}

impl From<CatalogError> for Refused {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl Desk {
    /// Asks who it is and what it may, does it, and leaves a row if it was not done.
    async fn serve(edge: Arc<Edge>, request: Request, ask: Ask) -> Response {
        let request_id = edge.request_id();
        let (head, body) = request.into_parts();
        let principal = match caller::with_scope(&edge, &head.headers, SCOPE, &request_id).await {
            Ok(principal) => principal,
            Err(error) => return error.into_response(),
        };
        connections::prove(&head.extensions);
        let Ok(Query(scope)) = Query::<Scope>::try_from_uri(&head.uri) else {
            return ApiError::unreadable("the query is not understood: it may hold tenant", &request_id)
                .into_response();
        };
        let actor = Actor { who: caller::who(&edge, &principal), tenant: None, platform: false };
        let action = format!("{} {}", head.method, head.uri.path());
        let mut desk = Self { edge, actor, request_id, action, body, headers: head.headers };
        let looks = ask.reach() == Reach::Look;
        let done = match desk.allow(&principal, &scope, ask.reach()).await {
            Ok(()) => desk.answer(ask).await,
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(answer) => super::json(&desk.request_id, &answer),
            Err(Refused::Request(error)) => error.into_response(),
            Err(Refused::Catalog(error)) => desk.refuse(&error, looks).await,
        }
    }

    async fn answer(&mut self, ask: Ask) -> Result<Value, Refused> {
        let catalog = Arc::clone(&self.edge.catalog);
        let actor = self.actor.clone();
        let tenant = actor.tenant.as_ref();
        let answer = match ask {
            Ask::List => catalog.list(tenant).await,
            Ask::Show { name } => catalog.show(tenant, &name).await,
            Ask::Publishers => catalog.publishers(tenant).await,
            Ask::Revocations => catalog.revocations(tenant).await,
            Ask::Upload => {
                catalog.begin_upload(&actor)?;
                catalog.upload(&actor, self.bytes(MAX_PACKAGE).await?.into()).await
            }
            Ask::Delete { name, version } => catalog.delete(&actor, &name, &version).await,
            Ask::Step { name, step } => {
                let verb = Verb::parse(&step).ok_or(CatalogError::NotFound)?;
                let StepBody { version, config, mode, percent, slo, order, told, reason } =
                    self.json().await?;
                let wanted = Wanted { version, config, mode, percent, slo, order, told, reason };
                catalog.step(&actor, &name, verb, wanted).await
            }
            Ask::Grant { name } => {
                let GrantBody { capability, expires_at } = self.json().await?;
                catalog.grant(&actor, &name, NewGrant { capability, expires_at }).await
            }
            Ask::WithdrawGrant { name, capability } => {
                catalog.withdraw_grant(&actor, &name, &capability).await
            }
            Ask::Trust => {
                let KeyBody { public_key, namespace, kinds, label, expires_at, replaces } =
                    self.json().await?;
                catalog
                    .trust(&actor, NewKey { public_key, namespace, kinds, label, expires_at, replaces })
                    .await
            }
            Ask::Revoke => {
                let (kind, subject, reason) = self.json::<RevocationBody>().await?.subject()?;
                catalog.revoke(&actor, NewRevocation { kind, subject, reason }).await
            }
        };
        answer.map_err(Refused::Catalog)
    }

    /// Which catalog, and whether the role reaches that far.
    async fn allow(
        &mut self,
        principal: &Principal,
        scope: &Scope,
        reach: Reach,
    ) -> Result<(), CatalogError> {
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
            Reach::Step
        } else if has("author") {
            Reach::Upload
        } else {
            return Err(CatalogError::Forbidden("this takes the role admin, tenant-admin or author"));
        };
        if scope.tenant.as_ref().is_some_and(|tenant| tenant != principal.tenant.as_str()) {
            return Err(CatalogError::NotFound);
        }
        if reach > most {
            return Err(CatalogError::Forbidden("this takes the role tenant-admin"));
        }
        self.actor.tenant = Some(principal.tenant.clone());
        Ok(())
    }

    async fn bytes(&mut self, limit: usize) -> Result<bytes::Bytes, Refused> {
        let body = std::mem::take(&mut self.body);
        let limits = BodyLimits { each: limit, ..self.edge.settings.load().bodies };
        let who = (self.actor.who.tenant_id.as_str(), self.actor.who.user_id.as_str());
        self.edge
            .bodies
            .read(&self.headers, body, who, &limits, &self.request_id)
            .await
            .map_err(Refused::Request)
    }

    /// A JSON body; none is an empty object.
    async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Refused> {
        let bytes = self.bytes(MAX_JSON).await?;
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(bytes)
            .map_err(|error| CatalogError::Invalid(format!("the body is not understood: {error}")).into())
    }

    /// What was not done is told, and is a row unless somebody only looked.
    async fn refuse(self, error: &CatalogError, looked: bool) -> Response {
        let answer = ApiError::catalog(error, &self.request_id).into_response();
        if answer.status().is_server_error() {
            tracing::error!(request.id = self.request_id, "{} was not done: {error:?}", self.action);
        }
        let forbidden = matches!(error, CatalogError::Forbidden(_));
        if looked && !forbidden || matches!(error, CatalogError::Audit(_)) {
            return answer;
        }
        let (status, _, code) = catalog_table(error);
        let outcome = if status.is_server_error() { Outcome::Error } else { Outcome::Denied };
        let payload = json!({
            "code": format!("admin_{code}"),
            "reason": error.to_string(),
            "action": self.action,
            "catalog": self.actor.tenant.as_ref().map_or("platform", TenantId::as_str),
            "request_id": self.request_id,
        });
        let who = self.actor.who.clone();
        let row = Event::plain(self.edge.clock.now(), Kind::Admin, who, outcome, payload);
        match self.edge.audit.record(row).await {
            Ok(()) => answer,
            Err(_) => ApiError::audit_unavailable(&self.request_id).into_response(),
        }
    }
}

// === impl RevocationBody ===

impl RevocationBody {
    fn subject(self) -> Result<(RevocationKind, String, String), CatalogError> {
        let Self { digest, version, key, reason } = self;
        match (digest, version, key) {
            (Some(digest), None, None) => Ok((RevocationKind::Digest, digest, reason)),
            (None, Some(version), None) => Ok((RevocationKind::Version, version, reason)),
            (None, None, Some(key)) => Ok((RevocationKind::Key, key, reason)),
            _ => Err(CatalogError::Invalid("name a digest, a version, or a key".to_owned())),
        }
    }
}
