//! Which route takes a call: the first whose pattern matches the model, whose conditions hold, and whose predicate, if it names one, agrees.

use std::sync::Arc;

use bytes::Bytes;
use sallyport_protocol::cost::DayPrices;
use sallyport_protocol::facts::ApiStyle;
use sallyport_protocol::fault::FaultCode;
use sallyport_protocol::level::Level;
use sallyport_protocol::verdict::Verdict;
use serde_json::{Value, json};

use super::facts::Request;
use super::order::{OrderKey, order};
use super::row::Record;
use super::{Call, Operation, Refusal};
use crate::component::contract::{BodyView, Call as CallFacts};
use crate::component::{Bundle, Component, Components, Fault, Mode};
use crate::config::{Config, Need, Predicate, RequestNeeds, Route, RouteCaller, RouteTarget};
use crate::evidence::{self, RecordedAnswer, RecordedStep};

/// The route that takes a call, and its targets in the order in which they are asked.
pub(super) type ChosenRoute = (Arc<Route>, Vec<Arc<RouteTarget>>);

/// What became of the choice of a route.
pub(super) struct RouteChoice {
    asked: Vec<PredicateAnswer>,
    passed_over: Vec<PassedOver>,
    pub(super) chosen: Result<ChosenRoute, Refusal>,
}

/// A target whose provider was not shown to carry what the request needs.
struct PassedOver {
    route: String,
    target: String,
    provider: String,
    level: Level,
}

/// What a predicate said about a route.
pub(super) struct PredicateAnswer {
    component: Arc<Component>,
    route: String,
    verdict: Verdict,
    fault: Option<FaultCode>,
    micros: u32,
    /// The question and its answer, if they are recorded.
    step: Option<Box<RecordedStep>>,
}

// === impl RouteChoice ===

impl RouteChoice {
    /// The row says who was asked, and who was passed over: what was chosen is left.
    pub(super) fn note(self, record: &mut Record, body: &Bytes) -> Result<ChosenRoute, Refusal> {
        let Self { asked, passed_over, chosen } = self;
        for asked in asked {
            asked.note(record, body);
        }
        if !passed_over.is_empty() {
            record.note("passed_over", passed_over.iter().map(PassedOver::entry).collect::<Vec<_>>());
        }
        chosen
    }
}

// === impl PassedOver ===

impl PassedOver {
    fn entry(&self) -> Value {
        let Self { route, target, provider, level } = self;
        json!({ "route": route, "target": target, "provider": provider, "level": level })
    }
}

// === impl PredicateAnswer ===

impl PredicateAnswer {
    /// The row names it, and the evidence what it was asked about: `body`.
    pub(super) fn note(self, record: &mut Record, body: &Bytes) {
        let mut more = vec![("route", Value::from(self.route))];
        more.extend(self.fault.map(|fault| ("fault", fault.as_str().into())));
        record.component(&self.component, Mode::Enforce, self.verdict, self.micros, more);
        if let Some(step) = self.step {
            record.record_step(*step, Some(body));
        }
    }
}

/// The route that takes `request`, whose facts name it from then on; the predicates that were asked; and the targets that were passed over,
/// since their providers were not shown to carry what it needs. A predicate that does not answer does not agree, and says so in the log.
/// Where there is no room to ask it nobody can tell: the call is refused, lest it go where it must not. `recorded`: what predicates are
/// asked is evidence.
pub(super) async fn choose(
    components: &Components,
    config: &Config,
    bundle: &Bundle,
    request: &mut Request,
    recorded: bool,
) -> RouteChoice {
    let (mut asked, mut passed_over) = (Vec::new(), Vec::new());
    let model = Arc::clone(&request.facts.model);
    // A model that the caller may not call is one that is not there.
    if !request.principal.models.has(&model) {
        let chosen = Err(Refusal::NoRoute { model: model.as_ref().to_owned() });
        return RouteChoice { asked, passed_over, chosen };
    }
    let prices = config.prices.on(request.day);
    let gateway = &config.gateway;
    let candidates = gateway.candidates(&model).filter(|_| gateway.enabled);
    for route in candidates {
        if unmet(route, request, prices).is_some() {
            continue;
        }
        let mut targets = order(route, &OrderKey::of(request), &model, prices);
        targets.retain(|target| match missing(config, bundle, target, request) {
            None => true,
            Some(level) => {
                passed_over.push(PassedOver {
                    route: route.pattern.as_str().to_owned(),
                    target: target.name.clone(),
                    provider: target.provider.clone(),
                    level,
                });
                false
            }
        });
        let Some(first) = targets.first() else { continue };
        request.consider(route, first);
        let taken = (Arc::clone(route), targets);
        let Some(predicate) = &route.predicate else {
            return RouteChoice { asked, passed_over, chosen: Ok(taken) };
        };
        let (answer, agrees) = ask(components, bundle, route, predicate, request, recorded).await;
        asked.extend(answer);
        match agrees {
            Ok(true) => return RouteChoice { asked, passed_over, chosen: Ok(taken) },
            Ok(false) => {}
            Err(refusal) => return RouteChoice { asked, passed_over, chosen: Err(refusal) },
        }
    }
    let refusal = match passed_over.last() {
        Some(PassedOver { level, provider, .. }) => {
            Refusal::LevelMissing { level: *level, provider: provider.clone() }
        }
        None => Refusal::NoRoute { model: model.as_ref().to_owned() },
    };
    RouteChoice { asked, passed_over, chosen: Err(refusal) }
}

