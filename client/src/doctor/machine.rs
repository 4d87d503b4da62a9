//! Our side: config, keys, brokers, leftovers of dead processes, the project's own file.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use claudemesh_protocol::error::ErrorCode;

use super::{Check, Rows};
use crate::config::project_file::ProjectFile;
use crate::config::{Config, MeshEntry, broker_http};
use crate::connection::skew;
use crate::context::Context;
use crate::features::enrolment;
use crate::install::edits::quote;
use crate::{files, local, paths};

/// How long a broker may take to answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);
/// Folders below the config folder that are searched for sockets; ours lie two below.
const MAX_DEPTH: usize = 3;

/// All of them.
pub(super) fn checks(cx: &Context, rows: &mut Rows<'_>) {
    let (checks, config) = config(cx);
    rows.tell(checks);
    rows.tell(unwritable(cx));
    rows.tell(project_file(cx));
    if let Some(config) = config {
        rows.tell(config.meshes.iter().map(keys));
        let (here, elsewhere): (Vec<_>, Vec<_>) = config.meshes.into_iter().partition(local::is_local);
        rows.tell(here.iter().map(served));
        rows.tell(here.iter().filter_map(reachable));
        let answering = brokers(&elsewhere, rows);
        let there = elsewhere.iter().filter(|mesh| answering.contains(&mesh.broker_url));
        rows.tell(there.filter_map(membership));
    }
    rows.tell([sessions(cx)]);
    rows.tell(sockets(cx));
}

fn config(cx: &Context) -> (Vec<Check>, Option<Config>) {
    let path = cx.store.config_path();
    let config = match cx.store.load() {
        Ok(config) => config,
        Err(error) => {
            let fix = format!("mv {0} {0}.broken", path.display());
            return (vec![Check::failure("config", error.to_string(), fix)], None);
        }
    };
    let mut checks = vec![match config.meshes.len() {
        0 if local::wanted(&config, &cx.env, cx.store.dir(), None).is_some() => {
            Check::ok("config", "no mesh is joined: sessions use one of this machine")
        }
        0 => Check::failure("config", "no mesh is joined", "claudemesh join <link>"),
        count => Check::ok("config", format!("{} ({count} joined: {})", path.display(), config.slugs().join(", "))),
    }];
    if let Some(mode) = files::mode_of(cx.store.dir()).filter(|mode| mode & 0o077 != 0) {
        let dir = cx.store.dir().display();
        let detail = format!("{dir} has mode {mode:o}: others can see or change what is in it");
        checks.push(Check::failure("folder-mode", detail, format!("chmod 700 {}", quote(&dir.to_string()))));
    }
    let private = [path, cx.store.owners_path(), cx.store.hook_token_path()];
    for file in private {
        if let Some(mode) = files::mode_of(&file).filter(|mode| mode & 0o077 != 0) {
            let detail = format!("{} has mode {mode:o}, others can read its secrets", file.display());
            checks.push(Check::failure("file-mode", detail, format!("chmod 600 {}", file.display())));
        }
    }
    if let Err(error) = cx.store.hook_token() {
        checks.push(Check::failure(
            "hook-token",
            error.to_string(),
            format!("rm {}", cx.store.hook_token_path().display()),
        ));
    }
    if let Err(error) = cx.store.owners() {
        checks.push(Check::failure(
            "owners",
            error.to_string(),
            format!("$EDITOR {}", cx.store.owners_path().display()),
        ));
    }
    (checks, Some(config))
}

/// Keys, messages and locks are written into the config folder; one that takes nothing fails at the worst moment.
fn unwritable(cx: &Context) -> Option<Check> {
    let dir = cx.store.dir();
    if !dir.exists() {
        return None;
    }
    let error = tempfile::Builder::new().prefix(".claudemesh-").tempfile_in(dir).err()?;
    let fix = format!("chmod u+rwx {}", quote(&dir.to_string_lossy()));
    Some(Check::failure("config-folder", format!("nothing can be written into {}: {error}", dir.display()), fix))
}

