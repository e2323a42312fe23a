//! SCIM 2.0 (RFC 7643, 7644): an identity provider makes, changes and ends users, and says which groups they are in. It reaches the tenant of its
//! credential, and in it what it made itself.

mod groups;
mod patch;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http_body_util::{BodyExt as _, Limited};
use sallyport_protocol::id::TenantId;
use sallyport_protocol::strict_json;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pages::Fields;
use super::{Edge, caller, mark};
use crate::audit::{Action, Event, Outcome};
use crate::auth::{Principal, form};
use crate::db::DbError;
use crate::db::scim::ScimFilter;

/// Longest body.
pub(super) const LONGEST_RESOURCE: usize = 256 * 1024;
/// Longest id of a provider's own.
const LONGEST_EXTERNAL: usize = 255;
/// Resources of one page.
pub(super) const LARGEST_SCIM_PAGE: i64 = 200;
/// The same unless it is asked for.
const USUAL_SCIM_PAGE: i64 = 100;
/// Members of a group.
pub(super) const MOST_MEMBERS: usize = 5_000;

const MEDIA: &str = "application/scim+json";
const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/scim/v2/Users", get(users::list).post(users::create))
        .route(
            "/scim/v2/Users/{id}",
            get(users::one).put(users::replace).patch(users::change).delete(users::delete),
        )
        .route("/scim/v2/Groups", get(groups::list).post(groups::create))
        .route(
            "/scim/v2/Groups/{id}",
            get(groups::one).put(groups::replace).patch(groups::change).delete(groups::delete),
        )
        .route("/scim/v2/ServiceProviderConfig", get(config))
        .route("/scim/v2/ResourceTypes", get(resource_types))
}

/// A provider that asks something.
struct ScimCall {
    edge: Arc<Edge>,
    principal: Arc<Principal>,
    request_id: String,
}

/// Why it is not done (RFC 7644, section 3.12).
#[derive(Debug)]
struct ScimError {
    status: StatusCode,
    kind: Option<&'static str>,
    detail: String,
}

/// Which part of a list is asked for.
#[derive(Debug, PartialEq, Eq)]
struct ScimPage {
    filter: ScimFilter,
    start: i64,
    count: i64,
    /// Whether members of groups are to be left out.
    bare: bool,
}

type Done = Result<Response, ScimError>;

// === impl ScimCall ===

impl FromRequestParts<Arc<Edge>> for ScimCall {
    type Rejection = Response;

    /// Asks who it is. The credential has the scope `scim`, and no other one will do.
    async fn from_request_parts(head: &mut Parts, edge: &Arc<Edge>) -> Result<Self, Response> {
        let request_id = edge.request_id();
        match caller::with_scope(edge, head, form::SCIM, &request_id).await {
            Ok(principal) => Ok(Self { edge: Arc::clone(edge), principal, request_id }),
            Err(error) => Err(error.into_response()),
        }
    }
}

impl ScimCall {
    fn tenant(&self) -> &TenantId {
        &self.principal.tenant
    }

    fn now(&self) -> OffsetDateTime {
        crate::db::seconds(self.edge.clock.now())
    }

    /// Where a resource is.
    fn location(&self, kind: &str, id: &str) -> String {
        format!("{}/scim/v2/{kind}/{id}", self.edge.pipeline.config().server.public_url)
    }

    fn random_id(&self, prefix: &str) -> String {
        let mut bytes = [0; 16];
        self.edge.entropy.fill(&mut bytes);
        format!("{prefix}{}", sallyport_protocol::canonical::hex(&bytes))
    }

    /// The row of what is about to be done, or, with `outcome`, of what was not done after all.
    async fn row(
        &self,
        action: Action,
        subject: &str,
        detail: Value,
        outcome: Outcome,
    ) -> Result<(), ScimError> {
        let payload = json!({ "subject": subject, "detail": detail });
        let who = caller::who(&self.edge, &self.principal);
        let event = Event::change(self.edge.clock.now(), action, who, outcome, payload);
        self.edge.audit.record(event).await.map_err(|_| ScimError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: None,
            detail: "the audit trail is not available, so the gateway does not go on".to_owned(),
        })
    }

    /// What was stored takes effect here at once.
    async fn adopt(&self) {
        if let Err(error) = self.edge.auth.refresh().await {
            tracing::warn!(%error, "what a provider changed takes effect when the database answers again");
        }
    }

    fn answer(&self, status: StatusCode, body: &Value) -> Response {
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA));
        super::keep_out_of_caches(&mut response);
        mark(&mut response, &self.request_id);
        response
    }

    fn empty(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        mark(&mut response, &self.request_id);
        response
    }

    /// A page of a list.
    fn page(&self, page: &ScimPage, total: i64, resources: &[Value]) -> Response {
        let body = json!({
            "schemas": [LIST],
            "totalResults": total,
            "startIndex": page.start,
            "itemsPerPage": resources.len(),
            "Resources": resources,
        });
        self.answer(StatusCode::OK, &body)
    }

    /// What was done, or why it was not.
    fn close(&self, done: Done) -> Response {
        let error = match done {
            Ok(response) => return response,
            Err(error) => error,
        };
        let mut body = json!({ "schemas": [ERROR], "status": error.status.as_str(), "detail": error.detail });
        if let (Some(kind), Some(fields)) = (error.kind, body.as_object_mut()) {
            fields.insert("scimType".to_owned(), kind.into());
        }
        self.answer(error.status, &body)
    }
}

// === impl ScimError ===

