//! The facts of a call: what every component is told of it, read once from headers, token and index.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use sallyport_protocol::headers;
use sallyport_protocol::id::{CallSource, TraceId};
use sallyport_protocol::messages::index::{Index, Unit};

use super::lineage::Lineage;
use super::memo::TextHash;
use super::{Inbound, Operation};
use crate::auth::Principal;
use crate::clock::{Clock, Entropy};
use crate::component::contract::{
    Attribute, BodyView, Call as CallFacts, Principal as PrincipalFacts, Segment,
};
use crate::component::request::{HEAD, UNKNOWN, segments, unknown_of};
use crate::config::{Route, RouteTarget};
use crate::upstream::travelling;

/// What travels beside a body mostly takes less.
const HEAD_BYTES: usize = 512;

/// A request that was read.
pub(super) struct Request {
    /// The day on which it came, in UTC: its prices count.
    pub(super) day: time::Date,
    pub(super) operation: Operation,
    pub(super) target: String,
    pub(super) body: Arc<ClientBody>,
    pub(super) principal: Arc<Principal>,
    pub(super) lineage: Lineage,
    pub(super) facts: Arc<CallFacts>,
    pub(super) trace: TraceId,
    pub(super) http_id: String,
}

/// The client's body and its index.
#[derive(Debug)]
pub(super) struct ClientBody {
    pub(super) bytes: Bytes,
    pub(super) index: Arc<Index>,
    /// What scanners are asked about, where it is known already, with its hashes.
    pub(super) units: Option<Arc<[(Unit, TextHash)]>>,
    /// What travels beside it: the query string and the headers.
    pub(super) head: Arc<str>,
    /// Where the headers begin in it.
    headers_at: usize,
    texts: OnceLock<Vec<Segment>>,
}

// === impl Request ===

impl Request {
    pub(super) fn new(
        inbound: Inbound,
        lineage: Lineage,
        trace: TraceId,
        index: Arc<Index>,
        clock: &dyn Clock,
    ) -> Self {
        let Inbound { operation, target, headers, body, principal, request_id } = inbound;
        let (head, headers_at) = head_of(&target, &headers);
        let now = clock.now();
        let mut facts = CallFacts {
            trace: trace.shared(),
            time_ms: (now.unix_timestamp_nanos() / 1_000_000).to_string().into(),
            principal: facts_of(&principal, lineage.source),
            model: Arc::default(),
            route: Arc::default(),
            provider: Arc::default(),
            streaming: false,
            max_tokens: None,
            body_bytes: 0,
            message_count: 0,
            tools: Arc::default(),
            agent: text(&headers, headers::AGENT_NAME).map(Arc::from),
            region: None,
            attributes: attributes(operation, &headers),
        };
        facts.attributes.push(Attribute { name: HEAD.to_owned(), value: head.as_ref().to_owned() });
        read_from(&mut facts, &body, &index);
        let body = Arc::new(ClientBody::new(body, index, head, headers_at));
        let facts = Arc::new(facts);
        // The headers as they came are let go: they keep a buffer of the connection, for as long as the call takes.
        Self {
            operation,
            target,
            body,
            principal,
            lineage,
            facts,
            trace,
            http_id: request_id,
            day: now.date(),
        }
    }

    /// Names `route`, and the first of its targets, in the facts.
    pub(super) fn consider(&mut self, route: &Route, first: &RouteTarget) {
        // A predicate that did not come to its end may have them still.
        let facts = Arc::make_mut(&mut self.facts);
        facts.route = route.pattern.as_str().into();
        goes_to(facts, first);
    }

    /// The same request under another trace.
    pub(super) fn traced(mut self, trace: TraceId) -> Self {
        Arc::make_mut(&mut self.facts).trace = trace.shared();
        Self { trace, ..self }
    }

    /// The same request on its way to another target of its route.
    pub(super) fn at(&self, target: &RouteTarget) -> Self {
        let mut facts = CallFacts::clone(&self.facts);
        goes_to(&mut facts, target);
        self.with(Arc::clone(&self.body), facts)
    }

    /// The same request with what hooks and scanners made of its body.
    pub(super) fn with_body(&self, bytes: Bytes, index: Index) -> Self {
        let mut facts = CallFacts::clone(&self.facts);
        // What was changed may name other tools.
        read_from(&mut facts, &bytes, &index);
        self.with(Arc::new(self.body.changed(bytes, index)), facts)
    }

    fn with(&self, body: Arc<ClientBody>, facts: CallFacts) -> Self {
        Self {
            operation: self.operation,
            target: self.target.clone(),
            body,
            principal: Arc::clone(&self.principal),
            lineage: self.lineage.clone(),
            facts: Arc::new(facts),
            trace: self.trace.clone(),
            http_id: self.http_id.clone(),
            day: self.day,
        }
    }

    /// With what is known of the texts of its body.
    pub(super) fn knowing(mut self, units: Option<Arc<[(Unit, TextHash)]>>) -> Self {
        if let Some(body) = Arc::get_mut(&mut self.body) {
            body.units = units;
        }
        self
    }

