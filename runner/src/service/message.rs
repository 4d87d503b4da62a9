//! Messages of JSON-RPC as lines. What a server answers is found in its line and passed on as it is, never written anew.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use claudemesh_protocol::runner::limits::MAX_RESULT_BYTES;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::session::Reply;

/// Bytes of a line: a result with what stands around it.
const MAX_LINE_BYTES: usize = MAX_RESULT_BYTES + 65_536;
/// Bytes of the beginning and of the end of a line that is too long.
const ENDS_BYTES: usize = 4_096;
const READ_BYTES: usize = 65_536;

/// What a server says.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Result { id: u64, result: Bytes },
    Error { id: u64, error: Bytes },
    Request { id: String, method: String, params: Bytes },
    Notification { method: String, params: Bytes },
}

#[derive(Deserialize)]
struct Parsed<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// `null` is a result, too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The part of `line` that `raw` is.
fn part(line: &Bytes, raw: Option<&RawValue>) -> Bytes {
    raw.map_or_else(Bytes::new, |raw| line.slice_ref(raw.get().as_bytes()))
}

fn one(line: &Bytes, text: &[u8]) -> Option<Message> {
    let parsed: Parsed<'_> = serde_json::from_slice(text).ok()?;
    if parsed.jsonrpc != "2.0" {
        return None;
    }
    match (parsed.method, parsed.id) {
        (Some(method), Some(id)) => Some(Message::Request {
            id: id.get().to_owned(),
            method: method.into_owned(),
            params: part(line, parsed.params),
        }),
        (Some(method), None) => {
            Some(Message::Notification { method: method.into_owned(), params: part(line, parsed.params) })
        }
        (None, Some(id)) => {
            // Ours are numbers; a server that answers `"1"` to 1 is understood.
            let id = id.get().trim_matches('"').parse().ok()?;
            match (parsed.result, parsed.error) {
                (_, Some(error)) if error.get() != "null" => {
                    Some(Message::Error { id, error: part(line, Some(error)) })
                }
                (result, _) => Some(Message::Result { id, result: part(line, Some(result?)) }),
            }
        }
        (None, None) => None,
    }
}

/// The messages of a line; `None` when it is no message.
pub(super) fn read(line: &Bytes) -> Option<Vec<Message>> {
    match line.iter().find(|byte| !byte.is_ascii_whitespace())? {
        b'{' => one(line, line).map(|message| vec![message]),
        // A batch, which the revision of March 2025 allows.
        b'[' => {
            let parts: Vec<&RawValue> = serde_json::from_slice(line).ok()?;
            let messages: Vec<Message> = parts.iter().filter_map(|part| one(line, part.get().as_bytes())).collect();
            (!messages.is_empty()).then_some(messages)
        }
        _ => None,
    }
}

/// The text of a field of an object, without the quotes of a string.
pub(super) fn field(object: &[u8], name: &str) -> Option<String> {
    let object: std::collections::HashMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(object).ok()?;
    object.get(name).map(|value| value.get().to_owned())
}

/// The number of the request that a line answers which is too long to be read: of its ends.
pub(super) fn id_in(ends: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(ends);
    let at = text.rfind("\"id\":").or_else(|| text.rfind("\"id\" :"))?;
    let rest = text[at + 4..].trim_start_matches([' ', ':', '"']);
    let digits = rest.len() - rest.trim_start_matches(|symbol: char| symbol.is_ascii_digit()).len();
    rest[..digits].parse().ok()
}

fn line(parts: &[&[u8]]) -> Vec<u8> {
    let mut line = parts.concat();
    // What is passed on may have line ends between its parts, where they mean nothing; within strings JSON has none.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line
}

fn quoted(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_default()
}

fn with_params(params: &[u8]) -> Option<Vec<u8>> {
    let is_object = serde_json::from_slice::<&RawValue>(params).ok()?.get().starts_with('{');
    is_object.then(|| [b",\"params\":", params].concat())
}

