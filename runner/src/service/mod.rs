//! A service: what is known of it, and what may be done with it. [`supervise`] keeps its process running, [`session`] speaks MCP with it.

pub(crate) mod message;
pub(crate) mod session;
mod supervise;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_protocol::runner::{Event, FailCode, Failure, FromRunner, ServiceSpec, ServiceState, Status};
use tokio::sync::{oneshot, watch};

use crate::broker::Host;
use crate::config::PASSED_ON;
use crate::install::Program;
use crate::log::{From, Log};
use crate::process;
use crate::proxy::Proxy;
use crate::secrets;
use crate::users::User;
use session::Session;
pub(crate) use supervise::follow;

/// Folders of a service.
const HOME: &str = "home";
const TEMPORARY: &str = "tmp";
const SECRETS: &str = "secrets";
/// Where it is installed.
pub(crate) const APP: &str = "app";

/// How long a server may take to end when its input does, before it gets a signal.
const INPUT_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    status: Status,
    restarts: u32,
    pid: Option<u32>,
    /// Body of its last [`Event::Running`], for a broker that attaches later.
    running: Vec<u8>,
    session: Option<Arc<Session>>,
    program: Option<Program>,
    supervisor: Option<tokio::task::JoinHandle<()>>,
}

/// A service.
pub(crate) struct Service {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) user: Option<User>,
    pub(crate) log: Arc<Log>,
    pub(crate) proxy: Proxy,
    spec: Mutex<ServiceSpec>,
    state: Mutex<State>,
    /// Held by what installs, starts, stops or removes it.
    operation: tokio::sync::Mutex<()>,
    /// Grows when whatever is being done with it is to end.
    stop: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn failure(code: FailCode, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into() }
}

