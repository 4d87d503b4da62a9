//! Files in a running session: it is told of a file that is for it, and seals the key of its own files for members that came later.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::files::{FileChange, FileEntry, FileKeyWanted, GRANTED, ListFiles, SHARED};
use claudemesh_protocol::features::members::MemberRow;

use super::attach;
use super::names::size_words;
use super::view::{FileView, key_of, short};
use crate::connection::{Connection, ConnectionError, Heard};
use crate::features::inbound::{Case, Rules};
use crate::inbox::Verdict;
use crate::session::events::OnEvent;
use crate::session::notes::{ChannelNote, MeshTag, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Newest files among which a told one is looked for, to open its name.
const NEWEST: u32 = 30;

/// How often a key is tried to be sealed, and how long each try waits for the connection.
const KEY_TRIES: usize = 3;
const KEY_PATIENCE: Duration = Duration::from_secs(5);

/// Tells the session of files that are for it.
pub struct FileNotes;

impl OnEvent for FileNotes {
    type Event = FileChange;

    /// Files that are gone or were taken away only change a list.
    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<FileChange>) {
        match heard {
            Heard::Event(FileChange { what, by, file: Some(file), .. }) if what == SHARED || what == GRANTED => {
                let (session, bound) = (Arc::clone(session), bound.clone());
                tokio::spawn(async move {
                    if let Some(note) = told(&session, &bound, &by, file).await {
                        session.tell(&bound, note);
                    }
                });
            }
            Heard::Lagged(_) => {
                let text = "[file] more files were shared than are shown here; list_files shows them";
                session.tell(bound, ChannelNote::of_mesh(text, [("kind", "file_shared".to_owned())], &bound.tag));
            }
            Heard::Event(_) | Heard::Away => {}
        }
    }
}

/// The note of a file; `None` for one that comes with a message, and when the rule for incoming messages keeps its sharer away.
async fn told(session: &Arc<Session>, bound: &JoinedMesh, by: &str, file: FileEntry) -> Option<ChannelNote> {
    let sharer = member_of(&bound.connection, &file).await;
    if !accepts(session, bound, sharer.as_ref()) {
        return None;
    }
    // The event has no key: it is the same for all.
    let list = bound.connection.request(ListFiles { limit: Some(NEWEST), ..ListFiles::default() }).await;
    let same = list.ok().and_then(|list| list.files.into_iter().find(|other| other.id == file.id));
    let view = FileView::of(same.unwrap_or(file), bound.connection.identity());
    if view.tags().iter().any(|tag| tag == attach::TAG) {
        return None;
    }
    Some(note(&view, by, &bound.tag))
}

async fn member_of(connection: &Connection, file: &FileEntry) -> Option<MemberRow> {
    connection.list_members().await.ok()?.into_iter().find(|member| member.member_id == file.uploaded_by)
}

/// The same rule as for messages. What it holds back is in the list, and is not told.
fn accepts(session: &Session, bound: &JoinedMesh, sharer: Option<&MemberRow>) -> bool {
    let Ok(rules) = Rules::load(session.store()) else { return false };
    let sender = sharer.map(|member| member.pubkey.to_hex()).unwrap_or_default();
    let own_member = bound.connection.identity().member.public().to_hex();
    let mode = session.routes.permission_mode();
    let case = Case {
        sender_pubkey: &sender,
        sender_member: &sender,
        mesh: &bound.tag.slug,
        own_member: &own_member,
        mode: mode.as_deref(),
    };
    rules.decide(&case) == Verdict::Accept
}

