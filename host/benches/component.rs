//! What a fresh call of each kind of component costs: store, instance, call, and all of it dropped.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that is broken shall stop")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use sallyport::clock::SystemClock;
use sallyport::component::contract::hook::{Event, Occurrence, ToolCall};
use sallyport::component::contract::provider::{Input, RequestKind};
use sallyport::component::contract::scanner::TextKind;
use sallyport::component::contract::{BodyView, Bucket, Budget, Call, InstantCounters, Principal, Segment};
use sallyport::component::{Admission, Component, Components, ExchangeRequest, Fuel, RunsIn, Settings};
use sallyport_protocol::package::{
    Digest, HookEvent, Kind, Limits, Name, Package, Publisher, Statement, Verified, World,
};
use serde_json::json;
use time::macros::datetime;

/// The contract's ABI in text: what the cheapest possible guest of each kind looks like.
const HEAD: &str = r#"(memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "sallyport:gateway/configurable@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))"#;
const POLICY: &str = r#"
  (func (export "sallyport:gateway/policy-api@0.1.0#settle") (param i32))
  (func (export "sallyport:gateway/policy-api@0.1.0#check") (param i32) (result i32)
    (call $drop (i32.load offset=176 (local.get 0)))
    (i32.const 1024))"#;
const SCANNER: &str = r#"(func (export "sallyport:gateway/scanner-api@0.1.0#scan") (param i32 i32 i32) (result i32) (i32.const 1024))"#;
const HOOK: &str = r#"(func (export "sallyport:gateway/hook-api@0.1.0#on-event") (param i32) (result i32) (i32.const 1024))"#;
const PROVIDER: &str = r#"
  (func (export "sallyport:gateway/provider-api@0.1.0#begin") (param i32) (result i32) (i32.const 1024))
  (func (export "sallyport:gateway/provider-api@0.1.0#next") (param i32 i32) (result i32) (i32.const 1024))"#;
const DROP: &str =
    r#"(import "sallyport:gateway/types@0.1.0" "[resource-drop]body" (func $drop (param i32)))"#;

struct Hello;
struct NoCounters;

impl InstantCounters for NoCounters {
    fn take(&self, bucket: &Bucket<'_>, _: u32) -> Result<u32, Duration> {
        Ok(bucket.limit)
    }

    fn correct(&self, _: &Bucket<'_>, _: u32, _: u32) {}

    fn reserve(&self, _: &Budget<'_>, _: u64, cap: u64) -> Result<u64, Duration> {
        Ok(cap)
    }

    fn release(&self, _: &Budget<'_>, _: u64, _: u64) {}
}

impl BodyView for Hello {
    fn bytes(&self) -> &[u8] {
        br#"{"model":"claude-opus-4","messages":[]}"#
    }

    fn texts(&self) -> Vec<Segment> {
        Vec::new()
    }
}

fn guest(kind: Kind, functions: &str) -> Verified {
    let import = match kind {
        Kind::Policy => DROP,
        _ => "",
    };
    let mut module = wat::parse_str(format!("(module {import} {HEAD} {functions})")).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    let world = resolve.select_world(&[package], Some(kind.as_str())).unwrap();
    wit_component::embed_component_metadata(
        &mut module,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
        false,
    )
    .unwrap();
    let component = wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    sign(kind, &component)
}

fn sign(kind: Kind, component: &[u8]) -> Verified {
    let key = SigningKey::from_bytes(&[7; 32]);
    let statement = Statement {
        name: Name::parse(&format!("bench/{kind}")).unwrap(),
        version: semver::Version::new(1, 0, 0),
        serial: 1,
        kind,
        world: World { name: kind.as_str().to_owned(), version: semver::Version::new(0, 1, 0) },
        digest: Digest::of(b""),
        size: 0,
        events: if kind == Kind::Hook { vec![HookEvent::PreToolUse] } else { Vec::new() },
        capabilities: Vec::new(),
        reads: None,
        limits: Limits::default(),
        upstream: None,
        credential: None,
        min_host: semver::Version::new(0, 1, 0),
        not_before: datetime!(2026-01-01 00:00 UTC),
        expires: datetime!(2036-01-01 00:00 UTC),
    };
    let publisher = Publisher {
        key: key.verifying_key(),
        namespace: "bench".to_owned(),
        kinds: vec![kind],
        tenant: None,
        development: false,
        revoked: false,
    };
    let package = Package::parse(Package::build(statement, &key, component).unwrap()).unwrap();
    package
        .verify(&[publisher], datetime!(2026-11-21 00:00 UTC), &semver::Version::new(0, 1, 0), None, None)
        .unwrap()
}

fn call() -> Call {
    Call {
        trace: "t_00000000000000000000000000000001".into(),
        time_ms: "1795608000000".into(),
        principal: Principal {
            user: "u_1".into(),
            tenant: "acme".into(),
            session: "sess_1".into(),
            client: "sp_cli".into(),
            source: "cli".into(),
            roles: vec!["engineer".to_owned()].into(),
            department: None,
            scopes: vec!["inference".to_owned()].into(),
            attributes: Vec::new(),
        },
        model: "claude-opus-4".into(),
        route: "claude-*".into(),
        provider: "anthropic".into(),
        streaming: true,
        max_tokens: Some(1_024),
        body_bytes: 39,
        message_count: 1,
        tools: vec!["Bash".to_owned(), "Read".to_owned()].into(),
        agent: None,
        region: None,
        attributes: Vec::new(),
    }
}

fn occurrence() -> Occurrence {
    Occurrence {
        trace: "t_1".to_owned(),
        principal: call().principal,
        event: Event::PreToolUse(ToolCall {
            id: "toolu_1".to_owned(),
            name: "Bash".to_owned(),
            input: r#"{"command":"ls"}"#.to_owned(),
            server: None,
        }),
        in_band: true,
        raw: None,
        attributes: Vec::new(),
    }
}

/// The binary that compiles, next to the benchmark.
fn compiler() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.ancestors().nth(2).unwrap().join("sallyport");
    assert!(
        binary.exists(),
        "build the binary first: cargo build --release --package sallyport --bin sallyport"
    );
    binary
}

fn fresh_calls(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        pool: 1_000,
        cache_dir: directory.path().join("code"),
        cache_key: [1; 32],
        compiler: compiler(),
        development: true,
        fuel: Fuel::Off,
        compile_seconds: u32::MAX,
    };
    let components =
        Components::start(settings, Arc::new(NoCounters), Arc::new(SystemClock::default())).unwrap();
    let admit = |verified: Verified| -> Arc<Component> {
        runtime
            .block_on(components.admit(&verified, &json!({}), Admission::default()))
            .expect("the guest is admitted")
    };
    let apart = |verified: Verified| -> Arc<Component> {
        let config = json!({});
        let admitted = components.admit(&verified, &config, Admission::new(RunsIn::Process, None));
        runtime.block_on(admitted).expect("the guest is admitted to a worker")
    };
    let policy = admit(guest(Kind::Policy, POLICY));
    let scanner = admit(guest(Kind::Scanner, SCANNER));
    let hook = admit(guest(Kind::Hook, HOOK));
    let provider = admit(guest(Kind::Provider, PROVIDER));
    let (call, occurrence) = (Arc::new(call()), occurrence());
    let body: Arc<dyn BodyView> = Arc::new(Hello);

