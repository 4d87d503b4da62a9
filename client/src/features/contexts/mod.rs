//! Contexts: what each session works on and has found out.

use claudemesh_protocol::features::contexts::{
    ContextList, ContextResults, ContextShared, GetContext, ListContexts, ShareContext,
};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod notes;
pub mod tools;

impl Connection {
    /// Shares what this session knows.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn share_context(&self, context: ShareContext) -> Result<ContextShared, ConnectionError> {
        self.request(context).await
    }

    /// Contexts that have all words of a query, the best first: one page.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn get_context(
        &self,
        query: &str,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<ContextResults, ConnectionError> {
        self.request(GetContext { query: query.to_owned(), limit: Some(limit), cursor }).await
    }

    /// All contexts, the newest first: one page.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn list_contexts(&self, limit: u32, cursor: Option<String>) -> Result<ContextList, ConnectionError> {
        self.request(ListContexts { limit: Some(limit), cursor }).await
    }
}

/// Whose context it is, in words.
fn owner(peer: &str, session: &str, gone: bool) -> String {
    let session = if session.is_empty() || session == peer { String::new() } else { format!(" ({session})") };
    format!("{peer}{session}{}", if gone { ", gone" } else { "" })
}
