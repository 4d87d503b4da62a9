use serde_json::Value;

use crate::home::{Home, private};
use crate::server;

fn level<'a>(report: &'a Value, name: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).map_or("missing", |check| check["level"].as_str().unwrap())
}

#[test]
fn a_sound_machine_passes() {
    let (port, requests) = server::start();
    let home = Home::new();
    home.script("claude", "#!/bin/sh\n");
    home.join(&[("team", &format!("ws://127.0.0.1:{port}/ws"))]);
    home.run(&["install"]).exits(0);
    let report = home.run(&["doctor", "--no-loopback", "--json"]).exits(0).json();
    assert_eq!(report["ok"], true, "{report:#}");
    for name in
        ["version", "claude", "mcp-server", "hooks", "permission", "channels", "config", "keys", "broker", "sessions"]
    {
        assert_eq!(level(&report, name), "ok", "{name}");
    }
    assert_eq!(requests.recv().unwrap().line, "GET /health HTTP/1.1");
}

#[test]
fn every_failure_names_the_command_that_mends_it() {
    let home = Home::new();
    home.script("claudemesh", "#!/bin/sh\n");
    let dead = server::closed_port();
    home.join(&[("team", &format!("ws://127.0.0.1:{dead}/ws"))]);
    let config = home.read(".claudemesh/config.json").replace("\"pubkey\":\"", "\"pubkey\":\"ff");
    home.write(".claudemesh/config.json", &config);
    std::fs::set_permissions(home.path(".claudemesh/config.json"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    private(&home.write(".claudemesh/hook-token", "short"));
    home.write(".claudemesh/run/session-dead/session.json", r#"{"pid":999999999,"startTime":1}"#);
    let report = home.run_with(&["doctor", "--json"], &[("DISABLE_TELEMETRY", "1")]).exits(1).json();
    for name in ["claude", "mcp-server", "keys", "broker", "file-mode", "hook-token"] {
        assert_eq!(level(&report, name), "failure", "{name}: {report:#}");
    }
    for name in ["hooks", "permission", "channels", "sessions"] {
        assert_eq!(level(&report, name), "warning", "{name}");
    }
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| (check["level"] == "ok") == check["fix"].is_null()), "{report:#}");
    assert!(!report.to_string().contains("secretKey\":"));
}

#[test]
fn rows_for_people() {
    let home = Home::new();
    home.script("claude", "#!/bin/sh\n");
    insta::assert_snapshot!(home.redact(&home.run(&["doctor"]).exits(1).stdout), @r"
    ✓ version      claudemesh [VERSION] at [PROGRAM]
    ✓ claude       [HOME]/bin/claude, of unknown version
    ✗ mcp-server   Claude Code does not know claudemesh
                   → claudemesh install
    ! hooks        none for SessionStart, UserPromptSubmit, PostToolUse, Stop, SessionEnd: messages cannot wait for a pause or wake the session
                   → claudemesh install
    ! permission   Claude Code asks before each call: no rule mcp__claudemesh__*
                   → claudemesh install
    ✓ channels     no switch turns them off; whether the account has them shows in a session
    ✓ config       no mesh is joined: sessions use one of this machine
    ✓ sessions     no leftovers
    ");
}

#[test]
fn broken_files_are_rows_too() {
    let home = Home::new();
    home.write(".claude.json", "{");
    home.write(".claudemesh/config.json", "{}");
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!((level(&report, "install"), level(&report, "config")), ("failure", "failure"));
}

fn detail<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let row = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    (row["detail"].as_str().unwrap(), row["fix"].as_str().unwrap_or_default())
}

#[test]
fn the_version_is_held_against_what_is_known() {
    let home = Home::new();
    let report = |version: &str| {
        home.script("claude", &format!("#!/bin/sh\necho '{version} (Claude Code)'\n"));
        home.run(&["doctor", "--json"]).exits(1).json()
    };
    let known = report("2.1.329");
    assert_eq!(level(&known, "abilities"), "ok");
    assert!(detail(&known, "claude").0.ends_with("version 2.1.329"), "{known:#}");
    assert_eq!(detail(&known, "abilities").0, "channels, monitors, session-id, rewake, messaging");
    let old = report("2.1.79");
    assert_eq!((level(&old, "abilities"), detail(&old, "abilities").1), ("warning", "claude update"));
    assert!(detail(&old, "abilities").0.contains("channels (since 2.1.80)"), "{old:#}");
    assert!(detail(&report("2.1.197"), "abilities").0.contains("lacks messaging (since 2.1.224)"));
    assert!(detail(&report("3.0.0"), "abilities").0.contains("newer than what was tried"));
    assert!(detail(&report("soon"), "claude").0.ends_with("of unknown version"));
}

#[test]
fn switches_that_take_hooks_and_channels_away_are_named_with_their_file() {
    let home = Home::new();
    home.run(&["install"]).exits(0);
    let sound = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!(
        (level(&sound, "hooks"), level(&sound, "hooks-off"), level(&sound, "channels")),
        ("ok", "missing", "ok")
    );
    let settings = home.read(".claude/settings.json");
    home.write(
        ".claude/settings.json",
        &settings.replacen('{', "{\"disableAllHooks\": true, \"env\": {\"DISABLE_TELEMETRY\": \"1\"},", 1),
    );
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!((level(&report, "hooks-off"), level(&report, "channels")), ("failure", "warning"));
    assert!(detail(&report, "channels").0.contains("DISABLE_TELEMETRY"), "{report:#}");
    assert!(detail(&report, "hooks-off").1.ends_with(".claude/settings.json"), "{report:#}");
    home.write(".claude/settings.json", &settings);
    home.write("project/.claude/settings.local.json", r#"{"disableAllHooks": true}"#);
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert!(detail(&report, "hooks-off").0.contains("settings.local.json"), "{report:#}");
    let bedrock = home.run_with(&["doctor", "--json"], &[("CLAUDE_CODE_USE_BEDROCK", "1")]).exits(1).json();
    assert!(detail(&bedrock, "channels").0.starts_with("Bedrock has none"), "{bedrock:#}");
}

#[test]
fn old_hooks_and_two_of_a_kind_are_found_and_mended() {
    let home = Home::new();
    home.run(&["install"]).exits(0);
    let (config, settings) = (home.read(".claude.json"), home.read(".claude/settings.json"));
    home.write(".claude/settings.json", &settings.replace(" hook stop\"", " hook idle\""));
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!((level(&report, "hooks"), detail(&report, "hooks").1), ("warning", "claudemesh install"));
    home.run(&["install"]).exits(0);
    assert_eq!(home.read(".claude/settings.json"), settings, "the named command fixes it");

    home.write(
        ".claude/settings.json",
        &settings.replacen('{', "{\"enabledPlugins\": {\"claudemesh@claudemesh\": true},", 1),
    );
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!(level(&report, "twice"), "failure");
    assert_eq!(detail(&report, "twice").1, "claudemesh uninstall && claudemesh install");
    home.run(&["uninstall"]).exits(0);
    home.run(&["install"]).exits(0);
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!(
        (level(&report, "twice"), level(&report, "hooks"), level(&report, "permission")),
        ("missing", "ok", "ok")
    );
    // The program of the plug-in has to be on the path.
    assert_eq!(level(&report, "mcp-server"), "failure");
    home.script("claudemesh", "#!/bin/sh\n");
    assert_eq!(level(&home.run(&["doctor", "--json"]).exits(1).json(), "mcp-server"), "ok");

    home.write(".claude/settings.json", &settings);
    home.write(".claude.json", &config);
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    home.run(&["install", "--mesh", "team"]).exits(0);
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!(detail(&report, "twice").1, "claude mcp remove claudemesh-team --scope user");
}

#[test]
fn leftovers_and_the_projects_own_file_are_looked_at() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    let folder = home.path(".claudemesh/run/servers");
    std::fs::create_dir_all(&folder).unwrap();
    let dead = folder.join("1.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let _living = std::os::unix::net::UnixListener::bind(folder.join("2.sock")).unwrap();
    home.write("project/.claude-mesh.json", r#"{"name":"Bot","mesh":"team"}"#);
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!((level(&report, "sockets"), level(&report, "project-file")), ("warning", "ok"));
    assert_eq!(detail(&report, "sockets").1, format!("rm {}", dead.display()));
    assert!(detail(&report, "project-file").0.ends_with("names name, mesh"), "{report:#}");
    std::fs::remove_file(dead).unwrap();
    home.write("project/.claude-mesh.json", r#"{"name":7}"#);
    let report = home.run(&["doctor", "--json"]).exits(1).json();
    assert_eq!((level(&report, "sockets"), level(&report, "project-file")), ("missing", "failure"));
}
