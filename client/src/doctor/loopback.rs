//! The loopback: a session of the doctor's own joins the mesh, is sent a message over every route, and each route is looked
//! at: stored, received, handed over, seen. Real processes, those that Claude Code would start; only the host is played by
//! us ([`probe_session`], [`inbox_socket`]), route by route ([`route_checks`]).
//!
//! What running sessions say of their own routes stands beside it ([`sessions`]): there a host may drop what ours would
//! show.

use std::time::Duration;

use super::{Check, Rows};
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect;
use crate::error::{CliError, ExitCode};
use crate::session::routes::{CHANNEL, HOOK, MONITOR, NOTICE, PULL, QUESTION, REWAKE, STOP};

#[cfg(unix)]
mod inbox_socket;
mod probe_session;
mod route_checks;
mod sessions;

use probe_session::{ProbeSession, Programs};
use route_checks::RouteResult;
pub(super) use sessions::sessions;

/// Name of the rows.
const NAME: &str = "loopback";
/// How long one route may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// What to do about a broker that is not there.
const START_THE_BROKER: &str = "claudemesh up   (or ask the person who runs the broker to start it)";
/// Pause between two looks at a receipt.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// What the model would read, should a real one ever see it.
const TEXT: &str = "claudemesh doctor tests the way into a session";

/// Sends the doctor's own session a message over every route of one mesh.
pub(super) fn checks(cx: &Context, entry: &MeshEntry, rows: &mut Rows<'_>) {
    let reached =
        connect::ask(&probe_session::outside(cx), entry, |connection| async move { Ok(connection.echo().await?) });
    let programs = reached.map_err(RouteFailure::from).and_then(|_| Ok(Programs::of(cx)?));
    let programs = match programs {
        Ok(programs) => programs,
        Err(stop) => return rows.tell([failed(entry, &stop)]),
    };
    // The channel on a server of its own: where it is open it is used before the others.
    match ProbeSession::start(cx, entry, &programs, "on", &[]) {
        Ok(mut probe) => rows.tell([row(entry, CHANNEL, probe.channel())]),
        Err(stop) => return rows.tell([failed(entry, &stop)]),
    }
    // In an order in which no route takes what the next one should show: first those of a session without hooks, then
    // those of one that nothing can wake.
    match ProbeSession::start(cx, entry, &programs, "off", &[]) {
        Ok(mut probe) => {
            rows.tell([row(entry, NOTICE, probe.notice())]);
            rows.tell([row(entry, PULL, probe.pull())]);
            rows.tell([row(entry, STOP, probe.stop())]);
            rows.tell([row(entry, QUESTION, probe.question())]);
            rows.tell([row(entry, HOOK, probe.context())]);
            rows.tell([row(entry, REWAKE, probe.rewake())]);
            rows.tell([row(entry, MONITOR, probe.monitor())]);
        }
        Err(stop) => rows.tell([failed(entry, &stop)]),
    }
    #[cfg(unix)]
    rows.tell([socket(cx, entry, &programs)]);
}

/// The inbox socket, on a server that was given one.
#[cfg(unix)]
fn socket(cx: &Context, entry: &MeshEntry, programs: &Programs) -> Check {
    use crate::session::routes::SOCKET;
    use crate::session::routes::inbox_socket as route;

    let started = inbox_socket::Listener::start().map_err(RouteFailure::from).and_then(|listener| {
        let path = listener.path().to_string_lossy().into_owned();
        let given = [(route::SOCKET, path), (route::TOKEN, listener.token.clone())];
        Ok((ProbeSession::start(cx, entry, programs, "off", &given)?, listener))
    });
    let (mut probe, listener) = match started {
        Ok(started) => started,
        Err(stop) => return row(entry, SOCKET, Err(stop)),
    };
    // Not used because someone said so: the user's choice, and how to take it back.
    match probe.report().map(|report| report.inbox_socket) {
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
        _ => row(entry, SOCKET, probe.inbox_socket(&listener)),
    }
}

fn failed(entry: &MeshEntry, stop: &RouteFailure) -> Check {
    Check::failure(NAME, format!("{}: {}", entry.slug, stop.at), stop.fix.clone())
}

fn row(entry: &MeshEntry, route: &str, result: RouteResult) -> Check {
    let way = match route {
        NOTICE => "stored → received → told",
        QUESTION => "asked → received → put before the session → answered",
        _ => "stored → received → handed over → seen",
    };
    match result {
        Ok(time) => {
            Check::ok(NAME, format!("{}: {route}: {way}, {} ms ({})", entry.slug, time.as_millis(), meaning(route)))
        }
        Err(stop) => {
            Check::failure(NAME, format!("{}: {route}: {} ({})", entry.slug, stop.at, meaning(route)), stop.fix)
        }
    }
}

/// What a route does, for people who have not read docs/claude-code.md.
fn meaning(route: &str) -> &'static str {
    match route {
        CHANNEL => "Claude Code is told at once",
        NOTICE => "Claude Code is told that something waits",
        PULL => "the session reads its messages itself",
        STOP => "messages are given when a turn ends",
        QUESTION => "a question is put before the session",
        HOOK => "messages are given with the next prompt",
        REWAKE => "a waiting program wakes an idle session",
        MONITOR => "a monitor of the plug-in reports messages",
        _ => "messages are written to the inbox socket of Claude Code",
    }
}

/// Where it stopped and what fixes it.
struct RouteFailure {
    at: String,
    fix: String,
}

impl RouteFailure {
    fn new(at: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { at: at.into(), fix: fix.into() }
    }
}

impl From<CliError> for RouteFailure {
    fn from(error: CliError) -> Self {
        // The usual advice leads to the doctor, which is here already.
        let fix = match &error.hint {
            Some(hint) if !hint.contains("claudemesh doctor") => hint.clone(),
            _ if error.exit == ExitCode::Network => START_THE_BROKER.to_owned(),
            _ => "claudemesh status".into(),
        };
        Self::new(error.message, fix)
    }
}

impl From<std::io::Error> for RouteFailure {
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("a process of ours cannot be run: {error}"), "claudemesh --version")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_does_not_send_people_to_the_doctor() {
        let unreachable = CliError::network("The broker cannot be reached.")
            .hint("Check that the broker runs; `claudemesh doctor` shows which part fails.");
        assert_eq!(RouteFailure::from(unreachable).fix, START_THE_BROKER);
        assert_eq!(RouteFailure::from(CliError::network("No answer.")).fix, START_THE_BROKER);
        let own = CliError::network("x").hint("Correct the variable.");
        assert_eq!(RouteFailure::from(own).fix, "Correct the variable.");
    }
}
