//! What was revoked, held in memory so that a token costs no query, and replaced as a whole when the epoch moves.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sallyport_protocol::id::TenantId;
use time::OffsetDateTime;

use super::entitlement::Entitlements;
use super::jwt::{Claims, JwtFault};
use super::{Tier, UsableModels};
use crate::db::{Db, DbError};

/// Revocations older than this can only concern tokens that have expired: the longest life, the leeway, and an hour for
/// clocks that disagree.
const HORIZON: Duration = Duration::from_mins(121);

/// Everything that voids a token, as of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    epoch: i64,
    users: HashMap<String, i64>,
    sessions: HashSet<String>,
    tokens: HashSet<String>,
    pats: HashSet<String>,
    disabled_users: HashSet<String>,
    disabled_tenants: HashSet<String>,
    /// The weakest tier of tenants that do not take every one.
    weakest_tiers: HashMap<String, Tier>,
    entitlements: Entitlements,
}

// === impl Revoked ===

impl Revoked {
    /// Reads what is stored. The epoch is read first: a change in between is seen twice rather than missed.
    pub(crate) async fn load(db: &Db, now: OffsetDateTime) -> Result<Self, DbError> {
        let mut all = Self { epoch: db.auth_epoch().await?, ..Self::default() };
        for row in db.revocations(now - HORIZON).await? {
            match row.kind.as_str() {
                "user" => {
                    all.users.insert(row.subject, row.revoked_at.unix_timestamp());
                }
                "session" => {
                    all.sessions.insert(row.subject);
                }
                "token" => {
                    all.tokens.insert(row.subject);
                }
                "pat" => {
                    all.pats.insert(row.subject);
                }
                "disabled_user" => {
                    all.disabled_users.insert(row.subject);
                }
                "disabled_tenant" => {
                    all.disabled_tenants.insert(row.subject);
                }
                other => {
                    tracing::warn!(kind = other, "a revocation of a kind that this version does not know");
                }
            }
        }
        for (tenant, tier) in db.weakest_tiers().await? {
            // A word that this version does not know asks for more than it knows.
            let tier = Tier::parse(&tier).unwrap_or(Tier::Mtls);
            all.weakest_tiers.insert(tenant, tier);
        }
        all.entitlements = Entitlements::load(db).await?;
        Ok(all)
    }

    /// The weakest tier that a tenant takes.
    pub(crate) fn weakest_tier(&self, tenant: &TenantId) -> Tier {
        self.weakest_tiers.get(tenant.as_str()).copied().unwrap_or(Tier::Pat)
    }

    /// The models that somebody of a tenant may call.
    pub(crate) fn usable_models(&self, tenant: &TenantId, roles: &[String]) -> UsableModels {
        self.entitlements.of(tenant, roles)
    }

    /// Which state of the database this is.
    pub(crate) const fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether the token is still good.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), JwtFault> {
        if self.disabled_tenants.contains(claims.tid.as_str()) {
            return Err(JwtFault::TenantDisabled);
        }
        if self.disabled_users.contains(claims.sub.as_str()) {
            return Err(JwtFault::UserDisabled);
        }
        if self.users.get(claims.sub.as_str()).is_some_and(|until| claims.iat <= *until) {
            return Err(JwtFault::UserRevoked);
        }
        if self.sessions.contains(claims.sid.as_str()) {
            return Err(JwtFault::SessionRevoked);
        }
        if claims.pat().is_some_and(|pat| self.pats.contains(pat)) {
            return Err(JwtFault::PatRevoked);
        }
        if self.tokens.contains(&claims.jti) {
            return Err(JwtFault::Revoked);
        }
        Ok(())
    }
}
