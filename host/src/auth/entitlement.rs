//! Which models a caller may use, of what the tenant's roles list: held in memory beside what was revoked, and as fresh.

use std::collections::HashMap;
use std::sync::Arc;

use sallyport_protocol::glob;
use sallyport_protocol::id::TenantId;

use crate::db::user::User;
use crate::db::{Db, DbError};

/// Patterns that a tenant may list.
pub const MOST_PATTERNS: i64 = 1_000;
/// Longest pattern.
const LONGEST_PATTERN: usize = 128;

/// What roles list, by tenant; a tenant that is not here lets everybody call every model.
#[derive(Debug, Default)]
pub(super) struct Entitlements {
    tenants: HashMap<String, HashMap<String, Vec<String>>>,
}

/// The models that somebody may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UsableModels {
    /// Every one.
    #[default]
    All,
    /// Those that match one of these patterns.
    Listed(Arc<[String]>),
}

// === impl Entitlements ===

impl Entitlements {
    pub(super) async fn load(db: &Db) -> Result<Self, DbError> {
        let (closed, listed) = db.entitlements().await?;
        let mut tenants: HashMap<String, HashMap<String, Vec<String>>> =
            closed.into_iter().map(|tenant| (tenant, HashMap::new())).collect();
        for row in listed {
            tenants.entry(row.tenant_id).or_default().entry(row.role).or_default().push(row.pattern);
        }
        Ok(Self { tenants })
    }

    /// What somebody with these roles may call.
    pub(super) fn of(&self, tenant: &TenantId, roles: &[String]) -> UsableModels {
        let Some(listed) = self.tenants.get(tenant.as_str()) else { return UsableModels::All };
        let patterns = roles.iter().filter_map(|role| listed.get(role)).flatten().cloned();
        UsableModels::Listed(patterns.collect())
    }
}

// === impl UsableModels ===

impl UsableModels {
    /// What a user may call, read anew: for who asks once, and serves nobody.
    pub async fn read(db: &Db, user: &User) -> Result<Self, DbError> {
        Ok(Entitlements::load(db).await?.of(&user.tenant, &user.roles))
    }

    /// Whether a model is one of them.
    pub fn has(&self, model: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(patterns) => patterns.iter().any(|pattern| glob::matches(pattern, model)),
        }
    }
}

/// Whether a text is a pattern that may be listed.
pub fn is_pattern(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_PATTERN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_add_up_and_where_nothing_is_listed_for_them_nothing_may_be_called() {
        let listed = HashMap::from([
            ("author".to_owned(), vec!["claude-opus-*".to_owned()]),
            ("member".to_owned(), vec!["claude-haiku-*".to_owned(), "gpt-5".to_owned()]),
        ]);
        let all = Entitlements { tenants: HashMap::from([("acme".to_owned(), listed)]) };
        let acme = TenantId::parse("acme").unwrap();
        let of = |roles: &[&str]| {
            let roles: Vec<_> = roles.iter().map(|role| (*role).to_owned()).collect();
            let models = all.of(&acme, &roles);
            ["claude-opus-4-5", "claude-haiku-4-5", "gpt-5", "gpt-5-mini"].map(|model| models.has(model))
        };
        assert_eq!(of(&["author", "member"]), [true, true, true, false]);
        assert_eq!(of(&["member"]), [false, true, true, false]);
        assert_eq!(of(&["admin"]), [false; 4]);
        assert_eq!(of(&[]), [false; 4]);
        assert_eq!(all.of(&TenantId::parse("other").unwrap(), &[]), UsableModels::All);
        assert!(
            is_pattern("claude-*") && !is_pattern("") && !is_pattern("a b") && !is_pattern(&"x".repeat(129))
        );
    }
}
