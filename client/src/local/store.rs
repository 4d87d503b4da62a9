//! The store of this machine's own mesh: where it is, and who serves from it right now.
//!
//! Everything of one store lies in one folder (0700): the database unless `MESH_DB_PATH` puts it elsewhere, the lock
//! (`broker.lock`), the socket (`broker.sock`), the note of the holder (`holder.json`) and the keys of the mesh (`mesh.json`).
//! Knows nothing of the broker, so connections can use it in every build.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::config::session_dir::{is_alive, start_time};
use crate::config::{Config, MeshEntry};
use crate::paths::{self, Env};

/// Marks the config's entry of a mesh of this machine, so that a user's own mesh called `local` is left alone.
const MARK: &str = "madeByUp";
/// Marks one that a session made because nothing was joined: it steps back when the user joins a mesh.
const AUTO: &str = "madeByItself";
/// Marks one that was made beside the first: its keys lie in the config only.
const FURTHER: &str = "madeByCreate";
/// Folder and database of the store.
const STORE: &str = "localStore";
/// How other machines reach the broker, when it listens for them.
const OUTSIDE: &str = "outsideUrl";
/// How they did before the process that listened for them died.
const LOST: &str = "lostOutsideUrl";
/// Systems take about a hundred bytes as the address of a Unix socket.
const MAX_SOCKET_PATH: usize = 100;
/// Largest note of a holder.
const MAX_NOTE_BYTES: u64 = 4_096;

/// Where the data of a mesh of this machine are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    dir: PathBuf,
    database: PathBuf,
}

/// Which process serves, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HolderNote {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in ticks since boot; 0 where the system does not tell.
    pub start_time: u64,
    /// What it is.
    pub kind: HolderKind,
    /// WebSocket URL on this machine.
    pub url: String,
    /// WebSocket URL for other machines, when it listens for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_url: Option<String>,
    /// Where a holder listened for other machines that died without a word, when no one does since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_outside_url: Option<String>,
    /// The address that was asked for when it listens for other machines; kept when that is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// ISO time since which it serves.
    pub since: String,
}

/// What kind of process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HolderKind {
    /// The MCP server of a session.
    Session,
    /// `claudemesh up`
    Up,
    /// Another verb, for as long as it runs.
    Command,
}

impl HolderNote {
    /// The address on this machine.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.url.strip_prefix("ws://")?.split('/').next()?.parse().ok()
    }
}

impl HolderKind {
    /// Whether it serves only because no one else does, and gives way to a process that was started to serve.
    pub fn gives_way(self) -> bool {
        self != Self::Up
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "a session",
            Self::Up => "`claudemesh up`",
            Self::Command => "a command",
        }
    }
}

impl Store {
    /// `MESH_DB_PATH` when it is set, else the folder `broker` of the config folder.
    pub fn locate(env: &Env, config_dir: &Path) -> Self {
        let Some(path) = env.path(paths::MESH_DB_PATH) else { return Self::at(&config_dir.join("broker")) };
        // Environment blocks of JSON files go through no shell.
        let path = path.strip_prefix("~").map(|rest| env.home().join(rest)).unwrap_or(path);
        let database = absolute(&path);
        let mut dir = database.clone().into_os_string();
        dir.push(".mesh");
        Self { dir: dir.into(), database }
    }

    /// The store of a folder that holds its database, too.
    pub fn at(dir: &Path) -> Self {
        let dir = absolute(dir);
        Self { database: dir.join("claudemesh.db"), dir }
    }

