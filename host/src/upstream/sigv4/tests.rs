//! Signatures are compared with those of botocore, which `vectors.py` wrote down beside this file.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use serde_json::Value;
use time::macros::datetime;

use super::{SigningScope, sign};
use crate::config::{AwsKeys, ExposeSecret as _};
use crate::upstream::pieces::Pieces;

const VECTORS: &str = include_str!("vectors.json");
/// The keys of AWS's own documents.
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn keys(token: Option<&str>) -> AwsKeys {
    AwsKeys {
        access_key_id: ID.to_owned(),
        secret_access_key: SECRET.into(),
        session_token: token.map(Into::into),
    }
}

fn request(case: &Value) -> Request<Pieces> {
    let text = |key: &str| case[key].as_str().unwrap();
    let mut request = Request::new(Pieces::from(Bytes::from(text("body").to_owned())));
    *request.method_mut() = text("method").parse().unwrap();
    *request.uri_mut() = text("url").parse().unwrap();
    for (name, value) in case["headers"].as_object().unwrap() {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
    }
    request
}

const SCOPE: SigningScope<'static> =
    SigningScope { region: "eu-central-1", service: "bedrock", now: datetime!(2026-11-27 20:15:07 UTC) };

#[test]
fn a_request_is_signed_as_botocore_signs_it() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= 9, "{}", cases.len());
    for case in cases {
        let mut request = request(case);
        // What a guest, or a client, may have put there is not what is sent.
        request.headers_mut().insert("x-amz-security-token", HeaderValue::from_static("a guest's"));
        let signature = sign(&mut request, &keys(case["token"].as_str()), SCOPE).unwrap();
        let authorization = &request.headers()[header::AUTHORIZATION];
        assert_eq!(authorization.to_str().unwrap(), case["authorization"], "{}", case["what"]);
        assert!(case["authorization"].as_str().unwrap().ends_with(signature.expose_secret()));
        assert!(authorization.is_sensitive());
        let token = request.headers().get("x-amz-security-token");
        assert_eq!(token.map(|token| token.to_str().unwrap()), case["token"].as_str(), "{}", case["what"]);
        assert!(token.is_none_or(HeaderValue::is_sensitive));
    }
}

#[test]
fn a_body_in_pieces_is_signed_as_one() {
    let case =
        serde_json::json!({"method": "POST", "url": "https://h/p", "headers": {}, "body": "0123456789"});
    let signature = |body: Pieces| {
        let mut request = request(&case);
        *request.body_mut() = body;
        sign(&mut request, &keys(None), SCOPE).unwrap().expose_secret().to_owned()
    };
    let edit = crate::component::contract::Edit { offset: 3, len: 4, replacement: b"3456".to_vec() };
    let pieces = Pieces::spliced(&Bytes::from_static(b"0123456789"), vec![edit]).unwrap();
    assert_eq!(pieces.len(), 3);
    assert_eq!(signature(pieces), signature(Bytes::from_static(b"0123456789").into()));
    assert_ne!(
        signature(Bytes::from_static(b"012345678").into()),
        signature(Bytes::from_static(b"0123456789").into())
    );
}

#[test]
fn a_key_that_cannot_stand_in_a_header_signs_nothing() {
    let case = serde_json::json!({"method": "POST", "url": "https://h/p", "headers": {}, "body": ""});
    assert!(sign(&mut request(&case), &keys(Some("two\nlines")), SCOPE).is_none());
    let id = AwsKeys { access_key_id: "two\nlines".to_owned(), ..keys(None) };
    assert!(sign(&mut request(&case), &id, SCOPE).is_none());
}
