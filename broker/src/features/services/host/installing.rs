//! What is asked of a runner: installing, starting, calling, reading logs.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::mcp_servers::{Raw, ToolDef};
use claudemesh_protocol::runner::{Answer, Ask, FailCode, Failure, Source};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::egress::Rules;
use super::link::{Link, Watch};
use super::{Reporter, git};
use crate::mesh::hosting::{CallError, HostCall, Instance, LogLine, Report};
use crate::refusal::Refusal;

/// The code for members.
fn code_of(code: FailCode) -> ErrorCode {
    match code {
        FailCode::NotRunning | FailCode::Restarting | FailCode::NotFound => ErrorCode::ServiceDown,
        FailCode::Timeout => ErrorCode::Timeout,
        FailCode::Cancelled => ErrorCode::Cancelled,
        FailCode::TooLarge => ErrorCode::PayloadTooLarge,
        FailCode::Busy | FailCode::Limit => ErrorCode::Busy,
        FailCode::Invalid => ErrorCode::InvalidArgs,
        FailCode::Exists
        | FailCode::BadBundle
        | FailCode::InstallFailed
        | FailCode::Sealed
        | FailCode::StartFailed
        | FailCode::HandshakeFailed
        | FailCode::Unsupported
        | FailCode::Protocol
        | FailCode::Internal
        | FailCode::Unknown => ErrorCode::DeployFailed,
    }
}

