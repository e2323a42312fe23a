//! The component host of a command: it counts fuel, keeps nothing, and runs components whoever signed them, since nothing that it
//! runs is put in force.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sallyport_protocol::package::{Digest, Package, Publisher, Statement, Verified};
use sallyport_protocol::signature::SigningKey;
use zeroize::Zeroizing;

use crate::clock::{Clock as _, Entropy as _, SystemClock, SystemEntropy};
use crate::component::contract::{Bucket, Budget, InstantCounters};
use crate::component::{Components, Fuel, Settings, own_program};

/// Live guests: one at a time, and room for its parts.
const POOL: u32 = 16;

/// Whoever runs a component here brings counters of its own: these are empty for all.
struct NoCounters;

// === impl NoCounters ===

impl InstantCounters for NoCounters {
    fn take(&self, bucket: &Bucket<'_>, _: u32) -> Result<u32, Duration> {
        Err(bucket.window)
    }

    fn correct(&self, _: &Bucket<'_>, _: u32, _: u32) {}

    fn reserve(&self, _: &Budget<'_>, _: u64, _: u64) -> Result<u64, Duration> {
        Err(Duration::ZERO)
    }

    fn release(&self, _: &Budget<'_>, _: u64, _: u64) {}
}

/// A component host that counts, with its compiled code in `code`.
pub(super) fn workbench(code: &Path) -> anyhow::Result<Arc<Components>> {
    let mut cache_key = [0; 32];
    SystemEntropy.fill(&mut cache_key);
    let settings = Settings {
        pool: POOL,
        cache_dir: code.to_owned(),
        cache_key,
        compiler: own_program().context("cannot find this binary")?,
        development: true,
        fuel: Fuel::Counted,
        compile_seconds: u32::MAX,
    };
    let clock = Arc::new(SystemClock::default());
    Components::start(settings, Arc::new(NoCounters), clock).context("cannot start the component host")
}

/// The component host runs what is signed and nothing else. Who signed it is not what is asked here, so it is signed by a
/// key that lives for this one command, for a time that includes now.
pub(super) fn self_signed(mut statement: Statement, component: &[u8]) -> anyhow::Result<Verified> {
    let now = SystemClock::default().now();
    statement.not_before = now - time::Duration::DAY;
    statement.expires = now + time::Duration::DAY;
    statement.digest = Digest::of(component);
    let mut seed = Zeroizing::new([0; 32]);
    SystemEntropy.fill(seed.as_mut());
    let key = SigningKey::from_bytes(&seed);
    let publisher = Publisher {
        key: key.verifying_key(),
        namespace: statement.name.namespace().to_owned(),
        kinds: vec![statement.kind],
        tenant: None,
        development: false,
        revoked: false,
    };
    let host = statement.min_host.clone();
    let package = Package::parse(Package::build(statement, &key, component)?)?;
    Ok(package.verify(&[publisher], now, &host, None, None)?)
}