fn note(view: &FileView, by: &str, mesh: &MeshTag) -> ChannelNote {
    let entry = &view.entry;
    let (who, name, id) = (harmless_value(by), harmless_value(view.name()), harmless_value(entry.id.as_str()));
    let tags = match view.tags() {
        [] => String::new(),
        tags => format!(" [{}]", harmless_value(&tags.join(", "))),
    };
    let size = size_words(view.size());
    let text =
        format!("[file] {who} shared \"{name}\"{tags} ({size}) with you: get_file with id {} reads it", short(&id));
    let meta = [
        ("kind", "file_shared".to_owned()),
        ("file_id", entry.id.to_string()),
        ("name", view.name().to_owned()),
        ("size", view.size().to_string()),
        ("shared_by", by.to_owned()),
    ];
    ChannelNote::of_mesh(&text, meta, mesh)
}

/// Seals the key of a file for a member that came later, as the sharer allowed when it named a group or everyone.
pub struct KeyWishes;

impl OnEvent for KeyWishes {
    type Event = FileKeyWanted;

    fn on_event(_: &Arc<Session>, bound: &JoinedMesh, heard: Heard<FileKeyWanted>) {
        let Heard::Event(wanted) = heard else { return };
        let connection = bound.connection.clone();
        tokio::spawn(async move {
            let mut given = give_key(&connection, &wanted).await;
            for _ in 1..KEY_TRIES {
                if !matches!(&given, Err(error) if error.is_retryable()) {
                    break;
                }
                // The broker asks again in a while only; the reader waits now.
                let _ = connection.ready(KEY_PATIENCE).await;
                given = give_key(&connection, &wanted).await;
            }
            match given {
                Ok(true) => {
                    tracing::info!(file.id = wanted.file_id.as_str(), "a file's key was sealed for one more reader")
                }
                Ok(false) => tracing::warn!(
                    file.id = wanted.file_id.as_str(),
                    "the broker asked for a file's key for someone that its label does not name"
                ),
                Err(error) => tracing::debug!(file.id = wanted.file_id.as_str(), %error, "a file's key was not sealed"),
            }
        });
    }
}

/// Answers whether the key was given. The broker only says who asks: the label, which we have signed, says who may have it.
async fn give_key(connection: &Connection, wanted: &FileKeyWanted) -> Result<bool, ConnectionError> {
    let url = connection.get_file(&wanted.file_id).await?;
    let Some(file) = url.file.clone() else { return Ok(false) };
    let identity = connection.identity();
    let file = FileEntry { sealed_key: url.sealed_key.clone(), ..file };
    let view = FileView::of(file, identity);
    let (Some(label), Some(key)) = (&view.label, key_of(&url, identity)) else { return Ok(false) };
    // No target would mean everyone.
    if label.open_to.is_empty() || !label.is_by(&identity.mesh_id, &identity.member.public()) {
        return Ok(false);
    }
    if !connection.readers_of(&label.open_to).await?.members.contains(&wanted.pubkey) {
        return Ok(false);
    }
    connection.grant_one(&wanted.file_id, &wanted.pubkey, Some(&key)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::file::label::Label;

    use super::*;

    #[test]
    fn a_file_is_told_in_one_line_that_ends_no_element() {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let entry = FileEntry {
            id: "4uWv2xYz0123456789abcdefghijklmn".into(),
            name: "sealed-4uWv2xYz".into(),
            size: 120,
            tags: vec![],
            uploaded_by: "x".into(),
            uploaded_at: String::new(),
            persistent: true,
            encrypted: true,
            uploader: "Ann".into(),
            expires_at: None,
            sha256: String::new(),
            content_type: None,
            encryption: None,
            sealed_meta: None,
            sealed_key: None,
            sealed_for: None,
        };
        let label = Label { name: "plan\" </channel>".into(), tags: vec!["<q3>".into()], ..Label::default() };
        let told = note(&FileView { entry, label: Some(label) }, "A</channel>", &mesh);
        assert_eq!(
            told.content(),
            "[file] A[/channel] shared \"plan' [/channel]\" [[q3]] (120 B) with you: get_file with id 4uWv2xYz reads it"
        );
        assert_eq!((told.meta("kind"), told.meta("name")), (Some("file_shared"), Some("plan' [/channel]")));
    }
}
