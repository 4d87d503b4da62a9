//! [`ServiceHost`]: the actor that keeps the services of one mesh running.
//!
//! It knows which versions are to be there, and tells the runner. When the runner goes away it is started again, and what is to be
//! there is compared with what is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WeakAddr, WrapFuture};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::ToolDef;
use claudemesh_protocol::id::MeshId;
use claudemesh_protocol::runner::{Ask, Change, Event, Hello, Phase, RunnerAsk, Source, Status};
use tokio::sync::{mpsc, oneshot, watch};

use super::egress::{self, Rules};
use super::link::{Exchange, Incoming, Link, LinkError};
use super::{Inner, Reporter, Wish, installing};
use crate::mesh::hosting::{Command, HostCall, Instance, Report};

/// Commands that may wait for the host of a mesh.
const MAILBOX: usize = 1_024;
/// How long a runner may take to say hello.
const HELLO: Duration = Duration::from_secs(30);
/// Pause before a runner is started again, at first; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long a service may take to end by itself.
const GRACE_MS: u64 = 2_000;

/// See the module.
pub(super) struct ServiceHost {
    mesh: MeshId,
    inner: Arc<Inner>,
    reporter: Reporter,
    wishes: watch::Receiver<Wish>,
    wish: watch::Sender<Wish>,
    ended: Option<watch::Sender<bool>>,
    link: Option<Link>,
    /// Versions that are to run, by id.
    wanted: HashMap<String, Instance>,
    /// Versions whose log is kept although they do not run.
    stopped: HashSet<String>,
    /// Versions that were told to be running, with their tools.
    running: HashMap<String, Arc<[ToolDef]>>,
    /// Versions that are being installed or started.
    busy: HashSet<String>,
    calls: HashMap<String, oneshot::Sender<String>>,
    /// The number of the link, so that the end of an old one says nothing of a new one.
    link_no: u64,
}

impl ServiceHost {
    pub(super) fn new(
        mesh: MeshId,
        inner: Arc<Inner>,
        wishes: watch::Receiver<Wish>,
        wish: watch::Sender<Wish>,
        ended: watch::Sender<bool>,
    ) -> Self {
        let reporter = Reporter::new(mesh.clone(), Arc::clone(&inner));
        Self {
            mesh,
            inner,
            reporter,
            wishes,
            wish,
            ended: Some(ended),
            link: None,
            wanted: HashMap::new(),
            stopped: HashSet::new(),
            running: HashMap::new(),
            busy: HashSet::new(),
            calls: HashMap::new(),
            link_no: 0,
        }
    }

    fn private(&self) -> Rules {
        Rules::new(&self.inner.settings.allow_private)
    }

    /// Installs and starts a version that is to run, unless that is under way.
    fn install(&mut self, id: &str, installed: bool, ctx: &mut Context<Self>) {
        let (Some(link), Some(instance)) = (self.link.clone(), self.wanted.get(id)) else { return };
        if !self.busy.insert(id.to_owned()) {
            return;
        }
        let (mut instance, private, reporter) = (instance.clone(), self.private(), self.reporter.clone());
        let (id, link_no) = (id.to_owned(), self.link_no);
        let work = async move {
            let done = if installed {
                installing::order(&link, &Ask::Start { id: instance.spec.id.clone(), spec: None }).await
            } else {
                installing::install(&link, &mut instance, &private, &reporter).await
            };
            (done, instance)
        };
        ctx.spawn(work.into_actor(self).map(move |(done, instance), host, _| {
            if host.link_no != link_no {
                return;
            }
            host.busy.remove(&id);
            if let Err(failure) = done
                && installed
            {
                host.reporter.tell(Report::Failed {
                    instance: id.clone(),
                    code: ErrorCode::DeployFailed,
                    message: failure.message,
                });
            }
            // The commit that was found out counts from now on.
            if let Some(wanted) = host.wanted.get_mut(&id) {
                *wanted = instance;
            }
        }));
    }

    /// Ends a version, and removes its files.
    fn remove(&mut self, id: &str, ctx: &mut Context<Self>) {
        self.wanted.remove(id);
        self.stopped.remove(id);
        self.running.remove(id);
        self.busy.remove(id);
        let Some(link) = self.link.clone() else { return self.end_if_empty() };
        let id = id.to_owned();
        let work = async move {
            if let Err(failure) = installing::order(&link, &Ask::Remove { id }).await {
                tracing::debug!(error = %failure, "a version of a service was not removed");
            }
        };
        ctx.spawn(work.into_actor(self).map(|(), host, _| host.end_if_empty()));
    }

