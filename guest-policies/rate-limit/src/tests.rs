//! What fits into a limit, what is given back, and which configurations cannot hold.

use sallyport_guest_sdk::{
    RefusalKind, Usage,
    testing::{FakeBody, FakeHost, attribute, call, configured},
};

use super::*;

fn policy(config: &str) -> RateLimit {
    configured(config, RateLimit::configure).unwrap()
}

fn check(policy: &RateLimit, call: &Call, host: &FakeHost) -> Result<(), Refusal> {
    match policy.check(call, &FakeBody::default(), host) {
        Verdict::Allow => Ok(()),
        Verdict::Deny(refusal) => Err(refusal),
        other => panic!("neither yes nor no: {other:?}"),
    }
}

#[test]
fn a_refused_request_fits_after_exactly_the_time_it_was_told() {
    let policy = policy(r#"{"limits":[{"per":"user","requests":2,"window":"1m"}]}"#);
    let (host, call) = (FakeHost::default(), call("echo"));
    assert_eq!(check(&policy, &call, &host), Ok(()));
    assert_eq!(check(&policy, &call, &host), Ok(()));
    let refusal = check(&policy, &call, &host).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.kind), ("rate_limited", RefusalKind::RateLimited));
    assert_eq!(refusal.reason, "the limit of 2 requests per user in 1m is reached");
    let wait = Duration::from_millis(refusal.retry_after_ms.unwrap().into());
    host.advance(wait.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(check(&policy, &call, &host).is_err());
    host.advance(Duration::from_millis(1));
    assert_eq!(check(&policy, &call, &host), Ok(()));
}

