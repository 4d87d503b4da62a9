//! What an operator sets for hosted services.

use serde::{Deserialize, Serialize};

/// What hosts services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKind {
    /// Nothing: this broker hosts none.
    #[default]
    Off,
    /// A container for each mesh.
    Docker,
    /// A process of the broker's own user for each mesh. It isolates nothing: for development only.
    Process,
}

/// Hosted MCP servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `off`, `docker` or `process`. `process` isolates nothing: for development only.
    pub host: HostKind,
    /// With `docker`: address of the engine, `unix:///…` or `tcp://host:port`; the usual one of this machine when absent.
    pub docker: Option<String>,
    /// With `docker`: the image of the runner.
    pub image: String,
    /// With `process`: the program; the one beside the broker's own when absent.
    pub runner: Option<std::path::PathBuf>,
    /// With `process`: where services lie; the folder `runners` in the data directory when absent. Under root services are users
    /// of their own, who have to get there, and the data directory lets no one through.
    pub folder: Option<std::path::PathBuf>,
    /// URL of an npm registry; the usual one when absent.
    pub npm_registry: Option<String>,
    /// URL of a simple index of Python packages; the usual one when absent.
    pub pypi_index: Option<String>,
    /// `host:port` that installers may reach beside the registries.
    pub install_allow: Vec<String>,
    /// `host:port` that services and installers may reach although it has a private address.
    pub allow_private: Vec<String>,
    /// MiB of memory of the container of one mesh.
    pub memory_mb: u32,
    /// Processors of the container of one mesh.
    pub cpus: f64,
    /// Processes and threads of the container of one mesh.
    pub processes: u32,
    /// MiB that the services of one mesh may write.
    pub disk_mb: u32,
    /// Processes and threads of one service.
    pub processes_per_service: u32,
    /// MiB that one service may write.
    pub disk_mb_per_service: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: HostKind::Off,
            docker: None,
            image: concat!("claudemesh/runner:", env!("CARGO_PKG_VERSION")).into(),
            runner: None,
            folder: None,
            npm_registry: None,
            pypi_index: None,
            install_allow: Vec::new(),
            allow_private: Vec::new(),
            memory_mb: 2_048,
            cpus: 2.0,
            processes: 512,
            disk_mb: 2_048,
            processes_per_service: 128,
            disk_mb_per_service: 1_024,
        }
    }
}

impl Settings {
    /// Checks what types cannot; the key and what was expected.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let is_url = |url: &Option<String>| {
            url.as_ref().is_none_or(|url| url.starts_with("https://") || url.starts_with("http://"))
        };
        if !is_url(&self.npm_registry) {
            return Err(("services.npm_registry", "expected an http:// or https:// URL"));
        }
        if !is_url(&self.pypi_index) {
            return Err(("services.pypi_index", "expected an http:// or https:// URL"));
        }
        let is_entry = |entry: &String| {
            let port = entry.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            port.is_some_and(|port| port == "*" || port.parse::<u16>().is_ok())
        };
        for (key, entries) in
            [("services.install_allow", &self.install_allow), ("services.allow_private", &self.allow_private)]
        {
            if !entries.iter().all(is_entry) {
                return Err((key, "expected entries of the form host:port"));
            }
        }
        if self.memory_mb < 64 {
            return Err(("services.memory_mb", "expected at least 64"));
        }
        if !(0.1..=1_024.0).contains(&self.cpus) {
            return Err(("services.cpus", "expected 0.1 to 1024"));
        }
        if self.processes < 16 || self.processes_per_service < 4 {
            return Err(("services.processes", "expected at least 16, and 4 for each service"));
        }
        if cfg!(not(feature = "docker")) && self.host == HostKind::Docker {
            return Err(("services.host", "this build of the broker has no client for Docker"));
        }
        let is_engine = |url: &String| url.starts_with("unix://") || url.starts_with("tcp://");
        if !self.docker.as_ref().is_none_or(is_engine) {
            return Err(("services.docker", "expected unix:///… or tcp://host:port"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_named() {
        let key = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().err().map(|(key, _)| key)
        };
        assert_eq!(key(|_| ()), None);
        assert_eq!(key(|settings| settings.npm_registry = Some("ftp://x".into())), Some("services.npm_registry"));
        assert_eq!(key(|settings| settings.pypi_index = Some("x".into())), Some("services.pypi_index"));
        assert_eq!(key(|settings| settings.install_allow = vec!["x".into()]), Some("services.install_allow"));
        assert_eq!(key(|settings| settings.allow_private = vec![":1".into()]), Some("services.allow_private"));
        assert_eq!(key(|settings| settings.memory_mb = 1), Some("services.memory_mb"));
        assert_eq!(key(|settings| settings.cpus = 0.0), Some("services.cpus"));
        assert_eq!(key(|settings| settings.processes = 1), Some("services.processes"));
        assert_eq!(key(|settings| settings.docker = Some("http://x".into())), Some("services.docker"));
    }
}