fn keys(mesh: &MeshEntry) -> Check {
    let again = format!("claudemesh leave {} && claudemesh join <link>", mesh.slug);
    match mesh.secret_key.key() {
        Err(error) => Check::failure("keys", format!("{}: secretKey: {error}", mesh.slug), again),
        Ok(key) if !key.public().to_string().eq_ignore_ascii_case(&mesh.pubkey) => {
            Check::failure("keys", format!("{}: pubkey does not belong to secretKey", mesh.slug), again)
        }
        Ok(_) => {
            Check::ok("keys", format!("{}: member key {}", mesh.slug, mesh.pubkey.get(..16).unwrap_or(&mesh.pubkey)))
        }
    }
}

/// Who serves a mesh of this machine. No one is fine: anyone who needs it next does.
fn served(entry: &MeshEntry) -> Check {
    let Some(note) = local::store::Store::of_entry(entry).and_then(|store| store.holder()) else {
        return Check::ok(
            "broker",
            format!("{} (this machine): served by the next session or command that needs it", entry.slug),
        );
    };
    let place = format!("{} (this machine): {}, process {}, {}", entry.slug, note.kind.as_str(), note.pid, note.url);
    let started = Instant::now();
    match health(&note.url) {
        Ok(_) => Check::ok("broker", format!("{place}: {} ms", started.elapsed().as_millis())),
        // It does not hear a polite word; anyone who waits takes over.
        Err(reason) => Check::failure("broker", format!("{place}: {reason}"), format!("kill -9 {}", note.pid)),
    }
}

/// Whether other machines were cut off when the process that listened for them died.
fn reachable(entry: &MeshEntry) -> Option<Check> {
    let (url, fix) = local::store::lost_outside(entry)?;
    let detail = format!("{} (this machine): other machines can no longer reach it at {url}", entry.slug);
    Some(Check::warning("listening", detail, fix))
}

/// Asks every distinct broker at the same time whether it is there. Answers the addresses of those that are.
fn brokers(meshes: &[MeshEntry], rows: &mut Rows<'_>) -> Vec<String> {
    let mut urls: Vec<&str> = meshes.iter().map(|mesh| mesh.broker_url.as_str()).collect();
    urls.sort_unstable();
    urls.dedup();
    let (sender, receiver) = mpsc::channel();
    let deadline = Instant::now() + BROKER_PATIENCE;
    for url in &urls {
        let (sender, url) = (sender.clone(), (*url).to_owned());
        std::thread::spawn(move || {
            let started = Instant::now();
            let result = health(&url).map(|text| (text, started.elapsed()));
            let _ = sender.send((url, result));
        });
    }
    drop(sender);
    let check = |url: &str, answer: Option<&Health>| {
        let slugs = meshes.iter().filter(|mesh| mesh.broker_url == *url).map(|mesh| mesh.slug.as_str());
        let way = crate::proxy::words(url);
        let place = format!("{} ({url}{way})", slugs.collect::<Vec<_>>().join(", "));
        let failed = |reason: &str| {
            let fix = format!(
                "claudemesh up   (or ask who runs the broker; `curl -v {}/health` tells more)",
                broker_http(url)
            );
            Check::failure("broker", format!("{place}: {reason}"), fix)
        };
        match answer {
            Some(Ok((body, elapsed))) => {
                let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                match skew::hint(answer["version"].as_str()) {
                    None => Check::ok("broker", format!("{place}: {} ms", elapsed.as_millis())),
                    Some(hint) => Check::warning("broker", format!("{place}: {hint}"), "claudemesh --version"),
                }
            }
            Some(Err(reason)) => failed(reason),
            None => failed(&format!("no answer in {} s", BROKER_PATIENCE.as_secs())),
        }
    };
    let mut answers: Vec<(String, Health)> = vec![];
    while let Ok((url, answer)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        rows.tell([check(&url, Some(&answer))]);
        answers.push((url, answer));
    }
    let silent = urls.iter().filter(|url| !answers.iter().any(|(answered, _)| answered == *url));
    rows.tell(silent.map(|url| check(url, None)));
    answers.into_iter().filter(|(_, answer)| answer.is_ok()).map(|(url, _)| url).collect()
}

