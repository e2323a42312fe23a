//! `user link-subject` and `user unlink-subject`: whom an identity provider means.

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Change, IdentityContext};
use crate::audit::Action;
use crate::db::user::User;

/// Longest subject (`OpenID` Connect Core 1.0, section 2).
const LONGEST: usize = 255;

impl IdentityContext<'_> {
    /// Links what a provider calls somebody to a user, or takes it away.
    pub(super) async fn subject(
        &mut self,
        user: &User,
        provider: &str,
        subject: &str,
        action: Action,
    ) -> anyhow::Result<Change> {
        let known = self.settings.providers.iter().find(|it| it.name == provider);
        let issuer =
            known.with_context(|| format!("auth.providers has no provider {provider}"))?.issuer.clone();
        let legal = |byte: u8| byte.is_ascii() && !byte.is_ascii_control();
        if subject.is_empty() || subject.len() > LONGEST || !subject.bytes().all(legal) {
            bail!("a subject has 1 to {LONGEST} characters of ASCII");
        }
        let now = self.clock.now();
        if action == Action::SubjectLink {
            if !self.db.link_subject(&issuer, subject, &user.tenant, &user.id, now).await? {
                bail!("{subject} at {provider} is linked already: take it from its user first");
            }
        } else if !self.db.unlink_subject(&issuer, subject, &user.tenant, &user.id, now).await? {
            bail!("{subject} at {provider} is not linked to {}", user.name);
        }
        let subjects: Vec<String> = self
            .db
            .subjects_of(&user.tenant, &user.id)
            .await?
            .into_iter()
            .map(|it| format!("{} {}", it.issuer, it.subject))
            .collect();
        self.show(
            &json!({ "id": user.id, "name": user.name, "subjects": subjects }),
            &["id", "name", "subjects"],
        )?;
        let detail = json!({ "provider": provider, "issuer": issuer, "subject": subject });
        Ok(Change { action, tenant: user.tenant.to_string(), subject: user.id.to_string(), detail })
    }
}
