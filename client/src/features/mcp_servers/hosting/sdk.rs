//! The SDK's view of a server that we run, and what it would not keep: results as they were written.
//!
//! The SDK reads every result into its own types, and fields that it does not know are lost. So the text of what answers a call or a
//! list of tools is kept here, under the id of the request, and the SDK learns only that the request has ended.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudemesh_protocol::features::mcp_servers::Raw;
use rmcp::ClientHandler;
use rmcp::model::{
    ClientCapabilities, ClientConfig, ClientRequest, ErrorCode, ErrorData, Implementation, InitializeRequestParams,
    JsonRpcMessage, ProgressNotificationParam, ProgressToken, ProtocolVersion, RequestId, ServerResult,
};
use rmcp::service::{NotificationContext, RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

/// Longest message of a server: a result of the largest size with its frame.
pub(super) const MAX_MESSAGE_BYTES: usize = 52_000_000;

/// What a server answered to a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Its result.
    Result(Raw),
    /// Its error object.
    Error(Raw),
    /// More than is taken; so many bytes.
    TooLarge(usize),
}

/// The answers of one server that are kept as text.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    wanted: HashSet<RequestId>,
    answers: HashMap<RequestId, Answer>,
}

/// The parts of a message that decide what becomes of it.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default)]
    id: Option<RequestId>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<IgnoredAny>,
}

impl Answers {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request whose answer is kept.
    pub(super) fn note(&self, message: &TxJsonRpcMessage<RoleClient>) {
        if let JsonRpcMessage::Request(request) = message
            && matches!(request.request, ClientRequest::CallToolRequest(_) | ClientRequest::ListToolsRequest(_))
        {
            self.kept().wanted.insert(request.id.clone());
        }
    }

    /// The answer to a request that has ended.
    pub(super) fn take(&self, id: &RequestId) -> Option<Answer> {
        let mut kept = self.kept();
        kept.wanted.remove(id);
        kept.answers.remove(id)
    }

    /// The message for the SDK; `None` for what is no message.
    pub(super) fn read(&self, text: &str) -> Option<RxJsonRpcMessage<RoleClient>> {
        let head: Head<'_> = match serde_json::from_str(text) {
            Ok(head) => head,
            Err(error) => {
                tracing::debug!(%error, "a server wrote a line that is no message");
                return None;
            }
        };
        if let (Some(id), None) = (&head.id, &head.method)
            && self.kept().wanted.remove(id)
        {
            let raw = |text: &RawValue| serde_json::from_str::<Raw>(text.get()).ok();
            let answer = match (head.result, head.error) {
                (_, Some(error)) => raw(error).map(Answer::Error),
                (Some(result), None) => raw(result).map(Answer::Result),
                (None, None) => None,
            };
            return Some(self.ended(id.clone(), answer));
        }
        match serde_json::from_str(text) {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::debug!(%error, "a server sent a message that the SDK does not know");
                None
            }
        }
    }

    fn ended(&self, id: RequestId, answer: Option<Answer>) -> RxJsonRpcMessage<RoleClient> {
        match answer {
            Some(answer) => {
                self.kept().answers.insert(id.clone(), answer);
                JsonRpcMessage::response(ServerResult::empty(()), id)
            }
            None => {
                let error = ErrorData::new(ErrorCode::INTERNAL_ERROR, "an answer without a result", None);
                JsonRpcMessage::error(error, Some(id))
            }
        }
    }

    /// The message for the SDK about one that was too long and is known by its beginning and its end only.
    pub(super) fn too_long(&self, head: &[u8], tail: &[u8], bytes: usize) -> Option<RxJsonRpcMessage<RoleClient>> {
        let id = id_at_end(tail).into_iter().chain(id_at_start(head)).find(|id| self.kept().wanted.remove(id))?;
        Some(self.ended(id, Some(Answer::TooLarge(bytes))))
    }
}

