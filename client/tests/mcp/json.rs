//! What each verb prints with `--json` is what its schema says: every call is made for real, and none is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use claudemesh::cli::json_schema;
use claudemesh::verb::Shape;
use claudemesh::verb::shape::Form;
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::schema;
use serde_json::{Value, json};

use super::team::{Team, program, session, until};

/// Calls that need a whole play of their own, and the test that compares them.
const ELSEWHERE: [(&str, &str); 35] = [
    ("deploy", "services.rs"),
    ("update", "services.rs"),
    ("undeploy", "services.rs"),
    ("catalog", "services.rs"),
    ("scope", "services.rs"),
    ("logs NAME", "services.rs"),
    ("mcp-add", "mcp_servers/mod.rs"),
    ("mcp-remove", "mcp_servers/mod.rs"),
    ("mcp-list", "mcp_servers/mod.rs"),
    ("call", "mcp_servers/mod.rs"),
    ("mesh-mcp list", "mcp_servers/mod.rs"),
    ("mesh-mcp schema", "mcp_servers/mod.rs"),
    ("mesh-mcp call", "mcp_servers/mod.rs"),
    ("serve", "mcp_servers/mod.rs"),
    ("file open", "files/mod.rs"),
    ("top", "top.rs"),
    ("permit", "permissions.rs"),
    ("permit ID allow|deny", "permissions.rs"),
    ("permission-log", "permissions.rs"),
    ("inbox --follow", "reading.rs"),
    ("watch", "reading.rs"),
    ("sent", "reading.rs"),
    ("history", "reading.rs"),
    ("export", "reading.rs"),
    ("export --out", "reading.rs"),
    ("outbox list", "outbox.rs"),
    ("outbox send", "outbox.rs"),
    ("outbox drop", "outbox.rs"),
    ("folder", "peer_files.rs"),
    ("folder show", "peer_files.rs"),
    ("folder allow", "peer_files.rs"),
    ("folder deny", "peer_files.rs"),
    ("folder revoke", "peer_files.rs"),
    ("folder list", "peer_files.rs"),
    ("folder read", "peer_files.rs"),
];

/// Whether an answer is what the schema of its call says.
pub(crate) fn fits(call: &str, value: &Value) -> Result<()> {
    let all = json_schema::all();
    let shape = all.iter().find(|shape| shape.call == call).with_context(|| format!("`{call}` has no schema"))?;
    holds(shape, value)
}

fn holds(shape: &Shape, value: &Value) -> Result<()> {
    schema::fits(&shape.schema(), value).map_err(|wrong| anyhow::anyhow!("{}{wrong}\n{value:#}", shape.call))
}

/// The schemas, and the calls that no one has made yet.
struct Calls {
    shapes: BTreeMap<String, Shape>,
    left: BTreeSet<String>,
}

impl Calls {
    fn new() -> Self {
        let shapes: BTreeMap<String, Shape> =
            json_schema::all().into_iter().map(|shape| (shape.call.clone(), shape)).collect();
        let elsewhere = |call: &&String| ELSEWHERE.iter().any(|(known, _)| known == call);
        let left = shapes.keys().filter(|call| !elsewhere(call)).cloned().collect();
        Self { shapes, left }
    }

    fn compare(&mut self, call: &str, value: &Value) -> Result<()> {
        let shape = self.shapes.get(call).with_context(|| format!("`{call}` has no schema"))?;
        holds(shape, value)?;
        // An empty list says nothing about its rows.
        if value.as_array().is_none_or(|rows| !rows.is_empty()) {
            self.left.remove(call);
        }
        Ok(())
    }

    /// Makes a call and compares its answer, whatever the exit code.
    fn make(&mut self, who: &CommandLine, call: &str, args: &[&str]) -> Result<Value> {
        let output = who.run(&[args, &["--json"]].concat())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if self.shapes.get(call).is_some_and(|shape| shape.form == Form::Lines) {
            ensure!(!text.is_empty(), "{call} printed nothing");
            for line in text.lines() {
                self.compare(call, &serde_json::from_str(line)?)?;
            }
            return Ok(Value::Null);
        }
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        ensure!(!(value["ok"] == false && value["error"].is_string()), "{args:?} failed: {value:#}");
        self.compare(call, &value)?;
        Ok(value)
    }

