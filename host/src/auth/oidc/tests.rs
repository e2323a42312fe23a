//! What a provider's documents and tokens may look like, and what follows from groups.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::id_token::{Expected, IdToken, Person, ProviderKeys};
use super::*;

fn settings() -> OidcProvider {
    OidcProvider {
        name: "okta".to_owned(),
        label: "Okta".to_owned(),
        issuer: "https://id.example".to_owned(),
        client_id: "gateway".to_owned(),
        client_secret: Some(Zeroizing::new("a secret".to_owned())),
        scopes: vec!["openid".to_owned()],
        name_claim: "email".to_owned(),
        groups_claim: "groups".to_owned(),
        groups: Vec::new(),
        roles: vec!["member".to_owned()],
        tenant: TenantId::parse(DEFAULT_TENANT).unwrap(),
        groups_only: false,
        creates_users: true,
        email_domains: Vec::new(),
    }
}

fn rule(group: &str, roles: &[&str], department: Option<&str>, tenant: Option<&str>) -> GroupRule {
    GroupRule {
        group: group.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        department: department.map(str::to_owned),
        tenant: tenant.map(|tenant| TenantId::parse(tenant).unwrap()),
    }
}

fn person(groups: &[&str]) -> Person {
    Person {
        subject: "1".to_owned(),
        name: Some("ann@acme.example".to_owned()),
        email: Some("ann@acme.example".to_owned()),
        email_verified: Some(true),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

fn token(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode([0; 64]))
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "gateway", "sub": "1", "iat": 1000, "exp": 1300, "nonce": "n"})
}

fn read(claims: &Value, now: i64) -> Result<Person, IdTokenFault> {
    let expected = Expected {
        issuer: "https://id.example",
        client_id: "gateway",
        nonce: "n",
        name_claim: "email",
        groups_claim: "groups",
    };
    IdToken::parse(&token(&json!({"alg": "ES256"}), claims))?.person(&expected, now)
}

#[test]
fn roles_add_up_and_the_first_department_and_tenant_count() {
    let mut provider = settings();
    provider.groups = vec![
        rule("a", &["author", "member"], None, None),
        rule("b", &["ring-1"], Some("Finance"), None),
        rule("c", &[], Some("Legal"), Some("acme")),
        rule("boss", &["admin"], None, None),
    ];
    let place = provider.place(&person(&["c", "b", "a", "unknown"])).unwrap();
    assert_eq!(place.roles, ["member", "author", "ring-1"]);
    assert_eq!((place.tenant.as_str(), place.department.as_deref()), ("acme", Some("Finance")));
    assert_eq!(provider.place(&person(&["boss"])).unwrap().roles, ["member", "admin"]);
    assert_eq!(
        provider.place(&person(&["boss", "c"])),
        Err(PlacementFault::Roles),
        "admin of the platform, in acme"
    );
    provider.groups[0].roles = (0..form::MAX_ROLES).map(|number| format!("role-{number}")).collect();
    assert_eq!(provider.place(&person(&["a"])), Err(PlacementFault::Roles), "one too many for a token");
}

