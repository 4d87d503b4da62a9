//! The mesh of this machine: sessions on one machine work together with nothing configured and no server.
//!
//! One of the processes that use the mesh serves it (the *holder*): the MCP server of a session, `claudemesh up`, or a verb for
//! as long as it runs. The others are candidates; when the holder goes, one of them serves within a moment. The rest of the
//! client connects to the holder as to any broker. The only place of the client that knows the broker.
//!
//! - [`store`]: where the data are, who serves. [`unresponsive_holder`]: what becomes of a holder that does not answer. In every build.
//! - `takeover`: the queue of those who may serve. `holder`: serving. `mesh`: the mesh itself. `serve`, `demo`: the verb `up`.

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
mod mesh;
#[cfg(feature = "local-broker")]
mod port;
#[cfg(feature = "local-broker")]
mod serve;
pub mod store;
#[cfg(feature = "local-broker")]
mod takeover;
pub mod unresponsive_holder;

pub use store::is_local;

#[cfg(not(feature = "local-broker"))]
pub use disabled::{Candidate, create_mesh, ensure_served, join, may_create, release, serves_now, up};
#[cfg(feature = "local-broker")]
pub use ensure::{create_mesh, ensure_served, join, may_create, release, serves_now};
#[cfg(feature = "local-broker")]
pub use serve::up;
#[cfg(feature = "local-broker")]
pub use takeover::Candidate;

use std::path::Path;

use crate::config::Config;
use crate::paths::Env;
use store::Store;

/// The store that a session of this environment may serve from; see [`store::wanted`].
pub fn wanted(config: &Config, env: &Env, config_dir: &Path, only: Option<&str>) -> Option<Store> {
    if cfg!(feature = "local-broker") { store::wanted(config, env, config_dir, only) } else { None }
}
