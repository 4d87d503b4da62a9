use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::home::{Home, Ran};

/// A stand-in for Claude Code: writes down how it was started.
const RECORDER: &str = r#"#!/bin/sh
for word in "$@"; do printf '%s\n' "$word"; done > "$HOME/argv"
env > "$HOME/env"
cp "$CLAUDEMESH_SESSION_DIR/session.json" "$HOME/session.json"
stat -c %a "$CLAUDEMESH_SESSION_DIR" > "$HOME/mode"
exit "${FAKE_EXIT:-0}"
"#;

fn ready() -> Home {
    let home = Home::new();
    home.script("claude", RECORDER);
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    home.run(&["install"]).exits(0);
    home
}

fn launch(home: &Home, args: &[&str]) -> Ran {
    let mut words = vec!["launch"];
    words.extend(args);
    home.run(&words)
}

fn argv(home: &Home) -> Vec<String> {
    home.read("argv").lines().map(str::to_owned).collect()
}

fn variable(home: &Home, name: &str) -> Option<String> {
    home.read("env").lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

fn session(home: &Home) -> Value {
    serde_json::from_str(&home.read("session.json")).unwrap()
}

#[test]
fn a_plain_launch_starts_claude_in_the_only_mesh() {
    let home = ready();
    let ran = launch(&home, &[]).exits(0);
    insta::assert_snapshot!(ran.stdout, @r"
    claudemesh team as project
    Messages of peers reach the session at once. Peers send text; they cannot run commands or read files here.
    ");
    let words = argv(&home);
    assert_eq!(words[..3], ["--dangerously-load-development-channels", "server:claudemesh", "--session-id"]);
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID").as_deref(), Some(words[3].as_str()));
    assert_eq!(words.len(), 4);
    assert_eq!(variable(&home, "CLAUDEMESH_CONFIG_DIR"), home.path(".claudemesh").to_str().map(str::to_owned));
    assert_eq!(variable(&home, "MCP_TIMEOUT").as_deref(), Some("30000"));
    assert_eq!(variable(&home, "MCP_TOOL_TIMEOUT").as_deref(), Some("330000"));
    assert_eq!(variable(&home, "MAX_MCP_OUTPUT_TOKENS").as_deref(), Some("50000"));
    let session = session(&home);
    assert_eq!((&session["meshSlug"], &session["displayName"]), (&"team".into(), &"project".into()));
    assert_eq!(session["claudeSessionId"], words[3]);
    assert!(!session.to_string().contains("ecret"), "no keys in the session folder: {session}");
    assert_eq!(home.read("mode").trim(), "700");
    assert_eq!(std::fs::read_dir(home.path(".claudemesh/run")).unwrap().count(), 0, "the folder is gone");
}

#[test]
fn every_flag_shows_in_the_session() {
    let home = ready();
    let args = [
        "--name",
        "Ann",
        "--role",
        "lead",
        "--groups",
        "front:lead,qa",
        "--message-mode",
        "inbox",
        "--system-prompt",
        "be brief",
        "-y",
        "--model",
        "opus",
        "--session-id",
        "4b4b4b4b-0000-4000-8000-000000000000",
    ];
    launch(&home, &args).exits(0);
    let expected = [
        "--dangerously-load-development-channels",
        "server:claudemesh",
        "--dangerously-skip-permissions",
        "--system-prompt",
        "be brief",
        "--session-id",
        "4b4b4b4b-0000-4000-8000-000000000000",
        "--model",
        "opus",
    ];
    assert_eq!(argv(&home), expected);
    let session = session(&home);
    assert_eq!(
        (&session["displayName"], &session["role"], &session["messageMode"]),
        (&"Ann".into(), &"lead".into(), &"inbox".into())
    );
    assert_eq!(session["groups"], serde_json::json!([{"name": "front", "role": "lead"}, {"name": "qa"}]));
    assert_eq!(variable(&home, "CLAUDEMESH_DISPLAY_NAME").as_deref(), Some("Ann"));
    assert_eq!(variable(&home, "CLAUDEMESH_ROLE").as_deref(), Some("lead"));
    let last: Value = serde_json::from_str(&home.read(".claudemesh/last-used.json")).unwrap();
    assert_eq!(
        (&last["meshSlug"], &last["displayName"], &last["role"]),
        (&"team".into(), &"Ann".into(), &"lead".into())
    );
}

#[test]
fn arguments_for_claude_are_forwarded() {
    let home = ready();
    launch(&home, &["--quiet", "--", "-p", "say hi", "--dangerously-skip-permissions", "--name", "x"]).exits(0);
    assert_eq!(argv(&home)[4..], ["-p", "say hi", "--name", "x"]);
    let ran = launch(&home, &["--quiet", "--verbose", "word"]).exits(0);
    assert_eq!(ran.stdout, "", "--quiet prints nothing");
    assert_eq!(argv(&home)[4..], ["--verbose", "word"]);
    launch(&home, &["-q", "-r", "abc"]).exits(0);
    assert_eq!(argv(&home)[2..], ["-r", "abc"], "no --session-id beside a conversation of the user's choice");
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID"), None);
}

#[test]
fn conversations_are_resumed_and_continued() {
    let home = ready();
    launch(&home, &["--resume", "abc"]).exits(0);
    assert_eq!(argv(&home)[2..], ["--resume", "abc"]);
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID").as_deref(), Some("abc"));
    launch(&home, &["--resume"]).exits(0);
    assert_eq!(argv(&home)[2..], ["--resume"]);
    let id = "11111111-1111-4111-8111-111111111111";
    let folder: String = home
        .path("project")
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    home.write(&format!(".claude/projects/{folder}/{id}.jsonl"), "");
    launch(&home, &["--continue"]).exits(0);
    assert_eq!(argv(&home)[2..], ["--continue"]);
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID").as_deref(), Some(id));
    launch(&home, &["--session-id", "abc"]).exits(3);
    launch(&home, &["--resume", "abc", "--continue"]).exits(3);
}

#[test]
fn the_mesh_is_chosen_by_flag_word_or_project_file() {
    let home = ready();
    home.join(&[("team", "ws://127.0.0.1:1/ws"), ("other", "ws://127.0.0.1:1/ws")]);
    let error = launch(&home, &["--json"]).exits(3).json();
    assert_eq!((&error["error"], &error["joined"]), (&"which_mesh".into(), &serde_json::json!(["team", "other"])));
    for args in [&["--mesh", "other"][..], &["other"]] {
        launch(&home, args).exits(0);
        assert_eq!(session(&home)["meshSlug"], "other");
    }
    home.write("project/.claude-mesh.json", r#"{"name":"Bot","mesh":"team","groups":["qa"],"role":"tester"}"#);
    launch(&home, &[]).exits(0);
    let found = session(&home);
    assert_eq!(
        (&found["meshSlug"], &found["displayName"], &found["role"]),
        (&"team".into(), &"Bot".into(), &"tester".into())
    );
    assert_eq!(found["groups"], serde_json::json!([{"name": "qa"}]));
    home.run_with(&["launch"], &[("CLAUDEMESH_DISPLAY_NAME", "Env")]).exits(0);
    assert_eq!(session(&home)["displayName"], "Env", "the variable beats the file");
    launch(&home, &["--mesh", "none"]).exits(5);
    launch(&home, &["team", "--mesh", "other"]).exits(3);
    home.write("project/.claude-mesh.json", "{");
    launch(&home, &["team"]).exits(10);
}

#[test]
fn claude_gets_our_server_when_it_is_not_installed() {
    let home = ready();
    home.run(&["uninstall"]).exits(0);
    launch(&home, &[]).exits(0);
    let words = argv(&home);
    assert_eq!(words[0], "--mcp-config");
    let config: Value = serde_json::from_str(&words[1]).unwrap();
    let entry = &config["mcpServers"]["claudemesh"];
    assert_eq!(
        (&entry["command"], &entry["args"]),
        (&env!("CARGO_BIN_EXE_claudemesh").into(), &serde_json::json!(["mcp"]))
    );
    assert_eq!(
        entry["env"]["CLAUDEMESH_SESSION_DIR"].as_str().map(str::to_owned),
        variable(&home, "CLAUDEMESH_SESSION_DIR")
    );
}

#[test]
fn the_outer_session_does_not_leak() {
    let home = ready();
    let outer = [
        ("CLAUDECODE", "1"),
        ("CLAUDE_CODE_SESSION_ID", "outer"),
        ("CLAUDE_CODE_MESSAGING_SOCKET", "/s"),
        ("CLAUDE_CODE_CHILD_SESSION", "1"),
        ("CLAUDEMESH_SESSION_ID", "outer"),
        ("MCP_TIMEOUT", "1"),
        ("KEPT", "yes"),
    ];
    home.run_with(&["launch", "--resume"], &outer).exits(0);
    for name in [
        "CLAUDECODE",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_MESSAGING_SOCKET",
        "CLAUDE_CODE_CHILD_SESSION",
        "CLAUDEMESH_SESSION_ID",
    ] {
        assert_eq!(variable(&home, name), None, "{name}");
    }
    assert_eq!(
        (variable(&home, "MCP_TIMEOUT").as_deref(), variable(&home, "KEPT").as_deref()),
        (Some("1"), Some("yes"))
    );
}

#[test]
fn the_exit_code_is_claudes() {
    let home = ready();
    home.run_with(&["launch"], &[("FAKE_EXIT", "42")]).exits(42);
    home.script("claude", "#!/bin/sh\nkill -9 $$\n");
    launch(&home, &[]).exits(137);
    home.script("claude", "#!/no/such/interpreter\n");
    launch(&home, &[]).exits(9);
    std::fs::remove_file(home.path("bin/claude")).unwrap();
    let ran = launch(&home, &[]).exits(9);
    assert!(ran.stderr.contains("Hint: Install it with"), "{ran:?}");
    let elsewhere = home.write("elsewhere", RECORDER);
    let variable = [("CLAUDE_BIN", elsewhere.to_str().unwrap())];
    home.run_with(&["launch"], &variable).exits(9);
    std::fs::set_permissions(&elsewhere, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    home.run_with(&["launch"], &variable).exits(0);
}

#[test]
fn nothing_joined_is_told() {
    let home = Home::new();
    home.script("claude", RECORDER);
    home.write(".claudemesh/config.json", "{}");
    launch(&home, &[]).exits(10);
    std::fs::remove_file(home.path(".claudemesh/config.json")).unwrap();
    #[cfg(not(feature = "local-broker"))]
    assert!(launch(&home, &[]).exits(5).stderr.contains("No mesh is joined."));
    let link = format!("http://127.0.0.1:{}/i/K7QX2MPA", crate::server::closed_port());
    let ran = launch(&home, &["--join", &link, "--name", "Ann"]).exits(4);
    assert!(ran.stderr.contains("Hint: "), "{ran:?}");
    assert!(!home.path("argv").exists(), "Claude Code was not started");
}

#[test]
fn signals_reach_claude_and_the_folder_goes() {
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, word) in [(Signal::TERM, "TERM"), (Signal::HUP, "HUP"), (Signal::INT, "INT")] {
        let home = ready();
        let script = "#!/bin/sh\ntrap 'echo got; kill $sleeper; exit 7' SIGNAL\nsleep 600 &\nsleeper=$!\necho ready\nwait $sleeper\nwait\n";
        home.script("claude", &script.replace("SIGNAL", word));
        let mut command = home.command(&["launch", "--quiet"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        assert_eq!(std::fs::read_dir(home.path(".claudemesh/run")).unwrap().count(), 1);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got");
        assert_eq!(child.wait().unwrap().code(), Some(7), "{word}");
        assert_eq!(std::fs::read_dir(home.path(".claudemesh/run")).unwrap().count(), 0);
    }
}

#[test]
fn folders_of_dead_launches_are_swept_and_living_ones_stay() {
    let home = ready();
    let me = std::process::id();
    home.write(".claudemesh/run/session-dead/session.json", r#"{"pid":999999999,"startTime":1}"#);
    home.write(
        ".claudemesh/run/session-live/session.json",
        &format!(r#"{{"pid":999999999,"startTime":1,"childPid":{me}}}"#),
    );
    launch(&home, &[]).exits(0);
    assert!(!home.path(".claudemesh/run/session-dead").exists());
    assert!(home.path(".claudemesh/run/session-live").exists());
}
