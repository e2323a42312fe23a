//! The gateway's access token: what it says, how it is signed, and the one verifier that decides whether it is believed.
//!
//! The library checks the signature. Everything else is checked here, because its defaults accept what we must not:
//! a missing audience, any `typ`, unknown header parameters, a name that stands twice.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TenantId, UserId};
use sallyport_protocol::strict_json;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{Tier, form, keys};

/// The largest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// How far our clock and the issuer's may differ, in seconds.
pub(crate) const LEEWAY: i64 = 30;
/// The longest life of a token, in seconds. No leeway: both ends are the issuer's own clock.
pub(crate) const MAX_LIFETIME: i64 = 3600;

const TYP: &str = "at+jwt";
const MAX_KID: usize = 64;

/// Why a token is not believed. The client learns none of it; the audit row holds [`JwtFault::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtFault {
    /// More than [`MAX_TOKEN`] bytes.
    #[error("the token is too large")]
    TooLarge,
    /// Not three parts of unpadded base64url.
    #[error("the token has another form")]
    Form,
    /// The header is not strict JSON, or lacks `alg`, `typ` or `kid`, or one of them is no text.
    #[error("the header of the token is malformed")]
    Header,
    /// The header has a parameter besides `alg`, `typ` and `kid`, such as `jku`, `jwk`, `x5c` or `crit`.
    #[error("the header of the token has a parameter that we do not use")]
    HeaderParameter,
    /// Not `EdDSA`.
    #[error("the token names another algorithm")]
    Algorithm,
    /// Not `at+jwt`: perhaps an id token.
    #[error("the token is of another type")]
    Type,
    /// The key id has characters or a length that our key ids do not have.
    #[error("the key id is malformed")]
    KeyId,
    /// None of our keys.
    #[error("the key is not known")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature does not match")]
    Signature,
    /// The claims are not strict JSON: perhaps a name stands twice.
    #[error("the claims are malformed")]
    Claims,
    /// A claim that every token has is not there.
    #[error("a claim is missing")]
    ClaimMissing,
    /// A claim that we never write, and that this verifier could not check.
    #[error("a claim is not known")]
    ClaimUnknown,
    /// A claim has the wrong type or form.
    #[error("a claim has another type")]
    ClaimType,
    /// Issued by somebody else.
    #[error("the issuer is another")]
    Issuer,
    /// Not for us, or not for us alone.
    #[error("the audience is another")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come, or it was issued in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It ends before it begins, or lives longer than any token may.
    #[error("the token lives too long")]
    Lifetime,
    /// Issued on a tier that is switched off.
    #[error("the tier is not enabled")]
    Tier,
    /// This token was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// Its session was revoked.
    #[error("the session was revoked")]
    SessionRevoked,
    /// The personal access token it was exchanged for was revoked.
    #[error("the personal access token behind it was revoked")]
    PatRevoked,
    /// Everything issued to its user until then was revoked.
    #[error("the tokens of the user were revoked")]
    UserRevoked,
    /// The user is disabled.
    #[error("the user is disabled")]
    UserDisabled,
    /// The tenant is disabled.
    #[error("the tenant is disabled")]
    TenantDisabled,
}

/// What a token says. Every claim is there in every token; `dept` is null where the user has no department.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) sub: UserId,
    pub(crate) tid: TenantId,
    pub(crate) sid: SessionId,
    pub(crate) cid: ClientId,
    pub(crate) roles: Vec<String>,
    #[serde(deserialize_with = "present")]
    pub(crate) dept: Option<String>,
    pub(crate) scope: String,
    pub(crate) pv: PolicyVersion,
    pub(crate) src: CallSource,
    /// `<16 hex>.<32 hex>`. The first part is the id of the personal access token, where there is one: what revokes the one voids
    /// the other.
    pub(crate) jti: String,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    pub(crate) auth_tier: Tier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cnf: Option<Confirmation>,
}

/// What the bearer of a token has to prove besides (RFC 7800).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    /// That it holds the key of this certificate: the SHA-256 of its DER in base64url (RFC 8705, section 3.1).
    #[serde(rename = "x5t#S256")]
    pub(crate) thumbprint: String,
}

const REQUIRED: [&str; 15] = [
    "iss",
    "aud",
    "sub",
    "tid",
    "sid",
    "cid",
    "roles",
    "dept",
    "scope",
    "pv",
    "src",
    "jti",
    "iat",
    "exp",
    "auth_tier",
];

const OPTIONAL: [&str; 2] = ["nbf", "cnf"];

