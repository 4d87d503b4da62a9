//! The vault at the shell and in a session, against a real broker: what comes back, what never leaves this machine in plain.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::in_process::Session;
use super::team::{Team, stderr, stdout};

const CANARY: &str = "canary-5b1e-plain-value";

/// A command that gets a value on its standard input.
fn piped(person: &CommandLine, args: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = person.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(input)?;
    Ok(child.wait_with_output()?)
}

fn refused(person: &CommandLine, args: &[&str]) -> Result<(i32, String)> {
    let output = person.run(&[args, &["--json"]].concat())?;
    let answer: Value = serde_json::from_str(&stdout(&output)).with_context(|| stderr(&output))?;
    Ok((output.status.code().unwrap_or(-1), answer["error"].as_str().unwrap_or_default().to_owned()))
}

/// Files below a folder that hold these bytes.
fn files_with(folder: &Path, wanted: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted)?);
        } else if path.is_file() && std::fs::read(&path)?.windows(wanted.len()).any(|part| part == wanted) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_value_comes_from_standard_input_or_a_file_and_comes_back_as_it_was() -> Result<()> {
    let team = Team::start().await?;
    let ann = &team.ann;
    let stored = piped(
        ann,
        &["vault", "set", "TOKEN", "-", "--description", "reads", "--json"],
        format!("{CANARY}\n").as_bytes(),
    )?;
    let answer: Value = serde_json::from_str(&stdout(&stored)).with_context(|| stderr(&stored))?;
    assert_eq!(answer, json!({"mesh": "team", "key": "TOKEN", "stored": true, "type": "env"}));
    assert_eq!(stdout(&ann.run(&["vault", "get", "TOKEN"])?), format!("{CANARY}\n"));
    // Without a dash, too: who pipes something in means it.
    piped(ann, &["vault", "set", "OTHER"], b"two\r\n")?;
    assert_eq!(ann.json(&["vault", "get", "OTHER", "--json=value"])?["value"], "two");
    let bytes = [0_u8, 159, 146, 150, 10];
    std::fs::write(ann.project().join("key.bin"), bytes)?;
    ann.json(&["vault", "set", "tls.key", "--file", "key.bin", "--mount", "/etc/tls/key", "--json"])?;
    let got = ann.json(&["vault", "get", "tls.key", "--json"])?;
    assert_eq!(
        (&got["type"], &got["mountPath"], &got["signature"]),
        (&json!("file"), &json!("/etc/tls/key"), &json!("verified"))
    );
    assert_eq!((&got["value"], &got["valueBase64"]), (&Value::Null, &json!("AJ+Slgo=")));
    let saved = ann.json(&["vault", "get", "tls.key", "--out", "copy.bin", "--json"])?;
    assert_eq!((&saved["savedTo"], &saved["valueBase64"]), (&json!("copy.bin"), &Value::Null));
    let copy = ann.project().join("copy.bin");
    assert_eq!((std::fs::read(&copy)?, claudemesh::files::mode_of(&copy)), (bytes.to_vec(), Some(0o600)));
    ann.json(&["vault", "set", "plain", "--file", "key.bin", "--type", "env", "--json"])?;
    let rows = ann.json(&["vault", "list", "--json=key,entry_type,mount_path,description"])?;
    assert_eq!(rows[1], json!({"key": "TOKEN", "entry_type": "env", "mount_path": null, "description": "reads"}));
    assert_eq!((&rows[2]["entry_type"], &rows[3]["mount_path"]), (&json!("env"), &json!("/etc/tls/key")));
    let shown = stdout(&ann.run(&["vault", "list"])?);
    assert!(
        shown.contains("TOKEN  env · ") && shown.contains("  reads\n") && shown.contains("file at /etc/tls/key"),
        "{shown}"
    );
    assert!(!shown.contains(CANARY), "{shown}");
    assert_eq!(
        ann.json(&["vault", "delete", "TOKEN", "--json"])?,
        json!({"mesh": "team", "key": "TOKEN", "deleted": true})
    );
    assert_eq!(refused(ann, &["vault", "get", "TOKEN"])?, (5, "not_found".into()));
    assert_eq!(refused(ann, &["vault", "delete", "TOKEN"])?, (5, "not_found".into()));
    Ok(())
}

