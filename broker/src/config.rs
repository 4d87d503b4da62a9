//! What an operator can set: defaults < TOML file < environment < flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use claudemesh_protocol::limits as wire;
use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::features::services::host::settings::Settings as Services;
use crate::quota::Quotas;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{path}`: {error}")]
    Read {
        /// As given.
        path: PathBuf,
        /// From the system.
        error: std::io::Error,
    },
    /// The file is not valid.
    #[error("the configuration file `{path}` is not valid: {error}")]
    Parse {
        /// As given.
        path: PathBuf,
        /// With line and key.
        error: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("`{key}`: {message}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was expected.
        message: String,
    },
}

/// Whether rate, pair and trace limits apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LimitsMode {
    /// As the configuration says.
    #[default]
    Default,
    /// None: benchmarks and trusted networks.
    Off,
}

/// The broker's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Unix socket to listen on as well; only this user can connect to it. None when absent.
    pub listen_unix: Option<PathBuf>,
    /// Address on which `/metrics` answers anyone who reaches it. On `listen` it answers this machine only, and no one through a
    /// proxy.
    pub metrics_listen: Option<SocketAddr>,
    /// Where SQLite, files and the lock live.
    pub data_dir: PathBuf,
    /// `sqlite:PATH` or `postgres://…`; the SQLite file in `data_dir` when absent.
    pub database_url: Option<String>,
    /// Bytes the SQLite file may grow to; then new messages are refused with `storage_full`. As much as the disk holds when
    /// absent.
    pub database_max_bytes: Option<u64>,
    /// How the outside reaches this broker, e.g. `https://mesh.example.org`; made from the request's Host when absent.
    pub public_url: Option<String>,
    /// `default` or `off`.
    pub limits: LimitsMode,
    /// The numbers behind `limits = "default"`.
    pub limit: Limits,
    /// Connection handling.
    pub connections: Connections,
    /// Where the bytes of files are kept.
    pub files: Files,
    /// MCP servers that this broker hosts.
    pub services: Services,
    /// HTTP worker threads; one per core when absent.
    pub workers: Option<usize>,
    /// Logging.
    pub log: Log,
}

/// Makes [`Limits`] from the list of rates, so that none is forgotten where all are switched off.
macro_rules! rates {
    ($($(#[$doc:meta])* $name:ident = $default:expr;)*) => {
        /// Rate limits, of which 0 switches one off, and the bounds of what is kept.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u32,)*
            /// Bounds of what meshes and members keep and write, by name; what is not named has its default.
            pub quotas: Quotas,
            #[serde(skip_serializing)]
            state: Moved,
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* quotas: Quotas::default(), state: Moved }
            }
        }

        impl Limits {
            /// Every rate switched off. What meshes and members keep stays bounded as it was.
            #[must_use]
            pub fn without_rates(self) -> Self {
                Self { $($name: 0,)* quotas: self.quotas.without_rates(), state: Moved }
            }
        }
    };
}

rates! {
    /// Frames a second from one connection.
    frames_per_second = wire::FRAMES_PER_SECOND;
    /// Messages a minute from one member.
    member_per_minute = wire::MEMBER_PER_MINUTE;
    /// Messages a minute from one sender to one recipient.
    pair_per_minute = wire::PAIR_PER_MINUTE;
    /// Messages of one trace in ten minutes.
    trace_budget = wire::TRACE_BUDGET;
    /// Hook calls a minute per token and process.
    hook_per_minute = wire::HOOK_PER_MINUTE;
    /// Enrolment requests a minute per address.
    enrol_per_minute = 120;
}

/// The section `[limit.state]` of an older file: it is refused with a hint.
#[derive(Clone, Debug, Default, PartialEq)]
struct Moved;

impl<'de> Deserialize<'de> for Moved {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "`[limit.state]` has moved to `[limit.quotas]`: write `state.keys_per_mesh = …` there, and so on",
        ))
    }
}

