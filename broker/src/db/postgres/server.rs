//! Which server a URL names and how it wants to be spoken to; makes single connections.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::bounded::{Bounded, BoundedTls};
use super::tls::{self, Trust};
use crate::db::DbError;

/// A server, as a URL names it.
#[derive(Clone)]
pub(in crate::db) struct Server {
    config: Arc<Config>,
    tls: Option<MakeRustlsConnect>,
}

impl Server {
    /// Understands libpq's `sslmode` and `sslrootcert` beside what the driver knows.
    pub(in crate::db) fn parse(url: &str) -> Result<Self, DbError> {
        let Options { url, mode, root } = Options::split(url)?;
        let mut config: Config = url
            .parse()
            .map_err(|error: tokio_postgres::Error| DbError::bad_url("address", "a PostgreSQL URL", error))?;
        // As libpq has it: there is no TLS on Unix sockets.
        let local =
            !config.get_hosts().is_empty() && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let (ssl_mode, trust) = match mode.as_deref() {
            _ if local => (SslMode::Disable, None),
            Some("disable") => (SslMode::Disable, None),
            // It falls back to plain anyway, so there is no one to be sure of.
            None | Some("prefer") => (SslMode::Prefer, Some(Trust::Anyone)),
            Some("require") => (SslMode::Require, Some(root.as_ref().map_or(Trust::Anyone, |_| Trust::Chain))),
            Some("verify-ca") => (SslMode::Require, Some(Trust::Chain)),
            Some("verify-full") => (SslMode::Require, Some(Trust::ChainAndName)),
            Some(_) => {
                return Err(DbError::bad_option("sslmode", "disable, prefer, require, verify-ca or verify-full"));
            }
        };
        if root.as_deref() == Some("system") && !matches!(trust, Some(Trust::ChainAndName)) {
            return Err(DbError::bad_option("sslrootcert", "sslmode=verify-full beside `system`"));
        }
        config.ssl_mode(ssl_mode);
        let tls = trust.map(|trust| tls::client(trust, root.as_deref())).transpose()?;
        Ok(Self { config: Arc::new(config), tls: tls.map(MakeRustlsConnect::new) })
    }

    /// Opens one connection with our settings.
    pub(in crate::db) async fn connect(&self) -> Result<AsyncPgConnection, DbError> {
        let conn = match self.open(&self.config).await {
            // `prefer` takes a connection in plain when none over TLS can be had.
            Err(error) if self.config.get_ssl_mode() == SslMode::Prefer && about_tls(&error) => {
                let mut plain = (*self.config).clone();
                self.open(plain.ssl_mode(SslMode::Disable)).await
            }
            opened => opened,
        };
        let mut conn = conn.map_err(|error| tls::error(error.into()))?;
        // A statement that hangs must not hold a connection for ever; nor must a server that vanished without a word hold the
        // locks of a connection. Errors are recognised by their English text; only a superuser may ask for it, so a refusal
        // is no reason to fail.
        conn.batch_execute(
            "SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET TIME ZONE 'UTC'; \
             SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3",
        )
        .await?;
        let _ = conn.batch_execute("SET lc_messages = 'C'").await;
        Ok(conn)
    }

    /// The same server for another user.
    #[cfg(test)]
    pub(super) fn under(&self, user: &str, password: &str) -> Self {
        let mut config = (*self.config).clone();
        config.user(user).password(password);
        Self { config: Arc::new(config), tls: self.tls.clone() }
    }

