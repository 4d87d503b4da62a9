//! Files at the shell and by tools, over a real broker: who gets them, how they go on after a break, what the broker sees.

mod line;
mod sessions;
mod transfers;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::json;
use super::team::{Team, program, stderr, stdout};

/// Writes a file of the project.
fn file(person: &CommandLine, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
    Ok(fs::write(person.project().join(name), bytes)?)
}

fn read(person: &CommandLine, name: &str) -> Result<Vec<u8>> {
    fs::read(person.project().join(name)).with_context(|| name.to_owned())
}

/// Bytes that repeat nowhere.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u64).flat_map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(count).collect()
}

fn sha256(bytes: &[u8]) -> String {
    claudemesh_protocol::crypto::http::sha256_hex(bytes)
}

/// Exit code and code of a failure.
fn refused(person: &CommandLine, args: &[&str]) -> Result<(i32, String)> {
    let output = person.run(&[args, &["--json"]].concat())?;
    let answer: Value = serde_json::from_str(&stdout(&output)).with_context(|| stderr(&output))?;
    Ok((output.status.code().unwrap_or(-1), answer["error"].as_str().unwrap_or_default().to_owned()))
}

fn share(person: &CommandLine, args: &[&str]) -> Result<Value> {
    person.json(&[&["file", "share"], args, &["--json"]].concat())
}

fn id_of(shared: &Value) -> Result<String> {
    Ok(shared["id"].as_str().context("an id")?.to_owned())
}

fn names(person: &CommandLine, args: &[&str]) -> Result<Value> {
    person.json(&[&["file", "list"], args, &["--json=name"]].concat())
}

/// One more member of the mesh.
fn carl(team: &Team) -> Result<CommandLine> {
    let carl = program()?;
    let invite = team.ann.json(&["invite", "--json"])?;
    carl.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Carl", "--json"])?;
    Ok(carl)
}

#[tokio::test]
async fn a_file_goes_to_its_readers_and_to_no_one_else() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob, carl) = (&team.ann, &team.bob, carl(&team)?);
    let text = bytes(200_000);
    file(ann, "report.pdf", &text)?;
    let shared = share(ann, &["report.pdf", "--to", "Bob", "--tags", "q3,june"])?;
    let id = id_of(&shared)?;
    assert_eq!(
        (&shared["name"], &shared["size"], &shared["sha256"], &shared["encrypted"], &shared["readers"]),
        (&json!("report.pdf"), &json!(200_000), &json!(sha256(&text)), &json!(true), &json!(1))
    );
    for (person, expected) in
        [(ann, json!([{"name": "report.pdf"}])), (bob, json!([{"name": "report.pdf"}])), (&carl, json!([]))]
    {
        assert_eq!(names(person, &[])?, expected);
    }
    let got = bob.json(&["file", "get", &id[..8], "--json"])?;
    assert_eq!(
        (&got["savedTo"], &got["sizeBytes"], &got["sha256"], &got["signature"], &got["from"]),
        (
            &json!(bob.project().join("report.pdf")),
            &json!(200_000),
            &json!(sha256(&text)),
            &json!("verified"),
            &json!("Ann")
        )
    );
    assert_eq!(read(bob, "report.pdf")?, text);
    assert_eq!(refused(bob, &["file", "get", &id])?, (6, "already_exists".into()));
    file(bob, "other", "old")?;
    bob.json(&["file", "get", &id, "--out", "other", "--force", "--json"])?;
    assert_eq!(read(bob, "other")?, text);
    let out = bob.run(&["file", "get", &id, "--out", "-"])?;
    assert!(out.stdout == text, "standard output has the file and nothing else");
    for entry in fs::read_dir(bob.project())? {
        assert!(!entry?.file_name().to_string_lossy().contains(".part"), "nothing half is left");
    }

    assert_eq!(refused(&carl, &["file", "get", &id])?, (7, "forbidden".into()));
    assert_eq!(refused(&carl, &["file", "status", &id])?.0, 5);
    assert_eq!(refused(bob, &["file", "grant", &id, "Carl"])?, (7, "forbidden".into()));
    ann.json(&["file", "grant", &id, "Carl", "--json"])?;
    assert_eq!(carl.json(&["file", "get", &id, "--json"])?["sha256"], sha256(&text));
    let standing = ann.json(&["file", "status", &id, "--json"])?;
    let who: Vec<&str> =
        standing["accesses"].as_array().into_iter().flatten().filter_map(|row| row["peerName"].as_str()).collect();
    assert!(
        who.iter().any(|name| name.contains("Carl")) && who.iter().any(|name| name.contains("Bob")),
        "{standing:#}"
    );
    let readers: Vec<&str> =
        standing["readers"].as_array().into_iter().flatten().filter_map(|row| row["name"].as_str()).collect();
    assert!(readers.contains(&"Bob") && readers.contains(&"Carl"), "{standing:#}");
    ann.json(&["file", "revoke", &id, "Carl", "--json"])?;
    assert_eq!(refused(&carl, &["file", "get", &id, "--out", "again"])?.0, 7);
    assert_eq!(refused(bob, &["file", "delete", &id])?, (7, "forbidden".into()));
    assert_eq!(ann.json(&["file", "delete", &id, "--json"])?, json!({"mesh": "team", "id": id, "deleted": true}));
    assert_eq!(refused(bob, &["file", "get", &id, "--out", "gone"])?, (5, "not_found".into()));
    assert_eq!(refused(ann, &["file", "share", "none"])?, (5, "not_found".into()));
    assert_eq!(refused(ann, &["file", "share", "report.pdf", "--to", "Nobody"])?, (5, "unknown_target".into()));
    assert_eq!(refused(ann, &["file", "share", "."])?, (3, "invalid_args".into()), "a folder");
    Ok(())
}

