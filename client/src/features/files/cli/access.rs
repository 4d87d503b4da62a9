//! `file status`, `grant`, `revoke`, `delete`: who got a file, who may get it, and its end.

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::{FileAccess, FileReader};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::view::short;
use crate::clock::shown;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::output::{Output, clean, counted};
use crate::session::notes::harmless_value;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Show who got a file and when; of your own file, who may get it, too.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh file status 4uWv2xYz")]
pub struct StatusArgs {
    /// Its id, or at least the first 8 characters.
    id: String,
}

/// Who got a file and who may, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Standing {
    id: String,
    /// The newest first.
    accesses: Vec<FileAccess>,
    /// Who it is for: keys of members, groups, `*`. Of your own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    targets: Option<Vec<String>>,
    /// Members that may get it. Of your own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    readers: Option<Vec<FileReader>>,
}

impl Verb for StatusArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Standing>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Standing>>()]
    }

    /// Exit 5 when there is no such file for you.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let standing = ask(cx, &entry, |connection: Connection| async move {
            let id = connection.file_id(&self.id).await?;
            let status = connection.file_status(&id).await?;
            let readers = match connection.file_readers(&id).await {
                Ok(readers) => Some(readers),
                // Only the owner may know.
                Err(error)
                    if matches!(
                        error.code(),
                        Some(ErrorCode::Forbidden | ErrorCode::NotFound | ErrorCode::UnknownType)
                    ) =>
                {
                    None
                }
                Err(error) => return Err(error.into()),
            };
            let (targets, readers) = readers.unzip();
            Ok(Standing { id: id.to_string(), accesses: status.accesses, targets, readers })
        })?;
        cx.out.answer(&InMesh::new(&entry.slug, &standing), |out| told(&standing, out)).map(done)
    }
}

fn value(text: &str, out: &Output) -> String {
    if out.is_for_model() { harmless_value(text) } else { clean(text).into_owned() }
}

fn told(standing: &Standing, out: &Output) -> String {
    let mut text = String::new();
    if standing.accesses.is_empty() {
        text += "No one has got it.\n";
    }
    for access in &standing.accesses {
        text += &format!("{}  {}\n", shown(&access.accessed_at), value(&access.peer_name, out));
    }
    if let Some(readers) = &standing.readers {
        let name = |reader: &FileReader| {
            let mark = match (reader.revoked, reader.has_key) {
                (true, _) => " (revoked)",
                (false, false) => " (no key yet)",
                (false, true) => "",
            };
            format!("{}{mark}", value(&reader.name, out))
        };
        let all: Vec<String> = readers.iter().map(name).collect();
        text += &format!("readers: {}\n", if all.is_empty() { "none".into() } else { all.join(", ") });
    }
    text
}

/// Let others read a file of yours, too: its key is encrypted for them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh file grant 4uWv2xYz Carl @qa")]
pub struct GrantArgs {
    /// Its id, or at least the first 8 characters.
    id: String,
    /// Who: names, `@group`, `*` or keys. Of a group, those who are in it now.
    #[arg(required = true, value_name = "WHO")]
    to: Vec<String>,
}

/// Take a file of yours away from others. What they have got already stays with them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh file revoke 4uWv2xYz Carl")]
pub struct RevokeArgs {
    /// Its id, or at least the first 8 characters.
    id: String,
    /// Who: names, `@group` or keys. Of a group, those who are in it now.
    #[arg(required = true, value_name = "WHO")]
    from: Vec<String>,
}

/// Delete a file and its bytes; one of another member only with `canManageFiles`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh file delete 4uWv2xYz")]
pub struct DeleteArgs {
    /// Its id, or at least the first 8 characters.
    id: String,
}

/// Whose access was changed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Changed {
    id: String,
    /// Keys of the members.
    members: Vec<String>,
}

/// A file that was deleted, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Deleted {
    id: String,
    deleted: bool,
}

impl Verb for GrantArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Changed>>()]
    }

    /// Exit 5 when there is no such file or reader, 7 when it is not yours.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let changed = ask(cx, &entry, |connection: Connection| async move {
            let id = connection.file_id(&self.id).await?;
            let readers = connection.readers_of(&self.to).await?;
            connection.grant_file(&id, &readers.members).await?;
            Ok(Changed { id: id.to_string(), members: readers.members.iter().map(|key| key.to_hex()).collect() })
        })?;
        say_changed(cx, &entry.slug, &changed, "can read").map(done)
    }
}

impl Verb for RevokeArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Changed>>()]
    }

    /// Exit 5 when there is no such file or reader, 7 when it is not yours.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let changed = ask(cx, &entry, |connection: Connection| async move {
            let id = connection.file_id(&self.id).await?;
            let members = connection.readers_of(&self.from).await?.members;
            let members = connection.revoke_file(&id, members).await?;
            Ok(Changed { id: id.to_string(), members: members.iter().map(|key| key.to_hex()).collect() })
        })?;
        say_changed(cx, &entry.slug, &changed, "can no longer get").map(done)
    }
}

fn say_changed(cx: &Context, slug: &str, changed: &Changed, what: &str) -> Result<(), CliError> {
    cx.out.answer(&InMesh::new(slug, changed), |out| {
        let members = counted(changed.members.len(), "member");
        format!("{} {members} {what} {}\n", out.tick(), clean(&short(&changed.id)))
    })
}

impl Verb for DeleteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Deleted>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Deleted>>()]
    }

    /// Exit 5 when there is no such file, 7 when it is another member's.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let deleted = ask(cx, &entry, |connection: Connection| async move {
            let id = connection.file_id(&self.id).await?;
            connection.delete_file(&id).await?;
            Ok(Deleted { id: id.to_string(), deleted: true })
        })?;
        let text = |out: &Output| format!("{} deleted {}\n", out.tick(), clean(&short(&deleted.id)));
        cx.out.answer(&InMesh::new(&entry.slug, &deleted), text).map(done)
    }
}
