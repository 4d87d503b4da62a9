use super::session_dir::{SessionInfo, is_alive, start_time};
use super::*;

fn entry(id: &str, slug: &str) -> MeshEntry {
    let key = SecretKey::from_seed([7; 32]);
    MeshEntry {
        mesh_id: id.into(),
        member_id: "member".into(),
        slug: slug.into(),
        name: slug.into(),
        pubkey: key.public().to_string(),
        secret_key: (&key).into(),
        broker_url: "ws://127.0.0.1:7900/ws".into(),
        joined_at: "2026-04-08T09:53:03.000Z".into(),
        root_key: None,
        invite_version: None,
        extra: Map::new(),
    }
}

fn store() -> (tempfile::TempDir, ConfigStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ConfigStore::at(dir.path().join("deep/er"));
    (dir, store)
}

fn put(store: &ConfigStore, entry: MeshEntry) -> String {
    store.update(|config| Ok::<_, ConfigError>(config.put_mesh(entry))).unwrap()
}

#[test]
fn missing_file_is_an_empty_config() {
    let (_dir, store) = store();
    assert_eq!(store.load().unwrap(), Config::default());
    assert!(!store.dir().exists(), "reading creates nothing");
}

#[test]
fn update_writes_private_files_and_keeps_unknown_keys() {
    let (_dir, store) = store();
    put(&store, entry("m1", "team"));
    assert_eq!(files::mode_of(store.dir()), Some(0o700));
    assert_eq!(files::mode_of(&store.config_path()), Some(0o600));
    let mut value: Value = serde_json::from_slice(&std::fs::read(store.config_path()).unwrap()).unwrap();
    value["future"] = serde_json::json!({"a": [1, 2.5]});
    value["accountId"] = "acc".into();
    value["meshes"][0]["note"] = "mine".into();
    std::fs::write(store.config_path(), value.to_string()).unwrap();
    put(&store, entry("m2", "other"));
    let after: Value = serde_json::from_slice(&std::fs::read(store.config_path()).unwrap()).unwrap();
    assert_eq!(after["future"], serde_json::json!({"a": [1, 2.5]}));
    assert_eq!(after["accountId"], "acc");
    assert_eq!(after["meshes"][0]["note"], "mine");
    assert_eq!(after["meshes"][1]["slug"], "other");
    assert_eq!(after["meshes"][0]["secretKey"].as_str().unwrap().len(), 128);
}

