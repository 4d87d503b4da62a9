//! What the server says unasked: channel notes and decisions about permission questions.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Host, PATIENCE};

/// A message as the session would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelNote {
    /// Body.
    pub content: String,
    /// Attributes.
    pub meta: HashMap<String, String>,
}

impl Host {
    /// The next message that reached the session.
    ///
    /// # Errors
    /// None comes.
    pub async fn channel(&mut self) -> Result<ChannelNote> {
        match tokio::time::timeout(PATIENCE, self.notes.recv()).await {
            Ok(Some(note)) => Ok(note),
            Ok(None) => bail!("the server ended"),
            Err(_) => bail!("no channel message in {PATIENCE:?}; breaches so far: {:?}", self.violations()),
        }
    }

    /// The first message whose body holds the text. Those before it count as not taken, see [`Self::untaken`].
    ///
    /// # Errors
    /// None comes.
    pub async fn channel_with(&mut self, text: &str) -> Result<ChannelNote> {
        loop {
            let note = self.channel().await.with_context(|| format!("waiting for `{text}`"))?;
            if note.content.contains(text) {
                return Ok(note);
            }
            self.passed.push(note);
        }
    }

    /// Whether the server takes permission questions: the host sends them to no other.
    pub fn relays_permissions(&self) -> bool {
        self.link.state().relays
    }

    /// Opens a permission dialog and tells the server of it.
    ///
    /// # Errors
    /// The server is gone, or takes no such questions.
    pub async fn ask_permission(&mut self, id: &str, tool: &str, preview: &str) -> Result<()> {
        anyhow::ensure!(self.relays_permissions(), "the server has not declared that it relays permissions");
        self.link.state().asked.insert(id.to_owned());
        let params = json!({
            "request_id": id, "tool_name": tool, "description": "What it does", "input_preview": preview,
        });
        self.notify("notifications/claude/channel/permission_request", params).await
    }

    /// The next decision that counts in a dialog: id and behaviour.
    ///
    /// # Errors
    /// None comes.
    pub async fn permission(&mut self) -> Result<(String, String)> {
        match tokio::time::timeout(PATIENCE, self.decisions.recv()).await {
            Ok(Some(decision)) => Ok(decision),
            _ => bail!("no permission decision within {PATIENCE:?}; breaches so far: {:?}", self.violations()),
        }
    }

    /// Messages that came and that no call has answered, in order; also those that [`Self::channel_with`] passed over.
    pub fn untaken(&mut self) -> Vec<ChannelNote> {
        let mut list = std::mem::take(&mut self.passed);
        list.extend(std::iter::from_fn(|| self.notes.try_recv().ok()));
        list
    }
}
