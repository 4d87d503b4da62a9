//! The first mesh of a store, `local` unless it was named: made on the first start, found again on later ones.
//!
//! Its keys lie with the store (`mesh.json`), so every config folder of this user that uses the store is the same member of
//! the same mesh, and a config that was lost or moved finds it again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::{self, Store};
use crate::config::drafts::Keys;
use crate::config::owners::OwnerEntry;
use crate::config::{ConfigStore, MeshEntry};
use crate::context::Context;
use crate::context::connect::hostname;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::{self, MeshWish};
use crate::files::{self, FileLock};
use crate::paths::Env;

/// Name of the mesh, unless another one is asked for.
pub(super) const SLUG: &str = "local";
/// Names tried when the broker has a `local` whose owner key is gone.
const MAX_ATTEMPTS: u32 = 20;
/// How long a process waits for another one that is making the mesh.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest `mesh.json`.
const MAX_KEYS_BYTES: u64 = 64 * 1024;

/// A mesh of this machine with the keys of its owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LocalMesh {
    /// As in the config.
    #[serde(rename = "mesh")]
    pub(super) entry: MeshEntry,
    /// The owner's key.
    pub(super) owner: OwnerEntry,
}

/// Who wants the mesh, and for what.
pub(super) struct Wish<'a> {
    pub(super) env: &'a Env,
    pub(super) config: &'a ConfigStore,
    pub(super) store: &'a Store,
    /// Where the broker is.
    pub(super) broker_url: &'a str,
    /// Name of the member, when it is given.
    pub(super) name: Option<&'a str>,
    /// Its short name, when it has to be made.
    pub(super) slug: &'a str,
    /// No one asked for it: it steps back for meshes that the user joins.
    pub(super) auto: bool,
}

/// The short name that the mesh of a store has, or would get.
pub(super) fn known_slug(config: &ConfigStore, store: &Store) -> Result<Option<String>, CliError> {
    let known = config
        .load()?
        .meshes
        .into_iter()
        .find(|entry| store::is_first(entry) && Store::of_entry(entry).is_none_or(|of| of == *store));
    Ok(match known {
        Some(entry) => Some(entry.slug),
        None => read_keys(store)?.map(|mesh| mesh.entry.slug),
    })
}

/// Finds the mesh with the store and on the broker, or makes it. Of several processes that start at once, one makes it.
pub(super) fn ensure(wish: &Wish<'_>) -> Result<LocalMesh, CliError> {
    let unwritable =
        |error: std::io::Error| CliError::io(format!("{} cannot be used: {error}.", wish.store.dir().display()));
    files::create_private_dir(wish.store.dir()).map_err(unwritable)?;
    let _lock = FileLock::take(&wish.store.dir().join("mesh.lock"), PATIENCE).map_err(unwritable)?;
    let known = match read_keys(wish.store)? {
        Some(keys) => Some(keys),
        None => of_config(wish)?,
    };
    if let Some(mut mesh) = known {
        mesh.entry.broker_url = wish.broker_url.to_owned();
        mesh.owner.broker_url = wish.broker_url.to_owned();
        match enrolment::members(&mesh.entry) {
            Ok(_) => return keep(wish, mesh),
            Err(error) if error.exit == ExitCode::Network => return Err(error),
            // The data are others than last time: a new mesh.
            Err(error) => tracing::warn!(%error, "the local mesh is not in the store any more; making a new one"),
        }
    }
    let mesh = make(wish)?;
    keep(wish, mesh)
}

