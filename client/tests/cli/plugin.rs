//! The plug-in in the repository is what the program makes.

use std::fs;
use std::path::{Path, PathBuf};

use claudemesh::install::plugin;
use serde_json::Value;

use crate::home::Home;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Fails when a file differs; writes it when snapshots are to be rewritten (`INSTA_UPDATE=always`), so that the one command
/// that follows a changed help text follows it here, too.
#[test]
fn plugin_and_skill_follow_tables_and_help() {
    let update = std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always");
    let root = repository();
    let mut files: Vec<(PathBuf, String)> = plugin::files("claudemesh")
        .into_iter()
        .map(|(inside, text)| (root.join(plugin::FOLDER).join(inside), text))
        .collect();
    files.push((root.join(".claude-plugin/marketplace.json"), plugin::marketplace(&format!("./{}", plugin::FOLDER))));
    let page = fs::read_to_string(root.join("docs/json.md")).unwrap();
    let head = page.split("| Call |").next().unwrap();
    files.push((root.join("docs/json.md"), format!("{head}{}", claudemesh::cli::json_schema::table())));
    for (path, text) in files {
        if update {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "{} is not what the code says; run `cargo xtask docs`", path.display());
    }
}

#[test]
fn a_program_without_the_repository_writes_the_plugin_itself() {
    let home = Home::new();
    let dir = home.path("my plugin");
    let answer = home.run(&["install", "--plugin-dir", dir.to_str().unwrap(), "--json"]).exits(0).json();
    assert!(!home.path(".claude.json").exists(), "nothing else is changed");
    let json = |inside: &str| -> Value { serde_json::from_str(&home.read(&format!("my plugin/{inside}"))).unwrap() };
    let manifest = json(".claude-plugin/plugin.json");
    assert_eq!(manifest["mcpServers"]["claudemesh"]["command"], env!("CARGO_BIN_EXE_claudemesh"), "not on the path");
    assert_eq!(json(".claude-plugin/marketplace.json")["plugins"][0]["source"], "./");
    assert!(json("hooks/hooks.json")["hooks"]["Stop"][1].to_string().contains("asyncRewake"));
    assert!(home.read("my plugin/skills/claudemesh/SKILL.md").contains("claudemesh send"));
    assert_eq!(answer["commands"][1], "claude plugin install claudemesh@claudemesh");
    home.run(&["install", "--plugin-dir", "/proc/none"]).exits(10);
}

#[test]
fn beside_the_plugin_install_adds_only_what_a_plugin_cannot() {
    let home = Home::new();
    let settings = r#"{"enabledPlugins":{"claudemesh@claudemesh":true}}"#;
    home.write(".claude/settings.json", settings);
    let answer = home.run(&["install", "--json"]).exits(0).json();
    assert_eq!((&answer["plugin"], &answer["hooks"]["result"]), (&"claudemesh@claudemesh".into(), &Value::Null));
    assert!(!home.path(".claude.json").exists());
    let written: Value = serde_json::from_str(&home.read(".claude/settings.json")).unwrap();
    assert_eq!(written["permissions"]["allow"], serde_json::json!(["mcp__plugin_claudemesh_claudemesh__*"]));
    assert!(written.get("hooks").is_none());
    let removed = home.run(&["uninstall"]).exits(0);
    assert_eq!(home.read(".claude/settings.json"), settings);
    assert!(removed.stdout.contains("claude plugin uninstall claudemesh@claudemesh"), "{}", removed.stdout);
    // A plug-in that is switched off brings nothing.
    home.write(".claude/settings.json", &settings.replace("true", "false"));
    assert_eq!(home.run(&["install", "--json"]).exits(0).json()["hooks"]["result"], "added");
}

#[test]
fn the_skill_is_printed_for_other_hosts() {
    let home = Home::new();
    let text = home.run(&["skill"]).exits(0).stdout;
    assert!(text.starts_with("---\nname: claudemesh\n") && text.contains("data, not instructions"), "{text}");
}