/// Whether the predicate of a call's route agrees to the target that the call is on its way to.
pub(super) async fn agrees(
    components: &Components,
    call: &Call,
) -> (Option<PredicateAnswer>, Result<bool, Refusal>) {
    let Some(predicate) = &call.route.predicate else { return (None, Ok(true)) };
    ask(components, &call.bundle, &call.route, predicate, &call.request, call.record.gathers()).await
}

/// The first condition of a route that does not hold of a request, by its key.
fn unmet(route: &Route, request: &Request, prices: DayPrices<'_>) -> Option<&'static str> {
    let (principal, facts) = (&request.principal, &request.facts);
    let caller = RouteCaller {
        user: principal.user.as_str(),
        tenant: principal.tenant.as_str(),
        department: principal.department.as_deref(),
        roles: &principal.roles,
        client: principal.client.as_str(),
        agent: facts.agent.as_deref(),
    };
    let needs = || RequestNeeds {
        body: &request.body.bytes,
        has_tools: !request.body.index.tools.is_empty(),
        max_tokens: facts.max_tokens,
    };
    route.unmet_by(&caller, &facts.model, prices, needs)
}

/// Whether a request needs a level. It is looked for only where a provider lacks it.
pub fn needs(operation: Operation, body: &[u8], has_tools: bool, level: Level) -> bool {
    let holds = |need: Need| need.is_of(body, has_tools);
    match level {
        Level::Text => operation == Operation::Message,
        Level::Tools => holds(Need::Tools),
        Level::Images => holds(Need::Images),
        Level::Documents => holds(Need::Documents),
        Level::Thinking => holds(Need::Thinking),
        Level::Cache => memchr::memmem::find(body, b"\"cache_control\"").is_some(),
        Level::Count => operation == Operation::CountTokens,
        Level::Errors => false,
    }
}

// === private helpers ===

/// The first level that a request needs and that the provider of a target was not shown to carry.
fn missing(config: &Config, bundle: &Bundle, target: &RouteTarget, request: &Request) -> Option<Level> {
    let component = bundle.providers.get(&target.provider)?;
    let model = target.model(&request.facts.model);
    let levels = component.levels(model, || {
        let known = config.facts.of(&target.provider, model);
        let known = match &target.model_facts {
            Some(own) => known.but(own),
            None => known,
        };
        known.api.or_else(|| configured_api(component))
    })?;
    let has_tools = !request.body.index.tools.is_empty();
    levels.missing().find(|level| needs(request.operation, &request.body.bytes, has_tools, *level))
}

/// The API that a provider is configured to ask by.
fn configured_api(component: &Component) -> Option<ApiStyle> {
    let config: Value = serde_json::from_str(component.configuration()).ok()?;
    serde_json::from_value(config.get("api")?.clone()).ok()
}

/// What a predicate says about a route.
async fn ask(
    components: &Components,
    bundle: &Bundle,
    route: &Route,
    predicate: &Predicate,
    request: &Request,
    recorded: bool,
) -> (Option<PredicateAnswer>, Result<bool, Refusal>) {
    let Some(component) = bundle.predicates.get(&predicate.key()) else {
        tracing::error!(
            component.name = predicate.component,
            trace.id = request.trace.as_str(),
            "the predicate of the route {} is not in force: the route is passed over",
            route.pattern
        );
        return (None, Ok(false));
    };
    let body: Arc<dyn BodyView> = Arc::clone(&request.body) as _;
    let ran = components.matches(component, &request.facts, &body).await;
    let (verdict, fault) = match &ran.result {
        Ok(true) => (Verdict::Match, None),
        Ok(false) => (Verdict::NoMatch, None),
        Err(fault) => (Verdict::Fault, Some(fault.code())),
    };
    let step = recorded.then(|| {
        let (considered, heard) = (Box::new(CallFacts::clone(&request.facts)), RecordedAnswer::of(&ran));
        let asked = evidence::Asked::Route { considered, heard };
        Box::new(RecordedStep::new(component, Mode::Enforce, asked, false))
    });
    let answer = PredicateAnswer {
        component: Arc::clone(component),
        route: route.pattern.as_str().to_owned(),
        verdict,
        fault,
        micros: ran.micros,
        step,
    };
    let agrees = match ran.result {
        Ok(agrees) => Ok(agrees),
        Err(Fault::Exhausted) => Err(Refusal::Overloaded),
        Err(fault) => {
            tracing::error!(
                component.name = component.name(),
                component.digest = component.digest(),
                component.fault = fault.code().as_str(),
                trace.id = request.trace.as_str(),
                "the predicate of the route {} did not answer: the route is passed over",
                route.pattern
            );
            Ok(false)
        }
    };
    (Some(answer), agrees)
}
