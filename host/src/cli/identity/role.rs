//! `role ..`: which models roles may call.

use anyhow::bail;
use sallyport_protocol::id::TenantId;
use serde_json::json;

use super::{Change, IdentityContext, RoleCommand};
use crate::audit::Action;
use crate::auth::{MOST_PATTERNS, form, is_pattern, role_fits};
use crate::db::scim_group::GroupRole;

impl IdentityContext<'_> {
    pub(super) async fn role(&mut self, command: RoleCommand) -> anyhow::Result<Option<Change>> {
        let columns = ["role", "pattern"];
        let (action, tenant, role, pattern) = match command {
            RoleCommand::Models { tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                let listed = self.db.role_models(&tenant).await?;
                let rows = listed.iter().map(|it| json!({ "role": it.role, "pattern": it.pattern }));
                self.list(rows.collect(), &columns)?;
                return Ok(None);
            }
            RoleCommand::AllowModels { role, pattern, tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                if !form::role(&role) {
                    bail!("role {role} is refused: a role has lower-case letters, digits, - and _");
                }
                if !is_pattern(&pattern) {
                    bail!("a pattern is the name of a model, with * for any run of characters");
                }
                let now = self.clock.now();
                if !self.db.allow_models(&tenant, &role, &pattern, now, MOST_PATTERNS).await? {
                    bail!("a tenant lists at most {MOST_PATTERNS} patterns");
                }
                (Action::RoleAllow, tenant, role, pattern)
            }
            RoleCommand::DisallowModels { role, pattern, tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                if !self.db.disallow_models(&tenant, &role, &pattern).await? {
                    bail!("{pattern} is not listed for {role} in tenant {tenant}");
                }
                (Action::RoleDisallow, tenant, role, pattern)
            }
            RoleCommand::Groups { tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                let rules = self.db.group_roles(&tenant).await?;
                let rows = rules.iter().map(|it| json!({ "group": it.name, "role": it.role }));
                self.list(rows.collect(), &["group", "role"])?;
                return Ok(None);
            }
            RoleCommand::GiveGroup { role, group, tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                return self.group(tenant, role, group, true).await.map(Some);
            }
            RoleCommand::TakeGroup { role, group, tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                return self.group(tenant, role, group, false).await.map(Some);
            }
        };
        let counts = self.db.tenant(&tenant).await?.is_some_and(|tenant| tenant.models != "all");
        let shown = json!({ "role": role, "pattern": pattern, "tenant": tenant, "counts": counts });
        self.show(&shown, &["role", "pattern", "tenant", "counts"])?;
        if !counts && !self.json {
            let said = format!(
                "Everybody of {tenant} may call every model: sallyport tenant set-models {tenant} listed"
            );
            writeln!(self.out, "{said}")?;
        }
        let detail = json!({ "pattern": pattern });
        Ok(Some(Change { action, tenant: tenant.to_string(), subject: role, detail }))
    }

    /// Has a role follow from a group, or no more.
    async fn group(
        &mut self,
        tenant: TenantId,
        role: String,
        group: String,
        follows: bool,
    ) -> anyhow::Result<Change> {
        if !form::role(&role) || !form::label(&group) {
            bail!("a role has lower-case letters, digits, - and _, and a group's name 1 to 128 characters");
        }
        if !role_fits(&role, &tenant) {
            bail!("the role {role} is the platform's: who administers {tenant} has the role tenant-admin");
        }
        let rule = GroupRole { name: group, role };
        // `member` is everybody's.
        let most = i64::try_from(form::MAX_ROLES).unwrap_or(1) - 1;
        if !self.db.set_group_role(&tenant, &rule, follows, self.clock.now(), most).await? {
            bail!("nothing changes, or groups of {tenant} give {most} roles already");
        }
        self.show(
            &json!({ "role": rule.role, "group": rule.name, "tenant": tenant }),
            &["role", "group", "tenant"],
        )?;
        let action = if follows { Action::GroupGive } else { Action::GroupTake };
        let detail = json!({ "group": rule.name });
        Ok(Change { action, tenant: tenant.to_string(), subject: rule.role, detail })
    }
}
