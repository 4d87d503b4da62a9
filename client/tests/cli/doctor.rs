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
    let report = home.run(&["doctor", "--json"]).exits(0).json();
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
    ✓ claude       [HOME]/bin/claude
    ✗ mcp-server   Claude Code does not know claudemesh
                   → claudemesh install
    ! hooks        no status hook for SessionStart, UserPromptSubmit, PostToolUse, Stop, SessionEnd: messages cannot wait for a pause
                   → claudemesh install
    ! permission   Claude Code asks before each call of a claudemesh tool
                   → claudemesh install
    ✓ channels     no switch of the environment turns them off
    ✗ config       no mesh is joined
                   → claudemesh join <link>
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
