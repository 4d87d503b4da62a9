//! `logs`.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogFile, Source};
use crate::context::Context;
use crate::error::CliError;
use crate::features::services::{self, cli::ServiceLog};
use crate::output::clean_lines;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

/// Time between two looks at files that grow: a file tells no one that it changed.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Most that one look reads.
const MAX_READ: u64 = 4 * 1024 * 1024;

/// Show what the broker of this machine, the MCP servers and the hooks have logged, or a hosted MCP server of the mesh.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh logs\n  claudemesh logs mcp --follow\n  claudemesh logs broker --lines 200\n  claudemesh logs tickets\n\n\
                        CLAUDEMESH_LOG takes a filter, such as `debug`, for what is logged."
)]
pub struct LogsArgs {
    /// Whose log: broker, mcp, hooks, or the name of a hosted MCP server [default: all of this machine, one after the other]
    #[arg(value_name = "NAME")]
    pub source: Option<String>,
    /// How many of the last lines of each.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub lines: usize,
    /// Go on with what is logged from now on, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
}

impl Verb for LogsArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        match (self.service(), self.follow) {
            (Some(_), _) => shape::in_mesh::<ServiceLog>(),
            (None, true) => json_fields::of::<Logged>(),
            (None, false) => json_fields::of::<Log>(),
        }
    }

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::list::<Log>(),
            Shape::lines::<Logged>().of("--follow"),
            Shape::one::<InMesh<ServiceLog>>().of("NAME"),
        ]
    }

    fn run(self, cx: &Context) -> Ran {
        match self.service() {
            Some(_) if self.follow => Err(CliError::invalid_args("--follow is for the logs of this machine.")),
            Some(name) => services::cli::logs(cx, name, self.lines).map(done),
            None => logs(cx, &self).map(done),
        }
    }
}

impl LogsArgs {
    fn local(&self) -> Option<Source> {
        self.source.as_deref().and_then(|word| Source::ALL.into_iter().find(|source| source.as_str() == word))
    }

    /// The hosted MCP server that is meant.
    fn service(&self) -> Option<&str> {
        self.source.as_deref().filter(|_| self.local().is_none())
    }
}

/// The last lines of one log.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Log {
    source: String,
    file: String,
    lines: Vec<String>,
}

/// One line of a log.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Logged {
    source: String,
    line: String,
}

/// The last lines of a log, reaching into the file of before when the newest is short.
fn last_lines(log: &LogFile, count: usize) -> Result<Vec<String>, CliError> {
    let read = |path: &std::path::Path| match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(CliError::io(format!("{} cannot be read: {error}.", path.display()))),
    };
    let text = read(&log.before())? + &read(log.path())?;
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect())
}

/// Runs `logs`.
///
/// # Errors
/// Exit 10 when a log cannot be read.
fn logs(cx: &Context, args: &LogsArgs) -> Result<(), CliError> {
    let sources = args.local().map_or_else(|| Source::ALL.to_vec(), |one| vec![one]);
    let mut followed = vec![];
    let mut rows = vec![];
    let mut text = String::new();
    for source in sources {
        let log = LogFile::of(cx.store.dir(), source);
        // Before the lines are read: what comes in between is shown twice rather than not at all.
        let from = std::fs::metadata(log.path()).map_or(0, |meta| meta.len());
        let lines = last_lines(&log, args.lines)?;
        let place = log.path().display().to_string();
        if args.source.is_none() {
            text += &format!("{}  {place}\n", source.as_str());
        }
        for line in &lines {
            text += &format!("{}\n", clean_lines(line));
        }
        if lines.is_empty() {
            text += "  nothing is logged\n";
        }
        rows.push(Log { source: source.as_str().into(), file: place, lines });
        followed.push((source, log, from));
    }
    if args.follow && cx.out.is_json() {
        // One shape: a line each, those of before first.
        for Log { source, lines, .. } in rows {
            for line in lines {
                let row = Logged { source: source.clone(), line };
                cx.out.write(&cx.out.render_line(&row, |_| String::new())?)?;
            }
        }
    } else {
        cx.out.answer(&rows, |_| text)?;
    }
    if args.follow { follow(cx, followed, args.source.is_none()) } else { Ok(()) }
}

fn follow(cx: &Context, mut logs: Vec<(Source, LogFile, u64)>, named: bool) -> Result<(), CliError> {
    loop {
        for (source, log, at) in &mut logs {
            let Ok(mut file) = std::fs::File::open(log.path()) else { continue };
            let length = file.metadata().map_or(0, |meta| meta.len());
            // It was put aside: the rest of before is in the other file, and this one begins anew.
            if length < *at {
                *at = 0;
            }
            if length == *at || file.seek(SeekFrom::Start(*at)).is_err() {
                continue;
            }
            let mut bytes = vec![];
            let read = file.take(MAX_READ).read_to_end(&mut bytes);
            read.map_err(|error| CliError::io(format!("{} cannot be read: {error}.", log.path().display())))?;
            // A line is whole or comes with the next look.
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            *at += whole as u64;
            let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
            let name = if named { format!("{}: ", source.as_str()) } else { String::new() };
            for line in text.lines() {
                let row = Logged { source: source.as_str().into(), line: line.to_owned() };
                let shown = cx.out.render_line(&row, |_| format!("{name}{}\n", clean_lines(line)))?;
                // The reader of a pipe is gone.
                if !cx.out.print(&shown)? {
                    return Ok(());
                }
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a command of its own, without a runtime")]
        std::thread::sleep(LOOK_AGAIN);
    }
}
