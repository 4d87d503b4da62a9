//! Our status line in Claude Code's settings: alone, or around the command that was there.
//!
//! There can be one command only. A user's own goes on working: `claudemesh status-line --wrap '<their line>'` runs it and
//! adds a row. The line carries what it wraps, so that it can be put back without any other file. Edits are functions from
//! text to text.

use serde_json::{Value, json};

use super::edits::{Change, is_our_program, quote, split_words};
use super::json_edit::{Document, EditError};

const KEY: &str = "statusLine";
const COMMAND: [&str; 2] = [KEY, "command"];

/// Our status line as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Which program it starts.
    pub program: String,
    /// The user's own line inside it.
    pub wrapped: Option<String>,
}

/// The shell line.
pub fn command(program: &str, wrapped: Option<&str>) -> String {
    let line = format!("{} status-line", quote(program));
    wrapped.map_or_else(|| line.clone(), |inner| format!("{line} --wrap {}", quote(inner)))
}

/// Reads our status line; `None` when there is none or another one.
pub fn installed(doc: &Document) -> Option<Ours> {
    let line = doc.value(&doc.find(&COMMAND)?);
    let mut words = split_words(line.as_str()?)?.into_iter();
    let program = words.next().filter(|program| is_our_program(doc, program))?;
    if words.next()? != "status-line" {
        return None;
    }
    match (words.next().as_deref(), words.next(), words.next()) {
        (None, None, None) => Some(Ours { program, wrapped: None }),
        (Some("--wrap"), Some(inner), None) => Some(Ours { program, wrapped: Some(inner) }),
        _ => None,
    }
}

/// Adds ours, around an existing command. With `only_update` nothing is added, a moved program is followed.
/// `Foreign` when what stands there is no command.
///
/// # Errors
/// [`EditError`]
pub fn add(doc: &mut Document, program: &str, only_update: bool) -> Result<Change, EditError> {
    doc.receipt.programs.insert(program.to_owned());
    if let Some(ours) = installed(doc) {
        let line = command(program, ours.wrapped.as_deref());
        return Ok(match doc.find(&COMMAND) {
            Some(span) if doc.value(&span) != *line => {
                doc.replace(&span, &line.into());
                Change::Updated
            }
            _ => Change::Unchanged,
        });
    }
    if only_update {
        return Ok(Change::Absent);
    }
    if doc.find(&[KEY]).is_none() {
        doc.set(&[], KEY, &json!({"type": "command", "command": command(program, None)}))?;
        return Ok(Change::Added);
    }
    let Some(span) = doc.find(&COMMAND) else { return Ok(Change::Foreign) };
    let Value::String(theirs) = doc.value(&span) else { return Ok(Change::Foreign) };
    doc.receipt.status_line = Some(doc.slice(&span).to_owned());
    doc.replace(&span, &command(program, Some(&theirs)).into());
    Ok(Change::Added)
}

/// Takes ours out and puts back what it was put around.
pub fn remove(doc: &mut Document) -> Change {
    let kept = doc.receipt.status_line.take();
    let Some(ours) = installed(doc) else { return Change::Absent };
    match (ours.wrapped, doc.find(&COMMAND)) {
        (Some(inner), Some(span)) => {
            // The text of the file when it still means the same, for every byte of it.
            let same = |text: &String| serde_json::from_str::<String>(text).is_ok_and(|kept| kept == inner);
            let text = kept.filter(same).unwrap_or_else(|| Value::from(inner.as_str()).to_string());
            doc.replace_text(&span, &text);
        }
        _ => doc.remove_key(&[], KEY),
    }
    Change::Removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        let mut doc = Document::open(text, None).unwrap();
        assert_eq!(add(&mut doc, "/opt/a b/claudemesh", false).unwrap(), Change::Added);
        assert_eq!(add(&mut doc, "/opt/a b/claudemesh", false).unwrap(), Change::Unchanged);
        let installed = doc.text().to_owned();
        let mut doc = Document::open(&*installed, Some(doc.receipt)).unwrap();
        assert_eq!(remove(&mut doc), Change::Removed);
        assert_eq!(doc.text(), text, "{installed}");
        assert_eq!(remove(&mut doc), Change::Absent);
        installed
    }

    #[test]
    fn another_command_is_wrapped_and_put_back_byte_for_byte() {
        assert!(round_trip("{}").contains("\"'/opt/a b/claudemesh' status-line\""));
        assert!(round_trip("{\n  \"model\": \"opus\"\n}\n").contains("\n  \"statusLine\": {\n"));
        let wrapped = round_trip(
            r#"{"statusLine":{"type":"command","command":"~/line.sh \u002d-x 'a b' \"$HOME\"","padding":1}}"#,
        );
        assert!(wrapped.contains("\"padding\":1"), "{wrapped}");
    }

    #[test]
    fn without_a_receipt_the_line_itself_says_what_it_wraps() {
        let mut doc = Document::open(r#"{"statusLine":{"type":"command","command":"it's | mine"}}"#, None).unwrap();
        add(&mut doc, "claudemesh", false).unwrap();
        let mut doc = Document::open(doc.text(), None).unwrap();
        assert_eq!(add(&mut doc, "/new/claudemesh", true).unwrap(), Change::Updated, "a moved program is followed");
        assert_eq!(installed(&doc).unwrap().wrapped.as_deref(), Some("it's | mine"));
        remove(&mut doc);
        assert_eq!(doc.text(), r#"{"statusLine":{"type":"command","command":"it's | mine"}}"#);
    }

    #[test]
    fn what_is_no_command_of_ours_is_left_alone() {
        for text in [r#"{"statusLine":null}"#, r#"{"statusLine":{"type":"x"}}"#, r#"{"statusLine":{"command":7}}"#] {
            let mut doc = Document::open(text, None).unwrap();
            assert_eq!(add(&mut doc, "claudemesh", false).unwrap(), Change::Foreign, "{text}");
            assert_eq!((remove(&mut doc), doc.text()), (Change::Absent, text));
        }
        let mut doc = Document::open("{}", None).unwrap();
        assert_eq!(add(&mut doc, "claudemesh", true).unwrap(), Change::Absent);
        for line in
            ["claudemesh status-line; x", "x status-line", "claudemesh status-line --wrap", "claudemesh send a b"]
        {
            let doc = Document::open(json!({"statusLine": {"command": line}}).to_string(), None).unwrap();
            assert_eq!(installed(&doc), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_survives_the_wrapping(line in "[ -~é\\n\\t]{0,40}") {
            round_trip(&json!({"statusLine": {"type": "command", "command": line}}).to_string());
        }
    }
}
