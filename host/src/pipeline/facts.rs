//! The facts of a call: what every component is told of it, read once from headers, token and index.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use sallyport_protocol::headers;
use sallyport_protocol::id::TraceId;
use sallyport_protocol::messages::index::Index;

use super::{Inbound, Operation};
use crate::auth::Principal;
use crate::clock::{Clock, Entropy};
use crate::component::contract::{
    Attribute, BodyView, Call as CallFacts, Principal as PrincipalFacts, Segment,
};
use crate::component::sample::{HEAD, UNKNOWN, segments, unknown_of};
use crate::config::Route;
use crate::upstream::travelling;

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
    /// What travels beside it: the query string and the headers.
    pub(super) head: Arc<str>,
    texts: OnceLock<Vec<Segment>>,
}

// === impl Request ===

impl Request {
    pub(super) fn new(inbound: Inbound, trace: TraceId, index: Index, clock: &dyn Clock) -> Self {
        let Inbound { operation, target, headers, body, principal, request_id } = inbound;
        let head = head_of(&target, &headers);
        let mut facts = CallFacts {
            trace: trace.as_str().to_owned(),
            time_ms: (clock.now().unix_timestamp_nanos() / 1_000_000).to_string(),
            principal: principal_facts(&principal),
            model: String::new(),
            route: String::new(),
            provider: String::new(),
            streaming: false,
            max_tokens: None,
            body_bytes: 0,
            message_count: 0,
            tools: Vec::new(),
            agent: text(&headers, headers::AGENT_NAME).map(str::to_owned),
            region: None,
            attributes: attributes(operation, &headers),
        };
        facts.attributes.push(Attribute { name: HEAD.to_owned(), value: head.as_ref().to_owned() });
        read_from(&mut facts, &body, &index);
        let body = Arc::new(Body::new(body, index, head));
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
        let mut facts = self.facts.clone();
        // What was changed may name other tools.
        read_from(&mut facts, &bytes, &index);
        Self {
            operation: self.operation,
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: Arc::new(Body::new(bytes, index, Arc::clone(&self.body.head))),
            principal: Arc::clone(&self.principal),
            session: self.session.clone(),
            facts,
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
    fn new(bytes: Bytes, index: Index, head: Arc<str>) -> Self {
        Self { bytes, index, head, texts: OnceLock::new() }
    }
}

impl BodyView for Body {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn texts(&self) -> Vec<Segment> {
        let read = || segments(self.index.texts.iter(), &self.bytes, Some(&self.head));
        self.texts.get_or_init(read).clone()
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

/// What the facts have from the body.
fn read_from(facts: &mut CallFacts, bytes: &Bytes, index: &Index) {
    facts.model.clone_from(&index.model);
    facts.streaming = index.stream;
    facts.max_tokens = index.max_tokens;
    facts.body_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    facts.message_count = index.message_count;
    facts.tools.clone_from(&index.tools);
    facts.attributes.retain(|attribute| attribute.name != UNKNOWN);
    facts.attributes.extend(unknown_of(Some(index)));
}

/// The query string and the headers that travel to the upstream, one a line.
fn head_of(target: &str, headers: &HeaderMap) -> Arc<str> {
    let mut head = String::new();
    if let Some((_, query)) = target.split_once('?') {
        head.push('?');
        head.push_str(query);
        head.push('\n');
        // Escapes would hide a text from whoever looks for it.
        let read = decoded(query);
        if read != query {
            head.push('?');
            head.push_str(&read);
            head.push('\n');
        }
    }
    for Attribute { name, value } in travelling(headers) {
        head.push_str(&name);
        head.push_str(": ");
        head.push_str(&value);
        head.push('\n');
    }
    head.into()
}

/// A query with its percent escapes as the characters that they are.
fn decoded(query: &str) -> String {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_beside_the_body_is_one_text_and_escapes_hide_nothing_in_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("anthropic-beta", "a,b"), ("authorization", "Bearer x"), ("cookie", "y")] {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        let head = head_of("/v1/messages?beta=%74rue&x=%zz%2", &headers);
        assert_eq!(&*head, "?beta=%74rue&x=%zz%2\n?beta=true&x=%zz%2\nanthropic-beta: a,b\n");
        assert_eq!(&*head_of("/v1/messages", &HeaderMap::new()), "");
    }
}