/// Connection handling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// Connections per mesh.
    pub max_per_mesh: usize,
    /// Sockets that have not said hello yet, over the whole broker.
    pub max_unauthenticated: usize,
    /// Seconds a closed socket keeps its place.
    pub lease_seconds: u32,
    /// Seconds until `working` without activity becomes `idle`.
    pub working_ttl_seconds: u32,
    /// Seconds a mesh without connections stays in memory.
    pub idle_mesh_seconds: u32,
}

/// Where the bytes of files are kept. Keys of a bucket come from the environment (`AWS_ACCESS_KEY_ID` and its like) only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// `s3://bucket/prefix` or `file:///folder`; the folder `files` in the data directory when absent.
    pub url: Option<String>,
    /// Address of an S3 server other than Amazon's, e.g. `http://127.0.0.1:9000`; from `AWS_ENDPOINT` when absent.
    pub endpoint: Option<String>,
    /// From `AWS_REGION` when absent.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of URLs and not in the host's name; most servers other than Amazon's want it, and so
    /// it is when absent.
    pub path_style: Option<bool>,
    /// Clients read from the bucket itself, by URLs that the broker signs. For buckets that they can reach.
    pub presign: bool,
    /// With `presign`: the address by which clients reach the bucket, when it is another one than `endpoint`.
    pub presign_endpoint: Option<String>,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `json` or `text`.
    pub format: LogFormat,
    /// A `tracing` filter, e.g. `info,claudemesh_broker=debug`.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7900)),
            listen_unix: None,
            metrics_listen: None,
            data_dir: PathBuf::from("claudemesh-data"),
            database_url: None,
            database_max_bytes: None,
            public_url: None,
            limits: LimitsMode::Default,
            limit: Limits::default(),
            connections: Connections::default(),
            files: Files::default(),
            services: Services::default(),
            workers: None,
            log: Log::default(),
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max_per_mesh: wire::MAX_CONNECTIONS_PER_MESH,
            max_unauthenticated: 4_096,
            lease_seconds: u32::try_from(wire::LEASE_GRACE.as_secs()).unwrap_or(90),
            working_ttl_seconds: u32::try_from(wire::WORKING_TTL.as_secs()).unwrap_or(600),
            idle_mesh_seconds: 300,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: "info".into() }
    }
}

