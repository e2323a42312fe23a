//! What a policy or a hook may ask of the gateway, as traits: the component calls the real one, a native test a double.

use std::time::Duration;

use crate::Attribute;
use crate::bindings::policy::sallyport::gateway::{counters, evidence};

/// Notes for the audit row.
pub trait Evidence {
    /// Adds a note to the row. At most 16 KiB per call of a component; the host drops more and says so.
    fn note(&self, name: &str, value: &str);
}

/// What a policy may ask of the gateway.
pub trait Host: Evidence {
    /// Takes `cost` from a bucket that refills `limit` per `window` (GCRA, the generic cell rate algorithm).
    /// Answers what is left, or how long to wait until the same request would fit. The gateway keeps the keys of
    /// different components and tenants apart, and the counters exact across replicas.
    fn take(&self, key: &str, cost: u32, limit: u32, window: Duration) -> Result<u32, Duration>;
}

/// The gateway itself, behind the imports of the world.
#[derive(Debug, Clone, Copy)]
pub struct Gateway;

// === impl Gateway ===

impl Evidence for Gateway {
    fn note(&self, name: &str, value: &str) {
        evidence::note(&Attribute { name: name.to_owned(), value: value.to_owned() });
    }
}

impl Host for Gateway {
    fn take(&self, key: &str, cost: u32, limit: u32, window: Duration) -> Result<u32, Duration> {
        let window = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        counters::take(key, cost, limit, window)
            .map_err(|refused| Duration::from_millis(refused.retry_after_ms.into()))
    }
}
