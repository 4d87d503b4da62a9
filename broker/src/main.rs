//! `claudemesh-broker`: the broker as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use claudemesh_broker::config::{Config, LimitsMode, LogFormat};
use claudemesh_broker::db::{Db, DbOptions};
use claudemesh_broker::{Broker, Deps, http, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives back what this thread has freed. The allocator does so by itself only while it is called, so after a storm of
/// hellos the memory would stay until the next one.
#[expect(unsafe_code, reason = "a foreign function without arguments that matter; safe to call at any time")]
fn give_memory_back() {
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// The claudemesh broker: lets many Claude Code sessions work as one team.
#[derive(Parser)]
#[command(name = "claudemesh-broker", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(Options),
    /// Bring the database up to date and exit.
    Migrate(Options),
    /// Check the configuration and print it with every default.
    CheckConfig(Options),
    /// Make a new operator token, print it once, and forget the old one.
    OperatorToken(Options),
}

#[derive(Args, Clone, Default)]
struct Options {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, env = "CLAUDEMESH_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Unix socket to listen on as well; only the same user can connect to it.
    #[arg(long, env = "CLAUDEMESH_LISTEN_UNIX", value_name = "PATH")]
    listen_unix: Option<PathBuf>,
    /// Address for /metrics; on the usual one it answers this machine only.
    #[arg(long, env = "CLAUDEMESH_METRICS_LISTEN", value_name = "ADDR")]
    metrics_listen: Option<SocketAddr>,
    /// Directory of the embedded database, files and the lock.
    #[arg(long, env = "CLAUDEMESH_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `sqlite:PATH` or `postgres://…`; the SQLite file in the data directory when absent.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Where the bytes of files are kept: `s3://bucket/prefix` or `file:///folder`; the folder `files` in the data directory when
    /// absent.
    #[arg(long, env = "CLAUDEMESH_FILES_URL", value_name = "URL")]
    files_url: Option<String>,
    /// Let clients read files from the bucket itself, by URLs that the broker signs.
    #[arg(long, env = "CLAUDEMESH_FILES_PRESIGN")]
    files_presign: bool,
    /// How the outside reaches this broker, for links: `https://mesh.example.org`.
    #[arg(long, env = "CLAUDEMESH_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// Configuration file (TOML).
    #[arg(long, env = "CLAUDEMESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rate, pair and trace limits: `off` for benchmarks and trusted networks.
    #[arg(long, env = "CLAUDEMESH_LIMITS", value_name = "MODE")]
    limits: Option<LimitsMode>,
    /// HTTP worker threads; one per core when absent.
    #[arg(long, env = "CLAUDEMESH_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Log filter, e.g. `info,claudemesh_broker=debug`.
    #[arg(long, env = "CLAUDEMESH_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look.
    #[arg(long, env = "CLAUDEMESH_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Port alone, as older deployments set it; `--listen` wins.
    #[arg(long, env = "BROKER_PORT", hide = true)]
    broker_port: Option<u16>,
}

impl Options {
    /// Defaults < file < environment < flags (clap has merged the last two).
    fn load(self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::default(),
        };
        if let Some(port) = self.broker_port {
            config.listen.set_port(port);
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(dir) = self.data_dir {
            config.data_dir = dir;
        }
        if let Some(limits) = self.limits {
            config.limits = limits;
        }
        if let Some(filter) = self.log {
            config.log.filter = filter;
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        config.listen_unix = self.listen_unix.or(config.listen_unix);
        config.metrics_listen = self.metrics_listen.or(config.metrics_listen);
        config.database_url = self.database_url.or(config.database_url);
        config.files.url = self.files_url.or(config.files.url);
        config.files.presign |= self.files_presign;
        config.public_url = self.public_url.or(config.public_url);
        config.workers = self.workers.or(config.workers);
        config.validate()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = match cli.command {
        None => serve(cli.options),
        Some(Command::Serve(options)) => serve(options),
        Some(Command::Migrate(options)) => migrate(options),
        Some(Command::CheckConfig(options)) => check_config(options),
        Some(Command::OperatorToken(options)) => operator_token(options),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claudemesh-broker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> anyhow::Result<()> {
    let config = options.load()?;
    telemetry::start(&config.log)?;
    raise_file_limit();
    let system = actix_rt::System::new();
    system.block_on(async move {
        let public = !config.loopback_only();
        let broker = Broker::start(config, Deps { on_quiet: give_memory_back, ..Deps::default() }).await?;
        if public && let Some(token) = &broker.operator_token {
            println!("operator token (shown once, needed to create meshes): {token}");
        }
        println!("listening on {}", broker.ws_url());
        wait_for_signal().await.context("cannot listen for signals")?;
        broker.shutdown().await;
        anyhow::Ok(())
    })
}

/// The soft limit of open files is often 1,024: one socket each, so raise it to what is allowed.
fn raise_file_limit() {
    #[cfg(unix)]
    if let Err(error) = claudemesh_broker::raise_open_file_limit() {
        tracing::warn!(error = %error, "the limit of open files could not be raised");
    }
}

async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

fn migrate(options: Options) -> anyhow::Result<()> {
    let config = options.load()?;
    let applied = block_on(async {
        std::fs::create_dir_all(&config.data_dir)?;
        let db = Db::open(&config.database_url(), DbOptions::default()).await?;
        anyhow::Ok(db.migrate().await?)
    })?;
    match applied.as_slice() {
        [] => println!("the database is up to date"),
        applied => applied.iter().for_each(|version| println!("applied {version}")),
    }
    Ok(())
}

fn check_config(options: Options) -> anyhow::Result<()> {
    let mut config = options.load()?;
    // A URL may hold a password, and configurations are pasted into bug reports.
    config.database_url = config.database_url.map(without_secrets);
    print!("{}", toml::to_string_pretty(&config)?);
    Ok(())
}

/// A database URL without what may stand before its host, and without values of options but those that hold no secret.
fn without_secrets(url: String) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("postgres")) else {
        return url;
    };
    let (hidden, rest) = rest.split_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    let (host, options) = rest.split_once('?').map_or((rest, ""), |(host, options)| (host, options));
    let shown = |pair: &str| match pair.split_once('=') {
        Some((key, _)) if !["sslmode", "sslrootcert", "host", "port", "user", "dbname", "options"].contains(&key) => {
            format!("{key}=…")
        }
        _ => pair.to_owned(),
    };
    let options: Vec<String> = options.split('&').filter(|pair| !pair.is_empty()).map(shown).collect();
    let mark = if options.is_empty() { "" } else { "?" };
    format!("{scheme}://{hidden}{host}{mark}{}", options.join("&"))
}

fn operator_token(options: Options) -> anyhow::Result<()> {
    let config = options.load()?;
    let token = block_on(async {
        std::fs::create_dir_all(&config.data_dir)?;
        let db = Db::open(&config.database_url(), DbOptions::default()).await?;
        db.migrate().await?;
        anyhow::Ok(http::auth::rotate_operator_token(&db).await?)
    })?;
    println!("{token}");
    Ok(())
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn a_printed_database_url_has_no_password_wherever_it_stood() {
        for (url, shown) in [
            ("postgresql://u:secret@db/mesh?sslmode=require", "postgresql://…@db/mesh?sslmode=require"),
            ("postgres:///mesh?host=/run&password=secret", "postgres:///mesh?host=/run&password=…"),
            ("sqlite:/var/lib/at@home.db", "sqlite:/var/lib/at@home.db"),
        ] {
            assert_eq!(without_secrets(url.into()), shown);
        }
    }
}
