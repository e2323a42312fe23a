//! What batches cost whose results nobody reads: the gateway asks their upstreams what became of them, at growing intervals, and reads the
//! results itself once there are some. Replicas share the work by the time at which a batch is due next: who moves it asks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderName, HeaderValue};
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::id::{CallSource, ClientId, SessionId, TenantId, TraceId, UserId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::passage::StoredPassage;
use super::stream::{Priced, ResultsReader};
use super::{StoredKind, object_of};
use crate::audit::Outcome;
use crate::auth::{Credential, Principal, Tier, UsableModels};
use crate::component::contract::provider::TransportFault;
use crate::db::stored::{DueBatch, FirstAsk, StoredObject};
use crate::pipeline::exchange::unanswered;
use crate::pipeline::facts::minted;
use crate::pipeline::lineage::Lineage;
use crate::pipeline::row::{CallEnding, Record};
use crate::pipeline::{Inbound, Operation, Pipeline, Refusal};

/// Most batches that one gateway asks about at once; of a tenant it is one.
pub(super) const MOST_AT_ONCE: usize = 8;
/// How often the gateway looks for batches that are due.
const POLL: Duration = Duration::from_secs(1);
/// Longest that an upstream may take to say what became of a batch.
const LONGEST_ASK: Duration = Duration::from_secs(30);
/// Longest that reading the results of a batch may take.
pub(super) const LONGEST_READ: Duration = Duration::from_mins(10);
/// Longest time between two questions about a batch of the first day, in which it ends one way or another, and of an older one.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
const LONGEST_LATE_PAUSE: Duration = Duration::from_hours(6);
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// So many days after a batch was made its upstream has no results any more.
pub(super) const RESULTS_DAYS: i64 = 29;
/// What is sent where the call that made a batch named no version of the API.
const USUAL_VERSION: &str = "2023-06-01";
/// Longest value of a header that is kept for questions about a batch.
const LONGEST_HEADER: usize = 1024;

/// For whom the rows of a batch's cost are written, and what the call that made it said to the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchMaker {
    session: SessionId,
    client: ClientId,
    source: CallSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    department: Option<Arc<str>>,
    /// The public id of its credential.
    credential: String,
    /// The call's trace.
    trace: TraceId,
    /// `anthropic-version` and `anthropic-beta`.
    headers: Vec<(String, String)>,
}

/// What is done next about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NextAsk {
    /// When its upstream is asked again, in milliseconds since 1970.
    at_ms: i64,
    /// There is no use in asking after this time.
    last: bool,
}

/// What came of asking about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Learned {
    /// What it cost, which is on a row.
    Cost,
    /// Not what it cost; where a row is due that says so, it is written.
    Nothing,
    /// The row could not be written.
    Unwritten,
}

// === impl BatchMaker ===

impl BatchMaker {
    pub(super) fn of(principal: &Principal, lineage: &Lineage, trace: &TraceId, headers: &HeaderMap) -> Self {
        let seen = crate::upstream::travelling(headers).filter(|(name, value)| {
            super::passage::UNSEEN_HEADERS.contains(name) && value.len() <= LONGEST_HEADER
        });
        Self {
            session: lineage.session_id.clone(),
            client: principal.client.clone(),
            source: lineage.source,
            department: principal.department.clone(),
            credential: principal.credential.id().to_owned(),
            trace: trace.clone(),
            headers: seen.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// When the upstream of a batch that is made now is asked for the first time.
    pub(super) fn first_ask(&self, made_ms: i64, after: Duration) -> Option<FirstAsk> {
        let maker = serde_json::to_string(self).ok()?;
        Some(FirstAsk { maker, ask_ms: made_ms.saturating_add(millis(after)) })
    }

    /// The maker as the caller of what the gateway does for it. It may nothing that nobody asks about here.
    fn principal(&self, stored: &StoredObject) -> Option<Principal> {
        Some(Principal {
            user: UserId::parse(&stored.user_id).ok()?,
            name: None,
            tenant: TenantId::parse(&stored.tenant_id).ok()?,
            session: self.session.clone(),
            client: self.client.clone(),
            source: self.source,
            roles: Arc::default(),
            department: self.department.clone(),
            scopes: Arc::default(),
            policy_version: None,
            credential: Credential::Jwt { jti: self.credential.clone(), tier: Tier::Pat, bound_to: None },
            models: UsableModels::All,
        })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name.as_str());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.as_str())) {
                headers.append(name, value);
            }
        }
        let usual = HeaderValue::from_static(USUAL_VERSION);
        headers.entry("anthropic-version").or_insert(usual);
        headers
    }
}

