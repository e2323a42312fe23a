//! Access tokens: what the gateway believes is what another reader believes and reads in the same way.

use std::sync::LazyLock;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::package::changed;
use crate::tree::Tree;

/// The gateway's verifier as it is: a file that needs little of the gateway, which would take an hour to build with these flags. What
/// it needs stands below, or comes from files of its own.
#[path = "../../host/src/auth/jwt.rs"]
#[allow(dead_code, clippy::pedantic, reason = "what only the gateway asks for")]
mod reader;

#[path = "../../host/src/auth/form.rs"]
#[allow(dead_code, reason = "what only the gateway asks for")]
mod form;

/// As `host/src/auth.rs` has it: what a token says of how its user signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tier {
    Pat,
    Session,
    Mtls,
}

mod keys {
    /// Nothing is signed by the gateway's code here.
    pub(super) fn to_pkcs8(_: &ed25519_dalek::SigningKey) -> Vec<u8> {
        Vec::new()
    }
}

const ISSUER: &str = "https://gateway.example";
const AUDIENCE: &str = "cowork";

/// A key, its verifier, and a token that is genuine.
struct Issuer {
    key: SigningKey,
    verifier: reader::Verifier,
    header: String,
    token: String,
}

static GENUINE: LazyLock<Issuer> = LazyLock::new(|| {
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = key.verifying_key();
    let verifier =
        reader::Verifier::new(&[public], ISSUER, AUDIENCE, &[Tier::Pat, Tier::Session, Tier::Mtls]);
    let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": reader::key_id(&public) }).to_string();
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "u_00112233445566778899aabbccddeeff", "tid": "acme",
        "sid": "sess_00112233445566778899aabbccddeeff", "cid": "sp_cowork", "roles": ["member"], "dept": "Finance",
        "scope": "inference", "pv": "sha256:00ff", "src": "cowork", "jti": "0011223344556677.00112233445566778899aabbccddeeff",
        "iat": 1_800_000_000, "exp": 1_800_003_600, "auth_tier": "pat",
    });
    let token = signed(&key, header.as_bytes(), claims.to_string().as_bytes());
    let verifier = verifier.unwrap_or_else(|_| panic!("the key is a good one"));
    assert!(verifier.signed(&token).is_ok(), "the genuine token is not believed");
    Issuer { key, verifier, header, token }
});

/// Panics where a token is believed that another reader refuses or reads otherwise. The first byte, by three: what follows is a token; or
/// header and claims in two lines, which are signed (an empty first line: the header of the genuine token); or a list of changes to a
/// genuine token.
pub fn check(data: &[u8]) {
    let genuine = &*GENUINE;
    let Some((how, rest)) = data.split_first() else { return };
    let token = match how % 3 {
        0 => rest.to_vec(),
        1 => {
            let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (header, claims) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
            let header = if header.is_empty() { genuine.header.as_bytes() } else { header };
            signed(&genuine.key, header, claims).into_bytes()
        }
        _ => changed(genuine.token.as_bytes(), rest),
    };
    let Ok(token) = String::from_utf8(token) else { return };
    let Ok(claims) = genuine.verifier.signed(&token) else { return };
    let ours = serde_json::to_vec(&claims).expect("claims can be written");
    let ours = Tree::parse(&ours).expect("and read again");
    let theirs = independent(&token, &genuine.key.verifying_key())
        .unwrap_or_else(|why| panic!("a token is believed that another reader refuses ({why}): {token}"));
    for (name, value) in ours.members() {
        assert_eq!(theirs.last(name), Some(value), "{name} has two readings");
    }
    // What may be absent may be null as well.
    let more =
        theirs.members().iter().filter(|(name, value)| ours.last(name).is_none() && *value != Tree::Null);
    assert_eq!(more.count(), 0, "a claim is believed and not read: {theirs:?}");
}

/// The claims of a token, read by the letter of RFC 7515 and RFC 9068.
fn independent(token: &str, key: &VerifyingKey) -> Result<Tree, &'static str> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Err("three parts") };
    let signature = Signature::from_slice(&base64url(signature).ok_or("signature")?).map_err(|_| "length")?;
    key.verify_strict(format!("{header}.{claims}").as_bytes(), &signature).map_err(|_| "signature")?;
    let header = object(header).ok_or("header")?;
    let is = |tree: &Tree, name: &str, text: &str| tree.last(name).and_then(Tree::text) == Some(text);
    if !is(&header, "alg", "EdDSA") || !is(&header, "typ", "at+jwt") || header.members().len() != 3 {
        return Err("what the header says");
    }
    if !is(&header, "kid", &reader::key_id(key)) {
        return Err("key");
    }
    let claims = object(claims).ok_or("claims")?;
    if !is(&claims, "iss", ISSUER) || !is(&claims, "aud", AUDIENCE) {
        return Err("issuer or audience");
    }
    for name in ["iat", "exp"] {
        if !matches!(claims.last(name), Some(Tree::Whole(_))) {
            return Err("times");
        }
    }
    Ok(claims)
}

/// A part of a token: an object in which every name stands once, whatever the case of its letters.
fn object(part: &str) -> Option<Tree> {
    let tree = Tree::parse(&base64url(part)?)?;
    (matches!(tree, Tree::Object(_)) && !tree.is_ambiguous()).then_some(tree)
}

/// Base64url without padding, of which there is one spelling for each text (RFC 4648, section 3.5).
fn base64url(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut held, mut bytes) = (0_u32, 0_u32, Vec::new());
    for byte in text.bytes() {
        let value = u32::try_from(ALPHABET.iter().position(|letter| *letter == byte)?).ok()?;
        bits = (bits << 6) | value;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(bytes)
}

fn signed(key: &SigningKey, header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = key.sign(message.as_bytes()).to_bytes();
    format!("{message}.{}", encoded(&signature))
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