/// A request. Its progress token is ours or none, whatever `params` say.
pub(super) fn request(id: u64, method: &str, params: &[u8], token: Option<u64>) -> Option<Vec<u8>> {
    let params = with_token(params, token)?;
    let params = if params.is_empty() { Vec::new() } else { with_params(&params)? };
    Some(line(&[format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":").as_bytes(), &quoted(method), &params, b"}"]))
}

/// Params whose `_meta.progressToken` is `token`. All other fields stay as they are written.
fn with_token(params: &[u8], token: Option<u64>) -> Option<Cow<'_, [u8]>> {
    type Fields<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;
    fn fields(text: &[u8]) -> Option<Fields<'_>> {
        struct Read<'a>(Fields<'a>);
        impl<'de> Deserialize<'de> for Read<'de> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visit;
                impl<'de> serde::de::Visitor<'de> for Visit {
                    type Value = Read<'de>;
                    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        out.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Read<'de>, A::Error> {
                        let mut fields = Vec::new();
                        while let Some(name) = map.next_key::<String>()? {
                            fields.push((Cow::Owned(name), map.next_value()?));
                        }
                        Ok(Read(fields))
                    }
                }
                deserializer.deserialize_map(Visit)
            }
        }
        serde_json::from_slice::<Read<'_>>(text).ok().map(|read| read.0)
    }
    fn object(fields: &[(Cow<'_, str>, Cow<'_, str>)]) -> Vec<u8> {
        let fields: Vec<Vec<u8>> =
            fields.iter().map(|(name, value)| [&quoted(name), &b":"[..], value.as_bytes()].concat()).collect();
        [b"{", fields.join(&b","[..]).as_slice(), b"}"].concat()
    }
    if token.is_none() && memchr::memmem::find(params, b"progressToken").is_none() {
        return Some(Cow::Borrowed(params));
    }
    let all = if params.is_empty() { Vec::new() } else { fields(params)? };
    let meta = all.iter().find(|(name, _)| name == "_meta").map(|(_, meta)| *meta);
    let mut inner: Vec<_> = meta
        .and_then(|meta| fields(meta.get().as_bytes()))
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, _)| name != "progressToken")
        .map(|(name, value)| (name, Cow::Borrowed(value.get())))
        .collect();
    inner.extend(token.map(|token| (Cow::Borrowed("progressToken"), Cow::Owned(token.to_string()))));
    let mut outer: Vec<_> = all
        .iter()
        .filter(|(name, _)| name != "_meta")
        .map(|(name, value)| (name.clone(), Cow::Borrowed(value.get())))
        .collect();
    if !inner.is_empty() {
        let inner = String::from_utf8(object(&inner)).ok()?;
        outer.push((Cow::Borrowed("_meta"), Cow::Owned(inner)));
    }
    Some(Cow::Owned(object(&outer)))
}

/// A notification; `None` when `params` are no object.
pub(super) fn notification(method: &str, params: &[u8]) -> Option<Vec<u8>> {
    let params = if params.is_empty() { Vec::new() } else { with_params(params)? };
    Some(line(&[b"{\"jsonrpc\":\"2.0\",\"method\":", &quoted(method), &params, b"}"]))
}

/// An answer to a request of the server, whose id is JSON.
pub(super) fn answer(id: &str, reply: &Reply) -> Option<Vec<u8>> {
    let (name, text) = match reply {
        Reply::Result(text) => ("result", text),
        Reply::Error(text) => ("error", text),
    };
    super::session::is_json(text)
        .then(|| line(&[format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"{name}\":").as_bytes(), text, b"}"]))
}

/// A line of a server.
pub(super) enum Line {
    Whole(Bytes),
    /// Its beginning and its end.
    TooLong {
        ends: Vec<u8>,
    },
}

/// Lines of a pipe, each of at most [`MAX_LINE_BYTES`].
pub(super) struct Lines {
    pipe: pipe::Receiver,
    buffer: BytesMut,
    /// Bytes in which there is no line end.
    searched: usize,
    /// The beginning and the end so far of a line that is too long.
    long: Option<(Vec<u8>, Vec<u8>)>,
    ended: bool,
}

