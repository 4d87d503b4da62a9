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
        let mut command = person.command(&all);
        // What it makes for itself alone lies where a test can see it.
        command.env("TMPDIR", person.home()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
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
    let up = Up::start(&ann, &["--name", "Ann"])?;
    for part in ["listening on ws://127.0.0.1:", "mesh local is up", "claudemesh join http://"] {
        assert!(up.text.contains(part), "{part}:\n{}", up.text);
    }
    let link = up.text.split_whitespace().find(|word| word.contains("/i/")).context("a link")?.to_owned();
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    bob.json(&["send", "Ann", "hello", "--json"])?;
    assert_eq!(texts(&ann.json(&["inbox", "--json"])?), ["hello"]);
    let twice = ann.run(&["up", "--listen", "127.0.0.1:0"])?;
    assert_eq!(twice.status.code(), Some(6), "{}", stderr(&twice));
    ann.json(&["send", "Bob", "survives", "--json"])?;
    assert!(
        up.text.contains("\n  you are    Ann\n") && up.text.ends_with("messages that wait stay on disk.\n"),
        "{}",
        up.text
    );
    up.stop()?;
    // The same mesh at another port; what waited still waits. The name of a member that is there stays, and that is said.
    let before = ann.json(&["list", "--json"])?;
    let up = Up::start(&ann, &["--name", "Anna Bell"])?;
    let told = "  you are    Ann; --name is for a mesh that is new, so the name stays\n             \
                (`claudemesh rename member \"Anna Bell\" --mesh local` changes it)\n";
    assert!(up.text.contains(told), "{}", up.text);
    assert_eq!(ann.json(&["whoami", "--json"])?[0]["name"], "Ann");
    ann.json(&["rename", "member", "Anna Bell", "--mesh", "local", "--json"])?;
    assert_eq!(ann.json(&["whoami", "--json"])?[0]["name"], "Anna Bell");
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
    let output = program()?.run(&["up", "--listen", "nonsense address"])?;
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("127.0.0.1:7900"));
    Ok(())
}

/// What keeps `up` from serving is said once, as an answer and not as a line of the log as well.
#[test]
fn up_says_once_why_it_cannot_serve() -> Result<()> {
    let person = program()?;
    std::fs::create_dir_all(person.config_dir())?;
    std::fs::write(person.config_dir().join("broker"), "not a folder")?;
    let output = person.run(&["up", "--listen", "127.0.0.1:0"])?;
    let said = stderr(&output);
    assert!(!output.status.success() && said.starts_with("Error: ") && !said.contains("ERROR"), "{said}");
    Ok(())
}

#[test]
fn the_demo_leaves_nothing_behind() -> Result<()> {
    let ann = program()?;
    let up = Up::start(&ann, &["--demo"])?;
    for part in ["Grace reads:", "Ada reads in @demo:", "answered", "claudemesh join http://", "is gone when you press"]
    {
        assert!(up.text.contains(part), "{part}:\n{}", up.text);
    }
    // Its last line is true of it, and not that of a mesh that stays.
    assert!(up.text.ends_with("\nCtrl-C ends it and removes its folder with everything in it.\n"), "{}", up.text);
    assert!(!up.text.contains("stay on disk"), "{}", up.text);
    let folders = || -> Result<usize> {
        let names = std::fs::read_dir(ann.home())?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
        Ok(names.iter().filter(|name| name.to_string_lossy().starts_with("claudemesh-demo-")).count())
    };
    assert_eq!(folders()?, 1, "it lives in a folder of its own");
    let link = up.text.split_whitespace().find(|word| word.contains("/i/")).context("a link")?.to_owned();
    program()?.json(&["join", &link, "--name", "Guest", "--json"])?;
    up.stop()?;
    assert_eq!(folders()?, 0, "the folder is gone");
    assert_eq!(ann.json(&["list", "--json"])?, json!([]), "the user's own meshes are as before");
    assert!(!ann.config_dir().join("broker").exists());
    Ok(())
}

