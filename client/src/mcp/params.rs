//! Parameters and answers of tools: how their schemas look, and how what a model wrote is read.
//!
//! Schemas are plain, so that strict hosts take them: one type for each field, an optional field is one that is not required,
//! no alternatives, no formats. Reading is lenient where the meaning is plain: numbers, booleans and lists that came as text,
//! words in other letters. What is left is an error that names the field, what it may be and its bounds.

use rmcp::model::JsonObject;
use serde_json::{Number, Value, json};

use crate::output::clean;

/// Words about a value end here.
const MAX_SHOWN_CHARS: usize = 40;

/// Makes a schema plain.
pub(super) fn plain(schema: &mut JsonObject) {
    let defs = schema.remove("$defs");
    let mut whole = Value::Object(std::mem::take(schema));
    plain_value(&mut whole, defs.as_ref().unwrap_or(&Value::Null));
    if let Value::Object(map) = whole {
        *schema = map;
    }
}

fn plain_value(schema: &mut Value, defs: &Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Value::String(path)) = map.remove("$ref")
        && let Some(Value::Object(target)) = path.strip_prefix("#/$defs/").map(|name| defs[name].clone())
    {
        add(map, target);
    }
    for name in ["$schema", "title", "format", "nullable", "additionalProperties"] {
        map.remove(name);
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    for name in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(variants)) = map.remove(name) {
            merge(map, variants, defs);
        }
    }
    if let Some(word) = map.remove("const") {
        map.insert("enum".into(), json!([word]));
        map.entry("type").or_insert_with(|| "string".into());
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let first = types.iter().find(|name| *name != "null").cloned();
        map.insert("type".into(), first.unwrap_or_else(|| "string".into()));
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::Object(properties)) = map.get("properties") {
        let optional: Vec<String> =
            properties.iter().filter(|(_, property)| may_be_null(property)).map(|(name, _)| name.clone()).collect();
        if let Some(Value::Array(required)) = map.get_mut("required") {
            required.retain(|name| !optional.iter().any(|optional| name == optional));
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(|property| plain_value(property, defs));
    }
    if let Some(items) = map.get_mut("items") {
        // Any JSON.
        if *items == Value::Bool(true) {
            *items = json!({});
        }
        plain_value(items, defs);
    }
}

/// Whether a property has no value at times; it is absent then.
fn may_be_null(property: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null" || kind["type"] == "null";
    ["type", "anyOf", "oneOf"].iter().any(|name| property[*name].as_array().is_some_and(|all| all.iter().any(is_null)))
}

/// Adds what is not said yet.
fn add(map: &mut JsonObject, more: JsonObject) {
    for (name, value) in more {
        map.entry(name).or_insert(value);
    }
}

/// One schema for alternatives: the words of all of them together, or a list where one or several may be given.
fn merge(map: &mut JsonObject, variants: Vec<Value>, defs: &Value) {
    let mut variants: Vec<Value> = variants.into_iter().filter(|variant| variant["type"] != "null").collect();
    variants.iter_mut().for_each(|variant| plain_value(variant, defs));
    let words: Option<Vec<Value>> = variants
        .iter()
        .map(|variant| variant["enum"].as_array().cloned())
        .collect::<Option<Vec<_>>>()
        .map(|lists| lists.concat());
    if let Some(words) = words.filter(|words| !words.is_empty()) {
        add(map, json!({"type": "string", "enum": words}).as_object().cloned().unwrap_or_default());
        return;
    }
    let list = variants.iter().position(|variant| variant["type"] == "array").unwrap_or(0);
    if let Some(Value::Object(chosen)) = variants.into_iter().nth(list) {
        add(map, chosen);
    }
}

/// The arguments as their schema says.
///
/// # Errors
/// A sentence part: field, what was expected, what came.
pub(super) fn read(schema: &JsonObject, arguments: Option<JsonObject>) -> Result<JsonObject, String> {
    let mut arguments = arguments.unwrap_or_default();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(arguments) };
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in properties {
        let is_required = required.contains(&name.as_str());
        // Nothing, in the ways in which models write it.
        let is_text = property["type"] == "string" && property.get("enum").is_none();
        // Any JSON: what is there is meant as it is.
        let is_any = property["type"].is_null();
        let absent = match arguments.get(name) {
            Some(_) if is_any => false,
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => !is_text && text.trim().is_empty(),
            Some(_) => false,
        };
        if absent {
            arguments.remove(name);
            if is_required {
                return Err(format!("`{name}` is missing; expected {}", expected(property)));
            }
            continue;
        }
        if let Some(value) = arguments.get_mut(name) {
            match fitted(property, value) {
                Some(fits) => *value = fits,
                None => return Err(format!("`{name}`: expected {}, got {}", expected(property), shown(value))),
            }
        }
    }
    Ok(arguments)
}