/// Signs tokens with one key.
pub(crate) struct Signer {
    key: EncodingKey,
    header: Header,
    public: VerifyingKey,
    kid: String,
}

/// Believes tokens that one of its keys signed for one audience.
pub(crate) struct Verifier {
    keys: Vec<(String, DecodingKey)>,
    issuer: String,
    audience: String,
    tiers: Vec<Tier>,
}

/// A token taken apart: what was signed and the signature as they stand, header and payload decoded.
struct TokenParts<'a> {
    message: &'a str,
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: &'a str,
}

/// The signing key is unusable: it cannot be encoded, or its public half is of small order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key for access tokens cannot be used")]
pub struct BadKey;

// === impl JwtFault ===

impl JwtFault {
    /// A stable name for the audit row.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Form => "token_form",
            Self::Header => "token_header",
            Self::HeaderParameter => "token_header_parameter",
            Self::Algorithm => "token_algorithm",
            Self::Type => "token_type",
            Self::KeyId => "token_key_id",
            Self::UnknownKey => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Claims => "token_claims",
            Self::ClaimMissing => "token_claim_missing",
            Self::ClaimUnknown => "token_claim_unknown",
            Self::ClaimType => "token_claim_type",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Lifetime => "token_lifetime",
            Self::Tier => "token_tier",
            Self::Revoked => "token_revoked",
            Self::SessionRevoked => "session_revoked",
            Self::PatRevoked => "pat_revoked",
            Self::UserRevoked => "user_revoked",
            Self::UserDisabled => "user_disabled",
            Self::TenantDisabled => "tenant_disabled",
        }
    }
}

// === impl Claims ===

impl Claims {
    /// The personal access token that it was exchanged for.
    pub(crate) fn pat(&self) -> Option<&str> {
        self.jti.split_once('.').map(|(pat, _)| pat).filter(|_| self.auth_tier == Tier::Pat)
    }

    /// From when on it is not accepted, in seconds since 1970.
    pub(crate) const fn ends(&self) -> i64 {
        self.exp + LEEWAY
    }

    /// Whether it is good at `now`, in seconds since 1970.
    pub(crate) fn check_times(&self, now: i64) -> Result<(), JwtFault> {
        let lifetime = self.exp.saturating_sub(self.iat);
        if lifetime <= 0 || lifetime > MAX_LIFETIME {
            return Err(JwtFault::Lifetime);
        }
        if self.iat > now + LEEWAY || self.nbf.is_some_and(|nbf| nbf > now + LEEWAY) {
            return Err(JwtFault::NotYetValid);
        }
        if now > self.ends() {
            return Err(JwtFault::Expired);
        }
        Ok(())
    }

    fn well_formed(&self) -> bool {
        form::token_id(&self.jti)
            && self.roles.len() <= form::MAX_ROLES
            && self.roles.iter().all(|role| form::role(role))
            && self.dept.as_deref().is_none_or(form::label)
            && form::scopes(&self.scope).is_some()
            && self.cnf.as_ref().is_none_or(|it| form::thumbprint(&it.thumbprint))
            // A certificate binds all that it was exchanged for, and nothing else.
            && self.cnf.is_some() == (self.auth_tier == Tier::Mtls)
            && [Some(self.iat), Some(self.exp), self.nbf].into_iter().flatten().all(|at| at >= 0)
    }
}

// === impl Signer ===

impl Signer {
    pub(crate) fn new(key: &SigningKey) -> Self {
        let public = key.verifying_key();
        let kid = key_id(&public);
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(kid.clone());
        Self { key: EncodingKey::from_ed_der(&keys::to_pkcs8(key)), header, public, kid }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, BadKey> {
        jsonwebtoken::encode(&self.header, claims, &self.key).map_err(|_| BadKey)
    }

    /// Signs an ID token: what a client learns of its user, and good for nothing at the gateway, which takes another type.
    pub(crate) fn sign_id(&self, claims: &Value) -> Result<String, BadKey> {
        let header = Header { typ: Some("JWT".to_owned()), ..self.header.clone() };
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| BadKey)
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) const fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// What lets others verify our tokens.
    pub(crate) fn jwk(&self) -> Value {
        serde_json::json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": "EdDSA",
            "kid": self.kid,
            "x": URL_SAFE_NO_PAD.encode(self.public.as_bytes()),
        })
    }
}

// === impl Verifier ===

