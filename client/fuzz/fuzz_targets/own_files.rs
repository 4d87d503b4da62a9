//! Files of the config folder and of the project, and lines of the local socket, with any content: they are read or refused by name, never half, and a refused one stays.
#![no_main]

use std::sync::LazyLock;

use claudemesh::config::ConfigStore;
use claudemesh::config::project_file::ProjectFile;
use claudemesh::config::session_dir::SessionInfo;
use claudemesh::features::inbound::Rules;
use claudemesh::ipc::{Reply, Request};
use claudemesh::paths::Env;
use libfuzzer_sys::fuzz_target;

/// In memory where the system has such a place: a disk would allow some hundred files a second.
static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder"));

fuzz_target!(|input: (u8, &[u8])| {
    let (which, bytes) = input;
    let store = ConfigStore::at(FOLDER.path());
    let mesh = "mesh-1".into();
    let names = [
        "config.json",
        "owners.json",
        "hook-token",
        "last-used.json",
        "session.json",
        "sessions/mesh-1/s.json",
        "inbound.json",
        ".claude-mesh.json",
        "line",
    ];
    let name = names[usize::from(which) % names.len()];
    let file = FOLDER.path().join(name);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("the folder can be made");
    std::fs::write(&file, bytes).expect("the file can be written");
    match name {
        "config.json" => {
            if let Ok(mut config) = store.load() {
                // What is read is written so that it reads the same, unknown keys included.
                let text = serde_json::to_string(&config).expect("a config can be written");
                std::fs::write(&file, text).expect("the file can be written");
                assert_eq!(store.load().expect("what we write can be read"), config);
                let joined = config.meshes.len();
                if let Some(entry) = config.meshes.first().cloned() {
                    let _ = (entry.broker_http(), entry.secret_key.key());
                    let slug = config.put_mesh(entry);
                    assert!(config.by_slug(&slug).is_some() && config.meshes.len() == joined);
                }
                let _ = config.choose(Some("team"));
            }
        }
        "owners.json" => drop(store.owners()),
        "hook-token" => {
            if let Ok(Some(token)) = store.hook_token() {
                assert_eq!(token.expose().len(), 64);
            }
        }
        "last-used.json" => drop(store.last_used()),
        "session.json" => {
            let env = Env::of(&[]);
            assert!(matches!(SessionInfo::of_env(&env), Ok(None)));
            if let Ok(Some(info)) = SessionInfo::read(FOLDER.path()) {
                let _ = info.is_alive();
            }
        }
        "inbound.json" => {
            if let Ok(rules) = Rules::load(&store) {
                rules.save(&store).expect("what was read can be written");
                assert_eq!(Rules::load(&store).expect("what we write can be read"), rules);
            }
        }
        ".claude-mesh.json" => {
            if let Ok(project) = ProjectFile::read(FOLDER.path()) {
                let _ = project.summary();
            }
        }
        "line" => {
            if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
                let text = serde_json::to_vec(&request).expect("a request can be written");
                assert!(serde_json::from_slice::<Request>(&text).is_ok(), "what we write can be read");
            }
            let _ = serde_json::from_slice::<Reply>(bytes);
        }
        _ => {
            // A damaged key is an error, not a reason for a new one: mail may wait for the old one.
            let read = store.session_key(&mesh, "team", "s");
            assert_eq!(std::fs::read(&file).expect("the file is there"), bytes);
            drop(read);
        }
    }
});
