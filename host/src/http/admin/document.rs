//! The reference of the endpoints of administrators: an `OpenAPI` document and a page, both printed from [`super::endpoints`].

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use sallyport_protocol::audit::Action;
use sallyport_protocol::errors::{ErrorCode, Told};
use sallyport_protocol::messages::error::ErrorType;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::SCOPE;
use super::endpoint::{BodyShape, EndpointFacts};
use crate::catalog::Verb;

/// Where shapes stand in the document.
const SHAPES: &str = "#/components/schemas/";

/// An `OpenAPI` document, which names every endpoint, what it takes, and what it ends in.
pub(crate) fn openapi() -> String {
    format!("{:#}\n", document())
}

fn document() -> Value {
    let (mut asked, mut answered) = (requests(), answers());
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for facts in all() {
        let operation = operation(&facts, &mut asked, &mut answered);
        paths.entry(facts.shown_path()).or_default().insert(facts.method.as_str().to_lowercase(), operation);
    }
    let mut schemas = answered.take_definitions(true);
    schemas.insert("Error".to_owned(), error_shape());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sallyport: administration",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Components, publishers, grants and revocations, for administrators of the platform and of tenants.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": { "tenant": tenant() },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": format!("A personal access token or an access token with the scope {SCOPE}"),
                },
            },
        },
    })
}

/// The same for people, in Markdown.
pub(crate) fn markdown() -> String {
    let (mut asked, mut answered) = (requests(), answers());
    let mut page = vec!["## Endpoints".to_owned(), "| | right | |\n|---|---|---|".to_owned()];
    page.extend(all().map(|facts| {
        format!("| [`{}`](#{}) | {} | {} |", facts.line(), facts.anchor(), facts.level.as_str(), facts.about)
    }));
    for facts in all() {
        page.push(format!("\n### {}\n`{}`\n\n{}.\n", facts.id, facts.line(), facts.about));
        page.push(format!("| | |\n|---|---|\n| right | {} |", facts.level.as_str()));
        page.push(format!("| answer | {} |", type_of((facts.answer)(&mut answered).as_value())));
        if !facts.rows.is_empty() {
            page.push(format!("| row | {} |", words(facts.rows.iter().map(|row| Action::as_str(*row)))));
        }
        page.push(format!("| codes | {} |", words(facts.codes().iter().map(|code| code.as_str()))));
        match facts.body {
            BodyShape::None => {}
            BodyShape::Package => page.push("| body | the package, as it is |".to_owned()),
            BodyShape::Json(shape) => {
                page.push("\nThe body is JSON:\n".to_owned());
                page.extend(fields(shape(&mut asked).as_value()));
            }
        }
    }
    page.push("\n## Shapes".to_owned());
    for (name, shape) in answered.take_definitions(true) {
        let about = shape.get("description").and_then(Value::as_str).unwrap_or_default();
        page.push(format!("\n### {name}\n{about}\n"));
        page.extend(fields(&shape));
    }
    page.join("\n") + "\n"
}

// === impl EndpointFacts ===

impl EndpointFacts {
    /// The path as documents write it.
    fn shown_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    /// Method and path.
    fn line(&self) -> String {
        format!("{} {}", self.method, self.shown_path())
    }

    /// Its heading, as a link names it.
    fn anchor(&self) -> String {
        self.id.replace('.', "")
    }

    /// The names between braces.
    fn parameters(&self) -> impl Iterator<Item = &str> {
        self.path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
            .map(|it| it.trim_start_matches('*'))
    }
}

// === private helpers ===

fn all() -> impl Iterator<Item = EndpointFacts> {
    super::endpoints().into_iter().map(|endpoint| endpoint.facts)
}

/// Gathers shapes of requests, each where it is used.
fn requests() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    settings.for_deserialize().into_generator()
}

/// Gathers shapes of answers, under their names.
fn answers() -> SchemaGenerator {
    let settings =
        SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
    settings.for_serialize().into_generator()
}

fn operation(facts: &EndpointFacts, asked: &mut SchemaGenerator, answered: &mut SchemaGenerator) -> Value {
    let parameters = facts.parameters().map(|name| parameter(name, facts));
    let tenant = json!({ "$ref": "#/components/parameters/tenant" });
    let mut operation = json!({
        "operationId": facts.id,
        "summary": facts.about,
        "x-sallyport-right": facts.level.as_str(),
        "x-sallyport-rows": facts.rows.iter().map(|row| row.as_str()).collect::<Vec<_>>(),
        "parameters": parameters.chain([tenant]).collect::<Vec<_>>(),
        "responses": responses(facts, answered),
    });
    let body = match facts.body {
        BodyShape::None => return operation,
        BodyShape::Package => json!({ "required": true, "content": { "application/octet-stream": {} } }),
        BodyShape::Json(shape) => {
            let schema = shape(asked);
            let required = schema.get("required").is_some();
            json!({ "required": required, "content": { "application/json": { "schema": schema } } })
        }
    };
    if let Some(fields) = operation.as_object_mut() {
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

fn parameter(name: &str, facts: &EndpointFacts) -> Value {
    let (about, schema) = match name {
        "namespace" => ("The publisher's namespace", json!({ "type": "string" })),
        "name" => ("The component's name within it", json!({ "type": "string" })),
        "capability" => ("The capability, as it was granted", json!({ "type": "string" })),
        _ if facts.method == Method::POST => {
            ("The step", json!({ "type": "string", "enum": Verb::ALL.map(Verb::as_str) }))
        }
        _ => ("The version", json!({ "type": "string" })),
    };
    json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema })
}

