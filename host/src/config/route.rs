//! One route of the `gateway:` block: which calls it takes, and where they go.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::canonical;
use sallyport_protocol::cost::{DayPrices, PriceList};
use sallyport_protocol::messages::event::Usage;
use serde_json::{Value, json};

use super::condition::{self, Conditions, RequestNeeds, RouteCaller};
use super::file::millis;
use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
use super::known::Known;
use super::node::{Node, Section};
use super::pattern::Pattern;
use super::secrets::Secrets;
use super::target::{self, BreakerSettings, Inherited, PEER, RoutePrices, RouteTarget, TARGET, Timeouts};

/// Most targets of a route: each may cost a call the whole of its timeouts.
const MOST_TARGETS: usize = 16;

const MODEL_PATTERN: ConfigKey =
    ConfigKey::text("model_pattern", "Model name; `*` stands for any run of characters").required();
const PREDICATE: ConfigKey = ConfigKey::text(
    "predicate",
    "A component that has to agree as well: one that ships (`sallyport/region`), one from `components.packages`, or one of the \
     [catalog](../guide/catalog.md#providers-and-predicates). One that does not answer does not agree, and the log has an error",
);
const PREDICATE_CONFIG: ConfigKey = ConfigKey::of(
    "predicate_config",
    Form::Free,
    "What it is configured with; routes may share a predicate and configure it differently",
);
const MODELS: ConfigKey = ConfigKey::list(
    "models",
    &Form::Mapping(&MODEL),
    "What `/v1/models` lists for this route. Claude clients show only ids that start with `claude` or `anthropic`",
);
const LOSSLESS: ConfigKey = ConfigKey::flag(
    "lossless",
    "Refuse a request that the provider's format cannot carry whole. Without it, what is lost is on the audit row",
);
const STRICT: ConfigKey = ConfigKey::flag(
    "strict",
    "Refuse a request that holds what the gateway does not know, such as a block of a new type or a field with an unknown name: 400, \
     code `unknown_construct`. Without it, it passes, policies see it as the attribute `unknown`, and the row names it",
);
const FORWARD_USER_ID: ConfigKey =
    ConfigKey::flag("forward_user_id", "Let `metadata.user_id` reach the upstream");
const PRIMARY: ConfigKey = ConfigKey::list(
    "primary",
    &Form::Mapping(&PEER),
    "Targets that share the route's calls with its own, each after its `weight`. A session stays with one of them while that answers; the \
     others are asked where it does not, before `secondary`",
);
const AFFINITY: ConfigKey = ConfigKey::choice::<Affinity>(
    "affinity",
    "What stays with one target of `primary`, so that prompt caches are of use: a `session`, all calls of a `user`, or nothing (`none`)",
)
.or_default::<Affinity>();
const PREFER: ConfigKey = ConfigKey::choice::<Preference>(
    "prefer",
    "`cheapest`: the route's own target and `primary` are asked in the order of what a million tokens in and a million out cost there, \
     whatever their weights",
);
const SHADOW: ConfigKey = ConfigKey::mapping(
    "shadow",
    &target::SHADOW,
    "A target that is sent a copy of the route's calls, whose answers nobody gets. [What it costs](../guide/routing.md#shadow)",
);
const CONTEXT_FALLBACK: ConfigKey = ConfigKey::flag(
    "context_fallback",
    "Ask the next target where one says that the prompt is too long for its model",
);
const SECONDARY: ConfigKey = ConfigKey::list(
    "secondary",
    &Form::Mapping(&TARGET),
    "Further targets, asked in this order where an earlier one cannot be reached, fails or has no room, as long as the client has had \
     nothing of an answer. [What is asked again, and what it may cost](../guide/routing.md#failover)",
);
const RETRY: ConfigKey = ConfigKey::mapping(
    "retry",
    &ConfigBlock {
        about: "How often one upstream is asked again for the same call.",
        keys: &[RETRIES, BUDGET, RETRY_WAIT],
        notes: "An upstream is asked again only where it did not take the request: no connection came about, or it answered 429, 503 or 529. \
                Its `retry-after` is waited for where it is no longer than `max_wait_ms`.",
    },
    "How often one upstream is asked again for the same call",
);
const RETRIES: ConfigKey =
    ConfigKey::number("attempts", &(0..=5), 0, "How often more than once each target may be asked");
const BUDGET: ConfigKey = ConfigKey::number(
    "budget_percent",
    &(0..=100),
    20,
    "How many of these retries an upstream gets at most, as a share of the calls to it, so that one that is in trouble is not given more \
     of it. Ten are free",
);
const RETRY_WAIT: ConfigKey = ConfigKey::number(
    "max_wait_ms",
    &(0..=60_000),
    1_000,
    "Longest wait before a retry. Where the upstream asks for more, the next target is asked",
);

