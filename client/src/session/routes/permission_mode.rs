//! The permission mode in which Claude Code starts, as far as its command line and its settings tell before the first hook does.
//!
//! The order is Claude Code's own: flags, then the administrator's settings, those of `--settings`, the local ones of the project,
//! the shared ones of the project, the user's. Settings of a project cannot choose auto mode.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::paths::{ClaudeFiles, Env};

/// Tools run without a question.
pub const BYPASS: &str = "bypassPermissions";
/// Tools run without a question unless Claude Code's own classifier objects.
pub const AUTO: &str = "auto";
/// The flag of Claude Code that starts it in [`BYPASS`].
pub const SKIP_PERMISSIONS: &str = "--dangerously-skip-permissions";

/// Largest settings file that is read, in bytes.
const MAX_SETTINGS: u64 = 2 << 20;

/// A mode, and what chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Claude Code's word: `default`, `acceptEdits`, `plan`, `auto`, `dontAsk`, `bypassPermissions`.
    pub mode: String,
    /// The flag or the file, for people.
    pub from: String,
}

/// The mode of a start with these arguments in this project; `None` when nothing chooses one, so that Claude Code's own default
/// holds, which is auto mode for some accounts.
pub fn expected(env: &Env, project: &Path, words: &[String]) -> Option<Expected> {
    let settings: Vec<Source> = sources(env, project, words).collect();
    let forbidden = |key: &str| {
        settings.iter().any(|source| source.value[key] == "disable" || source.value["permissions"][key] == "disable")
    };
    let allowed = |mode: &str| match mode {
        BYPASS => !forbidden("disableBypassPermissionsMode"),
        AUTO => !forbidden("disableAutoMode"),
        _ => true,
    };
    let of_flag = started_in(words).filter(|(mode, _)| allowed(mode));
    if let Some((mode, flag)) = of_flag {
        return Some(Expected { mode: mode.to_owned(), from: flag.to_owned() });
    }
    let chosen =
        settings.iter().find_map(|source| Some((source, source.value["permissions"]["defaultMode"].as_str()?)));
    // What a project says of auto mode is ignored, and hides what the user says.
    let (source, mode) = chosen.filter(|(source, mode)| allowed(mode) && !(*mode == AUTO && source.of_project))?;
    Some(Expected { mode: mode.to_owned(), from: source.name.clone() })
}

/// The mode that a command line names, and with which flag.
fn started_in(words: &[String]) -> Option<(&str, &str)> {
    let words = || words.iter().map(String::as_str);
    if words().any(|word| word == SKIP_PERMISSIONS) {
        return Some((BYPASS, SKIP_PERMISSIONS));
    }
    value_of(words(), "--permission-mode").map(|mode| (mode, "--permission-mode"))
}

/// The value of a flag, as the next word or behind `=`.
fn value_of<'a>(words: impl Iterator<Item = &'a str> + Clone, flag: &str) -> Option<&'a str> {
    let after = words.clone().skip_while(|word| *word != flag).nth(1);
    after.or_else(|| words.clone().find_map(|word| word.strip_prefix(flag)?.strip_prefix('=')))
}

struct Source {
    name: String,
    of_project: bool,
    value: Value,
}

