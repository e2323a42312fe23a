//! Where a component runs: in the gateway's own process, or in a worker process without keys, database and network. Calls
//! are the same for both, and so is what may come of them.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::Kind;

use super::Components;
use super::admit::Component;
use super::call::{Exchange, ExchangeRequest, Ran};
use super::contract::{BodyView, Call, hook, policy, scanner};
use super::fault::Fault;
use super::guest::Guest;
use super::limits::Limits;
use super::state::Scene;
use super::witness::Witness;
use super::worker::Seat;

/// Where a component runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// In the gateway's process, between its other guests.
    Shared,
    /// In a worker process: one for each tenant, and one for what belongs to no tenant.
    Process,
}

/// Which components run where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// What a tenant brought runs in the tenant's worker as soon as there is another tenant.
    #[default]
    Tenants,
    /// Everything that can runs in a worker.
    Process,
    /// Nothing runs in a worker.
    Shared,
}

/// What runs a component.
pub(super) enum Executor {
    Shared(Arc<Guest>),
    Process(Seat),
    /// It never runs.
    Nowhere,
}

// === impl Isolation ===

impl Isolation {
    /// Where a component of `kind` that belongs to `owner` runs on a gateway with so many tenants. Providers always run in
    /// the gateway's process: they are its vendors' and its own, and each chunk of a stream is a call of theirs.
    pub fn tier(self, kind: Kind, owner: Option<&TenantId>, tenants: u64) -> Tier {
        let apart = match self {
            Self::Tenants => owner.is_some() && tenants > 1,
            Self::Process => true,
            Self::Shared => false,
        };
        if apart && kind != Kind::Provider { Tier::Process } else { Tier::Shared }
    }
}

// === impl Executor ===

impl Executor {
    /// The same under other limits, configured with `config` in every instance, if there is one.
    pub(super) async fn on_stage(&self, limits: Limits, config: Option<String>) -> Result<Self, Fault> {
        Ok(match self {
            Self::Shared(guest) => Self::Shared(Arc::new(guest.on_stage(limits, config))),
            Self::Process(seat) => Self::Process(seat.on_stage(limits, config).await?),
            Self::Nowhere => Self::Nowhere,
        })
    }

    pub(super) fn tier(&self) -> Tier {
        match self {
            Self::Shared(_) | Self::Nowhere => Tier::Shared,
            Self::Process(_) => Tier::Process,
        }
    }
}

// === impl Component ===

impl Component {
    fn callable(&self) -> Result<&Executor, Fault> {
        self.barred().map_or(Ok(&self.executor), |fault| Err(fault.clone()))
    }

    /// What it said while it was being revoked does not count.
    fn heard<T>(&self, ran: Ran<T>) -> Ran<T> {
        match self.barred() {
            Some(fault) => Ran { result: Err(fault.clone()), ..ran },
            None => ran,
        }
    }
}

// === impl Components ===

impl Components {
    /// Asks a policy.
    pub async fn check(
        &self,
        component: &Arc<Component>,
        call: &Call,
        body: &Arc<dyn BodyView>,
    ) -> Ran<policy::Verdict> {
        let mut scene = self.scene_of_call(component, call);
        let witness = Witness::of(&mut scene);
        let ran = match component.callable() {
            Ok(Executor::Shared(guest)) => self.runner.check(guest, scene, call, body).await,
            Ok(Executor::Process(seat)) => seat.check(scene, call, body).await,
            Ok(Executor::Nowhere) => Ran::failed(nowhere()),
            Err(fault) => Ran::failed(fault),
        };
        component.heard(witness.testify(ran))
    }

    /// Tells a policy what a call came to.
    pub async fn settle(
        &self,
        component: &Arc<Component>,
        call: &Call,
        spent: &policy::Settlement,
    ) -> Ran<()> {
        let mut scene = self.scene_of_call(component, call);
        let witness = Witness::of(&mut scene);
        let ran = match component.callable() {
            Ok(Executor::Shared(guest)) => self.runner.settle(guest, scene, call, spent).await,
            Ok(Executor::Process(seat)) => seat.settle(scene, call, spent).await,
            Ok(Executor::Nowhere) => Ran::failed(nowhere()),
            Err(fault) => Ran::failed(fault),
        };
        component.heard(witness.testify(ran))
    }

    /// Has a scanner look at one text. Nothing but the text, its kind and the configuration decides what comes of it.
    pub async fn scan(
        &self,
        component: &Arc<Component>,
        kind: scanner::TextKind,
        text: &str,
    ) -> Ran<Vec<scanner::Finding>> {
        let mut scene = self.scene_of(component, "", "");
        scene.now = Duration::ZERO;
        let witness = Witness::of(&mut scene);
        let ran = match component.callable() {
            Ok(Executor::Shared(guest)) => self.runner.scan(guest, scene, kind, text).await,
            Ok(Executor::Process(seat)) => seat.scan(scene, kind, text).await,
            Ok(Executor::Nowhere) => Ran::failed(nowhere()),
            Err(fault) => Ran::failed(fault),
        };
        component.heard(witness.testify(ran))
    }

