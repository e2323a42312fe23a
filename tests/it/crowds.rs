//! Hostile guests of every kind, again and again and eight at once, beside honest calls: each of theirs is stopped the same way
//! every time, and each of the others is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sallyport::component::contract::provider::Input;
use sallyport::component::contract::scanner::TextKind;
use sallyport::component::contract::{hook, policy};
use sallyport::component::{Component, Fault};
use serde_json::json;
use tokio::task::JoinSet;

use crate::hostile::{Canary, event, way};
use crate::rig::{Rig, call, hello_body, tool_use};

/// How many at once.
pub(crate) const CROWD: usize = 8;

/// How often each of a crowd is let loose: `SALLYPORT_SOAK` makes it a hundred times.
pub(crate) fn rounds() -> usize {
    if crate::soak() { 100 } else { 5 }
}

/// What a hostile guest is asked to do, by its kind.
#[derive(Clone, Copy)]
enum Ask {
    Check,
    Scan,
    Tell,
    Match,
    Begin,
    /// An exchange begins, and its first input is too much for it.
    Next,
}

/// One call of the guest: how it was stopped.
async fn stopped(rig: &Rig, guest: &Arc<Component>, ask: Ask) -> Option<Fault> {
    match ask {
        Ask::Check => rig.check(guest).await.err(),
        Ask::Scan => rig.components.scan(guest, TextKind::User, "hello").await.result.err(),
        Ask::Tell => {
            rig.components.on_event(guest, &tool_use("Bash", &json!({"command": "ls"}))).await.result.err()
        }
        Ask::Match => rig.components.matches(guest, &call().into(), &hello_body()).await.result.err(),
        Ask::Begin => rig.begin(guest).await.err(),
        Ask::Next => match rig.begin(guest).await {
            Err(fault) => Some(fault),
            Ok(mut exchange) => exchange.next(vec![Input::End]).await.err(),
        },
    }
}

/// One honest call of each kind, until told to stop; how many rounds.
async fn honest(rig: Arc<Rig>, beside: String, stop: Arc<AtomicBool>) -> usize {
    let mut rounds = 0;
    while rounds == 0 || !stop.load(Ordering::Relaxed) {
        assert!(matches!(rig.check(&rig.policy).await, Ok(policy::Verdict::Allow)), "beside {beside}");
        let found = rig.components.scan(&rig.scanner, TextKind::User, "hello").await.result;
        assert!(found.as_ref().is_ok_and(Vec::is_empty), "beside {beside}: {found:?}");
        let mut exchange = rig.begin(&rig.provider).await.unwrap();
        assert!(exchange.next(vec![Input::End]).await.unwrap().is_empty(), "beside {beside}");
        rounds += 1;
        tokio::task::yield_now().await;
    }
    rounds
}

