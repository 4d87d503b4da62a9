//! How much is open: sockets and requests, counted so that a drain ends when the last of them does.

use tokio::sync::watch;

/// The count, shared by everything that serves.
#[derive(Clone, Debug, Default)]
pub struct OpenConnections {
    open: watch::Sender<usize>,
}

/// Something that is open; dropped when it ends.
#[derive(Debug)]
pub struct OpenGuard {
    traffic: OpenConnections,
}

impl OpenConnections {
    /// Counts one more.
    pub fn enter(&self) -> OpenGuard {
        self.open.send_modify(|open| *open += 1);
        OpenGuard { traffic: self.clone() }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until nothing is.
    pub async fn ended(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.traffic.open.send_modify(|open| *open -= 1);
    }
}
