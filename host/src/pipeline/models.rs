//! What a principal may call: the models of the routes, less those that a policy refuses it. Never asks an upstream.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use sallyport_protocol::id::TraceId;
use sallyport_protocol::messages::index::Index;

use super::facts::Request;
use super::lineage::Lineage;
use super::{Inbound, Operation, Pipeline, route};
use crate::auth::Principal;
use crate::component::contract::BodyView;
use crate::component::contract::policy::Verdict;
use crate::component::{Bundle, Mode};
use crate::config::{Config, Route};

/// One model that a principal may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What clients ask for.
    pub id: String,
    /// What people read.
    pub display_name: String,
}

impl Pipeline {
    /// The models that `principal` may call, in the order of the routes, each once.
    pub async fn models(&self, principal: &Arc<Principal>) -> Vec<Listing> {
        let in_force = self.in_force.load_full();
        let config = &in_force.config;
        let bundle = in_force.registry.snapshot(&principal.tenant);
        let mut found: Vec<Listing> = Vec::new();
        if !config.gateway.enabled {
            return found;
        }
        for route in &config.gateway.routes {
            let exact = route.pattern.is_exact()
                && !route.models.iter().any(|model| model.id == route.pattern.as_str());
            let own = exact.then(|| (route.pattern.as_str(), route.pattern.as_str()));
            let listed = route.models.iter().map(|model| (model.id.as_str(), model.display_name.as_str()));
            for (id, display_name) in own.into_iter().chain(listed) {
                let first = found.iter().all(|listing| listing.id != id);
                if first && self.may_call(principal, config, &bundle, route, id).await {
                    found.push(Listing { id: id.to_owned(), display_name: display_name.to_owned() });
                }
            }
        }
        found
    }

    /// Whether a call for `model` would come to `listed`, where it is listed, and be let through. Asks the policies that only
    /// look: one that counts would be charged for a listing.
    async fn may_call(
        &self,
        principal: &Arc<Principal>,
        config: &Config,
        bundle: &Bundle,
        listed: &Arc<Route>,
        model: &str,
    ) -> bool {
        let body = serde_json::json!({ "model": model, "messages": [] }).to_string();
        let Ok(index) = Index::parse(body.as_bytes()) else { return false };
        let inbound = Inbound {
            operation: Operation::Message,
            target: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::from(body),
            principal: Arc::clone(principal),
            request_id: String::new(),
        };
        let trace = TraceId::from_bytes([0; 16]);
        let lineage = Lineage::of_call(&inbound.headers, principal);
        let mut request = Request::new(inbound, lineage, trace, Arc::new(index), self.clock.as_ref());
        // A model that an earlier route takes is served there.
        let choice = route::choose(&self.components, config, bundle, &mut request, false).await;
        if !choice.chosen.is_ok_and(|(chosen, _)| chosen == *listed) {
            return false;
        }
        let view: Arc<dyn BodyView> = Arc::clone(&request.body) as _;
        for entry in &bundle.policies {
            if entry.mode != Mode::Enforce || entry.component.counts() {
                continue;
            }
            let ran = self.components.check(&entry.component, &request.facts, &view).await;
            if !matches!(ran.result, Ok(Verdict::Allow)) {
                return false;
            }
        }
        true
    }
}
