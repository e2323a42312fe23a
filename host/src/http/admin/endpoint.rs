//! An endpoint of administrators: its handler, and what follows from the handler's types. What the types cannot say (what it is for,
//! which codes it ends in, which row it leaves) is said beside the route; the reference is printed from both.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::Extension;
use axum::extract::Path;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use sallyport_protocol::audit::Action;
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::package::MAX_PACKAGE;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::super::Edge;
use super::{Admin, Level, MAX_JSON, Reach};

/// Codes that every request of an administrator may end in.
const EVERYWHERE: [ErrorCode; 9] = [
    ErrorCode::InvalidToken,
    ErrorCode::InsufficientScope,
    ErrorCode::IdentityMismatch,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::AuditUnavailable,
    ErrorCode::DatabaseUnavailable,
    ErrorCode::Unreadable,
    ErrorCode::NotInForceYet,
];
/// Codes of requests that have a body.
const WITH_BODY: [ErrorCode; 3] = [ErrorCode::RequestTooLarge, ErrorCode::BodyTooSlow, ErrorCode::BodiesFull];

/// A handler with its route.
pub(super) struct AdminEndpoint {
    pub(super) facts: EndpointFacts,
    handler: MethodRouter<Arc<Edge>>,
}

/// What an endpoint is.
pub(super) struct EndpointFacts {
    /// Names it: the resource, a dot, and what is done.
    pub(super) id: &'static str,
    pub(super) method: Method,
    /// As the router takes it.
    pub(super) path: &'static str,
    /// How far the caller's role has to reach.
    pub(super) level: Level,
    pub(super) about: &'static str,
    pub(super) body: BodyShape,
    /// The answer.
    pub(super) answer: ShapeOf,
    /// What it may end in, besides what every endpoint may.
    codes: &'static [ErrorCode],
    /// What is written when it is done.
    pub(super) rows: &'static [Action],
}

/// A shape, once there is somebody to gather its parts.
pub(super) type ShapeOf = fn(&mut SchemaGenerator) -> Schema;

/// What a request brings.
#[derive(Clone, Copy)]
pub(super) enum BodyShape {
    /// No body, or one that is not read.
    None,
    /// A package, as it is.
    Package,
    /// JSON.
    Json(ShapeOf),
}

/// What an endpoint takes.
pub(super) trait AdminInput: Send + Sync + 'static {
    const SHAPE: BodyShape;
}

/// No body.
pub(super) struct NoBody;
/// A package.
pub(super) struct PackageBytes;
/// JSON.
pub(super) struct JsonBody<T>(PhantomData<fn() -> T>);

/// The answer to an administrator, which holds an `A` or an error.
pub(super) struct AdminAnswer<A> {
    response: Response,
    holds: PhantomData<A>,
}

/// What a handler's type says: `M` is made of its parameters, so that each form of handler has an implementation of its own.
pub(super) trait Describe<M> {
    const LEVEL: Level;
    const BODY: BodyShape;
    const ANSWER: ShapeOf;
}

// === impl AdminEndpoint ===

impl AdminEndpoint {
    /// An endpoint that is asked with GET.
    pub(super) fn get<H, T, M>(id: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Edge>> + Describe<M>,
        T: 'static,
    {
        Self::new(id, (Method::GET, MethodFilter::GET), path, handler)
    }

    /// An endpoint that is asked with POST.
    pub(super) fn post<H, T, M>(id: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Edge>> + Describe<M>,
        T: 'static,
    {
        Self::new(id, (Method::POST, MethodFilter::POST), path, handler)
    }

    /// An endpoint that is asked with DELETE.
    pub(super) fn delete<H, T, M>(id: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Edge>> + Describe<M>,
        T: 'static,
    {
        Self::new(id, (Method::DELETE, MethodFilter::DELETE), path, handler)
    }

    fn new<H, T, M>(
        id: &'static str,
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Edge>> + Describe<M>,
        T: 'static,
    {
        let facts = EndpointFacts {
            id,
            method,
            path,
            level: H::LEVEL,
            about: "",
            body: H::BODY,
            answer: H::ANSWER,
            codes: &[],
            rows: &[],
        };
        Self { facts, handler: on(filter, handler) }
    }

    /// What it is for.
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.facts.about = about;
        self
    }

    /// What it may end in, besides what every endpoint may.
    pub(super) fn codes(mut self, codes: &'static [ErrorCode]) -> Self {
        self.facts.codes = codes;
        self
    }

    /// The row that it leaves when it is done: one of these.
    pub(super) fn rows(mut self, rows: &'static [Action]) -> Self {
        self.facts.rows = rows;
        self
    }

    /// For the router. Whoever refuses a request looks whether the code is one that the reference has.
    pub(super) fn route(self) -> (&'static str, MethodRouter<Arc<Edge>>) {
        let documented = DocumentedCodes(self.facts.codes().into());
        (self.facts.path, self.handler.layer(Extension(documented)))
    }
}

/// The codes that the reference has of an endpoint.
#[derive(Clone)]
pub(super) struct DocumentedCodes(pub(super) Arc<[ErrorCode]>);

// === impl EndpointFacts ===

impl EndpointFacts {
    /// Every code that it may end in.
    pub(super) fn codes(&self) -> Vec<ErrorCode> {
        let body: &[ErrorCode] = match self.body {
            BodyShape::None => &[],
            BodyShape::Package => &WITH_BODY,
            BodyShape::Json(_) => &[ErrorCode::Invalid, WITH_BODY[0], WITH_BODY[1], WITH_BODY[2]],
        };
        let mut codes = [&EVERYWHERE, body, self.codes].concat();
        codes.sort_by_key(|code| code.as_str());
        codes.dedup();
        codes
    }
}

// === impl AdminInput ===

impl AdminInput for NoBody {
    const SHAPE: BodyShape = BodyShape::None;
}

impl AdminInput for PackageBytes {
    const SHAPE: BodyShape = BodyShape::Package;
}

impl<T: JsonSchema + DeserializeOwned + 'static> AdminInput for JsonBody<T> {
    const SHAPE: BodyShape = BodyShape::Json(T::json_schema);
}

impl BodyShape {
    /// The longest body.
    pub(super) const fn limit(self) -> usize {
        match self {
            Self::None => 0,
            Self::Package => MAX_PACKAGE,
            Self::Json(_) => MAX_JSON,
        }
    }
}

// === impl AdminAnswer ===

impl<A> AdminAnswer<A> {
    pub(super) fn new(response: Response) -> Self {
        Self { response, holds: PhantomData }
    }
}

impl<A> IntoResponse for AdminAnswer<A> {
    fn into_response(self) -> Response {
        self.response
    }
}

// === impl Describe ===

impl<F, Done, R, B, A> Describe<(R, B, A)> for F
where
    F: Fn(Admin<R, B>) -> Done,
    Done: Future<Output = AdminAnswer<A>>,
    R: Reach,
    B: AdminInput,
    A: JsonSchema,
{
    const LEVEL: Level = R::LEVEL;
    const BODY: BodyShape = B::SHAPE;
    const ANSWER: ShapeOf = shape::<A>;
}

impl<F, Done, P, R, B, A> Describe<(P, R, B, A)> for F
where
    F: Fn(Path<P>, Admin<R, B>) -> Done,
    Done: Future<Output = AdminAnswer<A>>,
    R: Reach,
    B: AdminInput,
    A: JsonSchema,
{
    const LEVEL: Level = R::LEVEL;
    const BODY: BodyShape = B::SHAPE;
    const ANSWER: ShapeOf = shape::<A>;
}

fn shape<A: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<A>()
}
