//! The host's transcript of the session, read for two things only: whether a message's id stands in it, and whether the
//! model has said something after that.
//!
//! One JSON object per line; the format is the host's and not documented. Seen in Claude Code 2.1.197 and 2.1.329: what the
//! model says has the type `assistant`, and all blocks of one answer of the API carry its id. An answer that began before a
//! message came goes on after it without knowing it, so only one with another id counts. A message that the host keeps for
//! later stands there as `queue-operation` first.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use memchr::memmem::Finder;
use serde::Deserialize;

/// How much of the transcript's end is read: far more than one turn writes.
const TAIL_BYTES: u64 = 4 << 20;

/// How far a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    /// The host keeps it for later.
    Queued,
    /// The next request to the model will hold it.
    InContext,
    /// The model has said something since.
    Read,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: &'a str,
    /// A subagent has its own context.
    #[serde(rename = "isSidechain", default)]
    is_sidechain: bool,
    /// The host itself speaks in the model's place.
    #[serde(rename = "isApiErrorMessage", default)]
    is_error: bool,
    #[serde(borrow, default)]
    message: Option<Answer<'a>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    id: Option<&'a str>,
}

/// Reads the end of the file: whether it holds what the model says, and the sign of each id that stands in it. An id is a
/// random word, so finding it means finding the message.
pub(super) fn read(transcript: &Path, ids: &[String]) -> (bool, HashMap<String, Sign>) {
    tail(transcript).map_or_else(Default::default, |tail| signs(&tail, ids))
}

fn tail(transcript: &Path) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(transcript).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    Some(tail)
}

fn signs(tail: &[u8], ids: &[String]) -> (bool, HashMap<String, Sign>) {
    let wanted: Vec<(&String, Finder<'_>)> = ids.iter().map(|id| (id, Finder::new(id.as_bytes()))).collect();
    let assistant = Finder::new(b"\"assistant\"");
    let mut signs = HashMap::new();
    let mut answers: HashSet<&str> = HashSet::new();
    for line in tail.split(|byte| *byte == b'\n') {
        let held: Vec<&String> =
            wanted.iter().filter(|(_, finder)| finder.find(line).is_some()).map(|(id, _)| *id).collect();
        if held.is_empty() && assistant.find(line).is_none() {
            continue;
        }
        // What is cut off at the beginning, or of another form, is no word of the model.
        let parsed = serde_json::from_slice::<Line<'_>>(line).ok();
        let kind = parsed.as_ref().map_or("", |line| line.kind);
        let answer = parsed
            .as_ref()
            .filter(|line| line.kind == "assistant" && !line.is_sidechain && !line.is_error)
            .and_then(|line| line.message.as_ref()?.id);
        if let Some(answer) = answer {
            if answers.insert(answer) {
                for sign in signs.values_mut().filter(|sign| **sign == Sign::InContext) {
                    *sign = Sign::Read;
                }
            }
            // Only who has read it can name it.
            signs.extend(held.into_iter().map(|id| (id.clone(), Sign::Read)));
            continue;
        }
        let sign = if kind == "queue-operation" { Sign::Queued } else { Sign::InContext };
        for id in held {
            let known = signs.entry(id.clone()).or_insert(sign);
            *known = sign.max(*known);
        }
    }
    (!answers.is_empty(), signs)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "59456a42-id";

    fn said(answer: &str, text: &str) -> Value {
        json!({"type": "assistant", "isSidechain": false, "message": {"id": answer, "content": [{"type": "text", "text": text}]}})
    }

    fn context() -> Value {
        json!({"type": "attachment", "attachment": {"type": "hook_additional_context", "content": [format!("id \"{ID}\"")]}})
    }

    fn sign(lines: &[Value]) -> (bool, Option<Sign>) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (known, signs) = signs(text.as_bytes(), &[ID.to_owned()]);
        (known, signs.get(ID).copied())
    }

    #[test]
    fn only_another_answer_of_the_model_shows_that_it_was_read() {
        let user = json!({"type": "user", "message": {"role": "user", "content": "hi"}});
        assert_eq!(sign(&[]), (false, None));
        assert_eq!(sign(&[user.clone(), said("msg_1", "hello")]), (true, None));
        assert_eq!(sign(&[said("msg_1", "two calls"), context()]), (true, Some(Sign::InContext)));
        // The second block of an answer that was under way.
        assert_eq!(sign(&[said("msg_1", "a"), context(), said("msg_1", "b")]), (true, Some(Sign::InContext)));
        assert_eq!(sign(&[said("msg_1", "a"), context(), user, said("msg_2", "b")]), (true, Some(Sign::Read)));
        assert_eq!(sign(&[context()]), (false, Some(Sign::InContext)));
    }

    #[test]
    fn neither_a_queue_nor_a_subagent_nor_the_host_itself_reads() {
        let queued = json!({"type": "queue-operation", "operation": "enqueue", "content": format!("id {ID}")});
        assert_eq!(sign(&[said("msg_1", "a"), queued.clone(), said("msg_2", "b")]), (true, Some(Sign::Queued)));
        assert_eq!(sign(&[queued, context(), said("msg_1", "a")]), (true, Some(Sign::Read)));
        let mut side = said("msg_2", "b");
        side["isSidechain"] = true.into();
        assert_eq!(sign(&[context(), side]), (false, Some(Sign::InContext)));
        let mut failed = said("msg_3", "API Error");
        failed["isApiErrorMessage"] = true.into();
        assert_eq!(sign(&[context(), failed]), (false, Some(Sign::InContext)));
        // The model names it: it has read it, wherever that stood.
        assert_eq!(sign(&[said("msg_4", &format!("I answer {ID}"))]), (true, Some(Sign::Read)));
        assert_eq!(sign(&[json!("no object"), json!({"type": 7, "message": [ID]})]), (false, Some(Sign::InContext)));
    }

    #[test]
    fn the_end_of_a_long_transcript_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let ids = ["early1234567".to_owned(), "late12345678".to_owned(), "none12345678".to_owned()];
        let mut text = "early1234567\n".to_owned();
        text.push_str(&"x".repeat(TAIL_BYTES as usize));
        text.push_str("\n{\"id\":\"late12345678\"}\n");
        std::fs::write(&path, text).unwrap();
        let (known, found) = read(&path, &ids);
        assert!(!known);
        assert_eq!(found, HashMap::from([(ids[1].clone(), Sign::InContext)]));
        assert!(read(&dir.path().join("missing"), &ids).1.is_empty());
    }
}
