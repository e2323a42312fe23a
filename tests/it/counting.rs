//! Counters that are kept elsewhere: a guest waits for them and holds up nobody, and is stopped where they cannot be reached.

use std::sync::Arc;

use sallyport::component::contract::policy;
use sallyport::component::{Component, Fault, RunsIn};
use sallyport_tests::wait::{SOON, until_true};
use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::{Rig, Store};

const TIERS: [RunsIn; 2] = [RunsIn::Shared, RunsIn::Process];

async fn limited(rig: &Rig, tier: RunsIn) -> Arc<Component> {
    let limits = json!({"limits": [{"per": "user", "requests": 2, "window": "1m"}]});
    rig.shipped(tier, "sallyport/rate-limit", &limits).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_waits_for_its_counters_holds_up_nobody() {
    for tier in TIERS {
        let rig = Arc::new(Rig::new().await);
        let waits = limited(&rig, tier).await;
        let others = rig.shipped(tier, "sallyport/scope", &json!({})).await;
        rig.counted.store(Store::Silent);
        let mut asked = JoinSet::new();
        for _ in 0..2 {
            let (rig, waits) = (Arc::clone(&rig), Arc::clone(&waits));
            asked.spawn(async move { rig.check(&waits).await });
        }
        until_true("both wait for their counters", SOON, || rig.counted.waiting() == 2).await;
        for _ in 0..10 {
            let verdict = rig.check(&others).await;
            assert!(matches!(verdict, Ok(policy::Verdict::Allow)), "beside it, {tier:?}: {verdict:?}");
        }
        assert_eq!(rig.counted.waiting(), 2, "they wait still");
        rig.counted.store(Store::Answers);
        while let Some(verdict) = asked.join_next().await {
            let verdict = verdict.unwrap();
            assert!(matches!(verdict, Ok(policy::Verdict::Allow)), "{tier:?}: {verdict:?}");
        }
        assert_eq!(rig.counted.taken().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_whose_counters_cannot_be_reached_is_stopped_and_the_next_call_is_asked_anew() {
    for tier in TIERS {
        let rig = Rig::new().await;
        let limited = limited(&rig, tier).await;
        rig.counted.store(Store::Gone);
        assert_eq!(rig.check(&limited).await.unwrap_err(), Fault::Counters, "{tier:?}");
        assert!(rig.counted.taken().is_empty());
        rig.counted.store(Store::Answers);
        assert!(matches!(rig.check(&limited).await, Ok(policy::Verdict::Allow)), "{tier:?}");
    }
}