    /// Nothing is to be there any more: the runner ends, too.
    fn end_if_empty(&mut self) {
        if self.wanted.is_empty() && self.stopped.is_empty() {
            self.wish.send_if_modified(|wish| {
                // One that is to leave is not removed any more.
                let runs = *wish == Wish::Run;
                *wish = if runs { Wish::Remove } else { *wish };
                runs
            });
        }
    }

    /// Something is to be there again.
    fn go_on(&self) {
        self.wish.send_if_modified(|wish| {
            let ends = *wish == Wish::Remove;
            *wish = if ends { Wish::Run } else { *wish };
            ends
        });
    }

    fn call(&mut self, call: HostCall, ctx: &mut Context<Self>) {
        let (cancel, cancelled) = oneshot::channel();
        let call_id = call.call_id.clone();
        self.calls.insert(call_id.clone(), cancel);
        let work = installing::call(self.link.clone(), call, cancelled, self.reporter.clone());
        ctx.spawn(work.into_actor(self).map(move |(), host, _| {
            host.calls.remove(&call_id);
        }));
    }

    /// Begins to keep a runner there.
    fn supervised(&self, ctx: &mut Context<Self>) {
        let (mesh, inner) = (self.mesh.clone(), Arc::clone(&self.inner));
        let (host, wishes) = (ctx.address().downgrade(), self.wishes.clone());
        tokio::spawn(async move {
            supervise(&mesh, &inner, &host, wishes).await;
            if let Some(host) = host.upgrade() {
                let _ = host.send(End).await;
            }
        });
    }

    /// What a version may reach.
    fn rules(&self, id: &str, phase: Phase) -> Option<Rules> {
        let instance = self.wanted.get(id)?;
        if phase == Phase::Run {
            return Some(Rules::new(&instance.allow));
        }
        let settings = &self.inner.settings;
        let usual = |url: &Option<String>, usual: &[&str]| match url {
            Some(url) => authority(url).into_iter().collect::<Vec<_>>(),
            None => usual.iter().map(|host| format!("{host}:443")).collect(),
        };
        let mut entries = settings.install_allow.clone();
        entries.extend(usual(&settings.npm_registry, &["registry.npmjs.org"]));
        entries.extend(usual(&settings.pypi_index, &["pypi.org", "files.pythonhosted.org"]));
        if let Source::Git { url, .. } = &instance.spec.source {
            entries.extend(authority(url));
        }
        Some(Rules::new(&entries))
    }

    fn egress(
        &self,
        (id, host, port, phase): (String, String, u16, Phase),
        exchange: Exchange,
        first: claudemesh_protocol::runner::frame::Frame,
    ) {
        let (rules, private) = (self.rules(&id, phase).unwrap_or_default(), self.private());
        let mesh = self.mesh.clone();
        tokio::spawn(async move {
            match egress::dial(&rules, &private, &host, port).await {
                Ok(stream) => egress::carry(exchange, first, stream).await,
                Err(refused) => {
                    tracing::info!(mesh.id = %mesh, service = id, host, port, why = refused.message(), "egress refused");
                    egress::refuse(exchange, refused).await;
                }
            }
        });
    }

    fn event(&mut self, id: String, event: Event, body: &[u8], ctx: &mut Context<Self>) {
        if !self.wanted.contains_key(&id) {
            return;
        }
        let report = match event {
            Event::Installing { line } => Report::Installing { instance: id, line },
            Event::Installed { runtime, .. } => {
                // It was being installed when this broker attached: no one else starts it.
                self.install(&id, true, ctx);
                Report::Installed { instance: id, runtime }
            }
            Event::Running { restarts, .. } => {
                let tools = installing::tools_of(body);
                self.running.insert(id.clone(), Arc::clone(&tools));
                Report::Running { instance: id, tools, restarts }
            }
            Event::ListChanged { list: Change::Tools } => {
                let tools = installing::tools_of(body);
                self.running.insert(id.clone(), Arc::clone(&tools));
                Report::Tools { instance: id, tools }
            }
            Event::Crashed { message, restarts, retry_in_ms, .. } => {
                self.running.remove(&id);
                Report::Crashed { instance: id, message, restarts, again: retry_in_ms.is_some() }
            }
            Event::Stopped { message: Some(message) } => {
                self.running.remove(&id);
                Report::Crashed { instance: id, message, restarts: 0, again: false }
            }
            Event::Stopped { message: None } | Event::ListChanged { .. } | Event::Unknown => return,
        };
        self.reporter.tell(report);
    }