#[tokio::test]
async fn flags_of_sharing_have_their_effect() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    file(ann, "a.txt", "hello")?;
    // The clock of the broker stands still: without a step all files are equally new.
    let share = |person: &CommandLine, args: &[&str]| {
        team.broker.advance(std::time::Duration::from_millis(10));
        share(person, args)
    };
    let named = share(ann, &["a.txt", "--name", "b.txt", "--tags", "x", "--to", "Bob", "--to", "Ann"])?;
    assert_eq!((&named["name"], &named["readers"], &named["expiresAt"]), (&json!("b.txt"), &json!(2), &Value::Null));
    let plain = share(ann, &["a.txt", "--plain", "--ephemeral"])?;
    assert_eq!(plain["encrypted"], false);
    let expires = |shared: &Value| -> Result<i64> {
        let at =
            claudemesh_protocol::time::parse_iso(shared["expiresAt"].as_str().context("a time")?).context("ISO")?;
        Ok((at - team.broker.now_ms()) / 60_000)
    };
    assert!((1_435..=1_440).contains(&expires(&plain)?), "a day: {plain}");
    let hours = share(ann, &["a.txt", "--expires", "2h"])?;
    assert!((115..=120).contains(&expires(&hours)?), "{hours}");
    // The form that clients of the existing system read.
    let compatible = share(ann, &["a.txt", "--compatible", "--to", "Bob"])?;
    assert_eq!(compatible["encrypted"], true);
    for shared in [&named, &plain, &hours, &compatible] {
        let id = id_of(shared)?;
        let got = bob.json(&["file", "get", &id, "--out", &id, "--json"])?;
        assert_eq!((read(bob, &id)?, &got["sha256"]), (b"hello".to_vec(), &json!(sha256(b"hello"))), "{shared}");
    }
    let all = bob.json(&["file", "list", "--json=name,encrypted,readable,tags"])?;
    assert_eq!(
        all,
        json!([
            {"name": "a.txt", "encrypted": true, "readable": true, "tags": []},
            {"name": "a.txt", "encrypted": true, "readable": true, "tags": []},
            {"name": "a.txt", "encrypted": false, "readable": true, "tags": []},
            {"name": "b.txt", "encrypted": true, "readable": true, "tags": ["x"]},
        ])
    );
    assert_eq!(names(bob, &["B.T"])?, json!([{"name": "b.txt"}]));
    assert_eq!(names(bob, &["--tag", "X"])?, json!([{"name": "b.txt"}]));
    assert_eq!(names(bob, &["--limit", "1"])?, json!([{"name": "a.txt"}]));
    assert_eq!(names(bob, &["--from", "Bob"])?, json!([]));
    assert_eq!(names(bob, &["--from", "Ann"])?.as_array().map(Vec::len), Some(4));
    let only_bobs = share(bob, &["a.txt", "--to", "Bob"]);
    assert!(only_bobs.is_err(), "he has no such file");
    file(bob, "own.txt", "mine")?;
    share(bob, &["own.txt", "--to", "Bob"])?;
    assert_eq!(names(ann, &["own"])?, json!([]));
    assert_eq!(
        ann.json(&["file", "list", "--all", "--json"])?.as_array().map(Vec::len),
        Some(5),
        "the owner manages files"
    );
    assert_eq!(refused(bob, &["file", "list", "--all"])?, (7, "forbidden".into()));
    Ok(())
}

