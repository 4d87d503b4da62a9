//! Files of Claude Code in any state: install either refuses and changes nothing, or uninstall gives back every byte.
#![no_main]

use claudemesh::install::edits::{self, Change};
use claudemesh::install::hooks;
use claudemesh::install::json_edit::{Document, EditError, Receipt};
use claudemesh::install::status_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(mut doc) = Document::open(text, None) else { return };
    // Uninstall where nothing was installed, and with a receipt of something else.
    let mut other = Document::open(text, Some(Receipt::default())).expect("it opened before");
    let ours_before = remove(&mut doc.clone());
    assert_eq!(remove(&mut other) == 0, ours_before == 0);
    if ours_before == 0 {
        assert_eq!(other.text(), text, "nothing of ours, nothing changes");
    }
    if add(&mut doc).is_err() {
        return;
    }
    let mut again = Document::open(doc.text(), Some(doc.receipt.clone())).expect("what we write opens");
    add(&mut again).expect("a second install has the same answer");
    assert_eq!(again.text(), doc.text(), "a second install changes nothing");
    remove(&mut again);
    if ours_before == 0 {
        assert_eq!(again.text(), text, "every byte is back");
    }
});

fn add(doc: &mut Document) -> Result<(), EditError> {
    for mesh in [None, Some("team")] {
        edits::add_server(doc, "claudemesh", mesh, false)?;
        edits::add_permission(doc, &edits::server_name(mesh))?;
    }
    hooks::add_hooks(doc, "/opt/my tools/claudemesh", true)?;
    status_line::add(doc, "claudemesh", false)?;
    Ok(())
}

/// How many things of ours were there, a stranger's server of our name included.
fn remove(doc: &mut Document) -> usize {
    let (servers, names) = edits::remove_servers(doc);
    let hooks = edits::remove_permissions(doc, &names) + hooks::remove_hooks(doc);
    let line = status_line::remove(doc);
    [servers, line].iter().filter(|change| **change != Change::Absent).count() + hooks
}