impl ScimError {
    fn invalid(kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: Some(kind), detail: detail.into() }
    }

    fn gone() -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: None, detail: "there is no such resource".to_owned() }
    }

    fn taken(detail: &str) -> Self {
        Self { status: StatusCode::CONFLICT, kind: Some("uniqueness"), detail: detail.to_owned() }
    }
}

impl From<DbError> for ScimError {
    fn from(_: DbError) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: None,
            detail: "the database of identities does not answer".to_owned(),
        }
    }
}

// === impl ScimPage ===

impl ScimPage {
    /// What the query asks for; `name` is the attribute that names these resources.
    fn read(head: &Parts, name: &str) -> Result<Self, ScimError> {
        let fields = Fields::of_query(head).ok_or_else(|| {
            ScimError::invalid("invalidSyntax", "a parameter is there twice, or cannot be read")
        })?;
        let number = |field: &str, usual: i64| match fields.get(field) {
            None => Ok(usual),
            Some(text) => text
                .parse::<i64>()
                .map_err(|_| ScimError::invalid("invalidValue", format!("{field} is no number"))),
        };
        Ok(Self {
            filter: fields.get("filter").map_or(Ok(ScimFilter::All), |text| filter(text, name))?,
            // Less than one means one (section 3.4.2.4), and of nothing there is nothing.
            start: number("startIndex", 1)?.max(1),
            count: number("count", USUAL_SCIM_PAGE)?.clamp(0, LARGEST_SCIM_PAGE),
            bare: fields.text("excludedAttributes").split(',').any(|it| it.trim() == "members"),
        })
    }

    fn skip(&self) -> i64 {
        self.start - 1
    }
}

// === documents ===

/// `GET /scim/v2/ServiceProviderConfig`
async fn config(call: ScimCall) -> Response {
    let no = json!({ "supported": false });
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": LARGEST_SCIM_PAGE },
        "changePassword": no,
        "sort": no,
        "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Personal access token",
            "description": "A personal access token with the scope scim",
            "primary": true,
        }],
    });
    call.answer(StatusCode::OK, &body)
}

/// `GET /scim/v2/ResourceTypes`
async fn resource_types(call: ScimCall) -> Response {
    let kind = |name: &str, schema: &str, extensions: Value| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": format!("/{name}s"),
            "schema": schema,
            "schemaExtensions": extensions,
        })
    };
    let extension = json!([{ "schema": ENTERPRISE, "required": false }]);
    let page = ScimPage { filter: ScimFilter::All, start: 1, count: 2, bare: false };
    call.page(&page, 2, &[kind("User", USER, extension), kind("Group", GROUP, json!([]))])
}

// === private helpers ===

/// `userName eq "x"`, and the same of `externalId`: what providers ask before they make something.
fn filter(text: &str, name: &str) -> Result<ScimFilter, ScimError> {
    let understood = || {
        let (attribute, rest) = text.trim().split_once(' ')?;
        let (operator, value) = rest.trim_start().split_once(' ')?;
        let value: String = serde_json::from_str(value.trim()).ok()?;
        if !operator.eq_ignore_ascii_case("eq") || value.is_empty() {
            return None;
        }
        if attribute.eq_ignore_ascii_case(name) {
            Some(ScimFilter::Name(value))
        } else if attribute.eq_ignore_ascii_case("externalId") {
            Some(ScimFilter::ExternalId(value))
        } else {
            None
        }
    };
    understood().ok_or_else(|| {
        ScimError::invalid("invalidFilter", format!("a filter is {name} eq \"..\", or externalId eq \"..\""))
    })
}

/// The body of a request.
async fn body(head: &Parts, body: Body) -> Result<Value, ScimError> {
    let media = head.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case(MEDIA) && !media.eq_ignore_ascii_case("application/json") {
        return Err(ScimError {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            kind: None,
            detail: format!("this takes {MEDIA}"),
        });
    }
    let too_slow = |_| ScimError {
        status: StatusCode::REQUEST_TIMEOUT,
        kind: None,
        detail: "the body came too slowly".to_owned(),
    };
    let too_long = |_| ScimError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        kind: None,
        detail: format!("a body has at most {LONGEST_RESOURCE} bytes"),
    };
    let reading = Limited::new(body, LONGEST_RESOURCE).collect();
    let read = tokio::time::timeout(super::secure::HANDSHAKE, reading).await.map_err(too_slow)?;
    let bytes = read.map_err(too_long)?.to_bytes();
    let value: Value = strict_json::parse(&bytes, LONGEST_RESOURCE).map_err(|_| {
        ScimError::invalid("invalidSyntax", "the body is no JSON that can be read in one way")
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ScimError::invalid("invalidSyntax", "the body is no object"))
    }
}

/// A time as it stands in `meta`.
fn stamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_one_attribute_and_one_value() {
        let of = |text: &str| filter(text, "userName").ok();
        assert_eq!(of(r#"userName eq "ann""#), Some(ScimFilter::Name("ann".to_owned())));
        assert_eq!(of(r#"USERNAME EQ "a\"b""#), Some(ScimFilter::Name("a\"b".to_owned())));
        assert_eq!(of(r#"externalId eq "1 or 2""#), Some(ScimFilter::ExternalId("1 or 2".to_owned())));
        for bad in [
            "",
            "userName",
            "userName eq",
            "userName eq ann",
            r#"userName eq """#,
            r#"userName sw "a""#,
            r#"userName eq "a" or userName eq "b""#,
            r#"password eq "x""#,
            r#"displayName eq "x""#,
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
