//! The one reader of ID tokens of others (`OpenID` Connect Core 1.0, section 3.1.3.7): which algorithms and keys are believed, and what a
//! token has to say to be for this sign-in.
//!
//! As with the gateway's own tokens the library checks the signature, and everything else is checked here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use sallyport_protocol::strict_json;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How far the provider's clock and ours may differ, in seconds.
const LEEWAY: i64 = 60;
/// How long ago a token may have been issued that comes for a code, in seconds: it was made for this sign-in.
const OLDEST: i64 = 600;
/// Most keys of a provider.
const MOST_KEYS: usize = 64;
/// Most groups of a person.
const MOST_GROUPS: usize = 2_000;
/// Largest part of a token.
const LARGEST_PART: usize = 64 * 1024;
/// Longest subject (section 2).
const LONGEST_SUBJECT: usize = 255;

/// What is believed, with the name that it has in a header. No HMAC: its key is no secret here.
const ALGORITHMS: [(&str, Algorithm, KeyForm); 9] = [
    ("RS256", Algorithm::RS256, KeyForm::Rsa),
    ("RS384", Algorithm::RS384, KeyForm::Rsa),
    ("RS512", Algorithm::RS512, KeyForm::Rsa),
    ("PS256", Algorithm::PS256, KeyForm::Rsa),
    ("PS384", Algorithm::PS384, KeyForm::Rsa),
    ("PS512", Algorithm::PS512, KeyForm::Rsa),
    ("ES256", Algorithm::ES256, KeyForm::P256),
    ("ES384", Algorithm::ES384, KeyForm::P384),
    ("EdDSA", Algorithm::EdDSA, KeyForm::Ed25519),
];

/// Why an ID token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenFault {
    /// More bytes than are looked at.
    #[error("the ID token is too large")]
    TooLarge,
    /// Not three parts of base64url, or no strict JSON in them.
    #[error("the ID token is malformed")]
    Form,
    /// Another type, or a header that has to be understood.
    #[error("the token is of another type")]
    Type,
    /// An algorithm that is not believed: `none`, or a shared secret.
    #[error("the algorithm is not believed")]
    Algorithm,
    /// No key of the provider fits.
    #[error("no key of the provider fits")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature does not match")]
    Signature,
    /// Another issuer.
    #[error("the issuer is another")]
    Issuer,
    /// For another client.
    #[error("the audience is another")]
    Audience,
    /// Asked for by another client.
    #[error("the authorized party is another")]
    AuthorizedParty,
    /// Its time is over.
    #[error("the ID token has expired")]
    Expired,
    /// Issued in the future, or long ago.
    #[error("the ID token was not issued now")]
    IssuedAt,
    /// For another sign-in.
    #[error("the nonce is another")]
    Nonce,
    /// A claim is missing, or has another form.
    #[error("a claim is missing, or has another form")]
    Claims,
}

/// Keys that a provider signs with.
pub(super) struct ProviderKeys(Vec<ProviderKey>);

struct ProviderKey {
    id: Option<String>,
    algorithm: Option<String>,
    form: KeyForm,
    key: DecodingKey,
}

/// What kind of key it is. A curve has one algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyForm {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A token taken apart; nobody has looked yet who signed it.
pub(super) struct IdToken<'t> {
    message: &'t str,
    signature: &'t str,
    algorithm: &'static (&'static str, Algorithm, KeyForm),
    key_id: Option<String>,
    claims: Map<String, Value>,
}

/// What a token has to say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    pub(super) name_claim: &'a str,
    pub(super) groups_claim: &'a str,
}

/// Whom a token means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) subject: String,
    pub(super) name: Option<String>,
    pub(super) email: Option<String>,
    /// `None`: the provider does not say.
    pub(super) email_verified: Option<bool>,
    pub(super) groups: Vec<String>,
}

#[derive(Deserialize)]
struct KeyDocument {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct KeyFields {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

// === impl IdTokenFault ===

impl IdTokenFault {
    /// A stable name for the audit row.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "id_token_too_large",
            Self::Form => "id_token_form",
            Self::Type => "id_token_type",
            Self::Algorithm => "id_token_algorithm",
            Self::UnknownKey => "id_token_key",
            Self::Signature => "id_token_signature",
            Self::Issuer => "id_token_issuer",
            Self::Audience => "id_token_audience",
            Self::AuthorizedParty => "id_token_authorized_party",
            Self::Expired => "id_token_expired",
            Self::IssuedAt => "id_token_issued_at",
            Self::Nonce => "id_token_nonce",
            Self::Claims => "id_token_claims",
        }
    }
}

// === impl ProviderKeys ===

impl ProviderKeys {
    /// The keys of a JWK Set (RFC 7517) that sign. Others, and those of kinds that are not believed, are passed over.
    pub(super) fn read(body: &[u8]) -> Result<Self, &'static str> {
        let document: KeyDocument =
            serde_json::from_slice(body).map_err(|_| "its keys are no JSON Web Key Set")?;
        if document.keys.len() > MOST_KEYS {
            return Err("it has too many keys");
        }
        Ok(Self(document.keys.into_iter().filter_map(ProviderKey::read).collect()))
    }

    /// Whether one of them signed it.
    pub(super) fn check(&self, token: &IdToken<'_>) -> Result<(), IdTokenFault> {
        let (name, algorithm, form) = token.algorithm;
        let mut fits = self.0.iter().filter(|key| {
            key.form == *form
                && key.algorithm.as_ref().is_none_or(|it| it == name)
                // A key that is named is asked for by its name.
                && (token.key_id.is_none() || key.id == token.key_id)
        });
        let first = fits.next().ok_or(IdTokenFault::UnknownKey)?;
        let signed = |key: &ProviderKey| {
            let message = token.message.as_bytes();
            jsonwebtoken::crypto::verify(token.signature, message, &key.key, *algorithm).unwrap_or(false)
        };
        if signed(first) || fits.any(signed) { Ok(()) } else { Err(IdTokenFault::Signature) }
    }
}

