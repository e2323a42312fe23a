//! What a row says of many requests at once: a batch is one call with one row, whose length must not grow with each request.

use std::collections::BTreeMap;

use sallyport_protocol::messages::event::Usage;
use sallyport_protocol::verdict::Verdict;
use serde_json::{Value, json};

use super::row::{insert, said};
use crate::audit::JsonEntries;
use crate::component::{Component, Mode, Said};

/// What components that had nothing against it said of the requests of a batch.
#[derive(Default)]
pub(super) struct ComponentSums {
    /// By what the component is, and in which mode.
    sums: BTreeMap<(String, &'static str), ComponentSum>,
    /// Entries that are listed one by one, since they say more.
    listed: u32,
}

struct ComponentSum {
    verdict: Verdict,
    requests: u32,
    micros: u64,
}

/// What the requests of a batch that one model answered cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelCost {
    pub(super) model: String,
    pub(super) requests: u32,
    pub(super) usage: Usage,
    /// `None`: the model has no price.
    pub(super) cost_micro: Option<i64>,
}

/// Most verdicts that are listed one by one.
const MOST_LISTED: u32 = 200;

// === impl ComponentSums ===

impl ComponentSums {
    /// Counts what a component said of a request; `false` where it is to be listed: it refused, failed, or found something.
    pub(super) fn take(&mut self, component: &Component, mode: Mode, verdict: Verdict, micros: u32) -> bool {
        let plain = matches!(verdict, Verdict::Allow | Verdict::Match | Verdict::NoMatch | Verdict::Served);
        if !plain && (said(verdict) != Said::Answer || self.listed < MOST_LISTED) {
            self.listed += 1;
            return false;
        }
        let key = (format!("{}{}", component.evidence(), mode.as_str()), verdict.as_str());
        let new = || ComponentSum { verdict, requests: 0, micros: 0 };
        let sum = self.sums.entry(key).or_insert_with(new);
        sum.requests += 1;
        sum.micros = sum.micros.saturating_add(micros.into());
        true
    }

    /// Lists them.
    pub(super) fn list(self, entries: &mut JsonEntries) {
        for ((key, _), ComponentSum { verdict, requests, micros }) in self.sums {
            // The mode stands behind the object.
            let end = key.rfind('}').map_or(key.len(), |at| at + 1);
            let (known, mode) = key.split_at_checked(end).unwrap_or((&key, ""));
            let mode = (mode != Mode::Enforce.as_str()).then(|| ("mode", Value::from(mode)));
            let more = [("micros", micros.into()), ("requests", requests.into())].into_iter().chain(mode);
            entries.push(known, ("verdict", verdict.as_str()), more);
        }
    }
}

// === impl ModelCost ===

impl ModelCost {
    /// Nothing yet.
    pub(super) fn new(model: String) -> Self {
        Self { model, requests: 0, usage: Usage::default(), cost_micro: Some(0) }
    }

    /// One request more, and what it cost.
    pub(super) fn add(&mut self, usage: Usage, cost_micro: Option<i64>) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        self.requests = self.requests.saturating_add(1);
        self.usage = Usage {
            input: sum(self.usage.input, usage.input),
            output: sum(self.usage.output, usage.output),
            cache_read: sum(self.usage.cache_read, usage.cache_read),
            cache_write: sum(self.usage.cache_write, usage.cache_write),
            cache_write_1h: sum(self.usage.cache_write_1h, usage.cache_write_1h),
        };
        self.cost_micro = self.cost_micro.zip(cost_micro).map(|(one, other)| one.saturating_add(other));
    }

    /// The payload of its row.
    pub(super) fn payload(&self, department: Option<&Value>) -> Value {
        let mut payload = json!({
            "priced": self.cost_micro.is_some(),
            "requests": self.requests,
            "tokens_in": self.usage.input,
            "tokens_out": self.usage.output,
        });
        if let Some(department) = department {
            insert(&mut payload, "department", department.clone());
        }
        payload
    }
}