fn tenant() -> Value {
    json!({
        "name": "tenant",
        "in": "query",
        "description": "Whose catalog, by the tenant's id. Administrators of the platform name any, or none for the platform's own; others their own or none",
        "schema": { "type": "string" },
    })
}

/// Answers by their status.
fn responses(facts: &EndpointFacts, answered: &mut SchemaGenerator) -> Value {
    let mut codes: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::from([(400, BTreeSet::new())]);
    for code in facts.codes() {
        for (status, _) in told(code) {
            codes.entry(*status).or_default().insert(code.as_str());
        }
    }
    let done = json!({
        "description": "It is done",
        "content": { "application/json": { "schema": (facts.answer)(answered) } },
    });
    let mut responses = Map::from_iter([("200".to_owned(), done)]);
    for (status, codes) in codes {
        let described = if status == 400 {
            "The request cannot be read, which has no code where it is about query or coding; or what it asks for makes no sense"
        } else {
            "It was not done"
        };
        let mut response = json!({
            "description": described,
            "content": { "application/json": { "schema": { "$ref": format!("{SHAPES}Error") } } },
        });
        if let (Some(response), false) = (response.as_object_mut(), codes.is_empty()) {
            let code =
                json!({ "description": "What it is called", "schema": { "type": "string", "enum": codes } });
            response.insert("headers".to_owned(), json!({ "x-sallyport-code": code }));
        }
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}

fn told(code: ErrorCode) -> &'static [(u16, ErrorType)] {
    match code.told() {
        Told::As(answers) => answers,
        Told::Denial | Told::ByKind | Told::Upstream | Told::Nothing => &[],
    }
}

/// An error of the Messages API.
fn error_shape() -> Value {
    json!({
        "type": "object",
        "description": "An error, in the shape of the Messages API.",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": { "const": "error", "type": "string" },
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {
                    "type": { "type": "string", "enum": ErrorType::ALL.map(ErrorType::as_str) },
                    "message": { "type": "string" },
                },
            },
            "request_id": { "type": "string" },
        },
    })
}

/// The fields of an object as a table.
fn fields(shape: &Value) -> Vec<String> {
    let required = |name: &str| {
        shape.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|it| it == name))
    };
    let row = |(name, field): (&String, &Value)| {
        let about = field.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let needed = if required(name) { "" } else { ", or left out" };
        format!("| `{name}` | {}{needed} | {about} |", type_of(field))
    };
    let named = shape.get("properties").and_then(Value::as_object).into_iter().flatten();
    std::iter::once("| field | is | |\n|---|---|---|".to_owned()).chain(named.map(row)).collect()
}

/// What a value is, in words.
fn type_of(shape: &Value) -> String {
    if let Some(name) = shape.get("$ref").and_then(Value::as_str) {
        let name = name.trim_start_matches(SHAPES);
        return format!("[{name}](#{})", name.to_lowercase());
    }
    let either = |forms: &[Value]| forms.iter().map(type_of).collect::<Vec<_>>().join(" or ");
    if let Some(forms) = shape.get("anyOf").or_else(|| shape.get("oneOf")).and_then(Value::as_array) {
        return either(forms);
    }
    if let Some(word) = shape.get("const") {
        return code(word);
    }
    if let Some(words) = shape.get("enum").and_then(Value::as_array) {
        return words.iter().map(code).collect::<Vec<_>>().join(", ");
    }
    match shape.get("type") {
        Some(Value::Array(types)) => {
            types.iter().map(|kind| of_kind(kind, shape)).collect::<Vec<_>>().join(" or ")
        }
        Some(kind) => of_kind(kind, shape),
        None => "any JSON".to_owned(),
    }
}

/// What a value of this JSON type is.
fn of_kind(kind: &Value, shape: &Value) -> String {
    let kind = kind.as_str().unwrap_or_default();
    let format = shape.get("format").and_then(Value::as_str);
    match (kind, shape.get("items"), shape.get("properties")) {
        ("array", Some(items), _) => format!("list of {}", type_of(items)),
        ("object", _, Some(Value::Object(properties))) => {
            let named = properties.iter().map(|(name, it)| format!("`{name}`: {}", type_of(it)));
            format!("object of {}", named.collect::<Vec<_>>().join("; "))
        }
        ("string", ..) if format == Some("date-time") => "time".to_owned(),
        _ => kind.to_owned(),
    }
}

fn code(word: &Value) -> String {
    word.as_str().map_or_else(|| word.to_string(), |word| format!("`{word}`"))
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
