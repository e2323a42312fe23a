//! Clients that are known by a document about themselves (draft-ietf-oauth-client-id-metadata-document): their id is the https URL at which
//! it is. It is fetched for somebody who is signed in alone, and believed as little as a client that registers itself. Who asks over the
//! wire is [`ClientDocuments`]' to know.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sallyport_protocol::canonical;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::browser::SignedIn;
use super::clients::{MOST_REGISTERED, read_registration};
use super::oauth::OauthFault;
use super::{Auth, form};
use crate::db::DbError;
use crate::db::oauth::OauthClient;

/// Longest document (section 6.6 of the draft recommends this).
pub const LONGEST_DOCUMENT: usize = 5 * 1024;
/// How long a server may take for one.
pub const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest id.
const LONGEST_ID: usize = 256;
/// How long a document counts as it was fetched.
const KEPT: Duration = Duration::from_mins(10);
/// How many are kept.
pub(super) const MOST_KEPT: usize = 256;
/// How many are fetched at once, and by one user in a quarter of an hour.
pub(super) const MOST_FETCHES: usize = 16;
pub(super) const FETCHES_PER_USER: u32 = 30;

/// Whose documents are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRules {
    /// Hosts, each with its port where it has one; `*`: any.
    pub hosts: Vec<String>,
    /// Whether they may be at addresses that are not of the public internet.
    pub allow_private: bool,
}

/// Fetches documents: bounded in time and size, over TLS alone, without following anything.
pub trait ClientDocuments: Send + Sync {
    /// The body of a 200 of JSON.
    fn fetch(&self, url: &str, allow_private: bool) -> BoxFuture<'_, Result<Vec<u8>, DocumentFault>>;
}

/// Why a document is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    /// The id is not written as it has to be.
    #[error("A client_id that is an address has to be plain: https, a host, a path, and nothing else.")]
    Id,
    /// The operator does not take documents from there.
    #[error("Clients of this host are not let in here.")]
    Host,
    /// Nobody is there, or nobody who may be asked.
    #[error("The client's document cannot be fetched.")]
    Unreachable,
    /// The answer is no document.
    #[error("The client's address answers with no document of at most 5 KiB.")]
    Answer,
    /// It is somebody else's.
    #[error("The document is not this client's: its client_id is another one.")]
    OtherId,
    /// What it says cannot be taken.
    #[error("The client's document says something of the client that is not taken here.")]
    Metadata,
    /// Too many are fetched.
    #[error("Too many clients are looked up. Try again later.")]
    TooMany,
}

// === impl DocumentRules ===

impl DocumentRules {
    fn takes(&self, host: &str) -> bool {
        self.hosts.iter().any(|it| it == "*" || it == host)
    }
}

// === impl DocumentFault ===

impl DocumentFault {
    /// A stable name for the audit row.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Id => "client_document_id",
            Self::Host => "client_document_host",
            Self::Unreachable => "client_document_unreachable",
            Self::Answer => "client_document_answer",
            Self::OtherId => "client_document_other_id",
            Self::Metadata => "client_document_metadata",
            Self::TooMany => "client_document_too_many",
        }
    }
}

// === impl Auth ===

impl Auth {
    /// Whether clients may be known by a document.
    pub fn takes_documents(&self) -> bool {
        self.settings.documents.is_some()
    }

    /// The client with this id, of those that are kept. One that is known by its document has the document's address for its id, and is known
    /// for as long as the operator takes documents from there.
    pub(super) async fn known_client(&self, id: &str) -> Result<Option<OauthClient>, DbError> {
        if !is_document_id(id) {
            return Ok(self.db.oauth_client(id).await?.filter(|client| client.document.is_none()));
        }
        if !host_of(id).is_some_and(|host| self.settings.documents.as_ref().is_some_and(|it| it.takes(host)))
        {
            return Ok(None);
        }
        Ok(self.db.oauth_client(&row_id(id)).await?.filter(|client| client.document.as_deref() == Some(id)))
    }

    /// The client whose document is at its id, as the document says now, or said minutes ago.
    pub(super) async fn client_of_document(
        &self,
        id: &str,
        by: &SignedIn,
        documents: &dyn ClientDocuments,
    ) -> Result<OauthClient, DocumentFault> {
        let rules = self.settings.documents.as_ref().ok_or(DocumentFault::Host)?;
        let host = host_of(id).ok_or(DocumentFault::Id)?;
        if !rules.takes(host) {
            return Err(DocumentFault::Host);
        }
        let now = self.clock.monotonic();
        if let Some((client, until)) = self.documents.get(id)
            && now < until
        {
            return Ok(client);
        }
        let key = format!("document {}", by.user.id);
        self.throttle.attempt(&key, FETCHES_PER_USER, now).map_err(|_| DocumentFault::TooMany)?;
        let _turn = self.document_turns.try_acquire().map_err(|_| DocumentFault::TooMany)?;
        let document = documents.fetch(id, rules.allow_private).await?;
        let (name, redirect_uris) = read(id, host, &document)?;
        let client = OauthClient {
            id: row_id(id),
            tenant: String::new(),
            name,
            redirect_uris,
            secret: None,
            scope: "inference openid".to_owned(),
            registered: true,
            document: Some(id.to_owned()),
            created_at: self.clock.now(),
        };
        self.documents.insert(id.to_owned(), (client.clone(), now + KEPT));
        Ok(client)
    }

