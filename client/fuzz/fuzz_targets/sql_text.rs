//! Files with statements, and files of comma-separated values.
#![no_main]

use claudemesh::features::sql::{csv, split};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let (all, left) = split::statements(text);
    let mut at = 0;
    for part in all.iter().chain((!left.is_empty()).then_some(&left)) {
        at += text[at..].find(part).expect("each is a part of the text, in order") + part.len();
    }
    for statement in all {
        let alone = format!("{statement}\n;");
        assert_eq!(split::statements(&alone), (vec![statement], ""), "a statement alone is one");
    }
    if let Ok(rows) = csv::read(text) {
        let value = |field: &Option<String>| field.clone().map_or(Value::Null, Value::String);
        let line = |row: &Vec<Option<String>>| csv::line(row.iter().map(value).collect::<Vec<_>>().iter());
        let again: String = rows.iter().map(line).collect();
        assert_eq!(csv::read(&again).expect("what is written can be read"), rows);
    }
});
