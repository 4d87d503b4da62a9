//! `list` and `leave`: the joined meshes on this machine, no broker needed.

use claudemesh_protocol::id::MeshId;
use serde_json::{Value, json};

use super::args::LeaveArgs;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::local;
use crate::output::{Style, clean};

/// Prints the joined meshes.
///
/// # Errors
/// Exit 10 when the config is damaged.
pub fn list(cx: &Context) -> Result<(), CliError> {
    let config = cx.store.load()?;
    let owned = cx.store.owners()?;
    let is_owner = |id: &MeshId| owned.iter().any(|entry| entry.mesh_id == *id);
    let meshes: Vec<Value> = config
        .meshes
        .iter()
        .map(|mesh| {
            json!({
                "slug": mesh.slug, "name": mesh.name, "meshId": mesh.mesh_id, "memberId": mesh.member_id,
                "pubkey": mesh.pubkey, "brokerUrl": mesh.broker_url, "joinedAt": mesh.joined_at,
                "owner": is_owner(&mesh.mesh_id), "lostOutsideUrl": local::store::lost_outside(mesh).map(|(url, _)| url),
            })
        })
        .collect();
    cx.out.answer(&Value::Array(meshes), |out| {
        if config.meshes.is_empty() {
            return "No mesh is joined.\nNext: claudemesh join <link>, or claudemesh up\n".into();
        }
        let mut text = String::new();
        for mesh in &config.meshes {
            let title = if mesh.name.is_empty() || mesh.name == mesh.slug {
                clean(&mesh.slug).into_owned()
            } else {
                format!("{} ({})", clean(&mesh.name), clean(&mesh.slug))
            };
            let owner = if is_owner(&mesh.mesh_id) { "  owner" } else { "" };
            text += &format!("{}{}\n", out.paint(Style::Bold, &title), out.paint(Style::Green, owner));
            text +=
                &format!("  mesh    {}\n  member  {}", clean(mesh.mesh_id.as_str()), clean(mesh.member_id.as_str()));
            text += &format!("  key {}\n", clean(mesh.pubkey.get(..16).unwrap_or(&mesh.pubkey)));
            text += &format!("  broker  {}\n", clean(&mesh.broker_url));
            if let Some((url, fix)) = local::store::lost_outside(mesh) {
                text += &format!(
                    "  note    other machines cannot reach it any more at {}; run `{}`\n",
                    clean(url),
                    clean(&fix)
                );
            }
            if !mesh.joined_at.is_empty() {
                text += &format!("  joined  {}\n", crate::clock::shown(&mesh.joined_at));
            }
        }
        text + &format!("{}\n", out.paint(Style::Dim, &cx.store.config_path().to_string_lossy()))
    })
}

/// Forgets a mesh on this machine. The member stays in the mesh until an admin bans it.
///
/// # Errors
/// Exit 5 when it is not joined, 10 when the config is damaged.
pub fn leave(cx: &Context, args: &LeaveArgs) -> Result<(), CliError> {
    let left = cx.store.update(|config| {
        let Some(at) = config.meshes.iter().position(|mesh| mesh.slug == args.slug) else {
            let joined = if config.meshes.is_empty() { "none".into() } else { config.slugs().join(", ") };
            let message = format!("No joined mesh is called '{}'.", clean(&args.slug));
            return Err(CliError::new(ExitCode::NotFound, "unknown_mesh", message).hint(format!("Joined: {joined}.")));
        };
        config.meshes.remove(at);
        Ok(config.meshes.len())
    })?;
    cx.out.answer(&json!({"ok": true, "slug": args.slug, "left": left}), |out| {
        format!("{} left {}; {left} joined\n", out.tick(), clean(&args.slug))
    })
}
