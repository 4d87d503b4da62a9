//! `up -d` and `down`: the same `up`, in a session of its own.

use std::path::Path;
#[cfg(feature = "local-broker")]
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[cfg(feature = "local-broker")]
use serde_json::Value;

#[cfg(feature = "local-broker")]
use super::cli::{UpArgs, you_are};
use super::store::Store;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::output::clean;
use crate::verb::{Shape, json_fields};

/// Tells a process that it was started by `up -d`.
#[cfg(feature = "local-broker")]
pub(super) const DETACHED: &str = "CLAUDEMESH_DETACHED";
/// How long `up` may take to end: the broker drains.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Starts `up` in the background and answers what it said once the mesh was up.
///
/// # Errors
/// What it said, with its exit code; exit 8 when it said nothing.
#[cfg(feature = "local-broker")]
pub(super) fn detach(cx: &Context, args: &UpArgs) -> Result<ExitCode, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::internal(format!("This program cannot be found again: {error}.")))?;
    let mut command = Command::new(program);
    // Its answer comes as JSON; what it logs goes into its file.
    command.args(["up", "--json", "--config-dir"]).arg(cx.store.dir());
    if let Some(mesh) = &cx.mesh {
        command.args(["--mesh", mesh]);
    }
    if let Some(listen) = &args.listen {
        command.args(["--listen", listen]);
    }
    if let Some(dir) = &args.data_dir {
        // It runs elsewhere.
        command.arg("--data-dir").arg(std::path::absolute(dir).unwrap_or_else(|_| dir.clone()));
    }
    if let Some(name) = &args.name {
        command.args(["--name", name]);
    }
    command.env(DETACHED, "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/");
    let mut child = command.spawn().map_err(|error| CliError::internal(format!("`up` cannot be started: {error}.")))?;
    let silent = || CliError::internal("`up` ended without a word.").hint("`claudemesh logs broker` may say why.");
    let stdout = child.stdout.take().ok_or_else(silent)?;
    let answer = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().next();
    let answer = answer.and_then(Result::ok).ok_or_else(silent)?;
    if answer["ok"] != true {
        let code = child.wait().ok().and_then(|status| status.code()).unwrap_or(0);
        let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let error = CliError::new(ExitCode::of_code(code), word("error"), word("message"));
        return Err(match answer["hint"].as_str() {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
    let text = |name: &str| clean(answer[name].as_str().unwrap_or_default()).into_owned();
    cx.out.answer(&answer, |out| {
        format!(
            "{} mesh {} is up in the background (process {}), on {}\n{}  join it    claudemesh join {} --name <name>\n  \
             log        claudemesh logs broker --follow\n  end it     claudemesh down\n",
            out.tick(),
            text("mesh"),
            child.id(),
            text("listening"),
            you_are(&text("name"), args.name.as_deref(), &text("mesh")),
            text("invite"),
        )
    })?;
    Ok(ExitCode::Success)
}

/// In the process that `up -d` started: leaves the terminal, so that its end is no one's business here.
#[cfg(feature = "local-broker")]
pub(super) fn leave_the_terminal(cx: &Context) {
    #[cfg(unix)]
    if cx.env.flag(DETACHED)
        && let Err(error) = rustix::process::setsid()
    {
        tracing::warn!(%error, "no session of its own");
    }
    #[cfg(not(unix))]
    let _ = cx;
}

/// What `down` did.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Down {
    ok: bool,
    /// An `up` was there, and has ended.
    ended: bool,
    pid: Option<u32>,
    /// Who serves the mesh now.
    serving: Option<String>,
}

/// The fields that `--json=FIELDS` can name.
pub(super) fn fields_of_down() -> Vec<&'static str> {
    json_fields::of::<Down>()
}

/// What it prints.
pub(super) fn shapes_of_down() -> Vec<Shape> {
    vec![Shape::one::<Down>()]
}

/// Runs `down`: tells the `up` of a store to end and waits until it has. None is fine.
///
/// # Errors
/// Exit 7 when it belongs to another user, 8 when it does not end.
pub(super) fn down(cx: &Context, data_dir: Option<&Path>) -> Result<ExitCode, CliError> {
    let store = match data_dir {
        Some(dir) => Store::at(dir),
        None => Store::locate(&cx.env, cx.store.dir()),
    };
    let up = store.running_up();
    if let Some(pid) = up {
        end(pid)?;
        let deadline = Instant::now() + PATIENCE;
        while store.running_up() == Some(pid) {
            if Instant::now() > deadline {
                let message = format!(
                    "`claudemesh up` (process {pid}) was told to end {} s ago and has not.",
                    PATIENCE.as_secs()
                );
                return Err(CliError::internal(message)
                    .hint(format!("kill -9 {pid}   (nothing that was acknowledged is lost)")));
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }
    let serving = store.holder().map(|note| format!("{} (process {})", note.kind.as_str(), note.pid));
    let down = Down { ok: true, ended: up.is_some(), pid: up, serving };
    cx.out.answer(&down, |out| {
        let mut text = match up {
            Some(pid) => format!("{} `claudemesh up` (process {pid}) has ended\n", out.tick()),
            None => "No `claudemesh up` is running.\n".to_owned(),
        };
        if let Some(serving) = &down.serving {
            text += &format!("  {} serves the mesh now\n", clean(serving));
        }
        text
    })?;
    Ok(ExitCode::Success)
}

#[cfg(unix)]
fn end(pid: u32) -> Result<(), CliError> {
    use rustix::process::{Pid, Signal, kill_process};
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let target = target.ok_or_else(|| CliError::internal(format!("{pid} is not a process.")))?;
    match kill_process(target, Signal::TERM) {
        // It ended by itself meanwhile.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(CliError::new(
            ExitCode::PermissionDenied,
            "forbidden",
            format!("`claudemesh up` (process {pid}) cannot be told to end: {error}."),
        )),
    }
}

#[cfg(not(unix))]
fn end(pid: u32) -> Result<(), CliError> {
    Err(CliError::internal(format!("End process {pid} by hand: this system has no signals.")))
}
