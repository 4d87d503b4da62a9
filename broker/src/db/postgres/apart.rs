//! Connections for what must not run as the broker's own user: the SQL of meshes, each under a role of its own.
//!
//! A role gets a new password for each connection, which is worth nothing a minute later, so none is kept anywhere. What a server
//! sends in one piece is bounded: one row must not fill the broker's memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;

use super::PostgresDb;
use super::server::{BoundedError, Server};
use crate::db::DbError;

/// Connections of all meshes that are used at once.
const MAX_USED: usize = 8;
/// Connections of all meshes that are kept for the next request.
const MAX_KEPT: usize = 8;
/// Longest wait for a new connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Connections under the roles of meshes, and one under the broker's own that makes these roles.
pub(crate) struct Apart {
    server: Server,
    used: Arc<Semaphore>,
    kept: Mutex<VecDeque<Session>>,
    own: Turn<Option<Arc<Client>>>,
}

/// A connection under the role of a mesh.
pub(crate) struct Session {
    /// The driver's.
    pub(crate) client: Client,
    /// The server's number for it.
    pub(crate) pid: i32,
    role: String,
    too_large: Arc<AtomicBool>,
}

impl Session {
    /// Whether the connection ended because a row was too large for the broker.
    pub(crate) fn was_too_large(&self) -> bool {
        self.too_large.load(Ordering::Acquire)
    }
}

/// What makes a connection under a role.
pub(crate) struct As<'a> {
    /// The role.
    pub(crate) role: &'a str,
    /// Its password, for now.
    pub(crate) password: &'a str,
    /// Settings, as `-c name=value -c …`.
    pub(crate) options: &'a str,
}

impl Apart {
    pub(super) fn new(server: Server) -> Self {
        Self { server, used: Arc::new(Semaphore::new(MAX_USED)), kept: Mutex::default(), own: Turn::default() }
    }

    /// A place for a connection; it is given back when the permit is dropped.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, DbError> {
        // It is never closed.
        Arc::clone(&self.used).acquire_owned().await.map_err(|_| DbError::Busy)
    }

    /// A connection that was kept for this role.
    pub(crate) fn kept(&self, role: &str) -> Option<Session> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|session| !session.client.is_closed());
        let at = kept.iter().rposition(|session| session.role == role)?;
        kept.remove(at)
    }

    /// Keeps a connection for the next request. It must be as it was made.
    pub(crate) fn keep(&self, session: Session) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(session);
        if kept.len() > MAX_KEPT {
            kept.pop_front();
        }
    }

    /// Closes what is kept for a role.
    pub(crate) fn forget(&self, role: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|session| session.role != role);
    }

    /// The one connection under the broker's own user, for making and removing roles.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn own(&self) -> Result<Arc<Client>, DbError> {
        let mut own = self.own.lock().await;
        if let Some(client) = own.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, _) = self.timed(self.server.config()).await.map_err(|error| DbError::Unavailable(error.into()))?;
        let client = Arc::new(client);
        *own = Some(Arc::clone(&client));
        Ok(client)
    }

    /// A new connection under a role.
    ///
    /// # Errors
    /// The server does not let it in, or cannot be reached.
    pub(crate) async fn open(&self, of: As<'_>) -> Result<Session, BoundedError> {
        let mut config = self.server.config().clone();
        config.user(of.role).password(of.password).options(of.options).application_name("claudemesh mesh sql");
        let (client, too_large) = self.timed(&config).await?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        Ok(Session { client, pid, role: of.role.to_owned(), too_large })
    }

    async fn timed(&self, config: &tokio_postgres::Config) -> Result<(Client, Arc<AtomicBool>), BoundedError> {
        let opening = tokio::time::timeout(CONNECT, self.server.open_bounded(config));
        opening.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// Ends a connection on the server, whatever it does.
    pub(crate) async fn end(&self, pid: i32) {
        let Ok(own) = self.own().await else { return };
        if let Err(error) = own.execute("SELECT pg_terminate_backend($1)", &[&pid]).await {
            tracing::warn!(error = %error, "a statement of a mesh could not be ended");
        }
    }
}

impl PostgresDb {
    /// Connections under other roles than the broker's.
    pub(crate) fn apart(&self) -> &Arc<Apart> {
        &self.apart
    }
}
