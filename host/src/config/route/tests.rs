//! Routes with several targets and conditions: what is read, what is refused, and which route hides which.

use std::path::Path;
use std::time::Duration;

use super::super::{BreakerSettings, Config, Secrets};

const PRICE: &str = "{ provider: '*', model: 'm*', input: 1, output: 1, cache_read: 1, cache_write: 1 }";

fn file(routes: &[&str]) -> String {
    let routes: Vec<_> = routes.iter().map(|route| format!("    - {{ {route} }}\n")).collect();
    let routes = routes.concat();
    format!("gateway:\n  routes:\n{routes}prices: {{ models: [{PRICE}] }}\n")
}

fn parse(routes: &[&str]) -> Config {
    let secrets: Secrets = [("key", "canary")].into_iter().collect();
    Config::parse(&file(routes), Path::new("/srv/sallyport"), secrets).unwrap()
}

fn complaint(route: &str) -> String {
    let secrets: Secrets = [("key", "canary")].into_iter().collect();
    Config::parse(&file(&[route]), Path::new("/srv/sallyport"), secrets).unwrap_err().to_string()
}

#[test]
fn a_route_of_one_target_means_what_it_always_meant() {
    let route = parse(&["model_pattern: 'm*', provider: echo"]).gateway.routes.remove(0);
    assert_eq!(route.targets().count(), 1);
    assert_eq!((route.own.breaker, route.retry.attempts, route.lists_attempts()), (None, 0, false));
    assert_eq!(route.own.timeouts.connect, Duration::from_secs(10));
}

#[test]
fn a_further_target_takes_timeouts_and_breaker_from_its_route_where_it_does_not_say_them() {
    let further = "secondary: [{ provider: anthropic, endpoint: 'https://a.example', upstream_model: m1 }, \
                   { provider: echo, timeouts: { idle_ms: 5 }, breaker: { enabled: false } }]";
    let config = parse(&[
        &format!(
            "model_pattern: 'm*', provider: echo, timeouts: {{ connect_ms: 7 }}, breaker: {{ failures: 9 }}, {further}"
        ),
        &format!("model_pattern: 'm*', provider: echo, {further}"),
        &format!("model_pattern: 'm*', provider: echo, breaker: {{ enabled: false }}, {further}"),
    ]);
    let [said, usual, without] = [0, 1, 2].map(|place: usize| config.gateway.routes[place].clone());
    let names: Vec<_> = said.targets().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["primary", "secondary[0]", "secondary[1]"]);
    assert_eq!(said.secondary[0].timeouts.connect, Duration::from_millis(7));
    assert_eq!(said.secondary[0].breaker.map(|it| it.failures), Some(9));
    assert_eq!(said.secondary[1].timeouts.connect, Duration::from_secs(10), "a block of its own is whole");
    assert_eq!(
        (said.secondary[1].timeouts.idle, said.secondary[1].breaker),
        (Duration::from_millis(5), None)
    );
    // The defaults of the keys are those of the code.
    assert_eq!(usual.own.breaker, Some(BreakerSettings::default()));
    assert_eq!(usual.secondary[0].breaker, Some(BreakerSettings::default()));
    assert_eq!((without.own.breaker, without.secondary[0].breaker), (None, None));
    let read = parse(&["model_pattern: 'm*', provider: echo, breaker: { enabled: true }"]);
    assert_eq!(read.gateway.routes[0].own.breaker, Some(BreakerSettings::default()));
}