/// An entry of `gateway.routes`.
pub(super) const ROUTE: ConfigBlock = ConfigBlock {
    about: "A route.",
    keys: &[
        MODEL_PATTERN,
        PREDICATE,
        PREDICATE_CONFIG,
        target::PROVIDER,
        target::ENDPOINT,
        target::API_KEY_SECRET,
        target::API_KEY_FORM,
        target::UPSTREAM_MODEL,
        MODELS,
        target::FACTS_OF_MODEL,
        target::REGION,
        LOSSLESS,
        STRICT,
        FORWARD_USER_ID,
        target::TIMEOUTS,
        condition::KEYS[0],
        condition::KEYS[1],
        condition::KEYS[2],
        condition::KEYS[3],
        condition::KEYS[4],
        condition::KEYS[5],
        condition::KEYS[6],
        condition::KEYS[7],
        target::WEIGHT,
        PRIMARY,
        AFFINITY,
        PREFER,
        SECONDARY,
        CONTEXT_FALLBACK,
        SHADOW,
        RETRY,
        target::BREAKER,
    ],
    notes: "An unknown provider or predicate (of a full name a warning: the catalog may have it), a secret that is not there, or a model \
            without a price is an error.",
};

const ID: ConfigKey = ConfigKey::text("id", "What clients ask for").required();
const DISPLAY_NAME: ConfigKey =
    ConfigKey::text("display_name", "What people read").or(Absent::Derived("`id`"));
/// An entry of a route's `models`.
const MODEL: ConfigBlock = ConfigBlock { about: "A model of a route.", keys: &[ID, DISPLAY_NAME], notes: "" };

/// One entry of `gateway.routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub struct Route {
    /// Which models it takes.
    pub pattern: Pattern,
    /// Who decides further whether it takes a call.
    pub predicate: Option<Predicate>,
    /// What `/v1/models` lists for this route.
    pub models: Vec<Model>,
    /// Refuse a request that the provider's wire format cannot carry whole.
    pub lossless: bool,
    /// Refuse a request that holds what the gateway does not know.
    pub strict: bool,
    /// Let `metadata.user_id` travel to the upstream.
    pub forward_user_id: bool,
    /// What it asks of a call besides.
    pub conditions: Conditions,
    /// Where its calls go.
    pub own: Arc<RouteTarget>,
    /// Who shares them.
    pub primary: Vec<Arc<RouteTarget>>,
    /// What stays with one of those.
    pub affinity: Affinity,
    /// In which order those are asked, where it is not by share.
    pub prefer: Option<Preference>,
    /// A prompt that is too long for one target's model goes to the next.
    pub context_fallback: bool,
    /// Where they go where an earlier target does not answer.
    pub secondary: Vec<Arc<RouteTarget>>,
    /// Who is sent copies of its calls.
    pub shadow: Option<MirrorSettings>,
    /// How often one upstream is asked again for the same call.
    pub retry: RetrySettings,
}

/// Who is sent copies of a route's calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Where they go.
    pub target: Arc<RouteTarget>,
    /// How many of a hundred calls are copied.
    pub percent: u32,
}

/// How often one upstream is asked again for the same call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// How often more than once each target may be asked.
    pub attempts: u32,
    /// How many retries an upstream gets at most, as a share of the calls to it.
    pub budget_percent: u32,
    /// Longest wait before one.
    pub max_wait: Duration,
}

/// What stays with one of the targets that share a route's calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Affinity {
    /// A session.
    #[default]
    Session,
    /// All calls of a user.
    User,
    /// Nothing.
    None,
}

/// In which order the targets are asked that share a route's calls, where it is not by their shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// By price.
    Cheapest,
}

/// A component that decides whether a route takes a call: `predicate` and `predicate_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    /// `namespace/name`
    pub component: String,
    /// What it is configured with.
    pub config: Value,
}

/// One entry of `/v1/models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What clients ask for.
    pub id: String,
    /// What people read.
    pub display_name: String,
}

// === impl Route ===

