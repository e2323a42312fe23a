//! What of an export is changed, and what is refused.

use serde_json::{Value, json};

use super::binary::put;
use super::*;

const PROVEN: [(&str, &str); 2] = [("user.id", "u_1"), ("sallyport.tenant.id", "acme")];

fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in fields {
        put(*number, value, &mut out);
    }
    out
}

fn attribute(name: &str, value: &str) -> Vec<u8> {
    message(&[(1, name.as_bytes()), (2, &message(&[(1, value.as_bytes())]))])
}

fn stamped(signal: Signal, export: &Value) -> Value {
    let out = stamp(signal, Encoding::Json, export.to_string().as_bytes(), &PROVEN).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn told(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

#[test]
fn in_json_the_proven_replaces_the_claimed_and_the_rest_stays() {
    let point = json!({ "attributes": [told("user.id", "device"), told("sallyport.tenant.id", "other")], "asInt": "7" });
    let export = json!({ "resourceMetrics": [
        { "resource": { "attributes": [told("service.name", "claude-code"), told("user.id", "u_9"), told("user.email", "x@y"),
            told("sallyport.session.id", "s")] },
          "scopeMetrics": [{ "metrics": [{ "name": "n", "sum": { "dataPoints": [point] } }] }] },
        { "scopeMetrics": [] },
    ] });
    let out = stamped(Signal::Metrics, &export);
    let proven = [told("user.id", "u_1"), told("sallyport.tenant.id", "acme")];
    assert_eq!(
        out["resourceMetrics"][0]["resource"]["attributes"],
        json!([told("service.name", "claude-code"), proven[0], proven[1]])
    );
    assert_eq!(out["resourceMetrics"][1]["resource"]["attributes"], json!(proven));
    assert_eq!(
        out["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"][0],
        json!({ "attributes": [told("user.id", "device")], "asInt": "7" })
    );
}

#[test]
fn in_protobuf_the_same_holds_and_untouched_fields_keep_their_bytes() {
    // A resource in two parts, with a varint (dropped_attributes_count) in between.
    let first = message(&[(1, &attribute("service.name", "claude-code")), (1, &attribute("user.id", "u_9"))]);
    let second = [vec![0x10, 0x05], message(&[(1, &attribute("sallyport.tenant.id", "other"))])].concat();
    let time = [vec![0x09], 7_u64.to_le_bytes().to_vec()].concat();
    let record = |attributes: &[Vec<u8>]| {
        let listed: Vec<_> = attributes.iter().map(|it| (6, it.as_slice())).collect();
        [time.clone(), message(&listed)].concat()
    };
    let entry = |resource: &[(u32, &[u8])], record: &[u8]| {
        let scope = message(&[(1, &message(&[(1, b"scope")])), (2, record)]);
        [message(resource), message(&[(2, &scope), (3, b"https://schema")])].concat()
    };
    let kept = attribute("user.id", "device");
    let sent =
        entry(&[(1, &first), (1, &second)], &record(&[kept.clone(), attribute("sallyport.user.id", "u_9")]));
    let proven = [
        message(&[(1, &attribute("service.name", "claude-code"))]),
        vec![0x10, 0x05],
        message(&[(1, &attribute("user.id", "u_1")), (1, &attribute("sallyport.tenant.id", "acme"))]),
    ]
    .concat();
    let wanted = entry(&[(1, &proven)], &record(&[kept]));
    let out = stamp(Signal::Logs, Encoding::Protobuf, &message(&[(1, &sent)]), &PROVEN).unwrap();
    assert_eq!(out, message(&[(1, &wanted)]));
}

#[test]
fn a_reserved_name_is_taken_out_wherever_attributes_stand() {
    let claimed = attribute("sallyport.user.id", "u_9");
    let path = |fields: &[u32]| {
        fields.iter().rev().fold(claimed.clone(), |inner, number| message(&[(*number, &inner)]))
    };
    for (signal, fields) in [
        (Signal::Metrics, &[1, 2, 1, 3][..]),
        (Signal::Metrics, &[1, 2, 2, 12]),
        (Signal::Metrics, &[1, 2, 2, 5, 1, 7]),
        (Signal::Metrics, &[1, 2, 2, 7, 1, 5, 7]),
        (Signal::Metrics, &[1, 2, 2, 9, 1, 9]),
        (Signal::Metrics, &[1, 2, 2, 10, 1, 1]),
        (Signal::Metrics, &[1, 2, 2, 11, 1, 7]),
        (Signal::Logs, &[1, 2, 2, 6]),
        (Signal::Traces, &[1, 2, 2, 9]),
        (Signal::Traces, &[1, 2, 2, 11, 3]),
        (Signal::Traces, &[1, 2, 2, 13, 4]),
        (Signal::Traces, &[1, 1, 1]),
    ] {
        let out = stamp(signal, Encoding::Protobuf, &path(fields), &PROVEN).unwrap();
        let has = |text: &[u8]| out.windows(text.len()).any(|window| window == text);
        assert!(!has(b"u_9") && has(b"u_1"), "{signal:?} {fields:?}");
    }
}

#[test]
fn what_is_no_export_is_refused() {
    for body in [
        "",
        "[]",
        "7",
        "{",
        r#"{"resource_logs":[]}"#,
        r#"{"resourceMetrics":[]}"#,
        r#"{"resourceLogs":{}}"#,
        r#"{"resourceLogs":[7]}"#,
        r#"{"resourceLogs":[{"resource":7}]}"#,
        r#"{"resourceLogs":[{"resource":{"attributes":{}}}]}"#,
        r#"{"resourceLogs":[],"resourceSpans":[]}"#,
    ] {
        assert!(stamp(Signal::Logs, Encoding::Json, body.as_bytes(), &PROVEN).is_err(), "{body}");
    }
    let deep = format!("{{\"resourceLogs\":[{}{}]}}", "[".repeat(200), "]".repeat(200));
    assert!(stamp(Signal::Logs, Encoding::Json, deep.as_bytes(), &PROVEN).is_err());
    let ten = [0xff_u8; 10];
    for body in [
        &b"hello"[..],
        &[0x0a],
        &[0x0a, 0x05, 0x01],
        &[0x0b],
        &[0x08, 0x01],
        &[0x12, 0x00],
        &ten,
        &[0x0a, 0x02, 0x0a, 0x7f],
        &[0x0a, 0x02, 0x08, 0x01],
        &[0x00, 0x00],
        b"{\"resourceLogs\":[]}",
    ] {
        assert!(stamp(Signal::Logs, Encoding::Protobuf, body, &PROVEN).is_err(), "{body:?}");
    }
    assert_eq!(
        stamp(Signal::Logs, Encoding::Protobuf, b"", &PROVEN),
        Ok(vec![]),
        "nothing is an export of nothing"
    );
}

#[test]
fn media_types_are_told_apart() {
    assert_eq!(Encoding::parse("application/json; charset=utf-8"), Some(Encoding::Json));
    assert_eq!(Encoding::parse("Application/X-Protobuf"), Some(Encoding::Protobuf));
    assert_eq!(Encoding::parse("text/plain"), None);
    assert_eq!(Encoding::parse(""), None);
}
