//! Components that nobody wrote. Whatever one of them is: it is refused with a reason or admitted, and each of its calls ends
//! soon, in an answer or in a fault that has a name; then honest work goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport::component::contract::provider::{Input, ResponseHead, TransportFault};
use sallyport::component::contract::scanner::TextKind;
use sallyport::component::contract::{CallOutcome, Usage, no_egress, policy};
use sallyport::component::{Admission, AdmitError, CompileError, Component, Fault};
use sallyport_protocol::package::{Capability, Kind, Package, Statement};
use sallyport_protocol::signature::public_key_text;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::generated::{self, Generated};
use sallyport_tests::hostile;
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::wait::within;
use serde_json::json;

use crate::hostile::event;
use crate::rig::{Rig, call, hello_body, key, tool_use, verify};

/// Guest time of a call is far less; a call that takes this long hangs.
const CALL: Duration = Duration::from_secs(30);
/// The compiler gives up before.
const ADMISSION: Duration = Duration::from_mins(3);

/// How many: one number after the other, so that kinds and flavours are all there.
fn count() -> u64 {
    if crate::soak() { 2_000 } else { 40 }
}

/// The hooks among them want egress.
fn statement(name: &str, kind: Kind) -> Statement {
    let capabilities =
        if kind == Kind::Hook { vec![Capability::Egress("way".to_owned())] } else { Vec::new() };
    Statement { capabilities, ..hostile::statement(name, kind) }
}

/// Admits it, or says why not. A compiler that broke, rather than refused or was stopped by a limit, fails the test.
async fn admit(rig: &Rig, kind: Kind, component: &[u8]) -> Result<Arc<Component>, String> {
    let statement = statement("generated", kind);
    let grants = no_egress(&statement.capabilities);
    let verified = verify(&hostile::package(statement, &key(), component)).unwrap();
    let config = json!({});
    let admitting = rig.components.admit(&verified, &config, Admission::default().granted(grants));
    let error = match within("an admission", ADMISSION, admitting).await {
        Ok(component) => return Ok(component),
        Err(error) => error,
    };
    let why = match &error {
        AdmitError::Inspect(_) => "inspect",
        AdmitError::World(_) => "world",
        AdmitError::Compile(CompileError::Refused(_)) => "configure: no",
        AdmitError::Compile(CompileError::Configure(message)) => {
            says_why(message);
            "configure: fault"
        }
        AdmitError::Compile(CompileError::Failed(_)) => "compile",
        AdmitError::Trial(fault) => return Err(format!("trial: {}", fault.code())),
        other => panic!("{other:?}"),
    };
    Err(why.to_owned())
}

/// What went wrong, and not where in the guest.
fn says_why(text: &str) {
    assert!(!text.trim().is_empty() && !text.contains("backtrace"), "{text}");
}

/// What each of its calls came to.
async fn called(rig: &Rig, component: &Arc<Component>) -> Vec<Result<&'static str, Fault>> {
    match component.kind() {
        Kind::Policy => {
            let (spent, body) = (settlement(), hello_body());
            let checked = soon(rig.components.check(component, &call().into(), &body)).await.result;
            let settled = soon(rig.components.settle(component, &call().into(), &spent)).await.result;
            vec![checked.map(|_| "verdict"), settled.map(|()| "settled")]
        }
        Kind::Scanner => {
            let texts = ["", "hello", "key AKIAIOSFODNN7EXAMPLE \u{1f511}"];
            let mut said = Vec::new();
            for text in texts {
                let found = soon(rig.components.scan(component, TextKind::User, text)).await.result;
                said.push(found.map(|_| "findings"));
            }
            said
        }
        Kind::Hook => {
            let mut said = Vec::new();
            for what in [event(), tool_use("Bash", &json!({"command": "ls"}))] {
                let ran = soon(rig.components.on_event(component, &what)).await;
                assert!(ran.egress_calls.iter().all(|sent| sent.outcome.is_err()), "{ran:?}");
                said.push(ran.result.map(|_| "outcome"));
            }
            said
        }
        Kind::Predicate => {
            let ran = soon(rig.components.matches(component, &call().into(), &hello_body())).await;
            vec![ran.result.map(|_| "match or none")]
        }
        Kind::Provider => exchanged(rig, component).await,
    }
}

/// A provider, fed until it ends the exchange.
async fn exchanged(rig: &Rig, component: &Arc<Component>) -> Vec<Result<&'static str, Fault>> {
    let mut exchange = match soon(rig.begin(component)).await {
        Ok(exchange) => exchange,
        Err(fault) => return vec![Err(fault)],
    };
    let mut said = Vec::new();
    for input in [
        Input::Head(ResponseHead { status: 200, headers: Vec::new() }),
        Input::Chunk(br#"{"type":"message"}"#.to_vec()),
        Input::Failed(TransportFault::Closed),
        Input::Elapsed,
        Input::End,
    ] {
        match soon(exchange.next(vec![input])).await {
            Ok(_) => said.push(Ok("outputs")),
            Err(Fault::Over) => {}
            Err(fault) => said.push(Err(fault)),
        }
    }
    said
}

