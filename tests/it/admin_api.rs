//! The `OpenAPI` document of the API for administration says what a running gateway does: every endpoint is asked, and each answer is
//! compared with what stands there.

use std::collections::BTreeSet;

use bytes::Bytes;
use sallyport_tests::client::Reply;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::{Value, json};

use crate::catalog::admin_rows;

/// One endpoint of the document.
struct Described<'a> {
    document: &'a Value,
    method: String,
    path: &'a str,
    operation: &'a Value,
}

// === impl Described ===

impl Described<'_> {
    fn id(&self) -> &str {
        self.operation["operationId"].as_str().unwrap()
    }

    /// A path below `/v1/admin/` that the endpoint answers at.
    fn example(&self) -> String {
        let path = self.path.strip_prefix("/v1/admin/").unwrap();
        let path = path.replace("{namespace}", "acme").replace("{name}", "scope");
        let part = if self.method == "POST" { "retire" } else { "1.0.0" };
        path.replace("{step_or_version}", part).replace("{capability}", "settle")
    }

    /// Holds an answer against the document.
    fn check(&self, reply: &Reply) {
        let id = self.id();
        let response = &self.operation["responses"][reply.status.to_string()];
        assert!(response.is_object(), "{id}: the document has no such status: {reply}");
        let schema = &response["content"]["application/json"]["schema"];
        if let Some(wrong) = mismatch(self.document, schema, &reply.json(), "$") {
            panic!("{id}: {wrong}: {reply}");
        }
        if reply.status >= 400 {
            let codes = response["headers"]["x-sallyport-code"]["schema"]["enum"].as_array().unwrap();
            let code = reply.header("x-sallyport-code").unwrap();
            assert!(codes.contains(&json!(code)), "{id}: the document has no such code: {reply}");
        }
    }
}

/// Every endpoint of the document.
fn described(document: &Value) -> Vec<Described<'_>> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().iter().map(move |(method, operation)| Described {
                document,
                method: method.to_uppercase(),
                path,
                operation,
            })
        })
        .collect()
}

