//! Documents in which OAuth clients describe themselves: an address that a stranger chose, so that only the public internet is dialled
//! unless the operator says otherwise, and what comes is bounded before it is read.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, header};

use super::address::AddressPolicy;
use super::client::{FetchError, FetchLimits, HttpClient, Outbound};
use crate::auth::{ClientDocuments, DOCUMENT_TIMEOUT, DocumentFault, LONGEST_DOCUMENT};

/// Fetches them, on connections that nothing else uses.
#[derive(Debug, Clone)]
pub struct DocumentClient {
    public: HttpClient,
    private: HttpClient,
}

// === impl DocumentClient ===

impl DocumentClient {
    /// With connections of its own.
    pub fn new(outbound: &Outbound) -> Self {
        Self { public: outbound.client(AddressPolicy::Public), private: outbound.client(AddressPolicy::Any) }
    }
}

impl ClientDocuments for DocumentClient {
    fn fetch(&self, url: &str, allow_private: bool) -> BoxFuture<'_, Result<Vec<u8>, DocumentFault>> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .body(Bytes::new());
        let client = if allow_private { &self.private } else { &self.public };
        Box::pin(async move {
            let request = request.map_err(|_| DocumentFault::Id)?;
            let limits = FetchLimits { timeout: DOCUMENT_TIMEOUT, max_bytes: LONGEST_DOCUMENT };
            let mut answer = client.fetch(request, limits).await.map_err(|error| match error {
                FetchError::TooLarge(_) => DocumentFault::Answer,
                FetchError::Unreachable(_) | FetchError::Closed(_) | FetchError::TimedOut => {
                    DocumentFault::Unreachable
                }
            })?;
            if answer.status != StatusCode::OK || !is_json(&answer.headers) {
                return Err(DocumentFault::Answer);
            }
            Ok(std::mem::take(&mut *answer.body))
        })
    }
}

// === private helpers ===

/// Whether a body is `application/json`, or a form of it (section 4.1 of the draft).
fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media.starts_with("application/") && media.ends_with("+json")
}
