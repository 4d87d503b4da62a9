//! What is made from the samples is up to date: the reference pages and the seeds of the fuzz targets.
//!
//! `UPDATE=1 cargo test -p claudemesh-protocol --test wire generated` rewrites them.

use std::fs;
use std::path::{Path, PathBuf};

use claudemesh_protocol::testing::{client_samples, docs, http_samples, server_samples};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn check(path: &Path, content: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, content).unwrap();
    }
    let have = fs::read_to_string(path).unwrap_or_default();
    assert!(have == content, "{} is out of date: run this test with UPDATE=1", path.display());
}

#[test]
fn reference_pages_are_current() {
    for (path, content) in docs::pages() {
        check(&root().join(path), &content);
    }
}

#[test]
fn fuzz_seeds_are_current() {
    let folder = root().join("protocol/fuzz/seeds");
    let client = client_samples().into_iter().map(|(name, message)| (name, message.write(Some("1"))));
    let server = server_samples().into_iter().map(|(name, message)| (name, message.write(Some("1"))));
    for (name, text) in client.chain(server) {
        let target = if name.contains("hello/") { "hello" } else { "frame" };
        // The richest sample of a tag; the fuzzer finds the others by leaving fields out.
        if name.ends_with("/full") || !name.contains('/') {
            check(&folder.join(target).join(format!("{}.json", name.replace('/', "-"))), &text);
        }
    }
    for (route, what, body) in http_samples() {
        let name: String =
            format!("{route} {what}").chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        check(&folder.join("http_body").join(format!("{name}.json")), &body.to_string());
    }
}

/// The text of every Rust file of the workspace.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_named_in_the_list_of_weaknesses_exists() {
    let mut code = String::new();
    sources(&root(), &mut code);
    let page = fs::read_to_string(root().join("docs/weaknesses.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Id")).collect();
    assert!(rows.len() >= 69, "{} rows", rows.len());
    for row in rows {
        let proof = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in proof.split('`').skip(1).step_by(2) {
            assert!(code.contains(&format!("fn {name}(")), "{row}");
        }
    }
}