#[test]
fn damaged_files_are_errors_and_stay_as_they_are() {
    let (_dir, store) = store();
    files::create_private_dir(store.dir()).unwrap();
    for text in
        ["", "{", "[]", "{}", r#"{"meshes":{}}"#, r#"{"meshes":[{"slug":"x"}]}"#, r#"{"version":2,"meshes":[]}"#]
    {
        std::fs::write(store.config_path(), text).unwrap();
        let error = store.update(|_| Ok::<_, ConfigError>(())).unwrap_err();
        assert!(error.to_string().contains("config.json"), "{text}: {error}");
        assert_eq!(std::fs::read_to_string(store.config_path()).unwrap(), text);
        assert_eq!(CliError::from(error).exit, ExitCode::Io);
    }
}

#[test]
fn put_mesh_knows_meshes_by_id_and_keeps_slugs_unique() {
    let mut config = Config::default();
    assert_eq!(config.put_mesh(entry("m1", "team")), "team");
    assert_eq!(config.put_mesh(entry("m2", "team")), "team-2");
    assert_eq!(config.put_mesh(entry("m3", "team")), "team-3");
    assert_eq!(config.put_mesh(entry("m2", "renamed")), "team-2", "a re-join keeps the local slug");
    assert_eq!(config.meshes.len(), 3);
}

#[test]
fn choose_follows_the_rules() {
    let mut config = Config::default();
    assert_eq!(config.choose(None).unwrap_err().code, "no_meshes");
    config.put_mesh(entry("m1", "one"));
    assert_eq!(config.choose(None).unwrap().slug, "one");
    config.put_mesh(entry("m2", "two"));
    assert_eq!(config.choose(None).unwrap_err().exit, ExitCode::InvalidArgs);
    assert_eq!(config.choose(Some("two")).unwrap().slug, "two");
    let error = config.choose(Some("three")).unwrap_err();
    assert_eq!((error.exit, error.hint.as_deref()), (ExitCode::NotFound, Some("Joined: one, two.")));
}

#[test]
fn debug_prints_no_secret() {
    let (_dir, store) = store();
    let token = store.hook_token_or_create().unwrap();
    let secret = entry("m", "s");
    let text = format!("{secret:?} {token:?} {:?}", store.session_key(&"m".into(), "s", "id").unwrap());
    assert!(!text.contains(secret.secret_key.expose()) && !text.contains(token.expose()), "{text}");
}

#[test]
fn hook_token_and_session_keys_are_made_once() {
    let (_dir, store) = store();
    assert!(store.hook_token().unwrap().is_none());
    let token = store.hook_token_or_create().unwrap();
    assert_eq!(store.hook_token_or_create().unwrap(), token);
    assert_eq!(files::mode_of(&store.hook_token_path()), Some(0o600));
    let mesh = MeshId::from("mesh");
    let key = store.session_key(&mesh, "slug", "s-1").unwrap();
    assert_eq!(store.session_key(&mesh, "slug", "s-1").unwrap(), key);
    assert_ne!(store.session_key(&mesh, "slug", "s-2").unwrap(), key);
    assert_ne!(store.session_key(&"other".into(), "slug", "s-1").unwrap(), key);
    store.session_key(&mesh, "slug", "../../escape").unwrap();
    assert!(!store.dir().join("escape.json").exists());
    store.forget_session_key(&mesh, "s-1").unwrap();
    store.forget_session_key(&mesh, "s-1").unwrap();
    assert_ne!(store.session_key(&mesh, "slug", "s-1").unwrap(), key);
}

#[test]
fn owners_are_stored_apart() {
    let (_dir, store) = store();
    let key = SecretKey::from_seed([9; 32]);
    store.put_owner(owners::OwnerEntry::new("m".into(), "team", &key, "ws://h/ws")).unwrap();
    assert_eq!(store.owner(&"m".into()).unwrap().unwrap().secret_key.key().unwrap(), key);
    assert!(store.owner(&"x".into()).unwrap().is_none());
    assert_eq!(files::mode_of(&store.owners_path()), Some(0o600));
}

#[test]
fn session_folders_live_as_long_as_their_process() {
    let (_dir, store) = store();
    let info = SessionInfo { display_name: Some("A".into()), mesh_slug: Some("team".into()), ..Default::default() };
    let ours = store.create_session_dir(info).unwrap();
    assert_eq!(files::mode_of(ours.path()), Some(0o700));
    assert_eq!(files::mode_of(&ours.path().join("session.json")), Some(0o600));
    let read = SessionInfo::read(ours.path()).unwrap().unwrap();
    assert_eq!((read.display_name.as_deref(), read.pid), (Some("A"), std::process::id()));
    // A folder whose pid lives, but was started at another time: another process has the number now.
    let reused = store.dir().join("run/session-reused");
    files::create_private_dir(&reused).unwrap();
    let stale = SessionInfo { start_time: read.start_time + 1, ..read.clone() };
    store.write_json(&reused.join("session.json"), &stale).unwrap();
    let unfinished = store.dir().join("run/session-new");
    files::create_private_dir(&unfinished).unwrap();
    assert_eq!(store.sweep_session_dirs(), 1);
    assert!(!reused.exists() && unfinished.exists() && ours.path().exists());
    let path = ours.path().to_path_buf();
    drop(ours);
    assert!(!path.exists());
}

#[test]
fn liveness_needs_pid_and_start_time() {
    let me = std::process::id();
    let started = start_time(me).unwrap();
    assert!(is_alive(me, started) && is_alive(me, 0));
    assert!(!is_alive(me, started + 1));
    assert!(!is_alive(0, 0));
}

#[test]
fn broker_http_follows_the_scheme() {
    assert_eq!(broker_http("ws://h:1/ws"), "http://h:1");
    assert_eq!(broker_http("wss://h/base/ws"), "https://h/base");
    assert_eq!(broker_http("ws://[::1]:7900/ws/"), "http://[::1]:7900");
}

#[test]
fn a_byte_order_mark_of_an_editor_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = ConfigStore::at(dir.path());
    let mut text = b"\xef\xbb\xbf".to_vec();
    text.extend_from_slice(br#"{"version":1,"meshes":[],"other":7}"#);
    std::fs::write(store.config_path(), &text).unwrap();
    assert_eq!(store.load().unwrap().meshes.len(), 0);
    std::fs::write(dir.path().join(project_file::FILE), b"\xef\xbb\xbf{\"name\":\"Ann\"}").unwrap();
    assert!(project_file::ProjectFile::read(dir.path()).is_ok());
}
