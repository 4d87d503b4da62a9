//! From the joined meshes to connections: which ones this session uses, and who it is there.

use std::sync::{Arc, PoisonError};

use claudemesh_protocol::version::{CAP_CLIENT_ACK, CAP_NO_LEASE, CAP_PULL};

use super::{JoinedMesh, Session, parent_pid, read, tend};
use crate::config::{Config, MeshEntry};
use crate::connection::{Connection, ConnectionError, Identity};
use crate::context::connect::hostname;
use crate::error::CliError;
use crate::features::mcp_servers::hosting::Hosting;
use crate::features::mcp_servers::kept::HostedServer;
use crate::features::questions::wait::Waits;
use crate::features::state::Seen;
use crate::features::streams::Subscriptions;
use crate::inbox::Mailbox;
use crate::inbox::sent::SentBook;
use crate::session::notes::{MeshTag, Notes};
use crate::session::{channel, events};
use crate::{local, paths};

impl Session {
    pub(super) fn wanted(&self, config: &Config) -> Vec<MeshEntry> {
        match self.only() {
            Some(slug) => config.by_slug(slug).cloned().into_iter().collect(),
            None => local::store::meant(config, &self.env, self.store.dir()),
        }
    }

    fn only(&self) -> Option<&str> {
        self.only_mesh.as_deref().or(self.identity.mesh_slug.as_deref())
    }

    pub(super) fn local_store(&self, config: &Config) -> Option<local::store::Store> {
        local::wanted(config, &self.env, self.store.dir(), self.only())
    }

    /// Queues up to serve the mesh of this machine when this session uses it, and puts it into the config.
    async fn join_local(&self, config: &Config) -> Result<(), CliError> {
        let Some(place) = self.local_store(config) else { return Ok(()) };
        let mut candidate = self.local.lock().await;
        if candidate.is_some() || self.stop.is_cancelled() {
            return Ok(());
        }
        let (env, store) = (self.env.clone(), self.store.clone());
        let joining = tokio::task::spawn_blocking(move || local::join(&env, &store, &place)).await;
        *candidate = Some(joining.map_err(|error| CliError::internal(format!("A task ended early: {error}.")))??);
        Ok(())
    }

    /// Connects every wanted mesh that is not connected yet. Called at the start and, when no mesh is there, by tools: a
    /// mesh that was joined meanwhile works without a restart.
    pub async fn bind(self: &Arc<Self>) {
        let (_, config, mut trouble) = read(&self.env, &self.store);
        // A config that cannot be read is not taken for an empty one.
        let config = match trouble {
            None => {
                if let Err(error) = self.join_local(&config).await {
                    tracing::error!(%error, "the mesh of this machine cannot be used");
                    trouble = Some(error.to_string());
                }
                read(&self.env, &self.store).1
            }
            Some(_) => config,
        };
        *self.trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble;
        for entry in &self.wanted(&config) {
            if self.meshes().iter().any(|bound| bound.tag.id == entry.mesh_id.as_str()) {
                continue;
            }
            if let Err(error) = self.bind_one(entry).await {
                let message = format!("mesh {}: {error}", entry.slug);
                tracing::error!(mesh.slug = entry.slug, %error, "the mesh cannot be used");
                *self.trouble.write().unwrap_or_else(PoisonError::into_inner) = Some(message);
            }
        }
    }

    pub(super) async fn bind_one(self: &Arc<Self>, entry: &MeshEntry) -> Result<(), CliError> {
        let identity = self.identity_for(entry)?;
        let mailbox = Mailbox::open(self.store.dir(), &entry.mesh_id).await?;
        let mut bound = self.bound.write().unwrap_or_else(PoisonError::into_inner);
        // Two tools may find the list empty at once; the second must not connect again.
        if bound.iter().any(|known| known.tag.id == entry.mesh_id.as_str()) {
            return Ok(());
        }
        let connection = Connection::start(identity, Some(mailbox.clone())).keeping(SentBook::Open(mailbox.clone()));
        let tag = MeshTag { slug: entry.slug.clone(), id: entry.mesh_id.to_string() };
        let (notes, told) = Notes::new();
        let hosting = self.hosting(entry.mesh_id.as_str(), &connection);
        let one = JoinedMesh {
            tag,
            connection,
            mailbox,
            pull_lock: Arc::default(),
            waits: Waits::default(),
            subscriptions: Subscriptions::default(),
            state_seen: Seen::default(),
            hosting,
            notes,
        };
        bound.push(one.clone());
        drop(bound);
        self.routes.touch();
        tokio::spawn(events::follow_all(self, &one));
        self.showing.spawn(channel::run(Arc::clone(self), one.clone(), told));
        tokio::spawn(crate::features::messaging::outbox::run(Arc::clone(self), one.clone()));
        tokio::spawn(crate::features::status_line::refresh::run(Arc::clone(self), one.clone()));
        tokio::spawn(crate::features::notify::watch::run(Arc::clone(self), one.clone()));
        tokio::spawn(tend(Arc::clone(self), one));
        Ok(())
    }

    /// What this session runs for a mesh, registered over this connection from now on.
    fn hosting(&self, mesh_id: &str, connection: &Connection) -> Hosting {
        let mut hostings = self.hostings.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !hostings.contains_key(mesh_id);
        let hosting = hostings.entry(mesh_id.to_owned()).or_default().clone();
        hosting.use_connection(connection.clone());
        if is_new {
            self.run_kept(mesh_id, &hosting);
        }
        hosting
    }

    /// Runs the MCP servers again that a session of this id has run before.
    fn run_kept(&self, mesh_id: &str, hosting: &Hosting) {
        let Some(id) = self.routes.session_id() else { return };
        match self.store.hosted_servers() {
            Ok(kept) => {
                let own = |server: &HostedServer| server.session.as_ref() == Some(&id);
                for server in kept.into_iter().filter(|server| own(server) && server.mesh_id.as_str() == mesh_id) {
                    hosting.start(server);
                }
            }
            Err(error) => tracing::error!(%error, "the list of MCP servers cannot be read"),
        }
    }

    fn identity_for(&self, entry: &MeshEntry) -> Result<Identity, CliError> {
        let who = &self.identity;
        let session_id = self.session_id();
        let mut identity = Identity::of_mesh(entry, session_id).map_err(ConnectionError::from)?;
        identity.session = Some(match &self.routes.session_id() {
            Some(id) => self.store.session_key(&entry.mesh_id, &entry.slug, id)?,
            None => self.throw_away.clone(),
        });
        identity.cwd.clone_from(&who.cwd);
        identity.pid = parent_pid();
        let description = &mut identity.description;
        description.capabilities = [CAP_CLIENT_ACK, CAP_PULL].map(str::to_owned).to_vec();
        if self.env.text(paths::NO_LEASE).is_some() {
            description.capabilities.push(CAP_NO_LEASE.to_owned());
        }
        description.display_name = Some(self.name());
        description.hostname = hostname();
        description.peer_type = Some("ai".into());
        description.channel = Some("claude-code".into());
        description.model.clone_from(&who.model);
        description.groups.clone_from(&who.groups);
        // Without the token hooks cannot set the status; that is no reason not to connect.
        description.hook_token_hash = match self.store.hook_token_or_create() {
            Ok(token) => Some(token.hash()),
            Err(error) => {
                tracing::warn!(%error, "no hook token");
                None
            }
        };
        Ok(identity)
    }
}
