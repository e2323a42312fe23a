//! Where calls of a route go: provider, address, credential and the model's name there. A route has one of its own, and may have more
//! that are asked where an earlier one does not answer.

use std::time::Duration;

use sallyport_protocol::cost::{Price, PriceList};
use sallyport_protocol::facts::ModelFacts;
use sallyport_protocol::package::CredentialForm;
use serde_json::{Value, json};

use super::credential::{CloudCredential, CloudIdentity};
use super::endpoint::{Endpoint, Scheme, is_aws_region};
use super::file::millis;
use super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::known::Known;
use super::node::{Node, Section};
use super::pattern::Pattern;
use super::secrets::{RouteCredential, Secrets, credential_named};

/// Longest that a route may wait for its upstream.
const MAX_WAIT_MS: u64 = 60 * 60 * 1_000;
const CONNECT_MS: u64 = 10_000;
const FIRST_BYTE_MS: u64 = 600_000;
const IDLE_MS: u64 = 300_000;
const PING_MS: u64 = 15_000;

pub(super) const PROVIDER: ConfigKey = ConfigKey::text(
    "provider",
    "The name of a [provider that ships](../guide/providers.md) or of one from `components.packages`, without its namespace, \
     or `namespace/name`, which may be one of the [catalog](../guide/catalog.md#providers-and-predicates)",
)
.required();
pub(super) const ENDPOINT: ConfigKey = ConfigKey::text(
    "endpoint",
    "Base URL or full path of the upstream's API: `https://api.anthropic.com` and `https://api.anthropic.com/v1/messages` mean the \
     same. Needed where the provider's package says that it adapts an upstream",
);
pub(super) const API_KEY_SECRET: ConfigKey = ConfigKey::text(
    "api_key_secret",
    "Name in the [secrets file](#secrets_file), of a text or of a credential of a cloud",
);
pub(super) const API_KEY_FORM: ConfigKey = ConfigKey::text(
    "api_key_form",
    "How the upstream takes the credential: `bearer`, or the name of a header, such as `x-api-key`. Without it, as the provider's package \
     says",
);
pub(super) const UPSTREAM_MODEL: ConfigKey =
    ConfigKey::text("upstream_model", "The upstream's own name for the model, where it differs");
pub(super) const FACTS_OF_MODEL: ConfigKey = ConfigKey::of(
    "model_facts",
    Form::Mapping(&MODEL_FACTS),
    "What the model takes, where it is not what the shipped table says",
);
pub(super) const REGION: ConfigKey = ConfigKey::text(
    "region",
    "Where the upstream's data centre is; with an AWS credential the region of its signatures, unless the endpoint's name says it",
);
pub(super) const TIMEOUTS: ConfigKey = ConfigKey::mapping(
    "timeouts",
    &ConfigBlock {
        about: "How long the gateway waits for the upstream.",
        keys: &[CONNECT, FIRST_BYTE, IDLE, PING],
        notes: "",
    },
    "How long the gateway waits for the upstream",
);
const TARGET_TIMEOUTS: ConfigKey = TIMEOUTS.or(Absent::Derived("as the route's"));
pub(super) const BREAKER: ConfigKey = ConfigKey::mapping(
    "breaker",
    &ConfigBlock {
        about: "When an upstream is left alone for a while.",
        keys: &[BREAKER_ENABLED, FAILURES, SHARE, WINDOW, OPEN],
        notes: "It opens where `failures` of the calls within a window failed and they are `share_percent` of them or more. While it is open, \
                calls go to the next target; where there is none, they are a 529 with `retry-after`, code `upstreams_unavailable`. After `open_ms` \
                one call is let through: if it is answered, the breaker closes, else it stays open for twice as long, at most for sixteen times \
                `open_ms`. Routes that share an address and a credential share what is known of it. [Guide](../guide/routing.md#circuit-breaker).",
    },
    "When the upstream is left alone for a while. A route with `primary` or `secondary` has one for each target, any other route where this block stands",
);
const TARGET_BREAKER: ConfigKey = BREAKER.or(Absent::Derived("as the route's"));

pub(super) const WEIGHT: ConfigKey = ConfigKey::number(
    "weight",
    &(0..=1_000),
    1,
    "Its share among the route's own target and `primary`; 0: only where no other of them answers",
);

/// An entry of a route's `secondary`.
pub(super) const TARGET: ConfigBlock = ConfigBlock {
    about: "A further target of the route.",
    keys: &[
        PROVIDER,
        ENDPOINT,
        API_KEY_SECRET,
        API_KEY_FORM,
        UPSTREAM_MODEL,
        FACTS_OF_MODEL,
        REGION,
        TARGET_TIMEOUTS,
        TARGET_BREAKER,
    ],
    notes: "",
};

