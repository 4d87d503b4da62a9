//! Installing a service: each step is a process of its user, with lines in its log, without its secrets, and without a shell.

pub(crate) mod bundle;
mod detect;
mod git;
mod node;
mod python;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use claudemesh_protocol::runner::{Event, FailCode, Failure, FromRunner, Runtime, ServiceSpec, Source};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::broker::{Host, find_program};
use crate::log::From;
use crate::process::{self, Process};
use crate::service::{APP, Service, failure};
use crate::stage::{Order, Rlimits};

/// Lines of an installer that are told to the broker at once; more wait in the log only.
const TOLD_LINES: usize = 64;
/// Open files of an installer.
const OPEN_FILES: u64 = 4_096;

/// How a service is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) runtime: &'static str,
    pub(crate) version: Option<String>,
}

/// What an installation works with.
pub(crate) struct Installer<'a> {
    host: &'a Arc<Host>,
    service: &'a Service,
    spec: &'a ServiceSpec,
    /// The folder of the program.
    app: PathBuf,
}

/// Installs a service.
///
/// # Errors
/// [`FailCode::InstallFailed`], [`FailCode::BadBundle`], [`FailCode::Sealed`].
pub(crate) async fn install(
    host: &Arc<Host>,
    service: &Service,
    spec: &ServiceSpec,
    bundle: Vec<u8>,
) -> Result<Program, Failure> {
    let app = service.dir.join(APP);
    let installer = Installer { host, service, spec, app };
    match &spec.source {
        Source::Npm { package, bin } => node::package(&installer, package, bin.as_deref()).await,
        Source::Pypi { package, bin } => python::package(&installer, package, bin.as_deref()).await,
        Source::Git { url, commit, auth } => {
            git::fetch(&installer, url, commit, auth.as_ref()).await?;
            installer.project().await
        }
        Source::Zip { sha256, bytes } => {
            if bundle.len() as u64 != *bytes || !hex::encode(Sha256::digest(&bundle)).eq_ignore_ascii_case(sha256) {
                return Err(failure(FailCode::BadBundle, "the bundle is not the one that the spec names"));
            }
            installer.unpack(bundle).await?;
            installer.project().await
        }
        Source::Command { command } => {
            let program = if command.contains('/') {
                Some(PathBuf::from(command)).filter(|file| file.is_file())
            } else {
                find_program(command)
            };
            let program = program
                .ok_or_else(|| failure(FailCode::InstallFailed, format!("the image has no program {command}")))?;
            Ok(Program { program, args: Vec::new(), dir: installer.app, runtime: "command", version: None })
        }
    }
}

/// A failure of an installation.
fn no(message: impl Into<String>) -> Failure {
    failure(FailCode::InstallFailed, message)
}

/// A program of the image that an installation needs.
fn need(name: &str) -> Result<PathBuf, Failure> {
    find_program(name).ok_or_else(|| no(format!("the image has no {name}")))
}

impl Installer<'_> {
    /// A folder with a program in it: finds out what it is and installs what it needs.
    async fn project(&self) -> Result<Program, Failure> {
        let runtime = self.spec.runtime.unwrap_or_else(|| detect::runtime(&self.app));
        match runtime {
            Runtime::Node | Runtime::Bun => node::project(self, runtime).await,
            Runtime::Python => python::project(self).await,
        }
    }

    /// Runs a step, in the folder of the program.
    async fn step(&self, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<(), Failure> {
        let mut all = self.service.base_env();
        all.extend(self.spec.registries.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let order = Order {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: all,
            dir: self.app.clone(),
            rlimits: Rlimits { open_files: OPEN_FILES, file_bytes: self.spec.limits.disk_bytes, ..Rlimits::default() },
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let process = process::start(&order, self.service.user).await;
        self.watch(&name, process.map_err(|error| no(format!("{name} cannot be started: {error}")))?, Vec::new()).await
    }

    async fn unpack(&self, bundle: Vec<u8>) -> Result<(), Failure> {
        let process = process::start_unpack(&self.app, self.service.user);
        let process = process.map_err(|error| no(format!("unpacking cannot be started: {error}")))?;
        self.watch("unpacking", process, bundle).await.map_err(|error| failure(FailCode::BadBundle, error.message))
    }

    /// Waits for a step to end; its lines go into the log and to the broker.
    async fn watch(&self, name: &str, process: Process, input: Vec<u8>) -> Result<(), Failure> {
        let Process { mut stdin, mut stdout, mut stderr, exit, .. } = process;
        let (tell, mut told) = mpsc::channel::<String>(TOLD_LINES);
        let log = self.service.log.clone();
        let before = log.count();
        let take = |line: &str| {
            if !line.trim().is_empty() {
                // An installer that writes more than the broker takes does not wait for it.
                let _ = tell.try_send(log.add(From::Install, line));
            }
        };
        let id = self.service.id.clone();
        let link = self.host.link.clone();
        let telling = async move {
            while let Some(line) = told.recv().await {
                link.message(&FromRunner::Event { id: id.clone(), event: Event::Installing { line } }, Vec::new())
                    .await;
            }
        };
        let writing = async move {
            let _ = stdin.write_all(&input).await;
            drop(stdin);
        };
        let reading = async {
            tokio::join!(crate::service::follow(&mut stdout, take), crate::service::follow(&mut stderr, take));
        };
        let ended = async {
            let exit = exit.await.unwrap_or_default();
            // A process that it left behind may hold its output open.
            process::kill_service(&self.service.mark(), self.service.user).await;
            exit
        };
        let (exit, (), ()) = tokio::join!(ended, reading, writing);
        drop(tell);
        telling.await;
        if exit.success() {
            return Ok(());
        }
        let lines = log.after(before);
        let last: Vec<&str> = lines.iter().rev().take(8).map(|line| line.line.as_str()).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(no(format!("{name}: {}\n{}", exit.text(), last.join("\n"))))
    }
}

/// Reads a file of a service that the runner looks into: no link, and not large, because its service wrote it.
fn read_small(path: &Path) -> Option<String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    const MOST: u64 = 4 << 20;
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(no_follow).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}
