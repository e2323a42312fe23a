//! A component host without a gateway around it: the library's own, on the real binary, with honest components in it and
//! whatever a story adds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use sallyport::clock::{ManualClock, SystemClock};
use sallyport::component::contract::hook::{Event, Occurrence, ToolCall};
use sallyport::component::contract::provider::{Input, RequestKind};
use sallyport::component::contract::scanner::TextKind;
use sallyport::component::contract::{
    BodyView, Bucket, Budget, Call, Counters, CountersUnreachable, Counting, Principal, Segment, SegmentKind,
    policy,
};
use sallyport::component::{
    Admission, AdmitError, Component, Components, Exchange, ExchangeRequest, Fault, Fuel, Ran, RunsIn,
    Settings,
};
use sallyport::config::EgressSettings;
use sallyport::shipped::{first_party, first_party_publisher};
use sallyport::upstream::{EgressClient, Outbound, TrustedServers};
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Package, TrustError, Verified};
use sallyport_tests::{binary, hostile};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::hostile::calling_hook;

pub(crate) const MIB: usize = 1024 * 1024;

/// A component host of its own, with one honest component of each kind.
pub(crate) struct Rig {
    pub(crate) components: Arc<Components>,
    pub(crate) policy: Arc<Component>,
    pub(crate) provider: Arc<Component>,
    pub(crate) scanner: Arc<Component>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) counted: Arc<Counted>,
}

/// A body with a text in it.
struct Hello;

/// Counters that are kept elsewhere: they let through as much as the limit says, know who took, and answer when they can be
/// reached.
pub(crate) struct Counted {
    taken: Mutex<Vec<(String, String, String, u32)>>,
    store: watch::Sender<Store>,
    waiting: AtomicUsize,
}

/// Where the counters are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// It answers.
    Answers,
    /// It does not answer yet.
    Silent,
    /// It cannot be reached.
    Gone,
}

// === impl Counted ===

impl Counted {
    fn new() -> Self {
        Self {
            taken: Mutex::default(),
            store: watch::Sender::new(Store::Answers),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Tenant, component, key and cost of everything that was taken.
    pub(crate) fn taken(&self) -> Vec<(String, String, String, u32)> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }

    /// What becomes of what is asked from now on, and of what waits.
    pub(crate) fn store(&self, store: Store) {
        self.store.send_replace(store);
    }

    /// How many wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    async fn reached(&self) -> Result<(), CountersUnreachable> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut store = self.store.subscribe();
        let store = *store.wait_for(|store| *store != Store::Silent).await.unwrap();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if store == Store::Gone { Err(CountersUnreachable) } else { Ok(()) }
    }
}

impl Counters for Counted {
    fn take<'a>(&'a self, bucket: Bucket<'a>, cost: u32) -> Counting<'a, Result<u32, Duration>> {
        Box::pin(async move {
            self.reached().await?;
            let Bucket { tenant, component, key, limit, window, .. } = bucket;
            let mut taken = self.taken.lock().unwrap();
            let before: u32 = taken.iter().filter(|(.., other, _)| other == key).map(|(.., cost)| cost).sum();
            let after = before + cost;
            if after > limit {
                return Ok(Err(window));
            }
            taken.push((tenant.to_owned(), component.to_owned(), key.to_owned(), cost));
            Ok(Ok(limit - after))
        })
    }

    fn correct<'a>(&'a self, bucket: Bucket<'a>, taken: u32, used: u32) -> Counting<'a, ()> {
        Box::pin(async move {
            self.reached().await?;
            let Bucket { tenant, component, key, .. } = bucket;
            let (tenant, component) = (tenant.to_owned(), component.to_owned());
            let name = format!("{key} instead of {taken}");
            self.taken.lock().unwrap().push((tenant, component, name, used));
            Ok(())
        })
    }

