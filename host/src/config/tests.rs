//! Stories about `sallyport.yaml`: what is read, and what is said about what cannot be.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use sallyport_protocol::cost;
use sallyport_protocol::facts::{ApiStyle, Effort, ModelFacts, ReasoningStyle};
use sallyport_protocol::hooks::OnFault;
use sallyport_protocol::messages::event::Usage;
use serde_json::json;
use time::Date;
use time::macros::date;

use super::key::{Absent, ConfigBlock, Form};
use crate::tls::ClientAuth;

use super::{
    Attachment, Config, DenyStatus, Durability, EgressAuth, EvidenceSettings, ExposeSecret as _, ModeSetting,
    Recording, Secrets, Sink, file, prices, route, target, template,
};

const PRICE: &str = "{ provider: '*', model: m, input: 1, output: 1, cache_read: 1, cache_write: 1 }";
/// A day of the shipped list's edition.
const DAY: Date = date!(2026 - 11 - 28);
const MINIMAL: &str = "gateway:\n  routes:\n    - { model_pattern: '*', provider: echo }\n";

fn secrets() -> Secrets {
    [
        ("anthropic_prod", "canary-1"),
        ("openai_prod", "canary-2"),
        ("db", "postgres://u:canary-3@db/sallyport"),
    ]
    .into_iter()
    .collect()
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/srv/sallyport"), secrets()).unwrap()
}

/// What is said about a file, a line for each problem.
fn complaints(text: &str) -> Vec<String> {
    let report = Config::parse(text, Path::new("/srv/sallyport"), secrets()).unwrap_err();
    report.problems().iter().map(ToString::to_string).collect()
}

fn complains(text: &str, path: &str) {
    let found = complaints(text);
    assert!(found.iter().any(|line| line.starts_with(&format!("{path}: "))), "{path} not in {found:#?}");
}

#[test]
fn a_route_is_enough() {
    let config = parse(MINIMAL);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.public_url, "http://127.0.0.1:8080");
    assert_eq!(config.server.body_limit, 32 * 1024 * 1024);
    assert_eq!(config.database.url, "sqlite:/srv/sallyport/sallyport.sqlite");
    assert_eq!(config.audit.durability, Durability::Spool);
    assert_eq!(config.auth.audience, "cowork");
    assert_eq!(config.deny.status, DenyStatus::S451);
    assert!(config.gateway.enabled && config.warnings.is_empty());
}

#[test]
fn evidence_is_off_unless_it_is_asked_for_and_its_bounds_are_checked() {
    let config = parse(MINIMAL);
    assert_eq!(config.evidence, EvidenceSettings::default());
    assert_eq!(config.evidence.record, Recording::Off);
    let config =
        parse(&format!("{MINIMAL}evidence: {{ record: calls, max_body_bytes: 2048, keep_days: 7 }}\n"));
    let wanted = EvidenceSettings { record: Recording::Calls, max_body_bytes: 2048, keep_days: 7 };
    assert_eq!(config.evidence, wanted);
    assert_eq!(config.effective()["evidence"]["record"], "calls");
    for (key, value) in [
        ("record", "true"),
        ("max_body_bytes", "10"),
        ("keep_days", "0"),
        ("keep_days", "3651"),
        ("keep", "1"),
    ] {
        complains(&format!("{MINIMAL}evidence: {{ {key}: {value} }}\n"), &format!("evidence.{key}"));
    }
}

#[test]
fn the_gateway_block_of_a_rollout_is_read_as_it_stands() {
    let config = parse(
        r#"
gateway:
  enabled: true
  routes:
    - model_pattern: "claude-opus-*"
      provider: anthropic
      endpoint: "https://api.anthropic.com/v1/messages"
      api_key_secret: "anthropic_prod"
    - model_pattern: "gpt-4.*"
      provider: openai
      endpoint: "https://api.openai.com/v1/chat/completions"
      api_key_secret: "openai_prod"
      upstream_model: "gpt-4.1"
    - model_pattern: "internal-llama-*"
      provider: openai
      endpoint: "https://vllm.example.com/v1/chat/completions"
      upstream_model: "llama-3.3-70b-instruct"
      models: [{ id: internal-llama-70b }]
      lossless: true
      strict: true
      region: eu-west-1
      timeouts: { idle_ms: 20000 }
prices:
  models:
    - { provider: openai, model: "gpt-4.*", input: 2000000, output: 8000000, cache_read: 500000, cache_write: 0 }
    - { provider: openai, model: "llama-*", input: 0, output: 0, cache_read: 0, cache_write: 0 }
    - { provider: anthropic, model: "claude-opus-*", input: 5000000, output: 25000000, cache_read: 500000, cache_write: 6250000 }
"#,
    );
    let first = |model: &'static str| config.gateway.candidates(model).next();
    let route = first("gpt-4.1-mini").unwrap();
    assert_eq!(
        (route.own.provider.as_str(), route.own.upstream_model.as_deref()),
        ("openai", Some("gpt-4.1"))
    );
    assert_eq!(route.own.endpoint.as_ref().unwrap().join("/v1/chat/completions"), "/v1/chat/completions");
    let route = first("internal-llama-3").unwrap();
    assert!(route.lossless && route.strict && !route.forward_user_id);
    let (first_byte, idle) = (route.own.timeouts.first_byte.as_secs(), route.own.timeouts.idle.as_secs());
    assert_eq!((first_byte, idle), (600, 20), "what the file does not say keeps its default");
    assert_eq!(route.models[0].display_name, "internal-llama-70b");
    assert_eq!(first("claude-opus-4-6").unwrap().own.provider, "anthropic");
    assert!(first("mistral").is_none());
    assert!(
        config.prices.version.contains('+'),
        "own prices make it another list: {}",
        config.prices.version
    );
}

