//! The simulated clock at the shell, by tools and in a session, against a real broker.

use anyhow::Result;
use serde_json::{Value, json};

use super::in_process::Session;
use super::team::{Team, session, stderr, stdout};

#[tokio::test]
async fn the_shell_sets_pauses_and_stops_the_clock() -> Result<()> {
    let team = Team::start().await?;
    // A clock without a session would stand still.
    let _session = Session::start(&team.bob, "BobS").await?;
    let none = stdout(&team.ann.run(&["clock"])?);
    assert_eq!(none, "no clock runs; `claudemesh clock set <speed>` starts one\n");
    let missing = team.ann.run(&["clock", "pause"])?;
    assert_eq!(missing.status.code(), Some(5), "{}", stderr(&missing));
    for speed in ["0", "101", "fast", "NaN"] {
        assert_eq!(team.ann.run(&["clock", "set", speed])?.status.code(), Some(3), "{speed}");
    }
    let set = team.ann.run(&["clock", "set", "1.5", "--at", "2030-01-01T09:00:00Z"])?;
    assert_eq!(
        stdout(&set),
        "✓ clock set: running, x1.5, simulated time 2030-01-01T09:00:00.000Z, tick 0; it stands still while no session is here\n",
        "{}",
        stderr(&set)
    );
    assert_eq!(team.bob.json(&["clock", "pause", "--json=paused,speed"])?, json!({"paused": true, "speed": 1.5}));
    assert!(stdout(&team.ann.run(&["clock"])?).starts_with("paused, x1.5, "));
    assert_eq!(team.bob.json(&["clock", "resume", "--json"])?["paused"], false);
    assert_eq!(team.ann.json(&["info", "--json"])?["clock"]["speed"], 1.5);
    assert_eq!(team.ann.json(&["clock", "stop", "--json"])?["speed"], 0);
    assert_eq!(team.ann.json(&["info", "--json"])?["clock"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn tools_set_pause_and_resume_the_clock() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (Session::start(&team.ann, "AnnS").await?, Session::start(&team.bob, "BobS").await?);
    let none = bob.call("mesh_clock", json!({})).await?;
    assert_eq!((none.text.as_str(), &none.structured["speed"]), ("no clock runs (team)", &json!(0)));
    assert!(ann.call("mesh_pause_clock", json!({})).await?.is_error);
    assert!(ann.call("mesh_set_clock", json!({"speed": 1000})).await?.is_error);
    let set = ann.call("mesh_set_clock", json!({"speed": 100, "sim_time": "2030-01-01T09:00:00Z"})).await?;
    assert_eq!(set.text, "running, x100, simulated time 2030-01-01T09:00:00.000Z, tick 0 (team)");
    let paused = bob.call("mesh_pause_clock", json!({"mesh_slug": "team"})).await?;
    assert_eq!(paused.structured["paused"], true);
    assert!(paused.text.starts_with("paused, x100, "), "{}", paused.text);
    assert_eq!(ann.call("mesh_resume_clock", json!({})).await?.structured["paused"], false);
    Ok(())
}

#[tokio::test]
async fn a_session_is_told_of_each_tick() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    team.ann.json(&["clock", "set", "100", "--at", "2030-01-01T09:00:00Z", "--json"])?;
    team.broker.advance(std::time::Duration::from_millis(600));
    let note = bob.channel_with("[heartbeat] tick ").await?;
    let tick: u64 = note.meta["tick"].parse()?;
    let time = format!("2030-01-01T09:{tick:02}:00.000Z");
    assert_eq!(note.content, format!("[heartbeat] tick {tick} | sim time {time} | speed: x100"));
    assert_eq!((note.meta["event"].as_str(), note.meta["sim_time"].as_str()), ("tick", time.as_str()));
    bob.end().await?;
    Ok(())
}