    /// The same for calls whose arguments are the words of the call.
    fn plain(&mut self, who: &CommandLine, calls: &[&str]) -> Result<()> {
        for call in calls {
            self.make(who, call, &call.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Starts a verb that runs on, and compares its first answer: a line, or an object over several.
    fn first(
        &mut self,
        who: &CommandLine,
        call: &str,
        args: &[&str],
        mut meanwhile: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut child =
            who.command(&[args, &["--json"]].concat()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            while let Some(Ok(line)) = lines.next() {
                text += &(line + "\n");
                if let Ok(value) = serde_json::from_str::<Value>(&text) {
                    let _ = sender.send(value);
                    return;
                }
            }
        });
        let deadline = std::time::Instant::now() + claudemesh_testkit::host::PATIENCE;
        let value = loop {
            meanwhile()?;
            match told.recv_timeout(std::time::Duration::from_millis(100)) {
                Ok(value) => break value,
                Err(_) if std::time::Instant::now() < deadline => {}
                Err(error) => bail!("{call}: {error}"),
            }
        };
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)?;
        child.wait()?;
        self.compare(call, &value)
    }
}

#[tokio::test]
async fn every_call_prints_what_its_schema_says() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob, carl) = (&team.ann, &team.bob, program()?);
    let mut calls = Calls::new();
    // On a machine of its own: setting up, making and joining meshes.
    calls.plain(&carl, &["", "install --print", "install", "uninstall", "notify", "skill", "inbound"])?;
    calls.plain(&carl, &["inbound reset"])?;
    calls.make(&carl, "install --plugin-dir", &["install", "--plugin-dir", "plugin"])?;
    calls.make(&carl, "doctor", &["doctor", "--no-loopback"])?;
    calls.make(&carl, "create", &["create", "other", "--broker", &team.broker.url(), "--name", "Carl"])?;
    calls.plain(&carl, &["create --list-templates"])?;
    let invite = calls.make(ann, "invite", &["invite"])?;
    calls.make(&carl, "join", &["join", invite["url"].as_str().context("a link")?, "--name", "Carl"])?;
    calls.plain(ann, &["invite --list"])?;
    let code = calls.make(ann, "invite", &["invite"])?["code"].as_str().context("a code")?.to_owned();
    calls.make(ann, "invite --revoke", &["invite", "--revoke", &code])?;
    calls.plain(&carl, &["list", "status"])?;
    calls.make(&carl, "leave", &["leave", "team"])?;
    calls.make(&carl, "mesh rejoin", &["mesh", "rejoin", "team"])?;
    calls.make(&carl, "mesh leave", &["mesh", "leave", "team"])?;
    // Of a mesh of one's own, to its end.
    calls.plain(&carl, &["mesh list", "mesh settings"])?;
    calls.make(&carl, "use", &["use", "other"])?;
    calls.make(&carl, "mesh export", &["mesh", "export", "--out", "other.json"])?;
    calls.make(&carl, "mesh rename", &["mesh", "rename", "other", "another"])?;
    calls.make(&carl, "mesh archive", &["mesh", "archive", "another", "--yes"])?;
    calls.make(&carl, "mesh restore", &["mesh", "restore", "another"])?;
    calls.make(&carl, "mesh delete", &["mesh", "delete", "another", "--yes"])?;
    // Settings, logs, and what keeps the mesh of this machine up.
    calls.make(&carl, "config set", &["config", "set", "name", "Carl"])?;
    calls.make(&carl, "config get KEY", &["config", "get", "name"])?;
    calls.plain(&carl, &["config get", "config path", "logs", "down"])?;
    calls.make(&carl, "config unset", &["config", "unset", "name"])?;
    calls.make(&carl, "service install", &["service", "install", "--print"])?;
    calls.plain(&carl, &["service status", "service uninstall"])?;
    carl.run(&["hook", "bogus"])?;
    calls.first(&carl, "logs --follow", &["logs", "hooks", "--follow"], || Ok(()))?;

    // Peers and what they are.
    let _session = session(bob, "bob-1", "BobS").await?;
    calls.plain(ann, &["peers", "info", "ping", "stats", "bans", "list"])?;
    calls.make(ann, "peers", &["peers", "--all"])?;
    calls.make(bob, "status set", &["status", "set", "idle"])?;
    calls.make(bob, "summary", &["summary", "testing"])?;
    calls.make(bob, "visible", &["visible", "true"])?;
    calls.make(bob, "profile --title", &["profile", "--title", "tester"])?;
    calls.plain(bob, &["profile"])?;
    calls.make(bob, "group join", &["group", "join", "@qa"])?;
    calls.plain(ann, &["group list"])?;

    // Messages and questions.
    let sent = calls.make(ann, "send", &["send", "BobS", "hello"])?;
    calls.make(ann, "msg-status", &["msg-status", sent["messageId"].as_str().context("an id")?])?;
    calls.make(ann, "send TO,TO", &["send", "BobS,@qa,Nobody", "hello"])?;
    calls.make(ann, "ask", &["ask", "BobS", "which port?", "--timeout", "1"])?;
    calls.make(ann, "ask", &["ask", "Bob", "which port?", "--timeout", "1", "--wait-offline"])?;
    let asked = calls.make(bob, "inbox --questions", &["inbox", "--questions"])?;
    calls.make(bob, "reply", &["reply", asked[0]["messageId"].as_str().context("an id")?, "7900"])?;
    calls.make(bob, "inbox", &["inbox", "--all"])?;
    calls.make(bob, "inbound set", &["inbound", "set", "hold"])?;
    calls.make(bob, "inbound bypass", &["inbound", "bypass", "hold"])?;
    calls.make(bob, "inbound auto", &["inbound", "auto", "hold"])?;
    for verb in ["release", "drop"] {
        ann.json(&["send", "BobS", "held back", "--json"])?;
        until("it is held", || Ok((bob.json(&["held", "--json"])? != json!([])).then_some(()))).await?;
        calls.plain(bob, &["held"])?;
        calls.make(bob, &format!("held {verb}"), &["held", verb, "--all"])?;
    }

    // Topics and shared values.
    calls.make(bob, "topic create", &["topic", "create", "plans"])?;
    calls.make(bob, "topic join", &["topic", "join", "plans"])?;
    calls.make(bob, "topic post", &["topic", "post", "plans", "freeze"])?;
    calls.make(bob, "topic history", &["topic", "history", "plans"])?;
    calls.make(bob, "topic tail", &["topic", "tail", "plans", "--limit", "1", "--count", "1"])?;
    ann.json(&["topic", "post", "plans", "@Bob, look", "--json"])?;
    calls.plain(bob, &["notification list", "notification read", "me topics"])?;
    calls.make(bob, "topic read", &["topic", "read", "plans"])?;
    calls.make(bob, "topic set-member", &["topic", "set-member", "plans", "Ann", "--as", "observer"])?;
    calls.make(bob, "topic remove-member", &["topic", "remove-member", "plans", "Ann"])?;
    calls.make(bob, "topic members", &["topic", "members", "plans"])?;
    calls.plain(bob, &["topic list"])?;
    calls.make(bob, "topic leave", &["topic", "leave", "plans"])?;
    let key = calls.make(bob, "apikey create", &["apikey", "create", "ci"])?;
    calls.plain(bob, &["apikey list"])?;
    calls.make(bob, "apikey revoke", &["apikey", "revoke", key["id"].as_str().context("an id")?])?;
    calls.make(ann, "state set", &["state", "set", "build", "green"])?;
    calls.make(ann, "state get", &["state", "get", "build"])?;
    calls.plain(ann, &["state list"])?;
    let mut count = 0;
    calls.first(ann, "state watch", &["state", "watch"], || {
        count += 1;
        bob.json(&["state", "set", "count", &count.to_string(), "--json"]).map(drop)
    })?;
    calls.make(ann, "clock set", &["clock", "set", "10"])?;
    calls.plain(ann, &["clock", "clock pause", "clock resume", "clock stop"])?;
    for (noun, verb) in [("remind", "remind"), ("schedule", "schedule msg")] {
        let new: Vec<&str> = verb.split(' ').chain(["look at the build", "--in", "2h"]).collect();
        let id = calls.make(ann, verb, &new)?["scheduledId"].as_str().context("an id")?.to_owned();
        calls.plain(ann, &[&format!("{noun} list")])?;
        for action in ["pause", "resume"] {
            calls.make(ann, &format!("{noun} {action}"), &[noun, action, &id])?;
        }
        calls.make(ann, &format!("{noun} edit"), &[noun, "edit", &id, "--cron", "@daily"])?;
        calls.make(ann, &format!("{noun} cancel"), &[noun, "cancel", &id])?;
    }
    calls.make(ann, "state delete", &["state", "delete", "build"])?;
    calls.make(ann, "context share", &["context", "share", "making calls"])?;
    calls.make(ann, "context get", &["context", "get", "calls"])?;
    calls.plain(ann, &["context list"])?;
    std::fs::write(ann.project().join("deploy.md"), "run it")?;
    let shared =
        calls.make(ann, "file share", &["file", "share", "deploy.md"])?["id"].as_str().context("an id")?.to_owned();
    calls.plain(ann, &["file list"])?;
    calls.make(bob, "file get", &["file", "get", &shared])?;
    calls.make(ann, "file status", &["file", "status", &shared])?;
    for verb in ["grant", "revoke"] {
        calls.make(ann, &format!("file {verb}"), &["file", verb, &shared, "Bob"])?;
    }
    calls.make(ann, "file delete", &["file", "delete", &shared])?;
    calls.make(ann, "skill share", &["skill", "share", "deploy.md", "--description", "How to deploy"])?;
    calls.plain(ann, &["skill list"])?;
    for verb in ["get", "install", "remove"] {
        let yes = if verb == "install" { &["--yes"][..] } else { &[] };
        calls.make(ann, &format!("skill {verb}"), &[&["skill", verb, "deploy"], yes].concat())?;
    }
    calls.make(
        ann,
        "sql execute",
        &["sql", "execute", "CREATE TABLE runs (id INTEGER); INSERT INTO runs VALUES (1)"],
    )?;
    calls.make(ann, "sql query", &["sql", "query", "SELECT * FROM runs"])?;
    calls.plain(ann, &["sql schema"])?;
    calls.make(ann, "sql export", &["sql", "export", "runs", "--out", "runs.csv"])?;
    calls.make(ann, "sql import", &["sql", "import", "runs", "runs.csv"])?;
    calls.make(ann, "vault set", &["vault", "set", "TOKEN", "--file", "deploy.md"])?;
    calls.make(ann, "vault get", &["vault", "get", "TOKEN"])?;
    calls.plain(ann, &["vault list"])?;
    calls.make(ann, "vault delete", &["vault", "delete", "TOKEN"])?;
    for noun in ["", "memory "] {
        let call = |verb: &str| format!("{noun}{verb}");
        let words =
            |verb: &'static str, rest: &'static str| noun.split_whitespace().chain([verb, rest]).collect::<Vec<_>>();
        let stored = calls.make(ann, &call("remember"), &words("remember", "deploys run on Fridays"))?;
        calls.make(ann, &call("recall"), &words("recall", "deploy"))?;
        calls.plain(ann, &["memory list"])?;
        let id = stored["id"].as_str().context("an id")?;
        let forget: Vec<&str> = noun.split_whitespace().chain(["forget", id]).collect();
        calls.make(ann, &call("forget"), &forget)?;
    }

    // Tasks and streams.
    let task = calls.make(ann, "task create", &["task", "create", "tests"])?;
    let task = task["id"].as_str().context("an id")?.to_owned();
    calls.plain(ann, &["task list", "task next"])?;
    for verb in ["show", "claim", "unclaim", "complete", "reopen"] {
        calls.make(ann, &format!("task {verb}"), &["task", verb, &task])?;
    }
    calls.make(ann, "task update", &["task", "update", &task, "--priority", "high"])?;
    calls.make(ann, "task assign", &["task", "assign", &task, "Bob"])?;
    calls.make(ann, "task delete", &["task", "delete", &task])?;
    calls.make(ann, "stream create", &["stream", "create", "builds"])?;
    calls.make(ann, "stream publish", &["stream", "publish", "builds", "1"])?;
    calls.make(ann, "stream read", &["stream", "read", "builds"])?;
    calls.make(ann, "stream tail", &["stream", "tail", "builds", "--from", "start", "--count", "1"])?;
    calls.plain(ann, &["stream list"])?;
    calls.make(ann, "stream delete", &["stream", "delete", "builds"])?;

    // Governance.
    let bobs = ann.json(&["peers", "--json"])?[0]["memberPubkey"].as_str().context("a key")?.to_owned();
    calls.make(ann, "approvers add", &["approvers", "add", &bobs])?;
    calls.make(ann, "approvers --quorum", &["approvers", "--quorum", "1"])?;
    calls.make(ann, "approvers --expires", &["approvers", "--expires", "1m"])?;
    calls.plain(ann, &["approvers", "permission-log --verify"])?;
    calls.make(ann, "approvers remove", &["approvers", "remove", &bobs])?;
    calls.plain(ann, &["permissions", "audit list", "audit verify", "audit heads", "audit export"])?;
    calls.make(ann, "audit export --out", &["audit", "export", "--out", "audit.jsonl"])?;
    calls.plain(ann, &["whoami", "members"])?;
    calls.make(bob, "rename session", &["rename", "session", "BobT", "--session", "bob-1"])?;
    calls.make(bob, "rename session", &["rename", "session", "BobS", "--session", "bob-1"])?;
    calls.make(bob, "rename member", &["rename", "member", "Bobby"])?;
    calls.make(bob, "rename member", &["rename", "member", "Bob"])?;
    calls.make(ann, "members role", &["members", "role", "Bob", "member"])?;
    calls.make(bob, "group leave", &["group", "leave", "@qa"])?;
    calls.make(ann, "disconnect", &["disconnect", "--stale", "30m"])?;
    calls.make(ann, "kick", &["kick", "BobS"])?;
    calls.make(ann, "ban", &["ban", "Bob"])?;
    calls.plain(ann, &["bans"])?;
    calls.make(ann, "unban", &["unban", "Bob"])?;
    calls.make(ann, "members remove", &["members", "remove", "Bob", "--yes"])?;
    calls.make(ann, "members transfer", &["members", "transfer", "Carl", "--yes"])?;

    // Serving a mesh oneself.
    let dora = program()?;
    calls.first(&dora, "up", &["up"], || Ok(()))?;
    ensure!(calls.left.is_empty(), "no one has called {:?}", calls.left);
    Ok(())
}