#[test]
fn the_first_route_that_matches_wins() {
    let config = parse(
        "gateway:\n  routes:\n    - { model_pattern: 'a-*', provider: echo, upstream_model: one }\n    - { model_pattern: '*', provider: echo, upstream_model: two }\n",
    );
    let upstream = |model: &'static str| {
        config.gateway.candidates(model).next().unwrap().own.upstream_model.clone().unwrap()
    };
    assert_eq!((upstream("a-1"), upstream("b-1")), ("one".into(), "two".into()));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let text = r#"
sever: {}
server: { listen: nowhere, body_limit_bytes: 1 }
deny: { status: 418 }
gateway:
  enabled: yes
  routes:
    - { model_pattern: "*", provider: echo, endpont: "https://x.example" }
    - { model_pattern: "claude-*", provider: antropic, endpoint: "api.anthropic.com", api_key_secret: missing }
    - { provider: echo }
    - { model_pattern: "gpt-*", provider: openai }
bundle:
  - { component: sallyport/scop }
  - { component: sallyport/scope, mode: maybe }
components: { pool: 1, packages: [nothing.sallyport] }
audit: { durability: never, siem: [syslog] }
auth: { ttl_seconds: 5 }
"#;
    let found = complaints(text);
    for path in [
        "sever",
        "server.listen",
        "server.body_limit_bytes",
        "deny.status",
        "gateway.enabled",
        "gateway.routes[0].endpont",
        "gateway.routes[1].provider",
        "gateway.routes[1].endpoint",
        "gateway.routes[1].api_key_secret",
        "gateway.routes[2].model_pattern",
        "gateway.routes[3].endpoint",
        "bundle[0].component",
        "bundle[1].mode",
        "components.pool",
        "components.packages[0]",
        "audit.durability",
        "audit.siem[0]",
        "auth.ttl_seconds",
    ] {
        assert!(found.iter().any(|line| line.starts_with(&format!("{path}: "))), "{path} not in {found:#?}");
    }
}

#[test]
fn a_route_may_say_how_its_credential_is_sent_and_nothing_that_is_no_header() {
    let with =
        |more: &str| format!("gateway:\n  routes:\n    - {{ model_pattern: '*', provider: echo{more} }}\n");
    let form = |form: &str| with(&format!(", api_key_secret: openai_prod, api_key_form: {form}"));
    for sent in ["bearer", "x-api-key", "api-key"] {
        let route = parse(&form(sent)).gateway.routes.remove(0);
        assert_eq!(route.own.api_key_form.as_ref().map(ToString::to_string).as_deref(), Some(sent));
    }
    assert_eq!(
        parse(&with("")).gateway.routes.remove(0).own.api_key_form,
        None,
        "as the provider's package says"
    );
    for wrong in ["host", "Bearer", "''", "'x y'"] {
        complains(&form(wrong), "gateway.routes[0].api_key_form");
    }
    complains(&with(", api_key_form: bearer"), "gateway.routes[0].api_key_form");
}

#[test]
fn a_file_that_is_no_yaml_or_says_a_thing_twice_is_refused() {
    for text in ["gateway: [", "- a\n- b\n", "just words", "gateway: {}\ngateway: {}\n", ""] {
        assert!(Config::parse(text, Path::new("/srv"), secrets()).is_err(), "{text:?}");
    }
}

