//! Hooks of a session, run as the host runs them: the program with JSON on its standard input.

use std::io::Write;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

/// A hook that was started and has read its input.
pub(crate) fn start(person: &CommandLine, event: &str, input: &Value) -> Result<Child> {
    let mut command = person.command(&["hook", event]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("stdin was piped")?;
    stdin.write_all(input.to_string().as_bytes())?;
    Ok(child)
}

/// A hook that runs to its end; it must succeed.
pub(crate) fn run(person: &CommandLine, event: &str, input: &Value) -> Result<Option<Value>> {
    let output = start(person, event, input)?.wait_with_output()?;
    assert!(output.status.success(), "{event}: {output:?}");
    let text = String::from_utf8(output.stdout)?;
    Ok(if text.trim().is_empty() { None } else { Some(serde_json::from_str(&text)?) })
}

/// The end of a hook that was started, within the patience of a test.
pub(crate) async fn end(child: Child) -> Result<Output> {
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    Ok(tokio::time::timeout(claudemesh_testkit::host::PATIENCE, ended).await.context("the hook does not end")???)
}

/// The context that a hook gives to the model.
pub(crate) fn context(answer: Option<&Value>) -> &str {
    answer.and_then(|answer| answer["hookSpecificOutput"]["additionalContext"].as_str()).unwrap_or_default()
}

/// What a hook says beside the line for the user of the session; `None` when there is no more than that.
pub(crate) fn beside_the_notice(answer: Option<Value>) -> Option<Value> {
    let mut answer = answer?;
    answer.as_object_mut()?.remove("systemMessage");
    answer.as_object().is_some_and(|rest| !rest.is_empty()).then_some(answer)
}

/// Input of a hook of this session.
pub(crate) fn input(session_id: &str) -> Value {
    json!({"session_id": session_id, "cwd": "/w", "permission_mode": "default"})
}

/// Ends a hook that no one needs any more.
pub(crate) fn end_now(mut child: Child) -> Result<Output> {
    child.kill()?;
    Ok(child.wait_with_output()?)
}
