//! What a folder with a program is, by the rules of the contract (wire.md, 6.16).

use std::path::{Path, PathBuf};

use claudemesh_protocol::runner::Runtime;
use serde_json::Value;

use super::read_small;

const PYTHON_ENTRIES: [&str; 4] = ["server.py", "src/server.py", "main.py", "src/main.py"];
const NODE_ENTRIES: [&str; 4] = ["dist/index.js", "src/index.js", "src/index.ts", "index.js"];

/// The runtime.
pub(super) fn runtime(app: &Path) -> Runtime {
    let has = |name: &str| app.join(name).is_file();
    if has("bun.lockb") || has("bun.lock") || has("bunfig.toml") {
        Runtime::Bun
    } else if has("package.json") {
        Runtime::Node
    } else if has("pyproject.toml") || has("requirements.txt") {
        Runtime::Python
    } else if !NODE_ENTRIES.iter().any(|entry| has(entry)) && PYTHON_ENTRIES.iter().any(|entry| has(entry)) {
        // A single file of Python is no program of Node.
        Runtime::Python
    } else {
        Runtime::Node
    }
}

/// The file that Python starts; else a module is.
pub(super) fn python_entry(app: &Path) -> Option<PathBuf> {
    PYTHON_ENTRIES.iter().map(|entry| app.join(entry)).find(|file| file.is_file())
}

/// `package.json` of a folder.
pub(super) fn manifest(folder: &Path) -> Option<Value> {
    serde_json::from_str(&read_small(&folder.join("package.json"))?).ok()
}

/// The file that Node starts.
pub(super) fn node_entry(app: &Path) -> Option<PathBuf> {
    let manifest = manifest(app).unwrap_or_default();
    let main = manifest.get("main").and_then(Value::as_str).map(str::to_owned);
    let named = main.into_iter().chain(bins(&manifest).into_iter().map(|(_, file)| file).take(1));
    let usual = NODE_ENTRIES.iter().map(|entry| (*entry).to_owned());
    named.chain(usual).filter_map(|entry| inside(app, &entry)).find(|file| file.is_file())
}

/// A file of a folder, by a path that stays in it.
pub(super) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let stays =
        path.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    stays.then(|| folder.join(path))
}

/// The programs of a package: name and file.
pub(super) fn bins(manifest: &Value) -> Vec<(String, String)> {
    match manifest.get("bin") {
        Some(Value::String(file)) => {
            let name = manifest.get("name").and_then(Value::as_str).unwrap_or_default();
            vec![(name.rsplit('/').next().unwrap_or_default().to_owned(), file.clone())]
        }
        Some(Value::Object(bins)) => {
            bins.iter().filter_map(|(name, file)| Some((name.clone(), file.as_str()?.to_owned()))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn runtimes_are_found_in_the_order_of_the_contract() {
        for (files, expected) in [
            (vec!["bun.lockb", "package.json"], Runtime::Bun),
            (vec!["bunfig.toml", "pyproject.toml"], Runtime::Bun),
            (vec!["package.json", "requirements.txt"], Runtime::Node),
            (vec!["pyproject.toml"], Runtime::Python),
            (vec!["requirements.txt"], Runtime::Python),
            (vec!["server.py"], Runtime::Python),
            (vec!["index.js", "server.py"], Runtime::Node),
            (vec![], Runtime::Node),
        ] {
            let files: Vec<_> = files.into_iter().map(|name| (name, "")).collect();
            assert_eq!(runtime(folder(&files).path()), expected, "{files:?}");
        }
    }

    #[test]
    fn entries_are_found_in_the_order_of_the_contract_and_stay_in_the_folder() {
        let entry = |files: &[(&str, &str)]| {
            let folder = folder(files);
            node_entry(folder.path())
                .map(|file| file.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned())
        };
        let both =
            [("package.json", r#"{"main":"a.js","bin":{"x":"b.js"}}"#), ("a.js", ""), ("b.js", ""), ("index.js", "")];
        assert_eq!(entry(&both).as_deref(), Some("a.js"));
        assert_eq!(
            entry(&[("package.json", r#"{"bin":"b.js"}"#), ("b.js", ""), ("index.js", "")]).as_deref(),
            Some("b.js")
        );
        assert_eq!(
            entry(&[("package.json", r#"{"main":"../../etc/passwd"}"#), ("src/index.js", "")]).as_deref(),
            Some("src/index.js")
        );
        assert_eq!(entry(&[("package.json", r#"{"main":"/etc/passwd"}"#)]), None);
        let python = folder(&[("src/server.py", ""), ("main.py", "")]);
        assert!(python_entry(python.path()).unwrap().ends_with("src/server.py"));
    }
}
