//! Groups over SCIM. Which roles follow from a group, an administrator says.

use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};

use super::patch::{self, PatchKind, PatchOperation};
use super::{Done, GROUP, LONGEST_EXTERNAL, MOST_MEMBERS, ScimCall, ScimError, ScimPage, stamp};
use crate::audit::{Action, Outcome};
use crate::auth::form;
use crate::db::scim_group::{GroupEnd, MemberStep, ScimGroup, ScimMember};

/// Members that a row names.
const NAMED: usize = 50;

/// `GET /scim/v2/Groups`
pub(super) async fn list(call: ScimCall, head: Parts) -> Response {
    let done = async {
        let page = ScimPage::read(&head, "displayName")?;
        let (total, groups) =
            call.edge.db.scim_groups(call.tenant(), &page.filter, page.skip(), page.count).await?;
        // Members of many groups would make a page of any length: whoever wants them asks for one group.
        let groups: Vec<_> = groups.iter().map(|group| shown(&call, group, None)).collect();
        Ok(call.page(&page, total, &groups))
    };
    call.close(done.await)
}

/// `GET /scim/v2/Groups/{id}`
pub(super) async fn one(call: ScimCall, Path(id): Path<String>, head: Parts) -> Response {
    let done = async {
        let page = ScimPage::read(&head, "displayName")?;
        let group = known(&call, &id).await?;
        let members = if page.bare { None } else { Some(call.edge.db.scim_members(&group.id).await?) };
        Ok(call.answer(StatusCode::OK, &shown(&call, &group, members.as_deref())))
    };
    call.close(done.await)
}

/// `POST /scim/v2/Groups`
pub(super) async fn create(call: ScimCall, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let done = async {
        let body = super::body(&head, body).await?;
        let now = call.now();
        let mut group = ScimGroup {
            id: call.random_id("g_"),
            name: String::new(),
            external_id: None,
            created_at: now,
            changed_at: now,
        };
        let steps = whole(&mut group, &body)?;
        stored(&call, group, true, steps).await
    };
    call.close(done.await)
}

/// `PUT /scim/v2/Groups/{id}`
pub(super) async fn replace(call: ScimCall, Path(id): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let done = async {
        let body = super::body(&head, body).await?;
        let mut group = known(&call, &id).await?;
        group.external_id = None;
        let mut steps = vec![MemberStep::Replace(Vec::new())];
        steps.extend(whole(&mut group, &body)?);
        stored(&call, group, false, steps).await
    };
    call.close(done.await)
}

/// `PATCH /scim/v2/Groups/{id}`
pub(super) async fn change(call: ScimCall, Path(id): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let done = async {
        let body = super::body(&head, body).await?;
        let mut group = known(&call, &id).await?;
        let mut steps = Vec::new();
        for operation in patch::operations(&body)? {
            steps.extend(step(&mut group, &operation)?);
        }
        stored(&call, group, false, steps).await
    };
    call.close(done.await)
}

/// `DELETE /scim/v2/Groups/{id}`
pub(super) async fn delete(call: ScimCall, Path(id): Path<String>) -> Response {
    let done = async {
        let group = known(&call, &id).await?;
        let detail = json!({ "name": group.name, "scim": true });
        call.row(Action::GroupDelete, &group.id, detail.clone(), Outcome::Allowed).await?;
        if !call.edge.db.delete_scim_group(call.tenant(), &group.id, call.now()).await? {
            call.row(Action::GroupDelete, &group.id, detail, Outcome::Error).await?;
            return Err(ScimError::gone());
        }
        call.adopt().await;
        Ok(call.empty())
    };
    call.close(done.await)
}

// === private helpers ===

async fn known(call: &ScimCall, id: &str) -> Result<ScimGroup, ScimError> {
    call.edge.db.scim_group(call.tenant(), id).await?.ok_or_else(ScimError::gone)
}

/// What a whole resource says: of the group itself, and who is in it.
fn whole(group: &mut ScimGroup, body: &Value) -> Result<Vec<MemberStep>, ScimError> {
    let mut steps = Vec::new();
    for (name, value) in body.as_object().into_iter().flatten() {
        steps.extend(set(group, PatchKind::Replace, name, value).or_else(passed_over)?);
    }
    Ok(steps)
}

/// Of a whole resource what is not known is passed over (RFC 7644, section 3.3).
fn passed_over(error: ScimError) -> Result<Option<MemberStep>, ScimError> {
    if error.kind == Some("invalidPath") { Ok(None) } else { Err(error) }
}

/// What one operation says.
fn step(group: &mut ScimGroup, operation: &PatchOperation) -> Result<Vec<MemberStep>, ScimError> {
    let mut steps = Vec::new();
    for (attribute, value) in operation.attributes() {
        // Okta sends the id along.
        if operation.path.is_none() && matches!(attribute.as_str(), "id" | "schemas") {
            continue;
        }
        steps.extend(set(group, operation.kind, &attribute, &value)?);
    }
    Ok(steps)
}

