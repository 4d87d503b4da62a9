use std::fs;

use crate::home::{Home, finish};

const CONFIG: &str = "{\n  \"numStartups\": 12,\n  \"mcpServers\": {\n    \"other\": {\"command\": \"other\"}\n  },\n  \"big\": 12345678901234567890.10,\n  \"projects\": { }\n}";
const SETTINGS: &str = "{\r\n\t\"model\" : \"opus\" ,\r\n\t\"hooks\": {\r\n\t\t\"Stop\": [ { \"hooks\": [ { \"type\": \"command\", \"command\": \"say done\" } ] } ]\r\n\t}\r\n}\r\n";

#[test]
fn install_then_uninstall_gives_the_files_back() {
    let home = Home::new();
    home.write(".claude.json", CONFIG);
    home.write(".claude/settings.json", SETTINGS);
    let installed = home.run(&["install"]).exits(0);
    insta::assert_snapshot!(home.redact(&installed.stdout), @r"
    ✓ MCP server   added      [HOME]/.claude.json
    ✓ permission   added      [HOME]/.claude/settings.json
    ✓ hooks        added      [HOME]/.claude/settings.json

    Restart running Claude Code sessions to load it.
    Next: claudemesh launch. To work with other people: claudemesh join <link>, or claudemesh up
    ");
    let config: serde_json::Value = serde_json::from_str(&home.read(".claude.json")).unwrap();
    assert_eq!(config["mcpServers"]["claudemesh"]["args"], serde_json::json!(["mcp"]));
    assert_eq!(config["mcpServers"]["claudemesh"]["command"], env!("CARGO_BIN_EXE_claudemesh"), "not on the path");
    let settings: serde_json::Value = serde_json::from_str(&home.read(".claude/settings.json")).unwrap();
    assert_eq!(settings["permissions"]["allow"], serde_json::json!(["mcp__claudemesh__*"]));
    for event in ["SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd"] {
        assert!(settings["hooks"][event].to_string().contains(" hook "), "{event}");
    }
    assert!(settings["hooks"].get("PermissionRequest").is_none(), "only when it is asked for");
    let again = home.run(&["install", "--json"]).exits(0).json();
    assert_eq!((&again["changed"], &again["mcp_server"]["result"]), (&false.into(), &"unchanged".into()));

    let removed = home.run(&["uninstall", "--json"]).exits(0).json();
    assert_eq!((&removed["hooks"]["removed"], &removed["permissions"]["removed"]), (&7.into(), &1.into()));
    assert_eq!(home.read(".claude.json"), CONFIG);
    assert_eq!(home.read(".claude/settings.json"), SETTINGS);
    let backups = fs::read_dir(home.path(".claude/backups")).unwrap().count();
    assert_eq!(backups, 4, "one per file and change");
    let nothing = home.run(&["uninstall", "--json"]).exits(0).json();
    assert_eq!(nothing["changed"], false);
}

#[test]
fn a_program_in_a_build_folder_is_told_to_move_and_one_that_stays_is_not() {
    let home = Home::new();
    let told = home.run(&["install"]).exits(0);
    assert!(told.stderr.contains("`cargo clean` empties") && told.stderr.contains("install -D"), "{}", told.stderr);
    let place = home.path("bin/claudemesh");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_claudemesh"), &place).unwrap();
    let mut command = std::process::Command::new(&place);
    command.arg("install").env_clear().current_dir(home.path("project"));
    command.env("HOME", home.path("")).env("PATH", "/usr/bin:/bin");
    let moved = finish(command, "").exits(0);
    assert!(!moved.stderr.contains("cargo clean"), "{}", moved.stderr);
    assert!(home.read(".claude.json").contains(place.to_str().unwrap()), "{}", home.read(".claude.json"));
}

#[test]
fn without_files_they_are_made_and_removed_again() {
    let home = Home::new();
    home.run(&["install"]).exits(0);
    assert_eq!((home.mode(".claude.json"), home.mode(".claude/settings.json")), (0o600, 0o600));
    home.run(&["uninstall"]).exits(0);
    assert!(!home.path(".claude.json").exists() && !home.path(".claude/settings.json").exists());
    home.run(&["uninstall"]).exits(0);
}

#[test]
fn claude_config_dir_is_respected() {
    let home = Home::new();
    let dir = home.path("cc");
    home.run_with(&["install"], &[("CLAUDE_CONFIG_DIR", dir.to_str().unwrap())]).exits(0);
    assert!(home.read("cc/.claude.json").contains("claudemesh") && home.read("cc/settings.json").contains("hook stop"));
    assert!(!home.path(".claude.json").exists());
}

#[test]
fn what_is_on_the_path_of_one_shell_only_is_written_with_its_place() {
    let home = Home::new();
    let place = home.path("bin/claudemesh");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_claudemesh"), &place).unwrap();
    // As earlier versions wrote it.
    home.write(
        ".claude.json",
        r#"{"mcpServers":{"claudemesh":{"type":"stdio","command":"claudemesh","args":["mcp"]}}}"#,
    );
    home.run(&["install"]).exits(0);
    let config: serde_json::Value = serde_json::from_str(&home.read(".claude.json")).unwrap();
    let command = config["mcpServers"]["claudemesh"]["command"].as_str().unwrap();
    assert_eq!(command, place.to_str().unwrap(), "the place on the path, not what a link there means today");
    assert!(home.read(".claude/settings.json").contains(&format!("\"{} hook stop\"", place.display())));
    // An editor starts it with the path of the system.
    let mut started = std::process::Command::new(command);
    started.arg("--version").env_clear().env("PATH", "/usr/bin:/bin");
    assert!(crate::home::finish(started, "").exits(0).stdout.starts_with("claudemesh "));
    home.run(&["uninstall"]).exits(0);
    assert!(!home.read(".claude.json").contains("claudemesh"));
}

#[test]
fn another_folder_for_the_keys_is_told() {
    let home = Home::new();
    assert!(!home.run(&["install"]).exits(0).stderr.contains("the meshes are in"));
    let dir = home.path("elsewhere");
    let ran = home.run_with(&["install"], &[("CLAUDEMESH_CONFIG_DIR", dir.to_str().unwrap())]).exits(0);
    for part in
        [dir.to_str().unwrap(), home.path(".claudemesh").to_str().unwrap(), "claudemesh launch", "settings.json"]
    {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn a_copy_of_another_name_installs_and_removes_itself() {
    let home = Home::new();
    let copy = home.path("bin/mesh-nightly");
    fs::copy(env!("CARGO_BIN_EXE_claudemesh"), &copy).unwrap();
    let run = |verb: &str| {
        let mut command = std::process::Command::new(&copy);
        command.arg(verb).arg("--json").env_clear().env("HOME", home.path("."));
        crate::home::finish(command, "").exits(0).json()
    };
    home.write(".claude.json", CONFIG);
    assert_eq!(run("install")["mcp_server"]["result"], "added");
    assert_eq!(run("install")["changed"], false);
    assert_eq!(run("uninstall")["hooks"]["removed"], 7);
    assert_eq!(home.read(".claude.json"), CONFIG);
    assert!(!home.path(".claude/settings.json").exists());
}

#[test]
fn print_and_no_hooks_do_less() {
    let home = Home::new();
    let printed = home.run(&["install", "--print"]).exits(0).stdout;
    let printed = home.redact(&printed);
    assert!(printed.lines().any(|line| line == "claude mcp add claudemesh --scope user -- [PROGRAM] mcp"), "{printed}");
    let manual = home.run(&["install", "--print", "--permission-relay", "--json"]).exits(0).json();
    assert!(!home.path(".claude.json").exists() && !home.path(".claude").exists());
    // What is printed is what install writes.
    home.run(&["install", "--permission-relay"]).exits(0);
    let written: serde_json::Value = serde_json::from_str(&home.read(".claude/settings.json")).unwrap();
    assert_eq!(manual["settings"], written);
    home.run(&["uninstall"]).exits(0);
    home.run(&["install", "--no-hooks"]).exits(0);
    let settings = home.read(".claude/settings.json");
    assert!(settings.contains("mcp__claudemesh__*") && !settings.contains("hook"), "{settings}");
}

#[test]
fn other_programs_entry_is_replaced_only_with_force() {
    let home = Home::new();
    let theirs = "{\"mcpServers\":{\"claudemesh\":{\"command\":\"node\",\"args\":[\"index.js\"]}}}";
    home.write(".claude.json", theirs);
    let refused = home.run(&["install"]).exits(6);
    insta::assert_snapshot!(home.redact(&refused.stderr), @r"
    Error: [HOME]/.claude.json has an MCP server 'claudemesh' that starts another program.
    Hint: Nothing was changed. Replace it with `claudemesh install --force`.
    ");
    assert_eq!(home.read(".claude.json"), theirs);
    assert!(!home.path(".claude/settings.json").exists());
    assert_eq!(home.run(&["uninstall", "--json"]).exits(0).json()["mcp_server"]["result"], "foreign");
    assert_eq!(home.read(".claude.json"), theirs);
    home.run(&["install", "--force"]).exits(0);
    assert!(!home.read(".claude.json").contains("node"));
}

#[test]
fn a_file_that_cannot_be_edited_stops_everything() {
    let home = Home::new();
    home.write(".claude.json", CONFIG);
    let settings = home.write(".claude/settings.json", "{ \"model\": \"opus\", // mine\n}");
    let error = home.run(&["install", "--json"]).exits(10).json();
    assert_eq!(error["error"], "broken_file");
    assert_eq!(home.read(".claude.json"), CONFIG, "the other file is as it was, too");
    insta::assert_snapshot!(home.redact(&home.run(&["install"]).exits(10).stderr), @r"
    Error: [HOME]/.claude/settings.json was left alone: it is not valid JSON: expected a string at line 1, column 20.
    Hint: Nothing was changed. Fix [HOME]/.claude/settings.json and run the command again.
    ");
    home.run(&["uninstall"]).exits(10);
    fs::write(&settings, "{}").unwrap();
    fs::set_permissions(&settings, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let error = home.run(&["install", "--json"]).exits(10).json();
    assert_eq!(error["error"], "read_only");
    assert_eq!((home.read(".claude.json").as_str(), home.read(".claude/settings.json").as_str()), (CONFIG, "{}"));
    assert!(!home.path(".claude/backups").exists());
}

/// What is no file may never end: it is refused, not waited for.
#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let home = Home::new();
    for place in [".claude.json", ".claudemesh/config.json"] {
        let path = home.path(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let verbs: &[&str] =
            if place.ends_with("config.json") { &["list", "status-line"] } else { &["install", "uninstall"] };
        for verb in verbs {
            let mut command = home.command(&[verb]);
            command
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            let mut child = command.spawn().unwrap();
            let status = crate::home::ended(&mut child);
            assert_eq!(
                status.code(),
                Some(if *verb == "status-line" { 0 } else { 10 }),
                "{verb} with a pipe at {place}"
            );
        }
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn two_installs_at_once_do_not_lose_each_other() {
    let home = Home::new();
    home.write(".claude.json", CONFIG);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| home.run(&["install"]).exits(0));
        }
    });
    home.run(&["uninstall"]).exits(0);
    assert_eq!(home.read(".claude.json"), CONFIG);
}

#[test]
fn a_mesh_can_have_a_server_of_its_own() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws"), ("other", "ws://127.0.0.1:1/ws")]);
    home.write(".claude.json", CONFIG);
    home.write(".claude/settings.json", SETTINGS);
    home.run(&["install", "--mesh", "nowhere"]).exits(5);
    assert_eq!(home.read(".claude.json"), CONFIG);
    let both = home.run(&["install", "--mesh", "team", "--mesh", "other", "--json"]).exits(0).json();
    assert_eq!(both["mcp_server"]["servers"][1], serde_json::json!({"name": "claudemesh-other", "result": "added"}));
    let config: serde_json::Value = serde_json::from_str(&home.read(".claude.json")).unwrap();
    assert_eq!(config["mcpServers"]["claudemesh-team"]["args"], serde_json::json!(["mcp", "--mesh", "team"]));
    assert!(config["mcpServers"].get("claudemesh").is_none(), "one for all, or one for each");
    let settings: serde_json::Value = serde_json::from_str(&home.read(".claude/settings.json")).unwrap();
    assert_eq!(
        settings["permissions"]["allow"],
        serde_json::json!(["mcp__claudemesh-team__*", "mcp__claudemesh-other__*"])
    );
    assert_eq!(home.run(&["install", "--mesh", "team", "--json"]).exits(0).json()["changed"], false);
    assert_eq!(home.run(&["--json=state"]).exits(0).json()["state"], "ready");
    home.run(&["uninstall"]).exits(0);
    assert_eq!((home.read(".claude.json").as_str(), home.read(".claude/settings.json").as_str()), (CONFIG, SETTINGS));
}

#[test]
fn the_permission_hook_comes_when_it_is_asked_for_and_stays() {
    let home = Home::new();
    let relay = |home: &Home| home.read(".claude/settings.json").contains("hook permission");
    home.run(&["install"]).exits(0);
    assert!(!relay(&home));
    home.run(&["install", "--permission-relay"]).exits(0);
    assert!(relay(&home));
    assert_eq!(home.run(&["install", "--json"]).exits(0).json()["changed"], false);
    home.run(&["uninstall"]).exits(0);
    assert!(!home.path(".claude/settings.json").exists());
}

/// What versions before this one wrote.
#[test]
fn an_older_install_is_upgraded_and_removed() {
    let home = Home::new();
    home.write(
        ".claude/settings.json",
        r#"{"allowedTools":["mcp__claudemesh__send_message","Bash"],"hooks":{"Stop":[{"hooks":[{"type":"command","command":"claudemesh hook idle"}]}],"UserPromptSubmit":[{"hooks":[{"type":"command","command":"claudemesh hook working"}]}]}}"#,
    );
    home.write(".claude.json", r#"{"mcpServers":{"claudemesh":{"command":"claudemesh","args":["mcp"]}}}"#);
    assert_eq!(home.run(&["install", "--json"]).exits(0).json()["mcp_server"]["result"], "updated");
    let settings = home.read(".claude/settings.json");
    assert!(!settings.contains("hook idle") && !settings.contains("hook working"), "{settings}");
    assert_eq!(settings.matches(" hook stop\"").count(), 1);
    home.run(&["uninstall"]).exits(0);
    assert_eq!(home.read(".claude/settings.json"), r#"{"allowedTools":["Bash"]}"#);
}
