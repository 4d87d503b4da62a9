//! `install.json` in the config folder: what our edits of Claude Code's files must remember to be undone exactly.
//!
//! Shape: `{"version":1,"files":{"<path>":{"file_created":bool,"containers":{…}}}}`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::json_edit::Receipt;
use crate::files;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Receipts {
    version: u64,
    files: BTreeMap<String, Receipt>,
}

/// The receipts of one config folder.
#[derive(Debug)]
pub(super) struct ReceiptBook {
    path: PathBuf,
}

impl ReceiptBook {
    pub(super) fn new(config_dir: &Path) -> Self {
        Self { path: config_dir.join("install.json") }
    }

    /// The receipt of a file; `None` when there is none or the book cannot be read, which costs exactness, not safety.
    pub(super) fn get(&self, file: &Path) -> Option<Receipt> {
        self.read().files.remove(&*file.to_string_lossy())
    }

    /// Stores the receipt of a file, or forgets it.
    pub(super) fn put(&self, file: &Path, receipt: Option<&Receipt>) -> std::io::Result<()> {
        let mut receipts = self.read();
        let key = file.to_string_lossy().into_owned();
        match receipt {
            Some(receipt) => {
                receipts.files.insert(key, receipt.clone());
            }
            None => {
                if receipts.files.remove(&key).is_none() {
                    return Ok(());
                }
            }
        }
        if receipts.files.is_empty() {
            return std::fs::remove_file(&self.path);
        }
        receipts.version = 1;
        files::write_private(&self.path, &serde_json::to_vec_pretty(&receipts)?)
    }

    fn read(&self) -> Receipts {
        let bytes = files::read_limited(&self.path, 4 * 1024 * 1024).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}
