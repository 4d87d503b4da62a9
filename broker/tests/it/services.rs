//! Hosted MCP servers over real sockets, with the real runner as a process beside the broker: deploys that work, fail and are
//! replaced, calls, crashes, scopes, logs, restarts of the broker, and what is left at the end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudemesh_broker::features::services::host::settings::HostKind;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::wait::until;
use serde_json::{Value, json};

/// An MCP server in a few lines. Its tools say what they were given, what it sees of its environment, and end it.
const SERVER: &str = r#"
import sys,json,os,time
def out(m): print(json.dumps(m),flush=True)
names=sys.argv[1].split(",")
for line in sys.stdin:
    m=json.loads(line); i=m.get("id"); t=m.get("method"); p=m.get("params") or {}
    if i is None: continue
    r={}
    if t=="initialize": r={"protocolVersion":p["protocolVersion"],"capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}
    if t=="tools/list": r={"tools":[{"name":n,"inputSchema":{"type":"object"},"annotations":{"readOnlyHint":True}} for n in names]}
    if t=="tools/call":
        n=p["name"]; a=p.get("arguments") or {}
        if n=="die": sys.stderr.write("dying\n"); sys.stderr.flush(); os._exit(3)
        if n=="hang": continue
        text=a.get("text","")
        if n=="env": text=os.environ.get("GREETING","none")
        if n=="big": text="é"*a["size"]
        if n=="steps":
            k=p["_meta"]["progressToken"]
            for s in (1,2): out({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":k,"progress":s,"total":2}})
        r={"content":[{"type":"text","text":text}],"x":{"z":1,"a":2}}
    out({"jsonrpc":"2.0","id":i,"result":r})
"#;

/// The runner that was built with this test.
fn runner() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(|deps| deps.parent()).context("the folder of the test")?;
    let path = built.join("claudemesh-runner");
    ensure!(path.exists(), "{} is missing: cargo build -p claudemesh-runner", path.display());
    Ok(path)
}

async fn broker(database: Database) -> Result<TestBroker> {
    let runner = runner()?;
    let hosts = move |config: &mut claudemesh_testkit::broker::Config| {
        config.services.host = HostKind::Process;
        config.services.runner = Some(runner);
    };
    Builder::new(database).config(hosts).start().await
}

fn deploy(name: &str, tools: &str, extra: Value) -> Value {
    // The system's own: services run as users that cannot look into the home of another one.
    let source = json!({"type": "command", "command": "/usr/bin/python3"});
    let config = json!({"args": ["-c", SERVER, tools], "env": {"GREETING": "hello"}});
    merged(json!({"type": "mcp_deploy", "server_name": name, "source": source, "config": config, "wait": true}), extra)
}

/// Deploys, and gives the last answer.
async fn deployed(peer: &mut TestPeer, request: Value) -> Result<Value> {
    peer.call(request, "mcp_deploy_status").await
}

fn call(name: &str, tool: &str, args: Value) -> Value {
    json!({"type": "mcp_call", "serverName": name, "toolName": tool, "args": args})
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

async fn catalog(peer: &mut TestPeer) -> Result<Vec<Value>> {
    let listed = peer.call(json!({"type": "mcp_catalog"}), "mcp_catalog_result").await?;
    Ok(listed["services"].as_array().context("services")?.clone())
}

/// Processes whose command line has this word.
fn processes_with(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

broker_suite! {
    async fn a_service_is_deployed_called_by_others_and_leaves_nothing_behind(database: Database) -> Result<()> {
        let broker = broker(database).await?;
        let mesh = broker.mesh("team")?;
        let (owner, bob) = (mesh.creator.clone(), mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&owner).await?, broker.join(&bob).await?);
        let tools = format!("echo,env,big,steps,{:?}", database);
        let running = deployed(&mut ann, deploy("svc", &tools, json!({"scope": "mesh", "description": "d"}))).await?;
        assert_eq!((&running["status"], &running["tools"][0]["name"]), (&json!("running"), &json!("echo")), "{running}");
        assert_eq!(running["tools"][0]["annotations"], json!({"readOnlyHint": true}), "nothing of a tool is lost");
        let told = ben.event("mcp_deployed").await?;
        assert_eq!((&told["name"], &told["tool_count"], &told["scope"]), (&json!("svc"), &json!(5), &json!("mesh")));
        let row = catalog(&mut ben).await?.remove(0);
        assert_eq!((&row["status"], &row["source_type"], &row["tool_count"]), (&json!("running"), &json!("command"), &json!(5)));
        let schema = ben.call(json!({"type": "mcp_schema", "server_name": "svc"}), "mcp_schema_result").await?;
        assert_eq!(schema["tools"], running["tools"]);
        let answer = ben.ask(call("svc", "echo", json!({"text": "h\u{e9}"}))).await?;
        assert_eq!(answer["result"].to_string(), r#"{"content":[{"type":"text","text":"hé"}],"x":{"z":1,"a":2}}"#);
        assert_eq!(text(&ben.ask(call("svc", "env", json!({}))).await?), "hello");
        // With progress, and a result that is larger than a frame.
        ben.send(&merged(call("svc", "steps", json!({})), json!({"_reqId": "s", "call": "c", "progress": true}))).await?;
        assert_eq!(ben.expect("mcp_call_progress").await?["progress"], 1.0);
        ben.find("the result", |frame| frame["_reqId"] == "s").await?;
        let large = merged(call("svc", "big", json!({"size": 700_000})), json!({"call": "big", "parts": true}));
        let parts = ben.ask(large).await?["parts"].as_u64().context("parts")?;
        let mut whole = String::new();
        for part in 0..parts {
            let piece = ben.call(json!({"type": "mcp_part", "call": "big", "part": part}), "mcp_part_data").await?;
            whole.push_str(piece["data"].as_str().context("data")?);
        }
        let whole: Value = serde_json::from_str(&whole)?;
        assert_eq!(whole["content"][0]["text"].as_str().map(str::len), Some(1_400_000));
        // A new hello has it, and a member may not take it over or end it.
        let mut cyd = broker.connect(&bob.session("second")).await?;
        assert_eq!(cyd.hello_ack["services"][0]["name"], "svc");
        assert_eq!(ben.refused(deploy("svc", "x", json!({}))).await?, "already_exists");
        assert_eq!(ben.refused(json!({"type": "mcp_undeploy", "server_name": "svc"})).await?, "forbidden");
        assert_eq!(processes_with(&tools), 1);
        let stopped = ann.call(json!({"type": "mcp_undeploy", "server_name": "svc"}), "mcp_deploy_status").await?;
        assert_eq!(stopped["status"], "stopped");
        assert_eq!(cyd.event("mcp_undeployed").await?["name"], "svc");
        assert_eq!(ben.ask(call("svc", "echo", json!({}))).await?["code"], "not_found");
        assert_eq!(catalog(&mut ann).await?, Vec::<Value>::new());
        let runners = broker.runners_dir().context("the folder of the runners")?;
        let is_clean = async || {
            let is_empty = std::fs::read_dir(&runners).map_or(true, |mut entries| entries.next().is_none());
            Ok((is_empty && processes_with(&tools) == 0).then_some(()))
        };
        until("no process and no file is left", Duration::from_secs(20), is_clean).await
    }

    async fn a_service_that_crashes_is_back_and_one_that_cannot_start_says_why(database: Database) -> Result<()> {
        let broker = broker(database).await?;
        let mesh = broker.mesh("team")?;
        let mut ann = broker.join(&mesh.creator.clone()).await?;
        deployed(&mut ann, deploy("svc", "echo,die,hang", json!({}))).await?;
        ann.find("it runs", |frame| frame["event"] == "mcp_service_status" && frame["eventData"]["status"] == "running").await?;
        let died = ann.ask(call("svc", "die", json!({}))).await?;
        assert_eq!(died["code"], "service_down", "one clear error that may be tried again: {died}");
        assert_eq!(ann.event("mcp_crashed").await?["name"], "svc");
        ann.find("it is back", |frame| frame["event"] == "mcp_service_status" && frame["eventData"]["status"] == "running").await?;
        assert_eq!(text(&ann.ask(call("svc", "echo", json!({"text": "again"}))).await?), "again");
        let logs = ann.call(json!({"type": "mcp_logs", "server_name": "svc"}), "mcp_logs_result").await?;
        let lines = logs["lines"].as_array().context("lines")?;
        ensure!(lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains("dying"))), "{logs}");
        // A call that is given up, and one that takes too long.
        ann.send(&merged(call("svc", "hang", json!({})), json!({"_reqId": "h", "call": "h"}))).await?;
        ann.call(json!({"type": "mcp_cancel", "call": "h", "confirm": true}), "done").await?;
        assert_eq!(ann.find("the result", |frame| frame["_reqId"] == "h").await?["code"], "cancelled");
        let late = merged(call("svc", "hang", json!({})), json!({"timeout_ms": 50}));
        assert_eq!(ann.ask(late).await?["code"], "timeout");
        let broken = json!({"config": {"args": ["-c", "import sys; sys.stderr.write('no luck'); sys.exit(1)"]}});
        let failed = deployed(&mut ann, deploy("bad", "x", broken)).await?;
        assert_eq!((&failed["status"], &failed["code"]), (&json!("failed"), &json!("deploy_failed")), "{failed}");
        let row = catalog(&mut ann).await?.remove(0);
        assert_eq!((&row["name"], &row["status"]), (&json!("bad"), &json!("failed")));
        ensure!(row["error"].is_string(), "{row}");
        let logs = ann.call(json!({"type": "mcp_logs", "server_name": "bad"}), "mcp_logs_result").await?;
        ensure!(logs.to_string().contains("no luck"), "the log of one that failed is there: {logs}");
        assert_eq!(ann.ask(call("bad", "x", json!({}))).await?["code"], "service_down");
        Ok(())
    }

    async fn the_version_that_serves_goes_on_until_the_new_one_answers(database: Database) -> Result<()> {
        let mut broker = broker(database).await?;
        let mesh = broker.mesh("team")?;
        let owner = mesh.creator.clone();
        let mut ann = broker.join(&owner).await?;
        deployed(&mut ann, deploy("svc", "first", json!({"scope": {"group": "dev"}}))).await?;
        let broken = json!({"config": {"args": ["-c", "raise SystemExit(1)"]}});
        let failed = deployed(&mut ann, deploy("svc", "x", broken)).await?;
        assert_eq!(failed["status"], "failed");
        ensure!(failed["error"].as_str().is_some_and(|text| text.contains("the version before goes on")), "{failed}");
        let row = catalog(&mut ann).await?.remove(0);
        assert_eq!((&row["status"], &row["scope"], &row["tool_count"]), (&json!("running"), &json!({"group": "dev"}), &json!(1)));
        assert_eq!(text(&ann.ask(call("svc", "first", json!({"text": "old"}))).await?), "old");
        // Two deploys at once take their turns.
        for (id, tools) in [("one", "second"), ("two", "third")] {
            ann.send(&merged(deploy("svc", tools, json!({})), json!({"_reqId": id}))).await?;
        }
        for (id, tools) in [("one", "second"), ("two", "third")] {
            let running = ann.find("the answer", |frame| frame["_reqId"] == id).await?;
            assert_eq!((&running["status"], &running["tools"][0]["name"]), (&json!("running"), &json!(tools)), "{running}");
        }
        assert_eq!(ann.event("mcp_updated").await?["name"], "svc");
        assert_eq!(text(&ann.ask(call("svc", "third", json!({"text": "new"}))).await?), "new");
        // Clients of before hear of both ends.
        ann.send(&merged(json!({"type": "mcp_update", "server_name": "svc"}), json!({"_reqId": "u"}))).await?;
        assert_eq!(ann.find("building", |frame| frame["_reqId"] == "u").await?["status"], "building");
        assert_eq!(ann.find("running", |frame| frame["_reqId"] == "u").await?["status"], "running");
        // It runs again with the broker.
        broker.restart().await?;
        let mut ann = broker.join(&owner).await?;
        ann.find("it is back", |frame| frame["event"] == "mcp_service_status" && frame["eventData"]["status"] == "running").await?;
        assert_eq!(text(&ann.ask(call("svc", "third", json!({"text": "restarted"}))).await?), "restarted");
        assert_eq!(catalog(&mut ann).await?[0]["scope"], json!({"group": "dev"}));
        Ok(())
    }
}

#[tokio::test]
async fn more_than_there_is_room_for_is_refused_and_a_redeploy_is_not() -> Result<()> {
    let runner = runner()?;
    let hosts = move |config: &mut claudemesh_testkit::broker::Config| {
        config.services.host = HostKind::Process;
        config.services.runner = Some(runner);
        config.limit.quotas =
            config.limit.quotas.clone().with("services.per_member", 1).with("services.memory_mb_per_mesh", 300);
    };
    let broker = Builder::new(Database::Sqlite).config(hosts).start().await?;
    let mesh = broker.mesh("team")?;
    let mut ann = broker.join(&mesh.creator.clone()).await?;
    deployed(&mut ann, deploy("svc", "a", json!({}))).await?;
    let refused = ann.ask(deploy("other", "a", json!({}))).await?;
    assert_eq!((&refused["code"], &refused["bound"]["name"]), (&json!("limit"), &json!("services.per_member")));
    assert_eq!(
        deployed(&mut ann, deploy("svc", "b", json!({}))).await?["status"],
        "running",
        "a redeploy at the limit"
    );
    let large = json!({"config": {"memory_mb": 400, "args": []}});
    let refused = ann.ask(deploy("svc", "b", large)).await?;
    assert_eq!(refused["bound"]["name"], "services.memory_mb_per_mesh", "{refused}");
    Ok(())
}

/// Containers of the runners of an engine.
fn containers(engine: &str) -> Result<String> {
    let listed = std::process::Command::new("docker")
        .args(["--host", engine, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=claudemesh.mesh"])
        .output()?;
    ensure!(listed.status.success(), "docker ps: {}", String::from_utf8_lossy(&listed.stderr));
    Ok(String::from_utf8(listed.stdout)?.trim().to_owned())
}

#[tokio::test]
#[ignore = "needs a Docker engine (CLAUDEMESH_TEST_DOCKER) that has the image of the runner (CLAUDEMESH_TEST_RUNNER_IMAGE)"]
async fn a_container_goes_on_without_the_broker_and_goes_with_its_last_service() -> Result<()> {
    const COUNTER: &str = r#"
import sys,json,os,socket
n=0
for line in sys.stdin:
    m=json.loads(line); i=m.get("id"); t=m.get("method"); p=m.get("params") or {}
    if i is None: continue
    r={}
    if t=="initialize": r={"protocolVersion":p["protocolVersion"],"capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}
    if t=="tools/list": r={"tools":[{"name":n,"inputSchema":{"type":"object"}} for n in ("count","walls")]}
    if t=="tools/call":
        n+=1; found=[str(n)]
        if p["name"]=="walls":
            found=["uid" if os.getuid()==0 else "user"]
            for f in ("/etc/x","/x"):
                try: open(f,"w"); found.append("wrote "+f)
                except OSError: pass
            try: socket.create_connection(("1.1.1.1",53),2); found.append("network")
            except OSError: pass
            if "sock" in " ".join(os.listdir("/run")): found.append("socket")
        r={"content":[{"type":"text","text":",".join(found)}]}
    print(json.dumps({"jsonrpc":"2.0","id":i,"result":r}),flush=True)
"#;
    let engine = std::env::var("CLAUDEMESH_TEST_DOCKER").context("CLAUDEMESH_TEST_DOCKER")?;
    let image = std::env::var("CLAUDEMESH_TEST_RUNNER_IMAGE").context("CLAUDEMESH_TEST_RUNNER_IMAGE")?;
    let hosts = |config: &mut claudemesh_testkit::broker::Config| {
        config.services.host = HostKind::Docker;
        config.services.docker = Some(engine.clone());
        config.services.image = image;
    };
    let mut broker = Builder::new(Database::Sqlite).config(hosts).start().await?;
    let mesh = broker.mesh("team")?;
    let owner = mesh.creator.clone();
    let mut ann = broker.join(&owner).await?;
    let source = json!({"type": "command", "command": "python3"});
    let request = json!({
        "type": "mcp_deploy", "server_name": "svc", "source": source, "config": {"args": ["-c", COUNTER]}, "wait": true,
    });
    let running = deployed(&mut ann, request).await?;
    assert_eq!(running["status"], "running", "{running}");
    assert_eq!(text(&ann.ask(call("svc", "count", json!({}))).await?), "1");
    assert_eq!(text(&ann.ask(call("svc", "walls", json!({}))).await?), "user", "what it must not reach");
    let container = containers(&engine)?;
    assert_eq!(container.len(), 64, "one container: {container}");
    broker.restart().await?;
    assert_eq!(containers(&engine)?, container, "it goes on without the broker");
    let mut ann = broker.join(&owner).await?;
    ann.find("it is back", |frame| frame["event"] == "mcp_service_status" && frame["eventData"]["status"] == "running")
        .await?;
    assert_eq!(text(&ann.ask(call("svc", "count", json!({}))).await?), "3", "the same process answers");
    ann.call(json!({"type": "mcp_undeploy", "server_name": "svc"}), "mcp_deploy_status").await?;
    let is_gone = async || Ok(containers(&engine)?.is_empty().then_some(()));
    until("no container is left", Duration::from_secs(30), is_gone).await
}
