//! From the text of `sallyport.yaml` to a checked [`Config`]: block by block, every problem noted.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use sallyport_protocol::canonical;
use sallyport_protocol::cost::{self, Price, PriceList};
use sallyport_protocol::facts::FactTable;
use sallyport_protocol::hooks::{Attachment, Matcher, OnFault};
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Kind, Name, Package, Publisher};
use sallyport_protocol::signature;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::LONGEST_TIMEOUT;
use super::egress::egress;
use super::node::{self, Node, Section};
use super::report::{Problems, Report};
use super::{
    AuditSettings, AuthSettings, BundleEntry, ComponentSettings, Config, DenyStatus, Durability, Endpoint,
    EvidenceSettings, Gateway, Isolation, Mode, Model, Patience, Pattern, Predicate, Quota, Recording, Route,
    SECRETS_FILE, SHIPPED_COMPONENTS, SHIPPED_PREDICATES, SHIPPED_PROVIDERS, Scheme, Secrets, Server, Sink,
};

/// Keys at the top of the file.
pub(super) const TOP: [&str; 13] = [
    "server",
    "deny",
    "database",
    "secrets_file",
    "gateway",
    "bundle",
    "hooks",
    "egress",
    "components",
    "audit",
    "evidence",
    "auth",
    "prices",
];
/// Keys of `server`.
pub(super) const SERVER: [&str; 8] = [
    "listen",
    "public_url",
    "body_limit_bytes",
    "body_memory_bytes",
    "head_timeout_ms",
    "idle_timeout_ms",
    "max_connections",
    "max_connections_per_address",
];
/// Keys of `database`.
pub(super) const DATABASE: [&str; 2] = ["url", "url_secret"];
/// Keys of `gateway`.
pub(super) const GATEWAY: [&str; 2] = ["enabled", "routes"];
/// Keys of a route.
pub(super) const ROUTE: [&str; 14] = [
    "model_pattern",
    "predicate",
    "predicate_config",
    "provider",
    "endpoint",
    "api_key_secret",
    "upstream_model",
    "models",
    "model_facts",
    "region",
    "lossless",
    "strict",
    "forward_user_id",
    "timeouts",
];
/// Keys of a route's `timeouts`.
pub(super) const TIMEOUTS: [&str; 3] = ["first_byte_ms", "idle_ms", "ping_ms"];
/// Keys of a bundle entry.
pub(super) const ENTRY: [&str; 8] =
    ["component", "mode", "rewrite", "config", "config_file", "matcher", "on_fault", "timeout_ms"];
/// Longest file that `config_file` names: what a component is handed at most.
const LONGEST_CONFIG: u64 = 1024 * 1024;
/// Keys of `hooks`.
pub(super) const HOOKS: [&str; 1] = ["session_idle_seconds"];
/// Keys of `components`.
pub(super) const COMPONENTS: [&str; 5] = ["publishers", "packages", "pool", "isolation", "quota"];
/// Keys of `components.quota`.
pub(super) const QUOTA: [&str; 4] = ["bytes", "versions", "uploads_per_hour", "compile_seconds_per_hour"];
/// Keys of a publisher.
pub(super) const PUBLISHER: [&str; 6] = ["key", "namespace", "kinds", "tenant", "development", "revoked"];
/// Keys of `audit`.
pub(super) const AUDIT: [&str; 6] =
    ["durability", "spool_dir", "max_bytes", "max_age_minutes", "siem", "replica"];
/// Keys of `evidence`.
pub(super) const EVIDENCE: [&str; 3] = ["record", "max_body_bytes", "keep_days"];
/// Keys of `auth`.
pub(super) const AUTH: [&str; 3] = ["issuer", "audience", "ttl_seconds"];
/// Keys of `prices`.
pub(super) const PRICES: [&str; 2] = ["file", "models"];