/// Every file below a folder.
fn below(folder: &Path, all: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { below(&path, all)? } else { all.push(path) }
    }
    Ok(())
}

/// Where the broker has a text, in any of its files.
fn found(team: &Team, text: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut all = vec![];
    below(team.broker.data_dir(), &mut all)?;
    assert!(all.len() > 2, "{all:?}");
    let has = |path: &std::path::PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    Ok(all.into_iter().filter(has).collect())
}

#[tokio::test]
async fn nothing_of_a_sealed_file_is_readable_at_the_broker() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let (content, name, tag) = ("canary-content-4711", "canary-name-4711.txt", "canary-tag-4711");
    file(ann, name, content.repeat(9_000))?;
    let sealed = share(ann, &[name, "--tags", tag, "--to", "Bob"])?;
    bob.json(&["file", "get", &id_of(&sealed)?, "--json"])?;
    file(ann, "small", "canary-inline-4711")?;
    ann.json(&["send", "Bob", "canary-message-4711", "--attach", "small", "--attach", name, "--json"])?;
    for text in [content, name, tag, "canary-inline-4711", "canary-message-4711"] {
        assert_eq!(found(&team, text)?, Vec::<std::path::PathBuf>::new(), "{text}");
    }
    // The search finds what is there.
    share(ann, &[name, "--plain", "--tags", tag])?;
    for text in [content, name, tag] {
        assert_ne!(found(&team, text)?, Vec::<std::path::PathBuf>::new(), "{text} of a plain file");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_of_this_machine_is_offered_by_its_path() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let _session = super::team::session(bob, "bob-1", "BobS").await?;
    file(ann, "big.iso", bytes(1_000))?;
    let path = fs::canonicalize(ann.project().join("big.iso"))?;
    assert_eq!(share(ann, &["big.iso", "--to", "BobS"])?["localPath"], json!(path));
    let by_path = share(ann, &["big.iso", "--to", "BobS", "--by-path", "--message", "look"])?;
    assert_eq!((&by_path["id"], &by_path["localPath"]), (&Value::Null, &json!(path)));
    assert_eq!(names(bob, &[])?.as_array().map(Vec::len), Some(1), "no second copy");
    assert_eq!(refused(ann, &["file", "share", "big.iso", "--by-path", "--to", "@qa"])?, (3, "invalid_args".into()));
    assert_eq!(refused(ann, &["file", "share", "big.iso", "--by-path"])?.0, 3, "everyone is not on this machine");
    Ok(())
}

#[tokio::test]
async fn a_file_is_opened_by_the_program_of_the_system() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    file(ann, "a.txt", "hello")?;
    let id = id_of(&share(ann, &["a.txt"])?)?;
    let bin = bob.home().join("bin");
    fs::create_dir(&bin)?;
    fs::write(bin.join("xdg-open"), "#!/bin/sh\ncat \"$1\" > \"$HOME/opened\"\n")?;
    fs::set_permissions(bin.join("xdg-open"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let open =
        |args: &[&str]| bob.command(&[&["file", "open", &id], args, &["--json"]].concat()).env("PATH", &path).output();
    let refused = open(&[])?;
    assert_eq!(refused.status.code(), Some(1), "no one was asked");
    let opened = open(&["--yes"])?;
    let answer: Value = serde_json::from_slice(&opened.stdout).with_context(|| stderr(&opened))?;
    json::fits("file open", &answer)?;
    assert_eq!(fs::read_to_string(bob.home().join("opened"))?, "hello");
    let saved = answer["savedTo"].as_str().context("a path")?;
    assert!(Path::new(saved).starts_with(bob.config_dir()) && saved.ends_with("/a.txt"), "{saved}");
    Ok(())
}
