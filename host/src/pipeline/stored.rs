//! Batches and files: what an upstream of Anthropic's wire keeps for a tenant. The gateway hands these requests through by itself, since there
//! is nothing to translate; each request of a batch passes the stations of a message (`stored/batch.rs`). Upstreams know the gateway's
//! credential alone, so whose a batch or a file is stands in the database, and nobody else's is found.

mod batch;
mod file;
mod list;
mod passage;
mod settle;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sallyport_protocol::package::UpstreamApi;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::passage::StoredPassage;
use super::lineage::Lineage;
use super::row::Record;
use super::{Inbound, Pipeline, Refusal, Refused, Reply, facts};
use crate::db::stored::StoredObject;
use crate::limits::Limit;

/// Most batches, and most files, that a tenant may have: each is a row.
const MOST_OF_TENANT: i64 = 10_000;
/// After so long a batch is forgotten: its upstream gives its results out for 29 days.
const BATCH_DAYS: i64 = 60;
/// Longest that an upstream may say of a batch or a file.
const LONGEST_OBJECT: usize = 16 * 1024;
/// Most models that the rows of a batch tell apart.
const MOST_MODELS: usize = 16;
/// Longest id.
const LONGEST_ID: usize = 128;

/// What a client wants of batches and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredCall {
    /// `POST /v1/messages/batches`
    CreateBatch,
    /// `POST /v1/files`
    UploadFile,
    /// `GET /v1/messages/batches` and `GET /v1/files`
    List(StoredKind, ListPage),
    /// `GET` of one.
    Retrieve(StoredKind, String),
    /// `DELETE` of one.
    Delete(StoredKind, String),
    /// `POST /v1/messages/batches/{id}/cancel`
    CancelBatch(String),
    /// `GET /v1/messages/batches/{id}/results` and `GET /v1/files/{id}/content`
    Content(StoredKind, String),
}

/// What an upstream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredKind {
    /// A batch of requests.
    Batch,
    /// A file.
    File,
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Most entries.
    pub limit: usize,
    /// Behind the one with this id.
    pub after_id: Option<String>,
    /// Before the one with this id.
    pub before_id: Option<String>,
}

/// An answer that is known as a whole.
struct StoredAnswer {
    status: u16,
    headers: HeaderMap,
    bytes: Bytes,
}

/// What is read of a batch or a file.
#[derive(Deserialize)]
struct ObjectOutline<'a> {
    id: String,
    #[serde(default)]
    processing_status: Option<String>,
    #[serde(borrow, default)]
    results_url: Option<&'a RawValue>,
}

/// The limits of batches and files.
pub(super) fn limits(part: &'static str) -> Vec<Limit> {
    let count = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    vec![
        Limit::count(
            part,
            "requests of a batch",
            sallyport_protocol::messages::batch::MOST_REQUESTS as u64,
            "400 `body_malformed`",
        ),
        Limit::count(part, "batches of a tenant", count(MOST_OF_TENANT), "429 `stored_full`"),
        Limit::count(part, "files of a tenant", count(MOST_OF_TENANT), "429 `stored_full`"),
        Limit::count(
            part,
            "days that a batch is known",
            count(BATCH_DAYS),
            "404: the upstream has forgotten it as well",
        ),
        Limit::bytes(part, "a file", file::LONGEST_FILE, "400 `invalid`"),
        Limit::bytes(
            part,
            "a line of a batch's results that is read for its cost",
            stream::LONGEST_LINE,
            "its cost is not on the row, which says so",
        ),
        Limit::count(
            part,
            "batches that one gateway asks about at once for their cost, one of each tenant",
            settle::MOST_AT_ONCE as u64,
            "the others wait",
        ),
        Limit::time(
            part,
            "reading the results of a batch for its cost",
            settle::LONGEST_READ,
            "they are read again later",
        ),
        Limit::count(
            part,
            "days after which the gateway stops asking what a batch cost",
            count(settle::RESULTS_DAYS),
            "a row says that its cost is unknown",
        ),
        Limit::time(
            part,
            "looking up the batches of a list",
            list::LONGEST_LOOK,
            "what was last said of them is listed",
        ),
    ]
}

// === impl StoredKind ===

impl StoredKind {
    /// As it stands in the database, in rows and in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::File => "file",
        }
    }

    fn many(self) -> &'static str {
        match self {
            Self::Batch => "batches",
            Self::File => "files",
        }
    }

    fn api(self) -> UpstreamApi {
        match self {
            Self::Batch => UpstreamApi::Batches,
            Self::File => UpstreamApi::Files,
        }
    }

    /// The path of all of them.
    fn path(self) -> &'static str {
        match self {
            Self::Batch => "/v1/messages/batches",
            Self::File => "/v1/files",
        }
    }
}

// === impl StoredCall ===

