//! Connections of verbs at the shell: opened, used once, closed.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;
use claudemesh_protocol::version::{CAP_CLIENT_ACK, CAP_EPHEMERAL, CAP_NO_LEASE, CAP_PULL, CAP_SHELL};

use crate::config::MeshEntry;
use crate::config::audit_heads::{self, Glance, HeadFault, glance, kept};
use crate::config::session_dir::SessionInfo;
use crate::connection::{Connection, ConnectionError, Identity, State};
use crate::context::Context;
use crate::context::several::of_mesh;
use crate::error::CliError;
use crate::inbox::Mailbox;
use crate::inbox::sent::SentBook;
use crate::output::clean;
use crate::paths;

/// The session id of all receiving shells of a member.
pub const SHELL_SESSION: &str = "cli-inbox";
/// How long a verb that watches waits for its first connection, as others do.
const WATCH_PATIENCE: Duration = Duration::from_secs(20);
/// The same when other meshes are there to be watched meanwhile.
const BEGIN_PATIENCE: Duration = Duration::from_secs(3);

/// Meshes whose brokers have answered this command: what is queued for them can be sent now.
static REACHED: Mutex<Vec<MeshId>> = Mutex::new(vec![]);

/// What a verb needs the connection for.
#[derive(Clone)]
pub enum Purpose {
    /// Requests only: not listed, receives nothing, claims nothing that is queued. Inside a session: as that session.
    Ask,
    /// Receives the member's messages into this inbox. Inside a session: what is for that session.
    Receive(Mailbox),
    /// Sends and receives into this inbox under a key of its own, that of a session as short as the verb; for who is in no
    /// session.
    AskAndWait(Mailbox),
    /// Receives the member's messages into this inbox for as long as it takes, and is opened again when it is lost. Inside a session:
    /// over its connection, for what is for that session.
    Follow(Mailbox),
    /// Requests and events for as long as it takes: not listed, and opened again when it is lost. Never as the session it runs
    /// in, which is not told of its own writes.
    Watch,
}

/// Runs async code on a runtime of its own, on this thread: the fastest to start, and enough for one connection.
///
/// # Errors
/// What `work` says; exit 8 when the system gives no runtime.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::internal(format!("No async runtime: {error}.")))?;
    runtime.block_on(work)
}

/// Asks in the one mesh that a call is about; answers its short name, too.
///
/// # Errors
/// As [`Context::mesh_entry`] and [`connect`], or what the work says.
pub fn in_mesh<T, F: Future<Output = Result<T, ConnectionError>>>(
    cx: &Context,
    work: impl FnOnce(Connection) -> F,
) -> Result<(String, T), CliError> {
    let entry = cx.mesh_entry()?;
    let answer = ask(cx, &entry, |connection| async { Ok(work(connection).await?) })?;
    Ok((entry.slug, answer))
}

/// Connects the member of a joined mesh and waits for the broker's welcome.
///
/// # Errors
/// Exit 4 when the broker cannot be reached, 2 or 7 when it refuses.
pub async fn connect(cx: &Context, entry: &MeshEntry, purpose: Purpose) -> Result<Connection, CliError> {
    let lasting = matches!(purpose, Purpose::Watch | Purpose::Follow(_));
    let connected = async {
        let connection = open(cx, entry, purpose).await?;
        if lasting {
            connection.first_attempt(WATCH_PATIENCE).await;
            // A refusal will be the same in twenty seconds.
            if let State::Connecting(Some(error)) = connection.state()
                && !error.is_retryable()
            {
                return Err(error.into());
            }
            connection.ready(WATCH_PATIENCE).await?;
            look_at_log(cx, entry, &connection);
        }
        Ok::<_, CliError>(connection)
    };
    note_life(cx, entry, connected.await)
}

/// Begins a connection of [`Purpose::Watch`] or [`Purpose::Follow`] and waits for the end of its first attempt only. Answers why
/// that failed as well: the connection goes on trying.
///
/// # Errors
/// The broker refuses for good, as in [`connect`].
pub async fn begin(
    cx: &Context,
    entry: &MeshEntry,
    purpose: Purpose,
) -> Result<(Connection, Option<CliError>), CliError> {
    let begun = async {
        let connection = open(cx, entry, purpose).await?;
        connection.first_attempt(BEGIN_PATIENCE).await;
        let trouble = match connection.state() {
            State::Connecting(Some(error)) => Some(error.into()),
            State::Closed(_) => return connection.hello_ack().map(|_| (connection, None)).map_err(CliError::from),
            State::Ready(_) | State::Connecting(None) => connection.hello_ack().err().map(CliError::from),
        };
        if trouble.is_none() {
            look_at_log(cx, entry, &connection);
        }
        Ok::<_, CliError>((connection, trouble))
    };
    let (connection, trouble) = note_life(cx, entry, begun.await)?;
    let trouble = trouble.and_then(|error| note_life(cx, entry, Err::<(), _>(error)).err());
    Ok((connection, trouble))
}

