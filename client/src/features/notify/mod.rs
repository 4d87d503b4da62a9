//! Tells the person at the machine that something waits: a desktop notification, or a command of their own.
//!
//! Off until someone turns it on (`claudemesh notify desktop`, or `CLAUDEMESH_NOTIFY`). It names who wrote and in which mesh,
//! never what a peer wrote: a screen may be locked or shared. At most one in half a minute for all sessions of a config
//! folder. Never waits for the notifier and never fails; [`watch`] is who calls it.

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::config::ConfigStore;
use crate::files;
use crate::output::clean;
use crate::paths::{self, Env};

pub mod cli;
pub mod watch;

/// Variable that decides instead of the config.
pub const VARIABLE: &str = "CLAUDEMESH_NOTIFY";
/// Between two notifications.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest title.
const MAX_TITLE_CHARS: usize = 80;
/// Longest text.
const MAX_TEXT_CHARS: usize = 200;
/// A notifier that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a person is told of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// A question waits for an answer.
    Questions,
    /// A message came.
    Messages,
    /// A message came that the rule for incoming messages holds.
    Held,
    /// A session of someone else asks for a permission.
    Permissions,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Questions, Self::Messages, Self::Held, Self::Permissions];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Questions => "questions",
            Self::Messages => "messages",
            Self::Held => "held",
            Self::Permissions => "permissions",
        }
    }

    /// The higher one is told of when several came at once: someone waits for a permission.
    pub const fn urgency(self) -> u8 {
        match self {
            Self::Messages => 0,
            Self::Held => 1,
            Self::Questions => 2,
            Self::Permissions => 3,
        }
    }

    /// Those that are told of: all unless the config names some.
    pub fn chosen(store: &ConfigStore) -> Vec<Self> {
        let named = store.load().ok().and_then(|config| config.notify_about);
        match named {
            None => Self::ALL.to_vec(),
            Some(words) => Self::ALL.into_iter().filter(|one| words.iter().any(|word| word == one.as_str())).collect(),
        }
    }
}

/// How to notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notifier {
    /// What the desktop has.
    Desktop,
    /// This shell line, with title and text as its arguments.
    Line(String),
}

impl Notifier {
    /// Reads a setting: nothing and words for off, `desktop`, else a shell line.
    pub fn parse(setting: &str) -> Option<Self> {
        match setting.trim().to_ascii_lowercase().as_str() {
            "" | "off" | "0" | "false" | "no" => None,
            "desktop" | "on" | "1" | "true" | "yes" => Some(Self::Desktop),
            _ => Some(Self::Line(setting.trim().to_owned())),
        }
    }

    /// The setting in force: the variable, else `notify` in the config. `None` is off.
    pub fn of(env: &Env, store: &ConfigStore) -> Option<Self> {
        match env.text(VARIABLE) {
            Some(setting) => Self::parse(setting),
            None => store.load().ok().and_then(|config| config.notify).and_then(|setting| Self::parse(&setting)),
        }
    }

    /// The setting as it is written.
    pub fn setting(&self) -> &str {
        match self {
            Self::Desktop => "desktop",
            Self::Line(line) => line,
        }
    }

    /// Why nothing can be shown; `None` when it can.
    pub fn trouble(&self, env: &Env) -> Option<String> {
        self.command(env, "", "").err().map(|error| error.to_string())
    }

    /// The command for one notification.
    ///
    /// # Errors
    /// `NotFound` when the desktop has no notifier that we know.
    pub fn command(&self, env: &Env, title: &str, text: &str) -> io::Result<Command> {
        let (title, text) = (short(title, MAX_TITLE_CHARS), short(text, MAX_TEXT_CHARS));
        let (program, args): (OsString, Vec<OsString>) = match self {
            Self::Line(line) => {
                // Arguments, never part of the line: no name of a peer is read by a shell.
                let line = if line.contains('$') { line.clone() } else { format!("{line} \"$@\"") };
                ("sh".into(), vec!["-c".into(), line.into(), "claudemesh".into(), title.into(), text.into()])
            }
            Self::Desktop => {
                if let Some(program) = paths::find_program(env, "notify-send") {
                    let args = ["--app-name=claudemesh", "--", &title, &escaped(&text)].map(OsString::from);
                    (program.into(), args.into())
                } else if let Some(program) = paths::find_program(env, "osascript") {
                    let script = "on run {title, body}\ndisplay notification body with title title\nend run";
                    (program.into(), ["-e", script, &title, &text].map(OsString::from).into())
                } else {
                    let message = "neither notify-send nor osascript is on the PATH";
                    return Err(io::Error::new(io::ErrorKind::NotFound, message));
                }
            }
        };
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Keys and tokens of the session are nothing for a notifier.
        for name in env.names().filter(|name| is_of_session(name)) {
            command.env_remove(name);
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }
}

/// What became of a notification.
#[derive(Debug)]
pub enum Outcome {
    /// It was started.
    Started,
    /// There was one a moment ago.
    TooSoon,
    /// It cannot be started.
    Failed(io::Error),
}

/// Notifies, unless there was a notification a moment ago.
pub fn notify(env: &Env, store: &ConfigStore, notifier: &Notifier, title: &str, text: &str) -> Outcome {
    let mark = store.dir().join("run").join("notified");
    let age = std::fs::metadata(&mark).and_then(|meta| meta.modified()).ok();
    // A time to come counts as long ago: a clock that was put back must not silence us.
    if age.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age < PAUSE) {
        return Outcome::TooSoon;
    }
    let marked = files::create_private_dir(&store.dir().join("run")).and_then(|()| std::fs::write(&mark, b"1"));
    // Without the mark there is no bound, and then there is nothing.
    let started = marked.and_then(|()| notifier.command(env, title, text)).and_then(|mut command| command.spawn());
    match started {
        Err(error) => Outcome::Failed(error),
        Ok(mut child) => {
            std::thread::spawn(move || {
                let (sender, receiver) = std::sync::mpsc::channel::<()>();
                let pid = child.id();
                std::thread::spawn(move || {
                    if receiver
                        .recv_timeout(PATIENCE)
                        .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
                    {
                        end(pid);
                    }
                });
                let _ = child.wait();
                drop(sender);
            });
            Outcome::Started
        }
    }
}

