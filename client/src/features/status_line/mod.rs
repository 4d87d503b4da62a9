//! `claudemesh status-line`: one row about the mesh at the bottom of Claude Code.
//!
//! Called by Claude Code many times in a session, so it reads local files only and builds nothing: no runtime, no network,
//! no command tree. Never fails; exit code 0 whatever happens. The MCP server of the session writes what is shown here
//! ([`cache`]), and only while someone looks ([`refresh`]).

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::config::session_dir::SessionInfo;
use crate::config::{Config, ConfigStore};
use crate::inbox::Tally;
use crate::output::clean;
use crate::paths::{self, Env};

pub mod cache;
pub mod cli;
pub mod refresh;

use cache::{Entry, PeerCache};

/// After this time the numbers are no longer those of now.
const FRESH_MS: i64 = 60_000;
/// After this time they say nothing any more: no session of this mesh runs.
const USEFUL_MS: i64 = 15 * 60_000;
/// Longest name that is shown.
const MAX_NAME_CHARS: usize = 32;

/// Reads `[--wrap LINE]`; `None` when there is something else, for the full parser to explain.
pub fn quick_args(args: &[OsString]) -> Option<Option<OsString>> {
    match args {
        [] => Some(None),
        [flag, line] if flag == "--wrap" => Some(Some(line.clone())),
        _ => None,
    }
}

/// Runs the wrapped line on our standard input and output, then prints our row.
pub fn run(env: &Env, store: &ConfigStore, wrapped: Option<OsString>) {
    if let Some(line) = wrapped {
        // The input is theirs alone: our row does not need it.
        let theirs = Command::new("sh").arg("-c").arg(line).stdout(Stdio::piped()).spawn();
        if let Ok(output) = theirs.and_then(std::process::Child::wait_with_output) {
            let mut text = output.stdout;
            if !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            let _ = std::io::stdout().write_all(&text);
        }
    }
    refresh::ask(store);
    let _ = writeln!(std::io::stdout(), "{}", row(env, store, crate::clock::now_ms()));
}

/// The row: `◇ team · 3/5 online · 2 unread · 1 held · 1 question · Ann`.
fn row(env: &Env, store: &ConfigStore, now_ms: i64) -> String {
    let config = match store.load() {
        Ok(config) => config,
        Err(_) => return "◇ claudemesh: the config is damaged, run claudemesh doctor".to_owned(),
    };
    let session = SessionInfo::of_env(env).ok().flatten();
    let cache = PeerCache::read(store);
    let Some(slug) = mesh(&config, session.as_ref(), &cache) else {
        return "◇ claudemesh: no mesh joined".to_owned();
    };
    let entry = cache.meshes.get(&slug);
    let alone = session.as_ref().is_some_and(|info| info.mesh_slug.is_some());
    let more = if alone { 0 } else { config.meshes.len().saturating_sub(1) };
    let name = env
        .text(paths::DISPLAY_NAME)
        .map(str::to_owned)
        .or(session.and_then(|info| info.display_name))
        .or_else(|| own_name(env, store, &slug, entry))
        .or(config.display_name)
        .unwrap_or_default();
    let mut parts = vec![short(&slug)];
    if more > 0 {
        parts[0] += &format!(" +{more}");
    }
    parts.push(state(entry, now_ms));
    parts.extend(entry.into_iter().flat_map(|entry| waits(&entry.waits)));
    parts.extend(Some(short(&name)).filter(|name| !name.is_empty()));
    format!("◇ {}", parts.join(" · "))
}

/// The name of the session that this row is for: its server says it. While only servers of other sessions run, the name that one of
/// them wrote into the cache is not ours.
fn own_name(env: &Env, store: &ConfigStore, slug: &String, entry: Option<&Entry>) -> Option<String> {
    let own = store.servers_of(None, env);
    let of_mesh = own.iter().find(|server| server.meshes.contains(slug)).or(own.first());
    match of_mesh {
        Some(server) => Some(server.name.clone()).filter(|name| !name.is_empty()),
        None if store.servers().is_empty() => entry.map(|entry| entry.you.clone()),
        None => None,
    }
}

/// The session's mesh, else the only one, else the one that was looked at last.
fn mesh(config: &Config, session: Option<&SessionInfo>, cache: &PeerCache) -> Option<String> {
    let joined = |slug: &String| config.by_slug(slug).is_some();
    let of_session = session.and_then(|info| info.mesh_slug.clone()).filter(joined);
    let newest = || {
        let known = cache.meshes.iter().filter(|(slug, _)| joined(slug));
        known.max_by_key(|(_, entry)| entry.updated_ms()).map(|(slug, _)| slug.clone())
    };
    of_session.or_else(newest).or_else(|| config.meshes.first().map(|mesh| mesh.slug.clone()))
}

