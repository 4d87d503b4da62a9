//! `claudemesh doctor`: what stands between this machine and a working session, and the command that mends it.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::Context;
use crate::config::{Config, MeshEntry, broker_http};
use crate::error::{CliError, ExitCode};
use crate::install::{self, edits};
use crate::output::{Output, Style, clean};
use crate::{files, launch};

/// How long a broker may take to answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Fine.
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// Does not work.
    Failure,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable word for scripts.
    pub name: &'static str,
    /// How it ended.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// The one command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, detail: detail.into(), fix: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn failure(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Failure, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Runs every check and prints the rows.
///
/// # Errors
/// Exit 1 when a check fails, after the rows were printed.
pub fn run(cx: &Context) -> Result<ExitCode, CliError> {
    let checks = checks(cx);
    let failed = checks.iter().any(|check| check.level == Level::Failure);
    let answer = serde_json::json!({"ok": !failed, "checks": checks});
    cx.out.answer(&answer, |out| checks.iter().map(|check| row(out, check)).collect())?;
    Ok(if failed { ExitCode::Cancelled } else { ExitCode::Success })
}

fn row(out: &Output, check: &Check) -> String {
    let (style, mark) = match check.level {
        Level::Ok => (Style::Green, "✓"),
        Level::Warning => (Style::Yellow, "!"),
        Level::Failure => (Style::Red, "✗"),
    };
    let mut text = format!("{} {:<12} {}\n", out.paint(style, mark), check.name, clean(&check.detail));
    if let Some(fix) = &check.fix {
        text += &format!("  {:<12} {}\n", "", out.paint(Style::Bold, &format!("→ {}", clean(fix))));
    }
    text
}

/// All checks, in the order of a fresh installation.
pub fn checks(cx: &Context) -> Vec<Check> {
    let mut checks =
        vec![Check::ok("version", format!("claudemesh {} at {}", env!("CARGO_PKG_VERSION"), own_path())), claude(cx)];
    checks.extend(installation(cx));
    checks.push(channels(cx));
    let (config_checks, config) = config(cx);
    checks.extend(config_checks);
    if let Some(config) = config {
        checks.extend(config.meshes.iter().map(keys));
        checks.extend(brokers(&config));
    }
    checks.push(sessions(cx));
    checks
}

fn own_path() -> String {
    std::env::current_exe().map_or_else(|_| "an unknown place".into(), |path| path.display().to_string())
}

fn claude(cx: &Context) -> Check {
    match launch::claude::find(&cx.env) {
        Ok(path) => Check::ok("claude", path.display().to_string()),
        Err(error) => Check::failure("claude", error.message, "npm install -g @anthropic-ai/claude-code"),
    }
}

fn installation(cx: &Context) -> Vec<Check> {
    let installed = install::installed(&cx.env);
    if let Some((path, reason)) = installed.broken.first() {
        let detail = format!("{} cannot be used: {reason}", path.display());
        return vec![Check::failure("install", detail, format!("$EDITOR {}", path.display()))];
    }
    let server = match &installed.server {
        None => Check::failure("mcp-server", "Claude Code does not know claudemesh", "claudemesh install"),
        Some(command) if installed.server_foreign => {
            Check::failure("mcp-server", format!("'claudemesh' starts {command}"), "claudemesh install --force")
        }
        Some(command) if !starts(cx, command) => {
            Check::failure("mcp-server", format!("{command} is not there"), "claudemesh install")
        }
        Some(command) => Check::ok("mcp-server", format!("starts {command}")),
    };
    let missing: Vec<&str> = install::hooks::events()
        .into_iter()
        .filter(|event| install::hooks::HOOKS.iter().any(|hook| hook.event == *event && !hook.optional))
        .filter(|event| !installed.hooks.iter().any(|found| found.event == *event))
        .collect();
    let broken = installed.hooks.iter().find(|found| !starts(cx, &found.program()));
    let hooks = if !missing.is_empty() {
        let detail = format!("no status hook for {}: messages cannot wait for a pause", missing.join(", "));
        Check::warning("hooks", detail, "claudemesh install")
    } else if let Some(found) = broken {
        let detail = format!("{} runs {}, which is not there", found.event, found.command());
        Check::failure("hooks", detail, "claudemesh install")
    } else {
        Check::ok("hooks", format!("{} events", installed.hooks.len()))
    };
    let permission = if installed.permission {
        Check::ok("permission", edits::PERMISSION)
    } else {
        Check::warning("permission", "Claude Code asks before each call of a claudemesh tool", "claudemesh install")
    };
    vec![server, hooks, permission]
}

fn starts(cx: &Context, command: &str) -> bool {
    if command.contains('/') {
        crate::paths::is_executable(Path::new(command))
    } else {
        crate::paths::find_program(&cx.env, command).is_some()
    }
}

fn channels(cx: &Context) -> Check {
    let switches = launch::channel_switches(&cx.env);
    if switches.is_empty() {
        return Check::ok("channels", "no switch of the environment turns them off");
    }
    let detail =
        format!("off because {} is set: messages reach a session at its next turn only", switches.join(" and "));
    Check::warning("channels", detail, format!("unset {}", switches.join(" ")))
}

