//! Standard input and output of the MCP server: every line that has an id is answered.
//!
//! The SDK drops what it cannot read, and its host would wait for ever. Here each line is judged first: what is a message goes
//! on to the SDK, everything else that carries an id is answered with an error of JSON-RPC under that id. `server/discover`
//! is answered here, too: hosts that probe for a newer revision fall back to `initialize` at once when the method is not
//! there. Answers that carry messages are noted as handed over once they are written.

use std::borrow::Cow;
use std::sync::Arc;

use rmcp::model::{ErrorCode, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, Empty};

use crate::session::{self, Session};

/// Longest line that is read; of a longer one the beginning is looked at for its id.
const MAX_LINE_BYTES: usize = 16 << 20;
/// How much of a line that is too long is kept.
const KEPT_BYTES: usize = 64 << 10;
/// Requests of the protocol. One that the SDK takes for an unknown method has parameters of another shape.
const METHODS: [&str; 13] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
];

/// Lines of a stream.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The line is too long: the rest of it is thrown away.
    too_long: bool,
}

/// One line.
enum Line {
    Whole(Vec<u8>),
    /// The beginning of a longer one.
    TooLong(Vec<u8>),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The next line without its end; `None` at the end of the input. Safe to give up and call again.
    async fn next(&mut self) -> Option<Line> {
        loop {
            let chunk = match self.reader.fill_buf().await {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::error!(%error, "standard input cannot be read");
                    return None;
                }
            };
            if chunk.is_empty() {
                // A last line without its end counts.
                return (!self.line.is_empty()).then(|| self.take());
            }
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if self.line.len() > MAX_LINE_BYTES {
                self.too_long = true;
                self.line.truncate(KEPT_BYTES);
            }
            if end.is_some() {
                return Some(self.take());
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) { Line::TooLong(line) } else { Line::Whole(line) }
    }
}

/// What is done with a line.
enum Verdict {
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    /// Answered, one error for each request in it.
    Refuse(Vec<(Option<RequestId>, ErrorData)>),
    /// No one waits for an answer to it.
    Ignore,
}

impl Verdict {
    fn refuse(id: Option<RequestId>, code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Refuse(vec![(id, ErrorData::new(code, message, None))])
    }
}

fn judge(line: &[u8]) -> Verdict {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Verdict::Ignore;
    }
    // Half of a surrogate pair, or bytes that are no UTF-8, cost one symbol and not the message.
    let parsed = serde_json::from_slice::<Value>(line).or_else(|error| {
        let text = String::from_utf8_lossy(line);
        serde_json::from_str(&whole_surrogates(&text)).map_err(|_| error)
    });
    match parsed {
        Ok(Value::Array(batch)) => {
            let text = "send one message per line; this server takes no batches";
            let ids: Vec<_> = batch.iter().filter_map(|one| id_of(&one["id"])).collect();
            Verdict::Refuse(
                ids.into_iter().map(|id| (Some(id), ErrorData::new(ErrorCode::INVALID_REQUEST, text, None))).collect(),
            )
        }
        Ok(message) => judge_message(message),
        Err(error) => match id_in(line) {
            Some(id) => Verdict::refuse(Some(id), ErrorCode::PARSE_ERROR, format!("this is not JSON: {error}")),
            // Answered without an id, two programs that misunderstand each other would never stop.
            None => {
                tracing::debug!(%error, "a line that is not JSON");
                Verdict::Ignore
            }
        },
    }
}

fn judge_message(mut message: Value) -> Verdict {
    let id = id_of(&message["id"]);
    let Some(fields) = message.as_object_mut() else {
        return Verdict::refuse(None, ErrorCode::INVALID_REQUEST, "expected a JSON object");
    };
    let is_answer = !fields.contains_key("method") && (fields.contains_key("result") || fields.contains_key("error"));
    let invalid = |text: &'static str| match (is_answer, fields.contains_key("id"), &id) {
        // A notification or an answer: no one waits.
        (true, ..) | (_, false, _) => Verdict::Ignore,
        (_, _, id) => Verdict::refuse(id.clone(), ErrorCode::INVALID_REQUEST, text),
    };
    if fields.get("jsonrpc").is_none_or(|version| version != "2.0") {
        return invalid("`jsonrpc` must be \"2.0\"");
    }
    if fields.contains_key("id") && id.is_none() && !is_answer {
        return invalid("`id` must be a text or a whole number");
    }
    let method = match fields.get("method") {
        Some(Value::String(method)) => method.clone(),
        Some(_) => return invalid("`method` must be a text"),
        None if is_answer => String::new(),
        None => return invalid("`method` is missing"),
    };
    match fields.get("params") {
        Some(Value::Null) => {
            fields.remove("params");
        }
        None | Some(Value::Object(_)) => {}
        Some(_) => return shape(id, &method, "`params` must be an object"),
    }
    if method == "server/discover" {
        return match id {
            Some(id) => Verdict::refuse(Some(id), ErrorCode::METHOD_NOT_FOUND, method),
            None => Verdict::Ignore,
        };
    }
    let known = METHODS.contains(&method.as_str());
    let wrong = wrong_params(&method, fields.get("params"));
    match serde_json::from_value::<RxJsonRpcMessage<RoleServer>>(message) {
        // The SDK takes a known method with other parameters for an unknown one.
        Ok(JsonRpcMessage::Request(request)) if known && is_custom(&request.request) => shape(id, &method, wrong),
        Ok(message) => Verdict::Message(Box::new(message)),
        Err(_) if is_answer => Verdict::Ignore,
        Err(_) => shape(id, &method, wrong),
    }
}