/// The numbers come from a session of this machine. Without one nothing is known of the mesh, its broker included.
const NO_SESSION: &str = "no session looks";

fn state(entry: Option<&Entry>, now_ms: i64) -> String {
    let Some((entry, at)) = entry.and_then(|entry| Some((entry, entry.updated_ms()?))) else {
        return NO_SESSION.into();
    };
    // A time to come was written by a clock that has been put right since.
    let age_ms = if at > now_ms + FRESH_MS { USEFUL_MS } else { now_ms.saturating_sub(at) };
    let count = format!("{}/{} online", entry.online, entry.total);
    match age_ms {
        ..FRESH_MS => count,
        FRESH_MS..USEFUL_MS => format!("{count} {} min ago", (age_ms / 60_000).max(1)),
        _ => NO_SESSION.into(),
    }
}

/// What waits, each only when there is some.
fn waits(tally: &Tally) -> Vec<String> {
    let questions = if tally.questions == 1 { "question" } else { "questions" };
    [(tally.unread, "unread"), (tally.held, "held"), (tally.questions, questions)]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect()
}

fn short(text: &str) -> String {
    clean(text).chars().take(MAX_NAME_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(updated_at: &str) -> Entry {
        Entry { total: 5, online: 3, updated_at: updated_at.into(), you: "Ann".into(), waits: Tally::default() }
    }

    #[test]
    fn age_decides_what_is_said() {
        let at = |seconds: i64| claudemesh_protocol::time::iso(1_000_000_000_000 - seconds * 1_000);
        let say = |text: &str| state(Some(&entry(text)), 1_000_000_000_000);
        assert_eq!(say(&at(59)), "3/5 online");
        assert_eq!(say(&at(61)), "3/5 online 1 min ago");
        assert_eq!(say(&at(14 * 60)), "3/5 online 14 min ago");
        assert_eq!(say(&at(15 * 60)), NO_SESSION);
        assert_eq!(say(&at(-30)), "3/5 online", "clocks differ a little");
        assert_eq!((say(&at(-3_600)).as_str(), say("yesterday").as_str()), (NO_SESSION, NO_SESSION));
        assert_eq!(state(None, 0), NO_SESSION);
    }

    /// Another session has just written its name; this one must not show it as its own.
    #[test]
    fn the_name_is_that_of_the_session_whose_row_it_is() {
        use crate::config::session_dir::start_time;
        use crate::ipc::registry::Record;
        let dir = tempfile::tempdir().unwrap();
        let (env, store) = (Env::of(&[]), ConfigStore::at(dir.path()));
        let mesh = serde_json::json!({"meshId": "m", "memberId": "a", "slug": "team", "name": "team",
            "pubkey": "00".repeat(32), "secretKey": "00".repeat(64), "brokerUrl": "ws://h/ws", "joinedAt": "t"});
        let config = serde_json::json!({"version": 1, "meshes": [mesh]});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        cache::record(&store, "team", (2, 2), "Other", Tally::default()).unwrap();
        let now = crate::clock::now_ms();
        assert_eq!(row(&env, &store, now), "◇ team · 2/2 online · Other", "no session runs: the last one");
        let parent = std::os::unix::process::parent_id();
        let other = Record {
            pid: parent,
            start_time: start_time(parent).unwrap(),
            host_pid: u32::MAX,
            name: "Other".into(),
            ..Record::default()
        };
        let servers = dir.path().join("run/servers");
        std::fs::create_dir_all(&servers).unwrap();
        std::fs::write(servers.join("other.json"), serde_json::to_vec(&other).unwrap()).unwrap();
        assert_eq!(row(&env, &store, now), "◇ team · 2/2 online");
        let own = Record { host_pid: parent, name: "api".into(), meshes: vec!["team".into()], ..Record::default() };
        let _own = store.register_server(own).unwrap();
        assert_eq!(row(&env, &store, now), "◇ team · 2/2 online · api");
    }

    #[test]
    fn only_what_waits_is_named() {
        assert_eq!(waits(&Tally::default()), Vec::<String>::new());
        assert_eq!(waits(&Tally { unread: 2, held: 1, questions: 1 }), ["2 unread", "1 held", "1 question"]);
    }

    #[test]
    fn quick_arguments_are_those_that_install_writes() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(quick_args(&[]), Some(None));
        assert_eq!(quick_args(&words(&["--wrap", "a | b"])), Some(Some("a | b".into())));
        for other in [&["--help"][..], &["--wrap"], &["--wrap", "a", "b"]] {
            assert_eq!(quick_args(&words(other)), None);
        }
    }
}
