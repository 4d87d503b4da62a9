//! `claudemesh up`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use claudemesh_testkit::cli::CommandLine;
use serde_json::json;

use super::team::{program, stderr, texts};

/// `up` until its last line, and what it printed.
pub(super) struct Up {
    child: Child,
    pub(super) text: String,
}

impl Up {
    pub(super) fn start(person: &CommandLine, args: &[&str]) -> Result<Self> {
        let mut all = vec!["--listen", "127.0.0.1:0"];
        all.extend(args);
        Self::start_plain(person, &all)
    }

    /// Without an address: where it finds a place.
    pub(super) fn start_plain(person: &CommandLine, args: &[&str]) -> Result<Self> {
        let mut all = vec!["up"];
        all.extend(args);
        let mut child = person.command(&all).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let mut text = String::new();
        while !text.contains("Ctrl-C ends it") {
            let Some(line) = lines.next() else { bail!("`up` ended early:\n{text}") };
            text += &format!("{}\n", line?);
        }
        Ok(Self { child, text })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            assert!(Instant::now() < deadline, "`up` does not end");
            std::thread::yield_now();
        };
        assert!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn up_serves_the_mesh_local_and_keeps_it() -> Result<()> {
    let (ann, bob) = (program()?, program()?);
    let up = Up::start(&ann, &["--name", "Ann", "--demo"])?;
    for part in
        ["listening on ws://127.0.0.1:", "Grace reads:", "Ada reads in @demo:", "answered", "claudemesh join http://"]
    {
        assert!(up.text.contains(part), "{part}:\n{}", up.text);
    }
    let link = up.text.split_whitespace().find(|word| word.contains("/i/")).context("a link")?.to_owned();
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    bob.json(&["send", "Ann", "hello", "--json"])?;
    assert_eq!(texts(&ann.json(&["inbox", "--json"])?), ["hello"]);
    let twice = ann.run(&["up", "--listen", "127.0.0.1:0"])?;
    assert_eq!(twice.status.code(), Some(6), "{}", stderr(&twice));
    ann.json(&["send", "Bob", "survives", "--json"])?;
    up.stop()?;
    // The same mesh at another port; what waited still waits.
    let before = ann.json(&["list", "--json"])?;
    let up = Up::start(&ann, &[])?;
    let after = ann.json(&["list", "--json"])?;
    assert_eq!((&before[0]["meshId"], &before[0]["slug"]), (&after[0]["meshId"], &json!("local")));
    assert_eq!(after.as_array().map(Vec::len), Some(1));
    let link = ann.json(&["invite", "--json"])?;
    let again = bob.json(&["join", link["url"].as_str().context("link")?, "--name", "Bob", "--json"])?;
    assert_eq!((&again["meshId"], &again["alreadyMember"]), (&after[0]["meshId"], &json!(true)));
    assert_eq!(texts(&bob.json(&["inbox", "--json"])?), ["survives"]);
    up.stop()
}

#[test]
fn links_of_a_mesh_for_other_machines_do_not_name_this_one_loopback() -> Result<()> {
    let person = program()?;
    // The port must be known before the start: links carry it.
    let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
    let up = Up::start_plain(&person, &["--listen", &format!("0.0.0.0:{port}")])?;
    let invite = person.json(&["invite", "--json"])?;
    let outside = invite["url"].as_str().context("a link")?;
    if outside.contains("127.0.0.1") {
        // A machine without any other address has no better one.
        return up.stop();
    }
    let v1 = invite["v1_url"].as_str().context("an older link")?;
    let token = v1.rsplit('/').next().context("a token")?;
    let decoded = claudemesh_protocol::crypto::invite::InviteV1::read(token)?;
    assert!(!decoded.broker_url.contains("127.0.0.1") && decoded.broker_url.ends_with(&format!(":{port}/ws")));
    assert!(!v1.contains("127.0.0.1"), "{v1}");
    up.stop()
}

#[test]
fn a_bad_address_is_refused() -> Result<()> {
    let output = program()?.run(&["up", "--listen", "nonsense"])?;
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("127.0.0.1:7900"));
    Ok(())
}
