//! Memory: texts that the mesh keeps, found again by words.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::memory::{
    Conditions, Forget, ListMemories, Memory, MemoryResults, MemoryStored, Recall, Remember,
};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;

/// Characters of an id that lists show; they are enough for `forget`.
pub const SHORT_ID_CHARS: usize = 8;

/// Memories that were read page by page.
#[derive(Debug, Default)]
pub struct Read {
    /// In the order of the broker.
    pub memories: Vec<Memory>,
    /// What the next page is asked for with.
    pub next: Option<String>,
    /// Words of the query that no memory has.
    pub unmatched: Vec<String>,
}

impl Connection {
    /// Stores a text.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn remember(&self, content: &str, tags: &[String]) -> Result<MemoryStored, ConnectionError> {
        self.request(Remember { content: content.to_owned(), tags: tags.to_vec() }).await
    }

    /// Memories that have all words of a query, the best first: at most `most`, behind a cursor.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn recall(
        &self,
        query: &str,
        only: &Conditions,
        most: usize,
        cursor: Option<String>,
    ) -> Result<Read, ConnectionError> {
        pages(most, cursor, |limit, cursor| {
            let recall = Recall { query: query.to_owned(), only: only.clone(), limit: Some(limit), cursor };
            async move { self.request(recall).await }
        })
        .await
    }

    /// Memories without a query, the newest first: at most `most`, behind a cursor.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn list_memories(
        &self,
        only: &Conditions,
        most: usize,
        cursor: Option<String>,
    ) -> Result<Read, ConnectionError> {
        pages(most, cursor, |limit, cursor| {
            let list = ListMemories { only: only.clone(), limit: Some(limit), cursor };
            async move { self.request(list).await }
        })
        .await
    }

    /// Deletes a memory for good. Answers its whole id; `None`: no memory has this id.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn forget(&self, id: &str) -> Result<Option<String>, ConnectionError> {
        let ack = self.request(Forget { memory_id: id.to_owned() }).await?;
        let missing = ack.code.as_deref() == Some(ErrorCode::NotFound.as_str());
        Ok((!missing).then_some(ack.id))
    }
}

/// Reads pages until there are `most` rows or no more.
async fn pages<F: Future<Output = Result<MemoryResults, ConnectionError>>>(
    most: usize,
    cursor: Option<String>,
    ask: impl Fn(u32, Option<String>) -> F,
) -> Result<Read, ConnectionError> {
    let mut read = Read { next: cursor, ..Read::default() };
    loop {
        let wanted = most.saturating_sub(read.memories.len());
        let limit = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, 100);
        let page = ask(limit, read.next.take()).await?;
        read.memories.extend(page.memories);
        read.unmatched = page.unmatched;
        read.next = page.next;
        if read.next.is_none() || read.memories.len() >= most {
            return Ok(read);
        }
    }
}

/// What lists show of an id.
fn short(id: &str) -> String {
    id.chars().take(SHORT_ID_CHARS).collect()
}

/// Why nothing was found, in words.
fn nothing_found(unmatched: &[String], word: impl Fn(&str) -> String) -> String {
    if unmatched.is_empty() {
        return "no memory has all of these words".to_owned();
    }
    let words: Vec<String> = unmatched.iter().map(|one| word(one)).collect();
    format!("no memory has all of these words; found nowhere: {}", words.join(", "))
}
