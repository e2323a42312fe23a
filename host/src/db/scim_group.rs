//! Groups that an identity provider keeps over SCIM, their members, and what roles follow: whatever changes one of it changes the roles of
//! those whom it concerns in the same transaction.

use sallyport_protocol::id::TenantId;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::scim::ScimFilter;
use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// The role of whoever a provider keeps.
pub const MEMBER: &str = "member";

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ScimGroup {
    /// Its id.
    pub id: String,
    /// Its name, unique within the tenant.
    pub name: String,
    /// What the provider calls it.
    pub external_id: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub changed_at: OffsetDateTime,
}

/// Somebody in a group, or a group that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ScimMember {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
}

/// A role that follows from a group.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct GroupRole {
    /// The group's name.
    pub name: String,
    /// The role.
    pub role: String,
}

/// One change of who is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStep {
    /// These and nobody else.
    Replace(Vec<String>),
    /// These too.
    Add(Vec<String>),
    /// These no more.
    Remove(Vec<String>),
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupEnd {
    /// It is stored.
    Done,
    /// There is no such group.
    Gone,
    /// Its name is taken.
    NameTaken,
    /// Somebody is named whom the provider does not keep.
    NoSuchUser,
    /// There are too many members.
    TooMany,
}

/// Who is in a group now, within a transaction.
macro_rules! members {
    ($tx:expr, $group:expr) => {{
        let members: Vec<String> =
            sqlx::query_scalar("SELECT user_id FROM scim_members WHERE group_id = $1 ORDER BY user_id")
                .bind($group)
                .fetch_all(&mut *$tx)
                .await?;
        members
    }};
}

/// Gives users the roles that follow from their groups; whose change, their sessions and tokens end.
macro_rules! derive_roles {
    ($tx:expr, $tenant:expr, $users:expr, $now:expr) => {
        for user in $users {
            let given: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT r.role FROM group_roles r \
                 JOIN scim_groups g ON g.tenant_id = r.tenant_id AND g.name = r.name \
                 JOIN scim_members m ON m.group_id = g.id \
                 WHERE r.tenant_id = $1 AND m.user_id = $2 ORDER BY r.role",
            )
            .bind($tenant)
            .bind(user)
            .fetch_all(&mut *$tx)
            .await?;
            let had: Option<Json<Vec<String>>> =
                sqlx::query_scalar("SELECT roles FROM users WHERE tenant_id = $1 AND id = $2")
                    .bind($tenant)
                    .bind(user)
                    .fetch_optional(&mut *$tx)
                    .await?;
            let roles = roles_of(given);
            if had.is_some_and(|had| had.0 != roles) {
                sqlx::query("UPDATE users SET roles = $3 WHERE tenant_id = $1 AND id = $2")
                    .bind($tenant)
                    .bind(user)
                    .bind(Json(&roles))
                    .execute(&mut *$tx)
                    .await?;
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at",
                )
                .bind(user)
                .bind($now)
                .execute(&mut *$tx)
                .await?;
                sqlx::query(AUTH_MOVED).execute(&mut *$tx).await?;
            }
        }
    };
}

// === impl Db ===

impl Db {
    /// A page of a tenant's groups, and how many there are.
    pub async fn scim_groups(
        &self,
        tenant: &TenantId,
        filter: &ScimFilter,
        skip: i64,
        most: i64,
    ) -> Result<(i64, Vec<ScimGroup>), DbError> {
        let (name, external_id) = filter.parts();
        let total = reading!(self, pool => sqlx::query_scalar(
            "SELECT COUNT(*) FROM scim_groups \
             WHERE tenant_id = $1 AND ($2 = '' OR name = $2) AND ($3 = '' OR external_id = $3)")
            .bind(tenant.as_str()).bind(name).bind(external_id).fetch_one(pool).await?);
        let groups = reading!(self, pool => sqlx::query_as(
            "SELECT id, name, external_id, created_at, changed_at FROM scim_groups \
             WHERE tenant_id = $1 AND ($2 = '' OR name = $2) AND ($3 = '' OR external_id = $3) \
             ORDER BY created_at, id LIMIT $4 OFFSET $5")
            .bind(tenant.as_str()).bind(name).bind(external_id).bind(most).bind(skip).fetch_all(pool).await?);
        Ok((total, groups))
    }