/// Ends a notifier and what it started.
fn end(pid: u32) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = pid;
}

fn is_of_session(name: &str) -> bool {
    name == "CLAUDECODE" || ["CLAUDE_CODE_", "ANTHROPIC_", "CLAUDEMESH_"].iter().any(|prefix| name.starts_with(prefix))
}

fn short(text: &str, max_chars: usize) -> String {
    let text = clean(text);
    let mut short: String = text.chars().take(max_chars).collect();
    if text.chars().count() > max_chars {
        short.push('…');
    }
    short
}

/// Notification servers read the text as markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(notifier: &Notifier, env: &Env, title: &str, text: &str) -> Vec<String> {
        let command = notifier.command(env, title, text).unwrap();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn settings_are_off_desktop_or_a_line() {
        for off in ["", " ", "off", "OFF", "0", "no"] {
            assert_eq!(Notifier::parse(off), None);
        }
        assert_eq!(Notifier::parse("desktop"), Some(Notifier::Desktop));
        assert_eq!(Notifier::parse(" my-bell -x "), Some(Notifier::Line("my-bell -x".into())));
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        assert_eq!(Notifier::of(&Env::default(), &store), None, "off unless it is asked for");
        std::fs::write(dir.path().join("config.json"), r#"{"version":1,"meshes":[],"notify":"desktop"}"#).unwrap();
        assert_eq!(Notifier::of(&Env::default(), &store), Some(Notifier::Desktop));
        assert_eq!(Notifier::of(&Env::of(&[(VARIABLE, "off")]), &store), None, "the variable decides");
    }

    #[test]
    fn names_are_arguments_and_never_shell_text() {
        let evil = "$(touch /x) `y` \"; z\n\u{1b}[2J\u{202e}";
        let line = words(&Notifier::Line("bell".into()), &Env::default(), evil, "text");
        assert_eq!(line[..4], ["sh", "-c", "bell \"$@\"", "claudemesh"]);
        assert!(
            line[4].starts_with("$(touch /x) `y` \"; z") && !line[4].contains(['\n', '\u{1b}', '\u{202e}']),
            "{line:?}"
        );
        let own = words(&Notifier::Line("say \"$2\"".into()), &Env::default(), "t", "x");
        assert_eq!(own[2], "say \"$2\"", "a line with variables takes what it wants");
    }

    #[test]
    fn the_desktop_gets_escaped_text() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::of(&[("PATH", dir.path().to_str().unwrap())]);
        let missing = Notifier::Desktop.command(&env, "t", "x").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let program = dir.path().join("notify-send");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let words = words(&Notifier::Desktop, &env, "--help", &format!("<b>{}", "x".repeat(300)));
        assert_eq!(words[1..4], ["--app-name=claudemesh", "--", "--help"]);
        assert!(words[4].starts_with("&lt;b&gt;") && words[4].ends_with('…') && words[4].chars().count() < 220);
    }

    #[test]
    fn one_in_half_a_minute_for_all_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let (env, store) = (Env::default(), ConfigStore::at(dir.path()));
        let send = || notify(&env, &store, &Notifier::Line("true".into()), "t", "x");
        assert!(matches!(send(), Outcome::Started));
        assert!(matches!(send(), Outcome::TooSoon));
        let mark = std::fs::File::open(dir.path().join("run/notified")).unwrap();
        mark.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(matches!(send(), Outcome::Started));
    }
}
