//! Compile bombs: components made to hurt the compiler. Each is refused at the first look, or compiled within the child's
//! limits; the host that asked goes on serving while it waits.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sallyport::component::contract::policy;
use sallyport::component::{Admission, AdmitError, CompileError, Fault, RunsIn};
use sallyport_protocol::package::Kind;
use sallyport_tests::wait::{SOON, until_true};
use sallyport_tests::{binary, hostile};
use serde_json::json;

use crate::rig::{Rig, key, verify};
use crate::workers::{child_of, script};

/// A policy with these fields besides what a policy needs, and this at the start of `check`.
fn policy(fields: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "sallyport:gateway/types@0.1.0" "[resource-drop]body" (func $drop (param i32)))
  (memory (export "memory") 3)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "sallyport:gateway/configurable@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
  (func (export "sallyport:gateway/policy-api@0.1.0#settle") (param i32))
  {fields}
  (func (export "sallyport:gateway/policy-api@0.1.0#check") (param $call i32) (result i32)
    (local $n i32)
    (call $drop (i32.load offset=176 (local.get $call)))
    {body}
    (i32.const 1024)))"#
    )
}

fn repeated(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut all, number| {
        all.push_str(&piece(number));
        all
    })
}

/// Name, component.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let module = |fields: &str, body: &str| {
        hostile::componentise(Kind::Policy, wat::parse_str(policy(fields, body)).unwrap())
    };
    let component = |text: &str| wat::parse_str(text).unwrap();
    let add = "(local.set $n (i32.add (i32.mul (local.get $n) (i32.const 3)) (local.get $n)))";
    vec![
        ("a huge function", module("", &add.repeat(60_000))),
        ("deep nesting", module("", &format!("{}{}", "(block ".repeat(3_000), ")".repeat(3_000)))),
        ("many locals", module(&format!("(func (local {}))", "i64 ".repeat(49_000)), "")),
        ("many functions", module(&"(func (result i32) (i32.const 1))".repeat(60_000), "")),
        (
            "a giant jump table",
            module("", &format!("(block (br_table {} 0 (i32.const 0)))", "0 ".repeat(60_000))),
        ),
        ("much data", module(&format!("(data \"{}\")", "x".repeat(20 * 1024 * 1024)), "")),
        (
            "many types",
            module(
                &repeated(20_000, |number| format!("(type (func (param {})))", "i32 ".repeat(number % 90))),
                "",
            ),
        ),
        (
            "a huge element segment",
            module(&format!("(func $f) (elem declare func {})", "$f ".repeat(200_000)), ""),
        ),
        ("many tables", module(&"(table 1 funcref)".repeat(90), "")),
        (
            "a big custom section",
            module(&format!("(@custom \"junk\" \"{}\")", "x".repeat(20 * 1024 * 1024)), ""),
        ),
        ("many nested components", component(&format!("(component {})", "(component)".repeat(900)))),
        ("components in components", {
            component(&format!("{}{}", "(component ".repeat(90), ")".repeat(90)))
        }),
        ("a type that doubles with each step", {
            let mut text = String::from("(component (type $t0 (tuple u8 u8))");
            for step in 1..40 {
                let before = step - 1;
                write!(text, "(type $t{step} (tuple $t{before} $t{before}))").unwrap();
            }
            text.push_str("(import \"big\" (func (param \"value\" $t39))))");
            wat::parse_str(text).unwrap_or_default()
        }),
    ]
}

/// Whether the kernel holds a process to these limits, soft and hard.
#[cfg(target_os = "linux")]
fn is_limited(pid: u32) -> bool {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let holds = |name: &str, most: u64| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let mut values = line.split_whitespace().take(2).map(|value| value.parse().unwrap_or(u64::MAX));
        values.next().is_some_and(|soft| soft <= most) && values.next().is_some_and(|hard| hard <= most)
    };
    holds("Max cpu time", 120)
        && holds("Max data size", 2 << 30)
        && holds("Max file size", 512 << 20)
        && holds("Max open files", 64)
        && holds("Max core file size", 0)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_runs_under_limits_of_processor_memory_and_files() {
    let rig = Rig::new().await;
    let verified = hostile::verified("02-configure-loop", &key());
    // It computes until it is stopped: long enough to be looked at.
    let config = json!({"for": "ever"});
    let mut admitting = std::pin::pin!(rig.components.admit(&verified, &config, Admission::default()));
    let looked = async {
        let compiler = child_of(std::process::id(), "compile-component").await;
        until_true("the compiler has limited itself", SOON, || is_limited(compiler)).await;
    };
    tokio::select! {
        admitted = &mut admitting => panic!("it was to run for ever: {admitted:?}"),
        () = looked => {}
    }
}