#[test]
fn up_goes_on_in_the_background_until_down() -> Result<()> {
    let ann = program()?;
    let data = ann.home().join("data");
    let folder = data.to_str().context("utf-8")?;
    let started = ann.json(&[
        "up",
        "--detach",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        folder,
        "--mesh",
        "desk",
        "--name",
        "Ann",
        "--json",
    ])?;
    let down = ["down", "--data-dir", folder, "--json"];
    // Whatever fails below, it ends.
    let seen = (|| {
        assert_eq!(
            (&started["ok"], &started["mesh"], &started["name"]),
            (&json!(true), &json!("desk"), &json!("Ann")),
            "{started}"
        );
        assert!(started["pid"].as_u64().is_some_and(|pid| pid != u64::from(std::process::id())));
        assert_eq!(ann.json(&["info", "--json=slug,displayName"])?, json!({"slug": "desk", "displayName": "Ann"}));
        let twice = ann.run(&["up", "-d", "--listen", "127.0.0.1:0", "--data-dir", folder, "--json"])?;
        assert_eq!(twice.status.code(), Some(6), "{}", super::team::stdout(&twice));
        assert!(super::team::stdout(&twice).contains("already_running"));
        anyhow::Ok(())
    })();
    let ended = ann.json(&down)?;
    seen?;
    assert_eq!((&ended["ended"], &ended["pid"]), (&json!(true), &started["pid"]));
    assert_eq!(ann.json(&down)?["ended"], false, "none is fine");
    let refused = ann.run(&["up", "-d", "--listen", "nonsense address"])?;
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    Ok(())
}

/// Any free port of this machine, for an address that is not loopback.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port())
}

#[test]
fn meshes_of_ones_own_broker_need_no_token_and_no_running_up() -> Result<()> {
    let ann = program()?;
    let port = free_port()?;
    let up = Up::start_plain(&ann, &["--listen", &format!("0.0.0.0:{port}"), "--name", "Ann"])?;
    // One that others can join is not called `local`: that is another mesh on their machine.
    let first = ann.json(&["list", "--json=slug"])?[0]["slug"].as_str().context("a slug")?.to_owned();
    assert_ne!(first, "local");
    ann.json(&["create", "kitchen", "--name", "Ann", "--json"])?;
    let invite = ann.json(&["invite", "--mesh", "kitchen", "--json"])?;
    let bob = program()?;
    bob.json(&["join", invite["url"].as_str().context("a link")?, "--name", "Bob", "--json"])?;
    // Sent to the only mesh that knows the recipient.
    ann.json(&["send", "Bob", "soup is ready", "--json"])?;
    assert_eq!(texts(&bob.json(&["inbox", "--json"])?), ["soup is ready"]);
    let nobody = ann.run(&["send", "Nobody", "?", "--json"])?;
    assert_eq!(nobody.status.code(), Some(5), "{}", super::team::stdout(&nobody));
    up.stop()?;
    // Nothing serves; any command does.
    let peers = ann.run(&["peers", "--mesh", "kitchen", "--json"])?;
    assert!(peers.status.success(), "{}{}", super::team::stdout(&peers), stderr(&peers));
    ann.json(&["state", "set", "menu", "soup", "--mesh", "kitchen", "--json"])?;
    // Its broker is this machine's own, also for a further mesh by `create` alone, and by `up --mesh`.
    ann.json(&["create", "garden", "--name", "Ann", "--json"])?;
    let up = Up::start(&ann, &["--mesh", "cellar"])?;
    assert!(up.text.contains("mesh cellar is up"), "{}", up.text);
    let slugs = ann.json(&["list", "--json=slug"])?;
    assert_eq!(slugs.as_array().map(Vec::len), Some(4), "{slugs}");
    assert_eq!(ann.json(&["state", "get", "menu", "--mesh", "kitchen", "--json"])?["value"], "soup");
    up.stop()
}

