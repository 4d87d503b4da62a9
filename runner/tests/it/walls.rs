//! Secrets, and what services see of each other and of the runner.

use std::sync::Arc;

use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::runner::sealing::{Place, seal};
use claudemesh_protocol::runner::{Ask, EnvVar, FailCode, SecretFile, ServiceSpec, Text};
use serde_json::{Value, json};

use crate::harness::{Route, Runner, python};

const CANARY: &str = "canary-5f2e-value";

fn sealed(runner: &Runner, service: &str, target: &str, value: &[u8]) -> Text {
    let key = PublicKey::parse(&runner.hello.public_key).unwrap();
    let place = Place { mesh: "mesh".into(), service: service.into(), target: target.into() };
    Text::Sealed(seal(value, &place, &key, &mut rand::thread_rng()).unwrap())
}

fn with_secrets(runner: &Runner, id: &str) -> ServiceSpec {
    let mut spec = python(id);
    spec.env = vec![EnvVar { name: "TOKEN".into(), value: sealed(runner, id, "env:TOKEN", CANARY.as_bytes()) }];
    spec.files =
        vec![SecretFile { path: "keys/id".into(), value: sealed(runner, id, "file:keys/id", b"file-canary\0\xff") }];
    spec
}

/// Whether services have users of their own here.
fn separate(runner: &Runner) -> bool {
    assert_eq!(runner.hello.users, rustix::process::geteuid().is_root());
    runner.hello.users
}

#[tokio::test]
async fn sealed_values_are_opened_for_their_service_only_and_shown_nowhere() {
    let runner = Runner::start().await;
    runner.run(&with_secrets(&runner, "s")).await;
    let env = runner.call("s", "env", json!({})).await;
    assert_eq!(env["TOKEN"], CANARY);
    let file = runner.dir("s").join("secrets/keys/id");
    assert_eq!(env["CLAUDEMESH_SECRETS"], json!(runner.dir("s").join("secrets")));
    assert_eq!(runner.call("s", "read", json!({"path": file})).await, json!("file-canary\0\u{ff}"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // What the service says of it is hidden in its log, also as base64.
    for text in [CANARY.to_owned(), format!("x{CANARY}y"), "Y2FuYXJ5LTVmMmUtdmFsdWU=".into()] {
        runner.call("s", "say", json!({"text": text})).await;
        runner.call("s", "say", json!({"text": text, "to": "stdout"})).await;
    }
    runner.logged("s", "x[secret]y").await;
    let log = runner.log("s").await.join("\n");
    assert!(!log.contains(CANARY) && !log.contains("Y2FuYXJ5"), "{log}");
    let pid = runner.call("s", "who", json!({})).await["pid"].as_u64().unwrap();
    let commands = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&commands).contains(CANARY));
    // In the answer of a failed start, too.
    let mut exits = with_secrets(&runner, "exits");
    exits.args.push("exit".into());
    runner.install(&exits, b"").await.unwrap();
    let failure = runner.start_service("exits").await.unwrap_err();
    assert!(failure.message.contains("token is [secret]"), "{failure:?}");
    assert!(!runner.transcript().contains(CANARY));
}

#[tokio::test]
async fn a_value_for_another_service_or_another_runner_is_not_opened() {
    let runner = Runner::start().await;
    let other = Runner::start().await;
    assert_ne!(runner.hello.public_key, other.hello.public_key);
    let mut cases = vec![with_secrets(&runner, "theirs"), with_secrets(&other, "mine"), with_secrets(&runner, "mine")];
    cases[0].id = "mine".into();
    cases[0].name = "mine".into();
    cases[2].env[0].name = "SHOWN".into();
    for (at, mut spec) in cases.into_iter().enumerate() {
        spec.id = format!("mine-{at}");
        runner.install(&spec, b"").await.unwrap();
        let failure = runner.start_service(&spec.id).await.unwrap_err();
        assert_eq!(failure.code, FailCode::Sealed, "{failure:?}");
    }
}

#[tokio::test]
async fn nothing_of_the_runner_reaches_a_service() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    let env = runner.call("s", "env", json!({})).await;
    for name in ["RUNNERS_OWN", "CLAUDEMESH_RUNNER_DIR", "CARGO_MANIFEST_DIR"] {
        assert_eq!(env[name], Value::Null, "{name}");
    }
    let inside = |name: &str| env[name].as_str().unwrap().starts_with(&*runner.dir("s").to_string_lossy());
    assert!(inside("HOME") && inside("TMPDIR"), "{env}");
    let own = runner.pid();
    for path in ["environ", "mem", "fd/0", "root/etc/passwd", "cwd", "maps"] {
        let read = runner.call("s", "read", json!({"path": format!("/proc/{own}/{path}")})).await;
        if separate(&runner) {
            assert_eq!(read, "error: Permission denied", "{path}");
        }
    }
}

