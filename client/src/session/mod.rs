//! A running session: its meshes with their connections and inboxes, its routes into the host, and which mesh a tool means.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::features::presence::{Profile, Stats};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::channel::Gate;
use self::identity::SessionIdentity;
use self::notes::{ChannelNote, MeshTag, Notes};
use self::routes::proof::{self, Occasion};
use self::routes::{PULL, Routes, UnconfirmedDelivery, host};
use self::tool_answers::ToolAnswers;
use crate::config::project_file;
use crate::config::session_dir::SessionInfo;
use crate::config::{Config, ConfigStore, MeshEntry, MessageMode};
use crate::connection::{Connection, ConnectionError, State};
use crate::features::mcp_servers::hosting::Hosting;
use crate::features::peer_files::consent::Folder;
use crate::features::permissions::pending_requests::PendingRequests;
use crate::features::questions::wait::Waits;
use crate::features::skills::list_changes::ListChanges;
use crate::features::state::Seen;
use crate::features::streams::Subscriptions;
use crate::inbox::{KEEP, Mailbox, Message};
use crate::local;
use crate::paths::{self, Env};

pub mod admit;
mod binding;
pub mod channel;
pub mod events;
pub mod frame;
pub mod identity;
mod lifecycle;
pub mod notes;
pub mod routes;
mod tool_answers;

pub(crate) use lifecycle::tend as run;
pub(crate) use tool_answers::{lost, printed};

/// Time between two reports of counters.
const STATS_EVERY: Duration = Duration::from_secs(60);
/// How long approvers may take to hear that nothing is asked any more.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(1);
/// How long the end of a session waits for messages that are being shown: a write to the host and one to the inbox.
const SHOWING_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two cleanings of the inbox.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// How long a tool waits for a connection that is being made: right after the start, not later.
const PATIENCE: Duration = Duration::from_secs(5);

/// One mesh of this session.
#[derive(Clone)]
pub struct JoinedMesh {
    /// Slug and id.
    pub tag: MeshTag,
    /// Its connection.
    pub connection: Connection,
    /// Its inbox.
    pub mailbox: Mailbox,
    /// Held while messages are taken: what a tool pulls is the tool's to answer, not the channel's to snatch.
    pub pull_lock: Arc<tokio::sync::Mutex<()>>,
    /// Questions whose answers a tool call waits for.
    pub waits: Waits,
    /// Streams that this session is subscribed to.
    pub subscriptions: Subscriptions,
    /// How far this session knows the shared state.
    pub state_seen: Seen,
    /// MCP servers that this session runs for the mesh.
    pub hosting: Hosting,
    /// Notes on their way into the session.
    notes: Notes,
}

impl JoinedMesh {
    /// Name of this session's reader in the inbox.
    pub fn reader(&self) -> String {
        self.connection.identity().reader()
    }
}

/// What a session counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages shown.
    pub messages_in: AtomicU64,
    /// Messages sent.
    pub messages_out: AtomicU64,
    /// Tool calls.
    pub tool_calls: AtomicU64,
    /// Failed tool calls.
    pub errors: AtomicU64,
}

/// A tool cannot do what it was asked for.
pub type ToolError = String;

/// Everything the tools share.
pub struct Session {
    env: Env,
    store: ConfigStore,
    only_mesh: Option<String>,
    mode_flag: Option<MessageMode>,
    identity: SessionIdentity,
    /// Another name than the identity's, once a tool gave one.
    renamed: RwLock<Option<String>>,
    /// Used when the host gives no session id: lives as long as this process.
    throw_away: SecretKey,
    throw_away_id: String,
    bound: RwLock<Vec<JoinedMesh>>,
    /// By the id of the mesh; they go on when a mesh is bound anew.
    hostings: Mutex<HashMap<String, Hosting>>,
    trouble: RwLock<Option<String>>,
    /// Opened by `notifications/initialized`.
    pub gate: Gate,
    /// Messages in answers that are not written yet.
    pub(crate) answers: ToolAnswers,
    /// What the host knows of its lists of prompts and resources.
    pub list_changes: ListChanges,
    /// Counters.
    pub counters: Counters,
    /// The ways into the session.
    pub routes: Routes,
    /// Permission questions that approvers are asked.
    pub permissions: PendingRequests,
    /// The folder that peers may ask for.
    pub folder: Folder,
    /// How many held messages the user was last told of.
    held_told: AtomicI64,
    /// What mode `inbox` last said of each mesh (by id).
    noticed: Mutex<HashMap<String, i64>>,
    /// The status that hooks last reported.
    hook_status: watch::Sender<Option<&'static str>>,
    /// The session's own status is `dnd`, as far as this process wrote it.
    dnd: AtomicBool,
    /// The task of the local socket.
    socket: Mutex<Option<tokio::task::JoinHandle<()>>>,
    started: Instant,
    stop: CancellationToken,
    /// The tasks that show messages: they finish what they have begun before the process ends.
    showing: TaskTracker,
    /// Our place among those who may serve the mesh of this machine, when this session uses it.
    local: tokio::sync::Mutex<Option<local::Candidate>>,
}

