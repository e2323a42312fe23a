//! An identity provider at which people of stories sign in. It keeps to `OpenID` Connect, until a story has it lie.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::browser::{encode, query};
use crate::upstream::{Script, Seen, Step, Upstream};

/// Who the gateway is there.
pub const CLIENT: &str = "gateway client";
/// What proves it.
pub const SECRET: &str = "a secret: of the gateway";

/// What a story may have it do otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The token names another issuer.
    Issuer,
    /// It is for another client.
    Audience,
    /// It is for several, and says not for whom it was made.
    Audiences,
    /// It was made for another client.
    AuthorizedParty,
    /// It is for another sign-in.
    Nonce,
    /// It is for no sign-in.
    NoNonce,
    /// Its time is over.
    Expired,
    /// It was issued in an hour.
    Future,
    /// It was issued yesterday.
    Old,
    /// Nobody signed it.
    Unsigned,
    /// It is signed by HMAC with the public key.
    Hmac,
    /// Another key signed it, and it says that it was the one that is known.
    OtherKey,
    /// It is an access token.
    Type,
    /// A name stands in it twice.
    Twice,
    /// It means nobody.
    NoSubject,
    /// There is none.
    NoToken,
    /// The endpoint answers with a page.
    Html,
    /// It leads elsewhere.
    Redirect,
    /// It answers a gibibyte.
    Huge,
    /// It does not answer.
    Hang,
    /// It fails.
    Fails,
    /// It has forgotten the code.
    Refuses,
}

/// A provider, and its server.
#[derive(Debug)]
pub struct IdentityProvider {
    server: Upstream,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    issuer: String,
    /// The key that signs.
    key: SigningKey,
    /// Those that are published.
    published: Vec<Value>,
    /// What was asked for each code that is not used yet.
    codes: BTreeMap<String, Asked>,
    count: usize,
    lie: Option<Lie>,
    /// Whether it says in each answer who answers.
    names_itself: bool,
    metadata: Option<Value>,
}

#[derive(Debug)]
struct SigningKey {
    pair: KeyPair,
    algorithm: Algorithm,
    id: String,
}

#[derive(Debug)]
struct Asked {
    challenge: String,
    nonce: String,
    redirect: String,
    person: Value,
}

// === impl IdentityProvider ===

impl IdentityProvider {
    /// One that keeps to the rules.
    pub fn start() -> Self {
        let server = Upstream::start();
        let key = SigningKey::new("first");
        let state = State {
            issuer: server.url(),
            published: vec![key.public()],
            key,
            codes: BTreeMap::new(),
            count: 0,
            lie: None,
            names_itself: true,
            metadata: None,
        };
        let state = Arc::new(Mutex::new(state));
        let answering = Arc::clone(&state);
        server.choose(move |seen| lock(&answering).answer(seen));
        Self { server, state }
    }

    /// Its entry in `auth.providers`.
    pub fn entry(&self, name: &str) -> Value {
        json!({"name": name, "label": "The <Directory>", "issuer": self.issuer(), "client_id": CLIENT, "secret": "directory",
            "create_users": true})
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        self.server.url()
    }

    /// What it was asked.
    pub fn requests(&self) -> Vec<Seen> {
        self.server.requests()
    }

    /// From now on it lies so, or not any more.
    pub fn lies(&self, lie: Option<Lie>) {
        lock(&self.state).lie = lie;
    }

    /// Whether it says in each answer who answers (RFC 9207).
    pub fn names_itself(&self, names: bool) {
        lock(&self.state).names_itself = names;
    }

    /// What it says of itself from now on.
    pub fn says_of_itself(&self, metadata: Option<Value>) {
        lock(&self.state).metadata = metadata;
    }

    /// What it says of itself when it does not lie.
    pub fn metadata(&self) -> Value {
        lock(&self.state).document()
    }

    /// Signs with another key from now on. The one before is published no more.
    pub fn exchanges_its_key(&self, id: &str) {
        self.takes(SigningKey::new(id));
    }

