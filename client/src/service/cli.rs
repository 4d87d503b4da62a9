//! `service install|uninstall|status`.

use std::process::{Command, Stdio};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Manager, Service, as_typed};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::files;
use crate::local::store::Store;
use crate::output::clean;
use crate::paths;
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// Let the mesh of this machine start with your login.
    #[command(after_help = "Examples:\n  claudemesh service install\n  claudemesh service install --listen 0.0.0.0:7900\n  claudemesh service status\n  claudemesh service uninstall")]
    pub struct ServiceArgs: enum ServiceVerb {
        Install => InstallArgs,
        Uninstall => UninstallArgs,
        Status => StatusArgs,
    }
}

/// Write the service and start it. A second time it takes over other flags.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh service install\n  claudemesh service install --listen 0.0.0.0:7900 --name Ann\n  \
                        claudemesh service install --print\n\nThe flags are those of `claudemesh up`."
)]
pub struct InstallArgs {
    /// Address to listen on, as `claudemesh up --listen`.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Your name in the mesh.
    #[arg(long)]
    pub name: Option<String>,
    /// Print the file and the commands instead.
    #[arg(long)]
    pub print: bool,
}

impl Verb for InstallArgs {
    fn effect(&self) -> Effect {
        if self.print { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Done>()]
    }

    fn run(self, cx: &Context) -> Ran {
        install(cx, &self).map(done)
    }
}

/// End the service and remove its file. The mesh and its data stay.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh service uninstall")]
pub struct UninstallArgs {}

impl Verb for UninstallArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Done>()]
    }

    fn run(self, cx: &Context) -> Ran {
        uninstall(cx).map(done)
    }
}

/// Show whether the service is installed and runs. Exit code 1 when it does not run.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh service status --json")]
pub struct StatusArgs {}

impl Verb for StatusArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Status>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Status>()]
    }

    fn run(self, cx: &Context) -> Ran {
        status(cx).map(Into::into)
    }
}

/// What was done.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Done {
    ok: bool,
    file: String,
    /// The file is there now.
    installed: bool,
    /// The service was started, or ended.
    running: bool,
    /// What has to be typed by hand, when this program could not.
    by_hand: Vec<String>,
}

/// How the service is.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Status {
    ok: bool,
    file: String,
    installed: bool,
    running: bool,
    /// Process of the `up` of this machine, no matter who started it.
    pid: Option<u32>,
    url: Option<String>,
}

fn user() -> u32 {
    #[cfg(unix)]
    {
        rustix::process::getuid().as_raw()
    }
    #[cfg(not(unix))]
    0
}

/// Runs a command of the service manager; `Err` says why it did not work.
fn run(cx: &Context, words: &[String]) -> Result<(), String> {
    let [name, args @ ..] = words else { return Err("nothing to run".into()) };
    let program = paths::find_program(&cx.env, name).ok_or_else(|| format!("{name} is not on the PATH"))?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{name} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if said.is_empty() { format!("{name}: {}", output.status) } else { said })
}

fn unwritable(file: &std::path::Path, error: &std::io::Error) -> CliError {
    CliError::io(format!("{} cannot be written: {error}.", file.display()))
}

