//! The life of a mesh at the shell: renamed, set up, archived, deleted, left, and come back to.

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::team::{Team, program, stderr, stdout, texts};
use super::terminal::Terminal;

/// Runs a command that fails; its exit code and the stable word.
fn refused(person: &CommandLine, args: &[&str]) -> Result<(i32, String)> {
    let output = person.run(args)?;
    let answer: Value = serde_json::from_str(&stdout(&output)).with_context(|| stderr(&output))?;
    Ok((output.status.code().unwrap_or(-1), answer["error"].as_str().unwrap_or_default().to_owned()))
}

fn slugs(person: &CommandLine) -> Result<Vec<String>> {
    let listed = person.json(&["list", "--json"])?;
    let all = listed.as_array().into_iter().flatten();
    Ok(all.filter_map(|mesh| mesh["slug"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn a_mesh_is_renamed_for_everyone_or_here_only() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["use", "team", "--json"])?;
    let renamed = team.ann.json(&["mesh", "rename", "team", "kitchen", "--json"])?;
    assert_eq!((&renamed["slug"], &renamed["name"]), (&json!("kitchen"), &json!("kitchen")));
    assert_eq!((slugs(&team.ann)?, slugs(&team.bob)?), (vec!["kitchen".into()], vec!["team".into()]));
    assert_eq!(team.ann.json(&["use", "--json"])?["mesh"], "kitchen", "the default follows");
    // Who joins now gets the new name; who is in it goes on under the one it has there.
    let invite = team.ann.json(&["invite", "--json"])?;
    let carl = program()?;
    let joined = carl.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Carl", "--json"])?;
    assert_eq!(joined["slug"], "kitchen");
    team.bob.json(&["send", "Ann", "still here", "--json"])?;
    assert_eq!(texts(&team.ann.json(&["inbox", "--json"])?), ["still here"]);
    // The flag's earlier name works, too.
    for flag in ["--title", "--display-name"] {
        let name = format!("The kitchen of {flag}");
        let named = team.ann.json(&["mesh", "rename", "kitchen", flag, &name, "--json"])?;
        assert_eq!((&named["slug"], &named["name"]), (&json!("kitchen"), &json!(name)));
    }
    assert!(
        stdout(&team.ann.run(&["list"])?).starts_with("kitchen (The kitchen of --display-name)"),
        "the word to type comes first"
    );
    assert_eq!(refused(&team.bob, &["mesh", "rename", "team", "mine", "--json"])?, (7, "forbidden".into()));
    let own = team.bob.json(&["mesh", "rename", "team", "work", "--local", "--json"])?;
    assert_eq!((&own["slug"], slugs(&team.ann)?), (&json!("work"), vec!["kitchen".to_owned()]));
    assert_eq!(refused(&team.ann, &["mesh", "rename", "kitchen", "No Slug", "--json"])?.0, 3);
    assert_eq!(refused(&team.ann, &["mesh", "rename", "nowhere", "x2", "--json"])?, (5, "unknown_mesh".into()));
    Ok(())
}

#[tokio::test]
async fn what_a_mesh_allows_is_read_by_all_and_changed_by_those_who_may() -> Result<()> {
    let team = Team::start().await?;
    let limit = |settings: &Value, name: &str| -> Option<u64> {
        settings["limits"].as_array()?.iter().find(|limit| limit["name"] == name)?["value"].as_u64()
    };
    let before = team.bob.json(&["mesh", "settings", "--json"])?;
    assert_eq!(before["selfEditable"]["groups"], true);
    let name = "topics.per_mesh";
    let usual = limit(&before, name).context("the limit")?;
    let change = ["--self-edit", "groups=off", "--deny", "canWriteState", "--limit", "topics.per_mesh=1", "--json"];
    let args = [&["mesh", "settings", "team"][..], &change].concat();
    assert_eq!(refused(&team.bob, &args)?, (7, "forbidden".into()));
    let after = team.ann.json(&args)?;
    assert_eq!((&after["selfEditable"]["groups"], limit(&after, name)), (&json!(false), Some(1)));
    assert_eq!(after["defaults"], json!({"canWriteState": false}));
    // In force: Bob may not write state, and the mesh takes one topic.
    assert_eq!(refused(&team.bob, &["state", "set", "k", "1", "--json"])?, (7, "forbidden".into()));
    team.ann.json(&["topic", "create", "one", "--json"])?;
    assert_eq!(refused(&team.ann, &["topic", "create", "two", "--json"])?.1, "limit");
    let back =
        ["mesh", "settings", "--allow", "canRunSql", "--reset", "canWriteState", "--limit", "topics.per_mesh=default"];
    let after = team.ann.json(&[&back[..], &["--json"]].concat())?;
    assert_eq!((&after["defaults"], limit(&after, name)), (&json!({"canRunSql": true}), Some(usual)));
    team.bob.json(&["state", "set", "k", "1", "--json"])?;
    assert_eq!(refused(&team.ann, &["mesh", "settings", "--limit", "topics.per_mish=1", "--json"])?.0, 3);
    assert!(stdout(&team.bob.run(&["mesh", "settings"])?).contains("topics.per_mesh"));
    Ok(())
}

#[tokio::test]
async fn an_archived_mesh_is_closed_until_it_is_restored() -> Result<()> {
    let team = Team::start().await?;
    team.bob.json(&["send", "Ann", "before", "--json"])?;
    assert_eq!(refused(&team.ann, &["mesh", "archive", "team", "--json"])?, (1, "confirmation_needed".into()));
    assert_eq!(refused(&team.bob, &["mesh", "archive", "team", "--yes", "--json"])?, (7, "forbidden".into()));
    let archived = team.ann.json(&["mesh", "archive", "team", "--yes", "--json"])?;
    assert_eq!(archived["state"], "archived");
    assert_eq!(refused(&team.bob, &["send", "Ann", "late", "--json"])?, (5, "mesh_archived".into()));
    let told = team.bob.run(&["peers"])?;
    assert!(stderr(&told).contains("mesh restore"), "{}", stderr(&told));
    // Its name stays taken, and leaving it works although nothing answers there.
    let url = team.broker.url();
    let create = ["create", "team", "--broker", &url, "--name", "Eve", "--json"];
    assert_eq!(refused(&program()?, &create)?, (6, "already_exists".into()));
    team.bob.json(&["leave", "team", "--json"])?;
    team.bob.json(&["mesh", "rejoin", "team", "--json"])?;
    assert_eq!(refused(&team.bob, &["mesh", "restore", "team", "--json"])?, (7, "forbidden".into()));
    team.ann.json(&["mesh", "restore", "team", "--json"])?;
    assert_eq!(refused(&team.ann, &["mesh", "restore", "team", "--json"])?.0, 3);
    team.bob.json(&["send", "Ann", "after", "--json"])?;
    assert_eq!(texts(&team.ann.json(&["inbox", "--json"])?), ["before", "after"], "nothing was lost");
    Ok(())
}

#[tokio::test]
async fn a_deleted_mesh_is_gone_and_its_name_is_free() -> Result<()> {
    let team = Team::start().await?;
    assert_eq!(refused(&team.ann, &["mesh", "delete", "team", "--json"])?, (1, "confirmation_needed".into()));
    let asked = team.ann.run(&["mesh", "delete", "team"])?;
    assert!(stderr(&asked).contains("2 members") && stderr(&asked).contains("mesh archive"), "{}", stderr(&asked));
    assert_eq!(refused(&team.bob, &["mesh", "delete", "team", "--yes", "--json"])?, (7, "forbidden".into()));
    let deleted = team.ann.json(&["mesh", "delete", "team", "--yes", "--json"])?;
    assert_eq!((&deleted["state"], slugs(&team.ann)?), (&json!("deleted"), vec![]));
    assert_eq!(refused(&team.ann, &["mesh", "rejoin", "team", "--json"])?, (5, "unknown_mesh".into()));
    assert_eq!(refused(&team.bob, &["send", "Ann", "hello?", "--json"])?, (5, "mesh_deleted".into()));
    // The name again, by someone else: another mesh, which Bob's old membership does not open.
    let (url, eve) = (team.broker.url(), program()?);
    let made = eve.json(&["create", "team", "--broker", &url, "--name", "Eve", "--json"])?;
    assert_ne!(made["mesh_id"], deleted["meshId"]);
    assert_eq!(refused(&team.bob, &["peers", "--json"])?, (5, "mesh_deleted".into()));
    let invite = eve.json(&["invite", "--json"])?;
    let joined = team.bob.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Bob", "--json"])?;
    assert_eq!((&joined["slug"], &joined["meshId"]), (&json!("team-2"), &made["mesh_id"]));
    // What was deleted by another one of its owners is only taken off this machine.
    team.bob.json(&["mesh", "delete", "team", "--json"])?;
    assert_eq!(slugs(&team.bob)?, ["team-2"]);
    Ok(())
}

#[tokio::test]
async fn a_member_that_left_comes_back_with_its_key() -> Result<()> {
    let team = Team::start().await?;
    let before = team.bob.json(&["list", "--json"])?;
    let left = team.bob.json(&["leave", "team", "--json"])?;
    assert_eq!((&left["left"], &left["canRejoin"]), (&json!(0), &json!(true)));
    assert!(!team.bob.config_dir().join("invite-team.txt").exists(), "the link is gone");
    assert!(stdout(&team.bob.run(&["list"])?).contains("claudemesh mesh rejoin team"));
    team.ann.json(&["send", "Bob", "for when you are back", "--json"])?;
    let back = team.bob.json(&["mesh", "rejoin", "team", "--json"])?;
    assert_eq!((&back["sameKey"], &back["checked"]), (&json!(true), &json!(true)));
    assert_eq!(team.bob.json(&["list", "--json=meshId,pubkey"])?[0]["pubkey"], before[0]["pubkey"]);
    assert_eq!(texts(&team.bob.json(&["inbox", "--json"])?), ["for when you are back"]);
    assert_eq!(refused(&team.bob, &["mesh", "rejoin", "team", "--json"])?, (6, "already_exists".into()));
    // Purged: nothing of it is left, so only an invite helps.
    assert_eq!(refused(&team.bob, &["leave", "team", "--purge", "--json"])?, (1, "confirmation_needed".into()));
    team.bob.json(&["mesh", "leave", "team", "--purge", "--yes", "--json"])?;
    let id = before[0]["meshId"].as_str().context("an id")?;
    assert!(!team.bob.config_dir().join("inbox").join(format!("{id}.db")).exists());
    assert!(!std::fs::read_to_string(team.bob.config_dir().join("left.json"))?.contains(id));
    assert_eq!(refused(&team.bob, &["mesh", "rejoin", "team", "--json"])?, (5, "unknown_mesh".into()));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_keeps_nobody_from_leaving_and_coming_back() -> Result<()> {
    let team = Team::start().await?;
    let Team { mut broker, ann, bob } = team;
    broker.stop();
    bob.json(&["leave", "team", "--json"])?;
    let back = bob.json(&["mesh", "rejoin", "team", "--json"])?;
    assert_eq!((&back["sameKey"], &back["checked"]), (&json!(true), &json!(false)));
    for args in [&["mesh", "archive", "team", "--yes", "--json"][..], &["mesh", "delete", "team", "--yes", "--json"]] {
        assert_eq!(refused(&ann, args)?.0, 4, "{args:?}");
    }
    assert_eq!(slugs(&ann)?, ["team"], "what could not be deleted stays");
    Ok(())
}

#[tokio::test]
async fn an_owner_is_asked_before_leaving_and_comes_back_with_the_owners_key() -> Result<()> {
    let team = Team::start().await?;
    assert_eq!(refused(&team.ann, &["leave", "team", "--json"])?, (1, "confirmation_needed".into()));
    let asked = team.ann.run(&["leave", "team"])?;
    assert!(
        stderr(&asked).contains("mesh rejoin team") && stderr(&asked).contains("mesh delete team"),
        "{}",
        stderr(&asked)
    );
    assert_eq!(slugs(&team.ann)?, ["team"]);
    // Keys lost: all that is left is owners.json, as after a restore from a copy.
    team.ann.json(&["leave", "team", "--purge", "--yes", "--json"])?;
    assert_eq!(refused(&team.ann, &["mesh", "rejoin", "team", "--json"])?, (1, "confirmation_needed".into()));
    let back = team.ann.json(&["mesh", "rejoin", "team", "--name", "Ann again", "--yes", "--json"])?;
    assert_eq!((&back["sameKey"], back["former"].as_array().map(Vec::len)), (&json!(false), Some(1)));
    team.ann.json(&["invite", "--json"])?;
    team.bob.json(&["send", "Ann again", "welcome back", "--json"])?;
    assert_eq!(texts(&team.ann.json(&["inbox", "--json"])?), ["welcome back"]);
    // There is one owner, so the member whose key is lost can be banned.
    team.ann.json(&["ban", "Ann", "--json"])?;
    Ok(())
}

#[tokio::test]
async fn a_copy_of_a_mesh_has_what_its_reader_may_read() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["state", "set", "build", "green", "--json"])?;
    team.ann.json(&["topic", "create", "plans", "--json"])?;
    for text in ["freeze at five", "no, at six"] {
        team.ann.json(&["topic", "post", "plans", text, "--json"])?;
    }
    // One thing of each feature that keeps something.
    std::fs::write(team.ann.project().join("deploy.md"), "Run the script")?;
    for args in [
        &["remember", "the port is 7900", "--tags", "ops"][..],
        &["context", "share", "writes the tests", "--files", "src/main.rs"],
        &["task", "create", "review it"],
        &["stream", "publish", "builds", "{\"green\": true}"],
        &["stream", "publish", "builds", "2"],
        &["skill", "share", "deploy.md", "--description", "How we deploy"],
        &["sql", "execute", "CREATE TABLE runs (id INTEGER); INSERT INTO runs VALUES (7)"],
        &["remind", "look at the build", "--in", "2h"],
    ] {
        team.ann.json(&[args, &["--json"]].concat())?;
    }
    team.bob.json(&["remind", "lunch", "--in", "3h", "--json"])?;
    let file = team.ann.project().join("team.json");
    let path = file.to_str().context("a path")?;
    let told = team.ann.json(&["mesh", "export", "team", "--out", path, "--json"])?;
    assert_eq!(told["leftOut"], 0);
    assert_eq!(claudemesh::files::mode_of(&file), Some(0o600));
    let copy: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    assert_eq!((&copy["mesh"]["slug"], copy["members"].as_array().map(Vec::len)), (&json!("team"), Some(2)));
    assert_eq!((&copy["state"][0]["key"], &copy["state"][0]["value"]), (&json!("build"), &json!("green")));
    let plans = &copy["topics"][0]["messages"];
    assert_eq!((&plans[0]["text"], &plans[1]["text"]), (&json!("freeze at five"), &json!("no, at six")));
    let of = |part: &str| &copy[part][0];
    assert_eq!((&of("memories")["content"], &of("memories")["tags"][0]), (&json!("the port is 7900"), &json!("ops")));
    assert_eq!(of("contexts")["filesRead"][0], "src/main.rs");
    assert_eq!((&of("tasks")["title"], &of("tasks")["status"]), (&json!("review it"), &json!("open")));
    let entries = &of("streams")["entries"];
    assert_eq!((&of("streams")["stream"]["name"], &entries[0]["data"]["green"]), (&json!("builds"), &json!(true)));
    assert_eq!((&entries[1]["data"], &entries[1]["offset"]), (&json!(2), &json!(1)));
    assert_eq!((&of("tables")["table"]["name"], &of("tables")["rows"]), (&json!("runs"), &json!([{"id": 7}])));
    let skill = of("skills");
    assert_eq!((&skill["skill"]["instructions"], &skill["signature"]), (&json!("Run the script"), &json!("verified")));
    // The owner sees that Bob has a reminder, and not what it says.
    let reminders = copy["schedules"].as_array().context("schedules")?;
    let texts: Vec<_> = reminders.iter().map(|row| (row["by"].as_str(), row["message"].as_str())).collect();
    assert_eq!(texts, [(Some("Ann"), Some("look at the build")), (Some("Bob"), Some(""))]);
    let rows =
        ["memories", "contexts", "tasks", "streams", "skills", "tables", "schedules", "topics", "state", "members"];
    assert_eq!(rows.map(|part| told["rows"][part].as_u64()), [1, 1, 1, 1, 1, 1, 2, 1, 1, 2].map(Some), "{told}");
    assert!(copy["audit"].as_array().is_some_and(|log| log[0]["eventType"] == "mesh_created"), "{}", copy["audit"]);
    let whole = copy.to_string();
    assert!(!whole.contains("secretKey") && copy["invites"][0].get("code").is_none(), "it lets nobody in");
    let bobs: Value = serde_json::from_str(&stdout(&team.bob.run(&["mesh", "export", "--out", "-"])?))?;
    assert_eq!((&bobs["state"][0]["key"], bobs.get("invites")), (&json!("build"), None));
    let missing: Vec<_> = bobs["leftOut"].as_array().into_iter().flatten().map(|part| &part["part"]).collect();
    assert_eq!(missing, ["schedules of others", "audit"], "{}", bobs["leftOut"]);
    let own = bobs["schedules"].as_array().context("schedules")?;
    assert_eq!((own.len(), &own[0]["message"]), (1, &json!("lunch")));
    assert_eq!(bobs["memories"][0]["content"], "the port is 7900");
    Ok(())
}

#[tokio::test]
async fn one_of_several_meshes_can_be_the_usual_one() -> Result<()> {
    let team = Team::start().await?;
    let url = team.broker.url();
    team.ann.json(&["create", "second", "--broker", &url, "--name", "Ann", "--json"])?;
    assert_eq!(refused(&team.ann, &["info", "--json"])?, (3, "which_mesh".into()));
    assert_eq!(team.ann.json(&["use", "--json"])?["mesh"], Value::Null);
    team.ann.json(&["use", "second", "--json"])?;
    assert_eq!(team.ann.json(&["info", "--json"])?["slug"], "second");
    let listed = team.ann.json(&["list", "--json=slug,default"])?;
    assert_eq!(listed, json!([{"slug": "team", "default": false}, {"slug": "second", "default": true}]));
    // What is said for one call comes first.
    assert_eq!(team.ann.json(&["info", "--mesh", "team", "--json"])?["slug"], "team");
    let of_variable = team.ann.command(&["info", "--json"]).env("CLAUDEMESH_MESH", "team").output()?;
    assert_eq!(serde_json::from_slice::<Value>(&of_variable.stdout)?["slug"], "team");
    assert_eq!(refused(&team.ann, &["use", "nowhere", "--json"])?, (5, "unknown_mesh".into()));
    // A default that was left is none.
    team.ann.json(&["leave", "second", "--yes", "--json"])?;
    team.ann.json(&["mesh", "rejoin", "second", "--json"])?;
    assert_eq!(team.ann.json(&["use", "--json"])?["mesh"], Value::Null);
    team.ann.json(&["use", "team", "--json"])?;
    team.ann.json(&["use", "--none", "--json"])?;
    assert_eq!(refused(&team.ann, &["info", "--json"])?, (3, "which_mesh".into()));
    Ok(())
}

/// `--mesh` is offered for every command, so it names the mesh of those as well that take it as an argument.
#[tokio::test]
async fn the_flag_names_the_mesh_where_an_argument_does() -> Result<()> {
    let team = Team::start().await?;
    for slug in ["garden", "cellar"] {
        team.ann.json(&["create", slug, "--broker", &team.broker.url(), "--name", "Ann", "--json"])?;
    }
    let renamed = team.ann.json(&["mesh", "rename", "--mesh", "garden", "bakery", "--json"])?;
    assert_eq!(renamed["slug"], "bakery");
    for (verb, state) in [("archive", "archived"), ("restore", "live")] {
        let changed = team.ann.json(
            &["mesh", verb, "--mesh", "bakery", "--json"]
                .iter()
                .copied()
                .chain((verb == "archive").then_some("--yes"))
                .collect::<Vec<_>>(),
        )?;
        assert_eq!((&changed["slug"], &changed["state"]), (&json!("bakery"), &json!(state)));
    }
    let two = ["leave", "team", "--mesh", "bakery", "--yes", "--json"];
    assert_eq!(refused(&team.ann, &two)?, (3, "invalid_args".into()));
    assert_eq!(refused(&team.ann, &["leave", "--yes", "--json"])?, (3, "invalid_args".into()), "three are joined");
    assert_eq!(refused(&team.ann, &["mesh", "delete", "--yes", "--json"])?, (3, "invalid_args".into()));
    team.ann.json(&["mesh", "delete", "--mesh", "cellar", "--yes", "--json"])?;
    assert_eq!(team.ann.json(&["leave", "--mesh", "bakery", "--yes", "--json"])?["slug"], "bakery");
    team.ann.json(&["mesh", "rejoin", "--mesh", "bakery", "--json"])?;
    assert_eq!(slugs(&team.ann)?, ["team", "bakery"]);
    // The only one needs no name; then the way back is told.
    assert_eq!(team.bob.json(&["leave", "--json"])?["slug"], "team");
    let none = team.bob.run(&["peers"])?;
    assert!(stderr(&none).contains("`claudemesh mesh rejoin team`"), "{}", stderr(&none));
    assert_eq!(refused(&team.bob, &["mesh", "delete", "--yes", "--json"])?.0, 3, "never by guess");
    Ok(())
}

/// Of several meshes the default is taken, and said.
#[tokio::test]
async fn a_command_about_the_default_mesh_names_it() -> Result<()> {
    let team = Team::start().await?;
    let alone = team.ann.run(&["state", "list"])?;
    assert!(!stderr(&alone).contains("the default"), "{}", stderr(&alone));
    team.ann.json(&["create", "garden", "--broker", &team.broker.url(), "--name", "Ann", "--json"])?;
    team.ann.json(&["use", "garden", "--json"])?;
    for args in [&["state", "list"][..], &["task", "list"], &["info"], &["invite"]] {
        let output = team.ann.run(args)?;
        let said = stderr(&output);
        assert_eq!(said.matches("In garden, the default; --mesh chooses another.").count(), 1, "{args:?}: {said}");
        assert!(output.status.success());
    }
    let named = team.ann.run(&["state", "list", "--mesh", "team"])?;
    assert!(!stderr(&named).contains("the default"), "{}", stderr(&named));
    Ok(())
}

/// An answer that is neither yes nor no is a no: what is typed next is not taken for another one.
#[tokio::test]
async fn an_unclear_answer_changes_nothing() -> Result<()> {
    let team = Team::start().await?;
    for (typed, code) in [("what?\r", 1), ("\r", 1), ("yes\r", 0)] {
        let mut terminal = Terminal::new(120)?;
        let mut command = team.ann.command(&["mesh", "archive", "team"]);
        command.env("TERM", "xterm").stdin(terminal.stdio()?).stdout(terminal.stdio()?).stderr(terminal.stdio()?);
        let mut child = command.spawn()?;
        terminal.wait_for("Archive team?")?;
        terminal.press(typed)?;
        assert_eq!(child.wait()?.code(), Some(code), "{typed:?}");
    }
    assert_eq!(team.ann.json(&["list", "--json=archived"])?, json!([{"archived": true}]));
    Ok(())
}
