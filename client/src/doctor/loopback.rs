//! The loopback: a session of the doctor's own joins the mesh, is sent a message over every route, and each rung is looked
//! at: stored, received, handed over, seen. Real processes, those that Claude Code would start; only the host is played by
//! us ([`play`], [`inbox_socket`]), rung by rung ([`rungs`]).
//!
//! What running sessions say of their own routes stands beside it ([`sessions`]): there a host may drop what ours would
//! show.

use std::time::Duration;

use super::Check;
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect;
use crate::error::CliError;
use crate::mcp::routes::{CHANNEL, HOOK, MONITOR, NOTICE, PULL, QUESTION, REWAKE, STOP};

#[cfg(unix)]
mod inbox_socket;
mod play;
mod rungs;
mod sessions;

use play::{Play, Programs};
use rungs::Rung;
pub(super) use sessions::sessions;

/// Name of the rows.
const NAME: &str = "loopback";
/// How long one rung may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause between two looks at a receipt.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// What the model would read, should a real one ever see it.
const TEXT: &str = "claudemesh doctor tests the way into a session";

/// Sends the doctor's own session a message over every route of one mesh.
pub(super) fn checks(cx: &Context, entry: &MeshEntry) -> Vec<Check> {
    let reached = connect::ask(&play::outside(cx), entry, |connection| async move { Ok(connection.echo().await?) });
    let programs = reached.map_err(Stop::from).and_then(|_| Ok(Programs::of(cx)?));
    let programs = match programs {
        Ok(programs) => programs,
        Err(stop) => return vec![failed(entry, &stop)],
    };
    let mut checks = vec![];
    // The channel on a server of its own: where it is open it is used before the others.
    match Play::start(cx, entry, &programs, "on", &[]) {
        Ok(mut play) => checks.push(row(entry, CHANNEL, play.channel())),
        Err(stop) => return vec![failed(entry, &stop)],
    }
    // In an order in which no route takes what the next one shall show: first those of a session without hooks, then
    // those of one that nothing can wake.
    match Play::start(cx, entry, &programs, "off", &[]) {
        Ok(mut play) => {
            checks.push(row(entry, NOTICE, play.notice()));
            checks.push(row(entry, PULL, play.pull()));
            checks.push(row(entry, STOP, play.stop()));
            checks.push(row(entry, QUESTION, play.question()));
            checks.push(row(entry, HOOK, play.context()));
            checks.push(row(entry, REWAKE, play.rewake()));
            checks.push(row(entry, MONITOR, play.monitor()));
        }
        Err(stop) => checks.push(failed(entry, &stop)),
    }
    #[cfg(unix)]
    checks.push(socket(cx, entry, &programs));
    checks
}

/// The inbox socket, on a server that was given one.
#[cfg(unix)]
fn socket(cx: &Context, entry: &MeshEntry, programs: &Programs) -> Check {
    use crate::mcp::routes::SOCKET;
    use crate::mcp::routes::inbox_socket as route;

    let started = inbox_socket::Listener::start().map_err(Stop::from).and_then(|listener| {
        let path = listener.path().to_string_lossy().into_owned();
        let given = [(route::SOCKET, path), (route::TOKEN, listener.token.clone())];
        Ok((Play::start(cx, entry, programs, "off", &given)?, listener))
    });
    let (mut play, listener) = match started {
        Ok(started) => started,
        Err(stop) => return row(entry, SOCKET, Err(stop)),
    };
    // Not used because somebody said so: the user's choice, and how to take it back.
    match play.report().map(|report| report.inbox_socket) {
        Some(reason) if reason != "open" => {
            let fix = match reason
                .rsplit_once(" in ")
                .or_else(|| reason.split_once(" cannot be read").map(|(path, _)| ("", path)))
            {
                Some((_, path)) => format!("$EDITOR {path}"),
                None => format!("unset {}", route::SWITCH),
            };
            Check::warning(NAME, format!("{}: {SOCKET}: not used: {reason}", entry.slug), fix)
        }
        _ => row(entry, SOCKET, play.inbox_socket(&listener)),
    }
}

fn failed(entry: &MeshEntry, stop: &Stop) -> Check {
    Check::failure(NAME, format!("{}: {}", entry.slug, stop.at), stop.fix.clone())
}

fn row(entry: &MeshEntry, route: &str, result: Rung) -> Check {
    let way = match route {
        NOTICE => "stored → received → told",
        QUESTION => "asked → received → put before the session → answered",
        _ => "stored → received → handed over → seen",
    };
    match result {
        Ok(time) => Check::ok(NAME, format!("{}: {route}: {way}, {} ms", entry.slug, time.as_millis())),
        Err(stop) => Check::failure(NAME, format!("{}: {route}: {}", entry.slug, stop.at), stop.fix),
    }
}

/// Where it stopped and what mends it.
struct Stop {
    at: String,
    fix: String,
}

impl Stop {
    fn new(at: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { at: at.into(), fix: fix.into() }
    }
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        let fix = error.hint.clone().unwrap_or_else(|| "claudemesh status".into());
        Self::new(error.message, fix)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("a process of ours cannot be run: {error}"), "claudemesh --version")
    }
}
