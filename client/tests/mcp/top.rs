//! The live screen on a real pseudo-terminal.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use claudemesh_testkit::process::cpu_seconds_of;
use serde_json::json;

use super::json;
use super::team::{Team, session, stdout};
use super::terminal::Terminal;

#[tokio::test]
async fn the_screen_follows_and_leaves_the_terminal_as_it_was() -> Result<()> {
    let team = Team::start().await?;
    let bob = session(&team.bob, "bob-1", "BobS").await?;
    for columns in [60, 200] {
        let mut terminal = Terminal::new(columns)?;
        let mut command = team.ann.command(&["top"]);
        command.env("TERM", "xterm").stdin(terminal.stdio()?).stdout(terminal.stdio()?).stderr(Stdio::null());
        let mut child = command.spawn()?;
        terminal.wait_for("BobS")?;
        ensure!(!terminal.is_cooked()?, "keys are read one by one");
        if columns == 200 {
            terminal.wait_for("WORKS ON")?;
        }
        // What happens is drawn without a key.
        terminal.seen.clear();
        team.bob
            .json(&["ask", "Ann", &format!("what fits into {columns}?"), "--wait-offline", "--timeout", "1", "--json"])
            .ok();
        terminal.wait_for("question ")?;
        terminal.press("s")?;
        terminal.wait_for("status")?;
        terminal.press("q")?;
        ensure!(child.wait()?.success());
        ensure!(terminal.is_cooked()?, "the terminal is as it was");
    }
    // Ended by a signal it puts the terminal back, too.
    let mut terminal = Terminal::new(80)?;
    let mut command = team.ann.command(&["top"]);
    command.env("TERM", "xterm").stdin(terminal.stdio()?).stdout(terminal.stdio()?).stderr(Stdio::null());
    let mut child = command.spawn()?;
    terminal.wait_for("BobS")?;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)?;
    ensure!(child.wait()?.success());
    ensure!(terminal.is_cooked()?);

    let counts = team.ann.json(&["top", "--json"])?;
    json::fits("top", &counts)?;
    assert_eq!(
        (&counts[0]["mesh"], &counts[0]["online"], &counts[0]["questions"]),
        (&json!("team"), &json!(1), &json!(2))
    );
    let once = stdout(&team.ann.run(&["top", "--once"])?);
    ensure!(once.starts_with("team  1 online") && once.contains("BobS") && once.contains("question "), "{once}");
    let piped = team.ann.run(&["top"])?;
    assert_eq!(piped.status.code(), Some(3), "a pipe is no screen");
    assert_eq!(
        team.ann.json(&["inbox", "--peek", "--json"])?.as_array().map(Vec::len),
        Some(2),
        "a look marks nothing"
    );
    drop(bob);
    Ok(())
}

/// A debug build on a busy machine; the bound is for idling that is no idling.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn at_rest_the_screen_costs_next_to_nothing() -> Result<()> {
    let team = Team::start().await?;
    let _bob = session(&team.bob, "bob-1", "BobS").await?;
    let mut terminal = Terminal::new(120)?;
    let mut command = team.ann.command(&["top"]);
    command.env("TERM", "xterm").stdin(terminal.stdio()?).stdout(terminal.stdio()?).stderr(Stdio::null());
    let mut child = command.spawn()?;
    terminal.wait_for("BobS")?;
    let before = cpu_seconds_of(child.id())?;
    let drawn = terminal.drawn_within(Duration::from_secs(4));
    let cost = cpu_seconds_of(child.id())? - before;
    ensure!(drawn < 20_000, "{drawn} bytes are drawn although nothing happens");
    terminal.press("q")?;
    ensure!(child.wait()?.success());
    ensure!(cost < 0.2, "{cost} s of processor time in four seconds");
    Ok(())
}