#[test]
fn a_token_is_for_this_client_this_sign_in_and_now() {
    assert_eq!(read(&claims(), 1000).unwrap().subject, "1");
    let but = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let mut several = but("aud", json!(["other", "gateway"]));
    assert_eq!(read(&several, 1000), Err(IdTokenFault::AuthorizedParty));
    several["azp"] = json!("gateway");
    assert!(read(&several, 1000).is_ok());
    assert!(read(&but("aud", json!(["gateway"])), 1000).is_ok());
    for (name, value, fault) in [
        ("iss", json!("https://id.example/"), IdTokenFault::Issuer),
        ("iss", Value::Null, IdTokenFault::Issuer),
        ("aud", json!([]), IdTokenFault::Audience),
        ("aud", json!({"gateway": 1}), IdTokenFault::Audience),
        ("azp", json!(["gateway"]), IdTokenFault::AuthorizedParty),
        ("exp", json!("1300"), IdTokenFault::Claims),
        ("exp", json!(-1), IdTokenFault::Claims),
        ("iat", Value::Null, IdTokenFault::Claims),
        ("nbf", json!(1061), IdTokenFault::IssuedAt),
        ("nonce", json!(["n"]), IdTokenFault::Nonce),
        ("sub", json!(""), IdTokenFault::Claims),
        ("sub", json!(1), IdTokenFault::Claims),
        ("sub", json!("a\u{0}"), IdTokenFault::Claims),
        ("sub", json!("\u{e9}"), IdTokenFault::Claims),
        ("sub", json!("x".repeat(256)), IdTokenFault::Claims),
        ("groups", json!({"a": 1}), IdTokenFault::Claims),
        ("groups", json!(["a", 1]), IdTokenFault::Claims),
        ("groups", json!(vec!["a"; 2001]), IdTokenFault::Claims),
    ] {
        assert_eq!(read(&but(name, value.clone()), 1000), Err(fault), "{name} {value}");
    }
    assert!(read(&claims(), 1359).is_ok());
    assert_eq!(read(&claims(), 1360), Err(IdTokenFault::Expired));
    assert!(read(&claims(), 940).is_ok());
    assert_eq!(read(&claims(), 939), Err(IdTokenFault::IssuedAt));
    assert_eq!(
        read(&but("exp", json!(9000)), 1661),
        Err(IdTokenFault::IssuedAt),
        "not made for this sign-in"
    );
}

#[test]
fn a_header_that_asks_for_more_than_a_signature_is_not_read() {
    for (header, fault) in [
        (json!({"alg": "none"}), IdTokenFault::Algorithm),
        (json!({"alg": "None"}), IdTokenFault::Algorithm),
        (json!({"alg": "HS256"}), IdTokenFault::Algorithm),
        (json!({"alg": ["ES256"]}), IdTokenFault::Algorithm),
        (json!({}), IdTokenFault::Algorithm),
        (json!({"alg": "ES256", "crit": ["exp"]}), IdTokenFault::Type),
        (json!({"alg": "ES256", "typ": "at+jwt"}), IdTokenFault::Type),
        (json!({"alg": "ES256", "typ": 1}), IdTokenFault::Type),
        (json!({"alg": "ES256", "kid": 1}), IdTokenFault::Form),
    ] {
        assert_eq!(IdToken::parse(&token(&header, &claims())).err(), Some(fault), "{header}");
    }
    let good = token(&json!({"alg": "ES256"}), &claims());
    for bad in
        [format!("{good}."), good.replace('.', " "), format!("a{good}"), "a.b".to_owned(), String::new()]
    {
        assert!(IdToken::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn keys_that_do_not_sign_are_passed_over() {
    let good = token(&json!({"alg": "EdDSA", "kid": "1"}), &claims());
    let good = IdToken::parse(&good).unwrap();
    let x =
        URL_SAFE_NO_PAD.encode(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().as_bytes());
    let key = |more: Value| {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ProviderKeys::read(json!({ "keys": [key] }).to_string().as_bytes()).unwrap().check(&good)
    };
    assert_eq!(key(json!({})), Err(IdTokenFault::Signature), "it is asked");
    for passed_over in [
        json!({"use": "enc"}),
        json!({"kid": "2"}),
        json!({"alg": "ES256"}),
        json!({"crv": "X25519"}),
        json!({"kty": "oct", "k": "AAAA"}),
        // A key of small order, for which anybody signs.
        json!({"x": URL_SAFE_NO_PAD.encode([0; 32])}),
        json!({"x": "AAAA"}),
        json!({"x": 1}),
    ] {
        assert_eq!(key(passed_over.clone()), Err(IdTokenFault::UnknownKey), "{passed_over}");
    }
    let many = json!({"keys": vec![json!({"kty": "oct"}); 65]}).to_string();
    assert!(ProviderKeys::read(many.as_bytes()).is_err());
    for bad in ["", "[]", "{}", "<html>"] {
        assert!(ProviderKeys::read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn what_a_provider_has_to_repeat_follows_from_cookie_and_address_together() {
    let one = derived("nonce", "cookie", "state");
    assert_eq!(one.len(), 43);
    for (what, cookie, state) in
        [("verifier", "cookie", "state"), ("nonce", "cooki", "estate"), ("nonce", "cookie", "other")]
    {
        assert_ne!(derived(what, cookie, state), one, "{what} {cookie} {state}");
    }
    assert!(!format!("{:?}", settings()).contains("a secret"));
}