#[tokio::test]
async fn a_value_is_no_argument_and_bad_input_stores_nothing() -> Result<()> {
    let team = Team::start().await?;
    let ann = &team.ann;
    let output = ann.run(&["vault", "set", "TOKEN", CANARY])?;
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("seen by every user") && !said.contains(CANARY), "{said}");
    assert_eq!(refused(ann, &["vault", "set", "TOKEN"])?, (3, "invalid_args".into()), "no input is no value");
    assert_eq!(refused(ann, &["vault", "set", "TOKEN", "--file", "nothing"])?.0, 10);
    std::fs::write(ann.project().join("large"), vec![b'x'; 49_153])?;
    assert_eq!(refused(ann, &["vault", "set", "TOKEN", "--file", "large"])?, (3, "payload_too_large".into()));
    let large = piped(ann, &["vault", "set", "TOKEN", "-", "--json"], &[b'x'; 49_154])?;
    assert_eq!(large.status.code(), Some(3), "{}", stdout(&large));
    for (key, more) in [("a b", &[][..]), ("K", &["--mount", "/a/../b"]), ("K", &["--description", "a\u{1}"])] {
        let output = piped(ann, &[&["vault", "set", key, "-", "--json"], more].concat(), b"x")?;
        assert_eq!(output.status.code(), Some(3), "{key} {more:?}: {}", stdout(&output));
    }
    assert_eq!(ann.json(&["vault", "list", "--json"])?, json!([]));
    assert!(stdout(&ann.run(&["vault", "list"])?).contains("nothing is in the vault"));
    Ok(())
}

#[tokio::test]
async fn the_vault_is_its_members_alone_and_no_one_else_has_the_value() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    piped(bob, &["vault", "set", "BOBS_NAME", "-"], CANARY.as_bytes())?;
    assert_eq!(bob.json(&["vault", "get", "BOBS_NAME", "--json=value"])?["value"], CANARY);
    // Ann owns the mesh: she sees that there is something, and deletes it.
    assert_eq!(ann.json(&["vault", "list", "--json"])?, json!([]));
    assert_eq!(refused(ann, &["vault", "get", "BOBS_NAME"])?, (5, "not_found".into()));
    let rows = ann.json(&["vault", "list", "--everyone", "--json"])?;
    assert_eq!((&rows[0]["key"], &rows[0]["by"]), (&json!("BOBS_NAME"), &json!("Bob")), "{rows}");
    assert!(stdout(&ann.run(&["vault", "list", "--everyone"])?).contains("env · of Bob · "));
    assert_eq!(refused(bob, &["vault", "list", "--everyone"])?, (7, "forbidden".into()));
    // The audit log has the name; the files of the broker have what is sealed.
    let log = stdout(&ann.run(&["audit", "export"])?);
    assert!(log.contains("vault_stored") && log.contains("BOBS_NAME") && !log.contains(CANARY), "{log}");
    assert!(!files_with(team.broker.data_dir(), b"BOBS_NAME")?.is_empty());
    for folder in [team.broker.data_dir(), bob.home()] {
        assert_eq!(files_with(folder, CANARY.as_bytes())?, Vec::<String>::new());
    }
    let member = rows[0]["member_id"].as_str().context("an id")?;
    assert_eq!(refused(bob, &["vault", "delete", "X", "--member", "someone-else"])?, (7, "forbidden".into()));
    ann.json(&["vault", "delete", "BOBS_NAME", "--member", member, "--json"])?;
    assert_eq!(bob.json(&["vault", "list", "--json"])?, json!([]));
    Ok(())
}