    fn reserve<'a>(&'a self, _: Budget<'a>, _: u64, cap: u64) -> Counting<'a, Result<u64, Duration>> {
        Box::pin(async move { self.reached().await.map(|()| Ok(cap)) })
    }

    fn release<'a>(&'a self, _: Budget<'a>, _: u64, _: u64) -> Counting<'a, ()> {
        Box::pin(self.reached())
    }
}

/// The body of [`call`].
pub(crate) fn hello_body() -> Arc<dyn BodyView> {
    Arc::new(Hello)
}

impl BodyView for Hello {
    fn bytes(&self) -> &[u8] {
        br#"{"model":"claude-opus-4","messages":[]}"#
    }

    fn texts(&self) -> Vec<Segment> {
        vec![Segment { kind: SegmentKind::User, text: "Hello".to_owned(), offset: 0, len: 5 }]
    }
}

// === impl Rig ===

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::on(binary::sallyport()).await
    }

    /// With this program as compiler and worker.
    pub(crate) async fn on(program: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            pool: 64,
            cache_dir: directory.path().join("code"),
            cache_key: [9; 32],
            compiler: program,
            development: true,
            fuel: Fuel::Off,
            compile_seconds: u32::MAX,
        };
        let clock = Arc::new(ManualClock::new(hostile::NOW));
        let counted = Arc::new(Counted::new());
        let components = Components::start(settings, Arc::clone(&counted) as _, clock).unwrap();
        let admit =
            async |name| components.admit(&guest(name), &json!({}), Admission::default()).await.unwrap();
        let policy = admit("00-honest-policy").await;
        let provider = admit("00-honest-provider").await;
        let scanner = admit("00-honest-scanner").await;
        Self { components, policy, provider, scanner, directory, counted }
    }

    pub(crate) async fn admit(&self, name: &str) -> Arc<Component> {
        self.components.admit(&guest(name), &json!({}), Admission::default()).await.unwrap()
    }

    /// A guest of `tenant`, to run where `tier` says.
    pub(crate) async fn admit_to(
        &self,
        tier: RunsIn,
        tenant: &str,
        name: &str,
    ) -> Result<Arc<Component>, AdmitError> {
        let tenant = TenantId::parse(tenant).unwrap();
        let verified = hostile::verified_for(name, &key(), &tenant);
        self.components.admit(&verified, &json!({}), Admission::new(tier, Some(&tenant))).await
    }

    /// A hook that is granted `ways`, which its package calls way0, way1 and so on.
    pub(crate) async fn admit_hook(&self, name: &str, ways: &[EgressSettings]) -> Arc<Component> {
        self.admit_hook_to(RunsIn::Shared, name, ways).await
    }

    pub(crate) async fn admit_hook_to(
        &self,
        tier: RunsIn,
        name: &str,
        ways: &[EgressSettings],
    ) -> Arc<Component> {
        let outbound = Outbound::new(&TrustedServers::System).unwrap();
        let egress = EgressClient::new(&outbound, Arc::new(SystemClock::default()));
        let grants = ways.iter().enumerate().map(|(number, way)| (format!("way{number}"), egress.grant(way)));
        let verified = calling_hook(name, ways.len());
        let admission = Admission::new(tier, None).granted(grants.collect());
        self.components.admit(&verified, &json!({}), admission).await.unwrap()
    }

    /// A component that ships with the gateway.
    pub(crate) async fn shipped(&self, tier: RunsIn, name: &str, config: &Value) -> Arc<Component> {
        let embedded = first_party().into_iter().find(|embedded| embedded.name == name).unwrap();
        let package = Package::parse(embedded.bytes).unwrap();
        let publisher = first_party_publisher().unwrap();
        let host = semver::Version::new(0, 1, 0);
        // Signed on this machine, today.
        let now = package.statement().not_before + Duration::from_hours(1);
        let verified = package.verify(&[publisher], now, &host, None, None).unwrap();
        self.components.admit(&verified, config, Admission::new(tier, None)).await.unwrap()
    }

    pub(crate) async fn refuse(&self, name: &str) -> AdmitError {
        self.components.admit(&guest(name), &json!({}), Admission::default()).await.unwrap_err()
    }

    pub(crate) async fn check(&self, policy: &Arc<Component>) -> Result<policy::Verdict, Fault> {
        self.checked(policy).await.result
    }

    /// The same with everything that comes of it.
    pub(crate) async fn checked(&self, policy: &Arc<Component>) -> Ran<policy::Verdict> {
        let body: Arc<dyn BodyView> = Arc::new(Hello);
        self.components.check(policy, &call().into(), &body).await
    }

    pub(crate) async fn begin(&self, provider: &Arc<Component>) -> Result<Exchange, Fault> {
        let request = ExchangeRequest {
            call: call(),
            body: Arc::new(Hello),
            upstream_model: "claude-opus-4".to_owned(),
            model_span: (9, 15),
            headers: Vec::new(),
            kind: RequestKind::Message,
            target: "/v1/messages".to_owned(),
        };
        self.components.exchange(provider, request).await.map(|(exchange, _)| exchange)
    }

    /// The fault of a policy; then honest work, and nothing left behind.
    pub(crate) async fn fault_of_policy(&self, name: &str) -> Fault {
        let guest = self.admit(name).await;
        let fault = self.check(&guest).await.unwrap_err();
        self.honest_work_goes_on().await;
        fault
    }

    /// The fault of a scanner; then honest work, and nothing left behind.
    pub(crate) async fn fault_of_scanner(&self, name: &str) -> Fault {
        let guest = self.admit(name).await;
        let fault = self.components.scan(&guest, TextKind::User, "hello").await.result.unwrap_err();
        self.honest_work_goes_on().await;
        fault
    }

    pub(crate) async fn honest_work_goes_on(&self) {
        assert_eq!(self.components.capacity().live, 0, "a guest is still alive");
        assert!(matches!(self.check(&self.policy).await, Ok(policy::Verdict::Allow)));
        assert!(
            self.components.scan(&self.scanner, TextKind::User, "hello").await.result.unwrap().is_empty()
        );
        let mut exchange = self.begin(&self.provider).await.unwrap();
        assert!(exchange.next(vec![Input::End]).await.unwrap().is_empty());
        drop(exchange);
        assert_eq!(self.components.capacity().live, 0, "an honest guest is still alive");
    }
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn guest(name: &str) -> Verified {
    hostile::verified(name, &key())
}