pub(super) const PERCENT: ConfigKey =
    ConfigKey::number("percent", &(1..=100), 100, "How many of a hundred calls are copied");

/// A route's `shadow`.
pub(super) const SHADOW: ConfigBlock = ConfigBlock {
    about: "A target that is sent copies of the route's calls.",
    keys: &[
        PROVIDER,
        ENDPOINT,
        API_KEY_SECRET,
        API_KEY_FORM,
        UPSTREAM_MODEL,
        FACTS_OF_MODEL,
        REGION,
        PERCENT,
        TARGET_TIMEOUTS,
        TARGET_BREAKER,
    ],
    notes: "",
};

/// An entry of a route's `primary`.
pub(super) const PEER: ConfigBlock = ConfigBlock {
    about: "A target that shares the route's calls with its own.",
    keys: &[
        PROVIDER,
        ENDPOINT,
        API_KEY_SECRET,
        API_KEY_FORM,
        UPSTREAM_MODEL,
        FACTS_OF_MODEL,
        REGION,
        WEIGHT,
        TARGET_TIMEOUTS,
        TARGET_BREAKER,
    ],
    notes: "",
};

const CONNECT: ConfigKey = ConfigKey::number(
    "connect_ms",
    &(1..=60_000),
    CONNECT_MS,
    "For a connection: name, TCP and TLS. Nothing was sent where it fails",
);
const FIRST_BYTE: ConfigKey = ConfigKey::number(
    "first_byte_ms",
    &(1..=MAX_WAIT_MS),
    FIRST_BYTE_MS,
    "For the head of an answer, connecting included: a model may think for minutes",
);
const IDLE: ConfigKey =
    ConfigKey::number("idle_ms", &(1..=MAX_WAIT_MS), IDLE_MS, "Between two pieces of an answer");
const PING: ConfigKey = ConfigKey::number(
    "ping_ms",
    &(1..=MAX_WAIT_MS),
    PING_MS,
    "After how much silence a client that asked for a stream gets a `ping`",
);

const BREAKER_ENABLED: ConfigKey = ConfigKey::flag("enabled", "Whether there is one").or(Absent::Flag(true));
const FAILURES: ConfigKey =
    ConfigKey::number("failures", &(1..=10_000), 5, "How many calls have to fail within a window");
const SHARE: ConfigKey = ConfigKey::number(
    "share_percent",
    &(1..=100),
    50,
    "Which share of the calls of a window they have to be",
);
const WINDOW: ConfigKey = ConfigKey::number("window_ms", &(100..=600_000), 10_000, "How long a window is");
const OPEN: ConfigKey =
    ConfigKey::number("open_ms", &(10..=600_000), 5_000, "How long no call is let through, the first time");

/// A route's `model_facts`: read by [`ModelFacts`] itself.
pub(super) const MODEL_FACTS: ConfigBlock = ConfigBlock {
    about: "What the model takes. A fact that is not said is as with a plain server.",
    keys: &[
        ConfigKey::of(
            "api",
            Form::Choice(|| vec!["chat_completions", "responses"]),
            "Which API it is asked by, where it is not as the configuration of the provider says: the provider `openai` speaks both",
        ),
        ConfigKey::of(
            "reasoning",
            Form::Choice(|| vec!["openai", "effort", "none"]),
            "How it is told how much to reason: `openai`: `max_completion_tokens` and `reasoning_effort`, no `temperature`, `top_p` or \
             `stop`; `effort`: `reasoning_effort` besides the usual options; `none`: not at all",
        ),
        ConfigKey::list(
            "efforts",
            &Form::Choice(efforts),
            "The steps of effort that it knows, from the least",
        ),
        ConfigKey::of(
            "effort_with_tools",
            Form::Choice(efforts),
            "The one step that it takes where tools are offered",
        ),
        ConfigKey::of("parallel_tool_calls", Form::Flag, "Whether it can be told to call one tool at a time"),
        ConfigKey::of(
            "reasoning_content",
            Form::Flag,
            "Whether it wants its thinking of earlier turns back, as `reasoning_content`",
        ),
        ConfigKey::of("max_output_tokens", Form::Number(0, u64::MAX), "The most output tokens that it takes"),
    ],
    notes: "",
};

