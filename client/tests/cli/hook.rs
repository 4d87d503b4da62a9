use std::time::{Duration, Instant};

use serde_json::json;

use crate::home::{Home, finish, private};
use crate::server;

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn home_with(meshes: &[(&str, &str)]) -> Home {
    let home = Home::new();
    home.join(meshes);
    private(&home.write(".claudemesh/hook-token", TOKEN));
    home
}

#[test]
fn the_status_goes_to_each_broker_once_with_the_token() {
    let (port, requests) = server::start();
    let url = format!("ws://127.0.0.1:{port}/ws");
    let home = home_with(&[("a", &url), ("b", &url)]);
    let input = json!({"session_id": "s-1", "cwd": "/src/x", "hook_event_name": "UserPromptSubmit"}).to_string();
    let ran = finish(home.command(&["hook", "prompt"]), &input).exits(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    let request = requests.recv().unwrap();
    assert_eq!(request.line, "POST /hook/set-status HTTP/1.1");
    assert_eq!(request.header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body, json!({"cwd": "/src/x", "status": "working", "pid": std::process::id(), "session_id": "s-1"}));
    assert!(requests.try_recv().is_err(), "two meshes on one broker: one call");
}

#[test]
fn a_launched_session_tells_only_its_mesh() {
    let (port, requests) = server::start();
    let (other_port, other_requests) = server::start();
    let urls = [format!("ws://127.0.0.1:{port}/ws"), format!("ws://127.0.0.1:{other_port}/ws")];
    let home = home_with(&[("a", &urls[0]), ("b", &urls[1])]);
    home.write("session/session.json", r#"{"meshSlug":"b"}"#);
    let mut command = home.command(&["hook", "stop"]);
    command.env("CLAUDEMESH_SESSION_DIR", home.path("session")).env("CLAUDE_PROJECT_DIR", "/p");
    finish(command, "").exits(0);
    let body: serde_json::Value = serde_json::from_str(&other_requests.recv().unwrap().body).unwrap();
    assert_eq!((&body["status"], &body["cwd"]), (&"idle".into(), &"/p".into()));
    assert!(requests.try_recv().is_err());
}

#[test]
fn nothing_that_goes_wrong_is_heard() {
    let dead = format!("ws://127.0.0.1:{}/ws", server::closed_port());
    let home = home_with(&[("a", &dead)]);
    for args in [&["hook"][..], &["hook", "idle"], &["hook", "unknown"], &["hook", "dnd"], &["hook", "a", "b"]] {
        let ran = finish(home.command(args), "not json");
        if args.len() < 3 {
            assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{args:?}");
        }
    }
    home.write(".claudemesh/config.json", "{");
    assert_eq!(finish(home.command(&["hook", "idle"]), "{}").exits(0).stderr, "");
    let mut command = home.command(&["hook", "idle"]);
    command.env("CLAUDEMESH_HOOK_DEBUG", "1");
    assert!(finish(command, "{}").exits(0).stderr.contains("is damaged"));
    let ran = finish(home.command(&["--config-dir", "/nowhere", "hook", "idle"]), "{}").exits(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_silent_broker_and_an_open_pipe_cost_a_bounded_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", silent.local_addr().unwrap());
    let home = home_with(&[("a", &url)]);
    let mut command = home.command(&["hook", "idle"]);
    let started = Instant::now();
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    // The pipe stays open and says nothing.
    let _open = child.stdin.take();
    assert!(child.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