#[tokio::test]
async fn services_are_users_of_their_own_and_see_nothing_of_each_other() {
    let runner = Runner::start().await;
    if !separate(&runner) {
        return;
    }
    runner.run(&with_secrets(&runner, "one")).await;
    runner.run(&python("two")).await;
    let (one, two) = (runner.call("one", "who", json!({})).await, runner.call("two", "who", json!({})).await);
    for who in [&one, &two] {
        assert!(who["uid"].as_u64().unwrap() >= 20_000 && who["uid"] == who["gid"], "{who}");
        assert_eq!(who["groups"], json!([]));
    }
    assert_ne!(one["uid"], two["uid"]);
    let folder = runner.dir("one");
    let pid = &one["pid"];
    let denied = json!("error: Permission denied");
    for path in [
        folder.join("secrets/keys/id"),
        folder.join("secrets"),
        folder.join("app"),
        folder.clone(),
        runner.folder.path().join("run/services"),
        format!("/proc/{pid}/environ").into(),
        format!("/proc/{pid}/mem").into(),
        format!("/proc/{pid}/fd").into(),
        format!("/proc/{pid}/cwd/x").into(),
        format!("/proc/{pid}/root/etc").into(),
    ] {
        assert_eq!(runner.call("two", "read", json!({"path": path})).await, denied, "{}", path.display());
    }
    assert_eq!(runner.call("two", "write", json!({"path": folder.join("app/x"), "text": "x"})).await, denied);
    assert_eq!(runner.call("two", "kill", json!({"pid": pid})).await, "error: Operation not permitted");
    assert_eq!(runner.call("two", "kill", json!({"pid": runner.pid()})).await, "error: Operation not permitted");
    // Its own folder it cannot open for others either.
    let opened = runner.call("one", "chmod", json!({"path": folder, "mode": 0o777})).await;
    assert_eq!(opened, "error: Operation not permitted");
    runner.call("one", "chmod", json!({"path": folder.join("app"), "mode": 0o777})).await;
    assert_eq!(runner.call("two", "read", json!({"path": folder.join("app")})).await, denied);
}

#[tokio::test]
async fn what_a_user_left_in_shared_folders_goes_with_its_service() {
    let runner = Runner::start().await;
    if !separate(&runner) {
        return;
    }
    runner.run(&python("s")).await;
    let left = std::env::temp_dir().join(format!("claudemesh-left-{}", runner.pid()));
    assert_eq!(runner.call("s", "write", json!({"path": left, "text": "x"})).await, "written");
    assert!(left.exists());
    runner.done(Ask::Remove { id: "s".into() }, b"").await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn as_the_first_process_with_few_rights_and_no_network_it_does_all_the_same() {
    let route: Route = Arc::new(|_, _| None);
    let Some(runner) = Runner::contained(route).await else { return };
    assert!(runner.hello.users);
    runner.run(&with_secrets(&runner, "s")).await;
    let who = runner.call("s", "who", json!({})).await;
    assert!(who["uid"].as_u64().unwrap() > 0 && who["pid"].as_u64().unwrap() < 1_000, "{who}");
    assert_eq!(runner.call("s", "env", json!({})).await["TOKEN"], CANARY);
    assert_eq!(runner.call("s", "read", json!({"path": "/proc/1/environ"})).await, "error: Permission denied");
    assert_eq!(runner.call("s", "kill", json!({"pid": 1})).await, "error: Operation not permitted");
    // A grandchild that lost its parent is the runner's, and goes with its service.
    let grandchild = runner.call("s", "fork", json!({})).await;
    let parent = |status: &Value| status.as_str().unwrap().contains("PPid:\t1\n");
    assert!(parent(&runner.call("s", "read", json!({"path": format!("/proc/{grandchild}/status")})).await));
    runner.done(Ask::Stop { id: "s".into(), grace_ms: 0 }, b"").await.unwrap();
    runner.start_service("s").await.unwrap();
    let gone = runner.call("s", "read", json!({"path": format!("/proc/{grandchild}/status")})).await;
    assert_eq!(gone, "error: No such file or directory");
    // The way out works over loopback, and there is no other.
    let answer = runner.call("s", "get", json!({"url": "http://refused.example/"})).await;
    assert_eq!(answer["status"], 403, "{answer}");
    let direct = runner.call("s", "direct", json!({"host": "1.1.1.1", "port": 53})).await;
    assert_eq!(direct, "error: Network is unreachable");
    runner.done(Ask::Remove { id: "s".into() }, b"").await.unwrap();
    assert!(!runner.dir("s").exists());
}

#[tokio::test]
async fn a_fork_bomb_harms_no_one_and_ends_with_its_service() {
    let route: Route = Arc::new(|_, _| None);
    let Some(runner) = Runner::contained(route).await else { return };
    let mut bomb = python("bomb");
    bomb.limits.processes = 40;
    runner.run(&bomb).await;
    runner.run(&python("well")).await;
    let _ = runner.begin(&Runner::call_ask("bomb", false), &Runner::params("bomb", &json!({}))).await;
    runner.logged("bomb", "no more processes").await;
    assert_eq!(runner.call("well", "say", json!({"text": "x"})).await, "said");
    runner.done(Ask::Remove { id: "bomb".into() }, b"").await.unwrap();
    let who = runner.call("well", "processes", json!({})).await;
    assert_eq!(who, json!(2), "the runner and this one");
}

#[tokio::test]
async fn ways_out_of_the_walls_are_closed() {
    let route: Route = Arc::new(|_, _| None);
    let Some(runner) = Runner::contained(route).await else { return };
    runner.run(&with_secrets(&runner, "prisoner")).await;
    runner.run(&with_secrets(&runner, "sibling")).await;
    let sibling = runner.call("sibling", "who", json!({})).await;
    let args = json!({"sibling": sibling["pid"], "sibling_uid": sibling["uid"]});
    let results = runner.call("prisoner", "escape", args).await;
    let results = results.as_object().unwrap();
    let works: Vec<&String> = results.iter().filter(|(_, result)| *result == "works").map(|(name, _)| name).collect();
    assert!(works.is_empty() && results.len() >= 30, "{works:?} of {results:?}");
    // Nothing has happened to the others.
    assert_eq!(runner.call("sibling", "env", json!({})).await["TOKEN"], CANARY);
    assert_eq!(runner.call("sibling", "who", json!({})).await["pid"], sibling["pid"]);
}
