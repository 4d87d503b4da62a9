//! Whether data is what a JSON Schema says: types, words, alternatives, fields that must be there, and no field that is not named.

use serde_json::Value;

/// Checks a value. Stricter than the standard in one thing: a field that the schema does not name is a fault, unless it says
/// `additionalProperties`.
///
/// # Errors
/// The place, and what is wrong there: another type, a word that is not listed, a field that is missing or not in the schema.
pub fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    at("", schema, value)
}

fn at(place: &str, schema: &Value, value: &Value) -> Result<(), String> {
    if *schema == Value::Bool(true) {
        return Ok(());
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind, value)) {
        return Err(format!("{place}: expected `{}`, got {value}", kinds.join("` or `")));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{place}: {value} is none of {}", schema["enum"]));
    }
    if schema.get("const").is_some_and(|word| word != value) {
        return Err(format!("{place}: {value} is not {}", schema["const"]));
    }
    for name in ["anyOf", "oneOf"] {
        let Some(alternatives) = schema[name].as_array() else { continue };
        let faults: Vec<String> = alternatives.iter().filter_map(|one| at(place, one, value).err()).collect();
        if faults.len() == alternatives.len() {
            return Err(faults.join("; or "));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = schema.get("items") {
            at(&format!("{place}[{index}]"), schema, item)?;
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let missing = |name: &&Value| name.as_str().is_none_or(|name| !fields.contains_key(name));
    if let Some(name) = schema["required"].as_array().into_iter().flatten().find(missing) {
        return Err(format!("{place}: {name} is missing"));
    }
    if !kinds.contains(&"object") {
        return Ok(());
    }
    for (name, field) in fields {
        match schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
            Some(Value::Bool(false)) | None => return Err(format!("{place}: `{name}` is not in the schema")),
            Some(schema) => at(&format!("{place}.{name}"), schema, field)?,
        }
    }
    Ok(())
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_fits_or_its_place_is_told() {
        let schema = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "enum": ["a", "b"]},
            "list": {"type": "array", "items": {"type": "object", "properties": {"count": {"type": "integer"}}}},
        }});
        assert_eq!(fits(&schema, &json!({"name": "a", "list": [{"count": 1}, {}]})), Ok(()));
        for (value, wrong) in [
            (json!([]), ": expected `object`, got []"),
            (json!({}), ": \"name\" is missing"),
            (json!({"name": "c"}), ".name: \"c\" is none of [\"a\",\"b\"]"),
            (json!({"name": "a", "list": null}), ".list: expected `array`, got null"),
            (json!({"name": "a", "list": [{"count": 1.5}]}), ".list[0].count: expected `integer`, got 1.5"),
            (json!({"name": "a", "more": 1}), ": `more` is not in the schema"),
        ] {
            assert_eq!(fits(&schema, &value), Err(wrong.to_owned()));
        }
    }

    #[test]
    fn alternatives_and_maps_are_followed() {
        let schema = json!({"type": "array", "items": {"anyOf": [
            {"type": "object", "required": ["a"], "properties": {"a": {"type": ["string", "null"]}}},
            {"type": "object", "required": ["b"], "properties": {"b": {"oneOf": [{"const": "x"}, {"const": "y"}]}}},
            {"type": "object", "required": ["c"], "properties": {"c": true}, "additionalProperties": {"type": "integer"}},
        ]}});
        assert_eq!(fits(&schema, &json!([{"a": null}, {"b": "y"}, {"c": [1], "d": 2}])), Ok(()));
        for wrong in
            [json!([{"a": 1}]), json!([{"b": "z"}]), json!([{"c": 1, "d": "2"}]), json!([{"a": "1", "b": "x"}])]
        {
            assert!(fits(&schema, &wrong).is_err(), "{wrong}");
        }
    }
}
