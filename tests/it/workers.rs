//! Components in a worker process: the same answers as in the gateway's own, and nothing to be had from the process besides.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sallyport::component::contract::scanner::TextKind;
use sallyport::component::contract::{hook, policy};
use sallyport::component::{AdmitError, Component, Fault, Ran, RunsIn, WorkerStatus, try_worker};
use sallyport_protocol::fault::FaultCode;
use sallyport_tests::binary;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::process;
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::hostile::{Canary, event, way};
use crate::rig::{Rig, tool_use};

/// Everything of a call but the time it took.
fn told<T: std::fmt::Debug>(ran: &Ran<T>) -> String {
    format!("{:?} {:?} {:?}", ran.result, ran.notes, ran.log)
}

async fn workers_of(rig: &Rig, number: usize) -> Vec<u32> {
    until("the workers run", SOON, || {
        let pids = rig.components.worker_pids();
        std::future::ready((pids.len() == number).then_some(pids))
    })
    .await
}

fn signal(pid: u32, name: &str) {
    process::signal(pid, name).unwrap();
}

#[tokio::test]
async fn a_hook_says_the_same_in_both_tiers() {
    let rig = Rig::new().await;
    let config = json!({"tools": ["Bash"], "input_contains": ["rm -rf"], "reason": "not — ever"});
    let here = rig.shipped(RunsIn::Shared, "sallyport/block-tool", &config).await;
    let there = rig.shipped(RunsIn::Process, "sallyport/block-tool", &config).await;
    assert_eq!((here.tier(), there.tier()), (RunsIn::Shared, RunsIn::Process));
    let long = "x".repeat(300_000);
    let mut answers = std::collections::BTreeSet::new();
    for what in [
        tool_use("Bash", &json!({"command": "ls"})),
        tool_use("Bash", &json!({"command": "rm -rf /"})),
        tool_use("Read", &json!({"path": "/ünïcode\u{0}"})),
        tool_use("Bash", &json!({"command": long})),
        tool_use("", &Value::Null),
    ] {
        let (one, other) =
            (rig.components.on_event(&here, &what).await, rig.components.on_event(&there, &what).await);
        assert!(one.result.is_ok(), "{one:?}");
        assert_eq!(told(&one), told(&other));
        answers.insert(told(&one));
    }
    assert!(answers.len() >= 2, "the events are answered differently: {answers:?}");
}

