//! Issuing access tokens: what a user showed becomes a token of its own, with the seven headers that agree with it.

use sallyport_protocol::canonical;
use sallyport_protocol::headers::{
    CALL_SOURCE, CLIENT_ID, POLICY_VERSION, SESSION_ID, TENANT_ID, TRACE_ID, USER_ID,
};
use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TenantId, TraceId};
use sha2::{Digest as _, Sha256};

use super::jwt::{Claims, Confirmation};
use super::{Auth, AuthFault, Issued, Principal, Tier, form, seconds_of};
use crate::db::DbError;
use crate::db::user::User;

/// Why a certificate that TLS verified signs nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// The connection showed none.
    #[error("no certificate was shown")]
    Missing,
    /// None of its names is linked to a user.
    #[error("the certificate names no user")]
    Unknown,
    /// Its names are linked to different users.
    #[error("the certificate names several users")]
    Ambiguous,
    /// It ends now.
    #[error("the certificate is at its end")]
    Over,
    /// Its user is disabled, or its tenant.
    #[error("the user is disabled")]
    Disabled,
}

/// What goes into a token besides its user.
pub(super) struct TokenGrant {
    /// 16 hex digits: what it comes from.
    pub(super) source: String,
    pub(super) session: SessionId,
    pub(super) scope: String,
    /// It ends no later than this, in seconds since 1970.
    pub(super) until: i64,
    pub(super) tier: Tier,
    pub(super) bound_to: Option<String>,
    pub(super) client: ClientId,
    pub(super) call_source: CallSource,
}

/// A certificate that TLS verified, as far as it matters here.
#[derive(Debug, Clone)]
pub struct ShownCertificate {
    /// The SHA-256 of its DER in base64url: `x5t#S256` (RFC 8705, section 3.1).
    pub thumbprint: String,
    /// Its alternative names, each with its kind before it: `email:alice@example.org`.
    pub names: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub until: i64,
}

// === impl CertificateFault ===

impl CertificateFault {
    /// A stable name for the audit row.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "certificate_missing",
            Self::Unknown => "certificate_unknown",
            Self::Ambiguous => "certificate_ambiguous",
            Self::Over => "certificate_over",
            Self::Disabled => "user_disabled",
        }
    }
}

// === impl Auth ===

impl Auth {
    /// Issues an access token for a certificate, for Cowork, in a session of its own. It is good only where the same certificate is
    /// shown, and ends no later than that does.
    pub async fn exchange_certificate(
        &self,
        shown: Option<&ShownCertificate>,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<(Principal, Issued), AuthFault> {
        if !self.settings.tiers.contains(&Tier::Mtls) {
            return Err(AuthFault::TierDisabled);
        }
        let refused = |fault| Err(AuthFault::Certificate(fault));
        let Some(shown) = shown else { return refused(CertificateFault::Missing) };
        let user = match self.user_of(&shown.names).await? {
            Ok(user) => user,
            Err(fault) => return refused(fault),
        };
        if shown.until <= self.clock.now().unix_timestamp() {
            return refused(CertificateFault::Over);
        }
        let mut source = canonical::hex(&Sha256::digest(&shown.thumbprint));
        source.truncate(16);
        let grant = TokenGrant {
            source,
            session: SessionId::from_bytes(self.random()),
            scope: form::DEFAULT_SCOPE.to_owned(),
            until: shown.until,
            tier: Tier::Mtls,
            bound_to: Some(shown.thumbprint.clone()),
            client: ClientId::cowork(),
            call_source: CallSource::Cowork,
        };
        let policy = policy(&user.tenant);
        self.issue(user, grant, &policy)
    }

    /// Signs a token for a user.
    pub(super) fn issue(
        &self,
        user: User,
        grant: TokenGrant,
        policy: &PolicyVersion,
    ) -> Result<(Principal, Issued), AuthFault> {
        let iat = self.clock.now().unix_timestamp();
        let exp = (iat + seconds_of(self.settings.ttl)).min(grant.until);
        let mut jti = grant.source;
        jti.push('.');
        jti.push_str(&canonical::hex(&self.random()));
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            sub: user.id,
            tid: user.tenant,
            sid: grant.session,
            cid: grant.client,
            roles: user.roles,
            dept: user.department,
            scope: grant.scope,
            pv: policy.clone(),
            src: grant.call_source,
            jti,
            iat,
            exp,
            nbf: None,
            auth_tier: grant.tier,
            cnf: grant.bound_to.map(|thumbprint| Confirmation { thumbprint }),
        };
        let principal = Principal { name: Some(user.name), ..Principal::from(claims.clone()) };
        let needed = self.revoked.load().weakest_tier(&claims.tid);
        if claims.auth_tier < needed {
            return Err(AuthFault::TierTooLow { holder: Box::new(principal), needed });
        }
        let keys = self.keys.load();
        let signer = keys.signer(self.clock.now()).map_err(AuthFault::Issue)?;
        let token = signer.sign(&claims).map_err(AuthFault::Issue)?;
        let headers = [
            (USER_ID, claims.sub.to_string()),
            (SESSION_ID, claims.sid.to_string()),
            (TRACE_ID, TraceId::from_bytes(self.random()).to_string()),
            (CLIENT_ID, claims.cid.to_string()),
            (TENANT_ID, claims.tid.to_string()),
            (POLICY_VERSION, claims.pv.to_string()),
            (CALL_SOURCE, claims.src.to_string()),
        ];
        Ok((principal, Issued { token, ttl_seconds: (exp - iat).unsigned_abs(), headers }))
    }

    /// 16 hex digits for a token that comes from no personal access token.
    pub(super) fn source_id(&self) -> String {
        let mut text = canonical::hex(&self.random());
        text.truncate(16);
        text
    }

    /// The one user that these names of a certificate are linked to.
    async fn user_of(&self, names: &[String]) -> Result<Result<User, CertificateFault>, DbError> {
        let mut found: Option<User> = None;
        for name in names {
            let Some((user, tenant_disabled)) = self.db.user_of_certificate(name).await? else { continue };
            if found.as_ref().is_some_and(|other| other.id != user.id) {
                return Ok(Err(CertificateFault::Ambiguous));
            }
            if tenant_disabled || user.disabled_at.is_some() {
                return Ok(Err(CertificateFault::Disabled));
            }
            found = Some(user);
        }
        Ok(found.ok_or(CertificateFault::Unknown))
    }
}