impl Config {
    /// Reads a TOML file over the defaults.
    ///
    /// # Errors
    /// The file is missing, is not TOML, or has unknown keys.
    pub fn from_file(path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.into(), error })?;
        Self::parse(&text, path)
    }

    /// Reads TOML text over the defaults; `path` is only named in the error.
    ///
    /// # Errors
    /// The text is not TOML, or has unknown keys.
    pub fn parse(text: &str, path: &std::path::Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Parse { path: path.into(), error: Box::new(error) })
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ConfigError::Value`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |key, message: &str| Err(ConfigError::Value { key, message: message.into() });
        if let Some(url) = &self.public_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return fail("public_url", "expected an http:// or https:// URL");
        }
        if let Some(url) = &self.files.url {
            crate::blobs::check_url(url).map_err(|message| ConfigError::Value { key: "files.url", message })?;
        }
        for (key, endpoint) in
            [("files.endpoint", &self.files.endpoint), ("files.presign_endpoint", &self.files.presign_endpoint)]
        {
            if endpoint.as_ref().is_some_and(|url| !(url.starts_with("http://") || url.starts_with("https://"))) {
                return fail(key, "expected an http:// or https:// URL");
            }
        }
        if self.files.presign && !self.files.url.as_ref().is_some_and(|url| url.starts_with("s3://")) {
            return fail("files.presign", "expected `files.url` to name a bucket: a folder has no URLs");
        }
        if self.connections.max_per_mesh == 0 {
            return fail("connections.max_per_mesh", "expected at least 1");
        }
        if self.connections.max_unauthenticated == 0 {
            return fail("connections.max_unauthenticated", "expected at least 1");
        }
        if self.database_max_bytes.is_some_and(|bytes| bytes < 1 << 20) {
            return fail("database_max_bytes", "expected at least 1 MiB");
        }
        if let Err(message) = self.limit.quotas.check(&Features::quotas()) {
            return fail("limit.quotas", &message);
        }
        if let Err((key, message)) = self.services.check() {
            return fail(key, message);
        }
        if self.workers == Some(0) {
            return fail("workers", "expected at least 1");
        }
        Ok(())
    }

    /// The database to open.
    pub fn database_url(&self) -> String {
        self.database_url.clone().unwrap_or_else(|| format!("sqlite:{}", self.data_dir.join("claudemesh.db").display()))
    }

    /// The limits in force.
    pub fn effective_limits(&self) -> Limits {
        match self.limits {
            LimitsMode::Default => self.limit.clone(),
            LimitsMode::Off => self.limit.clone().without_rates(),
        }
    }

    /// Whether only this machine can reach the broker, so that anyone who can may create a mesh.
    pub fn loopback_only(&self) -> bool {
        self.listen.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/broker.example.toml");
        let example = Config::from_file(path.as_ref()).unwrap();
        assert_eq!(example, Config::default());
        example.validate().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        // Keys without a default are shown as comments.
        for key in ["listen_unix", "metrics_listen", "database_url", "database_max_bytes", "public_url", "workers"] {
            assert!(text.contains(&format!("# {key} = ")), "{key}");
        }
        for key in ["url", "endpoint", "region", "path_style", "presign_endpoint"] {
            assert!(text.contains(&format!("# {key} = ")), "files.{key}");
        }
        for key in ["docker", "runner", "folder", "npm_registry", "pypi_index"] {
            assert!(text.contains(&format!("# {key} = ")), "services.{key}");
        }
        for quota in Features::quotas() {
            let line = format!("# {}\n# {} = {}\n", quota.doc, quota.name, quota.default);
            assert!(text.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_store_of_files_is_checked_before_anything_is_opened() {
        let check = |text: &str| Config::parse(text, "broker.toml".as_ref()).unwrap().validate();
        check("[files]\nurl = \"s3://files/team\"\nendpoint = \"http://127.0.0.1:9000\"\npresign = true").unwrap();
        for (bad, key) in [
            ("url = \"gs://files\"", "files.url"),
            ("url = \"s3://key:secret@files\"", "files.url"),
            ("url = \"s3://files\"\nendpoint = \"127.0.0.1\"", "files.endpoint"),
            ("presign = true", "files.presign"),
        ] {
            let error = check(&format!("[files]\n{bad}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}`")) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn quotas_are_set_by_name_and_a_wrong_name_is_an_error() {
        let parse = |text: &str| Config::parse(text, "broker.toml".as_ref()).unwrap();
        let off = "limits = \"off\"\n[limit.quotas]\n\"topics.per_mesh\" = 7";
        let config = parse(off);
        config.validate().unwrap();
        let topics = Features::quotas().into_iter().find(|quota| quota.name == "topics.per_mesh").unwrap();
        assert_eq!(config.effective_limits().quotas.value(topics), 7, "what is kept stays bounded without rates");
        let wrong = parse("[limit.quotas]\n\"topics.per_mish\" = 7").validate().unwrap_err();
        assert!(wrong.to_string().starts_with("`limit.quotas`: `topics.per_mish` is no quota"), "{wrong}");
        let large = parse("[limit.quotas]\nstate.bytes_per_value = 262145").validate().unwrap_err();
        assert!(large.to_string().ends_with("`state.bytes_per_value`: expected at most 262144"), "{large}");
        let old = Config::parse("[limit.state]\nkeys_per_mesh = 7", "broker.toml".as_ref()).unwrap_err();
        assert!(old.to_string().contains("`[limit.state]` has moved to `[limit.quotas]`"), "{old}");
    }
}
