//! Which module may name which in the sources of the broker, as ARCHITECTURE.md draws it.

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of a room is read") {
        let path = entry.expect("the folder of a room is read").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Lines of a file that hold one of these texts, but not an allowed one. Tests may use whatever shows the thing best: a file of
/// tests, and what follows the first test module of another file, is left out.
fn offences(path: &Path, forbidden: &[&str], allowed: &[&str]) -> Vec<String> {
    if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs")) {
        return Vec::new();
    }
    let text = std::fs::read_to_string(path).expect("a source is read");
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let shipped = shipped.split("#[cfg(all(test").next().unwrap_or_default();
    shipped
        .lines()
        .filter(|line| {
            forbidden.iter().any(|text| line.contains(text)) && !allowed.iter().any(|text| line.contains(text))
        })
        .map(|line| format!("{}: {}", path.display(), line.trim()))
        .collect()
}

#[test]
fn the_mesh_names_no_feature() {
    let allowed = ["claudemesh_protocol::features::", "pub use crate::features::Features;"];
    let mut found = Vec::new();
    for path in sources(&src().join("mesh")) {
        let names = features().into_iter().map(|name| format!("features.{name}")).collect::<Vec<_>>();
        let mut forbidden = vec!["crate::features", "features::"];
        forbidden.extend(names.iter().map(String::as_str));
        found.extend(offences(&path, &forbidden, &allowed));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn storage_and_sockets_know_neither_meshes_nor_features() {
    let mut found = Vec::new();
    for room in ["blobs", "db", "journal", "search"] {
        for path in sources(&src().join(room)) {
            found.extend(offences(&path, &["crate::features", "crate::mesh", "crate::session", "crate::http"], &[]));
        }
    }
    for path in sources(&src().join("session")) {
        found.extend(offences(&path, &["crate::features"], &[]));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn http_names_no_feature_and_has_no_route_of_one() {
    let mut found = Vec::new();
    for path in sources(&src().join("http")) {
        if path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let allowed = ["claudemesh_protocol::features::", "use crate::features::Features;"];
        found.extend(offences(&path, &["crate::features"], &allowed));
        // What the broker itself answers; everything else stands in the table of a feature.
        let own = ["\"/ws\"", "\"/health\"", "\"/health/ready\"", "\"/metrics\"", "config$(.route($path"];
        found.extend(offences(&path, &[".route(", ".service("], &own));
    }
    for path in sources(&src().join("features")) {
        found.extend(offences(&path, &[".route("], &[]));
        let is_http = path.file_name().is_some_and(|name| name == "http.rs");
        if !is_http {
            found.extend(offences(&path, &["crate::routes!"], &[]));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_feature_names_another() {
    let mut found = Vec::new();
    for own in features() {
        for path in sources(&src().join("features").join(&own)) {
            for other in features().iter().filter(|other| **other != own) {
                let named = [format!("crate::features::{other}"), format!("features.{other}")];
                let named: Vec<&str> = named.iter().map(String::as_str).collect();
                let mut allowed = vec!["claudemesh_protocol::features::"];
                if own == "topics" {
                    // Messages of topics are messages: their history is read where they are kept, and what happened to them is joined
                    // with their rows.
                    allowed
                        .extend(["crate::features::messaging::store", "crate::features::messaging::schema::messages"]);
                }
                found.extend(offences(&path, &named, &allowed));
            }
            found.extend(offences(&path, &["crate::features::{"], &[]));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn features_reach_the_core_of_a_mesh_through_its_context_only() {
    let mut found = Vec::new();
    for path in sources(&src().join("features")) {
        found.extend(offences(&path, &["cx.core"], &[]));
    }
    assert_eq!(found, Vec::<String>::new());
}

/// Names of the folders of features.
fn features() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(src().join("features"))
        .expect("the folder of the features is read")
        .map(|entry| entry.expect("the folder of a room is read").path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().expect("a folder has a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.contains(&"messaging".to_owned()));
    names
}
