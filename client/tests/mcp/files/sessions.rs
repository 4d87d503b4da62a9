//! Files in running sessions: notes, tools, attachments, keys for members that come later.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{bytes, carl, file, id_of, names, read, refused, share};
use crate::in_process::Session;
use crate::json;
use crate::team::{Team, session, stdout, until};

#[tokio::test]
async fn a_session_is_told_of_a_file_and_reads_it() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let mut bobs = session(bob, "bob-1", "BobS").await?;
    file(ann, "plan.txt", "the plan")?;
    let name = "plan\" [x].txt";
    let id = id_of(&share(ann, &["plan.txt", "--name", name, "--to", "Bob", "--tags", "q3"])?)?;
    let note = bobs.channel_with("[file] Ann shared").await?;
    assert_eq!(
        note.content,
        format!("[file] Ann shared \"plan' [x].txt\" [q3] (8 B) with you: get_file with id {} reads it", &id[..8])
    );
    assert_eq!((note.meta["kind"].as_str(), note.meta["file_id"].as_str()), ("file_shared", id.as_str()));
    let got = bobs.tool("get_file", json!({"id": &id[..8], "save_to": "."})).await?;
    assert!(!got.is_error && got.text.contains("decrypted, signed by its sharer"), "{}", got.text);
    assert_eq!(got.structured["saved_to"], json!(bob.project().join("plan_ [x].txt")));
    assert_eq!(read(bob, "plan_ [x].txt")?, b"the plan");
    let again = bobs.tool("get_file", json!({"id": id, "save_to": "plan_ [x].txt"})).await?;
    assert!(again.is_error && again.text.contains("exists already"), "{}", again.text);
    assert!(!bobs.tool("get_file", json!({"id": id, "save_to": ".", "replace": true})).await?.is_error);

    // What the user's rule keeps away is not told. The next note shows that it did not come late.
    let members = bob.json(&["members", "--json"])?;
    let ann_row = members.as_array().into_iter().flatten().find(|row| row["name"] == "Ann").context("Ann")?;
    let key = ann_row["pubkey"].as_str().context("a key")?.to_owned();
    bob.json(&["inbound", "set", "refuse", "--from", &key, "--json"])?;
    share(ann, &["plan.txt", "--to", "Bob", "--name", "refused.txt"])?;
    bob.json(&["inbound", "reset", "--json"])?;
    until("it is in the list", || Ok((names(bob, &["refused"])? != json!([])).then_some(()))).await?;
    share(ann, &["plan.txt", "--to", "Bob", "--name", "told.txt"])?;
    bobs.channel_with("told.txt").await?;
    assert!(!bobs.untaken().iter().any(|note| note.content.contains("refused.txt")));
    Ok(())
}

#[tokio::test]
async fn tools_share_list_grant_revoke_and_delete() -> Result<()> {
    let team = Team::start().await?;
    let carl = carl(&team)?;
    let (anns, bobs) = (Session::start(&team.ann, "AnnS").await?, Session::start(&team.bob, "BobS").await?);
    file(&team.ann, "data.csv", "a,b\n")?;
    let shared = anns
        .call("share_file", json!({"path": "data.csv", "to": "Bob", "tags": ["t"], "expires": "2h", "name": "d.csv"}))
        .await?;
    let id = shared.structured["id"].as_str().context("an id")?.to_owned();
    assert_eq!(
        (&shared.structured["readers"], &shared.structured["encrypted"]),
        (&json!(1), &json!(true)),
        "{}",
        shared.text
    );
    assert!(shared.structured["expires_at"].is_string());
    for (args, count) in
        [(json!({}), 1), (json!({"query": "D.c"}), 1), (json!({"tag": "T"}), 1), (json!({"query": "x"}), 0)]
    {
        let listed = bobs.call("list_files", args.clone()).await?;
        assert_eq!(listed.structured["files"].as_array().map(Vec::len), Some(count), "{args}: {}", listed.text);
    }
    assert_eq!(refused(&carl, &["file", "get", &id])?.0, 7);
    let granted = anns.call("grant_file_access", json!({"fileId": id, "to": "Carl"})).await?;
    assert!(!granted.is_error, "{}", granted.text);
    carl.json(&["file", "get", &id, "--json"])?;
    let status = anns.call("file_status", json!({"id": id})).await?;
    assert!(status.text.contains("Carl") && status.text.contains("readers: "), "{}", status.text);
    let not_hers = bobs.call("grant_file_access", json!({"fileId": id, "to": "Carl"})).await?;
    assert!(not_hers.is_error, "{}", not_hers.text);
    assert!(!anns.call("revoke_file_access", json!({"fileId": id, "to": "Carl"})).await?.is_error);
    assert_eq!(refused(&carl, &["file", "get", &id, "--out", "again"])?.0, 7);
    assert!(bobs.call("delete_file", json!({"id": id})).await?.is_error);
    assert!(!anns.call("delete_file", json!({"id": id})).await?.is_error);
    let gone = bobs.call("get_file", json!({"id": id, "save_to": "."})).await?;
    assert!(gone.is_error && gone.text.starts_with("get_file: "), "{}", gone.text);
    let plain = anns.call("share_file", json!({"path": "data.csv", "plain": true})).await?;
    assert_eq!(plain.structured["encrypted"], false);
    Ok(())
}

