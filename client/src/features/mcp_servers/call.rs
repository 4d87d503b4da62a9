//! Calling a tool of a server: progress, giving up, and results that come in parts.

use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{
    McpCall, McpCallProgress, McpCallResult, McpCancel, McpPart, Raw, limits,
};
use claudemesh_protocol::version::CAP_MCP_CALLS;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use crate::connection::{Connection, ConnectionError, Heard};

/// How much longer than the call the broker's answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a part may take, as the broker has it and a little more.
const PART_PATIENCE: Duration = Duration::from_millis(limits::PART_TIMEOUT_MS + 5_000);
/// Parts of one result that are asked for at once.
const PARTS_AT_ONCE: usize = 2;
/// Parts that this process asks for at once, so that the answers fit into its queue at the broker.
static PARTS: Semaphore = Semaphore::const_new(4);
/// How often a part is asked for again when its host takes no more, and the time between.
const PART_TRIES: u32 = 100;
const PART_AGAIN: Duration = Duration::from_millis(50);

/// A call.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// An object.
    pub args: Raw,
    /// How long it may take.
    pub timeout: Duration,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// For people.
    pub message: String,
    /// A stable code, when the broker says one.
    pub code: Option<String>,
    /// The error object of the MCP server, when it answered one.
    pub rpc_error: Option<Raw>,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
}

impl Failed {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { message: message.into(), code: Some(code.as_str().to_owned()), rpc_error: None, retry_after_ms: None }
    }
}

/// A result as the tool gave it, or why there is none.
pub type Ended = Result<Raw, Failed>;

impl Connection {
    /// Calls a tool. `told` hears of its progress; when `unwanted` ends, the call is given up.
    ///
    /// # Errors
    /// Of the transport, or what the broker says of the caller. What is wrong with the call is in its end.
    pub async fn call_tool(
        &self,
        call: ToolCall,
        mut told: impl FnMut(McpCallProgress),
        unwanted: impl Future<Output = ()>,
    ) -> Result<Ended, ConnectionError> {
        let name = uuid::Uuid::new_v4().to_string();
        let newer = self.broker_can(CAP_MCP_CALLS);
        let mut progress = self.events::<McpCallProgress>();
        let timeout_ms = u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX).clamp(1, limits::MAX_TIMEOUT_MS);
        let request = McpCall {
            server_name: call.server,
            tool_name: call.tool,
            args: Some(call.args),
            call: newer.then(|| name.clone()),
            timeout_ms: newer.then_some(timeout_ms),
            progress: newer,
            parts: newer,
        };
        let limit = Duration::from_millis(timeout_ms) + ANSWER_PATIENCE;
        let mut asking = std::pin::pin!(self.request_within(request, limit));
        let mut unwanted = std::pin::pin!(unwanted);
        let (mut wanted, mut listening) = (true, true);
        let answer = loop {
            tokio::select! {
                biased;
                heard = progress.next(), if listening => match heard {
                    Some(Heard::Event(notice)) if notice.call == name => told(notice),
                    Some(_) => {}
                    None => listening = false,
                },
                answer = &mut asking => break answer?,
                () = &mut unwanted, if wanted => {
                    wanted = false;
                    if !newer {
                        return Ok(Err(Failed::new(ErrorCode::Cancelled, "the call was given up")));
                    }
                    // Its answer says that it has ended; when the broker is gone, it has, too.
                    let _ = self.tell(McpCancel { call: name.clone(), reason: None });
                }
            }
        };
        self.read(name, answer).await
    }

    async fn read(&self, name: String, answer: McpCallResult) -> Result<Ended, ConnectionError> {
        let McpCallResult { result, error, code, retry_after_ms, rpc_error, parts, bytes } = answer;
        if let Some(message) = error {
            return Ok(Err(Failed { message, code, rpc_error, retry_after_ms }));
        }
        let Some(parts) = parts else {
            return Ok(Ok(result.unwrap_or_else(|| Raw::of(&serde_json::Value::Null))));
        };
        let bytes = usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX);
        if bytes > limits::MAX_RESULT_BYTES || parts > limits::MAX_PARTS {
            return Ok(Err(Failed::new(ErrorCode::PayloadTooLarge, format!("the result has {bytes} bytes"))));
        }
        let mut text = String::with_capacity(bytes);
        let pieces = futures_util::stream::iter(0..parts).map(|part| self.part(&name, part));
        let mut pieces = std::pin::pin!(pieces.buffered(PARTS_AT_ONCE));
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) if text.len() + piece.len() <= bytes => text += &piece,
                Ok(_) => {
                    return Ok(Err(Failed::new(ErrorCode::ToolFailed, "the result is not what its host announced")));
                }
                Err(ConnectionError::Refused(error)) => {
                    let code = Some(error.0.code.clone());
                    return Ok(Err(Failed {
                        message: error.0.message.clone(),
                        code,
                        rpc_error: None,
                        retry_after_ms: None,
                    }));
                }
                Err(error) => return Err(error),
            }
        }
        let broken = |_| Failed::new(ErrorCode::ToolFailed, "the result is not JSON");
        Ok(Raw::parse(text).map_err(broken))
    }

    async fn part(&self, name: &str, part: u32) -> Result<String, ConnectionError> {
        // Never closed.
        let _permit = PARTS.acquire().await;
        for _ in 0..PART_TRIES {
            let query = McpPart { call: name.to_owned(), part };
            match self.request_within(query, PART_PATIENCE).await {
                Err(error) if error.code() == Some(ErrorCode::Busy) => tokio::time::sleep(PART_AGAIN).await,
                answer => return answer.map(|answer| answer.data),
            }
        }
        Err(ConnectionError::Timeout(PART_AGAIN * PART_TRIES))
    }
}