    /// The store of a mesh of this machine; `None` for other meshes.
    pub fn of_entry(entry: &MeshEntry) -> Option<Self> {
        is_local(entry).then(|| serde_json::from_value(entry.extra.get(STORE)?.clone()).ok()).flatten()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The SQLite file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The Unix socket; `None` when its path is too long for the system, then there is only TCP.
    pub fn socket(&self) -> Option<PathBuf> {
        let path = self.dir.join("broker.sock");
        (cfg!(unix) && path.as_os_str().len() <= MAX_SOCKET_PATH).then_some(path)
    }

    fn note_path(&self) -> PathBuf {
        self.dir.join("holder.json")
    }

    /// Who serves. `None` when no one does: the note of a process that died counts for nothing.
    pub fn holder(&self) -> Option<HolderNote> {
        self.last_holder().filter(|note| is_alive(note.pid, note.start_time))
    }

    /// Who served last, alive or not.
    pub fn last_holder(&self) -> Option<HolderNote> {
        let bytes = crate::files::read_limited(&self.note_path(), MAX_NOTE_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether a URL leads to the broker of this store, as far as its last holder noted.
    pub fn is_at(&self, broker_url: &str) -> bool {
        let authority = |url: &str| -> Option<(String, u16)> {
            let (scheme, rest) = url.split_once("://")?;
            let place = rest.split(['/', '?', '#']).next()?;
            let usual = if matches!(scheme, "wss" | "https") { 443 } else { 80 };
            let (host, port) = match place.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (place, usual),
            };
            let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
            let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
            Some((if here { "here".into() } else { host }, port))
        };
        let Some(note) = self.last_holder() else { return false };
        let asked = authority(broker_url);
        let noted = [Some(note.url.as_str()), note.outside_url.as_deref(), note.lost_outside_url.as_deref()];
        asked.is_some() && noted.into_iter().flatten().any(|url| authority(url) == asked)
    }

    /// Notes that this process serves.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_holder(&self, kind: HolderKind, url: &str, outside_url: Option<&str>) -> std::io::Result<()> {
        let pid = std::process::id();
        // Only who was told to listens for other machines; that they are cut off since is for people to know.
        // Anyone who runs `up` has chosen anew.
        let before = self.last_holder().filter(|_| kind != HolderKind::Up);
        let note = HolderNote {
            listen: before.as_ref().and_then(|note| note.listen.clone()),
            lost_outside_url: before.and_then(|note| note.outside_url.or(note.lost_outside_url)),
            pid,
            start_time: start_time(pid).unwrap_or(0),
            kind,
            url: url.into(),
            outside_url: outside_url.map(str::to_owned),
            since: crate::clock::now_iso(),
        };
        crate::files::write_private(&self.note_path(), &serde_json::to_vec(&note)?)
    }

    /// Adds the address at which this holder listens for other machines: the command that brings it back names it.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_listening(&self, address: std::net::SocketAddr) -> std::io::Result<()> {
        match self.last_holder().filter(|note| note.pid == std::process::id()) {
            Some(note) => {
                let note = HolderNote { listen: Some(address.to_string()), ..note };
                crate::files::write_private(&self.note_path(), &serde_json::to_vec(&note)?)
            }
            None => Ok(()),
        }
    }