impl StoredCall {
    fn kind(&self) -> StoredKind {
        match self {
            Self::CreateBatch | Self::CancelBatch(_) => StoredKind::Batch,
            Self::UploadFile => StoredKind::File,
            Self::List(kind, _)
            | Self::Retrieve(kind, _)
            | Self::Delete(kind, _)
            | Self::Content(kind, _) => *kind,
        }
    }

    /// As the row knows it.
    fn operation(&self) -> &'static str {
        match (self, self.kind()) {
            (Self::CreateBatch, _) => "batch_create",
            (Self::UploadFile, _) => "file_upload",
            (Self::CancelBatch(_), _) => "batch_cancel",
            (Self::List(..), StoredKind::Batch) => "batch_list",
            (Self::List(..), StoredKind::File) => "file_list",
            (Self::Retrieve(..), StoredKind::Batch) => "batch_retrieve",
            (Self::Retrieve(..), StoredKind::File) => "file_retrieve",
            (Self::Delete(..), StoredKind::Batch) => "batch_delete",
            (Self::Delete(..), StoredKind::File) => "file_delete",
            (Self::Content(..), StoredKind::Batch) => "batch_results",
            (Self::Content(..), StoredKind::File) => "file_content",
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Self::Retrieve(_, id) | Self::Delete(_, id) | Self::CancelBatch(id) | Self::Content(_, id) => {
                Some(id)
            }
            Self::CreateBatch | Self::UploadFile | Self::List(..) => None,
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Serves a request about batches or files.
    pub async fn stored(self: &Arc<Self>, inbound: Inbound, wanted: StoredCall) -> Result<Reply, Refused> {
        let trace = facts::trace_of(&inbound.headers, self.clock.as_ref(), self.entropy.as_ref());
        let refused =
            |refusal| Refused { refusal, trace: trace.clone(), model: String::new(), stream: false };
        let in_force = self.in_force.load_full();
        let bundle = in_force.registry.snapshot(&inbound.principal.tenant);
        let bundle = bundle.seen_by(inbound.principal.user.as_str());
        let lineage = Lineage::of_call(&inbound.headers, &inbound.principal);
        let body = blake3::hash(&inbound.body);
        let mut record = Record::begin(&inbound, &body, &lineage, &trace, &bundle, self.clock.as_ref());
        record.note("operation", wanted.operation());
        if let Some(id) = wanted.id() {
            record.note(wanted.kind().as_str(), crate::clip::clip(id, LONGEST_ID));
        }
        let row = match self.audit.open(record.intent()).await {
            Ok(row) => row,
            Err(unavailable) => return Err(refused(Refusal::AuditUnavailable(unavailable))),
        };
        let config = Arc::clone(&in_force.config);
        let passage = StoredPassage::new(
            Arc::clone(self),
            config,
            bundle,
            inbound,
            lineage,
            trace.clone(),
            record,
            Some(row),
        );
        Box::pin(passage.serve(wanted)).await.map_err(refused)
    }
}

// === impl StoredPassage ===

impl StoredPassage {
    async fn serve(mut self, wanted: StoredCall) -> Result<Reply, Refusal> {
        let answered = match wanted {
            StoredCall::Content(kind, id) => return self.content(kind, &id).await,
            StoredCall::CreateBatch => self.create_batch().await,
            StoredCall::UploadFile => self.upload().await,
            StoredCall::List(kind, page) => self.list(kind, &page).await,
            StoredCall::Retrieve(kind, id) => self.retrieve(kind, &id).await,
            StoredCall::CancelBatch(id) => self.cancel(&id).await,
            StoredCall::Delete(kind, id) => self.delete(kind, &id).await,
        };
        match answered {
            Ok(answer) => self.end(answer).await,
            Err(refusal) => Err(self.fail(refusal).await),
        }
    }

    async fn retrieve(&mut self, kind: StoredKind, id: &str) -> Result<StoredAnswer, Refusal> {
        let stored = self.own(kind, id).await?;
        if kind == StoredKind::File {
            // The upstream never says anything else of it.
            return Ok(StoredAnswer::json(stored.object));
        }
        let answer = self.ask_about(&stored, "GET", "").await?;
        self.heard(&stored, answer).await
    }

    async fn cancel(&mut self, id: &str) -> Result<StoredAnswer, Refusal> {
        let stored = self.own(StoredKind::Batch, id).await?;
        let answer = self.ask_about(&stored, "POST", "/cancel").await?;
        self.heard(&stored, answer).await
    }

    async fn delete(&mut self, kind: StoredKind, id: &str) -> Result<StoredAnswer, Refusal> {
        let stored = self.own(kind, id).await?;
        let unpriced = kind == StoredKind::Batch && !self.price_unread(&stored).await?;
        let answer = self.ask_about(&stored, "DELETE", "").await?;
        let answer = self.whole(answer).await?;
        if answer.is_success() || answer.status == 404 {
            if unpriced && let Some(record) = self.record() {
                record.note("cost", "unknown");
            }
            let gone = self.db().forget_stored(&stored.tenant_id, &stored.kind, &stored.id).await;
            gone.map_err(Refusal::Store)?;
        }
        Ok(answer)
    }

