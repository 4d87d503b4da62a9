//! What a mesh keeps, counted alike by `info`, `stats` and their tools.

use anyhow::{Context, Result};
use serde_json::json;

use super::in_process::Session;
use super::team::{Team, session, stdout};

/// Two keys, three memories, two contexts, tasks of each state, two streams, a skill, two reminders that wait and a clock.
async fn filled() -> Result<Team> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    for key in ["build", "deploy/eu"] {
        ann.json(&["state", "set", key, "1", "--json"])?;
    }
    ann.json(&["state", "set", "gone", "1", "--json"])?;
    ann.json(&["state", "delete", "gone", "--json"])?;
    for text in ["first fact", "second fact", "third fact"] {
        bob.json(&["remember", text, "--json"])?;
    }
    for (person, summary) in [(ann, "writing"), (bob, "testing")] {
        person.json(&["context", "share", summary, "--json"])?;
    }
    let mut ids = vec![];
    for title in ["a", "b", "c", "d"] {
        let task = ann.json(&["task", "create", title, "--json"])?;
        ids.push(task["id"].as_str().context("an id")?.to_owned());
    }
    bob.json(&["task", "claim", &ids[0], "--json"])?;
    bob.json(&["task", "complete", &ids[1], "--json"])?;
    for stream in ["builds", "logs"] {
        ann.json(&["stream", "publish", stream, "1", "--json"])?;
    }
    std::fs::write(ann.project().join("deploy.md"), "Run it")?;
    ann.json(&["skill", "share", "deploy.md", "--description", "How we deploy", "--json"])?;
    for text in ["look", "look again", "never mind"] {
        ann.json(&["remind", text, "--in", "2h", "--json"])?;
    }
    let listed = ann.json(&["remind", "list", "--json"])?;
    ann.json(&["remind", "cancel", listed[2]["id"].as_str().context("an id")?, "--json"])?;
    ann.json(&["clock", "set", "10", "--json"])?;
    Ok(team)
}

#[tokio::test]
async fn info_counts_all_features_in_text_and_json() -> Result<()> {
    let team = filled().await?;
    let info = team.bob.json(&["info", "--json"])?;
    let tasks = json!({"open": 2, "claimed": 1, "done": 1});
    assert_eq!((&info["stateCount"], &info["stateKeys"]), (&json!(2), &json!(["build", "deploy/eu"])));
    assert_eq!((&info["memoryCount"], &info["contextCount"], &info["tasks"]), (&json!(3), &json!(2), &tasks));
    assert_eq!((&info["streamCount"], &info["streams"]), (&json!(2), &json!(["builds", "logs"])));
    // No one is there but shells, so it stands.
    assert_eq!((&info["clock"]["speed"], &info["clock"]["tick"]), (&json!(10), &json!(0)));
    let used = |name: &str| {
        let bound = info["limits"].as_array().into_iter().flatten().find(|bound| bound["name"] == name);
        bound.map(|bound| bound["used"].clone()).unwrap_or_default()
    };
    for (name, count) in [
        ("state.keys_per_mesh", 2),
        ("memory.per_mesh", 3),
        ("memory.per_member", 3),
        ("contexts.per_mesh", 2),
        ("contexts.per_member", 1),
        ("tasks.per_mesh", 4),
        ("tasks.per_member", 0),
        ("streams.per_mesh", 2),
        ("streams.per_member", 0),
    ] {
        assert_eq!(used(name), count, "{name}: {info}");
    }
    for (columns, beside) in [("60", false), ("200", true)] {
        let shown = stdout(&team.bob.command(&["info"]).env("COLUMNS", columns).output()?);
        for line in [
            "  you       Bob",
            "  peers     0 here, 2 members",
            "  state     2: build, deploy/eu",
            "  streams   2: builds, logs",
            "  memories  3",
            "  contexts  2",
            "  skills    1",
            "  scheduled 2",
            "  tasks     2 open, 1 claimed, 1 done",
            "  clock     ×10, tick 0, ",
        ] {
            assert!(shown.lines().any(|one| one.starts_with(line)), "{line}: {shown}");
        }
        assert_eq!(shown.lines().any(|line| line.starts_with("  you") && line.contains('░')), beside, "{shown}");
        assert!(shown.contains("contexts.per_mesh") && shown.contains("2 of 10,000"), "{shown}");
        let most: usize = columns.parse()?;
        assert!(shown.lines().all(|line| line.chars().count() <= most), "{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn stats_and_the_tools_say_the_same_counts() -> Result<()> {
    let team = filled().await?;
    let _there = session(&team.ann, "ann-1", "AnnS").await?;
    let words =
        "2 shared keys, 3 memories, 2 contexts, 2 tasks open, 1 claimed, 1 done, 2 streams, 1 skill, 2 scheduled";
    let shown = stdout(&team.bob.run(&["stats"])?);
    assert!(shown.starts_with(&format!("team (1)  {words}\n  AnnS: ")), "{shown}");
    let bob = Session::start(&team.bob, "BobS").await?;
    let stats = bob.call("mesh_stats", json!({})).await?;
    assert!(stats.text.ends_with(&format!("\n\nKept: {words}")), "{}", stats.text);
    assert_eq!(
        stats.structured["meshes"][0]["kept"],
        json!({"stateCount": 2, "memoryCount": 3, "contextCount": 2, "tasks": {"open": 2, "claimed": 1, "done": 1}, "streamCount": 2,
            "skillCount": 1, "schedules": 2})
    );
    let info = bob.call("mesh_info", json!({})).await?;
    for line in [
        "State keys: build, deploy/eu\n",
        "Memories: 3\n",
        "Contexts: 2\n",
        "Tasks: 2 open, 1 claimed, 1 done\n",
        "Streams: builds, logs\n",
        "Skills: 1\n",
        "Scheduled: 2\n",
        "Clock: ×10, tick 0, ",
    ] {
        assert!(info.text.contains(line), "{line}: {}", info.text);
    }
    assert_eq!(info.structured["contextCount"], 2);
    Ok(())
}
