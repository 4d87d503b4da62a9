//! Transfers that break off, are killed, are longer than memory, or are not what was shared.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::line::{AtMark, Direction, Line};
use super::{bytes, file, id_of, read, refused, sha256, share};
use crate::team::{Team, until};

/// A file of several parts.
const LONG: usize = 24 << 20;
/// Where it breaks off.
const MARK: u64 = 13 << 20;

fn spawn(person: &CommandLine, args: &[&str]) -> Result<Child> {
    Ok(person.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn answer_of(child: Child) -> Result<Value> {
    let output = child.wait_with_output()?;
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_lost_connection_is_gone_on_with_in_both_directions() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let text = bytes(LONG);
    file(ann, "long.bin", &text)?;
    let up = Line::start(team.broker.address(), Direction::Up, MARK, AtMark::Cut)?;
    up.lead(ann)?;
    let shared = answer_of(spawn(ann, &["file", "share", "long.bin", "--to", "Bob", "--json"])?)?;
    assert!(up.is_reached(), "the upload was cut");
    assert_eq!(shared["sha256"], sha256(&text), "{shared}");
    let down = Line::start(team.broker.address(), Direction::Down, MARK, AtMark::Cut)?;
    down.lead(bob)?;
    let got = answer_of(spawn(bob, &["file", "get", &id_of(&shared)?, "--json"])?)?;
    assert!(down.is_reached(), "the download was cut");
    assert_eq!(got["sha256"], sha256(&text), "{got}");
    assert!(read(bob, "long.bin")? == text);
    Ok(())
}

#[tokio::test]
async fn a_killed_client_goes_on_in_both_directions() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let text = bytes(LONG);
    file(ann, "long.bin", &text)?;
    let up = Line::start(team.broker.address(), Direction::Up, MARK, AtMark::Hold)?;
    up.lead(ann)?;
    let args = ["file", "share", "long.bin", "--to", "Bob", "--json"];
    let mut child = spawn(ann, &args)?;
    until("the upload is under way", || Ok(up.is_reached().then_some(()))).await?;
    child.kill()?;
    child.wait()?;
    up.release();
    assert_eq!(bob.json(&["file", "list", "--json"])?, json!([]), "half a file is not seen");
    let shared = ann.json(&args)?;
    assert!(shared["resumedAt"].as_u64().is_some_and(|at| at >= 4 << 20), "it began anew: {shared}");
    assert_eq!(shared["sha256"], sha256(&text));
    let notes = std::fs::read_dir(ann.config_dir().join("transfers"))?.count();
    assert_eq!(notes, 0, "the note of the upload, which holds a key, is gone");

    let down = Line::start(team.broker.address(), Direction::Down, MARK, AtMark::Hold)?;
    down.lead(bob)?;
    let id = id_of(&shared)?;
    let args = ["file", "get", &id, "--json"];
    let mut child = spawn(bob, &args)?;
    until("the download is under way", || Ok(down.is_reached().then_some(()))).await?;
    child.kill()?;
    child.wait()?;
    down.release();
    assert!(!bob.project().join("long.bin").exists(), "half a file is not seen");
    let got = bob.json(&args)?;
    assert!(got["resumedAt"].as_u64().is_some_and(|at| at >= 4 << 20), "it began anew: {got}");
    assert!(read(bob, "long.bin")? == text);
    assert_eq!(std::fs::read_dir(bob.project())?.count(), 1, "no temporary file is left");

    // Another content under the same name is another upload, under another key.
    let up = Line::start(team.broker.address(), Direction::Up, MARK, AtMark::Hold)?;
    up.lead(ann)?;
    let args = ["file", "share", "long.bin", "--to", "Bob", "--tags", "second", "--json"];
    let mut child = spawn(ann, &args)?;
    until("the upload is under way", || Ok(up.is_reached().then_some(()))).await?;
    child.kill()?;
    child.wait()?;
    up.release();
    let changed: Vec<u8> = text.iter().map(|byte| !byte).collect();
    file(ann, "long.bin", &changed)?;
    let shared = ann.json(&args)?;
    assert_eq!((&shared["resumedAt"], &shared["sha256"]), (&json!(0), &json!(sha256(&changed))));
    Ok(())
}

#[tokio::test]
async fn a_stream_of_unknown_length_goes_in_and_out() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    for (count, name) in [(0, "empty"), (10, "short"), (LONG + 7, "long")] {
        let text = bytes(count);
        let up = Line::start(team.broker.address(), Direction::Up, MARK, AtMark::Cut)?;
        up.lead(ann)?;
        let mut child = ann
            .command(&["file", "share", "-", "--name", name, "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("piped")?;
        let written = text.clone();
        let writer = std::thread::spawn(move || input.write_all(&written));
        let shared = answer_of(child)?;
        writer.join().unwrap()?;
        assert_eq!((&shared["size"], &shared["sha256"]), (&json!(count), &json!(sha256(&text))), "{shared}");
        let mut child = spawn(bob, &["file", "get", &id_of(&shared)?, "--out", "-"])?;
        let mut got = vec![];
        child.stdout.take().context("piped")?.read_to_end(&mut got)?;
        assert!(child.wait()?.success() && got == text, "{name}");
    }
    Ok(())
}

/// The most memory that a process had, in KiB.
fn peak(child: &mut Child) -> Result<u64> {
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait()?.is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        most = most.max(now);
        std::thread::yield_now();
    }
    Ok(most)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_does_not_grow_with_the_file() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let mut peaks = vec![];
    for (name, count) in [("small", 1 << 20), ("large", 96 << 20)] {
        file(ann, name, bytes(count))?;
        let quiet = |person: &CommandLine, args: &[&str]| {
            person.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        };
        let mut child = quiet(ann, &["file", "share", name, "--to", "Bob"])?;
        let up = peak(&mut child)?;
        assert!(child.wait()?.success());
        let id = bob.json(&["file", "list", name, "--json=id"])?[0]["id"].as_str().context("an id")?.to_owned();
        let mut child = quiet(bob, &["file", "get", &id])?;
        let down = peak(&mut child)?;
        assert!(child.wait()?.success());
        peaks.push([up, down]);
    }
    for (small, large) in peaks[0].iter().zip(peaks[1]) {
        assert!(large < small + (16 << 10), "{peaks:?} KiB, share and get, of 1 and 96 MiB");
    }
    Ok(())
}

#[tokio::test]
async fn bytes_that_were_changed_at_the_broker_are_not_handed_on() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (&team.ann, &team.bob);
    file(ann, "a.bin", bytes(300_000))?;
    let id = id_of(&share(ann, &["a.bin", "--to", "Bob"])?)?;
    let mut all = vec![];
    super::below(&team.broker.data_dir().join("files"), &mut all)?;
    let stored =
        all.iter().find(|path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 300_000)).context("the bytes")?;
    let mut sealed = std::fs::read(stored)?;
    let at = sealed.len() - 20;
    sealed[at] ^= 1;
    std::fs::write(stored, sealed)?;
    assert_eq!(refused(bob, &["file", "get", &id])?.1, "hash_mismatch");
    assert_eq!(std::fs::read_dir(bob.project())?.count(), 0, "nothing of it is left");
    Ok(())
}