const DEFAULT_PORT: u16 = 8080;
pub(super) const DEFAULT_BODY_LIMIT: usize = 32 * 1024 * 1024;
pub(super) const DEFAULT_BODY_MEMORY: usize = 1024 * 1024 * 1024;
pub(super) const DEFAULT_IDLE_TIMEOUT_MS: u64 = 120_000;
pub(super) const DEFAULT_CONNECTIONS: usize = 10_000;
pub(super) const DEFAULT_CONNECTIONS_PER_ADDRESS: usize = 1000;
pub(super) const DEFAULT_POOL: u32 = 2_000;
const DEFAULT_SPOOL_BYTES: u64 = 1024 * 1024 * 1024;
pub(super) const DEFAULT_HEAD_TIMEOUT_MS: u64 = 30_000;
const MINUTE: u64 = 60;
const DEFAULT_SESSION_IDLE: u64 = 30 * MINUTE;
/// Ten years.
const LONGEST_KEPT: u64 = 3_650;
const DAY: u64 = 24 * 60 * MINUTE;
/// Longest that a route may wait for its upstream.
const LONGEST_WAIT_MS: u64 = 60 * 60 * 1_000;

/// Names that may stand in the file, and where they come from.
struct Known {
    providers: BTreeSet<String>,
    components: BTreeSet<String>,
    predicates: BTreeSet<String>,
}

impl Known {
    /// Whether a package here has this name, of whatever kind.
    fn has(&self, name: &str) -> bool {
        [&self.providers, &self.components, &self.predicates].into_iter().any(|names| names.contains(name))
    }
}

/// Reads and checks everything. `secrets`: instead of the secrets file.
pub(super) fn config(text: &str, home: &Path, secrets: Option<Secrets>) -> Result<Config, Report> {
    let tree = node::parse(text).map_err(|message| Report::single(super::FILE, message))?;
    let problems = Problems::default();
    let top = Node::root(&tree, &problems).section(&TOP);

    let secrets = secrets.unwrap_or_else(|| {
        let name = top.get("secrets_file").and_then(|node| node.text()).unwrap_or(SECRETS_FILE);
        Secrets::load(&home.join(name)).unwrap_or_else(|found| {
            problems.extend(found);
            Secrets::default()
        })
    });
    let (components, known) = components(&top, home);
    let server = server(&top, &components);
    let prices = prices(&top, home);
    let gateway = gateway(&top, &known, &secrets, prices.as_ref());
    let bundle = top.get("bundle").map_or_else(Vec::new, |node| {
        node.items().iter().filter_map(|item| bundle_entry(item, home, &known)).collect()
    });
    let egress = egress(&top, &secrets);
    let audit = audit(&top, home);
    let evidence = evidence(&top);
    let auth = auth(&top, &server);
    let deny = top.get("deny").map(|node| node.section(&["status"]));
    let deny_status = deny.and_then(|deny| deny.get("status")?.choice(&DENY)).unwrap_or_default();
    let database_url = database(&top, home, &secrets);
    let hooks = top.get("hooks").map(|node| node.section(&HOOKS));
    let session_idle = hooks
        .and_then(|hooks| hooks.get("session_idle_seconds")?.number(1..=DAY))
        .unwrap_or(DEFAULT_SESSION_IDLE);

    let warnings = problems.finish()?;
    let facts = FactTable::shipped().map_err(|_| Report::single("model_facts", "cannot be read"))?;
    let prices = prices.ok_or_else(|| Report::single("prices", "cannot be read"))?;
    Ok(Config {
        server,
        home: home.to_path_buf(),
        database_url,
        gateway,
        bundle,
        egress,
        components,
        audit,
        evidence,
        auth,
        prices,
        facts,
        deny_status,
        session_idle: Duration::from_secs(session_idle),
        secrets,
        warnings,
    })
}

