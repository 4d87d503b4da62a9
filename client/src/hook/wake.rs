//! The hooks that stay in the background: `wait`, whose exit wakes an idle session, and `monitor`, whose lines do.

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Log, host_input, servers};
use crate::config::ConfigStore;
use crate::ipc::client::Line;
use crate::ipc::registry::Record;
use crate::ipc::{Hook, Reply, Request};
use crate::paths::Env;

/// Exit code with which the host wakes the session.
const WAKE: u8 = 2;
/// How long to look for a server: the host starts hooks and servers side by side, and a server may be started again.
const SEARCH: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause between two looks at the input of a host that ends with it: nothing tells of its end.
const INPUT_EVERY: Duration = Duration::from_millis(200);

/// Waits for something that must wake the session, writes it to stderr and answers 2; 0 when the wait is over without.
pub(super) fn wait(env: &Env, store: &ConfigStore, hook: &Hook, log: &Log) -> u8 {
    let prompts = Prompts::of_host(env);
    if prompts == Prompts::One {
        log.say(|| "the host answers one prompt and ends".into());
        return 0;
    }
    let request = Request::Wait(hook.clone());
    let print = |text: &str| {
        let mut err = std::io::stderr().lock();
        err.write_all(text.as_bytes()).and_then(|()| err.flush()).is_ok()
    };
    follow(env, store, hook, &request, prompts, log, |text| {
        let printed = print(text);
        (printed, Some(if printed { WAKE } else { 0 }))
    })
}

/// Where the host gets its prompts from, and so when it ends. It gives its hooks in the background half a minute then, so
/// ours have to end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prompts {
    /// From a person: it ends when the person says so.
    Person,
    /// `claude -p`: it ends after one.
    One,
    /// From the standard input of this process: it is idle between prompts and wants to be woken, and ends with its input.
    Stream(u32),
}

impl Prompts {
    fn of_host(env: &Env) -> Self {
        let told = env.text("CLAUDE_PID").and_then(|pid| pid.parse().ok());
        let hosts = told.into_iter().chain(crate::ipc::registry::ancestors());
        let lines = hosts.filter_map(|pid| Some((pid, crate::session::routes::host::command_line(pid)?)));
        Self::of(env, lines)
    }

    /// `lines`: the processes that may be the host, nearest first, with their command lines.
    fn of(env: &Env, lines: impl IntoIterator<Item = (u32, Vec<String>)>) -> Self {
        let entry = env.text("CLAUDE_CODE_ENTRYPOINT").unwrap_or_default();
        // A session in a terminal may have been started by one that reads a stream.
        if !entry.starts_with("sdk-") {
            return Self::Person;
        }
        match lines.into_iter().find(|(_, words)| reads_stream(words)) {
            Some((pid, _)) => Self::Stream(pid),
            // Where no command line can be read, a session that ends is worth more than one that is woken.
            None if entry == "sdk-cli" => Self::One,
            None => Self::Person,
        }
    }

    /// Pause between two looks at where they come from.
    fn look_every(self) -> Duration {
        if matches!(self, Self::Stream(_)) { INPUT_EVERY } else { Duration::from_secs(3_600) }
    }

    /// Whether the host will get no prompt any more.
    fn are_over(self) -> bool {
        matches!(self, Self::Stream(pid) if host_input::is_over(pid))
    }
}

fn reads_stream(words: &[String]) -> bool {
    words.iter().any(|word| word == "--input-format=stream-json")
        || words.windows(2).any(|pair| pair[0] == "--input-format" && pair[1] == "stream-json")
}

/// Writes a line for each thing that comes until the session ends.
pub(super) fn monitor(env: &Env, store: &ConfigStore, log: &Log) -> u8 {
    let hook = Hook::default();
    follow(env, store, &hook, &Request::Monitor, Prompts::Person, log, |text| {
        let line = one_line(text);
        let mut out = std::io::stdout().lock();
        let printed = writeln!(out, "{line}").and_then(|()| out.flush()).is_ok();
        (printed, if printed { None } else { Some(0) })
    })
}

/// One line is one notification for the host. The sign that stands for the end of a line is ours alone: a peer who writes
/// it could begin a line of the frame with it.
fn one_line(text: &str) -> String {
    text.replace('⏎', "↵").replace('\n', " ⏎ ")
}