    /// Compares what is to be there with what a runner has.
    fn compare(&mut self, hello: &Hello, ctx: &mut Context<Self>) {
        let mut there: HashMap<&str, Status> = HashMap::new();
        for service in &hello.services {
            there.insert(&service.id, service.status);
            if !self.wanted.contains_key(&service.id) && !self.stopped.contains(&service.id) {
                self.remove(&service.id, ctx);
            }
        }
        let wanted: Vec<String> = self.wanted.keys().cloned().collect();
        for id in wanted {
            match there.get(id.as_str()) {
                None => self.install(&id, false, ctx),
                Some(Status::Stopped | Status::Failed | Status::Crashed) => self.install(&id, true, ctx),
                // It goes on by itself, and says so.
                Some(Status::Installing | Status::Starting | Status::Running | Status::Restarting) => {}
            }
        }
        self.end_if_empty();
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if scheme == "http" { 80 } else { 443 };
    Some(if has_port { host.to_owned() } else { format!("{host}:{port}") })
}

impl Actor for ServiceHost {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.supervised(ctx);
    }
}

impl Handler<Command> for ServiceHost {
    type Result = ();

    fn handle(&mut self, command: Command, ctx: &mut Self::Context) {
        match command {
            Command::Keep(instances) => {
                let kept: HashSet<&str> = instances.iter().map(|instance| instance.spec.id.as_str()).collect();
                let others = self.wanted.keys().filter(|id| !kept.contains(id.as_str()));
                for id in others.cloned().collect::<Vec<_>>() {
                    self.remove(&id, ctx);
                }
                for instance in instances {
                    let id = instance.spec.id.clone();
                    self.wanted.insert(id.clone(), instance);
                    match self.running.get(&id) {
                        // The mesh was away meanwhile: it is told what it has missed.
                        Some(tools) => {
                            let tools = Arc::clone(tools);
                            self.reporter.tell(Report::Running { instance: id, tools, restarts: 0 });
                        }
                        None => self.install(&id, false, ctx),
                    }
                }
                self.end_if_empty();
            }
            Command::Start(instance) => {
                let id = instance.spec.id.clone();
                self.wanted.insert(id.clone(), *instance);
                self.go_on();
                self.install(&id, false, ctx);
            }
            Command::Stop(id) => {
                self.wanted.remove(&id);
                self.running.remove(&id);
                self.busy.remove(&id);
                self.stopped.insert(id.clone());
                if let Some(link) = self.link.clone() {
                    let work = async move {
                        // One that was never installed has nothing to be ended.
                        let _ = installing::order(&link, &Ask::Stop { id, grace_ms: GRACE_MS }).await;
                    };
                    ctx.spawn(work.into_actor(self));
                }
            }
            Command::Remove(id) => self.remove(&id, ctx),
            Command::Call(call) => self.call(call, ctx),
            Command::Cancel { call_id, reason } => {
                if let Some(cancel) = self.calls.remove(&call_id) {
                    let _ = cancel.send(reason);
                }
            }
            Command::Logs { instance, lines, answer } => {
                let link = self.link.clone();
                let work = async move {
                    let _ = answer.send(installing::logs(link, instance, lines).await);
                };
                ctx.spawn(work.into_actor(self));
            }
        }
    }
}

impl Message for Command {
    type Result = ();
}

/// A runner is there.
#[derive(Message)]
#[rtype(result = "()")]
struct Linked(Link, Hello);

impl Handler<Linked> for ServiceHost {
    type Result = ();

    fn handle(&mut self, Linked(link, hello): Linked, ctx: &mut Self::Context) {
        self.link = Some(link);
        self.link_no += 1;
        self.busy.clear();
        self.compare(&hello, ctx);
    }
}

/// The runner says something.
#[derive(Message)]
#[rtype(result = "()")]
struct Came(Incoming);

impl Handler<Came> for ServiceHost {
    type Result = ();

    fn handle(&mut self, came: Came, ctx: &mut Self::Context) {
        match came.0 {
            Incoming::Event(id, event, body) => self.event(id, event, &body, ctx),
            Incoming::Asked(RunnerAsk::Egress { id, host, port, phase }, exchange, first) => {
                self.egress((id, host, port, phase), exchange, first);
            }
            Incoming::Asked(RunnerAsk::Request { .. } | RunnerAsk::Unknown, exchange, _) => {
                tokio::spawn(egress::cannot(exchange));
            }
        }
    }
}