// === impl ProviderKey ===

impl ProviderKey {
    fn read(value: Value) -> Option<Self> {
        let fields: KeyFields = serde_json::from_value(value).ok()?;
        if fields.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let (form, key) = match (fields.kty.as_str(), fields.crv.as_str()) {
            ("RSA", _) => (KeyForm::Rsa, DecodingKey::from_rsa_components(&fields.n, &fields.e).ok()?),
            ("EC", "P-256") => (KeyForm::P256, DecodingKey::from_ec_components(&fields.x, &fields.y).ok()?),
            ("EC", "P-384") => (KeyForm::P384, DecodingKey::from_ec_components(&fields.x, &fields.y).ok()?),
            ("OKP", "Ed25519") => {
                let bytes = URL_SAFE_NO_PAD.decode(&fields.x).ok()?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(bytes.as_slice().try_into().ok()?).ok()?;
                // Anyone can sign for a key of small order.
                if key.is_weak() {
                    return None;
                }
                (KeyForm::Ed25519, DecodingKey::from_ed_components(&fields.x).ok()?)
            }
            _ => return None,
        };
        Some(Self { id: fields.kid, algorithm: fields.alg, form, key })
    }
}

// === impl IdToken ===

impl<'t> IdToken<'t> {
    /// Takes a token apart.
    pub(super) fn parse(text: &'t str) -> Result<Self, IdTokenFault> {
        let (message, signature) = text.rsplit_once('.').ok_or(IdTokenFault::Form)?;
        let (header, payload) = message.split_once('.').ok_or(IdTokenFault::Form)?;
        // A further dot, padding and white space are no base64url.
        let part = |text: &str| -> Result<Map<String, Value>, IdTokenFault> {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| IdTokenFault::Form)?;
            strict_json::parse(&bytes, LARGEST_PART).map_err(|_| IdTokenFault::Form)
        };
        let header = part(header)?;
        let text_of = |name: &str| header.get(name).and_then(Value::as_str);
        // Before anything else, so that a row says it: the oldest of all attacks.
        let name = text_of("alg").ok_or(IdTokenFault::Algorithm)?;
        let algorithm =
            ALGORITHMS.iter().find(|(known, ..)| *known == name).ok_or(IdTokenFault::Algorithm)?;
        let is_jwt =
            header.get("typ").is_none_or(|it| it.as_str().is_some_and(|it| it.eq_ignore_ascii_case("JWT")));
        if !is_jwt || header.contains_key("crit") {
            return Err(IdTokenFault::Type);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(IdTokenFault::Form),
        };
        Ok(Self { message, signature, algorithm, key_id, claims: part(payload)? })
    }

    /// Whom it means, if it is for this sign-in. Who signed it was looked at before.
    pub(super) fn person(&self, expected: &Expected<'_>, now: i64) -> Result<Person, IdTokenFault> {
        if self.text("iss") != Some(expected.issuer) {
            return Err(IdTokenFault::Issuer);
        }
        let client = expected.client_id;
        let alone = match self.claims.get("aud") {
            Some(Value::String(one)) if one == client => true,
            Some(Value::Array(many)) if many.iter().any(|it| it == client) => many.len() == 1,
            _ => return Err(IdTokenFault::Audience),
        };
        match self.claims.get("azp") {
            Some(party) if party.as_str() != Some(client) => return Err(IdTokenFault::AuthorizedParty),
            // Of several audiences one has to be named that it was made for.
            None if !alone => return Err(IdTokenFault::AuthorizedParty),
            _ => {}
        }
        let time = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().filter(|at| *at >= 0).map(Some).ok_or(IdTokenFault::Claims),
        };
        let ends = time("exp")?.ok_or(IdTokenFault::Claims)?;
        let issued = time("iat")?.ok_or(IdTokenFault::Claims)?;
        if now >= ends.saturating_add(LEEWAY) {
            return Err(IdTokenFault::Expired);
        }
        if issued > now + LEEWAY
            || issued < now - OLDEST - LEEWAY
            || time("nbf")?.is_some_and(|at| at > now + LEEWAY)
        {
            return Err(IdTokenFault::IssuedAt);
        }
        if self.text("nonce") != Some(expected.nonce) {
            return Err(IdTokenFault::Nonce);
        }
        let subject = self.text("sub").ok_or(IdTokenFault::Claims)?;
        let is_subject = !subject.is_empty()
            && subject.len() <= LONGEST_SUBJECT
            && subject.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_control());
        if !is_subject {
            return Err(IdTokenFault::Claims);
        }
        // Some providers write it as text.
        let email_verified = match self.claims.get("email_verified") {
            None => None,
            Some(Value::Bool(verified)) => Some(*verified),
            Some(Value::String(text)) => Some(text == "true"),
            Some(_) => Some(false),
        };
        Ok(Person {
            subject: subject.to_owned(),
            name: self.text(expected.name_claim).map(str::to_owned),
            email: self.text("email").map(str::to_owned),
            email_verified,
            groups: self.groups(expected.groups_claim)?,
        })
    }

    fn groups(&self, claim: &str) -> Result<Vec<String>, IdTokenFault> {
        match self.claims.get(claim) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one.clone()]),
            Some(Value::Array(many)) if many.len() <= MOST_GROUPS => {
                let name = |value: &Value| value.as_str().map(str::to_owned).ok_or(IdTokenFault::Claims);
                many.iter().map(name).collect()
            }
            Some(_) => Err(IdTokenFault::Claims),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }
}
