//! What the verifier refuses, forged by hand: each token is right in everything but what its story names.

#![expect(clippy::string_slice, reason = "tokens are ASCII")]

use ed25519_dalek::Signer as _;
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://gateway.example";

struct Forge {
    key: SigningKey,
    header: Value,
    claims: Value,
}

impl Forge {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": key_id(&key.verifying_key()) });
        let claims = json!({
            "iss": ISSUER,
            "aud": "cowork",
            "sub": "u_00112233445566778899aabbccddeeff",
            "tid": "acme",
            "sid": "sess_00112233445566778899aabbccddeeff",
            "cid": "sp_cowork",
            "roles": ["member"],
            "dept": "Finance",
            "scope": "inference",
            "pv": "sha256:00ff",
            "src": "cowork",
            "jti": "0011223344556677.00112233445566778899aabbccddeeff",
            "iat": NOW,
            "exp": NOW + 3600,
            "auth_tier": "pat",
        });
        Self { key, header, claims }
    }

    fn header(mut self, name: &str, value: Value) -> Self {
        self.header[name] = value;
        self
    }

    fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims[name] = value;
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.header.as_object_mut().unwrap().remove(name);
        self.claims.as_object_mut().unwrap().remove(name);
        self
    }

    fn token(&self) -> String {
        self.sign_raw(&self.header.to_string(), &self.claims.to_string())
    }

    fn sign_raw(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(message.as_bytes()).to_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn verifier() -> Verifier {
    let key = Forge::new().key.verifying_key();
    Verifier::new(&[key], ISSUER, "cowork", &[Tier::Pat]).unwrap()
}

/// What a token says that is good at [`NOW`].
fn verify(verifier: &Verifier, token: &str) -> Result<Claims, JwtFault> {
    let claims = verifier.signed(token)?;
    claims.check_times(NOW).map(|()| claims)
}

fn verdict(token: &str) -> Result<(), JwtFault> {
    verify(&verifier(), token).map(|_| ())
}

#[track_caller]
fn refused(forge: &Forge, why: JwtFault) {
    assert_eq!(verdict(&forge.token()), Err(why), "{} {}", forge.header, forge.claims);
}

#[test]
fn a_token_of_ours_is_believed() {
    let claims = verify(&verifier(), &Forge::new().token()).unwrap();
    assert_eq!(serde_json::to_value(&claims).unwrap(), Forge::new().claims);
    assert_eq!(claims.pat(), Some("0011223344556677"));
    assert_eq!(verdict(&Forge::new().claim("dept", Value::Null).token()), Ok(()));
    assert_eq!(verdict(&Forge::new().claim("nbf", json!(NOW)).token()), Ok(()));
}

#[test]
fn what_the_signer_writes_the_verifier_reads() {
    let signer = Signer::new(&Forge::new().key);
    let claims: Claims = serde_json::from_value(Forge::new().claims).unwrap();
    let token = signer.sign(&claims).unwrap();
    assert_eq!(verify(&verifier(), &token), Ok(claims));
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&header).unwrap(), Forge::new().header);
}