#[tokio::test]
async fn files_travel_with_messages() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let mut bobs = session(bob, "bob-1", "BobS").await?;
    let large = bytes(100_000);
    file(ann, "small.txt", "a few words")?;
    file(ann, "large.bin", &large)?;
    ann.json(&["send", "BobS", "have a look", "--attach", "small.txt", "--attach", "large.bin", "--json"])?;
    let note = bobs.channel_with("have a look").await?;
    let saved = note.content.split(" at ").nth(1).and_then(|rest| rest.split(']').next()).context("a path")?;
    assert_eq!(std::fs::read_to_string(saved)?, "a few words", "{}", note.content);
    let id = note.content.split("file get ").nth(1).and_then(|rest| rest.split('`').next()).context("an id")?;
    assert!(note.content.contains("[attached: large.bin, 100.0 kB; get_file or "), "{}", note.content);
    bobs.tool("get_file", json!({"id": id, "save_to": "large.bin"})).await?;
    assert!(read(bob, "large.bin")? == large);
    assert!(!bobs.untaken().iter().any(|note| note.content.starts_with("[file]")), "the message tells of it");
    let kept = ann.json(&["file", "list", "large", "--json"])?;
    assert!(kept[0]["expiresAt"].is_string() && kept[0]["persistent"] == false, "it ends with the message: {kept}");

    // Of the tool, to two; and to a group, whose messages the broker can read.
    let anns = Session::start(ann, "AnnS").await?;
    let sent = anns.call("send_message", json!({"to": "Bob", "message": "", "file": ["small.txt"]})).await?;
    assert!(!sent.is_error, "{}", sent.text);
    let message = until("it is there", || {
        let list = bob.json(&["inbox", "--all", "--json"])?;
        let rows = list.as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().find(|row| row["attachments"][0]["name"] == "small.txt" && row["plaintext"] == ""))
    })
    .await?;
    json::fits("inbox", &json!([message]))?;
    let saved = message["attachments"][0]["saved"].as_str().context("a path")?;
    assert_eq!(std::fs::read_to_string(saved)?, "a few words");
    bob.json(&["group", "join", "@qa", "--member", "--json"])?;
    ann.json(&["send", "@qa", "for all of you", "--attach", "small.txt", "--json"])?;
    let note = bobs.channel_with("for all of you").await?;
    assert!(note.content.contains("[attached: a file, 11 B; get_file or "), "{}", note.content);

    // A text that no message can hold.
    file(ann, "text", "long ".repeat(300_000))?;
    ann.json(&["send", "Bob", "--file", "text", "--json"])?;
    let list = until("it is there", || {
        let list = bob.json(&["inbox", "--all", "--json"])?;
        let rows = list.as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().find(|row| row["attachments"][0]["name"] == "message.txt"))
    })
    .await?;
    let id = list["attachments"][0]["id"].as_str().context("an id")?;
    bob.json(&["file", "get", id, "--json"])?;
    assert_eq!(read(bob, "message.txt")?, "long ".repeat(300_000).trim_end_matches('\n').as_bytes());
    let missing = ann.run(&["send", "Bob", "x", "--attach", "none", "--json"])?;
    assert_eq!(serde_json::from_str::<Value>(&stdout(&missing))?["error"], "not_found");
    Ok(())
}

#[tokio::test]
async fn a_member_that_joins_a_group_later_gets_the_key_and_no_one_else() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob, carl) = (&team.ann, &team.bob, carl(&team)?);
    bob.json(&["group", "join", "@docs", "--member", "--json"])?;
    file(ann, "a.txt", "hello")?;
    let id = id_of(&share(ann, &["a.txt", "--to", "@docs"])?)?;
    bob.json(&["file", "get", &id, "--json"])?;
    carl.json(&["group", "join", "@docs", "--member", "--json"])?;
    // No one is there to seal it.
    assert_eq!(refused(&carl, &["file", "get", &id])?, (7, "no_file_key".into()));
    let _anns = session(ann, "ann-1", "AnnS").await?;
    // The broker asks the same of the sharer's sessions once a minute.
    team.broker.advance(std::time::Duration::from_secs(61));
    assert_eq!(carl.json(&["file", "get", &id, "--json"])?["sizeBytes"], 5);
    Ok(())
}
