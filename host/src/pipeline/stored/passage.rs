//! A request about batches or files, from its intent to its row: the upstream that it is about, how that is asked, and how the row is closed
//! whatever becomes of the request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::id::TraceId;
use tokio::runtime::Handle;

use super::settle::said;
use super::{StoredAnswer, StoredKind, is_id};
use crate::audit::{OpenRow, Unavailable};
use crate::component::Bundle;
use crate::component::contract::Attribute;
use crate::component::contract::policy::Settlement;
use crate::component::contract::provider::{Auth, RequestBody, UpstreamRequest};
use crate::config::{Config, ExposeSecret as _, RouteCredential, RouteTarget, SecretString};
use crate::db::Db;
use crate::db::stored::StoredObject;
use crate::pipeline::exchange::{credential_of, destination, hide_in_header, unanswered};
use crate::pipeline::facts::Request;
use crate::pipeline::lineage::Lineage;
use crate::pipeline::row::{CallEnding, Record};
use crate::pipeline::underway::{CLIENT_CLOSED_REQUEST, lost};
use crate::pipeline::whole::{Whole, collect};
use crate::pipeline::{Call, Inbound, Pipeline, Refusal, Reply, ReplyBody};
use crate::upstream::{self, Answer, SendError};

/// Longest answer that is known as a whole.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// What of a request's head travels where nobody looked at it.
pub(super) const UNSEEN_HEADERS: [&str; 2] = ["anthropic-version", "anthropic-beta"];

/// A request whose row is not closed yet. Dropped, it is closed as one whose client has left.
pub(super) struct StoredPassage {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) config: Arc<Config>,
    pub(super) bundle: Arc<Bundle>,
    pub(super) inbound: Inbound,
    pub(super) lineage: Lineage,
    pub(super) trace: TraceId,
    /// `None` while `call` has it.
    record: Option<Record>,
    /// A request of a batch, or a file, that is being judged.
    pub(super) call: Option<Box<Call>>,
    /// Requests that were judged: policies that reserved something for them are told what came of it.
    pub(super) judged: Vec<JudgedRequest>,
    /// They are on their way to the upstream: it may have them, whatever becomes of its answer.
    pub(super) sent: bool,
    row: Option<OpenRow>,
}

/// A request that nobody had anything against.
pub(super) struct JudgedRequest {
    pub(super) request: Arc<Request>,
    /// The most that it may come to.
    pub(super) most: Settlement,
}

/// Who keeps a batch or a file: two targets are the same where provider, address and credential are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredAt {
    pub(super) provider: String,
    pub(super) address: String,
    pub(super) credential: String,
}

// === impl StoredAt ===

impl StoredAt {
    pub(super) fn of(target: &RouteTarget) -> Self {
        Self {
            provider: target.provider.clone(),
            address: target.endpoint.as_ref().map(ToString::to_string).unwrap_or_default(),
            credential: target.api_key_secret.clone().unwrap_or_default(),
        }
    }

    fn of_stored(stored: &StoredObject) -> Self {
        let StoredObject { provider, address, credential, .. } = stored;
        Self { provider: provider.clone(), address: address.clone(), credential: credential.clone() }
    }
}

// === impl StoredPassage ===

