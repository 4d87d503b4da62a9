//! Two people with the command line, as the image's users: an owner and someone who joins.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::run_quiet;

/// Someone with a configuration folder of their own; keys and messages go when the value goes.
pub(super) struct Person {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Person {
    pub(super) fn new(program: &Path) -> Result<Self> {
        Ok(Self { program: program.to_owned(), folder: tempfile::tempdir()? })
    }

    /// Runs `claudemesh <args>` and answers its stdout.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CLAUDE")) {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .env("HOME", self.folder.path())
            .env("CLAUDEMESH_CONFIG_DIR", self.folder.path().join("mesh"));
        run_quiet(command.current_dir(self.folder.path()))
    }

    /// Runs `claudemesh <args> --json`.
    pub(super) fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.run(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("claudemesh {}: no JSON: {text}", args.join(" ")))
    }
}

/// A mesh with two members on a broker.
pub(super) struct Team {
    pub(super) ann: Person,
    pub(super) bob: Person,
}

impl Team {
    /// Ann makes a mesh with the operator's token, Bob joins with her link.
    pub(super) fn found(program: &Path, port: u16, token: &str) -> Result<Self> {
        let (ann, bob) = (Person::new(program)?, Person::new(program)?);
        let broker = format!("ws://127.0.0.1:{port}/ws");
        if ann.run(&["create", "team", "--broker", &broker, "--name", "Ann"]).is_ok() {
            bail!("a broker that others can reach let somebody without the operator's token make a mesh");
        }
        ann.run(&["create", "team", "--broker", &broker, "--operator-token", token, "--name", "Ann"])?;
        let invite = ann.json(&["invite"])?;
        let link = ["url", "link"].iter().find_map(|key| invite[key].as_str());
        let link = link.with_context(|| format!("the invite has no link: {invite}"))?;
        bob.run(&["join", link, "--name", "Bob"])?;
        Ok(Self { ann, bob })
    }

    /// Ann writes to Bob, who is away: the broker has to store it, or her own outbox when the broker is away too.
    pub(super) fn ann_writes(&self, text: &str) -> Result<()> {
        self.ann.run(&["send", "Bob", text]).map(drop)
    }

    /// Messages in Ann's outbox.
    pub(super) fn ann_has_queued(&self) -> Result<usize> {
        let rows = self.ann.json(&["outbox", "list"])?;
        rows.as_array().map(Vec::len).with_context(|| format!("the outbox is no list: {rows}"))
    }

    /// Bob looks: each of these texts is new, and none is shown twice.
    pub(super) fn bob_finds(&self, texts: &[&str]) -> Result<()> {
        let inbox = self.bob.run(&["inbox", "--wait", "10"])?;
        let again = self.bob.run(&["inbox"])?;
        for text in texts {
            if inbox.matches(text).count() != 1 {
                bail!("expected `{text}` once in Bob's inbox: {inbox}");
            }
            if again.contains(text) {
                bail!("`{text}` was shown again: {again}");
            }
        }
        Ok(())
    }
}