fn is_custom(request: &rmcp::model::ClientRequest) -> bool {
    matches!(request, rmcp::model::ClientRequest::CustomRequest(_))
}

fn shape(id: Option<RequestId>, method: &str, what: &str) -> Verdict {
    match id {
        Some(id) => {
            let method = crate::output::clean(method);
            Verdict::refuse(Some(id), ErrorCode::INVALID_PARAMS, format!("{method}: {what}"))
        }
        None => Verdict::Ignore,
    }
}

/// What is wrong with parameters that the SDK does not take.
fn wrong_params(method: &str, params: Option<&Value>) -> &'static str {
    let params = params.unwrap_or(&Value::Null);
    match method {
        "tools/call" if !params["name"].is_string() => "`name` must be the name of a tool",
        "tools/call" if !params["arguments"].is_null() && !params["arguments"].is_object() => {
            "`arguments` must be an object"
        }
        "initialize" => "expected `protocolVersion`, `capabilities` and `clientInfo`",
        _ => "the parameters are not those of this method",
    }
}

fn id_of(value: &Value) -> Option<RequestId> {
    match value {
        Value::String(_) | Value::Number(_) => serde_json::from_value(value.clone()).ok(),
        _ => None,
    }
}

/// The id of a message that is not JSON or not whole: the first text or number behind a key `id` of its outermost object.
fn id_in(line: &[u8]) -> Option<RequestId> {
    let (mut depth, mut at, mut last) = (0_usize, 0, None::<&[u8]>);
    while at < line.len() {
        match line[at] {
            b'"' => {
                let end = string_end(line, at)?;
                last = Some(&line[at..end]);
                at = end;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 1 && last == Some(&b"\"id\""[..]) => {
                let rest = line[at + 1..].trim_ascii_start();
                let end = match rest.first()? {
                    b'"' => string_end(rest, 0)?,
                    _ => rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'-')).unwrap_or(rest.len()),
                };
                if let Some(id) = serde_json::from_slice(&rest[..end]).ok().as_ref().and_then(id_of) {
                    return Some(id);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where a text that begins at `start` ends.
fn string_end(line: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < line.len() {
        match line[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// The text with `\ufffd` for each escape of half a surrogate pair, which no text can hold.
fn whole_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let (mut from, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                out.push_str(&text[from..at]);
                out.push_str("\\ufffd");
                at += 6;
                from = at;
            }
            // Whatever is escaped is no beginning of an escape.
            _ => at += 2,
        }
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// The server's end of a pair of byte streams.
pub struct Stdio<R: AsyncRead, W: AsyncWrite> {
    lines: Lines<R>,
    output: AsyncRwTransport<RoleServer, Empty, W>,
    session: Arc<Session>,
}

impl<R: AsyncRead + Send + Unpin, W: AsyncWrite + Send + Unpin + 'static> Stdio<R, W> {
    /// When the input ends the session is stopped: the SDK would wait for calls that are under way, and a call may wait for a
    /// peer.
    pub fn new(input: R, output: W, session: Arc<Session>) -> Self {
        let lines = Lines { reader: BufReader::new(input), line: vec![], too_long: false };
        Self { lines, output: AsyncRwTransport::new_server(tokio::io::empty(), output), session }
    }
}

impl<R: AsyncRead + Send + Unpin, W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for Stdio<R, W> {
    type Error = std::io::Error;

    fn name() -> Cow<'static, str> {
        "stdio".into()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let id = match &item {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let answer = id.and_then(|id| self.session.answers.take(id));
        let (sending, session) = (self.output.send(item), Arc::clone(&self.session));
        async move {
            let Some(answer) = answer else { return sending.await };
            let _writing = session.answers.written().await;
            let sent = sending.await;
            match sent {
                Ok(()) => session::printed(&session, answer).await,
                Err(_) => session::lost(&session, answer).await,
            }
            sent
        }
    }

    /// Safe to give up and call again: it waits for nothing but the next line.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let Some(line) = self.lines.next().await else {
                self.session.stopped().cancel();
                return None;
            };
            let verdict = match line {
                Line::Whole(line) => judge(&line),
                Line::TooLong(beginning) => match id_in(&beginning) {
                    Some(id) => {
                        let text = format!("a message may have {MAX_LINE_BYTES} bytes");
                        Verdict::refuse(Some(id), ErrorCode::INVALID_REQUEST, text)
                    }
                    None => Verdict::Ignore,
                },
            };
            match verdict {
                Verdict::Message(message) => return Some(*message),
                Verdict::Refuse(errors) => {
                    for (id, error) in errors {
                        // A task of its own: the SDK gives up this read whenever something else happens, and the answer must
                        // not be given up with it. A client that cannot be answered is gone; the next read says so.
                        let sending = self.output.send(ServerJsonRpcMessage::error(error, id));
                        tokio::spawn(async move { drop(sending.await) });
                    }
                }
                Verdict::Ignore => {}
            }
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.output.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id and the code of the error for a line; `None` when it is a message or ignored.
    fn refused(line: &str) -> Option<(Option<RequestId>, i32)> {
        match judge(line.as_bytes()) {
            Verdict::Refuse(mut errors) => errors.pop().map(|(id, error)| (id, error.code.0)),
            Verdict::Message(_) | Verdict::Ignore => None,
        }
    }

    #[test]
    fn every_line_with_an_id_is_a_message_or_gets_an_error_under_that_id() {
        let seven = || Some(RequestId::Number(7));
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":123}"#, (seven(), -32600)),
            (r#"{"jsonrpc":"2.0","id":7}"#, (seven(), -32600)),
            (r#"{"id":7,"method":"ping"}"#, (seven(), -32600)),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, (seven(), -32600)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":"oops"}"#, (seven(), -32602)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[1]}"#, (seven(), -32602)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, (seven(), -32602)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}"#, (seven(), -32602)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":5}}"#, (seven(), -32602)),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":[]}}"#,
                (seven(), -32602),
            ),
            (r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}"#, (seven(), -32602)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"server/discover"}"#, (seven(), -32601)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping",}"#, (seven(), -32700)),
            (
                r#"{"jsonrpc":"2.0","method":oops,"params":{"id":1},"id":"a\"b"}"#,
                (Some(RequestId::String("a\"b".into())), -32700),
            ),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"#, (seven(), -32700)),
            (r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#, (seven(), -32600)),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, (None, -32600)),
            ("7", (None, -32600)),
        ] {
            assert_eq!(refused(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_nobody_waits_for_is_not_answered() {
        for line in [
            "",
            "   ",
            "no JSON",
            r#"{"jsonrpc":"2.0","method":5}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":7}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":5,"error":5}"#,
            r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
        ] {
            assert!(matches!(judge(line.as_bytes()), Verdict::Ignore), "{line}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_costs_one_symbol() {
        let text = |line: &str| match judge(line.as_bytes()) {
            Verdict::Message(message) => serde_json::to_value(*message).unwrap()["params"]["arguments"]["t"].clone(),
            Verdict::Refuse(errors) => panic!("{line}: {errors:?}"),
            Verdict::Ignore => panic!("{line}: ignored"),
        };
        let call = |text: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"x","arguments":{{"t":"{text}"}}}}}}"#
            )
        };
        assert_eq!(text(&call(r"\ud800 x")), "\u{fffd} x");
        assert_eq!(text(&call(r"a\udc00\ud83d\ude00\ud83d")), "a\u{fffd}😀\u{fffd}");
        assert_eq!(text(&call(r"\\ud800 \ud800")), "\\ud800 \u{fffd}");
        let mut bytes = call("BAD").into_bytes();
        let at = bytes.windows(3).position(|part| part == b"BAD").unwrap();
        bytes[at] = 0xff;
        assert!(matches!(judge(&bytes), Verdict::Message(_)));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_keeps_its_beginning_and_the_next_is_read() {
        let mut input = br#"{"id":7,"x":""#.to_vec();
        input.resize(MAX_LINE_BYTES + 10, b'x');
        input.extend_from_slice(b"\nnext\nlast");
        let mut lines = Lines { reader: BufReader::new(&input[..]), line: vec![], too_long: false };
        let Some(Line::TooLong(beginning)) = lines.next().await else { panic!("it is too long") };
        assert_eq!(id_in(&beginning), Some(RequestId::Number(7)));
        for expected in [&b"next"[..], b"last"] {
            assert!(matches!(lines.next().await, Some(Line::Whole(line)) if line == expected));
        }
        assert!(lines.next().await.is_none());
    }

    proptest::proptest! {
        #[test]
        fn a_cut_message_is_answered_under_its_id(cut in 20usize..150) {
            let whole = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"send_message","arguments":{"id":"no","to":["a","b"],"message":"\"id\":3 {["}}}"#;
            let cut = &whole[..cut.clamp(24, whole.len() - 1)];
            proptest::prop_assert_eq!(refused(cut), Some((Some(RequestId::Number(7)), -32700)));
        }
    }
}