/// A crowd that does the same again and again, beside honest calls.
async fn crowd<D>(rig: &Arc<Rig>, name: &str, deed: impl Fn(Arc<Rig>) -> D)
where
    D: Future<Output = ()> + Send + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let mut served = JoinSet::new();
    served.spawn(honest(Arc::clone(rig), name.to_owned(), Arc::clone(&stop)));
    let mut hostile = JoinSet::new();
    for _ in 0..CROWD {
        let deeds: Vec<D> = (0..rounds()).map(|_| deed(Arc::clone(rig))).collect();
        hostile.spawn(async move {
            for deed in deeds {
                deed.await;
            }
        });
    }
    while let Some(ended) = hostile.join_next().await {
        ended.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(served.join_next().await.unwrap().unwrap() > 0);
    rig.honest_work_goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_guest_again_and_again_and_eight_at_once_beside_honest_calls_of_every_kind() {
    let rig = Arc::new(Rig::new().await);
    for (name, ask, codes) in [
        ("01-loop", Ask::Check, &["deadline"][..]),
        ("03-recursion", Ask::Check, &["stack_overflow"]),
        ("04-memory-grow", Ask::Check, &["memory"]),
        ("05-table-grow", Ask::Check, &["table"]),
        ("08-lend-flood", Ask::Check, &["host_calls", "deadline"]),
        ("12-random", Ask::Check, &["random"]),
        ("24-garbage-verdict", Ask::Check, &["garbage"]),
        ("24-panic", Ask::Check, &["trap"]),
        ("27-secret-echo", Ask::Check, &["trap", "garbage"]),
        ("28-cpu-hog", Ask::Check, &["deadline"]),
        ("10-same-string-100k", Ask::Scan, &["too_much_data"]),
        ("14-bad-utf8", Ask::Scan, &["garbage"]),
        ("14-misaligned", Ask::Scan, &["garbage"]),
        ("22-trap-in-post-return", Ask::Scan, &["trap"]),
        ("01-loop-hook", Ask::Tell, &["deadline"]),
        ("01-loop-predicate", Ask::Match, &["deadline"]),
        ("07-resource-flood", Ask::Begin, &["handles"]),
        ("09-list-40mb", Ask::Next, &["too_much_data"]),
        ("28-provider-hog", Ask::Next, &["deadline"]),
    ] {
        let guest = rig.admit(name).await;
        crowd(&rig, name, |rig| {
            let guest = Arc::clone(&guest);
            async move {
                let fault = stopped(&rig, &guest, ask).await;
                let code = fault.as_ref().map(Fault::code);
                assert!(code.is_some_and(|code| codes.contains(&code.as_str())), "{name}: {fault:?}");
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_mean_harm_and_get_none_done_eight_at_once_beside_honest_calls() {
    let rig = Arc::new(Rig::new().await);
    for (name, faults) in [
        // What spoils its own memory may fault.
        ("15-realloc-zero", &["trap", "garbage"][..]),
        ("15-realloc-overlap", &["trap", "garbage"]),
        // Eight that touch every page of their memory keep the kernel busy, which counts as their time.
        ("21-memory-canary", &["deadline"]),
        ("26-log-injection", &[]),
        ("26-notes-flood", &[]),
        ("30-clock-probe", &[]),
    ] {
        let guest = rig.admit(name).await;
        crowd(&rig, name, |rig| {
            let guest = Arc::clone(&guest);
            async move {
                let verdict = rig.check(&guest).await;
                // A denial is how these say that they saw something.
                let harmless = match &verdict {
                    Ok(verdict) => matches!(verdict, policy::Verdict::Allow),
                    Err(fault) => faults.contains(&fault.code().as_str()),
                };
                assert!(harmless, "{name}: {verdict:?}");
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_that_are_refused_are_refused_again_and_again_and_eight_at_once_beside_honest_calls() {
    let rig = Arc::new(Rig::new().await);
    for name in [
        "06-memory-4gib",
        "11-deep-variant",
        "14-utf16",
        "15-realloc-out-of-bounds",
        "15-realloc-calls-import",
        "23-unknown-import",
        "23-other-version",
    ] {
        let first = rig.refuse(name).await.to_string();
        crowd(&rig, name, |rig| {
            let first = first.clone();
            async move { assert_eq!(rig.refuse(name).await.to_string(), first, "{name}") }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_that_look_for_private_targets_eight_at_once_reach_nobody() {
    let rig = Arc::new(Rig::new().await);
    let canary = Canary::listen().await;
    let port = canary.address.port();
    let ways = ["127.0.0.1", "0x7f000001", "localhost", "[::ffff:127.0.0.1]"]
        .map(|host| way(&format!("http://{host}:{port}"), false));
    let guest = rig.admit_hook("18-private-targets", &ways).await;
    crowd(&rig, "18-private-targets", |rig| {
        let guest = Arc::clone(&guest);
        async move {
            let ran = rig.components.on_event(&guest, &event()).await;
            assert!(ran.egress_calls.iter().all(|sent| sent.outcome.is_err()), "{:?}", ran.egress_calls);
        }
    })
    .await;
    assert_eq!(canary.visits(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_that_flood_their_grant_eight_at_once_leave_honest_calls_alone() {
    let rig = Arc::new(Rig::new().await);
    let canary = Canary::listen().await;
    canary.answer("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned());
    let guest = rig.admit_hook("19-egress-flood", &[way(&format!("http://{}", canary.address), true)]).await;
    crowd(&rig, "19-egress-flood", |rig| {
        let guest = Arc::clone(&guest);
        async move {
            let ran = rig.components.on_event(&guest, &event()).await;
            assert!(matches!(ran.result, Ok(hook::Outcome::Proceed)), "{ran:?}");
            assert_eq!(ran.egress_calls.len(), 32);
        }
    })
    .await;
    assert_eq!(canary.visits(), CROWD * rounds() * 27, "the five that no grant covers are not among them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_calls_are_not_stopped_however_busy_the_machine_is() {
    let rig = Arc::new(Rig::new().await);
    let stop = Arc::new(AtomicBool::new(false));
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::black_box(0_u64);
                }
            })
        })
        .collect();
    let count = if crate::soak() { 200_000 } else { 2_000 };
    let mut callers = JoinSet::new();
    for _ in 0..CROWD {
        let rig = Arc::clone(&rig);
        callers.spawn(async move {
            for call in 0..count / CROWD {
                let begun = rig.begin(&rig.provider).await;
                let mut exchange = begun.unwrap_or_else(|fault| panic!("call {call}: {fault:?}"));
                let ended = exchange.next(vec![Input::End]).await;
                assert!(ended.is_ok(), "call {call}: {ended:?}");
                let verdict = rig.check(&rig.policy).await;
                assert!(matches!(verdict, Ok(policy::Verdict::Allow)), "call {call}: {verdict:?}");
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for thread in spinning {
        thread.join().unwrap();
    }
}