/// Where a value is not what a shape says; nothing if it is. A field that the shape does not have is a mismatch too.
fn mismatch(document: &Value, shape: &Value, value: &Value, place: &str) -> Option<String> {
    let Some(words) = shape.as_object() else {
        assert_eq!(shape, true, "{place} has no shape");
        return None;
    };
    let either = |forms: &Value| {
        forms.as_array().unwrap().iter().any(|it| mismatch(document, it, value, place).is_none())
    };
    for (word, wanted) in words {
        let fits = match word.as_str() {
            "description" | "format" | "minimum" | "maximum" | "default" | "title" => true,
            "$ref" => {
                let shape = document.pointer(wanted.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                return mismatch(document, shape, value, place);
            }
            "type" => {
                let kinds = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap()))
            }
            "enum" => wanted.as_array().unwrap().contains(value),
            "const" => wanted == value,
            "anyOf" | "oneOf" => either(wanted),
            "required" => {
                let fields = wanted.as_array().unwrap();
                fields.iter().all(|name| !value.is_object() || value.get(name.as_str().unwrap()).is_some())
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                let mut wrong =
                    items.filter_map(|(at, it)| mismatch(document, wanted, it, &format!("{place}[{at}]")));
                match wrong.next() {
                    Some(wrong) => return Some(wrong),
                    None => true,
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    let Some(shape) = wanted.get(name) else { return Some(format!("{place} has {name}")) };
                    let wrong = mismatch(document, shape, field, &format!("{place}.{name}"));
                    if wrong.is_some() {
                        return wrong;
                    }
                }
                true
            }
            // What `properties` does not name is refused there.
            "additionalProperties" if *wanted == false => true,
            "additionalProperties" => {
                let named = |name: &str| shape["properties"].get(name).is_some();
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !named(name));
                let mut wrong = others.filter_map(|(name, field)| {
                    mismatch(document, wanted, field, &format!("{place}.{name}"))
                });
                match wrong.next() {
                    Some(wrong) => return Some(wrong),
                    None => true,
                }
            }
            other => panic!("{place}: the shape says {other}, which is not known here"),
        };
        if !fits {
            return Some(format!("{place}: {word} {wanted} {value}"));
        }
    }
    None
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("there is no type {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_of_the_document_answers_as_it_says_and_leaves_its_row() {
    let document: Value = serde_json::from_str(&sallyport::app::admin_openapi()).unwrap();
    let endpoints = described(&document);
    let app = TestApp::start().await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));

    let json = |body: Value| Bytes::from(body.to_string());
    let step =
        |step: &str, body: Value| ("components.step", format!("components/acme/scope/{step}"), json(body));
    let list = |id: &'static str, path: &str| (id, path.to_owned(), Bytes::new());
    let package = |version: &str, serial| {
        ("components.upload", "components".to_owned(), acme.copy_of("scope", version, serial))
    };
    let mut asked = BTreeSet::new();
    for (id, path, body) in [
        list("components.list", "components"),
        ("publishers.trust", "publishers".to_owned(), json(acme.trust(&["policy"]))),
        list("publishers.list", "publishers"),
        package("1.0.0", 1),
        package("2.0.0", 2),
        package("3.0.0", 3),
        list("components.show", "components/acme/scope"),
        step("shadow", json!({"version": "1.0.0"})),
        list("components.show", "components/acme/scope"),
        step("withdraw", json!({"reason": "to see that it can be done"})),
        step("activate", json!({"version": "1.0.0", "mode": "enforce", "order": 7, "config": {"rules": []}})),
        step("canary", json!({"version": "2.0.0", "percent": 50, "slo": {"min_calls": 1000}})),
        list("components.list", "components"),
        step("activate", json!({})),
        step("rollback", json!({})),
        list("components.show", "components/acme/scope"),
        step("retire", json!({})),
        list("components.delete", "components/acme/scope/3.0.0"),
        (
            "grants.grant",
            "components/acme/scope/grants".to_owned(),
            json(json!({"capability": "settle", "expires_at": "2030-01-01T00:00:00Z"})),
        ),
        list("grants.withdraw", "components/acme/scope/grants/settle"),
        (
            "revocations.revoke",
            "revocations".to_owned(),
            json(json!({"version": "acme/scope@2.0.0", "reason": "it is old"})),
        ),
        list("revocations.list", "revocations"),
    ] {
        let endpoint = endpoints.iter().find(|it| it.id() == id).unwrap();
        let reply = admin.send(&endpoint.method, &path, body).await;
        assert_eq!(reply.status, 200, "{id}: {reply}");
        endpoint.check(&reply);
        asked.insert(id);
    }
    let all: BTreeSet<_> = endpoints.iter().map(Described::id).collect();
    assert_eq!(asked, all, "each endpoint of the document is asked here");

    let author = Admin::new_tenant(&app, "other", "author");
    for endpoint in &endpoints {
        let (id, method, path) = (endpoint.id(), endpoint.method.as_str(), endpoint.example());
        let stranger = app.client().send(method, &format!("/v1/admin/{path}"), &[], "").await;
        assert_eq!(stranger.status, 401, "{id}");
        endpoint.check(&stranger);
        let elsewhere = admin.send(method, &format!("{path}?tenant=nobody"), "").await;
        assert_eq!(elsewhere.status, 404, "{id}: {elsewhere}");
        endpoint.check(&elsewhere);
        if endpoint.operation["requestBody"]["content"]["application/json"].is_object() {
            let odd = admin.send(method, &path, r#"{"nobody": "knows this"}"#).await;
            assert_eq!((odd.status, odd.header("x-sallyport-code")), (400, Some("invalid")), "{id}: {odd}");
            endpoint.check(&odd);
        }
        let forbidden = author.send(method, &path, "").await;
        let manages = endpoint.operation["x-sallyport-right"] == "manage";
        assert_eq!(forbidden.status == 403, manages, "{id}: {forbidden}");
        endpoint.check(&forbidden);
    }

    app.stop();
    for endpoint in &endpoints {
        for row in endpoint.operation["x-sallyport-rows"].as_array().unwrap() {
            let rows = admin_rows(&app, row.as_str().unwrap());
            assert!(!rows.is_empty(), "{} leaves no row {row}", endpoint.id());
        }
    }
}
