//! `role ..`: which models roles may call.

use std::io::Write as _;

use anyhow::bail;
use serde_json::json;

use super::{Change, IdentityContext, RoleCommand};
use crate::audit::Action;
use crate::auth::{MOST_PATTERNS, form, is_pattern};

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
                (Action::RoleAllowModels, tenant, role, pattern)
            }
            RoleCommand::DisallowModels { role, pattern, tenant } => {
                let tenant = self.known_tenant(&tenant).await?;
                if !self.db.disallow_models(&tenant, &role, &pattern).await? {
                    bail!("{pattern} is not listed for {role} in tenant {tenant}");
                }
                (Action::RoleDisallowModels, tenant, role, pattern)
            }
        };
        let counts = self.db.tenant(&tenant).await?.is_some_and(|tenant| tenant.models != "all");
        let shown = json!({ "role": role, "pattern": pattern, "tenant": tenant, "counts": counts });
        self.show(&shown, &["role", "pattern", "tenant", "counts"])?;
        if !counts && !self.json {
            let said = format!("Everybody of {tenant} may call every model: sallyport tenant set-models {tenant} listed");
            writeln!(self.out, "{said}")?;
        }
        let detail = json!({ "pattern": pattern });
        Ok(Some(Change { action, tenant: tenant.to_string(), subject: role, detail }))
    }
}
