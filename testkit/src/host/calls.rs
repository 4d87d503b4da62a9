//! Tools: the list with the host's rules, and calls as the host makes them.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Host, PATIENCE};

/// What a tool said.
#[derive(Clone, Debug)]
pub struct ToolAnswer {
    /// All text blocks, joined.
    pub text: String,
    /// `isError`
    pub is_error: bool,
    /// `structuredContent`, or `null`.
    pub structured: Value,
}

/// A tool call that is under way.
#[derive(Debug)]
pub struct Call {
    name: String,
    id: u64,
    answer: oneshot::Receiver<Value>,
}

impl Host {
    /// The list of tools, with the host's rules checked.
    ///
    /// # Errors
    /// No answer.
    pub async fn tools(&mut self) -> Result<Vec<Value>> {
        let answer = self.request("tools/list", Value::Null).await?;
        let tools = answer["result"]["tools"].as_array().with_context(|| format!("no tools: {answer}"))?.clone();
        let mut state = self.link.state();
        for tool in &tools {
            state.tool(tool);
        }
        drop(state);
        Ok(tools)
    }

    /// Calls a tool as the host does, with its `_meta`.
    ///
    /// # Errors
    /// No answer, or a protocol error.
    pub async fn tool(&mut self, name: &str, arguments: Value) -> Result<ToolAnswer> {
        let call = self.start_tool(name, arguments).await?;
        self.finish(call).await
    }

    /// Calls a tool and goes on; [`Self::finish`] takes the answer.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn start_tool(&mut self, name: &str, arguments: Value) -> Result<Call> {
        let meta = json!({"claudecode/toolUseId": format!("toolu_{}", self.next_id), "progressToken": self.next_id});
        let params = json!({"name": name, "arguments": arguments, "_meta": meta});
        let (id, answer) = self.start_request("tools/call", params).await?;
        Ok(Call { name: name.to_owned(), id, answer })
    }

    /// Gives a call up, as the host does when its user interrupts.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn cancel(&mut self, call: Call) -> Result<()> {
        {
            let mut state = self.link.state();
            state.pending.remove(&call.id);
            state.cancelled.insert(call.id);
        }
        self.notify("notifications/cancelled", json!({"requestId": call.id, "reason": "the user interrupted"})).await
    }

    /// Waits until the server told how a call gets on, at least so many times.
    ///
    /// # Errors
    /// It does not.
    pub async fn progressed(&mut self, call: &Call, times: usize) -> Result<()> {
        let mut heard = self.link.heard.subscribe();
        let id = call.id;
        let enough = heard.wait_for(|heard| heard.get(&id).is_some_and(|count| *count >= times));
        tokio::time::timeout(PATIENCE, enough).await.context("no sign of life of the call")??;
        Ok(())
    }

    /// The answer to a call.
    ///
    /// # Errors
    /// No answer, or a protocol error.
    pub async fn finish(&mut self, call: Call) -> Result<ToolAnswer> {
        let Call { name, answer, .. } = call;
        let answer = self.answered(&name, answer).await?;
        let result = answer.get("result").with_context(|| format!("{name} failed: {answer}"))?;
        let blocks = result["content"].as_array().with_context(|| format!("{name}: no content: {answer}"))?;
        let text = blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n");
        let is_error = result["isError"].as_bool().unwrap_or(false);
        if !is_error {
            self.link.state().answer(&name, &result["structuredContent"]);
        }
        Ok(ToolAnswer { text, is_error, structured: result["structuredContent"].clone() })
    }
}
