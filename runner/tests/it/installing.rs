//! Bundles, packages and repositories.

use std::io::Write;
use std::sync::Arc;

use claudemesh_protocol::runner::{Ask, Event, FailCode, Phase, Registries, RunnerAsk, ServiceSpec, Source};
use serde_json::json;
use sha2::{Digest, Sha256};
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::calls::plain;
use crate::harness::{Route, Runner, SERVER, patiently};

fn bundle(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn zip_spec(id: &str, bundle: &[u8]) -> ServiceSpec {
    let source = Source::Zip { sha256: hex::encode(Sha256::digest(bundle)), bytes: bundle.len() as u64 };
    ServiceSpec::new(id, id, "mesh", source)
}

/// A server in Node without any package.
const NODE: &str = r#"
const lines = require("node:readline").createInterface({ input: process.stdin });
const send = (id, result) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, result }) + "\n");
lines.on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize") send(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "n", version: "1" } });
  else if (method === "tools/list") send(id, { tools: [{ name: "where", inputSchema: { type: "object" } }] });
  else if (method === "tools/call") send(id, { content: [{ type: "text", text: JSON.stringify({ cwd: process.cwd(), file: __filename }) }] });
  else if (id !== undefined) send(id, {});
});
"#;

#[tokio::test]
async fn bundles_in_python_and_in_node_run_where_they_were_unpacked() {
    let runner = Runner::start().await;
    let python = bundle(&[("top/server.py", SERVER), ("top/data.txt", "data")]);
    runner.install(&zip_spec("p", &python), &python).await.unwrap();
    runner.start_service("p").await.unwrap();
    assert_eq!(runner.call("p", "read", json!({"path": "data.txt"})).await, "data");
    let runtime = runner
        .event("p", |event, _| match event {
            Event::Installed { runtime, .. } => Some(runtime.clone()),
            _ => None,
        })
        .await;
    assert_eq!(runtime, "python");
    if runner.hello.programs.contains(&"npm".to_owned()) {
        let node = bundle(&[
            ("package.json", r#"{"name":"x","version":"1.2.3","main":"lib/main.js"}"#),
            ("lib/main.js", NODE),
        ]);
        runner.install(&zip_spec("n", &node), &node).await.unwrap();
        runner.start_service("n").await.unwrap();
        let at = runner.call("n", "where", json!({})).await;
        assert_eq!(at["file"], json!(runner.dir("n").join("app/lib/main.js")));
    }
}

#[tokio::test]
async fn bundles_that_are_not_what_they_say_or_reach_outside_are_refused() {
    let runner = Runner::start().await;
    let good = bundle(&[("server.py", SERVER)]);
    let outside = bundle(&[("server.py", SERVER), ("../../../outside", "x")]);
    let mut link = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    link.add_symlink("server.py", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let link = link.finish().unwrap().into_inner();
    let no_entry = bundle(&[("requirements.txt", "")]);
    for (id, spec, bytes, code) in [
        ("hash", zip_spec("hash", &good), &outside, FailCode::BadBundle),
        ("outside", zip_spec("outside", &outside), &outside, FailCode::BadBundle),
        ("link", zip_spec("link", &link), &link, FailCode::BadBundle),
        ("garbage", zip_spec("garbage", b"no zip"), &b"no zip".to_vec(), FailCode::BadBundle),
        ("empty", zip_spec("empty", &no_entry), &no_entry, FailCode::InstallFailed),
    ] {
        let failure = runner.install(&spec, bytes).await.unwrap_err();
        assert_eq!(failure.code, code, "{id}: {failure:?}");
        assert_eq!(runner.start_service(id).await.unwrap_err().code, FailCode::NotRunning);
        runner.done(Ask::Remove { id: id.into() }, b"").await.unwrap();
    }
    assert!(!runner.folder.path().join("run/outside").exists() && !runner.folder.path().join("outside").exists());
}

#[tokio::test]
async fn an_installer_sees_no_value_of_the_service_and_is_ended_when_it_takes_too_long() {
    let runner = Runner::start().await;
    if !runner.hello.programs.contains(&"npm".to_owned()) {
        return;
    }
    // A script of the package itself; asked for, so it runs.
    let script = "node -e \\\"console.error('token', process.env.TOKEN, process.getuid && process.getuid())\\\"";
    let manifest = format!(r#"{{"name":"x","version":"1.0.0","main":"main.js","scripts":{{"install":"{script}"}}}}"#);
    let files = bundle(&[("package.json", &manifest), ("main.js", NODE)]);
    let mut spec = zip_spec("asked", &files);
    spec.install_scripts = true;
    spec.env = vec![plain("TOKEN", "plain-canary")];
    spec.registries = Registries {
        env: [("npm_config_foreground_scripts".to_owned(), "true".to_owned())].into(),
        ..Registries::default()
    };
    runner.install(&spec, &files).await.unwrap();
    let log = runner.log("asked").await.join("\n");
    assert!(log.contains("token undefined"), "{log}");
    if runner.hello.users {
        assert!(!log.contains("token undefined 0"), "{log}");
    }
    // Not asked for, it does not run.
    let mut spec = zip_spec("not-asked", &files);
    spec.registries = Registries {
        env: [("npm_config_foreground_scripts".to_owned(), "true".to_owned())].into(),
        ..Registries::default()
    };
    runner.install(&spec, &files).await.unwrap();
    assert!(!runner.log("not-asked").await.join("\n").contains("token"));
    // One that hangs.
    let manifest = r#"{"name":"x","version":"1.0.0","main":"main.js","scripts":{"install":"sleep 600"}}"#;
    let files = bundle(&[("package.json", manifest), ("main.js", NODE)]);
    let mut spec = zip_spec("hangs", &files);
    spec.install_scripts = true;
    spec.install_timeout_ms = 3_000;
    assert_eq!(runner.install(&spec, &files).await.unwrap_err().code, FailCode::Timeout);
}

/// Lets services go wherever they want, as far as this machine can.
fn anywhere() -> Route {
    Arc::new(|host, port| Some(format!("{host}:{port}")))
}

#[tokio::test]
async fn a_repository_is_fetched_at_its_commit_through_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(folder.path()).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(args);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet", "-b", "main", "."]);
    std::fs::write(folder.path().join("server.py"), SERVER).unwrap();
    std::fs::write(folder.path().join("version"), "one").unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    std::fs::write(folder.path().join("version"), "two").unwrap();
    git(&["commit", "--quiet", "-am", "two"]);
    git(&["update-server-info"]);
    let mut server = std::process::Command::new("python3")
        .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
        .current_dir(folder.path().join(".git"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line).unwrap();
    let port: u16 = line.split("port ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let route: Route =
        Arc::new(move |host, asked| (host == "git.example" && asked == 80).then(|| format!("127.0.0.1:{port}")));
    let runner = Runner::with(&[], route).await;
    let spec = |id: &str, commit: &str| {
        ServiceSpec::new(
            id,
            id,
            "mesh",
            Source::Git { url: "http://git.example/".into(), commit: commit.into(), auth: None },
        )
    };
    let installed = runner.install(&spec("s", &commit), b"").await;
    let missing = runner.install(&spec("missing", &"0".repeat(40)), b"").await;
    let _ = server.kill();
    let _ = server.wait();
    installed.unwrap();
    assert_eq!(missing.unwrap_err().code, FailCode::InstallFailed);
    runner.asked(|ask| matches!(ask, RunnerAsk::Egress { phase: Phase::Install, .. }).then_some(())).await;
    runner.start_service("s").await.unwrap();
    assert_eq!(runner.call("s", "read", json!({"path": "version"})).await, "one");
}

#[tokio::test]
async fn an_installation_that_is_no_longer_wanted_leaves_nothing() {
    // The registry never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let runner = Runner::with(&[], Arc::new(move |_, _| Some(address.clone()))).await;
    if !runner.hello.programs.contains(&"npm".to_owned()) {
        return;
    }
    let mut spec = ServiceSpec::new("s", "s", "mesh", Source::Npm { package: "x".into(), bin: None });
    spec.registries.npm = Some("http://registry.example/".into());
    let exchange = runner.begin(&Ask::Install { spec: Box::new(spec) }, b"").await;
    runner.asked(|ask| matches!(ask, RunnerAsk::Egress { host, .. } if host == "registry.example").then_some(())).await;
    exchange.reset(FailCode::Cancelled, "");
    patiently("the end of the installation", async {
        while runner.dir("s").exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the registries of npm and PyPI; `cargo xtask test` runs it"]
async fn servers_of_others_are_installed_from_their_registries_and_answer() {
    let runner = Runner::with(&[], anywhere()).await;
    let npm = Source::Npm { package: "@modelcontextprotocol/server-everything@2026.8.31".into(), bin: None };
    let everything = ServiceSpec::new("everything", "everything", "mesh", npm);
    let pypi = Source::Pypi { package: "mcp-server-time==2026.10.19".into(), bin: None };
    let time = ServiceSpec::new("time", "time", "mesh", pypi);
    for (spec, tool, args, expected) in [
        (everything, "echo", json!({"message": "café"}), "Echo: café"),
        (time, "get_current_time", json!({"timezone": "Etc/UTC"}), "Etc/UTC"),
    ] {
        runner.install(&spec, b"").await.unwrap();
        runner.start_service(&spec.id).await.unwrap();
        let answer = runner.call(&spec.id, tool, args).await.to_string();
        assert!(answer.contains(expected), "{answer}");
    }
    let version = runner
        .event("everything", |event, _| match event {
            Event::Installed { version, .. } => version.clone(),
            _ => None,
        })
        .await;
    assert_eq!(version, "@modelcontextprotocol/server-everything 2026.8.31");
}
