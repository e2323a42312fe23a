//! What a PATCH asks for (RFC 7644, section 3.5.2), in the ways in which providers write it.

use serde_json::Value;

use super::ScimError;

/// Operations of one request.
pub(in crate::http) const MOST_OPERATIONS: usize = 100;

/// One operation.
#[derive(Debug, PartialEq)]
pub(super) struct PatchOperation {
    pub(super) kind: PatchKind,
    /// Attribute, as it was written; none: the value is an object of attributes.
    pub(super) path: Option<String>,
    pub(super) value: Value,
}

/// What is done to an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchKind {
    Add,
    Replace,
    Remove,
}

/// The operations of a body, in their order.
pub(super) fn operations(body: &Value) -> Result<Vec<PatchOperation>, ScimError> {
    let listed = body.get("Operations").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| ScimError::invalid("invalidSyntax", "Operations is no list"))?;
    if listed.is_empty() || listed.len() > MOST_OPERATIONS {
        return Err(ScimError::invalid(
            "invalidSyntax",
            format!("a request has 1 to {MOST_OPERATIONS} operations"),
        ));
    }
    listed.iter().map(PatchOperation::read).collect()
}

/// `true`, and what some providers write for it.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

// === impl PatchOperation ===

impl PatchOperation {
    fn read(value: &Value) -> Result<Self, ScimError> {
        let wrong = |what: &str| ScimError::invalid("invalidSyntax", what);
        let kind = value.get("op").and_then(Value::as_str).unwrap_or_default();
        // Entra writes `Add`.
        let kind = match kind.to_ascii_lowercase().as_str() {
            "add" => PatchKind::Add,
            "replace" => PatchKind::Replace,
            "remove" => PatchKind::Remove,
            _ => return Err(wrong("op is add, replace or remove")),
        };
        let path = match value.get("path") {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) if !path.is_empty() => Some(path.clone()),
            Some(_) => return Err(ScimError::invalid("invalidPath", "path is no text")),
        };
        let value = value.get("value").cloned().unwrap_or(Value::Null);
        match (kind, &path, &value) {
            (PatchKind::Remove, None, _) => Err(ScimError::invalid("noTarget", "remove needs a path")),
            (PatchKind::Add | PatchKind::Replace, None, value) if !value.is_object() => {
                Err(ScimError::invalid("invalidValue", "without a path, value is an object"))
            }
            (PatchKind::Add | PatchKind::Replace, Some(_), Value::Null) if kind == PatchKind::Add => {
                Err(ScimError::invalid("invalidValue", "add needs a value"))
            }
            _ => Ok(Self { kind, path, value }),
        }
    }

    /// The attributes that it sets or, without a value, takes away.
    pub(super) fn attributes(&self) -> Vec<(String, Value)> {
        match (&self.path, &self.value) {
            (Some(path), value) => vec![(path.clone(), value.clone())],
            (None, Value::Object(fields)) => {
                fields.iter().map(|(name, it)| (name.clone(), it.clone())).collect()
            }
            (None, _) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_are_read_as_providers_write_them() {
        let body = json!({"Operations": [
            {"op": "Replace", "path": "active", "value": "False"},
            {"op": "add", "value": {"displayName": "Ann", "active": true}},
            {"op": "remove", "path": "externalId"},
        ]});
        let read = operations(&body).unwrap();
        assert_eq!(read[0].attributes(), [("active".to_owned(), json!("False"))]);
        assert_eq!((read[0].kind, flag(&read[0].value)), (PatchKind::Replace, Some(false)));
        assert_eq!(read[1].attributes().len(), 2);
        assert_eq!((read[2].kind, read[2].value.is_null()), (PatchKind::Remove, true));
        assert_eq!(flag(&json!(1)), None);
        for bad in [
            json!({}),
            json!({"Operations": []}),
            json!({"Operations": [{"op": "move", "path": "a"}]}),
            json!({"Operations": [{"op": "remove"}]}),
            json!({"Operations": [{"op": "add", "path": "a"}]}),
            json!({"Operations": [{"op": "add", "value": 1}]}),
            json!({"Operations": [{"op": "add", "path": 1, "value": 1}]}),
            json!({"Operations": vec![json!({"op": "remove", "path": "a"}); 101]}),
        ] {
            assert!(operations(&bad).is_err(), "{bad}");
        }
    }
}
