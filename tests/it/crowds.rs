//! Hostile guests of every kind, again and again and eight at once, beside honest calls: each of theirs is stopped the same way
//! every time, and each of the others is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sallyport::component::contract::provider::Input;
use sallyport::component::contract::scanner::TextKind;
use sallyport::component::contract::{hook, policy};
use sallyport::component::{Component, Ended, Fault};
use serde_json::json;
use tokio::task::JoinSet;

use crate::hostile::{event, way};
use crate::rig::{Rig, call, hello_body, tool_use};

/// How many at once.
const CROWD: usize = 8;

/// How often each of a crowd is let loose: `SALLYPORT_SOAK` makes it a hundred times.
fn rounds() -> usize {
    if std::env::var_os("SALLYPORT_SOAK").is_some() { 100 } else { 5 }
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
        Ask::Match => rig.components.matches(guest, &call(), &hello_body()).await.result.err(),
        Ask::Begin => rig.begin(guest).await.err(),
        Ask::Next => match rig.begin(guest).await {
            Err(fault) => Some(fault),
            Ok(mut exchange) => match exchange.next(Input::Start).await {
                Err(Ended::Fault(fault)) => Some(fault),
                Err(Ended::Failure(_)) | Ok(_) => None,
            },
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
        assert!(exchange.next(Input::Start).await.unwrap().is_empty(), "beside {beside}");
        rounds += 1;
        tokio::task::yield_now().await;
    }
    rounds
}

/// The guest, a crowd of it, beside honest calls.
async fn crowd(rig: &Arc<Rig>, name: &str, guest: &Arc<Component>, ask: Ask, codes: &[&str]) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut served = JoinSet::new();
    served.spawn(honest(Arc::clone(rig), name.to_owned(), Arc::clone(&stop)));
    let mut hostile = JoinSet::new();
    for _ in 0..CROWD {
        let (rig, guest, name) = (Arc::clone(rig), Arc::clone(guest), name.to_owned());
        let codes: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
        hostile.spawn(async move {
            for _ in 0..rounds() {
                let fault = stopped(&rig, &guest, ask).await;
                let code = fault.as_ref().map(Fault::code);
                assert!(
                    code.is_some_and(|code| codes.iter().any(|known| known == code)),
                    "{name}: {fault:?}"
                );
            }
        });
    }
    while let Some(ended) = hostile.join_next().await {
        ended.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let honest = served.join_next().await.unwrap().unwrap();
    assert!(honest > 0);
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
        ("09-list-33mb", Ask::Next, &["too_much_data"]),
        ("28-provider-hog", Ask::Next, &["deadline"]),
    ] {
        let guest = rig.admit(name).await;
        crowd(&rig, name, &guest, ask, codes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_that_flood_their_way_out_eight_at_once_leave_honest_calls_alone() {
    let rig = Arc::new(Rig::new().await);
    let canary = crate::hostile::Canary::listen().await;
    canary.answer("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned());
    let guest = rig.admit_hook("19-egress-flood", &[way(&format!("http://{}", canary.address), true)]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut served = JoinSet::new();
    served.spawn(honest(Arc::clone(&rig), "an egress flood".to_owned(), Arc::clone(&stop)));
    let mut hostile = JoinSet::new();
    for _ in 0..CROWD {
        let (rig, guest) = (Arc::clone(&rig), Arc::clone(&guest));
        hostile.spawn(async move {
            for _ in 0..rounds() {
                let ran = rig.components.on_event(&guest, &event()).await;
                assert!(matches!(ran.result, Ok(hook::Outcome::Proceed)), "{ran:?}");
                assert_eq!(ran.errands.len(), 32);
            }
        });
    }
    while let Some(ended) = hostile.join_next().await {
        ended.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(served.join_next().await.unwrap().unwrap() > 0);
    assert_eq!(canary.visits(), CROWD * rounds() * 27, "the five that no grant covers are not among them");
    rig.honest_work_goes_on().await;
}
