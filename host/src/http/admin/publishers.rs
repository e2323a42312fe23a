//! `/v1/admin/publishers`: whose components a catalog takes.

use sallyport_protocol::audit::Action;
use sallyport_protocol::errors::ErrorCode;
use schemars::JsonSchema;
use serde::Deserialize;
use time::OffsetDateTime;

use super::endpoint::{AdminAnswer, AdminEndpoint, JsonBody};
use super::{Admin, Look, Manage, NotDone};
use crate::catalog::{NewKey, PublisherList, ShownPublisher, kinds};

/// The endpoints.
pub(super) fn endpoints() -> Vec<AdminEndpoint> {
    vec![
        AdminEndpoint::get("publishers.list", "/v1/admin/publishers", list)
            .about("Whose components the catalog takes"),
        AdminEndpoint::post("publishers.trust", "/v1/admin/publishers", trust)
            .about("Trust a publisher's key, for some kinds of components of a namespace")
            .codes(&[ErrorCode::Revoked])
            .rows(&[Action::PublisherTrust]),
    ]
}

/// A key to trust.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    /// Ed25519: 32 bytes in base64 or hex.
    public_key: String,
    /// Which namespace it may sign.
    namespace: String,
    /// Which kinds it may sign; at least one.
    #[schemars(schema_with = "kinds")]
    kinds: Vec<String>,
    /// Whose it is, in words.
    #[serde(default)]
    label: String,
    /// Until when; else without end.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    expires_at: Option<OffsetDateTime>,
    /// The id of a key that signs nothing new from now on.
    replaces: Option<String>,
}

async fn list(admin: Admin<Look>) -> AdminAnswer<PublisherList> {
    let done = admin.catalog().publishers(admin.tenant()).await.map_err(NotDone::Catalog);
    admin.answer(done).await
}

async fn trust(mut admin: Admin<Manage, JsonBody<KeyBody>>) -> AdminAnswer<ShownPublisher> {
    let done = add(&mut admin).await;
    admin.answer(done).await
}

async fn add(admin: &mut Admin<Manage, JsonBody<KeyBody>>) -> Result<ShownPublisher, NotDone> {
    let KeyBody { public_key, namespace, kinds, label, expires_at, replaces } = admin.json().await?;
    let key = NewKey { public_key, namespace, kinds, label, expires_at, replaces };
    Ok(admin.catalog().trust(&admin.actor, key).await?)
}
