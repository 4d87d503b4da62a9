//! Whether data is what a plain JSON Schema says: one type for each value, no alternatives, every field named.

use serde_json::Value;

/// Checks a value.
///
/// # Errors
/// The place, and what is wrong there: another type, a word that is not listed, a field that is missing or not in the schema.
pub fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    at("", schema, value)
}

fn at(place: &str, schema: &Value, value: &Value) -> Result<(), String> {
    let kind = schema["type"].as_str().unwrap_or_default();
    let right = match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !right {
        return Err(format!("{place}: expected `{kind}`, got {value}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{place}: {value} is none of {}", schema["enum"]));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        at(&format!("{place}[{index}]"), &schema["items"], item)?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let missing = |name: &&Value| name.as_str().is_none_or(|name| !fields.contains_key(name));
    if let Some(name) = schema["required"].as_array().into_iter().flatten().find(missing) {
        return Err(format!("{place}: {name} is missing"));
    }
    for (name, field) in fields {
        match schema["properties"].get(name) {
            Some(schema) => at(&format!("{place}.{name}"), schema, field)?,
            None => return Err(format!("{place}: `{name}` is not in the schema")),
        }
    }
    Ok(())
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
}