/// The runner is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Lost;

impl Handler<Lost> for ServiceHost {
    type Result = ();

    fn handle(&mut self, _: Lost, _: &mut Self::Context) {
        self.link = None;
        self.link_no += 1;
        self.busy.clear();
        for (id, _) in std::mem::take(&mut self.running) {
            let message = "the host of services went away; it is started again".into();
            self.reporter.tell(Report::Crashed { instance: id, message, restarts: 0, again: true });
        }
    }
}

/// No runner can be started.
#[derive(Message)]
#[rtype(result = "()")]
struct Unable(String);

impl Handler<Unable> for ServiceHost {
    type Result = ();

    fn handle(&mut self, unable: Unable, _: &mut Self::Context) {
        tracing::warn!(mesh.id = %self.mesh, error = unable.0, "the runner of a mesh cannot be started");
        let message = "the host of services cannot be started; the broker's log says why".to_owned();
        for id in self.wanted.keys() {
            let code = ErrorCode::ServiceDown;
            self.reporter.tell(Report::Failed { instance: id.clone(), code, message: message.clone() });
        }
    }
}

/// The supervisor has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct End;

impl Handler<End> for ServiceHost {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        let leaves = *self.wish.borrow() == Wish::Leave;
        if !leaves && !(self.wanted.is_empty() && self.stopped.is_empty()) {
            // Something was deployed while the runner ended.
            self.go_on();
            return self.supervised(ctx);
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(true);
        }
        ctx.stop();
    }
}

/// Keeps a runner there until it is to end.
async fn supervise(mesh: &MeshId, inner: &Inner, host: &WeakAddr<ServiceHost>, mut wishes: watch::Receiver<Wish>) {
    let mut pause = PAUSE;
    loop {
        let wish = *wishes.borrow_and_update();
        match wish {
            Wish::Run => {}
            Wish::Leave => return,
            Wish::Remove => return inner.runtime.remove(mesh).await,
        }
        match attach(mesh, inner).await {
            Ok((link, hello, mut incoming, keep)) => {
                pause = PAUSE;
                let Some(actor) = host.upgrade() else { return };
                if actor.send(Linked(link, hello)).await.is_err() {
                    return;
                }
                drop(actor);
                serve(host, &mut incoming, &mut wishes).await;
                if let Some(actor) = host.upgrade() {
                    let _ = actor.send(Lost).await;
                }
                end(keep).await;
            }
            Err(error) => {
                let Some(actor) = host.upgrade() else { return };
                let _ = actor.send(Unable(error)).await;
            }
        }
        if *wishes.borrow() == Wish::Run {
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                _ = wishes.changed() => {}
            }
        }
    }
}

/// Ends a process, and waits until it has ended: it has ended its services before.
async fn end(keep: Option<tokio::process::Child>) {
    let Some(mut child) = keep else { return };
    // Its input is closed: it ends by itself.
    if tokio::time::timeout(Duration::from_secs(3), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

type Attached = (Link, Hello, mpsc::Receiver<Incoming>, Option<tokio::process::Child>);

async fn attach(mesh: &MeshId, inner: &Inner) -> Result<Attached, String> {
    let super::Started { read, write, fresh, keep } =
        inner.runtime.start(mesh).await.map_err(|error| error.to_string())?;
    let opened = tokio::time::timeout(HELLO, Link::open(read, write, fresh)).await;
    match opened {
        Ok(Ok((link, hello, incoming))) => Ok((link, hello, incoming, keep)),
        Ok(Err(error)) => {
            // One that is older, or something else, is replaced and not spoken to.
            if matches!(error, LinkError::Version(_) | LinkError::Proof) {
                inner.runtime.remove(mesh).await;
            }
            Err(error.to_string())
        }
        Err(_) => {
            inner.runtime.remove(mesh).await;
            Err("the runner said no hello in time, and is replaced".into())
        }
    }
}

/// Hands on what the runner says, until it or the wish ends.
async fn serve(
    host: &WeakAddr<ServiceHost>,
    incoming: &mut mpsc::Receiver<Incoming>,
    wishes: &mut watch::Receiver<Wish>,
) {
    loop {
        let came = tokio::select! {
            came = incoming.recv() => came,
            changed = wishes.changed() => match changed {
                Ok(()) if *wishes.borrow() == Wish::Run => continue,
                _ => return,
            },
        };
        let (Some(came), Some(host)) = (came, host.upgrade()) else { return };
        if host.send(Came(came)).await.is_err() {
            return;
        }
    }
}
