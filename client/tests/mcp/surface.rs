//! How many tools a session offers, and several entries of one session.

use std::collections::HashSet;

use anyhow::{Context, Result};
use claudemesh_testkit::host::Host;
use serde_json::json;

use super::team::{Team, options, session, welcomed};

async fn names(host: &mut Host) -> Result<HashSet<String>> {
    let tools = host.tools().await?;
    Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn full_offers_everything_and_says_once_what_the_shell_does() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    let tools = ann.tools().await?;
    let send = tools.iter().find(|tool| tool["name"] == "send_message").context("send_message")?;
    let description = send["description"].as_str().context("a description")?;
    assert!(
        description.ends_with("Soft-deprecated; in a shell: `claudemesh send <to> <msg> [--mesh X] [--priority Y]`.")
    );
    let ask = tools.iter().find(|tool| tool["name"] == "ask_peer").context("ask_peer")?;
    assert!(!ask["description"].as_str().context("a description")?.contains("Soft-deprecated"));
    for _ in 0..3 {
        assert!(!ann.tool("list_peers", json!({})).await?.is_error, "it works as before");
    }
    ann.tool("mesh_info", json!({})).await?;
    ann.tool("poll_inbox", json!({})).await?;
    let stderr = ann.end().await?.stderr;
    let said: Vec<&str> = stderr.lines().filter(|line| line.contains("soft-deprecated")).collect();
    assert_eq!(
        said,
        [
            "mcp__claudemesh__list_peers is soft-deprecated; use: claudemesh peers --json",
            "mcp__claudemesh__mesh_info is soft-deprecated; use: claudemesh info --json",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn lean_keeps_what_the_shell_cannot_do_as_well() -> Result<()> {
    let team = Team::start().await?;
    let mut settings = options(&team.ann, "ann-1", "AnnS");
    settings.args.extend(["--surface".into(), "lean".into()]);
    let mut ann = Host::start(settings).await?;
    welcomed(&mut ann).await?;
    let listed = names(&mut ann).await?;
    assert!(listed.contains("ask_peer") && listed.contains("reply_to_peer") && !listed.contains("send_message"));
    let refused = ann.tool("send_message", json!({"to": "Bob", "message": "x"})).await?;
    assert!(refused.is_error && refused.text.contains("claudemesh send <to> <msg>"), "{}", refused.text);
    assert!(
        ann.initialized["instructions"].as_str().is_some_and(|text| text.contains("`claudemesh send <to> <text>`"))
    );
    Ok(())
}

#[tokio::test]
async fn none_only_pushes() -> Result<()> {
    let team = Team::start().await?;
    let settings = options(&team.bob, "bob-1", "BobS").env("CLAUDEMESH_MCP_SURFACE", "none");
    let mut bob = Host::start(settings).await?;
    welcomed(&mut bob).await?;
    assert!(names(&mut bob).await?.is_empty());
    team.ann.json(&["send", "BobS", "still arrives", "--json"])?;
    bob.channel_with("still arrives").await?;
    // The flag wins over the environment.
    let mut settings = options(&team.bob, "bob-2", "BobTwo").env("CLAUDEMESH_MCP_SURFACE", "none");
    settings.args.extend(["--surface".into(), "full".into()]);
    assert!(names(&mut Host::start(settings).await?).await?.contains("send_message"));
    Ok(())
}

#[tokio::test]
async fn one_entry_per_mesh_is_one_session() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["create", "second", "--broker", &team.broker.url(), "--name", "Ann", "--json"])?;
    let entry = async |slug: &str| -> Result<Host> {
        let mut settings = options(&team.ann, "ann-1", "AnnS");
        settings.args.extend(["--mesh".into(), slug.into()]);
        let mut host = Host::start(settings).await?;
        let note = host.channel_with("Connected to mesh").await?;
        assert_eq!(note.meta["mesh_slug"], slug);
        Ok(host)
    };
    let (mut first, mut second) = (entry("team").await?, entry("second").await?);
    let mut ids = HashSet::new();
    for (host, own, other) in [(&mut first, "team", "second"), (&mut second, "second", "team")] {
        let listed = host.tool("list_peers", json!({})).await?;
        assert_eq!(listed.structured["meshes"].as_array().map(Vec::len), Some(1));
        assert_eq!(listed.structured["meshes"][0]["mesh_slug"], own);
        let me = team.ann.json(&["peers", "--mesh", own, "--json"])?[0].clone();
        ids.insert(me["sessionId"].as_str().context("a session id")?.to_owned());
        let elsewhere = host.tool("list_peers", json!({"mesh_slug": other})).await?;
        assert!(elsewhere.is_error && elsewhere.text.contains(own), "{}", elsewhere.text);
    }
    assert_eq!(ids.len(), 1, "lists can group the entries of one session: {ids:?}");
    // A push says which mesh it came by, and comes by that entry only.
    team.bob.json(&["send", "AnnS", "by the first", "--json"])?;
    assert_eq!(first.channel_with("by the first").await?.meta["mesh_slug"], "team");
    second.tool("list_peers", json!({})).await?;
    assert!(second.untaken().iter().all(|note| !note.content.contains("by the first")));
    Ok(())
}

#[tokio::test]
async fn the_projects_file_names_the_session_its_role_groups_and_mesh() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["create", "second", "--broker", &team.broker.url(), "--name", "Ann", "--json"])?;
    let file = team.ann.project().join(".claude-mesh.json");
    let start = async || -> Result<Host> {
        let mut settings = options(&team.ann, "ann-1", "");
        settings.env.retain(|(name, _)| name != "CLAUDEMESH_DISPLAY_NAME");
        Host::start(settings).await
    };
    std::fs::write(&file, r#"{"name": "backend", "role": "api", "groups": ["qa:lead"], "mesh": "team"}"#)?;
    let mut ann = start().await?;
    let note = ann.channel_with("Connected to mesh").await?;
    assert_eq!((note.meta["mesh_slug"].as_str(), note.meta["self_display_name"].as_str()), ("team", "Ann/backend"));
    let listed = ann.tool("list_peers", json!({})).await?;
    assert_eq!(listed.structured["meshes"].as_array().map(Vec::len), Some(1));
    let me = &listed.structured["meshes"][0]["peers"][0];
    assert_eq!(me["groups"], json!(["@qa:lead"]));
    ann.end().await?;
    // A mesh that is not joined: no other one in its place.
    std::fs::write(&file, r#"{"mesh": "elsewhere"}"#)?;
    let mut ann = start().await?;
    let answer = ann.tool("list_peers", json!({})).await?;
    assert!(
        answer.is_error && answer.text.contains("'elsewhere'") && answer.text.contains("claudemesh join"),
        "{}",
        answer.text
    );
    ann.end().await?;
    // Damaged: said on stderr, and the session works as if it were not there.
    std::fs::write(&file, "{ not json")?;
    let mut ann = start().await?;
    let listed = ann.tool("list_peers", json!({"mesh_slug": "team"})).await?;
    assert!(!listed.is_error, "{}", listed.text);
    let stderr = ann.end().await?.stderr;
    assert!(stderr.contains(".claude-mesh.json"), "{stderr}");
    Ok(())
}

#[tokio::test]
async fn stats_are_told_in_the_shell_as_by_the_tool() -> Result<()> {
    let team = Team::start().await?;
    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    bob.tool("set_summary", json!({"summary": "counting"})).await?;
    let stats = team.ann.json(&["stats", "--json"])?;
    assert_eq!((&stats[0]["mesh"], &stats[0]["name"]), (&json!("team"), &json!("BobS")));
    let shown = team.ann.run(&["stats"])?;
    assert!(super::team::stdout(&shown).contains("BobS: "), "{}", super::team::stdout(&shown));
    Ok(())
}