    /// The same, with a key of RSA.
    pub fn exchanges_its_key_for_rsa(&self, id: &str) {
        self.takes(SigningKey::rsa(id));
    }

    fn takes(&self, key: SigningKey) {
        let mut state = lock(&self.state);
        state.key = key;
        let public = state.key.public();
        state.published = vec![public];
    }

    /// Somebody whom the gateway sent to `url` signs in: where the browser is sent.
    pub fn signs_in(&self, url: &str, person: Value) -> String {
        let get = |name: &str| query(url, name).unwrap_or_default();
        assert!(url.starts_with(&format!("{}/authorize?", self.issuer())), "{url}");
        assert_eq!((get("response_type").as_str(), get("client_id").as_str()), ("code", CLIENT), "{url}");
        assert_eq!(get("code_challenge_method"), "S256");
        assert!(get("scope").split(' ').any(|scope| scope == "openid"));
        let mut state = lock(&self.state);
        state.count += 1;
        let code = format!("code-{}", state.count);
        let redirect = get("redirect_uri");
        let asked = Asked {
            challenge: get("code_challenge"),
            nonce: get("nonce"),
            redirect: redirect.clone(),
            person,
        };
        state.codes.insert(code.clone(), asked);
        let path = redirect.splitn(4, '/').nth(3).unwrap_or_default();
        let issuer =
            if state.names_itself { format!("&iss={}", encode(&state.issuer)) } else { String::new() };
        format!("/{path}?code={code}&state={}{issuer}", get("state"))
    }
}

// === impl State ===

impl State {
    fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        })
    }

    fn answer(&mut self, seen: &Seen) -> Script {
        match (seen.method.as_str(), seen.target.as_str()) {
            ("GET", "/.well-known/openid-configuration") => {
                ok(&self.metadata.clone().unwrap_or_else(|| self.document()))
            }
            ("GET", "/keys") => ok(&json!({"keys": self.published})),
            ("POST", "/token") => self.token(seen),
            _ => Script::Status(404, Vec::new(), Bytes::new()),
        }
    }

    fn token(&mut self, seen: &Seen) -> Script {
        let head = |status: &str, more: &str| Bytes::from(format!("HTTP/1.1 {status}\r\n{more}\r\n\r\n"));
        match self.lie {
            Some(Lie::Html) => {
                let media = vec![("content-type".to_owned(), "text/html".to_owned())];
                return Script::Status(200, media, Bytes::from("<html>Sign in</html>"));
            }
            Some(Lie::Redirect) => {
                let elsewhere = vec![("location".to_owned(), format!("{}/elsewhere", self.issuer))];
                return Script::Status(307, elsewhere, Bytes::new());
            }
            Some(Lie::Huge) => {
                let piece = Bytes::from(vec![b' '; 64 * 1024]);
                let begin = head("200 OK", "content-type: application/json\r\ncontent-length: 1073741824");
                return Script::Steps(vec![
                    Step::Write(begin),
                    Step::Repeat(piece, 16_384, std::time::Duration::ZERO),
                ]);
            }
            Some(Lie::Hang) => return Script::Steps(vec![Step::Hang]),
            Some(Lie::Fails) => return Script::Status(503, Vec::new(), Bytes::new()),
            Some(Lie::Refuses) => return refused("invalid_grant"),
            _ => {}
        }
        let body = format!("/?{}", String::from_utf8_lossy(&seen.body));
        let get = |name: &str| query(&body, name).unwrap_or_default();
        let expected = format!("{}:{}", encode(CLIENT), encode(SECRET));
        let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(expected));
        if seen.header("authorization") != Some(&expected) {
            return Script::Status(401, Vec::new(), json!({"error": "invalid_client"}).to_string().into());
        }
        let Some(asked) = self.codes.remove(&get("code")) else { return refused("invalid_grant") };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(get("code_verifier")));
        if challenge != asked.challenge
            || get("redirect_uri") != asked.redirect
            || get("grant_type") != "authorization_code"
        {
            return refused("invalid_grant");
        }
        if self.lie == Some(Lie::NoToken) {
            return ok(&json!({"access_token": "a", "token_type": "Bearer"}));
        }
        ok(
            &json!({"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": self.id_token(&asked)}),
        )
    }

    fn id_token(&self, asked: &Asked) -> String {
        let now = now();
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked.nonce, "sub": "1",
        });
        let mut put = |name: &str, value: Value| claims[name] = value;
        for (name, value) in asked.person.as_object().into_iter().flatten() {
            put(name, value.clone());
        }
        match self.lie {
            Some(Lie::Issuer) => put("iss", json!("https://elsewhere.example")),
            Some(Lie::Audience) => put("aud", json!("another client")),
            Some(Lie::Audiences) => put("aud", json!([CLIENT, "another client"])),
            Some(Lie::AuthorizedParty) => put("azp", json!("another client")),
            Some(Lie::Nonce) => put("nonce", json!("another nonce")),
            Some(Lie::NoNonce) => put("nonce", Value::Null),
            Some(Lie::Expired) => put("exp", json!(now - 120)),
            Some(Lie::Future) => put("iat", json!(now + 3600)),
            Some(Lie::Old) => put("iat", json!(now - 86_400)),
            Some(Lie::NoSubject) => put("sub", Value::Null),
            _ => {}
        }
        let header = |alg: &str, typ: &str| json!({"alg": alg, "typ": typ, "kid": self.key.id}).to_string();
        match self.lie {
            Some(Lie::Unsigned) => raw(&header("none", "JWT"), &claims.to_string(), b""),
            Some(Lie::Hmac) => {
                let mut header = Header::new(Algorithm::HS256);
                header.kid = Some(self.key.id.clone());
                let key = EncodingKey::from_secret(self.key.pair.der_bytes());
                jsonwebtoken::encode(&header, &claims, &key).expect("the library signs")
            }
            Some(Lie::OtherKey) => SigningKey { id: self.key.id.clone(), ..SigningKey::new("other") }
                .sign("JWT", &claims.to_string()),
            Some(Lie::Type) => self.key.sign("at+jwt", &claims.to_string()),
            Some(Lie::Twice) => {
                let text = claims.to_string();
                let twice = text.replacen('{', r#"{"sub":"2","#, 1);
                self.key.sign("JWT", &twice)
            }
            _ => self.key.sign("JWT", &claims.to_string()),
        }
    }
}

