//! The life of a request, from the verified caller to the last byte: index, route, intent, policies, provider, stream, row.

mod attempt;
mod counters;
mod earlier;
mod event;
mod events;
mod exchange;
mod facts;
mod finish;
mod gate;
mod govern;
mod hooks;
mod lineage;
mod many;
mod memo;
mod mirror;
mod models;
mod order;
mod place;
mod refuse;
mod retries;
mod route;
mod row;
mod stored;
mod stream;
mod unary;
mod underway;
mod verdicts;
mod whole;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sallyport_protocol::id::{PolicyVersion, TenantId, TraceId};
use sallyport_protocol::messages::index;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::Principal;
use crate::clock::{Clock, Entropy};
use crate::component::{Bundle, Components, Registry};
use crate::config::{Config, Recording, Route, RouteTarget};
use crate::db::Db;
use crate::evidence::Evidence;
use crate::limits::Limit;
use crate::upstream::Upstream;

use self::earlier::{BodyMemory, WantedParts};
use self::facts::Request;
use self::finish::Finish;
use self::govern::Policies;
use self::hooks::{Hooks, UserKey};
use self::lineage::Lineage;
use self::retries::Retries;
use self::row::Record;
use self::underway::Underway;

pub use self::counters::LocalCounters;
pub use self::events::Events;
pub use self::hooks::{Reported, Reporter};
pub use self::models::Listing;
pub use self::order::{OrderKey, order};
pub use self::refuse::{Denial, Refusal, RefusalCode};
pub use self::route::needs;
pub use self::stored::{ListPage, StoredCall, StoredKind};
pub use crate::upstream::UpstreamState;

/// Everything a request passes through.
pub struct Pipeline {
    in_force: ArcSwap<InForce>,
    components: Arc<Components>,
    audit: Arc<Audit>,
    hooks: Hooks,
    policies: Policies,
    bodies: BodyMemory,
    upstream: Upstream,
    finish: Finish,
    /// Whose batches and files are.
    db: Db,
    /// Places for copies of calls.
    mirrors: Arc<mirror::MirrorPlaces>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
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
    /// Where calls are closed whose clients have left.
    pub tasks: TaskTracker,
    /// Where it stands whose batches and files are.
    pub db: Db,
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
    Stream(Events),
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
    /// What it asks for, whether or not it was asked for before.
    turn: UserKey,
    bundle: Arc<Bundle>,
    route: Arc<Route>,
    /// Where it goes: the first of its targets, until that does not answer.
    target: Arc<RouteTarget>,
    /// Every target of the route, in the order in which they are asked; policies were asked about the first.
    targets: Vec<Arc<RouteTarget>>,
    config: Arc<Config>,
    record: Record,
}

/// The limits of a call.
pub(crate) fn limits() -> Vec<Limit> {
    const PART: &str = "pipeline";
    let own = vec![
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
        Limit::bytes(PART, "a whole reply", whole::LONGEST_REPLY, "502 `upstream_answer`"),
        Limit::bytes(PART, "an upstream's error", whole::LONGEST_ERROR, "502 `upstream_answer`"),
        Limit::count(
            PART,
            "upstream requests of one call",
            exchange::MOST_REQUESTS.into(),
            "502 `provider_contract`",
        ),
        Limit::count(
            PART,
            "copies of calls for shadows at once",
            mirror::MOST_MIRRORS as u64,
            "the call is not copied",
        ),
        Limit::count(
            PART,
            "copies of one tenant's calls for shadows at once",
            mirror::MOST_MIRRORS_OF_TENANT as u64,
            "the call is not copied",
        ),
        Limit::bytes(
            PART,
            "the body of a call that is copied for a shadow",
            mirror::LONGEST_MIRRORED,
            "the call is not copied",
        ),
        Limit::time(PART, "a copy of a call for a shadow", mirror::LONGEST_MIRROR, "it is given up"),
        Limit::count(PART, "waits of one call", exchange::MOST_WAITS.into(), "502 `provider_contract`"),
        Limit::bytes(
            PART,
            "remembered bodies of conversations",
            earlier::MOST_BYTES,
            "the one that was silent longest is forgotten",
        ),
        Limit::bytes(
            PART,
            "remembered verdicts of policies",
            usize::try_from(verdicts::MOST_BYTES).unwrap_or(usize::MAX),
            "those that were not used for the longest time are forgotten",
        ),
        Limit::time(PART, "all waits of one call", exchange::LONGEST_WAIT, "502 `provider_contract`"),
    ];
    [own, stored::limits(PART)].concat()
}

// === impl Operation ===