#[test]
fn no_algorithm_but_ours_is_accepted() {
    for alg in ["none", "None", "NONE", "HS256", "RS256", "ES256", "PS512", "EDDSA", "Ed25519", ""] {
        refused(&Forge::new().header("alg", json!(alg)), JwtFault::Algorithm);
    }
    refused(&Forge::new().without("alg"), JwtFault::Header);
    refused(&Forge::new().header("alg", json!(["EdDSA"])), JwtFault::Header);

    // Signed with our public key as if it were a shared secret.
    let forge = Forge::new().header("alg", json!("HS256"));
    let token = forge.token();
    let (message, _) = token.rsplit_once('.').unwrap();
    let secret = EncodingKey::from_secret(forge.key.verifying_key().as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
    assert!(verdict(&format!("{message}.{signature}")).is_err());
    // Unsigned.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    let payload = token.split('.').nth(1).unwrap();
    assert_eq!(verdict(&format!("{header}.{payload}.")), Err(JwtFault::Form));
}

#[test]
fn a_key_id_is_one_of_ours_and_nothing_else() {
    for kid in ["../../etc/passwd", "' OR 1=1 --", "https://evil.example/key", "a b", "", "k\n", "é"] {
        refused(&Forge::new().header("kid", json!(kid)), JwtFault::KeyId);
    }
    refused(&Forge::new().header("kid", json!("a".repeat(65))), JwtFault::KeyId);
    refused(&Forge::new().header("kid", json!(5)), JwtFault::KeyId);
    refused(&Forge::new().without("kid"), JwtFault::KeyId);
    refused(&Forge::new().header("kid", json!("a".repeat(10 * 1024))), JwtFault::TooLarge);
    refused(&Forge::new().header("kid", json!("unknown")), JwtFault::UnknownKey);
    let ours = key_id(&Forge::new().key.verifying_key());
    refused(&Forge::new().header("kid", json!(ours.to_lowercase())), JwtFault::UnknownKey);
}

#[test]
fn a_token_signed_by_another_key_is_refused_whatever_key_id_it_states() {
    // Another gateway's key, a retired key, the key of the manifest or of the audit chain: all are other keys.
    let mut forge = Forge::new();
    forge.key = SigningKey::from_bytes(&[8; 32]);
    refused(&forge, JwtFault::Signature);
    let kid = key_id(&forge.key.verifying_key());
    refused(&forge.header("kid", json!(kid)), JwtFault::UnknownKey);
}

#[test]
fn a_header_cannot_bring_its_own_key_or_its_own_rules() {
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/cert")),
        ("jwk", json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" })),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AA")),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("enc", json!("A256GCM")),
    ] {
        refused(&Forge::new().header(name, value), JwtFault::HeaderParameter);
    }
}

#[test]
fn only_an_access_token_is_an_access_token() {
    for typ in ["JWT", "jwt", "id_token", "AT+JWT", "application/at+jwt", "at+jwt ", ""] {
        refused(&Forge::new().header("typ", json!(typ)), JwtFault::Type);
    }
    refused(&Forge::new().header("typ", json!(5)), JwtFault::Type);
    refused(&Forge::new().without("typ"), JwtFault::Type);
}

#[test]
fn every_claim_has_to_be_there() {
    for name in REQUIRED {
        refused(&Forge::new().without(name), JwtFault::ClaimMissing);
    }
    // A token bound to a certificate must not pass where nobody checks the certificate.
    refused(&Forge::new().claim("act", json!({ "sub": "u_1" })), JwtFault::ClaimUnknown);
}

#[test]
fn every_claim_has_its_type() {
    for name in REQUIRED {
        let wrong = match name {
            "iat" | "exp" => {
                vec![json!("5"), json!([]), json!(""), json!(1.5), json!(-1), Value::Null, json!({})]
            }
            "roles" => {
                vec![json!(5), json!("member"), json!(""), json!([5]), json!([[]]), Value::Null, json!({})]
            }
            "dept" => vec![json!(5), json!([]), json!(""), json!({}), json!(true)],
            _ => vec![json!(5), json!([]), json!(""), Value::Null, json!({}), json!(true)],
        };
        for wrong in wrong {
            let forge = Forge::new().claim(name, wrong);
            let fault = verdict(&forge.token()).unwrap_err();
            let legal = match name {
                "iss" => fault == JwtFault::Issuer,
                "aud" => fault == JwtFault::Audience,
                "iat" | "exp" => matches!(fault, JwtFault::ClaimType),
                _ => fault == JwtFault::ClaimType,
            };
            assert!(legal, "{name}: {fault:?} for {}", forge.claims);
        }
    }
    refused(&Forge::new().claim("nbf", json!("soon")), JwtFault::ClaimType);
}

#[test]
fn an_id_that_could_break_a_log_line_or_a_query_is_refused() {
    for name in ["sub", "tid", "sid", "cid", "pv", "jti", "scope", "src", "auth_tier", "dept"] {
        for bad in [
            "u_a\0",
            "u_a\n",
            "sess_a\r\nx: y",
            "sp_\u{7f}",
            "a\u{202e}b",
            "'; DROP TABLE users; --\n",
            "\u{0}",
        ] {
            refused(&Forge::new().claim(name, json!(bad)), JwtFault::ClaimType);
        }
    }
    for role in ["Admin", "admin\n", "a b", ""] {
        refused(&Forge::new().claim("roles", json!([role])), JwtFault::ClaimType);
    }
    let roles: Vec<_> = (0..33).map(|n| format!("r{n}")).collect();
    refused(&Forge::new().claim("roles", json!(roles)), JwtFault::ClaimType);
}