const DENY: [(&str, DenyStatus); 4] = [
    ("451", DenyStatus::S451),
    ("403", DenyStatus::S403),
    ("400", DenyStatus::S400),
    ("answer", DenyStatus::Answer),
];
const ISOLATIONS: [(&str, Isolation); 3] =
    [("tenants", Isolation::Tenants), ("process", Isolation::Process), ("shared", Isolation::Shared)];
const RECORDINGS: [(&str, Recording); 2] = [("off", Recording::Off), ("calls", Recording::Calls)];
const MODES: [(&str, Mode); 3] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("off", Mode::Off)];
const ON_FAULT: [(&str, OnFault); 2] = [("block", OnFault::Block), ("continue", OnFault::Continue)];
const KINDS: [(&str, Kind); 5] = [
    ("provider", Kind::Provider),
    ("policy", Kind::Policy),
    ("scanner", Kind::Scanner),
    ("hook", Kind::Hook),
    ("predicate", Kind::Predicate),
];

fn server(top: &Section<'_>, components: &ComponentSettings) -> Server {
    let section = top.get("server").map(|node| node.section(&SERVER));
    let get = |key: &str| section.as_ref().and_then(|section| section.get(key));
    let listen_node = get("listen");
    let listen = listen_node
        .as_ref()
        .and_then(|node| {
            node.parsed(|text| text.parse().map_err(|_| "must be an address and a port: 127.0.0.1:8080"))
        })
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
    let url_node = get("public_url");
    let public_url = url_node.as_ref().and_then(|node| {
        let url = node.parsed(Endpoint::parse)?;
        if url.scheme == Scheme::Http && !url.is_loopback() {
            node.warn("is not https: tokens and prompts travel in clear");
        }
        Some(node.text()?.trim_end_matches('/').to_owned())
    });
    if let Some(node) = listen_node.filter(|_| !listen.ip().is_loopback()) {
        if url_node.is_none() {
            node.error("is reachable from other machines: say in server.public_url how clients reach it (https, with TLS in front)");
        }
        if components.publishers.iter().any(|publisher| publisher.development) {
            node.error(
                "is reachable from other machines, while components.publishers trusts a development key",
            );
        }
    }
    let body_limit = get("body_limit_bytes").and_then(|node| node.number(1024..=DEFAULT_BODY_LIMIT as u64));
    let head_timeout = get("head_timeout_ms").and_then(|node| node.number(100..=DEFAULT_HEAD_TIMEOUT_MS));
    let idle_timeout = get("idle_timeout_ms").and_then(|node| node.number(100..=3_600_000));
    let count = |key: &str, range: std::ops::RangeInclusive<u64>, default: usize| {
        let number = get(key).and_then(|node| node.number(range));
        number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    Server {
        idle_timeout: Duration::from_millis(idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT_MS)),
        max_connections: count("max_connections", 16..=1_000_000, DEFAULT_CONNECTIONS),
        max_connections_per_address: count(
            "max_connections_per_address",
            1..=1_000_000,
            DEFAULT_CONNECTIONS_PER_ADDRESS,
        ),
        body_memory: count("body_memory_bytes", 1_048_576..=1_099_511_627_776, DEFAULT_BODY_MEMORY),
        listen,
        public_url: public_url.unwrap_or_else(|| format!("http://{listen}")),
        body_limit: body_limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_BODY_LIMIT),
        head_timeout: Duration::from_millis(head_timeout.unwrap_or(DEFAULT_HEAD_TIMEOUT_MS)),
    }
}

