//! `vault_set`, `vault_list`, `vault_delete`. No tool reads a value: it would stay in the conversation.

use std::path::Path;

use claudemesh_protocol::features::vault::limits::MAX_VALUE_BYTES;
use claudemesh_protocol::features::vault::{EntryType, VaultEntry};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Secret, kind_words};
use crate::clock::shown;
use crate::connection::Connection;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::{Json, MeshArg, OneLine, OneMeshArg};
use crate::session::ToolError;
use crate::session::notes::harmless_value;

/// Parameters of `vault_set`. Nothing prints them.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewSecret {
    /// Its name: 1 to 128 letters, digits and _ . -
    key: String,
    /// The value; with type file the path of a file on this machine, whose content is sealed and never shown.
    value: String,
    /// Whether it is for an environment variable or a file [default: env].
    #[serde(default, rename = "type")]
    kind: Option<EntryType>,
    /// Path at which a service finds the file: at most 512 bytes, without `..`.
    #[serde(default)]
    mount_path: Option<String>,
    /// What it is, for people, in at most 500 characters; the mesh's broker can read this.
    #[serde(default)]
    description: Option<String>,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// Parameters of `vault_delete`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct OneSecret {
    /// Its name.
    key: String,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// Names of every mesh.
#[derive(Serialize, JsonSchema)]
struct Listed {
    /// By mesh; never a value.
    entries: Vec<Row>,
    /// Meshes that could not be asked, and why.
    trouble: Vec<String>,
}

/// A name in one mesh.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// The mesh.
    mesh_slug: String,
    #[serde(flatten)]
    entry: OneLine<VaultEntry>,
}

/// The value itself, or the content of the file that it names.
fn value_of(args: &NewSecret, entry_type: EntryType) -> Result<Zeroizing<Vec<u8>>, ToolError> {
    if entry_type == EntryType::Env {
        return Ok(Zeroizing::new(args.value.as_bytes().to_vec()));
    }
    let path = Path::new(&args.value);
    match crate::files::read_limited(path, MAX_VALUE_BYTES as u64) {
        Ok(Some(bytes)) => Ok(Zeroizing::new(bytes)),
        // The text may be the secret itself, so it is not repeated.
        Ok(None) => Err("`value`: with type file it is the path of a file, and there is no such file".into()),
        Err(error) => Err(format!("`value`: the file cannot be read: {error}")),
    }
}

#[tool_router(router = vault_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "Keep a secret in your member's vault of the mesh, for MCP servers that the mesh hosts. It is sealed on this machine: neither the broker nor other members can read it. Better: let the user run `claudemesh vault set NAME`, so that the value never is in the conversation.",
        annotations(destructive_hint = true, idempotent_hint = true)
    )]
    async fn vault_set(&self, Parameters(args): Parameters<NewSecret>) -> Result<String, ToolError> {
        let entry_type = args.kind.unwrap_or_default();
        let value = value_of(&args, entry_type)?;
        let NewSecret { key, mount_path, description, mesh, .. } = args;
        let words = kind_words(entry_type, mount_path.as_deref());
        let secret = Secret { key: key.clone(), value, entry_type, mount_path, description };
        let set = |connection: Connection| async move { connection.vault_set(secret).await };
        let (bound, ()) = self.in_one_mesh(mesh.slug(), set).await?;
        let (key, words) = (harmless_value(&key), harmless_value(&words));
        Ok(format!("{key} ({words}) is in your vault, encrypted end to end ({})", bound.tag.slug))
    }

    #[tool(
        description = "List the names in your member's vault of the mesh: type, path, description, when it was changed. Values are never shown.",
        annotations(read_only_hint = true)
    )]
    async fn vault_list(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<Listed>, ToolError> {
        let (mut entries, mut trouble, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        let ask = |connection: Connection| async move { connection.vault_list(false).await };
        for (bound, listed) in self.ask_each_mesh(mesh.slug(), ask).await? {
            let mesh_slug = bound.tag.slug;
            match listed {
                Ok(rows) => {
                    lines.push(format!("## {mesh_slug} ({} in your vault)", rows.len()));
                    lines.extend(rows.iter().map(line));
                    let row = |entry| Row { mesh_slug: mesh_slug.clone(), entry: OneLine(entry) };
                    entries.extend(rows.into_iter().map(row));
                }
                Err(error) => trouble.push(format!("{mesh_slug}: {error}")),
            }
        }
        if lines.is_empty() {
            return Err(trouble.join("; "));
        }
        Ok(Json(lines.join("\n"), Listed { entries, trouble }))
    }

    #[tool(
        description = "Delete an entry of your member's vault in the mesh for good.",
        annotations(destructive_hint = true, idempotent_hint = true)
    )]
    async fn vault_delete(&self, Parameters(args): Parameters<OneSecret>) -> Result<String, ToolError> {
        let key = args.key.as_str();
        let delete = |connection: Connection| async move { connection.vault_delete(key, None).await };
        let (bound, gone) = self.in_one_mesh(args.mesh.slug(), delete).await?;
        let shown = harmless_value(key);
        match gone {
            true => Ok(format!("Deleted {shown} from your vault ({})", bound.tag.slug)),
            false => Err(format!("there is no {shown} in your vault of {}", bound.tag.slug)),
        }
    }
}

fn line(row: &VaultEntry) -> String {
    let words = kind_words(row.entry_type, row.mount_path.as_deref());
    let about = row.description.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
    harmless_value(&format!("- {} ({words}, {}){about}", row.key, shown(&row.updated_at)))
}
