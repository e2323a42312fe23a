//! Policies that say which facts of a call they read: whatever else they look for is not there.

use std::sync::Arc;

use sallyport::component::contract::policy::Verdict;
use sallyport::component::{Admission, Component, Fault};
use sallyport::shipped::first_party;
use sallyport_protocol::package::{Fact, Kind, Package, Statement};
use sallyport_tests::hostile;
use serde_json::{Value, json};

use crate::rig::{Rig, call, hello_body, key, verify};

/// A guest as a policy that reads `facts`, or that does not say what it reads.
async fn admitted(rig: &Rig, component: &[u8], facts: Option<&[Fact]>, config: &Value) -> Arc<Component> {
    let statement =
        Statement { reads: facts.map(<[Fact]>::to_vec), ..hostile::statement("reader", Kind::Policy) };
    let verified = verify(&hostile::package(statement, &key(), component)).unwrap();
    rig.components.admit(&verified, config, Admission::default()).await.unwrap()
}

/// Code and reason of a refusal.
fn refusal(verdict: Result<Verdict, Fault>) -> (String, String) {
    match verdict {
        Ok(Verdict::Deny(refusal)) => (refusal.code, refusal.reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn guest_31_that_says_what_it_reads_is_told_nothing_else() {
    let rig = Rig::new().await;
    let none = json!({});
    let (_, named) = hostile::component("31-names-the-caller");
    for (facts, said) in [
        (None, ("u_1", call().trace.as_ref().to_owned())),
        (Some([Fact::User].as_slice()), ("u_1", String::new())),
        (Some([Fact::Model].as_slice()), ("", String::new())),
        (Some([].as_slice()), ("", String::new())),
    ] {
        let guest = admitted(&rig, &named, facts, &none).await;
        let found = refusal(rig.check(&guest).await);
        assert_eq!(found, (said.0.to_owned(), said.1), "{facts:?}");
    }
    let (_, reader) = hostile::component("27-secret-in-reason");
    let guest = admitted(&rig, &reader, None, &none).await;
    assert!(refusal(rig.check(&guest).await).1.contains("claude-opus-4"), "it reads the body");
    let guest = admitted(&rig, &reader, Some(&Fact::NAMED), &none).await;
    assert_eq!(refusal(rig.check(&guest).await), (String::new(), String::new()), "there is no body to read");
    rig.honest_work_goes_on().await;
}

#[tokio::test]
async fn guest_31_that_says_what_it_reads_has_no_chances_no_time_and_no_counters() {
    let rig = Rig::new().await;
    let (_, dice) = hostile::component("12-random-verdict");
    for (facts, alike) in [(None, false), (Some([Fact::Model].as_slice()), true)] {
        let guest = admitted(&rig, &dice, facts, &json!({})).await;
        let mut other = call();
        other.trace = "t_00000000000000000000000000000002".into();
        other.principal.tenant = "other".into();
        let one = refusal(rig.check(&guest).await);
        let ran = rig.components.check(&guest, &other.into(), &hello_body()).await;
        assert_eq!(ran.now.is_zero(), facts.is_some());
        assert_eq!(one == refusal(ran.result), alike, "{facts:?}");
    }
    let counting = first_party().into_iter().find(|it| it.name == "sallyport/rate-limit").unwrap();
    let counting = Package::parse(counting.bytes).unwrap();
    let limits = json!({"limits": [{"per": "user", "requests": 4, "window": "1h"}]});
    let guest = admitted(&rig, counting.component(), None, &limits).await;
    assert!(matches!(rig.check(&guest).await, Ok(Verdict::Allow)));
    assert_eq!(rig.counted.taken().len(), 1);
    let guest = admitted(&rig, counting.component(), Some(&[Fact::User]), &limits).await;
    assert_eq!(rig.check(&guest).await.unwrap_err(), Fault::Counters);
    assert!(rig.counted.taken().is_empty(), "it took nothing");
    rig.honest_work_goes_on().await;
}