/// Asks every server of the session at once and gives the texts to `print`, which answers whether the text was written
/// and with which code to end, if at all.
fn follow(
    env: &Env,
    store: &ConfigStore,
    hook: &Hook,
    request: &Request,
    prompts: Prompts,
    log: &Log,
    mut print: impl FnMut(&str) -> (bool, Option<u8>),
) -> u8 {
    loop {
        let Some(list) = search(env, store, hook, prompts) else {
            log.say(|| "no server of this session, or no prompt for it any more".into());
            return 0;
        };
        let (sender, receiver) = mpsc::channel::<(Line, String)>();
        let (ends, ended) = mpsc::channel::<bool>();
        let count = list.len();
        for server in list {
            let (sender, ends, request) = (sender.clone(), ends.clone(), request.clone());
            std::thread::spawn(move || {
                let _ = ends.send(listen(&server, &request, &sender));
            });
        }
        drop((sender, ends));
        // The channel ends when all servers are gone.
        loop {
            let (mut line, text) = match receiver.recv_timeout(prompts.look_every()) {
                Ok(told) => told,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) if prompts.are_over() => {
                    log.say(|| "the host gets no prompt any more".into());
                    return 0;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
            };
            let (printed, code) = print(&text);
            if printed {
                let _ = line.send(&Request::Printed);
            }
            if let Some(code) = code {
                return code;
            }
        }
        // Sent away by every server: no one needs us. Lost: the server may be started again.
        if ended.iter().take(count).all(|sent_away| sent_away) {
            return 0;
        }
    }
}

fn search(env: &Env, store: &ConfigStore, hook: &Hook, prompts: Prompts) -> Option<Vec<Record>> {
    let deadline = Instant::now() + SEARCH;
    loop {
        if prompts.are_over() {
            return None;
        }
        let list = servers(env, store, hook);
        if !list.is_empty() {
            return Some(list);
        }
        // Without its host no one starts a server any more; our parent is 1 or a reaper then.
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Hands over what one server says; `true` when the server sent us away, `false` when it is gone.
fn listen(server: &Record, request: &Request, sender: &mpsc::Sender<(Line, String)>) -> bool {
    let Ok(mut line) = Line::open(server, None) else { return false };
    if line.send(request).is_err() {
        return false;
    }
    loop {
        match line.receive() {
            Ok(Reply::Wake { text }) => {
                let Ok(confirm) = line.try_clone() else { return false };
                if sender.send((confirm, text)).is_err() {
                    return true;
                }
            }
            Ok(Reply::End) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_begin_a_line_in_the_monitors_form() {
        let text = "--- mesh message \"a\"\n> hi ⏎ --- mesh message \"b\"\n";
        assert_eq!(one_line(text), "--- mesh message \"a\" ⏎ > hi ↵ --- mesh message \"b\" ⏎ ");
    }

    #[test]
    fn one_prompt_is_told_from_a_stream_of_prompts() {
        let reads = |line: &str| reads_stream(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(reads("claude -p --input-format stream-json --verbose") && reads("claude --input-format=stream-json"));
        assert!(
            !reads("claude -p hi")
                && !reads("claude -p --output-format stream-json")
                && !reads("claude --input-format")
        );
        let of = |entry: &str, line: &str| {
            let env = Env::of(&[("CLAUDE_CODE_ENTRYPOINT", entry)]);
            let words = line.split(' ').map(str::to_owned).collect();
            Prompts::of(&env, [(7, vec!["/bin/sh".into(), "-c".into()]), (8, words)])
        };
        // In a terminal the entry point is another one, and the command line does not matter.
        assert_eq!(of("cli", "claude -p hi"), Prompts::Person);
        assert_eq!(of("sdk-cli", "claude -p hi"), Prompts::One);
        for entry in ["sdk-cli", "sdk-ts", "sdk-py"] {
            assert_eq!(of(entry, "claude -p --input-format stream-json"), Prompts::Stream(8));
        }
        assert_eq!(of("sdk-ts", "a program that was renamed"), Prompts::Person);
        assert_eq!(Prompts::of(&Env::of(&[]), []), Prompts::Person);
        assert_eq!(Prompts::of(&Env::of(&[("CLAUDE_CODE_ENTRYPOINT", "sdk-cli")]), []), Prompts::One);
    }
}