// === impl NextAsk ===

impl NextAsk {
    /// After one question more than `asks` about a batch that was made at `made_ms`.
    fn after(asks: i64, first: Duration, made_ms: i64, now_ms: i64) -> Self {
        let over = made_ms.saturating_add(RESULTS_DAYS * DAY_MS);
        let young = now_ms.saturating_sub(made_ms) < DAY_MS;
        let longest = millis(if young { LONGEST_PAUSE } else { LONGEST_LATE_PAUSE }).max(millis(first));
        let doubled = u32::try_from(asks).ok().map(|asks| 1_i64 << asks.saturating_add(1).min(40));
        let pause =
            doubled.and_then(|times| times.checked_mul(millis(first))).unwrap_or(longest).min(longest);
        let last = now_ms >= over;
        let at_ms = now_ms.saturating_add(pause);
        Self { at_ms: if last { at_ms } else { at_ms.min(over) }, last }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Finds out what batches cost whose results nobody reads, until `shutdown`.
    pub async fn settle_batches(self: Arc<Self>, shutdown: CancellationToken) {
        let mut underway = FuturesUnordered::new();
        let mut tenants: HashSet<String> = HashSet::new();
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(tenant) = underway.next(), if !underway.is_empty() => { tenants.remove(&tenant); }
                () = tokio::time::sleep(POLL) => {}
            }
            let free = MOST_AT_ONCE.saturating_sub(underway.len());
            // Those of tenants that are being asked about stand in between.
            let limit = i64::try_from(MOST_AT_ONCE * 2).unwrap_or(i64::MAX);
            let due =
                if free == 0 { Ok(Vec::new()) } else { self.db.due_batches(self.now_ms(), limit).await };
            match &due {
                Err(error) if !failing => {
                    tracing::warn!(%error, "what batches cost is not found out until the database answers");
                }
                Ok(_) if failing => tracing::info!("what batches cost is found out again"),
                _ => {}
            }
            failing = due.is_err();
            let fresh: Vec<DueBatch> = due
                .unwrap_or_default()
                .into_iter()
                .filter(|due| !tenants.contains(&due.stored.tenant_id))
                .collect();
            for due in fresh.into_iter().take(free) {
                tenants.insert(due.stored.tenant_id.clone());
                let (pipeline, shutdown) = (Arc::clone(&self), shutdown.clone());
                underway.push(Box::pin(async move {
                    let tenant = due.stored.tenant_id.clone();
                    let id = due.stored.id.clone();
                    if let Err(error) = pipeline.settle_batch(due, &shutdown).await {
                        tracing::warn!(batch = id, %error, "the cost of a batch could not be looked after");
                    }
                    tenant
                }));
            }
        }
        while underway.next().await.is_some() {}
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Asks about one batch, unless another gateway does.
    async fn settle_batch(
        self: &Arc<Self>,
        due: DueBatch,
        shutdown: &CancellationToken,
    ) -> Result<(), crate::db::DbError> {
        let DueBatch { stored, maker, asks, ask_ms } = due;
        let first = self.config().gateway.settle_batches_after;
        let next = NextAsk::after(asks, first, stored.made_ms, self.now_ms());
        // It takes so long at most; after that, somebody else may ask.
        let longest = millis(LONGEST_ASK.saturating_add(LONGEST_READ));
        let held = next.at_ms.max(self.now_ms().saturating_add(longest));
        if !self.db.take_due_batch(&stored, ask_ms, held).await? {
            return Ok(());
        }
        let maker: Option<BatchMaker> = serde_json::from_str(&maker).ok();
        let passage = maker.and_then(|maker| self.passage_of(&stored, &maker));
        let Some(mut passage) = passage else {
            tracing::error!(batch = stored.id, "nobody knows who made a batch: its cost stays unknown");
            return self.db.ask_batch_at(&stored, held, None).await;
        };
        let learned = Box::pin(passage.settle_unread(&stored, next.last, shutdown)).await;
        let done = match learned {
            Learned::Cost => true,
            Learned::Nothing => next.last,
            Learned::Unwritten => false,
        };
        self.db.ask_batch_at(&stored, held, (!done).then_some(next.at_ms)).await
    }

