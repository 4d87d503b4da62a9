use std::time::{Duration, Instant};

use claudemesh::config::ConfigStore;
use claudemesh::features::status_line::cache;
use claudemesh::inbox::Tally;

use crate::home::Home;

fn row(home: &Home) -> String {
    home.run(&["status-line"]).exits(0).stdout
}

#[test]
fn the_row_says_where_and_with_whom() {
    let home = Home::new();
    assert_eq!(row(&home), "◇ claudemesh: no mesh joined\n");
    assert!(!home.path(".claudemesh").exists(), "looking leaves nothing behind");
    home.join(&[("team", "ws://127.0.0.1:1/ws"), ("other", "ws://127.0.0.1:1/ws")]);
    assert_eq!(row(&home), "◇ team +1 · no session looks\n");
    let store = ConfigStore::at(home.path(".claudemesh"));
    cache::record(&store, "other", (3, 5), "Ann", Tally { unread: 2, held: 1, questions: 0 }).unwrap();
    assert_eq!(row(&home), "◇ other +1 · 3/5 online · 2 unread · 1 held · Ann\n", "the mesh that was looked at last");
    // A launched session has one mesh and its own name.
    home.write("session/session.json", r#"{"version":1,"meshSlug":"team","displayName":"Bob"}"#);
    let folder = home.path("session");
    let variables = [("CLAUDEMESH_SESSION_DIR", folder.to_str().unwrap())];
    assert_eq!(home.run_with(&["status-line"], &variables).exits(0).stdout, "◇ team · no session looks · Bob\n");
    home.write(".claudemesh/config.json", "{");
    assert!(row(&home).contains("claudemesh doctor"));
}

#[test]
fn names_cannot_move_the_cursor() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    let store = ConfigStore::at(home.path(".claudemesh"));
    let evil = format!("\u{1b}[2Jred\u{202e}\nrow\u{7}{}", "x".repeat(200));
    cache::record(&store, "team", (1, 1), &evil, Tally::default()).unwrap();
    let row = row(&home);
    assert!(row.ends_with('\n') && row.matches('\n').count() == 1 && row.chars().count() < 80, "{row:?}");
    assert!(!row.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{row:?}");
}

#[test]
fn another_line_keeps_its_place_above_ours() {
    let home = Home::new();
    let theirs = "{\"statusLine\": {\"type\": \"command\", \"command\": \"read x; printf '%s' \\\"it's $x\\\"\", \"padding\": 2}}";
    home.write(".claude/settings.json", theirs);
    assert_eq!(home.run(&["install", "--status-line", "--json"]).exits(0).json()["status_line"]["result"], "added");
    assert_eq!(home.run(&["install", "--json"]).exits(0).json()["changed"], false, "a plain install keeps it");
    let settings: serde_json::Value = serde_json::from_str(&home.read(".claude/settings.json")).unwrap();
    assert_eq!(settings["statusLine"]["padding"], 2);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", settings["statusLine"]["command"].as_str().unwrap()]);
    command.env_clear().env("HOME", home.path(".")).env("PATH", "/usr/bin:/bin");
    let ran = crate::home::finish(command, "{input}\n").exits(0);
    assert_eq!(ran.stdout, "it's {input}\n◇ claudemesh: no mesh joined\n");
    home.run(&["uninstall"]).exits(0);
    assert_eq!(home.read(".claude/settings.json"), theirs);
    // A line that fails or is no program does not take ours away.
    let ran = home.run(&["status-line", "--wrap", "exit 3"]).exits(0);
    assert_eq!(ran.stdout, "◇ claudemesh: no mesh joined\n");
}

#[test]
fn alone_it_comes_and_goes_and_odd_settings_are_refused() {
    let home = Home::new();
    home.run(&["install", "--status-line"]).exits(0);
    assert!(home.read(".claude/settings.json").contains(" status-line\""));
    home.run(&["uninstall"]).exits(0);
    assert!(!home.path(".claude/settings.json").exists());
    home.write(".claude/settings.json", r#"{"statusLine":"mine"}"#);
    home.run(&["install", "--status-line"]).exits(6);
    assert_eq!(home.read(".claude/settings.json"), r#"{"statusLine":"mine"}"#);
}

/// Claude Code calls it after every message. The bound leaves room for a debug build on a busy machine; the release build
/// takes a few milliseconds.
#[test]
fn it_is_quick() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        row(&home);
        best = best.min(started.elapsed());
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}
