//! The facts of a call: what every component is told of it, read once from headers, token and index.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use sallyport_protocol::headers;
use sallyport_protocol::id::TraceId;
use sallyport_protocol::messages::index::{Index, Origin};

use super::{Inbound, Operation};
use crate::auth::Principal;
use crate::clock::{Clock, Entropy};
use crate::component::contract::{
    Attribute, BodyView, Call as CallFacts, Principal as PrincipalFacts, Segment, SegmentKind,
};
use crate::config::Route;

/// Longest name of a session that is kept.
const LONGEST_SESSION: usize = 256;

/// A request that was read.
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Arc<Body>,
    pub(super) principal: Arc<Principal>,
    /// The client's name of its session; where it has none, the session of the credential.
    pub(super) session: String,
    pub(super) facts: CallFacts,
    pub(super) trace: TraceId,
    pub(super) http_id: String,
}

/// The client's body and its index.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) index: Index,
    texts: OnceLock<Vec<Segment>>,
}

// === impl Request ===

impl Request {
    pub(super) fn new(inbound: Inbound, trace: TraceId, index: Index, clock: &dyn Clock) -> Self {
        let Inbound { operation, target, headers, body, principal, request_id } = inbound;
        let facts = CallFacts {
            trace: trace.as_str().to_owned(),
            time_ms: (clock.now().unix_timestamp_nanos() / 1_000_000).to_string(),
            principal: principal_facts(&principal),
            model: index.model.clone(),
            route: String::new(),
            provider: String::new(),
            streaming: index.stream,
            max_tokens: index.max_tokens,
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            message_count: index.message_count,
            tools: index.tools.clone(),
            agent: text(&headers, headers::AGENT_NAME).map(str::to_owned),
            region: None,
            attributes: attributes(operation, &headers),
        };
        let body = Arc::new(Body::new(body, index));
        let session = session_of(&headers, &principal);
        Self { operation, target, headers, body, principal, session, facts, trace, http_id: request_id }
    }

    /// Names `route` in the facts.
    pub(super) fn consider(&mut self, route: &Route) {
        route.pattern.as_str().clone_into(&mut self.facts.route);
        self.facts.provider.clone_from(&route.provider);
        self.facts.region.clone_from(&route.region);
    }

    /// The same request with what hooks and scanners made of its body.
    pub(super) fn with_body(&self, bytes: Bytes, index: Index) -> Self {
        let body_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            operation: self.operation,
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: Arc::new(Body::new(bytes, index)),
            principal: Arc::clone(&self.principal),
            session: self.session.clone(),
            facts: CallFacts { body_bytes, ..self.facts.clone() },
            trace: self.trace.clone(),
            http_id: self.http_id.clone(),
        }
    }

    /// Whether the client wants a stream.
    pub(super) fn streams(&self) -> bool {
        self.body.index.stream && self.operation == Operation::Message
    }
}

// === impl Body ===

impl Body {
    fn new(bytes: Bytes, index: Index) -> Self {
        Self { bytes, index, texts: OnceLock::new() }
    }
}

impl BodyView for Body {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn texts(&self) -> Vec<Segment> {
        let read = || {
            self.index.texts.iter().map(|text| Segment {
                kind: segment_kind(text.origin),
                text: text.read(&self.bytes).into_owned(),
                offset: text.span.start,
                len: text.span.len(),
            })
        };
        self.texts.get_or_init(|| read().collect()).clone()
    }
}

// === private helpers ===

/// One trace per call. The id in the credential helper's headers is cached for as long as its token, so it is not the call's:
/// only W3C trace context and the client's own `x-trace-id` next to no other identity header name a call.
pub(super) fn trace_of(headers: &HeaderMap, clock: &dyn Clock, entropy: &dyn Entropy) -> TraceId {
    if let Some(trace) = text(headers, headers::TRACEPARENT).and_then(TraceId::from_traceparent) {
        return trace;
    }
    let from_helper =
        headers.contains_key(headers::SESSION_ID) || headers.contains_key(headers::POLICY_VERSION);
    if !from_helper && let Some(Ok(trace)) = text(headers, headers::TRACE_ID).map(TraceId::parse) {
        return trace;
    }
    let mut random = [0; 10];
    entropy.fill(&mut random);
    let now = clock.now().unix_timestamp_nanos() / 1_000_000;
    TraceId::at(u64::try_from(now).unwrap_or(0), random)
}

/// A header's text, if it stands once and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The session that a client names, if it looks like a name.
fn session_of(headers: &HeaderMap, principal: &Principal) -> String {
    text(headers, headers::CLAUDE_CODE_SESSION_ID)
        .filter(|name| (1..=LONGEST_SESSION).contains(&name.len()))
        .unwrap_or_else(|| principal.session.as_str())
        .to_owned()
}

pub(super) fn principal_facts(principal: &Principal) -> PrincipalFacts {
    PrincipalFacts {
        user: principal.user.as_str().to_owned(),
        tenant: principal.tenant.as_str().to_owned(),
        session: principal.session.as_str().to_owned(),
        client: principal.client.as_str().to_owned(),
        source: principal.source.as_str().to_owned(),
        roles: principal.roles.clone(),
        department: principal.department.clone(),
        scopes: principal.scopes.clone(),
        attributes: Vec::new(),
    }
}

fn attributes(operation: Operation, headers: &HeaderMap) -> Vec<Attribute> {
    let named = [
        ("claude_code.session", headers::CLAUDE_CODE_SESSION_ID),
        ("claude_code.prompt", headers::CLAUDE_CODE_PROMPT_ID),
        ("claude_code.request_class", headers::CLAUDE_CODE_REQUEST_CLASS),
        ("claude_code.agent", headers::CLAUDE_CODE_AGENT_ID),
        ("claude_code.agent_type", headers::CLAUDE_CODE_AGENT_TYPE),
    ];
    let operation = match operation {
        Operation::Message => "message",
        Operation::CountTokens => "count_tokens",
    };
    let operation = Attribute { name: "operation".to_owned(), value: operation.to_owned() };
    let said = named.into_iter().filter_map(|(name, header)| {
        let value = text(headers, header)?.to_owned();
        Some(Attribute { name: name.to_owned(), value })
    });
    std::iter::once(operation).chain(said).collect()
}

fn segment_kind(origin: Origin) -> SegmentKind {
    match origin {
        Origin::System => SegmentKind::System,
        Origin::User => SegmentKind::User,
        Origin::Assistant => SegmentKind::Assistant,
        Origin::ToolInput => SegmentKind::ToolInput,
        Origin::ToolOutput => SegmentKind::ToolOutput,
        Origin::Document => SegmentKind::Document,
    }
}