#[test]
fn a_model_without_a_price_is_refused() {
    let route = |more: &str| {
        format!(
            "gateway:\n  routes:\n    - {{ model_pattern: 'zz-1', provider: openai, endpoint: 'https://x.example'{more} }}\n"
        )
    };
    complains(&route(""), "gateway.routes[0].model_pattern");
    complains(&route(", upstream_model: zz-1"), "gateway.routes[0].upstream_model");
    complains(&route(", models: [{ id: zz-1 }]"), "gateway.routes[0].models[0].id");
    let price = "prices:\n  models:\n    - { provider: openai, model: 'zz-*', input: 1, output: 1, cache_read: 1, cache_write: 1 }\n";
    for more in ["", ", upstream_model: zz-1", ", models: [{ id: zz-1 }]"] {
        parse(&format!("{}{price}", route(more)));
    }
}

#[test]
fn serving_other_machines_needs_a_public_url_and_no_development_key() {
    let exposed = "server: { listen: '0.0.0.0:8080', trusted_proxies: [10.0.0.7] }\n";
    complains(&format!("{exposed}{MINIMAL}"), "server.listen");
    let public =
        "server: { listen: '0.0.0.0:8080', public_url: 'https://ai.example', trusted_proxies: [10.0.0.7] }\n";
    assert!(!parse(&format!("{public}{MINIMAL}")).is_local());
    // The base point of the curve: a valid public key that nobody needs to guard.
    let key = "5866666666666666666666666666666666666666666666666666666666666666";
    let publisher = format!(
        "components: {{ publishers: [{{ key: '{key}', namespace: acme, kinds: [policy], development: true }}] }}\n"
    );
    complains(&format!("{public}{publisher}{MINIMAL}"), "server.listen");
    assert_eq!(parse(&format!("{publisher}{MINIMAL}")).components.publishers.len(), 1);
}

#[test]
fn a_listener_for_administration_is_held_to_the_same_and_is_another_one() {
    let with = |listen: &str| {
        format!("server: {{ admin_listen: '{listen}', trusted_proxies: [10.1.0.0/16] }}\n{MINIMAL}")
    };
    let config = parse(&with("127.0.0.1:9090"));
    assert_eq!(config.server.admin_listen.unwrap().port(), 9090);
    assert!(config.is_local() && config.warnings.is_empty());
    complains(&with("127.0.0.1:8080"), "server.admin_listen");
    complains(&with("localhost"), "server.admin_listen");
    let exposed = parse(&with("0.0.0.0:9090"));
    assert!(!exposed.is_local() && exposed.warnings.is_empty());
    let key = "5866666666666666666666666666666666666666666666666666666666666666";
    let publisher = format!(
        "components: {{ publishers: [{{ key: '{key}', namespace: acme, kinds: [policy], development: true }}] }}\n"
    );
    complains(&format!("{publisher}{}", with("0.0.0.0:9090")), "server.admin_listen");
}

#[test]
fn a_listener_for_figures_is_another_one_and_warns_where_others_reach_it() {
    let with = |more: &str| format!("server: {{ {more} }}\n{MINIMAL}");
    let config = parse(&with("metrics_listen: '127.0.0.1:9100'"));
    assert_eq!(config.server.metrics_listen.unwrap().port(), 9100);
    assert!(config.is_local() && config.warnings.is_empty());
    complains(&with("metrics_listen: '127.0.0.1:8080'"), "server.metrics_listen");
    complains(&with("metrics_listen: '127.0.0.1:9', admin_listen: '127.0.0.1:9'"), "server.metrics_listen");
    let exposed = parse(&with("metrics_listen: '0.0.0.0:9100'"));
    assert!(!exposed.is_local());
    assert_eq!(exposed.warnings.len(), 1, "{:?}", exposed.warnings);
}

