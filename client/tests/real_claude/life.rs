//! What a session lives through: resume, signals, a server that dies.

use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::model::Turn;
use claudemesh_testkit::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::live::{self, Live, Stage};

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_resumed_session_has_its_key_and_reads_what_waited() -> Result<()> {
    let mut stage = Stage::new().await?;
    let model = live::model(vec![]).await?;
    let session = Live::start(&stage, &model, &[]).await?;
    let (key, id) = (stage.key().await?, session.id.clone());
    session.end().await?;
    stage.gone().await?;
    stage.watcher.say(&key, "for later", json!({})).await?;
    model.then(Turn::text("Ready again.").when("say hi"));
    for args in [&["--resume", id.as_str()][..], &["--continue"]] {
        let session = Live::start(&stage, &model, args).await?;
        // Which session it is, an older version says with its first hook only.
        let same = async || Ok((stage.key().await? == key).then_some(()));
        wait::until("the session has its key", PATIENCE, same).await.with_context(|| format!("{args:?}"))?;
        session.end().await?;
        stage.gone().await?;
    }
    let body = model.asked("for later").await?["messages"].to_string();
    assert!(body.contains("> for later"), "{body}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn however_it_ends_nothing_of_ours_is_left() -> Result<()> {
    for how in [Signal::HUP, Signal::TERM, Signal::KILL] {
        let mut stage = Stage::new().await?;
        let model = live::model(vec![]).await?;
        let mut session = Live::start(&stage, &model, &[]).await?;
        stage.key().await?;
        assert!(!stage.processes().is_empty());
        signal(session.child.id().context("claude runs")?, how)?;
        session.child.wait().await?;
        stage.gone().await.with_context(|| format!("{how:?}"))?;
        // The hook that waits to wake the session may look for a new server for half a minute.
        stage.quiet().await.with_context(|| format!("{how:?}"))?;
        let servers = stage.lab.program.config_dir().join("run/servers");
        assert_eq!(std::fs::read_dir(servers)?.count(), 0, "{how:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_server_that_dies_does_not_hold_the_session_up() -> Result<()> {
    let mut stage = Stage::new().await?;
    let model = live::model(vec![Turn::text("Still here.").when("and now")]).await?;
    let mut session = Live::start(&stage, &model, &[]).await?;
    stage.key().await?;
    let server =
        stage.processes().into_iter().find(|(_, line)| line.trim_end().ends_with(" mcp")).context("a server")?;
    signal(server.0, Signal::KILL)?;
    stage.gone().await?;
    session.say("and now").await?;
    let result = tokio::time::timeout(Duration::from_secs(60), session.result()).await??;
    assert_eq!(result["result"], "Still here.", "hooks without a server let the turn pass");
    session.end().await?;
    stage.quiet().await
}
