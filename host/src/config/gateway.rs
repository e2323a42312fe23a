//! The `gateway:` block: which provider answers for which model.

use std::sync::Arc;
use std::time::Duration;

use sallyport_protocol::cost::PriceList;
use serde_json::{Value, json};

use super::key::{Absent, ConfigBlock, ConfigKey, Form};
use super::known::Known;
use super::node::Section;
use super::route::{ROUTE, Route};
use super::secrets::Secrets;
use super::target::RouteTarget;

const ENABLED: ConfigKey =
    ConfigKey::flag("enabled", "Whether `/v1/messages` and its siblings answer at all")
        .or(Absent::Flag(true));
const ROUTES: ConfigKey = ConfigKey::list(
    "routes",
    &Form::Mapping(&ROUTE),
    "Walked in order; the first whose `model_pattern` matches, and whose `predicate`, if it has one, agrees, wins",
)
.required();
const SETTLE_BATCHES_AFTER: ConfigKey = ConfigKey::number(
    "settle_batches_after_seconds",
    &(1..=86_400),
    60,
    "How long after a batch was made its upstream is asked for the first time what became of it, for its cost. After that it is asked after \
     twice as long each time, up to an hour, and every six hours once the batch is older than a day",
);
const GATEWAY: ConfigBlock = ConfigBlock {
    about: "Which provider answers for which model.",
    keys: &[ENABLED, ROUTES, SETTLE_BATCHES_AFTER],
    notes: "",
};

/// The block in the file.
pub(super) const KEY: ConfigKey =
    ConfigKey::mapping("gateway", &GATEWAY, "Which provider answers for which model").required();

/// The `gateway:` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Whether `/v1/messages` and its siblings answer at all.
    pub enabled: bool,
    /// Walked in order; the first match wins.
    pub routes: Vec<Arc<Route>>,
    /// How long after a batch was made its upstream is asked for the first time what became of it.
    pub settle_batches_after: Duration,
}

// === impl Gateway ===

impl Gateway {
    /// Reads the block. `prices` are there unless their list cannot be read.
    pub(super) fn read(
        top: &Section<'_>,
        known: &Known,
        secrets: &Secrets,
        prices: Option<&PriceList>,
    ) -> Self {
        let Some(section) = top.required(&KEY).map(|node| node.section(&GATEWAY)) else {
            return Self { enabled: false, routes: Vec::new(), settle_batches_after: Duration::from_mins(1) };
        };
        let enabled = section.flag(&ENABLED);
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for item in section.required(&ROUTES).map_or_else(Vec::new, |node| node.items()) {
            let Some(route) = Route::read(&item, known, secrets, prices) else { continue };
            if let Some(earlier) = routes.iter().find(|earlier| earlier.covers(&route)) {
                let pattern = &earlier.pattern;
                item.warn(format!("is never reached: an earlier route takes {pattern} already"));
            }
            routes.push(Arc::new(route));
        }
        Self { enabled, routes, settle_batches_after: section.seconds(&SETTLE_BATCHES_AFTER) }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({
            "enabled": self.enabled,
            "routes": self.routes.iter().map(|route| route.show()).collect::<Vec<_>>(),
            "settle_batches_after_seconds": self.settle_batches_after.as_secs(),
        })
    }

    /// Every target of every route.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<RouteTarget>> {
        self.routes
            .iter()
            .flat_map(|route| route.targets().chain(route.shadow.as_ref().map(|shadow| &shadow.target)))
    }

    /// The routes that may take `model`, in order: the first whose predicate agrees does.
    pub fn candidates<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Arc<Route>> {
        self.routes.iter().filter(|route| route.pattern.matches(model))
    }
}