fn database(top: &Section<'_>, home: &Path, secrets: &Secrets) -> String {
    use super::ExposeSecret as _;
    let local = format!("sqlite:{}", home.join("sallyport.sqlite").display());
    let Some(section) = top.get("database").map(|node| node.section(&DATABASE)) else { return local };
    let secret = section.get("url_secret");
    if let (Some(url), Some(_)) = (section.get("url"), &secret) {
        url.error("stands beside url_secret: only one of them can hold");
    }
    let check = |node: &Node<'_>, url: &str| {
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            node.error("must start with sqlite: or postgres:");
        }
    };
    if let Some(node) = secret {
        let Some(value) = node.text().and_then(|name| secret_named(&node, name, secrets)) else {
            return local;
        };
        check(&node, value.expose_secret());
        return value.expose_secret().to_owned();
    }
    let Some(node) = section.get("url") else { return local };
    let Some(url) = node.text() else { return local };
    check(&node, url);
    if url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
    {
        node.error("holds a password: put the URL into the secrets file and name it in database.url_secret");
    }
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.starts_with(['/', ':']) => format!("sqlite:{}", home.join(path).display()),
        _ => url.to_owned(),
    }
}

pub(super) fn secret_named<'s>(
    node: &Node<'_>,
    name: &str,
    secrets: &'s Secrets,
) -> Option<&'s super::SecretString> {
    let secret = secrets.get(name);
    if secret.is_none() {
        node.error(format!("the secrets file has no value for {name}"));
    }
    secret
}

fn gateway(top: &Section<'_>, known: &Known, secrets: &Secrets, prices: Option<&PriceList>) -> Gateway {
    let Some(section) = top.required("gateway").map(|node| node.section(&GATEWAY)) else {
        return Gateway { enabled: false, routes: Vec::new() };
    };
    let enabled = section.get("enabled").map_or(Some(true), |node| node.flag()).unwrap_or(true);
    let mut routes: Vec<Route> = Vec::new();
    for item in section.required("routes").map_or_else(Vec::new, |node| node.items()) {
        let Some(route) = route(&item, known, secrets, prices) else { continue };
        if let Some(earlier) = routes.iter().position(|earlier| earlier.covers(&route)) {
            item.warn(format!(
                "is never reached: an earlier route takes {} already",
                routes_at(&routes, earlier)
            ));
        }
        routes.push(route);
    }
    Gateway { enabled, routes }
}

fn routes_at(routes: &[Route], position: usize) -> String {
    routes.get(position).map_or_else(String::new, |route| route.pattern.to_string())
}

fn route(item: &Node<'_>, known: &Known, secrets: &Secrets, prices: Option<&PriceList>) -> Option<Route> {
    let section = item.section(&ROUTE);
    let flag = |key: &str| section.get(key).and_then(|node| node.flag()).unwrap_or(false);
    let words = |key: &str| section.get(key).and_then(|node| node.text().map(ToOwned::to_owned));

    let pattern = section.required("model_pattern").and_then(|node| node.parsed(Pattern::parse));
    let provider = section.required("provider").and_then(|node| {
        let tag = node.text()?;
        look_for(&node, "provider", tag, &known.providers, known);
        Some(tag.to_owned())
    });
    let endpoint = section.get("endpoint").and_then(|node| {
        let endpoint = node.parsed(Endpoint::parse)?;
        if endpoint.scheme == Scheme::Http && !endpoint.is_loopback() {
            node.warn("is not https: credentials and prompts travel in clear");
        }
        Some(endpoint)
    });
    if matches!(provider.as_deref(), Some("anthropic" | "openai")) && section.get("endpoint").is_none() {
        section.required("endpoint");
    }
    let api_key_secret = section.get("api_key_secret").and_then(|node| {
        let name = node.text()?;
        secret_named(&node, name, secrets);
        Some(name.to_owned())
    });
    let predicate = section.get("predicate").and_then(|node| {
        let component = node.text()?.to_owned();
        look_for(&node, "predicate", &component, &known.predicates, known);
        let config = section.get("predicate_config");
        let config = config.map_or_else(|| serde_json::json!({}), |node| node.value().clone());
        Some(Predicate { component, config })
    });
    if let Some(node) = section.get("predicate_config").filter(|_| section.get("predicate").is_none()) {
        node.error("configures no predicate: name it in predicate");
    }
    let models: Vec<Model> = section.get("models").map_or_else(Vec::new, |node| {
        node.items().iter().filter_map(|item| model(item, pattern.as_ref())).collect()
    });
    let route = Route {
        pattern: pattern?,
        predicate,
        provider: provider?,
        endpoint,
        api_key_secret,
        upstream_model: words("upstream_model"),
        models,
        model_facts: section.get("model_facts").and_then(|node| {
            let read = serde_json::from_value(node.value().clone());
            read.map_err(|error| node.error(format!("are no facts of a model: {error}"))).ok()
        }),
        lossless: flag("lossless"),
        strict: flag("strict"),
        forward_user_id: flag("forward_user_id"),
        region: words("region"),
        patience: section.get("timeouts").map_or_else(Patience::default, |node| patience(&node)),
    };
    if let Some(prices) = prices {
        priced(&section, item, &route, prices);
    }
    Some(route)
}