/// How often a runner is asked again that still does something else with the service, and the pause before.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Asks for something that is only done or not. A runner that still ends what was asked before is asked again.
pub(super) async fn order(link: &Link, ask: &Ask) -> Result<(), Failure> {
    for _ in 0..BUSY_TRIES {
        match order_once(link, ask).await {
            Err(failure) if failure.code == FailCode::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
    order_once(link, ask).await
}

async fn order_once(link: &Link, ask: &Ask) -> Result<(), Failure> {
    match link.ask(ask, &[], Watch::default()).await? {
        (Answer::Done, _) => Ok(()),
        (Answer::Failed(failure), _) => Err(failure),
        _ => Err(Failure { code: FailCode::Protocol, message: "the runner gave another answer".into() }),
    }
}

/// Installs and starts a version. What becomes of it is told; `Err`: the runner went away, and it is begun again with the next one.
pub(super) async fn install(
    link: &Link,
    instance: &mut Instance,
    private: &Rules,
    report: &Reporter,
) -> Result<(), Failure> {
    let id = instance.spec.id.clone();
    let done = try_install(link, instance, private, report).await;
    match done {
        Ok(()) => Ok(()),
        Err(failure) if failure.code == FailCode::Restarting => Err(failure),
        Err(failure) => {
            let code = match code_of(failure.code) {
                ErrorCode::InvalidArgs => ErrorCode::InvalidArgs,
                ErrorCode::Timeout => ErrorCode::Timeout,
                _ => ErrorCode::DeployFailed,
            };
            report.tell(Report::Failed { instance: id, code, message: failure.message.clone() });
            Ok(())
        }
    }
}

async fn try_install(link: &Link, instance: &mut Instance, private: &Rules, report: &Reporter) -> Result<(), Failure> {
    if let (Some(branch), Source::Git { url, commit, .. }) = (&instance.branch, &mut instance.spec.source) {
        *commit = git::resolve(url, branch, private).await?;
        report.tell(Report::Pinned { instance: instance.spec.id.clone(), commit: commit.clone() });
        instance.branch = None;
    }
    let spec = Box::new(instance.spec.clone());
    match order(link, &Ask::Install { spec }).await {
        Ok(()) => {}
        // The answer to the first time was lost.
        Err(failure) if failure.code == FailCode::Exists => {}
        Err(failure) => return Err(failure),
    }
    order(link, &Ask::Start { id: instance.spec.id.clone(), spec: None }).await
}

/// Calls a tool. The future ends when the call does.
pub(super) async fn call(link: Option<Link>, call: HostCall, cancelled: oneshot::Receiver<String>, report: Reporter) {
    let call_id = call.call_id.clone();
    let answer = match link {
        Some(link) => try_call(&link, call, cancelled, &report).await,
        None => Err(down("the host of services is starting; try again".into())),
    };
    report.tell(Report::Answered { call_id, answer });
}

fn down(message: String) -> CallError {
    CallError { code: ErrorCode::ServiceDown, message, rpc_error: None }
}

async fn try_call(
    link: &Link,
    call: HostCall,
    cancelled: oneshot::Receiver<String>,
    report: &Reporter,
) -> Result<Arc<str>, CallError> {
    let HostCall { call_id, instance, tool, args, timeout_ms, progress } = call;
    let params = format!("{{\"name\":{},\"arguments\":{}}}", Value::String(tool), args.as_str());
    let ask = Ask::Request { id: instance, method: "tools/call".into(), progress, timeout_ms };
    let tell = |params: &[u8]| {
        if let Some(report_of) = progress_of(&call_id, params) {
            report.tell(report_of);
        }
    };
    let watch = Watch { cancelled: Some(cancelled), progress: progress.then_some(&tell) };
    let failed = |failure: Failure| {
        let code = match code_of(failure.code) {
            // Of a call that was on its way to a server.
            ErrorCode::DeployFailed => ErrorCode::ToolFailed,
            code => code,
        };
        CallError { code, message: failure.message, rpc_error: None }
    };
    let (answer, body) = link.ask(&ask, params.as_bytes(), watch).await.map_err(failed)?;
    let text = String::from_utf8(body);
    let text = text.map_err(|_| CallError {
        code: ErrorCode::ToolFailed,
        message: "the MCP server answered with something that is not JSON".into(),
        rpc_error: None,
    })?;
    match answer {
        Answer::Result => Ok(text.into()),
        Answer::Error => {
            let error: Value = serde_json::from_str(&text).unwrap_or_default();
            let message = error["message"].as_str().unwrap_or("the MCP server answered with an error").to_owned();
            Err(CallError { code: ErrorCode::ToolFailed, message, rpc_error: Raw::parse(text).ok() })
        }
        Answer::Failed(failure) => Err(failed(failure)),
        Answer::Done | Answer::Logs | Answer::Stats { .. } | Answer::Unknown => {
            Err(down("the runner gave another answer".into()))
        }
    }
}

fn progress_of(call_id: &str, params: &[u8]) -> Option<Report> {
    #[derive(Deserialize)]
    struct Params {
        progress: f64,
        total: Option<f64>,
        message: Option<String>,
    }
    let Params { progress, total, message } = serde_json::from_slice(params).ok()?;
    Some(Report::Progress { call_id: call_id.to_owned(), progress, total, message })
}

/// The tools in the body of an event.
pub(super) fn tools_of(body: &[u8]) -> Arc<[ToolDef]> {
    #[derive(Default, Deserialize)]
    struct Tools {
        #[serde(default)]
        tools: Vec<Value>,
    }
    let Tools { tools } = serde_json::from_slice(body).unwrap_or_default();
    // One that is no tool is left out, and the others are there.
    tools.into_iter().filter_map(|tool| serde_json::from_value(tool).ok()).collect()
}

/// The last lines of a log.
pub(super) async fn logs(link: Option<Link>, id: String, lines: u32) -> Result<Vec<LogLine>, Refusal> {
    #[derive(Deserialize)]
    struct Line {
        n: u64,
        from: String,
        line: String,
    }
    let gone = || Refusal::new(ErrorCode::ServiceDown, "the host of services is starting; try again");
    let ask = Ask::Logs { id, lines, follow: false };
    let answered = link.ok_or_else(gone)?.ask(&ask, &[], Watch::default()).await;
    let body = match answered {
        Ok((Answer::Logs, body)) => body,
        // It is not there any more, or not yet: it has said nothing.
        Ok((Answer::Failed(Failure { code: FailCode::NotFound, .. }), _)) => Vec::new(),
        Ok((Answer::Failed(failure), _)) | Err(failure) => {
            return Err(Refusal::new(code_of(failure.code), failure.message));
        }
        Ok(_) => return Err(gone()),
    };
    let read = |line: &[u8]| {
        let Line { n, from, line } = serde_json::from_slice(line).ok()?;
        Some(LogLine { number: n, line: format!("[{from}] {line}") })
    };
    Ok(body.split(|byte| *byte == b'\n').filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_of_an_event_are_read_as_they_are_and_what_is_none_is_left_out() {
        let body = br#"{"initialize":{},"tools":[{"name":"a","inputSchema":{"type":"object"},"x":1},{"no":"name"},{"name":"b"}]}"#;
        let tools = tools_of(body);
        assert_eq!(tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tools[0].more["x"], 1);
        assert!(tools_of(b"no json").is_empty());
    }
}