impl Session {
    /// Reads who we are. Connects nothing yet and never fails: what is wrong is told by the tools.
    pub fn new(env: Env, store: ConfigStore, only_mesh: Option<String>, mode_flag: Option<MessageMode>) -> Arc<Self> {
        let (session, config, trouble) = read(&env, &store);
        let identity = SessionIdentity::resolve(&env, session.as_ref(), &config, mode_flag);
        let routes = Routes::new(identity.session_id.clone());
        if let Some(expected) = host::expected_mode(&env, Path::new(&identity.cwd)) {
            routes.expect_permission_mode(&expected.mode);
        }
        let folder = Folder::default();
        let named = session.and_then(|info| info.share_dir).or_else(|| env.path(paths::SHARE_DIR));
        if let Some(dir) = named {
            folder.share(&Path::new(&identity.cwd).join(dir));
        }
        Arc::new(Self {
            folder,
            routes,
            permissions: PendingRequests::default(),
            held_told: AtomicI64::new(0),
            noticed: Mutex::default(),
            hook_status: watch::Sender::new(None),
            dnd: AtomicBool::new(false),
            socket: Mutex::default(),
            env,
            store,
            only_mesh,
            mode_flag,
            identity,
            renamed: RwLock::default(),
            throw_away: SecretKey::random(&mut rand::rngs::OsRng),
            throw_away_id: uuid::Uuid::new_v4().to_string(),
            bound: RwLock::default(),
            hostings: Mutex::default(),
            trouble: RwLock::new(trouble),
            gate: Gate::default(),
            answers: ToolAnswers::default(),
            list_changes: ListChanges::default(),
            counters: Counters::default(),
            started: Instant::now(),
            stop: CancellationToken::new(),
            showing: TaskTracker::new(),
            local: tokio::sync::Mutex::default(),
        })
    }

    /// The environment of this process.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The display name of this session.
    pub fn name(&self) -> String {
        let renamed = self.renamed.read().unwrap_or_else(PoisonError::into_inner).clone();
        renamed.unwrap_or_else(|| self.identity.name.clone())
    }

