//! Names and owners, and groups of people, as a stranger meets them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::in_process::Session;
use crate::team::{Team, program, session, stderr, stdout, texts, until};

fn peers_text(person: &claudemesh_testkit::cli::CommandLine) -> Result<String> {
    Ok(stdout(&person.run(&["peers"])?))
}

#[tokio::test]
async fn a_session_is_written_with_its_member_host_and_folder() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "api").await?;
    let mut bob = session(&team.bob, "bob-1", "api").await?;
    // Two sessions of one name: candidates in text, and the address tells them apart.
    let both = team.ann.run(&["send", "api", "which?"])?;
    assert_eq!(both.status.code(), Some(3), "{}", stderr(&both));
    let folder = team.bob.project().to_string_lossy().into_owned();
    for part in ["Ann/api", "Bob/api", "connected", folder.as_str()] {
        assert!(stderr(&both).contains(part), "{part}: {}", stderr(&both));
    }
    let sent = team.ann.run(&["send", "Bob/api", "to the session", "--json"])?;
    let sent: Value = serde_json::from_slice(&sent.stdout)?;
    assert_eq!((&sent["address"], &sent["recipients"][0]["memberName"]), (&json!("Bob/api"), &json!("Bob")), "{sent}");
    let id = sent["messageId"].as_str().context("an id")?;
    let note = bob.channel_with("to the session").await?;
    assert_eq!(note.meta["from_name"], "Ann");
    bob.tool("send_message", json!({"to": "Ann/api", "message": "hello owner"})).await?;
    let note = ann.channel_with("hello owner").await?;
    assert_eq!((note.meta["from_name"].as_str(), note.meta["from_folder"].as_str()), ("Bob/api", folder.as_str()));
    assert!(!note.meta["from_host"].is_empty(), "{:?}", note.meta);
    let status = team.ann.json(&["msg-status", id, "--json"])?;
    let receipt = &status["recipients"][0];
    assert_eq!(
        (&receipt["memberName"], &receipt["name"], &receipt["cwd"]),
        (&json!("Bob"), &json!("api"), &json!(folder))
    );
    let shown = stdout(&team.ann.run(&["msg-status", id])?);
    assert!(shown.contains("→ Bob/api") && shown.contains(&folder), "{shown}");
    // Whose they are: in a shell both of Ann's are hers, and none is this one.
    let text = peers_text(&team.ann)?;
    assert!(text.contains("Ann/api idle (yours)") && text.contains("Bob/api idle"), "{text}");
    assert!(text.contains(&format!(":{folder}")) && !text.contains("(this session)"), "{text}");
    let listed = ann.tool("list_peers", json!({})).await?;
    assert!(listed.text.contains("**Ann/api** [idle] [this session]"), "{}", listed.text);
    let data = listed.structured;
    for row in data["meshes"][0]["peers"].as_array().context("peers")? {
        let length = row.to_string().len();
        assert!(length < 400, "{length}: {row}");
        let long = row
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| value.as_str().is_some_and(|text| text.len() == 64));
        assert_eq!(long.count(), 1, "one key is enough: {row}");
    }
    Ok(())
}

#[tokio::test]
async fn sessions_that_ended_make_no_name_ambiguous() -> Result<()> {
    let team = Team::start().await?;
    for id in ["bob-1", "bob-2"] {
        let ended = session(&team.bob, id, "web").await?;
        ended.end().await?;
    }
    // Both are away: the member is meant, and the first that returns gets it.
    let sent = team.ann.json(&["send", "web", "for whoever returns", "--json"])?;
    assert_eq!(sent["ok"], true, "{sent}");
    let mut back = session(&team.bob, "bob-3", "web").await?;
    back.channel_with("for whoever returns").await?;
    // The one that is here wins over those that are not.
    let sent = team.ann.json(&["send", "Bob/web", "for the living", "--json"])?;
    assert_eq!((&sent["address"], &sent["online"]), (&json!("Bob/web"), &json!(1)), "{sent}");
    back.channel_with("for the living").await?;
    Ok(())
}

