//! What every verb gets: environment, config, output and the mesh it is about. [`connect`] opens its connection.

use std::path::PathBuf;
use std::sync::Once;

use clap::Args;

use crate::config::session_dir::SessionInfo;
use crate::config::{Config, ConfigStore, MeshEntry};
use crate::error::CliError;
use crate::local::{self, store::Store};
use crate::output::{Format, Output, clean};
use crate::paths::{self, Env};

pub mod confirm;
pub mod connect;
pub mod several;

/// What every verb gets: environment, config folder, output, chosen mesh.
#[derive(Clone, Debug)]
pub struct Context {
    /// The environment of the process.
    pub env: Env,
    /// The config folder.
    pub store: ConfigStore,
    /// How to print.
    pub out: Output,
    /// `--mesh`, when given.
    pub mesh: Option<String>,
}

impl Context {
    /// From the global flags.
    pub fn new(env: Env, global: &GlobalArgs) -> Self {
        let format = Format::of_flag(global.json.as_deref());
        let store = ConfigStore::locate(&env, global.config_dir.as_deref());
        Self { out: Output::new(&env, format, global.quiet), store, mesh: global.mesh.clone(), env }
    }

    /// The mesh this verb is about: `--mesh`, else the mesh of the launched session this runs in, else `CLAUDEMESH_MESH`, else
    /// this machine's own with `CLAUDEMESH_LOCAL=1`, else the only one, else the default of `claudemesh use`. A mesh of this
    /// machine is served when this returns.
    ///
    /// # Errors
    /// See [`Config::choose`]; exit 10 when the config is damaged.
    pub fn mesh_entry(&self) -> Result<MeshEntry, CliError> {
        let wished = self.wished_mesh()?;
        let config = self.meant(wished.as_deref())?;
        if wished.is_none()
            && let Some(store) = local::may_create(self)
        {
            let known = config
                .meshes
                .into_iter()
                .find(|entry| local::is_first(entry) && Store::of_entry(entry).as_ref() == Some(&store));
            return known
                .map_or_else(|| local::create_mesh(self, &store, false), |entry| local::ensure_served(self, entry));
        }
        let chosen = config.choose(wished.as_deref()).map_err(|error| match error.code.as_str() {
            // A variable that leads into the wrong folder looks like that.
            "no_meshes" => {
                let looked = format!("Looked into {}.", self.store.dir().display());
                let left = self.store.left_meshes().unwrap_or_default();
                let back = left.last().map(|left| {
                    format!(
                        "`claudemesh mesh rejoin {}` comes back into the one that was left.",
                        clean(&left.mesh.slug)
                    )
                });
                let parts = [back.as_deref(), error.hint.as_deref(), Some(looked.as_str())];
                let hint = parts.into_iter().flatten().collect::<Vec<&str>>().join(" ");
                error.hint(hint)
            }
            _ => error,
        })?;
        if wished.is_none() && config.meshes.len() > 1 {
            self.name_the_default(chosen);
        }
        local::ensure_served(self, chosen.clone())
    }

    /// Says once which of several meshes a command is about that names none.
    fn name_the_default(&self, chosen: &MeshEntry) {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            self.out.remark(&format!("In {}, the default; --mesh chooses another.", clean(&chosen.slug)))
        });
    }

    /// All meshes a reading verb is about: `--mesh` or the session's mesh gives one, else all that are joined.
    ///
    /// # Errors
    /// As [`Context::mesh_entry`], and `no_meshes` when none is joined.
    pub fn mesh_entries(&self) -> Result<Vec<MeshEntry>, CliError> {
        let wished = self.wished_mesh()?;
        let config = self.meant(wished.as_deref())?;
        if wished.is_some() || config.meshes.is_empty() {
            return self.mesh_entry().map(|entry| vec![entry]);
        }
        let reach = |entry: MeshEntry| {
            local::ensure_served(self, entry.clone()).unwrap_or_else(|error| {
                // The other meshes can be reached all the same; connecting to this one says what is wrong.
                tracing::debug!(mesh.slug = entry.slug, %error, "no one serves a mesh");
                entry
            })
        };
        Ok(config.meshes.into_iter().map(reach).collect())
    }

    /// The config without the meshes that are meant only when they are named, unless one is named.
    ///
    /// # Errors
    /// Exit 10 when the config is damaged.
    pub fn meant(&self, wished: Option<&str>) -> Result<Config, CliError> {
        let mut config = self.store.load()?;
        if wished.is_none() {
            config.meshes = local::store::meant(&config, &self.env, self.store.dir());
        }
        Ok(config)
    }

    fn wished_mesh(&self) -> Result<Option<String>, CliError> {
        match &self.mesh {
            Some(slug) => Ok(Some(slug.clone())),
            None => {
                let of_session = SessionInfo::of_env(&self.env)?.and_then(|info| info.mesh_slug);
                Ok(of_session.or_else(|| self.env.text(paths::MESH).map(str::to_owned)))
            }
        }
    }
}

/// Flags that every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// Mesh to work on, by its short name [env: CLAUDEMESH_MESH]
    #[arg(long, global = true, help_heading = "For every command", value_name = "SLUG")]
    pub mesh: Option<String>,
    /// Print JSON; `--json=a,b` prints only these fields.
    #[arg(long, global = true, help_heading = "For every command", value_name = "FIELDS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub json: Option<String>,
    /// Print only what is essential.
    #[arg(long, short, global = true, help_heading = "For every command")]
    pub quiet: bool,
    /// Folder with keys and joined meshes [default: $CLAUDEMESH_CONFIG_DIR or ~/.claudemesh]
    #[arg(long, global = true, help_heading = "For every command", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
}