    /// This process ends in good order: the user who ran it knows that other machines are cut off.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_end(&self) -> std::io::Result<()> {
        match self.last_holder().filter(|note| note.pid == std::process::id()) {
            Some(note) => {
                let note = HolderNote { outside_url: None, lost_outside_url: None, ..note };
                crate::files::write_private(&self.note_path(), &serde_json::to_vec(&note)?)
            }
            None => Ok(()),
        }
    }

    /// Notes that this process is an `up`, whether it serves or stands by.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_up(&self) -> std::io::Result<UpNote> {
        let pid = std::process::id();
        let note = json!({"pid": pid, "startTime": start_time(pid).unwrap_or(0)});
        let path = self.up_path();
        crate::files::write_private(&path, note.to_string().as_bytes())?;
        Ok(UpNote { path, pid })
    }

    /// The process of the `up` of this store that lives.
    pub fn running_up(&self) -> Option<u32> {
        let noted = up_of(&self.up_path());
        noted.or_else(|| self.holder().filter(|note| note.kind == HolderKind::Up).map(|note| note.pid))
    }

    fn up_path(&self) -> PathBuf {
        self.dir.join("up.json")
    }

    /// The lock of the process that serves.
    pub fn lock_path(&self) -> PathBuf {
        self.dir.join("broker.lock")
    }

    /// The keys of the mesh, for every config folder of this user that uses the store.
    pub fn mesh_path(&self) -> PathBuf {
        self.dir.join("mesh.json")
    }

    /// Keeps the operator's token, which the broker tells once: `up` needs it when it listens for other machines.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_operator_token(&self, token: &str) -> std::io::Result<()> {
        crate::files::write_private(&self.dir.join("operator-token"), token.as_bytes())
    }

    /// The operator's token, when it was kept.
    pub fn operator_token(&self) -> Option<Zeroizing<String>> {
        let bytes = crate::files::read_limited(&self.dir.join("operator-token"), MAX_NOTE_BYTES).ok()??;
        String::from_utf8(bytes).ok().map(|text| Zeroizing::new(text.trim().to_owned()))
    }

    /// Claims the place of the holder for this process: sessions give it up and do not take it while the claim lives.
    ///
    /// # Errors
    /// The claim cannot be written.
    pub fn claim(&self) -> std::io::Result<Claim> {
        let pid = std::process::id();
        let claim = json!({"pid": pid, "startTime": start_time(pid).unwrap_or(0)});
        let path = self.claim_path();
        crate::files::write_private(&path, claim.to_string().as_bytes())?;
        Ok(Claim { path })
    }

    /// Whether another process that lives claims the place.
    pub fn is_claimed_by_other(&self) -> bool {
        let bytes = crate::files::read_limited(&self.claim_path(), MAX_NOTE_BYTES).ok().flatten();
        let Some(claim) = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else { return false };
        let pid = claim["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        pid != 0 && pid != std::process::id() && is_alive(pid, claim["startTime"].as_u64().unwrap_or(0))
    }

    fn claim_path(&self) -> PathBuf {
        self.dir.join("claim.json")
    }
}

/// The process that a note of an `up` names, while it lives.
fn up_of(path: &Path) -> Option<u32> {
    let bytes = crate::files::read_limited(path, MAX_NOTE_BYTES).ok()??;
    let note: Value = serde_json::from_slice(&bytes).ok()?;
    let pid = u32::try_from(note["pid"].as_u64()?).ok()?;
    is_alive(pid, note["startTime"].as_u64().unwrap_or(0)).then_some(pid)
}

/// The note of a running `up`; taken away on drop.
#[derive(Debug)]
pub struct UpNote {
    path: PathBuf,
    pid: u32,
}

