//! The mesh of this machine: sessions on one machine work together with nothing configured and no server.
//!
//! One of the processes that use the mesh serves it (the *holder*): the MCP server of a session, `claudemesh up`, or a verb for
//! as long as it runs. The others are candidates; when the holder goes, one of them serves within a moment. The rest of the
//! client connects to the holder as to any broker. The only place of the client that knows the broker.
//!
//! - [`store`]: where the data are, who serves. [`unresponsive_holder`]: what becomes of a holder that does not answer. In every build.
//! - `takeover`: the queue of those who may serve. `holder`: serving. `mesh`: the mesh itself. `serve`, `demo`: the verb `up`.

mod background;
pub mod cli;
#[cfg(feature = "local-broker")]
mod demo;
#[cfg(not(feature = "local-broker"))]
mod disabled;
#[cfg(feature = "local-broker")]
mod ensure;
#[cfg(feature = "local-broker")]
mod holder;
#[cfg(feature = "local-broker")]
mod listen;
#[cfg(feature = "local-broker")]
mod mesh;
#[cfg(feature = "local-broker")]
mod port;
#[cfg(feature = "local-broker")]
mod serve;
pub mod store;
#[cfg(feature = "local-broker")]
mod takeover;
pub mod unresponsive_holder;

pub use store::{is_first, is_local};

#[cfg(not(feature = "local-broker"))]
pub use disabled::{
    Candidate, address_of, create_mesh, ensure_served, join, may_create, own_broker, release, serves_now,
    tell_if_alone, up,
};
#[cfg(feature = "local-broker")]
pub use ensure::{
    address_of, create_mesh, ensure_served, join, may_create, own_broker, release, serves_now, tell_if_alone,
};
#[cfg(feature = "local-broker")]
pub use serve::up;
#[cfg(feature = "local-broker")]
pub use takeover::Candidate;

use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{Config, MeshEntry};
use crate::context::Context;
use crate::paths::Env;
use store::Store;

/// The store that a session of this environment may serve from; see [`store::wanted`].
pub fn wanted(config: &Config, env: &Env, config_dir: &Path, only: Option<&str>) -> Option<Store> {
    if cfg!(feature = "local-broker") { store::wanted(config, env, config_dir, only) } else { None }
}

/// The stores of this machine that this config uses: the usual one first.
fn stores(cx: &Context) -> Vec<Store> {
    let mut all = vec![Store::locate(&cx.env, cx.store.dir())];
    let meshes = cx.store.load().map(|config| config.meshes).unwrap_or_default();
    for store in meshes.iter().filter_map(Store::of_entry) {
        if !all.contains(&store) {
            all.push(store);
        }
    }
    all
}

/// The store whose broker is at this URL.
fn store_at(cx: &Context, broker_url: &str) -> Option<Store> {
    stores(cx).into_iter().find(|store| store.is_at(broker_url))
}

/// The operator's token of the broker at this URL, when it is this machine's own.
pub fn operator_token(cx: &Context, broker_url: &str) -> Option<Zeroizing<String>> {
    store_at(cx, broker_url)?.operator_token()
}

/// Marks a new entry whose broker is this machine's own: any command that needs it starts the broker then.
pub fn mark_if_own(cx: &Context, entry: &mut MeshEntry) {
    if let Some(store) = store_at(cx, &entry.broker_url).filter(|_| !is_local(entry)) {
        store::mark_further(entry, &store);
        if let Some(note) = store.holder() {
            store::follow(entry, &note);
        }
    }
}