    /// How it is reached, with the broker's own user.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens one connection as a configuration says, without our settings, whose messages are bounded. The switch says that one
    /// was too large, after which the connection has ended.
    pub(super) async fn open_bounded(
        &self,
        config: &Config,
    ) -> Result<(tokio_postgres::Client, Arc<AtomicBool>), BoundedError> {
        let mut config = config.clone();
        if let Some(tls) = &self.tls {
            let prefer = config.get_ssl_mode() == SslMode::Prefer;
            let too_large = Arc::<AtomicBool>::default();
            let bounded = BoundedTls { tls: tls.clone(), too_large: Arc::clone(&too_large) };
            match config.ssl_mode(SslMode::Require).connect(bounded).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return Ok((client, too_large));
                }
                Err(error) if !(prefer && falls_back(&error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        open_plain(config.ssl_mode(SslMode::Disable)).await
    }

    async fn open(&self, config: &Config) -> Result<AsyncPgConnection, ConnectError> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                Ok(AsyncPgConnection::try_from_client_and_connection(client, connection).await?)
            }
            None => {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
                Ok(AsyncPgConnection::try_from_client_and_connection(client, connection).await?)
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Driver(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Setup(#[from] diesel::ConnectionError),
}

/// Whether another try without TLS makes sense: the handshake failed, or the server lets this user in without TLS only.
fn about_tls(error: &ConnectError) -> bool {
    let ConnectError::Driver(error) = error else { return false };
    falls_back(error)
}

fn falls_back(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) || tls::fault(error).is_some()
}

/// Why a connection with bounded messages cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BoundedError {
    /// The server says no, or speaks in another way.
    #[error(transparent)]
    Driver(#[from] tokio_postgres::Error),
    /// It cannot be reached.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The first host that answers, as the driver looks for it.
async fn open_plain(config: &Config) -> Result<(tokio_postgres::Client, Arc<AtomicBool>), BoundedError> {
    let mut last = std::io::Error::other("the database URL names no host");
    let addresses = config.get_hostaddrs().iter().map(|address| Host::Tcp(address.to_string()));
    let hosts: Vec<Host> = match config.get_hostaddrs() {
        [] => config.get_hosts().to_vec(),
        _ => addresses.collect(),
    };
    let ports = config.get_ports();
    for (number, host) in hosts.iter().enumerate() {
        let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => match TcpStream::connect((name.as_str(), port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return speak(config, stream).await;
                }
                Err(error) => last = error,
            },
            #[cfg(unix)]
            Host::Unix(folder) => match UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await {
                Ok(stream) => return speak(config, stream).await,
                Err(error) => last = error,
            },
        }
    }
    Err(last.into())
}

async fn speak<S>(config: &Config, stream: S) -> Result<(tokio_postgres::Client, Arc<AtomicBool>), BoundedError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let too_large = Arc::<AtomicBool>::default();
    let (client, connection) = config.connect_raw(Bounded::new(stream, &too_large), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok((client, too_large))
}

/// A URL without the two options that the driver does not know, or not all values of.
struct Options<'a> {
    url: Cow<'a, str>,
    mode: Option<String>,
    root: Option<String>,
}

impl<'a> Options<'a> {
    fn split(url: &'a str) -> Result<Self, DbError> {
        // As the driver reads it: credentials end at the first `@`, and a password may hold a `?`.
        let after = url.find('@').map_or(0, |at| at + 1);
        let Some((query_at, _)) = url[after..].match_indices('?').next().map(|(at, mark)| (after + at, mark)) else {
            return Ok(Self { url: url.into(), mode: None, root: None });
        };
        let (mut mode, mut root, mut rest) = (None, None, Vec::new());
        for pair in url[query_at + 1..].split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match key {
                "sslmode" => &mut mode,
                "sslrootcert" => &mut root,
                _ => {
                    rest.push(pair);
                    continue;
                }
            };
            let value = percent_decode_str(value).decode_utf8();
            *slot = Some(value.map_err(|error| DbError::bad_url("options", "UTF-8", error))?.into_owned());
        }
        let base = &url[..query_at];
        let url = if rest.is_empty() { base.into() } else { format!("{base}?{}", rest.join("&")).into() };
        Ok(Self { url, mode, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        Server::parse(url).map_err(|error| error.to_string()).unwrap().config.get_ssl_mode()
    }

    fn refused(url: &str) -> String {
        match Server::parse(url) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{url} is understood"),
        }
    }

    #[test]
    fn sslmode_is_read_as_libpq_reads_it() {
        assert_eq!(mode("postgres://h/db"), SslMode::Prefer);
        assert_eq!(mode("postgres://h/db?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://u:p?sslmode=x@h/db?connect_timeout=3&sslmode=require"), SslMode::Require);
        assert_eq!(mode("postgres:///db?host=/run/postgresql&sslmode=require"), SslMode::Disable);
        for url in ["postgres://h/db?sslmode=allow", "postgres://h/db?sslmode=", "postgres://h/db?sslmode"] {
            let expected = "the database URL's `sslmode`: expected disable, prefer, require, verify-ca or verify-full";
            assert_eq!(refused(url), expected, "{url}");
        }
        let expected = "the database URL's `sslrootcert`: expected sslmode=verify-full beside `system`";
        assert_eq!(refused("postgres://h/db?sslmode=require&sslrootcert=system"), expected);
    }

    #[test]
    fn other_options_reach_the_driver_and_its_complaints_hide_the_password() {
        let server = Server::parse("postgres://u:s@h/db?sslmode=prefer&application_name=x%20y").unwrap();
        assert_eq!(server.config.get_application_name(), Some("x y"));
        assert_eq!(
            refused("postgres://u:secret@h/db?colour=red"),
            "the database URL's `address`: expected a PostgreSQL URL"
        );
    }

    #[test]
    fn a_root_certificate_that_is_none_is_refused_at_once() {
        let expected = "the database URL's `sslrootcert`: expected a file with certificates in PEM";
        assert_eq!(refused("postgres://h/db?sslmode=verify-full&sslrootcert=%2Fdoes%2Fnot%2Fexist.pem"), expected);
        assert_eq!(refused(concat!("postgres://h/db?sslmode=verify-ca&sslrootcert=", file!())), expected);
    }
}
