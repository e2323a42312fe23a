//! Stories of trust: the one package that is accepted, and every way in which another is not.

use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 and so on";
const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn statement() -> Statement {
    Statement {
        name: Name::parse("acme/no-secrets").unwrap(),
        version: semver::Version::new(1, 2, 3),
        serial: 7,
        kind: Kind::Policy,
        world: World::parse("policy@0.1.0").unwrap(),
        digest: Digest::of(b""),
        size: 0,
        events: Vec::new(),
        capabilities: vec![Capability::parse("counters").unwrap()],
        reads: None,
        limits: Limits { memory_bytes: None, cpu_ms: Some(5) },
        upstream: None,
        credential: None,
        min_host: semver::Version::new(0, 1, 0),
        not_before: datetime!(2026-11-01 0:00 UTC),
        expires: datetime!(2027-11-01 0:00 UTC),
    }
}

fn publisher() -> Publisher {
    Publisher {
        key: key(1).verifying_key(),
        namespace: "acme".to_owned(),
        kinds: vec![Kind::Policy, Kind::Scanner],
        tenant: None,
        development: false,
        revoked: false,
    }
}

fn built(statement: Statement) -> Vec<u8> {
    Package::build(statement, &key(1), COMPONENT).unwrap()
}

fn verify_by(publishers: &[Publisher], bytes: Vec<u8>) -> Result<Verified, TrustError> {
    let package = Package::parse(bytes).map_err(TrustError::Malformed)?;
    package.verify(publishers, NOW, &semver::Version::new(0, 1, 0), None, None)
}

