//! `claudemesh doctor`: what stands between this machine and a working session, and the command that fixes it.
//!
//! [`host`] looks at Claude Code and at what of ours is in it, [`machine`] at our own files, sockets and brokers. Nothing is
//! changed. A new check is a function that answers rows, and one line in [`run`], [`host`] or [`machine`].

use schemars::JsonSchema;
use serde::Serialize;

use self::cli::DoctorArgs;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style, clean};
use crate::verb::Shape;

pub mod cli;
mod host;
mod loopback;
mod machine;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// Stable word for scripts.
    pub name: &'static str,
    /// How it ended.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// The one command that fixes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, detail: detail.into(), fix: None }
    }

    pub(crate) fn warning(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    pub(crate) fn failure(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Failure, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// All rows, for scripts.
#[derive(Serialize, JsonSchema)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// What `doctor --json` prints.
fn shape() -> Shape {
    Shape::one::<Report>()
}

/// Runs every check and prints the rows.
///
/// # Errors
/// Exit 1 when a check fails, after the rows were printed.
pub fn run(cx: &Context, args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let mut rows = Rows { cx, all: vec![], unprinted: None };
    rows.tell([Check::ok("version", format!("claudemesh {} at {}", env!("CARGO_PKG_VERSION"), own_path()))]);
    rows.tell(host::checks(cx));
    machine::checks(cx, &mut rows);
    rows.tell(loopback::sessions(cx));
    if !args.no_loopback
        && let Ok(config) = cx.store.load()
    {
        let wanted = config.meshes.iter().filter(|entry| cx.mesh.as_ref().is_none_or(|slug| *slug == entry.slug));
        wanted.for_each(|entry| loopback::checks(cx, entry, &mut rows));
    }
    let checks = rows.done()?;
    let failed = checks.iter().any(|check| check.level == Level::Failure);
    // A person has read it.
    cx.out.answer(&Report { ok: !failed, checks }, |_| String::new())?;
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

/// The rows, in the order of a fresh installation. A person sees each as soon as it is known: some wait for others to answer.
pub(crate) struct Rows<'a> {
    cx: &'a Context,
    all: Vec<Check>,
    /// Why they cannot be printed.
    unprinted: Option<CliError>,
}

impl Rows<'_> {
    fn tell(&mut self, checks: impl IntoIterator<Item = Check>) {
        let out = &self.cx.out;
        for check in checks {
            if !out.is_json() && self.unprinted.is_none() {
                self.unprinted = out.write(&row(out, &check)).err();
            }
            self.all.push(check);
        }
    }

    fn done(self) -> Result<Vec<Check>, CliError> {
        self.unprinted.map_or(Ok(self.all), Err)
    }
}

fn own_path() -> String {
    std::env::current_exe().map_or_else(|_| "an unknown place".into(), |path| path.display().to_string())
}
