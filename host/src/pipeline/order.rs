//! In which order the targets of a route are asked for a call: those that share its calls by their weights, so that a session stays with
//! one of them, or by price; then those that are asked where they do not answer.

use std::sync::Arc;

use sallyport_protocol::cost::DayPrices;

use super::facts::Request;
use crate::config::{Affinity, Preference, Route, RouteTarget};

/// Whose call it is, as far as that decides what stays with one target.
#[derive(Debug, Clone, Copy)]
pub struct OrderKey<'a> {
    /// The user's tenant.
    pub tenant: &'a str,
    /// Who calls.
    pub user: &'a str,
    /// The session, by the client's name for it, or else the credential's.
    pub session: &'a str,
    /// The call.
    pub trace: &'a str,
}

/// The targets of `route`, the first one first, for a call for `model`. The same for the same session on every replica: nothing is
/// remembered.
pub fn order(
    route: &Route,
    whose: &OrderKey<'_>,
    model: &str,
    prices: DayPrices<'_>,
) -> Vec<Arc<RouteTarget>> {
    if route.primary.is_empty() {
        return route.targets().cloned().collect();
    }
    let mut sharing: Vec<&Arc<RouteTarget>> = std::iter::once(&route.own).chain(&route.primary).collect();
    let key = whose.hash(route.affinity);
    // Rendezvous hashing: whoever leaves or comes moves no more sessions than its own share.
    sharing.sort_by(|left, right| score(right, &key).total_cmp(&score(left, &key)));
    if route.prefer == Some(Preference::Cheapest) {
        sharing.sort_by_key(|target| rate(target, model, prices));
    }
    sharing.into_iter().chain(&route.secondary).cloned().collect()
}

// === impl OrderKey ===

impl<'a> OrderKey<'a> {
    /// That of a request.
    pub(super) fn of(request: &'a Request) -> Self {
        Self {
            tenant: request.principal.tenant.as_str(),
            user: request.principal.user.as_str(),
            session: request.lineage.session_name(),
            trace: request.trace.as_str(),
        }
    }

    fn hash(&self, affinity: Affinity) -> blake3::Hash {
        let parts: &[&str] = match affinity {
            Affinity::None => &[self.trace],
            Affinity::User => &[self.tenant, self.user],
            Affinity::Session => &[self.tenant, self.user, self.session],
        };
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize()
    }
}

// === private helpers ===

/// How much a target wants what has this key: `-weight / ln(u)`, with `u` drawn from both evenly between 0 and 1. The greatest wins, and
/// each wins as often as its weight says (Schindelhauer and Schomaker, Weighted Distributed Hash Tables, 2005).
fn score(target: &RouteTarget, key: &blake3::Hash) -> f64 {
    let address = target.endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    for part in [&target.name, &target.provider, &address] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    let drawn = hasher.finalize();
    let drawn = drawn.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let even = (f64::from(drawn) + 0.5) / (f64::from(u32::MAX) + 1.0);
    f64::from(target.weight) / -even.ln()
}

/// What a million tokens in and a million out cost there, in microdollars. What has no price is last.
fn rate(target: &RouteTarget, model: &str, prices: DayPrices<'_>) -> u64 {
    let price = prices.entry(&target.provider, target.model(model));
    price.map_or(u64::MAX, |price| price.input.saturating_add(price.output))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Secrets};

    fn config(weights: &[u32]) -> Config {
        let peers: Vec<_> = weights
            .iter()
            .skip(1)
            .enumerate()
            .map(|(place, weight)| {
                format!("{{ provider: anthropic, endpoint: 'https://{place}.example', weight: {weight} }}")
            })
            .collect();
        let text = format!(
            "gateway:\n  routes:\n    - {{ model_pattern: 'claude-*', provider: anthropic, endpoint: 'https://own.example', weight: {}, \
             primary: [{}] }}\n",
            weights[0],
            peers.join(", ")
        );
        Config::parse(&text, Path::new("/srv/sallyport"), Secrets::default()).unwrap()
    }

    fn first(config: &Config, session: u32) -> String {
        let session = session.to_string();
        let whose = OrderKey { tenant: "t", user: "u", session: &session, trace: "" };
        let all = order(
            &config.gateway.routes[0],
            &whose,
            "claude-opus-4-5",
            config.prices.on(time::macros::date!(2026 - 11 - 28)),
        );
        assert_eq!(all.len(), 1 + config.gateway.routes[0].primary.len(), "nobody is left out");
        all[0].name.clone()
    }

    #[test]
    fn each_target_is_first_as_often_as_its_weight_says() {
        let config = config(&[5, 3, 2, 0]);
        let counts = (0..10_000).fold([0_i32; 4], |mut counts, session| {
            let place = ["primary", "primary[0]", "primary[1]", "primary[2]"];
            counts[place.iter().position(|name| *name == first(&config, session)).unwrap()] += 1;
            counts
        });
        for (count, wanted) in counts.into_iter().zip([5_000, 3_000, 2_000, 0]) {
            // Four standard deviations.
            assert!((count - wanted).abs() <= 200, "{counts:?}");
        }
    }

    #[test]
    fn a_target_that_comes_moves_its_own_share_of_sessions_and_no_others() {
        let (before, after) = (config(&[1, 1]), config(&[1, 1, 1]));
        let moved: Vec<_> = (0..3_000)
            .filter(|session| first(&before, *session) != first(&after, *session))
            .map(|session| first(&after, session))
            .collect();
        assert!(
            moved.iter().all(|name| name == "primary[1]") && (850..1_150).contains(&moved.len()),
            "{}",
            moved.len()
        );
    }
}