fn note_reached(entry: &MeshEntry) {
    let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
    if !reached.contains(&entry.mesh_id) {
        reached.push(entry.mesh_id.clone());
    }
}

/// Whether the broker of this mesh has answered this command.
pub fn was_reached(mesh: &MeshId) -> bool {
    REACHED.lock().unwrap_or_else(PoisonError::into_inner).contains(mesh)
}

/// Names the mesh in what went wrong, and remembers whether it is archived: `list` says so without a broker.
fn note_life<T>(cx: &Context, entry: &MeshEntry, connected: Result<T, CliError>) -> Result<T, CliError> {
    let archived = match &connected {
        Ok(_) => was_reached(&entry.mesh_id).then_some(false),
        Err(error) if error.code == ErrorCode::MeshArchived.as_str() => Some(true),
        Err(_) => None,
    };
    if let Some(archived) = archived.filter(|archived| *archived != entry.is_archived())
        && let Err(error) = cx.store.set_archived(&entry.mesh_id, archived)
    {
        tracing::debug!(%error, "whether a mesh is archived is not noted");
    }
    connected.map_err(|error| of_mesh(error, entry))
}

/// A connection; one that lasts may not be ready yet.
async fn open(cx: &Context, entry: &MeshEntry, purpose: Purpose) -> Result<Connection, CliError> {
    // A mesh of this machine may have lost its holder since it was chosen.
    let entry = &crate::local::ensure_served(cx, entry.clone())?;
    // Inside a session its own connection serves: no handshake, and the others see the session, not a stranger. Its mail
    // comes into the same inbox.
    let book = || SentBook::At(cx.store.dir().to_path_buf(), entry.mesh_id.clone());
    if matches!(purpose, Purpose::Ask | Purpose::Receive(_) | Purpose::Follow(_))
        && let Some(connection) = crate::ipc::attach::attach(cx, entry).await
    {
        note_reached(entry);
        return Ok(connection.keeping(book()));
    }
    // Held until this process ends.
    let shell = ShellPlace::take(cx.store.dir());
    // One place in the roster for all receiving shells of a member: each takes over from the one before without a word.
    let session_id = match purpose {
        Purpose::Ask => format!("cli-{}", shell.name()),
        Purpose::Receive(_) => SHELL_SESSION.to_owned(),
        Purpose::Follow(_) => format!("cli-follow-{}-{}", std::process::id(), crate::clock::now_ms()),
        Purpose::Watch => format!("cli-watch-{}-{}", std::process::id(), crate::clock::now_ms()),
        Purpose::AskAndWait(_) => format!("cli-ask-{}-{}", std::process::id(), crate::clock::now_ms()),
    };
    let mut identity = Identity::of_mesh(entry, session_id).map_err(ConnectionError::from)?;
    identity.cwd = paths::project_dir(&cx.env).to_string_lossy().into_owned();
    let description = &mut identity.description;
    description.display_name = session_name(cx);
    if let Purpose::AskAndWait(_) = purpose {
        identity.session = Some(SecretKey::random(&mut rand::rngs::OsRng));
        // The name of the session itself would become ambiguous.
        description.display_name = description.display_name.take().map(|name| format!("{name} (shell)"));
    }
    description.hostname = hostname();
    description.peer_type = Some("human".into());
    description.channel = Some("cli".into());
    let lasting = matches!(purpose, Purpose::Watch | Purpose::Follow(_));
    let (capabilities, mailbox): (&[&str], _) = match purpose {
        Purpose::Ask | Purpose::Watch => (&[CAP_CLIENT_ACK, CAP_EPHEMERAL], None),
        // A shell leaves nothing behind that anyone could take for a session.
        Purpose::Receive(mailbox) => (&[CAP_CLIENT_ACK, CAP_PULL, CAP_NO_LEASE, CAP_SHELL], Some(mailbox)),
        Purpose::AskAndWait(mailbox) => (&[CAP_CLIENT_ACK, CAP_PULL, CAP_NO_LEASE], Some(mailbox)),
        // It asks for everything as it comes, low priority included.
        Purpose::Follow(mailbox) => (&[CAP_CLIENT_ACK, CAP_NO_LEASE, CAP_SHELL], Some(mailbox)),
    };
    description.capabilities = capabilities.iter().copied().map(str::to_owned).collect();
    let connection = if lasting {
        Connection::start(identity, mailbox).keeping(book())
    } else {
        let connection = Connection::once(identity, mailbox).await?.keeping(book());
        look_at_log(cx, entry, &connection);
        connection
    };
    Ok(connection)
}