impl Operation {
    /// As components and rows know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::CountTokens => "count_tokens",
        }
    }
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
        let Parts { components, audit, upstream, in_force, clock, entropy, evidence, tasks, db } = parts;
        let hooks =
            Hooks::new(Arc::clone(&components), Arc::clone(&audit), Arc::clone(&clock), Arc::clone(&entropy));
        let finish = Finish {
            audit: Arc::clone(&audit),
            components: Arc::clone(&components),
            evidence,
            retries: Retries::new(),
            tasks: tasks.clone(),
            clock: Arc::clone(&clock),
        };
        Arc::new(Self {
            in_force: ArcSwap::from_pointee(in_force),
            policies: Policies::new(Arc::clone(&components)),
            bodies: BodyMemory::new(),
            components,
            audit,
            hooks,
            upstream,
            finish,
            db,
            mirrors: Arc::default(),
            clock,
            entropy,
            tasks,
        })
    }

    /// Puts another configuration and its components in force; calls in progress keep theirs.
    pub fn swap(&self, in_force: InForce) {
        self.upstream.keep(in_force.config.gateway.targets());
        self.in_force.store(Arc::new(in_force));
        self.policies.forget();
        self.bodies.clear();
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
        let lineage = Lineage::of_call(&inbound.headers, &inbound.principal);
        let wanted = if bundle.scanners.is_empty() { WantedParts::Index } else { WantedParts::Hashes };
        let now = self.clock.monotonic();
        let (body, known) = self.bodies.read(conversation(&inbound, &lineage), &inbound.body, wanted, now);
        let mut record = Record::begin(&inbound, &body, &lineage, &trace, &bundle, self.clock.as_ref());

        let known = match known {
            Ok(known) => known,
            Err(malformed) => return Err(refused(self.finish.close_refused(record, malformed.into()).await)),
        };
        let index = known.index;
        record.model(&index.model);
        if !index.unknown.is_empty() {
            record.note("unknown", index.unknown.names().to_vec());
        }
        if known.skipped > 0 {
            record.note("body_known", known.skipped);
        }
        let request = Request::new(inbound, lineage, trace.clone(), index, self.clock.as_ref());
        let mut request = request.knowing(known.units);
        let turn = retries::turn_of(&request, &body);
        if let Some(retry) = self.finish.retries.of(turn, self.clock.monotonic()) {
            record.repeats(&retry);
        }
        if config.evidence.record == Recording::Calls {
            record.gather(config.evidence.max_body_bytes);
        }
        let choice = route::choose(&self.components, &config, &bundle, &mut request, record.gathers()).await;
        let (route, targets) = match choice.note(&mut record, &request.body.bytes) {
            Ok(chosen) => chosen,
            Err(refusal) => {
                if !request.principal.models.has(&request.facts.model) {
                    record.note("entitled", false);
                }
                return Err(refused(self.finish.close_refused(record, refusal).await));
            }
        };
        let Some(target) = targets.first().cloned() else {
            let model = request.facts.model.as_ref().to_owned();
            return Err(refused(self.finish.close_refused(record, Refusal::NoRoute { model }).await));
        };
        record.routed(&route, &target);
        let request = Arc::new(request);
        let call = Call { request, turn, bundle, route, target, targets, config, record };
        let (model, stream) = (Arc::clone(&call.request.facts.model), call.request.streams());
        let refused =
            |refusal| Refused { refusal, trace: trace.clone(), model: model.as_ref().to_owned(), stream };

        let mut underway = Box::pin(Underway::begin(self, call)).await.map_err(refused)?;
        if let Some(going) = underway.going() {
            self.mirror(&mut going.call);
        }
        let served =
            if stream { Box::pin(self.stream(underway)).await } else { Box::pin(self.reply(underway)).await };
        served.map_err(refused)
    }

    /// Hooks first, since they may change what the others look at; then everybody who may say no.
    async fn authorize(&self, call: &mut Call) -> Result<(), Refusal> {
        if call.record.is_mirror() {
            return Ok(());
        }
        call.is_known()?;
        self.files_are_own(call).await?;
        self.hooks.run_inbound(call).await?;
        // Hooks may have put in what they like.
        call.is_known()?;
        self.policies.check(call).await
    }

    /// Asks those about the call's target who were asked about another one: the route's predicate, and the policies that only look. One
    /// that counts would charge the call twice.
    async fn permit(&self, call: &mut Call) -> Result<(), Refusal> {
        if call.route.predicate.is_some() {
            let (asked, agrees) = route::agrees(&self.components, call).await;
            if let Some(asked) = asked {
                asked.note(&mut call.record, &call.request.body.bytes);
            }
            if !agrees? {
                return Err(Refusal::NoRoute { model: call.request.facts.model.as_ref().to_owned() });
            }
        }
        self.policies.look(call).await
    }

    /// How each upstream does whose calls are watched.
    pub fn upstreams(&self) -> Vec<UpstreamState> {
        self.upstream.states(self.clock.monotonic())
    }

    /// The providers whose upstream refused the gateway's credential when it was last asked.
    pub fn refused_credentials(&self) -> Vec<String> {
        self.upstream.refusals()
    }
}

/// The conversation that a body belongs to: what one agent of a client's session sends.
fn conversation(inbound: &Inbound, lineage: &Lineage) -> UserKey {
    let parts: [&[u8]; 4] = [
        b"conversation",
        inbound.operation.as_str().as_bytes(),
        lineage.session_name().as_bytes(),
        lineage.agent.as_deref().unwrap_or_default().as_bytes(),
    ];
    UserKey::of(&inbound.principal, &parts)
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pipeline").finish_non_exhaustive()
    }
}
