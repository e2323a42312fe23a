//! Which bundle is in force for whom. A request takes one snapshot and keeps it; a swap is one atomic replacement.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sallyport_protocol::id::TenantId;

use super::bundle::Bundle;

/// The bundles in force.
#[derive(Debug)]
pub struct Registry {
    current: ArcSwap<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    default: Arc<Bundle>,
    tenants: HashMap<TenantId, Arc<Bundle>>,
}

// === impl Registry ===

impl Registry {
    /// `bundle` is in force for every tenant that has none of its own.
    pub fn new(bundle: Bundle) -> Self {
        Self {
            current: ArcSwap::from_pointee(Current { default: Arc::new(bundle), tenants: HashMap::new() }),
        }
    }

    /// `bundle` is in force for every tenant that `tenants` does not name.
    pub fn with_tenants(bundle: Bundle, tenants: impl IntoIterator<Item = (TenantId, Bundle)>) -> Self {
        let tenants = tenants.into_iter().map(|(tenant, bundle)| (tenant, Arc::new(bundle))).collect();
        Self { current: ArcSwap::from_pointee(Current { default: Arc::new(bundle), tenants }) }
    }

    /// What is in force for `tenant` now. Requests hold on to it until they end.
    pub fn snapshot(&self, tenant: &TenantId) -> Arc<Bundle> {
        let current = self.current.load();
        Arc::clone(current.tenants.get(tenant).unwrap_or(&current.default))
    }

    /// Puts `bundle` in force for one tenant, or for all that have none of their own.
    pub fn swap(&self, tenant: Option<&TenantId>, bundle: Bundle) {
        let bundle = Arc::new(bundle);
        self.current.rcu(|current| {
            let mut next = Current::clone(current);
            match tenant {
                Some(tenant) => drop(next.tenants.insert(tenant.clone(), Arc::clone(&bundle))),
                None => next.default = Arc::clone(&bundle),
            }
            next
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sallyport_protocol::id::PolicyVersion;

    fn bundle(version: &str) -> Bundle {
        Bundle { version: PolicyVersion::parse(version).unwrap(), ..Bundle::empty() }
    }

    #[test]
    fn a_request_keeps_the_bundle_that_it_began_with() {
        let (acme, other) = (TenantId::parse("acme").unwrap(), TenantId::parse("other").unwrap());
        let registry = Registry::new(bundle("one"));
        let before = registry.snapshot(&acme);
        registry.swap(Some(&acme), bundle("two"));
        assert_eq!(before.version.as_str(), "one");
        assert_eq!(registry.snapshot(&acme).version.as_str(), "two");
        assert_eq!(registry.snapshot(&other).version.as_str(), "one");
        registry.swap(None, bundle("three"));
        assert_eq!(registry.snapshot(&acme).version.as_str(), "two");
        assert_eq!(registry.snapshot(&other).version.as_str(), "three");
    }

    #[test]
    fn a_thousand_swaps_lose_no_reader() {
        let registry = Arc::new(Registry::new(bundle("v0")));
        let acme = TenantId::parse("acme").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        assert!(registry.snapshot(&acme).version.as_str().starts_with('v'));
                    }
                });
            }
            for number in 0..1_000 {
                registry.swap(None, bundle(&format!("v{number}")));
            }
        });
        assert_eq!(registry.snapshot(&acme).version.as_str(), "v999");
    }
}
