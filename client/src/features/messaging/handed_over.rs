//! Which messages the queued commands have become: the id that `send` printed goes on meaning something.
//!
//! `handed-over.jsonl` beside the queued commands, one line for each, the newest last. Ids only, no text.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::outbox::Parcel;
use crate::files;

/// Commands that are remembered; older ones are in `sent` under the ids of their messages.
const MAX_NOTES: usize = 500;
/// Largest file that is read.
const MAX_BYTES: u64 = 4 << 20;
const FILE: &str = "handed-over.jsonl";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    id: String,
    messages: Vec<String>,
}

/// Notes a command whose messages the broker has. The caller has the lock of the outbox.
pub(super) fn note(dir: &Path, parcel: &Parcel) -> io::Result<()> {
    let messages: Vec<String> = parcel.steps.iter().filter_map(|step| step.message_id.clone()).collect();
    let mut notes = read(dir);
    notes.retain(|note| note.id != parcel.id);
    notes.push(Note { id: parcel.id.clone(), messages });
    let surplus = notes.len().saturating_sub(MAX_NOTES);
    let lines: Result<Vec<String>, _> = notes[surplus..].iter().map(serde_json::to_string).collect();
    files::write_private(&dir.join(FILE), (lines?.join("\n") + "\n").as_bytes())
}

/// The messages of the command whose id begins so.
pub(super) fn find(dir: &Path, id: &str) -> Option<Vec<String>> {
    read(dir).into_iter().rev().find(|note| note.id.starts_with(id)).map(|note| note.messages)
}

/// A damaged line is left out.
fn read(dir: &Path) -> Vec<Note> {
    let bytes = files::read_limited(&dir.join(FILE), MAX_BYTES).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Step, steps};
    use super::*;
    use crate::features::messaging::Draft;
    use claudemesh_protocol::features::messaging::Priority;

    #[test]
    fn an_id_leads_to_its_messages_and_old_ones_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut parcel = Parcel::new(&Draft::new("x", Priority::Next), "batch", steps(&["Ann".into()]), false);
        for number in 0..=MAX_NOTES {
            parcel.id = format!("{number:08}-queued");
            parcel.steps = vec![Step { message_id: Some(format!("m{number}")), ..Step::new(vec!["Ann".into()]) }];
            note(dir.path(), &parcel).unwrap();
            // The same one again, after a crash.
            note(dir.path(), &parcel).unwrap();
        }
        assert_eq!(find(dir.path(), "00000007"), Some(vec!["m7".to_owned()]));
        assert_eq!(find(dir.path(), "00000000"), None, "the oldest is gone");
        assert_eq!(read(dir.path()).len(), MAX_NOTES);
        assert_eq!(files::mode_of(&dir.path().join(FILE)), Some(0o600));
        std::fs::write(dir.path().join(FILE), "{\n").unwrap();
        assert_eq!(find(dir.path(), "00000007"), None);
    }
}
