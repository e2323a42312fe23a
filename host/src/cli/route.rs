//! `sallyport route explain`: which route takes a call and where it goes, by the configuration and what the user's roles may call, and why
//! the others do not.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use sallyport_protocol::cost::DayPrices;
use sallyport_protocol::id::{ClientId, UserId};
use sallyport_protocol::level::{self, Level, LevelTable};
use sallyport_protocol::messages::index::Index;
use serde_json::{Value, json};

use super::identity::InTenant;
use super::output::{clean, table};
use super::{Ending, open, remote};
use crate::auth::UsableModels;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, RequestNeeds, Route, RouteCaller, RouteTarget};
use crate::db::Db;
use crate::db::user::User;
use crate::pipeline::{Operation, OrderKey, needs, order};

/// `sallyport route ..`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum RouteCommand {
    /// Say which route takes a call, which targets it has, and why other routes do not take it. Nothing is sent upstream; the gateway that
    /// serves this home is asked how its upstreams do
    Explain(Explain),
}

/// What a call is like.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The model that it asks for
    #[arg(long)]
    model: String,
    /// Who calls: a name or an id
    #[arg(long)]
    user: String,
    /// Where
    #[command(flatten)]
    tenant: InTenant,
    /// The agent that the client names (`x-agent-name`)
    #[arg(long)]
    agent: Option<String>,
    /// The client software, as the credential names it
    #[arg(long)]
    client: Option<String>,
    /// The client's name of its session: which of the targets that share a route's calls it stays with
    #[arg(long, default_value = "")]
    session: String,
    /// A file with the request's body; its model is not looked at
    #[arg(long)]
    body: Option<PathBuf>,
}

/// What is said of one route.
struct RouteVerdict<'a> {
    place: usize,
    route: &'a Route,
    /// Why it does not take the call; `None`: it does, unless its predicate disagrees.
    why_not: Option<String>,
}

/// How upstreams do, as the gateway that serves the home says; `None` where none does, or does not say.
struct KnownUpstreams(Option<Vec<Value>>);

/// The body of a call, as far as routes look at it.
struct ExplainedBody {
    bytes: Vec<u8>,
    has_tools: bool,
    max_tokens: Option<u32>,
}