/// A package whose envelope holds exactly this payload, signed for this purpose.
fn packed(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Vec<u8> {
    let envelope = signature::sign(payload_type, payload, key).to_json();
    let length = u32::try_from(envelope.len()).unwrap().to_be_bytes();
    [MAGIC, &length, &envelope, COMPONENT].concat()
}

/// The statement of a good package as JSON, to be bent.
fn payload() -> Value {
    let package = Package::parse(built(statement())).unwrap();
    serde_json::from_slice(&package.envelope().payload).unwrap()
}

#[test]
fn a_package_of_a_known_publisher_is_trusted() {
    let verified = verify_by(&[publisher()], built(statement())).unwrap();
    assert_eq!(verified.component(), COMPONENT);
    assert_eq!(verified.statement().name.namespace(), "acme");
    assert_eq!(verified.digest(), &Digest::of(COMPONENT));
    assert_eq!(verified.key(), &KeyId::of(&key(1).verifying_key()));
    assert_eq!(verified.tenant(), None);
    assert!(!verified.is_development());
}

#[test]
fn the_statement_is_plain_json() {
    let package = Package::parse(built(statement())).unwrap();
    insta::assert_snapshot!(String::from_utf8(package.envelope().payload.clone()).unwrap(), @r#"{"name":"acme/no-secrets","version":"1.2.3","serial":7,"kind":"policy","world":"policy@0.1.0","digest":"sha256:9aa4d0f286be884c3cf018206ecea42518c0d77dbbae6b7afcb7a764625d87d1","size":18,"capabilities":["counters"],"limits":{"cpu_ms":5},"min_host":"0.1.0","not_before":"2026-11-01T00:00:00Z","expires":"2027-11-01T00:00:00Z"}"#);
}

#[test]
fn the_component_is_shared_with_the_packages_bytes() {
    let bytes = Bytes::from(built(statement()));
    let package = Package::parse(bytes.clone()).unwrap();
    let range = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
    assert!(range.contains(&(package.component().as_ptr() as usize)));
}

#[test]
fn one_other_bit_anywhere_is_noticed() {
    let good = built(statement());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(verify_by(&[publisher()], bad).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_package_cut_off_or_drawn_out_anywhere_is_refused() {
    let good = built(statement());
    for length in 0..good.len() {
        assert!(verify_by(&[publisher()], good[..length].to_vec()).is_err(), "{length} bytes");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(verify_by(&[publisher()], longer), Err(TrustError::Size { signed: 18, actual: 19 })));
}

#[test]
fn a_package_by_an_unknown_key_is_refused() {
    let stranger = Package::build(statement(), &key(9), COMPONENT).unwrap();
    assert!(matches!(verify_by(&[publisher()], stranger), Err(TrustError::UnknownKey(_))));
    assert!(matches!(verify_by(&[], built(statement())), Err(TrustError::UnknownKey(_))));
}

#[test]
fn a_forged_package_under_a_publishers_name_is_refused() {
    let forged = Package::build(statement(), &key(9), COMPONENT).unwrap();
    let text = String::from_utf8_lossy(&forged).into_owned();
    let theirs = KeyId::of(&key(9).verifying_key());
    let ours = KeyId::of(&key(1).verifying_key());
    let renamed = text.replace(theirs.as_str(), ours.as_str());
    let head = MAGIC.len() + 4;
    let bytes = [&forged[..head], &renamed.as_bytes()[renamed.find('{').unwrap()..]].concat();
    let refused = verify_by(&[publisher()], bytes);
    assert!(matches!(refused, Err(TrustError::BadSignature)), "{refused:?}");
}

#[test]
fn another_component_under_the_same_statement_is_refused() {
    let mut bytes = built(statement());
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(verify_by(&[publisher()], bytes), Err(TrustError::Digest)));
}

#[test]
fn a_signature_for_another_purpose_is_refused() {
    let payload = serde_json::to_vec(&payload()).unwrap();
    let manifest = packed("application/vnd.sallyport.manifest.v1+json", payload.clone(), &key(1));
    assert!(matches!(verify_by(&[publisher()], manifest), Err(TrustError::BadSignature)));
    verify_by(&[publisher()], packed(PAYLOAD_TYPE, payload, &key(1))).unwrap();
}

#[test]
fn a_publisher_signs_in_its_namespace_alone() {
    let other = Publisher { namespace: "acm".to_owned(), ..publisher() };
    let refused = verify_by(&[other], built(statement()));
    assert!(matches!(refused, Err(TrustError::Namespace { namespace }) if namespace == "acme"));
}

#[test]
fn a_publisher_signs_its_kinds_alone() {
    let vendor = Publisher { kinds: vec![Kind::Provider, Kind::Hook], ..publisher() };
    assert!(matches!(verify_by(&[vendor], built(statement())), Err(TrustError::Kind { kind: Kind::Policy })));
}

#[test]
fn a_publisher_is_read_as_it_is_written() {
    let json = serde_json::to_string(&publisher()).unwrap();
    insta::assert_snapshot!(json, @r#"{"key":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=","namespace":"acme","kinds":["policy","scanner"],"development":false,"revoked":false}"#);
    assert_eq!(serde_json::from_str::<Publisher>(&json).unwrap(), publisher());
    let weak = json.replace(
        "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    assert_ne!(weak, json);
    let refused = serde_json::from_str::<Publisher>(&weak).unwrap_err();
    assert!(refused.to_string().contains("small order"), "{refused}");
    assert!(serde_json::from_str::<Publisher>(&json.replace("\"kinds\"", "\"kind\"")).is_err());
}

#[test]
fn a_tenants_publisher_signs_for_that_tenant_alone() {
    let tenant = |text| TenantId::parse(text).unwrap();
    let own = [Publisher { tenant: Some(tenant("t1")), ..publisher() }];
    let package = Package::parse(built(statement())).unwrap();
    let host = semver::Version::new(0, 1, 0);
    let verify = |asked: Option<&TenantId>| package.verify(&own, NOW, &host, asked, None);
    assert_eq!(verify(Some(&tenant("t1"))).unwrap().tenant(), Some(&tenant("t1")));
    assert!(matches!(verify(Some(&tenant("t2"))), Err(TrustError::Tenant)));
    assert!(matches!(verify(None), Err(TrustError::Tenant)));
}

#[test]
fn a_key_may_be_known_for_several_namespaces() {
    let others = [
        Publisher { namespace: "other".to_owned(), ..publisher() },
        Publisher { kinds: vec![Kind::Hook], ..publisher() },
        Publisher { development: true, ..publisher() },
    ];
    assert!(verify_by(&others, built(statement())).unwrap().is_development());
    assert!(matches!(verify_by(&others[..2], built(statement())), Err(TrustError::Kind { .. })));
}

#[test]
fn a_revoked_key_is_refused_whatever_else_it_is_known_for() {
    let revoked = Publisher { revoked: true, namespace: "other".to_owned(), ..publisher() };
    let refused = verify_by(&[publisher(), revoked], built(statement()));
    assert!(matches!(refused, Err(TrustError::Revoked(id)) if id == KeyId::of(&key(1).verifying_key())));
}

#[test]
fn a_package_holds_from_its_first_to_before_its_last_moment() {
    let package = Package::parse(built(statement())).unwrap();
    let host = semver::Version::new(0, 1, 0);
    let at = |now| package.verify(&[publisher()], now, &host, None, None);
    at(datetime!(2026-11-01 0:00 UTC)).unwrap();
    at(datetime!(2027-10-31 23:59:59 UTC)).unwrap();
    assert!(matches!(at(datetime!(2026-10-31 23:59:59 UTC)), Err(TrustError::NotYetValid(_))));
    assert!(matches!(at(datetime!(2027-11-01 0:00 UTC)), Err(TrustError::Expired(_))));
}

#[test]
fn a_package_for_a_newer_host_is_refused() {
    let newer = Statement { min_host: semver::Version::new(0, 2, 0), ..statement() };
    assert!(matches!(
        verify_by(&[publisher()], built(newer)),
        Err(TrustError::HostTooOld { needs }) if needs == semver::Version::new(0, 2, 0)
    ));
}

#[test]
fn a_lower_serial_than_was_accepted_is_a_downgrade() {
    let package = Package::parse(built(statement())).unwrap();
    let host = semver::Version::new(0, 1, 0);
    let above = |floor| package.verify(&[publisher()], NOW, &host, None, Some(floor));
    above(7).unwrap();
    assert!(matches!(above(8), Err(TrustError::Downgraded { serial: 7, floor: 8 })));
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    let mut neutral = [0_u8; 32];
    neutral[0] = 1;
    let weak = Publisher { key: VerifyingKey::from_bytes(&neutral).unwrap(), ..publisher() };
    let mut sig = [0_u8; 64];
    sig[0] = 1;
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: serde_json::to_vec(&payload()).unwrap(),
        signatures: vec![signature::EnvelopeSignature { keyid: KeyId::of(&weak.key), sig }],
    }
    .to_json();
    let length = u32::try_from(envelope.len()).unwrap().to_be_bytes();
    let bytes = [MAGIC, &length, &envelope, COMPONENT].concat();
    assert!(matches!(verify_by(&[weak], bytes), Err(TrustError::BadSignature)));
}

#[test]
fn a_statement_that_is_not_exactly_one_is_malformed_however_well_signed() {
    let good = payload().to_string();
    let mut bad = vec![
        good.replacen('{', "{\"comment\":1,", 1),
        good.replacen('{', "{\"serial\":1,", 1),
        good.replace("{\"cpu_ms\"", "{\"fuel\":1,\"cpu_ms\""),
        good.replace("{\"cpu_ms\"", "{\"cpu_ms\":1,\"cpu_ms\""),
        format!("{good}{good}"),
        good.clone() + &" ".repeat(30_000) + "x",
        "null".to_owned(),
    ];
    for (member, value) in [
        ("name", json!("acme")),
        ("name", json!("acme/no/secrets")),
        ("name", json!("Acme/x")),
        ("name", json!("acme/../x")),
        ("name", json!("-acme/x")),
        ("version", json!("1.2")),
        ("serial", json!(-1)),
        ("serial", json!("7")),
        ("serial", json!(9_007_199_254_740_992_u64)),
        ("kind", json!("predicate")),
        ("kind", json!("scanner")),
        ("world", json!("policy")),
        ("world", json!("hook@0.1.0")),
        ("digest", json!("sha256:00")),
        ("digest", json!(payload()["digest"].as_str().unwrap().to_uppercase())),
        ("size", json!(0)),
        ("size", json!(1.5)),
        ("events", json!(["PreToolUse"])),
        ("events", json!(["preToolUse"])),
        ("capabilities", json!(["a", "a"])),
        ("capabilities", json!([""])),
        ("capabilities", json!(["A b"])),
        ("limits", json!({ "cpu_ms": 0 })),
        ("limits", json!({ "memory_bytes": 0 })),
        ("min_host", json!("latest")),
        ("not_before", json!("2026-11-01")),
        ("not_before", json!("2028-01-01T00:00:00Z")),
        ("expires", json!(1_800_000_000)),
    ] {
        let mut bent = payload();
        bent[member] = value;
        bad.push(bent.to_string());
    }
    for member in ["name", "version", "serial", "kind", "world", "digest", "size", "expires", "min_host"] {
        let mut bent = payload();
        bent.as_object_mut().unwrap().remove(member);
        bad.push(bent.to_string());
    }
    for json in bad {
        let refused = verify_by(&[publisher()], packed(PAYLOAD_TYPE, json.clone().into_bytes(), &key(1)));
        assert!(matches!(refused, Err(TrustError::Malformed(_))), "{json}: {refused:?}");
    }
}

#[test]
fn an_envelope_beyond_64_kib_is_refused_unread() {
    let large = Statement {
        capabilities: (0..600).map(|n| Capability::Other(format!("{n:0>100}"))).collect(),
        ..statement()
    };
    let refused = Package::build(large.clone(), &key(1), COMPONENT);
    assert!(matches!(refused, Err(PackageError::EnvelopeSize(_))));
    let bytes = packed(PAYLOAD_TYPE, serde_json::to_vec(&large).unwrap(), &key(1));
    assert!(matches!(Package::parse(bytes), Err(PackageError::EnvelopeSize(_))));
    let lying = [MAGIC, &u32::MAX.to_be_bytes(), b"{}"].concat();
    assert!(matches!(Package::parse(lying), Err(PackageError::EnvelopeSize(_))));
}

#[test]
fn a_component_beyond_32_mib_or_of_no_bytes_is_refused() {
    let large = vec![0_u8; MAX_COMPONENT + 1];
    let refused = Package::build(statement(), &key(1), &large);
    assert!(matches!(refused, Err(PackageError::ComponentSize(_))));
    assert!(matches!(Package::build(statement(), &key(1), b""), Err(PackageError::ComponentSize(0))));
    let bytes = [&built(statement())[..], &large].concat();
    assert!(matches!(Package::parse(bytes), Err(PackageError::ComponentSize(_))));
    let good = built(statement());
    let bare = good[..good.len() - COMPONENT.len()].to_vec();
    assert!(matches!(Package::parse(bare), Err(PackageError::ComponentSize(0))));
}

#[test]
fn a_hook_names_its_events() {
    let hook = Statement {
        kind: Kind::Hook,
        world: World::parse("hook@0.1.0").unwrap(),
        events: HookEvent::ALL.to_vec(),
        ..statement()
    };
    let hooks = Publisher { kinds: vec![Kind::Hook], ..publisher() };
    let verified = verify_by(&[hooks], built(hook.clone())).unwrap();
    assert_eq!(verified.statement().events.len(), 10);
    for event in HookEvent::ALL {
        assert_eq!(HookEvent::parse(event.as_str()), Some(event));
        assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
    }
    let silent = Statement { events: Vec::new(), ..hook };
    let refused = Package::build(silent, &key(1), COMPONENT);
    assert!(matches!(refused, Err(PackageError::Contradiction(StatementError::Events))));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Package::parse(bytes.clone()).is_err());
        let length = u32::try_from(bytes.len() / 2).unwrap().to_be_bytes();
        let headed = [MAGIC, &length, &bytes].concat();
        prop_assert!(Package::parse(headed).is_err());
    }

    #[test]
    fn no_payload_makes_the_reader_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = packed(PAYLOAD_TYPE, payload, &key(1));
        prop_assert!(verify_by(&[publisher()], bytes).is_err());
    }
}