/// A `tls` block with files that can be used, and the directory that holds them.
fn tls(more: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tls");
    for name in ["good.pem", "key.pem", "authority.pem"] {
        fs::copy(fixtures.join(name), directory.path().join(name)).unwrap();
        fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let at = directory.path().display().to_string();
    let more = more.replace("AT", &at);
    let block = format!("tls: {{ certificate: {at}/good.pem, key: {at}/key.pem{more} }}\n");
    (directory, block)
}

#[test]
fn in_clear_the_gateway_serves_this_machine_or_proxies_that_are_named() {
    let plain = "is reachable from other machines and not encrypted";
    let said = |text: &str| {
        let found = complaints(text);
        found
            .into_iter()
            .filter(|line| line.contains(plain))
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let server = |more: &str| {
        format!(
            "server: {{ listen: '[::]:8080', admin_listen: '0.0.0.0:9090', public_url: 'https://ai.example'{more} }}\n{MINIMAL}"
        )
    };
    assert_eq!(said(&server("")), ["server.listen", "server.admin_listen"]);
    assert_eq!(said(&server(", trusted_proxies: []")), ["server.listen", "server.admin_listen"]);
    parse(&server(", trusted_proxies: [10.0.0.7, '2001:db8::/32']"));
    for (proxy, problem) in
        [("proxy.example", "must be an address"), ("10.0.0.1/8", "has bits behind its prefix")]
    {
        let found = complaints(&server(&format!(", trusted_proxies: [{proxy}]")));
        assert!(
            found
                .iter()
                .any(|line| line.starts_with("server.trusted_proxies[0]: ") && line.contains(problem)),
            "{found:?}"
        );
    }
    let (_files, block) = tls("");
    assert!(parse(&format!("{block}{}", server(""))).warnings.is_empty());
    let (_files, block) = tls(", listeners: [public]");
    assert_eq!(said(&format!("{block}{}", server(""))), ["server.admin_listen"]);
    let (_files, block) = tls(", listeners: [admin]");
    assert_eq!(said(&format!("{block}{}", server(""))), ["server.listen"]);
}

#[test]
fn with_a_certificate_clients_reach_the_gateway_by_https() {
    let (_files, block) = tls("");
    assert_eq!(parse(&format!("{block}{MINIMAL}")).server.public_url, "https://127.0.0.1:8080");
    let config = parse(&format!("{block}server: {{ public_url: 'http://127.0.0.1:8080' }}\n{MINIMAL}"));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let (_files, block) = tls(", listeners: [admin]");
    assert_eq!(parse(&format!("{block}{MINIMAL}")).server.public_url, "http://127.0.0.1:8080");
}

#[test]
fn certificates_of_clients_are_asked_for_where_an_authority_is_named() {
    let with = |more: &str| {
        let (files, block) = tls(more);
        (files, format!("{block}{MINIMAL}"))
    };
    let (_files, text) =
        with(", client_ca: AT/authority.pem, client_certificates: { public: request, admin: require }");
    let clients = parse(&text).tls.unwrap().clients;
    assert_eq!((clients.public, clients.admin), (ClientAuth::Request, ClientAuth::Require));
    let (_files, text) = with(", client_ca: AT/authority.pem");
    assert_eq!(parse(&text).warnings.len(), 1, "nobody is asked");
    for (more, path) in [
        (", client_certificates: { public: require }", "tls.client_certificates.public"),
        (
            ", client_ca: AT/authority.pem, client_certificates: { public: always }",
            "tls.client_certificates.public",
        ),
        (
            ", client_ca: AT/authority.pem, listeners: [public], client_certificates: { admin: require }",
            "tls.client_certificates.admin",
        ),
        (", client_crls: [AT/authority.pem]", "tls.client_crls[0]"),
        (", client_ca: AT/nothing.pem, client_certificates: { public: require }", "tls.client_ca"),
    ] {
        let (_files, text) = with(more);
        complains(&text, path);
    }
    complains(&format!("tls: {{}}\n{MINIMAL}"), "tls.certificate");
    complains(&format!("tls: {{}}\n{MINIMAL}"), "tls.key");
}

#[test]
fn the_example_of_the_guide_is_one() {
    let guide = include_str!("../../../docs/guide/configuration.md");
    let example = guide.split("## A small example\n```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = parse(example);
    assert_eq!(config.gateway.routes.len(), 2);
    assert_eq!(config.gateway.routes[1].own.endpoint.as_ref().unwrap().path, "");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn nobody_else_may_sign_what_ships_with_the_gateway() {
    let key = "5866666666666666666666666666666666666666666666666666666666666666";
    let text = format!(
        "components: {{ publishers: [{{ key: '{key}', namespace: sallyport, kinds: [policy] }}] }}\n{MINIMAL}"
    );
    complains(&text, "components.publishers[0].namespace");
}

#[test]
fn a_password_belongs_into_the_secrets_file() {
    complains(&format!("database: {{ url: 'postgres://u:pw@db/x' }}\n{MINIMAL}"), "database.url");
    complains(&format!("database: {{ url: 'mysql://db/x' }}\n{MINIMAL}"), "database.url");
    complains(&format!("database: {{ url_secret: nowhere }}\n{MINIMAL}"), "database.url_secret");
    let config = parse(&format!("database: {{ url_secret: db }}\n{MINIMAL}"));
    assert!(config.database.url.starts_with("postgres://"));
}

#[test]
fn what_works_but_is_probably_not_meant_is_a_warning() {
    let config = parse(
        "gateway:\n  routes:\n    - { model_pattern: '*', provider: echo, endpoint: 'http://10.0.0.1' }\n    - { model_pattern: 'a-*', provider: echo }\n",
    );
    let paths: Vec<_> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(paths, ["gateway.routes[0].endpoint", "gateway.routes[1]"]);
}

#[test]
fn a_route_may_ask_a_predicate_and_hides_nothing_behind_it() {
    let config = parse(
        "gateway:\n  routes:\n    - { model_pattern: '*', provider: echo, predicate: sallyport/region, predicate_config: { default: eu } }\n    - { model_pattern: 'a-*', provider: echo }\n",
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let predicate = config.gateway.routes[0].predicate.as_ref().unwrap();
    assert_eq!(
        (predicate.component.as_str(), &predicate.config["default"]),
        ("sallyport/region", &"eu".into())
    );
    let route =
        |more: &str| format!("gateway:\n  routes:\n    - {{ model_pattern: '*', provider: echo, {more} }}\n");
    complains(&route("predicate: nobody"), "gateway.routes[0].predicate");
    complains(&route("predicate: sallyport/nobody"), "gateway.routes[0].predicate");
    complains(&route("predicate: sallyport/scope"), "gateway.routes[0].predicate");
    complains(&route("predicate_config: {}"), "gateway.routes[0].predicate_config");
    complains(&format!("bundle: [{{ component: sallyport/region }}]\n{MINIMAL}"), "bundle[0].component");
}

#[test]
fn what_no_package_here_has_may_be_the_catalogs_if_it_is_named_in_full() {
    let route = |what: &str| {
        format!(
            "gateway:\n  routes:\n    - {{ model_pattern: '*', {what} }}\nprices: {{ models: [{PRICE}] }}\n"
        )
    };
    for (what, path) in [
        ("provider: acme/llm", "gateway.routes[0].provider"),
        ("provider: echo, predicate: acme/region", "gateway.routes[0].predicate"),
    ] {
        let config = parse(&route(what));
        let warned: Vec<_> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
        assert_eq!(warned, [path], "{what}");
    }
    for what in ["llm", "sallyport/llm", "Acme/llm", "acme/", "sallyport/scope"] {
        complains(&route(&format!("provider: {what}")), "gateway.routes[0].provider");
    }
}

const GRANT: &str = "name: moderation, url: 'https://mod.example', methods: [POST], components: [acme/ask]";

#[test]
fn an_egress_grant_has_narrow_defaults() {
    let config = parse(&format!(
        "egress: [{{ {GRANT}, path_prefix: /v1/check, auth: bearer, secret: openai_prod }}]\n{MINIMAL}"
    ));
    let grant = &config.egress["moderation"];
    assert_eq!(
        (grant.endpoint.to_string().as_str(), grant.path_prefix.as_str()),
        ("https://mod.example", "/v1/check")
    );
    assert_eq!((grant.max_request, grant.max_response), (64 * 1024, 256 * 1024));
    assert_eq!(grant.timeout, Duration::from_secs(2));
    assert!(!grant.allow_private && grant.allows("acme/ask") && !grant.allows("acme/other"));
    assert!(matches!(&grant.auth, EgressAuth::Bearer(secret) if secret.expose_secret() == "canary-2"));
    assert!(!format!("{grant:?} {}", config.effective()).contains("canary"));
}

#[test]
fn an_egress_grant_with_a_dangerous_value_is_refused() {
    let grant = |more: &str| format!("egress: [{{ {GRANT}, {more} }}]\n{MINIMAL}");
    for (more, path) in [
        ("path_prefix: v1", "egress[0].path_prefix"),
        ("path_prefix: /a/../b", "egress[0].path_prefix"),
        ("timeout_ms: 60000", "egress[0].timeout_ms"),
        ("auth: bearer", "egress[0].secret"),
        ("secret: openai_prod", "egress[0].auth"),
        ("auth: { header: content-length }, secret: openai_prod", "egress[0].auth.header"),
        ("auth: bearer, secret: nobody", "egress[0].secret"),
        ("follow_redirects: true", "egress[0].follow_redirects"),
        ("max_request_bytes: 99999999", "egress[0].max_request_bytes"),
    ] {
        complains(&grant(more), path);
    }
    let url = |url: &str| format!("egress: [{{ {} }}]\n{MINIMAL}", GRANT.replace("https://mod.example", url));
    for wrong in [
        "http://mod.example",
        "https://mod.example/v1",
        "https://127.0.0.1",
        "https://[::ffff:10.0.0.1]",
        "https://169.254.169.254",
        "https://localhost:8443",
        "https://u:p@mod.example",
        "http://127.0.0.1:1",
    ] {
        complains(&url(wrong), "egress[0].url");
    }
    let private = |url: &str| {
        format!(
            "egress: [{{ {}, allow_private: true }}]\n{MINIMAL}",
            GRANT.replace("https://mod.example", url)
        )
    };
    assert_eq!(parse(&private("http://127.0.0.1:1")).egress.len(), 1);
    assert_eq!(parse(&private("https://10.0.0.1")).egress.len(), 1);
    complains(&private("http://10.0.0.1"), "egress[0].url");
    complains(&format!("egress: [{{ {GRANT} }}, {{ {GRANT} }}]\n{MINIMAL}"), "egress[1].name");
    complains(
        &format!("egress: [{{ {} }}]\n{MINIMAL}", GRANT.replace("POST", "get")),
        "egress[0].methods[0]",
    );
}

#[test]
fn telemetry_goes_to_a_collector_over_tls_and_clients_are_pointed_there_where_it_is_said() {
    let with = |more: &str| format!("{MINIMAL}telemetry:\n  {more}\n");
    let config = parse(&with("collector: https://otel.example.com/ingest"));
    let telemetry = config.telemetry.as_ref().unwrap();
    assert_eq!(telemetry.collector.join("/v1/logs"), "/ingest/v1/logs");
    assert!(!telemetry.point_clients && config.claude_code.managed.is_empty());
    assert!(parse(MINIMAL).telemetry.is_none());
    for (bad, path) in [
        ("timeout_ms: 5", "telemetry.collector"),
        ("collector: http://otel.example.com", "telemetry.collector"),
        ("collector: otel.example.com", "telemetry.collector"),
        ("{ collector: 'https://c', secret: db }", "telemetry.auth"),
        ("{ collector: 'https://c', max_request_bytes: 1 }", "telemetry.max_request_bytes"),
        ("{ collector: 'https://c', endpoint: x }", "telemetry.endpoint"),
    ] {
        complains(&with(bad), path);
    }
    let pointed = parse(&with("{ collector: 'https://c', point_clients: true }"));
    let env = &pointed.claude_code.managed_for(&[]).unwrap().settings["env"];
    assert_eq!(env["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://127.0.0.1:8080");
}

#[test]
fn the_word_off_is_a_mode_and_not_a_boolean() {
    let config = parse(&format!(
        "bundle: [{{ component: sallyport/scope, mode: off }}]\naudit: {{ siem: [stdout, {{ file: rows.jsonl }}] }}\n{MINIMAL}"
    ));
    assert_eq!(config.bundle[0].mode, ModeSetting::Off);
    assert_eq!(config.audit.siem, [Sink::Stdout, Sink::File("/srv/sallyport/rows.jsonl".into())]);
}

#[test]
fn nothing_shown_holds_a_secret() {
    let config = parse(&format!("database: {{ url_secret: db }}\n{MINIMAL}"));
    assert_eq!(config.secrets.get("openai_prod").unwrap().expose_secret(), "canary-2");
    let shown = format!("{} {config:?}", config.effective());
    assert!(shown.contains("openai_prod") && !shown.contains("canary"), "{shown}");
}

#[test]
fn a_hook_is_attached_to_what_its_entry_says() {
    let entry = "bundle: [{component: sallyport/block-tool, matcher: 'Edit|mcp__.*', on_fault: continue, timeout_ms: 50}]";
    let config = parse(&format!("{MINIMAL}\n{entry}\nhooks: {{session_idle_seconds: 60}}\n"));
    let Attachment { matcher, on_fault, timeout } = &config.bundle[0].attachment;
    assert!(matcher.fits(Some("mcp__a__b")) && !matcher.fits(Some("Bash")));
    assert_eq!((*on_fault, *timeout), (Some(OnFault::Continue), Some(Duration::from_millis(50))));
    assert_eq!(config.hooks.session_idle, Duration::from_mins(1));
    let shown = &config.effective()["bundle"][0];
    assert_eq!((shown["matcher"].as_str(), shown["timeout_ms"].as_u64()), (Some("Edit|mcp__.*"), Some(50)));

    let wrong = format!(
        "{MINIMAL}\nbundle: [{{component: sallyport/block-tool, matcher: '^Edit$', on_fault: maybe, timeout_ms: 0}}]\n"
    );
    for key in ["matcher", "on_fault", "timeout_ms"] {
        complains(&wrong, &format!("bundle[0].{key}"));
    }
}

#[test]
fn the_file_that_init_writes_checks_without_a_warning() {
    let config = parse(template::CONFIG);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.bundle.len(), 4);
    assert!(config.bundle.iter().all(|entry| entry.mode == ModeSetting::Enforce));
    assert!(config.is_local());
}

#[test]
fn a_home_is_where_its_file_is_and_loads_again_and_again() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(super::FILE);
    assert!(Config::load(&file).unwrap_err().to_string().contains("sallyport init"));
    fs::write(&file, MINIMAL).unwrap();
    assert_eq!(Config::load(&file).unwrap().home, home.path());
    fs::write(home.path().join(super::SECRETS_FILE), "a: b\n").unwrap();
    fs::set_permissions(home.path().join(super::SECRETS_FILE), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("mode 0644"));
    fs::set_permissions(home.path().join(super::SECRETS_FILE), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Config::load(&file).unwrap().secrets.get("a").unwrap().expose_secret(), "b");
}

/// Every block of the file, with its path.
fn blocks() -> Vec<(String, &'static ConfigBlock)> {
    fn below(path: &str, form: Form, all: &mut Vec<(String, &'static ConfigBlock)>) {
        match form {
            Form::Mapping(block) => {
                all.push((path.to_owned(), block));
                for key in block.keys {
                    below(&format!("{path}.{}", key.name), key.form, all);
                }
            }
            Form::List(item) => below(path, *item, all),
            Form::Either(forms) => forms.iter().for_each(|form| below(path, *form, all)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for key in file::FILE.keys {
        below(key.name, key.form, &mut all);
    }
    all
}

#[test]
fn every_key_has_one_description_whose_default_it_would_accept() {
    let blocks = blocks();
    assert!(blocks.len() > 15, "{}", blocks.len());
    for (path, block) in blocks {
        let names: BTreeSet<_> = block.keys.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), block.keys.len(), "{path} has a key twice");
        for key in block.keys {
            let path = format!("{path}.{}", key.name);
            assert!(!key.about.is_empty() && !key.about.ends_with('.'), "{path}: {:?}", key.about);
            let fits = match (key.form, key.absent) {
                (_, Absent::Required | Absent::Nothing | Absent::Derived(_))
                | (Form::Flag, Absent::Flag(_))
                | (Form::Text, Absent::Text(_)) => true,
                (Form::Number(least, most), Absent::Number(usual)) => (least..=most).contains(&usual),
                (Form::Choice(words), Absent::Word(usual)) => words().contains(&usual()),
                _ => false,
            };
            assert!(fits, "{path}: the default is none of its values");
        }
    }
}

#[test]
fn a_model_without_a_price_is_refused_or_free_by_name() {
    let route = "gateway:\n  routes:\n    - { model_pattern: 'own-*', provider: openai, endpoint: 'http://127.0.0.1:8000', upstream_model: my-llama }\n";
    complains(route, "gateway.routes[0].upstream_model");
    let free = parse(&format!("{route}prices: {{ free: ['my-*'] }}\n"));
    let usage = Usage { input: Some(1_000_000), output: Some(1_000_000), ..Usage::default() };
    assert_eq!(free.prices.on(DAY).price("openai", "my-llama", &usage), Some(0));
    assert_ne!(free.prices.on(DAY).price("openai", "gpt-5", &usage), Some(0), "and nothing else is");
    assert!(
        free.prices.version.contains('+'),
        "a row names the list that priced it: {}",
        free.prices.version
    );
    complains(&format!("{route}prices: {{ free: [1] }}\n"), "prices.free[0]");
    let steps = "{ above: 20, input: 1, output: 1, cache_read: 1, cache_write: 1 }, { above: 10, input: 1, output: 1, cache_read: 1, cache_write: 1 }";
    let price = format!(
        "{{ provider: p, model: m, input: 1, output: 1, cache_read: 1, cache_write: 1, long_prompt: [{steps}] }}"
    );
    complains(&format!("prices: {{ models: [{price}] }}\n"), "prices.models[0].long_prompt");
}

#[test]
fn a_price_with_a_day_holds_from_then_on_and_a_day_that_is_none_is_refused_by_name() {
    let price = |day: &str, rate: u32| {
        format!(
            "{{ provider: gemini, model: 'gemini-4-argon*',{day} input: {rate}, output: 0, cache_read: 0, cache_write: 0 }}"
        )
    };
    let route = "gateway:\n  routes:\n    - { model_pattern: 'gemini-4-*', provider: gemini, endpoint: 'https://g.example', upstream_model: gemini-4-argon }\n";
    let with = |prices: &str| format!("{route}prices: {{ models: [{prices}] }}\n");
    let config = parse(&with(&price(" from: '2026-12-01',", 4_000_000)));
    let usage = Usage { input: Some(1_000), ..Usage::default() };
    let cost = |day| config.prices.on(day).price("gemini", "gemini-4-argon", &usage);
    // The shipped list says 2 dollars, the entry 4.
    assert_eq!((cost(date!(2026 - 11 - 30)), cost(date!(2026 - 12 - 01))), (Some(2_000), Some(4_000)));
    let bad = complaints(&with(&price(" from: '2026-12-32',", 1)));
    let said = |line: &String| {
        line.starts_with("prices.models[0]") && line.contains("no day of the form 2026-12-01")
    };
    assert!(bad.iter().any(said), "{bad:#?}");
    let never = [price("", 1), price(" from: '2026-12-01',", 2)].join(", ");
    let bad = complaints(&with(&never));
    assert!(bad.iter().any(|line| line.starts_with("prices.models[1]: never counts")), "{bad:#?}");
    let folder = tempfile::tempdir().unwrap();
    let list = r#"{"version":"v","models":[{"provider":"*","model":"*","from":"tomorrow","input":1,"output":1,"cache_read":1,"cache_write":1}]}"#;
    let file = folder.path().join("prices.json");
    fs::write(&file, list).unwrap();
    let bad = complaints(&format!("{route}prices: {{ file: '{}' }}\n", file.display()));
    assert!(
        bad.iter().any(|line| line.starts_with("prices.file: ") && line.contains("no day of the form")),
        "{bad:#?}"
    );
}

#[test]
fn entries_that_other_readers_take_are_described_as_they_read_them() {
    let keys =
        |block: &ConfigBlock| block.keys.iter().map(|key| key.name.to_owned()).collect::<BTreeSet<_>>();
    let read = |value: serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let price = cost::Price {
        provider: String::new(),
        model: String::new(),
        from: Some(DAY),
        input: 0,
        output: 0,
        cache_read: 0,
        cache_write: 0,
        cache_write_1h: Some(0),
        long_prompt: vec![cost::LongPrompt {
            above: 0,
            input: 0,
            output: 0,
            cache_read: 0,
            cache_write: 0,
            cache_write_1h: Some(0),
        }],
        batch_percent: Some(0),
    };
    assert_eq!(keys(&prices::LONG_PROMPT), read(json!(price.long_prompt[0])));
    assert_eq!(keys(&prices::PRICE), read(json!(price)));
    let facts = ModelFacts {
        api: Some(ApiStyle::Responses),
        reasoning: Some(ReasoningStyle::None),
        efforts: Some(Vec::new()),
        effort_with_tools: Some(Effort::None),
        parallel_tool_calls: Some(true),
        reasoning_content: Some(true),
        max_output_tokens: Some(1),
    };
    assert_eq!(keys(&target::MODEL_FACTS), read(json!(facts)));
    for (key, words) in target::MODEL_FACTS.keys.iter().filter_map(|key| match key.form {
        Form::Choice(words) => Some((key.name, words())),
        Form::List(Form::Choice(words)) => Some((key.name, words())),
        _ => None,
    }) {
        for word in words {
            let value = if key == "efforts" { json!([word]) } else { json!(word) };
            assert!(serde_json::from_value::<ModelFacts>(json!({ key: value })).is_ok(), "{key}: {word}");
        }
    }
}

#[test]
fn what_is_shown_names_every_key_of_its_block_that_holds_something() {
    let (_files, tls) = tls(", client_ca: AT/authority.pem, client_certificates: { public: request }");
    let shown = parse(&format!(
        "{tls}{MINIMAL}audit: {{ siem: [{{ file: rows.jsonl }}] }}\ntelemetry: {{ collector: \"https://otel.example.com\" }}\n"
    ))
    .effective();
    // Where a key says where another value comes from, that value is shown and not the key.
    let elsewhere = ["url_secret", "config_file", "file", "secrets_file"];
    for key in file::FILE.keys.iter().filter(|key| !elsewhere.contains(&key.name)) {
        let block = &shown[key.name];
        assert!(!block.is_null(), "{} is not shown", key.name);
        let Form::Mapping(described) = key.form else { continue };
        for inner in described.keys.iter().filter(|inner| !elsewhere.contains(&inner.name)) {
            // The name of the collector's credential is behind `auth`.
            let behind = (key.name, inner.name) == ("telemetry", "secret");
            assert_eq!(block.get(inner.name).is_some(), !behind, "{} is not shown: {block}", inner.name);
        }
    }
    let route = &shown["gateway"]["routes"][0];
    for key in route::ROUTE.keys {
        assert!(route.get(key.name).is_some(), "{} of a route is not shown", key.name);
    }
}

#[test]
fn a_provider_that_adapts_an_upstream_needs_its_address_as_its_package_says() {
    let route = |provider: &str| {
        format!(
            "gateway:\n  routes:\n    - {{ model_pattern: '*', provider: {provider} }}\nprices: {{ models: [{PRICE}] }}\n"
        )
    };
    parse(&route("echo"));
    for provider in ["anthropic", "openai"] {
        complains(&route(provider), "gateway.routes[0].endpoint");
    }
}
