//! Any text as somebody else's JSON: the scanner agrees with a full parser, its spans lie in the text, and what is put in
//! comes out again without a trace.
#![no_main]

use claudemesh::install::json_edit::Document;
use claudemesh::install::json_scan::{self as scan, Kind, Span};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|text: &str| {
    let Ok(root) = scan::root(text) else {
        let theirs = serde_json::from_str::<IgnoredAny>(text);
        assert!(theirs.is_err(), "a full parser accepts it");
        return;
    };
    // The full parser has a depth limit, refuses lone surrogates and knows no byte order mark; nothing else may differ.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let known = text.starts_with('\u{feff}') || text.contains("\\u") || error.to_string().contains("recursion");
        assert!(known, "{error}");
    }
    walk(text, &root, 0);
    let Ok(mut doc) = Document::open(text, None) else { return };
    if doc.find(&["mcpServers", "claudemesh"]).is_none()
        && doc.set(&["mcpServers"], "claudemesh", &serde_json::json!({"args": ["mcp"], "env": {}})).is_ok()
    {
        assert!(scan::root(doc.text()).is_ok(), "still JSON");
        let mut doc = Document::open(doc.text(), Some(doc.receipt.clone())).expect("what we write opens");
        assert!(doc.find(&["mcpServers", "claudemesh", "args"]).is_some(), "it is where it was put");
        doc.remove_key(&["mcpServers"], "claudemesh");
        assert_eq!(doc.text(), text, "every other byte stays");
    }
});

fn walk(text: &str, span: &Span, depth: usize) {
    // Slicing panics outside the text or within a character.
    let inner = &text[span.clone()];
    if depth > 64 {
        return;
    }
    match scan::kind(text, span) {
        Kind::Object => {
            for member in scan::members(text, span).expect("the whole text was checked") {
                assert!(member.span.start < member.value.start && member.span.end == member.value.end);
                walk(text, &member.value, depth + 1);
            }
        }
        Kind::Array => {
            for item in scan::items(text, span).expect("the whole text was checked") {
                walk(text, &item, depth + 1);
            }
        }
        Kind::String => assert!(inner.len() >= 2 && inner.ends_with('"')),
        Kind::Other => assert!(!inner.is_empty()),
    }
}
