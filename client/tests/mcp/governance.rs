//! Who may do what, and what is kept of it: capabilities and the audit log at the shell, against a real broker.

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::team::{Team, session, stderr, stdout};

fn row<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let rows = answer["members"].as_array().into_iter().flatten();
    rows.clone().find(|row| row["display_name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn the_owner_allows_denies_and_resets_at_the_shell() -> Result<()> {
    let team = Team::start().await?;
    let all = team.ann.json(&["permissions", "--json"])?;
    assert_eq!((&row(&all, "Ann")["is_owner"], &row(&all, "Bob")["role"]), (&json!(true), &json!("member")));
    assert_eq!(row(&all, "Bob")["permissions"]["canModerate"], false);
    assert_eq!(team.bob.run(&["kick", "Ann"])?.status.code(), Some(7));
    let change = ["permissions", "Bob", "--allow", "canModerate", "--deny", "canSend", "--json"];
    assert_eq!(team.bob.run(&change)?.status.code(), Some(7), "a member gives itself nothing");
    let changed = team.ann.json(&change)?;
    assert_eq!(row(&changed, "Bob")["overrides"], json!({"canModerate": true, "canSend": false}));
    assert_eq!(team.bob.run(&["kick", "Ann"])?.status.code(), Some(5), "allowed, and Ann is not there");
    let refused = team.bob.run(&["send", "Ann", "hello"])?;
    assert_eq!(refused.status.code(), Some(7));
    assert!(stderr(&refused).contains("canSend"), "{}", stderr(&refused));
    let own = team.bob.json(&["permissions", "--json"])?;
    assert_eq!(own["members"].as_array().map(Vec::len), Some(1), "members see themselves");
    assert_eq!(team.bob.run(&["permissions", "Ann"])?.status.code(), Some(7));
    let reset = team.ann.json(&["permissions", "Bob", "--reset", "canSend", "--json"])?;
    assert_eq!(row(&reset, "Bob")["overrides"], json!({"canModerate": true}));
    team.bob.json(&["send", "Ann", "hello", "--json"])?;
    let start = team.ann.json(&["permissions", "--default", "--deny", "canSend", "--json"])?;
    assert_eq!((&start["defaults"], &start["members"]), (&json!({"canSend": false}), &json!([])));
    assert_eq!(team.bob.run(&["send", "Ann", "hello"])?.status.code(), Some(7));
    let shown = stdout(&team.ann.run(&["permissions"])?);
    assert!(shown.starts_with("Plain members start with:  denied canSend\n"), "{shown}");
    assert!(shown.contains("everything, always") && shown.contains("allowed canModerate"), "{shown}");
    for (args, code) in [
        (&["permissions", "--allow", "canSend"][..], 3),
        (&["permissions", "Bob", "--allow", "canFly"], 3),
        (&["permissions", "Bob", "--allow", "canSend", "--deny", "canSend"], 3),
        (&["permissions", "Nobody", "--allow", "canSend"], 5),
        (&["permissions", "Ann", "--deny", "canSend"], 7),
    ] {
        assert_eq!(team.ann.run(args)?.status.code(), Some(code), "{args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_log_is_listed_verified_and_exported() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["permissions", "Bob", "--allow", "canModerate", "--json"])?;
    team.bob.json(&["topic", "create", "plans", "--json"])?;
    let all = team.ann.json(&["audit", "list", "--json"])?;
    let events: Vec<&str> = all.as_array().into_iter().flatten().filter_map(|row| row["eventType"].as_str()).collect();
    assert_eq!(events[..2], ["topic_created", "permissions_changed"], "{events:?}");
    assert_eq!((&all[0]["actor"], &all[1]["actor"]), (&json!("Bob"), &json!("Ann")));
    let own = team.bob.json(&["audit", "list", "--json"])?;
    assert!(own.as_array().into_iter().flatten().all(|row| row["actor"] == "Bob"), "{own}");
    let one = team.ann.json(&["audit", "list", "--event", "permissions_changed", "--json"])?;
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    let newest = all[0]["id"].as_i64().context("a place")?;
    let before = team.ann.json(&["audit", "list", "--before", &newest.to_string(), "--limit", "1", "--json"])?;
    assert_eq!((before.as_array().map(Vec::len), &before[0]["id"]), (Some(1), &json!(newest - 1)));
    let read = stdout(&team.ann.run(&["audit", "list"])?);
    assert!(read.contains("  topic_created  Bob  ") && !read.contains('{'), "{read}");
    // Why someone was banned is kept where owner and admins read it.
    assert_eq!(team.ann.run(&["ban", "Bob", "--reason", &"x".repeat(501)])?.status.code(), Some(3));
    team.ann.json(&["ban", "Bob", "--reason", " left the company ", "--json"])?;
    let ban = team.ann.json(&["audit", "list", "--event", "member_banned", "--json"])?;
    assert_eq!(ban[0]["payload"]["reason"], "left the company", "{ban}");
    team.ann.json(&["unban", "Bob", "--json"])?;
    let all = team.ann.json(&["audit", "list", "--json"])?;
    let newest = all[0]["id"].as_i64().context("a place")?;

    assert_eq!(
        team.bob.json(&["audit", "verify", "--json"])?,
        json!({"mesh": "team", "valid": true, "entries": newest})
    );
    let file = team.ann.home().join("log.jsonl");
    let saved = team.ann.json(&["audit", "export", "--out", file.to_str().context("utf-8")?, "--json"])?;
    assert_eq!((&saved["valid"], &saved["entries"]), (&json!(true), &json!(newest)));
    let text = std::fs::read_to_string(&file)?;
    assert_eq!(text.lines().count() as i64, newest);
    assert_eq!(stdout(&team.ann.run(&["audit", "export"])?), text);
    assert_eq!(team.bob.run(&["audit", "export"])?.status.code(), Some(7));
    Ok(())
}

/// Each verb sees its own fault: what is at the place of the head that was seen before, and who signed.
#[tokio::test]
async fn a_log_that_does_not_extend_the_head_seen_before_is_cried_out() -> Result<()> {
    let team = Team::start().await?;
    let first = team.bob.json(&["audit", "heads", "--json"])?;
    // The verb's own welcome told the same head.
    assert_eq!((&first["extends"], &first["seenSeq"]), (&json!(true), &first["seq"]));
    let health: Value = ureq::get(format!("{}/health", team.broker.base())).call()?.body_mut().read_json()?;
    assert_eq!(health["auditKey"], first["key"]);
    team.ann.json(&["topic", "create", "plans", "--json"])?;
    let later = team.bob.json(&["audit", "heads", "--json"])?;
    assert_eq!((&later["extends"], &later["seenSeq"]), (&json!(true), &first["seq"]));
    assert!(later["seq"].as_i64() > first["seq"].as_i64());

    let path = team.bob.config_dir().join("audit-heads.json");
    let kept = std::fs::read_to_string(&path)?;
    let with = |change: &dyn Fn(&mut Value)| -> Result<()> {
        let mut file: Value = serde_json::from_str(&kept)?;
        change(&mut file["heads"][0]);
        Ok(std::fs::write(&path, file.to_string())?)
    };
    type Change<'a> = &'a dyn Fn(&mut Value);
    let faults: [(Change<'_>, &str); 4] = [
        (&|head| head["hash"] = json!("00".repeat(32)), "written anew"),
        (&|head| (head["seq"], head["hash"]) = (json!(1), json!("00".repeat(32))), "written anew"),
        (&|head| head["seq"] = json!(99), "cut off"),
        (&|head| head["key"] = json!("ab".repeat(32)), "another key"),
    ];
    for (change, what) in faults {
        with(change)?;
        let before = std::fs::read_to_string(&path)?;
        for verb in ["verify", "heads"] {
            let output = team.bob.run(&["audit", verb, "--json"])?;
            assert_eq!(output.status.code(), Some(1), "{what}");
            let (said, answer): (_, Value) = (stderr(&output), serde_json::from_str(&stdout(&output))?);
            assert!(said.contains("IS NOT THE ONE THAT WAS SEEN BEFORE") && said.contains(what), "{said}");
            assert!(answer["fault"].as_str().is_some_and(|fault| fault.contains(what)), "{answer}");
        }
        assert_eq!(std::fs::read_to_string(&path)?, before, "the head that was seen stays");
    }
    with(&|_| {})?;
    assert_eq!(team.bob.json(&["audit", "verify", "--json"])?["valid"], true);
    Ok(())
}

/// The log of a broker loses its end while no one looks: anyone who was connected before says so at the next welcome.
#[tokio::test]
async fn a_broker_whose_log_was_cut_is_found_out_at_the_next_welcome() -> Result<()> {
    use diesel::prelude::*;

    let mut team = Team::start().await?;
    team.ann.json(&["topic", "create", "plans", "--json"])?;
    let seen = team.bob.json(&["audit", "heads", "--json"])?["seq"].as_i64().context("a head")?;
    // Ann never asked: her verbs keep what their welcome told first.
    let kept = |person: &CommandLine| -> Result<Value> {
        let text = std::fs::read_to_string(person.config_dir().join("audit-heads.json"))?;
        Ok(serde_json::from_str::<Value>(&text)?["heads"][0]["seq"].clone())
    };
    assert!(kept(&team.ann)?.as_i64().is_some_and(|seq| seq >= 1));
    assert!(!stderr(&team.bob.run(&["peers"])?).contains("AUDIT LOG"));

    let (before, data) = (team.broker.address().port(), team.broker.data_dir().join("claudemesh.db"));
    team.broker.stop();
    let mut database = SqliteConnection::establish(data.to_str().context("utf-8")?)?;
    diesel::sql_query("DELETE FROM audit_log WHERE seq > 1").execute(&mut database)?;
    drop(database);
    team.broker.restart().await?;
    for person in [&team.ann, &team.bob] {
        let path = person.config_dir().join("config.json");
        let after = team.broker.address().port();
        let text = std::fs::read_to_string(&path)?.replace(&format!(":{before}"), &format!(":{after}"));
        std::fs::write(&path, text)?;
    }

    let mut bob = session(&team.bob, "bob-1", "BobS").await?;
    let note = bob.channel_with("[audit]").await?;
    assert!(note.content.contains("was cut off") && note.meta["kind"] == "audit_fault", "{}", note.content);
    let peers = team.ann.run(&["peers"])?;
    let said = stderr(&peers);
    assert_eq!(peers.status.code(), Some(0));
    assert!(said.contains("IS NOT THE ONE THAT WAS SEEN BEFORE") && said.contains("cut off"), "{said}");
    assert_eq!(kept(&team.bob)?, seen, "what was seen stays");
    bob.end().await?;
    Ok(())
}

/// A member without the owner's key invites, once it may: members only, and only as long as it may.
#[tokio::test]
async fn a_member_that_may_invite_makes_lists_and_revokes_invites() -> Result<()> {
    let team = Team::start().await?;
    for args in [&["invite"][..], &["invite", "--list"], &["invite", "--revoke", "NXPE2345"]] {
        let refused = team.bob.run(args)?;
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(7), "{said}");
        assert!(said.contains("capability canInvite") && said.contains("--allow canInvite"), "{said}");
    }
    team.ann.json(&["permissions", "Bob", "--allow", "canInvite", "--json"])?;
    let invite = team.bob.json(&["invite", "--uses", "3", "--json"])?;
    super::json::fits("invite", &invite)?;
    assert_eq!((&invite["role"], &invite["v1_url"]), (&json!("member"), &Value::Null));
    let link = invite["url"].as_str().context("a link")?;
    let carl = super::team::program()?;
    let joined = carl.json(&["join", link, "--name", "Carl", "--json"])?;
    assert_eq!((&joined["role"], &joined["name"]), (&json!("member"), &json!("Carl")));
    carl.json(&["send", "Ann", "I am in", "--json"])?;
    let log = team.ann.json(&["audit", "list", "--event", "invite_created", "--json"])?;
    assert_eq!(log[0]["actor"], "Bob", "{log}");
    let admin = team.bob.run(&["invite", "--role", "admin"])?;
    assert_eq!(admin.status.code(), Some(7));
    assert!(stderr(&admin).contains("nly the owner invites admins"), "{}", stderr(&admin));
    // Both see it, and either may revoke it.
    let code = invite["code"].as_str().context("a code")?;
    for person in [&team.ann, &team.bob] {
        let list = person.json(&["invite", "--list", "--json"])?;
        let found = list.as_array().into_iter().flatten().find(|one| one["code"] == code).context("listed")?;
        assert_eq!(found["used_count"], 1, "{found}");
    }
    let other = team.bob.json(&["invite", "--json"])?;
    let revoked = team.bob.json(&["invite", "--revoke", other["code"].as_str().context("a code")?, "--json"])?;
    assert_eq!(revoked["revoked"], true);
    // What it made is worth no more than it is now.
    team.ann.json(&["permissions", "Bob", "--reset", "canInvite", "--json"])?;
    let late = super::team::program()?.run(&["join", link, "--name", "Late", "--json"])?;
    let answer: Value = serde_json::from_slice(&late.stdout)?;
    assert_eq!((late.status.code(), &answer["error"]), (Some(2), &json!("invite_revoked")), "{answer}");
    Ok(())
}
