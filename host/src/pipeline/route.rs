//! Which route takes a call: the first whose pattern matches the model, and whose predicate, if it names one, agrees.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::facts::Request;
use super::row::Record;
use super::{Pipeline, Refusal};
use crate::component::contract::BodyView;
use crate::component::{Bundle, Component, Fault, Mode};
use crate::config::{Config, Route};
use crate::evidence::{self, Heard, Step};

/// What a predicate said about a route.
pub(super) struct Asked {
    component: Arc<Component>,
    route: String,
    verdict: &'static str,
    fault: Option<&'static str>,
    micros: u32,
    /// The question and its answer, if they are recorded.
    step: Option<Box<Step>>,
}

// === impl Asked ===

impl Asked {
    /// The row names it, and the evidence what it was asked about: `body`.
    pub(super) fn note(self, record: &mut Record, body: &Bytes) {
        let mut more = vec![("route", Value::from(self.route))];
        more.extend(self.fault.map(|fault| ("fault", fault.into())));
        record.component(&self.component, Mode::Enforce, self.verdict, self.micros, more);
        if let Some(step) = self.step {
            record.hear(*step, Some(body));
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// The route that takes `request`, whose facts name it from then on; and the predicates that were asked. A predicate that
    /// does not answer does not agree, and says so in the log. Where there is no room to ask it nobody can tell: the call is
    /// refused, lest it go where it must not. `recorded`: what predicates are asked is evidence.
    pub(super) async fn choose(
        &self,
        config: &Config,
        bundle: &Bundle,
        request: &mut Request,
        recorded: bool,
    ) -> (Vec<Asked>, Result<Route, Refusal>) {
        let mut asked = Vec::new();
        let model = request.facts.model.clone();
        let candidates = config.gateway.candidates(&model).filter(|_| config.gateway.enabled);
        for route in candidates {
            request.consider(route);
            let Some(predicate) = &route.predicate else { return (asked, Ok(route.clone())) };
            let Some(component) = bundle.predicates.get(&predicate.key()) else {
                tracing::error!(
                    component.name = predicate.component,
                    trace.id = request.trace.as_str(),
                    "the predicate of the route {} is not in force: the route is passed over",
                    route.pattern
                );
                continue;
            };
            let body: Arc<dyn BodyView> = Arc::clone(&request.body) as _;
            let ran = self.components.matches(component, &request.facts, &body).await;
            let (verdict, fault) = match &ran.result {
                Ok(true) => ("match", None),
                Ok(false) => ("no_match", None),
                Err(fault) => ("fault", Some(fault.code())),
            };
            let step = recorded.then(|| {
                let (considered, heard) = (Box::new(request.facts.clone()), Heard::of(&ran));
                Box::new(Step::new(
                    component,
                    Mode::Enforce,
                    evidence::Asked::Route { considered, heard },
                    false,
                ))
            });
            asked.push(Asked {
                component: Arc::clone(component),
                route: route.pattern.as_str().to_owned(),
                verdict,
                fault,
                micros: ran.micros,
                step,
            });
            match ran.result {
                Ok(true) => return (asked, Ok(route.clone())),
                Ok(false) => {}
                Err(Fault::Exhausted) => return (asked, Err(Refusal::Overloaded)),
                Err(fault) => tracing::error!(
                    component.name = component.name(),
                    component.digest = component.digest(),
                    component.fault = fault.code(),
                    trace.id = request.trace.as_str(),
                    "the predicate of the route {} did not answer: the route is passed over",
                    route.pattern
                ),
            }
        }
        (asked, Err(Refusal::NoRoute { model }))
    }
}
