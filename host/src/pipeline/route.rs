//! Which route takes a call: the first whose pattern matches the model, whose conditions hold, and whose predicate, if it names one, agrees.

use std::sync::Arc;

use bytes::Bytes;
use sallyport_protocol::verdict::Verdict;
use serde_json::Value;

use super::facts::Request;
use super::order::{OrderKey, order};
use super::row::Record;
use super::{Call, Refusal};
use crate::component::contract::{BodyView, Call as CallFacts};
use crate::component::{Bundle, Component, Components, Fault, Mode};
use crate::config::{Config, Predicate, PriceList, RequestNeeds, Route, RouteCaller, RouteTarget};
use crate::evidence::{self, RecordedAnswer, RecordedStep};

/// The route that takes a call, and its targets in the order in which they are asked.
pub(super) type ChosenRoute = (Arc<Route>, Vec<Arc<RouteTarget>>);

/// What a predicate said about a route.
pub(super) struct PredicateAnswer {
    component: Arc<Component>,
    route: String,
    verdict: Verdict,
    fault: Option<&'static str>,
    micros: u32,
    /// The question and its answer, if they are recorded.
    step: Option<Box<RecordedStep>>,
}

// === impl PredicateAnswer ===

impl PredicateAnswer {
    /// The row names it, and the evidence what it was asked about: `body`.
    pub(super) fn note(self, record: &mut Record, body: &Bytes) {
        let mut more = vec![("route", Value::from(self.route))];
        more.extend(self.fault.map(|fault| ("fault", fault.into())));
        record.component(&self.component, Mode::Enforce, self.verdict, self.micros, more);
        if let Some(step) = self.step {
            record.record_step(*step, Some(body));
        }
    }
}

/// The route that takes `request`, whose facts name it from then on; and the predicates that were asked. A predicate that
/// does not answer does not agree, and says so in the log. Where there is no room to ask it nobody can tell: the call is
/// refused, lest it go where it must not. `recorded`: what predicates are asked is evidence.
pub(super) async fn choose(
    components: &Components,
    config: &Config,
    bundle: &Bundle,
    request: &mut Request,
    recorded: bool,
) -> (Vec<PredicateAnswer>, Result<ChosenRoute, Refusal>) {
    let mut asked = Vec::new();
    let model = request.facts.model.clone();
    // A model that the caller may not call is one that is not there.
    if !request.principal.models.has(&model) {
        return (asked, Err(Refusal::NoRoute { model }));
    }
    let gateway = &config.gateway;
    let candidates = gateway.candidates(&model).filter(|_| gateway.enabled);
    for route in candidates {
        if unmet(route, request, &config.prices).is_some() {
            continue;
        }
        let targets = order(route, &OrderKey::of(request), &model, &config.prices);
        let Some(first) = targets.first() else { continue };
        request.consider(route, first);
        let Some(predicate) = &route.predicate else { return (asked, Ok((Arc::clone(route), targets))) };
        let (answer, agrees) = ask(components, bundle, route, predicate, request, recorded).await;
        asked.extend(answer);
        match agrees {
            Ok(true) => return (asked, Ok((Arc::clone(route), targets))),
            Ok(false) => {}
            Err(refusal) => return (asked, Err(refusal)),
        }
    }
    (asked, Err(Refusal::NoRoute { model }))
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
fn unmet(route: &Route, request: &Request, prices: &PriceList) -> Option<&'static str> {
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

// === private helpers ===

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
                component.fault = fault.code(),
                trace.id = request.trace.as_str(),
                "the predicate of the route {} did not answer: the route is passed over",
                route.pattern
            );
            Ok(false)
        }
    };
    (Some(answer), agrees)
}