/// The number behind the last `"id":` of a message.
fn id_at_end(tail: &[u8]) -> Option<RequestId> {
    let text = String::from_utf8_lossy(tail);
    let (_, rest) = text.rsplit_once("\"id\":")?;
    number(rest)
}

/// The number behind the first `"id":` of a message.
fn id_at_start(head: &[u8]) -> Option<RequestId> {
    let text = String::from_utf8_lossy(head);
    let (_, rest) = text.split_once("\"id\":")?;
    number(rest)
}

fn number(rest: &str) -> Option<RequestId> {
    let rest = rest.trim_start();
    let end = rest.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok().map(RequestId::Number)
}

/// Hears what a server says unasked.
#[derive(Clone)]
pub(super) struct Listener {
    /// Counts the changes of the list of tools.
    pub(super) tools_changed: watch::Sender<u64>,
    progress: Arc<Mutex<HashMap<ProgressToken, mpsc::UnboundedSender<ProgressNotificationParam>>>>,
}

impl Listener {
    pub(super) fn new() -> Self {
        Self { tools_changed: watch::Sender::new(0), progress: Arc::default() }
    }

    /// Hears of the progress of a request until [`Listener::forget`].
    pub(super) fn follow(&self, token: ProgressToken) -> mpsc::UnboundedReceiver<ProgressNotificationParam> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(token, sender);
        receiver
    }

    /// The request has ended.
    pub(super) fn forget(&self, token: &ProgressToken) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        // No roots, sampling or elicitation: the caller is another session, which could not be asked.
        let client = Implementation::new("claudemesh", env!("CARGO_PKG_VERSION"));
        InitializeRequestParams::new(ClientCapabilities::default(), client)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = progress.get(&params.progress_token) {
            // No one there any more.
            let _ = sender.send(params);
        }
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.tools_changed.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{CallToolRequestParams, Request};

    use super::*;

    fn call(answers: &Answers, id: i64) {
        let request = ClientRequest::CallToolRequest(Request::new(CallToolRequestParams::new("add")));
        answers.note(&JsonRpcMessage::request(request, RequestId::Number(id)));
    }

    #[test]
    fn a_result_is_kept_as_it_was_written() {
        let answers = Answers::default();
        call(&answers, 7);
        let text =
            r#"{"result":{"content":[{"type":"new kind","z":1.10,"a":[ ]}],"later":true},"jsonrpc":"2.0","id":7}"#;
        assert!(matches!(answers.read(text), Some(JsonRpcMessage::Response(_))));
        let Some(Answer::Result(raw)) = answers.take(&RequestId::Number(7)) else { panic!("no result") };
        assert_eq!(raw.as_str(), r#"{"content":[{"type":"new kind","z":1.10,"a":[ ]}],"later":true}"#);
        assert!(answers.take(&RequestId::Number(7)).is_none());
        call(&answers, 8);
        let text = r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32602,"message":"no","data":{"x":1}}}"#;
        answers.read(text);
        let Some(Answer::Error(raw)) = answers.take(&RequestId::Number(8)) else { panic!("no error") };
        assert_eq!(raw.as_str(), r#"{"code":-32602,"message":"no","data":{"x":1}}"#);
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_call_that_it_answers() {
        let answers = Answers::default();
        for (head, tail) in [
            (r#"{"result":{"content":"\"id\":1"#, r#"x"},"jsonrpc":"2.0","id":9}"#),
            (r#"{"jsonrpc":"2.0","id":9,"result":{"#, r#""id": 3}}"#),
        ] {
            call(&answers, 9);
            assert!(answers.too_long(head.as_bytes(), tail.as_bytes(), 60_000_000).is_some(), "{tail}");
            assert!(matches!(answers.take(&RequestId::Number(9)), Some(Answer::TooLarge(60_000_000))));
        }
        assert!(answers.too_long(b"{", b"}", 1).is_none());
    }
}