/// Where calls of a route go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTarget {
    /// Where it stands in its route: `primary`, `primary[0]`, `secondary[0]`.
    pub name: String,
    /// The tag of the provider component.
    pub provider: String,
    /// Where the upstream is; a provider that answers by itself needs none.
    pub endpoint: Option<Endpoint>,
    /// Name of the credential in the secrets file.
    pub api_key_secret: Option<String>,
    /// How the upstream takes it, where it is not as the provider's package says.
    pub api_key_form: Option<CredentialForm>,
    /// The upstream's own name for the model, where it differs.
    pub upstream_model: Option<String>,
    /// What is known of the model, where it is not what the shipped table says.
    pub model_facts: Option<ModelFacts>,
    /// Where the upstream's data centre is: for policies and signatures that depend on it.
    pub region: Option<String>,
    /// Its share among those that share the route's calls.
    pub weight: u32,
    /// How long the gateway waits for the upstream.
    pub timeouts: Timeouts,
    /// When the upstream is left alone, where it ever is.
    pub breaker: Option<BreakerSettings>,
}

/// How long the gateway waits for an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the head of an answer, connecting included: a model may think for minutes.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// How long a client that asked for a stream hears nothing before it gets a `ping`.
    pub ping: Duration,
}

/// When an upstream is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// How many calls have to fail within a window.
    pub failures: u32,
    /// Which share of the calls of a window they have to be.
    pub share_percent: u32,
    /// How long a window is.
    pub window: Duration,
    /// How long no call is let through, the first time.
    pub open: Duration,
}

/// What a target takes from its route where it does not say it itself.
pub(super) struct Inherited {
    pub(super) timeouts: Timeouts,
    pub(super) breaker: Option<BreakerSettings>,
}

// === impl RouteTarget ===

impl RouteTarget {
    /// Reads the target of an entry: the route itself, or one of its further targets. `inherited` is what holds where the entry does
    /// not say it.
    pub(super) fn read(
        section: &Section<'_>,
        name: String,
        known: &Known,
        secrets: &Secrets,
        inherited: &Inherited,
    ) -> Option<Self> {
        let provider = section.required(&PROVIDER).and_then(|node| {
            let tag = node.text()?;
            known.check_provider(&node, tag);
            Some(tag.to_owned())
        });
        let endpoint = section.get(&ENDPOINT).and_then(|node| {
            let endpoint = node.parsed(|text| Endpoint::of_api(text, known.paths()))?;
            if endpoint.scheme == Scheme::Http && !endpoint.is_loopback() {
                node.warn("is not https: credentials and prompts travel in clear");
            }
            Some(endpoint)
        });
        let needs_endpoint = provider.as_deref().is_some_and(|provider| known.needs_endpoint(provider));
        if needs_endpoint && section.get(&ENDPOINT).is_none() {
            section.missing(&ENDPOINT);
        }
        let api_key_secret = section.get(&API_KEY_SECRET).and_then(|node| {
            let name = node.text()?;
            match credential_named(&node, name, secrets) {
                Some(RouteCredential::Cloud(cloud)) => of_cloud(section, &node, cloud, endpoint.as_ref()),
                Some(RouteCredential::Text(_)) | None => {}
            }
            Some(name.to_owned())
        });
        let api_key_form = section.get(&API_KEY_FORM).and_then(|node| node.parsed(CredentialForm::parse));
        if let Some(node) = section.get(&API_KEY_FORM).filter(|_| section.get(&API_KEY_SECRET).is_none()) {
            node.error("sends no credential: name it in api_key_secret");
        }
        let timeouts = section.get(&TIMEOUTS).is_some().then(|| Timeouts::read(&section.block(&TIMEOUTS)));
        let breaker = match section.get(&BREAKER) {
            Some(_) => BreakerSettings::read(&section.block(&BREAKER)),
            None => inherited.breaker,
        };
        Some(Self {
            name,
            provider: provider?,
            endpoint,
            api_key_secret,
            api_key_form,
            upstream_model: section.text(&UPSTREAM_MODEL),
            model_facts: section.get(&FACTS_OF_MODEL).and_then(|node| {
                let read = serde_json::from_value(node.value().clone());
                read.map_err(|error| node.error(format!("are no facts of a model: {error}"))).ok()
            }),
            region: section.text(&REGION),
            weight: section.number(&WEIGHT),
            timeouts: timeouts.unwrap_or(inherited.timeouts),
            breaker,
        })
    }

    /// The region that AWS signatures name: what the endpoint says counts, since that is who reads them.
    pub fn aws_region(&self) -> Option<&str> {
        self.endpoint.as_ref().and_then(Endpoint::aws_region).or(self.region.as_deref())
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({
            "provider": self.provider,
            "endpoint": self.endpoint.as_ref().map(ToString::to_string),
            "api_key_secret": self.api_key_secret,
            "api_key_form": self.api_key_form.as_ref().map(ToString::to_string),
            "upstream_model": self.upstream_model,
            "model_facts": self.model_facts,
            "region": self.region,
            "weight": self.weight,
            "timeouts": self.timeouts.show(),
            "breaker": self.breaker.as_ref().map(BreakerSettings::show),
        })
    }