/// Explains where a call goes. Ends with a failure where no route takes it.
pub(super) async fn explain(
    asked: &Explain,
    config: &Config,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Ending> {
    let db = open(config).await?;
    let user = user(&db, asked).await;
    db.close().await;
    let (user, usable) = user?;
    let body = ExplainedBody::read(asked)?;
    let client = asked.client.clone().unwrap_or_else(|| ClientId::cli().as_str().to_owned());
    let caller = RouteCaller {
        user: user.id.as_str(),
        tenant: user.tenant.as_str(),
        department: user.department.as_deref(),
        roles: &user.roles,
        client: &client,
        agent: asked.agent.as_deref(),
    };
    let prices = config.prices.on(SystemClock::default().now().date());
    let verdicts = verdicts(asked, config, &usable, &caller, &body, prices);
    let whose =
        OrderKey { tenant: caller.tenant, user: caller.user, session: &asked.session, trace: &asked.session };
    let upstreams = KnownUpstreams::ask(config).await;
    let shown = |target: &RouteTarget| {
        let missing = missing(config, target, &asked.model, &body);
        shown(target, &asked.model, prices, &upstreams, missing)
    };
    let targets = |route: &Route| order(route, &whose, &asked.model, prices);
    let taken = verdicts.iter().any(|verdict| verdict.why_not.is_none());
    if json {
        let all: Vec<Value> = verdicts
            .iter()
            .map(|verdict| {
                let takes = verdict.why_not.is_none();
                let listed = takes.then(|| {
                    let all = targets(verdict.route);
                    all.iter().map(|it| shown(it)).collect::<Vec<_>>()
                });
                json!({
                    "route": format!("gateway.routes[{}]", verdict.place),
                    "model_pattern": verdict.route.pattern.as_str(),
                    "takes": takes,
                    "why_not": verdict.why_not,
                    "if_predicate_agrees": verdict.route.predicate.as_ref().map(|it| it.component.as_str()),
                    "targets": listed,
                })
            })
            .collect();
        writeln!(out, "{}", json!({ "model": asked.model, "user": caller.user, "routes": all }))?;
        return Ok(if taken { Ending::Done } else { Ending::Failed });
    }
    for verdict in &verdicts {
        let named = format!("gateway.routes[{}] {}", verdict.place, clean(verdict.route.pattern.as_str()));
        match (&verdict.why_not, &verdict.route.predicate) {
            (Some(why), _) => writeln!(out, "no    {named}: {}", clean(why))?,
            (None, Some(predicate)) => {
                writeln!(out, "maybe {named}: if {} agrees, which is not asked here", predicate.component)?;
            }
            (None, None) => writeln!(out, "yes   {named}")?,
        }
        if verdict.why_not.is_none() {
            let rows: Vec<_> = targets(verdict.route)
                .iter()
                .map(|target| {
                    let shown = shown(target);
                    let cell = |name: &str| super::output::cell(shown.get(name));
                    [
                        "target",
                        "provider",
                        "endpoint",
                        "upstream_model",
                        "region",
                        "input",
                        "output",
                        "breaker",
                    ]
                    .map(cell)
                })
                .collect();
            let head = ["  TARGET", "PROVIDER", "ENDPOINT", "MODEL", "REGION", "INPUT", "OUTPUT", "BREAKER"];
            let rows: Vec<_> = rows
                .into_iter()
                .map(|[first, rest @ ..]| {
                    std::iter::once(format!("  {first}")).chain(rest).collect::<Vec<_>>()
                })
                .collect();
            table(&head, &rows, out)?;
        }
    }
    if !taken {
        writeln!(out, "no route serves the model {} for {}", clean(&asked.model), clean(&user.name))?;
    }
    Ok(if taken { Ending::Done } else { Ending::Failed })
}

// === impl KnownUpstreams ===

impl KnownUpstreams {
    async fn ask(config: &Config) -> Self {
        let said = remote::what_ready_says(&config.home).await.and_then(Result::ok);
        let listed = said.as_ref().and_then(|said| said.get("upstreams")).and_then(Value::as_array);
        Self(listed.cloned())
    }

    /// The state of a target's breaker, where there is one and somebody knows.
    fn breaker(&self, target: &RouteTarget) -> Option<String> {
        let listed = self.0.as_ref().filter(|_| target.breaker.is_some())?;
        let address = target.endpoint.as_ref().map_or_else(|| target.provider.clone(), ToString::to_string);
        let credential = target.api_key_secret.as_deref().unwrap_or_default();
        let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let of_target =
            listed.iter().find(|it| text(it, "upstream") == address && text(it, "credential") == credential);
        // One that was not asked yet has not failed.
        Some(of_target.map_or_else(|| "closed".to_owned(), |it| text(it, "breaker")))
    }
}

// === impl ExplainedBody ===

impl ExplainedBody {
    fn read(asked: &Explain) -> anyhow::Result<Self> {
        let Some(path) = &asked.body else {
            return Ok(Self { bytes: Vec::new(), has_tools: false, max_tokens: None });
        };
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let index = Index::parse(&bytes).with_context(|| format!("{} is no request", path.display()))?;
        Ok(Self { has_tools: !index.tools.is_empty(), max_tokens: index.max_tokens, bytes })
    }
}

// === private helpers ===

/// Who calls, and which models it may call.
async fn user(db: &Db, asked: &Explain) -> anyhow::Result<(User, UsableModels)> {
    let tenant = sallyport_protocol::id::TenantId::parse(&asked.tenant.tenant)?;
    let known = match UserId::parse(&asked.user) {
        Ok(id) => db.user(&tenant, &id).await?,
        Err(_) => db.user_by_name(&tenant, &asked.user).await?,
    };
    let user = known.with_context(|| format!("there is no user {} in tenant {tenant}", asked.user))?;
    let usable = UsableModels::read(db, &user).await?;
    Ok((user, usable))
}

/// Every route up to the one that takes the call whatever a predicate says, and those behind it as never asked.
fn verdicts<'a>(
    asked: &Explain,
    config: &'a Config,
    usable: &UsableModels,
    caller: &RouteCaller<'_>,
    body: &ExplainedBody,
    prices: DayPrices<'_>,
) -> Vec<RouteVerdict<'a>> {
    let mut taken: Option<usize> = None;
    let mut all = Vec::new();
    for (place, route) in config.gateway.routes.iter().enumerate() {
        let looked_at =
            || RequestNeeds { body: &body.bytes, has_tools: body.has_tools, max_tokens: body.max_tokens };
        let why_not = if !config.gateway.enabled {
            Some("gateway.enabled is false".to_owned())
        } else if !usable.has(&asked.model) {
            Some("none of the user's roles may call this model".to_owned())
        } else if !route.pattern.matches(&asked.model) {
            Some("model_pattern does not match".to_owned())
        } else if let Some(earlier) = taken {
            Some(format!("gateway.routes[{earlier}] takes the call before"))
        } else {
            let unmet = route.unmet_by(caller, &asked.model, prices, looked_at);
            unmet.map(|key| format!("{key} does not hold of this call")).or_else(|| {
                let missing: Option<Vec<Level>> =
                    route.targets().map(|target| missing(config, target, &asked.model, body)).collect();
                let level = *missing?.last()?;
                Some(format!("its providers were not shown to carry {level}"))
            })
        };
        if why_not.is_none() && route.predicate.is_none() {
            taken = Some(place);
        }
        all.push(RouteVerdict { place, route, why_not });
    }
    all
}

/// The first level that the call needs and that a target's provider was not shown to carry, so far as it ships: what was shown of others
/// the gateway knows that runs them.
fn missing(config: &Config, target: &RouteTarget, model: &str, body: &ExplainedBody) -> Option<Level> {
    let entries = LevelTable::shipped().ok()?.of(&format!("sallyport/{}", target.provider));
    let model = target.model(model);
    let known = config.facts.of(&target.provider, model);
    let known = match &target.model_facts {
        Some(own) => known.but(own),
        None => known,
    };
    let levels = level::shown(&entries, model, known.api)?;
    levels.missing().find(|level| needs(Operation::Message, &body.bytes, body.has_tools, *level))
}

fn shown(
    target: &RouteTarget,
    model: &str,
    prices: DayPrices<'_>,
    upstreams: &KnownUpstreams,
    missing: Option<Level>,
) -> Value {
    let asked = target.model(model);
    let price = prices.entry(&target.provider, asked);
    json!({
        "target": target.name,
        "provider": target.provider,
        "endpoint": target.endpoint.as_ref().map(ToString::to_string),
        "credential": target.api_key_secret,
        "upstream_model": asked,
        "region": target.region,
        "input": price.map(|price| price.input),
        "output": price.map(|price| price.output),
        "breaker": upstreams.breaker(target),
        "passed_over": missing.map(|level| format!("not shown to carry {level}")),
    })
}
