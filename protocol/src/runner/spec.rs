//! What a service is: its source, how it is started, what it may use.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{MAX_ARGS, MAX_BUNDLE_BYTES, MAX_ENV, MAX_ID_CHARS, MAX_PATH_BYTES, MAX_VALUE_BYTES};

/// Where a service comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// A package of npm.
    Npm {
        /// `name`, `@scope/name`, each with `@version` or without.
        package: String,
        /// Which of its programs; the one that is named as the package, or its only one, when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bin: Option<String>,
    },
    /// A package of PyPI.
    Pypi {
        /// `name` or `name==version`, with extras (`name[cli]`) or without.
        package: String,
        /// Which of its programs; the one that is named as the package, or its only one, when absent; else the module of its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bin: Option<String>,
    },
    /// A repository.
    Git {
        /// `https://…`, without credentials in it.
        url: String,
        /// The commit: 40 or 64 hex digits.
        commit: String,
        /// Value of the `Authorization` header for that host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        auth: Option<Text>,
    },
    /// A bundle, which is the body of [`super::Ask::Install`].
    Zip {
        /// Its SHA-256, 64 hex digits.
        sha256: String,
        /// Its length; at most [`MAX_BUNDLE_BYTES`].
        bytes: u64,
    },
    /// A program of the image.
    Command {
        /// Its name or its path. Never read by a shell.
        command: String,
    },
}

/// With what a service of a repository or a bundle runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Node.
    Node,
    /// Python.
    Python,
    /// Bun.
    Bun,
}

/// A value: plain, or sealed for the runner ([`super::sealing`]).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// As it is.
    Plain(String),
    /// Base64.
    Sealed(String),
}

impl fmt::Debug for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Also a plain one may be something that its owner did not think to seal.
        out.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Sealed(_) => "Sealed(…)",
        })
    }
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Letters, digits and `_`, not beginning with a digit. Those of the runner are refused: `PATH`, `HOME`, the proxy's, `LD_*`.
    pub name: String,
    /// Its value, without NUL.
    pub value: Text,
}

/// A file with a secret, which only the service can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Relative to the folder `secrets` of the service, which `CLAUDEMESH_SECRETS` names; no `..`.
    pub path: String,
    /// Its content; what is sealed may be any bytes.
    pub value: Text,
}

/// What a service may use. 0 is: no limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory of all its processes, where the container lets the runner make control groups; else the data of each process.
    pub memory_bytes: u64,
    /// Thousandths of a processor, with control groups.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub processes: u32,
    /// Open files of each process; 1,024 when 0.
    pub open_files: u32,
    /// Largest file that it may write; its folder is watched for the same number, and the service is stopped beyond it.
    pub disk_bytes: u64,
    /// Lines that are kept of its log; 1,000 when 0.
    pub log_lines: u32,
    /// Restarts after crashes before it is given up; each counts for ten minutes. 5 when 0.
    pub restarts: u32,
}

/// Where packages come from. Installing goes the same way out as everything else, with [`super::Phase::Install`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// URL of an npm registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npm: Option<String>,
    /// URL of a simple index of Python packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pypi: Option<String>,
    /// More variables for installers only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// As what the runner introduces itself to the MCP server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientSide {
    /// Name of the client.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its capabilities, as in `initialize`: a server may list fewer tools to a client with less.
    pub capabilities: Map<String, Value>,
    /// The newest revision of MCP to ask for; the newest that the runner knows when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Default for ClientSide {
    fn default() -> Self {
        Self {
            name: "claudemesh".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            capabilities: Map::new(),
            revision: None,
        }
    }
}

/// A service, as the runner installs and runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Another one for each deploy: `a-z 0-9 -`, 1 to [`MAX_ID_CHARS`]. It names its folder. An old and a new one of the same name can run
    /// beside each other.
    pub id: String,
    /// Its name in the mesh, to which secrets are sealed.
    pub name: String,
    /// The mesh, to which secrets are sealed.
    pub mesh: String,
    /// Where it comes from.
    pub source: Source,
    /// How it runs; found out from its files when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Arguments for its program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Files with secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SecretFile>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Let packages run scripts while they are installed (npm), and build from source (Python).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub install_scripts: bool,
    /// Where packages come from.
    #[serde(default)]
    pub registries: Registries,
    /// How the runner introduces itself.
    #[serde(default)]
    pub client: ClientSide,
    /// How long installing may take, in milliseconds; five minutes when 0.
    #[serde(default)]
    pub install_timeout_ms: u64,
    /// How long the server may take until it has answered `initialize` and its lists, in milliseconds; 30 seconds when 0.
    #[serde(default)]
    pub start_timeout_ms: u64,
}

/// What is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}")]
pub struct SpecError {
    /// The field.
    pub field: String,
    /// What was expected.
    pub expected: &'static str,
}

fn wrong<T>(field: impl Into<String>, expected: &'static str) -> Result<T, SpecError> {
    Err(SpecError { field: field.into(), expected })
}