fn config(cx: &Context) -> (Vec<Check>, Option<Config>) {
    let path = cx.store.config_path();
    let config = match cx.store.load() {
        Ok(config) => config,
        Err(error) => {
            let fix = format!("mv {0} {0}.broken", path.display());
            return (vec![Check::failure("config", error.to_string(), fix)], None);
        }
    };
    let mut checks = vec![match config.meshes.len() {
        0 => Check::failure("config", "no mesh is joined", "claudemesh join <link>"),
        count => Check::ok("config", format!("{} ({count} joined: {})", path.display(), config.slugs().join(", "))),
    }];
    let private = [path, cx.store.owners_path(), cx.store.hook_token_path()];
    for file in private {
        if let Some(mode) = files::mode_of(&file).filter(|mode| mode & 0o077 != 0) {
            let detail = format!("{} has mode {mode:o}, others can read its secrets", file.display());
            checks.push(Check::failure("file-mode", detail, format!("chmod 600 {}", file.display())));
        }
    }
    if let Err(error) = cx.store.hook_token() {
        checks.push(Check::failure(
            "hook-token",
            error.to_string(),
            format!("rm {}", cx.store.hook_token_path().display()),
        ));
    }
    if let Err(error) = cx.store.owners() {
        checks.push(Check::failure(
            "owners",
            error.to_string(),
            format!("$EDITOR {}", cx.store.owners_path().display()),
        ));
    }
    (checks, Some(config))
}

fn keys(mesh: &MeshEntry) -> Check {
    let again = format!("claudemesh leave {} && claudemesh join <link>", mesh.slug);
    match mesh.secret_key.key() {
        Err(error) => Check::failure("keys", format!("{}: secretKey: {error}", mesh.slug), again),
        Ok(key) if !key.public().to_string().eq_ignore_ascii_case(&mesh.pubkey) => {
            Check::failure("keys", format!("{}: pubkey does not belong to secretKey", mesh.slug), again)
        }
        Ok(_) => {
            Check::ok("keys", format!("{}: member key {}", mesh.slug, mesh.pubkey.get(..16).unwrap_or(&mesh.pubkey)))
        }
    }
}

/// Asks every distinct broker at the same time whether it is there.
fn brokers(config: &Config) -> Vec<Check> {
    let mut urls: Vec<&str> = config.meshes.iter().map(|mesh| mesh.broker_url.as_str()).collect();
    urls.sort_unstable();
    urls.dedup();
    let (sender, receiver) = mpsc::channel();
    let deadline = Instant::now() + BROKER_PATIENCE;
    for url in &urls {
        let (sender, url) = (sender.clone(), (*url).to_owned());
        std::thread::spawn(move || {
            let started = Instant::now();
            let result = health(&url).map(|text| (text, started.elapsed()));
            let _ = sender.send((url, result));
        });
    }
    drop(sender);
    let mut answers = vec![];
    while let Ok(answer) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        answers.push(answer);
    }
    let check = |url: &&str| {
        let slugs = config.meshes.iter().filter(|mesh| mesh.broker_url == *url).map(|mesh| mesh.slug.as_str());
        let place = format!("{} ({url})", slugs.collect::<Vec<_>>().join(", "));
        let local = config.meshes.iter().any(|mesh| mesh.broker_url == *url && launch::local::is_local(mesh));
        let failed = |reason: &str| {
            if local {
                let detail = format!("{place}: {reason}; a launch starts it");
                Check::warning("broker", detail, "claudemesh up")
            } else {
                Check::failure("broker", format!("{place}: {reason}"), format!("curl -v {}/health", broker_http(url)))
            }
        };
        match answers.iter().find(|(answered, _)| answered == url) {
            Some((_, Ok((_, elapsed)))) => Check::ok("broker", format!("{place}: {} ms", elapsed.as_millis())),
            Some((_, Err(reason))) => failed(reason),
            None => failed(&format!("no answer in {} s", BROKER_PATIENCE.as_secs())),
        }
    };
    urls.iter().map(check).collect()
}

fn health(broker_url: &str) -> Result<String, String> {
    if !(broker_url.starts_with("ws://") || broker_url.starts_with("wss://")) {
        return Err("brokerUrl does not start with ws:// or wss://".into());
    }
    let base = broker_http(broker_url);
    let agent = crate::http::agent(&base, BROKER_PATIENCE);
    let mut response = agent.get(format!("{base}/health")).call().map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("/health answered {}", response.status()));
    }
    response.body_mut().with_config().limit(64 * 1024).read_to_string().map_err(|error| error.to_string())
}

fn sessions(cx: &Context) -> Check {
    match cx.store.stale_session_dirs().len() {
        0 => Check::ok("sessions", "no leftovers"),
        count => Check::warning("sessions", format!("{count} folders of sessions that died"), "claudemesh launch"),
    }
}
