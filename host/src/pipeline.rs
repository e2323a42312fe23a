//! The life of a request, from the verified caller to the last byte: index, route, intent, policies, provider, stream, row.

mod counters;
mod event;
mod exchange;
mod facts;
mod gate;
mod govern;
mod hooks;
mod memo;
mod models;
mod place;
mod refuse;
mod route;
mod row;
mod stream;
mod unary;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sallyport_protocol::id::{PolicyVersion, TenantId, TraceId};
use sallyport_protocol::messages::index::{self, Index};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, OpenRow};
use crate::auth::Principal;
use crate::clock::{Clock, Entropy};
use crate::component::{Bundle, Components, Registry};
use crate::config::{Config, Recording, Route};
use crate::evidence::Evidence;
use crate::limits::Limit;
use crate::upstream::Upstream;

use self::exchange::{Begin, Exchanging};
use self::facts::Request;
use self::hooks::Sessions;
use self::memo::Memo;
use self::row::Record;

pub use self::counters::LocalCounters;
pub use self::hooks::{Reported, Reporter};
pub use self::models::Listing;
pub use self::refuse::Refusal;

/// Everything a request passes through.
pub struct Pipeline {
    components: Arc<Components>,
    audit: Arc<Audit>,
    upstream: Upstream,
    in_force: ArcSwap<InForce>,
    memo: Memo,
    sessions: Sessions,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    evidence: Arc<Evidence>,
    tasks: TaskTracker,
}

/// What a reload replaces, all at once: no call sees the routes of one configuration and the components of another.
#[derive(Debug)]
pub struct InForce {
    /// Routes, secrets and prices.
    pub config: Arc<Config>,
    /// Which components decide for whom.
    pub registry: Registry,
}

/// The parts of a pipeline.
pub struct Parts {
    /// Runs the components.
    pub components: Arc<Components>,
    /// Keeps the rows.
    pub audit: Arc<Audit>,
    /// Dials out.
    pub upstream: Upstream,
    /// Configuration and components.
    pub in_force: InForce,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Keeps what components were asked.
    pub evidence: Arc<Evidence>,
    /// Where streams run on.
    pub tasks: TaskTracker,
}

/// What the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/messages`
    Message,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
}

/// A call as it came in.
#[derive(Debug)]
pub struct Inbound {
    /// What the client wants.
    pub operation: Operation,
    /// Path and query.
    pub target: String,
    /// Headers, as they came.
    pub headers: HeaderMap,
    /// The exact body.
    pub body: Bytes,
    /// Who calls, verified.
    pub principal: Arc<Principal>,
    /// The gateway's id of this HTTP request.
    pub request_id: String,
}

/// What the client gets.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: ReplyBody,
    /// The trace, for `x-trace-id`.
    pub trace: TraceId,
}

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// All of it.
    Whole(Bytes),
    /// Server-sent events, as they come.
    Stream(mpsc::Receiver<Bytes>),
}

/// A refusal and what it answers.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The trace of the call.
    pub trace: TraceId,
    /// The model that was asked for; empty where the body could not be read.
    pub model: String,
    /// Whether the client wants a stream of messages.
    pub stream: bool,
}

/// A call in progress: what every step needs of it.
struct Call {
    request: Arc<Request>,
    bundle: Arc<Bundle>,
    route: Route,
    config: Arc<Config>,
    record: Record,
}

/// The limits of a call.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "pipeline";
    vec![
        Limit::count(PART, "texts of a request", index::MOST_TEXTS as u64, "413 `body_too_many`"),
        Limit::count(PART, "tools that a request names", index::MOST_TOOLS as u64, "413 `body_too_many`"),
        Limit::bytes(
            PART,
            "the input of one tool call that is held",
            gate::LONGEST_INPUT,
            "the stream ends with `tool_call_too_large`",
        ),
        Limit::bytes(
            PART,
            "one tool call that is held, with its events",
            gate::LONGEST_CALL,
            "the stream ends with `tool_call_too_large`",
        ),
        Limit::bytes(PART, "a whole reply", unary::LONGEST_REPLY, "502 `upstream_answer`"),
        Limit::bytes(PART, "an upstream's error", unary::LONGEST_ERROR, "502 `upstream_answer`"),
        Limit::count(
            PART,
            "upstream requests of one call",
            exchange::MOST_REQUESTS.into(),
            "502 `provider_contract`",
        ),
        Limit::count(PART, "waits of one call", exchange::MOST_WAITS.into(), "502 `provider_contract`"),
        Limit::time(PART, "all waits of one call", exchange::LONGEST_WAIT, "502 `provider_contract`"),
    ]
}

// === impl Call ===

impl Call {
    /// Errors: the route is strict, and the request holds what the gateway does not know.
    fn is_known(&self) -> Result<(), Refusal> {
        match self.request.body.index.unknown.names().first() {
            Some(what) if self.route.strict => Err(Refusal::Unknown { what: what.clone() }),
            _ => Ok(()),
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// A pipeline of these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { components, audit, upstream, in_force, clock, entropy, evidence, tasks } = parts;
        Arc::new(Self {
            components,
            audit,
            upstream,
            in_force: ArcSwap::from_pointee(in_force),
            memo: Memo::new(),
            sessions: Sessions::new(),
            clock,
            entropy,
            evidence,
            tasks,
        })
    }

    /// Puts another configuration and its components in force; calls in progress keep theirs.
    pub fn swap(&self, in_force: InForce) {
        self.in_force.store(Arc::new(in_force));
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.in_force.load().config)
    }

