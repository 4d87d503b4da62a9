//! `mcp-servers.json`: the servers that this machine runs for its meshes. `claudemesh serve` runs those without a session, a session
//! runs its own again when it is resumed. The file may hold tokens of servers, so it is as private as the keys beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use claudemesh_protocol::id::MeshId;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ConfigStore};
use crate::files;

/// Name of the file in the config folder.
const FILE: &str = "mcp-servers.json";
/// Largest file that is read: some thousand servers.
const MAX_BYTES: u64 = 4 << 20;

/// How a server is reached.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "snake_case")]
pub enum Reach {
    /// A command of this machine, over standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
        /// Variables beside those that every server gets.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Where it runs.
        #[serde(default)]
        cwd: Option<PathBuf>,
    },
    /// An address, over Streamable HTTP.
    Http {
        /// `http://` or `https://`.
        url: String,
        /// Headers of each request.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
}

impl fmt::Debug for Reach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments, variables, headers and addresses may hold secrets.
        match self {
            Self::Stdio { command, .. } => write!(out, "Stdio({command})"),
            Self::Http { .. } => out.write_str("Http"),
        }
    }
}

/// A server that is to be run for a mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostedServer {
    /// Its name in the mesh.
    pub name: String,
    /// Row id of the mesh.
    pub mesh_id: MeshId,
    /// What it is good for; what the server says of itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How it is reached.
    #[serde(flatten)]
    pub reach: Reach,
    /// The mesh keeps it when it is not run.
    #[serde(default)]
    pub persistent: bool,
    /// The host's id of the session that runs it; `claudemesh serve` runs the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    #[serde(default)]
    servers: Vec<HostedServer>,
}

impl ConfigStore {
    /// The file.
    pub fn mcp_servers_path(&self) -> PathBuf {
        self.dir().join(FILE)
    }

    /// The servers that are to be run.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn hosted_servers(&self) -> Result<Vec<HostedServer>, ConfigError> {
        Ok(read(&self.mcp_servers_path())?.servers)
    }

    /// Adds a server, in the place of one of that name in that mesh.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn keep_server(&self, server: HostedServer) -> Result<(), ConfigError> {
        self.change_servers(|servers| {
            servers.retain(|other| other.name != server.name || other.mesh_id != server.mesh_id);
            servers.push(server);
        })
    }

    /// Removes a server; `false` when it is not there.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn forget_server(&self, mesh: &MeshId, name: &str) -> Result<bool, ConfigError> {
        let mut found = false;
        self.change_servers(|servers| {
            let before = servers.len();
            servers.retain(|other| other.name != name || other.mesh_id != *mesh);
            found = servers.len() < before;
        })?;
        Ok(found)
    }

    fn change_servers(&self, change: impl FnOnce(&mut Vec<HostedServer>)) -> Result<(), ConfigError> {
        let path = self.mcp_servers_path();
        let _lock = self.lock()?;
        let mut file = read(&path)?;
        change(&mut file.servers);
        let io = |error| ConfigError::Io { path: path.clone(), action: "written", error };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| io(error.into()))?;
        files::write_private(&path, &text).map_err(io)
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let io = |error| ConfigError::Io { path: path.to_path_buf(), action: "read", error };
    let Some(bytes) = files::read_limited(path, MAX_BYTES).map_err(io)? else { return Ok(File::default()) };
    let damaged =
        |error: serde_json::Error| ConfigError::Damaged { path: path.to_path_buf(), reason: error.to_string() };
    serde_json::from_slice(files::without_mark(&bytes)).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, mesh: &str) -> HostedServer {
        let env = [("TOKEN".to_owned(), "xyzzy".to_owned())].into();
        let reach = Reach::Stdio { command: "server".into(), args: vec!["--token=xyzzy".into()], env, cwd: None };
        HostedServer {
            name: name.into(),
            mesh_id: mesh.into(),
            description: None,
            reach,
            persistent: true,
            session: None,
        }
    }

    #[test]
    fn servers_are_kept_replaced_and_forgotten_by_name_and_mesh() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        assert_eq!(store.hosted_servers().unwrap(), []);
        let other = HostedServer { description: Some("d".into()), ..server("a", "m") };
        for one in [server("a", "m"), server("a", "n"), server("b", "m"), other.clone()] {
            store.keep_server(one).unwrap();
        }
        assert_eq!(store.hosted_servers().unwrap(), [server("a", "n"), server("b", "m"), other]);
        assert!(store.forget_server(&"m".into(), "b").unwrap());
        assert!(!store.forget_server(&"m".into(), "b").unwrap());
        assert_eq!(store.hosted_servers().unwrap().len(), 2);
        #[cfg(unix)]
        assert_eq!(files::mode_of(&store.mcp_servers_path()), Some(0o600));
        assert!(!format!("{:?}", server("a", "m")).contains("xyzzy"));
        let url = Reach::Http { url: "http://u:xyzzy@h/mcp".into(), headers: BTreeMap::new() };
        assert!(!format!("{url:?}").contains("xyzzy"));
    }
}