    /// What asks about a batch, in the name of who made it.
    fn passage_of(self: &Arc<Self>, stored: &StoredObject, maker: &BatchMaker) -> Option<StoredPassage> {
        let principal = Arc::new(maker.principal(stored)?);
        let in_force = self.in_force.load_full();
        let bundle = in_force.registry.snapshot(&principal.tenant);
        let bundle = bundle.seen_by(principal.user.as_str());
        let trace = minted(self.clock.as_ref(), self.entropy.as_ref());
        let inbound = Inbound {
            operation: Operation::Message,
            target: StoredKind::Batch.path().to_owned(),
            headers: maker.headers(),
            body: bytes::Bytes::new(),
            principal,
            request_id: format!("settle-{trace}"),
        };
        let lineage = Lineage::of_call(&inbound.headers, &inbound.principal);
        let body = blake3::hash(&[]);
        let mut record = Record::begin(&inbound, &body, &lineage, &trace, &bundle, self.clock.as_ref());
        record.note("operation", "batch_settle");
        record.note(StoredKind::Batch.as_str(), stored.id.as_str());
        record.note("made_by_trace", maker.trace.as_str());
        let config = Arc::clone(&in_force.config);
        Some(StoredPassage::new(Arc::clone(self), config, bundle, inbound, lineage, trace, record, None))
    }
}

// === impl StoredPassage ===

impl StoredPassage {
    /// Asks what became of a batch and, once it has ended, reads its results. With `last`, a row says so where that brings nothing.
    async fn settle_unread(
        &mut self,
        stored: &StoredObject,
        last: bool,
        shutdown: &CancellationToken,
    ) -> Learned {
        let ended = if stored.settled == 0 {
            Box::pin(bounded(shutdown, LONGEST_ASK, self.has_ended(stored))).await
        } else {
            Ok(true)
        };
        match ended {
            Ok(true) => {}
            Ok(false) if !last => return Learned::Nothing,
            Err(ending) if !last => {
                let reason = ending.reason.unwrap_or_default();
                tracing::info!(batch = stored.id, reason, "an upstream does not say what became of a batch");
                return Learned::Nothing;
            }
            unknown => {
                let ending = unknown.err().unwrap_or_else(|| {
                    let reason = "the upstream has not ended it in all its time";
                    CallEnding::failed(ErrorCode::UpstreamAnswer, reason)
                });
                return if self.open_row().await {
                    self.close_unknown(ending, last).await
                } else {
                    Learned::Unwritten
                };
            }
        }
        // Nothing of what the model said is fetched before the trail knows of it.
        if !self.open_row().await {
            return Learned::Unwritten;
        }
        match Box::pin(bounded(shutdown, LONGEST_READ, self.read_results(stored))).await {
            Ok(reader) => {
                let priced = self.price(stored, reader).await;
                if self.close(&CallEnding::served(200)).await.is_err() {
                    self.take_back(stored, priced).await;
                    return Learned::Unwritten;
                }
                if priced == Priced::Nowhere { Learned::Unwritten } else { Learned::Cost }
            }
            Err(ending) => self.close_unknown(ending, last).await,
        }
    }

    /// Whether the trail takes a row about it.
    async fn open_row(&mut self) -> bool {
        let pipeline = Arc::clone(&self.pipeline);
        let Some(record) = self.record() else { return false };
        let opened = pipeline.audit.open(record.intent()).await;
        opened.map(|row| self.has_row(row)).is_ok()
    }

    async fn close_unknown(&mut self, ending: CallEnding, last: bool) -> Learned {
        if let Some(record) = self.record() {
            record.note("cost", if last { "unknown" } else { "asked again later" });
        }
        self.close(&ending).await.map_or(Learned::Unwritten, |()| Learned::Nothing)
    }