    /// One of them.
    pub async fn scim_group(&self, tenant: &TenantId, id: &str) -> Result<Option<ScimGroup>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT id, name, external_id, created_at, changed_at FROM scim_groups WHERE tenant_id = $1 AND id = $2")
            .bind(tenant.as_str()).bind(id).fetch_optional(pool).await?))
    }

    /// Who is in a group.
    pub async fn scim_members(&self, group: &str) -> Result<Vec<ScimMember>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.name FROM scim_members m JOIN users u ON u.id = m.user_id WHERE m.group_id = $1 ORDER BY u.id")
            .bind(group).fetch_all(pool).await?))
    }

    /// The groups that somebody is in.
    pub async fn scim_groups_of(&self, user: &str) -> Result<Vec<ScimMember>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT g.id, g.name FROM scim_members m JOIN scim_groups g ON g.id = m.group_id WHERE m.user_id = $1 ORDER BY g.id")
            .bind(user).fetch_all(pool).await?))
    }

    /// Stores a new group, or what a provider says of one now, and who is in it.
    pub async fn put_scim_group(
        &self,
        tenant: &TenantId,
        group: &ScimGroup,
        is_new: bool,
        steps: &[MemberStep],
        most: usize,
    ) -> Result<GroupEnd, DbError> {
        let (tenant, now) = (tenant.as_str(), seconds(group.changed_at));
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let taken: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM scim_groups WHERE tenant_id = $1 AND id <> $2 AND name = $3")
                .bind(tenant).bind(&group.id).bind(&group.name).fetch_one(&mut *tx).await?;
            if taken > 0 {
                tx.rollback().await?;
                return Ok(GroupEnd::NameTaken);
            }
            if is_new {
                sqlx::query(
                    "INSERT INTO scim_groups (id, tenant_id, name, external_id, created_at, changed_at) \
                     VALUES ($1, $2, $3, $4, $5, $5)")
                    .bind(&group.id).bind(tenant).bind(&group.name).bind(&group.external_id).bind(now)
                    .execute(&mut *tx).await?;
            } else {
                let found = sqlx::query(
                    "UPDATE scim_groups SET name = $3, external_id = $4, changed_at = $5 WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant).bind(&group.id).bind(&group.name).bind(&group.external_id).bind(now)
                    .execute(&mut *tx).await?.rows_affected();
                if found != 1 {
                    tx.rollback().await?;
                    return Ok(GroupEnd::Gone);
                }
            }
            let before = members!(tx, &group.id);
            for step in steps {
                let (removed, added) = match step {
                    MemberStep::Replace(members) | MemberStep::Add(members) => (&[][..], members.as_slice()),
                    MemberStep::Remove(members) => (members.as_slice(), &[][..]),
                };
                if matches!(step, MemberStep::Replace(_)) {
                    sqlx::query("DELETE FROM scim_members WHERE group_id = $1")
                        .bind(&group.id).execute(&mut *tx).await?;
                }
                for member in removed {
                    sqlx::query("DELETE FROM scim_members WHERE group_id = $1 AND user_id = $2")
                        .bind(&group.id).bind(member).execute(&mut *tx).await?;
                }
                for member in added {
                    let known: i64 = sqlx::query_scalar(
                        "SELECT COUNT(*) FROM scim_users WHERE tenant_id = $1 AND user_id = $2")
                        .bind(tenant).bind(member).fetch_one(&mut *tx).await?;
                    if known == 0 {
                        tx.rollback().await?;
                        return Ok(GroupEnd::NoSuchUser);
                    }
                    sqlx::query("INSERT INTO scim_members (group_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                        .bind(&group.id).bind(member).execute(&mut *tx).await?;
                }
            }
            let after = members!(tx, &group.id);
            if after.len() > most {
                tx.rollback().await?;
                return Ok(GroupEnd::TooMany);
            }
            // Of a group with another name everybody may have other roles.
            let concerned: std::collections::BTreeSet<String> = before.into_iter().chain(after).collect();
            derive_roles!(tx, tenant, &concerned, now);
            tx.commit().await?;
        });
        Ok(GroupEnd::Done)
    }

    /// Forgets a group; `false` if there is none.
    pub async fn delete_scim_group(
        &self,
        tenant: &TenantId,
        id: &str,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let now = seconds(now);
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let before = members!(tx, id);
            let found = sqlx::query("DELETE FROM scim_groups WHERE tenant_id = $1 AND id = $2")
                .bind(tenant.as_str()).bind(id).execute(&mut *tx).await?.rows_affected();
            if found == 1 {
                derive_roles!(tx, tenant.as_str(), &before, now);
            }
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Has a role follow from a group, or no more; `false` if nothing changes, or the tenant's groups give `most` roles already.
    pub async fn set_group_role(
        &self,
        tenant: &TenantId,
        rule: &GroupRole,
        follows: bool,
        now: OffsetDateTime,
        most: i64,
    ) -> Result<bool, DbError> {
        let (tenant, now) = (tenant.as_str(), seconds(now));
        let changed = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let changed = if follows {
                sqlx::query(
                    "INSERT INTO group_roles (tenant_id, name, role, created_at) SELECT $1, $2, $3, $4 \
                     WHERE (SELECT COUNT(DISTINCT role) FROM group_roles WHERE tenant_id = $1 AND role <> $3) < $5 \
                     ON CONFLICT DO NOTHING")
                    .bind(tenant).bind(&rule.name).bind(&rule.role).bind(now).bind(most)
                    .execute(&mut *tx).await?.rows_affected()
            } else {
                sqlx::query("DELETE FROM group_roles WHERE tenant_id = $1 AND name = $2 AND role = $3")
                    .bind(tenant).bind(&rule.name).bind(&rule.role).execute(&mut *tx).await?.rows_affected()
            };
            let concerned: Vec<String> = sqlx::query_scalar(
                "SELECT m.user_id FROM scim_members m JOIN scim_groups g ON g.id = m.group_id \
                 WHERE g.tenant_id = $1 AND g.name = $2 ORDER BY m.user_id")
                .bind(tenant).bind(&rule.name).fetch_all(&mut *tx).await?;
            derive_roles!(tx, tenant, &concerned, now);
            tx.commit().await?;
            changed
        });
        Ok(changed == 1)
    }

    /// Which roles follow from which groups of a tenant.
    pub async fn group_roles(&self, tenant: &TenantId) -> Result<Vec<GroupRole>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT name, role FROM group_roles WHERE tenant_id = $1 ORDER BY name, role")
            .bind(tenant.as_str()).fetch_all(pool).await?))
    }
}

// === private helpers ===

/// The roles of somebody to whom groups give these.
fn roles_of(given: Vec<String>) -> Vec<String> {
    let others = given.into_iter().filter(|role| role != MEMBER);
    std::iter::once(MEMBER.to_owned()).chain(others).collect()
}