fn patience(node: &Node<'_>) -> Patience {
    let section = node.section(&TIMEOUTS);
    let wait = |key: &str| section.get(key)?.number(1..=LONGEST_WAIT_MS).map(Duration::from_millis);
    let usual = Patience::default();
    Patience {
        first_byte: wait("first_byte_ms").unwrap_or(usual.first_byte),
        idle: wait("idle_ms").unwrap_or(usual.idle),
        ping: wait("ping_ms").unwrap_or(usual.ping),
    }
}

fn model(item: &Node<'_>, pattern: Option<&Pattern>) -> Option<Model> {
    let section = item.section(&["id", "display_name"]);
    let id_node = section.required("id")?;
    let id = id_node.text()?.to_owned();
    if pattern.is_some_and(|pattern| !pattern.matches(&id)) {
        id_node.error("is not matched by the model_pattern of its route");
    }
    let display_name = section.get("display_name").and_then(|node| node.text().map(ToOwned::to_owned));
    Some(Model { display_name: display_name.unwrap_or_else(|| id.clone()), id })
}

/// A call without a price would be free in every report: refused here, where the missing line can still be written.
fn priced(section: &Section<'_>, item: &Node<'_>, route: &Route, prices: &PriceList) {
    let fix = "add it to prices.models";
    let exact = |model: &str| prices.entry(&route.provider, model).is_some();
    if let Some(name) = &route.upstream_model {
        if let Some(node) = section.get("upstream_model").filter(|_| !exact(name)) {
            node.error(format!("{} model {name} has no price: {fix}", route.provider));
        }
        return;
    }
    for (position, model) in route.models.iter().enumerate().filter(|(_, model)| !exact(&model.id)) {
        let model = &model.id;
        let message = format!("{} model {model} has no price: {fix}", route.provider);
        item.error_below(&format!(".models[{position}].id"), message);
    }
    let some = |price: &Price| {
        (price.provider == "*" || price.provider == route.provider) && route.pattern.overlaps(&price.model)
    };
    let Some(node) = section.get("model_pattern") else { return };
    if route.models.is_empty() && !prices.models.iter().any(some) {
        node.error(format!("no {} model that it matches has a price: {fix}", route.provider));
    }
}

/// Looks for what a route names. A full name that no package here has may be the catalog's, which is not read here.
fn look_for(node: &Node<'_>, kind: &str, wanted: &str, among: &BTreeSet<String>, known: &Known) {
    if among.contains(wanted) {
        return;
    }
    let full = Name::parse(wanted).is_ok_and(|name| name.namespace() != "sallyport");
    if full && !known.has(wanted) {
        node.warn("is in no package here: no call takes this route unless the catalog has it in force");
    } else {
        let names: Vec<_> = among.iter().map(String::as_str).collect();
        node.error(format!("there is no {kind} {wanted}; there are {}", names.join(", ")));
    }
}