impl Lines {
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe, buffer: BytesMut::new(), searched: 0, long: None, ended: false }
    }

    /// The next one; `None` at the end. What stands behind the last line end is a line, too.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let end = self.searched + at;
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                self.searched = 0;
                return Some(self.finish(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE_BYTES {
                let end = self.buffer[self.buffer.len() - ENDS_BYTES..].to_vec();
                match &mut self.long {
                    Some((_, last)) => *last = end,
                    None => self.long = Some((self.buffer[..ENDS_BYTES].to_vec(), end)),
                }
                self.buffer = BytesMut::new();
                self.searched = 0;
            }
            if self.ended {
                let line = std::mem::take(&mut self.buffer);
                self.searched = 0;
                return (!line.is_empty() || self.long.is_some()).then(|| self.finish(line.freeze()));
            }
            // Grows by doubling, so a large line is copied a few times only.
            self.buffer.reserve(READ_BYTES);
            match self.pipe.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(_) => {}
            }
        }
    }

    fn finish(&mut self, line: Bytes) -> Line {
        match self.long.take() {
            None => Line::Whole(line),
            Some((mut ends, last)) => {
                ends.push(b' ');
                ends.extend_from_slice(&last);
                ends.extend_from_slice(&line[line.len().saturating_sub(ENDS_BYTES)..]);
                Line::TooLong { ends }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn what_a_server_says_is_found_as_it_is_written() {
        let read_one = |text: &str| read(&bytes(text)).map(|mut messages| messages.remove(0));
        let result = read_one(r#" {"jsonrpc":"2.0","id":7,"result":{"b":1.10, "a":[1e400]}}"#);
        assert_eq!(result, Some(Message::Result { id: 7, result: bytes(r#"{"b":1.10, "a":[1e400]}"#) }));
        assert_eq!(
            read_one(r#"{"jsonrpc":"2.0","id":"7","result":null}"#),
            Some(Message::Result { id: 7, result: bytes("null") })
        );
        let error = read_one(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1}}"#);
        assert_eq!(error, Some(Message::Error { id: 7, error: bytes(r#"{"code":1}"#) }));
        let request = read_one(r#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#);
        assert_eq!(
            request,
            Some(Message::Request { id: "\"a\"".into(), method: "roots/list".into(), params: Bytes::new() })
        );
        let batch = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","method":"x","params":{"y":1}}]"#;
        assert_eq!(read(&bytes(batch)).unwrap().len(), 2);
        for garbage in
            ["", "hello", "{", "[]", "[1]", "{}", r#"{"id":1,"result":{}}"#, r#"{"jsonrpc":"2.0","id":1}"#, "\u{0}"]
        {
            assert_eq!(read(&bytes(garbage)), None, "{garbage}");
        }
    }

    #[test]
    fn the_progress_token_is_ours_or_none() {
        let params = r#"{"name":"x","n":1.10,"_meta":{"a":[1.0],"progressToken":"theirs"}}"#;
        let text = |token| String::from_utf8(request(5, "tools/call", params.as_bytes(), token).unwrap()).unwrap();
        let start = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"x","n":1.10,"_meta":{"a":[1.0]"#;
        assert_eq!(text(Some(5)), format!("{start},\"progressToken\":5}}}}}}\n"));
        assert_eq!(text(None), format!("{start}}}}}}}\n"));
        assert_eq!(request(1, "ping", b"", None).unwrap(), b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
        for bad in ["[1]", "1", "{", "{}}\n{\"jsonrpc\":\"2.0\"", "{\"a\":1},\"id\":2,\"x\":{}"] {
            assert_eq!(request(1, "x", bad.as_bytes(), None), None, "{bad}");
        }
        let lines = notification("x", b"{\n\"a\":\r\n1}").unwrap();
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn the_number_of_a_line_that_is_too_long_is_found_at_either_end() {
        assert_eq!(id_in(br#"{"jsonrpc":"2.0","id":12,"result":{"content":"xxx"#), Some(12));
        assert_eq!(id_in(br#"{"result":{"x":"xxx xxxx"},"jsonrpc":"2.0","id": "13"}"#), Some(13));
        assert_eq!(id_in(b"xxx"), None);
    }
}
