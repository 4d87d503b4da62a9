//! Reference pages that are written from the tables in the code.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use claudemesh_protocol::testing::docs;

/// Writes every generated page into `folder`, or compares it with what is there.
///
/// # Errors
/// The folder cannot be written; with `check`: a page differs.
pub fn write(folder: &Path, check: bool) -> Result<()> {
    for (path, text) in docs::pages() {
        let file = folder.join(Path::new(path).file_name().expect("every page is a file"));
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            bail!("{} is not what the code says; run `cargo xtask docs`", file.display());
        }
        fs::create_dir_all(folder)?;
        fs::write(&file, text)?;
        eprintln!("   wrote {}", file.display());
    }
    Ok(())
}
