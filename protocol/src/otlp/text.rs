//! Exports in JSON.

use serde_json::{Map, Value, json};

use super::{NotOtlp, Signal, is_claim, is_reserved};

/// See [`super::stamp`].
pub(super) fn stamp(signal: Signal, body: &[u8], attributes: &[(&str, &str)]) -> Result<Vec<u8>, NotOtlp> {
    let mut export: Value = serde_json::from_slice(body).map_err(|_| NotOtlp("it is not JSON"))?;
    let fields = export.as_object_mut().ok_or(NotOtlp("it is no object"))?;
    // A receiver may know the list under another spelling, and would find it as the client wrote it.
    if fields.keys().any(|name| name != signal.list()) {
        return Err(NotOtlp("it has a field that an export does not have"));
    }
    if let Some(list) = fields.get_mut(signal.list()) {
        for item in list.as_array_mut().ok_or(NotOtlp("its list is none"))? {
            let item = item.as_object_mut().ok_or(NotOtlp("an entry of its list is no object"))?;
            item.values_mut().for_each(without_reserved);
            stamp_resource(item, attributes)?;
        }
    }
    serde_json::to_vec(&export).map_err(|_| NotOtlp("it cannot be written"))
}

// === private helpers ===

fn stamp_resource(item: &mut Map<String, Value>, attributes: &[(&str, &str)]) -> Result<(), NotOtlp> {
    let resource = item.entry("resource").or_insert(Value::Null);
    if resource.is_null() {
        *resource = json!({});
    }
    let resource = resource.as_object_mut().ok_or(NotOtlp("a resource is no object"))?;
    let told = resource.entry("attributes").or_insert(Value::Null);
    if told.is_null() {
        *told = json!([]);
    }
    let told = told.as_array_mut().ok_or(NotOtlp("attributes are no list"))?;
    told.retain(|attribute| !name_of(attribute).is_some_and(is_claim));
    told.extend(
        attributes.iter().map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } })),
    );
    Ok(())
}

/// Takes out attributes that are the gateway's to say, at every depth. serde bounds how deep a text is.
fn without_reserved(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !name_of(item).is_some_and(is_reserved));
            items.iter_mut().for_each(without_reserved);
        }
        Value::Object(fields) => fields.values_mut().for_each(without_reserved),
        _ => {}
    }
}

fn name_of(attribute: &Value) -> Option<&str> {
    attribute.get("key")?.as_str()
}