    /// Asks a predicate whether the route that `call` names takes it.
    pub async fn matches(
        &self,
        component: &Arc<Component>,
        call: &Call,
        body: &Arc<dyn BodyView>,
    ) -> Ran<bool> {
        let mut scene = self.scene_of_call(component, call);
        let witness = Witness::of(&mut scene);
        let ran = match component.callable() {
            Ok(Executor::Shared(guest)) => self.runner.matches(guest, scene, call, body).await,
            Ok(Executor::Process(seat)) => seat.matches(scene, call, body).await,
            Ok(Executor::Nowhere) => Ran::failed(nowhere()),
            Err(fault) => Ran::failed(fault),
        };
        component.heard(witness.testify(ran))
    }

    /// Tells a hook what happened.
    pub async fn on_event(&self, component: &Arc<Component>, what: &hook::Occurrence) -> Ran<hook::Outcome> {
        let mut scene = self.scene_of(component, &what.principal.tenant, &what.trace);
        let witness = Witness::of(&mut scene);
        let ran = match component.callable() {
            Ok(Executor::Shared(guest)) => self.runner.on_event(guest, scene, what).await,
            Ok(Executor::Process(seat)) => seat.on_event(scene, what).await,
            Ok(Executor::Nowhere) => Ran::failed(nowhere()),
            Err(fault) => Ran::failed(fault),
        };
        component.heard(witness.testify(ran))
    }

    /// Puts a provider to work on one client call.
    pub async fn exchange(
        &self,
        component: &Arc<Component>,
        request: ExchangeRequest,
    ) -> Result<Exchange, Fault> {
        let scene = self.scene_of(component, &request.call.principal.tenant, &request.call.trace);
        let exchange = match component.callable()? {
            Executor::Shared(guest) => self.runner.exchange(component, guest, scene, request).await,
            Executor::Process(_) => {
                Err(Fault::Worker { what: "a provider runs in the gateway's process".to_owned() })
            }
            Executor::Nowhere => Err(nowhere()),
        };
        component.callable()?;
        exchange
    }

    fn scene_of(&self, component: &Component, tenant: &str, trace: &str) -> Scene {
        let scene = self.scene(&component.shared_name(), component.digest(), tenant, trace);
        let counters = component.counters.clone().or(scene.counters);
        let now = component.stands_at.unwrap_or(scene.now);
        Scene { grants: Arc::clone(&component.grants), counters, now, began: now, ..scene }
    }

    /// The scene of a call whose time is known: its money belongs to the day on which it began.
    fn scene_of_call(&self, component: &Component, call: &Call) -> Scene {
        let scene = self.scene_of(component, &call.principal.tenant, &call.trace);
        let began = call.time_ms.parse().map_or(scene.now, Duration::from_millis);
        Scene { began, ..scene }
    }

    /// All that a guest can learn of the world outside.
    pub(super) fn scene(&self, name: &Arc<str>, digest: &str, tenant: &str, trace: &str) -> Scene {
        let now = self.clock.now().unix_timestamp_nanos().max(0) / 1_000_000;
        let now = Duration::from_millis(u64::try_from(now).unwrap_or(0));
        Scene {
            component: Arc::clone(name),
            tenant: tenant.to_owned(),
            seed: format!("{digest}:{trace}"),
            now,
            began: now,
            grants: Arc::default(),
            counters: Some(Arc::clone(&self.counters)),
        }
    }
}

// === private helpers ===

fn nowhere() -> Fault {
    Fault::Absent { reason: "there is nothing to run".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_component_leaves_the_process_when_there_is_another_tenant() {
        let acme = TenantId::parse("acme").unwrap();
        let tier = |isolation: Isolation, owner, tenants| isolation.tier(Kind::Hook, owner, tenants);
        assert_eq!(tier(Isolation::Tenants, Some(&acme), 1), Tier::Shared);
        assert_eq!(tier(Isolation::Tenants, Some(&acme), 2), Tier::Process);
        assert_eq!(tier(Isolation::Tenants, None, 2), Tier::Shared);
        assert_eq!(tier(Isolation::Process, None, 1), Tier::Process);
        assert_eq!(tier(Isolation::Shared, Some(&acme), 2), Tier::Shared);
        for isolation in [Isolation::Tenants, Isolation::Process, Isolation::Shared] {
            assert_eq!(isolation.tier(Kind::Provider, Some(&acme), 2), Tier::Shared, "{isolation:?}");
        }
    }
}
