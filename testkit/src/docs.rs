//! Reference pages that are written from the tables in the code.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use claudemesh_protocol::error::ErrorCode;

/// Writes every generated page into `folder`, or compares it with what is there.
///
/// # Errors
/// The folder cannot be written; with `check`: a page differs.
pub fn write(folder: &Path, check: bool) -> Result<()> {
    for (name, text) in [("errors.md", errors())] {
        let file = folder.join(name);
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

/// `docs/errors.md`
fn errors() -> String {
    let mut page = String::from(
        "# Error codes\n\nWritten by `cargo xtask docs` from `protocol/src/error.rs`. Codes are added, never renamed or \
         reused. On the\nwebsocket they come in an `error` frame (or in an `ack` with `queued:false`), over HTTP in the \
         body's `error`.\n\n| Code | Class | HTTP | Retry | Meaning |\n|---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let class = serde_json::to_value(code.class()).unwrap_or_default();
        let (retry, status) = (if code.retryable() { "yes" } else { "no" }, code.http_status());
        let class = class.as_str().unwrap_or_default().replace('_', " ");
        writeln!(page, "| `{}` | {class} | {status} | {retry} | {} |", code.as_str(), code.doc())
            .expect("a String takes every write");
    }
    page
}
