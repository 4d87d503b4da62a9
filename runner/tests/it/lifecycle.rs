//! Start, crash, restart, stop, remove.

use claudemesh_protocol::runner::{Answer, Ask, Event, FailCode, Status};
use serde_json::json;

use crate::calls::plain;
use crate::harness::{Runner, patiently, python};

/// Whether a process is there and no zombie.
fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("Z").starts_with('Z'))
}

async fn crash(runner: &Runner, id: &str) {
    let code = runner.fails(Runner::call_ask(id, false), &Runner::params("crash", &json!({"code": 3}))).await;
    assert_eq!(code, FailCode::Restarting, "who waits is told to try again");
}

fn status(runner: &Runner, id: &str) -> impl Future<Output = Status> {
    let ask = Ask::Stats { id: Some(id.into()) };
    async move {
        match runner.ask(ask, b"").await.0 {
            Answer::Stats { services } => services[0].service.status,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_crashed_server_is_started_again_with_a_handshake_until_its_budget_is_spent() {
    let runner = Runner::start().await;
    let mut spec = python("s");
    spec.limits.restarts = 2;
    runner.run(&spec).await;
    for restart in 1..=2 {
        crash(&runner, "s").await;
        runner
            .event("s", |event, _| {
                matches!(event, Event::Running { restarts, .. } if *restarts == restart).then_some(())
            })
            .await;
        assert_eq!(runner.call("s", "say", json!({"text": "x"})).await, "said");
    }
    let (exit, retry, message) = runner
        .event("s", |event, _| match event {
            Event::Crashed { exit, retry_in_ms, message, .. } => Some((*exit, *retry_in_ms, message.clone())),
            _ => None,
        })
        .await;
    assert_eq!((exit, retry), (Some(3), Some(50)));
    assert!(message.contains("last words"), "{message}");
    crash(&runner, "s").await;
    runner.event("s", |event, _| matches!(event, Event::Crashed { retry_in_ms: None, .. }).then_some(())).await;
    assert_eq!(status(&runner, "s").await, Status::Crashed);
    assert_eq!(
        runner.fails(Runner::call_ask("s", false), &Runner::params("who", &json!({}))).await,
        FailCode::NotRunning
    );
    // Started by the broker it has its whole budget again.
    runner.start_service("s").await.unwrap();
    crash(&runner, "s").await;
}

#[tokio::test]
async fn a_crash_no_longer_counts_after_a_while() {
    let runner = Runner::with(&[("CLAUDEMESH_RUNNER_BUDGET_MS", "0")], std::sync::Arc::new(|_, _| None)).await;
    let mut spec = python("s");
    spec.limits.restarts = 1;
    runner.run(&spec).await;
    for restart in 1..=4 {
        crash(&runner, "s").await;
        runner
            .event("s", |event, _| {
                matches!(event, Event::Running { restarts, .. } if *restarts == restart).then_some(())
            })
            .await;
    }
}

#[tokio::test]
async fn servers_that_do_not_answer_are_told_apart() {
    let ping = [("CLAUDEMESH_RUNNER_PING_MS", "20"), ("CLAUDEMESH_RUNNER_PING_TIMEOUT_MS", "20")];
    let runner = Runner::with(&ping, std::sync::Arc::new(|_, _| None)).await;
    // It answers nothing at all.
    let mut silent = python("silent");
    silent.args.push("silent".into());
    silent.start_timeout_ms = 300;
    runner.install(&silent, b"").await.unwrap();
    let failure = runner.start_service("silent").await.unwrap_err();
    assert_eq!(failure.code, FailCode::HandshakeFailed);
    assert_eq!(status(&runner, "silent").await, Status::Failed);
    // It ends at once.
    let mut exit = python("exit");
    exit.args.push("exit".into());
    runner.install(&exit, b"").await.unwrap();
    let failure = runner.start_service("exit").await.unwrap_err();
    assert!(failure.code == FailCode::HandshakeFailed && failure.message.contains("code 9"), "{failure:?}");
    assert!(failure.message.contains("cannot: token is ?"), "{failure:?}");
    // There is no such program.
    let mut spec = python("none");
    spec.source = claudemesh_protocol::runner::Source::Command { command: "/nonexistent/program".into() };
    assert_eq!(runner.install(&spec, b"").await.unwrap_err().code, FailCode::InstallFailed);
    // It no longer answers `ping`.
    let mut deaf = python("deaf");
    deaf.args.push("deaf".into());
    runner.run(&deaf).await;
    let message = runner
        .event("deaf", |event, _| match event {
            Event::Crashed { message, .. } => Some(message.clone()),
            _ => None,
        })
        .await;
    assert!(message.contains("ping"), "{message}");
    // One that answers is left alone.
    runner.run(&python("well")).await;
    runner.event("deaf", |event, _| matches!(event, Event::Running { restarts: 1, .. }).then_some(())).await;
    assert!(!runner.transcript().lines().any(|line| line.contains("\"well\"") && line.contains("Crashed")));
}

#[tokio::test]
async fn stop_and_remove_leave_no_process_and_no_file() {
    let runner = Runner::start().await;
    let mut spec = python("s");
    spec.files = vec![claudemesh_protocol::runner::SecretFile {
        path: "a/token".into(),
        value: claudemesh_protocol::runner::Text::Plain("s3cret".into()),
    }];
    runner.run(&spec).await;
    let pid = runner.call("s", "who", json!({})).await["pid"].as_u64().unwrap();
    let grandchild = runner.call("s", "fork", json!({})).await.as_u64().unwrap();
    assert!(is_alive(pid) && is_alive(grandchild));
    let secrets = runner.dir("s").join("secrets");
    assert!(secrets.join("a/token").is_file());
    runner.done(Ask::Stop { id: "s".into(), grace_ms: 0 }, b"").await.unwrap();
    assert!(!is_alive(pid) && !is_alive(grandchild) && !secrets.exists());
    assert_eq!(status(&runner, "s").await, Status::Stopped);
    // It starts again, and goes away whole.
    runner.start_service("s").await.unwrap();
    let grandchild = runner.call("s", "fork", json!({})).await.as_u64().unwrap();
    runner.done(Ask::Remove { id: "s".into() }, b"").await.unwrap();
    assert!(!is_alive(grandchild) && !runner.dir("s").exists());
    assert_eq!(runner.fails(Ask::Remove { id: "s".into() }, b"").await, FailCode::NotFound);
    runner.run(&python("s")).await;
}

#[tokio::test]
async fn a_server_may_end_by_itself_when_it_is_stopped() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    runner.done(Ask::Stop { id: "s".into(), grace_ms: 30_000 }, b"").await.unwrap();
    assert!(runner.log("s").await.contains(&"the input has ended".to_owned()));
    assert!(!runner.transcript().contains("Crashed"), "its end is no crash");
}

#[tokio::test]
async fn orphans_are_buried() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    let grandchild = runner.call("s", "fork", json!({})).await.as_u64().unwrap();
    runner.call("s", "kill", json!({"pid": grandchild})).await;
    // The runner is its parent now, and buries it without being asked for anything.
    patiently("the burial", async {
        while std::path::Path::new(&format!("/proc/{grandchild}")).exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_start_with_changed_values_takes_them_over() {
    let runner = Runner::start().await;
    let mut spec = python("s");
    spec.env = vec![plain("COLOUR", "red")];
    runner.run(&spec).await;
    assert_eq!(runner.call("s", "env", json!({})).await["COLOUR"], "red");
    spec.env = vec![plain("COLOUR", "blue")];
    runner.done(Ask::Start { id: "s".into(), spec: Some(Box::new(spec)) }, b"").await.unwrap();
    assert_eq!(runner.call("s", "env", json!({})).await["COLOUR"], "blue");
}

#[tokio::test]
async fn everything_ends_when_the_runner_is_told_to_and_when_its_input_ends() {
    for by_signal in [true, false] {
        let mut runner = Runner::start().await;
        runner.run(&python("s")).await;
        let pid = runner.call("s", "who", json!({})).await["pid"].as_u64().unwrap();
        if by_signal {
            let own = rustix::process::Pid::from_raw(i32::try_from(runner.pid()).unwrap()).unwrap();
            rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        } else {
            runner.garbage(b"");
        }
        assert!(runner.ended().await.success());
        assert!(!is_alive(pid) && !runner.dir("s").exists());
    }
}

#[tokio::test]
async fn numbers_say_what_a_service_uses() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    runner.call("s", "write", json!({"path": runner.dir("s").join("tmp/file"), "text": "x".repeat(100_000)})).await;
    let (answer, _) = runner.ask(Ask::Stats { id: None }, b"").await;
    let Answer::Stats { services } = answer else { panic!("{answer:?}") };
    let stats = &services[0];
    assert_eq!((services.len(), stats.service.status, stats.processes), (1, Status::Running, 1));
    assert!(stats.memory_bytes > 1_000_000 && stats.disk_bytes > 100_000 && stats.log_lines >= 1, "{stats:?}");
}

#[tokio::test]
async fn a_folder_that_grows_too_large_ends_its_service() {
    let ping = [("CLAUDEMESH_RUNNER_PING_MS", "20")];
    let runner = Runner::with(&ping, std::sync::Arc::new(|_, _| None)).await;
    let mut spec = python("s");
    spec.limits.disk_bytes = 400_000;
    spec.limits.restarts = 1;
    runner.run(&spec).await;
    // One file of that size is refused by the system.
    let path = |name: &str| runner.dir("s").join("tmp").join(name);
    assert_eq!(runner.call("s", "who", json!({})).await["file_bytes"], 400_000);
    for name in ["a", "b"] {
        let write = Runner::params("write", &json!({"path": path(name), "text": "x".repeat(300_000)}));
        // The second answer may come too late.
        runner.ask(Runner::call_ask("s", false), &write).await;
    }
    let message = runner
        .event("s", |event, _| match event {
            Event::Crashed { message, .. } => Some(message.clone()),
            _ => None,
        })
        .await;
    assert!(message.contains("folder"), "{message}");
}
