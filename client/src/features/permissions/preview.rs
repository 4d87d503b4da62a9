//! What an approver sees of a call: readable, cleaned, secrets masked as far as they can be told, bounded.
//!
//! Masking is a courtesy and no promise: a secret that looks like nothing known is shown. The digest is over the whole
//! input, so what is masked or left out is approved with the rest.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::output::clean_lines;

/// Longest preview, in code points: what hosts show of a call.
pub const MAX_PREVIEW_CHARS: usize = 3_500;
/// Of a longer one so much of the end is kept: what a long command ends with matters as much as its beginning.
const TAIL_CHARS: usize = 1_000;
/// Room for the words about what is left out.
const MARKER_CHARS: usize = 60;
/// What stands in place of a secret.
const MASK: &str = "[masked]";

/// Patterns that do not compile mask nothing; a test compiles them.
static SECRETS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let known = [
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)", MASK),
        (r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}", "$1 [masked]"),
        (r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}", MASK),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|npm_|pypi-|AIza|ya29\.)[A-Za-z0-9_.-]{10,}", MASK),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MASK),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", MASK),
        (r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", "$1:[masked]@"),
        (
            r#"(?i)\b([a-z0-9_-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s"'&;|]+)"#,
            "$1[masked]",
        ),
        (
            r#"(?i)(\s--?[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|api-?key|access-?key))\s+("[^"]*"|'[^']*'|[^\s"'&;|]+)"#,
            "$1 [masked]",
        ),
    ];
    known.into_iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with))).collect()
});

/// The preview of a tool's input.
pub fn of_input(input: &Value) -> String {
    let mut text = String::new();
    match input {
        Value::Object(map) => {
            for (key, value) in map {
                let value = if is_secret_name(key) { MASK.to_owned() } else { readable(value) };
                let gap = if value.contains('\n') { "\n" } else { " " };
                text += &format!("{key}:{gap}{value}\n");
            }
        }
        other => text = readable(other),
    }
    of_text(text.trim_end())
}

/// The preview of a text that is one already.
pub fn of_text(text: &str) -> String {
    bounded(&clean_lines(&masked(text)))
}

fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let hidden = map.iter().map(|(key, value)| {
                let value = if is_secret_name(key) { MASK.into() } else { value.clone() };
                (key.clone(), value)
            });
            Value::Object(hidden.collect()).to_string()
        }
        other => other.to_string(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "apikey",
        "accesskey",
        "privatekey",
        "credential",
        "authorization",
    ]
    .iter()
    .any(|word| name.ends_with(word))
}

fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, with) in SECRETS.iter() {
        text = pattern.replace_all(&text, *with).into_owned();
    }
    text
}

fn bounded(text: &str) -> String {
    let chars = text.chars().count();
    if chars <= MAX_PREVIEW_CHARS {
        return text.to_owned();
    }
    let head = MAX_PREVIEW_CHARS - TAIL_CHARS - MARKER_CHARS;
    let left_out = chars - head - TAIL_CHARS;
    let beginning: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(chars - TAIL_CHARS).collect();
    format!("{beginning}\n[… {left_out} characters are left out here …]\n{end}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_that_can_be_told_are_masked() {
        assert_eq!(SECRETS.len(), 9, "a pattern does not compile");
        for (text, hidden) in [
            ("curl -H 'Authorization: Bearer abcdefgh12345678'", "abcdefgh12345678"),
            ("export API_KEY=verysecret && run", "verysecret"),
            ("psql postgres://me:hunter22@db/x", "hunter22"),
            ("mysql --password hunter22 -u me", "hunter22"),
            ("git clone https://x:ghp_0123456789abcdef0123@github.com/a/b", "ghp_0123456789abcdef0123"),
            (concat!("key sk-", "ab0123456789cdef0123 end"), "cdef0123"),
            ("AWS AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "abc"),
            ("{\"client_secret\": \"s3cr3t\"}", "s3cr3t"),
        ] {
            let shown = of_text(text);
            assert!(!shown.contains(hidden) && shown.contains(MASK), "{shown}");
        }
        assert_eq!(of_text("the token is in the file"), "the token is in the file");
        assert_eq!(of_text("ls -la && cargo test --workspace"), "ls -la && cargo test --workspace");
        let input = json!({"command": "ls", "apiKey": "abc", "env": {"DB_PASSWORD": "x", "A": "1"}});
        assert_eq!(of_input(&input), "command: ls\napiKey: [masked]\nenv: {\"DB_PASSWORD\":[masked],\"A\":\"1\"}");
    }

    #[test]
    fn what_is_shown_is_clean_and_bounded_and_keeps_both_ends() {
        let command = format!("echo start \u{202e}{}; rm -rf /tmp/x", "é".repeat(20_000));
        let shown = of_input(&json!({"command": command}));
        assert!(shown.chars().count() <= MAX_PREVIEW_CHARS, "{}", shown.chars().count());
        assert!(shown.starts_with("command: echo start é") && shown.ends_with("; rm -rf /tmp/x"), "{shown}");
        assert!(shown.contains("characters are left out here"));
        assert_eq!(of_input(&json!({"command": "a\u{1b}[2Jb"})), "command: a␛[2Jb");
        assert_eq!(of_input(&json!({"content": "a\nb"})), "content:\na\nb");
    }

    proptest::proptest! {
        #[test]
        fn no_preview_is_too_long_or_unclean(text in "\\PC{0,50}(token=|://|\u{202e}|\n| ){0,5}[\\x00-\u{ffff}]{0,5000}") {
            let shown = of_text(&text);
            proptest::prop_assert!(shown.chars().count() <= MAX_PREVIEW_CHARS);
            proptest::prop_assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        }
    }
}
