//! The mesh `local`: made on the first start, found again on later ones.

use std::path::Path;

use serde_json::Value;

use crate::cli::Context;
use crate::config::owners::OwnerEntry;
use crate::config::{ConfigError, MeshEntry};
use crate::error::CliError;
use crate::features::enrolment::{self, MeshWish};
use crate::features::one_shot::hostname;
use crate::files;

/// Name of the mesh.
const SLUG: &str = "local";
/// Marks our entry in the config, so that a user's own mesh of that name is left alone.
const MARK: &str = "madeByUp";
/// Names tried when the broker has a `local` whose owner key is gone.
const MAX_ATTEMPTS: u32 = 20;

/// A mesh of this machine with the keys of its owner.
#[derive(Clone)]
pub(super) struct LocalMesh {
    pub(super) entry: MeshEntry,
    pub(super) owner: OwnerEntry,
}

/// The operator's token of this data folder: given once by the first start, kept beside the data for later ones.
pub(super) fn operator_token(data_dir: &Path, fresh: Option<String>) -> Result<Option<String>, CliError> {
    let path = data_dir.join("operator-token");
    if let Some(token) = fresh {
        files::write_private(&path, token.as_bytes())
            .map_err(|error| CliError::io(format!("{} cannot be written: {error}.", path.display())))?;
        return Ok(Some(token));
    }
    let bytes = files::read_limited(&path, 4_096)
        .map_err(|error| CliError::io(format!("{} cannot be read: {error}.", path.display())))?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| text.trim().to_owned()))
}

/// Finds the mesh in the config and on the broker, or makes it.
pub(super) fn ensure(
    cx: &Context,
    broker_url: &str,
    name: Option<&str>,
    operator_token: Option<&str>,
) -> Result<LocalMesh, CliError> {
    let config = cx.store.load()?;
    let ours = config.meshes.iter().find(|entry| entry.extra.get(MARK) == Some(&Value::Bool(true)));
    if let Some(entry) = ours {
        let mut entry = entry.clone();
        entry.broker_url = broker_url.to_owned();
        match (enrolment::members(&entry), cx.store.owner(&entry.mesh_id)?) {
            (Ok(_), Some(owner)) => {
                // Another port than last time: the mesh is the same.
                let owner = OwnerEntry { broker_url: broker_url.to_owned(), ..owner };
                cx.store.put_owner(owner.clone())?;
                let kept = entry.clone();
                cx.store.update(|config| {
                    for known in config.meshes.iter_mut().filter(|known| known.mesh_id == kept.mesh_id) {
                        known.broker_url.clone_from(&kept.broker_url);
                    }
                    Ok::<_, ConfigError>(())
                })?;
                return Ok(LocalMesh { entry, owner });
            }
            (Err(error), _) if error.exit == crate::error::ExitCode::Network => return Err(error),
            // The broker's data are others than last time, or the owner key is lost: a new mesh.
            _ => {}
        }
    }
    make(cx, broker_url, name, operator_token)
}

fn make(
    cx: &Context,
    broker_url: &str,
    name: Option<&str>,
    operator_token: Option<&str>,
) -> Result<LocalMesh, CliError> {
    let default =
        || format!("{}-{}", hostname().unwrap_or_else(|| "host".into()), cx.env.text("USER").unwrap_or("user"));
    let configured = cx.store.load()?.display_name;
    let name = name.map(str::to_owned).or(configured).unwrap_or_else(default);
    let mut number = 1;
    let made = loop {
        let slug = if number == 1 { SLUG.to_owned() } else { format!("{SLUG}-{number}") };
        let wish = MeshWish { broker_url, slug: &slug, title: None, display_name: &name, operator_token };
        match enrolment::create_mesh(&wish) {
            Err(error) if error.code == "already_exists" && number < MAX_ATTEMPTS => number += 1,
            other => break other?,
        }
    };
    let (owner, mut entry) = (made.owner, made.entry);
    entry.extra.insert(MARK.into(), Value::Bool(true));
    cx.store.put_owner(owner.clone())?;
    let mesh_id = entry.mesh_id.clone();
    let entry = cx.store.update(|config| {
        // A mesh of an earlier `up` that no broker has any more would only stand in the way of its name.
        config.meshes.retain(|known| known.extra.get(MARK) != Some(&Value::Bool(true)));
        config.put_mesh(entry);
        let kept = config.by_id(&mesh_id).cloned();
        kept.ok_or_else(|| CliError::internal("The new mesh is not in the config."))
    })?;
    Ok(LocalMesh { entry, owner })
}
