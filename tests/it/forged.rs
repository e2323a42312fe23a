//! Forged tokens over the wire: each is right in everything but one thing, and signed with a key that somebody has. All of them are told
//! the same, byte for byte; what was wrong stands on the row alone. What the verifier refuses besides, its own tests say.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use sallyport_tests::gateway::TestApp;
use sallyport_tests::wait::{SOON, until};
use serde_json::{Value, json};

use crate::hello;

/// What a gateway's token says, and the key that it is signed with: whoever reads the file has it.
struct Forge {
    key: SigningKey,
    header: Value,
    claims: Value,
}

// === impl Forge ===

impl Forge {
    /// From a token that the gateway gave out, and its own key.
    async fn of(app: &TestApp) -> Self {
        let issued = app.post("/v1/auth/cowork/pat", &[], "").await.json();
        let token = issued["token"].as_str().unwrap().to_owned();
        let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
        let mut json = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
        let key = SigningKey::from_pkcs8_der(&std::fs::read(app.home().join("keys/jwt.pk8")).unwrap());
        Self { header: json(), claims: json(), key: key.unwrap() }
    }

    fn token(&self) -> String {
        signed(&self.key, &self.header.to_string(), &self.claims.to_string())
    }

    fn with(&self, header: &Value, claims: &Value) -> String {
        let merged = |one: &Value, other: &Value| {
            let mut all = one.as_object().unwrap().clone();
            for (name, value) in other.as_object().unwrap() {
                all.insert(name.clone(), value.clone());
            }
            // What is null is left out.
            all.retain(|_, value| !value.is_null());
            Value::Object(all).to_string()
        };
        signed(&self.key, &merged(&self.header, header), &merged(&self.claims, claims))
    }
}

fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_bytes());
    format!("{message}.{signature}")
}

/// The 32 bytes of another key of the gateway, as a key that signs.
fn key_of(app: &TestApp, purpose: &str) -> SigningKey {
    let text = std::fs::read_to_string(app.home().join(format!("keys/{purpose}.key"))).unwrap();
    let digits = text.trim().rsplit(' ').next().unwrap().to_owned();
    let bytes: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2).unwrap(), 16).unwrap()).collect();
    SigningKey::from_bytes(&bytes.try_into().unwrap())
}

/// Name and token of everything that nobody gave out.
fn forgeries(app: &TestApp, forge: &Forge) -> Vec<(String, String)> {
    let (none, hour) = (json!({}), 3600);
    let issued = forge.claims["iat"].as_i64().unwrap();
    let mut all: Vec<(String, String)> = Vec::new();
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "ES256"}),
        json!({"kid": "../../etc/passwd"}),
        json!({"kid": "another-key"}),
        json!({"kid": null}),
        json!({"typ": "JWT"}),
        json!({"typ": null}),
        json!({"jku": "https://evil.example/keys"}),
        json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}}),
        json!({"x5u": "https://evil.example/chain"}),
        json!({"crit": ["exp"]}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
    ] {
        all.push((header.to_string(), forge.with(&header, &none)));
    }
    for claims in [
        json!({"iss": null}),
        json!({"aud": null}),
        json!({"sub": null}),
        json!({"exp": null}),
        json!({"iat": null}),
        json!({"jti": null}),
        json!({"tid": null}),
        json!({"iss": "https://other.example"}),
        json!({"aud": "other"}),
        json!({"aud": [forge.claims["aud"], "other"]}),
        json!({"exp": issued - 31, "iat": issued - hour}),
        json!({"nbf": issued + hour}),
        json!({"iat": issued + hour, "exp": issued + 2 * hour}),
        json!({"exp": issued + 24 * hour}),
        json!({"sub": "u_a\u{0}b"}),
        json!({"sub": "u_a\nb"}),
        json!({"sub": 5}),
        json!({"roles": "platform-admin"}),
        json!({"auth_tier": "mtls"}),
    ] {
        all.push((claims.to_string(), forge.with(&none, &claims)));
    }
    for purpose in ["audit-chain", "component-cache", "evidence", "pat-pepper", "rollback"] {
        let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
        all.push((format!("the key {purpose}"), signed(&key_of(app, purpose), &header, &claims)));
    }
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
    let twice = claims.replacen('{', "{\"sub\":\"u_somebodyelse\",", 1);
    all.push(("a claim twice".to_owned(), signed(&forge.key, &header, &twice)));
    let good = forge.token();
    let (message, signature) = good.rsplit_once('.').unwrap();
    all.push(("no signature".to_owned(), format!("{message}.")));
    all.push(("two parts".to_owned(), message.to_owned()));
    all.push(("a part more".to_owned(), format!("{good}.{signature}")));
    all.push(("padding".to_owned(), format!("{good}==")));
    let admin = forge.claims.to_string().replace("\"member\"", "\"admin\"");
    let raised = URL_SAFE_NO_PAD.encode(admin.replacen('{', "{ ", 1));
    let (head, _) = message.split_once('.').unwrap();
    all.push(("other claims under the same signature".to_owned(), format!("{head}.{raised}.{signature}")));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_token_is_let_in_and_none_is_told_why() {
    let app = TestApp::start().await;
    let forge = Forge::of(&app).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        app.post("/v1/messages", &[("authorization", &bearer)], hello().to_string()).await
    };
    let honest = ask(&forge.token()).await;
    assert_eq!(honest.status, 200, "what the gateway itself would have signed is believed: {honest}");
    let seen = app.upstream.seen();

    let forgeries = forgeries(&app, &forge);
    let mut told = BTreeSet::new();
    for (what, token) in &forgeries {
        let reply = ask(token).await;
        assert_eq!(reply.status, 401, "{what}: {reply}");
        let mut headers: Vec<String> = reply
            .headers
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "request-id" | "date"))
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        let mut body = reply.json();
        body["request_id"] = Value::Null;
        told.insert(format!("{headers:?} {body}"));
    }
    assert_eq!(told.len(), 1, "whoever forges learns nothing: {told:#?}");
    assert_eq!(app.upstream.seen(), seen);
    let rows = until("each of them is a row", SOON, || {
        let mut rows = app.audit_rows();
        rows.retain(|row| row["kind"] == "auth" && row["outcome"] == "denied");
        std::future::ready((rows.len() == forgeries.len()).then_some(rows))
    })
    .await;
    let reasons: BTreeSet<_> = rows.iter().map(|row| row["payload"]["reason"].to_string()).collect();
    assert!(reasons.len() > 5, "the rows say what was wrong: {reasons:?}");
    for row in &rows {
        assert_eq!(row["payload"]["code"], "invalid_token", "{row}");
        assert!(!row.to_string().contains("eyJ"), "a row holds no part of a token: {row}");
    }
}