#[test]
fn what_is_wrong_with_a_further_target_is_said_with_its_path() {
    for (more, said) in [
        ("secondary: [{ provider: nobody }]", "gateway.routes[0].secondary[0].provider: "),
        (
            "secondary: [{ provider: anthropic, upstream_model: m1 }]",
            "gateway.routes[0].secondary[0].endpoint: ",
        ),
        (
            "secondary: [{ provider: echo, api_key_secret: none }]",
            "gateway.routes[0].secondary[0].api_key_secret: ",
        ),
        (
            "secondary: [{ provider: anthropic, endpoint: 'https://a.example', upstream_model: zz }]",
            "gateway.routes[0].secondary[0].upstream_model: ",
        ),
        ("secondary: [{ provider: echo, weight: 1 }]", "gateway.routes[0].secondary[0].weight: unknown key"),
        (
            "secondary: [{ provider: echo, secondary: [] }]",
            "gateway.routes[0].secondary[0].secondary: unknown key",
        ),
        ("primary: [{ endpoint: 'https://a.example' }]", "gateway.routes[0].primary[0].provider: "),
        ("primary: [{ provider: echo, weight: 1001 }]", "gateway.routes[0].primary[0].weight: "),
        ("primary: { provider: echo }", "gateway.routes[0].primary: must be a list"),
        ("retry: { attempts: 6 }", "gateway.routes[0].retry.attempts: "),
        ("retry: { budget_percent: 101 }", "gateway.routes[0].retry.budget_percent: "),
        ("breaker: { failures: 0 }", "gateway.routes[0].breaker.failures: "),
        ("breaker: 5", "gateway.routes[0].breaker: must be a mapping"),
        ("timeouts: { connect_ms: 0 }", "gateway.routes[0].timeouts.connect_ms: "),
        ("affinity: weather", "gateway.routes[0].affinity: "),
        ("prefer: dearest", "gateway.routes[0].prefer: "),
        ("requires: [wings]", "gateway.routes[0].requires[0]: "),
        ("user: []", "gateway.routes[0].user: "),
        ("role: 5", "gateway.routes[0].role: "),
        ("agent: 'a b'", "gateway.routes[0].agent: "),
        ("max_cost_micro: 0", "gateway.routes[0].max_cost_micro: "),
    ] {
        let found = complaint(&format!("model_pattern: 'm*', provider: echo, {more}"));
        assert!(found.contains(said), "{more}: {found}");
    }
    let many = vec!["{ provider: echo }"; 16].join(", ");
    let found = complaint(&format!("model_pattern: 'm*', provider: echo, secondary: [{many}]"));
    assert!(found.contains("gateway.routes[0].secondary[15]: is more than a route may have"), "{found}");
}

#[test]
fn a_route_hides_another_only_where_all_its_conditions_hold_of_that_ones_calls_too() {
    for (first, second, hidden) in [
        ("model_pattern: '*'", "model_pattern: 'm*'", true),
        ("model_pattern: '*', role: admin", "model_pattern: 'm*'", false),
        ("model_pattern: '*'", "model_pattern: 'm*', role: admin", true),
        ("model_pattern: '*', role: 'a*'", "model_pattern: 'm*', role: [admin, auditor]", true),
        ("model_pattern: '*', role: 'a*'", "model_pattern: 'm*', role: [admin, member]", false),
        ("model_pattern: '*', role: admin", "model_pattern: 'm*', user: u_1", false),
        ("model_pattern: '*', role: admin", "model_pattern: 'm*', role: admin, tenant: t", true),
        ("model_pattern: '*', requires: [tools]", "model_pattern: 'm*', requires: [images, tools]", true),
        ("model_pattern: '*', requires: [images, tools]", "model_pattern: 'm*', requires: [tools]", false),
        ("model_pattern: '*', max_cost_micro: 5", "model_pattern: 'm*', max_cost_micro: 4", false),
    ] {
        let config = parse(&[&format!("{first}, provider: echo"), &format!("{second}, provider: echo")]);
        let warned = config.warnings.iter().any(|it| it.path == "gateway.routes[1]");
        assert_eq!(warned, hidden, "{first} / {second}");
    }
}

#[test]
fn a_route_with_everything_is_shown_as_it_was_read() {
    let text = "model_pattern: 'm*', provider: echo, user: u_1, role: [a, 'b*'], requires: [tools], max_cost_micro: 9, weight: 3, \
                primary: [{ provider: echo, weight: 2 }], affinity: user, prefer: cheapest, context_fallback: true, \
                retry: { attempts: 1, budget_percent: 5, max_wait_ms: 10 }";
    let shown = parse(&[text]).effective()["gateway"]["routes"][0].clone();
    for (key, value) in [
        ("user", serde_json::json!(["u_1"])),
        ("role", serde_json::json!(["a", "b*"])),
        ("requires", serde_json::json!(["tools"])),
        ("max_cost_micro", serde_json::json!(9)),
        ("weight", serde_json::json!(3)),
        ("affinity", serde_json::json!("user")),
        ("prefer", serde_json::json!("cheapest")),
        ("context_fallback", serde_json::json!(true)),
        ("retry", serde_json::json!({ "attempts": 1, "budget_percent": 5, "max_wait_ms": 10 })),
        ("department", serde_json::Value::Null),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    assert_eq!(shown["primary"][0]["weight"], 2);
}