/// The settings that can be read, the strongest first. One that cannot be read chooses nothing here.
fn sources(env: &Env, project: &Path, words: &[String]) -> impl Iterator<Item = Source> + use<> {
    let managed = ("the administrator's settings", false, PathBuf::from("/etc/claude-code/managed-settings.json"));
    let given = value_of(words.iter().map(String::as_str), "--settings").map(str::to_owned);
    let given = given.map(|text| match serde_json::from_str::<Value>(&text) {
        Ok(value) if value.is_object() => Ok(value),
        _ => Err(project.join(text)),
    });
    let of_project = |file: &str| project.join(".claude").join(file);
    let local = (".claude/settings.local.json", true, of_project("settings.local.json"));
    let shared = (".claude/settings.json", true, of_project("settings.json"));
    let user = ("your settings", false, ClaudeFiles::locate(env).settings);
    let read = |(name, of_project, path): (&str, bool, PathBuf)| {
        let bytes = crate::files::read_limited(&path, MAX_SETTINGS).ok().flatten()?;
        let value = serde_json::from_slice(&bytes).ok()?;
        Some(Source { name: name.to_owned(), of_project, value })
    };
    let given = given.and_then(|given| match given {
        Ok(value) => Some(Source { name: "--settings".into(), of_project: false, value }),
        Err(path) => read(("--settings", false, path)),
    });
    let all = [read(managed), given, read(local), read(shared), read(user)];
    all.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        home: tempfile::TempDir,
        project: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let project = home.path().join("project");
            std::fs::create_dir_all(project.join(".claude")).unwrap();
            std::fs::create_dir_all(home.path().join(".claude")).unwrap();
            Self { home, project }
        }

        fn expect(&self, line: &str) -> Option<(String, String)> {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let env = Env::of(&[("HOME", self.home.path().to_str().unwrap())]);
            expected(&env, &self.project, &words).map(|found| (found.mode, found.from))
        }

        fn user(&self, text: &str) {
            std::fs::write(self.home.path().join(".claude/settings.json"), text).unwrap();
        }

        fn project(&self, file: &str, text: &str) {
            std::fs::write(self.project.join(".claude").join(file), text).unwrap();
        }
    }

    fn mode(mode: &str, from: &str) -> Option<(String, String)> {
        Some((mode.to_owned(), from.to_owned()))
    }

    #[test]
    fn flags_come_before_settings() {
        let place = Place::new();
        assert_eq!(place.expect("claude -p hi"), None);
        // This one only allows the user to switch to it.
        assert_eq!(place.expect("claude --allow-dangerously-skip-permissions"), None);
        assert_eq!(place.expect("claude --permission-mode"), None);
        place.user(r#"{"permissions": {"defaultMode": "plan"}}"#);
        assert_eq!(place.expect("claude"), mode("plan", "your settings"));
        assert_eq!(place.expect("claude --permission-mode auto"), mode("auto", "--permission-mode"));
        assert_eq!(place.expect("claude --permission-mode=plan"), mode("plan", "--permission-mode"));
        let skipping = format!("claude --permission-mode plan {SKIP_PERMISSIONS}");
        assert_eq!(place.expect(&skipping), mode(BYPASS, SKIP_PERMISSIONS));
        assert_eq!(
            place.expect(r#"claude --settings {"permissions":{"defaultMode":"auto"}}"#),
            mode(AUTO, "--settings")
        );
    }

    #[test]
    fn the_nearest_settings_win_and_a_project_cannot_choose_auto_mode() {
        let place = Place::new();
        place.user(r#"{"permissions": {"defaultMode": "auto"}}"#);
        assert_eq!(place.expect("claude"), mode(AUTO, "your settings"));
        place.project("settings.json", r#"{"permissions": {"defaultMode": "acceptEdits"}}"#);
        assert_eq!(place.expect("claude"), mode("acceptEdits", ".claude/settings.json"));
        place.project("settings.local.json", r#"{"permissions": {"defaultMode": "bypassPermissions"}}"#);
        assert_eq!(place.expect("claude"), mode(BYPASS, ".claude/settings.local.json"));
        place.project("settings.local.json", r#"{"permissions": {"defaultMode": "auto"}}"#);
        assert_eq!(place.expect("claude"), None, "ignored, and it hides the others");
        place.project("settings.local.json", "{ damaged");
        assert_eq!(place.expect("claude"), mode("acceptEdits", ".claude/settings.json"));
    }

    #[test]
    fn a_mode_that_is_switched_off_is_not_expected() {
        let place = Place::new();
        place.user(r#"{"permissions": {"defaultMode": "auto", "disableBypassPermissionsMode": "disable"}}"#);
        assert_eq!(place.expect(&format!("claude {SKIP_PERMISSIONS}")), mode(AUTO, "your settings"));
        place.project("settings.json", r#"{"disableAutoMode": "disable"}"#);
        assert_eq!(place.expect("claude"), None);
    }
}
