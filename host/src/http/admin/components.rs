//! `/v1/admin/components`: what a catalog has, bringing a version, and the steps of its life.

use axum::extract::Path;
use sallyport_protocol::audit::Action;
use sallyport_protocol::errors::ErrorCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::endpoint::{AdminAnswer, AdminEndpoint, JsonBody, PackageBytes};
use super::{Admin, Look, Manage, NotDone, Upload};
use crate::catalog::{
    CatalogError, ComponentList, DeletedVersion, HookAttachment, ShownComponent, Slo, Verb, Wanted, mode,
};
use crate::component::Mode;

/// The endpoints.
pub(super) fn endpoints() -> Vec<AdminEndpoint> {
    const ONE: &str = "/v1/admin/components/{namespace}/{name}";
    const PART: &str = "/v1/admin/components/{namespace}/{name}/{step_or_version}";
    vec![
        AdminEndpoint::get("components.list", "/v1/admin/components", list)
            .about("Every component of a catalog, and what the catalog holds"),
        AdminEndpoint::post("components.upload", "/v1/admin/components", upload)
            .about("Keep a package: it is verified, compiled and tried; the same bytes again change nothing")
            .codes(&[
                ErrorCode::Invalid,
                ErrorCode::MalformedPackage,
                ErrorCode::NotTrusted,
                ErrorCode::Revoked,
                ErrorCode::OtherBytes,
                ErrorCode::NotAdmitted,
                ErrorCode::CompileQueueFull,
                ErrorCode::CompileTimeSpent,
                ErrorCode::QuotaBytes,
                ErrorCode::QuotaVersions,
                ErrorCode::QuotaUploads,
                ErrorCode::ChangedMeanwhile,
            ])
            .rows(&[Action::ComponentUpload]),
        AdminEndpoint::get("components.show", ONE, show)
            .about("One component: its versions, its place, what it may do, and what the newest release wants besides"),
        AdminEndpoint::post("components.step", PART, step)
            .about("Make a step of a component's life; the answer comes when it is in force on this gateway")
            .codes(&[
                ErrorCode::MalformedPackage,
                ErrorCode::NotTrusted,
                ErrorCode::Revoked,
                ErrorCode::OtherBytes,
                ErrorCode::GrantNeeded,
                ErrorCode::NotAdmitted,
                ErrorCode::CompileQueueFull,
                ErrorCode::CompileTimeSpent,
                ErrorCode::NoSuchStep,
                ErrorCode::ChangedMeanwhile,
            ])
            .rows(&[
                Action::ComponentShadow,
                Action::ComponentCanary,
                Action::ComponentActivate,
                Action::ComponentRollback,
                Action::ComponentWithdraw,
                Action::ComponentRetire,
            ]),
        AdminEndpoint::delete("components.delete", PART, remove)
            .about("Delete a version that nobody uses")
            .codes(&[ErrorCode::InUse, ErrorCode::ChangedMeanwhile])
            .rows(&[Action::ComponentDelete]),
    ]
}

/// What a step is to do. What is left out stays as it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct StepBody {
    /// Which release; else the one that is tried, or for a rollback the one before.
    version: Option<String>,
    /// What `configure` gets.
    config: Option<Value>,
    /// What is done with what it says.
    #[schemars(schema_with = "mode")]
    mode: Option<Mode>,
    /// For a canary: how many of a hundred users it is in force for.
    percent: Option<u8>,
    /// For a canary: when it ends by itself.
    slo: Option<Slo>,
    /// Where it stands among its kind; lower numbers are asked first.
    order: Option<i32>,
    /// For hooks: which events it gets, and what becomes of an event that it does not answer.
    attachment: Option<HookAttachment>,
    /// Why; it stands in the row.
    reason: Option<String>,
}

async fn list(admin: Admin<Look>) -> AdminAnswer<ComponentList> {
    let done = admin.catalog().list(admin.tenant()).await.map_err(NotDone::Catalog);
    admin.answer(done).await
}

async fn show(
    Path((namespace, name)): Path<(String, String)>,
    admin: Admin<Look>,
) -> AdminAnswer<ShownComponent> {
    let name = format!("{namespace}/{name}");
    let done = admin.catalog().show(admin.tenant(), &name).await.map_err(NotDone::Catalog);
    admin.answer(done).await
}

async fn upload(mut admin: Admin<Upload, PackageBytes>) -> AdminAnswer<ShownComponent> {
    let done = bring(&mut admin).await;
    admin.answer(done).await
}

async fn bring(admin: &mut Admin<Upload, PackageBytes>) -> Result<ShownComponent, NotDone> {
    admin.catalog().begin_upload(&admin.actor)?;
    let package = admin.package().await?;
    Ok(admin.catalog().upload(&admin.actor, package.into()).await?)
}

async fn step(
    Path((namespace, name, step)): Path<(String, String, String)>,
    mut admin: Admin<Manage, JsonBody<StepBody>>,
) -> AdminAnswer<ShownComponent> {
    let done = take_step(&mut admin, &format!("{namespace}/{name}"), &step).await;
    admin.answer(done).await
}

async fn take_step(
    admin: &mut Admin<Manage, JsonBody<StepBody>>,
    name: &str,
    step: &str,
) -> Result<ShownComponent, NotDone> {
    let verb = Verb::parse(step).ok_or(CatalogError::NotFound)?;
    let StepBody { version, config, mode, percent, slo, order, attachment, reason } = admin.json().await?;
    let wanted = Wanted { version, config, mode, percent, slo, order, attachment, reason };
    Ok(admin.catalog().step(&admin.actor, name, verb, wanted).await?)
}

async fn remove(
    Path((namespace, name, version)): Path<(String, String, String)>,
    admin: Admin<Manage>,
) -> AdminAnswer<DeletedVersion> {
    let name = format!("{namespace}/{name}");
    let done = admin.catalog().delete(&admin.actor, &name, &version).await.map_err(NotDone::Catalog);
    admin.answer(done).await
}