    /// The model that the upstream is asked for where the client asks for `model`.
    pub fn model<'a>(&'a self, model: &'a str) -> &'a str {
        self.upstream_model.as_deref().unwrap_or(model)
    }

    /// Whether a policy that looks at provider and region would see another target in this one.
    pub fn differs_from(&self, provider: &str, region: Option<&str>) -> bool {
        self.provider != provider || self.region.as_deref() != region
    }

    /// A call without a price would be free in every report: refused here, where the missing line can still be written. `listed` are
    /// the models that the route lists.
    pub(super) fn check_price(
        &self,
        section: &Section<'_>,
        route: &RoutePrices<'_>,
        listed: &[(String, &str)],
    ) {
        let fix = "add it to prices.models";
        let prices = route.prices;
        let exact = |model: &str| prices.lists(&self.provider, model);
        if let Some(name) = &self.upstream_model {
            if let Some(node) = section.get(&UPSTREAM_MODEL).filter(|_| !exact(name)) {
                node.error(format!("{} model {name} has no price: {fix}", self.provider));
            }
            return;
        }
        for (place, model) in listed.iter().filter(|(_, model)| !exact(model)) {
            let message = format!("{} model {model} has no price: {fix}", self.provider);
            route.item.error_below(place, message);
        }
        let some = |price: &Price| {
            (price.provider == "*" || price.provider == self.provider) && route.pattern.overlaps(&price.model)
        };
        if listed.is_empty() && !prices.models.iter().any(some) {
            route.item.error_below(
                ".model_pattern",
                format!("no {} model that it matches has a price: {fix}", self.provider),
            );
        }
    }
}

/// What the prices of a route's targets are looked up with.
pub(super) struct RoutePrices<'a> {
    pub(super) item: &'a Node<'a>,
    pub(super) pattern: &'a Pattern,
    pub(super) prices: &'a PriceList,
}

// === impl Timeouts ===

impl Timeouts {
    fn read(section: &Section<'_>) -> Self {
        Self {
            connect: section.millis(&CONNECT),
            first_byte: section.millis(&FIRST_BYTE),
            idle: section.millis(&IDLE),
            ping: section.millis(&PING),
        }
    }

    fn show(&self) -> Value {
        json!({
            "connect_ms": millis(self.connect),
            "first_byte_ms": millis(self.first_byte),
            "idle_ms": millis(self.idle),
            "ping_ms": millis(self.ping),
        })
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(CONNECT_MS),
            first_byte: Duration::from_millis(FIRST_BYTE_MS),
            idle: Duration::from_millis(IDLE_MS),
            ping: Duration::from_millis(PING_MS),
        }
    }
}

// === impl BreakerSettings ===

impl BreakerSettings {
    fn read(section: &Section<'_>) -> Option<Self> {
        section.flag(&BREAKER_ENABLED).then(|| Self {
            failures: section.number(&FAILURES),
            share_percent: section.number(&SHARE),
            window: section.millis(&WINDOW),
            open: section.millis(&OPEN),
        })
    }

    fn show(&self) -> Value {
        json!({
            "enabled": true,
            "failures": self.failures,
            "share_percent": self.share_percent,
            "window_ms": millis(self.window),
            "open_ms": millis(self.open),
        })
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, share_percent: 50, window: Duration::from_secs(10), open: Duration::from_secs(5) }
    }
}

// === private helpers ===

/// What a credential of a cloud needs of its target, and what makes no sense beside it.
fn of_cloud(section: &Section<'_>, node: &Node<'_>, cloud: &CloudCredential, endpoint: Option<&Endpoint>) {
    if let Some(form) = section.get(&API_KEY_FORM) {
        form.error(format!(
            "{} is a credential of a cloud, which says itself how it is sent: leave this out",
            cloud.name
        ));
    }
    match &cloud.identity {
        CloudIdentity::Gcp(_) | CloudIdentity::Azure(_) => {}
        CloudIdentity::Aws(_) if endpoint.is_some_and(|endpoint| endpoint.aws_region().is_some()) => {}
        CloudIdentity::Aws(_) => match section.text(&REGION) {
            Some(region) if is_aws_region(&region) => {}
            Some(_) => {
                node.error_beside(REGION.name, "is no AWS region (eu-central-1), which signatures name");
            }
            None => node.error_beside(
                REGION.name,
                "is missing: AWS signatures name a region, and the endpoint's name does not",
            ),
        },
    }
}

fn efforts() -> Vec<&'static str> {
    vec!["none", "minimal", "low", "medium", "high", "xhigh"]
}
