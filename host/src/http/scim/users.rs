//! Users over SCIM.

use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use sallyport_protocol::id::UserId;
use serde_json::{Value, json};

use super::patch::{self, PatchKind};
use super::{Done, ENTERPRISE, LONGEST_EXTERNAL, ScimCall, ScimError, ScimPage, USER, stamp};
use crate::audit::{Action, Outcome};
use crate::auth::form;
use crate::db::scim::ScimUser;
use crate::db::scim_group::{MEMBER, ScimMember};
use crate::db::user::User;

/// Attributes of the schema that mean nothing here: what a provider says of them is passed over.
const PASSED_OVER: [&str; 19] = [
    "id",
    "schemas",
    "meta",
    "name",
    "nickname",
    "profileurl",
    "title",
    "usertype",
    "preferredlanguage",
    "locale",
    "timezone",
    "emails",
    "phonenumbers",
    "ims",
    "photos",
    "addresses",
    "groups",
    "roles",
    "x509certificates",
];
/// What the names of users begin with that a provider deleted.
const DELETED: &str = "deleted ";

/// What a provider says of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct UserDraft {
    name: String,
    external_id: Option<String>,
    display_name: Option<String>,
    department: Option<String>,
    active: Option<bool>,
}

/// `GET /scim/v2/Users`
pub(super) async fn list(call: ScimCall, head: Parts) -> Response {
    let done = async {
        let page = ScimPage::read(&head, "userName")?;
        let (total, users) =
            call.edge.db.scim_users(call.tenant(), &page.filter, page.skip(), page.count).await?;
        let users: Vec<_> = users.iter().map(|user| shown(&call, user, None)).collect();
        Ok(call.page(&page, total, &users))
    };
    call.close(done.await)
}

/// `GET /scim/v2/Users/{id}`
pub(super) async fn one(call: ScimCall, Path(id): Path<String>) -> Response {
    let done = async {
        let user = known(&call, &id).await?;
        Ok(call.answer(StatusCode::OK, &whole(&call, &user).await?))
    };
    call.close(done.await)
}

/// `POST /scim/v2/Users`
pub(super) async fn create(call: ScimCall, request: Request) -> Response {
    let (head, body) = request.into_parts();
    call.close(made(&call, &head, body).await)
}

/// `PUT /scim/v2/Users/{id}`
pub(super) async fn replace(call: ScimCall, Path(id): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let done = async {
        let body = super::body(&head, body).await?;
        let user = known(&call, &id).await?;
        let draft = UserDraft::read(&body)?;
        stored(&call, user, draft).await
    };
    call.close(done.await)
}

/// `PATCH /scim/v2/Users/{id}`
pub(super) async fn change(call: ScimCall, Path(id): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let done = async {
        let body = super::body(&head, body).await?;
        let user = known(&call, &id).await?;
        let mut draft = UserDraft::of(&user);
        for operation in patch::operations(&body)? {
            for (attribute, value) in operation.attributes() {
                let value = if operation.kind == PatchKind::Remove { Value::Null } else { value };
                draft.set(&attribute, &value)?;
            }
        }
        draft.check()?;
        stored(&call, user, draft).await
    };
    call.close(done.await)
}

/// `DELETE /scim/v2/Users/{id}`
pub(super) async fn delete(call: ScimCall, Path(id): Path<String>) -> Response {
    let done = async {
        let user = known(&call, &id).await?.user;
        let detail = json!({ "name": user.name, "scim": "deleted" });
        call.row(Action::UserDisable, user.id.as_str(), detail.clone(), Outcome::Allowed).await?;
        if !call.edge.db.delete_scim_user(call.tenant(), &user.id, call.now()).await? {
            call.row(Action::UserDisable, user.id.as_str(), detail, Outcome::Error).await?;
            return Err(ScimError::gone());
        }
        call.adopt().await;
        Ok(call.empty())
    };
    call.close(done.await)
}

// === impl UserDraft ===

impl UserDraft {
    fn of(user: &ScimUser) -> Self {
        Self {
            name: user.user.name.clone(),
            external_id: user.external_id.clone(),
            display_name: user.display_name.clone(),
            department: user.user.department.clone(),
            active: None,
        }
    }