/// What a broker says of itself and how long it took, or what is wrong.
type Health = Result<(String, Duration), String>;

/// Whether the mesh knows this member and lets it in: a broker that is there says nothing about that. `None` where the broker
/// does not tell, an older one for instance; what is unreachable has a row already.
fn membership(entry: &MeshEntry) -> Option<Check> {
    let slug = &entry.slug;
    let error = match enrolment::members(entry) {
        Ok(members) => {
            let own = members.iter().find(|member| member.pubkey.to_hex() == entry.pubkey)?;
            return Some(Check::ok("member", format!("{slug}: {}, {}", own.display_name, own.permission)));
        }
        Err(error) => error,
    };
    match ErrorCode::parse(&error.code)? {
        ErrorCode::Revoked => {
            let key: String = entry.pubkey.chars().take(16).collect();
            let detail = format!("{slug}: you are banned: only an admin of the mesh can let you in again");
            Some(Check::failure("member", detail, format!("claudemesh unban {key}   (an admin, elsewhere)")))
        }
        ErrorCode::MemberRemoved => {
            let detail = format!("{slug}: you are no member any more: you were removed, or have left");
            Some(Check::failure("member", detail, "claudemesh join <link>   (a new invite)"))
        }
        ErrorCode::Unauthorized | ErrorCode::MeshNotFound => {
            let detail = format!("{slug}: the mesh or this member is not there any more");
            Some(Check::failure("member", detail, format!("claudemesh leave {slug} && claudemesh join <link>")))
        }
        _ => None,
    }
}

fn health(broker_url: &str) -> Result<String, String> {
    if !(broker_url.starts_with("ws://") || broker_url.starts_with("wss://")) {
        return Err("brokerUrl does not start with ws:// or wss://".into());
    }
    let base = broker_http(broker_url);
    let agent = crate::http::agent(&base, BROKER_PATIENCE)?;
    let mut response = agent.get(format!("{base}/health")).call().map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("/health answered {}", response.status()));
    }
    response.body_mut().with_config().limit(64 * 1024).read_to_string().map_err(|error| error.to_string())
}

fn sessions(cx: &Context) -> Check {
    match cx.store.stale_session_dirs().len() {
        0 => Check::ok("sessions", "no leftovers"),
        count => Check::warning("sessions", format!("{count} folders of sessions that died"), "claudemesh launch"),
    }
}

/// `.claude-mesh.json` of the project, when there is one.
fn project_file(cx: &Context) -> Option<Check> {
    let project = paths::project_dir(&cx.env);
    let path = project.join(".claude-mesh.json");
    if !path.exists() {
        return None;
    }
    Some(match ProjectFile::read(&project) {
        Ok(file) => Check::ok("project-file", format!("{} names {}", path.display(), file.summary())),
        Err(error) => Check::failure("project-file", error.to_string(), format!("$EDITOR {}", path.display())),
    })
}

/// Sockets in the config folder that no one answers any more.
#[cfg(unix)]
fn sockets(cx: &Context) -> Option<Check> {
    let dead: Vec<PathBuf> = all_sockets(cx.store.dir(), MAX_DEPTH)
        .into_iter()
        .filter(|path| {
            // The socket of a local mesh stays when its last holder is killed; the next one replaces it.
            if path.ends_with("broker.sock") {
                return false;
            }
            let refused = std::os::unix::net::UnixStream::connect(path).err().map(|error| error.kind());
            refused == Some(std::io::ErrorKind::ConnectionRefused)
        })
        .collect();
    if dead.is_empty() {
        return None;
    }
    let names: Vec<String> = dead.iter().map(|path| quote(&path.to_string_lossy())).collect();
    let detail = format!("{} sockets of processes that died", dead.len());
    Some(Check::warning("sockets", detail, format!("rm {}", names.join(" "))))
}

#[cfg(not(unix))]
fn sockets(_: &Context) -> Option<Check> {
    None
}

#[cfg(unix)]
fn all_sockets(dir: &Path, depth: usize) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth > 1 => found.extend(all_sockets(&entry.path(), depth - 1)),
            _ => {}
        }
    }
    found.sort();
    found
}
