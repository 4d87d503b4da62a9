//! Whether the program lies where it stays: what `install` writes names its place.

use std::path::{Path, PathBuf};

use crate::output::Output;

/// First line of the file that marks a folder as a cache: bford.info/cachedir. cargo puts it into its build folder.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55";

/// A folder above the program that may be emptied at any time.
#[derive(Debug, PartialEq)]
enum Passing {
    /// With `cargo clean` and the like.
    Cache(PathBuf),
    /// `npx` keeps what it ran once in there.
    Npx(PathBuf),
}

impl Passing {
    fn of(program: &Path) -> Option<Self> {
        program.ancestors().skip(1).find_map(|folder| {
            let tagged = std::fs::read_to_string(folder.join("CACHEDIR.TAG"));
            if tagged.is_ok_and(|text| text.starts_with(CACHE_TAG)) {
                return Some(Self::Cache(folder.to_owned()));
            }
            (folder.file_name()? == "_npx").then(|| Self::Npx(folder.to_owned()))
        })
    }
}

/// Says so when the program may go away, and what to do.
pub(super) fn warn_of_cache(out: &Output) {
    let Some(me) = std::env::current_exe().and_then(|path| path.canonicalize()).ok() else { return };
    match Passing::of(&me) {
        None => {}
        Some(Passing::Cache(folder)) => out.warn(&format!(
            "Claude Code now starts {0}. That is in {1}, which `cargo clean` empties, and then Claude Code does not find it any more. To \
             keep it: install -D {0} ~/.local/bin/claudemesh, then ~/.local/bin/claudemesh install.",
            me.display(),
            folder.display()
        )),
        Some(Passing::Npx(folder)) => out.warn(&format!(
            "Claude Code now starts {}. That is in {}, the cache of npx, which npm may empty. To keep it: npm install --global \
             claudemesh, then claudemesh install.",
            me.display(),
            folder.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_folder_and_the_cache_of_npx_do_not_last() {
        let dir = tempfile::tempdir().unwrap();
        let program = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (target, tag) = (dir.path().join("target"), dir.path().join("target/CACHEDIR.TAG"));
        let built = program("target/release/claudemesh");
        assert_eq!(Passing::of(&built), None, "nothing says that it is a cache");
        std::fs::write(&tag, "something else").unwrap();
        assert_eq!(Passing::of(&built), None);
        std::fs::write(&tag, format!("{CACHE_TAG}\n# by cargo")).unwrap();
        assert_eq!(Passing::of(&built), Some(Passing::Cache(target)));
        let ran = program("home/.npm/_npx/0123/node_modules/claudemesh/bin/claudemesh");
        assert_eq!(Passing::of(&ran), Some(Passing::Npx(dir.path().join("home/.npm/_npx"))));
        assert_eq!(Passing::of(&program("home/.local/bin/claudemesh")), None);
    }
}