/// This binary, started under limits that are reached sooner than its own, once there is a file beside it.
#[cfg(target_os = "linux")]
fn tight(directory: &Path, verb: &str, limits: &str) -> (PathBuf, PathBuf) {
    let (real, armed) = (binary::sallyport(), directory.join("armed"));
    let lines = format!(
        "if [ \"$1\" = {verb} ] && [ -e {} ]; then {limits}; fi\nexec {} \"$@\"",
        armed.display(),
        real.display()
    );
    (script(directory, &lines), armed)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_reaches_a_limit_of_the_kernel_is_a_refusal_and_the_next_one_works() {
    // A second of a processor for what computes for ever; 48 MB of memory for a function of half a megabyte.
    let add = "(local.set $n (i32.add (i32.mul (local.get $n) (i32.const 3)) (local.get $n)))";
    let (_, loops) = hostile::component("02-configure-loop");
    let huge = wat::parse_str(policy("", &add.repeat(50_000))).unwrap();
    let huge = hostile::componentise(Kind::Policy, huge);
    for (limit, component, config) in
        [("ulimit -t 1", loops, json!({"for": "ever"})), ("ulimit -d 48000", huge, json!({}))]
    {
        let directory = tempfile::tempdir().unwrap();
        let (program, armed) = tight(directory.path(), "compile-component", limit);
        let rig = Rig::on(program).await;
        let package = hostile::package(hostile::statement("bomb", Kind::Policy), &key(), &component);
        let verified = verify(&package).unwrap();
        std::fs::write(&armed, "").unwrap();
        let refused = rig.components.admit(&verified, &config, Admission::default()).await.unwrap_err();
        let AdmitError::Compile(CompileError::Ended { status, .. }) = &refused else {
            panic!("{limit}: {refused:?}");
        };
        assert!(status.starts_with("signal"), "{limit}: {refused:?}");
        std::fs::remove_file(&armed).unwrap();
        rig.admit("00-body-in-notes").await;
        rig.honest_work_goes_on().await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_memory_is_a_fault_of_its_tenants_guests_and_of_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let (program, armed) = tight(directory.path(), "run-components", "ulimit -d 40000");
    std::fs::write(armed, "").unwrap();
    let rig = Rig::on(program).await;
    let outcome = match rig.admit_to(RunsIn::Process, "acme", "04-memory-grow").await {
        Ok(greedy) => format!("{:?}", rig.check(&greedy).await.unwrap_err()),
        Err(refused) => format!("{refused:?}"),
    };
    crate::tell(&format!("memory beyond what the kernel gives a worker: {outcome}"));
    assert!(
        outcome.contains("Memory") || outcome.contains("Worker") || outcome.contains("Trap"),
        "{outcome}"
    );
    rig.honest_work_goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_compile_bomb_harms_whoever_admits_it() {
    let rig = Rig::new().await;
    for (name, component) in bombs() {
        let package = hostile::package(hostile::statement("bomb", Kind::Policy), &key(), &component);
        let verified = verify(&package).unwrap();
        let config = json!({});
        let mut admitting = std::pin::pin!(rig.components.admit(&verified, &config, Admission::default()));
        let mut served = 0;
        let admitted = loop {
            tokio::select! {
                admitted = &mut admitting => break admitted,
                () = tokio::time::sleep(Duration::from_millis(5)) => {
                    let honest = rig.check(&rig.policy).await;
                    assert!(matches!(honest, Ok(policy::Verdict::Allow)), "beside {name}: {honest:?}");
                    served += 1;
                }
            }
        };
        match admitted {
            Ok(component) => {
                let verdict = rig.check(&component).await;
                let in_bounds = matches!(verdict, Ok(policy::Verdict::Allow) | Err(Fault::Deadline { .. }));
                assert!(in_bounds, "{name}: {verdict:?}");
                crate::tell(&format!("{name}: compiled, beside {served} honest calls"));
            }
            Err(
                error @ (AdmitError::Inspect(_)
                | AdmitError::World(_)
                | AdmitError::Compile(_)
                | AdmitError::Link(_)
                | AdmitError::Trial(_)),
            ) => crate::tell(&format!("{name}: {error:?}, beside {served} honest calls").replace('\n', " ")),
            Err(error) => panic!("{name}: {error:?}"),
        }
        rig.honest_work_goes_on().await;
    }
}