    /// Gives the session another name: connects again under the same keys, so queued mail, groups and status stay. Nothing
    /// happens when it has that name.
    ///
    /// # Errors
    /// A mesh that cannot be bound again, or no config.
    pub async fn rename(self: &Arc<Self>, name: String) -> Result<(), ToolError> {
        if name == self.name() {
            return Ok(());
        }
        *self.renamed.write().unwrap_or_else(PoisonError::into_inner) = Some(name);
        for bound in self.meshes() {
            let entry = self.entry(&bound)?;
            self.rebind(&bound, &entry).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Who this session is.
    pub fn identity(&self) -> &SessionIdentity {
        &self.identity
    }

    /// The config folder.
    pub fn store(&self) -> &ConfigStore {
        &self.store
    }

    /// Slugs that this session will connect to, as the config says now.
    pub fn slugs(&self) -> Vec<String> {
        let (_, config, _) = read(&self.env, &self.store);
        let slugs: Vec<String> = self.wanted(&config).into_iter().map(|entry| entry.slug).collect();
        // The mesh of this machine is made a moment later.
        if slugs.is_empty() && self.local_store(&config).is_some() { vec!["local".into()] } else { slugs }
    }

    /// The joined mesh of a connection, as the config says now.
    ///
    /// # Errors
    /// The config cannot be read, or the mesh was left meanwhile.
    pub fn entry(&self, bound: &JoinedMesh) -> Result<MeshEntry, ToolError> {
        let config = self.store.load().map_err(|error| error.to_string())?;
        let entry = config.meshes.into_iter().find(|entry| entry.mesh_id.as_str() == bound.tag.id);
        entry.ok_or_else(|| format!("the mesh {} was left", bound.tag.slug))
    }

    /// The meshes of this session.
    pub fn meshes(&self) -> Vec<JoinedMesh> {
        self.bound.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How messages are shown.
    pub fn mode(&self) -> MessageMode {
        self.mode_flag.unwrap_or(self.identity.mode)
    }

    /// The meshes a tool is about: the named one, else all.
    ///
    /// # Errors
    /// A sentence that says what to do when there is none.
    pub async fn select(self: &Arc<Self>, slug: Option<&str>) -> Result<Vec<JoinedMesh>, ToolError> {
        if self.meshes().is_empty() {
            self.bind().await;
        }
        let meshes = self.meshes();
        if meshes.is_empty() {
            let trouble = self.trouble.read().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(match (trouble, &self.only_mesh, &self.identity.mesh_slug) {
                (Some(trouble), ..) => trouble,
                (None, Some(slug), _) => {
                    format!("no joined mesh is called '{slug}'; run `claudemesh list` in a shell")
                }
                // Not another mesh instead: no one asked for this session to be seen there.
                (None, None, Some(slug)) => format!(
                    "this session or project ({}) belongs to the mesh '{slug}', which is not joined; run `claudemesh join \
                     <invite-link>` in a shell, then call again",
                    project_file::FILE,
                    slug = notes::harmless_value(slug),
                ),
                (None, None, None) => {
                    "no mesh is joined; run `claudemesh join <invite-link>` in a shell, then call again".into()
                }
            });
        }
        let Some(slug) = slug.map(str::trim).filter(|slug| !slug.is_empty()) else { return Ok(meshes) };
        let known: Vec<String> = meshes.iter().map(|bound| bound.tag.slug.clone()).collect();
        let found: Vec<JoinedMesh> = meshes.into_iter().filter(|bound| bound.tag.slug == slug).collect();
        if found.is_empty() {
            return Err(format!("no mesh '{slug}' in this session; it has: {}", known.join(", ")));
        }
        Ok(found)
    }

    /// Exactly one mesh: the named one, else the only one.
    ///
    /// # Errors
    /// As [`Session::select`], and when there are several and none is named.
    pub async fn select_one(self: &Arc<Self>, slug: Option<&str>) -> Result<JoinedMesh, ToolError> {
        let mut meshes = self.select(slug).await?;
        if meshes.len() > 1 {
            let slugs: Vec<&str> = meshes.iter().map(|bound| bound.tag.slug.as_str()).collect();
            return Err(format!("several meshes are joined; say mesh_slug: {}", slugs.join(", ")));
        }
        meshes.pop().ok_or_else(|| "no mesh is joined".to_owned())
    }

    /// The connection, after waiting a moment if the first attempt is still under way.
    ///
    /// # Errors
    /// `not connected (reconnecting)`, or why it never will be.
    pub async fn connected(&self, bound: &JoinedMesh) -> Result<Connection, ToolError> {
        self.reached(bound).await.map_err(|error| error.to_string())
    }

    /// The same, with an error that tells a broker that is away from one that refuses.
    ///
    /// # Errors
    /// `NotConnected`, or `Closed` when it never will be.
    pub async fn reached(&self, bound: &JoinedMesh) -> Result<Connection, ConnectionError> {
        // On this machine another process takes over within a moment.
        let is_local = bound.connection.identity().local.is_some();
        let state = bound.connection.state();
        if matches!(state, State::Connecting(None)) || (is_local && matches!(state, State::Connecting(_))) {
            let _ = bound.connection.ready(PATIENCE).await;
        }
        bound.connection.hello_ack().map(|_| bound.connection.clone())
    }

    /// Writes a note about a mesh into the session, after those before it. Not in mode `off`, and not while the user does not
    /// want to be disturbed. What a peer wrote as a message is no note: it goes through the inbox.
    pub fn tell(&self, bound: &JoinedMesh, note: ChannelNote) {
        if self.mode() != MessageMode::Off && !self.is_quiet() {
            bound.notes.put(note);
        }
    }

    /// Notes that messages go into a tool's answer, see [`tool_answers`].
    pub fn answered_with<'a>(&self, bound: &JoinedMesh, messages: impl IntoIterator<Item = &'a Message>) {
        let (seqs, message_ids): (Vec<i64>, Vec<String>) =
            messages.into_iter().map(|message| (message.seq, message.message_id.clone())).unzip();
        if seqs.is_empty() {
            return;
        }
        tool_answers::note(UnconfirmedDelivery {
            bound: bound.clone(),
            message_ids,
            seqs,
            route: PULL,
            at: Instant::now(),
            misses: 0,
            // Without hooks the next call is the only sign there is.
            batch_of_prompt: self.routes.has_hooks().then(|| self.routes.prompts()),
        });
    }

    /// A tool is called. Where no hooks tell more, the model had its turn after the answers before.
    pub async fn called(&self) {
        if !self.routes.has_hooks() {
            proof::look(self, Occasion::Tool).await;
        }
    }

    /// Counters for the broker.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed) as f64);
        Stats {
            messages_in: read(&self.counters.messages_in),
            messages_out: read(&self.counters.messages_out),
            tool_calls: read(&self.counters.tool_calls),
            uptime: Some(self.started.elapsed().as_secs() as f64),
            errors: read(&self.counters.errors),
        }
    }

    /// Ends when the session ends.
    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Closes every connection in good order.
    pub async fn close(&self) {
        self.permissions.withdraw(None);
        self.permissions.emptied(WITHDRAW_PATIENCE).await;
        self.stop.cancel();
        // What was written to the host is noted as shown, so that the next process of the session does not show it again.
        self.showing.close();
        let _ = tokio::time::timeout(SHOWING_PATIENCE, self.showing.wait()).await;
        self.socket_closed().await;
        let hostings: Vec<Hosting> =
            self.hostings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        futures_util::future::join_all(hostings.iter().map(Hosting::close)).await;
        futures_util::future::join_all(self.meshes().iter().map(|bound| bound.connection.close())).await;
        // Last, so that our own goodbyes arrive. The others come over to the next one.
        if let Some(candidate) = self.local.lock().await.take() {
            candidate.leave().await;
        }
    }
}

/// What follows a connection: the role as profile after each hello, counters, a clean inbox.
async fn tend(session: Arc<Session>, bound: JoinedMesh) {
    let stop = session.stopped();
    let mut state = bound.connection.watch();
    // The connection may be ready already.
    state.mark_changed();
    let mut was_ready = false;
    let mut stats = tokio::time::interval(STATS_EVERY);
    let mut prune = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                let ready = matches!(*state.borrow_and_update(), State::Ready(_));
                if ready {
                    let _ = bound.connection.report_stats(session.stats());
                }
                if ready && was_ready && bound.connection.is_older_broker()
                    && let Err(error) = bound.connection.join_groups_again().await
                {
                    tracing::warn!(mesh.slug = bound.tag.slug, %error, "the session is not back in its groups");
                }
                was_ready |= ready;
                if let (true, Some(role)) = (ready, &session.identity().role) {
                    let profile = Profile { title: Some(role.clone()), ..Profile::default() };
                    if let Err(error) = bound.connection.set_profile(profile, None).await {
                        tracing::warn!(mesh.slug = bound.tag.slug, %error, "the role could not be told");
                    }
                }
            }
            _ = stats.tick() => {
                // Not connected: told with the next tick.
                let _ = bound.connection.report_stats(session.stats());
            }
            _ = prune.tick() => {
                let before = crate::clock::now_ms() - i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
                if let Err(error) = bound.mailbox.run(move |inbox| inbox.prune(before)).await {
                    tracing::warn!(mesh.slug = bound.tag.slug, %error, "the inbox could not be cleaned");
                }
                let dir = session.config_dir().to_path_buf();
                let _ = tokio::task::spawn_blocking(move || frame::prune_texts(&dir, KEEP)).await;
            }
        }
    }
}

/// Session folder, config, and what is wrong with them.
fn read(env: &Env, store: &ConfigStore) -> (Option<SessionInfo>, Config, Option<String>) {
    let (session, mut trouble) = match SessionInfo::of_env(env) {
        Ok(session) => (session, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let config = match store.load() {
        Ok(config) => config,
        Err(error) => {
            trouble = Some(error.to_string());
            Config::default()
        }
    };
    (session, config, trouble)
}

/// The host's process: what its hooks call their parent.
pub(crate) fn parent_pid() -> u64 {
    #[cfg(unix)]
    return u64::from(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    return u64::from(std::process::id());
}
