//! `/v1/admin/components/{namespace}/{name}/grants`: what a component may do besides what its kind may.

use axum::extract::Path;
use sallyport_protocol::audit::Action;
use schemars::JsonSchema;
use serde::Deserialize;
use time::OffsetDateTime;

use super::endpoint::{AdminAnswer, AdminEndpoint, JsonBody};
use super::{Admin, Manage, NotDone};
use crate::catalog::{NewGrant, ShownComponent};

/// The endpoints.
pub(super) fn endpoints() -> Vec<AdminEndpoint> {
    vec![
        AdminEndpoint::post("grants.grant", "/v1/admin/components/{namespace}/{name}/grants", grant)
            .about("Let a component use a capability; for administrators of the platform")
            .rows(&[Action::CapabilityGrant]),
        AdminEndpoint::delete(
            "grants.withdraw",
            "/v1/admin/components/{namespace}/{name}/grants/{*capability}",
            withdraw,
        )
        .about("Take a capability back; what is in force and needs it refuses from then on")
        .rows(&[Action::CapabilityWithdraw]),
    ]
}

/// A capability for a component.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    /// `egress:<name>`, `rewrite`, `settle`.
    capability: String,
    /// Until when; else without end.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    expires_at: Option<OffsetDateTime>,
}

async fn grant(
    Path((namespace, name)): Path<(String, String)>,
    mut admin: Admin<Manage, JsonBody<GrantBody>>,
) -> AdminAnswer<ShownComponent> {
    let done = give(&mut admin, &format!("{namespace}/{name}")).await;
    admin.answer(done).await
}

async fn give(admin: &mut Admin<Manage, JsonBody<GrantBody>>, name: &str) -> Result<ShownComponent, NotDone> {
    let GrantBody { capability, expires_at } = admin.json().await?;
    Ok(admin.catalog().grant(&admin.actor, name, NewGrant { capability, expires_at }).await?)
}

async fn withdraw(
    Path((namespace, name, capability)): Path<(String, String, String)>,
    admin: Admin<Manage>,
) -> AdminAnswer<ShownComponent> {
    let name = format!("{namespace}/{name}");
    let done = admin.catalog().withdraw_grant(&admin.actor, &name, &capability).await;
    admin.answer(done.map_err(NotDone::Catalog)).await
}