#[tokio::test]
async fn a_policy_reads_the_body_and_counts_through_its_worker() {
    let rig = Rig::new().await;
    let here = rig.admit("00-body-in-notes").await;
    let there = rig.admit_to(RunsIn::Process, "acme", "00-body-in-notes").await.unwrap();
    let (here, there) = (rig.checked(&here).await, rig.checked(&there).await);
    assert_eq!(told(&here), told(&there));
    let notes: Vec<_> = there.notes.iter().map(|note| (note.name.as_str(), note.value.as_str())).collect();
    assert_eq!(notes, [("body", r#"model":"claude-opus-4","messages":["#), ("text", "Hello")]);

    let limits = json!({"limits": [{"per": "user", "requests": 2, "window": "1m"}]});
    let mut taken = Vec::new();
    for tier in [RunsIn::Shared, RunsIn::Process] {
        let limited = rig.shipped(tier, "sallyport/rate-limit", &limits).await;
        for _ in 0..2 {
            assert!(matches!(rig.check(&limited).await, Ok(policy::Verdict::Allow)), "{tier:?}");
        }
        let third = rig.check(&limited).await;
        assert!(matches!(third, Ok(policy::Verdict::Deny(_))), "{tier:?}: {third:?}");
        taken.push(rig.counted.taken());
    }
    assert_eq!(taken[0], taken[1], "the counters are the gateway's, under the same names");
    assert!(!taken[0].is_empty());
}

#[tokio::test]
async fn a_scanner_finds_the_same_in_both_tiers() {
    let rig = Rig::new().await;
    let here = rig.shipped(RunsIn::Shared, "sallyport/secret-scan", &json!({})).await;
    let there = rig.shipped(RunsIn::Process, "sallyport/secret-scan", &json!({})).await;
    for text in ["hello", "key AKIAIOSFODNN7EXAMPLE and so on", ""] {
        let one = rig.components.scan(&here, TextKind::User, text).await;
        let other = rig.components.scan(&there, TextKind::User, text).await;
        assert!(one.result.is_ok());
        assert_eq!(told(&one), told(&other));
    }
}

#[tokio::test]
async fn a_hook_goes_out_through_its_grant_and_nowhere_else_and_the_gateway_keeps_the_account() {
    let rig = Rig::new().await;
    let (canary, redirect) = (Canary::listen().await, Canary::listen().await);
    redirect.answer(format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        canary.address
    ));
    let ways = [way(&format!("http://{}", redirect.address), true)];
    let mut accounts = Vec::new();
    for tier in [RunsIn::Shared, RunsIn::Process] {
        let guest = rig.admit_hook_to(tier, "19-egress-flood", &ways).await;
        let ran = rig.components.on_event(&guest, &event()).await;
        assert!(matches!(ran.result, Ok(hook::Outcome::Proceed)), "{ran:?}");
        let account: Vec<_> =
            ran.egress_calls.into_iter().map(|sent| (sent.grant, sent.outcome, sent.bytes)).collect();
        assert_eq!(account.len(), 32);
        accounts.push(account);
    }
    assert_eq!(accounts[0], accounts[1]);
    assert_eq!((redirect.visits(), canary.visits()), (2 * 27, 0));
}

#[tokio::test]
async fn what_a_hostile_guest_does_in_a_worker_is_the_same_fault() {
    let rig = Rig::new().await;
    for name in [
        "01-loop",
        "03-recursion",
        "04-memory-grow",
        "05-table-grow",
        "08-lend-flood",
        "12-random",
        "24-garbage-verdict",
        "24-panic",
    ] {
        let here = rig.admit(name).await;
        let there = rig.admit_to(RunsIn::Process, "acme", name).await.unwrap();
        let (here, there) = (rig.check(&here).await.unwrap_err(), rig.check(&there).await.unwrap_err());
        assert_eq!(here, there, "{name}");
        rig.honest_work_goes_on().await;
    }
    for name in ["10-same-string-100k", "14-bad-utf8", "22-trap-in-post-return"] {
        let here = rig.admit(name).await;
        let there = rig.admit_to(RunsIn::Process, "acme", name).await.unwrap();
        let scan =
            async |scanner| rig.components.scan(scanner, TextKind::User, "hello").await.result.unwrap_err();
        assert_eq!(scan(&here).await, scan(&there).await, "{name}");
    }
    // Every one of them lived in the same process, which took no harm.
    let honest = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    assert!(matches!(rig.check(&honest).await, Ok(policy::Verdict::Allow)));
    assert_eq!(rig.components.worker_status(), WorkerStatus { registered: 1, running: 1, confined: 1 });
}

#[tokio::test]
async fn a_worker_that_is_killed_mid_call_fails_the_call_and_serves_the_next() {
    let rig = Rig::new().await;
    let policy = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    for round in 0..5 {
        let pid = workers_of(&rig, 1).await[0];
        signal(pid, "STOP");
        let in_flight = async { rig.check(&policy).await };
        let kill = async {
            tokio::task::yield_now().await;
            signal(pid, "KILL");
        };
        let (verdict, ()) = tokio::join!(in_flight, kill);
        let fault = verdict.unwrap_err();
        assert_eq!(fault, Fault::Worker { what: "it ended with signal 9".to_owned() }, "round {round}");
        assert_eq!(fault.code(), FaultCode::Worker);
        let again = until("the next call is served", SOON, || async { rig.check(&policy).await.ok() }).await;
        assert!(matches!(again, policy::Verdict::Allow));
        assert_ne!(workers_of(&rig, 1).await[0], pid, "it is another process");
    }
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn the_call_right_after_a_first_death_is_served() {
    let rig = Rig::new().await;
    let policy = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    let pid = workers_of(&rig, 1).await[0];
    signal(pid, "KILL");
    until("the death is known", SOON, || {
        std::future::ready((!rig.components.worker_pids().contains(&pid)).then_some(()))
    })
    .await;
    assert!(matches!(rig.check(&policy).await, Ok(policy::Verdict::Allow)));
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_and_replaced() {
    let rig = Rig::new().await;
    let policy = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    let pid = workers_of(&rig, 1).await[0];
    signal(pid, "STOP");
    assert_eq!(rig.check(&policy).await.unwrap_err(), Fault::Worker { what: "it hung".to_owned() });
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is gone");
    assert!(matches!(rig.check(&policy).await, Ok(policy::Verdict::Allow)));
}

#[tokio::test]
async fn each_tenant_has_a_worker_of_its_own_for_as_long_as_it_has_components() {
    let rig = Rig::new().await;
    assert_eq!(rig.components.worker_status(), WorkerStatus::default());
    let acme = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    let second = rig.admit_to(RunsIn::Process, "acme", "00-honest-scanner").await.unwrap();
    let other = rig.admit_to(RunsIn::Process, "umbrella", "00-honest-policy").await.unwrap();
    let pids = workers_of(&rig, 2).await;
    drop(other);
    let left = workers_of(&rig, 1).await;
    assert!(pids.contains(&left[0]));
    drop(second);
    assert!(matches!(rig.check(&acme).await, Ok(policy::Verdict::Allow)));
    drop(acme);
    assert_eq!(rig.components.worker_status(), WorkerStatus::default());
    for pid in pids {
        let gone = format!("/proc/{pid}");
        until("its process is gone", SOON, || std::future::ready((!Path::new(&gone).exists()).then_some(())))
            .await;
    }
}

#[tokio::test]
async fn a_component_that_does_not_fit_never_moves_in() {
    let rig = Rig::new().await;
    let error = rig.admit_to(RunsIn::Process, "acme", "02-start-loop").await.unwrap_err();
    assert!(matches!(error, AdmitError::Compile(_)), "{error:?}");
    assert_eq!(rig.components.worker_status(), WorkerStatus::default());
}

/// What the kernel says of a worker, and what it holds open.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_worker_has_no_environment_no_files_no_keys_and_no_network() {
    let rig = Rig::new().await;
    let _guest = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap();
    let pid = workers_of(&rig, 1).await[0];
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}"));
    let status = String::from_utf8(read("status").unwrap()).unwrap();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(value("Seccomp"), "2", "{status}");
    assert_eq!(value("NoNewPrivs"), "1", "{status}");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(
            status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"),
            "a thread is outside: {status}"
        );
    }
    let limits = String::from_utf8(read("limits").unwrap()).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");

    // Its memory cannot be looked at by others of its user, and neither can this: then there is nothing to see.
    let (Ok(environment), Ok(open)) = (read("environ"), std::fs::read_dir(format!("/proc/{pid}/fd"))) else {
        return;
    };
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
    let open: Vec<String> =
        open.map(|file| std::fs::read_link(file.unwrap().path()).unwrap().display().to_string()).collect();
    let pagemap = format!("/proc/{pid}/pagemap");
    let strange: Vec<_> = open
        .iter()
        .filter(|file| {
            let kind = file.split(':').next().unwrap_or_default();
            let known = kind == "pipe" || kind == "anon_inode" || kind == "/memfd" || **file == pagemap;
            !known
        })
        .collect();
    assert!(strange.is_empty(), "{open:#?}");
    assert_eq!(open.iter().filter(|file| file.starts_with("pipe:")).count(), 3, "{open:#?}");
}

/// This binary where everybody may run it, and a directory that everybody may look into.
#[cfg(target_os = "linux")]
fn public_binary(directory: &tempfile::TempDir) -> PathBuf {
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open.clone()).unwrap();
    let copy = directory.path().join("sallyport");
    std::fs::copy(binary::sallyport(), &copy).unwrap();
    std::fs::set_permissions(&copy, open).unwrap();
    copy
}

