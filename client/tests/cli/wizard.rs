//! The questions of `launch` on a real pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::home::Home;

const RECORDER: &str = "#!/bin/sh\ncp \"$CLAUDEMESH_SESSION_DIR/session.json\" \"$HOME/session.json\"\necho started\n";

struct Terminal {
    master: File,
    slave: File,
    seen: String,
}

impl Terminal {
    fn new() -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, vec![]).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { master: master.into(), slave, seen: String::new() }
    }

    fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    /// Reads until the text is on the screen.
    fn wait_for(&mut self, text: &str) {
        let mut chunk = [0; 4096];
        while !self.seen.contains(text) {
            let length = self.master.read(&mut chunk).unwrap();
            assert!(length > 0, "{text:?} never came: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn is_cooked(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

fn ready() -> Home {
    let home = Home::new();
    home.script("claude", RECORDER);
    home.join(&[("team", "ws://127.0.0.1:1/ws"), ("other", "ws://127.0.0.1:1/ws")]);
    home.run(&["install"]).exits(0);
    home
}

fn start(home: &Home, terminal: &Terminal, args: &[&str]) -> std::process::Child {
    let mut command = home.command(args);
    command.env("TERM", "xterm").stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    command.spawn().unwrap()
}

#[test]
fn the_wizard_asks_remembers_and_leaves_the_terminal_as_it_was() {
    let home = ready();
    let mut terminal = Terminal::new();
    assert!(terminal.is_cooked());
    let mut child = start(&home, &terminal, &["launch", "--role", "lead"]);
    terminal.wait_for("Which mesh?");
    terminal.press("\x1b[B\r");
    terminal.wait_for("Your name in the mesh:");
    terminal.press("Ann\r");
    // The role was given as a flag: not asked.
    terminal.wait_for("Groups");
    terminal.press("qa:lead\r");
    terminal.wait_for("How should messages arrive?");
    terminal.press("\x1b[B\r");
    terminal.wait_for("Continue?");
    terminal.press("\r");
    terminal.wait_for("started");
    assert!(child.wait().unwrap().success());
    assert!(terminal.is_cooked());
    let session: serde_json::Value = serde_json::from_str(&home.read("session.json")).unwrap();
    assert_eq!((&session["meshSlug"], &session["displayName"]), (&"other".into(), &"Ann".into()));
    assert_eq!((&session["role"], &session["messageMode"]), (&"lead".into(), &"inbox".into()));

    // Asked once: the answers hold from now on. What was a flag was for that start.
    let same = |again: &serde_json::Value| {
        for field in ["meshSlug", "displayName", "groups", "messageMode"] {
            assert_eq!(again[field], session[field], "{field}");
        }
        assert_eq!(again["role"], serde_json::Value::Null);
    };
    let mut child = start(&home, &terminal, &["launch"]);
    terminal.wait_for("started");
    assert!(child.wait().unwrap().success());
    same(&serde_json::from_str(&home.read("session.json")).unwrap());
    // With --ask they are offered again, and Enter takes them over.
    let mut child = start(&home, &terminal, &["launch", "--ask"]);
    for question in
        ["Which mesh?", "Your name in the mesh:", "Your title", "Groups", "How should messages arrive?", "Continue?"]
    {
        terminal.wait_for(question);
        terminal.press("\r");
    }
    terminal.wait_for("started");
    assert!(child.wait().unwrap().success());
    same(&serde_json::from_str(&home.read("session.json")).unwrap());
}

#[test]
fn leaving_the_wizard_starts_nothing() {
    let home = ready();
    let mut terminal = Terminal::new();
    let mut child = start(
        &home,
        &terminal,
        &["launch", "team", "--name", "A", "--role", "r", "--groups", "g", "--message-mode", "push"],
    );
    terminal.wait_for("Continue?");
    terminal.press("n\r");
    terminal.wait_for("Not started.");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut child = start(&home, &terminal, &["launch", "team"]);
    terminal.wait_for("Your name in the mesh:");
    terminal.press("\x1b");
    terminal.wait_for("Cancelled.");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(terminal.is_cooked());
    assert!(!home.path("session.json").exists());
}

#[test]
fn yes_and_quiet_ask_nothing() {
    let home = ready();
    let mut terminal = Terminal::new();
    for flag in ["--yes", "--quiet"] {
        let mut child = start(&home, &terminal, &["launch", "team", flag]);
        terminal.wait_for("started");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn colours_show_on_a_terminal_unless_they_are_unwanted() {
    let home = ready();
    let mut terminal = Terminal::new();
    let mut child = start(&home, &terminal, &["list"]);
    terminal.wait_for("\u{1b}[1mteam");
    child.wait().unwrap();
    let mut command = home.command(&["list"]);
    command.env("TERM", "xterm").env("NO_COLOR", "1").stdin(terminal.stdio()).stdout(terminal.stdio());
    let mut child = command.spawn().unwrap();
    terminal.wait_for("\nteam");
    child.wait().unwrap();
}

/// Ctrl-C reaches Claude Code once: from the terminal, not a second time from us.
#[test]
fn the_interrupt_key_is_not_doubled() {
    let home = ready();
    let script = "#!/bin/sh\nn=0\ntrap 'n=$((n+1)); echo \"interrupt $n\"' INT\necho ready\n\
                  while [ $n -eq 0 ]; do sleep 0.05; done\nread line\necho \"total $n\"\nexit 5\n";
    home.script("claude", script);
    let mut terminal = Terminal::new();
    // A session of its own with this terminal as the controlling one, as a shell would have it.
    let launch = home.command(&["launch", "team", "--yes"]);
    let mut command = std::process::Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(launch.get_program()).args(launch.get_args());
    command.env_clear().envs(launch.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("IS_SANDBOX", "1");
    command.current_dir(home.path("project"));
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut child = command.spawn().unwrap();
    terminal.wait_for("ready");
    terminal.press("\x03");
    terminal.wait_for("interrupt 1");
    terminal.press("go\n");
    terminal.wait_for("total 1");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(terminal.is_cooked());
}

/// A signal in the middle of a question: the terminal is as before, and anyone who started us sees the signal.
#[test]
fn a_killed_wizard_leaves_the_terminal_as_it_was() {
    use rustix::process::{Pid, Signal, kill_process};
    for signal in [Signal::TERM, Signal::HUP] {
        let home = ready();
        let mut terminal = Terminal::new();
        let mut child = start(&home, &terminal, &["launch", "team"]);
        terminal.wait_for("Your name in the mesh:");
        assert!(!terminal.is_cooked(), "the question reads keys one by one");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal.as_raw()));
        assert!(terminal.is_cooked());
        assert!(!home.path("session.json").exists());
    }
}

/// Claude Code is killed while it has the terminal in raw mode.
#[test]
fn a_killed_session_leaves_the_terminal_as_it_was() {
    let home = ready();
    home.script("claude", "#!/bin/sh\nstty raw -echo\necho raw\nkill -9 $$\n");
    let mut terminal = Terminal::new();
    let mut child = start(&home, &terminal, &["launch", "team", "--quiet"]);
    terminal.wait_for("raw");
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(terminal.is_cooked());
    terminal.wait_for("\x1b[?1049l");
    assert_eq!(std::fs::read_dir(home.path(".claudemesh/run")).unwrap().count(), 0);
}