fn set(
    group: &mut ScimGroup,
    kind: PatchKind,
    attribute: &str,
    value: &Value,
) -> Result<Option<MemberStep>, ScimError> {
    let text = |what: &str| match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(ScimError::invalid("invalidValue", format!("{what} is no text"))),
    };
    match attribute.to_ascii_lowercase().as_str() {
        "displayname" => group.name = text("displayName")?.unwrap_or_default(),
        "externalid" => group.external_id = text("externalId")?,
        "members" => {
            let members = members(value)?;
            return Ok(Some(match kind {
                PatchKind::Add => MemberStep::Add(members),
                PatchKind::Replace => MemberStep::Replace(members),
                // Without a value all of them are meant (RFC 7644, section 3.5.2.2).
                PatchKind::Remove if value.is_null() => MemberStep::Replace(Vec::new()),
                PatchKind::Remove => MemberStep::Remove(members),
            }));
        }
        _ if kind == PatchKind::Remove => {
            let one = one_member(attribute);
            let one = one.ok_or_else(|| ScimError::invalid("invalidPath", "an attribute is not known"))?;
            return Ok(Some(MemberStep::Remove(vec![one])));
        }
        "id" | "schemas" | "meta" => {}
        _ => return Err(ScimError::invalid("invalidPath", "an attribute is not known")),
    }
    Ok(None)
}

/// The ids of `[{"value": ".."}]`, or of one such object.
fn members(value: &Value) -> Result<Vec<String>, ScimError> {
    let id = |member: &Value| {
        let id = member.get("value").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| ScimError::invalid("invalidValue", "a member has no value"))
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(members) if members.len() <= MOST_MEMBERS => members.iter().map(id).collect(),
        Value::Array(_) => {
            Err(ScimError::invalid("tooMany", format!("a group has at most {MOST_MEMBERS} members")))
        }
        one => Ok(vec![id(one)?]),
    }
}

/// The id in `members[value eq ".."]`.
fn one_member(path: &str) -> Option<String> {
    let inner = path.strip_prefix("members[")?.strip_suffix(']')?;
    let value = inner.trim().strip_prefix("value")?.trim_start();
    let value = value.strip_prefix("eq").or_else(|| value.strip_prefix("Eq"))?;
    serde_json::from_str(value.trim()).ok()
}

async fn stored(call: &ScimCall, mut group: ScimGroup, is_new: bool, steps: Vec<MemberStep>) -> Done {
    if !form::label(&group.name) {
        return Err(ScimError::invalid(
            "invalidValue",
            "displayName is missing, too long, or cannot be shown",
        ));
    }
    if group.external_id.as_ref().is_some_and(|it| it.len() > LONGEST_EXTERNAL) {
        return Err(ScimError::invalid("invalidValue", "externalId is too long"));
    }
    group.changed_at = call.now();
    let action = if is_new { Action::GroupCreate } else { Action::GroupChange };
    call.row(action, &group.id, detail(&group, &steps), Outcome::Allowed).await?;
    let end = call.edge.db.put_scim_group(call.tenant(), &group, is_new, &steps, MOST_MEMBERS).await;
    if !matches!(end, Ok(GroupEnd::Done)) {
        call.row(action, &group.id, detail(&group, &steps), Outcome::Error).await?;
    }
    match end? {
        GroupEnd::Done => {}
        GroupEnd::Gone => return Err(ScimError::gone()),
        GroupEnd::NameTaken => return Err(ScimError::taken("a group of this displayName is there already")),
        GroupEnd::NoSuchUser => {
            return Err(ScimError::invalid("invalidValue", "a member is no user that was made here"));
        }
        GroupEnd::TooMany => {
            return Err(ScimError::invalid("tooMany", format!("a group has at most {MOST_MEMBERS} members")));
        }
    }
    call.adopt().await;
    let members = call.edge.db.scim_members(&group.id).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(call.answer(status, &shown(call, &group, Some(&members))))
}

fn detail(group: &ScimGroup, steps: &[MemberStep]) -> Value {
    let named = |members: &[String]| members.iter().take(NAMED).cloned().collect::<Vec<_>>();
    let steps: Vec<_> = steps
        .iter()
        .map(|step| match step {
            MemberStep::Replace(it) => json!({ "replace": named(it), "count": it.len() }),
            MemberStep::Add(it) => json!({ "add": named(it), "count": it.len() }),
            MemberStep::Remove(it) => json!({ "remove": named(it), "count": it.len() }),
        })
        .collect();
    json!({ "name": group.name, "members": steps, "scim": true })
}

fn shown(call: &ScimCall, group: &ScimGroup, members: Option<&[ScimMember]>) -> Value {
    let mut shown = json!({
        "schemas": [GROUP],
        "id": group.id,
        "displayName": group.name,
        "meta": {
            "resourceType": "Group",
            "created": stamp(group.created_at),
            "lastModified": stamp(group.changed_at),
            "location": call.location("Groups", &group.id),
        },
    });
    let member = |member: &ScimMember| json!({ "value": member.id, "display": member.name, "$ref": call.location("Users", &member.id) });
    if let Some(fields) = shown.as_object_mut() {
        fields.extend(group.external_id.clone().map(|id| ("externalId".to_owned(), Value::from(id))));
        fields.extend(members.map(|all| ("members".to_owned(), all.iter().map(member).collect())));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_in_the_ways_of_providers() {
        assert_eq!(
            members(&json!([{"value": "u_1"}, {"value": "u_2", "display": "x"}])).unwrap(),
            ["u_1", "u_2"]
        );
        assert_eq!(members(&json!({"value": "u_1"})).unwrap(), ["u_1"]);
        assert!(members(&json!([{"id": "u_1"}])).is_err() && members(&json!("u_1")).is_err());
        assert_eq!(one_member(r#"members[value eq "u_1"]"#).as_deref(), Some("u_1"));
        for bad in [
            "members",
            "members[]",
            r#"members[display eq "x"]"#,
            "members[value eq u_1]",
            r#"owners[value eq "u_1"]"#,
        ] {
            assert_eq!(one_member(bad), None, "{bad}");
        }
    }
}