    /// Keeps a client whom a user lets in, as its document says.
    pub(super) async fn keep_client_of_document(&self, client: &OauthClient) -> Result<(), OauthFault> {
        let known = self.db.oauth_client(&client.id).await?.is_some();
        if !known && self.db.count_registered_clients().await? >= MOST_REGISTERED {
            return Err(OauthFault::TooMany(KEPT));
        }
        Ok(self.db.keep_document_client(client).await?)
    }
}

/// Whether an id is meant as the address of a document.
pub fn is_document_id(id: &str) -> bool {
    id.starts_with("https://")
}

/// The id of such a client in rows, tokens and tables, where an address has no place.
pub(super) fn row_id(id: &str) -> String {
    let hash = canonical::hex(&Sha256::digest(id.as_bytes()));
    format!("sp_{}", hash.get(..32).unwrap_or(&hash))
}

// === private helpers ===

/// The host, with its port, of an id that can be read in one way only.
fn host_of(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("https://").filter(|_| id.len() <= LONGEST_ID)?;
    let (host, path) = rest.split_once('/')?;
    let is_host =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
    let steps = path.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..");
    let fits = !host.is_empty() && host.bytes().all(is_host) && path.bytes().all(plain) && !steps;
    fits.then_some(host)
}

/// Name and addresses of the client that a document is about.
fn read(id: &str, host: &str, document: &[u8]) -> Result<(String, Vec<String>), DocumentFault> {
    let document: Value = serde_json::from_slice(document).map_err(|_| DocumentFault::Answer)?;
    let said = document.as_object().ok_or(DocumentFault::Answer)?;
    if said.get("client_id").and_then(Value::as_str) != Some(id) {
        return Err(DocumentFault::OtherId);
    }
    if ["client_secret", "client_secret_expires_at"].iter().any(|name| said.contains_key(*name)) {
        return Err(DocumentFault::Metadata);
    }
    let redirect_uris = read_registration(said).map_err(|_| DocumentFault::Metadata)?;
    let name = match said.get("client_name") {
        None => host,
        Some(name) => name.as_str().filter(|name| form::label(name)).ok_or(DocumentFault::Metadata)?,
    };
    Ok((name.to_owned(), redirect_uris))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "https://app.example/oauth/client";

    #[test]
    fn an_id_is_an_address_that_is_written_in_one_way() {
        assert_eq!(host_of(ID), Some("app.example"));
        assert_eq!(host_of("https://127.0.0.1:8443/c.json"), Some("127.0.0.1:8443"));
        let long = format!("https://app.example/{}", "a".repeat(LONGEST_ID));
        for bad in [
            "https://app.example",
            "https://app.example/",
            "https://app.example//c",
            "https://app.example/c/",
            "https://app.example/../c",
            "https://app.example/c?x=1",
            "https://app.example/c#x",
            "https://app.example/%63",
            "https://user@app.example/c",
            "https://APP.example/c",
            "https:///c",
            "http://app.example/c",
            &long,
        ] {
            assert_eq!(host_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_document_is_about_the_client_at_its_own_address_and_asks_for_the_least() {
        let honest = json!({ "client_id": ID, "client_name": "App", "redirect_uris": ["https://app.example/cb"],
            "token_endpoint_auth_method": "none", "client_uri": "https://app.example" });
        let of = |document: &Value| read(ID, "app.example", document.to_string().as_bytes());
        assert_eq!(of(&honest), Ok(("App".to_owned(), vec!["https://app.example/cb".to_owned()])));
        let but = |name: &str, value: Value| {
            let mut document = honest.clone();
            document[name] = value;
            of(&document)
        };
        assert_eq!(but("client_id", json!("https://app.example/oauth/other")), Err(DocumentFault::OtherId));
        assert_eq!(but("client_id", json!(null)), Err(DocumentFault::OtherId));
        for (name, bad) in [
            ("client_secret", json!("s")),
            ("client_secret_expires_at", json!(0)),
            ("redirect_uris", json!([])),
            ("redirect_uris", json!(["javascript:alert(1)"])),
            ("token_endpoint_auth_method", json!("client_secret_post")),
            ("jwks_uri", json!("https://169.254.169.254/")),
            ("client_name", json!("a\u{202e}b")),
            ("scope", json!("admin")),
        ] {
            assert_eq!(but(name, bad.clone()), Err(DocumentFault::Metadata), "{name}: {bad}");
        }
        assert_eq!(read(ID, "app.example", b"<html>"), Err(DocumentFault::Answer));
        assert_eq!(read(ID, "app.example", b"[]"), Err(DocumentFault::Answer));
    }

    #[test]
    fn the_id_in_rows_is_the_same_for_the_same_address_alone() {
        assert_eq!(row_id(ID), row_id(ID));
        assert_ne!(row_id(ID), row_id("https://app.example/oauth/clienT"));
        assert!(sallyport_protocol::id::ClientId::parse(&row_id(ID)).is_ok());
    }
}
