//! What git ignores, by the `.gitignore` files on the way, `.git/info/exclude` and the user's own list.

use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Largest list that is read.
pub(super) const MAX_LIST_BYTES: u64 = 256 * 1024;

/// A list, made of its text. Lines that git would not understand say nothing.
pub(super) fn list(text: &str) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in text.trim_start_matches('\u{feff}').lines() {
        // As git: a line that is no glob is left out.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Whether a list says something of a path below its folder; `Some(true)`: it is ignored.
pub(super) fn says(list: &Gitignore, path: &str, is_dir: bool) -> Option<bool> {
    match list.matched(Path::new(path), is_dir) {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

/// The lists that hold for a folder from above it, the nearest first, each with the way from its folder to this one.
#[derive(Debug, Default)]
pub(super) struct Above(Vec<(String, Gitignore)>);

impl Above {
    /// Reads them; of a folder that is in no repository only the user's own.
    pub(super) fn of(folder: &Path) -> Self {
        let mut lists = Vec::new();
        let repository = folder.ancestors().find(|dir| dir.join(".git").exists());
        if let Some(repository) = repository {
            let above = folder.ancestors().skip(1).take_while(|dir| dir.starts_with(repository));
            for dir in above {
                if let Some(text) = read(&dir.join(".gitignore")) {
                    lists.push((way(dir, folder), list(&text)));
                }
            }
            if let Some(text) = read(&repository.join(".git/info/exclude")) {
                lists.push((way(repository, folder), list(&text)));
            }
        }
        let top = repository.unwrap_or(folder);
        if let Some(text) = users_list().and_then(|path| read(&path)) {
            lists.push((way(top, folder), list(&text)));
        }
        Self(lists)
    }

    /// As [`says`], for a path below the folder.
    pub(super) fn says(&self, path: &str, is_dir: bool) -> Option<bool> {
        self.0.iter().find_map(|(way, list)| says(list, &format!("{way}{path}"), is_dir))
    }
}

fn way(from: &Path, to: &Path) -> String {
    match to.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => String::new(),
        Ok(rest) => format!("{}/", rest.to_string_lossy()),
        Err(_) => String::new(),
    }
}

fn users_list() -> Option<PathBuf> {
    ignore::gitignore::gitconfig_excludes_path()
}

fn read(path: &Path) -> Option<String> {
    let bytes = crate::files::read_limited(path, MAX_LIST_BYTES).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