/// Names that belong to the runner, or by which a value would make another program of a service.
fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 8] =
        ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "NODE_OPTIONS", "CLAUDEMESH_SECRETS"];
    const BEGINNINGS: [&str; 3] = ["LD_", "CLAUDEMESH_RUNNER", "BASH_FUNC"];
    const PROXY: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|start| name.starts_with(start))
        || PROXY.contains(&name.to_ascii_uppercase().as_str())
}

fn is_env_name(name: &str) -> bool {
    name.len() <= 256
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '_')
}

/// Whether a path stays in its folder: relative, of plain names only.
fn is_inner_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= MAX_PATH_BYTES
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
        && !path.contains(['\\', '\0'])
}

fn is_package(package: &str, more: &str) -> bool {
    package.len() <= 300
        && package.starts_with(|first: char| first.is_ascii_alphanumeric())
        && package
            .chars()
            .all(|symbol| symbol.is_ascii_alphanumeric() || "-_.".contains(symbol) || more.contains(symbol))
}

/// A slash stands in the scope only: elsewhere npm reads a repository or a folder.
fn is_npm_package(package: &str) -> bool {
    let name = match package.strip_prefix('@') {
        Some(scoped) => {
            scoped.split_once('/').filter(|(scope, _)| !scope.is_empty() && is_package(scope, "")).map(|(_, name)| name)
        }
        None => Some(package),
    };
    name.is_some_and(|name| is_package(name, "@^~"))
}

fn is_hex(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Source {
    fn check(&self) -> Result<(), SpecError> {
        let (package, bin) = match self {
            Self::Npm { package, bin } => (is_npm_package(package), bin),
            Self::Pypi { package, bin } => (is_package(package, "=[],"), bin),
            Self::Git { url, commit, .. } => {
                let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
                if host.is_empty()
                    || host.starts_with(['/', '-'])
                    || url.len() > 2_048
                    || url.chars().any(|symbol| symbol.is_control() || symbol == ' ')
                {
                    return wrong("source.url", "an http(s) URL");
                }
                if host.split('/').next().is_some_and(|authority| authority.contains('@')) {
                    return wrong("source.url", "a URL without credentials, which `auth` carries");
                }
                return if is_hex(commit, &[40, 64]) {
                    Ok(())
                } else {
                    wrong("source.commit", "a commit of 40 or 64 hex digits")
                };
            }
            Self::Zip { sha256, bytes } => {
                if !is_hex(sha256, &[64]) {
                    return wrong("source.sha256", "64 hex digits");
                }
                return if *bytes <= MAX_BUNDLE_BYTES {
                    Ok(())
                } else {
                    wrong("source.bytes", "at most 67108864 bytes")
                };
            }
            Self::Command { command } => {
                let fits = !command.is_empty()
                    && command.len() <= 1_024
                    && !command.contains('\0')
                    && !command.starts_with('-');
                return if fits { Ok(()) } else { wrong("source.command", "the name or path of a program") };
            }
        };
        if !package {
            return wrong("source.package", "the name of a package, with its version or without");
        }
        match bin {
            Some(bin) if !is_inner_path(bin) || bin.contains('/') || bin.starts_with('-') => {
                wrong("source.bin", "the name of a program")
            }
            _ => Ok(()),
        }
    }
}

impl ServiceSpec {
    /// A service with nothing but a source.
    pub fn new(id: impl Into<String>, name: impl Into<String>, mesh: impl Into<String>, source: Source) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            mesh: mesh.into(),
            source,
            runtime: None,
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            limits: Limits::default(),
            install_scripts: false,
            registries: Registries::default(),
            client: ClientSide::default(),
            install_timeout_ms: 0,
            start_timeout_ms: 0,
        }
    }

    /// Checks what both sides check: the broker before it stores a deploy, the runner because it trusts no one.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn check(&self) -> Result<(), SpecError> {
        let id_fits = |symbol: char| symbol.is_ascii_lowercase() || symbol.is_ascii_digit() || symbol == '-';
        if self.id.is_empty()
            || self.id.len() > MAX_ID_CHARS
            || self.id.starts_with('-')
            || !self.id.chars().all(id_fits)
        {
            return wrong("id", "1 to 64 of a-z, 0-9 and -");
        }
        self.source.check()?;
        if self.args.len() > MAX_ARGS || self.args.iter().any(|arg| arg.len() > MAX_VALUE_BYTES || arg.contains('\0')) {
            return wrong("args", "at most 256 arguments of at most 65536 bytes without NUL");
        }
        if self.env.len() > MAX_ENV || self.files.len() > MAX_ENV {
            return wrong("env", "at most 256 variables and files");
        }
        for var in &self.env {
            if !is_env_name(&var.name) || is_reserved(&var.name) {
                return wrong(
                    format!("env.{}", var.name),
                    "a name of letters, digits and _ that is not one of the runner's own",
                );
            }
            if matches!(&var.value, Text::Plain(value) if value.len() > MAX_VALUE_BYTES || value.contains('\0')) {
                return wrong(format!("env.{}", var.name), "at most 65536 bytes without NUL");
            }
        }
        match self.files.iter().find(|file| !is_inner_path(&file.path)) {
            Some(file) => wrong(format!("files.{}", file.path), "a relative path of plain names"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
