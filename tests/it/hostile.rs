//! Guests that mean harm. Each is stopped with the fault that names what it did, and honest work goes on right after.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use sallyport::component::contract::provider::Input;
use sallyport::component::contract::{hook, policy};
use sallyport::component::{Admission, AdmitError, CompileError, Fault, InspectError, RunsIn, WorldError};
use sallyport::config::{EgressAuth, EgressSettings, Endpoint};
use sallyport_protocol::fault::{EgressCode, FaultCode};
use sallyport_protocol::package::{Capability, Kind, Package, Statement, TrustError, Verified};
use sallyport_tests::hostile;
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::rig::{MIB, Rig, call, hello_body, key, verify};

#[tokio::test]
async fn guest_01_loop_is_stopped_and_denies() {
    let fault = Rig::new().await.fault_of_policy("01-loop").await;
    assert_eq!(fault, Fault::Deadline { limit: Duration::from_millis(20) });
    assert_eq!(fault.code(), FaultCode::Deadline);
}

#[tokio::test]
async fn guest_02_start_loop_never_becomes_active() {
    let rig = Rig::new().await;
    let error = rig.refuse("02-start-loop").await;
    let AdmitError::Compile(CompileError::Configure(message)) = error else { panic!("{error:?}") };
    assert!(message.starts_with("deadline of"), "{message}");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_03_recursion_ends_with_its_stack() {
    assert_eq!(Rig::new().await.fault_of_policy("03-recursion").await, Fault::StackOverflow);
}

#[tokio::test]
async fn guest_04_memory_grow_stops_at_its_limit() {
    assert_eq!(Rig::new().await.fault_of_policy("04-memory-grow").await, Fault::Memory { limit: 32 * MIB });
}

#[tokio::test]
async fn guest_05_table_grow_stops_at_its_limit() {
    assert_eq!(Rig::new().await.fault_of_policy("05-table-grow").await, Fault::Table { limit: 10_000 });
}

#[tokio::test]
async fn guest_06_memory_of_4_gib_is_refused_unseen_by_the_compiler() {
    let rig = Rig::new().await;
    let error = rig.refuse("06-memory-4gib").await;
    let limit = (32 * MIB) as u64;
    assert!(
        matches!(error, AdmitError::Inspect(InspectError::Memory { bytes: 4_294_967_296, limit: found }) if found == limit)
    );
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_07_resource_flood_runs_out_of_handles() {
    let rig = Rig::new().await;
    let guest = rig.admit("07-resource-flood").await;
    assert_eq!(rig.begin(&guest).await.unwrap_err(), Fault::Handles { limit: 1_024 });
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_08_lend_flood_runs_out_of_host_calls() {
    assert_eq!(Rig::new().await.fault_of_policy("08-lend-flood").await, Fault::HostCalls { limit: 1_000 });
}

#[tokio::test]
async fn guest_09_list_of_40_mb_is_not_copied() {
    let rig = Rig::new().await;
    let guest = rig.admit("09-list-40mb").await;
    let mut exchange = rig.begin(&guest).await.unwrap();
    let fault = exchange.next(vec![Input::End]).await.unwrap_err();
    assert!(matches!(fault, Fault::TooMuchData { limit } if limit == 32 * MIB), "{fault:?}");
    let again = exchange.next(vec![Input::End]).await.unwrap_err();
    assert_eq!(again, Fault::Over, "a store is never used again after a fault");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_10_same_string_100k_times_is_not_copied() {
    assert_eq!(
        Rig::new().await.fault_of_scanner("10-same-string-100k").await,
        Fault::TooMuchData { limit: MIB }
    );
}

#[tokio::test]
async fn guest_12_random_flood_gets_no_byte() {
    assert_eq!(Rig::new().await.fault_of_policy("12-random").await, Fault::Random { limit: 4_096 });
}

#[tokio::test]
async fn guest_14_bad_utf8_is_garbage() {
    let rig = Rig::new().await;
    let fault = rig.fault_of_scanner("14-bad-utf8").await;
    assert!(matches!(fault, Fault::Garbage { .. }), "{fault:?}");
    let fault = rig.fault_of_scanner("14-misaligned").await;
    assert!(matches!(fault, Fault::Garbage { .. }), "{fault:?}");
}

#[tokio::test]
async fn guest_14_utf16_is_refused_by_name() {
    let rig = Rig::new().await;
    let error = rig.refuse("14-utf16").await;
    assert!(
        matches!(error, AdmitError::Inspect(InspectError::Feature { feature: "UTF-16 strings" })),
        "{error:?}"
    );
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_15_realloc_out_of_bounds_or_calling_back_harms_nobody() {
    let rig = Rig::new().await;
    for name in ["15-realloc-out-of-bounds", "15-realloc-calls-import"] {
        let error = rig.refuse(name).await;
        assert!(matches!(error, AdmitError::Compile(CompileError::Configure(_))), "{name}: {error:?}");
    }
    for name in ["15-realloc-zero", "15-realloc-overlap"] {
        // Its own memory is its own to spoil: what it then says is an answer or a fault, and touches nobody.
        let guest = rig.admit(name).await;
        for _ in 0..100 {
            let verdict = rig.check(&guest).await;
            let harmless = matches!(
                verdict,
                Ok(policy::Verdict::Allow) | Err(Fault::Trap { .. } | Fault::Garbage { .. })
            );
            assert!(harmless, "{name}: {verdict:?}");
        }
    }
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_18_private_targets_are_not_dialled_however_they_are_spelled() {
    let rig = Rig::new().await;
    let canary = Canary::listen().await;
    let port = canary.address.port();
    let hosts = [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ];
    // Where an administrator opened the way, those that lead to this machine do lead there: it is the guard that stops them.
    canary.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned());
    for host in &hosts[..7] {
        let before = canary.visits();
        let ways = [true; 10].map(|open| way(&format!("http://{host}:{port}"), open));
        let guest = rig.admit_hook("18-private-targets", &ways).await;
        let ran = rig.components.on_event(&guest, &event()).await;
        assert!(matches!(ran.result, Ok(hook::Outcome::Block(_))), "{host}: {ran:?}");
        assert_eq!(canary.visits(), before + 1, "{host}");
    }
    let visited = canary.visits();
    let ways = hosts.map(|host| way(&format!("http://{host}:{port}"), false));
    let guest = rig.admit_hook("18-private-targets", &ways).await;
    let ran = rig.components.on_event(&guest, &event()).await;
    assert!(matches!(ran.result, Ok(hook::Outcome::Proceed)), "{ran:?}");
    assert_eq!(ran.egress_calls.len(), hosts.len());
    assert!(
        ran.egress_calls.iter().all(|sent| sent.outcome == Err(EgressCode::Unreachable)),
        "{:?}",
        ran.egress_calls
    );
    assert_eq!(canary.visits(), visited);
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_19_egress_flood_ends_at_thirty_two_and_never_leaves_its_grant() {
    let rig = Rig::new().await;
    let (canary, redirect) = (Canary::listen().await, Canary::listen().await);
    redirect.answer(format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        canary.address
    ));
    let guest =
        rig.admit_hook("19-egress-flood", &[way(&format!("http://{}", redirect.address), true)]).await;
    let ran = rig.components.on_event(&guest, &event()).await;
    assert!(matches!(ran.result, Ok(hook::Outcome::Proceed)), "{ran:?}");
    let outcomes: Vec<_> = ran.egress_calls.iter().map(|sent| sent.outcome).collect();
    let refused = [
        Err(EgressCode::NotGranted),
        Err(EgressCode::NotAllowed),
        Err(EgressCode::NotAllowed),
        Err(EgressCode::NotAllowed),
        Ok(302),
        Err(EgressCode::NotAllowed),
    ];
    assert_eq!(outcomes[..6], refused);
    assert_eq!(outcomes[6..], [Ok(302); 26], "thirty-two in all");
    assert_eq!((redirect.visits(), canary.visits()), (27, 0));
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn a_hook_without_its_grant_is_refused_by_the_name_of_the_grant() {
    let rig = Rig::new().await;
    let error = rig
        .components
        .admit(&calling_hook("19-egress-flood", 1), &json!({}), Admission::default())
        .await
        .unwrap_err();
    assert!(matches!(&error, AdmitError::NotGranted { grant } if grant == "way0"), "{error:?}");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn a_hook_that_declares_no_grant_goes_nowhere() {
    let rig = Rig::new().await;
    let guest = rig
        .components
        .admit(&calling_hook("19-egress-flood", 0), &json!({}), Admission::default())
        .await
        .unwrap();
    let ran = rig.components.on_event(&guest, &event()).await;
    assert_eq!(ran.egress_calls.len(), 32, "{ran:?}");
    assert!(ran.egress_calls.iter().all(|sent| sent.outcome == Err(EgressCode::NotGranted)), "{ran:?}");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_01_loop_as_a_predicate_is_stopped() {
    let rig = Rig::new().await;
    let guest = rig.admit("01-loop-predicate").await;
    let fault = rig.components.matches(&guest, &call().into(), &hello_body()).await.result.unwrap_err();
    assert_eq!(fault, Fault::Deadline { limit: Duration::from_millis(20) });
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_11_deep_variant_is_refused_before_it_is_compiled() {
    let rig = Rig::new().await;
    let error = rig.refuse("11-deep-variant").await;
    assert!(matches!(error, AdmitError::Inspect(_) | AdmitError::World(_)), "{error:?}");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_26_log_injection_stays_one_plain_text() {
    let rig = Rig::new().await;
    let guest = rig.admit("26-log-injection").await;
    let ran = rig.checked(&guest).await;
    assert!(matches!(ran.result, Ok(policy::Verdict::Allow)), "{ran:?}");
    let log = ran.log.unwrap();
    assert!(log.contains("INFO sallyport"), "the text is kept: {log:?}");
    let odd: Vec<char> =
        log.chars().filter(|char| char.is_control() && *char != '\n' && *char != '\t').collect();
    assert!(odd.is_empty(), "{odd:?} in {log:?}");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_26_a_flood_of_notes_and_log_lines_is_cut_and_said_so() {
    let rig = Rig::new().await;
    let here = rig.admit("26-notes-flood").await;
    let there = rig.admit_to(RunsIn::Process, "acme", "26-notes-flood").await.unwrap();
    for guest in [here, there] {
        let ran = rig.checked(&guest).await;
        assert!(matches!(ran.result, Ok(policy::Verdict::Allow)), "{ran:?}");
        let log = ran.log.unwrap();
        assert!((8_000..9_000).contains(&log.len()), "8 KiB of the log are kept: {}", log.len());
        let (last, kept) = ran.notes.split_last().unwrap();
        let bytes: usize = kept.iter().map(|note| note.name.len() + note.value.len()).sum();
        assert!((15 * 1024..=16 * 1024).contains(&bytes), "16 KiB of notes are kept: {bytes}");
        assert_eq!((last.name.as_str(), &last.value), ("notes_dropped", &(200 - kept.len()).to_string()));
        rig.honest_work_goes_on().await;
    }
}

#[tokio::test]
async fn guest_30_clock_probe_sees_no_time_pass() {
    let rig = Rig::new().await;
    let guest = rig.admit("30-clock-probe").await;
    for _ in 0..20 {
        let verdict = rig.check(&guest).await;
        assert!(matches!(verdict, Ok(policy::Verdict::Allow)), "{verdict:?}");
    }
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_20_client_gone_at_a_thousand_points_leaves_nothing_alive() {
    let rig = Rig::new().await;
    let busy = rig.admit("20-client-gone").await;
    let hog = rig.admit("28-provider-hog").await;
    let apart = rig.admit_to(RunsIn::Process, "acme", "20-client-gone").await.unwrap();
    for point in 0..1_000_u32 {
        // Each is met a little later than the one before: while it is put to work, in its first tick, in the slow lane, and
        // around its deadline.
        let later = Duration::from_micros(25) * point;
        match point % 4 {
            0 => drop(gone_after(later, rig.check(&busy)).await),
            1 => drop(gone_after(later, rig.check(&apart)).await),
            2 => drop(gone_after(later, Box::pin(rig.begin(&rig.provider))).await),
            _ => {
                let mut exchange = rig.begin(&hog).await.unwrap();
                drop(gone_after(later, exchange.next(vec![Input::End])).await);
            }
        }
        // One that computes in a thread of its own is stopped at its next tick.
        let gone = || rig.components.capacity().live == 0;
        until_true(&format!("the guest of point {point} is gone"), SOON, gone).await;
    }
    // What was given up computes to its deadline in its tenant's own worker, which has little time for what has to be stopped.
    let honest = until("the worker has room again", Duration::from_mins(1), || async {
        rig.admit_to(RunsIn::Process, "acme", "00-honest-policy").await.ok()
    })
    .await;
    assert!(matches!(rig.check(&honest).await, Ok(policy::Verdict::Allow)), "the worker serves on");
    rig.honest_work_goes_on().await;
}

/// Gives `future` up once so much time has passed, to the microsecond; `None` if it was given up.
async fn gone_after<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let began = Instant::now();
    loop {
        let mut context = Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return Some(value),
            Poll::Pending if began.elapsed() >= time => return None,
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn an_exchange_that_was_given_up_half_way_is_over() {
    let rig = Rig::new().await;
    let spinner = rig.admit("09-list-40mb").await;
    let mut exchange = rig.begin(&spinner).await.unwrap();
    drop(exchange.next(vec![Input::End]));
    assert!(exchange.next(vec![Input::End]).await.is_err());
    assert!(matches!(exchange.next(vec![Input::End]).await, Err(Fault::Over)));
    drop(exchange);
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_21_memory_canary_is_never_seen_again() {
    let rig = Rig::new().await;
    let guest = rig.admit("21-memory-canary").await;
    let (mut allowed, mut stopped) = (0, 0);
    while allowed < 200 {
        match rig.check(&guest).await {
            Ok(policy::Verdict::Allow) => allowed += 1,
            // A thousand faults of the memory in 20 ms are more than a busy machine has time for. A call that is stopped has left
            // its marks too, and the next one looks for them.
            Err(Fault::Deadline { .. }) if stopped < 2_000 => stopped += 1,
            other => panic!("after {allowed} calls, one saw the memory of an earlier one: {other:?}"),
        }
    }
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_22_trap_in_post_return_is_a_fault() {
    let fault = Rig::new().await.fault_of_scanner("22-trap-in-post-return").await;
    assert!(matches!(fault, Fault::Trap { .. }), "{fault:?}");
}

#[tokio::test]
async fn guest_23_unknown_import_is_refused_by_name() {
    let rig = Rig::new().await;
    let error = rig.refuse("23-unknown-import").await;
    assert!(
        matches!(error, AdmitError::World(WorldError::Import { kind: Kind::Policy, ref import }) if import == "sallyport:gateway/admin@0.1.0")
    );
    let error = rig.refuse("23-other-version").await;
    assert!(
        matches!(error, AdmitError::World(WorldError::Import { ref import, .. }) if import == "sallyport:gateway/types@0.9.0")
    );
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_24_garbage_or_panic_is_no_verdict() {
    let rig = Rig::new().await;
    let fault = rig.fault_of_policy("24-garbage-verdict").await;
    assert!(matches!(fault, Fault::Garbage { .. }), "{fault:?}");
    let fault = rig.fault_of_policy("24-panic").await;
    assert!(matches!(fault, Fault::Trap { .. }), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_28_eight_cpu_hogs_do_not_starve_honest_calls() {
    let rig = Arc::new(Rig::new().await);
    let hog = rig.admit("28-cpu-hog").await;
    let done = Arc::new(AtomicBool::new(false));
    let mut hogs = JoinSet::new();
    for _ in 0..8 {
        let (rig, hog, done) = (Arc::clone(&rig), Arc::clone(&hog), Arc::clone(&done));
        hogs.spawn(async move {
            let mut stopped = 0_u32;
            while stopped == 0 || !done.load(Ordering::Relaxed) {
                assert!(matches!(rig.check(&hog).await, Err(Fault::Deadline { .. })));
                stopped += 1;
            }
            stopped
        });
    }
    let honest: u32 = if crate::soak() { 20_000 } else { 500 };
    for _ in 0..honest {
        assert!(matches!(rig.check(&rig.policy).await, Ok(policy::Verdict::Allow)), "beside eight hogs");
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    let stopped: u32 = hogs.join_all().await.into_iter().sum();
    crate::tell(&format!("{honest} honest calls beside eight hogs, which were stopped {stopped} times"));
    // A ratio, since both sides slow down alike on a busy machine: hogs that kept the workers would stop about as often as
    // honest calls are served. A quiet machine serves more than a hundred for each stop.
    if crate::soak() {
        assert!(honest > stopped * 2, "honest calls went on beside eight hogs: {honest} for {stopped} stops");
    }
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn a_full_pool_refuses_the_next_guest_and_has_room_again_afterwards() {
    let rig = Rig::new().await;
    let limit = rig.components.capacity().limit;
    let mut open = Vec::new();
    for _ in 0..limit {
        open.push(rig.begin(&rig.provider).await.unwrap());
    }
    assert_eq!(rig.components.capacity().live, limit);
    assert_eq!(rig.check(&rig.policy).await.unwrap_err(), Fault::Exhausted);
    drop(open);
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn a_package_for_another_world_is_refused_with_what_it_exports() {
    let rig = Rig::new().await;
    let (_, scanner) = hostile::component("00-honest-scanner");
    let package = hostile::package(hostile::statement("wrong-world", Kind::Hook), &key(), &scanner);
    let error =
        rig.components.admit(&verify(&package).unwrap(), &json!({}), Admission::default()).await.unwrap_err();
    let AdmitError::World(WorldError::Export { missing, found, .. }) = error else { panic!("{error:?}") };
    assert_eq!(missing, "sallyport:gateway/hook-api@0.1.x");
    assert!(found.contains("sallyport:gateway/scanner-api@0.1.0"), "{found}");
    rig.honest_work_goes_on().await;
}

#[test]
fn a_forged_tampered_or_downgraded_package_is_never_admitted() {
    let (_, component) = hostile::component("00-honest-policy");
    let statement = || hostile::statement("package", Kind::Policy);
    let forged = hostile::package(statement(), &SigningKey::from_bytes(&[66; 32]), &component);
    assert!(matches!(verify(&forged), Err(TrustError::UnknownKey(_))));

    let mut bytes = Package::build(statement(), &key(), &component).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(verify(&Package::parse(bytes).unwrap()), Err(TrustError::Digest)));

    let old = hostile::package(statement(), &key(), &component);
    let publishers = [hostile::publisher(&key())];
    let downgraded = old.verify(&publishers, hostile::NOW, &semver::Version::new(0, 1, 0), None, Some(2));
    assert!(matches!(downgraded, Err(TrustError::Downgraded { serial: 1, floor: 2 })));
}

#[tokio::test]
async fn code_changed_on_disk_is_compiled_again() {
    let rig = Rig::new().await;
    let directory = rig.directory.path().join("code");
    let before = std::fs::read_dir(&directory).unwrap().count();
    for file in std::fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x41;
        std::fs::write(&path, bytes).unwrap();
    }
    let again = rig.admit("00-honest-policy").await;
    assert!(matches!(rig.check(&again).await, Ok(policy::Verdict::Allow)));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), before);
    rig.honest_work_goes_on().await;
}

pub(crate) fn calling_hook(name: &str, ways: usize) -> Verified {
    let (_, component) = hostile::component(name);
    let capabilities = (0..ways).map(|number| Capability::Egress(format!("way{number}"))).collect();
    let statement = Statement { capabilities, ..hostile::statement(name, Kind::Hook) };
    verify(&hostile::package(statement, &key(), &component)).unwrap()
}

pub(crate) fn way(url: &str, allow_private: bool) -> EgressSettings {
    EgressSettings {
        name: "way".to_owned(),
        endpoint: Endpoint::parse(url).unwrap(),
        methods: vec!["GET".to_owned()],
        path_prefix: String::new(),
        auth: EgressAuth::None,
        max_request: 64,
        max_response: 64,
        timeout: Duration::from_secs(2),
        allow_private,
        components: Vec::new(),
    }
}

pub(crate) fn event() -> hook::Occurrence {
    hook::Occurrence {
        trace: "t_00000000000000000000000000000001".to_owned(),
        principal: call().principal,
        event: hook::Event::UserPromptSubmit("hello".to_owned()),
        in_band: true,
        raw: None,
        attributes: Vec::new(),
    }
}

/// A server on this machine that counts who comes.
pub(crate) struct Canary {
    pub(crate) address: SocketAddr,
    visits: Arc<AtomicUsize>,
    answer: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Canary {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (visits, answer) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<String>>::default());
        let (seen, says) = (Arc::clone(&visits), Arc::clone(&answer));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // One visit for each request, also where a connection carries several.
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    seen.fetch_add(1, Ordering::SeqCst);
                    let answer = says.lock().unwrap().clone();
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        });
        Self { address, visits, answer, _serving: serving }
    }

    pub(crate) fn answer(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}
