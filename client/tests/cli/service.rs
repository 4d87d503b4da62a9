//! The service of the user's login, and the log files.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::home::Home;

#[test]
fn a_service_is_written_started_and_taken_away_again() {
    let home = Home::new();
    let printed = home.run(&["service", "install", "--print"]).exits(0).stdout;
    assert!(printed.contains("ExecStart=") && printed.contains("systemctl --user"), "{printed}");
    assert!(!home.path(".config/systemd").exists(), "printed only");
    assert_eq!(home.run(&["service", "status", "--json"]).exits(1).json()["installed"], false);
    // Stands in for the manager, which no container has: notes how it is called.
    home.script("systemctl", "#!/bin/sh\necho \"$@\" >> \"$HOME/called\"\n");
    let args = ["service", "install", "--listen", "127.0.0.1:7955", "--name", "Ann", "--mesh", "desk", "--json"];
    let done = home.run(&args).exits(0).json();
    assert_eq!((&done["installed"], &done["running"], &done["byHand"]), (&json!(true), &json!(true), &json!([])));
    let unit = ".config/systemd/user/claudemesh.service";
    let text = home.read(unit);
    assert!(text.contains(" up --mesh desk --listen 127.0.0.1:7955 --name Ann\n"), "{text}");
    assert!(text.contains(&format!("ExecStart={}", env!("CARGO_BIN_EXE_claudemesh"))), "{text}");
    let called = home.read("called");
    assert_eq!(called, "--user daemon-reload\n--user enable claudemesh.service\n--user restart claudemesh.service\n");
    verify(&home.path(unit));
    assert_eq!(home.run(&["service", "status", "--json"]).exits(0).json()["running"], true);
    let gone = home.run(&["service", "uninstall", "--json"]).exits(0).json();
    assert_eq!((&gone["installed"], home.path(unit).exists()), (&json!(false), false));
    assert!(home.read("called").contains("--user disable --now claudemesh.service\n"));
    assert!(home.run(&["service", "uninstall"]).exits(0).stdout.contains("not installed"));
    // A manager that does not answer: the file is there, and what to type.
    home.script("systemctl", "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n");
    let by_hand = home.run(&["service", "install"]).exits(0).stdout;
    assert!(
        by_hand.contains("Failed to connect to bus") && by_hand.contains("systemctl --user daemon-reload"),
        "{by_hand}"
    );
}

/// What systemd itself says of the unit, where it is installed.
fn verify(unit: &std::path::Path) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let Some(analyze) = claudemesh_testkit::tools::installed("systemd-analyze", "systemd") else { return };
    let output = Command::new(analyze).args(["verify", "--user", "--man=no"]).arg(unit).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("claudemesh.service")).collect();
    assert!(ours.is_empty(), "{said}");
}

#[test]
fn logs_are_shown_and_followed() {
    let home = Home::new();
    assert!(home.run(&["logs"]).exits(0).stdout.contains("nothing is logged"));
    // An unknown event is trouble that a hook keeps without being asked.
    home.run(&["hook", "bogus"]).exits(0);
    let shown = home.run(&["logs", "hooks"]).exits(0).stdout;
    assert!(shown.contains("unknown event"), "{shown}");
    for _ in 0..3 {
        home.run(&["hook", "bogus"]).exits(0);
    }
    let two = home.run(&["logs", "hooks", "--lines", "2", "--json"]).exits(0).json();
    assert_eq!(two[0]["lines"].as_array().map(Vec::len), Some(2));
    let mut follow =
        home.command(&["logs", "hooks", "--follow", "--lines", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    // What it knew when it began; from here on everything is new.
    assert!(lines.next().unwrap().unwrap().contains("nothing is logged"));
    home.run(&["hook", "later"]).exits(0);
    assert!(lines.next().unwrap().unwrap().contains("later"));
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn settings_are_read_and_changed_by_name() {
    let home = Home::new();
    assert_eq!(home.run(&["config", "get", "name"]).exits(0).stdout, "-\n");
    home.run(&["config", "set", "name", "Ann"]).exits(0);
    assert_eq!(home.run(&["config", "get", "name", "--json"]).exits(0).json()["value"], "Ann");
    home.run(&["config", "set", "groups", "frontend:lead,qa"]).exits(0);
    assert!(home.run(&["config", "get"]).exits(0).stdout.contains("frontend:lead,qa"));
    assert_eq!(home.run(&["config", "set", "message-mode", "loud", "--json"]).exits(3).json()["error"], "invalid_args");
    let typo = home.run(&["config", "set", "nmae", "Bob"]).exits(3);
    assert!(typo.stderr.contains("Did you mean `name`?"), "{typo:?}");
    home.run(&["config", "unset", "name"]).exits(0);
    assert_eq!(home.run(&["config", "get", "name"]).exits(0).stdout, "-\n");
    let place = home.run(&["config", "path"]).exits(0).stdout;
    assert_eq!(place.trim(), home.path(".claudemesh/config.json").to_str().unwrap());
}

#[test]
fn a_config_folder_that_others_may_enter_is_a_row_of_the_doctor() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    let folder = home.path(".claudemesh");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let rows = home.run(&["doctor", "--no-loopback", "--json"]).exits(1).json();
    let row = rows["checks"].as_array().unwrap().iter().find(|row| row["name"] == "folder-mode").cloned().unwrap();
    assert!(row["fix"].as_str().unwrap().starts_with("chmod 700 "), "{row}");
}