#[test]
fn users_do_not_share_a_bucket_and_tenants_do() {
    for (per, shared) in [("user", false), ("tenant", true), ("model", true), ("user+model", false)] {
        let policy = policy(&format!(r#"{{"limits":[{{"per":"{per}","requests":1,"window":"1m"}}]}}"#));
        let (host, mut call) = (FakeHost::default(), call("echo"));
        assert_eq!(check(&policy, &call, &host), Ok(()));
        assert!(check(&policy, &call, &host).is_err());
        call.principal.user = "u_bob".into();
        assert_eq!(check(&policy, &call, &host).is_err(), shared, "{per}");
    }
}

fn spent(outcome: CallOutcome, input: Option<u32>, output: Option<u32>) -> Settlement {
    let usage = Usage { input, output, cache_read: Some(90_000), cache_write: None, cache_write_1h: None };
    Settlement { usage, cost_micro: "0".into(), outcome }
}

/// A turn of Claude Code: it asks for far more than it uses.
fn turn() -> Call {
    Call { max_tokens: Some(128_000), body_bytes: 100_000, ..call("claude-opus-5") }
}

#[test]
fn what_a_turn_did_not_use_is_given_back() {
    let policy = policy(r#"{"limits":[{"per":"tenant","tokens":2000000,"window":"1h"}]}"#);
    let (host, call) = (FakeHost::default(), turn());
    for _ in 0..400 {
        assert_eq!(check(&policy, &call, &host), Ok(()));
        policy.settle(&call, &spent(CallOutcome::Allowed, Some(2_000), Some(2_500)), &host);
    }
    let more = (0..100).take_while(|_| check(&policy, &call, &host).is_ok()).count();
    assert!(more < 10, "400 turns of 4,500 tokens leave 200,000: {more}");
}

#[test]
fn a_call_that_failed_costs_what_it_used() {
    let policy = policy(r#"{"limits":[{"per":"user","tokens":50000,"window":"1h"}]}"#);
    let (host, call) = (FakeHost::default(), turn());
    for _ in 0..50 {
        assert_eq!(check(&policy, &call, &host), Ok(()));
        policy.settle(&call, &spent(CallOutcome::Error, None, None), &host);
    }
    assert_eq!(check(&policy, &call, &host), Ok(()));
    policy.settle(&call, &spent(CallOutcome::Error, Some(49_000), Some(1_000)), &host);
    assert!(check(&policy, &call, &host).is_err());
}

#[test]
fn what_nobody_counted_stays_as_it_was_reserved() {
    let policy = policy(r#"{"limits":[{"per":"user","tokens":60000,"window":"1h"}]}"#);
    let (host, call) = (FakeHost::default(), turn());
    for _ in 0..4 {
        assert_eq!(check(&policy, &call, &host), Ok(()));
        policy.settle(&call, &spent(CallOutcome::Allowed, None, None), &host);
    }
    assert!(check(&policy, &call, &host).is_err());
}

#[test]
fn a_limit_below_one_max_tokens_lets_calls_pass_and_counts_what_they_used() {
    let policy = policy(r#"{"limits":[{"per":"user","tokens":20000,"window":"1h"}]}"#);
    let (host, call) = (FakeHost::default(), turn());
    for _ in 0..4 {
        assert_eq!(check(&policy, &call, &host), Ok(()));
        policy.settle(&call, &spent(CallOutcome::Allowed, Some(2_000), Some(1_000)), &host);
    }
    assert_eq!(check(&policy, &call, &host), Ok(()));
    policy.settle(&call, &spent(CallOutcome::Allowed, Some(18_000), Some(0)), &host);
    let refusal = check(&policy, &call, &host).unwrap_err();
    assert_eq!(refusal.code, "rate_limited");
    assert_eq!(
        refusal.retry_after_ms,
        Some(2_700_000),
        "10,000 beyond the limit, and the 5,000 of the next one"
    );
}

#[test]
fn cached_tokens_count_where_the_limit_says_so() {
    let used = |config: &str| policy(config).limits[0].used(&spent(CallOutcome::Allowed, Some(10), Some(5)));
    assert_eq!(used(r#"{"limits":[{"per":"user","tokens":1,"window":"1h"}]}"#), Some(15));
    let all = r#"{"limits":[{"per":"user","tokens":1,"window":"1h","cache_reads":true}]}"#;
    assert_eq!(used(all), Some(90_015));
}

#[test]
fn a_count_of_tokens_takes_from_no_limit_that_does_not_ask_for_it() {
    let free = r#"{"limits":[{"per":"user","requests":1,"window":"1m"},{"per":"user","tokens":60000,"window":"1h"}]}"#;
    let asked = r#"{"limits":[{"per":"user","requests":1,"window":"1m","count_tokens":true}]}"#;
    let mut count = turn();
    count.attributes.push(attribute("operation", "count_tokens"));
    let (host, policy_of) = (FakeHost::default(), |config| policy(config));
    for _ in 0..40 {
        assert_eq!(check(&policy_of(free), &count, &host), Ok(()));
    }
    assert_eq!(check(&policy_of(free), &turn(), &host), Ok(()));
    let host = FakeHost::default();
    assert_eq!(check(&policy_of(asked), &count, &host), Ok(()));
    assert!(check(&policy_of(asked), &count, &host).is_err());
}

#[test]
fn a_call_that_a_later_limit_refuses_keeps_no_tokens() {
    let policy = policy(
        r#"{"limits":[{"per":"user","tokens":100000,"window":"1m"},{"per":"tenant","tokens":160000,"window":"1h","strict":true}]}"#,
    );
    let (host, call) = (FakeHost::default(), turn());
    assert_eq!(check(&policy, &call, &host), Ok(()));
    // Were the tokens of the minute kept, it would refuse the third.
    for _ in 0..10 {
        let refusal = check(&policy, &call, &host).unwrap_err();
        assert!(refusal.reason.contains("per tenant"), "{}", refusal.reason);
    }
}

#[test]
fn a_limit_that_reserves_all_of_max_tokens_is_never_exceeded_by_one_call() {
    let policy = policy(r#"{"limits":[{"per":"user","tokens":3000,"window":"1h","strict":true}]}"#);
    let (host, mut call) = (FakeHost::default(), call("echo"));
    call.max_tokens = Some(1000);
    call.body_bytes = 1999;
    assert_eq!(check(&policy, &call, &host), Ok(()));
    assert_eq!(check(&policy, &call, &host), Ok(()));
    assert_eq!(check(&policy, &call, &host).unwrap_err().retry_after_ms, Some(1_800_000));
    call.max_tokens = Some(3000);
    let refusal = check(&policy, &call, &host).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.kind), ("request_exceeds_limit", RefusalKind::Denied));
    assert_eq!(refusal.retry_after_ms, None);
}

#[test]
fn a_call_refused_by_the_minute_is_not_missed_in_the_day() {
    let policy = policy(
        r#"{"limits":[{"per":"user","requests":3,"window":"1d"},{"per":"user","requests":1,"window":"1m"}]}"#,
    );
    let (host, call) = (FakeHost::default(), call("echo"));
    assert_eq!(check(&policy, &call, &host), Ok(()));
    for _ in 0..10 {
        assert!(check(&policy, &call, &host).is_err());
    }
    host.advance(Duration::from_mins(1));
    assert_eq!(check(&policy, &call, &host), Ok(()));
}

#[test]
fn a_limit_for_some_models_leaves_the_others() {
    let policy =
        policy(r#"{"limits":[{"per":"user","requests":1,"window":"1m","models":["claude-opus-*"]}]}"#);
    let host = FakeHost::default();
    assert_eq!(check(&policy, &call("claude-opus-5"), &host), Ok(()));
    assert!(check(&policy, &call("claude-opus-4"), &host).is_err());
    assert_eq!(check(&policy, &call("claude-haiku-4-5"), &host), Ok(()));
}

#[test]
fn a_models_name_cannot_blow_up_the_key() {
    let policy = policy(r#"{"limits":[{"per":"model","requests":1,"window":"1m"}]}"#);
    let host = FakeHost::default();
    assert_eq!(check(&policy, &call(&"é".repeat(100_000)), &host), Ok(()));
    assert!(host.keys().iter().all(|key| key.len() < 200));
}

#[test]
fn a_configuration_that_cannot_hold_is_refused_with_its_place() {
    for (limit, why) in [
        (r#"{"per":"user","window":"1m"}"#, "limits[0]: either requests or tokens"),
        (r#"{"per":"user","requests":1,"tokens":1,"window":"1m"}"#, "limits[0]: either requests or tokens"),
        (r#"{"per":"user","requests":1,"window":"1m","reserve":5}"#, "belong to tokens"),
        (r#"{"per":"user","tokens":1,"window":"1m","reserve":5,"strict":true}"#, "strict reserves all"),
        (r#"{"per":"user","requests":0,"window":"1m"}"#, "limits[0]: requests must be at least 1"),
        (r#"{"per":"user","requests":1,"window":"1"}"#, "limits[0]: the window \"1\""),
        (r#"{"per":"user","requests":1,"window":"0s"}"#, "limits[0]: the window \"0s\""),
        (r#"{"per":"user","requests":1,"window":"31d"}"#, "limits[0]: the window \"31d\""),
        (r#"{"per":"user","requests":1,"window":"1m","models":[]}"#, "limits[0]: models is empty"),
        (r#"{"per":"planet","requests":1,"window":"1m"}"#, "planet"),
        (r#"{"per":"user","request":1,"window":"1m"}"#, "request"),
    ] {
        let error = configured(&format!(r#"{{"limits":[{limit}]}}"#), RateLimit::configure).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
    assert!(configured(r#"{"limits":[]}"#, RateLimit::configure).is_err());
    assert!(configured("{}", RateLimit::configure).is_err());
}