    /// What a whole resource says.
    fn read(body: &Value) -> Result<Self, ScimError> {
        let mut draft = Self::default();
        for (name, value) in body.as_object().into_iter().flatten() {
            match draft.set(name, value) {
                // Of a whole resource what is not known is passed over (RFC 7644, section 3.3).
                Err(ScimError { kind: Some("invalidPath"), .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        draft.check()?;
        Ok(draft)
    }

    fn set(&mut self, attribute: &str, value: &Value) -> Result<(), ScimError> {
        let text = |what: &str| match value {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(ScimError::invalid("invalidValue", format!("{what} is no text"))),
        };
        let bare = attribute.strip_prefix(USER).and_then(|it| it.strip_prefix(':')).unwrap_or(attribute);
        let lower = bare.to_ascii_lowercase();
        if lower == ENTERPRISE.to_ascii_lowercase() {
            // Another part of the extension than the one that means something here leaves it as it is.
            return match value.get("department") {
                Some(department) => self.set("department", department),
                None if value.is_object() => Ok(()),
                None => self.set("department", &Value::Null),
            };
        }
        let department = format!("{}:department", ENTERPRISE.to_ascii_lowercase());
        match lower.as_str() {
            "username" => self.name = text("userName")?.unwrap_or_default(),
            "externalid" => self.external_id = text("externalId")?,
            "displayname" => self.display_name = text("displayName")?,
            "active" => {
                let flag = patch::flag(value);
                self.active =
                    Some(flag.ok_or_else(|| ScimError::invalid("invalidValue", "active is true or false"))?);
            }
            "department" => self.department = text("department")?,
            other if *other == department => self.department = text("department")?,
            // `name.givenName`, `emails[type eq "work"].value`
            other if PASSED_OVER.contains(&other.split(['.', '[']).next().unwrap_or_default()) => {}
            other if other.starts_with(&ENTERPRISE.to_ascii_lowercase()) => {}
            _ => return Err(ScimError::invalid("invalidPath", "an attribute is not known")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ScimError> {
        let wrong = |what: &str| Err(ScimError::invalid("invalidValue", what));
        // An id names one user for ever; a name that looks like one would be ambiguous.
        if !form::label(&self.name) || self.name.starts_with("u_") || self.name.starts_with(DELETED) {
            return wrong("userName is missing, too long, or not one that can be shown");
        }
        if self.external_id.as_ref().is_some_and(|it| it.len() > LONGEST_EXTERNAL) {
            return wrong("externalId is too long");
        }
        if !self.display_name.as_deref().is_none_or(form::label)
            || !self.department.as_deref().is_none_or(form::label)
        {
            return wrong("displayName and department have 1 to 128 characters and no control characters");
        }
        Ok(())
    }
}

// === private helpers ===

async fn known(call: &ScimCall, id: &str) -> Result<ScimUser, ScimError> {
    call.edge.db.scim_user(call.tenant(), id).await?.ok_or_else(ScimError::gone)
}

async fn made(call: &ScimCall, head: &Parts, body: Body) -> Done {
    let draft = UserDraft::read(&super::body(head, body).await?)?;
    let now = call.now();
    let id = UserId::parse(&call.random_id("u_"))
        .map_err(|_| ScimError::invalid("invalidValue", "no id could be made"))?;
    let new = ScimUser {
        user: User {
            id,
            tenant: call.tenant().clone(),
            name: draft.name,
            roles: vec![MEMBER.to_owned()],
            department: draft.department,
            created_at: now,
            disabled_at: (draft.active == Some(false)).then_some(now),
        },
        external_id: draft.external_id,
        display_name: draft.display_name,
        changed_at: now,
    };
    let taken = || ScimError::taken("a user of this userName, or of this externalId, is there already");
    // Before the row, so that the usual conflict leaves none of something that was not done.
    if call.edge.db.user_by_name(call.tenant(), &new.user.name).await?.is_some() {
        return Err(taken());
    }
    let subject = new.user.id.as_str();
    call.row(Action::UserCreate, subject, detail(&new), Outcome::Allowed).await?;
    if !call.edge.db.insert_scim_user(&new).await? {
        call.row(Action::UserCreate, subject, detail(&new), Outcome::Error).await?;
        return Err(taken());
    }
    call.adopt().await;
    Ok(call.answer(StatusCode::CREATED, &shown(call, &new, Some(&[]))))
}

/// Stores what a provider says of a user now.
async fn stored(call: &ScimCall, before: ScimUser, draft: UserDraft) -> Done {
    let now = call.now();
    let was_active = before.user.disabled_at.is_none();
    let active = draft.active.unwrap_or(was_active);
    let mut changed = before.clone();
    changed.user.name = draft.name;
    changed.user.department = draft.department;
    changed.user.disabled_at = if active { None } else { before.user.disabled_at.or(Some(now)) };
    changed.external_id = draft.external_id;
    changed.display_name = draft.display_name;
    if changed == before {
        return Ok(call.answer(StatusCode::OK, &whole(call, &before).await?));
    }
    changed.changed_at = now;
    let action = match (was_active, active) {
        (true, false) => Action::UserDisable,
        (false, true) => Action::UserEnable,
        _ => Action::UserChange,
    };
    // Tokens say the department; whoever is disabled has nothing left when it comes back.
    let ends = was_active && !active || changed.user.department != before.user.department;
    let subject = changed.user.id.as_str();
    call.row(action, subject, detail(&changed), Outcome::Allowed).await?;
    if !call.edge.db.change_scim_user(&changed, ends).await? {
        call.row(action, subject, detail(&changed), Outcome::Error).await?;
        return Err(ScimError::taken("another user has this userName, or this externalId"));
    }
    call.adopt().await;
    Ok(call.answer(StatusCode::OK, &whole(call, &changed).await?))
}

fn detail(user: &ScimUser) -> Value {
    json!({
        "name": user.user.name,
        "department": user.user.department,
        "active": user.user.disabled_at.is_none(),
        "external_id": user.external_id,
        "scim": true,
    })
}

/// A user with its groups.
async fn whole(call: &ScimCall, user: &ScimUser) -> Result<Value, ScimError> {
    let groups = call.edge.db.scim_groups_of(user.user.id.as_str()).await?;
    Ok(shown(call, user, Some(&groups)))
}

fn shown(call: &ScimCall, it: &ScimUser, groups: Option<&[ScimMember]>) -> Value {
    let user = &it.user;
    let roles: Vec<_> = user.roles.iter().map(|role| json!({ "value": role })).collect();
    let mut shown = json!({
        "schemas": [USER, ENTERPRISE],
        "id": user.id,
        "userName": user.name,
        "active": user.disabled_at.is_none(),
        "roles": roles,
        ENTERPRISE: { "department": user.department },
        "meta": {
            "resourceType": "User",
            "created": stamp(user.created_at),
            "lastModified": stamp(it.changed_at),
            "location": call.location("Users", user.id.as_str()),
        },
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let (Some(value), Some(fields)) = (value, shown.as_object_mut()) {
            fields.insert(name.to_owned(), value);
        }
    };
    put("externalId", it.external_id.clone().map(Value::from));
    put("displayName", it.display_name.clone().map(Value::from));
    let group = |group: &ScimMember| json!({ "value": group.id, "display": group.name, "$ref": call.location("Groups", &group.id) });
    put("groups", groups.map(|groups| groups.iter().map(group).collect()));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_of_a_user_is_read_as_it_writes_it() {
        let body = json!({
            "schemas": [USER], "userName": "ann@acme.example", "externalId": "00u1", "displayName": "Ann",
            "name": {"givenName": "Ann"}, "emails": [{"value": "a@b"}], "active": "True", "favourite": 1,
            ENTERPRISE: {"department": "Finance", "manager": {"value": "x"}},
        });
        let draft = UserDraft::read(&body).unwrap();
        assert_eq!(
            draft,
            UserDraft {
                name: "ann@acme.example".to_owned(),
                external_id: Some("00u1".to_owned()),
                display_name: Some("Ann".to_owned()),
                department: Some("Finance".to_owned()),
                active: Some(true),
            }
        );
        let mut patched = draft.clone();
        for (attribute, value) in [
            ("name.familyName", json!("B")),
            ("emails[type eq \"work\"].value", json!("c@d")),
            ("urn:ietf:params:scim:schemas:core:2.0:User:active", json!(false)),
            ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department", json!("Legal")),
            ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:costCenter", json!("1")),
            ("externalId", Value::Null),
        ] {
            patched.set(attribute, &value).unwrap();
        }
        assert_eq!(
            (patched.active, patched.department.as_deref(), patched.external_id),
            (Some(false), Some("Legal"), None)
        );
        for (attribute, value) in [
            ("favourite", json!(1)),
            ("active", json!("maybe")),
            ("userName", json!(1)),
            ("password", json!("x")),
        ] {
            assert!(draft.clone().set(attribute, &value).is_err(), "{attribute}");
        }
        for bad in [
            json!({}),
            json!({"userName": ""}),
            json!({"userName": "u_1"}),
            json!({"userName": "deleted x"}),
            json!({"userName": "a\u{202e}b"}),
            json!({"userName": "a", "externalId": "x".repeat(256)}),
            json!({"userName": "a", "displayName": "\n"}),
            json!({"userName": "a", "active": 1}),
        ] {
            assert!(UserDraft::read(&bad).is_err(), "{bad}");
        }
    }
}