async fn soon<T>(call: impl Future<Output = T>) -> T {
    within("a call", CALL, Box::pin(call)).await
}

fn settlement() -> policy::Settlement {
    let usage =
        Usage { input: Some(12), output: Some(3), cache_read: None, cache_write: None, cache_write_1h: None };
    policy::Settlement { usage, cost_micro: "123".to_owned(), outcome: CallOutcome::Allowed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_generated_component_breaks_the_host_or_ends_otherwise_than_in_an_answer_or_a_fault() {
    let rig = Rig::new().await;
    let began = Instant::now();
    let mut came_to: BTreeMap<String, u32> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for seed in 0..count() {
        let Generated { kind, flavour, component, .. } = generated::component(seed);
        let who = format!("generated component {seed} ({}, {flavour:?})", kind.as_str());
        let told = match component {
            // Nothing that could be uploaded.
            Err(_) => vec!["no component".to_owned()],
            Ok(component) => match admit(&rig, kind, &component).await {
                Err(why) => vec![format!("refused: {why}")],
                Ok(component) => {
                    let before = Instant::now();
                    let said = called(&rig, &component).await;
                    slowest = slowest.max(before.elapsed());
                    assert!(!said.is_empty(), "{who}");
                    std::iter::once("admitted".to_owned())
                        .chain(said.into_iter().map(|said| match said {
                            Ok(answer) => format!("answer: {answer}"),
                            Err(fault) => {
                                says_why(&fault.to_string());
                                format!("fault: {}", fault.code())
                            }
                        }))
                        .collect()
                }
            },
        };
        crate::tell(&format!("{who}: {}", told.join(", ")));
        for what in told {
            *came_to.entry(what).or_default() += 1;
        }
        rig.honest_work_goes_on().await;
    }
    crate::tell(&format!(
        "{} generated components in {:?}, the slowest calls of one {slowest:?}: {came_to:?}",
        count(),
        began.elapsed()
    ));
    let of =
        |what: &str| came_to.iter().filter(|(name, _)| name.starts_with(what)).map(|(_, n)| n).sum::<u32>();
    assert_eq!(of("no component") + of("refused") + of("admitted"), u32::try_from(count()).unwrap());
    assert!(of("admitted") > 0 && of("refused") > 0 && of("fault") > 0 && of("answer") > 0, "{came_to:?}");
}

/// The first of this kind whose first call ends in a fault.
async fn faulty(rig: &Rig, wanted: Kind) -> Vec<u8> {
    for seed in 0.. {
        let Generated { kind, component: Ok(bytes), .. } = generated::component(seed) else { continue };
        if kind == wanted
            && let Ok(component) = admit(rig, kind, &bytes).await
            && called(rig, &component).await[0].is_err()
        {
            return bytes;
        }
    }
    panic!("none of them is faulty")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_component_that_breaks_is_a_no_whatever_its_kind() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Policy, Kind::Scanner, Kind::Hook] {
        let component = faulty(&rig, kind).await;
        let file = folder.path().join(format!("{}.sallyport", kind.as_str()));
        std::fs::write(&file, Package::build(statement("generated", kind), &key(), &component).unwrap())
            .unwrap();
        let publisher = json!({"key": public_key_text(&key().verifying_key()), "namespace": "hostile", "kinds": [kind.as_str()]});
        let way = json!({"name": "way", "url": "https://outside.example", "methods": ["GET"], "components": ["hostile/generated"]});
        let app = TestApp::with(|config| {
            config
                .component(file.to_str().unwrap(), json!({}))
                .set("/components", json!({"publishers": [publisher]}))
                .set("/egress", if kind == Kind::Hook { json!([way]) } else { json!([]) })
        })
        .await;
        let tool = Turn::Tool("toolu_1".into(), "Bash".into(), json!({"command": "ls"}));
        app.upstream.script(Script::Turn(vec![tool]));
        let reply = app.messages(crate::hello()).await;
        let rows = app.lineage(reply.header("x-trace-id").unwrap()).await;
        let (row, outcome) = if kind == Kind::Hook { ("hook", "error") } else { ("inference", "denied") };
        let row = rows.iter().find(|it| it["kind"] == row).unwrap();
        assert_eq!(row["outcome"], outcome, "{}: {row}", kind.as_str());
        if kind == Kind::Hook {
            assert!(!String::from_utf8_lossy(&reply.body).contains("toolu_1"), "{reply}");
        } else {
            assert_eq!((reply.status, app.upstream.seen()), (451, 0), "{}: {reply}", kind.as_str());
        }
    }
}