impl Route {
    /// Reads an entry. `prices` are there unless their list cannot be read.
    pub(super) fn read<'a>(
        item: &Node<'a>,
        known: &Known,
        secrets: &Secrets,
        prices: Option<&PriceList>,
    ) -> Option<Self> {
        let section = item.section(&ROUTE);
        let pattern = section.required(&MODEL_PATTERN).and_then(|node| node.parsed(Pattern::parse));
        let (peers, further) = (section.items(&PRIMARY), section.items(&SECONDARY));
        let breaker = (!further.is_empty() || !peers.is_empty()).then(BreakerSettings::default);
        let usual = Inherited { timeouts: Timeouts::default(), breaker };
        let own = RouteTarget::read(&section, "primary".to_owned(), known, secrets, &usual);
        let inherited = Inherited {
            timeouts: own.as_ref().map_or(usual.timeouts, |own| own.timeouts),
            breaker: own.as_ref().map_or(usual.breaker, |own| own.breaker),
        };
        let group = |items: &[Node<'a>], block: &ConfigBlock, name: &str| {
            let mut targets: Vec<(Section<'a>, Arc<RouteTarget>)> = Vec::new();
            for (place, item) in items.iter().enumerate() {
                let section = item.section(block);
                let name = format!("{name}[{place}]");
                if let Some(target) = RouteTarget::read(&section, name, known, secrets, &inherited) {
                    targets.push((section, Arc::new(target)));
                }
            }
            targets
        };
        let primary = group(&peers, &PEER, "primary");
        let secondary = group(&further, &TARGET, "secondary");
        let shadow = section.get(&SHADOW).and_then(|node| {
            let section = node.section(&target::SHADOW);
            let read = RouteTarget::read(&section, "shadow".to_owned(), known, secrets, &inherited)?;
            Some((section, Arc::new(read)))
        });
        if let Some(node) = peers.iter().chain(&further).nth(MOST_TARGETS - 1) {
            node.error(format!("is more than a route may have: {MOST_TARGETS} targets in all"));
        }
        let predicate = section.get(&PREDICATE).and_then(|node| {
            let component = node.text()?.to_owned();
            known.check_predicate(&node, &component);
            let config = section.get(&PREDICATE_CONFIG);
            let config = config.map_or_else(|| json!({}), |node| node.value().clone());
            Some(Predicate { component, config })
        });
        if let Some(node) = section.get(&PREDICATE_CONFIG).filter(|_| section.get(&PREDICATE).is_none()) {
            node.error("configures no predicate: name it in predicate");
        }
        let models = section.items(&MODELS);
        let models: Vec<_> = models.iter().filter_map(|item| Model::read(item, pattern.as_ref())).collect();
        let (pattern, own) = (pattern?, own?);
        if let Some(prices) = prices {
            let place =
                |(position, model): (usize, &Model)| (format!(".models[{position}].id"), model.id.clone());
            let listed: Vec<_> = models.iter().enumerate().map(place).collect();
            let listed: Vec<_> = listed.iter().map(|(place, id)| (place.clone(), id.as_str())).collect();
            let of_route = RoutePrices { item, pattern: &pattern, prices };
            own.check_price(&section, &of_route, &listed);
            for (section, target) in primary.iter().chain(&secondary).chain(&shadow) {
                target.check_price(section, &of_route, &listed);
            }
        }
        let targets =
            |group: Vec<(Section<'a>, Arc<RouteTarget>)>| group.into_iter().map(|(_, it)| it).collect();
        Some(Self {
            pattern,
            predicate,
            models,
            lossless: section.flag(&LOSSLESS),
            strict: section.flag(&STRICT),
            forward_user_id: section.flag(&FORWARD_USER_ID),
            own: Arc::new(own),
            conditions: Conditions::read(&section),
            primary: targets(primary),
            affinity: section.choice(&AFFINITY),
            prefer: section.get(&PREFER).and_then(|node| node.choice()),
            context_fallback: section.flag(&CONTEXT_FALLBACK),
            secondary: targets(secondary),
            shadow: shadow.map(|(section, target)| MirrorSettings {
                percent: section.number(&target::PERCENT),
                target,
            }),
            retry: RetrySettings::read(&section.block(&RETRY)),
        })
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        let model = |model: &Model| json!({ "id": model.id, "display_name": model.display_name });
        let mut shown = self.own.show();
        let of_route = json!({
            "model_pattern": self.pattern.as_str(),
            "predicate": self.predicate.as_ref().map(|it| it.component.as_str()),
            "predicate_config": self.predicate.as_ref().map(|it| &it.config),
            "models": self.models.iter().map(model).collect::<Vec<_>>(),
            "lossless": self.lossless,
            "strict": self.strict,
            "forward_user_id": self.forward_user_id,
            "primary": self.primary.iter().map(|target| target.show()).collect::<Vec<_>>(),
            "affinity": self.affinity.word(),
            "prefer": self.prefer.map(Word::word),
            "context_fallback": self.context_fallback,
            "shadow": self.shadow.as_ref().map(MirrorSettings::show),
            "secondary": self.secondary.iter().map(|target| target.show()).collect::<Vec<_>>(),
            "retry": {
                "attempts": self.retry.attempts,
                "budget_percent": self.retry.budget_percent,
                "max_wait_ms": millis(self.retry.max_wait),
            },
        });
        if let (Value::Object(shown), Value::Object(more)) = (&mut shown, of_route) {
            shown.extend(more);
            if let Value::Object(conditions) = self.conditions.show() {
                shown.extend(conditions);
            }
        }
        shown
    }

    /// Every target: those that share its calls, and those that are asked where they do not answer.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<RouteTarget>> {
        std::iter::once(&self.own).chain(&self.primary).chain(&self.secondary)
    }

    /// The first condition that does not hold of a call, by its key. `needs` is looked at only where a condition is about the request.
    pub fn unmet_by<'b>(
        &self,
        caller: &RouteCaller<'_>,
        model: &str,
        prices: DayPrices<'_>,
        needs: impl FnOnce() -> RequestNeeds<'b>,
    ) -> Option<&'static str> {
        let unmet = self.conditions.unmet_by(caller);
        if unmet.is_some() || !self.conditions.are_of_request() {
            return unmet;
        }
        let RequestNeeds { body, has_tools, max_tokens } = needs();
        if !self.conditions.requires().iter().all(|need| need.is_of(body, has_tools)) {
            return Some("requires");
        }
        let most = self.conditions.max_cost?;
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let cost = self.most_cost(prices, model, bytes, max_tokens);
        cost.is_none_or(|cost| cost > most).then_some("max_cost_micro")
    }

    /// What a call of so many bytes costs at most at the route's own target, in microdollars; `None` where the model has no price.
    fn most_cost(
        &self,
        prices: DayPrices<'_>,
        model: &str,
        body_bytes: u32,
        max_tokens: Option<u32>,
    ) -> Option<u64> {
        let usage = Usage {
            input: Some(u64::from(body_bytes).div_ceil(4)),
            output: Some(max_tokens.unwrap_or(0).into()),
            ..Usage::default()
        };
        let cost = prices.price(&self.own.provider, self.own.model(model), &usage)?;
        u64::try_from(cost).ok()
    }

    /// Whether a call may take more than one attempt, or none: then its row lists them.
    pub fn lists_attempts(&self) -> bool {
        !self.primary.is_empty()
            || !self.secondary.is_empty()
            || self.retry.attempts > 0
            || self.own.breaker.is_some()
    }

    /// Whether it takes every call that `other` could take.
    pub fn covers(&self, other: &Self) -> bool {
        self.predicate.is_none()
            && self.pattern.covers(&other.pattern)
            && self.conditions.cover(&other.conditions)
    }
}

