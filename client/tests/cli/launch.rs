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
    Messages of peers reach the session at once: Claude Code shows them as channel notes where your account has
    channels, else hooks bring them in.
    Claude Code starts in its own default mode: it asks before it acts, unless its footer says `auto mode on`.
    In auto mode what other people write is held until you release it with `claudemesh held`.
    Peers send text; they cannot run commands or read files here.
    ");
    let told = "Starting Claude Code with --dangerously-load-development-channels server:claudemesh, ";
    assert!(ran.stderr.starts_with(told) && ran.stderr.lines().count() == 1, "{ran:?}");
    assert_eq!(launch(&home, &["--quiet"]).exits(0).stderr, "");
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
        "--title",
        "lead",
        "--groups",
        "front:lead,qa",
        "--message-mode",
        "inbox",
        "--system-prompt",
        "be brief",
        "-y",
        "--skip-permissions",
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
    assert!(!home.path(".claudemesh/last-used.json").exists(), "a flag counts for its own start only");
}

#[test]
fn yes_switches_no_permission_prompt_off() {
    let home = ready();
    launch(&home, &["-y"]).exits(0);
    assert!(!argv(&home).iter().any(|word| word.contains("permission")), "{:?}", argv(&home));
    launch(&home, &["--skip-permissions"]).exits(0);
    assert!(argv(&home).contains(&"--dangerously-skip-permissions".to_owned()));
    let ran = launch(&home, &["--", "--dangerously-skip-permissions"]).exits(0);
    assert!(ran.stderr.contains("--skip-permissions asks for it"), "{ran:?}");
    assert!(!argv(&home).contains(&"--dangerously-skip-permissions".to_owned()));
}