    let mut group = criterion.benchmark_group("fresh call");
    group.bench_function("policy check", |bench| {
        bench.to_async(&runtime).iter(async || components.check(&policy, &call, &body).await.result.unwrap());
    });
    group.bench_function("scanner scan", |bench| {
        bench
            .to_async(&runtime)
            .iter(async || components.scan(&scanner, TextKind::User, "hello").await.result.unwrap());
    });
    group.bench_function("hook on-event", |bench| {
        bench.to_async(&runtime).iter(async || components.on_event(&hook, &occurrence).await.result.unwrap());
    });
    let (far_policy, far_hook) = (apart(guest(Kind::Policy, POLICY)), apart(guest(Kind::Hook, HOOK)));
    group.bench_function("policy check, in a worker", |bench| {
        let check = async || components.check(&far_policy, &call, &body).await.result.unwrap();
        bench.to_async(&runtime).iter(check);
    });
    group.bench_function("hook on-event, in a worker", |bench| {
        let tell = async || components.on_event(&far_hook, &occurrence).await.result.unwrap();
        bench.to_async(&runtime).iter(tell);
    });
    let request = || ExchangeRequest {
        call: Call::clone(&call),
        body: Arc::clone(&body),
        upstream_model: "claude-opus-4".to_owned(),
        model_span: (9, 15),
        headers: Vec::new(),
        kind: RequestKind::Message,
        target: "/v1/messages".to_owned(),
    };
    group.bench_function("provider begin", |bench| {
        bench.to_async(&runtime).iter(async || components.exchange(&provider, request()).await.unwrap());
    });
    group.finish();

    criterion.bench_function("provider next, one token", |bench| {
        let (mut exchange, _) = runtime.block_on(components.exchange(&provider, request())).unwrap();
        let mut answered = 0_u32;
        bench.iter(|| {
            let chunk = Input::Chunk(b"data: {\"delta\":\"word\"}\n\n".to_vec());
            // An exchange may use 200 ms in all: a new one now and then, far below a percent of the calls.
            answered += 1;
            if answered.is_multiple_of(10_000) {
                (exchange, _) = runtime.block_on(components.exchange(&provider, request())).unwrap();
            }
            runtime.block_on(exchange.next(vec![chunk])).unwrap()
        });
    });
}

criterion_group!(benches, fresh_calls);
criterion_main!(benches);