/// A shell's command with `$0` as the binary: as whoever runs the tests, and where that is root, as nobody.
#[cfg(target_os = "linux")]
fn as_everybody(binary: &Path, command: &str) -> Vec<std::process::Output> {
    use std::os::unix::process::CommandExt as _;
    let shell = || {
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(command).arg(binary).stdin(std::process::Stdio::null()).current_dir("/");
        shell
    };
    let mut outputs = vec![shell().output().unwrap()];
    if let Ok(output) = shell().uid(65_534).gid(65_534).output() {
        outputs.push(output);
    }
    outputs
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_tries_what_it_may_not_do_and_everything_fails() {
    const NOT_PERMITTED: i32 = 1;
    let directory = tempfile::tempdir().unwrap();
    let binary = public_binary(&directory);
    // Whoever starts a gateway may leave it a file.
    for output in as_everybody(&binary, "exec 7</etc/passwd; exec \"$0\" try-worker") {
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["confinement"]["seccomp"], true, "{report}");
        let trial = &report["trial"];
        assert_eq!((&trial["files"], &trial["dumpable"]), (&json!([]), &json!(false)), "{report}");
        let tried = trial["tried"].as_array().unwrap();
        assert_eq!(tried.len(), 7, "{report}");
        for attempt in tried {
            assert_eq!(attempt[1], NOT_PERMITTED, "{attempt}: {report}");
        }
    }
}