/// Compares the end of the audit log, which every welcome tells, with the one that was seen last.
fn look_at_log(cx: &Context, entry: &MeshEntry, connection: &Connection) {
    note_reached(entry);
    let Some(told) = connection.hello_ack().ok().and_then(|ack| audit_heads::told(&ack)) else { return };
    let looked = cx.store.seen_head(&entry.mesh_id).and_then(|seen| {
        match glance(&entry.mesh_id, seen.as_ref(), &told) {
            // A longer log costs a question, which sessions and `audit` ask.
            Glance::Longer => {}
            Glance::Extends if seen.is_none() => cx.store.keep_head(kept(&entry.mesh_id, &told))?,
            Glance::Extends => {}
            Glance::Fault(fault) => warn_of_log(cx, entry, &fault),
        }
        Ok(())
    });
    if let Err(error) = looked {
        cx.out.warn(&format!("The audit log of {} was not compared: {error}", clean(&entry.slug)));
    }
}

/// Says loudly what does not fit, whatever else is printed.
pub fn warn_of_log(cx: &Context, entry: &MeshEntry, fault: &HeadFault) {
    let path = cx.store.heads_path();
    cx.out.warn(&format!(
        "THE AUDIT LOG OF {} IS NOT THE ONE THAT WAS SEEN BEFORE: {fault}. Ask the people who run the broker; after a restored \
         backup that you know of, remove the mesh from {}.",
        clean(&entry.slug),
        path.display()
    ));
}

/// Opens a connection for requests, runs `work` and closes it.
///
/// # Errors
/// As [`connect`], or what `work` says.
pub fn ask<T, F: Future<Output = Result<T, CliError>>>(
    cx: &Context,
    entry: &MeshEntry,
    work: impl FnOnce(Connection) -> F,
) -> Result<T, CliError> {
    block_on(async {
        let connection = connect(cx, entry, Purpose::Ask).await?;
        let answer = work(connection.clone()).await;
        connection.close().await;
        answer
    })
}

/// A place among the commands that run at once in one shell. Commands one after the other get the same, so that brokers which
/// keep a closed session for a while see one session come back.
struct ShellPlace {
    name: String,
}

impl ShellPlace {
    /// Commands of one shell that share the places; one more gets a name of its own.
    const MAX: usize = 16;

    fn take(config_dir: &std::path::Path) -> Self {
        #[cfg(unix)]
        let shell = std::os::unix::process::parent_id();
        #[cfg(not(unix))]
        let shell = std::process::id();
        let dir = config_dir.join("shells");
        let _ = crate::files::create_private_dir(&dir);
        for number in 0..Self::MAX {
            let path = dir.join(format!("{number}.lock"));
            let mut options = std::fs::File::options();
            options.create(true).truncate(false).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let Ok(file) = options.open(path) else { break };
            if file.try_lock().is_ok() {
                // The system unlocks it when the process ends.
                std::mem::forget(file);
                return Self { name: format!("{shell}-{number}") };
            }
        }
        Self { name: format!("{}-{}", std::process::id(), crate::clock::now_ms()) }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The name of the session this runs in; peers see the member's own name otherwise.
fn session_name(cx: &Context) -> Option<String> {
    let session = SessionInfo::of_env(&cx.env).ok().flatten().and_then(|info| info.display_name);
    session.or_else(|| cx.env.text(paths::DISPLAY_NAME).map(str::to_owned))
}

/// Which session presence writes from this shell are for: the given one, the one this runs in, else all.
pub fn target_session(cx: &Context, given: Option<&str>) -> String {
    given
        .map(str::to_owned)
        // What the broker knows the session by stays the same when the host gives it another id.
        .or_else(|| cx.store.own_servers(&cx.env).into_iter().next().map(|server| server.wire_session_id))
        .or_else(|| cx.env.text(paths::SESSION_ID).map(str::to_owned))
        .or_else(|| cx.env.text("CLAUDE_CODE_SESSION_ID").map(str::to_owned))
        .unwrap_or_else(|| "*".into())
}

/// The session that this shell is in, as the broker knows it; `None` outside of one.
pub fn own_session(cx: &Context) -> Option<String> {
    Some(target_session(cx, None)).filter(|session| session != "*")
}

/// Name of this machine, as the system says.
pub fn hostname() -> Option<String> {
    #[cfg(unix)]
    {
        let name = rustix::system::uname();
        let text = name.nodename().to_string_lossy().into_owned();
        Some(text).filter(|text| !text.is_empty())
    }
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").ok()
}
