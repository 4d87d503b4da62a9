//! From "someone needs the mesh" to "it is served and in the config".

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::holder::Plan;
use super::mesh::{self, LocalMesh};
use super::store;
use super::store::HolderKind;
use super::takeover::{Role, answering};
use super::unresponsive_holder;
use super::{Candidate, Store, is_local};
use crate::config::{ConfigStore, MeshEntry};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::paths::Env;

/// How long a start or a takeover may last; the very first start makes the tables.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The same when a holder that hangs has to be given up first.
const HUNG_PATIENCE: Duration = Duration::from_secs(60);
/// Kept until the process ends: a verb that found no one serving serves for as long as it runs. Ending without a word is
/// as safe as being killed.
static KEPT: Mutex<Option<Candidate>> = Mutex::new(None);

/// What a mesh and its first member are called when they have to be made.
pub(super) struct Naming<'a> {
    /// Short name of the mesh.
    pub(super) mesh: &'a str,
    /// Name of the member, when it is given.
    pub(super) member: Option<&'a str>,
}

/// Nothing was said about names.
const USUAL_NAMES: Naming<'static> = Naming { mesh: mesh::SLUG, member: None };

/// Finds or makes the mesh through the process that serves.
pub(super) fn mesh_of(
    candidate: &Candidate,
    env: &Env,
    config: &ConfigStore,
    store: &Store,
    who: &Naming<'_>,
    auto: bool,
) -> Result<LocalMesh, CliError> {
    let deadline = Instant::now() + HUNG_PATIENCE;
    loop {
        let url = candidate.served(PATIENCE)?;
        let wish = mesh::Wish { env, config, store, broker_url: &url, name: who.member, slug: who.mesh, auto };
        match mesh::ensure(&wish) {
            // The holder died right then; the next one is under way.
            Err(error) if error.exit == ExitCode::Network && Instant::now() < deadline => {
                // Or it hangs.
                unresponsive_holder::look(store);
                std::thread::park_timeout(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// Makes this process a candidate and puts the mesh into the config. Blocks; answers when the mesh is served.
///
/// # Errors
/// Why it cannot be served or kept.
pub fn join(env: &Env, config: &ConfigStore, store: &Store) -> Result<Candidate, CliError> {
    let plan = Plan { store: store.clone(), config: config.clone(), kind: HolderKind::Session, listen: None };
    let candidate = Candidate::start(plan)?;
    let meshes = config.load()?.meshes;
    let mut of_store = meshes.iter().filter(|entry| Store::of_entry(entry).as_ref() == Some(store)).peekable();
    // Who left the first mesh and kept others does not get it back by itself.
    if of_store.peek().is_some() && !of_store.any(store::is_first) && !env.flag(crate::paths::LOCAL) {
        candidate.served(PATIENCE)?;
    } else {
        mesh_of(&candidate, env, config, store, &USUAL_NAMES, !env.flag(crate::paths::LOCAL))?;
    }
    Ok(candidate)
}

/// Makes the mesh of this machine for a verb that found none joined, and serves it until the process ends if no one does.
///
/// # Errors
/// As [`join`].
pub fn create_mesh(cx: &Context, store: &Store, auto: bool) -> Result<MeshEntry, CliError> {
    let plan = plan_of_command(cx, store);
    let candidate = Candidate::start(plan)?;
    let mesh = mesh_of(&candidate, &cx.env, &cx.store, store, &USUAL_NAMES, auto)?;
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(candidate);
    Ok(mesh.entry)
}

/// Gives up what [`create_mesh`] or [`ensure_served`] made this process serve; blocks until it has ended in good order.
pub fn release() {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(candidate) = kept {
        let left = crate::context::connect::block_on(async {
            candidate.leave().await;
            Ok(())
        });
        if let Err(error) = left {
            tracing::warn!(error = error.message, "the local broker was left without a word");
        }
    }
}

/// Whether this verb itself serves the mesh of this machine, so that no one does when it has ended.
pub fn serves_now() -> bool {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.as_ref().is_some_and(|candidate| matches!(candidate.role(), Role::Serving { .. }))
}

/// Says once on stderr that no one serves the mesh when this verb has ended, if that is so; `then` is what it means.
pub fn tell_if_alone(cx: &Context, then: &str) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if serves_now() && !TOLD.swap(true, Ordering::Relaxed) {
        cx.out.remark(&format!("Nothing serves this mesh when this command has ended: {then}"));
    }
}

/// Makes sure that someone serves this mesh when it is one of this machine; answers it with its address of now.
///
/// # Errors
/// Why this process cannot serve it.
pub fn ensure_served(cx: &Context, entry: MeshEntry) -> Result<MeshEntry, CliError> {
    let Some(store) = is_local(&entry).then(|| Store::of_entry(&entry)).flatten() else { return Ok(entry) };
    let mut entry = entry;
    if let Some(note) = answering(&store) {
        store::follow(&mut entry, &note);
        return Ok(entry);
    }
    entry.broker_url = serve(cx, &store)?;
    Ok(entry)
}

/// Serves a store for as long as this process runs, unless another process does first; answers the URL on this machine.
fn serve(cx: &Context, store: &Store) -> Result<String, CliError> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let candidate = match kept.take() {
        Some(candidate) => candidate,
        None => Candidate::start(plan_of_command(cx, store))?,
    };
    let served = candidate.served(PATIENCE);
    *kept = Some(candidate);
    served
}

/// The address of a broker, which is running when it is this machine's own.
///
/// # Errors
/// Why it cannot be served.
pub fn address_of(cx: &Context, broker_url: &str) -> Result<String, CliError> {
    let Some(store) = super::store_at(cx, broker_url) else { return Ok(broker_url.to_owned()) };
    match answering(&store) {
        Some(note) => Ok(note.url),
        None => serve(cx, &store),
    }
}

/// This machine's own broker, for who names none: running when this returns. `None` when there never was one, and when it
/// does not run and another broker is at the usual place.
///
/// # Errors
/// Why it cannot be served.
pub fn own_broker(cx: &Context) -> Result<Option<String>, CliError> {
    let stores = super::stores(cx);
    if let Some(note) = stores.iter().find_map(answering) {
        return Ok(Some(note.url));
    }
    let Some(store) = stores.first() else { return Ok(None) };
    if store.last_holder().is_none() || super::port::taken_by(super::holder::USUAL).is_some() {
        return Ok(None);
    }
    serve(cx, store).map(Some)
}

fn plan_of_command(cx: &Context, store: &Store) -> Plan {
    Plan { store: store.clone(), config: cx.store.clone(), kind: HolderKind::Command, listen: None }
}

/// Which store a verb without a joined mesh may found.
pub fn may_create(cx: &Context) -> Option<Store> {
    cx.env.flag(crate::paths::LOCAL).then(|| Store::locate(&cx.env, cx.store.dir()))
}