fn read_keys(store: &Store) -> Result<Option<LocalMesh>, CliError> {
    let path = store.mesh_path();
    let bytes = files::read_limited(&path, MAX_KEYS_BYTES)
        .map_err(|error| CliError::io(format!("{} cannot be read: {error}.", path.display())))?;
    // A damaged file is replaced: its content is in the config, too, or it is of no use.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// The mesh as the config has it, for a store whose keys were not written yet.
fn of_config(wish: &Wish<'_>) -> Result<Option<LocalMesh>, CliError> {
    let config = wish.config.load()?;
    let ours = config
        .meshes
        .into_iter()
        .find(|entry| store::is_first(entry) && Store::of_entry(entry).is_none_or(|store| store == *wish.store));
    let Some(entry) = ours else { return Ok(None) };
    Ok(wish.config.owner(&entry.mesh_id)?.map(|owner| LocalMesh { entry, owner }))
}

/// Writes the mesh where it is looked for: with the store and into this config. Answers it as this config has it.
fn keep(wish: &Wish<'_>, mut mesh: LocalMesh) -> Result<LocalMesh, CliError> {
    // Once asked for, it stays asked for.
    let auto = wish.auto && (store::is_auto(&mesh.entry) || !store::is_local(&mesh.entry));
    store::mark(&mut mesh.entry, wish.store, auto);
    let path = wish.store.mesh_path();
    let text = serde_json::to_vec(&mesh)
        .map_err(|error| CliError::internal(format!("The keys of the mesh cannot be written: {error}.")))?;
    let text = zeroize::Zeroizing::new(text);
    if files::read_limited(&path, MAX_KEYS_BYTES).ok().flatten().as_deref() != Some(&text) {
        files::write_private(&path, &text)
            .map_err(|error| CliError::io(format!("{} cannot be written: {error}.", path.display())))?;
    }
    if wish.config.owner(&mesh.entry.mesh_id)?.as_ref() != Some(&mesh.owner) {
        wish.config.put_owner(mesh.owner.clone())?;
    }
    let entry = wish.config.update(|config| {
        // An earlier first mesh that no broker has any more would only stand in the way of its name.
        config.meshes.retain(|known| {
            known.mesh_id == mesh.entry.mesh_id
                || !store::is_first(known)
                || Store::of_entry(known).is_some_and(|store| store != *wish.store)
        });
        if config.by_id(&mesh.entry.mesh_id).is_none() {
            config.put_mesh(mesh.entry.clone());
        }
        let known = config.meshes.iter_mut().find(|known| known.mesh_id == mesh.entry.mesh_id);
        let known = known.ok_or_else(|| CliError::internal("The new mesh is not in the config."))?;
        known.broker_url.clone_from(&mesh.entry.broker_url);
        if let Some(note) = wish.store.holder() {
            store::follow(known, &note);
        }
        let still_auto = auto && (store::is_auto(known) || !store::is_local(known));
        store::mark(known, wish.store, still_auto);
        Ok::<_, CliError>(known.clone())
    })?;
    Ok(LocalMesh { entry, owner: mesh.owner })
}

/// A mesh of this slug beside the first one on the same broker: found again, or made. Blocking.
pub(super) fn further(
    cx: &Context,
    store: &Store,
    first: &LocalMesh,
    slug: &str,
    name: Option<&str>,
) -> Result<LocalMesh, CliError> {
    let known = cx.store.load()?.by_slug(slug).cloned();
    if let Some(entry) = known {
        let owner = cx.store.owner(&entry.mesh_id)?;
        return match owner.filter(|_| Store::of_entry(&entry).as_ref() == Some(store)) {
            Some(owner) => {
                Ok(LocalMesh { entry: MeshEntry { broker_url: first.entry.broker_url.clone(), ..entry }, owner })
            }
            None => Err(CliError::new(
                ExitCode::AlreadyExists,
                "already_exists",
                format!("`{slug}` is a mesh that you have joined; this broker does not serve it."),
            )
            .hint("Choose another name with --mesh.")),
        };
    }
    // Those of the first mesh know the member's name.
    let own = enrolment::members(&first.entry)?.into_iter().find(|member| member.pubkey.to_hex() == first.entry.pubkey);
    let name = name.map(str::to_owned).or(own.map(|own| own.display_name)).unwrap_or_else(|| "owner".into());
    let token = store.operator_token();
    let keys = cx.store.draft(&format!("create {} {slug}", store.dir().display()))?;
    let made = enrolment::create_mesh(&MeshWish {
        broker_url: &first.entry.broker_url,
        slug,
        title: None,
        display_name: &name,
        operator_token: token.as_ref().map(|token| token.as_str()),
        keys: &keys,
    })?;
    let mut entry = made.entry;
    store::mark_further(&mut entry, store);
    if let Some(note) = store.holder() {
        store::follow(&mut entry, &note);
    }
    cx.store.put_owner(made.owner.clone())?;
    cx.store.update(|config| Ok::<_, CliError>(config.put_mesh(entry.clone())))?;
    if let Err(error) = cx.store.settle_draft(&keys.member.public()) {
        tracing::warn!(%error, "the draft of the keys stays");
    }
    Ok(LocalMesh { entry, owner: made.owner })
}

fn make(wish: &Wish<'_>) -> Result<LocalMesh, CliError> {
    let default =
        || format!("{}-{}", hostname().unwrap_or_else(|| "host".into()), wish.env.text("USER").unwrap_or("user"));
    let configured = wish.config.load()?.display_name;
    let name = wish.name.map(str::to_owned).or(configured).unwrap_or_else(default);
    let token = wish.store.operator_token();
    let mut number = 1;
    let made = loop {
        let slug = if number == 1 { wish.slug.to_owned() } else { format!("{}-{number}", wish.slug) };
        let mesh = MeshWish {
            broker_url: wish.broker_url,
            slug: &slug,
            title: None,
            display_name: &name,
            operator_token: token.as_ref().map(|token| token.as_str()),
            keys: &Keys::random(),
        };
        match enrolment::create_mesh(&mesh) {
            Err(error) if error.code == "already_exists" && number < MAX_ATTEMPTS => number += 1,
            other => break other?,
        }
    };
    Ok(LocalMesh { entry: made.entry, owner: made.owner })
}