/// The value in the type of its schema; `None` when its meaning is not plain, or out of bounds.
fn fitted(schema: &Value, value: &Value) -> Option<Value> {
    let Some(kind) = schema["type"].as_str() else { return Some(value.clone()) };
    match kind {
        "string" => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(word) => word.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            let Some(words) = schema["enum"].as_array() else { return Some(text.into()) };
            let same = |word: &&Value| word.as_str().is_some_and(|word| word.eq_ignore_ascii_case(text.trim()));
            words.iter().find(same).cloned()
        }
        "boolean" => match value {
            Value::Bool(_) => Some(value.clone()),
            Value::Number(number) if number.as_f64() == Some(1.0) => Some(true.into()),
            Value::Number(number) if number.as_f64() == Some(0.0) => Some(false.into()),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true.into()),
                "false" | "no" | "off" | "0" => Some(false.into()),
                _ => None,
            },
            _ => None,
        },
        kind @ ("number" | "integer") => {
            let number = match value {
                Value::Number(number) => number.as_f64()?,
                Value::String(text) => text.trim().parse::<f64>().ok()?,
                _ => return None,
            };
            let bound = |name: &str| schema[name].as_f64();
            let inside = bound("minimum").is_none_or(|least| number >= least)
                && bound("maximum").is_none_or(|most| number <= most);
            // Above this, floating point skips whole numbers.
            let whole = number.fract() == 0.0 && number.abs() < 9e15;
            match kind {
                _ if !number.is_finite() || !inside => None,
                "integer" => whole.then(|| Value::from(number as i64)),
                _ => Number::from_f64(number).map(Value::Number),
            }
        }
        "array" => {
            let items = match value {
                Value::Array(items) => items.clone(),
                Value::String(text) => match serde_json::from_str::<Vec<Value>>(text) {
                    Ok(items) => items,
                    Err(_) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect(),
                },
                Value::Number(_) | Value::Bool(_) => vec![value.clone()],
                Value::Null | Value::Object(_) => return None,
            };
            let of = &schema["items"];
            if of["type"].is_null() {
                return Some(items.into());
            }
            items.iter().map(|item| fitted(of, item)).collect::<Option<Vec<Value>>>().map(Value::Array)
        }
        "object" => match value {
            Value::Object(_) => Some(value.clone()),
            Value::String(text) => serde_json::from_str::<JsonObject>(text).ok().map(Value::Object),
            _ => None,
        },
        _ => Some(value.clone()),
    }
}

