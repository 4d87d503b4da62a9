//! The inbox for async code.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_protocol::id::MeshId;

use super::{Inbox, InboxError, pending_waits};

/// An inbox for async code: statements run on the blocking pool, one at a time.
#[derive(Clone)]
pub struct Mailbox {
    inbox: Arc<Mutex<Inbox>>,
    pending_waits: pending_waits::PendingWaits,
}

impl Mailbox {
    /// Wraps an open inbox.
    pub fn new(inbox: Inbox) -> Self {
        Self { pending_waits: inbox.pending_waits(), inbox: Arc::new(Mutex::new(inbox)) }
    }

    /// What this process waits for.
    pub fn pending_waits(&self) -> &pending_waits::PendingWaits {
        &self.pending_waits
    }

    /// Opens the inbox of a mesh, see [`Inbox::open`].
    ///
    /// # Errors
    /// [`InboxError`]
    pub async fn open(config_dir: &Path, mesh: &MeshId) -> Result<Self, InboxError> {
        let (dir, mesh) = (config_dir.to_path_buf(), mesh.clone());
        let opened = tokio::task::spawn_blocking(move || Inbox::open(&dir, &mesh)).await;
        opened.map_err(|_| InboxError::Closed)?.map(Self::new)
    }

    /// Runs `work` with the inbox. Once started it runs to its end, also when the caller is gone.
    ///
    /// # Errors
    /// What `work` says; [`InboxError::Closed`] when the runtime is ending.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inbox) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        let inbox = Arc::clone(&self.inbox);
        // Each statement is a transaction of its own, so an inbox whose user panicked is still whole.
        let done = tokio::task::spawn_blocking(move || work(&mut inbox.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.map_err(|_| InboxError::Closed)?
    }
}
