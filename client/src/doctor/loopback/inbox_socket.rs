//! The host's side of a session's inbox socket, played as strictly as the real one is known to be.
//!
//! One JSON object per line, at most 1 MiB: first the token, then what a user of the session's host could have written.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

/// Longest line that the host reads.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Fields of a message that the host knows.
const FIELDS: [&str; 6] = ["type", "message", "msg_id", "from", "priority", "session_id"];

/// A listening socket. Its folder goes with it.
pub(super) struct Listener {
    dir: tempfile::TempDir,
    /// What a session has to show before it may write.
    pub(super) token: String,
    posts: Receiver<Result<Post, String>>,
}

/// A message that was posted.
#[derive(Debug)]
pub(super) struct Post {
    /// `msg_id`
    pub(super) id: String,
    /// Its text.
    pub(super) text: String,
}

impl Listener {
    /// Listens in a private folder of its own.
    pub(super) fn start() -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("claudemesh-doctor-").tempdir()?;
        let listener = UnixListener::bind(dir.path().join("inbox.sock"))?;
        let token = uuid::Uuid::new_v4().to_string();
        let (sender, posts) = mpsc::channel();
        let expected = token.clone();
        // Ends when the doctor does: it is blocked in `accept` until then.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Who connects and says nothing must not hold us up.
                let quiet = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let post = quiet.map_err(|error| error.to_string()).and_then(|()| read(stream, &expected));
                if sender.send(post).is_err() {
                    return;
                }
            }
        });
        Ok(Self { dir, token, posts })
    }

    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("inbox.sock")
    }

    /// Where a transcript can be written for the session to look into.
    pub(super) fn transcript(&self) -> PathBuf {
        self.dir.path().join("transcript.jsonl")
    }

    /// What was posted meanwhile, or what is wrong with it.
    pub(super) fn post(&self) -> Option<Result<Post, String>> {
        self.posts.try_recv().ok()
    }
}

fn read(stream: impl Read, token: &str) -> Result<Post, String> {
    let mut lines = BufReader::new(stream);
    let auth = line(&mut lines)?.ok_or("closed before the token")?;
    if auth["type"] != "auth" || auth["token"] != token {
        return Err("the first line does not show the token".into());
    }
    let message = line(&mut lines)?.ok_or("nothing after the token")?;
    if line(&mut lines)?.is_some() {
        return Err("more than one message in a post".into());
    }
    checked(&message)
}

fn line(lines: &mut impl BufRead) -> Result<Option<Value>, String> {
    let mut bytes = Vec::new();
    lines.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes).map_err(|error| error.to_string())?;
    match bytes.last() {
        None => Ok(None),
        Some(b'\n') => serde_json::from_slice(&bytes).map(Some).map_err(|_| "a line is not JSON".into()),
        Some(_) => Err("a line is cut off or longer than 1 MiB".into()),
    }
}

fn checked(message: &Value) -> Result<Post, String> {
    let object = message.as_object().ok_or("a line is not an object")?;
    if let Some(other) = object.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!("the host does not know the field {other}"));
    }
    if message["type"] != "user" || message["message"]["role"] != "user" {
        return Err("it is not a message of a user".into());
    }
    let text = message["message"]["content"].as_str().ok_or("its content is not text")?;
    if !matches!(message["priority"].as_str(), Some("now" | "next" | "later")) {
        return Err("its priority is none of now, next and later".into());
    }
    let id = message["msg_id"].as_str().ok_or("it has no id")?;
    Ok(Post { id: id.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn post(lines: &[Value]) -> Result<String, String> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        read(text.as_bytes(), "secret").map(|post| post.id + ": " + &post.text)
    }

    #[test]
    fn what_breaks_the_form_is_named() {
        let auth = json!({"type": "auth", "token": "secret"});
        let message = |change: Value| {
            let mut message = json!({
                "type": "user", "message": {"role": "user", "content": "hi"}, "msg_id": "m", "from": "x", "priority": "next",
            });
            for (key, value) in change.as_object().unwrap() {
                message[key] = value.clone();
            }
            message
        };
        let good = message(json!({}));
        assert_eq!(post(&[auth.clone(), good.clone()]), Ok("m: hi".into()));
        let fails = |lines: &[Value], part: &str| {
            let error = post(lines).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        fails(&[], "before the token");
        fails(&[json!({"type": "auth", "token": "other"}), good.clone()], "token");
        fails(std::slice::from_ref(&good), "token");
        fails(std::slice::from_ref(&auth), "nothing after");
        fails(&[auth.clone(), good.clone(), good.clone()], "more than one");
        fails(&[auth.clone(), message(json!({"type": "system"}))], "of a user");
        fails(&[auth.clone(), message(json!({"message": {"role": "user", "content": [1]}}))], "not text");
        fails(&[auth.clone(), message(json!({"priority": "urgent"}))], "priority");
        fails(&[auth.clone(), message(json!({"extra": 1}))], "extra");
        fails(&[auth.clone(), message(json!({"msg_id": 7}))], "no id");
        fails(&[auth, message(json!({"message": {"role": "user", "content": "x".repeat(2 << 20)}}))], "1 MiB");
        assert!(read(&b"{\"type\":\"auth\",\"token\":\"secret\"}"[..], "secret").unwrap_err().contains("cut off"));
    }
}