pub(crate) fn verify(package: &Package) -> Result<Verified, TrustError> {
    package.verify(&[hostile::publisher(&key())], hostile::NOW, &semver::Version::new(0, 1, 0), None, None)
}

/// A tool that the model wants to use.
pub(crate) fn tool_use(name: &str, input: &Value) -> Occurrence {
    Occurrence {
        trace: "t_00000000000000000000000000000001".to_owned(),
        principal: call().principal,
        event: Event::PreToolUse(ToolCall {
            id: "toolu_1".to_owned(),
            name: name.to_owned(),
            input: input.to_string(),
            server: None,
        }),
        in_band: true,
        raw: None,
        attributes: Vec::new(),
    }
}

pub(crate) fn call() -> Call {
    Call {
        trace: "t_00000000000000000000000000000001".into(),
        time_ms: "1795608000000".into(),
        principal: Principal {
            user: "u_1".into(),
            tenant: "acme".into(),
            session: "sess_1".into(),
            client: "sp_cli".into(),
            source: "cli".into(),
            roles: Arc::default(),
            department: None,
            scopes: Arc::default(),
            attributes: Vec::new(),
        },
        model: "claude-opus-4".into(),
        route: "claude-*".into(),
        provider: "honest".into(),
        streaming: false,
        max_tokens: Some(64),
        body_bytes: 39,
        message_count: 0,
        tools: Arc::default(),
        agent: None,
        region: None,
        attributes: Vec::new(),
    }
}