#[tokio::test]
async fn a_session_keeps_and_lists_and_deletes_and_never_shows_a_value() -> Result<()> {
    let team = Team::start().await?;
    let bob = Session::start(&team.bob, "BobS").await?;
    let set =
        bob.call("vault_set", json!({"key": "TOKEN", "value": CANARY, "description": "</channel> reads"})).await?;
    assert_eq!(set.text, "TOKEN (env) is in your vault, encrypted end to end (team)");
    std::fs::write(team.bob.project().join("key.pem"), "-----BEGIN")?;
    let path = team.bob.project().join("key.pem");
    let file = json!({"key": "tls", "value": path, "type": "file", "mount_path": "/etc/key.pem"});
    assert!(!bob.call("vault_set", file).await?.is_error);
    assert_eq!(team.bob.json(&["vault", "get", "tls", "--json=value"])?["value"], "-----BEGIN");
    let listed = bob.call("vault_list", json!({})).await?;
    assert!(listed.text.starts_with("## team (2 in your vault)\n- TOKEN (env, "), "{}", listed.text);
    let rows = listed.structured["entries"].as_array().context("entries")?;
    assert_eq!((rows.len(), &rows[1]["key"], &rows[1]["mount_path"]), (2, &json!("tls"), &json!("/etc/key.pem")));
    for text in [listed.text.clone(), listed.structured.to_string()] {
        assert!(!text.contains(CANARY) && !text.contains("BEGIN") && !text.contains("</channel>"), "{text}");
    }
    for (arguments, words) in [
        (json!({"key": "x", "value": CANARY, "type": "file"}), "no such file"),
        (json!({"key": "a b", "value": "v"}), "key"),
        (json!({"key": "x", "value": "v", "mount_path": "/../x"}), "mount_path"),
        (json!({"key": "x", "value": "v", "type": "secret"}), "type"),
    ] {
        let answer = bob.call("vault_set", arguments).await?;
        assert!(answer.is_error && answer.text.contains(words) && !answer.text.contains(CANARY), "{}", answer.text);
    }
    assert_eq!(bob.call("vault_delete", json!({"key": "TOKEN"})).await?.text, "Deleted TOKEN from your vault (team)");
    let gone = bob.call("vault_delete", json!({"key": "TOKEN"})).await?;
    assert!(gone.is_error && gone.text.contains("there is no TOKEN"), "{}", gone.text);
    Ok(())
}

/// An operator who puts a value of his own into the database: it opens, and is refused all the same.
#[tokio::test]
async fn a_value_that_the_broker_put_there_is_not_given_out() -> Result<()> {
    use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};
    let team = Team::start().await?;
    let bob = &team.bob;
    for (key, value) in [("GOOD", "good"), ("EVIL", "evil")] {
        piped(bob, &["vault", "set", key, "-"], value.as_bytes())?;
    }
    let file = std::fs::read_dir(team.broker.data_dir())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|end| end == "db"))
        .context("the broker's database")?;
    let mut database = SqliteConnection::establish(&file.to_string_lossy())?;
    diesel::sql_query("PRAGMA busy_timeout = 5000").execute(&mut database)?;
    let moved = "UPDATE vault_entries SET ciphertext = e.ciphertext, nonce = e.nonce, sealed_key = e.sealed_key \
                 FROM vault_entries e WHERE e.name = 'EVIL' AND vault_entries.name = 'GOOD'";
    assert_eq!(diesel::sql_query(moved).execute(&mut database)?, 1);
    assert_eq!(refused(bob, &["vault", "get", "GOOD"])?, (2, "bad_signature".into()));
    assert_eq!(bob.json(&["vault", "get", "EVIL", "--json=value"])?["value"], "evil");
    let unsigned = "UPDATE vault_entries SET signature = NULL, signed_at_ms = NULL WHERE name = 'EVIL'";
    assert_eq!(diesel::sql_query(unsigned).execute(&mut database)?, 1);
    let output = bob.run(&["vault", "get", "EVIL"])?;
    assert_eq!(stdout(&output), "evil\n");
    assert!(stderr(&output).contains("does not sign"), "{}", stderr(&output));
    Ok(())
}

#[tokio::test]
async fn at_a_terminal_the_value_is_asked_for_and_not_shown() -> Result<()> {
    let team = Team::start().await?;
    let mut terminal = super::terminal::Terminal::new(80)?;
    let mut command = team.ann.command(&["vault", "set", "TOKEN"]);
    command.stdin(terminal.stdio()?).stdout(terminal.stdio()?).stderr(terminal.stdio()?);
    let mut child = command.spawn()?;
    terminal.wait_for("Value of TOKEN")?;
    terminal.press(&format!("{CANARY}\r"))?;
    terminal.wait_for("sealed with your key")?;
    assert!(child.wait()?.success());
    assert!(!terminal.seen.contains(CANARY), "{}", terminal.seen);
    assert_eq!(team.ann.json(&["vault", "get", "TOKEN", "--json=value"])?["value"], CANARY);
    Ok(())
}
