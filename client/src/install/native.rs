//! Entries `mesh:<service>` in `mcpServers`: services of a mesh that a launch registers for its own time.
//!
//! Shape: `"mesh:<service>": {"command":…, "_meshSession": {"pid":…, "startTime":…, "meshSlug":…}}`. A launch that was
//! killed leaves its entries behind; the next one removes those whose process is dead. Entries of living launches and
//! everything without `_meshSession` stay.

use std::path::Path;

use super::apply::{ApplyError, EditContext, Purpose};
use super::json_edit::Document;
use crate::config::session_dir::is_alive;
use crate::paths::{ClaudeFiles, Env};

/// Removes entries of dead launches; answers their names. Nothing is written when there are none.
///
/// # Errors
/// [`ApplyError`]; the file is as it was then.
pub fn sweep(env: &Env, config_dir: &Path) -> Result<Vec<String>, ApplyError> {
    let claude = ClaudeFiles::locate(env);
    let context = EditContext { config_dir, backups: &claude.backups };
    let edit = |doc: &mut Document| Ok(remove_dead(doc, is_alive));
    if context.rehearse(&claude.config, edit)?.is_empty() {
        return Ok(vec![]);
    }
    Ok(context.apply(&claude.config, Purpose::Sweep, edit)?.answer)
}

fn remove_dead(doc: &mut Document, is_alive: impl Fn(u32, u64) -> bool) -> Vec<String> {
    let Some(servers) = doc.find(&["mcpServers"]) else { return vec![] };
    let dead = |member: &super::json_scan::Member| {
        let session = &doc.value(&member.value)["_meshSession"];
        // A process id that is none was never alive, but who knows what it means.
        let pid = session["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let started = session["startTime"].as_u64().unwrap_or(0);
        member.key.starts_with("mesh:") && pid.is_some_and(|pid| !is_alive(pid, started))
    };
    let names: Vec<String> = doc.members(&servers).into_iter().filter(dead).map(|member| member.key).collect();
    for name in &names {
        doc.remove_key(&["mcpServers"], name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_dead_launches_go() {
        let text = r#"{"mcpServers":{
  "mesh:gmail:7": {"command":"claudemesh","_meshSession":{"pid":7}},
  "mesh:live": {"command":"claudemesh","_meshSession":{"pid":8,"startTime":5}},
  "mesh:reused": {"command":"claudemesh","_meshSession":{"pid":8,"startTime":4}},
  "mesh:mine": {"command":"mine"},
  "mesh:odd": {"_meshSession":{"pid":"7"}},
  "other": {"_meshSession":{"pid":7}}
}}"#;
        let mut doc = Document::open(text, None).unwrap();
        let alive = |pid: u32, started: u64| pid == 8 && started != 4;
        assert_eq!(remove_dead(&mut doc, alive), ["mesh:gmail:7", "mesh:reused"]);
        insta::assert_snapshot!(doc.text(), @r#"
        {"mcpServers":{
          "mesh:live": {"command":"claudemesh","_meshSession":{"pid":8,"startTime":5}},
          "mesh:mine": {"command":"mine"},
          "mesh:odd": {"_meshSession":{"pid":"7"}},
          "other": {"_meshSession":{"pid":7}}
        }}
        "#);
        assert!(remove_dead(&mut doc, alive).is_empty());
    }
}
