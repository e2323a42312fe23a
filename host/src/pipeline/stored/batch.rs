//! A batch: each of its requests passes the stations of a message, with the same facts, hooks, policies and scanners, and its provider says
//! what goes up of it. One that is refused has the whole batch refused, before anything of it is sent.

use std::sync::Arc;

use sallyport_protocol::messages::batch::{self, BatchEntry};
use sallyport_protocol::messages::event::Usage;
use sallyport_protocol::messages::index::Index;
use sallyport_protocol::messages::splice::{Splice, apply};

use super::passage::{JudgedRequest, StoredAt, StoredPassage};
use super::settle::BatchMaker;
use super::{MOST_MODELS, StoredAnswer, StoredKind, object_of};
use crate::component::contract::policy::Settlement;
use crate::component::contract::provider::{Auth, RequestBody, UpstreamRequest};
use crate::component::contract::{Attribute, CallOutcome};
use crate::config::RouteTarget;
use crate::db::stored::StoredObject;
use crate::pipeline::attempt::turn_to;
use crate::pipeline::exchange::carried;
use crate::pipeline::facts::{Request, minted};
use crate::pipeline::hooks::UserKey;
use crate::pipeline::underway::lost;
use crate::pipeline::{Call, Inbound, Operation, Pipeline, Refusal, event, route};

/// What was judged so far of a batch.
#[derive(Default)]
struct JudgedBatch {
    /// Where it goes: the first request says so.
    target: Option<Arc<RouteTarget>>,
    /// What goes up of a request, where that is not what came.
    splices: Vec<Splice>,
    models: Vec<String>,
}

// === impl StoredPassage ===

impl StoredPassage {
    pub(super) async fn create_batch(&mut self) -> Result<StoredAnswer, Refusal> {
        let entries = batch::entries(&self.inbound.body)?;
        self.has_room(StoredKind::Batch).await?;
        if let Some(record) = self.record() {
            record.sum_up();
            record.note("requests", entries.len());
        }
        let mut batch = JudgedBatch::default();
        for (index, entry) in entries.iter().enumerate() {
            if let Err(refusal) = Box::pin(self.judge(entry, &mut batch)).await {
                self.settle(false).await;
                let refusal = Box::new(refusal.of_size(entry.params.len() as usize));
                return Err(Refusal::OfBatch { index, custom_id: entry.custom_id.clone(), refusal });
            }
        }
        let sent = self.send_batch(batch).await;
        self.settle(self.sent).await;
        sent
    }

    /// Has one request judged as a message would be.
    async fn judge(&mut self, entry: &BatchEntry, batch: &mut JudgedBatch) -> Result<(), Refusal> {
        let pipeline = Arc::clone(&self.pipeline);
        let range = entry.params.start as usize..entry.params.end as usize;
        let bytes = self.inbound.body.slice(range);
        let index = Index::parse(&bytes)?;
        let query = self.inbound.target.split_once('?').map(|(_, query)| format!("?{query}"));
        let inbound = Inbound {
            operation: Operation::Message,
            target: format!("/v1/messages{}", query.unwrap_or_default()),
            headers: self.inbound.headers.clone(),
            body: bytes.clone(),
            principal: Arc::clone(&self.inbound.principal),
            request_id: self.inbound.request_id.clone(),
        };
        // What a policy takes for a request is that request's alone.
        let trace = minted(pipeline.clock.as_ref(), pipeline.entropy.as_ref());
        let turn = UserKey::of(&inbound.principal, &[b"batch", trace.as_str().as_bytes()]);
        let mut request =
            Request::new(inbound, self.lineage.clone(), trace, Arc::new(index), pipeline.clock.as_ref());
        let model = request.facts.model.clone();
        let chosen = route::choose(&pipeline.components, &self.config, &self.bundle, &mut request, false);
        let choice = Box::pin(chosen).await;
        let mut record = self.lend_record()?;
        let chosen = choice.note(&mut record, &bytes);
        if !batch.models.iter().any(|it| **it == *model) && batch.models.len() < MOST_MODELS {
            batch.models.push(model.as_ref().to_owned());
        }
        let (route, targets, target) = match self.keeper_of(chosen, batch) {
            Ok(found) => found,
            Err(refusal) => {
                self.return_record(record);
                return Err(refusal);
            }
        };
        let Some(first) = targets.first().cloned() else { return Err(lost()) };
        record.model(&model);
        record.routed(&route, &first);
        let (bundle, config) = (Arc::clone(&self.bundle), Arc::clone(&self.config));
        let request = Arc::new(request);
        let call = Call { request, turn, bundle, route, target: first, targets, config, record };
        let call = self.call.insert(Box::new(call));
        let carried = authorized(&pipeline, call, &target).await;
        let Some(call) = self.call.take() else { return Err(lost()) };
        let Call { request, record, .. } = *call;
        self.return_record(record);
        // Policies may have reserved something, whether or not the request goes on.
        let most = self.most(&request, &target);
        self.judged.push(JudgedRequest { request, most });
        let carried = carried?;
        if carried != bytes {
            batch.splices.push(Splice { span: entry.params, with: carried.to_vec() });
        }
        batch.target.get_or_insert(target);
        Ok(())
    }

