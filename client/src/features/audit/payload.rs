//! What an entry of the audit log was about, in words: `audit list --json` has the payload itself.

use std::collections::BTreeMap;

use claudemesh_protocol::time::iso;
use serde_json::Value;

/// Fields that hold Unix milliseconds.
const TIMES: [&str; 5] = ["at", "since", "expiresAt", "simMs", "atMs"];
/// Fields that hold an id or a key.
const IDS: [&str; 12] = [
    "member",
    "invite",
    "session",
    "task",
    "context",
    "memory",
    "scheduleId",
    "topic",
    "stream",
    "skill",
    "of",
    "author",
];
/// Characters from which on such a text is an id and no name.
const FULL_ID_CHARS: usize = 20;
/// Characters of an id that are shown, as in every list.
const ID_CHARS: usize = 8;

/// `member Bob · fields display_name · renamed from Bob to Robert`. Members are named where their name is known.
pub(super) fn payload_words(payload: &Value, names: &BTreeMap<String, String>) -> String {
    let Value::Object(fields) = payload else { return value_words("", payload, names) };
    let mut parts = vec![];
    for (name, value) in fields {
        if matches!(value, Value::Null) || value.as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        parts.push(format!("{} {}", field_words(name), value_words(name, value, names)));
    }
    parts.join(" · ")
}

/// `maxUses` as `max uses`.
fn field_words(name: &str) -> String {
    let mut words = String::new();
    for symbol in name.chars() {
        if symbol.is_uppercase() {
            words.push(' ');
        }
        words.extend(symbol.to_lowercase());
    }
    words.trim_end_matches(" id").to_owned()
}

fn value_words(field: &str, value: &Value, names: &BTreeMap<String, String>) -> String {
    match value {
        Value::String(text) => match names.get(text) {
            Some(name) => name.clone(),
            None if IDS.contains(&field) && text.len() >= FULL_ID_CHARS => text.chars().take(ID_CHARS).collect(),
            None => text.clone(),
        },
        Value::Number(number) => match number.as_i64().filter(|_| TIMES.contains(&field)) {
            Some(at_ms) => crate::clock::shown(&iso(at_ms)).into_owned(),
            None => number.to_string(),
        },
        Value::Array(list) => list.iter().map(|one| value_words(field, one, names)).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let inner =
                fields.iter().map(|(name, one)| format!("{} {}", field_words(name), value_words(name, one, names)));
            inner.collect::<Vec<_>>().join(" ")
        }
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Null => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_is_words_and_no_json() {
        let names = BTreeMap::from([("AbCdEfGhIjKlMnOpQrStUv".to_owned(), "Bob".to_owned())]);
        let renamed = json!({
            "member": "AbCdEfGhIjKlMnOpQrStUv", "fields": ["display_name"], "role": null,
            "renamed": {"from": "Bob", "to": "Robert"}
        });
        let told = payload_words(&renamed, &names);
        for part in ["member Bob", "fields display_name", "renamed from Bob to Robert"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains(['{', '"']) && !told.contains("role"), "{told}");
        let invited = json!({"invite": "ZyXwVuTsRqPoNmLkJiHgFe", "maxUses": 5, "expiresAt": 1_900_000_000_000_i64});
        let told = payload_words(&invited, &names);
        assert!(told.contains("invite ZyXwVuTs") && told.contains("max uses 5"), "{told}");
        assert!(!told.contains("1900000000000") && told.contains("expires at 2030-03-1"), "{told}");
        let key = json!({"key": "deploy-production-eu-west", "size": 3});
        assert_eq!(payload_words(&key, &names), "key deploy-production-eu-west · size 3");
        assert_eq!(payload_words(&json!({"scheduleId": "abc", "expired": true}), &names), "schedule abc · expired yes");
    }
}