#[test]
fn what_is_compared_elsewhere_is_compared_there() {
    for (call, file) in ELSEWHERE {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("json::fits(\"{call}\"")), "{file} does not compare `{call}`");
    }
}

/// A script must not have to know how many meshes there are.
#[tokio::test]
async fn the_shape_is_the_same_for_one_mesh_and_for_two() -> Result<()> {
    let team = Team::start().await?;
    let _session = session(&team.bob, "bob-1", "BobS").await?;
    team.bob.json(&["group", "join", "@qa", "--json"])?;
    team.ann.json(&["topic", "create", "plans", "--json"])?;
    let verbs: [&[&str]; 7] =
        [&["peers"], &["peers", "--all"], &["stats"], &["ping"], &["list"], &["group", "list"], &["topic", "list"]];
    let ask = |args: &[&str]| -> Result<Vec<Value>> {
        let answer = team.ann.json(&[args, &["--json"]].concat())?;
        let rows = answer.as_array().cloned().with_context(|| format!("{args:?} is no list: {answer}"))?;
        ensure!(rows.iter().all(|row| row["mesh"].is_string()), "{args:?}: a row without its mesh: {answer}");
        Ok(rows)
    };
    let alone: Vec<Vec<Value>> = verbs.iter().map(|verb| ask(verb)).collect::<Result<_>>()?;
    team.ann.json(&["create", "two", "--broker", &team.broker.url(), "--name", "Ann", "--json"])?;
    for (verb, alone) in verbs.iter().zip(&alone) {
        let both = ask(verb)?;
        ensure!(!alone.is_empty() && both.len() >= alone.len(), "{verb:?}: {alone:?}, then {both:?}");
        let keys = |row: &Value| row.as_object().map(|row| row.keys().cloned().collect::<Vec<_>>());
        assert_eq!(keys(&alone[0]), keys(&both[0]), "{verb:?}");
    }
    Ok(())
}

#[tokio::test]
async fn counts_agree_in_text_json_and_info_and_leave_this_shell_out() -> Result<()> {
    let team = Team::start().await?;
    let _session = session(&team.bob, "bob-1", "BobS").await?;
    // A shell that has just received is in its lease, and counts for no one.
    team.ann.json(&["inbox", "--json"])?;
    let text = |args: &[&str]| team.ann.run(args).map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(team.ann.json(&["peers", "--json"])?.as_array().map(Vec::len), Some(1));
    assert!(text(&["peers"])?.starts_with("team (1)\n"), "{}", text(&["peers"])?);
    let info = team.ann.json(&["info", "--json"])?;
    assert_eq!((&info["peers"], &info["peerCount"]), (&json!(1), &json!(1)));
    assert!(text(&["info"])?.contains("peers     1 here, 2 members"), "{}", text(&["info"])?);
    assert!(text(&["stats"])?.starts_with("team (1)  0 shared keys"), "{}", text(&["stats"])?);
    let ping = text(&["ping"])?;
    assert!(ping.contains("1 peer online") && ping.contains("0 messages waiting"), "{ping}");
    Ok(())
}