fn bundle_entry(item: &Node<'_>, home: &Path, known: &Known) -> Option<BundleEntry> {
    let section = item.section(&ENTRY);
    let node = section.required("component")?;
    let name = node.text()?;
    let is_path = name.ends_with(".sallyport");
    if is_path {
        read_package(&node, &home.join(name));
    } else if known.predicates.contains(name) {
        node.error("is a predicate: a route names it");
    } else if !known.components.contains(name) {
        let names: Vec<_> = known.components.iter().map(String::as_str).collect();
        node.error(format!("there is no component {name}; there are {}", names.join(", ")));
    }
    let component = if is_path { home.join(name).display().to_string() } else { name.to_owned() };
    let mode = section.get("mode").map_or_else(|| Some(Mode::default()), |node| node.choice(&MODES))?;
    let config = section.get("config");
    let config = config.map_or_else(|| serde_json::json!({}), |node| node.value().clone());
    let config = match section.get("config_file") {
        Some(node) => with_file(&node, home, config)?,
        None => config,
    };
    let rewrite = section.get("rewrite").and_then(|node| node.flag()).unwrap_or(false);
    Some(BundleEntry { component, mode, rewrite, config, attachment: attachment(&section)? })
}

/// What `config` says, and what the file that `config_file` names says besides.
fn with_file(named: &Node<'_>, home: &Path, config: Value) -> Option<Value> {
    let path = home.join(named.text()?);
    let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if size > LONGEST_CONFIG {
        named.error(format!("{} has more than {LONGEST_CONFIG} bytes", path.display()));
        return None;
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|error| named.error(format!("{} cannot be read: {error}", path.display())))
        .ok()?;
    let read =
        node::parse(&text).map_err(|error| named.error(format!("{}: {error}", path.display()))).ok()?;
    let (Value::Object(mut all), Value::Object(said)) = (read, config) else {
        named.error(format!("{} and config have to be mappings", path.display()));
        return None;
    };
    for (key, value) in said {
        if all.insert(key.clone(), value).is_some() {
            named.error(format!("{key} stands in {} and in config", path.display()));
        }
    }
    Some(Value::Object(all))
}

/// What an entry says for a hook. Whether it is one is known when its package is loaded.
fn attachment(section: &Section<'_>) -> Option<Attachment> {
    // All of them are read before any of them counts, so that every problem is found.
    let matcher = section.get("matcher").map(|node| node.parsed(Matcher::parse));
    let on_fault = section.get("on_fault").map(|node| node.choice(&ON_FAULT));
    let timeout = section.get("timeout_ms").map(|node| node.number(1..=LONGEST_TIMEOUT));
    let matcher = matcher.unwrap_or_else(|| Some(Matcher::default()))?;
    let on_fault = on_fault.map_or(Some(None), |read| read.map(Some))?;
    let timeout = timeout.map_or(Some(None), |read| read.map(Duration::from_millis).map(Some))?;
    Some(Attachment { matcher, on_fault, timeout })
}

/// Reads a package far enough to know what it says it is. Whether that may be believed is decided when it is loaded.
fn read_package(node: &Node<'_>, path: &Path) -> Option<(String, Kind)> {
    let bytes = std::fs::read(path)
        .map_err(|error| node.error(format!("{} cannot be read: {error}", path.display())))
        .ok()?;
    match Package::parse(bytes) {
        Ok(package) => Some((package.statement().name.to_string(), package.statement().kind)),
        Err(error) => {
            node.error(format!("{} is no package: {error}", path.display()));
            None
        }
    }
}

