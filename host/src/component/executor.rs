//! Where a component runs: in the gateway's own process, or in a worker process without keys, database and network.

use std::sync::Arc;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::Kind;

use super::fault::Fault;
use super::guest::Guest;
use super::limits::Limits;
use super::worker::GuestHandle;

/// Where a component runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunsIn {
    /// In the gateway's process, between its other guests.
    #[default]
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
    Process(GuestHandle),
    /// It never runs.
    None,
}

// === impl Isolation ===

impl Isolation {
    /// Where a component of `kind` that belongs to `owner` runs on a gateway with so many tenants. Providers always run in
    /// the gateway's process: they are its vendors' and its own, and each chunk of a stream is a call of theirs.
    pub fn tier(self, kind: Kind, owner: Option<&TenantId>, tenants: u64) -> RunsIn {
        let apart = match self {
            Self::Tenants => owner.is_some() && tenants > 1,
            Self::Process => true,
            Self::Shared => false,
        };
        if apart && kind != Kind::Provider { RunsIn::Process } else { RunsIn::Shared }
    }
}

// === impl Executor ===

impl Executor {
    /// The same under other limits, configured with `config` in every instance, if there is one.
    pub(super) async fn with_limits(&self, limits: Limits, config: Option<String>) -> Result<Self, Fault> {
        Ok(match self {
            Self::Shared(guest) => Self::Shared(Arc::new(guest.with_limits(limits, config))),
            Self::Process(handle) => Self::Process(handle.with_limits(limits, config).await?),
            Self::None => Self::None,
        })
    }

    pub(super) fn tier(&self) -> RunsIn {
        match self {
            Self::Shared(_) | Self::None => RunsIn::Shared,
            Self::Process(_) => RunsIn::Process,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_component_leaves_the_process_when_there_is_another_tenant() {
        let acme = TenantId::parse("acme").unwrap();
        let tier = |isolation: Isolation, owner, tenants| isolation.tier(Kind::Hook, owner, tenants);
        assert_eq!(tier(Isolation::Tenants, Some(&acme), 1), RunsIn::Shared);
        assert_eq!(tier(Isolation::Tenants, Some(&acme), 2), RunsIn::Process);
        assert_eq!(tier(Isolation::Tenants, None, 2), RunsIn::Shared);
        assert_eq!(tier(Isolation::Process, None, 1), RunsIn::Process);
        assert_eq!(tier(Isolation::Shared, Some(&acme), 2), RunsIn::Shared);
        for isolation in [Isolation::Tenants, Isolation::Process, Isolation::Shared] {
            assert_eq!(isolation.tier(Kind::Provider, Some(&acme), 2), RunsIn::Shared, "{isolation:?}");
        }
    }
}
