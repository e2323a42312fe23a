//! The schema refuses nothing that the gateway takes, and what a key alone shows to be wrong. It is read here by a validator of its own, which
//! knows the words of JSON Schema that stand in it and fails on any other.

use std::path::Path;

use serde_json::Value;

use super::super::{Config, Secrets, node, template};

/// Why a value is not what the schema says, with its place; nothing if it is.
fn refusal(schema: &Value, value: &Value, place: &str) -> Option<String> {
    for (word, wanted) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => {
                let kinds = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap()))
            }
            "enum" => wanted.as_array().unwrap().contains(value),
            "pattern" => {
                assert_eq!(wanted, "\\S");
                value.as_str().is_none_or(|text| !text.trim().is_empty())
            }
            "minimum" => value.as_u64().is_none_or(|number| number >= wanted.as_u64().unwrap()),
            "maximum" => value.as_u64().is_none_or(|number| number <= wanted.as_u64().unwrap()),
            "anyOf" => wanted.as_array().unwrap().iter().any(|form| refusal(form, value, place).is_none()),
            "items" => {
                match value.as_array().into_iter().flatten().find_map(|item| refusal(wanted, item, place)) {
                    Some(refused) => return Some(refused),
                    None => true,
                }
            }
            "required" => {
                let named = |key: &Value| value.get(key.as_str().unwrap()).is_some();
                !value.is_object() || wanted.as_array().unwrap().iter().all(named)
            }
            "additionalProperties" => {
                assert_eq!(wanted, false);
                let known = schema["properties"].as_object().unwrap();
                value.as_object().is_none_or(|fields| fields.keys().all(|key| known.contains_key(key)))
            }
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                let mut known = fields.filter_map(|(key, value)| Some((key, wanted.get(key)?, value)));
                let refused =
                    known.find_map(|(key, schema, value)| refusal(schema, value, &format!("{place}.{key}")));
                if refused.is_some() {
                    return refused;
                }
                true
            }
            other => panic!("the schema says {other}, which this validator does not know"),
        };
        if !fits {
            return Some(format!("{place}: {word}"));
        }
    }
    None
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("no type of JSON Schema: {other}"),
    }
}

fn by_schema(text: &str) -> Option<String> {
    let schema = serde_json::from_str(&super::text()).unwrap();
    refusal(&schema, &node::parse(text).unwrap(), "")
}

fn by_reader(text: &str) -> Option<String> {
    let secrets: Secrets = [("a", "b")].into_iter().collect();
    Config::parse(text, Path::new("/srv/sallyport"), secrets).err().map(|report| report.to_string())
}

const ROUTES: &str = "gateway:\n  routes:\n    - { model_pattern: '*', provider: echo }\n";

#[test]
fn what_the_gateway_takes_the_schema_takes() {
    let guide = include_str!("../../../../docs/guide/configuration.md");
    let example = guide.split("## A small example\n```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let example = example.replace("anthropic_prod", "a").replace("openai_prod", "a");
    let mut texts = vec![template::CONFIG.to_owned(), example];
    for block in [
        "",
        "server:",
        "server: { listen: '127.0.0.1:1', admin_listen: '127.0.0.1:2', body_limit_bytes: 1024, idle_timeout_ms: null }",
        "server: { listen: '10.0.0.1:1', public_url: 'https://a.example', trusted_proxies: [10.0.0.7, '2001:db8::/32'] }",
        "tls:",
        "deny: { status: 403 }",
        "deny: { status: '451' }",
        "deny: { status: answer }",
        "bundle: [{ component: sallyport/scope, mode: off, rewrite: false, config: { default: allow } }]",
        "bundle: [{ component: sallyport/block-tool, matcher: Edit, on_fault: continue, timeout_ms: 1 }]",
        "hooks: { session_idle_seconds: 1 }",
        "egress: [{ name: a, url: 'https://a.example', methods: [GET], components: [a/b] }]",
        "egress: [{ name: a, url: 'https://a.example', methods: [GET], components: [a/b], auth: bearer, secret: a }]",
        "egress: [{ name: a, url: 'https://a.example', methods: [GET], components: [], auth: { header: x-a }, secret: a }]",
        "components: { pool: 16, isolation: process, quota: { versions: 1 }, packages: [] }",
        "audit: { durability: strict, siem: [stdout, { file: rows }], max_age_minutes: 1, replica: a }",
        "evidence: { record: calls, keep_days: 1 }",
        "auth: { issuer: a, audience: b, ttl_seconds: 60 }",
        "prices: { models: [{ provider: a, model: b, input: 0, output: 1, cache_read: 2, cache_write: 3, cache_write_1h: 4 }] }",
    ] {
        texts.push(format!("{block}\n{ROUTES}"));
    }
    for text in texts {
        assert_eq!(by_reader(&text), None, "{text}");
        assert_eq!(by_schema(&text), None, "{text}");
    }
}

#[test]
fn what_a_key_alone_shows_to_be_wrong_both_refuse() {
    for block in [
        "sever: {}",
        "server: []",
        "server: { listen: 5 }",
        "server: { body_limit_bytes: 1 }",
        "server: { body_limit_bytes: 33554433 }",
        "server: { port: 1 }",
        "server: { trusted_proxies: 10.0.0.7 }",
        "tls: { certificate: a }",
        "tls: { certificate: a, key: b, listeners: [clients] }",
        "deny: { status: 418 }",
        "bundle: { component: sallyport/scope }",
        "bundle: [{ mode: off }]",
        "bundle: [{ component: sallyport/scope, mode: maybe }]",
        "bundle: [{ component: sallyport/scope, rewrite: 'yes' }]",
        "egress: [{ name: a, url: 'https://a.example', methods: [get], components: [] }]",
        "egress: [{ name: a, url: 'https://a.example', methods: [GET], components: [], auth: { x: y }, secret: a }]",
        "components: { quota: { bytes: 0 } }",
        "components: { publishers: [{ namespace: a, kinds: [policy] }] }",
        "audit: { siem: [syslog] }",
        "audit: { siem: [{}] }",
        "auth: { issuer: '' }",
        "prices: { models: [{ provider: a }] }",
    ] {
        let text = format!("{block}\n{ROUTES}");
        assert!(by_reader(&text).is_some(), "{text}");
        assert!(by_schema(&text).is_some(), "{text}");
    }
    assert!(by_schema("server: {}").is_some() && by_reader("server: {}").is_some(), "gateway is missing");
}