impl Drop for UpNote {
    fn drop(&mut self) {
        if up_of(&self.path) == Some(self.pid) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A claim to be the holder; given up on drop.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Whether this mesh was made on this machine, for this machine.
pub fn is_local(mesh: &MeshEntry) -> bool {
    mesh.extra.get(MARK) == Some(&Value::Bool(true))
}

/// Marks an entry as this machine's own. `auto`: no one asked for it.
pub fn mark(entry: &mut MeshEntry, store: &Store, auto: bool) {
    entry.extra.insert(MARK.into(), Value::Bool(true));
    entry.extra.insert(STORE.into(), json!(store));
    if auto {
        entry.extra.insert(AUTO.into(), Value::Bool(true));
    } else {
        entry.extra.remove(AUTO);
    }
}

/// Marks an entry as a further mesh of this machine's own broker.
pub fn mark_further(entry: &mut MeshEntry, store: &Store) {
    mark(entry, store, false);
    entry.extra.insert(FURTHER.into(), Value::Bool(true));
}

/// Whether this is the mesh that a store makes by itself, and not one that was made beside it.
pub fn is_first(mesh: &MeshEntry) -> bool {
    is_local(mesh) && mesh.extra.get(FURTHER) != Some(&Value::Bool(true))
}

/// Whether a session made this mesh without being asked.
pub fn is_auto(entry: &MeshEntry) -> bool {
    is_local(entry) && entry.extra.get(AUTO) == Some(&Value::Bool(true))
}

/// Puts into an entry where its holder is, for this machine and for others.
pub fn follow(entry: &mut MeshEntry, note: &HolderNote) {
    entry.broker_url.clone_from(&note.url);
    for (name, url) in [(OUTSIDE, &note.outside_url), (LOST, &note.lost_outside_url)] {
        match url.as_deref() {
            Some(url) => entry.extra.insert(name.into(), url.into()),
            None => entry.extra.remove(name),
        };
    }
}

/// The broker's URL as others can use it: an address of this machine only is of no use in a link.
pub fn outside_url(entry: &MeshEntry) -> &str {
    entry.extra.get(OUTSIDE).and_then(Value::as_str).unwrap_or(&entry.broker_url)
}

/// Where other machines can no longer reach the broker, and the command that lets them: `up --listen` died, and since then no one
/// serves, or a session for this machine only.
pub fn lost_outside(entry: &MeshEntry) -> Option<(String, String)> {
    let last = Store::of_entry(entry).and_then(|store| store.last_holder());
    // No one has served since, so nothing else tells.
    let died =
        last.as_ref().filter(|note| !is_alive(note.pid, note.start_time)).and_then(|note| note.outside_url.clone());
    let url = died.or_else(|| entry.extra.get(LOST).and_then(Value::as_str).map(str::to_owned))?;
    let address = url.strip_prefix("ws://").unwrap_or(&url).split('/').next().unwrap_or_default().to_owned();
    let address = last.and_then(|note| note.listen).unwrap_or(address);
    Some((url, format!("claudemesh up --listen {address}")))
}

/// Leaves out the meshes that are meant only when they are named: one that a session made by itself, once the user has
/// joined another (unless `CLAUDEMESH_LOCAL` asks for it), and those of another store than `MESH_DB_PATH` names.
pub fn meant(config: &Config, env: &Env, config_dir: &Path) -> Vec<MeshEntry> {
    let here = Store::locate(env, config_dir);
    let others = config.meshes.iter().any(|entry| !is_auto(entry));
    let steps_back = |entry: &MeshEntry| is_auto(entry) && others && !env.flag(paths::LOCAL);
    let elsewhere = |entry: &MeshEntry| {
        env.path(paths::MESH_DB_PATH).is_some() && Store::of_entry(entry).is_some_and(|store| store != here)
    };
    config.meshes.iter().filter(|entry| !steps_back(entry) && !elsewhere(entry)).cloned().collect()
}

/// The store that a process serves from when it can: that of this machine's mesh among the wanted ones, the usual one when
/// nothing is joined or `CLAUDEMESH_LOCAL=1` asks for it. `None`: the user's meshes are elsewhere, or `CLAUDEMESH_LOCAL=0`.
pub fn wanted(config: &Config, env: &Env, config_dir: &Path, only: Option<&str>) -> Option<Store> {
    if env.is_set(paths::LOCAL) && !env.flag(paths::LOCAL) && env.text(paths::LOCAL).is_some() {
        return None;
    }
    let usual = Store::locate(env, config_dir);
    if let Some(slug) = only {
        let entry = config.by_slug(slug)?;
        return is_local(entry).then(|| Store::of_entry(entry).unwrap_or(usual));
    }
    let meant = meant(config, env, config_dir);
    let local = meant.iter().find(|entry| is_local(entry));
    match local {
        Some(entry) => Some(Store::of_entry(entry).unwrap_or(usual)),
        None => (meant.is_empty() || env.flag(paths::LOCAL)).then_some(usual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoredSecret;

    fn entry(slug: &str) -> MeshEntry {
        MeshEntry {
            mesh_id: slug.into(),
            member_id: "m".into(),
            slug: slug.into(),
            name: slug.into(),
            pubkey: String::new(),
            secret_key: StoredSecret::new(""),
            broker_url: "ws://127.0.0.1:7900/ws".into(),
            joined_at: String::new(),
            root_key: None,
            invite_version: None,
            extra: serde_json::Map::new(),
        }
    }

    fn local(slug: &str, store: &Store, auto: bool) -> MeshEntry {
        let mut entry = entry(slug);
        mark(&mut entry, store, auto);
        entry
    }

    #[test]
    fn mesh_db_path_names_the_database_and_its_folder_lies_beside_it() {
        let usual = Store::locate(&Env::of(&[]), Path::new("/c"));
        assert_eq!((usual.dir(), usual.database()), (Path::new("/c/broker"), Path::new("/c/broker/claudemesh.db")));
        let env = Env::of(&[("HOME", "/h"), (paths::MESH_DB_PATH, "~/x/mesh.db")]);
        let named = Store::locate(&env, Path::new("/c"));
        assert_eq!((named.dir(), named.database()), (Path::new("/h/x/mesh.db.mesh"), Path::new("/h/x/mesh.db")));
        assert_eq!(Store::of_entry(&local("local", &named, false)), Some(named));
        assert_eq!(Store::of_entry(&entry("team")), None);
    }

    #[test]
    fn the_broker_of_a_store_is_known_by_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(!store.is_at("ws://127.0.0.1:7900/ws"), "nobody has ever served");
        store.note_holder(HolderKind::Up, "ws://127.0.0.1:7900/ws", Some("ws://10.1.2.3:7900/ws")).unwrap();
        for own in ["ws://127.0.0.1:7900/ws", "ws://localhost:7900", "ws://[::1]:7900/ws", "http://10.1.2.3:7900"] {
            assert!(store.is_at(own), "{own}");
        }
        for other in ["ws://127.0.0.1:7901/ws", "wss://10.1.2.3/ws", "ws://10.1.2.4:7900/ws", "nonsense", "ws://h:x/ws"]
        {
            assert!(!store.is_at(other), "{other}");
        }
        let mut further = entry("kitchen");
        mark_further(&mut further, &store);
        assert!(is_local(&further) && !is_first(&further) && !is_auto(&further));
        assert!(is_first(&local("local", &store, true)) && !is_first(&entry("team")));
    }

    #[test]
    fn a_mesh_that_made_itself_steps_back_for_the_users_own() {
        let (env, dir) = (Env::of(&[]), Path::new("/c"));
        let store = Store::locate(&env, dir);
        let slugs = |config: &Config, env: &Env| -> Vec<String> {
            meant(config, env, dir).into_iter().map(|entry| entry.slug).collect()
        };
        let mut config = Config { meshes: vec![local("local", &store, true)], ..Config::default() };
        assert_eq!(slugs(&config, &env), ["local"]);
        assert_eq!(wanted(&config, &env, dir, None).as_ref(), Some(&store));
        config.meshes.push(entry("team"));
        assert_eq!(slugs(&config, &env), ["team"]);
        assert_eq!(wanted(&config, &env, dir, None), None);
        assert_eq!(wanted(&config, &env, dir, Some("local")).as_ref(), Some(&store), "named");
        let asked = Env::of(&[(paths::LOCAL, "1")]);
        assert_eq!(slugs(&config, &asked), ["local", "team"]);
        assert_eq!(wanted(&config, &asked, dir, None).as_ref(), Some(&store));
        // One that `up` made is the user's own.
        config.meshes[0] = local("local", &store, false);
        assert_eq!(slugs(&config, &env), ["local", "team"]);
    }

    #[test]
    fn nothing_is_served_when_a_mesh_is_joined_or_it_is_switched_off() {
        let dir = Path::new("/c");
        let joined = Config { meshes: vec![entry("team")], ..Config::default() };
        assert_eq!(wanted(&joined, &Env::of(&[]), dir, None), None);
        assert_eq!(wanted(&joined, &Env::of(&[]), dir, Some("team")), None);
        let off = Env::of(&[(paths::LOCAL, "0")]);
        assert_eq!(wanted(&Config::default(), &off, dir, None), None);
        assert!(wanted(&Config::default(), &Env::of(&[(paths::LOCAL, "")]), dir, None).is_some());
    }

    #[test]
    fn another_store_is_another_mesh() {
        let dir = Path::new("/c");
        let here = Env::of(&[(paths::MESH_DB_PATH, "/x/mesh.db")]);
        let (usual, named) = (Store::locate(&Env::of(&[]), dir), Store::locate(&here, dir));
        let config = Config { meshes: vec![local("local", &usual, true)], ..Config::default() };
        assert!(meant(&config, &here, dir).is_empty());
        assert_eq!(wanted(&config, &here, dir, None), Some(named));
    }

    #[test]
    fn the_note_of_a_dead_holder_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert_eq!(store.holder(), None);
        store.note_holder(HolderKind::Session, "ws://127.0.0.1:1/ws", None).unwrap();
        assert_eq!(store.holder().unwrap().url, "ws://127.0.0.1:1/ws");
        let mut note = store.last_holder().unwrap();
        note.start_time += 1;
        crate::files::write_private(&store.note_path(), &serde_json::to_vec(&note).unwrap()).unwrap();
        assert_eq!(store.holder(), None);
    }

    #[test]
    fn who_died_listening_for_other_machines_is_remembered_until_somebody_does_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let lost = |store: &Store| {
            let mut entry = local("local", store, false);
            follow(&mut entry, &store.holder().unwrap());
            lost_outside(&entry)
        };
        let note = |kind, outside: Option<&str>| store.note_holder(kind, "ws://127.0.0.1:7900/ws", outside).unwrap();
        note(HolderKind::Up, Some("ws://10.1.2.3:7900/ws"));
        assert_eq!(lost(&store), None);
        // Two sessions take over, one after the other.
        for _ in 0..2 {
            note(HolderKind::Session, None);
            let expected = ("ws://10.1.2.3:7900/ws".to_owned(), "claudemesh up --listen 10.1.2.3:7900".to_owned());
            assert_eq!(lost(&store), Some(expected));
        }
        note(HolderKind::Up, Some("ws://10.1.2.3:7901/ws"));
        assert_eq!(lost(&store), None);
        // The command names the address that was asked for, and it is told before anyone has served again.
        store.note_listening("0.0.0.0:7901".parse().unwrap()).unwrap();
        let mut dead = store.last_holder().unwrap();
        dead.start_time += 1;
        crate::files::write_private(&store.note_path(), &serde_json::to_vec(&dead).unwrap()).unwrap();
        let expected = ("ws://10.1.2.3:7901/ws".to_owned(), "claudemesh up --listen 0.0.0.0:7901".to_owned());
        assert_eq!(lost_outside(&local("local", &store, false)), Some(expected));
        note(HolderKind::Up, Some("ws://10.1.2.3:7901/ws"));
        // An end in good order is no loss.
        store.note_end().unwrap();
        note(HolderKind::Session, None);
        assert_eq!(lost(&store), None);
    }

    #[test]
    fn a_claim_binds_others_while_its_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(!store.is_claimed_by_other());
        let claim = store.claim().unwrap();
        assert!(!store.is_claimed_by_other(), "it is our own");
        let parent = std::os::unix::process::parent_id();
        let other = json!({"pid": parent, "startTime": start_time(parent).unwrap_or(0)});
        std::fs::write(store.claim_path(), other.to_string()).unwrap();
        assert!(store.is_claimed_by_other());
        std::fs::write(store.claim_path(), json!({"pid": parent, "startTime": 1}).to_string()).unwrap();
        assert!(!store.is_claimed_by_other(), "that process is gone");
        drop(claim);
        assert!(!store.claim_path().exists());
    }
}