// === impl SigningKey ===

impl SigningKey {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key can be made");
        Self { pair, algorithm: Algorithm::ES256, id: id.to_owned() }
    }

    fn rsa(id: &str) -> Self {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        Self { pair: pair.expect("a key can be made"), algorithm: Algorithm::RS256, id: id.to_owned() }
    }

    fn private(&self) -> EncodingKey {
        let pkcs8 = self.pair.serialize_der();
        match self.algorithm {
            // RSA's own form stands in it, behind 26 bytes that say so.
            Algorithm::RS256 => EncodingKey::from_rsa_der(pkcs8.get(26..).unwrap_or_default()),
            _ => EncodingKey::from_ec_der(&pkcs8),
        }
    }

    fn public(&self) -> Value {
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.private(), self.algorithm);
        let mut jwk = serde_json::to_value(jwk.expect("a key has a public half")).expect("a key is JSON");
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    fn sign(&self, typ: &str, claims: &str) -> String {
        let header = json!({"alg": self.algorithm, "typ": typ, "kid": self.id}).to_string();
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.private(), self.algorithm);
        format!("{message}.{}", signature.expect("the library signs"))
    }
}

// === private helpers ===

fn raw(header: &str, claims: &str, signature: &[u8]) -> String {
    [header.as_bytes(), claims.as_bytes(), signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

fn ok(body: &Value) -> Script {
    let media = vec![("content-type".to_owned(), "application/json".to_owned())];
    Script::Status(200, media, body.to_string().into())
}

fn refused(error: &str) -> Script {
    let media = vec![("content-type".to_owned(), "application/json".to_owned())];
    Script::Status(400, media, json!({ "error": error }).to_string().into())
}

#[expect(clippy::disallowed_methods, reason = "the gateway of a story has the real time")]
fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