#[tokio::test]
async fn a_renamed_member_and_session_answer_to_both_names() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "web").await?;
    let mut bob = session(&team.bob, "bob-1", "api").await?;
    let renamed = team.bob.json(&["rename", "session", "server", "--session", "bob-1", "--json"])?;
    assert_eq!((&renamed["address"], &renamed["formerName"]), (&json!("Bob/server"), &json!("api")), "{renamed}");
    let note = ann.channel_with("is called").await?;
    assert!(note.content.contains("api is called Bob/server now"), "{}", note.content);
    let renamed = team.bob.json(&["rename", "member", "Robert", "--json"])?;
    assert_eq!((&renamed["kind"], &renamed["name"]), (&json!("member"), &json!("Robert")), "{renamed}");
    for (at, name) in ["Robert/server", "Robert/api", "Bob/api", "server", "api", "Bob", "Robert"].iter().enumerate() {
        let text = format!("to {at}");
        let sent = team.ann.json(&["send", name, &text, "--json"])?;
        assert_eq!(sent["online"], 1, "{name}: {sent}");
        bob.channel_with(&text).await?;
    }
    // The owner is an admin and more; a member renames no one else.
    assert_eq!(team.ann.json(&["rename", "member", "Rob", "--who", "Robert", "--json"])?["name"], "Rob");
    let refused = team.bob.run(&["rename", "member", "Anne", "--who", "Ann"])?;
    assert_eq!(refused.status.code(), Some(7), "{}", stderr(&refused));
    let alike = team.bob.run(&["rename", "member", "Аnn"])?;
    assert!(
        alike.status.success() && stderr(&alike).contains("looks like the name of another member: Ann"),
        "{}",
        stderr(&alike)
    );
    let bad = team.bob.run(&["rename", "member", "\u{3164}"])?;
    assert_eq!(bad.status.code(), Some(3), "{}", stderr(&bad));
    Ok(())
}