fn components(top: &Section<'_>, home: &Path) -> (ComponentSettings, Known) {
    let mut known = Known {
        providers: SHIPPED_PROVIDERS.iter().map(ToString::to_string).collect(),
        components: SHIPPED_COMPONENTS.iter().map(ToString::to_string).collect(),
        predicates: SHIPPED_PREDICATES.iter().map(ToString::to_string).collect(),
    };
    let mut settings = ComponentSettings { pool: DEFAULT_POOL, ..ComponentSettings::default() };
    let Some(section) = top.get("components").map(|node| node.section(&COMPONENTS)) else {
        return (settings, known);
    };
    if let Some(pool) = section.get("pool").and_then(|node| node.number(16..=4_000)) {
        settings.pool = u32::try_from(pool).unwrap_or(DEFAULT_POOL);
    }
    if let Some(isolation) = section.get("isolation").and_then(|node| node.choice(&ISOLATIONS)) {
        settings.isolation = isolation;
    }
    if let Some(node) = section.get("quota") {
        settings.quota = quota(&node);
    }
    for node in section.get("packages").map_or_else(Vec::new, |node| node.items()) {
        let Some(path) = node.text().map(|text| home.join(text)) else { continue };
        if let Some((name, kind)) = read_package(&node, &path) {
            let tag = name.rsplit('/').next().unwrap_or(&name).to_owned();
            match kind {
                Kind::Provider if SHIPPED_PROVIDERS.contains(&tag.as_str()) => {
                    node.error(format!(
                        "{name} would take the place of the provider {tag} that ships with the gateway"
                    ));
                }
                Kind::Provider => {
                    known.providers.extend([tag, name.clone()]);
                    known.components.insert(name);
                }
                Kind::Predicate => {
                    known.predicates.insert(name);
                }
                Kind::Policy | Kind::Scanner | Kind::Hook => {
                    known.components.insert(name);
                }
            }
        }
        settings.packages.push(path);
    }
    let publishers = section.get("publishers").map_or_else(Vec::new, |node| node.items());
    settings.publishers = publishers.iter().filter_map(publisher).collect();
    (settings, known)
}

fn quota(node: &Node<'_>) -> Quota {
    let section = node.section(&QUOTA);
    let number = |key: &str, usual: u32| {
        let found = section.get(key).and_then(|node| node.number(1..=1_000_000));
        found.and_then(|number| u32::try_from(number).ok()).unwrap_or(usual)
    };
    let usual = Quota::default();
    Quota {
        bytes: section.get("bytes").and_then(|node| node.number(1..=1 << 40)).unwrap_or(usual.bytes),
        versions: number("versions", usual.versions),
        uploads_per_hour: number("uploads_per_hour", usual.uploads_per_hour),
        compile_seconds_per_hour: number("compile_seconds_per_hour", usual.compile_seconds_per_hour),
    }
}

fn publisher(item: &Node<'_>) -> Option<Publisher> {
    let section = item.section(&PUBLISHER);
    let key = section.required("key").and_then(|node| node.parsed(signature::public_key));
    let namespace = section.required("namespace").and_then(|node| {
        let name = node.text()?;
        if name == "sallyport" {
            node.error("belongs to the components that ship with the gateway");
        }
        Some(name.to_owned())
    });
    let kinds = section.required("kinds").map_or_else(Vec::new, |node| {
        node.items().iter().filter_map(|item| item.choice(&KINDS)).collect::<Vec<_>>()
    });
    let tenant = section.get("tenant").map(|node| node.parsed(TenantId::parse));
    let flag = |key: &str| section.get(key).and_then(|node| node.flag()).unwrap_or(false);
    let (development, revoked) = (flag("development"), flag("revoked"));
    let tenant = match tenant {
        Some(parsed) => Some(parsed?),
        None => None,
    };
    Some(Publisher { key: key?, namespace: namespace?, kinds, tenant, development, revoked })
}