    /// Whether the client wants a stream.
    pub(super) fn streams(&self) -> bool {
        self.body.index.stream && self.operation == Operation::Message
    }
}

// === impl ClientBody ===

impl ClientBody {
    fn new(bytes: Bytes, index: Arc<Index>, head: Arc<str>, headers_at: usize) -> Self {
        Self { bytes, index, units: None, head, headers_at, texts: OnceLock::new() }
    }

    /// Other bytes beside the same head.
    fn changed(&self, bytes: Bytes, index: Index) -> Self {
        Self::new(bytes, Arc::new(index), Arc::clone(&self.head), self.headers_at)
    }

    /// The headers that travel.
    pub(super) fn headers(&self) -> Vec<Attribute> {
        let lines = self.head.get(self.headers_at..).unwrap_or_default().split_terminator('\n');
        let named = lines.filter_map(|line| line.split_once(": "));
        named.map(|(name, value)| Attribute { name: name.to_owned(), value: value.to_owned() }).collect()
    }
}

impl BodyView for ClientBody {
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
    minted(clock, entropy)
}

/// A trace that nobody named.
pub(super) fn minted(clock: &dyn Clock, entropy: &dyn Entropy) -> TraceId {
    let mut random = [0; 10];
    entropy.fill(&mut random);
    let now = clock.now().unix_timestamp_nanos() / 1_000_000;
    TraceId::at(u64::try_from(now).unwrap_or(0), random)
}

/// A header's text, if it stands once and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn principal_facts(principal: &Principal) -> PrincipalFacts {
    facts_of(principal, principal.source)
}

/// The same for a call that comes from `source`.
fn facts_of(principal: &Principal, source: CallSource) -> PrincipalFacts {
    PrincipalFacts {
        user: principal.user.shared(),
        tenant: principal.tenant.shared(),
        session: principal.session.shared(),
        client: principal.client.shared(),
        source: source.as_str().into(),
        roles: Arc::clone(&principal.roles),
        department: principal.department.clone(),
        scopes: Arc::clone(&principal.scopes),
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
    let operation = Attribute { name: "operation".to_owned(), value: operation.as_str().to_owned() };
    let said = named.into_iter().filter_map(|(name, header)| {
        let value = text(headers, header)?.to_owned();
        Some(Attribute { name: name.to_owned(), value })
    });
    std::iter::once(operation).chain(said).collect()
}

/// What the facts have from the target.
fn goes_to(facts: &mut CallFacts, target: &RouteTarget) {
    facts.provider = target.provider.as_str().into();
    facts.region = target.region.as_deref().map(Arc::from);
}

/// What the facts have from the body.
fn read_from(facts: &mut CallFacts, bytes: &Bytes, index: &Index) {
    facts.model = index.model.as_str().into();
    facts.streaming = index.stream;
    facts.max_tokens = index.max_tokens;
    facts.body_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    facts.message_count = index.message_count;
    facts.tools = if index.tools.is_empty() { Arc::default() } else { index.tools.as_slice().into() };
    facts.attributes.retain(|attribute| attribute.name != UNKNOWN);
    facts.attributes.extend(unknown_of(Some(index)));
}

/// The query string and the headers that travel to the upstream, one a line, and where the headers begin.
fn head_of(target: &str, headers: &HeaderMap) -> (Arc<str>, usize) {
    let mut head = String::with_capacity(HEAD_BYTES);
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
    let headers_at = head.len();
    for (name, value) in travelling(headers) {
        for part in [name, ": ", value, "\n"] {
            head.push_str(part);
        }
    }
    (head.into(), headers_at)
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
        let (head, _) = head_of("/v1/messages?beta=%74rue&x=%zz%2", &headers);
        assert_eq!(&*head, "?beta=%74rue&x=%zz%2\n?beta=true&x=%zz%2\nanthropic-beta: a,b\n");
        assert_eq!(head_of("/v1/messages", &HeaderMap::new()), (Arc::from(""), 0));
    }

    #[test]
    fn the_headers_that_travel_are_read_back_as_they_came_and_no_query_adds_one() {
        let mut headers = HeaderMap::new();
        let named = [
            ("anthropic-beta", "a: b, c"),
            ("anthropic-beta", ""),
            ("authorization", "Bearer x"),
            ("anthropic-version", "2023-06-01"),
            ("x-own", " \t: "),
        ];
        for (name, value) in named {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        let index = Arc::new(Index::parse(br#"{"model":"m","messages":[]}"#).unwrap());
        for target in
            ["/v1/messages", "/v1/messages?x=%0aanthropic-evil:%20yes%0a", "/v1/messages?a\u{2028}b"]
        {
            let (head, headers_at) = head_of(target, &headers);
            let body = ClientBody::new(Bytes::new(), Arc::clone(&index), head, headers_at);
            let read: Vec<_> = body.headers().into_iter().map(|it| (it.name, it.value)).collect();
            let came: Vec<_> =
                travelling(&headers).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(read, came, "{target}");
            assert_eq!(body.changed(Bytes::new(), Index::clone(&index)).headers().len(), 4);
        }
    }
}