impl Service {
    /// A service with folders that are empty.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn new(host: &Host, spec: ServiceSpec) -> Result<Self, Failure> {
        let user = host.users.take();
        let made = Self::make(host, spec, user).await;
        if let (Err(_), Some(user)) = (&made, user) {
            host.users.give_back(user);
        }
        made.map_err(|error| failure(FailCode::Internal, format!("the folder of the service cannot be made: {error}")))
    }

    async fn make(host: &Host, spec: ServiceSpec, user: Option<User>) -> std::io::Result<Self> {
        let dir = host.services_dir().join(&spec.id);
        // Of a runner before this one.
        let _ = std::fs::remove_dir_all(&dir);
        make_dir(&dir, 0o700, None)?;
        for inner in [APP, HOME, TEMPORARY] {
            make_dir(&dir.join(inner), 0o700, user)?;
        }
        if let Some(User(uid)) = user {
            // It belongs to root, so that its service cannot open it for others; through its group the service gets in.
            std::os::unix::fs::chown(&dir, Some(0), Some(uid))?;
            set_mode(&dir, 0o710)?;
        }
        let log = Arc::new(Log::new(spec.limits.log_lines));
        let proxy = Proxy::start(host.link.clone(), spec.id.clone(), user, log.clone()).await?;
        Ok(Self {
            id: spec.id.clone(),
            dir,
            user,
            log,
            proxy,
            spec: Mutex::new(spec),
            state: Mutex::default(),
            operation: tokio::sync::Mutex::default(),
            stop: watch::Sender::new(0),
        })
    }

    pub(crate) fn spec(&self) -> ServiceSpec {
        lock(&self.spec).clone()
    }

    /// What is known of it now.
    pub(crate) fn describe(&self) -> ServiceState {
        let state = lock(&self.state);
        ServiceState {
            id: self.id.clone(),
            name: lock(&self.spec).name.clone(),
            status: state.status,
            restarts: state.restarts,
            calls: state.session.as_ref().map_or(0, |session| session.calls()),
            pid: state.pid,
        }
    }

    /// [`Event::Running`] and its body, when it does.
    pub(crate) fn running(&self) -> Option<(Event, Vec<u8>)> {
        let state = lock(&self.state);
        let pid = state.pid.filter(|_| state.status == Status::Running)?;
        Some((Event::Running { pid, restarts: state.restarts }, state.running.clone()))
    }

    fn set_status(&self, status: Status) {
        lock(&self.state).status = status;
    }

    pub(crate) async fn tell(&self, host: &Host, event: Event, body: Vec<u8>) {
        host.link.message(&FromRunner::Event { id: self.id.clone(), event }, body).await;
    }

    /// The session that answers now.
    ///
    /// # Errors
    /// [`FailCode::Restarting`] while it comes back by itself, [`FailCode::NotRunning`] otherwise.
    pub(crate) fn session(&self) -> Result<Arc<Session>, Failure> {
        let state = lock(&self.state);
        match (&state.session, state.status) {
            (Some(session), Status::Running) => Ok(session.clone()),
            (_, Status::Restarting | Status::Starting) => Err(session::gone()),
            (_, Status::Installing | Status::Stopped | Status::Running | Status::Crashed | Status::Failed) => {
                Err(failure(FailCode::NotRunning, "the service does not run"))
            }
        }
    }

    /// Installs it.
    ///
    /// # Errors
    /// What the installer says; it cannot be started then.
    pub(crate) async fn install(self: &Arc<Self>, host: &Arc<Host>, bundle: Vec<u8>) -> Result<(), Failure> {
        let _held = self.operation.try_lock().map_err(|_| busy())?;
        self.set_status(Status::Installing);
        self.proxy.installing(true);
        let mut stop = self.stop.subscribe();
        let spec = self.spec();
        let timeout =
            Duration::from_millis(if spec.install_timeout_ms == 0 { 300_000 } else { spec.install_timeout_ms });
        let installed = tokio::select! {
            installed = tokio::time::timeout(timeout, crate::install::install(host, self, &spec, bundle)) => installed
                .unwrap_or_else(|_| Err(failure(FailCode::Timeout, format!("installing took longer than {} s", timeout.as_secs_f32())))),
            _ = stop.changed() => Err(failure(FailCode::Cancelled, "the installation was ended")),
        };
        // Whatever an installer has left running.
        process::kill_service(&self.mark(), self.user).await;
        self.proxy.installing(false);
        match installed {
            Ok(program) => {
                let event = Event::Installed { runtime: program.runtime.into(), version: program.version.clone() };
                {
                    let mut state = lock(&self.state);
                    state.program = Some(program);
                    state.status = Status::Stopped;
                }
                self.tell(host, event, Vec::new()).await;
                Ok(())
            }
            Err(failure) => {
                self.set_status(Status::Failed);
                self.log.add(From::Runner, &failure.message);
                Err(failure)
            }
        }
    }

    /// Starts it and waits until its server answers.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn start(self: &Arc<Self>, host: &Arc<Host>, changed: Option<ServiceSpec>) -> Result<(), Failure> {
        let _held = self.operation.try_lock().map_err(|_| busy())?;
        if let Some(changed) = changed {
            self.end(Duration::from_secs(2)).await?;
            let mut spec = lock(&self.spec);
            spec.args = changed.args;
            spec.env = changed.env;
            spec.files = changed.files;
            spec.limits = changed.limits;
            self.log.keep(spec.limits.log_lines);
        }
        let first = {
            let mut state = lock(&self.state);
            let running = state.supervisor.as_ref().is_some_and(|task| !task.is_finished());
            if running && state.status == Status::Running {
                return Ok(());
            }
            let program =
                state.program.clone().ok_or_else(|| failure(FailCode::NotRunning, "the service is not installed"))?;
            if running {
                return Err(session::gone());
            }
            let (tell, first) = oneshot::channel();
            state.status = Status::Starting;
            state.restarts = 0;
            let stop = self.stop.subscribe();
            state.supervisor = Some(tokio::spawn(supervise::run(host.clone(), self.clone(), program, stop, tell)));
            first
        };
        first.await.unwrap_or_else(|_| Err(failure(FailCode::Cancelled, "the start was ended")))
    }

    /// Ends its processes.
    ///
    /// # Errors
    /// [`FailCode::Internal`] when some cannot be ended.
    pub(crate) async fn stop(&self, host: &Host, grace: Duration, message: Option<String>) -> Result<(), Failure> {
        // What is being done gives way.
        self.stop.send_modify(|stop| *stop += 1);
        let _held = self.operation.lock().await;
        self.end(grace).await?;
        self.tell(host, Event::Stopped { message }, Vec::new()).await;
        Ok(())
    }

    async fn end(&self, grace: Duration) -> Result<(), Failure> {
        let (supervisor, session) = {
            let mut state = lock(&self.state);
            (state.supervisor.take(), state.session.take())
        };
        // The supervisor lets go of the process first, so that its end is no crash.
        self.stop.send_modify(|stop| *stop += 1);
        if let Some(supervisor) = supervisor {
            let _ = supervisor.await;
        }
        if let Some(session) = session.filter(|_| !grace.is_zero()) {
            // As MCP has it: the end of its input first, then a signal.
            session.close();
            if !self.ended_within(grace.min(INPUT_PATIENCE)).await {
                process::ask_to_end(&self.mark(), self.user);
                self.ended_within(grace).await;
            }
        }
        let ended = process::kill_service(&self.mark(), self.user).await;
        let _ = std::fs::remove_dir_all(self.dir.join(SECRETS));
        {
            let mut state = lock(&self.state);
            // The supervisor may have had a new one in between.
            state.session = None;
            state.pid = None;
            if state.status != Status::Failed {
                state.status = Status::Stopped;
            }
        }
        if ended { Ok(()) } else { Err(failure(FailCode::Internal, "some processes of the service cannot be ended")) }
    }

    /// Waits until it has no process; `false` when it still has some after that time.
    async fn ended_within(&self, patience: Duration) -> bool {
        let ended = async {
            while !process::processes_of(&self.mark(), self.user).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }

    /// Ends it and removes everything of it.
    ///
    /// # Errors
    /// [`FailCode::Internal`] when something stays; its user is not given to another one then.
    pub(crate) async fn remove(&self, host: &Host) -> Result<(), Failure> {
        self.stop(host, Duration::from_secs(2), None).await?;
        let _held = self.operation.lock().await;
        self.proxy.end();
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
        if !matches!(removed, Ok(Ok(()))) && self.dir.exists() {
            return Err(failure(FailCode::Internal, "the folder of the service cannot be removed"));
        }
        if let Some(user) = self.user {
            host.users.give_back(user);
        }
        Ok(())
    }

    /// Ends whatever is being done with it, without waiting.
    pub(crate) fn give_way(&self) {
        self.stop.send_modify(|stop| *stop += 1);
    }

    /// What tells its processes from all others where it has no user of its own: its folder, which no service of another runner has.
    pub(crate) fn mark(&self) -> String {
        self.dir.to_string_lossy().into_owned()
    }

    /// The environment of its processes, without values of its own.
    pub(crate) fn base_env(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let proxy = format!("http://127.0.0.1:{}", self.proxy.port());
        let mut env: Vec<(String, String)> =
            PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            env.push((name.into(), proxy.clone()));
        }
        env.extend([
            ("HOME".into(), text(self.dir.join(HOME))),
            ("TMPDIR".into(), text(self.dir.join(TEMPORARY))),
            ("USER".into(), "service".into()),
            // Node's own HTTP takes the way out only when it is told to.
            ("NODE_USE_ENV_PROXY".into(), "1".into()),
            (process::MARK.into(), self.mark()),
        ]);
        env
    }

    /// Opens its values, and writes its files anew. Its processes are ended: none can put a link in the way.
    fn prepare(&self, host: &Host) -> Result<Vec<(String, String)>, Failure> {
        let spec = self.spec();
        let opened = secrets::open_all(&spec, &host.key)?;
        self.log.hide(&opened.secrets);
        self.write_files(&opened.files).map_err(|error| {
            failure(FailCode::StartFailed, format!("a file with a secret cannot be written: {error}"))
        })?;
        let mut env = self.base_env();
        env.push(("CLAUDEMESH_SECRETS".into(), self.dir.join(SECRETS).to_string_lossy().into_owned()));
        env.extend(opened.env.iter().map(|(name, value)| (name.clone(), value.to_string())));
        Ok(env)
    }

    fn write_files(&self, files: &[(String, secrets::Value)]) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let folder = self.dir.join(SECRETS);
        let _ = std::fs::remove_dir_all(&folder);
        if files.is_empty() {
            return Ok(());
        }
        make_dir(&folder, 0o700, self.user)?;
        for (path, value) in files {
            let mut place = folder.clone();
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                place.push(part);
                if parts.peek().is_some() && !place.is_dir() {
                    make_dir(&place, 0o700, self.user)?;
                }
            }
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place)?;
            file.write_all(value)?;
            if let Some(User(uid)) = self.user {
                std::os::unix::fs::fchown(&file, Some(uid), Some(uid))?;
            }
        }
        Ok(())
    }
}

fn busy() -> Failure {
    failure(FailCode::Busy, "something else is being done with the service")
}

fn set_mode(path: &std::path::Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Makes a folder of a user, which must not be there.
fn make_dir(path: &std::path::Path, mode: u32, user: Option<User>) -> std::io::Result<()> {
    std::fs::create_dir(path)?;
    set_mode(path, mode)?;
    match user {
        Some(User(uid)) => std::os::unix::fs::chown(path, Some(uid), Some(uid)),
        None => Ok(()),
    }
}