#[tokio::test]
async fn whoami_says_which_member_and_which_session() -> Result<()> {
    let team = Team::start().await?;
    let who = team.ann.json(&["whoami", "--json"])?;
    assert_eq!(
        (&who[0]["mesh"], &who[0]["name"], &who[0]["role"], &who[0]["ownsMesh"], &who[0]["session"]),
        (&json!("team"), &json!("Ann"), &json!("owner"), &json!(true), &Value::Null)
    );
    let shown = stdout(&team.ann.run(&["whoami"])?);
    assert!(shown.contains("team: Ann owner") && shown.contains("no session"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn members_have_roles_are_removed_and_take_over_the_mesh() -> Result<()> {
    let team = Team::start().await?;
    let list = team.ann.json(&["members", "--json"])?;
    let mut told: Vec<_> =
        list.as_array().into_iter().flatten().map(|row| (row["name"].as_str(), row["role"].as_str())).collect();
    // They joined in the same millisecond.
    told.sort_unstable();
    assert_eq!(told, [(Some("Ann"), Some("owner")), (Some("Bob"), Some("member"))]);
    assert!(stdout(&team.ann.run(&["members"])?).contains("Ann owner (you)"));
    assert_eq!(team.bob.run(&["members", "role", "Bob", "admin"])?.status.code(), Some(7));
    assert_eq!(team.ann.json(&["members", "role", "Bob", "admin", "--json"])?["role"], "admin");
    // Removed, and back with an invite; a ban would keep the key out.
    let unasked = team.ann.run(&["members", "remove", "Bob"])?;
    assert_eq!(unasked.status.code(), Some(3), "nobody can be asked: {}", stderr(&unasked));
    assert_eq!(team.ann.json(&["members", "remove", "Bob", "--yes", "--json"])?["name"], "Bob");
    assert_eq!(team.ann.json(&["members", "--json"])?.as_array().map(Vec::len), Some(1));
    assert_eq!(team.ann.json(&["bans", "--json"])?, json!([]));
    let gone = team.bob.run(&["peers"])?;
    // Removed is not banned: another word, and another way back.
    assert_eq!(gone.status.code(), Some(7), "{}", stdout(&gone));
    let told = stderr(&gone);
    assert!(told.contains("you were removed") && told.contains("claudemesh join <link>"), "{told}");
    assert!(!told.to_lowercase().contains("bann"), "{told}");
    let gone: Value = serde_json::from_slice(&team.bob.run(&["send", "Ann", "hi", "--json"])?.stdout)?;
    assert_eq!(gone["error"], "member_removed", "{gone}");
    let examined = stdout(&team.bob.run(&["doctor"])?);
    assert!(examined.contains("no member any more") && !examined.contains("banned"), "{examined}");
    // The owner changes, and the new one invites with its own key.
    let carl = program()?;
    let url = team.ann.json(&["invite", "--json"])?["url"].as_str().context("a link")?.to_owned();
    carl.json(&["join", &url, "--name", "Carl", "--json"])?;
    let stale = team.ann.json(&["invite", "--json"])?["url"].as_str().context("a link")?.to_owned();
    assert_eq!(team.ann.json(&["members", "transfer", "Carl", "--yes", "--json"])?["role"], "owner");
    assert_eq!(team.ann.json(&["whoami", "--json"])?[0]["role"], "admin");
    // An admin may invite with the key of the member, and admins are for the owner to invite.
    assert_eq!(team.ann.json(&["invite", "--json"])?["v1_url"], Value::Null);
    assert_eq!(team.ann.run(&["invite", "--role", "admin"])?.status.code(), Some(7));
    let dora = program()?;
    assert!(!dora.run(&["join", &stale, "--name", "Dora"])?.status.success(), "the former owner signed that");
    let url = carl.json(&["invite", "--json"])?["url"].as_str().context("a link")?.to_owned();
    dora.json(&["join", &url, "--name", "Dora", "--json"])?;
    let events = carl.json(&["audit", "list", "--json"])?.to_string();
    for event in ["member_removed", "mesh_transferred", "member_changed"] {
        assert!(events.contains(event), "{event}: {events}");
    }
    Ok(())
}

#[tokio::test]
async fn a_member_is_in_a_group_without_a_session_and_while_it_is_away() -> Result<()> {
    let team = Team::start().await?;
    // No session anywhere, and nothing depends on whether a shell was here a moment ago.
    let joined = team.bob.json(&["group", "join", "@frontend", "--as", "lead", "--json"])?;
    assert_eq!((&joined["member"], &joined["sessions"]), (&json!(true), &json!(0)), "{joined}");
    team.bob.json(&["inbox", "--json"])?;
    let list = team.ann.json(&["group", "list", "--json"])?;
    let row = &list[0]["members"][0];
    assert_eq!(
        (
            &list[0]["group"],
            &row["kind"],
            &row["name"],
            &row["as"],
            &row["waits"],
            list[0]["members"].as_array().map(Vec::len)
        ),
        (&json!("frontend"), &json!("member"), &json!("Bob"), &json!("lead"), &json!(true), Some(1))
    );
    assert_eq!(team.ann.json(&["group", "list", "--json"])?, list);
    let sent = team.ann.json(&["send", "@frontend", "freeze at five", "--json"])?;
    assert_eq!((&sent["ok"], &sent["waiting"]), (&json!(true), &json!(1)), "{sent}");
    assert_eq!(texts(&team.bob.json(&["inbox", "--json"])?), ["freeze at five"]);
    // A shell leaves no ghost: not in the list, and a write for all sessions finds none.
    assert_eq!(team.ann.json(&["peers", "--json"])?, json!([]));
    let nobody = team.bob.run(&["status", "set", "dnd"])?;
    assert_eq!(nobody.status.code(), Some(5), "{}", stderr(&nobody));
    let mut bob = session(&team.bob, "bob-1", "api").await?;
    let one = team.bob.json(&["summary", "here", "--json"])?;
    assert_eq!(one["sessions"], 1, "{one}");
    // With a session it is the session's as well, and both are told apart.
    team.ann.json(&["send", "@frontend", "to all of Bob", "--json"])?;
    bob.channel_with("to all of Bob").await?;
    assert!(stdout(&team.ann.run(&["group", "list"])?).contains("Bob as lead (member, for good)"));
    assert_eq!(team.bob.json(&["group", "leave", "@frontend", "--member", "--json"])?["left"], true);
    let again = team.bob.run(&["group", "leave", "@frontend", "--member"])?;
    assert_eq!(again.status.code(), Some(5), "{}", stderr(&again));
    team.bob.json(&["group", "join", "@qa", "--member", "--json"])?;
    for bad in ["bad name", "a;b", ""] {
        let refused = team.bob.run(&["group", "join", bad])?;
        assert_eq!(refused.status.code(), Some(3), "{bad:?}: {}", stderr(&refused));
    }
    Ok(())
}

#[tokio::test]
async fn a_message_to_a_session_that_has_ended_names_the_member_that_can_be_reached() -> Result<()> {
    // Shorter than the time by which two clocks may differ.
    let team = Team::start_with(|config| config.connections.lease_seconds = 5).await?;
    let bob = session(&team.bob, "bob-1", "tests").await?;
    let before = team.ann.json(&["send", "tests", "before its end", "--json"])?;
    assert_eq!((&before["sessionEnded"], &before["reachWith"]), (&json!(false), &Value::Null), "{before}");
    bob.end().await?;
    until("the session is gone", || {
        let peers = team.ann.json(&["peers", "--json"])?;
        Ok(peers.as_array().context("a list")?.is_empty().then_some(()))
    })
    .await?;
    team.broker.advance(Duration::from_secs(6));
    let sent = team.ann.json(&["send", "tests", "for the session", "--json"])?;
    assert_eq!((&sent["sessionEnded"], &sent["reachWith"]), (&json!(true), &json!("Bob")), "{sent}");
    assert_eq!((&sent["waiting"], &sent["recipients"][0]["ended"]), (&json!(1), &json!(true)), "{sent}");
    let words = "this session has ended and gets the message only if it is resumed; `Bob` reaches the member";
    let shown = stdout(&team.ann.run(&["send", "tests", "again"])?);
    assert!(shown.contains(words), "{shown}");
    let ann = Session::start(&team.ann, "AnnS").await?;
    let answer = ann.call("send_message", json!({"to": "tests", "message": "from a tool"})).await?;
    assert!(answer.text.contains(words), "{}", answer.text);
    // As it says: the name reaches the member, and what was for the session does not.
    let sent = team.ann.json(&["send", "Bob", "for Bob", "--json"])?;
    assert_eq!((&sent["sessionEnded"], &sent["waiting"]), (&json!(false), &json!(1)), "{sent}");
    let inbox = team.bob.json(&["inbox", "--json"])?;
    let got = texts(&inbox);
    assert_eq!(got.last(), Some(&"for Bob"), "{got:?}");
    assert!(!["for the session", "again", "from a tool"].iter().any(|text| got.contains(text)), "{got:?}");
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_and_given_to_no_second_member() -> Result<()> {
    let team = Team::start().await?;
    let url = team.ann.json(&["invite", "--uses", "5", "--json"])?["url"].as_str().context("a link")?.to_owned();
    let other = program()?;
    let joined = other.run(&["join", &url, "--name", "ann"])?;
    let told = stdout(&joined);
    assert!(joined.status.success(), "joining never fails for a name: {}", stderr(&joined));
    assert!(told.contains("another member is called ann, so you are ann-2"), "{told}");
    assert_eq!(other.json(&["whoami", "--json"])?[0]["name"], "ann-2");
    // The name means one member, so a message finds her.
    assert_eq!(team.bob.json(&["send", "Ann", "hi", "--json"])?["name"], "Ann");
    let refused = other.run(&["rename", "member", "Bob"])?;
    assert_eq!(refused.status.code(), Some(6), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("nother member of this mesh is called `Bob`"), "{}", stderr(&refused));
    let refused: Value = serde_json::from_slice(&other.run(&["rename", "member", "BOB", "--json"])?.stdout)?;
    assert_eq!(refused["error"], "name_taken", "{refused}");
    // A second attempt with another name says how to get it.
    let again = stdout(&other.run(&["join", &url, "--name", "Carl"])?);
    assert!(again.contains("as ann-2, not as Carl: `claudemesh rename member Carl`"), "{again}");
    other.json(&["rename", "member", "Carl", "--json"])?;
    let listed = stdout(&other.run(&["members"])?);
    assert!(listed.contains("formerly ann-2") && !listed.contains("a day ago"), "{listed}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_recipient_is_looked_for_in_the_other_meshes() -> Result<()> {
    let team = Team::start().await?;
    let broker = team.broker.url();
    team.ann.json(&["create", "kitchen", "--broker", &broker, "--name", "Ann", "--json"])?;
    team.ann.json(&["use", "kitchen", "--json"])?;
    let refused = team.ann.run(&["send", "Bob", "hi"])?;
    let told = stderr(&refused);
    assert_eq!(refused.status.code(), Some(5), "{told}");
    assert!(told.contains("Only kitchen was searched; team knows Bob: add --mesh team."), "{told}");
    let refused = team.ann.run(&["send", "Nobody,Bob", "hi"])?;
    assert!(stderr(&refused).contains("team knows Bob"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("claudemesh peers --all"), "{}", stderr(&refused));
    // With one mesh the advice is the list that has shells as well.
    let refused = stderr(&team.bob.run(&["send", "Nobody", "hi"])?);
    assert!(refused.contains("`claudemesh peers --all`"), "{refused}");
    // Everyone means those who are connected: that no one is, is not that no one is in the mesh.
    let alone = stderr(&team.bob.run(&["send", "*", "hi"])?);
    assert!(alone.contains("No one else is connected to the mesh"), "{alone}");
    Ok(())
}

#[tokio::test]
async fn someone_at_a_shell_was_seen() -> Result<()> {
    let team = Team::start().await?;
    team.bob.json(&["peers", "--json"])?;
    let listed = team.ann.json(&["members", "--json"])?;
    let bob = listed.as_array().into_iter().flatten().find(|row| row["name"] == "Bob").context("Bob is a member")?;
    assert!(bob["lastSeenAt"].is_string(), "{bob}");
    Ok(())
}