/// Which of these files of a process another process of the same user may open. The kernel asks of each of them what it asks of
/// whoever attaches to a process, reads its memory or takes its files (`ptrace_may_access`).
#[cfg(target_os = "linux")]
fn opened_by_a_neighbour(pid: u32, user: Option<u32>) -> Vec<String> {
    use std::os::unix::process::CommandExt as _;
    let files = ["environ", "mem", "maps", "auxv", "stack", "syscall", "fd/0", "root/etc", "cwd/etc"];
    let opened = files.iter().filter(|file| {
        let path = format!("/proc/{pid}/{file}");
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg("test -e \"$0\" && (: <\"$0\")").arg(path).current_dir("/");
        if let Some(user) = user {
            shell.uid(user).gid(user);
        }
        shell.output().unwrap().status.success()
    });
    opened.map(|file| (*file).to_owned()).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nobody_of_its_own_user_can_attach_to_a_worker_or_look_into_it() {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    let directory = tempfile::tempdir().unwrap();
    let binary = public_binary(&directory);
    // Root may look into everything: there the neighbours are processes of nobody.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let user = is_root.then_some(65_534);
    let start = |program: &Path, argument: &str| {
        let mut command = std::process::Command::new(program);
        command.arg(argument).env_clear().env("SECRET", "of its starter").current_dir("/");
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.spawn().unwrap()
    };
    let mut ordinary = start(Path::new("/bin/sleep"), "60");
    until("a process like others shows what it has", SOON, || {
        let opened = opened_by_a_neighbour(ordinary.id(), user);
        std::future::ready(opened.contains(&"environ".to_owned()).then_some(()))
    })
    .await;
    let mut worker = start(&binary, "run-components");
    until("the worker is confined", SOON, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.id())).unwrap();
        std::future::ready(status.contains("Seccomp:\t2").then_some(()))
    })
    .await;
    let opened = opened_by_a_neighbour(worker.id(), user);
    for child in [&mut ordinary, &mut worker] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(opened.is_empty(), "{opened:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn workers_and_compilers_start_under_limits_and_a_niceness_that_they_could_not_set_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let binary = public_binary(&directory);
    let limits = "ulimit -n 60 && ulimit -f 100000 && ulimit -c 0";
    for (verb, ends) in [("run-components", 0), ("compile-component", 4)] {
        for output in as_everybody(&binary, &format!("{limits} && exec nice -n 10 \"$0\" {verb}")) {
            // A compiler that is given nothing says so; it got as far as to read.
            assert_eq!(output.status.code(), Some(ends), "{verb}: {output:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_worker_says_that_it_is_wholly_confined() {
    let confinement = try_worker(&binary::sallyport()).await.unwrap();
    assert!(confinement.is_whole(), "{confinement}");
    let missing = try_worker(Path::new("/nowhere/sallyport")).await.unwrap_err();
    assert_eq!(missing.code(), FaultCode::Worker);
}

/// A worker that is not one of ours: the compiler is real, and what speaks for the guests is a script.
fn impostor(directory: &Path, says: &str) -> PathBuf {
    let real = binary::sallyport();
    let real = real.display();
    script(directory, &format!("if [ \"$1\" = compile-component ]; then exec {real} \"$@\"; fi\n{says}"))
}

/// A program of these lines.
pub(crate) fn script(directory: &Path, lines: &str) -> PathBuf {
    let file = directory.join("impostor");
    std::fs::write(&file, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[tokio::test]
async fn a_worker_that_says_what_no_worker_says_is_ended() {
    // A frame: length, case of the report, and what belongs to it. The first is always that it is ready.
    let ready = r"\000\000\000\003\000\001\001";
    for (says, why) in [
        (r"printf '\377\377\377\377'; cat >/dev/null".to_owned(), "it said too much at once"),
        (r"printf '\000\000\000\004oops'; cat >/dev/null".to_owned(), "it said what cannot be read"),
        (format!(r"printf '{ready}{ready}'; cat >/dev/null"), "it was ready twice"),
        (
            format!(r"printf '{ready}\000\000\000\003\001\052\000'; cat >/dev/null"),
            "it loaded what nobody gave it",
        ),
        (
            format!(r"printf '{ready}\000\000\000\011\003\052\000\001\000\000\000\000\000'; cat >/dev/null"),
            "it answered what nobody asked",
        ),
        (
            format!(r"printf '{ready}\000\000\000\003\002\052\000'; cat >/dev/null"),
            "it asked for a call that there is not",
        ),
        ("exit 3".to_owned(), "it ended with status 3"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let rig = Rig::on(impostor(directory.path(), &says)).await;
        let error = rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.unwrap_err();
        assert!(
            matches!(&error, AdmitError::Trial(Fault::Worker { what }) if what == why),
            "{says}: {error:?}"
        );
        rig.honest_work_goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_28_hogs_in_a_worker_leave_the_other_tenant_in_peace() {
    let rig = Arc::new(Rig::new().await);
    let hog = rig.admit_to(RunsIn::Process, "acme", "28-cpu-hog").await.unwrap();
    let honest = rig.admit_to(RunsIn::Process, "umbrella", "00-honest-policy").await.unwrap();
    let alone = p99(&rig, &honest).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut hogs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (rig, hog, stop) = (Arc::clone(&rig), Arc::clone(&hog), Arc::clone(&stop));
        hogs.spawn(async move {
            let mut stopped = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                assert!(matches!(rig.check(&hog).await, Err(Fault::Deadline { .. })));
                stopped += 1;
            }
            stopped
        });
    }
    let beside = p99(&rig, &honest).await;
    stop.store(true, Ordering::Relaxed);
    let stopped: u32 = hogs.join_all().await.into_iter().sum();
    assert!(stopped >= 8, "every hog was stopped: {stopped}");
    crate::tell(&format!("honest p99 {alone:?} alone, {beside:?} beside eight hogs in another worker"));
    if crate::soak() {
        // Two threads of hogs on two processors: an honest call waits for its turn once or twice, and not for a hog's deadline.
        assert!(beside < alone * 3 + Duration::from_millis(10), "{alone:?} alone, {beside:?} beside hogs");
    }
    assert_eq!(rig.components.worker_status(), WorkerStatus { registered: 2, running: 2, confined: 2 });
    rig.honest_work_goes_on().await;
}

/// 99 of 100 calls took at most so long; all of them are served.
async fn p99(rig: &Rig, policy: &Arc<Component>) -> Duration {
    let mut took = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        assert!(matches!(rig.check(policy).await, Ok(policy::Verdict::Allow)));
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_all_its_guests_in_workers_answers_as_ever_and_takes_them_along_when_it_dies() {
    let rm =
        json!({"tools": ["Bash"], "input_contains": ["rm -rf"], "reason": "deleting is not for machines"});
    let rules = json!({"rules": [{"name": "not-this-one", "effect": "deny", "models": ["gpt-9"]}]});
    let app = TestApp::with(|config| {
        config
            .set("/components", json!({"isolation": "process"}))
            .component("sallyport/scope", rules)
            .component("sallyport/secret-scan", json!({}))
            .component("sallyport/block-tool", rm)
    })
    .await;
    let ready = app.client().try_send("GET", "/ready", &[], bytes::Bytes::new()).await.unwrap().json();
    assert_eq!(ready["workers"], json!({"registered": 1, "running": 1, "confined": 1}), "{ready}");
    let turn = |command: &str| {
        Script::Turn(vec![
            Turn::Text("Let me run it.".into()),
            Turn::Tool("toolu_1".into(), "Bash".into(), json!({"command": command})),
        ])
    };
    app.upstream.script(turn("rm -rf /"));
    let blocked = app.messages(crate::hello()).await;
    assert!(blocked.text().contains("deleting is not for machines"), "{blocked}");
    app.upstream.script(turn("ls"));
    let passed = app.messages(crate::hello()).await;
    assert!(String::from_utf8_lossy(&passed.body).contains("toolu_1"), "{passed}");

    let worker = child_of(app.pid(), "run-components").await;
    process::signal(worker, "KILL").unwrap();
    let again = until("calls are served again", SOON, || async {
        Some(app.messages(crate::hello()).await).filter(|reply| reply.status == 200)
    })
    .await;
    assert_eq!(again.status, 200);
    let worker = child_of(app.pid(), "run-components").await;
    app.kill();
    let gone = format!("/proc/{worker}");
    until("the worker went with its gateway", SOON, || {
        std::future::ready((!Path::new(&gone).exists()).then_some(()))
    })
    .await;
    app.launch().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_binary_is_replaced_goes_on_with_the_one_it_was_started_from() {
    let scope = |tool: &str| json!({"rules": [{"name": "not-now", "effect": "deny", "models": [tool]}]});
    let app = TestApp::with(|config| {
        config
            .set("/components", json!({"isolation": "process"}))
            .component("sallyport/scope", scope("gpt-9"))
    })
    .await;
    app.kill();
    app.install();
    app.launch().await;
    app.replace_binary(b"#!/bin/sh\nexit 1\n");

    process::signal(child_of(app.pid(), "run-components").await, "KILL").unwrap();
    until("a worker of the same version took over", SOON, || async {
        Some(app.messages(crate::hello()).await).filter(|reply| reply.status == 200)
    })
    .await;
    app.reload(|config| config.component("sallyport/scope", scope("claude-*")));
    until("a compiler of the same version did its work", SOON, || async {
        Some(app.messages(crate::hello()).await).filter(|reply| reply.status == 451)
    })
    .await;
    app.install();
}

/// A child of a process that does this: `run-components`, `compile-component`.
pub(crate) async fn child_of(parent: u32, verb: &str) -> u32 {
    let children = format!("/proc/{parent}/task");
    until("there is such a child", SOON, || {
        let tasks = std::fs::read_dir(&children).unwrap();
        let pids = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        let pids: Vec<u32> =
            pids.flat_map(|pids| pids.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
        let worker = pids.into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(verb))
        });
        std::future::ready(worker)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_nothing_missing_where_a_worker_starts() {
    let app = TestApp::start().await;
    let said = app.cli(&["doctor"]);
    assert!(said.contains("worker process") && !said.contains("failure"), "{said}");
}
