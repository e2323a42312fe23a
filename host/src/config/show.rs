//! The configuration in force, for people: the shape of the file, defaults filled in, secrets masked.

use serde_json::{Map, Value, json};

use super::{Attachment, BundleEntry, Config, Durability, Egress, EgressAuth, Route, Sink};

const MASK: &str = "********";

/// Everything but the values of secrets.
pub(super) fn effective(config: &Config) -> Value {
    let publisher = |publisher: &super::Publisher| {
        json!({
            "key": sallyport_protocol::signature::KeyId::of(&publisher.key).as_str(),
            "namespace": publisher.namespace,
            "kinds": publisher.kinds,
            "tenant": publisher.tenant.as_ref().map(sallyport_protocol::id::TenantId::as_str),
            "development": publisher.development,
            "revoked": publisher.revoked,
        })
    };
    let publishers: Vec<_> = config.components.publishers.iter().map(publisher).collect();
    let bundle: Vec<_> = config.bundle.iter().map(entry).collect();
    let siem: Vec<_> = config
        .audit
        .siem
        .iter()
        .map(|sink| match sink {
            Sink::Stdout => json!("stdout"),
            Sink::File(path) => json!({ "file": path }),
        })
        .collect();
    let secrets: Map<String, Value> =
        config.secrets.names().map(|name| (name.to_owned(), json!(MASK))).collect();
    json!({
        "home": config.home,
        "server": {
            "listen": config.server.listen,
            "public_url": config.server.public_url,
            "body_limit_bytes": config.server.body_limit,
            "body_memory_bytes": config.server.body_memory,
            "head_timeout_ms": millis(config.server.head_timeout),
            "idle_timeout_ms": millis(config.server.idle_timeout),
            "max_connections": config.server.max_connections,
            "max_connections_per_address": config.server.max_connections_per_address,
        },
        "deny": { "status": config.deny_status.as_str() },
        "database": { "url": masked_url(&config.database_url) },
        "secrets": secrets,
        "gateway": {
            "enabled": config.gateway.enabled,
            "routes": config.gateway.routes.iter().map(route).collect::<Vec<_>>(),
        },
        "bundle": bundle,
        "hooks": { "session_idle_seconds": config.session_idle.as_secs() },
        "egress": config.egress.values().map(way_out).collect::<Vec<_>>(),
        "components": {
            "publishers": publishers,
            "packages": config.components.packages,
            "pool": config.components.pool,
            "isolation": config.components.isolation.as_str(),
            "quota": {
                "bytes": config.components.quota.bytes,
                "versions": config.components.quota.versions,
                "uploads_per_hour": config.components.quota.uploads_per_hour,
                "compile_seconds_per_hour": config.components.quota.compile_seconds_per_hour,
            },
        },
        "audit": {
            "durability": match config.audit.durability { Durability::Spool => "spool", Durability::Strict => "strict" },
            "spool_dir": config.audit.spool_dir,
            "max_bytes": config.audit.max_bytes,
            "max_age_minutes": config.audit.max_age.as_secs() / 60,
            "siem": siem,
            "replica": config.audit.replica,
        },
        "evidence": {
            "record": config.evidence.record.as_str(),
            "max_body_bytes": config.evidence.max_body_bytes,
            "keep_days": config.evidence.keep_days,
        },
        "auth": {
            "issuer": config.auth.issuer,
            "audience": config.auth.audience,
            "ttl_seconds": config.auth.ttl.as_secs(),
        },
        "prices": { "version": config.prices.version, "models": config.prices.models.len() },
    })
}

fn entry(entry: &BundleEntry) -> Value {
    let mut shown = json!({ "component": entry.component, "mode": entry.mode.as_str(), "rewrite": entry.rewrite, "config": entry.config });
    let Attachment { matcher, on_fault, timeout } = &entry.attachment;
    let said = [
        ("matcher", (!matcher.as_str().is_empty()).then(|| json!(matcher.as_str()))),
        ("on_fault", on_fault.map(|on_fault| json!(on_fault.as_str()))),
        ("timeout_ms", timeout.map(|limit| json!(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))),
    ];
    if let Some(fields) = shown.as_object_mut() {
        fields.extend(said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
    shown
}

fn route(route: &Route) -> Value {
    let models: Vec<_> = route
        .models
        .iter()
        .map(|model| json!({ "id": model.id, "display_name": model.display_name }))
        .collect();
    json!({
        "model_pattern": route.pattern.as_str(),
        "predicate": route.predicate.as_ref().map(|it| it.component.as_str()),
        "predicate_config": route.predicate.as_ref().map(|it| &it.config),
        "provider": route.provider,
        "endpoint": route.endpoint.as_ref().map(ToString::to_string),
        "api_key_secret": route.api_key_secret,
        "upstream_model": route.upstream_model,
        "models": models,
        "region": route.region,
        "model_facts": route.model_facts,
        "lossless": route.lossless,
        "strict": route.strict,
        "forward_user_id": route.forward_user_id,
        "timeouts": {
            "first_byte_ms": millis(route.patience.first_byte),
            "idle_ms": millis(route.patience.idle),
            "ping_ms": millis(route.patience.ping),
        },
    })
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn way_out(way: &Egress) -> Value {
    json!({
        "name": way.name,
        "url": way.endpoint.to_string(),
        "methods": way.methods,
        "path_prefix": if way.path_prefix.is_empty() { "/" } else { &way.path_prefix },
        "auth": match &way.auth {
            EgressAuth::None => Value::Null,
            EgressAuth::Bearer(_) => json!("bearer"),
            EgressAuth::Header(name, _) => json!({ "header": name }),
        },
        "max_request_bytes": way.max_request,
        "max_response_bytes": way.max_response,
        "timeout_ms": millis(way.timeout),
        "allow_private": way.allow_private,
        "components": way.components,
    })
}

/// Everything between scheme and host goes, and so do parameters: both can hold a password.
pub(crate) fn masked_url(url: &str) -> String {
    let url = url.split('?').next().unwrap_or(url);
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://{MASK}@{host}"),
        None => url.to_owned(),
    }
}
