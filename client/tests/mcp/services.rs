//! Hosted MCP servers from the shell, with the real runner as a process beside the broker.

use anyhow::{Context, Result, ensure};
use claudemesh_broker::features::services::host::settings::HostKind;
use claudemesh_testkit::broker::Config;
use serde_json::{Value, json};

use super::json;
use super::team::{Team, stderr, stdout};

/// An MCP server in a few lines: it says what it is given, or the variable that it is named.
pub(crate) const SERVER: &str = r#"
import sys,json,os
for line in sys.stdin:
    m=json.loads(line); i=m.get("id"); t=m.get("method"); p=m.get("params") or {}
    if i is None: continue
    r={}
    if t=="initialize": r={"protocolVersion":p["protocolVersion"],"capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}
    if t=="tools/list": r={"tools":[{"name":n,"inputSchema":{"type":"object"}} for n in ("echo","env")]}
    if t=="tools/call":
        a=p.get("arguments") or {}
        r={"content":[{"type":"text","text":a.get("text","") if p["name"]=="echo" else os.environ.get(a["name"],"none")}]}
    print(json.dumps({"jsonrpc":"2.0","id":i,"result":r}),flush=True)
"#;

/// Lets the broker under test host services with the runner that was built with this test.
pub(crate) fn hosted(config: &mut Config) {
    let own = std::env::current_exe().expect("a test has a program");
    let built = own.parent().and_then(|deps| deps.parent()).expect("it lies in the folder of the build");
    let runner = built.join("claudemesh-runner");
    assert!(runner.exists(), "{} is missing: cargo build -p claudemesh-runner", runner.display());
    config.services.host = HostKind::Process;
    config.services.runner = Some(runner);
}

#[tokio::test]
async fn a_service_is_deployed_shared_called_and_ended_from_the_shell() -> Result<()> {
    let team = Team::start_with(hosted).await?;
    let (ann, bob) = (&team.ann, &team.bob);
    let deploy = [
        "deploy",
        "--name",
        "svc",
        "--command",
        "/usr/bin/python3",
        "--env",
        "GREETING=hello",
        "--network-allow",
        "api.example.org:443",
        "--memory",
        "128",
        "--runtime",
        "python",
        "--scope",
        "mesh",
        "--description",
        "Says things",
        "--json",
        "--",
        "-c",
        SERVER,
    ];
    let deployed = ann.json(&deploy)?;
    json::fits("deploy", &deployed)?;
    assert_eq!((&deployed["status"], &deployed["tools"]), (&json!("running"), &json!(["echo", "env"])));
    let listed = bob.json(&["catalog", "--json"])?;
    json::fits("catalog", &listed)?;
    assert_eq!((&listed[0]["name"], &listed[0]["description"]), (&json!("svc"), &json!("Says things")));
    assert_eq!((&listed[0]["scope"], &listed[0]["runtime"]), (&json!("mesh"), &json!("python")));
    let text = |called: Value| called["result"]["content"][0]["text"].as_str().map(str::to_owned);
    let called = bob.json(&["call", "svc", "env", r#"{"name": "GREETING"}"#, "--json"])?;
    assert_eq!(text(called).as_deref(), Some("hello"));
    let shown = stdout(&bob.run(&["catalog"])?);
    ensure!(shown.contains("svc") && shown.contains("everyone in the mesh"), "{shown}");
    // Each scope by its flag.
    for (flags, scope) in [
        (vec!["--peers", "Bob"], json!({"peers": ["Bob"]})),
        (vec!["--group", "dev"], json!({"group": "dev"})),
        (vec!["--groups", "dev,@ops"], json!({"groups": ["dev", "ops"]})),
        (vec!["--role", "lead"], json!({"role": "lead"})),
        (vec!["--all"], json!("mesh")),
        (vec!["--peer"], json!("peer")),
    ] {
        let scoped = ann.json(&[vec!["scope", "svc", "--json"], flags].concat())?;
        json::fits("scope", &scoped)?;
        assert_eq!(scoped["scope"], scope);
    }
    assert_eq!(bob.json(&["catalog", "--json"])?, json!([]), "it is Ann's alone now");
    let refused = bob.run(&["call", "svc", "echo"])?;
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert_eq!(bob.run(&["undeploy", "svc"])?.status.code(), Some(5), "to Bob it does not exist");
    let updated = ann.json(&["update", "svc", "--json"])?;
    json::fits("update", &updated)?;
    let broken =
        ["deploy", "--name", "bad", "--command", "/usr/bin/python3", "--", "-c", "raise SystemExit('no luck')"];
    let failed = ann.run(&broken)?;
    ensure!(!failed.status.success() && stderr(&failed).contains("claudemesh logs bad"), "{}", stderr(&failed));
    let logs = ann.json(&["logs", "bad", "--json"])?;
    json::fits("logs NAME", &logs)?;
    ensure!(
        logs["lines"].as_array().context("lines")?.iter().any(|line| line.to_string().contains("no luck")),
        "{logs}"
    );
    let ended = ann.json(&["undeploy", "svc", "--json"])?;
    json::fits("undeploy", &ended)?;
    assert_eq!(ended["status"], "stopped");
    assert_eq!(ann.run(&["undeploy", "svc"])?.status.code(), Some(5));
    Ok(())
}

#[tokio::test]
async fn sources_are_one_of_four_and_a_branch_goes_with_a_repository() -> Result<()> {
    let team = Team::start_with(hosted).await?;
    for (args, code) in [
        (vec!["deploy", "--name", "x"], 3),
        (vec!["deploy", "--name", "x", "--npx", "a", "--uvx", "b"], 3),
        (vec!["deploy", "--name", "x", "--npx", "a", "--branch", "main"], 3),
        (vec!["deploy", "--name", "bad name", "--npx", "a"], 3),
    ] {
        let output = team.ann.run(&args)?;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    }
    // What cannot be fetched is told: no package and no repository has such a name.
    for args in [
        ["deploy", "--name", "n", "--npx", "--not-a-package"],
        ["deploy", "--name", "u", "--uvx", "-r"],
        ["deploy", "--name", "g", "--git", "file:///etc"],
    ] {
        let output = team.ann.run(&args)?;
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", stderr(&output));
    }
    // A repository on this machine is a private address, which the operator has not allowed.
    let output = team.ann.run(&["deploy", "--name", "g", "--git", "http://127.0.0.1:9/x", "--branch", "main"])?;
    ensure!(stderr(&output).contains("allow_private"), "{}", stderr(&output));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_hosts_none_says_what_to_do() -> Result<()> {
    let team = Team::start().await?;
    let output = team.ann.run(&["deploy", "--name", "x", "--npx", "a"])?;
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    ensure!(stderr(&output).contains("[services]"), "{}", stderr(&output));
    assert_eq!(team.ann.json(&["catalog", "--json"])?, json!([]));
    Ok(())
}