    /// Whether a batch has ended, as its upstream says now.
    async fn has_ended(&mut self, stored: &StoredObject) -> Result<bool, CallEnding> {
        let answer = self.ask_about(stored, "GET", "").await.map_err(|refusal| refusal.ending())?;
        let heard = self.heard(stored, answer).await.map_err(|refusal| refusal.ending())?;
        if !heard.is_success() {
            return Err(said(heard.status));
        }
        let (object, _) = object_of(&heard.bytes).map_err(|refusal| refusal.ending())?;
        Ok(object.is_settled())
    }

    /// All results of a batch, read for what they cost.
    pub(super) async fn read_results(&mut self, stored: &StoredObject) -> Result<ResultsReader, CallEnding> {
        let answer = self.ask_about(stored, "GET", "/results").await.map_err(|refusal| refusal.ending())?;
        if !answer.status.is_success() {
            return Err(said(answer.status.as_u16()));
        }
        if answer.headers.contains_key(http::header::CONTENT_ENCODING) {
            let what = "it is encoded, though no encoding was asked for".to_owned();
            return Err(Refusal::BadAnswer { what }.ending());
        }
        let mut body = answer.body;
        let mut reader = ResultsReader::of(stored);
        loop {
            match body.chunk().await {
                Ok(Some(piece)) => reader.read(&piece, &stored.provider, &self.config.prices),
                Ok(None) => return Ok(reader),
                Err(error) => return Err(Refusal::Failed(unanswered(&error.fault())).ending()),
            }
        }
    }
}

// === private helpers ===

/// What comes of `asking`, unless it takes too long or the gateway stops.
async fn bounded<T>(
    shutdown: &CancellationToken,
    longest: Duration,
    asking: impl Future<Output = Result<T, CallEnding>>,
) -> Result<T, CallEnding> {
    tokio::select! {
        () = shutdown.cancelled() => Err(CallEnding {
            outcome: Outcome::Error,
            code: None,
            reason: Some("the gateway stops".to_owned()),
            status: None,
        }),
        asked = tokio::time::timeout(longest, asking) => {
            asked.unwrap_or_else(|_| Err(Refusal::Failed(unanswered(&TransportFault::TimedOut)).ending()))
        }
    }
}

/// The end of a question that an upstream answered with an error.
pub(super) fn said(status: u16) -> CallEnding {
    let reason = format!("the upstream answered {status}");
    CallEnding { status: Some(status), ..CallEnding::failed(ErrorCode::UpstreamError, reason) }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_after_twice_as_long_each_time_and_end_with_the_results() {
        let minute = Duration::from_mins(1);
        let pause = |asks, age_ms| {
            let next = NextAsk::after(asks, minute, 1_000, 1_000 + age_ms);
            ((next.at_ms - 1_000 - age_ms) / 60_000, next.last)
        };
        let of: Vec<_> = (0..8).map(|asks| pause(asks, 0).0).collect();
        assert_eq!(of, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(90, DAY_MS - 1), (60, false));
        assert_eq!(pause(90, DAY_MS), (360, false));
        assert_eq!(pause(i64::MAX, DAY_MS), (360, false));
        // The last question is asked when the results are gone, and none after it.
        let end = RESULTS_DAYS * DAY_MS;
        assert_eq!(pause(200, end - 60_000 * 5), (5, false));
        assert_eq!(pause(200, end), (360, true));
        // From one question to the next over all the days.
        let (mut now, mut asks) = (60_000, 0);
        while !NextAsk::after(asks, minute, 0, now).last {
            now = NextAsk::after(asks, minute, 0, now).at_ms;
            asks += 1;
        }
        assert_eq!((asks, now), (140, end), "so many questions about a batch that never ends");
    }

    #[test]
    fn a_first_question_after_a_day_is_not_shortened() {
        let day = Duration::from_hours(24);
        assert_eq!(NextAsk::after(3, day, 0, DAY_MS), NextAsk { at_ms: 2 * DAY_MS, last: false });
    }
}