    /// Has the row say what a batch cost whose results nobody has read: once it is deleted, nobody can. Whether that is known.
    async fn price_unread(&mut self, stored: &StoredObject) -> Result<bool, Refusal> {
        let unpriced = self.db().is_unpriced(&stored.tenant_id, &stored.id).await.map_err(Refusal::Store)?;
        if !unpriced {
            return Ok(true);
        }
        let reading = tokio::time::timeout(settle::LONGEST_READ, self.read_results(stored));
        let Ok(Ok(reader)) = Box::pin(reading).await else { return Ok(false) };
        self.price(stored, reader).await;
        Ok(true)
    }

    /// What an upstream says of a batch that it has, as the client is told it; it is remembered.
    async fn heard(
        &mut self,
        stored: &StoredObject,
        answer: crate::upstream::Answer,
    ) -> Result<StoredAnswer, Refusal> {
        let mut answer = self.whole(answer).await?;
        if answer.is_success() {
            let (object, told) = object_of(&answer.bytes)?;
            if object.id != stored.id {
                return Err(Refusal::BadAnswer { what: "it is about something else".to_owned() });
            }
            let known = StoredObject {
                object: String::from_utf8_lossy(&told).into_owned(),
                settled: i64::from(object.is_settled()),
                ..stored.clone()
            };
            self.db().keep_stored(&known, None).await.map_err(Refusal::Store)?;
            answer.bytes = told;
        }
        Ok(answer)
    }
}

// === impl StoredAnswer ===

impl StoredAnswer {
    fn json(text: String) -> Self {
        Self { status: 200, headers: HeaderMap::new(), bytes: text.into() }
    }

    fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }
}

// === impl ObjectOutline ===

impl ObjectOutline<'_> {
    /// Whether the upstream will say nothing else of it.
    fn is_settled(&self) -> bool {
        self.processing_status.as_deref().is_none_or(|status| status == "ended")
    }
}

// === private helpers ===

/// What an upstream says of a batch or a file, and how the client is told of it: results are fetched from the gateway, by a path that both
/// SDKs put behind their base URL. At the upstream's address, the client would show it the credential that it has for the gateway.
fn object_of(bytes: &Bytes) -> Result<(ObjectOutline<'_>, Bytes), Refusal> {
    use sallyport_protocol::messages::index::Span;
    use sallyport_protocol::messages::splice::{Splice, apply};

    let bad = || Refusal::BadAnswer { what: "it is no batch or file".to_owned() };
    if bytes.len() > LONGEST_OBJECT {
        return Err(bad());
    }
    let object: ObjectOutline<'_> = serde_json::from_slice(bytes).map_err(|_| bad())?;
    if !is_id(&object.id) {
        return Err(bad());
    }
    let Some(url) = object.results_url.filter(|url| url.get() != "null") else {
        return Ok((object, bytes.clone()));
    };
    let span = Span::of_part(bytes, url.get().as_bytes()).ok_or_else(bad)?;
    let own = format!("\"{}/{}/results\"", StoredKind::Batch.path(), object.id);
    let told = apply(bytes, &[Splice { span, with: own.into_bytes() }]).map_err(|_| bad())?;
    Ok((object, told.into()))
}

/// Whether a text can be an id: it becomes part of a path.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_fetched_from_the_gateway_and_every_other_byte_is_the_upstreams() {
        let said = Bytes::from_static(
            br#"{ "id":"msgbatch_1", "processing_status":"ended","results_url":"https://api.anthropic.com/v1/x", "new":1.0}"#,
        );
        let (object, told) = object_of(&said).unwrap();
        assert!(object.is_settled());
        let wanted = r#"{ "id":"msgbatch_1", "processing_status":"ended","results_url":"/v1/messages/batches/msgbatch_1/results", "new":1.0}"#;
        assert_eq!(told, wanted);
        let running =
            Bytes::from_static(br#"{"id":"b","processing_status":"in_progress","results_url":null}"#);
        let (object, told) = object_of(&running).unwrap();
        assert!(!object.is_settled() && told == running);
    }

    #[test]
    fn what_is_no_object_or_has_no_plain_id_is_no_answer() {
        for said in ["[]", "{}", r#"{"id":"a/../b"}"#, r#"{"id":""}"#, r#"{"id":"a?b"}"#] {
            assert!(object_of(&Bytes::from(said)).is_err(), "{said}");
        }
        let long = format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(LONGEST_OBJECT));
        assert!(object_of(&Bytes::from(long)).is_err());
    }
}