impl StoredPassage {
    #[expect(clippy::too_many_arguments, reason = "each is one part of what a request is made of")]
    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        config: Arc<Config>,
        bundle: Arc<Bundle>,
        inbound: Inbound,
        lineage: Lineage,
        trace: TraceId,
        record: Record,
        row: Option<OpenRow>,
    ) -> Self {
        let record = Some(record);
        Self {
            pipeline,
            config,
            bundle,
            inbound,
            lineage,
            trace,
            record,
            call: None,
            judged: Vec::new(),
            sent: false,
            row,
        }
    }

    pub(super) fn db(&self) -> &Db {
        &self.pipeline.db
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.pipeline.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// What the row is made of. `None` while a request of the batch has it.
    pub(super) fn record(&mut self) -> Option<&mut Record> {
        self.record.as_mut()
    }

    /// From here on there is a row to close.
    pub(super) fn has_row(&mut self, row: OpenRow) {
        self.row = Some(row);
    }

    /// Takes it, for a request of the batch.
    pub(super) fn lend_record(&mut self) -> Result<Record, Refusal> {
        self.record.take().ok_or_else(lost)
    }

    /// Takes it back.
    pub(super) fn return_record(&mut self, record: Record) {
        self.record = Some(record);
    }

    /// One that the tenant has.
    pub(super) async fn own(&mut self, kind: StoredKind, id: &str) -> Result<StoredObject, Refusal> {
        let none = || Refusal::NotStored { kind: kind.as_str(), id: id.to_owned() };
        if !is_id(id) {
            return Err(none());
        }
        let tenant = self.inbound.principal.tenant.as_str();
        let found = self.db().stored(tenant, kind.as_str(), id).await;
        found.map_err(Refusal::Store)?.ok_or_else(none)
    }

    /// Errors: the tenant has as many as it may.
    pub(super) async fn has_room(&mut self, kind: StoredKind) -> Result<(), Refusal> {
        let tenant = self.inbound.principal.tenant.as_str().to_owned();
        if kind == StoredKind::Batch {
            let before = self.now_ms().saturating_sub(super::BATCH_DAYS * 24 * 60 * 60 * 1_000);
            self.db().expire_stored(&tenant, kind.as_str(), before).await.map_err(Refusal::Store)?;
        }
        let count = self.db().count_stored(&tenant, kind.as_str()).await.map_err(Refusal::Store)?;
        if count >= super::MOST_OF_TENANT {
            return Err(Refusal::StoredFull { what: kind.many(), most: super::MOST_OF_TENANT });
        }
        Ok(())
    }

    /// Whether a target's upstream has this part of the API, so far as its provider's package says so.
    pub(super) fn offers(&self, target: &RouteTarget, kind: StoredKind) -> bool {
        let provider = self.bundle.providers.get(&target.provider);
        target.endpoint.is_some() && provider.is_some_and(|component| component.offers(kind.api()))
    }

    /// Asks the upstream that keeps a batch or a file about it.
    pub(super) async fn ask_about(
        &mut self,
        stored: &StoredObject,
        method: &str,
        part: &str,
    ) -> Result<Answer, Refusal> {
        let kind =
            if stored.kind == StoredKind::File.as_str() { StoredKind::File } else { StoredKind::Batch };
        let keeper = StoredAt::of_stored(stored);
        let target = self.config.gateway.targets().find(|target| StoredAt::of(target) == keeper);
        let Some(target) = target.filter(|_| self.config.gateway.enabled).cloned() else {
            return Err(Refusal::NotStored { kind: kind.as_str(), id: stored.id.clone() });
        };
        if let Some(record) = &mut self.record {
            record.goes_to(&target);
        }
        let seen =
            upstream::travelling(&self.inbound.headers).filter(|(name, _)| UNSEEN_HEADERS.contains(name));
        let headers = attributes(seen);
        let path = format!("{}/{}{part}", kind.path(), stored.id);
        let wanted = UpstreamRequest {
            method: method.to_owned(),
            path,
            headers,
            body: RequestBody::Empty,
            auth: Auth::Credential,
        };
        self.ask(&target, wanted).await
    }

    /// The client's headers that travel: with a batch or a file, everybody who may say no has looked at them.
    pub(super) fn seen_headers(&self) -> Vec<Attribute> {
        attributes(upstream::travelling(&self.inbound.headers))
    }

    /// Makes one request, and none after it: what makes a batch or a file is not to be made twice.
    pub(super) async fn ask(
        &mut self,
        target: &RouteTarget,
        wanted: UpstreamRequest,
    ) -> Result<Answer, Refusal> {
        let pipeline = &self.pipeline;
        let Some(component) = self.bundle.providers.get(&target.provider) else {
            return Err(Refusal::NoProvider { tag: target.provider.clone() });
        };
        let Some(endpoint) = &target.endpoint else { return Err(lost()) };
        let now = || pipeline.clock.monotonic();
        let pass = pipeline.upstream.breaker(target).pass(target.breaker, now()).map_err(|open| {
            Refusal::NoUpstream { retry_after_ms: u32::try_from(open.as_millis()).unwrap_or(u32::MAX) }
        })?;
        let to = destination(endpoint, target, &self.config, component);
        let sent = pipeline.upstream.send(to, wanted, &Bytes::new()).await;
        match sent {
            Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => {
                pass.failed(now());
                let credential = credential_of(target, &self.config);
                pipeline.upstream.refused(target, credential, answer.status.as_u16());
                Err(Refusal::Credential)
            }
            Ok(answer) => {
                if answer.status.is_server_error() {
                    pass.failed(now());
                } else {
                    pass.answered(now());
                }
                if answer.status.is_success() {
                    pipeline.upstream.accepted(target);
                }
                if let Some(record) = &mut self.record {
                    record.first_byte(self.pipeline.clock.as_ref());
                }
                Ok(self.discreet(target, answer))
            }
            Err(SendError::NotAllowed(what)) => {
                Err(Refusal::BadAnswer { what: format!("the gateway may not ask for it: {what}") })
            }
            Err(SendError::Identity(error)) => {
                pipeline.upstream.without_identity(target);
                Err(if error.is_transient() { Refusal::Unidentified } else { Refusal::Credential })
            }
            Err(SendError::Transport { fault, cause }) => {
                pass.failed(now());
                if let Some(cause) = cause {
                    tracing::warn!(provider = target.provider, "the upstream did not answer: {cause:?}");
                }
                Err(Refusal::Failed(unanswered(&fault)))
            }
        }
    }

    /// An answer in whose head the credential does not stand, and which carries on what else was shown of it.
    fn discreet(&self, target: &RouteTarget, mut answer: Answer) -> Answer {
        if let Some(RouteCredential::Text(secret)) = credential_of(target, &self.config) {
            answer.shown.push(SecretString::from(secret.expose_secret().to_owned()));
        }
        for secret in &answer.shown {
            for value in answer.headers.values_mut() {
                hide_in_header(value, secret);
            }
        }
        answer
    }

    /// All of an answer that is JSON, or an error as it came.
    pub(super) async fn whole(&mut self, answer: Answer) -> Result<StoredAnswer, Refusal> {
        let Answer { status, headers, body, shown } = answer;
        let told = upstream::passed_on(&headers);
        let bad = |what: &str| Refusal::BadAnswer { what: what.to_owned() };
        if status.is_client_error() || status.is_server_error() {
            let error = Whole::error(status.as_u16(), body).await?;
            let error = shown.iter().fold(error, Whole::without);
            let Whole::Error { status, bytes } = error else { return Err(lost()) };
            return Ok(StoredAnswer { status, headers: told, bytes });
        }
        if !status.is_success() {
            return Err(bad("its status means nothing here"));
        }
        if told.contains_key(header::CONTENT_ENCODING) {
            return Err(bad("it is encoded, though no encoding was asked for"));
        }
        Ok(StoredAnswer {
            status: status.as_u16(),
            headers: told,
            bytes: collect(body, LONGEST_ANSWER).await?,
        })
    }

    /// Closes the row of a request that was answered, and lets the answer go.
    pub(super) async fn end(mut self, answer: StoredAnswer) -> Result<Reply, Refusal> {
        let ending =
            if answer.is_success() { CallEnding::served(answer.status) } else { said(answer.status) };
        self.close(&ending).await.map_err(Refusal::AuditUnavailable)?;
        let StoredAnswer { status, mut headers, bytes } = answer;
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(self.reply(status, headers, ReplyBody::Whole(bytes)))
    }

    /// Ends in `refusal`, or in the trail's failure to keep it.
    pub(super) async fn fail(mut self, refusal: Refusal) -> Refusal {
        match self.close(&refusal.ending()).await {
            Ok(()) => refusal,
            Err(unavailable) => Refusal::AuditUnavailable(unavailable),
        }
    }

    pub(super) fn reply(&self, status: u16, headers: HeaderMap, body: ReplyBody) -> Reply {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Reply { status, headers, body, trace: self.trace.clone() }
    }

    /// Closes the row.
    pub(super) async fn close(&mut self, ending: &CallEnding) -> Result<(), Unavailable> {
        let record = self.record.take().or_else(|| self.call.take().map(|call| call.record));
        let (Some(record), Some(row)) = (record, self.row.take()) else { return Ok(()) };
        row.close(record.close(ending, self.pipeline.clock.as_ref())).await
    }

    /// Tells policies what came of the requests that were judged: with `kept` the most that they may come to, since nobody says later
    /// what they did, and else nothing.
    pub(super) async fn settle(&mut self, kept: bool) {
        while let Some(JudgedRequest { request, most }) = self.judged.pop() {
            let spent = if kept { most } else { nothing_spent() };
            let bundle = Arc::clone(&self.bundle);
            if let Some(settling) = self.pipeline.finish.settling(bundle, request, spent) {
                Box::pin(settling.run()).await;
            }
        }
    }
}

