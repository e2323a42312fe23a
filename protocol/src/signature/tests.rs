//! Stories of the envelope: who signed what for which purpose, and what is worth nothing.

use proptest::prelude::*;

use super::*;

const TYPE: &str = "application/vnd.sallyport.test+json";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn signed() -> Envelope {
    sign(TYPE, b"{\"a\":1}".to_vec(), &key(1))
}

/// Verifies against the keys with these seeds.
fn verified(envelope: &Envelope, seeds: &[u8]) -> Result<KeyId, SignatureError> {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed).verifying_key()).collect();
    let ids: Vec<_> = keys.iter().map(KeyId::of).collect();
    let pairs: Vec<_> = ids.iter().zip(&keys).collect();
    verify(envelope, TYPE, &pairs).map(|signed| signed.key)
}

#[test]
fn what_was_signed_verifies_also_after_a_journey_as_json() {
    let envelope = signed();
    let again = Envelope::parse(&envelope.to_json()).unwrap();
    assert_eq!(again, envelope);
    assert_eq!(verified(&again, &[2, 1]).unwrap(), KeyId::of(&key(1).verifying_key()));
}

#[test]
fn the_envelope_has_the_shape_of_dsse() {
    let json = String::from_utf8(signed().to_json()).unwrap();
    insta::assert_snapshot!(json, @r#"{"payload":"eyJhIjoxfQ==","payloadType":"application/vnd.sallyport.test+json","signatures":[{"keyid":"ed25519:34750f98bd59fcfc946da45aaabe933b","sig":"+ALby3NUj9t0QSAhv78XS7+UOaEc5aJoNWjhUihIYgSNnanT4rjiLfn3P6EWTq+Tgdz6cBFZ2rL6X39e/uBBAQ=="}]}"#);
}

#[test]
fn the_signed_bytes_are_those_of_the_dsse_test_vector() {
    let encoded = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn a_key_nobody_knows_proves_nothing() {
    assert!(matches!(verified(&signed(), &[2]), Err(SignatureError::UnknownKey(_))));
    assert!(matches!(verified(&signed(), &[]), Err(SignatureError::UnknownKey(_))));
}

#[test]
fn a_signature_under_another_keys_name_is_forged() {
    let mut envelope = sign(TYPE, b"x".to_vec(), &key(2));
    envelope.signatures[0].keyid = KeyId::of(&key(1).verifying_key());
    assert!(matches!(verified(&envelope, &[1, 2]), Err(SignatureError::BadSignature(_))));
}

#[test]
fn a_signature_for_one_purpose_is_worth_nothing_for_another() {
    let envelope = sign("application/vnd.sallyport.manifest+json", b"{}".to_vec(), &key(1));
    assert!(matches!(verified(&envelope, &[1]), Err(SignatureError::PayloadType { .. })));
    let relabelled = Envelope { payload_type: TYPE.to_owned(), ..envelope };
    assert!(matches!(verified(&relabelled, &[1]), Err(SignatureError::BadSignature(_))));
}

#[test]
fn no_signature_or_two_are_refused() {
    let mut envelope = signed();
    let signature = envelope.signatures.pop().unwrap();
    assert!(matches!(verified(&envelope, &[1]), Err(SignatureError::Count(0))));
    assert!(matches!(Envelope::parse(&envelope.to_json()), Err(SignatureError::Count(0))));
    envelope.signatures = vec![signature.clone(), signature];
    assert!(matches!(verified(&envelope, &[1]), Err(SignatureError::Count(2))));
    assert!(matches!(Envelope::parse(&envelope.to_json()), Err(SignatureError::Count(2))));
}

#[test]
fn an_envelope_that_is_not_exactly_one_is_malformed() {
    let good = String::from_utf8(signed().to_json()).unwrap();
    let sig = STANDARD.encode(signed().signatures[0].sig);
    let bad = [
        good.replace("{\"payload\"", "{\"extra\":1,\"payload\""),
        good.replace("{\"keyid\"", "{\"cert\":\"\",\"keyid\""),
        good.replace("{\"payload\"", "{\"payload\":\"\",\"payload\""),
        good.replace("\"sig\"", "\"sig\":\"\",\"sig\""),
        good.replace("eyJhIjoxfQ==", "eyJhIjoxfQ"),
        good.replace("eyJhIjoxfQ==", "eyJhIjoxfR=="),
        good.replace("eyJhIjoxfQ==", "eyJhIjoxfQ==\\n"),
        good.replace(&sig, &STANDARD.encode([0; 63])),
        good.replace("ed25519:", "rsa:"),
        good.replace("\"payloadType\"", "\"payload_type\""),
        format!("{good} x"),
        good.clone() + &" ".repeat(MAX_ENVELOPE),
        String::new(),
    ];
    for json in bad {
        let refused = Envelope::parse(json.as_bytes());
        assert!(matches!(refused, Err(SignatureError::Malformed(_))), "{json}");
    }
}

#[test]
fn a_key_of_small_order_is_refused_and_verifies_nothing() {
    // The neutral element and a point of order 8; see RFC 8032, section 5.1.
    let mut neutral = [0_u8; 32];
    neutral[0] = 1;
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    assert_eq!(public_key_from_bytes(&neutral), Err(KeyError::Weak));
    assert_eq!(public_key(order_8), Err(KeyError::Weak));
    // With the neutral element as key, R neutral and s zero fit every message under the lax equation.
    let weak = VerifyingKey::from_bytes(&neutral).unwrap();
    let mut sig = [0_u8; 64];
    sig[0] = 1;
    let id = KeyId::of(&weak);
    let envelope = Envelope {
        payload_type: TYPE.to_owned(),
        payload: b"anything".to_vec(),
        signatures: vec![EnvelopeSignature { keyid: id.clone(), sig }],
    };
    assert!(matches!(verify(&envelope, TYPE, &[(&id, &weak)]), Err(SignatureError::BadSignature(_))));
}

#[test]
fn a_signature_with_s_beyond_the_group_order_is_refused() {
    let mut envelope = signed();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0_u16;
    for (byte, add) in envelope.signatures[0].sig[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert!(matches!(verified(&envelope, &[1]), Err(SignatureError::BadSignature(_))));
}

#[test]
fn a_public_key_is_read_from_base64_and_from_hex() {
    let expected = key(1).verifying_key();
    let bytes = expected.to_bytes();
    assert_eq!(public_key(&STANDARD.encode(bytes)), Ok(expected));
    assert_eq!(public_key(&crate::canonical::hex(&bytes)), Ok(expected));
    for text in ["", "abc", &"g".repeat(64), &"=".repeat(44), &"A".repeat(44), &"é".repeat(32)] {
        assert_eq!(public_key(text), Err(KeyError::Encoding), "{text}");
    }
}

#[test]
fn a_second_encoding_of_the_same_key_is_refused() {
    // y and y + p decode to the same point; only y below p is the canonical encoding.
    for low in 0_u8..19 {
        let mut bytes = [0xff_u8; 32];
        bytes[0] = 0xed + low;
        bytes[31] = 0x7f;
        assert!(public_key_from_bytes(&bytes).is_err(), "{low}");
    }
}

#[test]
fn a_key_id_is_checked() {
    let id = KeyId::of(&key(1).verifying_key());
    assert_eq!(KeyId::parse(id.as_str()), Ok(id.clone()));
    assert_eq!(serde_json::from_str::<KeyId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    for text in ["", "ed25519:", "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ed25519:0123"] {
        assert_eq!(KeyId::parse(text), Err(KeyError::Id));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _parsed = Envelope::parse(&bytes);
    }

    #[test]
    fn any_payload_survives_the_journey(payload in prop::collection::vec(any::<u8>(), 0..300), seed: u8) {
        let envelope = sign(TYPE, payload, &key(seed));
        let again = Envelope::parse(&envelope.to_json()).unwrap();
        prop_assert_eq!(&again, &envelope);
        prop_assert!(verified(&again, &[seed]).is_ok());
    }

    #[test]
    fn one_other_bit_in_payload_or_signature_is_noticed(at in 0..71_usize, bit in 0..8_u32) {
        let mut envelope = signed();
        let flip = 1_u8 << bit;
        match at.checked_sub(7) {
            None => envelope.payload[at] ^= flip,
            Some(at) => envelope.signatures[0].sig[at] ^= flip,
        }
        prop_assert!(matches!(verified(&envelope, &[1]), Err(SignatureError::BadSignature(_))));
    }
}

#[test]
fn a_signing_key_survives_its_file_and_nothing_else_is_one() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let text = signing_key_text(&key);
    assert_eq!(signing_key(&format!("{}\n", *text)).unwrap().to_bytes(), key.to_bytes());
    for bad in ["", "short", "AAAA", &format!("{}AAAA", *text)] {
        assert_eq!(signing_key(bad).unwrap_err(), KeyError::Secret, "{bad:?}");
    }
}
