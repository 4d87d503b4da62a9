//! A tool call that Claude Code would refuse runs because a person elsewhere allowed it, and does not when they denied it.

use std::process::Stdio;

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::host::PATIENCE;
use claudemesh_testkit::model::Turn;
use claudemesh_testkit::wait;
use serde_json::{Value, json};

use crate::live::{self, Live, Stage};

/// The first version that asks hooks under `-p`, too.
const ASKS_HOOKS: [u32; 3] = [2, 1, 329];

/// The version that is tested.
pub(crate) async fn version(stage: &Stage) -> Result<[u32; 3]> {
    let text = stage.lab.good(stage.lab.claude(&["--version"])).await?;
    let mut parts = text.split([' ', '.', '\n']).map(|part| part.parse().unwrap_or(0));
    Ok(std::array::from_fn(|_| parts.next().unwrap_or(0)))
}

/// Someone else, at a command line of their own, who may decide for the lab's sessions.
async fn approver(stage: &Stage) -> Result<CommandLine> {
    let person = CommandLine::new(env!("CARGO_BIN_EXE_claudemesh"))?;
    let invite = stage.lab.program.json(&["invite", "--json"])?;
    person.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Ann", "--json"])?;
    let key = person.json(&["list", "--json"])?[0]["pubkey"].as_str().context("a key")?.to_owned();
    stage.lab.program.json(&["approvers", "add", &key, "--json"])?;
    let mut install = stage.lab.program.command(&["install", "--permission-relay"]);
    install.env("CLAUDE_CONFIG_DIR", stage.lab.config()).stdout(Stdio::piped()).stderr(Stdio::piped());
    stage.lab.good(install).await?;
    Ok(person)
}

async fn asked(person: &CommandLine) -> Result<Value> {
    let first = async || Ok(person.json(&["permit", "--json"])?.as_array().and_then(|list| list.first()).cloned());
    wait::until("a session asks for a permission", PATIENCE, first).await
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn a_peer_allows_one_call_and_denies_another_from_the_shell() -> Result<()> {
    let stage = Stage::new().await?;
    let person = approver(&stage).await?;
    let model = live::model(vec![]).await?;
    let mut session = Live::start(&stage, &model, &[]).await?;
    let hooks_are_asked = version(&stage).await? >= ASKS_HOOKS;
    for (word, runs) in [("allow", true), ("deny", false)] {
        let file = stage.lab.program.project().join(format!("made-after-{word}"));
        let command = format!("touch '{}'", file.display());
        let prompt = format!("please make it: {word}");
        model.then(Turn::tool("Bash", json!({"command": command, "description": "make a file"})).when(&prompt));
        model.then(Turn::text("Done with it."));
        session.say(&prompt).await?;
        if hooks_are_asked {
            let open = asked(&person).await?;
            assert_eq!(open["tool"], "Bash", "{open}");
            assert!(open["preview"].as_str().is_some_and(|preview| preview.contains(&command)), "{open}");
            let id = open["id"].as_str().context("an id")?;
            person.json(&["permit", id, word, "--reason", "because I say so", "--json"])?;
        }
        session.result().await?;
        assert_eq!(file.exists(), runs && hooks_are_asked, "{word}");
        if hooks_are_asked && !runs {
            let body = model.asked("because I say so").await?["messages"].to_string();
            assert!(body.contains("Denied by mesh member"), "{body}");
        }
    }
    let audit = stage.lab.program.json(&["permission-log", "--json"])?;
    let events: Vec<&str> = audit.as_array().into_iter().flatten().filter_map(|one| one["event"].as_str()).collect();
    let round = ["asked", "answered", "decided"];
    let expected = if hooks_are_asked { [round, round].concat() } else { vec![] };
    assert_eq!(events, expected);
    assert_eq!(stage.lab.program.json(&["permission-log", "--verify", "--json"])?["ok"], true);
    session.end().await?;
    stage.quiet().await
}