/// The banner names the mode that will be in force, who chose it, and what becomes of other people's messages in it.
#[test]
fn the_banner_tells_the_permission_mode_and_what_it_means_for_messages() {
    let home = ready();
    let says = |args: &[&str], expected: &[&str]| {
        let ran = launch(&home, args).exits(0);
        for text in expected {
            assert!(ran.stdout.contains(text), "{args:?}: {text}: {}", ran.stdout);
        }
    };
    let held = "what other people write is held until you release it with `claudemesh held`.";
    says(&["--skip-permissions"], &["Permission prompts are OFF (--dangerously-skip-permissions)", held]);
    says(
        &["--permission-mode", "auto"],
        &["starts in auto mode (--permission-mode): it acts without asking you.", held],
    );
    says(&["--permission-mode", "default"], &["asks you before it acts (--permission-mode: default)"]);
    home.run(&["uninstall"]).exits(0);
    home.write(".claude/settings.json", r#"{"permissions": {"defaultMode": "auto"}}"#);
    says(&[], &["starts in auto mode (your settings)", held]);
    home.run(&["inbound", "auto", "accept"]).exits(0);
    says(&[], &["Therefore what other people write reaches the session"]);
    home.write("project/.claude/settings.json", r#"{"permissions": {"defaultMode": "acceptEdits"}}"#);
    says(&[], &["edits files without asking (.claude/settings.json: acceptEdits)"]);
    home.run(&["inbound", "bypass", "refuse"]).exits(0);
    says(&["--skip-permissions"], &["what other people write is refused"]);
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
    assert_eq!(argv(&home)[2..], ["--resume", "abc"], "no --session-id beside a conversation of the user's choice");
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID"), None, "words to search for are no id");
}

#[test]
fn conversations_are_resumed_and_continued() {
    let home = ready();
    let old = "22222222-2222-4222-8222-222222222222";
    for flag in ["--resume", "-r"] {
        launch(&home, &[flag, old]).exits(0);
        assert_eq!(argv(&home)[2..], ["--resume", old]);
        assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID").as_deref(), Some(old), "the key of that session");
        assert_eq!(session(&home)["claudeSessionId"], old);
    }
    launch(&home, &["--resume", old, "--fork-session"]).exits(0);
    assert_eq!(argv(&home)[2..], ["--resume", old, "--fork-session"]);
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID"), None, "a fork is a session of its own");
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
    for flag in ["--continue", "-c"] {
        launch(&home, &[flag]).exits(0);
        assert_eq!(argv(&home)[2..], ["--continue"]);
        assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID").as_deref(), Some(id));
    }
    launch(&home, &["-c", "--fork-session"]).exits(0);
    assert_eq!(variable(&home, "CLAUDEMESH_SESSION_ID"), None);
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
    // And the hooks, for this session only.
    assert_eq!(words[2], "--settings");
    let settings: Value = serde_json::from_str(&words[3]).unwrap();
    assert!(settings["hooks"]["Stop"].to_string().contains("hook wait"), "{settings}");
    assert_eq!(settings["permissions"]["allow"], serde_json::json!(["mcp__claudemesh__*"]));
    assert!(!home.path(".claude.json").exists() && !home.path(".claude/settings.json").exists());
    // The user's own settings win, and who installed without hooks wants none.
    launch(&home, &["--settings", "mine.json"]).exits(0);
    assert_eq!(argv(&home).iter().filter(|word| *word == "--settings").count(), 1);
    home.run(&["install", "--no-hooks"]).exits(0);
    let ran = launch(&home, &[]).exits(0);
    assert!(!argv(&home).iter().any(|word| word == "--settings" || word == "--mcp-config"));
    assert!(ran.stdout.contains("To have hooks: claudemesh install"), "{ran:?}");
}

#[test]
fn the_channel_is_named_as_claude_code_knows_the_server() {
    let home = ready();
    home.run(&["uninstall"]).exits(0);
    home.run(&["install", "--mesh", "team"]).exits(0);
    launch(&home, &[]).exits(0);
    assert_eq!(argv(&home)[..2], ["--dangerously-load-development-channels", "server:claudemesh-team"]);
    home.run(&["uninstall"]).exits(0);
    home.write(".claude/settings.json", r#"{"enabledPlugins":{"claudemesh@claudemesh":true}}"#);
    launch(&home, &[]).exits(0);
    assert_eq!(argv(&home)[..2], ["--dangerously-load-development-channels", "plugin:claudemesh@claudemesh"]);
}

/// The version is read from the package that the program lies in; it is never run for that.
#[test]
fn the_banner_and_the_flags_follow_the_version() {
    let home = ready();
    std::fs::remove_file(home.path("bin/claude")).unwrap();
    let package = |version: &str| {
        let text = format!(r#"{{"name":"@anthropic-ai/claude-code","version":"{version}"}}"#);
        home.write("lib/claude-code/package.json", &text);
    };
    let program = home.write("lib/claude-code/bin/claude.exe", RECORDER);
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(&program, home.path("bin/claude")).unwrap();
    package("2.1.329");
    insta::assert_snapshot!(launch(&home, &[]).exits(0).stdout, @r"
    claudemesh team as project
    Messages of peers reach the session at once: Claude Code 2.1.329 shows them as channel notes where your account has
    channels, else hooks bring them in.
    Claude Code starts in its own default mode: it asks before it acts, unless its footer says `auto mode on`.
    In auto mode what other people write is held until you release it with `claudemesh held`.
    Peers send text; they cannot run commands or read files here.
    ");
    let ran = home.run_with(&["launch"], &[("DISABLE_TELEMETRY", "1")]).exits(0);
    assert!(ran.stdout.contains("through hooks: Claude Code 2.1.329 has no channels here"), "{ran:?}");
    package("2.1.79");
    let ran = launch(&home, &[]).exits(0);
    assert!(ran.stdout.contains("Claude Code 2.1.79 has no channels here"), "{ran:?}");
    assert_eq!(argv(&home)[0], "--session-id", "no flag that this version does not know");
    let ran = launch(&home, &["--message-mode", "off"]).exits(0);
    assert!(ran.stdout.contains("Messages of peers are not shown."), "{ran:?}");
}

#[test]
fn a_shared_folder_reaches_the_server_and_must_exist() {
    let home = ready();
    launch(&home, &[]).exits(0);
    assert_eq!(session(&home).get("shareDir"), None, "nothing is shared unasked");
    home.write("docs/a.md", "a");
    let docs = home.path("docs");
    launch(&home, &["--share-dir", docs.to_str().unwrap()]).exits(0);
    assert_eq!(session(&home)["shareDir"], docs.canonicalize().unwrap().to_str().unwrap());
    for wrong in ["docs/a.md", "none"] {
        let ran = launch(&home, &["--share-dir", home.path(wrong).to_str().unwrap()]).exits(10);
        assert!(ran.stderr.contains("cannot be shared"), "{ran:?}");
    }
}

#[test]
fn the_surface_reaches_the_server() {
    let home = ready();
    launch(&home, &["--surface", "lean"]).exits(0);
    assert_eq!(session(&home)["mcpSurface"], "lean");
    assert_eq!(variable(&home, "CLAUDEMESH_MCP_SURFACE").as_deref(), Some("lean"));
    home.run_with(&["launch"], &[("CLAUDEMESH_MCP_SURFACE", "none")]).exits(0);
    assert_eq!(variable(&home, "CLAUDEMESH_MCP_SURFACE"), None, "that of an outer session");
    launch(&home, &["--surface", "huge"]).exits(3);
}

/// What a killed launch left in Claude Code's file goes with the next one; nothing else does.
#[test]
fn entries_of_dead_sessions_are_swept() {
    let home = ready();
    let installed = home.read(".claude.json");
    let me = std::process::id();
    let with = |entries: &str| installed.replacen("\"mcpServers\": {", &format!("\"mcpServers\": {{{entries}"), 1);
    let living = format!("\"mesh:live\": {{\"_meshSession\": {{\"pid\": {me}}}}}, \"mesh:mine\": {{}}, ");
    let dead = "\"mesh:gmail:1\": {\"command\": \"claudemesh\", \"_meshSession\": {\"pid\": 999999999}}, ";
    home.write(".claude.json", &with(&format!("{dead}{living}")));
    let ran = launch(&home, &[]).exits(0);
    assert!(ran.stdout.contains("mesh:gmail:1"), "{ran:?}");
    assert_eq!(home.read(".claude.json"), with(&living));
    let ran = launch(&home, &[]).exits(0);
    assert!(!ran.stdout.contains("mesh:"), "{ran:?}");
    // A file that is damaged is left alone, and the session starts.
    home.write(".claude.json", "{ damaged");
    let ran = launch(&home, &[]).exits(0);
    assert!(ran.stderr.contains("not valid JSON"), "{ran:?}");
    assert_eq!(home.read(".claude.json"), "{ damaged");
    // What install wrote can still be taken out byte for byte.
    home.write(".claude.json", &installed);
    home.run(&["uninstall"]).exits(0);
    assert!(!home.path(".claude.json").exists());
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
    // Killed by a signal: so are we, after we cleaned up.
    for signal in [9, 15, 1, 2] {
        home.script("claude", &format!("#!/bin/sh\nkill -{signal} $$\n"));
        let status = home.command(&["launch", "--quiet"]).stdin(Stdio::null()).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal));
        assert_eq!(std::fs::read_dir(home.path(".claudemesh/run")).unwrap().count(), 0);
    }
    home.script("claude", "#!/bin/sh\nulimit -c 0\nkill -6 $$\n");
    launch(&home, &[]).exits(134);
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
