//! Settings of the runner, from its environment.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

/// Variables of the runner's environment that services get as they are: where certificates are, and how to write text.
pub(crate) const PASSED_ON: &[&str] = &[
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
];

/// Settings.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `CLAUDEMESH_RUNNER_DIR`: where the folders of services are.
    pub(crate) dir: PathBuf,
    /// `CLAUDEMESH_RUNNER_KEY_FILE`: keeps the runner's key, so that sealed values survive a restart; in memory only when absent.
    pub(crate) key_file: Option<PathBuf>,
    /// `CLAUDEMESH_RUNNER_FIRST_UID`: the first of the users of services.
    pub(crate) first_uid: u32,
    /// `CLAUDEMESH_RUNNER_PING_MS`: how often a server is asked whether it is there.
    pub(crate) ping: Duration,
    /// `CLAUDEMESH_RUNNER_PING_TIMEOUT_MS`: how long it may take to answer that.
    pub(crate) ping_timeout: Duration,
    /// `CLAUDEMESH_RUNNER_BACKOFF_MS`: how long the first restart waits; the second waits twice as long, and so on.
    pub(crate) backoff: Duration,
    /// `CLAUDEMESH_RUNNER_BUDGET_MS`: how long a crash counts.
    pub(crate) budget: Duration,
}

fn number(name: &str, usual: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}: expected a number, not {text:?}")),
        Err(_) => Ok(usual),
    }
}

fn millis(name: &str, usual: u64) -> anyhow::Result<Duration> {
    number(name, usual).map(Duration::from_millis)
}

impl Config {
    /// Reads the environment.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        Ok(Self {
            dir: std::env::var_os("CLAUDEMESH_RUNNER_DIR").map_or_else(|| "/var/lib/claudemesh".into(), PathBuf::from),
            key_file: std::env::var_os("CLAUDEMESH_RUNNER_KEY_FILE").map(PathBuf::from),
            first_uid: u32::try_from(number("CLAUDEMESH_RUNNER_FIRST_UID", 20_000)?)?,
            ping: millis("CLAUDEMESH_RUNNER_PING_MS", 30_000)?,
            ping_timeout: millis("CLAUDEMESH_RUNNER_PING_TIMEOUT_MS", 10_000)?,
            backoff: millis("CLAUDEMESH_RUNNER_BACKOFF_MS", 1_000)?,
            budget: millis("CLAUDEMESH_RUNNER_BUDGET_MS", 600_000)?,
        })
    }
}
