//! What Claude Code writes to a hook's stdin, whole or cut off anywhere.
#![no_main]

use claudemesh::hook::input;
use claudemesh::install::json_scan;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|text: &str| {
    let found = json_scan::members_of_prefix(text);
    for member in &found {
        let value = &text[member.value.clone()];
        assert!(json_scan::root(value).is_ok(), "a found value is complete: {value}");
    }
    let hook = input::parse("stop", text);
    assert!(hook.session_id.is_none_or(|id| !id.is_empty()));
    // What the full parser reads, the reader of prefixes reads, too.
    if let Ok(whole) = serde_json::from_str::<Map<String, Value>>(text) {
        for (key, value) in &whole {
            let last = found.iter().rev().find(|member| member.key == *key).expect("every member is found");
            assert_eq!(serde_json::from_str::<Value>(&text[last.value.clone()]).as_ref().ok(), Some(value));
        }
        // A cut loses members at the end and changes none.
        let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let cut = json_scan::members_of_prefix(&text[..middle]);
        assert_eq!(cut, found[..cut.len()]);
    }
});
