//! Which Claude Code is installed, and what is known of its versions.
//!
//! The version is read from where the program lies, not by running it: a start takes a moment, and a program that is not
//! Claude Code may do anything. The doctor runs it when the place tells nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::files;

/// A version of Claude Code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32, pub u32);

/// The newest version that was tried with this program.
pub const NEWEST_TRIED: Release = Release(2, 1, 329);
/// The oldest version that was tried with this program.
pub const OLDEST_TRIED: Release = Release(2, 1, 197);

/// Something that Claude Code has since some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ability {
    /// Stable word.
    pub name: &'static str,
    /// Since when; from the documentation, or the oldest version it was seen in.
    pub since: Release,
    /// What a session loses without it.
    pub without: &'static str,
}

/// Channel notes: a message in the middle of a turn.
pub const CHANNELS: Ability =
    Ability { name: "channels", since: Release(2, 1, 80), without: "messages do not arrive as channel notes" };
/// Plug-in monitors.
pub const MONITORS: Ability =
    Ability { name: "monitors", since: Release(2, 1, 105), without: "the plug-in's monitor does not run" };
/// The MCP server learns its session's id.
pub const SESSION_ID: Ability = Ability {
    name: "session-id",
    since: Release(2, 1, 154),
    without: "a session without `claudemesh launch` gets a new key at each start",
};
/// Hooks that wake an idle session.
pub const REWAKE: Ability =
    Ability { name: "rewake", since: OLDEST_TRIED, without: "nothing is known about waking an idle session by a hook" };
/// The session's own inbox socket.
pub const MESSAGING: Ability =
    Ability { name: "messaging", since: Release(2, 1, 224), without: "the session has no inbox socket" };

/// Everything that is known, oldest first.
pub const ABILITIES: [Ability; 5] = [CHANNELS, MONITORS, SESSION_ID, REWAKE, MESSAGING];

impl Release {
    /// Reads `2.1.329` at the start of a text (`2.1.329 (Claude Code)`).
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().next()?;
        // What follows a hyphen or plus is a build, not another version.
        let mut parts = word.split(['-', '+']).next()?.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Some(Self(major, minor, patch)),
            _ => None,
        }
    }

    /// Whether it has this.
    pub fn has(self, ability: Ability) -> bool {
        self >= ability.since
    }

    /// What it lacks.
    pub fn missing(self) -> Vec<Ability> {
        ABILITIES.into_iter().filter(|ability| !self.has(*ability)).collect()
    }

    /// From the place of the program: `…/versions/2.1.329`, or the package that it belongs to.
    pub fn of_place(program: &Path) -> Option<Self> {
        let file = program.canonicalize().ok()?;
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(Self::parse);
        if let Some(release) = name(&file).or_else(|| file.parent().and_then(name)) {
            return Some(release);
        }
        file.ancestors().skip(1).take(3).find_map(|folder| {
            let bytes = files::read_limited(&folder.join("package.json"), 256 * 1024).ok().flatten()?;
            let package: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            let claude = package["name"].as_str().is_some_and(|name| name.starts_with("@anthropic-ai/claude-code"));
            package["version"].as_str().filter(|_| claude).and_then(Self::parse)
        })
    }

    /// By asking the program, at most for `patience`.
    pub fn by_asking(program: &Path, patience: Duration) -> Option<Self> {
        let mut child = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut stdout = child.stdout.take()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = vec![0; 256];
            // The first piece holds the line; the program may keep its output open.
            let length = std::io::Read::read(&mut stdout, &mut text).unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&text[..length]).into_owned());
        });
        let deadline = Instant::now() + patience;
        let text = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
        let _ = child.kill();
        let _ = child.wait();
        text.as_deref().and_then(Self::parse)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Where Claude Code is, and which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The program.
    pub program: PathBuf,
    /// Its version, when the place tells.
    pub release: Option<Release>,
}

impl Found {
    /// Looks at a program.
    pub fn at(program: PathBuf) -> Self {
        Self { release: Release::of_place(&program), program }
    }

    /// Whether it has this; what is not known to be missing is taken to be there.
    pub fn has(&self, ability: Ability) -> bool {
        self.release.is_none_or(|release| release.has(ability))
    }

    /// `Claude Code 2.1.329`, or without the number.
    pub fn title(&self) -> String {
        self.release.map_or_else(|| "Claude Code".to_owned(), |release| format!("Claude Code {release}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(Release::parse("2.1.329 (Claude Code)\n"), Some(NEWEST_TRIED));
        assert_eq!(Release::parse("2.1.80-beta.1"), Some(Release(2, 1, 80)));
        for text in ["", "claude", "2.1", "2.1.x", "1.2.3.4", "v2.1.3"] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
        assert!(Release(2, 2, 0).has(MESSAGING) && Release(2, 1, 80).has(CHANNELS) && !Release(2, 1, 79).has(CHANNELS));
        assert_eq!(OLDEST_TRIED.missing(), [MESSAGING]);
        assert_eq!(NEWEST_TRIED.missing(), []);
        assert!(ABILITIES.is_sorted_by_key(|ability| ability.since));
    }

    #[test]
    fn the_place_tells_the_version() {
        let dir = tempfile::tempdir().unwrap();
        let file = |inside: &str, text: &str| {
            let path = dir.path().join(inside);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let package = dir.path().join("node_modules/@anthropic-ai/claude-code");
        file(
            "node_modules/@anthropic-ai/claude-code/package.json",
            r#"{"name":"@anthropic-ai/claude-code","version":"2.1.197"}"#,
        );
        let program = file("node_modules/@anthropic-ai/claude-code/bin/claude.exe", "");
        assert_eq!(Release::of_place(&program), Some(OLDEST_TRIED));
        let link = dir.path().join("claude");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        assert_eq!(Found::at(link).title(), "Claude Code 2.1.197");
        assert_eq!(Release::of_place(&file("share/claude/versions/2.1.329", "")), Some(NEWEST_TRIED));
        assert_eq!(Release::of_place(&file("Caskroom/claude-code/2.1.300/claude", "")), Some(Release(2, 1, 300)));
        std::fs::write(package.join("package.json"), r#"{"name":"other","version":"2.1.197"}"#).unwrap();
        assert_eq!(Release::of_place(&program), None);
        assert_eq!(Release::of_place(&file("bin/claude", "#!/bin/sh\n")), None);
        assert!(Found::at(dir.path().join("bin/claude")).has(CHANNELS));
    }

    #[test]
    fn a_program_that_does_not_answer_has_no_version() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let ask = |path: &Path, ms| Release::by_asking(path, Duration::from_millis(ms));
        assert_eq!(ask(&script("good", "echo '2.1.329 (Claude Code)'; sleep 60"), 20_000), Some(NEWEST_TRIED));
        assert_eq!(ask(&script("silent", "exec sleep 60"), 50), None);
        assert_eq!(ask(&script("other", "echo hello"), 20_000), None);
        assert_eq!(ask(&dir.path().join("none"), 50), None);
    }
}