    /// Which target of a request's route keeps the batch.
    #[expect(clippy::type_complexity, reason = "a route, its targets, and the one of them")]
    fn keeper_of(
        &self,
        chosen: Result<route::ChosenRoute, Refusal>,
        batch: &JudgedBatch,
    ) -> Result<(Arc<crate::config::Route>, Vec<Arc<RouteTarget>>, Arc<RouteTarget>), Refusal> {
        let (route, targets) = chosen?;
        let keeps = |target: &&Arc<RouteTarget>| self.offers(target, StoredKind::Batch);
        let target = match &batch.target {
            None => targets.iter().find(keeps).ok_or(Refusal::NotOffered { what: "batches" })?,
            Some(first) => {
                let keeper = StoredAt::of(first);
                let same = targets.iter().find(|target| StoredAt::of(target) == keeper);
                same.filter(keeps).ok_or(Refusal::Split)?
            }
        };
        let target = Arc::clone(target);
        Ok((route, targets, target))
    }

    /// The most that a request may come to: the prompt as a token in four bytes, and all of `max_tokens`.
    fn most(&self, request: &Request, target: &RouteTarget) -> Settlement {
        let facts = &request.facts;
        let usage = Usage {
            input: Some(u64::from(facts.body_bytes).div_ceil(4)),
            output: Some(facts.max_tokens.unwrap_or(0).into()),
            ..Usage::default()
        };
        let price = self.config.prices.on(request.day).entry(&target.provider, target.model(&facts.model));
        let cost = price.and_then(|price| price.in_batch(&usage)).unwrap_or(0);
        Settlement {
            usage: event::counted(usage),
            cost_micro: cost.to_string(),
            outcome: CallOutcome::Allowed,
        }
    }

    async fn send_batch(&mut self, batch: JudgedBatch) -> Result<StoredAnswer, Refusal> {
        let JudgedBatch { target: Some(target), splices, models } = batch else { return Err(lost()) };
        let body = if splices.is_empty() {
            self.inbound.body.to_vec()
        } else {
            apply(&self.inbound.body, &splices).map_err(|_| Refusal::EditFailed)?
        };
        if let Some(record) = self.record() {
            record.goes_to(&target);
            if models.len() > 1 {
                record.note("models", models);
            }
            if !splices.is_empty() {
                record.forwards(&body);
            }
        }
        let mut headers = self.seen_headers();
        if !headers.iter().any(|header| header.name == "content-type") {
            headers.push(Attribute { name: "content-type".to_owned(), value: "application/json".to_owned() });
        }
        let wanted = UpstreamRequest {
            method: "POST".to_owned(),
            path: self.inbound.target.clone(),
            headers,
            body: RequestBody::Bytes(body),
            auth: Auth::Credential,
        };
        self.sent = true;
        let answer = self.ask(&target, wanted).await?;
        let mut answer = self.whole(answer).await?;
        if answer.is_success() {
            answer.bytes = self.keep(StoredKind::Batch, &target, &answer).await?;
        } else {
            // The upstream took none of it.
            self.sent = false;
        }
        Ok(answer)
    }

    /// Writes down whose it is that an upstream made, and what it said of it.
    pub(super) async fn keep(
        &mut self,
        kind: StoredKind,
        target: &RouteTarget,
        answer: &StoredAnswer,
    ) -> Result<bytes::Bytes, Refusal> {
        let (object, told) = object_of(&answer.bytes)?;
        if let Some(record) = self.record() {
            // Also where it cannot be written down: an operator finds it by this.
            record.note(kind.as_str(), object.id.as_str());
        }
        let StoredAt { provider, address, credential } = StoredAt::of(target);
        let principal = &self.inbound.principal;
        let made_ms = self.now_ms();
        let maker = BatchMaker::of(principal, &self.lineage, &self.trace, &self.inbound.headers);
        let first_ask = (kind == StoredKind::Batch)
            .then(|| maker.first_ask(made_ms, self.config.gateway.settle_batches_after))
            .flatten();
        let stored = StoredObject {
            tenant_id: principal.tenant.as_str().to_owned(),
            kind: kind.as_str().to_owned(),
            user_id: principal.user.as_str().to_owned(),
            provider,
            address,
            credential,
            made_ms,
            object: String::from_utf8_lossy(&told).into_owned(),
            settled: i64::from(object.is_settled()),
            id: object.id,
        };
        self.db().keep_stored(&stored, first_ask.as_ref()).await.map_err(Refusal::Store)?;
        Ok(told)
    }
}

// === private helpers ===

/// What goes up of a request, once nobody has anything against it.
async fn authorized(
    pipeline: &Pipeline,
    call: &mut Call,
    target: &Arc<RouteTarget>,
) -> Result<bytes::Bytes, Refusal> {
    Box::pin(pipeline.authorize(call)).await?;
    Box::pin(turn_to(pipeline, call, target)).await?;
    carried(&pipeline.components, call).await
}