/// `a number from 1 to 600`, `one of now, next, low`, `a text`.
fn expected(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return format!("one of {}", words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    }
    let kind = match schema["type"].as_str() {
        Some("string") => "a text",
        Some("boolean") => "true or false",
        Some("number") => "a number",
        Some("integer") => "a whole number",
        Some("array") => "a list of texts",
        Some("object") => "an object",
        _ => "a value",
    };
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(least), Value::Number(most)) => format!("{kind} from {least} to {most}"),
        (Value::Number(least), _) => format!("{kind} of at least {least}"),
        (_, Value::Number(most)) => format!("{kind} of at most {most}"),
        _ => kind.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut short: String = clean(&text).chars().take(MAX_SHOWN_CHARS).collect();
    if text.chars().count() > MAX_SHOWN_CHARS {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::MeshServer;
    use crate::mcp::surface::Surface;

    fn schema_of(tool: &str) -> JsonObject {
        let tool = MeshServer::all_tools().into_iter().find(|one| one.name == tool).unwrap();
        (*tool.input_schema).clone()
    }

    fn of(tool: &str, arguments: Value) -> Result<Value, String> {
        read(&schema_of(tool), arguments.as_object().cloned()).map(Value::Object)
    }

    #[test]
    fn every_schema_of_every_surface_is_plain() {
        fn walk(place: &str, schema: &Value) {
            let map = schema.as_object().unwrap_or_else(|| panic!("{place}: not a schema"));
            for name in map.keys() {
                let known =
                    ["type", "description", "properties", "required", "items", "enum", "minimum", "maximum", "default"];
                assert!(known.contains(&name.as_str()), "{place} has {name}");
            }
            // These take any JSON.
            let any = [
                "set_state.value",
                "publish.data",
                "mesh_mcp_answer.result",
                "mesh_query.params[]",
                "mesh_query's answer.rows[][]",
                "mesh_execute.params[]",
                "mesh_execute.batch[][]",
                "mesh_execute.then[].params[]",
                "mesh_execute's answer.rows[][]",
                "mesh_mcp_deploy.scope",
                "mesh_mcp_scope.scope",
                "mesh_mcp_catalog's answer.services[].scope",
                "mesh_mcp_scope's answer.scope",
            ];
            let any = any.contains(&place);
            assert!(map.get("type").is_some_and(Value::is_string) || any, "{place}: {schema}");
            assert!(map.get("default").is_none_or(|value| !value.is_null()), "{place}");
            for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
                assert!(property["description"].is_string(), "{place}.{name} has no description");
                walk(&format!("{place}.{name}"), property);
            }
            if let Some(items) = map.get("items") {
                walk(&format!("{place}[]"), items);
            }
        }
        let tools = MeshServer::all_tools();
        assert!(tools.len() >= 15);
        for surface in [Surface::Full, Surface::Lean, Surface::None] {
            for tool in tools.iter().cloned().filter_map(|tool| surface.list(tool)) {
                walk(&tool.name, &Value::Object((*tool.input_schema).clone()));
                if let Some(schema) = &tool.output_schema {
                    assert_eq!(schema["type"], "object", "{} tells no object", tool.name);
                    walk(&format!("{}'s answer", tool.name), &Value::Object((**schema).clone()));
                }
            }
        }
        assert_eq!(schema_of("send_message")["properties"]["priority"]["enum"], json!(["now", "next", "low"]));
        assert_eq!(schema_of("send_message")["properties"]["to"]["items"]["type"], "string");
        assert_eq!(schema_of("send_message")["required"], json!(["to", "message"]));
        let timeout = schema_of("ask_peer")["properties"]["timeout_seconds"].clone();
        assert_eq!(
            (&timeout["type"], &timeout["minimum"], &timeout["maximum"]),
            (&json!("number"), &json!(1), &json!(600))
        );
    }

    #[test]
    fn what_is_plain_is_taken() {
        let asked =
            of("ask_peer", json!({"to": 12345678, "question": "q", "timeout_seconds": " 5 ", "wait_offline": "Yes"}));
        assert_eq!(
            asked.unwrap(),
            json!({"to": "12345678", "question": "q", "timeout_seconds": 5.0, "wait_offline": true})
        );
        for (to, expected) in [
            (json!("Ann"), json!(["Ann"])),
            (json!("Ann, @qa"), json!(["Ann", "@qa"])),
            (json!("[\"Ann\",\"a, b\"]"), json!(["Ann", "a, b"])),
            (json!(["Ann"]), json!(["Ann"])),
        ] {
            let sent =
                of("send_message", json!({"to": to, "message": "m", "priority": "NOW", "reply_to": null})).unwrap();
            assert_eq!(sent, json!({"to": expected, "message": "m", "priority": "now"}));
        }
        assert_eq!(
            of("ask_peer", json!({"to": "a", "question": "q", "timeout_seconds": ""})).unwrap().get("timeout_seconds"),
            None
        );
        assert_eq!(of("set_visible", json!({"visible": 0})).unwrap()["visible"], false);
        assert_eq!(
            of("set_profile", json!({"capabilities": "review, tests"})).unwrap()["capabilities"],
            json!(["review", "tests"])
        );
        assert_eq!(
            of("answer_permission", json!({"request_id": "abcde", "behavior": "Deny"})).unwrap()["behavior"],
            "deny"
        );
    }

    #[test]
    fn errors_name_the_field_what_it_may_be_and_its_bounds() {
        for (tool, arguments, expected) in [
            (
                "ask_peer",
                json!({"to": "a", "question": "q", "timeout_seconds": 601}),
                "`timeout_seconds`: expected a number from 1 to 600, got 601",
            ),
            (
                "ask_peer",
                json!({"to": "a", "question": "q", "timeout_seconds": "soon"}),
                "`timeout_seconds`: expected a number from 1 to 600, got \"soon\"",
            ),
            ("ask_peer", json!({"question": "q"}), "`to` is missing; expected a text"),
            ("send_message", json!({"to": {}, "message": "m"}), "`to`: expected a list of texts, got {}"),
            ("set_status", json!({"status": "busy"}), "`status`: expected one of idle, working, dnd, got \"busy\""),
            ("set_visible", json!({"visible": "perhaps"}), "`visible`: expected true or false, got \"perhaps\""),
            ("set_summary", json!({"summary": ["a"]}), "`summary`: expected a text, got [\"a\"]"),
        ] {
            assert_eq!(of(tool, arguments).unwrap_err(), expected);
        }
    }
}
