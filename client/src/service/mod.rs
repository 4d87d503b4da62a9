//! `claudemesh up` with the user's login: a systemd user unit on Linux, a launchd agent on macOS. Texts and places are pure, so that
//! both can be looked at on any system.

use std::path::{Path, PathBuf};

use crate::install::edits::quote;
use crate::paths::Env;

pub mod cli;

/// Name of the systemd unit.
pub const UNIT: &str = "claudemesh.service";
/// Label of the launchd agent.
pub const LABEL: &str = "dev.claudemesh.up";

/// What starts services for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Linux.
    Systemd,
    /// macOS.
    Launchd,
}

/// What the service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Absolute path of this program.
    pub program: PathBuf,
    /// `up` with its flags.
    pub args: Vec<String>,
    /// The config folder.
    pub config_dir: PathBuf,
}

impl Manager {
    /// The one of this system.
    pub const fn here() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }

    /// Where its file for us is.
    pub fn file(self, env: &Env) -> PathBuf {
        match self {
            Self::Systemd => {
                let config = env.path("XDG_CONFIG_HOME").unwrap_or_else(|| env.home().join(".config"));
                config.join("systemd/user").join(UNIT)
            }
            Self::Launchd => env.home().join("Library/LaunchAgents").join(format!("{LABEL}.plist")),
        }
    }

    /// The text of that file.
    pub fn text(self, service: &Service) -> String {
        match self {
            Self::Systemd => unit(service),
            Self::Launchd => agent(service),
        }
    }

    /// The commands after the file was written, each program first.
    pub fn start(self, file: &Path, user: u32) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Self::Systemd => vec![
                words(&["systemctl", "--user", "daemon-reload"]),
                words(&["systemctl", "--user", "enable", UNIT]),
                // Not `start`: one that runs already takes over a changed unit.
                words(&["systemctl", "--user", "restart", UNIT]),
            ],
            Self::Launchd => {
                vec![words(&["launchctl", "bootstrap", &format!("gui/{user}"), &file.display().to_string()])]
            }
        }
    }

    /// The commands before the file is removed. What they complain about is no failure: the service may not run.
    pub fn stop(self, user: u32) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Self::Systemd => vec![words(&["systemctl", "--user", "disable", "--now", UNIT])],
            Self::Launchd => vec![words(&["launchctl", "bootout", &format!("gui/{user}/{LABEL}")])],
        }
    }

    /// The command whose exit code says whether the service runs.
    pub fn is_active(self, user: u32) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Self::Systemd => words(&["systemctl", "--user", "is-active", "--quiet", UNIT]),
            Self::Launchd => words(&["launchctl", "print", &format!("gui/{user}/{LABEL}")]),
        }
    }
}

/// A word of `ExecStart`: in quotes, with what systemd would replace doubled.
fn systemd_word(word: &str) -> String {
    let plain =
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@=,+".contains(&byte));
    if plain {
        return word.to_owned();
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

fn unit(service: &Service) -> String {
    let words = std::iter::once(service.program.display().to_string()).chain(service.args.iter().cloned());
    let line = words.map(|word| systemd_word(&word)).collect::<Vec<_>>().join(" ");
    let folder = systemd_word(&format!("CLAUDEMESH_CONFIG_DIR={}", service.config_dir.display()));
    format!(
        "# Written by `claudemesh service install`; `claudemesh service uninstall` removes it.\n\
         [Unit]\n\
         Description=claudemesh: the mesh of this machine\n\
         After=network.target\n\
         \n\
         [Service]\n\
         ExecStart={line}\n\
         Environment={folder}\n\
         # SIGTERM drains: what is accepted is written, clients are told to come back.\n\
         KillSignal=SIGTERM\n\
         TimeoutStopSec=30\n\
         Restart=on-failure\n\
         RestartSec=2\n\
         LimitNOFILE=65536\n\
         UMask=0077\n\
         NoNewPrivileges=yes\n\
         # It prints a link that lets others in; `claudemesh logs` and the journal have the rest.\n\
         StandardOutput=null\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn agent(service: &Service) -> String {
    let words = std::iter::once(service.program.display().to_string()).chain(service.args.iter().cloned());
    let words: String = words.map(|word| format!("    <string>{}</string>\n", xml(&word))).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n  <key>Label</key>\n  <string>{LABEL}</string>\n  \
         <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n  \
         <key>EnvironmentVariables</key>\n  <dict>\n    <key>CLAUDEMESH_CONFIG_DIR</key>\n    <string>{}</string>\n  </dict>\n  \
         <key>RunAtLoad</key>\n  <true/>\n  \
         <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n  \
         <key>ExitTimeOut</key>\n  <integer>30</integer>\n  \
         <key>SoftResourceLimits</key>\n  <dict>\n    <key>NumberOfFiles</key>\n    <integer>65536</integer>\n  </dict>\n\
         </dict>\n</plist>\n",
        xml(&service.config_dir.display().to_string())
    )
}

/// A command as a person types it.
pub fn as_typed(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            program: "/opt/my tools/claudemesh".into(),
            args: vec![
                "up".into(),
                "--listen".into(),
                "0.0.0.0:7900".into(),
                "--name".into(),
                "Ann \"50%\" & <$HOME>".into(),
            ],
            config_dir: "/home/ann/.claudemesh".into(),
        }
    }

    #[test]
    fn a_unit_passes_every_word_as_it_is() {
        let text = Manager::Systemd.text(&service());
        let line = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        let expected =
            r#"ExecStart="/opt/my tools/claudemesh" up --listen 0.0.0.0:7900 --name "Ann \"50%%\" & <$$HOME>""#;
        assert_eq!(line, expected);
        assert!(text.contains("Environment=CLAUDEMESH_CONFIG_DIR=/home/ann/.claudemesh\n"));
    }

    #[test]
    fn an_agent_is_xml_whatever_the_words_are() {
        let text = Manager::Launchd.text(&service());
        assert!(text.contains("    <string>Ann \"50%\" &amp; &lt;$HOME&gt;</string>\n"), "{text}");
        let opened = text.matches("<dict>").count();
        assert_eq!((opened, text.matches("<true/>").count()), (text.matches("</dict>").count(), 1));
    }

    #[test]
    fn files_are_where_the_systems_look() {
        let env = Env::of(&[("HOME", "/home/ann")]);
        assert_eq!(Manager::Systemd.file(&env), Path::new("/home/ann/.config/systemd/user/claudemesh.service"));
        assert_eq!(Manager::Launchd.file(&env), Path::new("/home/ann/Library/LaunchAgents/dev.claudemesh.up.plist"));
        let env = Env::of(&[("HOME", "/home/ann"), ("XDG_CONFIG_HOME", "/x")]);
        assert_eq!(Manager::Systemd.file(&env), Path::new("/x/systemd/user/claudemesh.service"));
    }
}