// === impl MirrorSettings ===

impl MirrorSettings {
    fn show(&self) -> Value {
        let mut shown = self.target.show();
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("percent".to_owned(), self.percent.into());
        }
        shown
    }
}

// === impl Affinity ===

impl Word for Affinity {
    const ALL: &'static [Self] = &[Self::Session, Self::User, Self::None];

    fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::User => "user",
            Self::None => "none",
        }
    }
}

// === impl Preference ===

impl Word for Preference {
    const ALL: &'static [Self] = &[Self::Cheapest];

    fn word(self) -> &'static str {
        match self {
            Self::Cheapest => "cheapest",
        }
    }
}

// === impl Predicate ===

impl Predicate {
    /// Names component and configuration: routes may share one and differ in the other.
    pub fn key(&self) -> String {
        format!("{} {}", self.component, canonical::digest(&self.config))
    }
}

// === impl Model ===

impl Model {
    fn read(item: &Node<'_>, pattern: Option<&Pattern>) -> Option<Self> {
        let section = item.section(&MODEL);
        let node = section.required(&ID)?;
        let id = node.text()?.to_owned();
        if pattern.is_some_and(|pattern| !pattern.matches(&id)) {
            node.error("is not matched by the model_pattern of its route");
        }
        Some(Self { display_name: section.text(&DISPLAY_NAME).unwrap_or_else(|| id.clone()), id })
    }
}

// === impl RetrySettings ===

impl RetrySettings {
    fn read(section: &Section<'_>) -> Self {
        Self {
            attempts: section.number(&RETRIES),
            budget_percent: section.number(&BUDGET),
            max_wait: section.millis(&RETRY_WAIT),
        }
    }
}

#[cfg(test)]
mod tests;