#[test]
fn a_token_for_somebody_else_or_for_others_too_is_refused() {
    for aud in [json!("billing"), json!("Cowork"), json!(["cowork"]), json!(["cowork", "billing"]), json!([])]
    {
        refused(&Forge::new().claim("aud", aud), JwtFault::Audience);
    }
    for iss in ["https://gateway.example/", "https://evil.example", "HTTPS://gateway.example"] {
        refused(&Forge::new().claim("iss", json!(iss)), JwtFault::Issuer);
    }
    refused(&Forge::new().claim("scope", json!("inference root")), JwtFault::ClaimType);
    refused(&Forge::new().claim("auth_tier", json!("mtls")), JwtFault::ClaimType);
    let none = Verifier::new(&[Forge::new().key.verifying_key()], ISSUER, "cowork", &[]).unwrap();
    assert_eq!(verify(&none, &Forge::new().token()), Err(JwtFault::Tier));
}

#[test]
fn time_is_judged_to_the_second_with_half_a_minute_of_grace() {
    let lives = |iat: i64, exp: i64| Forge::new().claim("iat", json!(iat)).claim("exp", json!(exp));
    assert_eq!(verdict(&lives(NOW - 3600, NOW).token()), Ok(()));
    assert_eq!(verdict(&lives(NOW - 3000, NOW - 30).token()), Ok(()));
    refused(&lives(NOW - 3000, NOW - 31), JwtFault::Expired);
    assert_eq!(verdict(&lives(NOW + 30, NOW + 60).token()), Ok(()));
    refused(&lives(NOW + 31, NOW + 60), JwtFault::NotYetValid);
    assert_eq!(verdict(&Forge::new().claim("nbf", json!(NOW + 30)).token()), Ok(()));
    refused(&Forge::new().claim("nbf", json!(NOW + 31)), JwtFault::NotYetValid);
    refused(&lives(NOW, NOW + 3601), JwtFault::Lifetime);
    refused(&lives(NOW, NOW), JwtFault::Lifetime);
    refused(&lives(NOW, NOW - 5), JwtFault::Lifetime);
    refused(&lives(0, 9_007_199_254_740_991), JwtFault::Lifetime);
    // Milliseconds instead of seconds.
    refused(&lives(NOW * 1000, NOW * 1000 + 3600), JwtFault::NotYetValid);
}

#[test]
fn a_name_that_stands_twice_is_refused_in_header_and_claims() {
    let forge = Forge::new();
    let header = forge.header.to_string();
    let claims = forge.claims.to_string();
    let twice =
        |json: &str, name: &str, value: &str| json.replacen('{', &format!("{{\"{name}\":{value},"), 1);
    for name in REQUIRED {
        let value = forge.claims[name].to_string();
        let token = forge.sign_raw(&header, &twice(&claims, name, &value));
        assert_eq!(verdict(&token), Err(JwtFault::Claims), "{name}");
    }
    let admin = twice(&claims, "sub", "\"u_admin\"");
    assert_eq!(verdict(&forge.sign_raw(&header, &admin)), Err(JwtFault::Claims));
    // The same name, once with an escape.
    let escaped = twice(&claims, "s\\u0075b", "\"u_admin\"");
    assert_eq!(verdict(&forge.sign_raw(&header, &escaped)), Err(JwtFault::Claims));
    for name in ["alg", "typ", "kid"] {
        let value = forge.header[name].to_string();
        let token = forge.sign_raw(&twice(&header, name, &value), &claims);
        assert_eq!(verdict(&token), Err(JwtFault::Header), "{name}");
    }
}

#[test]
fn a_header_or_claims_that_are_no_json_object_are_refused() {
    let forge = Forge::new();
    let header = forge.header.to_string();
    let claims = forge.claims.to_string();
    for wrong in ["[]", "null", "5", "\"x\"", "{", "{} {}", "\u{feff}{}", "{\"a\":1}x"] {
        assert_eq!(verdict(&forge.sign_raw(wrong, &claims)), Err(JwtFault::Header), "{wrong}");
        assert_eq!(verdict(&forge.sign_raw(&header, wrong)), Err(JwtFault::Claims), "{wrong}");
    }
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert_eq!(verdict(&forge.sign_raw(&deep, &claims)), Err(JwtFault::Header));
    assert_eq!(verdict(&forge.sign_raw(&header, &deep)), Err(JwtFault::Claims));
}

