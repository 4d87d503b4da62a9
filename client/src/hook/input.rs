//! What the host writes to a hook's standard input.

use std::io::{IsTerminal, Read};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::install::json_scan;
use crate::ipc::Hook;

/// Longest input that is looked at. The fields we need stand at its start.
const MAX_INPUT_BYTES: usize = 256 * 1024;
/// Longest input that is taken: a writer whose pipe breaks reports a failed hook.
const MAX_DRAINED_BYTES: usize = 64 << 20;
/// How long to wait for the input.
const PATIENCE: Duration = Duration::from_millis(500);

/// Reads the input of a hook as far as it is complete; nothing on a terminal.
pub fn read(event: &str) -> Hook {
    if std::io::stdin().is_terminal() {
        return Hook { event: event.to_owned(), ..Hook::default() };
    }
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = stdin.read(&mut chunk) {
            if sender.send(chunk[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let (mut bytes, mut taken) = (vec![], 0);
    while taken < MAX_DRAINED_BYTES {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                taken += chunk.len();
                // The rest of a long input is read and thrown away.
                if bytes.len() >= MAX_INPUT_BYTES {
                    continue;
                }
                bytes.extend_from_slice(&chunk);
            }
            Err(_) => break,
        }
        // The writer may keep the pipe open: a complete document needs no end of file.
        if bytes.trim_ascii_end().ends_with(b"}")
            && std::str::from_utf8(&bytes).is_ok_and(|text| json_scan::root(text).is_ok())
        {
            break;
        }
    }
    bytes.truncate(MAX_INPUT_BYTES);
    parse(event, &String::from_utf8_lossy(&bytes))
}

/// Takes the fields we use from a document that may be cut off in a long field. What is missing or of another type is
/// left empty; nothing is an error.
pub fn parse(event: &str, text: &str) -> Hook {
    let mut hook = Hook { event: event.to_owned(), ..Hook::default() };
    for member in json_scan::members_of_prefix(text) {
        let slot = match member.key.as_str() {
            "session_id" => &mut hook.session_id,
            "transcript_path" => &mut hook.transcript_path,
            "cwd" => &mut hook.cwd,
            "source" => &mut hook.source,
            "reason" => &mut hook.reason,
            "permission_mode" => &mut hook.permission_mode,
            "agent_id" => &mut hook.agent_id,
            "tool_name" => &mut hook.tool_name,
            // Only where it is needed: it may be as long as a file.
            "tool_input" if event == super::Event::Permission.as_str() => {
                hook.tool_input = serde_json::from_str(&text[member.value]).ok();
                continue;
            }
            "stop_hook_active" => {
                hook.stop_hook_active = &text[member.value] == "true";
                continue;
            }
            _ => continue,
        };
        *slot = serde_json::from_str(&text[member.value]).ok().filter(|value: &String| !value.is_empty());
    }
    hook
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_as_far_as_it_is_complete() {
        let full =
            r#"{"session_id":"s-1","transcript_path":"/t","cwd":"/w","source":"compact","stop_hook_active":true}"#;
        let hook = parse("stop", full);
        assert_eq!((hook.session_id.as_deref(), hook.cwd.as_deref()), (Some("s-1"), Some("/w")));
        assert_eq!((hook.source.as_deref(), hook.transcript_path.as_deref()), (Some("compact"), Some("/t")));
        assert!(hook.stop_hook_active);
        let cut = parse("post-tool", r#"{"session_id":"s-1","cwd":"/w","tool_response":"long lon"#);
        assert_eq!(cut.session_id.as_deref(), Some("s-1"));
        for text in ["", "[]", "nonsense", r#"{"session_id":7}"#] {
            assert_eq!(parse("stop", text), Hook { event: "stop".into(), ..Hook::default() }, "{text}");
        }
    }
}