fn audit(top: &Section<'_>, home: &Path) -> AuditSettings {
    let section = top.get("audit").map(|node| node.section(&AUDIT));
    let get = |key: &str| section.as_ref().and_then(|section| section.get(key));
    let path = |node: &Node<'_>| node.text().map(|text| home.join(text));
    let durability = get("durability")
        .and_then(|node| node.choice(&[("spool", Durability::Spool), ("strict", Durability::Strict)]));
    let siem = get("siem")
        .map_or_else(Vec::new, |node| node.items().iter().filter_map(|item| sink(item, home)).collect());
    AuditSettings {
        spool_dir: get("spool_dir").and_then(|node| path(&node)).unwrap_or_else(|| home.join("spool")),
        durability: durability.unwrap_or(Durability::Spool),
        max_bytes: get("max_bytes")
            .and_then(|node| node.number(1_048_576..=1 << 40))
            .unwrap_or(DEFAULT_SPOOL_BYTES),
        max_age: Duration::from_secs(
            MINUTE * get("max_age_minutes").and_then(|node| node.number(1..=10_080)).unwrap_or(60),
        ),
        siem,
        replica: get("replica")
            .and_then(|node| node.parsed(replica))
            .unwrap_or_else(|| crate::audit::DEFAULT_REPLICA.to_owned()),
        chain_key: None,
    }
}

fn replica(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be at most 64 letters, digits, dots, dashes and underscores")
    }
}

fn sink(item: &Node<'_>, home: &Path) -> Option<Sink> {
    if item.value().is_string() {
        return item.choice(&[("stdout", ())]).map(|()| Sink::Stdout);
    }
    let section = item.section(&["file"]);
    let node = section.required("file")?;
    Some(Sink::File(home.join(node.text()?)))
}

fn evidence(top: &Section<'_>) -> EvidenceSettings {
    let mut settings = EvidenceSettings::default();
    let Some(section) = top.get("evidence").map(|node| node.section(&EVIDENCE)) else { return settings };
    if let Some(record) = section.get("record").and_then(|node| node.choice(&RECORDINGS)) {
        settings.record = record;
    }
    let bytes = section.get("max_body_bytes").and_then(|node| node.number(1024..=DEFAULT_BODY_LIMIT as u64));
    if let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        settings.max_body_bytes = bytes;
    }
    let days = section.get("keep_days").and_then(|node| node.number(1..=LONGEST_KEPT));
    if let Some(days) = days.and_then(|days| u16::try_from(days).ok()) {
        settings.keep_days = days;
    }
    settings
}

fn auth(top: &Section<'_>, server: &Server) -> AuthSettings {
    let section = top.get("auth").map(|node| node.section(&AUTH));
    let get = |key: &str| section.as_ref().and_then(|section| section.get(key));
    let words = |key: &str| get(key).and_then(|node| node.text().map(ToOwned::to_owned));
    let mut settings = AuthSettings::new(words("issuer").unwrap_or_else(|| server.public_url.clone()));
    if let Some(audience) = words("audience") {
        settings.audience = audience;
    }
    if let Some(seconds) = get("ttl_seconds").and_then(|node| node.number(60..=3_600)) {
        settings.ttl = Duration::from_secs(seconds);
    }
    settings
}

fn prices(top: &Section<'_>, home: &Path) -> Option<PriceList> {
    let section = top.get("prices").map(|node| node.section(&PRICES));
    let get = |key: &str| section.as_ref().and_then(|section| section.get(key));
    let mut list = match get("file") {
        None => PriceList::parse(cost::DEFAULT).ok()?,
        Some(node) => {
            let path = home.join(node.text()?);
            let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            let parsed = read.and_then(|text| PriceList::parse(&text).map_err(|error| error.to_string()));
            parsed.map_err(|error| node.error(format!("{}: {error}", path.display()))).ok()?
        }
    };
    let Some(own) = get("models") else { return Some(list) };
    let entries: Vec<Price> = own
        .items()
        .iter()
        .filter_map(|item| {
            let read = serde_json::from_value(item.value().clone());
            read.map_err(|error| item.error(format!("is no price: {error}"))).ok()
        })
        .collect();
    // A row names the list that priced it: own prices make it another list.
    let digest = Sha256::digest(serde_json::to_vec(&entries).ok()?);
    let mark = canonical::hex(digest.get(..4).unwrap_or_default());
    list.version = format!("{}+{mark}", list.version);
    list.models.splice(0..0, entries);
    Some(list)
}
