//! A copy of a call for another upstream, whose answer nobody gets: what a route's `shadow` is for. It is a call of its own from then on, with
//! an intent before anything is sent and a row in the end, and takes nothing from the one that it copies but its request.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use sallyport_protocol::id::{TenantId, TraceId};
use tokio::runtime::Handle;

use super::hooks::UserKey;
use super::row::Record;
use super::underway::Underway;
use super::{Call, Inbound, Operation, Pipeline, ReplyBody};
use crate::config::RouteTarget;

/// Copies that are under way at once.
pub(super) const MOST_MIRRORS: usize = 16;
/// Of those, the copies of one tenant's calls: a tenant whose shadow is slow leaves places for the others.
pub(super) const MOST_MIRRORS_OF_TENANT: usize = 8;
/// Longest body that is copied, so that all copies together hold a bounded part of the memory.
pub(super) const LONGEST_MIRRORED: usize = 4 * 1024 * 1024;
/// Longest that a copy takes.
pub(super) const LONGEST_MIRROR: Duration = Duration::from_mins(10);

// === impl Pipeline ===

impl Pipeline {
    /// Sends a copy of the call to the shadow of its route, if that has one and there is room. Nobody waits for it.
    pub(super) fn mirror(self: &Arc<Self>, call: &mut Call) {
        let Some(shadow) = &call.route.shadow else { return };
        if call.request.operation != Operation::Message || !drawn(call, shadow.percent) {
            return;
        }
        if call.request.body.bytes.len() > LONGEST_MIRRORED {
            call.record.note("shadow", "too_large");
            return;
        }
        let place = self.mirrors.take(&call.request.principal.tenant);
        let (Some(place), Ok(runtime)) = (place, Handle::try_current()) else {
            call.record.note("shadow", "no_room");
            return;
        };
        let trace = super::facts::minted(self.clock.as_ref(), self.entropy.as_ref());
        let target = Arc::clone(&shadow.target);
        call.record.note("shadow", trace.as_str());
        let copy = Copied {
            request: Arc::clone(&call.request),
            bundle: Arc::clone(&call.bundle),
            route: Arc::clone(&call.route),
            config: Arc::clone(&call.config),
            judged: call.targets.first().cloned(),
            target,
            trace,
        };
        let pipeline = Arc::clone(self);
        self.tasks.spawn_on(async move { pipeline.run_mirror(copy, place).await }, &runtime);
    }

    async fn run_mirror(self: Arc<Self>, copy: Copied, place: MirrorPlace) {
        // What takes longer is dropped, and its row closed as one that nobody waited for.
        drop(tokio::time::timeout(LONGEST_MIRROR, Box::pin(self.send_mirror(copy))).await);
        drop(place);
    }

    async fn send_mirror(self: &Arc<Self>, copy: Copied) {
        let judged = copy.judged.clone();
        let mut call = copy.into_call(self);
        let target = Arc::clone(&call.target);
        let same = judged.is_some_and(|it| !target.differs_from(&it.provider, it.region.as_deref()));
        if !same && let Err(refusal) = self.permit(&mut call).await {
            drop(self.finish.close_refused(call.record, refusal).await);
            return;
        }
        // Everybody was asked about these bytes already.
        call.bundle = Arc::new(call.bundle.providers_alone());
        let streams = call.request.streams();
        let Ok(underway) = Underway::begin(self, call).await else { return };
        let served = if streams {
            Box::pin(self.stream(underway)).await
        } else {
            Box::pin(self.reply(underway)).await
        };
        if let Ok(reply) = served
            && let ReplyBody::Stream(mut events) = reply.body
        {
            while poll_fn(|context| events.poll_next(context)).await.is_some() {}
        }
    }
}

/// Who has how many copies under way.
#[derive(Debug, Default)]
pub(super) struct MirrorPlaces {
    taken: Mutex<HashMap<TenantId, usize>>,
}

/// The place of one copy, given back when it is dropped.
#[derive(Debug)]
struct MirrorPlace {
    places: Arc<MirrorPlaces>,
    tenant: TenantId,
}

/// What a copy is made of.
struct Copied {
    request: Arc<super::facts::Request>,
    bundle: Arc<crate::component::Bundle>,
    route: Arc<crate::config::Route>,
    config: Arc<crate::config::Config>,
    /// The target that predicate and policies were asked about.
    judged: Option<Arc<RouteTarget>>,
    target: Arc<RouteTarget>,
    trace: TraceId,
}

// === impl MirrorPlaces ===

impl MirrorPlaces {
    /// A place for a copy of a call of this tenant, unless it has its share or all are taken.
    fn take(self: &Arc<Self>, tenant: &TenantId) -> Option<MirrorPlace> {
        let mut taken = self.lock();
        let of_tenant = taken.get(tenant).copied().unwrap_or(0);
        if of_tenant >= MOST_MIRRORS_OF_TENANT || taken.values().sum::<usize>() >= MOST_MIRRORS {
            return None;
        }
        taken.insert(tenant.clone(), of_tenant + 1);
        drop(taken);
        Some(MirrorPlace { places: Arc::clone(self), tenant: tenant.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl MirrorPlace ===

impl Drop for MirrorPlace {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let left = taken.remove(&self.tenant).unwrap_or(0).saturating_sub(1);
        if left > 0 {
            taken.insert(self.tenant.clone(), left);
        }
    }
}

// === impl Copied ===

impl Copied {
    fn into_call(self, pipeline: &Pipeline) -> Call {
        let Self { request: original, bundle, route, config, target, trace, .. } = self;
        let inbound = Inbound {
            operation: original.operation,
            target: original.target.clone(),
            // Those that travel stand beside the body already.
            headers: HeaderMap::new(),
            body: original.body.bytes.clone(),
            principal: Arc::clone(&original.principal),
            request_id: original.http_id.clone(),
        };
        let body = blake3::hash(&inbound.body);
        let mut record =
            Record::begin(&inbound, &body, &original.lineage, &trace, &bundle, pipeline.clock.as_ref());
        record.mirrors(&original.trace, &original.facts.model);
        record.routed(&route, &target);
        let turn = UserKey::of(&original.principal, &[b"shadow", trace.as_str().as_bytes()]);
        let request = Arc::new(original.at(&target).traced(trace));
        Call { request, turn, bundle, route, targets: vec![Arc::clone(&target)], target, config, record }
    }
}

// === private helpers ===

/// Whether this call is one of so many of a hundred.
fn drawn(call: &Call, percent: u32) -> bool {
    let hash = blake3::hash(call.request.trace.as_str().as_bytes());
    let number = hash.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    number % 100 < percent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn a_tenant_whose_shadow_is_slow_leaves_places_for_the_others_and_gets_its_own_back() {
        let places = Arc::new(MirrorPlaces::default());
        let mut slow: Vec<_> = (0..8).map(|_| places.take(&tenant("slow")).expect("a place")).collect();
        assert!(places.take(&tenant("slow")).is_none(), "a ninth copy of one tenant");

        let others: Vec<_> = (0..8).map(|_| places.take(&tenant("other")).expect("a place")).collect();
        slow.pop();
        assert!(places.take(&tenant("third")).is_some(), "what was given back can be taken by anybody");
        assert!(places.take(&tenant("slow")).is_some());

        drop((slow, others));
        assert!(places.lock().is_empty(), "nothing is remembered of tenants without copies");
    }
}