    /// The version of what is in force for `tenant`.
    pub fn policy_version(&self, tenant: &TenantId) -> PolicyVersion {
        self.in_force.load().registry.snapshot(tenant).version.clone()
    }

    /// Serves one call.
    pub async fn run(self: &Arc<Self>, inbound: Inbound) -> Result<Reply, Refused> {
        let trace = facts::trace_of(&inbound.headers, self.clock.as_ref(), self.entropy.as_ref());
        let refused =
            |refusal| Refused { refusal, trace: trace.clone(), model: String::new(), stream: false };
        let in_force = self.in_force.load_full();
        let config = Arc::clone(&in_force.config);
        let bundle = in_force.registry.snapshot(&inbound.principal.tenant);
        let bundle = bundle.seen_by(inbound.principal.user.as_str());
        let mut record = Record::begin(&inbound, &trace, &bundle, self.clock.as_ref());

        let index = match Index::parse(&inbound.body) {
            Ok(index) => index,
            Err(malformed) => return Err(refused(self.turn_away(record, malformed.into()).await)),
        };
        record.model(&index.model);
        if !index.unknown.is_empty() {
            record.note("unknown", index.unknown.names().to_vec());
        }
        let mut request = Request::new(inbound, trace.clone(), index, self.clock.as_ref());
        if config.evidence.record == Recording::Calls {
            record.gather(config.evidence.max_body_bytes);
        }
        let (asked, chosen) = self.choose(&config, &bundle, &mut request, record.gathers()).await;
        for asked in asked {
            asked.note(&mut record, &request.body.bytes);
        }
        let route = match chosen {
            Ok(route) => route,
            Err(refusal) => return Err(refused(self.turn_away(record, refusal).await)),
        };
        record.routed(&route);
        let request = Arc::new(request);
        let mut call = Call { request, bundle, route, config, record };
        let (model, stream) = (call.request.facts.model.clone(), call.request.streams());
        let refused = |refusal| Refused { refusal, trace: trace.clone(), model: model.clone(), stream };

        // No row, no answer: both must be done before anything goes upstream, so they are awaited together.
        let opening = self.audit.open(call.record.intent());
        let (opened, governed) = tokio::join!(opening, self.consider(&mut call));
        let open = match opened {
            Ok(open) => open,
            Err(unavailable) => return Err(refused(Refusal::AuditUnavailable(unavailable))),
        };
        let served = match governed {
            Ok(()) => self.dispatch(call, open).await,
            Err(refusal) => {
                let refusal = refusal.of_size(call.request.body.bytes.len());
                Err(self.fail(call, open, refusal).await)
            }
        };
        served.map_err(refused)
    }

    /// Hooks first, since they may change what the others look at; then everybody who may say no.
    async fn consider(&self, call: &mut Call) -> Result<(), Refusal> {
        call.is_known()?;
        self.attend(call).await?;
        // Hooks may have put in what they like.
        call.is_known()?;
        self.govern(call).await
    }

    /// Hands the call to its provider, and the provider's answer to the client.
    async fn dispatch(self: &Arc<Self>, call: Call, open: OpenRow) -> Result<Reply, Refusal> {
        let mut exchanging = match Exchanging::open(self, &call).await {
            Ok(exchanging) => exchanging,
            Err(refusal) => {
                let refusal = refusal.of_size(call.request.body.bytes.len());
                return Err(self.fail(call, open, refusal).await);
            }
        };
        if call.request.streams() {
            return self.stream(call, open, exchanging).await;
        }
        let begin = exchanging.begin(self, &call).await;
        match begin {
            Begin::Refused(refusal) => {
                let mut call = call;
                call.record.provider(&exchanging);
                let refusal = refusal.of_size(call.request.body.bytes.len());
                Err(self.fail(call, open, refusal).await)
            }
            Begin::Stream(_) => {
                let refusal = exchanging.broke_contract("a stream that was not asked for");
                Err(self.fail(call, open, refusal).await)
            }
            Begin::Whole(whole) => self.whole(call, open, exchanging, whole).await,
        }
    }

    /// A call that never came to have an intent: one row says so.
    async fn turn_away(&self, record: Record, refusal: Refusal) -> Refusal {
        let rows = record.close(&refusal.ending(), self.clock.as_ref());
        for row in rows {
            if let Err(unavailable) = self.audit.record(row).await {
                return Refusal::AuditUnavailable(unavailable);
            }
        }
        refusal
    }

    /// Closes the row of a call that ends in `refusal`.
    async fn fail(&self, call: Call, open: OpenRow, refusal: Refusal) -> Refusal {
        match self.close(call, open, &refusal.ending()).await {
            Ok(()) => refusal,
            Err(unavailable) => Refusal::AuditUnavailable(unavailable),
        }
    }
}

impl Pipeline {
    /// The providers whose upstream refused the gateway's credential when it was last asked.
    pub fn refused_credentials(&self) -> Vec<String> {
        self.upstream.refusals()
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pipeline").finish_non_exhaustive()
    }
}