#[test]
fn a_stranger_at_the_port_is_no_trouble_and_a_local_link_says_so() -> Result<()> {
    use std::io::{Read, Write};
    let ann = program()?;
    let mut child =
        ann.command(&["up", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let first = lines.next().context("a line")??;
    let address = first.split("ws://").nth(1).and_then(|rest| rest.split('/').next()).context("an address")?.to_owned();
    while !lines.next().context("up ended early")??.contains("Ctrl-C ends it") {}
    let mut scan = std::net::TcpStream::connect(&address)?;
    scan.write_all(b"\x16\x03\x01\x02\x00\x01\x00garbage\r\n\r\n")?;
    let mut rest = vec![];
    let _ = scan.read_to_end(&mut rest);
    let invite = ann.run(&["invite"])?;
    assert!(stderr(&invite).contains("on this machine only"), "{}", stderr(&invite));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("ERROR"), "{said}");
    Ok(())
}

/// After `down` each command serves for as long as it runs, so it says that others reach no one afterwards.
#[test]
fn after_down_commands_say_that_no_one_serves() -> Result<()> {
    let (ann, bob) = (program()?, program()?);
    let up = Up::start(&ann, &["--name", "Ann"])?;
    let link = up.text.split_whitespace().find(|word| word.contains("/i/")).context("a link")?.to_owned();
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    let there = ann.run(&["status"])?;
    assert!(!stderr(&there).contains("Nothing serves"), "{}", stderr(&there));
    assert_eq!(ann.json(&["status", "--json"])?["meshes"][0]["servedByThisCommand"], false);
    up.stop()?;
    for args in [&["send", "Bob", "hi"][..], &["status"], &["peers"], &["ping"], &["members"], &["invite"]] {
        let output = ann.run(args)?;
        let said = stderr(&output);
        assert!(output.status.success(), "{args:?}: {said}");
        assert_eq!(said.matches("Nothing serves this mesh when this command has ended").count(), 1, "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
    let status = super::team::stdout(&ann.run(&["status"])?);
    assert!(status.contains("served by this command only"), "{status}");
    assert_eq!(ann.json(&["status", "--json"])?["meshes"][0]["servedByThisCommand"], true);
    Ok(())
}

/// The way from a link for this machine to one for others is the one that `invite` tells, and members find the mesh where it was.
#[test]
fn listening_for_other_machines_keeps_the_port() -> Result<()> {
    let ann = program()?;
    let port = free_port()?;
    let up = Up::start_plain(&ann, &["--listen", &format!("127.0.0.1:{port}"), "--name", "Ann"])?;
    let said = stderr(&ann.run(&["invite"])?);
    assert!(said.contains("`claudemesh down`, then `claudemesh up -d --listen 0.0.0.0`"), "{said}");
    let twice = ann.run(&["up", "--listen", "0.0.0.0"])?;
    assert_eq!(twice.status.code(), Some(6));
    assert!(stderr(&twice).contains("claudemesh down"), "{}", stderr(&twice));
    up.stop()?;
    let up = Up::start_plain(&ann, &["--listen", "0.0.0.0"])?;
    assert!(up.text.contains(&format!("listening on ws://0.0.0.0:{port}/")), "{}", up.text);
    up.stop()?;
    // Another port is a choice, and it is said whom it loses.
    let other = free_port()?;
    let moved = ann.run(&["up", "-d", "--listen", &format!("127.0.0.1:{other}")])?;
    ann.json(&["down", "--json"])?;
    assert!(stderr(&moved).contains(&format!("This mesh was at port {port}.")), "{}", stderr(&moved));
    Ok(())
}

#[test]
fn another_mesh_is_made_beside_the_one_that_is_up() -> Result<()> {
    let (ann, bob) = (program()?, program()?);
    let first = ann.json(&["up", "-d", "--listen", "127.0.0.1:0", "--name", "Ann", "--json"])?;
    let seen = (|| {
        let third = ann.json(&["up", "-d", "--mesh", "third", "--json"])?;
        assert_eq!((&third["mesh"], &third["pid"]), (&json!("third"), &first["pid"]), "{third}");
        bob.json(&["join", third["invite"].as_str().context("a link")?, "--name", "Bob", "--json"])?;
        assert_eq!(
            ann.json(&["members", "--mesh", "third", "--json=name"])?,
            json!([{"name": "Ann"}, {"name": "Bob"}])
        );
        let again = ann.run(&["up", "--mesh", "third"])?;
        let text = super::team::stdout(&again);
        assert!(again.status.success() && text.contains("mesh third is up"), "{text}{}", stderr(&again));
        anyhow::Ok(())
    })();
    ann.json(&["down", "--json"])?;
    seen
}
