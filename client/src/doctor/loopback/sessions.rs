//! What the running sessions say of their own routes: there a host may drop what ours would show.

use std::time::Duration;

use crate::context::Context;
use crate::doctor::Check;
use crate::ipc::client::Line;
use crate::ipc::registry::Record;
use crate::ipc::{Reply, Request};
use crate::session::routes::Report;

/// A row for each of them.
pub(in crate::doctor) fn sessions(cx: &Context) -> Vec<Check> {
    cx.store.servers().iter().filter_map(|server| Some(session(server, &report(server)?))).collect()
}

/// How the routes of a session stand, as its server says.
pub(super) fn report(server: &Record) -> Option<Report> {
    let mut line = Line::open(server, Some(Duration::from_secs(1))).ok()?;
    match line.ask(&Request::Routes).ok()? {
        Reply::Routes(report) => Some(*report),
        _ => None,
    }
}

fn session(server: &Record, report: &Report) -> Check {
    const ROW: &str = "session";
    let host = report.host.as_deref().unwrap_or("a host that has not greeted yet");
    let mut ways = vec![];
    match (report.channel.as_str(), &report.channel_reason) {
        (state, Some(reason)) => ways.push(format!("channel {state} ({reason})")),
        (state, None) => ways.push(format!("channel {state}")),
    }
    ways.push(report.last_hook_s.map_or("no hook has fired".into(), |age| format!("last hook {age} s ago")));
    if report.waiting {
        ways.push("can be woken".into());
    }
    if report.monitor {
        ways.push("a monitor follows".into());
    }
    if report.inbox_socket == "open" {
        ways.push("inbox socket for our own sessions".into());
    }
    if report.unshown > 0 {
        ways.push(format!("{} messages wait", report.unshown));
    }
    let name = report.name.as_deref().unwrap_or("a session of an older release");
    let (pid, meshes) = (server.pid, server.meshes.join(", "));
    let detail = format!("{name} (process {pid} of {host}), meshes {meshes}: {}", ways.join(", "));
    let closed = matches!(report.channel.as_str(), "off" | "dead");
    if closed && report.last_hook_s.is_none() && !report.monitor {
        return Check::warning(ROW, detail, "claudemesh install");
    }
    Check::ok(ROW, detail)
}