#[test]
fn every_single_bit_of_a_token_counts() {
    let token = Forge::new().token();
    let verifier = verifier();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            // What is no UTF-8 never gets here as a string.
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(verify(&verifier, &text).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn every_single_bit_of_the_decoded_claims_counts() {
    let token = Forge::new().token();
    let parts: Vec<_> = token.split('.').collect();
    let payload = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let verifier = verifier();
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut flipped = payload.clone();
            flipped[at] ^= 1 << bit;
            let token = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(flipped), parts[2]);
            assert_eq!(verify(&verifier, &token), Err(JwtFault::Signature), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_token_cut_anywhere_is_refused() {
    let token = Forge::new().token();
    for at in 0..token.len() {
        assert!(verdict(&token[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_token_with_anything_added_is_refused() {
    let token = Forge::new().token();
    let parts: Vec<_> = token.split('.').collect();
    for wrong in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.AA"),
        format!("{token}="),
        format!("{token}=="),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}A"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
        format!("{}.{} .{}", parts[0], parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        String::from(".."),
        String::from("é.é.é"),
        String::new(),
    ] {
        assert_eq!(verdict(&wrong), Err(JwtFault::Form), "{wrong}");
    }
    assert_eq!(verdict(&"a".repeat(1024 * 1024)), Err(JwtFault::TooLarge));
}

#[test]
fn a_signature_with_another_encoding_of_the_same_number_is_refused() {
    // S + L signs the same message for a lax verifier: a second token from the first.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10_u8,
    ];
    let token = Forge::new().token();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(
        verdict(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))),
        Err(JwtFault::Signature)
    );
}

#[test]
fn a_key_that_anyone_can_sign_for_is_never_taken() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let weak = VerifyingKey::from_bytes(&neutral).unwrap();
    assert_eq!(Verifier::new(&[weak], ISSUER, "cowork", &[Tier::Pat]).map(|_| ()), Err(BadKey));
}

#[test]
fn the_key_id_is_the_thumbprint_of_rfc_7638() {
    // The example of RFC 8037, appendix A.3.
    let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    let key = VerifyingKey::from_bytes(&x.try_into().unwrap()).unwrap();
    assert_eq!(key_id(&key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn a_binding_is_one_thumbprint_and_goes_with_the_tier_of_certificates_alone() {
    let all = Verifier::new(&[Forge::new().key.verifying_key()], ISSUER, "cowork", &Tier::ALL).unwrap();
    let verdict = |tier: &str, cnf: Option<Value>| {
        let forge = Forge::new().claim("auth_tier", json!(tier));
        let forge = cnf.into_iter().fold(forge, |forge, cnf| forge.claim("cnf", cnf));
        verify(&all, &forge.token()).map(|claims| claims.cnf.map(|it| it.thumbprint))
    };
    let thumbprint = "A".repeat(43);
    let bound = json!({ "x5t#S256": thumbprint });
    assert_eq!(verdict("mtls", Some(bound.clone())), Ok(Some(thumbprint.clone())));
    assert_eq!(verdict("session", None), Ok(None));
    assert_eq!(verdict("mtls", None), Err(JwtFault::ClaimType), "a bearer token of this tier does not exist");
    assert_eq!(verdict("pat", Some(bound)), Err(JwtFault::ClaimType));
    for wrong in [
        json!({}),
        json!(thumbprint),
        json!({ "x5t#S256": "AA" }),
        json!({ "x5t#S256": format!("{thumbprint}=") }),
        json!({ "x5t#S256": thumbprint.replace('A', "+") }),
        json!({ "x5t#S256": [thumbprint] }),
        json!({ "x5t#S256": thumbprint, "jkt": thumbprint }),
    ] {
        assert_eq!(verdict("mtls", Some(wrong.clone())), Err(JwtFault::ClaimType), "{wrong}");
    }
}