impl Drop for StoredPassage {
    fn drop(&mut self) {
        let Some(row) = self.row.take() else { return };
        let record = self.record.take().or_else(|| self.call.take().map(|call| call.record));
        let (Some(record), Ok(runtime)) = (record, Handle::try_current()) else { return };
        if std::thread::panicking() {
            return;
        }
        let ending = CallEnding {
            status: Some(CLIENT_CLOSED_REQUEST),
            ..CallEnding::failed(ErrorCode::ClientDisconnected, "the client went away")
        };
        let (judged, sent) = (std::mem::take(&mut self.judged), self.sent);
        let (pipeline, bundle) = (Arc::clone(&self.pipeline), Arc::clone(&self.bundle));
        self.pipeline.tasks.spawn_on(
            async move {
                // Nobody is left to be told.
                drop(row.close(record.close(&ending, pipeline.clock.as_ref())).await);
                for JudgedRequest { request, most } in judged {
                    let spent = if sent { most } else { nothing_spent() };
                    let settling = pipeline.finish.settling(Arc::clone(&bundle), request, spent);
                    if let Some(settling) = settling {
                        Box::pin(settling.run()).await;
                    }
                }
            },
            &runtime,
        );
    }
}

// === private helpers ===

fn attributes<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Attribute> {
    headers.map(|(name, value)| Attribute { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// What policies are told of a request that nothing was spent on.
pub(super) fn nothing_spent() -> Settlement {
    use crate::component::contract::CallOutcome;
    use crate::pipeline::event;
    use sallyport_protocol::messages::event::Usage;

    Settlement {
        usage: event::counted(Usage { input: Some(0), output: Some(0), ..Usage::default() }),
        cost_micro: "0".to_owned(),
        outcome: CallOutcome::Error,
    }
}