/// Runs `service install`.
///
/// # Errors
/// Exit 10 when the file cannot be written. A service manager that does not answer is no failure: the commands are told.
fn install(cx: &Context, args: &InstallArgs) -> Result<(), CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::internal(format!("This program cannot be found again: {error}.")))?;
    let mut words = vec!["up".to_owned()];
    if let Some(mesh) = &cx.mesh {
        words.extend(["--mesh".into(), mesh.clone()]);
    }
    if let Some(listen) = &args.listen {
        words.extend(["--listen".into(), listen.clone()]);
    }
    if let Some(name) = &args.name {
        words.extend(["--name".into(), crate::features::enrolment::chosen_name(name)?]);
    }
    let config_dir = std::path::absolute(cx.store.dir()).unwrap_or_else(|_| cx.store.dir().to_path_buf());
    let service = Service { program, args: words, config_dir };
    let manager = Manager::here();
    let (file, text) = (manager.file(&cx.env), manager.text(&service));
    let commands = manager.start(&file, user());
    if args.print {
        let typed: Vec<String> = commands.iter().map(|words| as_typed(words)).collect();
        let shown = format!("# {}\n{text}\n# then:\n{}\n", file.display(), typed.join("\n"));
        let answer =
            Done { ok: true, file: file.display().to_string(), installed: false, running: false, by_hand: typed };
        return cx.out.answer(&answer, |_| shown);
    }
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|error| unwritable(&file, &error))?;
    }
    files::write_private(&file, text.as_bytes()).map_err(|error| unwritable(&file, &error))?;
    if manager == Manager::Launchd {
        // Bootstrapping twice is an error; what ran before has other flags.
        let _ = manager.stop(user()).iter().try_for_each(|words| run(cx, words));
    }
    let started = commands.iter().try_for_each(|words| run(cx, words));
    let by_hand = match &started {
        Ok(()) => vec![],
        Err(_) => commands.iter().map(|words| as_typed(words)).collect(),
    };
    let answer =
        Done { ok: true, file: file.display().to_string(), installed: true, running: started.is_ok(), by_hand };
    cx.out.answer(&answer, |out| {
        let mut text = format!("{} wrote {}\n", out.tick(), file.display());
        match &started {
            Ok(()) => text += "  the mesh is up and starts with your login; `claudemesh service status` shows it\n",
            Err(reason) => {
                text += &format!("  it is not started: {}\n  by hand:\n", clean(reason));
                text += &answer.by_hand.iter().map(|line| format!("    {line}\n")).collect::<String>();
            }
        }
        if manager == Manager::Systemd {
            text += "  without a login, too: loginctl enable-linger\n";
        }
        text
    })
}

/// Runs `service uninstall`.
///
/// # Errors
/// Exit 10 when the file cannot be removed.
fn uninstall(cx: &Context) -> Result<(), CliError> {
    let manager = Manager::here();
    let file = manager.file(&cx.env);
    let was_there = file.exists();
    let mut stopped = Ok(());
    if was_there {
        stopped = manager.stop(user()).iter().try_for_each(|words| run(cx, words));
        std::fs::remove_file(&file)
            .map_err(|error| CliError::io(format!("{} cannot be removed: {error}.", file.display())))?;
        if manager == Manager::Systemd {
            let _ = run(cx, &["systemctl", "--user", "daemon-reload"].map(str::to_owned));
        }
    }
    let by_hand = match &stopped {
        Ok(()) => vec![],
        Err(_) => vec!["claudemesh down".to_owned()],
    };
    let answer =
        Done { ok: true, file: file.display().to_string(), installed: false, running: stopped.is_err(), by_hand };
    cx.out.answer(&answer, |out| match (was_there, &stopped) {
        (false, _) => "The service is not installed.\n".into(),
        (true, Ok(())) => format!("{} ended the service and removed {}\n", out.tick(), file.display()),
        (true, Err(reason)) => format!(
            "{} removed {}\n  it could not be ended: {}\n  `claudemesh down` ends what still runs\n",
            out.tick(),
            file.display(),
            clean(reason)
        ),
    })
}

/// Runs `service status`.
///
/// # Errors
/// Exit 10 when stdout cannot be written.
fn status(cx: &Context) -> Result<ExitCode, CliError> {
    let manager = Manager::here();
    let file = manager.file(&cx.env);
    let installed = file.exists();
    let running = installed && run(cx, &manager.is_active(user())).is_ok();
    let store = Store::locate(&cx.env, cx.store.dir());
    let (pid, url) = (store.running_up(), store.holder().map(|note| note.url));
    let status = Status { ok: true, file: file.display().to_string(), installed, running, pid, url };
    cx.out.answer(&status, |out| {
        let word = match (installed, running) {
            (true, true) => format!("{} installed and running", out.tick()),
            (true, false) => "installed, not running".into(),
            (false, _) => "not installed; `claudemesh service install` does it".into(),
        };
        let mut text = format!("{word}\n  file  {}\n", file.display());
        if let Some(pid) = pid {
            text += &format!("  up    process {pid}\n");
        }
        if let Some(url) = &status.url {
            text += &format!("  at    {}\n", clean(url));
        }
        text
    })?;
    Ok(if running { ExitCode::Success } else { ExitCode::Cancelled })
}