impl Verifier {
    pub(crate) fn new(
        keys: &[VerifyingKey],
        issuer: &str,
        audience: &str,
        tiers: &[Tier],
    ) -> Result<Self, BadKey> {
        let keys = keys
            .iter()
            .map(|key| {
                // Anyone can sign for a key of small order.
                if key.is_weak() {
                    return Err(BadKey);
                }
                Ok((key_id(key), DecodingKey::from_ed_der(key.as_bytes())))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned(), tiers: tiers.to_vec() })
    }

    /// What the token says, if we signed it. Whether it is good now, and whether it was revoked, are other questions:
    /// [`Claims::check_times`], [`Revoked::check`](super::revocation::Revoked::check).
    pub(crate) fn signed(&self, token: &str) -> Result<Claims, JwtFault> {
        if token.len() > MAX_TOKEN {
            return Err(JwtFault::TooLarge);
        }
        let parts = split(token)?;
        let key = self.key_for(&parts.header)?;
        // The signature alone: the library's reading of the claims is laxer than ours.
        match jsonwebtoken::crypto::verify(parts.signature, parts.message.as_bytes(), key, Algorithm::EdDSA) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(JwtFault::Signature),
        }
        // From here on the bytes are ours, unless a key was stolen or shared.
        self.claims(&parts.payload)
    }

    fn key_for(&self, header: &[u8]) -> Result<&DecodingKey, JwtFault> {
        let header: Map<String, Value> =
            strict_json::parse(header, MAX_TOKEN).map_err(|_| JwtFault::Header)?;
        if header.keys().any(|name| !matches!(name.as_str(), "alg" | "typ" | "kid")) {
            return Err(JwtFault::HeaderParameter);
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        if text("alg").ok_or(JwtFault::Header)? != "EdDSA" {
            return Err(JwtFault::Algorithm);
        }
        if text("typ").ok_or(JwtFault::Type)? != TYP {
            return Err(JwtFault::Type);
        }
        let kid = text("kid").ok_or(JwtFault::KeyId)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if kid.is_empty() || kid.len() > MAX_KID || !kid.bytes().all(legal) {
            return Err(JwtFault::KeyId);
        }
        let known = self.keys.iter().find(|(id, _)| id == kid);
        known.map(|(_, key)| key).ok_or(JwtFault::UnknownKey)
    }

    fn claims(&self, payload: &[u8]) -> Result<Claims, JwtFault> {
        let claims: Map<String, Value> =
            strict_json::parse(payload, MAX_TOKEN).map_err(|_| JwtFault::Claims)?;
        if REQUIRED.iter().any(|name| !claims.contains_key(*name)) {
            return Err(JwtFault::ClaimMissing);
        }
        if claims.keys().any(|name| !OPTIONAL.contains(&name.as_str()) && !REQUIRED.contains(&name.as_str()))
        {
            return Err(JwtFault::ClaimUnknown);
        }
        let is = |name: &str, want: &str| claims.get(name).and_then(Value::as_str) == Some(want);
        if !is("iss", &self.issuer) {
            return Err(JwtFault::Issuer);
        }
        if !is("aud", &self.audience) {
            return Err(JwtFault::Audience);
        }
        let claims: Claims =
            serde_json::from_value(Value::Object(claims)).map_err(|_| JwtFault::ClaimType)?;
        if !claims.well_formed() {
            return Err(JwtFault::ClaimType);
        }
        if !self.tiers.contains(&claims.auth_tier) {
            return Err(JwtFault::Tier);
        }
        Ok(claims)
    }
}

/// The RFC 7638 thumbprint of the key: whoever has the key can compute its id.
pub(crate) fn key_id(key: &VerifyingKey) -> String {
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    let mut canonical = String::from(r#"{"crv":"Ed25519","kty":"OKP","x":""#);
    canonical.push_str(&x);
    canonical.push_str(r#""}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()))
}

fn split(token: &str) -> Result<TokenParts<'_>, JwtFault> {
    let (message, signature) = token.rsplit_once('.').ok_or(JwtFault::Form)?;
    let (header, payload) = message.split_once('.').ok_or(JwtFault::Form)?;
    // A further dot, padding and white space are no base64url.
    let decode = |part: &str| match URL_SAFE_NO_PAD.decode(part) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(JwtFault::Form),
    };
    if decode(signature)?.len() != ed25519_dalek::SIGNATURE_LENGTH {
        return Err(JwtFault::Form);
    }
    Ok(TokenParts { message, header: decode(header)?, payload: decode(payload)?, signature })
}

/// An `Option` that has to be written, if only as null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests;
